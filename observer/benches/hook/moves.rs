//! Nanoseconds of CPU time a migration, as the kernel counts them, beside an empty program's: a process is moved to and fro between two CPUs.

use std::time::{Duration, Instant};

use aya::sys::{Stats, enable_stats};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::beside::{Counted, Result};
use crate::load::{CPU, Load};
use crate::turns::beside_empty;

const HOOK: &str = "sched_migrate_task";

/// Many and short, so that some are undisturbed.
const ROUNDS: usize = 15;
const SPAN: Duration = Duration::from_millis(200);

pub(crate) fn run() -> Result<()> {
    let _stats = enable_stats(Stats::RunTime)?;
    beside_empty("ns a migration", (HOOK, HOOK), ROUNDS, each)
}

/// Lets a process be moved. Returns what each move cost.
fn each(count: &dyn Fn() -> Result<Counted>) -> Result<f64> {
    let load = Load::spinner()?;
    let pid = load.pids().next().and_then(|pid| Pid::from_raw(pid.cast_signed())).ok_or("no process")?;
    let before = count()?;
    let began = Instant::now();
    for cpu in (CPU..CPU + 2).cycle().take_while(|_| began.elapsed() < SPAN) {
        let mut cpus = CpuSet::new();
        cpus.set(cpu as usize);
        sched_setaffinity(Some(pid), &cpus)?;
    }
    Ok(count()?.since(before).each())
}

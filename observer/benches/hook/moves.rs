//! Nanoseconds of CPU time a migration, as the kernel counts them, beside an empty program's: a process is moved to and fro between two CPUs.

use std::time::{Duration, Instant};

use aya::sys::{Stats, enable_stats};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::beside::{Counted, Empty, Result, counted, median, range};
use crate::load::{CPU, Load};
use crate::observer;

const HOOK: &str = "sched_migrate_task";

/// Many and short, so that some are undisturbed.
const ROUNDS: usize = 15;
const SPAN: Duration = Duration::from_millis(200);

pub(crate) fn run() -> Result<()> {
    let _stats = enable_stats(Stats::RunTime)?;
    let (mut empty, mut hook) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        // One at a time, who is first alternates: see `cost`.
        for first in [true, false] {
            if first == round.is_multiple_of(2) {
                let program = Empty::attach(HOOK)?;
                empty.push(each(|| program.counted())?);
            } else {
                let programs = observer()?;
                hook.push(each(|| counted(&programs, HOOK))?);
            }
        }
    }
    let net: Vec<f64> = hook.iter().zip(&empty).map(|(hook, empty)| hook - empty).collect();
    println!("{:<36} {:>9} {:>9}", "ns a migration", "median", "least");
    for (name, times) in [("empty", empty), ("observer", hook), ("net", net)] {
        println!("{name:<36} {:9.1} {:9.1}", median(&times), range(&times).0);
    }
    println!();
    Ok(())
}

/// Lets a process be moved. Returns what each move cost.
fn each(count: impl Fn() -> Result<Counted>) -> Result<f64> {
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

//! What counting page allocations costs, beside an empty program on the same hook in the same run: nanoseconds an allocation, as the kernel
//! counts them, and the CPU time of a loop of page faults. Needs root; `cargo xtask bench pages`. Budgets: 12 ns net, 4 % of the loop.

use std::process::ExitCode;

use aya::sys::{Stats, enable_stats};
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

use self::beside::{Counted, Result};
use self::turns::{Turns, beside_empty};

mod beside;
mod turns;

const HOOK: &str = "mm_page_alloc";

/// Many and short, as the machine is not this program's alone; more where differences are small.
const ROUNDS: usize = 25;
const ROUNDS_PAID: usize = 400;
/// Memory that is touched in one, and how often.
const BYTES: usize = 32 << 20;
const TIMES: usize = 8;
const TIMES_PAID: usize = 1;
const PAGE: usize = 4096;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pages bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut cpu = CpuSet::new();
    cpu.set(0);
    sched_setaffinity(None, &cpu)?;
    each_allocation()?;
    paid()
}

/// Nanoseconds an allocation.
fn each_allocation() -> Result<()> {
    let _stats = enable_stats(Stats::RunTime)?;
    beside_empty("ns an allocation", (HOOK, "page_alloc"), ROUNDS, each)
}

/// Lets pages be allocated. Returns what each cost.
fn each(count: &dyn Fn() -> Result<Counted>) -> Result<f64> {
    touch(TIMES);
    let before = count()?;
    touch(TIMES);
    Ok(count()?.since(before).each())
}

/// CPU time of a page fault; the kernel's statistics are off.
fn paid() -> Result<()> {
    let mut turns = Turns::load(HOOK)?;
    for _ in 0..ROUNDS_PAID {
        turns.round(|| Ok(touch(TIMES_PAID)))?;
    }
    turns.print("CPU time, ns a page fault");
    Ok(())
}

/// Maps memory and touches each page of it, again and again. Returns the CPU time in nanoseconds a page.
fn touch(times: usize) -> f64 {
    let began = clock_gettime(ClockId::ThreadCPUTime);
    for _ in 0..times {
        let mut memory = vec![0u8; BYTES];
        memory.chunks_mut(PAGE).for_each(|page| page[0] = 1);
        std::hint::black_box(&memory);
    }
    let ended = clock_gettime(ClockId::ThreadCPUTime);
    let ns = (ended.tv_sec - began.tv_sec) as f64 * 1e9 + (ended.tv_nsec - began.tv_nsec) as f64;
    ns / (BYTES / PAGE * times) as f64
}

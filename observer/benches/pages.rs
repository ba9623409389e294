//! What counting page allocations costs, beside an empty program on the same hook in the same run: nanoseconds an allocation, as the kernel
//! counts them, and the CPU time of a loop of page faults. Needs root; `cargo xtask bench pages`. Budgets: 12 ns net, 4 % of the loop.

use std::any::Any;
use std::process::ExitCode;

use aya::sys::{Stats, enable_stats};
use observer::collect::bpf::loader::Programs;
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

use self::beside::{Counted, Empty, Result, counted, median, range};

mod beside;

const HOOK: &str = "mm_page_alloc";

/// Many and short, as the machine is not this program's alone; more where differences are small.
const ROUNDS: usize = 25;
const ROUNDS_PAID: usize = 75;
/// Memory that is touched in one, and how often.
const BYTES: usize = 32 << 20;
const TIMES: usize = 8;
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
    let (mut empty, mut hook) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        // One at a time: two programs on one hook warm each other's caches. Who is first alternates.
        for first in [true, false] {
            if first == round.is_multiple_of(2) {
                let program = Empty::attach(HOOK)?;
                empty.push(each(|| program.counted())?);
            } else {
                let programs = observer()?;
                hook.push(each(|| counted(&programs, "page_alloc"))?);
            }
        }
    }
    let net: Vec<f64> = hook.iter().zip(&empty).map(|(hook, empty)| hook - empty).collect();
    println!("{:<36} {:>9} {:>9}", "ns an allocation", "median", "least");
    for (name, times) in [("empty", empty), ("observer", hook), ("net", net)] {
        println!("{name:<36} {:9.1} {:9.1}", median(&times), range(&times).0);
    }
    println!();
    Ok(())
}

/// Lets pages be allocated. Returns what each cost.
fn each(count: impl Fn() -> Result<Counted>) -> Result<f64> {
    touch();
    let before = count()?;
    touch();
    Ok(count()?.since(before).each())
}

/// CPU time of a page fault; the kernel's statistics are off.
fn paid() -> Result<()> {
    type Attach = fn() -> Result<Box<dyn Any>>;
    const WAYS: [(&str, Attach); 3] = [
        ("off", || Ok(Box::new(()))),
        ("empty", || Ok(Box::new(Empty::attach(HOOK)?))),
        ("observer", || Ok(Box::new(observer()?))),
    ];
    let mut times = WAYS.map(|_| Vec::new());
    for round in 0..ROUNDS_PAID {
        // Who is first rotates.
        for step in 0..WAYS.len() {
            let way = (round + step) % WAYS.len();
            let _attached = WAYS[way].1()?;
            touch();
            times[way].push(touch());
        }
    }
    println!("{:<36} {:>9} {:>9} {:>9}", "CPU time, ns a page fault", "median", "paired", "of least");
    for ((name, _), all) in WAYS.iter().zip(&times) {
        let more: Vec<f64> = all.iter().zip(&times[0]).map(|(time, off)| (time / off - 1.0) * 100.0).collect();
        let of_least = (range(all).0 / range(&times[0]).0 - 1.0) * 100.0;
        println!("{name:<36} {:9.1} {:>+7.1} % {of_least:>+7.1} %", median(all), median(&more));
    }
    Ok(())
}

/// Maps memory and touches each page of it, again and again. Returns the CPU time in nanoseconds a page.
fn touch() -> f64 {
    let began = clock_gettime(ClockId::ThreadCPUTime);
    for _ in 0..TIMES {
        let mut memory = vec![0u8; BYTES];
        memory.chunks_mut(PAGE).for_each(|page| page[0] = 1);
        std::hint::black_box(&memory);
    }
    let ended = clock_gettime(ClockId::ThreadCPUTime);
    let ns = (ended.tv_sec - began.tv_sec) as f64 * 1e9 + (ended.tv_nsec - began.tv_nsec) as f64;
    ns / (BYTES / PAGE * TIMES) as f64
}

fn observer() -> Result<Programs> {
    let programs = beside::observer()?;
    programs.memory.as_ref().map_err(ToString::to_string)?;
    Ok(programs)
}

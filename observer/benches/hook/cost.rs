//! Nanoseconds of CPU time a `sched_switch`, as the kernel counts them (`BPF_ENABLE_STATS`), beside an empty program's.

use std::time::{Duration, Instant};

use aya::sys::{Stats, enable_stats};
use observer::collect::bpf::loader::Programs;
use observer::collect::bpf::sched::Entry;

use crate::beside::{Attached, Empty, Result, alternate, counted, median, range};
use crate::load::{CPU, Cgroup, Load};
use crate::{HOOK, observer};

/// Many and short, so that some are undisturbed.
const ROUNDS: usize = 15;
const SPAN: Duration = Duration::from_millis(100);
/// Members of the storm.
const MANY: usize = 24;

/// A load, and what it asks of the hook.
struct Case {
    name: &'static str,
    start: fn(&[Cgroup]) -> Result<Load>,
    /// Is the first cgroup split by process?
    in_focus: bool,
}

const CASES: [Case; 5] = [
    Case { name: "pair in one cgroup", start: |_| Load::relay(&[None, None], u64::MAX), in_focus: false },
    Case { name: "pair in two cgroups", start: pair, in_focus: false },
    Case {
        name: "pair in one cgroup, by process",
        start: |cgroups| Load::relay(&[cgroups.first(), cgroups.first()], u64::MAX),
        in_focus: true,
    },
    Case {
        name: "storm of 24 in 24 cgroups",
        start: |cgroups| Load::storm(&cgroups.iter().map(Some).collect::<Vec<_>>()),
        in_focus: false,
    },
    Case {
        name: "pair in two cgroups, and a spinner",
        start: |cgroups| pair(cgroups)?.beside_spinner(cgroups.get(2)),
        in_focus: false,
    },
];

/// What was measured of a case, by round.
#[derive(Default)]
struct Rounds {
    empty: Vec<f64>,
    hook: Vec<f64>,
    rate: Vec<f64>,
    waiting: Vec<f64>,
}

pub(crate) fn run() -> Result<()> {
    let _stats = enable_stats(Stats::RunTime)?;
    let cgroups = Cgroup::make(MANY)?;
    let mut measured = CASES.each_ref().map(|_| Rounds::default());
    alternate(ROUNDS, HOOK, |mut attached| {
        for (case, rounds) in CASES.iter().zip(&mut measured) {
            match &mut attached {
                Attached::Empty(empty) => rounds.empty.push(case.empty(&cgroups, empty)?),
                Attached::Observer(programs) => case.hook(&cgroups, programs, rounds)?,
            }
        }
        Ok(())
    })?;
    println!(
        "{:<36} {:>7} {:>9} {:>7} {:>7} {:>13} {:>9} {:>11} {:>8}",
        "ns a switch, medians", "empty", "observer", "net", "ratio", "least–most", "of least", "switches/s", "waiting"
    );
    for (case, rounds) in CASES.iter().zip(measured) {
        rounds.print(case.name);
    }
    println!("of least: the least of observer beside the least of empty, each the least disturbed");
    println!("waiting: tasks that waited while one ran, on average; each wait is divided among so many runs, and more\n");
    reading()
}

fn pair(cgroups: &[Cgroup]) -> Result<Load> {
    Load::relay(&[cgroups.first(), cgroups.get(1)], u64::MAX)
}

impl Case {
    fn empty(&self, cgroups: &[Cgroup], empty: &Empty) -> Result<f64> {
        let _load = (self.start)(cgroups)?;
        let before = empty.counted()?;
        std::thread::sleep(SPAN);
        Ok(empty.counted()?.since(before).each())
    }

    fn hook(&self, cgroups: &[Cgroup], programs: &mut Programs, rounds: &mut Rounds) -> Result<()> {
        let split: Vec<_> = cgroups.iter().take(usize::from(self.in_focus)).map(|cgroup| cgroup.key).collect();
        programs.sched.focus(&split);
        let load = (self.start)(cgroups)?;
        // What was before goes.
        read(programs)?;
        let began = Instant::now();
        let before = counted(programs, HOOK)?;
        std::thread::sleep(SPAN);
        let counted = counted(programs, HOOK)?.since(before);
        rounds.hook.push(counted.each());
        rounds.rate.push(counted.runs as f64 / began.elapsed().as_secs_f64());
        rounds.waiting.push(read(programs)?);
        drop(load);
        Ok(())
    }
}

/// Reads the tables. Returns how many waited while one ran on the load's CPU, on average.
fn read(programs: &mut Programs) -> Result<f64> {
    programs.sched.turn(&mut |_, _| {});
    programs.sched.wait()?;
    let (mut run, mut wait) = (0, 0);
    programs.sched.drain(&mut |cpu, entry| {
        if let Entry::Slot(slot) = entry
            && cpu == CPU
        {
            run += slot.run;
            wait += slot.wait;
        }
    });
    Ok(wait as f64 / run as f64)
}

impl Rounds {
    fn print(self, name: &str) {
        let ratios: Vec<f64> = self.hook.iter().zip(&self.empty).map(|(hook, empty)| hook / empty).collect();
        let (least, most) = range(&ratios);
        let of_least = range(&self.hook).0 / range(&self.empty).0;
        let (empty, hook) = (median(&self.empty), median(&self.hook));
        println!(
            "{name:<36} {empty:7.1} {hook:9.1} {:7.1} {:7.2} {:>13} {of_least:9.2} {:11.0} {:8.1}",
            hook - empty,
            median(&ratios),
            format!("{least:.2}–{most:.2}"),
            median(&self.rate),
            median(&self.waiting)
        );
    }
}

/// What it costs to load the programs and to read their tables.
fn reading() -> Result<()> {
    let began = Instant::now();
    let mut programs = observer()?;
    println!("load and attach: {:.0} ms", began.elapsed().as_secs_f64() * 1e3);
    if let Some(verified) = programs.verified() {
        println!("the verifier walked {verified} instructions");
    }
    let mut reads = Vec::new();
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(20));
        programs.sched.turn(&mut |_, _| {});
        programs.sched.wait()?;
        let began = Instant::now();
        programs.sched.drain(&mut |_, _| {});
        reads.push(began.elapsed().as_secs_f64() * 1e6);
    }
    println!("reading all tables ({} bytes): median {:.1} µs\n", programs.sched.bytes(), median(&reads));
    Ok(())
}

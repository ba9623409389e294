//! The scheduler hook under what is hard to count: storms of switches, of processes and of migrations, and what has not ended yet.

use std::fs;
use std::time::Duration;

use observer::collect::{Collector, Roots};
use observer::model::{Open, Sample, Sched};

use super::Test;
use super::cgroups::TestCgroup;
use super::launcher::{Launcher, Truth};
use super::sched::{Window, collector, cpus, difference, load, row, sched, untraced, v2};

/// All tests of this kind.
pub(crate) fn trials() -> Vec<Test> {
    vec![
        ("storms::waits_before_migrations_are_told", waits_before_migrations_are_told),
        ("storms::every_switch_of_a_storm_is_there", every_switch_of_a_storm_is_there),
        ("storms::what_goes_on_is_counted_once", what_goes_on_is_counted_once),
        ("storms::interrupts_are_booked_like_steal", interrupts_are_booked_like_steal),
        ("storms::a_fork_storm_is_booked_whole", a_fork_storm_is_booked_whole),
    ]
}

/// A task that waits in vain is thrown to another CPU's queue, again and again.
fn waits_before_migrations_are_told() -> Result<String, String> {
    if cpus() < 2 {
        return Ok("not exercised: one CPU".into());
    }
    let outside = TestCgroup::new(&v2()?, "thrower").map_err(|error| error.to_string())?;
    let mut throwers = Launcher::start(outside.directory(), None)?;
    let cell = std::cell::RefCell::new(&mut throwers);
    let window = Window::of(&v2()?, None, |launcher| {
        let pids: Vec<u32> = (0..5).map(|_| launcher.work("spin 1500")).collect::<Result<_, _>>()?;
        cell.borrow_mut().work(&format!("throw {} 1300", pids[0]))?;
        Ok(pids)
    })?;
    throwers.reap()?;
    let booked = window.booked()?;
    if window.counted.migrated == 0 { Err(format!("no migration: {booked}")) } else { Ok(booked) }
}

/// A million switches between two tasks: none of them may be missing, nor any on the machine.
fn every_switch_of_a_storm_is_there() -> Result<String, String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let fifos = ["there", "back"].map(|name| folder.path().join(name));
    for fifo in &fifos {
        let made = std::process::Command::new("mkfifo").arg(fifo).status().map_err(|error| format!("mkfifo: {error}"))?;
        if !made.success() {
            return Err(format!("mkfifo: {made}"));
        }
    }
    let turns = load(500_000);
    let [there, back] = fifos.map(|fifo| fifo.display().to_string());
    let window = Window::of(&v2()?, Some(0), |launcher| {
        Ok(vec![launcher.work(&format!("answer {there} {back}"))?, launcher.work(&format!("ask {there} {back} {turns}"))?])
    })?;
    let exactly = window.exactly()?;
    let (ended, (least, most)) = (window.machine.preempted + window.machine.voluntary, window.switches);
    let said = format!("{exactly}; {ended} runs ended on the machine, ctxt grew by {least} to {most}");
    // Beyond ours the kernel counts switches away from the idle tasks, each of which brings a dispatch.
    if window.counted.runs < 2 * turns || ended > most || least > ended + window.machine.runs { Err(said) } else { Ok(said) }
}

/// Spinners in turn on one CPU are looked at all the time: what they have run and waited never goes backwards, it is told before it ends,
/// and at the end it is what has ended, once.
fn what_goes_on_is_counted_once() -> Result<String, String> {
    let cgroup = TestCgroup::new(&v2()?, "open").map_err(|error| error.to_string())?;
    let mut collector = collector()?;
    let mut launcher = Launcher::start(cgroup.directory(), Some(0))?;
    let before = launcher.quiet()?;
    let first = sched(&collector.collect(), &cgroup.path())?;
    let pids: Vec<u32> = (0..3).map(|_| launcher.work("spin 1500")).collect::<Result<_, _>>()?;
    let both = |sched: &Sched| (sched.run + sched.open.run, sched.latency.sum + sched.open.wait.unwrap_or(0));
    let (mut last, mut most, mut samples) = (first.clone(), Open::default(), 0);
    while !launcher.is_zombie(pids[0])? || !launcher.is_zombie(pids[1])? || !launcher.is_zombie(pids[2])? {
        std::thread::sleep(Duration::from_millis(20));
        let now = sched(&collector.collect(), &cgroup.path())?;
        if both(&now).0 < both(&last).0 || both(&now).1 < both(&last).1 {
            return Err(format!("{:?} after {:?}", both(&now), both(&last)));
        }
        most.run = most.run.max(now.open.run);
        most.wait = most.wait.max(now.open.wait);
        (last, samples) = (now, samples + 1);
    }
    let mut truth = Truth::default();
    for pid in pids {
        truth.add(launcher.finished(pid)?);
    }
    truth.add(launcher.quiet()?.since(before));
    collector.collect();
    let sample = collector.collect();
    let end = sched(&sample, &cgroup.path())?;
    launcher.reap()?;
    let waited = end.latency.sum - first.latency.sum;
    let said = format!("{samples} samples, at the most {most:?} at a time; {waited} of {} ns waited", truth.run_delay);
    let is_over = end.open == Open { run: 0, wait: Some(0), throttled: end.open.throttled };
    if !is_over || waited > truth.run_delay || most.run == 0 || most.wait.unwrap_or(0) == 0 { Err(said) } else { Ok(said) }
}

/// No kernel here accounts interrupts. The hook is told that their clock is where the hypervisor's is: then both must come out the same,
/// which holds the one's arithmetic to the other's.
fn interrupts_are_booked_like_steal() -> Result<String, String> {
    let mut collector = Collector::new(Roots::default());
    collector.attach_with(|offsets| offsets.rq_interrupt = offsets.rq_steal);
    let was = collector.collect();
    let cgroup = TestCgroup::new(&v2()?, "clocks").map_err(|error| error.to_string())?;
    let mut launcher = Launcher::start(cgroup.directory(), None)?;
    let pids: Vec<u32> = (0..cpus() + 1).map(|_| launcher.work("spin 1000")).collect::<Result<_, _>>()?;
    for pid in pids {
        launcher.finished(pid)?;
    }
    let is = collector.collect();
    launcher.reap()?;
    let taken = |sample: &Sample, path: &str| -> Result<(u64, u64), String> {
        let sched = sched(sample, path)?;
        sched.steal.zip(sched.interrupt).ok_or(format!("{path}: one of the clocks is unknown"))
    };
    if sched(&was, "/")?.steal.is_none() {
        return Ok("not exercised: this kernel has no clock of steal".into());
    }
    for path in ["/", &cgroup.path()] {
        let (steal, interrupt) = taken(&is, path)?;
        if steal != interrupt {
            return Err(format!("{path}: {steal} ns stolen, {interrupt} ns of interrupts"));
        }
    }
    let blamed =
        |culprit: &str| -> u64 { is.contentions.iter().filter(|row| row.culprit_name() == culprit).map(|row| row.time).sum() };
    let (steal, _) = taken(&is, "/")?;
    Ok(format!("{steal} ns of both; {} and {} ns blamed on them", blamed("~hypervisor"), blamed("~interrupt")))
}

/// Thousands of processes that live for a moment on all CPUs, in a cgroup that is split by process: more than a table has room for.
/// Every one of them tells its `run_delay` when it ends, to a sum that the hook keeps apart from the waits.
fn a_fork_storm_is_booked_whole() -> Result<String, String> {
    let each = load(5_000);
    let cgroup = TestCgroup::new(&v2()?, "forks").map_err(|error| error.to_string())?;
    let mut collector = collector()?;
    let mut launcher = Launcher::start(cgroup.directory(), None)?;
    let id = row(&collector.collect(), &cgroup.path())?.id;
    collector.focus(vec![id]);
    let before = launcher.quiet()?;
    let was = collector.collect();
    let memory = resident()?;
    let pids: Vec<u32> = (0..4).map(|_| launcher.work(&format!("short {each}"))).collect::<Result<_, _>>()?;
    for pid in pids {
        while !launcher.is_zombie(pid)? {
            std::thread::sleep(Duration::from_millis(100));
            collector.collect();
        }
        launcher.finished(pid)?;
    }
    let launcher_waited = launcher.quiet()?.since(before).run_delay;
    let is = collector.collect();
    let grown = resident()?.saturating_sub(memory);
    launcher.reap()?;
    let counted = difference(&*sched(&is, &cgroup.path())?, &*sched(&was, &cgroup.path())?)?;
    let kernels = counted.exited + launcher_waited;
    let booked = counted.latency.sum + counted.migrated;
    let other = row(&is, "~other").map_or(0, |row| row.sched.as_ref().map_or(0, |sched| sched.runs));
    let said = format!(
        "{} processes, {} dispatches, {booked} of {kernels} ns, {other} runs in ~other, {} before a migration; {} pairs, {grown} bytes more",
        4 * each,
        counted.runs,
        counted.migrated,
        is.contentions.len()
    );
    let lost = untraced(&is) - untraced(&was);
    let is_whole = booked.abs_diff(kernels) * 500 <= kernels || (lost > 0 && booked <= kernels);
    if counted.voluntary < 4 * each || !is_whole || grown > 8 << 20 || other > 0 { Err(said) } else { Ok(said) }
}

/// Memory that this process has for itself, in bytes (`RssAnon`).
pub(crate) fn resident() -> Result<u64, String> {
    let status = fs::read_to_string("/proc/self/status").map_err(|error| error.to_string())?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).ok_or("no RssAnon")?;
    line.trim().trim_end_matches(" kB").parse::<u64>().map(|kib| kib << 10).map_err(|error| error.to_string())
}

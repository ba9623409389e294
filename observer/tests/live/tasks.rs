//! The task iterator against `/proc`, and the rows that are made of it.
//!
//! Numbers are compared while the tasks rest: a worker that has done its work sleeps, and nothing about it changes.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use observer::collect::{Collector, Roots};
use observer::model::{Process, Sample, State, Status, Thread};
use observer_common::sched::Key;
use observer_common::tasks::Task;

use super::Test;
use super::cgroups::{TestCgroup, cpu_root, v2_root};
use super::launcher::{Launcher, Truth};
use super::program::kill;
use super::sched::share;

/// All tests of this family.
pub(crate) fn trials() -> Vec<Test> {
    vec![
        ("tasks::every_field_agrees_with_proc", every_field_agrees_with_proc),
        ("tasks::proc_gives_the_same_rows", proc_gives_the_same_rows),
        ("tasks::every_thread_is_there_once", every_thread_is_there_once),
        ("tasks::counters_survive_the_threads", counters_survive_the_threads),
        ("tasks::a_wait_that_goes_on_is_pending", a_wait_that_goes_on_is_pending),
        ("tasks::names_are_escaped_and_known", names_are_escaped_and_known),
    ]
}

fn collector() -> Result<Collector, String> {
    let mut collector = Collector::new(Roots::default());
    collector.attach();
    let sample = collector.collect();
    match state(&sample)? {
        State::On => Ok(collector),
        state => Err(format!("the task iterator is not on: {state:?}")),
    }
}

fn state(sample: &Sample) -> Result<State, String> {
    let source = sample.sources.iter().find(|source| source.name == "tasks").ok_or("no health of tasks")?;
    Ok(source.state.clone())
}

/// Workers in a cgroup, ended with this.
pub(crate) struct Workers {
    pids: Vec<u32>,
    launcher: Launcher,
    cgroup: TestCgroup,
}

impl Workers {
    pub(crate) fn start(cgroup: TestCgroup, cpu: Option<usize>, roles: &[&str]) -> Result<Workers, String> {
        let launcher = Launcher::start(cgroup.directory(), cpu)?;
        let mut workers = Workers { pids: Vec::new(), launcher, cgroup };
        for role in roles {
            workers.pids.push(workers.launcher.work(role)?);
        }
        Ok(workers)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for pid in &self.pids {
            let _ = kill(*pid);
        }
        let _ = self.launcher.reap();
    }
}

/// A cgroup of each hierarchy that is here.
fn cgroups() -> Result<Vec<TestCgroup>, String> {
    let roots = [v2_root(), cpu_root()];
    roots.into_iter().flatten().map(|root| TestCgroup::new(&root, "tasks").map_err(|error| error.to_string())).collect()
}

fn process(sample: &Sample, pid: u32) -> Result<&Process, String> {
    sample.processes.iter().find(|process| process.pid == pid).ok_or(format!("no row of process {pid}"))
}

fn thread(sample: &Sample, tid: u32) -> Result<&Thread, String> {
    sample.threads.iter().find(|thread| thread.tid == tid).ok_or(format!("no row of thread {tid}"))
}

/// Collects until a process rests: it sleeps, and between two samples nothing of it changed.
fn at_rest(collector: &mut Collector, pid: u32) -> Result<Sample, String> {
    let mut before: Option<Process> = None;
    for _ in 0..500 {
        let sample = collector.collect();
        let now = process(&sample, pid)?.clone();
        // Not on the way to its first sleep: it must have worked.
        let worked = now.counts.voluntary > Some(100 / share());
        if worked && now.status == Some(Status::Sleeping) && before.as_ref() == Some(&now) {
            return Ok(sample);
        }
        before = Some(now);
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(format!("process {pid} does not come to rest"))
}

/// What `/proc/PID/stat` says: everything after the name.
fn stat(pid: u32) -> Result<Vec<String>, String> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).map_err(|error| format!("/proc/{pid}/stat: {error}"))?;
    let rest = text.rsplit_once(')').ok_or("stat without a name")?.1;
    Ok(rest.split_whitespace().map(str::to_owned).collect())
}

#[expect(clippy::needless_pass_by_value, reason = "calls read like the comparison that they are")]
fn same<T: PartialEq + std::fmt::Debug>(what: &str, ours: T, kernels: T) -> Result<(), String> {
    if ours == kernels { Ok(()) } else { Err(format!("{what}: {ours:?}, the kernel says {kernels:?}")) }
}

fn near(what: &str, ours: u64, kernels: u64, slack: u64) -> Result<(), String> {
    if ours.abs_diff(kernels) <= slack { Ok(()) } else { Err(format!("{what}: {ours}, the kernel says {kernels}")) }
}

const TICK: u64 = 10_000_000;

fn every_field_agrees_with_proc() -> Result<String, String> {
    let mut collector = collector()?;
    let mut compared = 0;
    for cgroup in cgroups()? {
        let of_v1 = cpu_root().is_some_and(|root| cgroup.directory().starts_with(root));
        let workers = Workers::start(cgroup, None, &["rest 300", "rest 200"])?;
        for pid in &workers.pids {
            let sample = at_rest(&mut collector, *pid)?;
            let record = *collector.tasks().iter().find(|task| task.pid == *pid).ok_or("no record")?;
            fields(&record, &workers, of_v1)?;
            rows(&sample, &record, &workers)?;
            compared += 1;
        }
    }
    Ok(format!("{compared} workers, to the last nanosecond"))
}

/// Every field of the raw record.
fn fields(record: &Task, workers: &Workers, of_v1: bool) -> Result<(), String> {
    let pid = record.pid;
    let (stat, truth) = (stat(pid)?, Truth::of(pid)?);
    // The first is the third field of the file.
    let field = |number: usize| stat[number - 3].parse::<u64>().map_err(|error| format!("field {number} of stat: {error}"));
    same("tgid", record.tgid, pid)?;
    same("ppid", record.ppid, workers.launcher.pid())?;
    same("ppid in stat", u64::from(record.ppid), field(4)?)?;
    same("flags", u64::from(record.flags), field(9)?)?;
    same("state", (record.state & 0xff, stat[0].as_str()), (1, "S"))?;
    same("exit state, on CPU, queued", (record.exit_state, record.on_cpu, record.last_queued), (0, 0, 0))?;
    same("CPU", u64::from(record.cpu), field(39)?)?;
    same("user", record.uid, fs::metadata(format!("/proc/{pid}")).map_err(|error| error.to_string())?.uid())?;
    same("priority", u64::from(record.prio), field(18)? + 100)?;
    let comm = fs::read(format!("/proc/{pid}/comm")).map_err(|error| error.to_string())?;
    let name = observer_common::tasks::comm_bytes(record.comm);
    let end = name.iter().position(|byte| *byte == 0).ok_or("a name without an end")?;
    same("name", &name[..end], comm.trim_ascii_end())?;
    same("starts", record.start_time, record.leader_start)?;
    // The file counts suspended time, too; a machine that never slept has none.
    near("start", record.start_time, field(22)? * TICK, 2 * TICK + suspended()?)?;
    same("run time", record.sum_exec_runtime, truth.exec)?;
    same("wait", record.run_delay, truth.run_delay)?;
    same("dispatches", record.pcount, truth.pcount)?;
    same("voluntary", record.nvcsw, truth.voluntary)?;
    same("preempted", record.nivcsw, truth.preempted)?;
    let key = workers.cgroup.id().map_err(|error| error.to_string())?;
    same("cgroup", Key(record.key), if of_v1 { Key::cpu(key) } else { Key::v2(key) })?;
    same("throttled", record.throttled_since, 0)?;
    same(
        "of dead threads",
        [record.dead_runtime, record.dead_utime, record.dead_stime, record.dead_nvcsw, record.dead_nivcsw],
        [0; 5],
    )?;
    if record.last_arrival == 0 || record.last_arrival > record.clock {
        return Err(format!("dispatched at {}, and its clock shows {}", record.last_arrival, record.clock));
    }
    if let Some(migrations) = migrations(pid) {
        same("migrations", record.nr_migrations, migrations)?;
    }
    Ok(())
}

/// Nanoseconds that the machine was suspended: the difference of two clocks.
fn suspended() -> Result<u64, String> {
    let clock = |id| {
        let time = rustix::time::clock_gettime(id);
        time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
    };
    let monotonic = clock(rustix::time::ClockId::Monotonic);
    Ok(clock(rustix::time::ClockId::Boottime).saturating_sub(monotonic))
}

/// Not every kernel has this file.
fn migrations(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/sched")).ok()?;
    let line = text.lines().find(|line| line.starts_with("se.nr_migrations"))?;
    line.rsplit(':').next()?.trim().parse().ok()
}

/// The rows that are made of the record.
fn rows(sample: &Sample, record: &Task, workers: &Workers) -> Result<(), String> {
    let (process, thread) = (process(sample, record.pid)?, thread(sample, record.pid)?);
    let path = workers.cgroup.path();
    same("row's cgroup", (process.cgroup.as_deref(), thread.cgroup.as_deref()), (Some(&*path), Some(&*path)))?;
    same("row's counters", process.counts, thread.counts)?;
    same("row's run time", process.counts.run, Some(record.sum_exec_runtime))?;
    same("row's wait", process.counts.wait, Some(record.run_delay))?;
    same("row's pending wait", (process.pending, thread.pending), (Some(0), Some(0)))?;
    same("row's threads", process.threads, 1)?;
    let (user, system) = process.counts.user.zip(process.counts.system).ok_or("no CPU time by mode")?;
    same("user and system", user + system, record.sum_exec_runtime)?;
    let stat = stat(record.pid)?;
    let ticks = |at: usize| stat[at - 3].parse::<u64>().map(|ticks| ticks * TICK).map_err(|error| error.to_string());
    // Both sides keep what they showed before from going back, but did not look at the same moments.
    near("user", user, ticks(14)?, 5 * TICK)?;
    near("system", system, ticks(15)?, 5 * TICK)
}

/// What `/proc` tells of a resting process is what the iterator tells.
fn proc_gives_the_same_rows() -> Result<String, String> {
    let cgroup = cgroups()?.pop().ok_or("no cgroup hierarchy is mounted")?;
    let workers = Workers::start(cgroup, None, &["rest 200"])?;
    let pid = workers.pids[0];
    let with = at_rest(&mut collector()?, pid)?;
    let without = Collector::new(Roots::default()).collect();
    match state(&without)? {
        State::Degraded(reason) if reason.contains("--no-bpf") => {}
        state => return Err(format!("without eBPF: {state:?}")),
    }
    let (with, without) = (process(&with, pid)?, process(&without, pid)?);
    let (mut expected, mut found) = (with.clone(), without.clone());
    // Unknown there, or by the ticks.
    (expected.pending, expected.counts.migrations) = (None, None);
    near("start", found.start, expected.start, 2 * TICK + suspended()?)?;
    expected.start = found.start;
    for (what, ours, kernels) in
        [("user", expected.counts.user, found.counts.user), ("system", expected.counts.system, found.counts.system)]
    {
        near(what, ours.unwrap_or(0), kernels.unwrap_or(0), 5 * TICK)?;
    }
    (expected.counts.user, expected.counts.system) = (None, None);
    (found.counts.user, found.counts.system) = (None, None);
    same("row", expected, found)?;
    Ok(format!("process {pid} by /proc and by the iterator: the same"))
}

/// Every thread that lives before and after a reading is in it, once, and nobody else but those that were born or died meanwhile.
fn every_thread_is_there_once() -> Result<String, String> {
    let mut collector = collector()?;
    let before = threads_in_proc()?;
    let sample = collector.collect();
    let after = threads_in_proc()?;
    let records: Vec<u32> = collector.tasks().iter().map(|task| task.pid).collect();
    let tids: Vec<u32> = sample.threads.iter().map(|thread| thread.tid).collect();
    if !records.is_sorted_by(|a, b| a < b) || !tids.is_sorted_by(|a, b| a < b) {
        return Err("not ascending, or twice".into());
    }
    let hidden = tids.len() - records.len();
    let told: BTreeSet<u32> = tids.into_iter().collect();
    // Where the kernel hides its first process, that one is read from /proc.
    if records.iter().any(|tid| !told.contains(tid)) || (hidden > 0) == records.contains(&1) {
        return Err(format!("{} records, {} rows", records.len(), told.len()));
    }
    let missing: Vec<_> = before.intersection(&after).filter(|tid| !told.contains(tid)).collect();
    let invented: Vec<_> = told.iter().filter(|tid| !before.contains(tid) && !after.contains(tid)).collect();
    // One may be born and be gone between the two listings of /proc, which take long.
    if !missing.is_empty() || invented.len() > 2 {
        return Err(format!("missing {missing:?}, unknown to /proc {invented:?}"));
    }
    let sum: u64 = sample.processes.iter().map(|process| process.threads).sum();
    same("threads of all processes", sum, told.len() as u64)?;
    let steady = before.intersection(&after).count();
    Ok(format!("{} threads, {hidden} of them hidden from the iterator; {steady} were in /proc before and after", told.len()))
}

fn threads_in_proc() -> Result<BTreeSet<u32>, String> {
    let numbers = |path: &str| -> Vec<u32> {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    };
    let threads: BTreeSet<u32> = numbers("/proc").into_iter().flat_map(|pid| numbers(&format!("/proc/{pid}/task"))).collect();
    if threads.is_empty() { Err("/proc lists nobody".into()) } else { Ok(threads) }
}

/// Threads come and go between the samples; the process's counters only grow, and end as the kernel's own.
fn counters_survive_the_threads() -> Result<String, String> {
    let mut collector = collector()?;
    let cgroup = cgroups()?.pop().ok_or("no cgroup hierarchy is mounted")?;
    let workers = Workers::start(cgroup, None, &["threads 60 15"])?;
    let pid = workers.pids[0];
    let mut before: Option<Process> = None;
    let (mut samples, mut tids) = (0, BTreeSet::new());
    let end = Instant::now() + Duration::from_secs(60);
    let last = loop {
        let sample = collector.collect();
        let now = process(&sample, pid)?.clone();
        tids.extend(sample.threads.iter().filter(|thread| thread.pid == pid).map(|thread| thread.tid));
        if let Some(before) = &before {
            grown(before, &now)?;
        }
        samples += 1;
        // Twice the same: the last thread is released.
        if &*now.comm == "done" && before.as_ref() == Some(&now) {
            break now;
        }
        before = Some(now);
        if Instant::now() > end {
            return Err("the worker is not done after a minute".into());
        }
        std::thread::sleep(Duration::from_millis(7));
    };
    let stat = stat(pid)?;
    let ticks = |at: usize| stat[at - 3].parse::<u64>().map(|ticks| ticks * TICK).map_err(|error| error.to_string());
    let run = last.counts.run.ok_or("no run time")?;
    // The file rounds each of the two down.
    near("run time with that of the dead", run, ticks(14)? + ticks(15)?, 2 * TICK)?;
    // Of the 900 ms by the wall, what a busy machine left.
    if run < 100_000_000 || last.counts.wait.is_none() {
        return Err(format!("60 threads of 15 ms ran {run} ns"));
    }
    Ok(format!("{} threads seen in {samples} samples; at the end {run} ns, as the kernel says", tids.len()))
}

fn grown(was: &Process, is: &Process) -> Result<(), String> {
    let counters = |process: &Process| {
        let counts = process.counts;
        [counts.run, counts.wait, counts.user, counts.system, counts.preempted, counts.voluntary, counts.migrations]
    };
    let (was, is) = (counters(was), counters(is));
    if was.iter().zip(&is).all(|(was, is)| is >= was) { Ok(()) } else { Err(format!("from {was:?} to {is:?}")) }
}

/// Two spinners on one CPU: one of them always waits.
fn a_wait_that_goes_on_is_pending() -> Result<String, String> {
    let mut collector = collector()?;
    let cgroup = cgroups()?.pop().ok_or("no cgroup hierarchy is mounted")?;
    let workers = Workers::start(cgroup, Some(0), &["spin 20000", "spin 20000", "spin 20000"])?;
    std::thread::sleep(Duration::from_millis(100));
    let (mut waiting, mut running, mut longest) = (0, 0, 0);
    for _ in 0..100 {
        let sample = collector.collect();
        for pid in &workers.pids {
            let thread = thread(&sample, *pid)?;
            match (thread.status, thread.pending) {
                (Some(Status::Running), Some(0)) => running += 1,
                (Some(Status::Runnable), Some(pending)) => {
                    waiting += 1;
                    longest = longest.max(pending);
                }
                other => return Err(format!("a spinner is {other:?}")),
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    // The reading itself may run on that CPU, and then all three wait; or a switch falls between two records, and two seem to run.
    if waiting < 150 || longest == 0 || longest > 10_000_000_000 {
        return Err(format!("{waiting} waiting, {running} running, the longest for {longest} ns"));
    }
    Ok(format!("of 300 readings of spinners {waiting} waited, {running} ran; the longest wait was {longest} ns so far"))
}

fn names_are_escaped_and_known() -> Result<String, String> {
    let mut collector = collector()?;
    let cgroup = cgroups()?.pop().ok_or("no cgroup hierarchy is mounted")?;
    let workers = Workers::start(cgroup, None, &["hostile 20000"])?;
    let pid = workers.pids[0];
    let end = Instant::now() + Duration::from_secs(30);
    let sample = loop {
        let sample = collector.collect();
        if process(&sample, pid)?.comm.contains('\\') {
            break sample;
        }
        if Instant::now() > end {
            return Err(format!("its name is {:?}", process(&sample, pid)?.comm));
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let process = process(&sample, pid)?;
    same("name", &*process.comm, r"x\x1b[2J\x07\xff\x0ay")?;
    same("thread's name", &*thread(&sample, pid)?.comm, &*process.comm)?;
    let command = process.identity.command.as_deref().ok_or("no command line")?;
    if !command.ends_with("role:hostile 20000") {
        return Err(format!("command line {command:?}"));
    }
    let user = process.identity.user.as_deref();
    // The guests of `cargo xtask vm` have no such file.
    let named = fs::read_to_string("/etc/passwd").is_ok_and(|users| users.starts_with("root:"));
    same("user", user, Some(if named { "root" } else { "0" }))?;
    let kernel = sample.processes.iter().find(|process| process.pid == 2).ok_or("no row of kthreadd")?;
    same("kthreadd", (&*kernel.comm, kernel.identity.command.as_deref()), ("kthreadd", None))?;
    Ok(format!("{} runs {command:?} as {user:?}", process.comm))
}

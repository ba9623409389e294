//! The scheduler hook against the kernel's own numbers.
//!
//! Every window is bracketed exactly: it begins and ends while all tasks of the cgroup sleep or are zombies, so that nothing is open.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use observer::collect::{Collector, Roots};
use observer::model::{Cgroup, OffCpu, Open, Placement, Sample, Sched, State, Used};

use super::Test;
use super::cgroups::{TestCgroup, cpu_root, v2_root};
use super::health;
use super::launcher::{Launcher, Truth};

/// All tests of this family.
pub(crate) fn trials() -> Vec<Test> {
    vec![
        ("sched::spinners_agree_with_schedstat", spinners_agree_with_schedstat),
        ("sched::sleepers_agree_with_schedstat", sleepers_agree_with_schedstat),
        ("sched::unpinned_tasks_lose_no_dispatch", unpinned_tasks_lose_no_dispatch),
        ("sched::v1_cgroup_has_its_own_row", v1_cgroup_has_its_own_row),
        ("sched::churning_cgroups_lose_nothing", churning_cgroups_lose_nothing),
        ("sched::churning_cgroups_lose_nothing_without_a_barrier", churning_cgroups_lose_nothing_without_a_barrier),
        ("sched::what_does_not_fit_is_named_and_counted", what_does_not_fit_is_named_and_counted),
        ("sched::rows_of_cpus_and_of_the_root_agree", rows_of_cpus_and_of_the_root_agree),
        ("sched::steal_agrees_with_proc_stat", steal_agrees_with_proc_stat),
    ]
}

pub(crate) fn collector() -> Result<Collector, String> {
    let mut collector = Collector::new(Roots::default());
    collector.attach();
    let sample = collector.collect();
    let sched = sample.sources.iter().find(|source| source.name == "sched").ok_or("no health of sched")?;
    if sched.state == health::attached()? { Ok(collector) } else { Err(format!("the hook is not on: {:?}", sched.state)) }
}

pub(crate) fn row<'a>(sample: &'a Sample, path: &str) -> Result<&'a Cgroup, String> {
    sample.cgroups.iter().find(|row| &*row.path == path).ok_or(format!("no row {path}"))
}

pub(crate) fn sched(sample: &Sample, path: &str) -> Result<Arc<Sched>, String> {
    row(sample, path)?.sched.clone().ok_or(format!("no counts for {path}"))
}

/// What was counted for a cgroup while its tasks did what the kernel says they did.
pub(crate) struct Window {
    pub(crate) counted: Sched,
    truth: Truth,
    stolen: u64,
    /// Switches on the whole machine that the kernel did not report.
    pub(crate) untraced: u64,
    /// What was counted on the whole machine.
    pub(crate) machine: Sched,
    /// Switches of the whole machine by the kernel's own count: at least and at the most, since it is read before and after each sample.
    pub(crate) switches: (u64, u64),
}

impl Window {
    /// Runs a load in a fresh cgroup of a hierarchy. `load` starts workers and returns their pids.
    pub(crate) fn of(
        root: &Path,
        cpu: Option<usize>,
        load: impl Fn(&mut Launcher) -> Result<Vec<u32>, String>,
    ) -> Result<Window, String> {
        let cgroup = TestCgroup::new(root, "window").map_err(|error| error.to_string())?;
        let mut collector = collector()?;
        let mut launcher = Launcher::start(cgroup.directory(), cpu)?;
        let before = launcher.quiet()?;
        let first = context_switches()?;
        let was = collector.collect();
        let first = (first, context_switches()?);
        let counted_before = sched(&was, &cgroup.path())?;

        let mut truth = Truth::default();
        for pid in load(&mut launcher)? {
            truth.add(launcher.finished(pid)?);
        }
        truth.add(launcher.quiet()?.since(before));
        let last = context_switches()?;
        let is = collector.collect();
        let last = (last, context_switches()?);
        let counted = sched(&is, &cgroup.path())?;
        let id = row(&is, &cgroup.path())?.id.number();
        if id != cgroup.id().map_err(|error| error.to_string())? {
            return Err(format!("the row's id is {id}"));
        }
        let window = Window {
            counted: difference(&counted, &counted_before)?,
            truth,
            stolen: stolen(&is) - stolen(&was),
            untraced: untraced(&is) - untraced(&was),
            machine: difference(&*sched(&is, "/")?, &*sched(&was, "/")?)?,
            switches: (last.0 - first.1, last.1 - first.0),
        };
        launcher.reap()?;
        Ok(window)
    }

    /// Every number is the kernel's to the last nanosecond; but where the kernel did not report a switch, up to so many waits may be
    /// missing, never more, and none may be too much.
    pub(crate) fn exactly(&self) -> Result<String, String> {
        let Window { counted, truth, untraced, .. } = self;
        let missing = self.dispatches()?;
        let (ours, kernels) = (counted.latency.sum, truth.run_delay);
        if ours > kernels || (missing == 0 && ours != kernels) {
            return Err(format!("waited {ours} ns, the kernel says {kernels}"));
        }
        Ok(format!(
            "{} of {} waits, {ours} of {kernels} ns, {} of {} preemptions ({untraced} switches of the machine were not reported)",
            counted.latency.count(),
            truth.pcount,
            counted.preempted,
            truth.preempted
        ))
    }

    /// What was booked as wait, and as wait before a migration, is what the kernel says, within a thousandth; it is less only where the
    /// kernel did not report a switch.
    pub(crate) fn booked(&self) -> Result<String, String> {
        let Window { counted, truth, untraced, .. } = self;
        let booked = counted.latency.sum + counted.migrated;
        let said = format!(
            "{} ns waited and {} before a migration, {booked} of {} ns ({untraced} waits lost to switches not reported)",
            counted.latency.sum, counted.migrated, truth.run_delay
        );
        let slack = truth.run_delay / 500;
        if booked > truth.run_delay + slack || booked + slack < truth.run_delay { Err(said) } else { Ok(said) }
    }

    /// Numbers of dispatches and switches, which hold for tasks that migrate, too. Returns how many waits are missing.
    fn dispatches(&self) -> Result<u64, String> {
        let Window { counted, truth, untraced, .. } = self;
        let pairs = [
            ("waits in the histogram", as_pcount(counted)?, truth.pcount),
            ("preempted", counted.preempted, truth.preempted),
            ("voluntary", counted.voluntary, truth.voluntary),
            ("runs that ended", counted.preempted + counted.voluntary, counted.runs),
        ];
        match pairs.into_iter().find(|(_, ours, all)| ours > all || all - ours > *untraced) {
            Some((what, ours, all)) => Err(format!("{what}: {ours} of {all}, {untraced} switches not reported ({truth:?})")),
            None => Ok(truth.pcount - as_pcount(counted)?),
        }
    }

    /// On-CPU time is wall time on the run queue's clock: what the hypervisor and interrupts took is inside, in sum_exec_runtime it is
    /// not. Where the kernel accounts steal, the same hook has measured it; else the machine's own count bounds it.
    fn on_cpu(&self, permille: u64) -> Result<String, String> {
        let (run, kernels) = (self.counted.run, self.truth.exec);
        let steal = self.counted.steal.unwrap_or(0);
        let slack = kernels * permille / 1000;
        let more = if self.counted.steal.is_some() { 0 } else { self.stolen };
        if run - steal + slack < kernels || run - steal > kernels + slack + more {
            return Err(format!(
                "on CPU {run} ns, {steal} of them stolen; the kernel says {kernels}; {} taken on the machine",
                self.stolen
            ));
        }
        let off = ((run - steal) as f64 / kernels as f64 - 1.0) * 100.0;
        Ok(format!("on CPU {run} ns less {steal} stolen, the kernel's {kernels} ({off:+.3} %)"))
    }
}

pub(crate) fn difference(is: &Sched, was: &Sched) -> Result<Sched, String> {
    Ok(Sched {
        run: is.run - was.run,
        steal: is.steal.zip(was.steal).map(|(is, was)| is - was),
        interrupt: is.interrupt.zip(was.interrupt).map(|(is, was)| is - was),
        runs: is.runs - was.runs,
        preempted: is.preempted - was.preempted,
        voluntary: is.voluntary - was.voluntary,
        latency: is.latency.since(&was.latency).ok_or("a histogram that went backwards")?,
        throttled: is.throttled.zip(was.throttled).map(|(is, was)| is - was),
        migrated: is.migrated - was.migrated,
        exited: is.exited - was.exited,
        ..Sched::default()
    })
}

/// Switches since boot, by the kernel (`ctxt` in `/proc/stat`).
fn context_switches() -> Result<u64, String> {
    let stat = fs::read_to_string("/proc/stat").map_err(|error| error.to_string())?;
    let line = stat.lines().find_map(|line| line.strip_prefix("ctxt ")).ok_or("no ctxt in /proc/stat")?;
    line.parse().map_err(|error| format!("ctxt: {error}"))
}

/// The number that the kernel's `pcount` must equal.
fn as_pcount(counted: &Sched) -> Result<u64, String> {
    Ok(if health::pcount_is_of_waits()? { counted.latency.count() } else { counted.runs })
}

pub(crate) fn untraced(sample: &Sample) -> u64 {
    sample.host.untraced.unwrap_or(0)
}

/// Steal of all CPUs, rounded up by a tick each, and the interrupts, which the run queue's clock contains as well.
fn stolen(sample: &Sample) -> u64 {
    sample.cpus.iter().map(|cpu| cpu.time.steal.unwrap_or(0) + cpu.time.interrupt.unwrap_or(0) + 10_000_000).sum()
}

pub(crate) fn v2() -> Result<std::path::PathBuf, String> {
    v2_root().ok_or("no v2 hierarchy is mounted".into())
}

/// Three spinners fight for one CPU: long waits, many preemptions.
fn spinners_agree_with_schedstat() -> Result<String, String> {
    let window = Window::of(&v2()?, Some(0), |launcher| (0..3).map(|_| launcher.work("spin 3000")).collect())?;
    let (exactly, on_cpu) = (window.exactly()?, window.on_cpu(2)?);
    Ok(format!("{exactly}; {on_cpu}"))
}

/// Tasks that sleep and wake thousands of times: short waits.
fn sleepers_agree_with_schedstat() -> Result<String, String> {
    let window = Window::of(&v2()?, Some(1 % cpus()), |launcher| (0..4).map(|_| launcher.work("mix 1500")).collect())?;
    window.exactly()
}

/// When the kernel moves a waiting task it books the wait so far by itself; dispatches and switches must agree all the same.
fn unpinned_tasks_lose_no_dispatch() -> Result<String, String> {
    let window = Window::of(&v2()?, None, |launcher| (0..6).map(|_| launcher.work("mix 1500")).collect())?;
    window.dispatches()?;
    Ok(format!("{} dispatches; {}", window.truth.pcount, window.booked()?))
}

fn v1_cgroup_has_its_own_row() -> Result<String, String> {
    let Some(root) = cpu_root() else { return Ok("not exercised: no v1 cpu hierarchy is mounted here".into()) };
    let window = Window::of(&root, Some(0), |launcher| (0..2).map(|_| launcher.work("spin 500")).collect())?;
    window.exactly()
}

/// How much of a load: all of it, but on an emulated machine, which is ten or twenty times slower, what `OBSERVER_LIVE_SHARE` leaves of
/// it (one part in so many).
pub(crate) fn load(full: u64) -> u64 {
    full / share()
}

pub(crate) fn share() -> u64 {
    std::env::var("OBSERVER_LIVE_SHARE").ok().and_then(|share| share.parse().ok()).unwrap_or(1).max(1)
}

pub(crate) fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn churning_cgroups_lose_nothing() -> Result<String, String> {
    churn(collector()?)
}

fn churning_cgroups_lose_nothing_without_a_barrier() -> Result<String, String> {
    let mut collector = collector()?;
    collector.without_barrier();
    churn(collector)
}

/// Hundreds of cgroups are born, worked in and removed while samples are taken every 50 ms: their parent's row misses nothing.
fn churn(mut collector: Collector) -> Result<String, String> {
    let cgroups = load(500) as usize;
    let parent = TestCgroup::new(&v2()?, "churn").map_err(|error| error.to_string())?;
    let mut launcher = Launcher::start(parent.directory(), Some(0))?;
    let before = launcher.quiet()?;
    let was = collector.collect();
    let counted_before = sched(&was, &parent.path())?;

    let (done, ended) = std::sync::mpsc::channel();
    let directory = parent.directory().to_owned();
    let driver = std::thread::spawn(move || {
        let result = drive(&mut launcher, &directory, cgroups);
        let _ = done.send(());
        result.map(|truth| (truth, launcher))
    });
    let mut samples = 0;
    while ended.recv_timeout(Duration::from_millis(50)).is_err() {
        collector.collect();
        samples += 1;
    }
    let (mut truth, launcher) = driver.join().map_err(|_| "the driver panicked")??;
    truth.add(launcher.quiet()?.since(before));
    let sample = collector.collect();
    let window = Window {
        counted: difference(&*sched(&sample, &parent.path())?, &counted_before)?,
        truth,
        stolen: 0,
        untraced: untraced(&sample) - untraced(&was),
        machine: Sched::default(),
        switches: (0, 0),
    };
    let exactly = window.exactly()?;
    let lost = sample.host.table_full.unwrap_or(0);
    if lost > 0 || row(&sample, "~gone").is_ok() {
        return Err(format!("{lost} did not fit, ~gone {:?}", row(&sample, "~gone").map(|row| row.sched.clone())));
    }
    Ok(format!("{cgroups} cgroups, {samples} samples meanwhile: {exactly}"))
}

/// One cgroup after the other, four workers at a time; returns what the dead did.
fn drive(launcher: &mut Launcher, parent: &Path, cgroups: usize) -> Result<Truth, String> {
    let mut truth = Truth::default();
    for batch in 0..cgroups / 4 {
        let directories: Vec<_> = (0..4).map(|i| parent.join(format!("{batch}-{i}"))).collect();
        let mut pids = Vec::new();
        for directory in &directories {
            fs::create_dir(directory).map_err(|error| error.to_string())?;
            pids.push(launcher.work(&format!("visit {} 3", directory.display()))?);
        }
        for pid in pids {
            truth.add(launcher.finished(pid)?);
        }
        launcher.reap()?;
        for directory in &directories {
            fs::remove_dir(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        }
    }
    Ok(truth)
}

/// More cgroups run on one CPU within one interval than a table has slots: the rest is `~other`, counted, and nothing is lost.
fn what_does_not_fit_is_named_and_counted() -> Result<String, String> {
    const CGROUPS: usize = 560;
    let parent = TestCgroup::new(&v2()?, "full").map_err(|error| error.to_string())?;
    let mut launcher = Launcher::start(parent.directory(), Some(0))?;
    let mut collector = collector()?;
    let before = launcher.quiet()?;
    let was = collector.collect();
    let counted_before = sched(&was, &parent.path())?;

    let mut truth = Truth::default();
    for batch in 0..CGROUPS / 8 {
        let mut pids = Vec::new();
        for i in 0..8 {
            let directory = parent.directory().join(format!("{batch}-{i}"));
            fs::create_dir(&directory).map_err(|error| error.to_string())?;
            pids.push(launcher.work(&format!("visit {} 1", directory.display()))?);
        }
        for pid in pids {
            truth.add(launcher.finished(pid)?);
        }
        launcher.reap()?;
    }
    truth.add(launcher.quiet()?.since(before));
    let sample = collector.collect();
    let here = difference(&*sched(&sample, &parent.path())?, &counted_before)?;
    let other = sched(&sample, "~other")?;
    let lost = sample.host.table_full.unwrap_or(0);
    let (ours, others) = (as_pcount(&here)?, as_pcount(&other)?);
    let waits = ours + others + untraced(&sample) - untraced(&was);
    // Others' tasks may be in ~other, too, hence at least.
    if lost == 0 || ours >= truth.pcount || waits < truth.pcount {
        return Err(format!("{lost} did not fit; {ours} + {others} waits, the kernel says {}", truth.pcount));
    }
    let state = sample.sources.iter().find(|source| source.name == "sched").map(|source| (source.state.clone(), source.dropped));
    match state {
        Some((State::Degraded(why), dropped)) if why.contains("table full") && dropped == lost + untraced(&sample) => {
            Ok(format!("{lost} look-ups found no slot; {others} waits of {waits} in ~other"))
        }
        other => Err(format!("health says {other:?}")),
    }
}

/// The same switches, booked by CPU and by cgroup.
fn rows_of_cpus_and_of_the_root_agree() -> Result<String, String> {
    let mut collector = collector()?;
    let cgroup = TestCgroup::new(&v2()?, "sum").map_err(|error| error.to_string())?;
    let mut launcher = Launcher::start(cgroup.directory(), None)?;
    let pids: Vec<u32> = (0..4).map(|_| launcher.work("mix 500")).collect::<Result<_, _>>()?;
    for pid in pids {
        launcher.finished(pid)?;
    }
    launcher.reap()?;
    let sample = collector.collect();
    let root = sched(&sample, "/")?;
    let mut cpus = Sched::zero(root.steal.is_some(), root.interrupt.is_some(), root.throttled.is_some());
    cpus.placement = root.placement.map(|_| Placement::default());
    cpus.nodes = root.nodes.map(|_| Default::default());
    cpus.shared = root.shared.map(|_| 0);
    cpus.used = root.used.map(|used| Used { off_cpu: used.off_cpu.map(|_| OffCpu::default()), ..Used::default() });
    for cpu in &sample.cpus {
        cpus.add(cpu.sched.as_ref().ok_or("a CPU without counts")?);
    }
    // What goes on is kept from going backwards on each of them apart.
    let ended = |sched: &Sched| Sched { open: Open::default(), ..sched.clone() };
    if ended(&root) != ended(&cpus) || root.runs == 0 {
        return Err(format!("root {} runs, {} ns; CPUs {} runs, {} ns", root.runs, root.run, cpus.runs, cpus.run));
    }
    Ok(format!("{} runs of {} ns in both", root.runs, root.run))
}

/// What the hypervisor took, by cgroup and from idle CPUs, against the machine's own count in ticks.
fn steal_agrees_with_proc_stat() -> Result<String, String> {
    const TICK: u64 = 10_000_000;
    let mut collector = collector()?;
    let cgroup = TestCgroup::new(&v2()?, "steal").map_err(|error| error.to_string())?;
    let mut launcher = Launcher::start(cgroup.directory(), None)?;
    let ours = |sample: &Sample| -> Result<u64, String> {
        let idle = sched(sample, "~idle").ok().and_then(|idle| idle.steal).unwrap_or(0);
        Ok(sched(sample, "/")?.steal.ok_or("steal is not accounted")? + idle)
    };
    let kernels = |sample: &Sample| sample.cpus.iter().map(|cpu| cpu.time.steal.unwrap_or(0)).sum::<u64>();
    let was = collector.collect();
    if sched(&was, "/")?.steal.is_none() {
        return Ok("not exercised: this kernel does not account steal on its run queues".into());
    }
    // Tasks that sleep in between, so that no run stays open for long.
    let pids: Vec<u32> = (0..2 * cpus()).map(|_| launcher.work("mix 3000")).collect::<Result<_, _>>()?;
    for pid in pids {
        launcher.finished(pid)?;
    }
    launcher.reap()?;
    let is = collector.collect();
    let (ours, kernels) = (ours(&is)? - ours(&was)?, kernels(&is) - kernels(&was));
    let figures = format!("{ours} ns taken inside runs and idle time, /proc/stat says {kernels} ns");
    // A tick a CPU for the rounding of /proc/stat, and one more for the two ends of the window.
    if ours.abs_diff(kernels) > 2 * TICK * cpus() as u64 {
        return Err(figures);
    }
    match kernels < 10 * TICK * cpus() as u64 {
        true => Ok(format!("too little steal to prove much: {figures}")),
        false => Ok(figures),
    }
}

//! Who is blamed for a wait, against who really ran.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use observer::collect::Collector;
use observer::model::Sample;

use super::Test;
use super::cgroups::{TestCgroup, cpu_root};
use super::launcher::{Launcher, Truth};
use super::sched::{collector, cpus, difference, row, sched, share, untraced, v2};

/// All tests of blame.
pub(crate) fn trials() -> Vec<Test> {
    vec![
        ("blame::one_against_three", one_against_three),
        ("blame::processes_of_one_cgroup_in_focus", processes_of_one_cgroup_in_focus),
        ("blame::behind_a_storm_of_one_cgroup", behind_a_storm_of_one_cgroup),
        ("blame::behind_a_storm_of_two_cgroups", behind_a_storm_of_two_cgroups),
        ("blame::an_own_quota_is_nobodys_fault", an_own_quota_is_nobodys_fault),
        ("blame::an_ancestors_quota_is_nobodys_fault", an_ancestors_quota_is_nobodys_fault),
        ("blame::the_longest_wait_keeps_its_name", the_longest_wait_keeps_its_name),
    ]
}

/// Time by victim and culprit, in nanoseconds, as the labels name them.
struct Pairs(HashMap<(String, String), u64>);

impl Pairs {
    fn of(sample: &Sample) -> Pairs {
        let pair = |row: &observer::model::Contention| ((row.victim.name.to_string(), row.culprit_name().to_owned()), row.time);
        Pairs(sample.contentions.iter().map(pair).collect())
    }

    fn between(was: &Sample, is: &Sample) -> Pairs {
        let (was, is) = (Pairs::of(was), Pairs::of(is));
        Pairs(is.0.into_iter().map(|(pair, time)| (pair.clone(), time - was.0.get(&pair).unwrap_or(&0))).collect())
    }

    /// What somebody waited for somebody. A cgroup stands for its processes, too, and `~self` of a process is the process.
    fn time(&self, victim: &str, culprit: &str) -> u64 {
        let is = |name: &str, of: &str| {
            name == of || name.strip_prefix(of).is_some_and(|rest| rest.starts_with(" #") || rest.starts_with(' '))
        };
        let culprits = |own: &str, name: &str| if name == "~self" { is(own, culprit) } else { is(name, culprit) };
        self.0.iter().filter(|((own, name), _)| is(own, victim) && culprits(own, name)).map(|(_, time)| time).sum()
    }

    fn all(&self, victim: &str) -> u64 {
        let is = |name: &str| name == victim || name.strip_prefix(victim).is_some_and(|rest| rest.starts_with(' '));
        self.0.iter().filter(|((own, name), _)| is(own) && name != "~migrated").map(|(_, time)| time).sum()
    }
}

/// Is `ours` within so many thousandths of `expected`?
fn near(what: &str, ours: u64, expected: u64, permille: u64) -> Result<String, String> {
    let off = ours.abs_diff(expected);
    let figures = format!("{what} {:.3} ms of {:.3} ms", ours as f64 / 1e6, expected as f64 / 1e6);
    if off * 1000 <= expected * permille { Ok(figures) } else { Err(figures) }
}

/// In thousandths. What runs while the workers end is blamed on nobody; on an emulated machine that takes long.
fn slack() -> u64 {
    if share() > 1 { 40 } else { 20 }
}

/// The last arguments of `between` and `visit-between`: all that get them sleep for a while, then compete for the same `ms` milliseconds.
fn together(ms: u64) -> Result<String, String> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_err(|error| error.to_string())?;
    // Long enough for all of them to have started, and for the test to have looked at them.
    let from = now.as_millis() as u64 + 1600 + 300 * share();
    Ok(format!("{from} {}", from + ms))
}

/// The rows of a victim sum to its wait, to the nanosecond.
fn rows_sum(was: &Sample, is: &Sample, path: &str) -> Result<u64, String> {
    let wait = difference(&*sched(is, path)?, &*sched(was, path)?)?.latency.sum;
    // Of both samples, since a culprit that died between them has left its time to others.
    let blamed = Pairs::of(is).all(path) - Pairs::of(was).all(path);
    if blamed == wait {
        return Ok(wait);
    }
    let rows: Vec<_> = Pairs::between(was, is)
        .0
        .into_iter()
        .filter(|((victim, _), time)| *time > 0 && (victim.starts_with(path) || victim.starts_with('~')))
        .collect();
    Err(format!("{path} waited {wait} ns, its rows sum to {blamed}: {rows:?}"))
}

/// One task against three of another cgroup: each is blamed for as long as it really ran.
fn one_against_three() -> Result<String, String> {
    let [one, three] =
        ["one", "three"].map(|name| v2().and_then(|root| TestCgroup::new(&root, name).map_err(|error| error.to_string())));
    let (one, three) = (one?, three?);
    let mut collector = collector()?;
    let mut launchers = [Launcher::start(one.directory(), Some(0))?, Launcher::start(three.directory(), Some(0))?];
    let load = format!("between {}", together(3000)?);
    let mut truth = [Truth::default(); 2];
    let pids: Vec<(usize, u32)> =
        [0, 1, 1, 1].into_iter().map(|at| Ok((at, launchers[at].work(&load)?))).collect::<Result<_, String>>()?;
    // What they ran while they were started, nobody waited for; an emulated machine takes long for it.
    let started: Vec<Truth> = pids.iter().map(|(at, pid)| launchers[*at].asleep(*pid)).collect::<Result<_, _>>()?;
    let before = [launchers[0].quiet()?, launchers[1].quiet()?];
    let was = collector.collect();
    for ((at, pid), started) in pids.into_iter().zip(started) {
        truth[at].add(launchers[at].finished(pid)?.since(started));
    }
    for at in 0..2 {
        truth[at].add(launchers[at].quiet()?.since(before[at]));
    }
    let is = collector.collect();
    let pairs = Pairs::between(&was, &is);
    let (one, three) = (one.path(), three.path());
    for (at, path) in [&one, &three].into_iter().enumerate() {
        let wait = rows_sum(&was, &is, path)?;
        let slack = truth[at].run_delay / 1000;
        if wait > truth[at].run_delay || (wait + slack < truth[at].run_delay && untraced(&is) == untraced(&was)) {
            return Err(format!("{path} waited {wait} ns, the kernel says {}", truth[at].run_delay));
        }
    }
    let said = [
        near("one behind three", pairs.time(&one, &three), truth[1].exec, slack())?,
        near("three behind one", pairs.time(&three, &one), 3 * truth[0].exec, slack())?,
        near("three behind themselves", pairs.time(&three, &three), 2 * truth[1].exec, slack())?,
    ];
    launchers.iter_mut().try_for_each(Launcher::reap)?;
    Ok(said.join(", "))
}

/// The same inside one cgroup, by process.
fn processes_of_one_cgroup_in_focus() -> Result<String, String> {
    let cgroup = TestCgroup::new(&v2()?, "focus").map_err(|error| error.to_string())?;
    let mut collector = collector()?;
    let mut launcher = Launcher::start(cgroup.directory(), Some(0))?;
    let sample = collector.collect();
    collector.focus(vec![row(&sample, &cgroup.path())?.id]);
    let load = format!("between {}", together(3000)?);
    let pids: Vec<u32> = (0..4).map(|_| launcher.work(&load)).collect::<Result<_, _>>()?;
    let started: Vec<Truth> = pids.iter().map(|pid| launcher.asleep(*pid)).collect::<Result<_, _>>()?;
    let was = collector.collect();
    let ended = pids.iter().zip(started).map(|(pid, started)| Ok(launcher.finished(*pid)?.since(started)));
    let truths: Vec<Truth> = ended.collect::<Result<_, String>>()?;
    launcher.quiet()?;
    let is = collector.collect();
    let pairs = Pairs::between(&was, &is);
    let wait = rows_sum(&was, &is, &cgroup.path())?;
    let name = |pid: u32| format!("{} #{pid}", cgroup.path());
    let mut worst = 0;
    for (victim, truth) in pids.iter().zip(&truths) {
        near(&name(*victim), pairs.all(&name(*victim)), truth.run_delay, slack())?;
        for (culprit, ran) in pids.iter().zip(&truths).filter(|(culprit, _)| *culprit != victim) {
            let blamed = pairs.time(&name(*victim), &name(*culprit));
            near(&format!("{victim} behind {culprit}"), blamed, ran.exec, slack())?;
            worst = worst.max(blamed.abs_diff(ran.exec) * 1_000_000 / ran.exec);
        }
    }
    launcher.reap()?;
    Ok(format!("12 pairs of 4 processes, at the worst {:.2} % off; rows sum to {wait} ns", worst as f64 / 1e4))
}

/// A victim beside a pair that hands a byte to and fro, which is `storm` and its partner in `partner`.
fn behind(storm: &Path, partner: &Path, most: u64) -> Result<String, String> {
    let victim = TestCgroup::new(&v2()?, "victim").map_err(|error| error.to_string())?;
    let mut collector = collector()?;
    let mut stormy = Launcher::start(storm, Some(0))?;
    let mut launcher = Launcher::start(victim.directory(), Some(0))?;
    let pair = stormy.work(&format!("pingpong {} 3000", partner.display()))?;
    std::thread::sleep(Duration::from_millis(300));
    let was = collector.collect();
    let spinner = launcher.work("spin 1500")?;
    launcher.finished(spinner)?;
    launcher.quiet()?;
    let is = collector.collect();
    let switches = is.host.context_switches.zip(was.host.context_switches).map_or(0, |(is, was)| is - was);
    stormy.finished(pair)?;
    stormy.reap()?;
    launcher.reap()?;
    let wait = rows_sum(&was, &is, &victim.path())?;
    let unknown = Pairs::between(&was, &is).time(&victim.path(), "~unknown");
    let said = format!("{unknown} of {wait} ns unknown, {switches} switches");
    if switches < 10_000 / share() || wait < 50_000_000 {
        return Err(format!("no storm: {said}"));
    }
    if unknown * 100 > wait * most { Err(said) } else { Ok(said) }
}

fn behind_a_storm_of_one_cgroup() -> Result<String, String> {
    let storm = TestCgroup::new(&v2()?, "storm").map_err(|error| error.to_string())?;
    behind(storm.directory(), storm.directory(), 1)
}

fn behind_a_storm_of_two_cgroups() -> Result<String, String> {
    let storm = TestCgroup::new(&v2()?, "storm").map_err(|error| error.to_string())?;
    let partner = TestCgroup::new(&v2()?, "partner").map_err(|error| error.to_string())?;
    behind(storm.directory(), partner.directory(), 5)
}

/// A hierarchy with the cpu controller, and what its files are called.
fn limited(directory: &Path, quota: u64, period: u64) -> Result<(), String> {
    let write = |file: &str, value: String| fs::write(directory.join(file), value).map_err(|error| format!("{file}: {error}"));
    if directory.join("cpu.max").exists() {
        return write("cpu.max", format!("{quota} {period}"));
    }
    write("cpu.cfs_period_us", period.to_string())?;
    write("cpu.cfs_quota_us", quota.to_string())
}

/// The kernel's throttled time of a cgroup by its own limit, in nanoseconds.
fn throttled(directory: &Path) -> Result<u64, String> {
    let stat = fs::read_to_string(directory.join("cpu.stat")).map_err(|error| error.to_string())?;
    let value = |name: &str| stat.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
    value("throttled_time ").or(value("throttled_usec ").map(|us| us * 1000)).ok_or(format!("no throttled time in {stat:?}"))
}

/// A hierarchy in which a cgroup can have a CPU limit; `None` where there is none.
fn limiting_root() -> Result<Option<std::path::PathBuf>, String> {
    if let Some(root) = cpu_root() {
        return Ok(Some(root));
    }
    let root = v2()?;
    let controllers = fs::read_to_string(root.join("cgroup.controllers")).map_err(|error| error.to_string())?;
    if !controllers.split_whitespace().any(|controller| controller == "cpu") {
        return Ok(None);
    }
    fs::write(root.join("cgroup.subtree_control"), "+cpu").map_err(|error| error.to_string())?;
    Ok(Some(root))
}

fn an_own_quota_is_nobodys_fault() -> Result<String, String> {
    quota(false)
}

fn an_ancestors_quota_is_nobodys_fault() -> Result<String, String> {
    quota(true)
}

/// A spinner under a quota of 20 ms in 100 ms, its own or its parent's, beside one that is free to run.
fn quota(of_parent: bool) -> Result<String, String> {
    let Some(root) = limiting_root()? else { return Ok("not exercised: no hierarchy has the cpu controller".into()) };
    let say = |error: std::io::Error| error.to_string();
    let limit = TestCgroup::new(&root, "quota").map_err(say)?;
    let neighbour = TestCgroup::new(&root, "neighbour").map_err(say)?;
    limited(limit.directory(), 20_000, 100_000)?;
    let (mut directory, mut path) = (limit.directory().to_owned(), limit.path());
    if of_parent {
        if root.join("cgroup.controllers").exists() {
            fs::write(directory.join("cgroup.subtree_control"), "+cpu").map_err(say)?;
        }
        (directory, path) = (directory.join("child"), format!("{path}/child"));
        fs::create_dir(&directory).map_err(say)?;
    }
    let mut collector = collector()?;
    // Not below the limit itself: a launcher that is throttled would count as well.
    let mut launcher = Launcher::start(neighbour.directory(), Some(0))?;
    if sched(&collector.collect(), &neighbour.path())?.throttled.is_none() {
        return Ok("not exercised: this kernel does not tell how long a quota stopped a run queue".into());
    }
    let moments = together(3000)?;
    let spinner = launcher.work(&format!("visit-between {} {moments}", directory.display()))?;
    let free = launcher.work(&format!("between {moments}"))?;
    // It was born in the neighbour's cgroup; what it waited there is not of this row.
    let started = (launcher.asleep(free)?, launcher.asleep(spinner)?).1;
    let before = throttled(limit.directory())?;
    let was = collector.collect();
    let (truth, _) = (launcher.finished(spinner)?.since(started), launcher.finished(free)?);
    let kernels = throttled(limit.directory())? - before;
    let is = collector.collect();
    launcher.reap()?;
    let wait = rows_sum(&was, &is, &path)?;
    let pairs = Pairs::between(&was, &is);
    let ours = pairs.time(&path, "~throttled");
    let on_neighbour = pairs.time(&path, &neighbour.path());
    let counted = sched(&is, &path)?.throttled.unwrap_or(0);
    if ours != counted {
        return Err(format!("{ours} ns blamed on the quota, {counted} counted"));
    }
    let others = wait - ours;
    // The ledger's accounts, each against a source of its own.
    let ledger = difference(&*sched(&is, &path)?, &*sched(&was, &path)?)?.ledger();
    near("ledger: throttled", ledger.throttled.unwrap_or(0), kernels, 10)?;
    near("ledger: waited", ledger.waited + kernels, truth.run_delay, 10)?;
    near("ledger: worked", ledger.worked, truth.exec, 30)?;
    // What is left over is honest competition: less than the time it ran, since the two share the CPU evenly.
    let said = format!(
        "{}; {:.3} ms behind the neighbour, {:.3} ms of other waits, {:.3} ms run",
        near("throttled", ours, kernels, 10)?,
        on_neighbour as f64 / 1e6,
        others as f64 / 1e6,
        truth.exec as f64 / 1e6
    );
    if on_neighbour > truth.exec * 3 / 2 { Err(said) } else { Ok(said) }
}

/// A real-time-like wait is not at hand everywhere; a spinner that gets its CPU back from another one has a longest wait, and who had it.
fn the_longest_wait_keeps_its_name() -> Result<String, String> {
    let cgroup = TestCgroup::new(&v2()?, "longest").map_err(|error| error.to_string())?;
    let other = TestCgroup::new(&v2()?, "other").map_err(|error| error.to_string())?;
    let mut collector: Collector = collector()?;
    let mut launchers =
        [Launcher::start(cgroup.directory(), Some(1 % cpus()))?, Launcher::start(other.directory(), Some(1 % cpus()))?];
    collector.collect();
    let load = format!("between {}", together(600)?);
    let pids = [launchers[0].work(&load)?, launchers[1].work(&load)?];
    for at in 0..2 {
        launchers[at].finished(pids[at])?;
        launchers[at].quiet()?;
    }
    let sample = collector.collect();
    launchers.iter_mut().try_for_each(Launcher::reap)?;
    let longest = row(&sample, &cgroup.path())?.longest.clone().ok_or("no longest wait")?;
    let waits = sched(&sample, &cgroup.path())?;
    let highest = waits.latency.buckets().last().and_then(|(bound, _)| bound).ok_or("no waits")?;
    let seconds = longest.time as f64 / 1e9;
    if longest.tid != pids[0] && longest.tid != launchers[0].pid() || seconds > highest || seconds < highest / 1.1 {
        return Err(format!("{longest:?}; workers {pids:?}; the histogram ends at {highest} s"));
    }
    Ok(format!("{longest:?}"))
}

//! Latency objectives that are missed by construction, and a CPU that a real-time task keeps from the others.

use std::process::{Command as Program, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use observer::findings::{Thresholds, Watch};
use observer::model::event::{Cause, Stage};
use observer::model::histogram::{upper, zero_threshold};
use observer::model::objective::{Dispatches, Members, Scope, Slo, Target};
use observer::model::{Histogram, Objective, Sample};

use super::Test;
use super::cgroups::TestCgroup;
use super::health;
use super::launcher::{Launcher, Truth};
use super::program::{objects, observer};
use super::sched::{collector, cpus, difference, sched, share, untraced, v2};
use super::tasks::Workers;

/// All tests of this family.
pub(crate) fn trials() -> Vec<Test> {
    vec![
        ("objectives::misses_are_those_that_the_kernel_tells", misses_are_those_that_the_kernel_tells),
        ("objectives::a_command_is_counted_apart", a_command_is_counted_apart),
        ("objectives::the_program_tells_them", the_program_tells_them),
        ("objectives::a_real_time_task_starves_the_others", a_real_time_task_starves_the_others),
    ]
}

fn slo(scope: Scope, bound: Duration) -> Result<Slo, String> {
    let target = Target::of_millionths(999_000).ok_or("no share")?;
    Ok(Slo { name: format!("{scope:?} {bound:?}"), scope, bound, target, window: Duration::from_secs(60) })
}

fn row(sample: &Sample, number: usize) -> Result<(&Objective, Dispatches), String> {
    let row = sample.objectives.get(number).ok_or("no row of the objective")?;
    Ok((row, row.dispatches.ok_or("its dispatches are unknown")?))
}

/// Waits that are certainly above a bound, and those that may be.
fn above(latency: &Histogram, bound: Duration) -> (u64, u64) {
    let bound = bound.as_secs_f64();
    let lower = |index: usize| index.checked_sub(1).and_then(upper).unwrap_or(0.0);
    let sum = |wanted: &dyn Fn(usize) -> bool| {
        latency.counts.iter().enumerate().filter(|(index, _)| wanted(*index)).map(|(_, count)| count).sum()
    };
    (sum(&|index| lower(index) >= bound), sum(&|index| upper(index).is_none_or(|upper| upper > bound)))
}

/// A task that works and sleeps shares a CPU with one that works all the time, and writes down each of its waits as the kernel tells it: of
/// those a known share is above each bound. Every objective must agree within the bucket that holds its bound, count each dispatch once,
/// and lie between what the histogram says certainly and perhaps.
fn misses_are_those_that_the_kernel_tells() -> Result<String, String> {
    let bounds = [20, 50, 700, 1_000, 3_000, 100_000].map(Duration::from_micros);
    let made = ["objective", "beside"].map(|name| TestCgroup::new(&v2()?, name).map_err(|error| error.to_string()));
    let [Ok(cgroup), Ok(beside)] = made else { return Err("no cgroups".into()) };
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let told = folder.path().join("waits");
    let slos = bounds.iter().map(|bound| slo(Scope::Cgroup(cgroup.path()), *bound)).collect::<Result<_, _>>()?;
    let mut watch = Watch::new(Thresholds::default(), slos);
    let mut collector = collector()?;
    let (mut teller, mut spinner) =
        (Launcher::start(cgroup.directory(), Some(0))?, Launcher::start(beside.directory(), Some(0))?);
    let mut at = || {
        let mut sample = collector.collect();
        watch.see(&mut sample);
        sample
    };
    teller.quiet()?;
    let was = at();
    let others = spinner.work("spin 3000")?;
    let pid = teller.work(&format!("waits {} 3000", told.display()))?;
    // Samples meanwhile, so that each objective adds up many intervals.
    let mut before = was.clone();
    while !teller.is_zombie(pid)? {
        std::thread::sleep(Duration::from_millis(100));
        let sample = at();
        for number in 0..bounds.len() {
            let ((_, was), (_, is)) = (row(&before, number)?, row(&sample, number)?);
            if is.met < was.met || is.missed < was.missed || is.interpolated < was.interpolated {
                return Err(format!("from {was:?} to {is:?}"));
            }
        }
        before = sample;
    }
    teller.finished(pid)?;
    teller.quiet()?;
    let is = at();
    spinner.finished(others)?;
    teller.reap()?;
    spinner.reap()?;
    let counted = difference(&*sched(&is, &cgroup.path())?, &*sched(&was, &cgroup.path())?)?;
    // Shorter ones are above no bound, and on some kernels the task cannot tell them from dispatches without a wait.
    let shortest = Duration::from_secs_f64(zero_threshold());
    let waits: Vec<Duration> = std::fs::read_to_string(&told)
        .map_err(|error| format!("{}: {error}", told.display()))?
        .lines()
        .flat_map(|line| line.parse().map(Duration::from_nanos))
        .filter(|wait| *wait > shortest)
        .collect();
    // Of the launcher, of the task before its first look and after its last, and several between two looks; and what nobody was told of.
    let lost = untraced(&is) - untraced(&was);
    let longer = counted.latency.count() - counted.latency.counts[0];
    let unknown = longer.saturating_sub(waits.len() as u64);
    if waits.len() < 50 || unknown > longer / 4 {
        return Err(format!("{} waits written down of {longer}", waits.len()));
    }
    let mut figures = Vec::new();
    for (number, bound) in bounds.into_iter().enumerate() {
        let ((_, before), (_, now)) = (row(&was, number)?, row(&is, number)?);
        let (grown, (least, most)) = (now.since(&before), above(&counted.latency, bound));
        let truly = waits.iter().filter(|wait| **wait > bound).count() as u64;
        if grown.total() != counted.runs {
            return Err(format!("{grown:?} of {} dispatches", counted.runs));
        }
        // One more for what the total before the window was rounded by.
        if grown.missed + 1 < least || grown.missed > most + 1 || most - least != grown.interpolated {
            return Err(format!("{grown:?} above {bound:?}, the histogram says {least} to {most}"));
        }
        if grown.missed + grown.interpolated + lost + 1 < truly || grown.missed > truly + unknown + grown.interpolated + 1 {
            return Err(format!("{grown:?} above {bound:?}, the kernel says {truly}, and {unknown} are not known"));
        }
        figures.push(format!("> {bound:?} {} of {truly} ({} at the bound)", grown.missed, grown.interpolated));
    }
    let known = waits.len();
    Ok(format!(
        "{} dispatches, {known} of {longer} waits of a microsecond or longer are known: {}",
        counted.runs,
        figures.join(", ")
    ))
}

/// Milliseconds from 1970 to a moment from now.
fn moment(after: Duration) -> Result<u128, String> {
    Ok((SystemTime::now() + after).duration_since(UNIX_EPOCH).map_err(|error| error.to_string())?.as_millis())
}

/// Two processes of a name in two cgroups, beside others: their cgroups are split by process by the next sample, and from then on each of their
/// dispatches is counted, and nobody else's.
fn a_command_is_counted_apart() -> Result<String, String> {
    const NAME: &str = "objective-test";
    let cgroups = ["command-a", "command-b"].map(|name| TestCgroup::new(&v2()?, name).map_err(|error| error.to_string()));
    let [Ok(a), Ok(b)] = &cgroups else { return Err("no cgroups".into()) };
    let mut watch = Watch::new(Thresholds::default(), vec![slo(Scope::Command(NAME.into()), Duration::from_millis(1))?]);
    let mut collector = collector()?;
    collector.watch(vec![NAME.into()]);
    let mut at = || {
        let mut sample = collector.collect();
        watch.see(&mut sample);
        sample
    };
    let mut launchers = [Launcher::start(a.directory(), None)?, Launcher::start(b.directory(), None)?];
    let from = moment(Duration::from_millis(3_000 * share()))?;
    let mut workers = Vec::new();
    let mut start = Truth::default();
    for launcher in &mut launchers {
        launcher.work("mix 3500")?;
        let pid = launcher.work(&format!("called {NAME} {from} 1000"))?;
        start.add(launcher.asleep(pid)?);
        workers.push(pid);
    }
    let first = at();
    let (row_first, _) = row(&first, 0)?;
    if row_first.members != Some(Members { counted: 0, uncounted: 2 }) {
        return Err(format!("at first {:?}", row_first.members));
    }
    let was = at();
    let (row_was, before) = row(&was, 0)?;
    if row_was.members != Some(Members { counted: 2, uncounted: 0 }) {
        return Err(format!("once split {:?}", row_was.members));
    }
    if moment(Duration::ZERO)? >= from {
        return Err("too late: they work already".into());
    }
    // Often, since a table tells so many processes apart and no more, and others are at work, too.
    let mut crowded = was.commands[0].crowded;
    while !launchers
        .iter()
        .zip(&workers)
        .map(|(launcher, pid)| launcher.is_zombie(*pid))
        .collect::<Result<Vec<_>, _>>()?
        .iter()
        .all(|it| *it)
    {
        std::thread::sleep(Duration::from_millis(50));
        crowded |= at().commands[0].crowded;
    }
    let mut truth = Truth::default();
    for (launcher, pid) in launchers.iter().zip(&workers) {
        truth.add(launcher.finished(*pid)?);
    }
    let is = at();
    if crowded || is.commands[0].crowded {
        return Err("too many other processes were at work".into());
    }
    launchers.iter_mut().try_for_each(Launcher::reap)?;
    let (_, now) = row(&is, 0)?;
    let (grown, truth) = (now.since(&before), truth.since(start));
    let lost = untraced(&is) - untraced(&was);
    let waits = is.commands[0].latency.since(&was.commands[0].latency).ok_or("a histogram that went backwards")?.count();
    let (ours, what) = if health::pcount_is_of_waits()? { (waits, "waits") } else { (grown.total(), "dispatches") };
    if ours > truth.pcount || ours + lost < truth.pcount {
        return Err(format!("{ours} {what}, the kernel says {} ({lost} switches not reported)", truth.pcount));
    }
    let gone = at();
    match row(&gone, 0)? {
        (row, last) if row.members == Some(Members::default()) && last == now => {
            Ok(format!("{ours} of {} {what} of two processes, {} above 1 ms", truth.pcount, grown.missed))
        }
        (row, last) => Err(format!("once they ended {:?}, {last:?} after {now:?}", row.members)),
    }
}

/// From the flag to the row, the row of health and the event.
fn the_program_tells_them() -> Result<String, String> {
    let cgroup = TestCgroup::new(&v2()?, "objective").map_err(|error| error.to_string())?;
    let path = cgroup.path();
    let workers = Workers::start(cgroup, Some(0), &["spin 60000", "spin 60000", "spin 60000"])?;
    let mut command = observer("dump --format json --interval 500ms --count 4 --entity objective --objective");
    command.arg(format!("{path} 2us for 99.9% in 20s")).args(["--objective", "no-such-command 1ms for 99%"]);
    let dumped = objects(command)?;
    drop(workers);
    let object = dumped.last().ok_or("nothing was printed")?;
    let rows = object["rows"].as_array().ok_or("no rows")?;
    let value = |row: usize, name: &str, result: Option<&str>| {
        let points = rows.get(row)?["metrics"].as_array()?.iter();
        let mut points = points.filter(|point| point["name"] == name);
        points.find(|point| result.is_none_or(|result| point["attributes"]["observer.objective.result"] == result))?["value"]
            .as_f64()
    };
    let dispatches = |row, result| value(row, "observer.objective.dispatches", Some(result));
    let (missed, budget) = (dispatches(0, "missed"), value(0, "observer.objective.budget", None));
    if rows.len() != 2 || missed.is_none_or(|missed| missed < 10.0) || budget.is_none_or(|budget| budget > 0.0) {
        return Err(format!("rows {rows:?}"));
    }
    if (dispatches(1, "missed"), dispatches(1, "met")) != (Some(0.0), Some(0.0)) {
        return Err(format!("of a command that nobody runs: {}", rows[1]));
    }
    let health = object["health"].as_array().into_iter().flatten().find(|row| row["source"] == "objectives");
    let reason = health.and_then(|health| health["reason"].as_str()).unwrap_or_default();
    if !reason.contains("there is no process no-such-command now") {
        return Err(format!("health {health:?}"));
    }
    let events = dumped.iter().flat_map(|object| object["events"].as_array().into_iter().flatten());
    let told: Vec<_> = events.filter(|event| event["cause"] == Cause::LatencyObjective.name()).collect();
    let Some(event) = told.first() else { return Err("no event".into()) };
    match event["labels"]["cgroup"] == path && event["state"] == Stage::Open.name() {
        true => Ok(event["text"].as_str().unwrap_or_default().to_owned()),
        false => Err(format!("event {event}")),
    }
}

/// A task of SCHED_FIFO holds a CPU in bursts of 300 ms, and another one waits for it.
fn a_real_time_task_starves_the_others() -> Result<String, String> {
    let cgroup = TestCgroup::new(&v2()?, "starved").map_err(|error| error.to_string())?;
    let cpu = cpus() - 1;
    let mut launcher = Launcher::start(cgroup.directory(), Some(cpu))?;
    let mut watch = Watch::new(Thresholds::default(), Vec::new());
    let mut collector = collector()?;
    let pid = launcher.work("bursts 8 300")?;
    let chrt = Program::new("chrt").args(["-f", "-p", "10", &pid.to_string()]).stderr(Stdio::null()).status();
    if !chrt.is_ok_and(|status| status.success()) {
        return Ok("not exercised: chrt is not here, or nobody may have real-time priority".into());
    }
    let beside = launcher.work("spin 5000")?;
    let end = Instant::now() + Duration::from_secs(5);
    let mut seen = 0;
    while Instant::now() < end {
        std::thread::sleep(Duration::from_millis(40));
        let mut sample = collector.collect();
        watch.see(&mut sample);
        seen += sample.starved.len();
        let told = sample.events.iter().find(|event| event.cause == Cause::RealTimeStarvation && event.state == Stage::Open);
        if let Some(event) = told {
            let wanted = format!("CPU {cpu}: real-time task ");
            let is_it = event.text.starts_with(&wanted) && event.text.contains(&format!("(thread {pid}) has held it for "));
            launcher.finished(pid)?;
            launcher.finished(beside)?;
            launcher.reap()?;
            return if is_it { Ok(event.text.clone()) } else { Err(event.text.clone()) };
        }
    }
    Err(format!("nothing was told; {seen} times somebody waited for a real-time task"))
}

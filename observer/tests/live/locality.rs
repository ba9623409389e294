//! Where tasks run and how they come there, against what the kernel counts of each task, and against what was done to them.

use std::time::Duration;

use observer::collect::Collector;
use observer::model::{Cpu, Placement, Sample, Sched, Topology};
use observer_common::locality::{CACHE, CORE, DISTANCES, MOVES, NEW, NODE, REMOTE, Reason, move_place};

use super::Test;
use super::cgroups::TestCgroup;
use super::launcher::Launcher;
use super::sched::{collector, sched, untraced, v2};

/// All tests of this family.
pub(crate) fn trials() -> Vec<Test> {
    vec![
        ("locality::a_task_that_is_thrown_comes_from_where_it_was", a_task_that_is_thrown_comes_from_where_it_was),
        ("locality::migrations_are_those_of_the_kernel", migrations_are_those_of_the_kernel),
        ("locality::a_busy_sibling_is_seen", a_busy_sibling_is_seen),
        ("locality::the_queue_is_as_long_as_there_are_spinners", the_queue_is_as_long_as_there_are_spinners),
    ]
}

/// Placement of a cgroup.
fn placement(sample: &Sample, path: &str) -> Result<(u64, Placement), String> {
    let sched = sched(sample, path)?;
    Ok((sched.runs, sched.placement.ok_or("migrations are not followed")?))
}

fn since(is: Placement, was: Placement) -> Placement {
    Placement {
        away: std::array::from_fn(|how| is.away[how] - was.away[how]),
        away_run: std::array::from_fn(|how| is.away_run[how] - was.away_run[how]),
        moves: std::array::from_fn(|place| is.moves[place] - was.moves[place]),
    }
}

fn by_reason(moves: &[u64; MOVES], reason: Reason) -> u64 {
    (0..DISTANCES).map(|distance| moves[move_place(reason, distance)]).sum()
}

/// `se.nr_migrations` of threads, as the task iterator read it in the last sample.
fn kernels(collector: &Collector, pids: &[u32]) -> Result<u64, String> {
    let of = |pid: &u32| {
        let task = collector.tasks().iter().find(|task| task.pid == *pid);
        task.map(|task| task.nr_migrations).ok_or(format!("no task {pid}"))
    };
    pids.iter().map(of).sum()
}

fn cpu(sample: &Sample, number: u32) -> Result<&Cpu, String> {
    sample.cpus.iter().find(|cpu| cpu.number == number).ok_or(format!("no CPU {number}"))
}

/// The distance between the first two CPUs.
fn first_two(sample: &Sample) -> Result<usize, String> {
    let (zero, one) = (cpu(sample, 0)?.topology, cpu(sample, 1)?.topology);
    let same = |part: fn(&Topology) -> Option<u32>| part(&zero) == part(&one);
    Ok(match () {
        () if !same(|place| place.node) => REMOTE,
        () if same(|place| place.core) => CORE,
        () if same(|place| place.llc) && same(|place| place.package) => CACHE,
        () => NODE,
    })
}

/// A spinner is moved to and fro between two CPUs by its affinity: every move is counted, at the distance of the two, and so is every
/// dispatch after one.
fn a_task_that_is_thrown_comes_from_where_it_was() -> Result<String, String> {
    let cgroup = TestCgroup::new(&v2()?, "thrown").map_err(|error| error.to_string())?;
    let outside = TestCgroup::new(&v2()?, "thrower").map_err(|error| error.to_string())?;
    let mut collector = collector()?;
    let mut launcher = Launcher::start(cgroup.directory(), Some(0))?;
    let mut thrower = Launcher::start(outside.directory(), None)?;
    let was = collector.collect();
    let before = kernels(&collector, &[launcher.pid()])?;
    let pid = launcher.work("spin 1500")?;
    let hand = thrower.work(&format!("throw {pid} 1300"))?;
    launcher.finished(pid)?;
    thrower.finished(hand)?;
    launcher.quiet()?;
    let is = collector.collect();
    let truth = kernels(&collector, &[launcher.pid(), pid])? - before;
    let ((runs, now), (runs_before, then)) = (placement(&is, &cgroup.path())?, placement(&was, &cgroup.path())?);
    let (runs, placed) = (runs - runs_before, since(now, then));
    let all_run = sched(&is, &cgroup.path())?;
    let on_nodes: u64 = all_run.nodes.ok_or("no node is known")?.iter().sum();
    if on_nodes != all_run.run {
        return Err(format!("{on_nodes} ns on all nodes, {} in all", all_run.run));
    }
    launcher.reap()?;
    thrower.reap()?;

    let distance = first_two(&is)?;
    let (moves, others) = (by_reason(&placed.moves, Reason::Other), placed.moves[move_place(Reason::Other, distance)]);
    let all: u64 = placed.moves.iter().sum();
    let away: u64 = placed.away[..DISTANCES].iter().sum();
    let hidden = untraced(&is) - untraced(&was);
    let said = format!(
        "{truth} migrations by the kernel, {all} counted: {others} of {moves} of affinity at distance {distance}; {away} of {runs} dispatches \
         elsewhere ({:?}), {} new ({hidden} switches of the machine were not reported)",
        placed.away, placed.away[NEW]
    );
    // Thrown twice before it ran, because others had the CPU, it is back where it was.
    let sound = all == truth && all == moves && moves == others && moves > 100 && (1..=all).contains(&away);
    let placed_right = placed.away[distance] == away;
    if sound && placed_right { Ok(said) } else { Err(said) }
}

/// Sleepers on all CPUs, more than there are, so that they wake up elsewhere and are pulled to and fro.
fn migrations_are_those_of_the_kernel() -> Result<String, String> {
    let cgroup = TestCgroup::new(&v2()?, "movers").map_err(|error| error.to_string())?;
    let mut collector = collector()?;
    let mut launcher = Launcher::start(cgroup.directory(), None)?;
    let was = collector.collect();
    let before = kernels(&collector, &[launcher.pid()])?;
    let pids = (0..6).map(|_| launcher.work("mix 1500")).collect::<Result<Vec<_>, _>>()?;
    for pid in &pids {
        launcher.finished(*pid)?;
    }
    launcher.quiet()?;
    let is = collector.collect();
    let all = [&pids[..], &[launcher.pid()]].concat();
    let truth = kernels(&collector, &all)? - before;
    let ((_, now), (_, then)) = (placement(&is, &cgroup.path())?, placement(&was, &cgroup.path())?);
    let placed = since(now, then);
    launcher.reap()?;

    // On the CPUs everybody's are counted.
    let mut sums = [0; 2];
    for (is, was) in is.cpus.iter().zip(&was.cpus) {
        let (is, was) = (is.traffic.ok_or("a CPU without migrations")?, was.traffic.ok_or("a CPU without migrations")?);
        sums[0] += is.arrived.iter().sum::<u64>() - was.arrived.iter().sum::<u64>();
        sums[1] += is.left.iter().sum::<u64>() - was.left.iter().sum::<u64>();
    }
    let counted: u64 = placed.moves.iter().sum();
    let root = since(placement(&is, "/")?.1, placement(&was, "/")?.1).moves.iter().sum::<u64>();
    let [wakeup, balance, other] = Reason::ALL.map(|reason| by_reason(&placed.moves, reason));
    let said = format!(
        "{counted} migrations ({wakeup} wake-ups, {balance} balanced, {other} others), the kernel says {truth}; on the machine {root} by cgroup, {} \
         to CPUs, {} from CPUs",
        sums[0], sums[1]
    );
    // The three sums of the machine are not read at one moment.
    let near = |a: u64, b: u64| a.abs_diff(b) <= 20 + a / 50;
    if counted == truth && counted > 0 && sums[0].abs_diff(sums[1]) <= 1 && near(root, sums[0]) { Ok(said) } else { Err(said) }
}

/// Two threads of one core spin: each has the other beside it.
fn a_busy_sibling_is_seen() -> Result<String, String> {
    let mut collector = collector()?;
    let sample = collector.collect();
    if first_two(&sample)? != CORE {
        return Ok("not exercised: CPU 0 and 1 do not share a core (cargo xtask vm --smt)".into());
    }
    let here = TestCgroup::new(&v2()?, "thread").map_err(|error| error.to_string())?;
    let there = TestCgroup::new(&v2()?, "sibling").map_err(|error| error.to_string())?;
    let (mut launcher, mut other) = (Launcher::start(here.directory(), Some(0))?, Launcher::start(there.directory(), Some(1))?);
    let was = sched(&collector.collect(), &here.path())?;
    let beside = other.work("spin 2500")?;
    let pid = launcher.work("spin 1000")?;
    launcher.finished(pid)?;
    let both = sched(&collector.collect(), &here.path())?;
    other.finished(beside)?;
    let pid = launcher.work("spin 1000")?;
    launcher.finished(pid)?;
    let alone = sched(&collector.collect(), &here.path())?;
    launcher.reap()?;
    other.reap()?;
    let share = |is: &Sched, was: &Sched| {
        let shared = is.shared.zip(was.shared).map(|(is, was)| is - was).ok_or("a core with threads and no shared time")?;
        Ok::<f64, String>(shared as f64 / (is.run - was.run) as f64)
    };
    let (with, without) = (share(&both, &was)?, share(&alone, &both)?);
    let said = format!("{:.1} % of a run beside a busy thread, {:.1} % alone", 100.0 * with, 100.0 * without);
    if (0.9..=1.0).contains(&with) && without < 0.5 { Ok(said) } else { Err(said) }
}

/// The mean length of a CPU's queue is the number of its spinners; and it is what ran and waited there, whoever else came by.
fn the_queue_is_as_long_as_there_are_spinners() -> Result<String, String> {
    const SPINNERS: u64 = 4;
    let cgroup = TestCgroup::new(&v2()?, "queue").map_err(|error| error.to_string())?;
    let mut collector = collector()?;
    let mut launcher = Launcher::start(cgroup.directory(), Some(1))?;
    let pids = (0..SPINNERS).map(|_| launcher.work("spin 2600")).collect::<Result<Vec<_>, _>>()?;
    std::thread::sleep(Duration::from_millis(300));
    let was = collector.collect();
    std::thread::sleep(Duration::from_millis(1500));
    let is = collector.collect();
    for pid in pids {
        launcher.finished(pid)?;
    }
    launcher.reap()?;
    let (is, was) = (cpu(&is, 1)?, cpu(&was, 1)?);
    let lengths: Vec<u64> =
        is.depths.ok_or("no lengths")?.iter().zip(was.depths.ok_or("no lengths")?).map(|(is, was)| is - was).collect();
    let (time, tasks): (u64, u64) = (lengths.iter().sum(), (0..).zip(&lengths).map(|(length, time)| length * time).sum());
    let mean = tasks as f64 / time as f64;
    // All that ran and waited there: the spinners, and who came by.
    let spent = |cpu: &Cpu| {
        let sched = cpu.sched.as_ref().ok_or("a CPU without counts")?;
        let waited = sched.latency.sum + sched.migrated + sched.open.wait.ok_or("no pending waits")?;
        Ok::<u64, String>(sched.run + sched.open.run + waited)
    };
    let truth = (spent(is)? - spent(was)?) as f64 / time as f64;
    let said = format!("{mean:.3} tasks on average, {truth:.3} by their time, of which {SPINNERS} spin; {lengths:?} ns");
    if (mean / truth - 1.0).abs() < 0.03 && truth > 0.97 * SPINNERS as f64 { Ok(said) } else { Err(said) }
}

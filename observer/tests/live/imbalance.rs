//! CPUs that idle while tasks wait on others: it shows while spinners are bound to one CPU, and is gone when they are not.

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::Value as Json;

use super::Test;
use super::cgroups::TestCgroup;
use super::launcher::Launcher;
use super::program::{Dumping, kill};
use super::sched::v2;

/// All tests of this family.
pub(crate) fn trials() -> Vec<Test> {
    vec![("imbalance::it_shows_while_the_pin_is_there", it_shows_while_the_pin_is_there)]
}

/// Two processes that spin on CPU 0, ended with this.
struct Spinners {
    pids: Vec<u32>,
    launcher: Launcher,
}

impl Spinners {
    fn start(cgroup: &TestCgroup) -> Result<Spinners, String> {
        let mut launcher = Launcher::start(cgroup.directory(), Some(0))?;
        let pids = (0..2).map(|_| launcher.work("spin 120000")).collect::<Result<_, _>>()?;
        Ok(Spinners { pids, launcher })
    }

    /// Lets them run anywhere.
    fn unpin(&self) -> Result<(), String> {
        let mut all = CpuSet::new();
        (0..CpuSet::MAX_CPU).for_each(|cpu| all.set(cpu));
        for pid in &self.pids {
            let pid = i32::try_from(*pid).ok().and_then(Pid::from_raw).ok_or("no pid")?;
            sched_setaffinity(Some(pid), &all).map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

impl Drop for Spinners {
    fn drop(&mut self) {
        // The launcher has not waited for them, so that these pids are still theirs.
        for pid in &self.pids {
            let _ = kill(*pid);
        }
        let _ = self.launcher.reap();
    }
}

/// What a window of some seconds says, in seconds.
#[derive(Debug)]
struct Window {
    interval: f64,
    pinned: f64,
    allowed: f64,
    unknown: f64,
    /// How long each CPU but CPU 0 idled, by the kernel's ticks.
    idle: Vec<f64>,
}

/// Waits for so many objects and compares the last with the one before them.
fn window(dumping: &mut Dumping, objects: u32) -> Result<Window, String> {
    let was = dumping.next()?;
    let mut is = Json::Null;
    let mut interval = 0.0;
    for _ in 0..objects {
        is = dumping.next()?;
        interval += is["interval"].as_f64().ok_or("no interval")?;
    }
    let grown = |entity, cpu, name, value| Some(point(&is, entity, cpu, name, value)? - point(&was, entity, cpu, name, value)?);
    let imbalance =
        |cause| grown("host", None, "observer.sched.imbalance.time", cause).ok_or(format!("no imbalance that is {cause}"));
    let mode = |cpu, mode| grown("cpu", Some(cpu), "system.cpu.time", mode);
    let idle = |cpu| Some(mode(cpu, "idle")? + mode(cpu, "iowait")?);
    Ok(Window {
        interval,
        pinned: imbalance("pinned")?,
        allowed: imbalance("allowed")?,
        unknown: imbalance("unknown")?,
        idle: (1..).map_while(idle).collect(),
    })
}

/// The value of the point whose one attribute has this value, in the row of an entity, or of a CPU.
fn point(object: &Json, entity: &str, cpu: Option<u32>, name: &str, value: &str) -> Option<f64> {
    let is_row = |row: &&Json| row["entity"] == entity && cpu.is_none_or(|cpu| row["labels"]["cpu"] == cpu);
    let is_point = |point: &&Json| {
        point["name"] == name && point["attributes"].as_object().is_some_and(|all| all.values().any(|one| one == value))
    };
    object["rows"].as_array()?.iter().find(is_row)?["metrics"].as_array()?.iter().find(is_point)?["value"].as_f64()
}

/// Two spinners that may run on CPU 0 alone: as long as any other CPU idles, so much is lost, and it is told why. Once they may run anywhere
/// it is gone.
fn it_shows_while_the_pin_is_there() -> Result<String, String> {
    let cgroup = TestCgroup::new(&v2()?, "uneven").map_err(|error| error.to_string())?;
    let spinners = Spinners::start(&cgroup)?;
    let mut dumping = Dumping::start("--interval 1s")?;
    // The first reading that has something to explain asks, and the next interval knows.
    dumping.next()?;
    let pinned = window(&mut dumping, 5)?;
    spinners.unpin()?;
    dumping.next()?;
    let free = window(&mut dumping, 5)?;
    drop(spinners);
    dumping.end()?;

    let all = |window: &Window| window.pinned + window.allowed + window.unknown;
    // One waits at the least; others may wait behind it as well.
    let (least, most) = (pinned.idle.iter().copied().fold(0.0, f64::max), pinned.idle.iter().sum::<f64>());
    let said = format!("pinned: {pinned:.3?}; free: {free:.3?}");
    if least < 0.3 * pinned.interval {
        return Err(format!("the other CPUs are busy with something else: {said}"));
    }
    // A hundred polls of what is there half of the time are off by a twentieth of it all.
    let off = 0.15 * pinned.interval;
    let shows = all(&pinned) >= least - off && all(&pinned) <= most + off && pinned.pinned >= 0.75 * all(&pinned);
    if shows && all(&free) <= 0.2 * free.interval { Ok(said) } else { Err(said) }
}

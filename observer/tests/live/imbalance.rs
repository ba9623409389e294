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
        let pids = (0..2).map(|_| launcher.work("spin 300000")).collect::<Result<_, _>>()?;
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

impl Window {
    /// For any cause.
    fn all(&self) -> f64 {
        self.pinned + self.allowed + self.unknown
    }

    /// Of the CPU that idled most.
    fn idlest(&self) -> f64 {
        self.idle.iter().copied().fold(0.0, f64::max)
    }
}

/// Objects one after the other until `is_enough`, or until a window is as long as that can be.
fn window(dumping: &mut Dumping, is_enough: impl Fn(&Window) -> bool) -> Result<Window, String> {
    const LONGEST: f64 = 20.0;
    let was = dumping.next()?;
    let mut interval = 0.0;
    loop {
        let is = dumping.next()?;
        interval += is["interval"].as_f64().ok_or("no interval")?;
        let grown =
            |entity, cpu, name, value| Some(point(&is, entity, cpu, name, value)? - point(&was, entity, cpu, name, value)?);
        let imbalance =
            |cause| grown("host", None, "observer.sched.imbalance.time", cause).ok_or(format!("no imbalance that is {cause}"));
        let mode = |cpu, mode| grown("cpu", Some(cpu), "system.cpu.time", mode);
        let idle = |cpu| Some(mode(cpu, "idle")? + mode(cpu, "iowait")?);
        let window = Window {
            interval,
            pinned: imbalance("pinned")?,
            allowed: imbalance("allowed")?,
            unknown: imbalance("unknown")?,
            idle: (1..).map_while(idle).collect(),
        };
        if is_enough(&window) || interval > LONGEST {
            return Ok(window);
        }
    }
}

/// The value of the point whose one attribute has this value, in the row of an entity, or of a CPU.
fn point(object: &Json, entity: &str, cpu: Option<u32>, name: &str, value: &str) -> Option<f64> {
    let is_row = |row: &&Json| row["entity"] == entity && cpu.is_none_or(|cpu| row["labels"]["cpu"] == cpu);
    let is_point = |point: &&Json| {
        point["name"] == name && point["attributes"].as_object().is_some_and(|all| all.values().any(|one| one == value))
    };
    object["rows"].as_array()?.iter().find(is_row)?["metrics"].as_array()?.iter().find(is_point)?["value"].as_f64()
}

/// Seconds that a CPU has to idle beside the spinners, whatever else the machine does.
const ENOUGH: f64 = 3.0;

/// Two spinners that may run on CPU 0 alone: as long as any other CPU idles, so much is lost, and it is told why. Once they may run anywhere
/// it is gone.
fn it_shows_while_the_pin_is_there() -> Result<String, String> {
    let cgroup = TestCgroup::new(&v2()?, "uneven").map_err(|error| error.to_string())?;
    let spinners = Spinners::start(&cgroup)?;
    let mut dumping = Dumping::start("--interval 1s")?;
    // The first interval knows nobody yet who waits.
    dumping.next()?;
    let pinned = window(&mut dumping, |window| window.idlest() >= ENOUGH)?;
    spinners.unpin()?;
    dumping.next()?;
    let free = window(&mut dumping, |window| window.interval > 4.0)?;
    drop(spinners);
    dumping.end()?;

    let said = format!("pinned: {pinned:.3?}; free: {free:.3?}");
    let (least, most) = (pinned.idlest(), pinned.idle.iter().sum::<f64>());
    if least < ENOUGH {
        return Err(format!("the other CPUs are busy with something else: {said}"));
    }
    // One waits at the least; others may wait behind it as well.
    let is_told = pinned.all() >= least - off(least) && pinned.all() <= most + off(most);
    // On a busy machine CPUs idle now and then, and then nobody was asked before; and others wait on CPU 0, too.
    if is_told && pinned.pinned > 0.5 * pinned.all() && free.all() <= 0.2 * free.interval { Ok(said) } else { Err(said) }
}

/// What polls may be off by when they look for something that is there for so many seconds: three standard deviations, if it comes and goes
/// faster than they do.
fn off(seconds: f64) -> f64 {
    const EACH: f64 = 0.05;
    3.0 * (seconds * EACH).sqrt()
}

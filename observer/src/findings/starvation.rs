//! A task of real-time priority keeps a CPU from ordinary tasks.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Finding, Subject, severity, time};
use crate::model::cpu::{Class, Starved};
use crate::model::{Entity, Kind, Sample};

/// So many nanoseconds must it have held the CPU, and an ordinary task have waited: with the kernel's usual slices nobody waits as long for a neighbour of
/// the same class, unless many share the CPU; then nobody holds it as long.
const THRESHOLD: u64 = 100_000_000;

/// A CPU's condition ends when it was not seen for so long: samples are of moments, and the kernel lets others run now and then.
const WITHIN: Duration = Duration::from_secs(10);

/// CPUs where ordinary tasks starved within the last seconds.
#[derive(Default, Debug)]
pub(super) struct Starvation {
    cpus: BTreeMap<u32, (Duration, Finding)>,
}

impl Starvation {
    pub(super) fn see(&mut self, sample: &Sample) -> Vec<Finding> {
        for starved in sample.starved.iter().filter(|starved| starved.held.min(starved.longest) >= THRESHOLD) {
            self.cpus.insert(starved.cpu, (sample.uptime, finding(sample, starved)));
        }
        self.cpus.retain(|_, (seen, _)| sample.uptime.saturating_sub(*seen) < WITHIN);
        self.cpus.values().map(|(_, finding)| finding.clone()).collect()
    }
}

fn finding(sample: &Sample, starved: &Starved) -> Finding {
    let Starved { cpu, tid, comm, class, held, waiting, longest, limit } = starved;
    let labels = sample.cpus.iter().find(|row| row.number == *cpu).map(Entity::labels).unwrap_or_default();
    let (class, limit) = match (class, limit) {
        (Class::Deadline, _) => ("deadline", String::new()),
        (Class::RealTime, Some(share)) if *share >= 1.0 => {
            ("real-time", "; nothing limits real-time tasks (sched_rt_runtime_us)".to_owned())
        }
        (Class::RealTime, Some(share)) => {
            ("real-time", format!("; real-time tasks may take {:.0}% of it (sched_rt_runtime_us)", share * 100.0))
        }
        (Class::RealTime, None) => ("real-time", String::new()),
    };
    let wait = if *waiting == 1 { "task waits" } else { "tasks wait" };
    Finding {
        subject: Subject::Starvation(*cpu),
        severity: severity(*longest, THRESHOLD),
        size: *longest,
        entity: Kind::Cpu,
        labels: labels.into_iter().map(|(name, label)| (name, label.into_owned())).collect(),
        text: format!(
            "CPU {cpu}: {class} task {comm} (thread {tid}) has held it for {}; {waiting} ordinary {wait}, the longest for {}{limit}",
            time(*held),
            time(*longest)
        ),
    }
}

//! A process.

use std::sync::Arc;

use super::task::{Counts, Identity, Status, task_metrics};
use super::{Entity, Kind, Label, Labels, Metric, Part, Read, Sample, Unit};

/// One process that was alive, or a zombie, at the moment of the sample. Times in nanoseconds; `None` is unknown.
#[derive(Clone, PartialEq, Debug)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// When it was made, on the kernel's clock: tells it from another that had the same id before.
    pub start: u64,
    /// The parent's id; 0 for who has none.
    pub ppid: u32,
    /// The name of its first thread, escaped.
    pub comm: Arc<str>,
    /// Command line and user.
    pub identity: Arc<Identity>,
    /// Path of its cgroup, as the cgroup's own row has it.
    pub cgroup: Option<Arc<str>>,
    /// What the busiest of its threads does.
    pub status: Option<Status>,
    /// Threads that were alive.
    pub threads: u64,
    /// Counters of all its threads, the dead ones included as far as anybody knows; they never go backwards.
    pub counts: Counts,
    /// How long its threads have been waiting for a CPU, all together.
    pub pending: Option<u64>,
}

task_metrics!(Process, "process.cpu.time", "of all its threads, ended ones included");

/// What it does.
pub static STATUS: Metric<Process> = Metric::new(
    "observer.task.status",
    "STATUS",
    Unit::Count("status"),
    "What the busiest of its threads does: running, runnable (wants a CPU), uninterruptible, sleeping, stopped, traced, idle, parked, zombie, dead.",
    Read::Text(|p| Some(p.status?.name().to_owned())),
);

/// Number of threads.
pub static THREADS: Metric<Process> = Metric::new(
    "process.thread.count",
    "THREADS",
    Unit::Count("thread"),
    "Threads that are alive.",
    Read::Gauge(&[Part { attributes: &[], read: |p| Some(p.threads as f64) }]),
);

/// In order of importance.
static ALL: &[&Metric<Process>] = &[&STATUS, &RUN_TIME, &WAIT_TIME, &PENDING, &CPU_TIME, &THREADS, &SWITCHES, &MIGRATIONS];

impl Entity for Process {
    const KIND: Kind = Kind::Process;
    type Key = (u32, u64);

    fn key(&self) -> (u32, u64) {
        (self.pid, self.start)
    }

    fn labels(&self) -> Labels<'_> {
        let mut labels = vec![("pid", Label::Number(self.pid.into())), ("ppid", Label::Number(self.ppid.into()))];
        labels.push(("comm", Label::Text(self.comm.as_ref().into())));
        labels.extend(self.identity.labels(self.cgroup.as_deref()));
        labels
    }

    fn metrics() -> &'static [&'static Metric<Process>] {
        ALL
    }

    fn of(sample: &Sample) -> &[Process] {
        &sample.processes
    }
}

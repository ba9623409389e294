//! A thread.

use std::sync::Arc;

use super::task::{Counts, Identity, Status, task_metrics};
use super::{Entity, Kind, Label, Labels, Metric, Part, Read, Sample, Unit};

/// One thread that was alive at the moment of the sample. Times in nanoseconds; `None` is unknown.
#[derive(Clone, PartialEq, Debug)]
pub struct Thread {
    /// Its id.
    pub tid: u32,
    /// The process's id.
    pub pid: u32,
    /// When it was made, on the kernel's clock: tells it from another that had the same id before.
    pub start: u64,
    /// Its name, escaped.
    pub comm: Arc<str>,
    /// What is known of its process.
    pub identity: Arc<Identity>,
    /// Path of its cgroup, as the cgroup's own row has it.
    pub cgroup: Option<Arc<str>>,
    /// What it does.
    pub status: Option<Status>,
    /// Its counters, since it was made.
    pub counts: Counts,
    /// How long it has been waiting for a CPU; 0 when it does not.
    pub pending: Option<u64>,
}

task_metrics!(Thread, "observer.thread.cpu.time", "of the thread since it was made");

/// What it does.
pub static STATUS: Metric<Thread> = Metric::new(
    "observer.task.status",
    "STATUS",
    Unit::Count("status"),
    "What it does: running, runnable (wants a CPU), sleeping, uninterruptible, stopped, traced, idle, parked, zombie, dead.",
    Read::Text(|t| Some(t.status?.name().to_owned())),
);

/// In order of importance.
static ALL: &[&Metric<Thread>] = &[&STATUS, &RUN_TIME, &WAIT_TIME, &PENDING, &CPU_TIME, &SWITCHES, &MIGRATIONS];

impl Entity for Thread {
    const KIND: Kind = Kind::Thread;
    type Key = (u32, u64);

    fn key(&self) -> (u32, u64) {
        (self.tid, self.start)
    }

    fn labels(&self) -> Labels<'_> {
        let mut labels = vec![("pid", Label::Number(self.pid.into())), ("tid", Label::Number(self.tid.into()))];
        labels.push(("comm", Label::Text(self.comm.as_ref().into())));
        labels.extend(self.identity.labels(self.cgroup.as_deref()));
        labels
    }

    fn metrics() -> &'static [&'static Metric<Thread>] {
        ALL
    }

    fn of(sample: &Sample) -> &[Thread] {
        &sample.threads
    }
}

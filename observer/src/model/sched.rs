//! What the scheduler hook counted for one thing: a CPU, or a cgroup with its descendants.

use super::Histogram;

/// Cumulative since observer attached. Times in nanoseconds on the run queue's clock (wall time: hypervisor steal and interrupts are
/// inside), of runs and waits that have ended.
///
/// A task that is moved to another cgroup while it holds a CPU is booked to the cgroup in which it was dispatched until it leaves
/// the CPU; the kernel's own `cpu.stat` splits at the move.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Sched {
    /// Time on a CPU.
    pub run: u64,
    /// Of it taken by the hypervisor; `None` where the kernel does not account it.
    pub steal: Option<u64>,
    /// Of it taken by interrupts; `None` where the kernel does not account it.
    pub interrupt: Option<u64>,
    /// Dispatches.
    pub runs: u64,
    /// Runs that ended although the task could have gone on.
    pub preempted: u64,
    /// Runs that the task ended itself.
    pub voluntary: u64,
    /// Run-queue waits; its sum is the kernel's `run_delay`, its count the dispatches that waited (the kernel's `pcount`).
    pub latency: Histogram,
}

impl Sched {
    /// Nothing yet, of what the kernel accounts.
    pub fn zero(steal: bool, interrupt: bool) -> Sched {
        Sched { steal: steal.then_some(0), interrupt: interrupt.then_some(0), ..Sched::default() }
    }

    /// Adds another's counts; what one of them does not know is unknown.
    pub fn add(&mut self, other: &Sched) {
        self.run += other.run;
        self.steal = self.steal.zip(other.steal).map(|(here, there)| here + there);
        self.interrupt = self.interrupt.zip(other.interrupt).map(|(here, there)| here + there);
        self.runs += other.runs;
        self.preempted += other.preempted;
        self.voluntary += other.voluntary;
        self.latency.add(&other.latency);
    }
}

/// The metrics that every entity with a `sched: Option<Arc<Sched>>` field has, in the words of EXPORT's table of names.
macro_rules! sched_metrics {
    ($entity:ty) => {
        /// On-CPU time.
        pub static RUN_TIME: Metric<$entity> = Metric::new(
            "observer.cpu.run.time",
            "RUN",
            Unit::Seconds,
            "Time on a CPU, from the scheduler hook: wall time of runs that ended, hypervisor steal and interrupts inside.",
            Read::Counter(&[Part { attributes: &[], read: |e| Some(e.sched.as_ref()?.run) }]),
        );
        /// Run-queue wait.
        pub static WAIT_TIME: Metric<$entity> = Metric::new(
            "observer.cpu.run_queue.wait.time",
            "WAIT",
            Unit::Seconds,
            "Time runnable and not running, as the kernel defines run_delay; completed waits only.",
            Read::Counter(&[Part { attributes: &[], read: |e| Some(e.sched.as_ref()?.latency.sum) }]),
        );
        /// Run-queue latency.
        pub static LATENCY: Metric<$entity> = Metric::new(
            "observer.cpu.run_queue.latency",
            "LATENCY",
            Unit::Seconds,
            "Distribution of run-queue waits; its sum is observer.cpu.run_queue.wait.time.",
            Read::Histogram(|e| Some(&e.sched.as_ref()?.latency)),
        );
        /// Dispatches.
        pub static RUNS: Metric<$entity> = Metric::new(
            "observer.sched.runs",
            "RUNS",
            Unit::Count("run"),
            "Dispatches: times a task was put on a CPU.",
            Read::Counter(&[Part { attributes: &[], read: |e| Some(e.sched.as_ref()?.runs) }]),
        );
        /// Switches.
        pub static SWITCHES: Metric<$entity> = Metric::new(
            "observer.sched.switches",
            "SWITCHES",
            Unit::Count("switch"),
            "Times a task left a CPU: preempted (it could have gone on) or voluntary (it slept or ended).",
            Read::Counter(&[
                Part { attributes: &[("observer.switch.type", "preempted")], read: |e| Some(e.sched.as_ref()?.preempted) },
                Part { attributes: &[("observer.switch.type", "voluntary")], read: |e| Some(e.sched.as_ref()?.voluntary) },
            ]),
        );
    };
}
pub(super) use sched_metrics;

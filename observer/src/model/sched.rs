//! What the scheduler hook counted for one thing: a CPU, a cgroup with its descendants, or the machine.

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
    /// Run-queue waits; with [`Sched::migrated`] its sum is the kernel's `run_delay`, its count the dispatches that waited (the kernel's
    /// `pcount`).
    pub latency: Histogram,
    /// Of the sum of the waits: under the cgroup's own CPU quota or an ancestor's; `None` where the kernel does not tell.
    pub throttled: Option<u64>,
    /// Waiting that no completed wait holds, because the task was moved to another queue meanwhile.
    pub migrated: u64,
    /// `run_delay` of the threads that ended, by the kernel's own count of their whole lives: what their waits are reconciled with.
    pub exited: u64,
    /// What is going on at the moment of the sample.
    pub open: Open,
}

/// Runs and waits that have not ended: they are in no cumulative number yet, and will be when they end. Nanoseconds.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Open {
    /// Time that the tasks on a CPU now have been there.
    pub run: u64,
    /// Time that the tasks which wait now have waited; `None` without the task iterator.
    pub wait: Option<u64>,
    /// Of it under a quota.
    pub throttled: Option<u64>,
}

impl Open {
    /// Adds another's; what one of them does not know is unknown.
    pub fn add(&mut self, other: &Open) {
        self.run += other.run;
        self.wait = both(self.wait, other.wait);
        self.throttled = both(self.throttled, other.throttled);
    }
}

/// The lost-time ledger: what wanted to run, divided into disjoint accounts. Nanoseconds of task time, ended and going on.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Ledger {
    /// On a CPU, less what was taken there. Where the kernel does not account what was taken, that is inside.
    pub worked: u64,
    /// Waited for a CPU that somebody else had, before migrations included, throttled time not.
    pub waited: u64,
    /// Stopped by a CPU quota, its own or an ancestor's.
    pub throttled: Option<u64>,
    /// Taken by the hypervisor.
    pub stolen: Option<u64>,
    /// Taken by interrupts.
    pub interrupted: Option<u64>,
}

impl Sched {
    /// Nothing yet, of what the kernel accounts.
    pub fn zero(steal: bool, interrupt: bool, throttled: bool) -> Sched {
        let known = |known: bool| known.then_some(0);
        Sched { steal: known(steal), interrupt: known(interrupt), throttled: known(throttled), ..Sched::default() }
    }

    /// Adds another's counts; what one of them does not know is unknown.
    pub fn add(&mut self, other: &Sched) {
        self.run += other.run;
        self.steal = both(self.steal, other.steal);
        self.interrupt = both(self.interrupt, other.interrupt);
        self.runs += other.runs;
        self.preempted += other.preempted;
        self.voluntary += other.voluntary;
        self.latency.add(&other.latency);
        self.throttled = both(self.throttled, other.throttled);
        self.migrated += other.migrated;
        self.exited += other.exited;
        self.open.add(&other.open);
    }

    /// The accounts. They are disjoint, and what the thing wanted is their sum.
    pub fn ledger(&self) -> Ledger {
        let taken = self.steal.unwrap_or(0) + self.interrupt.unwrap_or(0);
        let throttled = self.throttled.map(|ended| ended + self.open.throttled.unwrap_or(0));
        let waits = self.latency.sum + self.migrated + self.open.wait.unwrap_or(0);
        Ledger {
            worked: (self.run + self.open.run).saturating_sub(taken),
            waited: waits.saturating_sub(throttled.unwrap_or(0)),
            throttled,
            stolen: self.steal,
            interrupted: self.interrupt,
        }
    }
}

fn both(here: Option<u64>, there: Option<u64>) -> Option<u64> {
    here.zip(there).map(|(here, there)| here + there)
}

/// The metrics that every entity with a `sched: Option<Arc<Sched>>` field has, in the words of EXPORT's table of names.
macro_rules! sched_metrics {
    ($entity:ty) => {
        /// On-CPU time.
        pub static RUN_TIME: Metric<$entity> = Metric::new(
            "observer.cpu.run.time",
            "RUN",
            Unit::Seconds,
            "Time on a CPU, from the scheduler hook: wall time of runs that ended, hypervisor steal and interrupts inside; the rate \
             counts the runs that go on, too.",
            Read::Paced(&[Paced {
                attributes: &[],
                total: |e| Some(e.sched.as_ref()?.run),
                pace: |e| e.sched.as_ref().map(|sched| sched.run + sched.open.run),
            }]),
        );
        /// Run-queue wait.
        pub static WAIT_TIME: Metric<$entity> = Metric::new(
            "observer.cpu.run_queue.wait.time",
            "WAIT",
            Unit::Seconds,
            "Time runnable and not running, as the kernel defines run_delay; completed waits only, but the rate counts those that go \
             on, too.",
            Read::Paced(&[Paced {
                attributes: &[],
                total: |e| Some(e.sched.as_ref()?.latency.sum),
                pace: |e| e.sched.as_ref().map(|sched| sched.latency.sum + sched.open.wait.unwrap_or(0)),
            }]),
        );
        /// Waits going on.
        pub static WAIT_PENDING: Metric<$entity> = Metric::new(
            "observer.cpu.run_queue.wait.pending",
            "PENDING",
            Unit::Seconds,
            "Time that the tasks which wait now have waited so far; it joins the wait time when they are dispatched.",
            Read::Gauge(&[Part { attributes: &[], read: |e| Some(Unit::Seconds.scale(e.sched.as_ref()?.open.wait?)) }]),
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

/// The ledger of an entity with a `sched: Option<Arc<Sched>>` field.
macro_rules! ledger_metric {
    ($entity:ty) => {
        /// The lost-time ledger.
        pub static LEDGER: Metric<$entity> = Metric::new(
            "observer.ledger.time",
            "LEDGER",
            Unit::Seconds,
            "Task time that wanted to run, by what became of it: worked, waited (for a CPU that somebody else had), throttled (by its own \
             or an ancestor's quota), stolen (by the hypervisor) and interrupted. The accounts are disjoint; what goes on is counted, too. \
             What the kernel does not account stays inside worked (stolen, interrupted) or waited (throttled).",
            Read::Counter(&[
                Part { attributes: &[("observer.ledger.account", "worked")], read: |e| Some(e.sched.as_ref()?.ledger().worked) },
                Part { attributes: &[("observer.ledger.account", "waited")], read: |e| Some(e.sched.as_ref()?.ledger().waited) },
                Part { attributes: &[("observer.ledger.account", "throttled")], read: |e| e.sched.as_ref()?.ledger().throttled },
                Part { attributes: &[("observer.ledger.account", "stolen")], read: |e| e.sched.as_ref()?.ledger().stolen },
                Part { attributes: &[("observer.ledger.account", "interrupted")], read: |e| e.sched.as_ref()?.ledger().interrupted },
            ]),
        );
    };
}
pub(super) use ledger_metric;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accounts_are_disjoint_and_sum_to_what_was_wanted() {
        let mut sched = Sched { run: 1_000, ..Sched::zero(true, true, true) };
        (sched.steal, sched.interrupt) = (Some(30), Some(20));
        sched.latency.sum = 500;
        (sched.throttled, sched.migrated) = (Some(200), 40);
        sched.open = Open { run: 70, wait: Some(60), throttled: Some(10) };
        let ledger = sched.ledger();
        let expected = Ledger { worked: 1_020, waited: 390, throttled: Some(210), stolen: Some(30), interrupted: Some(20) };
        assert_eq!(ledger, expected);
        let sum = ledger.worked + ledger.waited + 210 + 30 + 20;
        assert_eq!(sum, 1_000 + 70 + 500 + 40 + 60, "all runs and all waits, nothing twice");
    }

    #[test]
    fn what_is_unknown_stays_where_it_is() {
        let mut sched = Sched { run: 100, ..Sched::default() };
        sched.latency.sum = 50;
        let expected = Ledger { worked: 100, waited: 50, throttled: None, stolen: None, interrupted: None };
        assert_eq!(sched.ledger(), expected);
    }
}

//! What the scheduler hook counted for one thing: a CPU, a cgroup with its descendants, or the machine.

use super::placement::NODES;
use super::{Histogram, Placement};

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
    /// Of it the core's other thread was busy, too; `None` where cores have one.
    pub shared: Option<u64>,
    /// Of it on each NUMA node, at [`node_place`](super::placement::node_place); `None` where the CPUs' are not known.
    pub nodes: Option<[u64; NODES]>,
    /// Dispatches.
    pub runs: u64,
    /// Runs that ended although the task could have gone on.
    pub preempted: u64,
    /// Runs that the task ended itself.
    pub voluntary: u64,
    /// Of them those that did not just sleep.
    pub sleeps: Sleeps,
    /// Where it ran, and migrations; `None` where they are not followed.
    pub placement: Option<Placement>,
    /// Run-queue waits; with [`Sched::migrated`] its sum is the kernel's `run_delay`, its count the dispatches that waited (the kernel's
    /// `pcount`).
    pub latency: Histogram,
    /// Of the sum of the waits: under the cgroup's own CPU quota or an ancestor's; `None` where the kernel does not tell.
    pub throttled: Option<u64>,
    /// Waiting that no completed wait holds, because the task was moved to another queue meanwhile.
    pub migrated: u64,
    /// `run_delay` of the threads that ended, by the kernel's own count of their whole lives: what their waits are reconciled with.
    pub exited: u64,
    /// What the page allocator gave and cost; `None` without the memory family.
    pub used: Option<Used>,
    /// What is going on at the moment of the sample.
    pub open: Open,
}

/// What the page allocator gave during the runs that have ended, and the stalls that ended in them. Times in nanoseconds.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Used {
    /// Pages.
    pub pages: u64,
    /// Times that a task had to reclaim or compact memory itself.
    pub stalls: u64,
    /// How long that took, by the monotonic clock.
    pub stalled: u64,
    /// Of it: waiting on a run queue, and asleep; `None` where the kernel does not tell. The rest was spent on a CPU.
    pub off_cpu: Option<OffCpu>,
}

/// The part of stalls that was not spent on a CPU. Nanoseconds.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct OffCpu {
    /// Waiting on a run queue: in the waits, too.
    pub waited: u64,
    /// Asleep, for instance until pages are written.
    pub slept: u64,
}

impl Used {
    /// Adds another's; what one of them does not know is unknown.
    fn add(self, other: Used) -> Used {
        let off_cpu = self.off_cpu.zip(other.off_cpu);
        Used {
            pages: self.pages + other.pages,
            stalls: self.stalls + other.stalls,
            stalled: self.stalled + other.stalled,
            off_cpu: off_cpu.map(|(a, b)| OffCpu { waited: a.waited + b.waited, slept: a.slept + b.slept }),
        }
    }
}

/// Why tasks left the CPU that did not just sleep. Times that they did.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Sleeps {
    /// For I/O (`in_iowait`).
    pub io: u64,
    /// Not to be interrupted, and not for I/O.
    pub uninterruptible: u64,
    /// Stopped, or traced.
    pub stopped: u64,
}

impl Sleeps {
    fn add(&mut self, other: &Sleeps) {
        self.io += other.io;
        self.uninterruptible += other.uninterruptible;
        self.stopped += other.stopped;
    }

    /// All of them.
    pub fn all(&self) -> u64 {
        self.io + self.uninterruptible + self.stopped
    }
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
    /// Reclaimed or compacted memory for an allocation, on a CPU, waiting for one or asleep.
    pub stalled: Option<u64>,
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
        self.shared = both(self.shared, other.shared);
        self.nodes = self.nodes.zip(other.nodes).map(|(here, there)| std::array::from_fn(|node| here[node] + there[node]));
        self.runs += other.runs;
        self.preempted += other.preempted;
        self.voluntary += other.voluntary;
        self.sleeps.add(&other.sleeps);
        self.placement = self.placement.zip(other.placement).map(|(mut here, there)| {
            here.add(&there);
            here
        });
        self.latency.add(&other.latency);
        self.throttled = both(self.throttled, other.throttled);
        self.migrated += other.migrated;
        self.exited += other.exited;
        self.used = self.used.zip(other.used).map(|(here, there)| here.add(there));
        self.open.add(&other.open);
    }

    /// Time on a CPU less what was taken there, runs that go on included: what `cpu.stat` calls usage.
    pub fn on_cpu(&self) -> u64 {
        (self.run + self.open.run).saturating_sub(self.steal.unwrap_or(0) + self.interrupt.unwrap_or(0))
    }

    /// The accounts. They are disjoint, and what the thing wanted is their sum.
    pub fn ledger(&self) -> Ledger {
        // Without its parts a stall's time cannot be taken out of the others.
        let stalls = self.used.and_then(|used| Some((used.stalled, used.off_cpu?)));
        let (stall_ran, stall_waited) =
            stalls.map_or((0, 0), |(stalled, off)| (stalled.saturating_sub(off.waited + off.slept), off.waited));
        let throttled = self.throttled.map(|ended| ended + self.open.throttled.unwrap_or(0));
        let waits = self.latency.sum + self.migrated + self.open.wait.unwrap_or(0);
        Ledger {
            worked: self.on_cpu().saturating_sub(stall_ran),
            waited: waits.saturating_sub(throttled.unwrap_or(0) + stall_waited),
            throttled,
            stolen: self.steal,
            interrupted: self.interrupt,
            stalled: stalls.map(|(stalled, _)| stalled),
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
        /// Time with a busy sibling.
        pub static SHARED: Metric<$entity> = Metric::new(
            "observer.cpu.smt.shared.time",
            "SMT",
            Unit::Seconds,
            "Of the time on a CPU, of runs that ended: the core's other thread (SMT) was busy, too, so that both had less than a core. Unknown \
             where cores have one thread.",
            Read::Counter(&[Part { attributes: &[], read: |e| e.sched.as_ref()?.shared }]),
        );
        /// Why tasks left.
        pub static OFF_CPU: Metric<$entity> = Metric::new(
            "observer.sched.off_cpu",
            "OFF-CPU",
            Unit::Count("switch"),
            "Times a task left a CPU, by its state then: running (preempted), sleeping (or ended), disk (waiting for I/O), uninterruptible, stopped \
             (or traced). A frozen cgroup's tasks sleep.",
            Read::Counter(&[
                Part { attributes: &[("observer.task.state", "running")], read: |e| Some(e.sched.as_ref()?.preempted) },
                Part {
                    attributes: &[("observer.task.state", "sleeping")],
                    read: |e| {
                        let sched = e.sched.as_ref()?;
                        Some(sched.voluntary.saturating_sub(sched.sleeps.all()))
                    },
                },
                Part { attributes: &[("observer.task.state", "disk")], read: |e| Some(e.sched.as_ref()?.sleeps.io) },
                Part {
                    attributes: &[("observer.task.state", "uninterruptible")],
                    read: |e| Some(e.sched.as_ref()?.sleeps.uninterruptible),
                },
                Part { attributes: &[("observer.task.state", "stopped")], read: |e| Some(e.sched.as_ref()?.sleeps.stopped) },
            ]),
        );
    };
}
pub(super) use sched_metrics;

/// What the page allocator gave and cost an entity with a `sched: Option<Arc<Sched>>` field.
macro_rules! used_metrics {
    ($entity:ty) => {
        /// Pages given.
        pub static PAGES: Metric<$entity> = Metric::new(
            "observer.memory.allocated",
            "PAGES",
            Unit::Count("page"),
            "Pages that the allocator gave during the runs of its tasks, in interrupts, too; whether they were given back is not asked. \
             Counted when a run ends.",
            Read::Counter(&[Part { attributes: &[], read: |e| Some(e.sched.as_ref()?.used?.pages) }]),
        );
        /// Stalls.
        pub static STALLS: Metric<$entity> = Metric::new(
            "observer.memory.stalls",
            "STALLS",
            Unit::Count("stall"),
            "Times that a task had to reclaim or compact memory itself before it got some.",
            Read::Counter(&[Part { attributes: &[], read: |e| Some(e.sched.as_ref()?.used?.stalls) }]),
        );
        /// Their time.
        pub static STALL_TIME: Metric<$entity> = Metric::new(
            "observer.memory.stall.time",
            "STALLED",
            Unit::Seconds,
            "Time of the stalls that ended: direct reclaim, reclaim at a memory cgroup's limit, direct compaction.",
            Read::Counter(&[Part { attributes: &[], read: |e| Some(e.sched.as_ref()?.used?.stalled) }]),
        );
    };
}
pub(super) use used_metrics;

/// The ledger of an entity with a `sched: Option<Arc<Sched>>` field.
macro_rules! ledger_metric {
    ($entity:ty) => {
        /// The lost-time ledger.
        pub static LEDGER: Metric<$entity> = Metric::new(
            "observer.ledger.time",
            "LEDGER",
            Unit::Seconds,
            "Task time that wanted to run, by what became of it: worked, waited (for a CPU that somebody else had), throttled (by its own \
             or an ancestor's quota), stolen (by the hypervisor), interrupted and stalled (reclaimed or compacted memory itself, because an \
             allocation had to). The accounts are disjoint; what goes on is counted, too. What the kernel does not account stays inside worked \
             (stolen, interrupted, stalled) or waited (throttled, stalled).",
            Read::Counter(&[
                Part { attributes: &[("observer.ledger.account", "worked")], read: |e| Some(e.sched.as_ref()?.ledger().worked) },
                Part { attributes: &[("observer.ledger.account", "waited")], read: |e| Some(e.sched.as_ref()?.ledger().waited) },
                Part { attributes: &[("observer.ledger.account", "throttled")], read: |e| e.sched.as_ref()?.ledger().throttled },
                Part { attributes: &[("observer.ledger.account", "stolen")], read: |e| e.sched.as_ref()?.ledger().stolen },
                Part { attributes: &[("observer.ledger.account", "interrupted")], read: |e| e.sched.as_ref()?.ledger().interrupted },
                Part { attributes: &[("observer.ledger.account", "stalled")], read: |e| e.sched.as_ref()?.ledger().stalled },
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
        sched.used = Some(Used { pages: 9, stalls: 2, stalled: 100, off_cpu: Some(OffCpu { waited: 15, slept: 25 }) });
        let ledger = sched.ledger();
        let (throttled, stolen, interrupted, stalled) = (Some(210), Some(30), Some(20), Some(100));
        assert_eq!(ledger, Ledger { worked: 960, waited: 375, throttled, stolen, interrupted, stalled });
        let sum = ledger.worked + ledger.waited + 210 + 30 + 20 + 100;
        assert_eq!(sum, 1_000 + 70 + 500 + 40 + 60 + 25, "all runs, all waits and the sleep in stalls, nothing twice");
    }

    #[test]
    fn what_is_unknown_stays_where_it_is() {
        let mut sched = Sched { run: 100, ..Sched::default() };
        sched.latency.sum = 50;
        sched.used = Some(Used { pages: 1, stalls: 1, stalled: 10, off_cpu: None });
        let expected = Ledger { worked: 100, waited: 50, throttled: None, stolen: None, interrupted: None, stalled: None };
        assert_eq!(sched.ledger(), expected);
    }
}

//! A logical CPU.

use std::sync::Arc;

use observer_common::locality::{CACHE, UNKNOWN};

use super::placement::{BY_DEPTH, BY_LOCALITY, BY_MOVE, by_locality, local, mean_depth, placement_metrics};
use super::sched::sched_metrics;
use super::{Cross, Depths, Entity, Kind, Label, Labels, Metric, Paced, Part, Read, Sample, Sched, Topology, Traffic, Unit};

/// One logical CPU. Times in nanoseconds; `None` is unknown.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Cpu {
    /// Its number.
    pub number: u32,
    /// Its place in the machine.
    pub topology: Topology,
    /// Time by mode, from `/proc/stat` (in ticks of USER_HZ there).
    pub time: Time,
    /// What the scheduler hook counted here, the idle task left out.
    pub sched: Option<Arc<Sched>>,
    /// How long its queue was for how long, what goes on included.
    pub depths: Option<Depths>,
    /// Migrations to it and from it.
    pub traffic: Option<Traffic>,
}

/// A CPU that a task of real-time priority holds while ordinary tasks wait for it. Times in nanoseconds.
#[derive(Clone, PartialEq, Debug)]
pub struct Starved {
    /// The CPU's number.
    pub cpu: u32,
    /// Thread id of who holds it.
    pub tid: u32,
    /// Its name, escaped.
    pub comm: Arc<str>,
    /// Its class.
    pub class: Class,
    /// How long it has been there.
    pub held: u64,
    /// Ordinary tasks that wait, those left out that a quota stops.
    pub waiting: u64,
    /// The longest of their waits so far.
    pub longest: u64,
    /// The share of a CPU that the kernel lets real-time tasks take, 1 without a limit; `None` is unknown. It does not hold for deadline tasks.
    pub limit: Option<f64>,
}

/// Classes that go before the ordinary one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// `SCHED_FIFO` and `SCHED_RR`, and who was lent such a priority.
    RealTime,
    /// `SCHED_DEADLINE`.
    Deadline,
}

/// Time by mode in nanoseconds. The modes partition the CPU's time: guest time, which the kernel counts inside user and nice, stays there.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Time {
    /// In user space.
    pub user: Option<u64>,
    /// In user space with a positive nice value.
    pub nice: Option<u64>,
    /// In the kernel.
    pub system: Option<u64>,
    /// With nothing to do.
    pub idle: Option<u64>,
    /// With nothing to do while a task waited for I/O.
    pub iowait: Option<u64>,
    /// In interrupts, hard and soft.
    pub interrupt: Option<u64>,
    /// Taken by the hypervisor.
    pub steal: Option<u64>,
}

/// Time by mode.
pub static TIME: Metric<Cpu> = Metric::new(
    "system.cpu.time",
    "TIME",
    Unit::Seconds,
    "Time by mode from /proc/stat; guest time is inside user, interrupt is hard and soft together.",
    Read::Counter(&[
        Part { attributes: &[("cpu.mode", "user")], read: |c| c.time.user },
        Part { attributes: &[("cpu.mode", "system")], read: |c| c.time.system },
        Part { attributes: &[("cpu.mode", "nice")], read: |c| c.time.nice },
        Part { attributes: &[("cpu.mode", "idle")], read: |c| c.time.idle },
        Part { attributes: &[("cpu.mode", "iowait")], read: |c| c.time.iowait },
        Part { attributes: &[("cpu.mode", "interrupt")], read: |c| c.time.interrupt },
        Part { attributes: &[("cpu.mode", "steal")], read: |c| c.time.steal },
    ]),
);

sched_metrics!(Cpu);
placement_metrics!(Cpu);

/// The length of its queue.
pub static DEPTH: Metric<Cpu> = Metric::new(
    "observer.cpu.run_queue.depth",
    "QUEUE",
    Unit::Count("task"),
    "Mean length of the run queue over the interval, weighted by time: tasks that run or could, the running one included.",
    Read::Ratio(&[Part { attributes: &[], read: |c| Some(mean_depth(c.depths.as_ref()?)) }]),
);

/// Its distribution.
pub static DEPTHS: Metric<Cpu> = Metric::new(
    "observer.cpu.run_queue.depth.time",
    "QUEUES",
    Unit::Seconds,
    "Time by the length of the run queue: tasks that run or could. Known exactly at each switch, and between two of them for who is dispatched \
     next; others that join in between and go on waiting count from the next switch on.",
    Read::Cross(Cross { attributes: || &BY_DEPTH, read: |c, index| c.depths.as_ref()?.get(index).copied() }),
);

/// Migrations to it.
pub static MIGRATIONS: Metric<Cpu> = Metric::new(
    "observer.sched.migrations",
    "MIGR IN",
    Unit::Count("migration"),
    "Migrations to this CPU's queue, by distance and reason: wakeup, balance (the task waited elsewhere), other.",
    Read::Cross(Cross { attributes: || &BY_MOVE, read: |c, index| c.traffic.as_ref()?.arrived.get(index).copied() }),
);

/// Migrations from it.
pub static MIGRATIONS_OUT: Metric<Cpu> = Metric::new(
    "observer.sched.migrations.out",
    "MIGR OUT",
    Unit::Count("migration"),
    "Migrations from this CPU's queue, which some other CPU has in observer.sched.migrations.",
    Read::Cross(Cross { attributes: || &BY_MOVE, read: |c, index| c.traffic.as_ref()?.left.get(index).copied() }),
);

/// In order of importance.
static ALL: &[&Metric<Cpu>] = &[
    &TIME,
    &RUN_TIME,
    &WAIT_TIME,
    &WAIT_PENDING,
    &LATENCY,
    &DEPTH,
    &DEPTHS,
    &RUNS,
    &RUN_PLACES,
    &LOCAL_DISPATCHES,
    &CACHE_DISPATCHES,
    &MIGRATIONS,
    &MIGRATIONS_OUT,
    &SWITCHES,
    &OFF_CPU,
    &SHARED,
];

impl Entity for Cpu {
    const KIND: Kind = Kind::Cpu;
    type Key = u32;

    fn key(&self) -> u32 {
        self.number
    }

    fn labels(&self) -> Labels<'_> {
        let place = [("core", self.topology.core), ("llc", self.topology.llc), ("node", self.topology.node)];
        let known = place.into_iter().filter_map(|(name, value)| Some((name, Label::Number(u64::from(value?)))));
        std::iter::once(("cpu", Label::Number(u64::from(self.number)))).chain(known).collect()
    }

    fn metrics() -> &'static [&'static Metric<Cpu>] {
        ALL
    }

    fn of(sample: &Sample) -> &[Cpu] {
        &sample.cpus
    }
}

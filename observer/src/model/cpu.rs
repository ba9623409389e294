//! A logical CPU.

use std::sync::Arc;

use super::sched::sched_metrics;
use super::{Entity, Kind, Label, Labels, Metric, Paced, Part, Read, Sample, Sched, Unit};

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
}

/// A CPU's place, from `/sys/devices/system/cpu`.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Topology {
    /// Core: the lowest-numbered of the CPUs that share it.
    pub core: Option<u32>,
    /// Last-level cache: the lowest-numbered of the CPUs that share it.
    pub llc: Option<u32>,
    /// NUMA node.
    pub node: Option<u32>,
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

/// In order of importance.
static ALL: &[&Metric<Cpu>] = &[&TIME, &RUN_TIME, &WAIT_TIME, &WAIT_PENDING, &LATENCY, &RUNS, &SWITCHES];

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

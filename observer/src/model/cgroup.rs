//! A control group, shown with its descendants.

pub mod control;
pub mod identity;
pub mod resources;

use std::borrow::Cow;
use std::sync::Arc;

use observer_common::locality::{CACHE, UNKNOWN};
use observer_common::sched::{Key, kind};

use super::memory::{StallLatency, stall_metrics};
use super::placement::{BY_LOCALITY, BY_MOVE, BY_NODE, by_locality, local, migration_metric, node_metric, placement_metrics};
use super::sched::{ledger_metric, sched_metrics, used_metrics};
use super::{Cross, Entity, Kind, Label, Labels, Metric, Paced, Part, Read, Residual, Sample, Sched, Share, Unit};
pub use identity::{Identity, Names};
pub use resources::Resources;

/// One cgroup with its descendants (so that `/` is the machine, and a sum over rows counts twice); throttling is the group's own, as
/// the kernel has it. Times in nanoseconds; `None` is unknown.
#[derive(Clone, PartialEq, Debug)]
pub struct Cgroup {
    /// The kernel's key: hierarchy and id.
    pub id: Key,
    /// Path from the root of its hierarchy, escaped; or one of the names with `~`.
    pub path: Arc<str>,
    /// Whose it is: unit, session, container, pod; `None` where the path does not tell.
    pub identity: Option<Arc<Identity>>,
    /// Names that people use for it, once they are known; shared by all rows of a container or a pod.
    pub names: Option<Arc<Names>>,
    /// Usage and quota, from the hierarchy's files.
    pub cpu: CpuStat,
    /// Memory and pressure, from the hierarchies' files; shared with former samples while nothing moves.
    pub resources: Arc<Resources>,
    /// What the scheduler hook counted.
    pub sched: Option<Arc<Sched>>,
    /// How long the page allocator stalled its tasks; `None` while it never did, or where that is unknown.
    pub stalled: Option<Arc<StallLatency>>,
    /// The longest of the waits that ended in the last interval.
    pub longest: Option<Longest>,
}

/// A wait that was the longest of its cgroup and interval.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Longest {
    /// Nanoseconds.
    pub time: u64,
    /// Thread id of who waited.
    pub tid: u32,
    /// Its name, escaped.
    pub comm: Arc<str>,
    /// Who held the CPU for the longest stretch of it: a name as in the labels of `contention`.
    pub culprit: Arc<str>,
}

/// Where a cgroup is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hierarchy {
    /// The default hierarchy, cgroup v2.
    V2,
    /// The v1 hierarchy of the `cpu` controller.
    Cpu,
}

impl Hierarchy {
    /// The label's value.
    pub fn name(self) -> &'static str {
        match self {
            Hierarchy::V2 => "v2",
            Hierarchy::Cpu => "cpu",
        }
    }
}

/// What the files of a cgroup say of its CPU: v2 `cpu.stat` and `cpu.max`; v1 `cpu.stat`, `cpu.cfs_*` and `cpuacct`. Nanoseconds.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct CpuStat {
    /// CPU time used by the cgroup and its descendants.
    pub usage: Option<u64>,
    /// Of it in user space (v2; v1 only estimates it from ticks, which do not add up, so there it stays unknown).
    pub user: Option<u64>,
    /// Of it in the kernel (v2).
    pub system: Option<u64>,
    /// Enforcement periods in which the cgroup wanted to run.
    pub periods: Option<u64>,
    /// Periods in which it was throttled.
    pub throttled_periods: Option<u64>,
    /// Time throttled, summed over CPUs; its own limit only.
    pub throttled: Option<u64>,
    /// Of the time in user space: of tasks with a positive nice value, as ticks saw it (v2, since 6.12).
    pub nice: Option<u64>,
    /// Time in which core scheduling kept a sibling CPU idle for it (v2).
    pub force_idle: Option<u64>,
    /// Periods in which it used what former ones had left.
    pub bursts: Option<u64>,
    /// CPU time that it used beyond its quota so.
    pub burst: Option<u64>,
    /// CPUs it may use: its own limit or the tightest of its ancestors'; `None` without any.
    pub limit: Option<f64>,
}

impl CpuStat {
    /// Usage that is neither user nor system. The kernel rounds each of the three down to a microsecond, so that one microsecond of
    /// difference is rounding and would make this counter go up and down.
    fn other(&self) -> Option<u64> {
        let known = self.user.unwrap_or(0) + self.system.unwrap_or(0);
        let rest = self.usage?.saturating_sub(known);
        Some(if known > 0 && rest <= 2_000 { 0 } else { rest })
    }
}

impl Cgroup {
    /// The hierarchy, `None` for the rows with `~`.
    pub fn hierarchy(&self) -> Option<Hierarchy> {
        match self.id.kind() {
            kind::ROOT | kind::V2 => Some(Hierarchy::V2),
            kind::CPU => Some(Hierarchy::Cpu),
            _ => None,
        }
    }

    /// The path's last part; the whole for the root.
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or(&self.path)
    }

    /// What people call the container or pod that it is: `nginx`; [`Cgroup::name`] of whatever else.
    pub fn title(&self) -> Cow<'_, str> {
        let title = self.identity.as_ref().and_then(|identity| identity.short(self.names.as_deref()));
        title.map_or_else(|| self.name().into(), Cow::Owned)
    }

    /// The same with what it is in, told apart from a path by having no slash at its beginning: `default/web-0/nginx`; the path of whatever is
    /// in no container and no pod.
    pub fn full_title(&self) -> Cow<'_, str> {
        let title = self.identity.as_ref().and_then(|identity| identity.long(self.names.as_deref(), &self.path));
        title.map_or_else(|| (&*self.path).into(), Cow::Owned)
    }

    /// Whether a text that names it passes: its path, or a name or id of its unit, container, pod or user.
    pub fn has(&self, passes: impl Fn(&str) -> bool) -> bool {
        passes(&self.path) || self.identity.as_ref().is_some_and(|identity| identity.has(self.names.as_deref(), passes))
    }

    /// How deep it lies: 0 for the root.
    pub fn depth(&self) -> usize {
        if &*self.path == "/" { 0 } else { self.path.matches('/').count() }
    }
}

sched_metrics!(Cgroup);
placement_metrics!(Cgroup);
migration_metric!(Cgroup);
node_metric!(Cgroup);
ledger_metric!(Cgroup);
used_metrics!(Cgroup);
stall_metrics!(Cgroup, |c| c.stalled.as_deref());

/// Observer against the kernel.
pub static RESIDUAL: Metric<Cgroup> = Metric::new(
    "observer.reconcile.residual",
    "RESIDUAL",
    Unit::Ratio,
    "By what part the interval's count exceeds the kernel's own: cpu_stat, time worked against the usage in cpu.stat (v1 cpuacct). Tasks that \
     are moved between cgroups while they run are split otherwise there.",
    Read::Residual(&[Part {
        attributes: &[("observer.reconcile.source", "cpu_stat")],
        read: |c| Some(Residual { ours: c.sched.as_ref()?.on_cpu(), kernels: c.cpu.usage? }),
    }]),
);

/// Longest wait.
pub static LONGEST: Metric<Cgroup> = Metric::new(
    "observer.cpu.run_queue.wait.longest",
    "LONGEST",
    Unit::Seconds,
    "The longest of the waits that ended in the last interval.",
    Read::Gauge(&[Part { attributes: &[], read: |c| Some(Unit::Seconds.scale(c.longest.as_ref()?.time)) }]),
);

/// Who waited longest.
pub static LONGEST_TASK: Metric<Cgroup> = Metric::new(
    "observer.cpu.run_queue.wait.longest.task",
    "LONGEST OF",
    Unit::Count("task"),
    "Who waited longest in the last interval: thread id and name.",
    Read::Text(|c| c.longest.as_ref().map(|longest| format!("{} {}", longest.tid, longest.comm))),
);

/// For whom.
pub static LONGEST_CULPRIT: Metric<Cgroup> = Metric::new(
    "observer.cpu.run_queue.wait.longest.culprit",
    "BEHIND",
    Unit::Count("culprit"),
    "Who held the CPU for the longest stretch of the longest wait.",
    Read::Text(|c| c.longest.as_ref().map(|longest| longest.culprit.to_string())),
);

/// Hypervisor steal while it ran.
pub static STEAL: Metric<Cgroup> = Metric::new(
    "observer.cpu.steal.exposure",
    "STEAL",
    Unit::Seconds,
    "Time that the hypervisor took while the cgroup held the CPU: growth of the run queue's steal clock inside its runs that ended. \
     The row ~idle has what was taken from idle CPUs.",
    Read::Counter(&[Part { attributes: &[], read: |c| c.sched.as_ref()?.steal }]),
);

/// Interrupts while it ran.
pub static INTERRUPT: Metric<Cgroup> = Metric::new(
    "observer.cpu.interrupt.time",
    "INTERRUPT",
    Unit::Seconds,
    "Time that interrupts took while the cgroup held the CPU; unknown where the kernel does not account it (CONFIG_IRQ_TIME_ACCOUNTING).",
    Read::Counter(&[Part { attributes: &[], read: |c| c.sched.as_ref()?.interrupt }]),
);

/// Share of periods in which the quota did not stop it.
pub static LOCAL_RUN_RATIO: Metric<Cgroup> = Metric::new(
    "observer.sched.local_run.ratio",
    "LOCALRUN",
    Unit::Ratio,
    "Share of the interval's enforcement periods in which the cgroup was not throttled; unknown without a limit or a new period.",
    Read::Ratio(&[Part {
        attributes: &[("observer.ratio.basis", "quota")],
        read: |c| {
            let (periods, throttled) = (c.cpu.periods?, c.cpu.throttled_periods?);
            Some(Share { part: periods.saturating_sub(throttled), whole: periods })
        },
    }]),
);

/// CPU time as the kernel accounts it to the cgroup.
pub static CPU_TIME: Metric<Cgroup> = Metric::new(
    "observer.cgroup.cpu.time",
    "CPU",
    Unit::Seconds,
    "CPU time as the kernel accounts it (cpu.stat usage; v1 cpuacct): user, system, and other, which is usage less both.",
    Read::Counter(&[
        Part { attributes: &[("cpu.mode", "user")], read: |c| c.cpu.user },
        Part { attributes: &[("cpu.mode", "system")], read: |c| c.cpu.system },
        Part { attributes: &[("cpu.mode", "other")], read: |c| c.cpu.other() },
    ]),
);

/// Enforcement periods by result.
pub static PERIODS: Metric<Cgroup> = Metric::new(
    "observer.cgroup.cpu.periods",
    "PERIODS",
    Unit::Count("period"),
    "Enforcement periods of the cgroup's own CPU limit in which it wanted to run: ok, or throttled (nr_periods, nr_throttled).",
    Read::Counter(&[
        Part {
            attributes: &[("observer.period.result", "ok")],
            read: |c| Some(c.cpu.periods?.saturating_sub(c.cpu.throttled_periods?)),
        },
        Part { attributes: &[("observer.period.result", "throttled")], read: |c| c.cpu.throttled_periods },
    ]),
);

/// Quota steal.
pub static THROTTLED_TIME: Metric<Cgroup> = Metric::new(
    "observer.cgroup.cpu.throttled.time",
    "THROTTLED",
    Unit::Seconds,
    "Time throttled by the cgroup's own CPU limit, summed over CPUs (throttled_usec; v1 throttled_time).",
    Read::Counter(&[Part { attributes: &[], read: |c| c.cpu.throttled }]),
);

/// Burst periods.
pub static BURSTS: Metric<Cgroup> = Metric::new(
    "observer.cgroup.cpu.bursts",
    "BURSTS",
    Unit::Count("period"),
    "Enforcement periods in which the cgroup used quota that former ones had left (nr_bursts).",
    Read::Counter(&[Part { attributes: &[], read: |c| c.cpu.bursts }]),
);

/// Used beyond the quota.
pub static BURST_TIME: Metric<Cgroup> = Metric::new(
    "observer.cgroup.cpu.burst.time",
    "BURST",
    Unit::Seconds,
    "CPU time beyond the quota of a period that former ones had left (burst_usec; v1 burst_time).",
    Read::Counter(&[Part { attributes: &[], read: |c| c.cpu.burst }]),
);

/// Of tasks that are nice.
pub static NICE_TIME: Metric<Cgroup> = Metric::new(
    "observer.cgroup.cpu.nice.time",
    "NICE",
    Unit::Seconds,
    "Of the time in user space that of tasks with a positive nice value, as ticks saw it (nice_usec; v2).",
    Read::Counter(&[Part { attributes: &[], read: |c| c.cpu.nice }]),
);

/// Kept idle by core scheduling.
pub static FORCE_IDLE_TIME: Metric<Cgroup> = Metric::new(
    "observer.cgroup.cpu.force_idle.time",
    "FORCE IDLE",
    Unit::Seconds,
    "Time in which core scheduling kept a sibling CPU idle because of the cgroup (core_sched.force_idle_usec; v2).",
    Read::Counter(&[Part { attributes: &[], read: |c| c.cpu.force_idle }]),
);

/// CPU limit.
pub static LIMIT: Metric<Cgroup> = Metric::new(
    "observer.cgroup.cpu.limit",
    "LIMIT",
    Unit::Cpus,
    "CPUs that the cgroup may use: its own limit or its tightest ancestor's.",
    Read::Gauge(&[Part { attributes: &[], read: |c| c.cpu.limit }]),
);

/// In order of importance.
static ALL: &[&Metric<Cgroup>] = &[
    &CPU_TIME,
    &WAIT_TIME,
    &WAIT_PENDING,
    &LEDGER,
    &LATENCY,
    &RUN_TIME,
    &THROTTLED_TIME,
    &STEAL,
    &INTERRUPT,
    &STALL_TIME,
    &STALLS,
    &RECLAIM,
    &MEMCG_RECLAIM,
    &COMPACTION,
    &PAGES,
    &LOCAL_RUN_RATIO,
    &PERIODS,
    &LIMIT,
    &control::LIMITED_BY,
    &RUNS,
    &RUN_PLACES,
    &LOCAL_DISPATCHES,
    &CACHE_DISPATCHES,
    &MIGRATIONS,
    &RUN_NODES,
    &SWITCHES,
    &OFF_CPU,
    &SHARED,
    &RESIDUAL,
    &resources::MEMORY_USAGE,
    &resources::MEMORY_LIMIT,
    &resources::MEMORY_HIGH,
    &resources::MEMORY_BREAKDOWN,
    &resources::MEMORY_NODES,
    &resources::MEMORY_EVENTS,
    &resources::MEMORY_FAULTS,
    &resources::MEMORY_REFAULTS,
    &resources::MEMORY_SCANNED,
    &resources::MEMORY_RECLAIMED,
    &resources::CPU_PRESSURE,
    &resources::MEMORY_PRESSURE,
    &resources::IO_PRESSURE,
    &control::DISK_IO,
    &control::DISK_OPERATIONS,
    &control::PIDS,
    &control::PIDS_LIMIT,
    &control::PIDS_REFUSED,
    &control::THROTTLED_TASKS,
    &control::WEIGHT,
    &control::CPUSET,
    &control::CPUSET_SIZE,
    &BURSTS,
    &BURST_TIME,
    &control::BURST_LIMIT,
    &NICE_TIME,
    &FORCE_IDLE_TIME,
    &control::MEMORY_LIMITED_BY,
    &control::FROZEN,
    &control::TYPE,
    &LONGEST,
    &LONGEST_TASK,
    &LONGEST_CULPRIT,
];

impl Entity for Cgroup {
    const KIND: Kind = Kind::Cgroup;
    type Key = Key;

    fn key(&self) -> Key {
        self.id
    }

    fn labels(&self) -> Labels<'_> {
        let mut labels = vec![("cgroup", Label::Text((&*self.path).into()))];
        if let Some(hierarchy) = self.hierarchy() {
            labels.push(("hierarchy", Label::Text(hierarchy.name().into())));
            labels.push(("id", Label::Number(self.id.number())));
        }
        if let Some(identity) = &self.identity {
            identity.labels(self.names.as_deref(), &mut labels);
        }
        labels
    }

    fn metrics() -> &'static [&'static Metric<Cgroup>] {
        ALL
    }

    fn of(sample: &Sample) -> &[Cgroup] {
        &sample.cgroups
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cgroup(path: &str, id: Key) -> Cgroup {
        Cgroup {
            id,
            path: path.into(),
            identity: None,
            names: None,
            cpu: CpuStat::default(),
            resources: Arc::default(),
            sched: None,
            stalled: None,
            longest: None,
        }
    }

    #[test]
    fn names_and_depths() {
        let root = cgroup("/", Key::ROOT);
        assert_eq!((root.name(), root.depth()), ("/", 0));
        let leaf = cgroup("/a.slice/b", Key::cpu(7));
        assert_eq!((leaf.name(), leaf.depth()), ("b", 2));
        assert_eq!(leaf.hierarchy(), Some(Hierarchy::Cpu));
        assert_eq!(cgroup("~other", Key::OTHER).labels().len(), 1);
    }

    #[test]
    fn rounding_is_not_other() {
        let stat = |usage, user, system| CpuStat { usage, user, system, ..CpuStat::default() };
        assert_eq!(stat(Some(10_001_000), Some(6_000_000), Some(4_000_000)).other(), Some(0));
        assert_eq!(stat(Some(15_000_000), Some(6_000_000), Some(4_000_000)).other(), Some(5_000_000));
        assert_eq!(stat(Some(1_500), None, None).other(), Some(1_500));
        assert_eq!(stat(None, Some(1), Some(1)).other(), None);
    }
}

//! What a cgroup's files say of its memory, and how long its tasks were stalled for a resource; what they say beside that is in
//! [`control`](super::control).

use std::sync::Arc;

use super::Cgroup;
use super::control::{Io, Limiting, Settings};
use crate::model::host::Stalled;
use crate::model::metric::{Cross, Metric, Part, Read, Unit};
use crate::model::placement::{BY_NODE, node_place};

/// Bytes, pages and nanoseconds; `None` is unknown. Of the cgroup with its descendants, unless a field says otherwise.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Resources {
    /// Its memory.
    pub memory: Memory,
    /// How long its tasks were stalled for a CPU (`cpu.pressure`).
    pub cpu_pressure: Option<Stalled>,
    /// For memory (`memory.pressure`).
    pub memory_pressure: Option<Stalled>,
    /// For I/O (`io.pressure`).
    pub io_pressure: Option<Stalled>,
    /// How long the cgroup's own tasks were throttled, by whatever quota (`cpu.stat.local`).
    pub throttled_tasks: Option<u64>,
    /// Tasks in it (`pids.current`).
    pub pids: Option<u64>,
    /// Its traffic with block devices.
    pub io: Io,
    /// How it is set.
    pub settings: Settings,
    /// Whose limits it has.
    pub limiting: Limiting,
}

/// v2 `memory.*`; v1 files of the same meaning. Counters count since the cgroup was made.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Memory {
    /// Bytes charged to it now (`memory.current`; v1 `memory.usage_in_bytes`).
    pub usage: Option<u64>,
    /// Bytes it may have: its own limit or the tightest of its ancestors' (`memory.max`; v1 `memory.limit_in_bytes`); `None` without any.
    pub limit: Option<u64>,
    /// Bytes from which on it is slowed and reclaimed from: its own or the tightest of its ancestors' (`memory.high`; v2).
    pub high: Option<u64>,
    /// What happened at its limits.
    pub events: Events,
    /// What it consists of, and what became of its pages.
    pub stat: MemoryStat,
    /// Bytes of anonymous memory and page cache by NUMA node (`memory.numa_stat`); empty while unknown.
    pub nodes: Arc<[(u32, u64)]>,
}

/// `memory.stat`.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct MemoryStat {
    /// Bytes of anonymous memory (`anon`; v1 `total_rss`).
    pub anon: Option<u64>,
    /// Bytes of page cache, shared memory included (`file`; v1 `total_cache`).
    pub file: Option<u64>,
    /// Bytes that the kernel has for it (`kernel`, before 5.18 the sum of its parts; v2).
    pub kernel: Option<u64>,
    /// Page faults (`pgfault`).
    pub faults: Option<u64>,
    /// Of them those that had to wait for a disk (`pgmajfault`).
    pub major_faults: Option<u64>,
    /// Anonymous pages that came back soon after they were reclaimed (`workingset_refault_anon`).
    pub refaults_anon: Option<u64>,
    /// Pages of files that did (`workingset_refault_file`, before 5.9 `workingset_refault`).
    pub refaults_file: Option<u64>,
    /// Pages that reclaim looked at (`pgscan`; v2).
    pub scanned: Option<u64>,
    /// Pages that it freed (`pgsteal`; v2).
    pub reclaimed: Option<u64>,
}

/// `memory.events`, each a number of times; v1 has `max` (`memory.failcnt`, the cgroup's own) and `oom_kill` (`memory.oom_control`).
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Events {
    /// Reclaimed from although it was below its `memory.low`.
    pub low: Option<u64>,
    /// Slowed because it was above `memory.high`.
    pub high: Option<u64>,
    /// Was about to exceed its limit.
    pub max: Option<u64>,
    /// Reached it, and an allocation was about to fail.
    pub oom: Option<u64>,
    /// Processes killed by any OOM killer.
    pub oom_kill: Option<u64>,
    /// Killed as a whole.
    pub oom_group_kill: Option<u64>,
}

impl Memory {
    /// Usage by kind: anonymous, page cache, kernel, and what is none of these, which add up to the usage. The kernel reads the usage and
    /// its parts at different moments and batches the parts, so that these may exceed it by a little: then the later ones yield.
    fn kinds(&self) -> Option<[Option<u64>; 4]> {
        let mut rest = self.usage?;
        self.stat.anon.or(self.stat.file)?;
        let mut take = |part: Option<u64>| {
            let taken = part?.min(rest);
            rest -= taken;
            Some(taken)
        };
        let [anon, file, kernel] = [self.stat.anon, self.stat.file, self.stat.kernel].map(&mut take);
        Some([anon, file, kernel, Some(rest)])
    }
}

macro_rules! gauge {
    ($static:ident, $name:literal, $title:literal, $help:literal, $field:ident) => {
        #[doc = $help]
        pub static $static: Metric<Cgroup> = Metric::new(
            $name,
            $title,
            Unit::Bytes,
            $help,
            Read::Gauge(&[Part { attributes: &[], read: |c| c.resources.memory.$field.map(|bytes| bytes as f64) }]),
        );
    };
}

gauge!(
    MEMORY_USAGE,
    "observer.cgroup.memory.usage",
    "MEMORY",
    "Memory charged to the cgroup (memory.current; v1 memory.usage_in_bytes).",
    usage
);
gauge!(
    MEMORY_LIMIT,
    "observer.cgroup.memory.limit",
    "MEM LIMIT",
    "Memory that the cgroup may have: its own limit or its tightest ancestor's (memory.max; v1 memory.limit_in_bytes).",
    limit
);
gauge!(
    MEMORY_HIGH,
    "observer.cgroup.memory.high",
    "MEM HIGH",
    "Memory from which on the cgroup is slowed and reclaimed from: its own threshold or its tightest ancestor's (memory.high).",
    high
);

macro_rules! kind {
    ($($index:literal $name:literal),+) => {
        &[$(Part {
            attributes: &[("observer.memory.kind", $name)],
            read: |c| c.resources.memory.kinds()?[$index].map(|bytes| bytes as f64),
        }),+]
    };
}

/// Usage by kind.
pub static MEMORY_BREAKDOWN: Metric<Cgroup> = Metric::new(
    "observer.cgroup.memory.breakdown",
    "MEM KIND",
    Unit::Bytes,
    "What the usage consists of (memory.stat): anon, file (page cache, shared memory included), kernel (v2; on v1 inside other), other. The \
     four add up to observer.cgroup.memory.usage.",
    Read::Gauge(kind!(0 "anon", 1 "file", 2 "kernel", 3 "other")),
);

macro_rules! events {
    ($($field:ident),+) => {
        &[$(Part {
            attributes: &[("observer.memory.event", stringify!($field))],
            read: |c| c.resources.memory.events.$field,
        }),+]
    };
}

/// What happened at its limits.
pub static MEMORY_EVENTS: Metric<Cgroup> = Metric::new(
    "observer.cgroup.memory.events",
    "MEM EVENTS",
    Unit::Count("event"),
    "What happened at the limits of the cgroup or of one below it (memory.events): low (reclaimed from although below memory.low), high \
     (slowed above memory.high), max (was about to exceed its limit), oom (an allocation was about to fail), oom_kill (processes killed), \
     oom_group_kill. On v1 max (memory.failcnt, the cgroup's own) and oom_kill.",
    Read::Counter(events!(low, high, max, oom, oom_kill, oom_group_kill)),
);

/// Page faults.
pub static MEMORY_FAULTS: Metric<Cgroup> = Metric::new(
    "observer.cgroup.memory.faults",
    "FAULTS",
    Unit::Count("fault"),
    "Page faults: major ones waited for a disk (pgmajfault), minor ones did not (pgfault less pgmajfault).",
    Read::Counter(&[
        Part {
            attributes: &[("observer.memory.fault", "minor")],
            read: |c| Some(c.resources.memory.stat.faults?.saturating_sub(c.resources.memory.stat.major_faults?)),
        },
        Part { attributes: &[("observer.memory.fault", "major")], read: |c| c.resources.memory.stat.major_faults },
    ]),
);

/// Pages that were missed.
pub static MEMORY_REFAULTS: Metric<Cgroup> = Metric::new(
    "observer.cgroup.memory.refaults",
    "REFAULTS",
    Unit::Count("page"),
    "Pages that were needed again soon after they had been reclaimed (workingset_refault_*): the cgroup has too little memory for what it does.",
    Read::Counter(&[
        Part { attributes: &[("observer.memory.kind", "anon")], read: |c| c.resources.memory.stat.refaults_anon },
        Part { attributes: &[("observer.memory.kind", "file")], read: |c| c.resources.memory.stat.refaults_file },
    ]),
);

/// Reclaim's work.
pub static MEMORY_SCANNED: Metric<Cgroup> = Metric::new(
    "observer.cgroup.memory.scanned",
    "SCANNED",
    Unit::Count("page"),
    "Pages of the cgroup that reclaim looked at, whoever reclaimed (pgscan; v2).",
    Read::Counter(&[Part { attributes: &[], read: |c| c.resources.memory.stat.scanned }]),
);

/// Reclaim's success.
pub static MEMORY_RECLAIMED: Metric<Cgroup> = Metric::new(
    "observer.cgroup.memory.reclaimed",
    "RECLAIMED",
    Unit::Count("page"),
    "Pages of the cgroup that reclaim freed, whoever reclaimed (pgsteal; v2).",
    Read::Counter(&[Part { attributes: &[], read: |c| c.resources.memory.stat.reclaimed }]),
);

/// Usage by NUMA node.
pub static MEMORY_NODES: Metric<Cgroup> = Metric::new(
    "observer.cgroup.memory.node.usage",
    "MEM NODE",
    Unit::Bytes,
    "Anonymous memory and page cache of the cgroup by the NUMA node that holds them (memory.numa_stat), read in turn, at the most at every tenth reading.",
    Read::CrossGauge(Cross {
        attributes: || &BY_NODE,
        read: |c, index| {
            let nodes = c.resources.memory.nodes.iter().filter(|(node, _)| node_place(*node) == index);
            nodes.map(|(_, bytes)| *bytes as f64).reduce(|sum, more| sum + more)
        },
    }),
);

macro_rules! pressure {
    ($static:ident, $name:literal, $title:literal, $help:literal, $field:ident) => {
        #[doc = $help]
        pub static $static: Metric<Cgroup> = Metric::new(
            $name,
            $title,
            Unit::Seconds,
            $help,
            Read::Views(&[
                Part {
                    attributes: &[("system.pressure.stall_type", "some")],
                    read: |c| c.resources.$field.map(|time| time.some),
                },
                Part { attributes: &[("system.pressure.stall_type", "full")], read: |c| c.resources.$field?.full },
            ]),
        );
    };
}

pressure!(
    CPU_PRESSURE,
    "observer.cgroup.cpu.pressure.time",
    "PSI CPU",
    "Time that at least one task of the cgroup (some), or all of them at once (full, inside some), were stalled for a CPU (cpu.pressure; v2).",
    cpu_pressure
);
pressure!(
    MEMORY_PRESSURE,
    "observer.cgroup.memory.pressure.time",
    "PSI MEMORY",
    "Time that at least one task of the cgroup (some), or all of them at once (full, inside some), were stalled for memory (memory.pressure; v2).",
    memory_pressure
);
pressure!(
    IO_PRESSURE,
    "observer.cgroup.io.pressure.time",
    "PSI IO",
    "Time that at least one task of the cgroup (some), or all of them at once (full, inside some), were stalled for I/O (io.pressure; v2).",
    io_pressure
);

#[cfg(test)]
mod tests {
    use observer_common::sched::Key;

    use super::*;
    use crate::model::cgroup::CpuStat;
    use crate::model::{Row, Value};

    fn cgroup(resources: Resources) -> Cgroup {
        let (path, cpu) = ("/a".into(), CpuStat::default());
        Cgroup {
            id: Key::v2(7),
            path,
            identity: None,
            names: None,
            cpu,
            resources: Arc::new(resources),
            sched: None,
            stalled: None,
            longest: None,
        }
    }

    fn memory(memory: Memory) -> Resources {
        Resources { memory, ..Resources::default() }
    }

    /// Values of a gauge's points, by the last attribute.
    fn values(cgroup: &Cgroup, metric: &'static Metric<Cgroup>) -> Vec<(&'static str, f64)> {
        let row = Row { is: cgroup, was: None, interval: None };
        let value = |point: crate::model::Point<'_>| match point.value {
            Value::Gauge(value) => (point.attributes[0].1, value),
            other => panic!("{other:?}"),
        };
        row.points_of(metric).into_iter().map(value).collect()
    }

    #[test]
    fn kinds_add_up_to_the_usage() {
        let kinds = |usage, anon, file, kernel| {
            let stat = MemoryStat { anon, file, kernel, ..MemoryStat::default() };
            Memory { usage, stat, ..Memory::default() }.kinds()
        };
        assert_eq!(kinds(Some(100), Some(40), Some(30), Some(20)), Some([Some(40), Some(30), Some(20), Some(10)]));
        assert_eq!(kinds(Some(100), Some(40), Some(30), None), Some([Some(40), Some(30), None, Some(30)]), "v1");
        assert_eq!(kinds(Some(60), Some(40), Some(30), Some(20)), Some([Some(40), Some(20), Some(0), Some(0)]), "read later");
        assert_eq!(kinds(Some(60), None, None, None), None, "nothing known of its parts");
        assert_eq!(kinds(None, Some(40), None, None), None);
    }

    #[test]
    fn nodes_beyond_the_names_are_told_together() {
        let nodes = Arc::from([(0, 10), (15, 3), (700, 4)]);
        let found = values(&cgroup(memory(Memory { nodes, ..Memory::default() })), &MEMORY_NODES);
        assert_eq!(found, [("0", 10.0), ("other", 7.0)]);
    }

    #[test]
    fn what_is_inside_of_the_rest_is_not_added_to_it() {
        let at = |some, full| cgroup(Resources { io_pressure: Some(Stalled { some, full: Some(full) }), ..Resources::default() });
        let (was, is) = (at(0, 0), at(500_000_000, 200_000_000));
        let row = Row { is: &is, was: Some(&was), interval: Some(1.0) };
        assert_eq!(row.number(&IO_PRESSURE, &[]), Some(0.5));
        assert_eq!(row.number(&IO_PRESSURE, &[("system.pressure.stall_type", "full")]), Some(0.2));
        assert_eq!(row.total(&IO_PRESSURE), Some(0.5));
        assert_eq!(row.number(&CPU_PRESSURE, &[]), None);
    }
}

//! How a cgroup's controllers are set, and what they count beside CPU time and memory.

use std::sync::Arc;

use super::Cgroup;
use crate::model::metric::{Metric, Part, Read, Unit};

/// What is set, by somebody or by the kernel, and seldom changes; `None` is unknown.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Share of CPU time against its siblings where there is not enough, 100 unless it is set (`cpu.weight`; v1 `cpu.shares` in its terms).
    pub weight: Option<u64>,
    /// Nanoseconds of unused quota that may be saved for later periods (`cpu.max.burst`; v1 `cpu.cfs_burst_us`).
    pub burst: Option<u64>,
    /// Numbers of the CPUs on which its tasks may run, ascending (`cpuset.cpus.effective`).
    pub cpus: Option<Arc<[u32]>>,
    /// Tasks that it may have (`pids.max`); `None` also without a limit.
    pub pids_limit: Option<u64>,
    /// How often a fork was refused because of such a limit (`pids.events`).
    pub pids_refused: Option<u64>,
    /// Whether it is frozen, itself or by an ancestor (`cgroup.events`).
    pub is_frozen: Option<bool>,
    /// What it is in the hierarchy (`cgroup.type`).
    pub kind: Option<Kind>,
}

/// `cgroup.type`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A domain: whole processes.
    Domain,
    /// A domain that is the root of threaded ones.
    ThreadedDomain,
    /// A domain that cannot have processes, being beside threaded ones.
    InvalidDomain,
    /// Threads of processes whose domain is an ancestor.
    Threaded,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 4] = [Kind::Domain, Kind::ThreadedDomain, Kind::InvalidDomain, Kind::Threaded];

    /// The kernel's words.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Domain => "domain",
            Kind::ThreadedDomain => "domain threaded",
            Kind::InvalidDomain => "domain invalid",
            Kind::Threaded => "threaded",
        }
    }
}

/// `io.stat`, summed over devices.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Io {
    /// Bytes.
    pub bytes: Operations,
    /// Requests.
    pub operations: Operations,
}

/// A number for each direction.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Operations {
    /// Read from a device.
    pub read: Option<u64>,
    /// Written to one.
    pub write: Option<u64>,
    /// Discarded on one.
    pub discard: Option<u64>,
}

/// Whose limits are the tightest, its own or an ancestor's: paths, escaped; `None` without a limit.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Limiting {
    /// That of [`CpuStat::limit`](super::CpuStat::limit).
    pub cpu: Option<Arc<str>>,
    /// That of [`Memory::limit`](super::resources::Memory::limit).
    pub memory: Option<Arc<str>>,
}

/// CPU weight.
pub static WEIGHT: Metric<Cgroup> = Metric::new(
    "observer.cgroup.cpu.weight",
    "WEIGHT",
    Unit::Count("weight"),
    "Share of CPU time against the siblings where there is not enough for all; 100 unless it is set (cpu.weight; v1 cpu.shares × 100 / 1024).",
    Read::Gauge(&[Part { attributes: &[], read: |c| c.resources.settings.weight.map(|weight| weight as f64) }]),
);

/// Burst allowance.
pub static BURST_LIMIT: Metric<Cgroup> = Metric::new(
    "observer.cgroup.cpu.burst.limit",
    "BURST MAX",
    Unit::Seconds,
    "CPU time of unused quota that may be saved for later periods (cpu.max.burst; v1 cpu.cfs_burst_us).",
    Read::Gauge(&[Part { attributes: &[], read: |c| c.resources.settings.burst.map(|burst| Unit::Seconds.scale(burst)) }]),
);

/// Whose CPU limit.
pub static LIMITED_BY: Metric<Cgroup> = Metric::new(
    "observer.cgroup.cpu.limit.cgroup",
    "LIMITED BY",
    Unit::Count("cgroup"),
    "Whose CPU limit is the tightest, the cgroup's own or an ancestor's: the path of that cgroup.",
    Read::Text(|c| c.resources.limiting.cpu.as_deref().map(str::to_owned)),
);

/// Whose memory limit.
pub static MEMORY_LIMITED_BY: Metric<Cgroup> = Metric::new(
    "observer.cgroup.memory.limit.cgroup",
    "MEM LTD BY",
    Unit::Count("cgroup"),
    "Whose memory limit is the tightest, the cgroup's own or an ancestor's: the path of that cgroup.",
    Read::Text(|c| c.resources.limiting.memory.as_deref().map(str::to_owned)),
);

/// Throttled by anybody's quota.
pub static THROTTLED_TASKS: Metric<Cgroup> = Metric::new(
    "observer.cgroup.cpu.throttled.local.time",
    "STOPPED",
    Unit::Seconds,
    "Time that the cgroup's own tasks wanted to run and were throttled, by its own limit or an ancestor's, summed over CPUs (cpu.stat.local; \
     since 6.6).",
    Read::Counter(&[Part { attributes: &[], read: |c| c.resources.throttled_tasks }]),
);

/// CPUs by number.
pub static CPUSET: Metric<Cgroup> = Metric::new(
    "observer.cgroup.cpuset.cpus",
    "CPUSET",
    Unit::Count("cpu"),
    "CPUs on which its tasks may run, by number (cpuset.cpus.effective; v2).",
    Read::Text(|c| c.resources.settings.cpus.as_deref().map(ranges)),
);

/// How many of them.
pub static CPUSET_SIZE: Metric<Cgroup> = Metric::new(
    "observer.cgroup.cpuset.size",
    "CPUS",
    Unit::Cpus,
    "How many CPUs its tasks may run on (cpuset.cpus.effective; v2).",
    Read::Gauge(&[Part { attributes: &[], read: |c| c.resources.settings.cpus.as_ref().map(|cpus| cpus.len() as f64) }]),
);

/// Tasks.
pub static PIDS: Metric<Cgroup> = Metric::new(
    "observer.cgroup.pids.usage",
    "PIDS",
    Unit::Count("task"),
    "Processes and threads in the cgroup (pids.current; v2).",
    Read::Gauge(&[Part { attributes: &[], read: |c| c.resources.pids.map(|pids| pids as f64) }]),
);

/// Their limit.
pub static PIDS_LIMIT: Metric<Cgroup> = Metric::new(
    "observer.cgroup.pids.limit",
    "PIDS LIMIT",
    Unit::Count("task"),
    "Processes and threads that the cgroup may have, by its own limit (pids.max; v2).",
    Read::Gauge(&[Part { attributes: &[], read: |c| c.resources.settings.pids_limit.map(|pids| pids as f64) }]),
);

/// Refused forks.
pub static PIDS_REFUSED: Metric<Cgroup> = Metric::new(
    "observer.cgroup.pids.refused",
    "FORK FAIL",
    Unit::Count("fork"),
    "Forks that were refused because of such a limit, as the kernel counts them for the cgroup (pids.events max; v2).",
    Read::Counter(&[Part { attributes: &[], read: |c| c.resources.settings.pids_refused }]),
);

macro_rules! by_direction {
    ($field:ident) => {
        Read::Counter(&[
            Part { attributes: &[("disk.io.direction", "read")], read: |c| c.resources.io.$field.read },
            Part { attributes: &[("disk.io.direction", "write")], read: |c| c.resources.io.$field.write },
            Part { attributes: &[("disk.io.direction", "discard")], read: |c| c.resources.io.$field.discard },
        ])
    };
}

/// Bytes to and from devices.
pub static DISK_IO: Metric<Cgroup> = Metric::new(
    "observer.cgroup.disk.io",
    "DISK IO",
    Unit::Bytes,
    "Bytes read from, written to and discarded on all block devices (io.stat; v2).",
    by_direction!(bytes),
);

/// Requests to devices.
pub static DISK_OPERATIONS: Metric<Cgroup> = Metric::new(
    "observer.cgroup.disk.operations",
    "DISK OPS",
    Unit::Count("operation"),
    "Requests to all block devices to read, write and discard (io.stat; v2).",
    by_direction!(operations),
);

/// Frozen or not.
pub static FROZEN: Metric<Cgroup> = Metric::new(
    "observer.cgroup.frozen",
    "FROZEN",
    Unit::Count("cgroup"),
    "1 while the cgroup is frozen, by itself or by an ancestor, else 0 (cgroup.events; v2).",
    Read::Gauge(&[Part { attributes: &[], read: |c| c.resources.settings.is_frozen.map(|frozen| f64::from(u8::from(frozen))) }]),
);

/// Domain or threaded.
pub static TYPE: Metric<Cgroup> = Metric::new(
    "observer.cgroup.type",
    "TYPE",
    Unit::Count("type"),
    "What the cgroup is in its hierarchy: domain, threaded, domain threaded (the root of threaded ones) or domain invalid (cgroup.type; v2).",
    Read::Text(|c| c.resources.settings.kind.map(|kind| kind.name().to_owned())),
);

/// Numbers as the kernel lists them: `0-3,8`.
fn ranges(numbers: &[u32]) -> String {
    let runs = numbers.chunk_by(|one, next| one.checked_add(1) == Some(*next));
    let run = |run: &[u32]| match run {
        [first, .., last] => format!("{first}-{last}"),
        _ => run.iter().map(u32::to_string).collect(),
    };
    runs.map(run).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_the_kernel_lists_them() {
        for (numbers, text) in [(&[][..], ""), (&[7], "7"), (&[0, 1, 2, 3, 8], "0-3,8"), (&[1, 3, 4], "1,3-4")] {
            assert_eq!(ranges(numbers), text);
        }
    }
}

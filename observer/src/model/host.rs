//! The machine.

use std::sync::Arc;

use observer_common::locality::{CACHE, UNKNOWN};

use super::placement::{BY_LOCALITY, BY_MOVE, by_locality, local, migration_metric, placement_metrics};
use super::sched::ledger_metric;
use super::{Cross, Entity, Kind, Label, Labels, Metric, Part, Read, Residual, Sample, Sched, TcpTotals, Unit, tcp};

/// What `/proc` says of the machine as a whole. Bytes and nanoseconds; `None` is unknown.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Host {
    /// Host name, escaped.
    pub name: String,
    /// Load averages over 1, 5 and 15 minutes (`/proc/loadavg`).
    pub load: Option<[f64; 3]>,
    /// Memory (`/proc/meminfo`).
    pub memory: Option<Memory>,
    /// Time since boot in nanoseconds (`/proc/uptime`).
    pub uptime: Option<u64>,
    /// Tasks runnable now and blocked on I/O (`/proc/stat` procs_running, procs_blocked).
    pub tasks: Option<Tasks>,
    /// Context switches since boot (`/proc/stat` ctxt).
    pub context_switches: Option<u64>,
    /// How long tasks were stalled (`/proc/pressure`).
    pub pressure: Option<Pressure>,
    /// What the kernel counts of the page allocator (`/proc/vmstat`).
    pub vmstat: Option<Vmstat>,
    /// What the scheduler hook counted on the whole machine.
    pub sched: Option<Arc<Sched>>,
    /// `run_delay` of all tasks by the kernel's own count, the dead included; only its growth means something.
    pub delay: Option<u64>,
    /// Time of all CPUs that was not idle, by `/proc/stat`, in ticks there.
    pub busy: Option<u64>,
    /// Pages that the page allocator gave by the memory family's count.
    pub pages: Option<u64>,
    /// What TCP sent again.
    pub tcp: TcpTotals,
    /// Look-ups of the scheduler hook that found its table full; their counts are in the row `~other`.
    pub table_full: Option<u64>,
    /// CPU time that stood idle while tasks waited on other CPUs.
    pub imbalance: Option<Imbalance>,
    /// Switches that the kernel did not report to the scheduler hook, and that took a wait or a run with them.
    pub untraced: Option<u64>,
}

/// Memory of the machine in bytes. The states partition the total.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Memory {
    /// `MemTotal`.
    pub total: u64,
    /// `MemFree`.
    pub free: u64,
    /// `Buffers`.
    pub buffers: u64,
    /// `Cached` + `SReclaimable`.
    pub cached: u64,
    /// `MemAvailable`, which old kernels do not tell.
    pub available: Option<u64>,
}

impl Memory {
    /// Neither free nor buffers nor cache.
    pub fn used(&self) -> u64 {
        self.total.saturating_sub(self.free + self.buffers + self.cached)
    }
}

/// Time in nanoseconds since boot that tasks were stalled, by resource.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Pressure {
    /// For a CPU.
    pub cpu: Stalled,
    /// For memory.
    pub memory: Stalled,
    /// For I/O.
    pub io: Stalled,
}

/// Time in nanoseconds.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Stalled {
    /// Of some task at least.
    pub some: u64,
    /// Of all that were not idle at once; unknown of the CPU before 5.13.
    pub full: Option<u64>,
}

/// Since boot, on all zones.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Vmstat {
    /// `pgalloc_*`: pages given.
    pub allocated: Option<u64>,
    /// `allocstall_*`: direct reclaims.
    pub reclaims: Option<u64>,
    /// `compact_stall`: direct compactions.
    pub compactions: Option<u64>,
    /// `oom_kill`: processes killed for their memory.
    pub oom_kills: Option<u64>,
}

/// Numbers of tasks.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Tasks {
    /// Runnable, the running ones included.
    pub running: u64,
    /// Blocked on I/O.
    pub blocked: u64,
}

/// CPU time in nanoseconds that stood idle while tasks waited on other CPUs, by why; cumulative since observer attached.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Imbalance {
    /// Tasks that may run on the idle CPU waited all the same: work conservation was lost.
    pub allowed: u64,
    /// Their affinity or cpuset forbids the idle CPUs to all that waited.
    pub pinned: u64,
    /// Nobody knows where those that waited may run.
    pub unknown: u64,
}

impl Imbalance {
    /// Adds another's time.
    pub fn add(&mut self, other: &Imbalance) {
        self.allowed += other.allowed;
        self.pinned += other.pinned;
        self.unknown += other.unknown;
    }
}

/// Load average.
pub static LOAD: Metric<Host> = Metric::new(
    "observer.host.load",
    "LOAD",
    Unit::Count("task"),
    "Load average: tasks runnable or in uninterruptible sleep, damped over 1, 5 and 15 minutes (three views of one number).",
    Read::Gauge(&[
        Part { attributes: &[("observer.load.period", "1m")], read: |h| Some(h.load?[0]) },
        Part { attributes: &[("observer.load.period", "5m")], read: |h| Some(h.load?[1]) },
        Part { attributes: &[("observer.load.period", "15m")], read: |h| Some(h.load?[2]) },
    ]),
);

/// Memory by state.
pub static MEMORY_USAGE: Metric<Host> = Metric::new(
    "system.memory.usage",
    "MEMORY",
    Unit::Bytes,
    "Memory by state; the states add up to the machine's memory.",
    Read::Gauge(&[
        Part { attributes: &[("system.memory.state", "used")], read: |h| Some(h.memory?.used() as f64) },
        Part { attributes: &[("system.memory.state", "free")], read: |h| Some(h.memory?.free as f64) },
        Part { attributes: &[("system.memory.state", "buffers")], read: |h| Some(h.memory?.buffers as f64) },
        Part { attributes: &[("system.memory.state", "cached")], read: |h| Some(h.memory?.cached as f64) },
    ]),
);

/// Memory that a new program could have.
pub static MEMORY_AVAILABLE: Metric<Host> = Metric::new(
    "system.memory.linux.available",
    "AVAILABLE",
    Unit::Bytes,
    "The kernel's estimate of memory that a new program could have without swapping (MemAvailable).",
    Read::Gauge(&[Part { attributes: &[], read: |h| Some(h.memory?.available? as f64) }]),
);

/// Time since boot.
pub static UPTIME: Metric<Host> = Metric::new(
    "system.uptime",
    "UPTIME",
    Unit::Seconds,
    "Time since boot.",
    Read::Gauge(&[Part { attributes: &[], read: |h| Some(Unit::Seconds.scale(h.uptime?)) }]),
);

/// Runnable and blocked tasks.
pub static TASKS: Metric<Host> = Metric::new(
    "observer.host.tasks",
    "TASKS",
    Unit::Count("task"),
    "Tasks that are runnable (running ones included) or blocked on I/O at the moment of reading.",
    Read::Gauge(&[
        Part { attributes: &[("observer.task.state", "runnable")], read: |h| Some(h.tasks?.running as f64) },
        Part { attributes: &[("observer.task.state", "blocked")], read: |h| Some(h.tasks?.blocked as f64) },
    ]),
);

/// The kernel's own count of context switches.
pub static CONTEXT_SWITCHES: Metric<Host> = Metric::new(
    "observer.host.context_switches",
    "CTXT",
    Unit::Count("switch"),
    "Context switches since boot by the kernel's own count (ctxt in /proc/stat); those to the idle task included.",
    Read::Counter(&[Part { attributes: &[], read: |h| h.context_switches }]),
);

/// CPUs that idle while tasks wait.
pub static IMBALANCE: Metric<Host> = Metric::new(
    "observer.sched.imbalance.time",
    "IMBALANCE",
    Unit::Seconds,
    "CPU time that stood idle while tasks waited on other CPUs. Sampled: about 20 times a second, at random moments (once an interval where \
     that is shorter than 50 ms), the smaller of the number of idle CPUs and the number of tasks that wait on others, times the time that the \
     moment stands for. How many wait is known from their CPU's last switch; where there was none since the moment before, no more count than \
     the task iterator saw there in the last reading. By cause, from the affinity of up to 16 tasks that waited at the last reading, the \
     longest waits first: allowed, an idle CPU was allowed to them (work conservation lost); pinned, none was, by affinity or cpuset; \
     unknown, none was asked of those on that CPU.",
    Read::Counter(&[
        Part { attributes: &[("observer.imbalance.cause", "allowed")], read: |h| Some(h.imbalance?.allowed) },
        Part { attributes: &[("observer.imbalance.cause", "pinned")], read: |h| Some(h.imbalance?.pinned) },
        Part { attributes: &[("observer.imbalance.cause", "unknown")], read: |h| Some(h.imbalance?.unknown) },
    ]),
);

/// What was lost.
pub static DROPPED: Metric<Host> = Metric::new(
    "observer.events.dropped",
    "DROPPED",
    Unit::Count("event"),
    "What was lost, by cause. table_full: look-ups that found no slot, because too many cgroups ran on one CPU between two readings \
     (booked to ~other). untraced: switches that the kernel did not report and that took a wait with them, or the run before idling. \
     flows_full: TCP retransmissions of more flows than can be told apart between two readings (booked to ~other). tcp_nested: those during \
     which the program was at work already on the same CPU.",
    Read::Counter(&[
        Part { attributes: &[("observer.drop.cause", "table_full")], read: |h| h.table_full },
        Part { attributes: &[("observer.drop.cause", "untraced")], read: |h| h.untraced },
        Part { attributes: &[("observer.drop.cause", "flows_full")], read: |h| h.tcp.full },
        Part { attributes: &[("observer.drop.cause", "tcp_nested")], read: |h| h.tcp.nested },
    ]),
);

ledger_metric!(Host);
placement_metrics!(Host);
migration_metric!(Host);

/// Observer against the kernel.
pub static RESIDUAL: Metric<Host> = Metric::new(
    "observer.reconcile.residual",
    "RESIDUAL",
    Unit::Ratio,
    "By what part the interval's count exceeds the kernel's own: run_delay, waits (before migrations, too) against the growth of run_delay \
     of all tasks; proc_stat, runs against the time that /proc/stat calls not idle, which counts in ticks; vmstat, pages given against \
     pgalloc_* of /proc/vmstat; netstat, segments sent again in observer's own network namespace against RetransSegs less TCPRetransFail. \
     The last two are not read at one moment: what comes in between is in the next interval; and pages that the kernel takes in bulk \
     (vmalloc, page pools of network drivers) pass no tracepoint: some 30 a second on an idle machine, most of the few that are given there, \
     0.1 to 0.3 % on a busy one.",
    Read::Residual(&[
        Part {
            attributes: &[("observer.reconcile.source", "run_delay")],
            read: |h| {
                let sched = h.sched.as_ref()?;
                Some(Residual { ours: sched.latency.sum + sched.migrated, kernels: h.delay? })
            },
        },
        Part {
            attributes: &[("observer.reconcile.source", "proc_stat")],
            read: |h| {
                let sched = h.sched.as_ref()?;
                Some(Residual { ours: sched.run + sched.open.run, kernels: h.busy? })
            },
        },
        Part {
            attributes: &[("observer.reconcile.source", "vmstat")],
            read: |h| Some(Residual { ours: h.pages?, kernels: h.vmstat?.allocated? }),
        },
        Part {
            attributes: &[("observer.reconcile.source", "netstat")],
            // What found no place may be of any namespace.
            read: |h| Some(Residual { ours: h.tcp.own.filter(|_| h.tcp.full == Some(0))?, kernels: h.tcp.kernel?.sent()? }),
        },
    ]),
);

/// Some task was stalled.
pub static PRESSURE_SOME: Metric<Host> = Metric::new(
    "observer.host.pressure.some.time",
    "SOME",
    Unit::Seconds,
    "Time since boot that at least one task was stalled for a resource (PSI, some; three views, not parts of a whole).",
    Read::Counter(&[
        Part { attributes: &[("observer.pressure.resource", "cpu")], read: |h| Some(h.pressure?.cpu.some) },
        Part { attributes: &[("observer.pressure.resource", "memory")], read: |h| Some(h.pressure?.memory.some) },
        Part { attributes: &[("observer.pressure.resource", "io")], read: |h| Some(h.pressure?.io.some) },
    ]),
);

/// All tasks were stalled.
pub static PRESSURE_FULL: Metric<Host> = Metric::new(
    "observer.host.pressure.full.time",
    "FULL",
    Unit::Seconds,
    "Time since boot that all tasks which were not idle were stalled for a resource at once (PSI, full; inside the time of some).",
    Read::Counter(&[
        Part { attributes: &[("observer.pressure.resource", "cpu")], read: |h| h.pressure?.cpu.full },
        Part { attributes: &[("observer.pressure.resource", "memory")], read: |h| h.pressure?.memory.full },
        Part { attributes: &[("observer.pressure.resource", "io")], read: |h| h.pressure?.io.full },
    ]),
);

/// The kernel's count of pages given.
pub static KERNEL_PAGES: Metric<Host> = Metric::new(
    "observer.host.memory.allocated",
    "PAGES",
    Unit::Count("page"),
    "Pages that the allocator gave since boot, as the kernel counts them (pgalloc_* in /proc/vmstat): beside observer.memory.allocations, each \
     of which is 2^order pages.",
    Read::Counter(&[Part { attributes: &[], read: |h| h.vmstat?.allocated }]),
);

/// The kernel's count of stalls.
pub static KERNEL_STALLS: Metric<Host> = Metric::new(
    "observer.host.memory.stalls",
    "STALLS",
    Unit::Count("stall"),
    "Direct reclaims (allocstall_*) and direct compactions (compact_stall) since boot, as the kernel counts them in /proc/vmstat; reclaim at a \
     cgroup's limit is not among them.",
    Read::Counter(&[
        Part { attributes: &[("observer.memory.stall", "reclaim")], read: |h| h.vmstat?.reclaims },
        Part { attributes: &[("observer.memory.stall", "compaction")], read: |h| h.vmstat?.compactions },
    ]),
);

/// Processes killed for memory.
pub static OOM_KILLS: Metric<Host> = Metric::new(
    "observer.host.memory.oom_kills",
    "OOM",
    Unit::Count("process"),
    "Processes that the kernel killed since boot because memory ran out, at a cgroup's limit, too (oom_kill in /proc/vmstat).",
    Read::Counter(&[Part { attributes: &[], read: |h| h.vmstat?.oom_kills }]),
);

/// In order of importance.
static ALL: &[&Metric<Host>] = &[
    &LEDGER,
    &RUNS,
    &RUN_PLACES,
    &LOCAL_DISPATCHES,
    &CACHE_DISPATCHES,
    &MIGRATIONS,
    &IMBALANCE,
    &RESIDUAL,
    &LOAD,
    &MEMORY_USAGE,
    &MEMORY_AVAILABLE,
    &UPTIME,
    &TASKS,
    &CONTEXT_SWITCHES,
    &PRESSURE_SOME,
    &PRESSURE_FULL,
    &KERNEL_PAGES,
    &KERNEL_STALLS,
    &OOM_KILLS,
    &tcp::host::RETRANSMITS,
    &tcp::host::RETRANSMIT_FAILURES,
    &tcp::host::KERNEL_SEGMENTS,
    &tcp::host::KERNEL_FAILED,
    &tcp::host::KERNEL_TIMEOUTS,
    &tcp::host::KERNEL_PROBES,
    &tcp::host::KERNEL_FAST,
    &tcp::host::KERNEL_SYN,
    &DROPPED,
];

impl Entity for Host {
    const KIND: Kind = Kind::Host;
    type Key = ();

    fn key(&self) {}

    fn labels(&self) -> Labels<'_> {
        vec![("host", Label::Text(self.name.as_str().into()))]
    }

    fn metrics() -> &'static [&'static Metric<Host>] {
        ALL
    }

    fn of(sample: &Sample) -> &[Host] {
        std::slice::from_ref(&sample.host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_states_partition_the_total() {
        let memory = Memory { total: 100, free: 20, buffers: 5, cached: 30, available: None };
        assert_eq!(memory.used() + memory.free + memory.buffers + memory.cached, memory.total);
    }
}

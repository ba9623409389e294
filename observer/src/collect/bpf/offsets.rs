//! Where the running kernel keeps what the programs read, from its BTF: facts, never a version.

use observer_common::memory::MemoryOffsets;
use observer_common::sched::Offsets;
use observer_common::tasks::TaskOffsets;
use observer_common::tcp::TcpOffsets;

use super::btf::{Btf, BtfError, Missing};
use super::{memory, tasks, tcp};

/// What the kernel's BTF gave: the offsets, and what is missing although the programs do without it.
#[derive(Clone)]
pub struct Resolved {
    /// For the kernel side.
    pub offsets: Offsets,
    /// Things that this kernel lacks and whose lack only degrades.
    pub lacking: Vec<Lacking>,
    /// Whether migrations can be followed; or what is missing for that.
    pub moves: Result<(), Missing>,
    /// For the task iterator; or the field without which it is off, alone.
    pub tasks: Result<TaskOffsets, Missing>,
    /// For the memory family; or the tracepoint without which it is off, alone.
    pub memory: Result<MemoryOffsets, Missing>,
    /// For the TCP family; or what it is off without, alone.
    pub tcp: Result<TcpOffsets, Missing>,
}

/// Something this kernel does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lacking {
    /// What is not there.
    pub missing: Missing,
    /// What is lost with it.
    pub lost: &'static str,
}

/// Why the scheduler family cannot run on this kernel.
#[derive(Debug, thiserror::Error)]
pub enum OffsetsError {
    /// The bytes are not BTF.
    #[error(transparent)]
    Btf(#[from] BtfError),
    /// A field that the family cannot do without.
    #[error("the kernel's BTF says: {0}; without it there are no run-queue waits")]
    Missing(Missing),
}

const NAMES: [&str; 26] = [
    "task_struct",
    "cfs_rq",
    "rq",
    "css_set",
    "cgroup_subsys_state",
    "cgroup",
    "kernfs_node",
    "sched_info",
    "cgroup_subsys_id",
    "btf_trace_sched_switch",
    "signal_struct",
    "cred",
    "btf_trace_mm_page_alloc",
    "bpf_func_id",
    "sock_common",
    "net",
    "sock",
    "sock_cgroup_data",
    "sk_buff",
    "tcp_skb_cb",
    "tcp_sock",
    "inet_connection_sock",
    "btf_trace_tcp_retransmit_skb",
    "btf_trace_sched_migrate_task",
    "thread_info",
    "cpumask",
];

/// Resolves the scheduler family's offsets.
///
/// # Errors
///
/// Malformed BTF, or a field that the family cannot do without; the message names it.
pub fn resolve(bytes: &[u8]) -> Result<Resolved, OffsetsError> {
    let btf = Btf::read(bytes, NAMES)?;
    let member = |path: &str| match btf.member(path)? {
        Ok(member) => Ok(member.offset),
        Err(missing) => Err(OffsetsError::Missing(missing)),
    };
    let mut lacking = Vec::new();
    let switch_has_state = match btf.tracepoint_arguments("sched_switch")? {
        Ok(arguments) => arguments >= 4,
        Err(missing) => return Err(OffsetsError::Missing(missing)),
    };
    let css_set_cpu = match cpu_controller(&btf)? {
        Ok(offset) => offset,
        Err(missing) => {
            let lost = "cgroups of the v1 cpu hierarchy are counted as /";
            lacking.push(Lacking { missing, lost });
            0
        }
    };
    let (rq_steal, rq_interrupt) = taken(&btf, &mut lacking)?;
    let (rq_cfs_queued, rq_cfs_runnable) = asleep(&btf)?;
    let iowait = btf.bits("task_struct.in_iowait")?;
    if let Err(missing) = &iowait {
        lacking.push(Lacking { missing: missing.clone(), lost: "sleeps for I/O are counted as others" });
    }
    let (task_in_iowait, task_in_iowait_mask) = iowait.map_or((0, 0), |bits| (bits.offset / 8, 1 << (bits.offset % 8)));
    let moves = moves(&btf)?;
    let (task_cpu, task_on_rq) = moves.clone().unwrap_or((0, 0));
    let cpus = btf.member("task_struct.cpus_mask.bits")?;
    let offsets = Offsets {
        task_pid: member("task_struct.pid")?,
        task_tgid: member("task_struct.tgid")?,
        task_group_leader: member("task_struct.group_leader")?,
        task_start_time: member("task_struct.start_time")?,
        task_comm: member("task_struct.comm")?,
        task_state: member("task_struct.__state|state")?,
        task_cfs_rq: member("task_struct.se.cfs_rq")?,
        task_last_queued: member("task_struct.sched_info.last_queued")?,
        task_last_arrival: member("task_struct.sched_info.last_arrival")?,
        task_pcount: member("task_struct.sched_info.pcount")?,
        task_run_delay: member("task_struct.sched_info.run_delay")?,
        task_cgroups: member("task_struct.cgroups")?,
        task_cpu,
        task_on_rq,
        task_cpus_mask: cpus.as_ref().map_or(0, |member| member.offset),
        task_cpus_words: cpus.map_or(0, |member| member.size / 8),
        task_in_iowait,
        task_in_iowait_mask,
        cfs_rq_rq: member("cfs_rq.rq")?,
        cfs_rq_throttled: throttled(&btf, &mut lacking)?,
        rq_clock: member("rq.clock")?,
        rq_cpu: member("rq.cpu")?,
        rq_nr_running: member("rq.nr_running")?,
        rq_cfs_queued,
        rq_cfs_runnable,
        rq_steal,
        rq_interrupt,
        css_set_dfl_cgrp: member("css_set.dfl_cgrp")?,
        css_set_cpu,
        css_cgroup: member("cgroup_subsys_state.cgroup")?,
        cgroup_parent: member("cgroup.self.parent")?,
        cgroup_kn: member("cgroup.kn")?,
        kn_id: member("kernfs_node.id")?,
        // The loader's business.
        delays_mask: 0,
        moved_mask: 0,
        has_siblings: 0,
        switch_has_state: u64::from(switch_has_state),
    };
    let (tasks, memory, tcp) = (tasks::resolve(&btf)?, memory::resolve(&btf)?, tcp::resolve(&btf)?);
    Ok(Resolved { offsets, lacking, moves: moves.map(|_| ()), tasks, memory, tcp })
}

/// Since 6.12 a queue holds tasks that sleep, and counts them; later it counted those that do not. Without either, nobody sleeps in it.
fn asleep(btf: &Btf<'_>) -> Result<(u64, u64), BtfError> {
    if let Ok(delayed) = btf.member("rq.cfs.h_nr_delayed")? {
        return Ok((delayed.offset, 0));
    }
    match (btf.member("rq.cfs.h_nr_queued")?, btf.member("rq.cfs.h_nr_runnable")?) {
        (Ok(queued), Ok(runnable)) => Ok((queued.offset, runnable.offset)),
        _ => Ok((0, 0)),
    }
}

/// What tells where a task that is moved comes from, and why it is.
fn moves(btf: &Btf<'_>) -> Result<Result<(u64, u64), Missing>, BtfError> {
    if let Err(missing) = btf.tracepoint_arguments("sched_migrate_task")? {
        return Ok(Err(missing));
    }
    let cpu = match btf.member("task_struct.thread_info.cpu")? {
        Ok(cpu) => cpu,
        // Of the task itself on some architectures, before 5.16 on most.
        Err(_) => match btf.member("task_struct.cpu")? {
            Ok(cpu) => cpu,
            Err(missing) => return Ok(Err(missing)),
        },
    };
    Ok(btf.member("task_struct.on_rq")?.map(|on_rq| (cpu.offset, on_rq.offset)))
}

/// The run queue's clocks of what was taken from it; each exists only if the kernel is configured to account it.
fn taken(btf: &Btf<'_>, lacking: &mut Vec<Lacking>) -> Result<(u64, u64), BtfError> {
    let steal = match (btf.member("rq.prev_steal_time_rq")?, btf.member("rq.prev_steal_time")?) {
        (Ok(exact), _) => exact.offset,
        (Err(missing), Ok(sampled)) => {
            lacking.push(Lacking { missing, lost: "hypervisor steal of a cgroup is sampled on ticks" });
            sampled.offset
        }
        (Err(_), Err(missing)) => {
            lacking.push(Lacking { missing, lost: "hypervisor steal of a cgroup is unknown" });
            0
        }
    };
    // Many kernels do without by design, and nothing else suffers: unknown, but no reason to call the source degraded.
    let interrupt = btf.member("rq.prev_irq_time")?.map_or(0, |member| member.offset);
    Ok((steal, interrupt))
}

/// The sum of the time that a quota stopped a `cfs_rq`, under the name that this kernel has for it.
fn throttled(btf: &Btf<'_>, lacking: &mut Vec<Lacking>) -> Result<u64, BtfError> {
    for exact in ["cfs_rq.throttled_clock_self_time", "cfs_rq.throttled_clock_task_time"] {
        if let Ok(member) = btf.member(exact)? {
            return Ok(member.offset);
        }
    }
    match (btf.member("cfs_rq.throttled_clock_self_time")?, btf.member("cfs_rq.throttled_clock_pelt_time")?) {
        (Err(missing), Ok(scaled)) => {
            lacking.push(Lacking {
                missing,
                lost: "throttled time within waits is measured on a clock that follows the CPU's frequency",
            });
            Ok(scaled.offset)
        }
        (_, Err(missing)) => {
            lacking.push(Lacking { missing, lost: "waits under a CPU quota are not told from others" });
            Ok(0)
        }
        (Ok(member), Ok(_)) => Ok(member.offset),
    }
}

/// `css_set.subsys[cpu_cgrp_id]`: the number is a matter of the kernel's configuration.
fn cpu_controller(btf: &Btf<'_>) -> Result<Result<u64, Missing>, BtfError> {
    let subsys = match btf.member("css_set.subsys")? {
        Ok(subsys) => subsys,
        Err(missing) => return Ok(Err(missing)),
    };
    let id = match btf.enumerator("cgroup_subsys_id", "cpu_cgrp_id")? {
        Ok(id) => id,
        Err(missing) => return Ok(Err(missing)),
    };
    let (Some(array), Ok(id)) = (subsys.array, u64::try_from(id)) else {
        return Ok(Err(Missing::Form { name: "css_set.subsys".into(), wanted: "an array" }));
    };
    if id >= u64::from(array.len) {
        return Ok(Err(Missing::Form { name: "cpu_cgrp_id".into(), wanted: "an index of css_set.subsys" }));
    }
    Ok(Ok(subsys.offset + id * array.element_size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_btf_is_an_error() {
        assert!(matches!(resolve(b""), Err(OffsetsError::Btf(_))));
        assert!(matches!(resolve(&[0x9f, 0xeb, 1, 0]), Err(OffsetsError::Btf(_))));
    }
}

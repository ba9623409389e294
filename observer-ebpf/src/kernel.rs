//! Typed readers of kernel structures: all pointer chasing is here.
//!
//! A `tp_btf` program gets trusted, typed pointers. A plain load through one is checked by the verifier against the kernel's BTF and
//! costs about a nanosecond; a wrong offset is refused when the program is loaded. Loads are volatile because the offset is a
//! constant only to the verifier, never to the compiler.
#![allow(unsafe_code, reason = "reads kernel memory through typed pointers; the kernel's verifier checks every access")]

use core::ffi::c_void;

use observer_common::sched::{Key, Offsets};

/// Set by user space before the load (`collect/bpf/offsets.rs`); frozen read-only, so that the verifier knows every value.
#[unsafe(no_mangle)]
static OFFSETS: Offsets = {
    // SAFETY: Offsets is plain integers, for which zero is a value.
    unsafe { core::mem::zeroed() }
};

macro_rules! offset {
    ($field:ident) => {
        // SAFETY: a read of a static; volatile, so that the compiler does not fold the zero of before the load.
        unsafe { (&raw const OFFSETS.$field).read_volatile() }
    };
}

/// Does `sched_switch` tell the leaving task's state?
#[inline(always)]
pub(crate) fn switch_has_state() -> bool {
    offset!(switch_has_state) != 0
}

/// Does the kernel tell how long a quota stopped a `cfs_rq`?
#[inline(always)]
pub(crate) fn cfs_rq_has_throttled() -> bool {
    offset!(cfs_rq_throttled) != 0
}

/// Loads a `T` at `offset` of a kernel structure.
#[inline(always)]
fn load<T: Copy>(base: *const c_void, offset: u64) -> T {
    // SAFETY: base is a typed kernel pointer; the verifier refuses any load outside the structure or of another type, and the
    // kernel's fault handler turns a load through a stale pointer into zero.
    unsafe { base.cast::<u8>().add(offset as usize).cast::<T>().read_volatile() }
}

/// `TASK_DEAD` (`include/linux/sched.h`): the task leaves its CPU for the last time.
pub(crate) const TASK_DEAD: u32 = 0x80;

/// `struct task_struct`.
#[derive(Clone, Copy)]
pub(crate) struct Task(pub(crate) *const c_void);

impl Task {
    /// The thread's id; 0 for the idle task.
    #[inline(always)]
    pub(crate) fn pid(self) -> u64 {
        u64::from(load::<u32>(self.0, offset!(task_pid)))
    }

    /// Low word of the task's state; 0 is runnable.
    #[inline(always)]
    pub(crate) fn state(self) -> u32 {
        load(self.0, offset!(task_state))
    }

    /// The queue of its cgroup on its CPU.
    #[inline(always)]
    pub(crate) fn cfs_rq(self) -> CfsRq {
        CfsRq(load(self.0, offset!(task_cfs_rq)))
    }

    /// All that it ever waited on run queues.
    #[inline(always)]
    pub(crate) fn run_delay(self) -> u64 {
        load(self.0, offset!(task_run_delay))
    }

    /// Its name, 16 bytes ending in zeros.
    #[inline(always)]
    pub(crate) fn comm(self) -> [u64; 2] {
        [load(self.0, offset!(task_comm)), load(self.0, offset!(task_comm) + 8)]
    }

    /// The first thread of its process.
    #[inline(always)]
    pub(crate) fn leader(self) -> Task {
        Task(load(self.0, offset!(task_group_leader)))
    }

    /// The key of its process.
    #[inline(always)]
    pub(crate) fn process(self) -> Key {
        Key::process(load(self.0, offset!(task_tgid)), load(self.leader().0, offset!(task_start_time)))
    }

    /// Run-queue clock when it began to wait; 0 when it does not.
    #[inline(always)]
    pub(crate) fn last_queued(self) -> u64 {
        load(self.0, offset!(task_last_queued))
    }

    /// Run-queue clock when it was last dispatched.
    #[inline(always)]
    pub(crate) fn last_arrival(self) -> u64 {
        load(self.0, offset!(task_last_arrival))
    }

    /// How often it was dispatched after a wait.
    #[inline(always)]
    pub(crate) fn pcount(self) -> u64 {
        load(self.0, offset!(task_pcount))
    }

    /// Its cgroup: the default hierarchy's if that is not the root, else that of the v1 `cpu` hierarchy if that is not the root, else
    /// the root.
    #[inline(always)]
    pub(crate) fn cgroup(self) -> Cgroup {
        let css_set = load(self.0, offset!(task_cgroups));
        let cgroup = load(css_set, offset!(css_set_dfl_cgrp));
        let id = cgroup_id(cgroup);
        if id != ROOT_ID {
            return Cgroup { key: Key::v2(id), pointer: cgroup };
        }
        if offset!(css_set_cpu) != 0 {
            // On a pure v2 host this is the default hierarchy's root once more.
            let css = load(css_set, offset!(css_set_cpu));
            let cgroup = load(css, offset!(css_cgroup));
            let id = cgroup_id(cgroup);
            if id != ROOT_ID {
                return Cgroup { key: Key::cpu(id), pointer: cgroup };
            }
        }
        Cgroup { key: Key::ROOT, pointer: cgroup }
    }
}

/// `struct cfs_rq`.
#[derive(Clone, Copy)]
pub(crate) struct CfsRq(*const c_void);

impl CfsRq {
    /// The run queue that it is part of.
    #[inline(always)]
    pub(crate) fn run_queue(self) -> RunQueue {
        RunQueue(load(self.0, offset!(cfs_rq_rq)))
    }

    /// How long a quota, its cgroup's own or an ancestor's, has stopped it so far; 0 where the kernel does not tell.
    #[inline(always)]
    pub(crate) fn throttled(self) -> u64 {
        if cfs_rq_has_throttled() { load(self.0, offset!(cfs_rq_throttled)) } else { 0 }
    }

    /// Tells it from others.
    #[inline(always)]
    pub(crate) fn address(self) -> u64 {
        self.0 as u64
    }
}

/// `struct rq`.
#[derive(Clone, Copy)]
pub(crate) struct RunQueue(*const c_void);

impl RunQueue {
    /// Its clock in nanoseconds: wall time since boot as this CPU sees it.
    #[inline(always)]
    pub(crate) fn clock(self) -> u64 {
        load(self.0, offset!(rq_clock))
    }

    /// What the hypervisor has taken from this CPU so far, in nanoseconds; `None` where the kernel does not account it.
    #[inline(always)]
    pub(crate) fn steal(self) -> Option<u64> {
        if offset!(rq_steal) == 0 { None } else { Some(load(self.0, offset!(rq_steal))) }
    }

    /// What interrupts have taken from this CPU so far, in nanoseconds; `None` where the kernel does not account it.
    #[inline(always)]
    pub(crate) fn interrupt(self) -> Option<u64> {
        if offset!(rq_interrupt) == 0 { None } else { Some(load(self.0, offset!(rq_interrupt))) }
    }

    /// Number of its CPU.
    #[inline(always)]
    pub(crate) fn cpu(self) -> u32 {
        load(self.0, offset!(rq_cpu))
    }
}

/// `struct cgroup`, and the key under which its time is booked.
#[derive(Clone, Copy)]
pub(crate) struct Cgroup {
    /// The key.
    pub(crate) key: Key,
    pointer: *const c_void,
}

impl Cgroup {
    /// The parent's key; 0 for the root.
    #[inline(always)]
    pub(crate) fn parent(self) -> u64 {
        if self.key == Key::ROOT {
            return 0;
        }
        let css = load(self.pointer, offset!(cgroup_parent));
        let id = cgroup_id(load(css, offset!(css_cgroup)));
        if id == ROOT_ID { Key::ROOT.0 } else { Key::new(self.key.kind(), id).0 }
    }
}

/// The root directory is the first node of its kernfs tree, whatever the hierarchy.
const ROOT_ID: u64 = 1;

#[inline(always)]
fn cgroup_id(cgroup: *const c_void) -> u64 {
    let kn = load(cgroup, offset!(cgroup_kn));
    load(kn, offset!(kn_id))
}

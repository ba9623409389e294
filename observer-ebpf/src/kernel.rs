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

/// Loads a `T` at `offset` of a kernel structure.
#[inline(always)]
fn load<T: Copy>(base: *const c_void, offset: u64) -> T {
    // SAFETY: base is a typed kernel pointer; the verifier refuses any load outside the structure or of another type, and the
    // kernel's fault handler turns a load through a stale pointer into zero.
    unsafe { base.cast::<u8>().add(offset as usize).cast::<T>().read_volatile() }
}

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

    /// The run queue of the task's CPU.
    #[inline(always)]
    pub(crate) fn run_queue(self) -> RunQueue {
        let cfs_rq = load(self.0, offset!(task_cfs_rq));
        RunQueue(load(cfs_rq, offset!(cfs_rq_rq)))
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

/// `struct rq`.
#[derive(Clone, Copy)]
pub(crate) struct RunQueue(*const c_void);

impl RunQueue {
    /// Its clock in nanoseconds: wall time since boot as this CPU sees it.
    #[inline(always)]
    pub(crate) fn clock(self) -> u64 {
        load(self.0, offset!(rq_clock))
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

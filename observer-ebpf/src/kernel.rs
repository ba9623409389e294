//! Typed readers of kernel structures: all pointer chasing is here.
//!
//! A `tp_btf` program gets trusted, typed pointers. A plain load through one is checked by the verifier against the kernel's BTF and
//! costs about a nanosecond; a wrong offset is refused when the program is loaded. Loads are volatile because the offset is a
//! constant only to the verifier, never to the compiler.
#![allow(unsafe_code, reason = "reads kernel memory through typed pointers; the kernel's verifier checks every access")]
#![allow(clippy::pointers_in_nomem_asm_block, reason = "the assembly adds to a pointer and reads nothing through it")]

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_get_smp_processor_id, bpf_ktime_get_ns, bpf_seq_write};
use observer_common::memory::MemoryOffsets;
use observer_common::pod;
use observer_common::sched::{Key, Offsets};
use observer_common::tasks::TaskOffsets;

/// Offsets are immediate operands: user space finds each by its placeholder and writes what it is on this kernel
/// (`collect/bpf/operands.rs`). Read from a map it would be a load and a register more for every load of a kernel field.
macro_rules! operand {
    (task $field:ident) => {
        TaskOffsets::PLACEHOLDER + (core::mem::offset_of!(TaskOffsets, $field) / size_of::<u64>()) as i32
    };
    (memory $field:ident) => {
        MemoryOffsets::PLACEHOLDER + (core::mem::offset_of!(MemoryOffsets, $field) / size_of::<u64>()) as i32
    };
    ($field:ident) => {
        Offsets::PLACEHOLDER + (core::mem::offset_of!(Offsets, $field) / size_of::<u64>()) as i32
    };
}

/// What a placeholder stands for.
macro_rules! value {
    ($($field:ident)+) => {{
        let value: u64;
        // SAFETY: sets one register.
        unsafe {
            core::arch::asm!("{value} = {operand}", value = out(reg) value, operand = const operand!($($field)+),
                options(pure, nomem, nostack, preserves_flags));
        }
        value
    }};
}

/// The place of a field in a kernel structure. Not `pure`: the compiler would keep places on the stack for later, which costs more than to
/// add again.
macro_rules! at {
    ($base:expr, $($field:ident)+) => {{
        let base: *const c_void = $base;
        let place: *const c_void;
        // SAFETY: adds to one register.
        unsafe {
            core::arch::asm!("{place} += {operand}", place = inout(reg) base => place, operand = const operand!($($field)+),
                options(nomem, nostack, preserves_flags));
        }
        place
    }};
}

/// Does `sched_switch` tell the leaving task's state?
#[inline(always)]
pub(crate) fn switch_has_state() -> bool {
    value!(switch_has_state) != 0
}

/// Does the kernel tell how long a quota stopped a `cfs_rq`?
#[inline(always)]
pub(crate) fn cfs_rq_has_throttled() -> bool {
    value!(cfs_rq_throttled) != 0
}

/// Places in the memory of tasks, less one.
#[inline(always)]
pub(crate) fn delays_mask() -> u64 {
    value!(delays_mask)
}

/// Loads a `T` of a kernel structure.
#[inline(always)]
fn load<T: Copy>(place: *const c_void) -> T {
    // SAFETY: within a typed kernel pointer's structure; the verifier refuses any load outside of it or of another type, and the kernel's
    // fault handler turns a load through a stale pointer into zero.
    unsafe { place.cast::<T>().read_volatile() }
}

/// The place some bytes on.
#[inline(always)]
fn after(place: *const c_void, bytes: usize) -> *const c_void {
    place.wrapping_byte_add(bytes)
}

/// The monotonic clock in nanoseconds.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: a helper without conditions.
    unsafe { bpf_ktime_get_ns() }
}

/// The number of the CPU on which this runs.
#[inline(always)]
pub(crate) fn this_cpu() -> u32 {
    // SAFETY: as above.
    unsafe { bpf_get_smp_processor_id() }
}

/// `struct task_struct`.
#[derive(Clone, Copy)]
pub(crate) struct Task(pub(crate) *const c_void);

impl Task {
    /// The one in whose name the hook was called; `None` where the kernel does not hand it over.
    #[inline(always)]
    pub(crate) fn current() -> Option<Task> {
        if value!(memory has_current) == 0 {
            return None;
        }
        // SAFETY: a helper without conditions, and the verifier sees no call of it where the kernel lacks it.
        Some(Task(unsafe { bpf_get_current_task_btf() }.cast()))
    }

    /// The thread's id; 0 for the idle task.
    #[inline(always)]
    pub(crate) fn pid(self) -> u64 {
        u64::from(load::<u32>(at!(self.0, task_pid)))
    }

    /// Low word of the task's state; 0 is runnable.
    #[inline(always)]
    pub(crate) fn state(self) -> u32 {
        load(at!(self.0, task_state))
    }

    /// The queue of its cgroup on its CPU.
    #[inline(always)]
    pub(crate) fn cfs_rq(self) -> CfsRq {
        CfsRq(load(at!(self.0, task_cfs_rq)))
    }

    /// All that it ever waited on run queues.
    #[inline(always)]
    pub(crate) fn run_delay(self) -> u64 {
        load(at!(self.0, task_run_delay))
    }

    /// Its name, 16 bytes ending in zeros.
    #[inline(always)]
    pub(crate) fn comm(self) -> [u64; 2] {
        let comm = at!(self.0, task_comm);
        [load(comm), load(after(comm, 8))]
    }

    /// The first thread of its process.
    #[inline(always)]
    pub(crate) fn leader(self) -> Task {
        Task(load(at!(self.0, task_group_leader)))
    }

    /// The process's id.
    #[inline(always)]
    pub(crate) fn tgid(self) -> u32 {
        load(at!(self.0, task_tgid))
    }

    /// When it was made, in nanoseconds on the monotonic clock.
    #[inline(always)]
    pub(crate) fn start_time(self) -> u64 {
        load(at!(self.0, task_start_time))
    }

    /// The key of its process.
    #[inline(always)]
    pub(crate) fn process(self) -> Key {
        Key::process(self.tgid(), self.leader().start_time())
    }

    /// Run-queue clock when it began to wait; 0 when it does not.
    #[inline(always)]
    pub(crate) fn last_queued(self) -> u64 {
        load(at!(self.0, task_last_queued))
    }

    /// Run-queue clock when it was last dispatched.
    #[inline(always)]
    pub(crate) fn last_arrival(self) -> u64 {
        load(at!(self.0, task_last_arrival))
    }

    /// How often it was dispatched after a wait.
    #[inline(always)]
    pub(crate) fn pcount(self) -> u64 {
        load(at!(self.0, task_pcount))
    }

    /// The cgroups that it is in, one of each hierarchy.
    #[inline(always)]
    pub(crate) fn css_set(self) -> CssSet {
        CssSet(load(at!(self.0, task_cgroups)))
    }
}

/// `struct css_set`.
#[derive(Clone, Copy)]
pub(crate) struct CssSet(*const c_void);

impl CssSet {
    /// Tells it from others that are alive.
    #[inline(always)]
    pub(crate) fn address(self) -> u64 {
        self.0 as u64
    }

    /// The cgroup under which its tasks are booked: the default hierarchy's if that is not the root, else that of the v1 `cpu`
    /// hierarchy if that is not the root, else the root.
    #[inline(always)]
    pub(crate) fn cgroup(self) -> Cgroup {
        let cgroup = load(at!(self.0, css_set_dfl_cgrp));
        let id = cgroup_id(cgroup);
        if id != ROOT_ID {
            return Cgroup { key: Key::v2(id), pointer: cgroup };
        }
        if value!(css_set_cpu) != 0 {
            // On a pure v2 host this is the default hierarchy's root once more.
            let css = load(at!(self.0, css_set_cpu));
            let cgroup = load(at!(css, css_cgroup));
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
        RunQueue(load(at!(self.0, cfs_rq_rq)))
    }

    /// How long a quota, its cgroup's own or an ancestor's, has stopped it so far; 0 where the kernel does not tell.
    #[inline(always)]
    pub(crate) fn throttled(self) -> u64 {
        if cfs_rq_has_throttled() { load(at!(self.0, cfs_rq_throttled)) } else { 0 }
    }

    /// Tells it from others.
    #[inline(always)]
    pub(crate) fn address(self) -> u64 {
        self.0 as u64
    }
}

/// What only the task iterator reads. A number that this kernel does not have is 0.
impl Task {
    /// The parent process's id.
    #[inline(always)]
    pub(crate) fn ppid(self) -> u32 {
        Task(load(at!(self.0, task real_parent))).tgid()
    }

    /// `PF_*`.
    #[inline(always)]
    pub(crate) fn flags(self) -> u32 {
        load(at!(self.0, task flags))
    }

    /// Zombie or dead, or 0.
    #[inline(always)]
    pub(crate) fn exit_state(self) -> u32 {
        load(at!(self.0, task exit_state))
    }

    /// Whether it holds a CPU.
    #[inline(always)]
    pub(crate) fn on_cpu(self) -> u32 {
        if value!(task on_cpu) == 0 {
            0
        } else if value!(task on_cpu_is_byte) != 0 {
            u32::from(load::<u8>(at!(self.0, task on_cpu)))
        } else {
            load(at!(self.0, task on_cpu))
        }
    }

    /// Its priority.
    #[inline(always)]
    pub(crate) fn prio(self) -> u32 {
        load(at!(self.0, task prio))
    }

    /// Its effective user.
    #[inline(always)]
    pub(crate) fn uid(self) -> u32 {
        load(at!(load(at!(self.0, task cred)), task cred_euid))
    }

    /// Time in user space.
    #[inline(always)]
    pub(crate) fn utime(self) -> u64 {
        load(at!(self.0, task utime))
    }

    /// Time in the kernel.
    #[inline(always)]
    pub(crate) fn stime(self) -> u64 {
        load(at!(self.0, task stime))
    }

    /// Time on a CPU.
    #[inline(always)]
    pub(crate) fn sum_exec_runtime(self) -> u64 {
        load(at!(self.0, task sum_exec_runtime))
    }

    /// Times it gave up the CPU.
    #[inline(always)]
    pub(crate) fn nvcsw(self) -> u64 {
        load(at!(self.0, task nvcsw))
    }

    /// Times the CPU was taken from it.
    #[inline(always)]
    pub(crate) fn nivcsw(self) -> u64 {
        load(at!(self.0, task nivcsw))
    }

    /// Times it was moved to another CPU.
    #[inline(always)]
    pub(crate) fn nr_migrations(self) -> u64 {
        if value!(task nr_migrations) == 0 { 0 } else { load(at!(self.0, task nr_migrations)) }
    }

    /// Since when its group is throttled on its CPU.
    #[inline(always)]
    pub(crate) fn throttled_since(self) -> u64 {
        if value!(task throttled_clock_self) == 0 {
            return 0;
        }
        load(at!(self.cfs_rq().0, task throttled_clock_self))
    }

    /// What the threads of its process share.
    #[inline(always)]
    pub(crate) fn signal(self) -> Signal {
        Signal(load(at!(self.0, task signal)))
    }
}

/// `struct signal_struct`: sums over the threads of a process that were released.
#[derive(Clone, Copy)]
pub(crate) struct Signal(*const c_void);

impl Signal {
    /// Time in user space.
    #[inline(always)]
    pub(crate) fn utime(self) -> u64 {
        load(at!(self.0, task signal_utime))
    }

    /// Time in the kernel.
    #[inline(always)]
    pub(crate) fn stime(self) -> u64 {
        load(at!(self.0, task signal_stime))
    }

    /// Time on a CPU.
    #[inline(always)]
    pub(crate) fn runtime(self) -> u64 {
        load(at!(self.0, task signal_runtime))
    }

    /// Times they gave up the CPU.
    #[inline(always)]
    pub(crate) fn nvcsw(self) -> u64 {
        load(at!(self.0, task signal_nvcsw))
    }

    /// Times the CPU was taken from them.
    #[inline(always)]
    pub(crate) fn nivcsw(self) -> u64 {
        load(at!(self.0, task signal_nivcsw))
    }
}

/// `struct bpf_iter__task`: what a task iterator is called with. Its two members are eight bytes each in every kernel that has it.
#[derive(Clone, Copy)]
pub(crate) struct Iteration(pub(crate) *mut c_void);

impl Iteration {
    /// The task whose turn it is; `None` when all had theirs.
    #[inline(always)]
    pub(crate) fn task(self) -> Option<Task> {
        let task: *const c_void = load(after(self.0, 8));
        if task.is_null() { None } else { Some(Task(task)) }
    }

    /// Appends a record to what the reader gets. The kernel sees when there is no room left, and repeats this task for the next read.
    #[inline(always)]
    pub(crate) fn write<T: pod::Pod>(self, record: &T) {
        let meta: *const c_void = load(self.0);
        let seq: *mut c_void = load(meta);
        // SAFETY: a typed pointer from the context, and a record on the stack without padding.
        unsafe { bpf_seq_write(seq.cast(), (&raw const *record).cast(), size_of::<T>() as u32) };
    }
}

/// `struct rq`.
#[derive(Clone, Copy)]
pub(crate) struct RunQueue(*const c_void);

impl RunQueue {
    /// Its clock in nanoseconds: wall time since boot as this CPU sees it.
    #[inline(always)]
    pub(crate) fn clock(self) -> u64 {
        load(at!(self.0, rq_clock))
    }

    /// What the hypervisor has taken from this CPU so far, in nanoseconds; `None` where the kernel does not account it.
    #[inline(always)]
    pub(crate) fn steal(self) -> Option<u64> {
        if value!(rq_steal) == 0 { None } else { Some(load(at!(self.0, rq_steal))) }
    }

    /// What interrupts have taken from this CPU so far, in nanoseconds; `None` where the kernel does not account it.
    #[inline(always)]
    pub(crate) fn interrupt(self) -> Option<u64> {
        if value!(rq_interrupt) == 0 { None } else { Some(load(at!(self.0, rq_interrupt))) }
    }

    /// Number of its CPU.
    #[inline(always)]
    pub(crate) fn cpu(self) -> u32 {
        load(at!(self.0, rq_cpu))
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
        let css = load(at!(self.pointer, cgroup_parent));
        let id = cgroup_id(load(at!(css, css_cgroup)));
        if id == ROOT_ID { Key::ROOT.0 } else { Key::new(self.key.kind(), id).0 }
    }
}

/// The root directory is the first node of its kernfs tree, whatever the hierarchy.
const ROOT_ID: u64 = 1;

#[inline(always)]
fn cgroup_id(cgroup: *const c_void) -> u64 {
    let kn = load(at!(cgroup, cgroup_kn));
    load(at!(kn, kn_id))
}

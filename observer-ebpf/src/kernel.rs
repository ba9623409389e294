//! Typed readers of kernel structures: all pointer chasing is here.
//!
//! A `tp_btf` program gets trusted, typed pointers. A plain load through one is checked by the verifier against the kernel's BTF and
//! costs about a nanosecond; a wrong offset is refused when the program is loaded. Loads are volatile because the offset is a
//! constant only to the verifier, never to the compiler.
#![allow(unsafe_code, reason = "reads kernel memory through typed pointers; the kernel's verifier checks every access")]
#![allow(clippy::pointers_in_nomem_asm_block, reason = "the assembly adds to a pointer and reads nothing through it")]

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{
    bpf_get_current_task_btf, bpf_get_smp_processor_id, bpf_ktime_get_ns, bpf_seq_write, bpf_skc_to_tcp_sock, bpf_sock_from_file,
};
use observer_common::memory::MemoryOffsets;
use observer_common::pod;
use observer_common::sched::{Key, Offsets};
use observer_common::tasks::TaskOffsets;
use observer_common::tcp::TcpOffsets;

/// Offsets are immediate operands: user space finds each by its placeholder and writes what it is on this kernel
/// (`collect/bpf/operands.rs`). Read from a map it would be a load and a register more for every load of a kernel field.
macro_rules! operand {
    (task $field:ident) => {
        TaskOffsets::PLACEHOLDER + (core::mem::offset_of!(TaskOffsets, $field) / size_of::<u64>()) as i32
    };
    (memory $field:ident) => {
        MemoryOffsets::PLACEHOLDER + (core::mem::offset_of!(MemoryOffsets, $field) / size_of::<u64>()) as i32
    };
    (tcp $field:ident) => {
        TcpOffsets::PLACEHOLDER + (core::mem::offset_of!(TcpOffsets, $field) / size_of::<u64>()) as i32
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

/// Do cores have several threads?
#[inline(always)]
pub(crate) fn has_siblings() -> bool {
    value!(has_siblings) != 0
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

/// Places among the tasks that were moved, less one.
#[inline(always)]
pub(crate) fn moved_mask() -> u64 {
    value!(moved_mask)
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

    /// Whether it waits for I/O.
    #[inline(always)]
    pub(crate) fn in_iowait(self) -> bool {
        value!(task_in_iowait_mask) != 0 && u64::from(load::<u8>(at!(self.0, task_in_iowait))) & value!(task_in_iowait_mask) != 0
    }

    /// The CPU on whose queue it is, or was last.
    #[inline(always)]
    pub(crate) fn cpu(self) -> u32 {
        load(at!(self.0, task_cpu))
    }

    /// Whether its affinity lets it run on a CPU; of CPUs beyond the 512th, and where the kernel does not tell, it is taken to.
    #[inline(always)]
    pub(crate) fn may_run_on(self, cpu: u32) -> bool {
        let mut bits = u64::MAX;
        // Word by word: through a typed pointer a program loads only from places that are constant.
        macro_rules! word {
            ($($word:literal)+) => { $(
                if value!(task_cpus_words) > $word && cpu >> 6 == $word {
                    bits = load(after(at!(self.0, task_cpus_mask), $word * 8));
                }
            )+ };
        }
        word!(0 1 2 3 4 5 6 7);
        bits >> (cpu & 63) & 1 != 0
    }

    /// 0 when it is on no queue.
    #[inline(always)]
    pub(crate) fn on_rq(self) -> u32 {
        load(at!(self.0, task_on_rq))
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

/// `struct bpf_iter__task` or `struct bpf_iter__task_file`: what an iterator over tasks, or over their files, is called with. Its members
/// are eight bytes each in every kernel that has it, but the descriptor's number, which has eight to itself.
#[derive(Clone, Copy)]
pub(crate) struct Iteration(pub(crate) *mut c_void);

impl Iteration {
    /// The task whose turn it is; `None` when all had theirs.
    #[inline(always)]
    pub(crate) fn task(self) -> Option<Task> {
        let task: *const c_void = load(after(self.0, 8));
        if task.is_null() { None } else { Some(Task(task)) }
    }

    /// The number of the file descriptor whose turn it is.
    #[inline(always)]
    pub(crate) fn fd(self) -> u32 {
        load(after(self.0, 16))
    }

    /// The TCP socket that the file is whose turn it is; `None` for any other file.
    #[inline(always)]
    pub(crate) fn tcp_socket(self) -> Option<(Sock, TcpSock)> {
        let file: *mut c_void = load(after(self.0, 24));
        if file.is_null() {
            return None;
        }
        // SAFETY: a typed pointer from the context; the helper looks at the file itself and gives a typed pointer or null.
        let socket: *const c_void = unsafe { bpf_sock_from_file(file.cast()) }.cast();
        if socket.is_null() {
            return None;
        }
        let sock = Sock(load(at!(socket, tcp socket_sk)));
        if sock.0.is_null() {
            return None;
        }
        Some((sock, sock.tcp()?))
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

    /// Tasks that run on it or could. Since 6.12 some of those in the queue sleep; a kernel tells how many do, or how many do not.
    #[inline(always)]
    pub(crate) fn length(self) -> u32 {
        let running: u32 = load(at!(self.0, rq_nr_running));
        if value!(rq_cfs_queued) == 0 {
            return running;
        }
        let queued: u32 = load(at!(self.0, rq_cfs_queued));
        if value!(rq_cfs_runnable) == 0 {
            return running.wrapping_sub(queued);
        }
        running.wrapping_sub(queued).wrapping_add(load(at!(self.0, rq_cfs_runnable)))
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

/// Does `tcp_retransmit_skb` tell of attempts that failed?
#[inline(always)]
pub(crate) fn retransmit_has_err() -> bool {
    value!(tcp retransmit_has_err) != 0
}

/// `struct sock`, or `struct request_sock`: what both begin with (`struct sock_common`).
#[derive(Clone, Copy)]
pub(crate) struct Sock(pub(crate) *const c_void);

impl Sock {
    /// Local and peer's address, those of IPv4 mapped into IPv6; `None` for another family.
    #[inline(always)]
    pub(crate) fn addresses(self) -> Option<([u32; 4], [u32; 4])> {
        match load::<u16>(at!(self.0, tcp family)) {
            AF_INET => Some((mapped(load(at!(self.0, tcp rcv_saddr))), mapped(load(at!(self.0, tcp daddr))))),
            AF_INET6 if value!(tcp v6_daddr) != 0 => Some((ipv6(at!(self.0, tcp v6_rcv_saddr)), ipv6(at!(self.0, tcp v6_daddr)))),
            _ => None,
        }
    }

    /// Local port times 65,536 and the peer's.
    #[inline(always)]
    pub(crate) fn ports(self) -> u32 {
        let peer = u16::from_be(load(at!(self.0, tcp dport)));
        u32::from(load::<u16>(at!(self.0, tcp num))) << 16 | u32::from(peer)
    }

    /// `TCP_*`.
    #[inline(always)]
    pub(crate) fn state(self) -> u32 {
        u32::from(load::<u8>(at!(self.0, tcp state)))
    }

    /// Inode of its network namespace; 0 where the kernel has none.
    #[inline(always)]
    pub(crate) fn netns(self) -> u32 {
        if value!(tcp net) == 0 { 0 } else { load(at!(load(at!(self.0, tcp net)), tcp net_inum)) }
    }

    /// Kernfs id of its cgroup of the default hierarchy; 0 where the kernel does not tell, and for a socket of its own that has none. Not
    /// of a `request_sock`: its listener has it.
    #[inline(always)]
    pub(crate) fn cgroup(self) -> u64 {
        if value!(tcp cgroup) == 0 { 0 } else { cgroup_id(load(at!(self.0, tcp cgroup))) }
    }

    /// The same as a full TCP socket.
    #[inline(always)]
    pub(crate) fn tcp(self) -> Option<TcpSock> {
        // SAFETY: a typed pointer from the context; the helper looks at the socket itself and gives a typed pointer or null.
        let tcp: *const c_void = unsafe { bpf_skc_to_tcp_sock(self.0.cast_mut()) }.cast();
        if tcp.is_null() { None } else { Some(TcpSock(tcp)) }
    }
}

/// The key of a cgroup of the default hierarchy by its kernfs id; 0 for 0.
#[inline(always)]
pub(crate) fn unified_key(id: u64) -> u64 {
    match id {
        0 => 0,
        ROOT_ID => Key::ROOT.0,
        id => Key::v2(id).0,
    }
}

/// `struct tcp_sock`.
#[derive(Clone, Copy)]
pub(crate) struct TcpSock(*const c_void);

impl TcpSock {
    /// `TCP_CA_*`.
    #[inline(always)]
    pub(crate) fn ca_state(self) -> u32 {
        let byte = u64::from(load::<u8>(at!(self.0, tcp ca_state)));
        (byte >> value!(tcp ca_state_shift) & value!(tcp ca_state_mask)) as u32
    }

    /// Segments that it sent again so far.
    #[inline(always)]
    pub(crate) fn total_retrans(self) -> u32 {
        load(at!(self.0, tcp total_retrans))
    }

    /// Smoothed round-trip time in microseconds.
    #[inline(always)]
    pub(crate) fn srtt(self) -> u32 {
        load::<u32>(at!(self.0, tcp srtt)) >> 3
    }

    /// Congestion window in segments.
    #[inline(always)]
    pub(crate) fn cwnd(self) -> u32 {
        load(at!(self.0, tcp cwnd))
    }

    /// Retransmission timeout in ticks.
    #[inline(always)]
    pub(crate) fn rto(self) -> u32 {
        load(at!(self.0, tcp rto))
    }

    /// How often it was doubled.
    #[inline(always)]
    pub(crate) fn backoff(self) -> u32 {
        u32::from(load::<u8>(at!(self.0, tcp backoff)))
    }

    /// Timeouts in a row.
    #[inline(always)]
    pub(crate) fn retransmits(self) -> u32 {
        u32::from(load::<u8>(at!(self.0, tcp retransmits)))
    }
}

/// `struct sk_buff` that TCP owns: its control block is a `struct tcp_skb_cb`.
#[derive(Clone, Copy)]
pub(crate) struct TcpSkb(pub(crate) *const c_void);

impl TcpSkb {
    /// Segments in it.
    #[inline(always)]
    pub(crate) fn segments(self) -> u64 {
        match load::<u16>(at!(self.0, tcp skb_segments)) {
            0 => 1,
            segments => u64::from(segments),
        }
    }

    /// Whether it asks for a connection.
    #[inline(always)]
    pub(crate) fn is_syn(self) -> bool {
        // The flags are one byte, and two since 6.18: the lowest comes first.
        load::<u8>(at!(self.0, tcp skb_flags)) & SYN != 0
    }
}

/// `TCPHDR_SYN`.
const SYN: u8 = 0x02;
/// Address families (include/linux/socket.h).
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// An address of IPv4, in network order as all addresses here, mapped into IPv6.
#[inline(always)]
fn mapped(address: u32) -> [u32; 4] {
    [0, 0, 0xffff_u32.to_be(), address]
}

/// A `struct in6_addr`.
#[inline(always)]
fn ipv6(place: *const c_void) -> [u32; 4] {
    [load(place), load(after(place, 4)), load(after(place, 8)), load(after(place, 12))]
}

/// The root directory is the first node of its kernfs tree, whatever the hierarchy.
const ROOT_ID: u64 = 1;

#[inline(always)]
fn cgroup_id(cgroup: *const c_void) -> u64 {
    let kn = load(at!(cgroup, cgroup_kn));
    load(at!(kn, kn_id))
}

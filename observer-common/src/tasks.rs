//! The task family: what the kernel knows of every thread at one moment.

use crate::pod;

pod! {
    /// One thread, as the iterator writes it. Times in nanoseconds; numbers of processes and threads as the initial PID namespace has
    /// them. What this kernel does not have is 0 ([`TaskOffsets`] tells).
    pub struct Task {
        /// `pid`: the thread's id.
        pub pid: u32,
        /// `tgid`: the process's id.
        pub tgid: u32,
        /// `real_parent->tgid`: the parent process, whoever traces it.
        pub ppid: u32,
        /// `flags`; [`KTHREAD`] is what matters here.
        pub flags: u32,
        /// `__state` (`state` before 5.14), its low word: 0 is runnable.
        pub state: u32,
        /// `exit_state`.
        pub exit_state: u32,
        /// `on_cpu`: 1 while it holds a CPU.
        pub on_cpu: u32,
        /// Number of the CPU on whose run queue it is, or was last.
        pub cpu: u32,
        /// `cred->euid`: the effective user, as the initial user namespace has it.
        pub uid: u32,
        /// `prio`: 100 to 139 is fair scheduling, lower is real time; a signed number in the kernel (-1 for a deadline).
        pub prio: u32,
        /// `comm`: ends with the first zero byte.
        pub comm: [u64; 2],
        /// `start_time`: when the thread was made, on the monotonic clock.
        pub start_time: u64,
        /// `group_leader->start_time`: with `tgid` it names the process once and for all.
        pub leader_start: u64,
        /// `utime`: in user space, counted by ticks unless the kernel is configured to be exact.
        pub utime: u64,
        /// `stime`: in the kernel, counted like `utime`.
        pub stime: u64,
        /// `se.sum_exec_runtime`: time on a CPU by the run queue's task clock, which leaves out hypervisor steal and interrupts where
        /// the kernel accounts them; the open run up to the last tick.
        pub sum_exec_runtime: u64,
        /// `sched_info.run_delay`: time runnable and not running, of waits that ended.
        pub run_delay: u64,
        /// `sched_info.pcount`: dispatches after a wait.
        pub pcount: u64,
        /// `sched_info.last_queued`: `clock` when it began to wait; 0 while it does not.
        pub last_queued: u64,
        /// `sched_info.last_arrival`: `clock` when it was last dispatched.
        pub last_arrival: u64,
        /// `rq->clock` of its CPU: at most a tick old while something runs there.
        pub clock: u64,
        /// `nvcsw`: times it gave up the CPU.
        pub nvcsw: u64,
        /// `nivcsw`: times the CPU was taken from it.
        pub nivcsw: u64,
        /// `se.nr_migrations`: times it was moved to another CPU.
        pub nr_migrations: u64,
        /// Its cgroup ([`Key`](crate::sched::Key)).
        pub key: u64,
        /// `cfs_rq.throttled_clock_self` of its group on its CPU: `clock` when that was throttled, by its own limit or an ancestor's; 0
        /// while it is not.
        pub throttled_since: u64,
        /// `signal->utime`: what the process's dead threads used in user space. This and the following four are of the process, and
        /// grow when a thread is released.
        pub dead_utime: u64,
        /// `signal->stime`.
        pub dead_stime: u64,
        /// `signal->sum_sched_runtime`.
        pub dead_runtime: u64,
        /// `signal->nvcsw`.
        pub dead_nvcsw: u64,
        /// `signal->nivcsw`.
        pub dead_nivcsw: u64,
    }
}

/// The sixteen bytes of a `comm`, which the kernel side reads as two words.
pub fn comm_bytes(words: [u64; 2]) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&words[0].to_ne_bytes());
    bytes[8..].copy_from_slice(&words[1].to_ne_bytes());
    bytes
}

impl Task {
    /// How long it has been waiting for a CPU, in nanoseconds; `None` while it does not wait.
    pub fn pending(&self) -> Option<u64> {
        let waits = self.last_queued != 0 && self.on_cpu == 0;
        waits.then(|| self.since(self.last_queued))
    }

    /// Nanoseconds from a stamp of its run queue's clock until the record was made.
    pub fn since(&self, stamp: u64) -> u64 {
        // Another CPU's clock may be a tick behind the moment of the stamp.
        self.clock.saturating_sub(stamp)
    }
}

/// `TASK_DEAD` (include/linux/sched.h) in [`Task::state`], and in that of a switch: it leaves, or has left, its CPU for the last time.
pub const TASK_DEAD: u32 = 0x80;

/// `PF_KTHREAD` in [`Task::flags`]: a thread of the kernel itself.
pub const KTHREAD: u32 = 0x0020_0000;

pod! {
    /// Where the running kernel keeps what the iterator reads beyond [`sched::Offsets`](crate::sched::Offsets).
    pub struct TaskOffsets {
        /// `task_struct.real_parent`.
        pub real_parent: u64,
        /// `task_struct.flags`.
        pub flags: u64,
        /// `task_struct.exit_state`.
        pub exit_state: u64,
        /// `task_struct.on_cpu`; 0 on kernels for one CPU.
        pub on_cpu: u64,
        /// 1 where `on_cpu` is a single byte (7.2), not an int.
        pub on_cpu_is_byte: u64,
        /// `task_struct.prio`.
        pub prio: u64,
        /// `task_struct.cred`.
        pub cred: u64,
        /// `cred.euid`.
        pub cred_euid: u64,
        /// `task_struct.utime`.
        pub utime: u64,
        /// `task_struct.stime`.
        pub stime: u64,
        /// `task_struct.se.sum_exec_runtime`.
        pub sum_exec_runtime: u64,
        /// `task_struct.nvcsw`.
        pub nvcsw: u64,
        /// `task_struct.nivcsw`.
        pub nivcsw: u64,
        /// `task_struct.se.nr_migrations`; 0 without.
        pub nr_migrations: u64,
        /// `cfs_rq.throttled_clock_self` (6.6 and later, CONFIG_CFS_BANDWIDTH); 0 without.
        pub throttled_clock_self: u64,
        /// `task_struct.signal`.
        pub signal: u64,
        /// `signal_struct.utime`.
        pub signal_utime: u64,
        /// `signal_struct.stime`.
        pub signal_stime: u64,
        /// `signal_struct.sum_sched_runtime`.
        pub signal_runtime: u64,
        /// `signal_struct.nvcsw`.
        pub signal_nvcsw: u64,
        /// `signal_struct.nivcsw`.
        pub signal_nivcsw: u64,
    }
}

impl TaskOffsets {
    /// In the object, the operand that stands for the first of these numbers; the others follow.
    pub const PLACEHOLDER: i32 = 0x0b5e_0100;
}

//! One thread as a source saw it: what the iterator and `/proc` have in common. Pure.

use std::sync::Arc;

use observer_common::sched::Key;
use observer_common::tasks::{KTHREAD, Task, comm_bytes};

use crate::collect::bpf::tasks::Has;
use crate::model::{Counts, Status};

/// One thread at the moment of a reading. Times in nanoseconds; `None` is unknown.
#[derive(Clone, PartialEq, Debug)]
pub struct Seen {
    /// Its id.
    pub tid: u32,
    /// Its process's id.
    pub pid: u32,
    /// The parent process's id.
    pub ppid: u32,
    /// When it was made, and its process was, on the source's clock.
    pub start: u64,
    /// When its process was made.
    pub leader_start: u64,
    /// Its name: bytes up to the first zero.
    pub comm: [u8; 16],
    /// Its effective user.
    pub uid: Option<u32>,
    /// Whether it is a thread of the kernel itself.
    pub is_kernel: bool,
    /// What it does.
    pub status: Option<Status>,
    /// Its counters.
    pub counts: Counts,
    /// How long it has been waiting for a CPU.
    pub pending: Option<u64>,
    /// What the released threads of its process did, where the kernel tells. With it, `counts` has user and system time as the ticks sampled
    /// it; without, divided already.
    pub dead: Option<Counts>,
    /// Where it is.
    pub place: Place,
}

/// A cgroup, as the source names it.
#[derive(Clone, PartialEq, Debug)]
pub enum Place {
    /// By its key.
    Key(Key),
    /// By its path, escaped.
    Path(Arc<str>),
    /// Not told.
    Unknown,
}

impl Seen {
    /// From the iterator's record.
    pub fn of(task: &Task, has: Has) -> Seen {
        Seen {
            tid: task.pid,
            pid: task.tgid,
            ppid: task.ppid,
            start: task.start_time,
            leader_start: task.leader_start,
            comm: comm_bytes(task.comm),
            uid: Some(task.uid),
            is_kernel: task.flags & KTHREAD != 0,
            status: Some(status(task)),
            counts: Counts {
                run: Some(task.sum_exec_runtime),
                wait: Some(task.run_delay),
                user: Some(task.utime),
                system: Some(task.stime),
                preempted: Some(task.nivcsw),
                voluntary: Some(task.nvcsw),
                migrations: has.migrations.then_some(task.nr_migrations),
            },
            pending: Some(task.pending().unwrap_or(0)),
            dead: Some(Counts {
                run: Some(task.dead_runtime),
                user: Some(task.dead_utime),
                system: Some(task.dead_stime),
                preempted: Some(task.dead_nivcsw),
                voluntary: Some(task.dead_nvcsw),
                ..Counts::default()
            }),
            place: Place::Key(Key(task.key)),
        }
    }
}

/// Bits of `task_struct.__state` and `exit_state`: include/linux/sched.h, the same since 4.14 as far as they existed.
mod bit {
    pub(super) const INTERRUPTIBLE: u32 = 0x1;
    pub(super) const UNINTERRUPTIBLE: u32 = 0x2;
    pub(super) const STOPPED: u32 = 0x4;
    pub(super) const TRACED: u32 = 0x8;
    pub(super) const DEAD: u32 = 0x10;
    pub(super) const ZOMBIE: u32 = 0x20;
    pub(super) const PARKED: u32 = 0x40;
    pub(super) const NOLOAD: u32 = 0x400;
    pub(super) const RTLOCK_WAIT: u32 = 0x1000;
    pub(super) const FROZEN: u32 = 0x8000;
}

/// As `/proc/PID/stat` decides its letter, which it does by the highest bit; but a runnable task that holds a CPU runs.
fn status(task: &Task) -> Status {
    let state = task.state | task.exit_state;
    let is = |bits: u32| state & bits != 0;
    if task.state & (bit::UNINTERRUPTIBLE | bit::NOLOAD) == bit::UNINTERRUPTIBLE | bit::NOLOAD {
        Status::Idle
    } else if is(bit::PARKED) {
        Status::Parked
    } else if is(bit::ZOMBIE) {
        Status::Zombie
    } else if is(bit::DEAD) {
        Status::Dead
    } else if is(bit::TRACED) {
        Status::Traced
    } else if is(bit::STOPPED) {
        Status::Stopped
    } else if is(bit::UNINTERRUPTIBLE | bit::RTLOCK_WAIT | bit::FROZEN) {
        Status::Uninterruptible
    } else if is(bit::INTERRUPTIBLE) {
        Status::Sleeping
    } else if task.on_cpu != 0 {
        Status::Running
    } else {
        Status::Runnable
    }
}

#[cfg(test)]
mod tests {
    use observer_common::pod;

    use super::*;

    #[test]
    fn states() {
        let check = |state, exit_state, on_cpu, expected| {
            let task = Task { state, exit_state, on_cpu, ..pod::zeroed() };
            assert_eq!(status(&task), expected, "{state:#x} {exit_state:#x} {on_cpu}");
        };
        check(0, 0, 1, Status::Running);
        check(0, 0, 0, Status::Runnable);
        check(0x800, 0, 0, Status::Runnable);
        check(1, 0, 0, Status::Sleeping);
        check(0x2001, 0, 0, Status::Sleeping);
        check(0x102, 0, 0, Status::Uninterruptible);
        check(0x8000, 0, 0, Status::Uninterruptible);
        check(0x402, 0, 0, Status::Idle);
        check(0x104, 0, 0, Status::Stopped);
        check(8, 0, 0, Status::Traced);
        check(0x440, 0, 0, Status::Parked);
        check(0x80, 0x20, 0, Status::Zombie);
        check(0x80, 0x10, 0, Status::Dead);
    }

    #[test]
    fn a_wait_that_goes_on() {
        let pending = |clock, last_queued, on_cpu| {
            let task = Task { clock, last_queued, on_cpu, ..pod::zeroed() };
            Seen::of(&task, Has { migrations: false, throttled: false }).pending
        };
        assert_eq!(pending(100, 40, 0), Some(60));
        assert_eq!(pending(100, 0, 0), Some(0), "it sleeps");
        assert_eq!(pending(100, 40, 1), Some(0), "it has just been dispatched");
        assert_eq!(pending(40, 100, 0), Some(0), "a clock that is behind");
    }
}

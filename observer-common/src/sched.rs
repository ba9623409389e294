//! The scheduler family: who ran, who waited, on which CPU.
//!
//! One [`CpuState`] a CPU is the whole of it: memory that only this CPU's hook writes (but for the generation number, which only user
//! space writes) and that the daemon maps. ARCHITECTURE.md, "Two generations", says why nothing is lost or counted twice.

use crate::blame::{CELLS, Cell, LEVELS, SEGMENTS, Segment, THROTTLES, Throttle, WINDOWS, Window};
use crate::locality::{AWAY, LENGTHS, MOVES};
use crate::memory::{CpuMemory, Use};
use crate::{latency, pod};

/// Cgroups a CPU can tell apart within one generation, that is, between two readings.
pub const SLOTS: usize = 320;
/// Places that are looked at for a key before it goes to [`Key::OTHER`].
pub const PROBES: usize = 64;
/// The slot of [`Key::OTHER`]: one beyond the hashed ones.
pub const OTHER_SLOT: usize = SLOTS;

/// Whom time is booked to: 8 bits of kind, 56 bits of number.
///
/// The number is the kernel's id of the cgroup (`kernfs_node.id`, the inode that `stat` shows), and ids of different hierarchies
/// collide, hence the kind. A process of a cgroup in focus is keyed by thread-group id (22 bits) and 34 bits of its start time (in
/// 1.05 ms), so that a pid that is used again is not the same key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Key(pub u64);

impl Key {
    /// Nobody: the idle task, or a slot that was never used.
    pub const NONE: Key = Key(0);
    /// The root cgroup of every hierarchy at once.
    pub const ROOT: Key = Key::new(kind::ROOT, 1);
    /// All that found no slot.
    pub const OTHER: Key = Key::new(kind::OTHER, 0);
    /// Nobody ran: what the hypervisor or an interrupt took from an idle CPU.
    pub const IDLE: Key = Key::new(kind::IDLE, 0);
    /// Cgroups that lived and died between two looks, and whose parent was gone too. Only user space uses it.
    pub const GONE: Key = Key::new(kind::GONE, 0);
    /// As culprit: the waiting cgroup's own CPU quota, or an ancestor's.
    pub const THROTTLED: Key = Key::new(kind::THROTTLED, 0);
    /// As culprit: the hypervisor, which held the CPU itself.
    pub const HYPERVISOR: Key = Key::new(kind::HYPERVISOR, 0);
    /// As culprit: interrupts.
    pub const INTERRUPT: Key = Key::new(kind::INTERRUPT, 0);
    /// As culprit: a queue on another CPU, from which the waiting task was moved.
    pub const MIGRATED: Key = Key::new(kind::MIGRATED, 0);
    /// As culprit: who ran so long ago that it is not kept.
    pub const UNKNOWN: Key = Key::new(kind::UNKNOWN, 0);

    /// A key of one of the [`kind`]s.
    pub const fn new(kind: u8, number: u64) -> Key {
        Key((kind as u64) << 56 | (number & NUMBER))
    }

    /// A cgroup of the default (v2) hierarchy.
    pub const fn v2(id: u64) -> Key {
        Key::new(kind::V2, id)
    }

    /// A cgroup of the v1 `cpu` hierarchy.
    pub const fn cpu(id: u64) -> Key {
        Key::new(kind::CPU, id)
    }

    /// A process, by its thread-group id and the start time of its first thread (`task_struct.start_time`, nanoseconds).
    pub const fn process(tgid: u32, start: u64) -> Key {
        Key::new(kind::PROCESS, (tgid as u64) << START_BITS | (start >> START_SHIFT) & ((1 << START_BITS) - 1))
    }

    /// A process's thread-group id.
    pub const fn tgid(self) -> u32 {
        (self.number() >> START_BITS) as u32
    }

    /// One of the [`kind`]s.
    pub const fn kind(self) -> u8 {
        (self.0 >> 56) as u8
    }

    /// The number without the kind.
    pub const fn number(self) -> u64 {
        self.0 & NUMBER
    }
}

const NUMBER: u64 = (1 << 56) - 1;
const START_BITS: u32 = 34;
const START_SHIFT: u32 = 20;

/// What kind of thing a [`Key`] names.
pub mod kind {
    /// The root of all hierarchies.
    pub const ROOT: u8 = 1;
    /// A cgroup of the default hierarchy.
    pub const V2: u8 = 2;
    /// A cgroup of the v1 `cpu` hierarchy.
    pub const CPU: u8 = 3;
    /// A process of a cgroup in focus.
    pub const PROCESS: u8 = 4;
    /// What found no slot.
    pub const OTHER: u8 = 5;
    /// What nobody can name any more.
    pub const GONE: u8 = 6;
    /// The idle tasks.
    pub const IDLE: u8 = 7;
    /// A CPU quota.
    pub const THROTTLED: u8 = 8;
    /// The hypervisor.
    pub const HYPERVISOR: u8 = 9;
    /// Interrupts.
    pub const INTERRUPT: u8 = 10;
    /// Another CPU's queue.
    pub const MIGRATED: u8 = 11;
    /// Forgotten.
    pub const UNKNOWN: u8 = 12;
}

pod! {
    /// What one key did on one CPU in one generation. Times in nanoseconds on the run queue's clock.
    pub struct Slot {
        // What nearly every switch writes is on one line of the cache.
        /// The generation that owns this slot; any other makes it free.
        pub generation: u64,
        /// Whose counts these are ([`Key`]).
        pub key: u64,
        /// Time on the CPU, of runs that ended.
        pub run: u64,
        /// Time runnable and not running (the kernel's `run_delay`), of waits that ended.
        pub wait: u64,
        /// The longest wait that ended.
        pub longest: u64,
        /// Dispatches.
        pub runs: u32,
        /// Runs that ended although the task could have gone on.
        pub preempted: u32,
        /// Runs that the task ended itself: of them the following, and all others to sleep.
        pub voluntary: u32,
        /// For I/O that it waits for (`in_iowait`).
        pub io: u32,
        /// To sleep without being interrupted.
        pub uninterruptible: u32,
        /// Because it was stopped or is traced.
        pub stopped: u32,
        /// The parent cgroup's key, 0 when it could not be told: what a cgroup had when it vanished before anyone saw its name goes there.
        /// Of a process, its cgroup.
        pub parent: u64,
        /// Of a process, its name: the first thread's `comm`.
        pub comm: [u64; 2],
        /// Of the wait: under a CPU quota, its own or an ancestor's.
        pub throttled: u64,
        /// Waited before its tasks were moved from one queue to another while they waited: in their `run_delay`, but in no wait that ended.
        pub migrated: u64,
        /// Of the wait: blamed on somebody for whom there was no free [`Cell`].
        pub other: u64,
        /// `run_delay` of threads that ended: all that each of them ever waited, by the kernel's own count.
        pub exited: u64,
        /// Thread id of who had the longest wait.
        pub longest_tid: u64,
        /// Its `comm`.
        pub longest_comm: [u64; 2],
        /// Who ran for the longest stretch of it ([`Key`]).
        pub longest_culprit: u64,
        /// Time that the hypervisor took during its runs: growth of the run queue's steal clock.
        pub steal: u64,
        /// Time that interrupts took during its runs: growth of the run queue's interrupt clock.
        pub interrupt: u64,
        /// What the page allocator gave during its runs, and how long it stalled its tasks.
        pub used: Use,
        /// Of the run time: the core's other thread was busy, too.
        pub shared: u64,
        /// Of the run time: of dispatches that were [`AWAY`].
        pub away_run: [u64; AWAY],
        /// Those dispatches.
        pub away: [u32; AWAY],
        /// Migrations of its tasks that this CPU carried out, whatever the CPUs between which, at
        /// [`move_place`](crate::locality::move_place).
        pub moves: [u32; MOVES],
        /// Waits by [`latency::bucket`].
        pub latency: [u32; latency::BUCKETS],
    }
}

const _: () = assert!(core::mem::offset_of!(Slot, parent) == 64 && size_of::<Slot>() == 1024);

/// Tasks of which the kernel side remembers what they have waited so far, for each CPU that has a table. A power of two.
pub const DELAYS_PER_CPU: u32 = 8192;
/// Of these so many share a place that their thread ids lead to.
pub const DELAY_WAYS: usize = 2;

/// A task's place in that memory: its thread id, and the lower bits of the `run_delay` that it had after its last dispatch, in one word,
/// so that two CPUs never leave half of each. A bit says that it was moved since ([`delay_moved`]).
pub const fn delay_word(tid: u64, delay: u64) -> u64 {
    tid << TID_SHIFT | delay & DELAY_MASK
}

/// Whether a word is this task's.
pub const fn delay_is_of(word: u64, tid: u64) -> bool {
    word >> TID_SHIFT == tid
}

/// What of `delay` came since a task's word was stored: less than 36 minutes.
pub const fn delay_since(word: u64, delay: u64) -> u64 {
    delay.wrapping_sub(word) & DELAY_MASK
}

/// Whether the task was moved to another CPU since.
pub const fn delay_is_moved(word: u64) -> bool {
    word & MOVED != 0
}

/// The word of a task that was.
pub const fn delay_moved(word: u64) -> u64 {
    word | MOVED
}

/// Thread ids have 22 bits (`PID_MAX_LIMIT`).
const TID_SHIFT: u32 = 42;
const MOVED: u64 = 1 << (TID_SHIFT - 1);
const DELAY_MASK: u64 = MOVED - 1;

/// Processes that have slots of their own on a CPU in one generation; those that come later count for their cgroup, so that cgroups
/// always find room.
pub const MAX_PROCESSES: u64 = 160;
/// Cgroups that may be in focus at a time.
pub const FOCUS: usize = 64;
/// Places of [`CpuState::focus`]. A power of two; a key may be in the place that [`focus_place`] says and in the one beside it.
pub const FOCUS_PLACES: usize = 256;

/// Where a cgroup in focus is looked for: there, and at this index with the lowest bit turned.
pub const fn focus_place(key: Key) -> usize {
    (key.0 ^ (key.0 >> 50)) as usize & (FOCUS_PLACES - 1)
}

/// A cgroup's bit in [`CpuState::focused`].
pub const fn focus_bit(key: Key) -> u64 {
    1 << (key.0 & 63)
}

pod! {
    /// What one CPU counted in one generation.
    pub struct Table {
        /// The last one is [`OTHER_SLOT`].
        pub slots: [Slot; SLOTS + 1],
        /// Who waited for whom.
        pub cells: [Cell; CELLS],
    }
}

pod! {
    /// One CPU's whole state.
    pub struct CpuState {
        // What every switch reads or writes is in two or three cache lines.
        /// Written by user space only: which of the two tables the hook works in (its lowest bit), and which slots of it count.
        pub generation: u64,
        /// The generation of this CPU's last switch.
        pub turned: u64,
        /// Written by user space only: bit [`focus_bit`] of each cgroup in focus. Most cgroups need no more than a look at this.
        pub focused: u64,
        /// Run-queue clock of this CPU's last switch.
        pub since: u64,
        /// Who runs now ([`Key`]); 0 for the idle task and before the first switch.
        pub current: u64,
        /// Index of the slot of `current` in the table of the generation `turned`.
        pub current_slot: u64,
        /// Thread id of who runs now; 0 for the idle task.
        pub current_pid: u64,
        /// Number of the newest segment; its place is this modulo [`SEGMENTS`].
        pub segment: u64,
        /// Address of the `css_set` that was last looked up for a dispatch, 0 when the next one has to be, whatever it is;
        pub css_set: u64,
        /// and its cgroup ([`Key`]).
        pub cgroup: u64,
        /// Whether the key of the last dispatch is a process's.
        pub split: u64,
        /// The run queue's steal clock at the last switch.
        pub steal: u64,
        /// Its interrupt clock then.
        pub interrupt: u64,
        /// What the memory family counted so far at [`COMMON`](crate::memory::COMMON), on the line of what it writes each time.
        pub common: u64,
        /// What the memory family counted since the last switch: it is booked to who holds the CPU when that one leaves.
        pub used: Use,
        /// Of the dispatch that goes on: how long the queue was when it began, and in the upper half how it was [`AWAY`], plus one.
        pub dispatch: u64,
        /// Time by the length of the queue, at [`length_place`](crate::locality::length_place): tasks that run or could.
        pub lengths: [u64; LENGTHS],
        /// Look-ups that found no slot and were booked to [`Key::OTHER`].
        pub overflows: u64,
        /// Switches that the kernel did not report: the task that leaves is not the one that was last seen to come. The run of the dispatch in
        /// between is known, and the wait before it by the growth of its `run_delay`.
        pub untraced: u64,
        /// The untraced ones that took something with them: the wait of a task that was not remembered, or the run of a task after which
        /// the CPU went idle.
        pub lost: u64,
        /// Address of the `cfs_rq` that a function was called for: a pointer may not be handed to it, but stored and read as a number.
        pub queue: u64,
        /// Of a dispatch that was not reported, for the function that books it: how long a quota stopped the task's queue so far,
        pub throttled: u64,
        /// its `run_delay`,
        pub delay: u64,
        /// and whether it was its first after a wait.
        pub first: u64,
        /// Processes that have a slot in this CPU's table of the generation `turned`.
        pub processes: u64,
        /// While a wait is divided: the longest stretch so far,
        pub longest: u64,
        /// and whose it is ([`Key`]).
        pub culprit: u64,
        /// Run-queue clock of the first switch of that generation.
        pub turned_at: u64,
        /// Who ran when that generation began ([`Key`]), 0 for the idle task, and
        pub turned_current: u64,
        /// since when: the run queue's clock.
        pub turned_since: u64,
        /// Written by user space only: number of the CPU that is the core's other thread, plus one; 0 without. Of more than two threads each
        /// has one other.
        pub sibling: u64,
        /// Time of all runs here that ended; kept only where there are siblings.
        pub busy: u64,
        /// The sibling's busy time when the dispatch that goes on began.
        pub beside: u64,
        /// Cgroups in focus, written by user space only: keys, or 0.
        pub focus: [u64; FOCUS_PLACES],
        /// The last runs.
        pub segments: [Segment; SEGMENTS],
        /// Those before them, by level; the newest window of level `l` is at `window[l]` modulo [`WINDOWS`].
        pub windows: [[Window; WINDOWS]; LEVELS],
        /// Numbers of the newest windows.
        pub window: [u64; LEVELS],
        /// Windows on their way to the next level.
        pub carry: [Window; 2],
        /// Run queues under a quota, by address.
        pub throttles: [Throttle; THROTTLES],
        /// What the memory family counted so far.
        pub memory: CpuMemory,
        /// As above: other CPUs write what follows.
        pub spare_memory: [u64; 7],
        /// Written by user space only: this CPU's [`place`](crate::locality::place).
        pub place: u64,
        /// Migrations to this CPU, at [`move_place`](crate::locality::move_place), which only grow.
        pub moved_in: [u64; MOVES],
        /// Migrations from it.
        pub moved_out: [u64; MOVES],
        /// As above.
        pub spare_moved: u64,
        /// The two generations' tables.
        pub tables: [Table; 2],
    }
}

// Lines of the cache begin at the same words for each CPU, and no two CPUs share one.
const _: () = assert!(size_of::<CpuState>().is_multiple_of(64) && core::mem::offset_of!(CpuState, segments).is_multiple_of(64));
const _: () =
    assert!(core::mem::offset_of!(CpuState, tables).is_multiple_of(64) && core::mem::offset_of!(Table, cells).is_multiple_of(64));
const _: () = assert!(core::mem::offset_of!(CpuState, common) / 64 == core::mem::offset_of!(CpuState, used.pages) / 64);

pod! {
    /// Where the running kernel keeps what the hook reads: byte offsets from its BTF, and facts that choose between variants of the
    /// program when it is loaded. Set before the load, frozen, and known to the verifier, which checks each access against BTF.
    pub struct Offsets {
        /// `task_struct.pid`: 0 for the idle task.
        pub task_pid: u64,
        /// `task_struct.tgid`.
        pub task_tgid: u64,
        /// `task_struct.group_leader`.
        pub task_group_leader: u64,
        /// `task_struct.start_time`.
        pub task_start_time: u64,
        /// `task_struct.comm`.
        pub task_comm: u64,
        /// `task_struct.__state` (`state` before 5.14); read only without `switch_has_state`.
        pub task_state: u64,
        /// `task_struct.se.cfs_rq`: set for every task, idle and real-time included (CONFIG_FAIR_GROUP_SCHED).
        pub task_cfs_rq: u64,
        /// `task_struct.sched_info.last_queued`.
        pub task_last_queued: u64,
        /// `task_struct.sched_info.last_arrival`.
        pub task_last_arrival: u64,
        /// `task_struct.sched_info.pcount`.
        pub task_pcount: u64,
        /// `task_struct.sched_info.run_delay`.
        pub task_run_delay: u64,
        /// `task_struct.cgroups`.
        pub task_cgroups: u64,
        /// `task_struct.thread_info.cpu` (`cpu` on some architectures before 5.16); 0 without.
        pub task_cpu: u64,
        /// `task_struct.on_rq`; 0 without.
        pub task_on_rq: u64,
        /// `task_struct.cpus_mask.bits`.
        pub task_cpus_mask: u64,
        /// Words that it has; 0 where it is not known.
        pub task_cpus_words: u64,
        /// The byte of `task_struct.in_iowait`; 0 without.
        pub task_in_iowait: u64,
        /// Its bit there.
        pub task_in_iowait_mask: u64,
        /// `cfs_rq.rq`.
        pub cfs_rq_rq: u64,
        /// `cfs_rq.throttled_clock_self_time` (6.6 and later), `throttled_clock_task_time` (before 5.19) or `throttled_clock_pelt_time`:
        /// the sum of the time that a quota, the queue's own or an ancestor's, stopped it; 0 without any.
        pub cfs_rq_throttled: u64,
        /// `rq.clock`.
        pub rq_clock: u64,
        /// `rq.cpu`.
        pub rq_cpu: u64,
        /// `rq.nr_running`.
        pub rq_nr_running: u64,
        /// `rq.cfs.h_nr_queued` (6.14 and later), `rq.cfs.h_nr_delayed` (6.12); 0 without: tasks that sleep in the queue since 6.12.
        pub rq_cfs_queued: u64,
        /// `rq.cfs.h_nr_runnable`, where there is the former; 0 without.
        pub rq_cfs_runnable: u64,
        /// `rq.prev_steal_time_rq`, exact (CONFIG_PARAVIRT_TIME_ACCOUNTING); else `rq.prev_steal_time`, which moves on ticks; 0 without.
        pub rq_steal: u64,
        /// `rq.prev_irq_time` (CONFIG_IRQ_TIME_ACCOUNTING); 0 without.
        pub rq_interrupt: u64,
        /// `css_set.dfl_cgrp`.
        pub css_set_dfl_cgrp: u64,
        /// `css_set.subsys[cpu_cgrp_id]`; 0 without the controller.
        pub css_set_cpu: u64,
        /// `cgroup_subsys_state.cgroup`.
        pub css_cgroup: u64,
        /// `cgroup.self.parent`.
        pub cgroup_parent: u64,
        /// `cgroup.kn`.
        pub cgroup_kn: u64,
        /// `kernfs_node.id`.
        pub kn_id: u64,
        /// Places in the memory of tasks, each for [`DELAY_WAYS`], less one: a power of two less one.
        pub delays_mask: u64,
        /// Places among the tasks that were moved, less one: a power of two less one.
        pub moved_mask: u64,
        /// 1 where cores have several threads.
        pub has_siblings: u64,
        /// 1 when `sched_switch` hands over the leaving task's state as its fourth argument (5.18 and later).
        pub switch_has_state: u64,
    }
}

impl Offsets {
    /// In the object, the operand that stands for the first of these numbers; the others follow.
    pub const PLACEHOLDER: i32 = 0x0b5e_0000;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_of_tasks() {
        let word = delay_word(4_194_303, 7 * (DELAY_MASK + 1) + 100);
        assert_eq!(delay_since(word, 7 * (DELAY_MASK + 1) + 130), 30);
        assert!(!delay_is_moved(word) && delay_is_moved(delay_moved(word)));
        assert_eq!((delay_since(delay_moved(word), 130), delay_is_of(delay_moved(word), 4_194_303)), (30, true));
        assert_eq!(delay_since(delay_word(5, DELAY_MASK), DELAY_MASK + 3), 3, "across the end of its bits");
        assert!(delay_is_of(word, 4_194_303) && !delay_is_of(word, 4_194_302));
    }

    #[test]
    fn keys_of_processes() {
        let key = Key::process(4_194_303, 77 << START_SHIFT);
        assert_eq!((key.kind(), key.tgid()), (kind::PROCESS, 4_194_303));
        assert_ne!(key, Key::process(4_194_303, 78 << START_SHIFT), "a pid that is used again");
    }
}

//! The memory family: what the page allocator gave, and how long it let tasks wait for it.
//!
//! One [`CpuMemory`] a CPU, which only this CPU's hooks write and which only grows: user space maps it and reads it whenever it likes. Which
//! cgroup it was for is the scheduler family's affair: `CpuState::used` holds what came since the last switch.

use crate::{latency, pod};

/// Orders told apart: an allocation is of 2^order pages. x86 has 11, arm64 with pages of 64 KiB has 14.
pub const ORDERS: usize = 16;
/// Migratetypes told apart (`enum migratetype`).
pub const TYPES: usize = 8;
/// Places for [`Class`]es.
pub const CLASSES: usize = 4;

/// What an allocation is for, as far as its flags (`gfp_t`) tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Memory of user space and the page cache (`__GFP_HARDWALL`, as in `GFP_USER` and `GFP_HIGHUSER_MOVABLE`).
    User,
    /// The kernel's own, and it may sleep for it.
    Kernel,
    /// The kernel's own, charged to a cgroup (`__GFP_ACCOUNT`): page tables, pipes, sockets of containers.
    Accounted,
    /// The kernel's own, where nobody may sleep (no `__GFP_DIRECT_RECLAIM`): network drivers, interrupts.
    Atomic,
}

/// The place of a count in [`CpuMemory::allocations`].
#[inline(always)]
pub const fn place(order: usize, migratetype: usize, class: usize) -> usize {
    ((order & (ORDERS - 1)) * TYPES + (migratetype & (TYPES - 1))) * CLASSES + (class & (CLASSES - 1))
}

/// Where most allocations are counted: single pages of user space. Their count is on a line of the CPU's header that the hook touches anyway
/// (`CpuState::common`), because pages that are cleared throw lines of the table out of the cache: this word there costs three times
/// what all the rest does.
pub const COMMON: usize = place(0, MOVABLE, Class::User as usize);
/// `MIGRATE_MOVABLE` (include/linux/mmzone.h).
pub const MOVABLE: usize = 1;

/// What a task may be stalled by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stall {
    /// It frees pages itself, because the machine has too few (`mm_vmscan_direct_reclaim_begin`).
    Reclaim,
    /// The same, because its memory cgroup is at its limit (`mm_vmscan_memcg_reclaim_begin`).
    MemcgReclaim,
    /// It moves pages out of the way of a large allocation (`mm_compaction_begin`).
    Compaction,
}

impl Stall {
    /// All of them, in the order of [`CpuMemory::stalls`].
    pub const ALL: [Stall; 3] = [Stall::Reclaim, Stall::MemcgReclaim, Stall::Compaction];

    /// The one with this number.
    pub fn of(number: u64) -> Option<Stall> {
        Stall::ALL.get(usize::try_from(number).ok()?).copied()
    }
}

pod! {
    /// What one CPU counted since the programs were attached.
    pub struct CpuMemory {
        /// Allocations that succeeded, at [`place`]; those at [`COMMON`] are elsewhere.
        pub allocations: [u64; ORDERS * TYPES * CLASSES],
        /// Allocations that failed, by [`Class`].
        pub failures: [u64; CLASSES],
        /// Blocks of pages that were taken from another migratetype than the one that was asked for, by the one that gave.
        pub fallbacks: [u64; TYPES],
        /// Stalls that ended here, by [`Stall`].
        pub stalls: [StallCounts; 4],
        /// Stalls that found no room in the table of those going on.
        pub lost: u64,
        /// Stalls that found no room among those of cgroups ([`StallKey`]): they are in the machine's counts.
        pub unplaced: u64,
        /// Long ones ([`LongStall`]) that found no room among those that user space has not read yet.
        pub untold: u64,
    }
}

pod! {
    /// Stalls of one kind.
    pub struct StallCounts {
        /// Nanoseconds, by the monotonic clock.
        pub time: u64,
        /// By [`latency::bucket`].
        pub latency: [u64; latency::BUCKETS],
    }
}

pod! {
    /// Of one dispatch, or of many: what the page allocator gave to who held the CPU, and how long it stalled them.
    pub struct Use {
        /// Pages given.
        pub pages: u64,
        /// Stalls that ended.
        pub stalls: u64,
        /// Their time in nanoseconds.
        pub stalled: u64,
        /// Of that, the tasks waited on a run queue.
        pub waited: u64,
        /// Of that, they slept.
        pub slept: u64,
    }
}

pod! {
    /// A stall that goes on.
    pub struct Going {
        /// When it began, by the monotonic clock.
        pub since: u64,
        /// The task's `run_delay` then.
        pub run_delay: u64,
        /// And its time on a CPU.
        pub runtime: u64,
        /// Which ([`Stall`]).
        pub kind: u64,
    }
}

/// Stalls that may go on at a time.
pub const GOING: u32 = 4096;

pod! {
    /// A stall of [`LONG`] or longer that ended, and whose it was.
    pub struct LongStall {
        /// Its task's cgroup ([`Key`](crate::sched::Key)); 0 where programs may not ask for the task.
        pub cgroup: u64,
        /// Nanoseconds, by the monotonic clock.
        pub time: u64,
        /// Thread id.
        pub tid: u64,
        /// What it was stalled by ([`Stall`]).
        pub kind: u64,
        /// The thread's name, padded with zeros.
        pub comm: [u8; 16],
    }
}

pod! {
    /// Whose stalls are counted apart, and which.
    pub struct StallKey {
        /// The task's cgroup ([`Key`](crate::sched::Key)).
        pub cgroup: u64,
        /// What it was stalled by ([`Stall`]).
        pub kind: u64,
    }
}

/// Cgroups and kinds whose stalls are counted apart at a time.
pub const STALLED: u32 = 512;

/// From how long on a stall is told by itself, in nanoseconds: a task can have no more than fifty of them a second.
pub const LONG: u64 = 20_000_000;
/// Bytes of the ring in which they are told: about 900 of them, with the kernel's header of each.
pub const LONG_BYTES: u32 = 64 << 10;

/// Bits of `gfp_t` (include/linux/gfp_types.h). No BTF names them, and they are the same from 5.8 to the newest kernel tried: a live test
/// on each finds user pages where they belong.
pub mod gfp {
    /// `__GFP_DIRECT_RECLAIM`: may sleep.
    pub const DIRECT_RECLAIM: u64 = 0x400;
    /// `__GFP_HARDWALL`: within the task's cpuset, as everything that user space asks for.
    pub const HARDWALL: u64 = 0x10_0000;
    /// `__GFP_ACCOUNT`: charged to a memory cgroup.
    pub const ACCOUNT: u64 = 0x40_0000;
}

impl Class {
    /// All of them, in the order of their places.
    pub const ALL: [Class; CLASSES] = [Class::User, Class::Kernel, Class::Accounted, Class::Atomic];

    /// Of an allocation with these flags.
    #[inline(always)]
    pub const fn of(flags: u64) -> Class {
        if flags & gfp::HARDWALL != 0 {
            Class::User
        } else if flags & gfp::ACCOUNT != 0 {
            Class::Accounted
        } else if flags & gfp::DIRECT_RECLAIM != 0 {
            Class::Kernel
        } else {
            Class::Atomic
        }
    }
}

pod! {
    /// What the memory family's programs must know of the running kernel.
    pub struct MemoryOffsets {
        /// 1 where programs may ask for the current task as a typed pointer (5.11 and later).
        pub has_current: u64,
    }
}

impl MemoryOffsets {
    /// In the object, the operand that stands for the first of these numbers; the others follow.
    pub const PLACEHOLDER: i32 = 0x0b5e_0300;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_distinct_and_within_bounds() {
        let mut seen = [false; ORDERS * TYPES * CLASSES];
        for order in 0..ORDERS {
            for migratetype in 0..TYPES {
                for class in 0..CLASSES {
                    let place = &mut seen[place(order, migratetype, class)];
                    assert!(!*place);
                    *place = true;
                }
            }
        }
    }
}

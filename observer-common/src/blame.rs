//! The scheduler family's memory of who ran: what a wait is divided by when it ends.
//!
//! Three levels, each beginning where the former ends. The last [`SEGMENTS`] runs are kept as they were. What falls out of there is
//! added up by owner in windows of about a millisecond, and those of every level in windows four times as long on the next: a wait of
//! a minute behind two tasks that alternate every microsecond is divided as truly as a short one, but for its oldest window, of which
//! a share is taken in proportion.

use crate::pod;

/// Runs that are kept one by one. A power of two.
pub const SEGMENTS: usize = 32;
/// Levels of windows; those of the last are 17 s long.
pub const LEVELS: usize = 8;
/// Windows of a level.
pub const WINDOWS: usize = 4;
/// Owners that a window tells apart; it keeps the larger ones.
pub const SHARES: usize = 6;
/// Length of a window of the first level, as a power of two of nanoseconds: 1.05 ms.
pub const WINDOW_SHIFT: u64 = 20;
/// By how much the next level's windows are longer, as a power of two.
pub const LEVEL_SHIFT: u64 = 2;
/// Pairs of victim and culprit that a CPU tells apart in one generation. A power of two.
pub const CELLS: usize = 1024;
/// Places that are looked at for a pair.
pub const CELL_PROBES: usize = 8;
/// Run queues under a quota that a CPU remembers. A power of two.
pub const THROTTLES: usize = 64;
/// Their last throttlings.
pub const THROTTLINGS: usize = 4;

/// `time` × `part` / `whole`, less than one part in 65,536 too little; all of it where the part is the whole or more. Exact for times of up
/// to 39 hours: nothing overflows before.
#[inline(always)]
pub const fn scaled(time: u64, part: u64, whole: u64) -> u64 {
    if part >= whole {
        return time;
    }
    // Not 0, since part < whole.
    (time * ((part << 16) / whole)) >> 16
}

pod! {
    /// Consecutive runs of one owner. It ends where the next one begins; the newest still goes on.
    pub struct Segment {
        /// Run-queue clock.
        pub start: u64,
        /// Whose runs ([`Key`](crate::sched::Key)); 0 when it was never used.
        pub owner: u64,
        /// What the hypervisor took of it. A run of which something was taken is a segment of its own.
        pub steal: u64,
        /// What interrupts took of it.
        pub interrupt: u64,
    }
}

pod! {
    /// An owner's part of a window.
    pub struct Share {
        /// [`Key`](crate::sched::Key); 0 when free.
        pub owner: u64,
        /// Nanoseconds.
        pub time: u64,
    }
}

pod! {
    /// Who ran from `start` to where the next newer window, or the oldest segment, begins. Time of nobody in `shares` is unknown.
    pub struct Window {
        /// Run-queue clock; 0 when it was never used.
        pub start: u64,
        /// Who ran.
        pub shares: [Share; SHARES],
    }
}

pod! {
    /// Time that one waited for another, on one CPU in one generation.
    pub struct Cell {
        /// The generation that owns this cell; any other makes it free.
        pub generation: u64,
        /// Who waited ([`Key`](crate::sched::Key)).
        pub victim: u64,
        /// Who ran.
        pub culprit: u64,
        /// Nanoseconds.
        pub time: u64,
    }
}

pod! {
    /// A quota stopped a run queue from `start` to `end`.
    pub struct Throttling {
        /// Run-queue clock.
        pub start: u64,
        /// Run-queue clock.
        pub end: u64,
    }
}

pod! {
    /// What is known of one `cfs_rq` under a quota.
    pub struct Throttle {
        /// Its address; 0 when free.
        pub cfs_rq: u64,
        /// The kernel's sum of its throttled time, when last seen.
        pub total: u64,
        /// Run-queue clock when one of its tasks last left this CPU.
        pub left: u64,
        /// Throttlings so far; the newest is at `count − 1` modulo [`THROTTLINGS`].
        pub count: u64,
        /// The last ones.
        pub throttlings: [Throttling; THROTTLINGS],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_time() {
        assert_eq!((scaled(1_000, 5, 5), scaled(1_000, 6, 5), scaled(1_000, 0, 5)), (1_000, 1_000, 0));
        // Steal of 20 ms in a run of 1 s, of which a wait overlaps the last 250 ms.
        assert_eq!(scaled(20_000_000, 250_000_000, 1_000_000_000), 5_000_000);
        let mut seed = 1u64;
        for _ in 0..100_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let whole = (seed >> 20 & 0xff_ffff_ffff) + 1;
            let part = (seed >> 3) % (whole + 1);
            let time = (seed >> 24) % (whole + 1);
            let exact = (u128::from(time) * u128::from(part) / u128::from(whole)) as u64;
            let ours = scaled(time, part, whole);
            assert!(
                ours <= exact.max(1) && exact - ours.min(exact) <= (time >> 16) + 1,
                "{time} {part} {whole}: {ours}, {exact}"
            );
        }
    }
}

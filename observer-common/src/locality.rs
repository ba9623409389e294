//! Where tasks run and how they came there: the distance between CPUs, why a task was moved, how long queues are.

/// How far two different CPUs are from each other: they share a core (SMT),
pub const CORE: usize = 0;
/// a last-level cache,
pub const CACHE: usize = 1;
/// a NUMA node,
pub const NODE: usize = 2;
/// memory alone,
pub const REMOTE: usize = 3;
/// or it is not known.
pub const UNKNOWN: usize = 4;
/// How many of these there are.
pub const DISTANCES: usize = 5;

/// A CPU's place in the machine as one word: numbers of its node, last-level cache and core, each less than 2²¹ - 1 and unique in the machine.
/// 0 is a place that is not known.
pub const fn place(node: u32, cache: u32, core: u32) -> u64 {
    const NUMBER: u64 = (1 << BITS) - 1;
    ((node as u64 + 1) & NUMBER) << (2 * BITS) | (cache as u64 & NUMBER) << BITS | core as u64 & NUMBER
}

/// The node of a place; 0 on kernels without NUMA, `None` where the place is not known.
pub const fn node(place: u64) -> Option<u32> {
    match place >> (2 * BITS) {
        0 => None,
        node => Some(node as u32 - 1),
    }
}

/// From one place to another, of two different CPUs. The node decides first: cores and caches that span nodes are cut at them.
#[inline(always)]
pub const fn distance(from: u64, to: u64) -> usize {
    let differ = from ^ to;
    if from == 0 || to == 0 {
        UNKNOWN
    } else if differ >> (2 * BITS) != 0 {
        REMOTE
    } else if differ & ((1 << BITS) - 1) == 0 {
        CORE
    } else if differ >> BITS != 0 {
        NODE
    } else {
        CACHE
    }
}

const BITS: u32 = 21;

/// How a dispatch was away from where its task ran last: at one of the [`DISTANCES`], or because there is no such place. Most dispatches are on the
/// same CPU and are not counted again.
pub const AWAY: usize = DISTANCES + 1;
/// The task has never run before.
pub const NEW: usize = DISTANCES;

/// Why a task was moved to another CPU's queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// It woke up, and was sent there.
    WakeUp,
    /// It waited on its queue, and was pulled or pushed to another: a balance steal.
    Balance,
    /// Its affinity changed, it called `exec`, or it was running or asleep when it was moved.
    Other,
}

impl Reason {
    /// All of them.
    pub const ALL: [Reason; 3] = [Reason::WakeUp, Reason::Balance, Reason::Other];
}

/// Places for counts of migrations, by [`Reason`] and distance.
pub const MOVES: usize = Reason::ALL.len() * DISTANCES;

/// The place of a count.
#[inline(always)]
pub const fn move_place(reason: Reason, distance: usize) -> usize {
    reason as usize * DISTANCES + distance
}

/// Lengths of a run queue that are told apart: up to 15, then an octave each, then all longer ones.
pub const LENGTHS: usize = 20;

/// The place of a length: tasks that run or could.
#[inline(always)]
pub const fn length_place(length: u64) -> usize {
    if length < 16 { length as usize } else { 16 + (length >= 32) as usize + (length >= 64) as usize + (length >= 128) as usize }
}

/// The largest length at a place; `None` for the last, which has no bound.
pub const fn longest_at(place: usize) -> Option<u64> {
    match place {
        0..16 => Some(place as u64),
        16..19 => Some((32 << (place - 16)) - 1),
        _ => None,
    }
}

/// Tasks for each CPU of which the kernel side may remember at a time that they were moved, and from where.
pub const MOVED_PER_CPU: u32 = 1024;

/// A task that was moved and did not run since: its thread id, and the CPU where it ran last.
#[inline(always)]
pub const fn moved_word(tid: u64, from: u32) -> u64 {
    tid << 32 | from as u64
}

/// Whether a word is this task's.
#[inline(always)]
pub const fn moved_is_of(word: u64, tid: u64) -> bool {
    word >> 32 == tid
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        let here = place(1, 8, 10);
        assert_eq!(distance(here, place(1, 8, 10)), CORE);
        assert_eq!(distance(here, place(1, 8, 12)), CACHE);
        assert_eq!(distance(here, place(1, 12, 12)), NODE);
        assert_eq!(distance(here, place(0, 0, 0)), REMOTE);
        assert_eq!(distance(here, place(0, 8, 10)), REMOTE, "a cache that spans nodes");
        assert_eq!((distance(0, here), distance(here, 0), distance(0, 0)), (UNKNOWN, UNKNOWN, UNKNOWN));
        assert_ne!(place(0, 0, 0), 0);
        assert_eq!((node(here), node(place(0, 3, 4)), node(0)), (Some(1), Some(0), None));
    }

    #[test]
    fn lengths_lie_below_their_bound_and_above_the_one_before() {
        for length in 0..1_000 {
            let place = length_place(length);
            assert!(longest_at(place).is_none_or(|longest| length <= longest), "{length}");
            assert!(place == 0 || longest_at(place - 1).is_some_and(|longest| length > longest), "{length}");
        }
        assert_eq!((length_place(128), length_place(u64::MAX)), (LENGTHS - 1, LENGTHS - 1));
    }

    #[test]
    fn each_move_has_its_place() {
        let mut seen = [false; MOVES];
        for (reason, distance) in Reason::ALL.iter().flat_map(|reason| (0..DISTANCES).map(|distance| (*reason, distance))) {
            let place = &mut seen[move_place(reason, distance)];
            assert!(!*place);
            *place = true;
        }
    }
}

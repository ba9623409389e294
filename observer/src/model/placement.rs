//! Where tasks ran, seen from where they ran before, and how they were moved.

use std::sync::LazyLock;

use observer_common::locality::{
    AWAY, CACHE, CORE, DISTANCES, LENGTHS, MOVES, NEW, NODE, REMOTE, Reason, UNKNOWN, longest_at, move_place,
};

use super::{Attributes, Share};

/// Cumulative since observer attached. A dispatch is local if the task ran on that CPU last; all others are here, by how far it came.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Placement {
    /// Dispatches: by distance ([`observer_common::locality`]), and of tasks that had never run.
    pub away: [u64; AWAY],
    /// Time of their runs that ended, in nanoseconds.
    pub away_run: [u64; AWAY],
    /// Migrations, at [`move_place`].
    pub moves: [u64; MOVES],
}

impl Placement {
    /// Adds another's counts.
    pub fn add(&mut self, other: &Placement) {
        sum(&mut self.away, &other.away);
        sum(&mut self.away_run, &other.away_run);
        sum(&mut self.moves, &other.moves);
    }
}

fn sum<const N: usize>(to: &mut [u64; N], from: &[u64; N]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
}

/// Migrations to a CPU and from it, at [`move_place`], cumulative since observer attached.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Traffic {
    /// To it.
    pub arrived: [u64; MOVES],
    /// From it.
    pub left: [u64; MOVES],
}

/// Nanoseconds that a CPU's queue was so long, by [`length_place`](observer_common::locality::length_place): tasks that run or could.
pub type Depths = [u64; LENGTHS];

/// The mean length of the queue, weighted by time: tasks times nanoseconds, of nanoseconds. A place with several lengths counts as its
/// middle; the last one has none and counts as its shortest.
pub fn mean_depth(depths: &Depths) -> Share {
    let length = |place: usize| match longest_at(place) {
        Some(longest) => (shortest_at(place) + longest) / 2,
        None => shortest_at(place),
    };
    let part = depths.iter().enumerate().map(|(place, time)| length(place) * time).sum();
    Share { part, whole: depths.iter().sum() }
}

fn shortest_at(place: usize) -> u64 {
    place.checked_sub(1).and_then(longest_at).map_or(0, |before| before + 1)
}

/// The value of `observer.run.locality` for each way of being away, in the order of [`Placement::away`].
pub const LOCALITIES: [&str; AWAY] = {
    let mut names = [""; AWAY];
    names[CORE] = "smt_sibling";
    names[CACHE] = "same_llc";
    names[NODE] = "same_node";
    names[REMOTE] = "remote_node";
    names[UNKNOWN] = "unknown";
    names[NEW] = "new";
    names
};

/// The value of `observer.migration.reason`.
pub fn reason_name(reason: Reason) -> &'static str {
    match reason {
        Reason::WakeUp => "wakeup",
        Reason::Balance => "balance",
        Reason::Other => "other",
    }
}

/// Points of a metric by locality: on the same CPU first, then as in [`LOCALITIES`].
pub(super) static BY_LOCALITY: LazyLock<Vec<Attributes>> = LazyLock::new(|| {
    // Once in the life of the process, as the following.
    let point = |name| -> Attributes { Box::leak(Box::new([("observer.run.locality", name)])) };
    std::iter::once("same_cpu").chain(LOCALITIES).map(point).collect()
});

/// Points of a metric by reason and distance, in the order of [`move_place`].
pub(super) static BY_MOVE: LazyLock<Vec<Attributes>> = LazyLock::new(|| {
    let mut all = vec![&[][..]; MOVES];
    for reason in Reason::ALL {
        for (distance, name) in LOCALITIES.into_iter().enumerate().take(DISTANCES) {
            all[move_place(reason, distance)] =
                Box::leak(Box::new([("observer.migration.reason", reason_name(reason)), ("observer.run.locality", name)]));
        }
    }
    all
});

/// NUMA nodes that are told apart; the last holds what is beyond them.
pub const NODES: usize = 16;

/// The place of a node among them.
pub fn node_place(node: u32) -> usize {
    (node as usize).min(NODES - 1)
}

/// Points of a metric by NUMA node.
pub(super) static BY_NODE: LazyLock<Vec<Attributes>> = LazyLock::new(|| {
    let name = |place: usize| if place == NODES - 1 { "other".to_owned() } else { place.to_string() };
    let point = |place| -> Attributes { Box::leak(Box::new([("observer.memory.node", &*name(place).leak())])) };
    (0..NODES).map(point).collect()
});

/// Points of a metric by the length of a queue.
pub(super) static BY_DEPTH: LazyLock<Vec<Attributes>> = LazyLock::new(|| {
    let name = |place| match (shortest_at(place), longest_at(place)) {
        (shortest, Some(longest)) if shortest == longest => shortest.to_string(),
        (shortest, Some(longest)) => format!("{shortest}-{longest}"),
        (shortest, None) => format!("{shortest}-"),
    };
    let point = |place| -> Attributes { Box::leak(Box::new([("observer.run_queue.depth", &*name(place).leak())])) };
    (0..LENGTHS).map(point).collect()
});

/// Of `whole` at an index of [`BY_LOCALITY`]: what is not away was local.
pub(super) fn by_locality(whole: u64, away: &[u64; AWAY], index: usize) -> Option<u64> {
    match index.checked_sub(1) {
        None => Some(whole.saturating_sub(away.iter().sum())),
        Some(how) => away.get(how).copied(),
    }
}

/// Dispatches of tasks that had run before, and of them those as near as that or nearer ([`CACHE`], say); `None` for the same CPU alone.
pub(super) fn local(runs: u64, placement: &Placement, within: Option<usize>) -> Share {
    let away = &placement.away;
    let old = runs.saturating_sub(away[NEW]);
    let same = runs.saturating_sub(away.iter().sum());
    match within {
        None => Share { part: same, whole: old },
        // Of those whose distance is not known nobody can say.
        Some(within) => Share { part: same + away[..=within].iter().sum::<u64>(), whole: old.saturating_sub(away[UNKNOWN]) },
    }
}

/// Where the tasks of an entity with a `sched: Option<Arc<Sched>>` field ran.
macro_rules! placement_metrics {
    ($entity:ty) => {
        /// Dispatches.
        pub static RUNS: Metric<$entity> = Metric::new(
            "observer.sched.runs",
            "RUNS",
            Unit::Count("run"),
            "Dispatches: times a task was put on a CPU, by how far that is from where it ran last: same_cpu, smt_sibling, same_llc (last-level \
             cache), same_node, remote_node; new if it had never run, unknown where migrations are not followed or the topology is not known.",
            Read::Cross(Cross {
                attributes: || &BY_LOCALITY,
                read: |e, index| {
                    let sched = e.sched.as_ref()?;
                    match &sched.placement {
                        Some(placement) => by_locality(sched.runs, &placement.away, index),
                        None => (index == 1 + UNKNOWN).then_some(sched.runs),
                    }
                },
            }),
        );
        /// Their time.
        pub static RUN_PLACES: Metric<$entity> = Metric::new(
            "observer.sched.run.time",
            "RUN AT",
            Unit::Seconds,
            "Time on a CPU, of runs that ended, by how far the CPU is from where the task ran before; its sum is observer.cpu.run.time.",
            Read::Cross(Cross {
                attributes: || &BY_LOCALITY,
                read: |e, index| {
                    let sched = e.sched.as_ref()?;
                    by_locality(sched.run, &sched.placement.as_ref()?.away_run, index)
                },
            }),
        );
        /// Share that stayed on its CPU.
        pub static LOCAL_DISPATCHES: Metric<$entity> = Metric::new(
            "observer.sched.local_dispatch.ratio",
            "LOCAL",
            Unit::Ratio,
            "Dispatch local-run-ratio: share of the interval's dispatches that were on the CPU where the task ran last; tasks that had never \
             run left out.",
            Read::Ratio(&[Part {
                attributes: &[("observer.run.locality", "same_cpu")],
                read: |e| {
                    let sched = e.sched.as_ref()?;
                    Some(local(sched.runs, sched.placement.as_ref()?, None))
                },
            }]),
        );
        /// Share that stayed near its cache.
        pub static CACHE_DISPATCHES: Metric<$entity> = Metric::new(
            "observer.sched.local_dispatch.cache.ratio",
            "LOCAL LLC",
            Unit::Ratio,
            "As observer.sched.local_dispatch.ratio: share of dispatches within the last-level cache where the task ran last.",
            Read::Ratio(&[Part {
                attributes: &[("observer.run.locality", "same_llc")],
                read: |e| {
                    let sched = e.sched.as_ref()?;
                    Some(local(sched.runs, sched.placement.as_ref()?, Some(CACHE)))
                },
            }]),
        );
    };
}
pub(super) use placement_metrics;

/// On which nodes the tasks of an entity with a `sched: Option<Arc<Sched>>` field ran.
macro_rules! node_metric {
    ($entity:ty) => {
        /// Where it ran.
        pub static RUN_NODES: Metric<$entity> = Metric::new(
            "observer.cpu.run.node.time",
            "RUN NODE",
            Unit::Seconds,
            "Time on a CPU, of runs that ended, by the NUMA node of the CPU: beside where the memory is (observer.cgroup.memory.node.usage) it tells \
             whether both are together.",
            Read::Cross(Cross {
                attributes: || &BY_NODE,
                read: |e, index| e.sched.as_ref()?.nodes.as_ref()?.get(index).copied(),
            }),
        );
    };
}
pub(super) use node_metric;

/// Migrations of the tasks of an entity with a `sched: Option<Arc<Sched>>` field.
macro_rules! migration_metric {
    ($entity:ty) => {
        /// Migrations.
        pub static MIGRATIONS: Metric<$entity> = Metric::new(
            "observer.sched.migrations",
            "MIGR",
            Unit::Count("migration"),
            "Moves of a task to another CPU's queue (nr_migrations), by distance and reason: wakeup (it woke up there), balance (it waited, and \
             was pulled or pushed: a balance steal), other (its affinity changed, exec, or it was running or asleep).",
            Read::Cross(Cross {
                attributes: || &BY_MOVE,
                read: |e, index| e.sched.as_ref()?.placement.as_ref()?.moves.get(index).copied(),
            }),
        );
    };
}
pub(super) use migration_metric;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_away_is_local() {
        let away = [5, 10, 20, 30, 2, 7];
        let all: Vec<_> = (0..=AWAY).map(|index| by_locality(100, &away, index)).collect();
        assert_eq!(all, [26, 5, 10, 20, 30, 2, 7].map(Some));
        let placement = Placement { away, ..Placement::default() };
        assert_eq!(local(100, &placement, None), Share { part: 26, whole: 93 });
        assert_eq!(local(100, &placement, Some(CACHE)), Share { part: 41, whole: 91 });
    }

    #[test]
    fn the_mean_weighs_by_time() {
        let mut depths = [0; LENGTHS];
        (depths[0], depths[3], depths[16]) = (10, 20, 10);
        assert_eq!(mean_depth(&depths), Share { part: 3 * 20 + 23 * 10, whole: 40 });
        let names: Vec<_> = BY_DEPTH.iter().map(|point| point[0].1).collect();
        assert_eq!((names[0], names[15], names[16], names[19]), ("0", "15", "16-31", "128-"));
    }
}

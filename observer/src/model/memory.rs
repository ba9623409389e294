//! The page allocator: what it gave, by order, migratetype and class, and how long it let tasks wait for it.

use std::sync::{Arc, LazyLock};

use observer_common::memory::{CLASSES, Class, ORDERS, Stall, TYPES, place};

use super::{Attributes, Cross, Entity, Histogram, Kind, Label, Labels, Metric, Part, Read, Sample, Unit};

/// The machine's page allocator, or one NUMA node of it.
#[derive(Clone, PartialEq, Debug)]
pub struct Allocator {
    /// The node's number; `None` for the machine.
    pub node: Option<u32>,
    /// What the memory family counted on the machine; nodes have none.
    pub counts: Option<Arc<Allocations>>,
    /// Pages given on a node, by where the task ran that asked (`/sys/devices/system/node/node*/numastat`).
    pub locality: Option<Locality>,
}

/// Cumulative since observer attached.
#[derive(Clone, PartialEq, Debug)]
pub struct Allocations {
    /// Allocations that succeeded, at [`observer_common::memory::place`].
    pub counts: Vec<u64>,
    /// Those that failed, by class.
    pub failures: [u64; CLASSES],
    /// Blocks taken from another migratetype, by the one that gave.
    pub fallbacks: [u64; TYPES],
    /// Stalls, by [`Stall`].
    pub stalls: [Histogram; Stall::ALL.len()],
}

impl Default for Allocations {
    fn default() -> Self {
        let counts = vec![0; ORDERS * TYPES * CLASSES];
        Allocations { counts, failures: [0; CLASSES], fallbacks: [0; TYPES], stalls: Default::default() }
    }
}

/// Pages of one node since boot.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Locality {
    /// `local_node`: asked for by a task that ran there.
    pub local: u64,
    /// `other_node`: by one that ran on another.
    pub remote: u64,
}

/// Names of the orders; the last holds what is beyond it.
const ORDER_NAMES: [&str; ORDERS] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15"];

/// Names of the migratetypes (`enum migratetype`, include/linux/mmzone.h, with CONFIG_CMA and CONFIG_MEMORY_ISOLATION).
pub const TYPE_NAMES: [&str; TYPES] = ["unmovable", "movable", "reclaimable", "highatomic", "cma", "isolate", "type_6", "type_7"];

/// Names of the classes, by [`Class`].
pub const CLASS_NAMES: [&str; CLASSES] = {
    let mut names = [""; CLASSES];
    let mut index = 0;
    while index < CLASSES {
        let class = Class::ALL[index];
        names[class as usize] = match class {
            Class::User => "user",
            Class::Kernel => "kernel",
            Class::Accounted => "kernel_accounted",
            Class::Atomic => "atomic",
        };
        index += 1;
    }
    names
};

/// Every combination, in the order of [`place`].
static COMBINATIONS: LazyLock<Vec<Attributes>> = LazyLock::new(|| {
    let mut all = vec![&[][..]; ORDERS * TYPES * CLASSES];
    for (order, order_name) in ORDER_NAMES.into_iter().enumerate() {
        for (migratetype, type_name) in TYPE_NAMES.into_iter().enumerate() {
            for (class, class_name) in CLASS_NAMES.into_iter().enumerate() {
                // Once in the life of the process.
                all[place(order, migratetype, class)] = Box::leak(Box::new([
                    ("observer.memory.order", order_name),
                    ("observer.memory.migratetype", type_name),
                    ("observer.memory.class", class_name),
                ]));
            }
        }
    }
    all
});

/// Allocations.
pub static ALLOCATIONS: Metric<Allocator> = Metric::new(
    "observer.memory.allocations",
    "ALLOCS",
    Unit::Count("allocation"),
    "Allocations of 2^order pages that the page allocator gave (mm_page_alloc), by migratetype and by what the request's flags tell of its \
     purpose: user (user space and page cache), kernel, kernel_accounted (charged to a memory cgroup), atomic (nobody may sleep for it).",
    Read::Cross(Cross { attributes: || &COMBINATIONS, read: |a, index| a.counts.as_ref()?.counts.get(index).copied() }),
);

macro_rules! by_class {
    ($($class:ident),+) => {
        const {
            &[$(Part {
                attributes: &[("observer.memory.class", CLASS_NAMES[Class::$class as usize])],
                read: |a| Some(a.counts.as_ref()?.failures[Class::$class as usize]),
            }),+]
        }
    };
}

/// Failed ones.
pub static FAILURES: Metric<Allocator> = Metric::new(
    "observer.memory.allocation.failures",
    "FAILED",
    Unit::Count("allocation"),
    "Allocations that the page allocator refused; many ask for less afterwards. They are not in observer.memory.allocations.",
    Read::Counter(by_class!(User, Kernel, Accounted, Atomic)),
);

macro_rules! by_type {
    ($($index:literal $name:literal),+) => {
        &[$(Part { attributes: &[("observer.memory.migratetype", $name)], read: |a| Some(a.counts.as_ref()?.fallbacks[$index]) }),+]
    };
}

/// Fallbacks.
pub static FALLBACKS: Metric<Allocator> = Metric::new(
    "observer.memory.fallbacks",
    "FALLBACKS",
    Unit::Count("block"),
    "Blocks of pages that another migratetype had to give (mm_page_alloc_extfrag), by the one that gave: memory becomes fragmented.",
    Read::Counter(by_type!(0 "unmovable", 1 "movable", 2 "reclaimable", 3 "highatomic", 4 "cma", 5 "isolate")),
);

macro_rules! stall {
    ($static:ident, $kind:expr, $name:literal, $title:literal, $help:literal) => {
        #[doc = $help]
        pub static $static: Metric<Allocator> = Metric::new(
            $name,
            $title,
            Unit::Seconds,
            $help,
            Read::Histogram(|a| Some(&a.counts.as_ref()?.stalls[$kind as usize])),
        );
    };
}

stall!(
    RECLAIM,
    Stall::Reclaim,
    "observer.memory.reclaim.latency",
    "RECLAIM",
    "Distribution of direct reclaims: a task freed pages itself, because the machine had too few."
);
stall!(
    MEMCG_RECLAIM,
    Stall::MemcgReclaim,
    "observer.memory.memcg_reclaim.latency",
    "MEMCG",
    "Distribution of reclaims at a memory cgroup's limit, by the tasks that met it."
);
stall!(
    COMPACTION,
    Stall::Compaction,
    "observer.memory.compaction.latency",
    "COMPACT",
    "Distribution of direct compactions: a task moved pages out of the way of a large allocation."
);

/// Node locality.
pub static LOCALITY: Metric<Allocator> = Metric::new(
    "observer.host.numa.pages",
    "LOCALITY",
    Unit::Count("page"),
    "Pages given on this node since boot, by where the task ran that asked: on the node (local) or on another (remote).",
    Read::Counter(&[
        Part { attributes: &[("observer.memory.locality", "local")], read: |a| Some(a.locality?.local) },
        Part { attributes: &[("observer.memory.locality", "remote")], read: |a| Some(a.locality?.remote) },
    ]),
);

/// In order of importance.
static ALL: &[&Metric<Allocator>] = &[&ALLOCATIONS, &FAILURES, &FALLBACKS, &RECLAIM, &MEMCG_RECLAIM, &COMPACTION, &LOCALITY];

impl Entity for Allocator {
    const KIND: Kind = Kind::Memory;
    type Key = Option<u32>;

    fn key(&self) -> Option<u32> {
        self.node
    }

    fn labels(&self) -> Labels<'_> {
        self.node.map(|node| ("node", Label::Number(node.into()))).into_iter().collect()
    }

    fn metrics() -> &'static [&'static Metric<Allocator>] {
        ALL
    }

    fn of(sample: &Sample) -> &[Allocator] {
        &sample.memory
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn combinations_are_where_the_kernel_side_counts_them() {
        assert_eq!(COMBINATIONS[place(9, 1, 0)].iter().map(|(_, value)| *value).collect::<Vec<_>>(), ["9", "movable", "user"]);
        assert!(COMBINATIONS.iter().all(|attributes| attributes.len() == 3));
    }
}

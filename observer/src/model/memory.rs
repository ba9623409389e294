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
    /// Free blocks on a node (`/proc/buddyinfo`).
    pub free: Option<Arc<FreeBlocks>>,
}

/// Distributions of stalls by [`Stall`], cumulative since observer attached.
pub type StallLatency = [Histogram; Stall::ALL.len()];

/// Cumulative since observer attached.
#[derive(Clone, PartialEq, Debug)]
pub struct Allocations {
    /// Allocations that succeeded, at [`observer_common::memory::place`].
    pub counts: Vec<u64>,
    /// Those that failed, by class.
    pub failures: [u64; CLASSES],
    /// Blocks taken from another migratetype, by the one that gave.
    pub fallbacks: [u64; TYPES],
    /// Stalls.
    pub stalls: StallLatency,
}

impl Allocations {
    /// Pages that were given.
    pub fn pages(&self) -> u64 {
        // An order's combinations lie together.
        let orders = self.counts.chunks(TYPES * CLASSES).enumerate();
        orders.map(|(order, counts)| counts.iter().sum::<u64>() << order).sum()
    }
}

impl Default for Allocations {
    fn default() -> Self {
        let counts = vec![0; ORDERS * TYPES * CLASSES];
        Allocations { counts, failures: [0; CLASSES], fallbacks: [0; TYPES], stalls: Default::default() }
    }
}

/// A stall of [`observer_common::memory::LONG`] or longer that ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LongStall {
    /// Path of the task's cgroup, escaped; `None` where the kernel does not tell, or it is gone.
    pub cgroup: Option<Arc<str>>,
    /// The thread, and
    pub tid: u32,
    /// its name, escaped.
    pub comm: Arc<str>,
    /// What it was stalled by.
    pub kind: Stall,
    /// Nanoseconds.
    pub time: u64,
}

/// Pages of one node since boot.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Locality {
    /// `local_node`: asked for by a task that ran there.
    pub local: u64,
    /// `other_node`: by one that ran on another.
    pub remote: u64,
}

/// Free memory of one node as the allocator holds it. A block is 2^order pages that lie side by side.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct FreeBlocks {
    /// Each zone's place in [`ZONE_NAMES`], and its blocks by order.
    pub zones: Vec<(usize, Vec<u64>)>,
}

/// Names of the zones (`enum zone_type`, include/linux/mmzone.h).
pub const ZONE_NAMES: [&str; 6] = ["DMA", "DMA32", "Normal", "HighMem", "Movable", "Device"];

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

/// The distributions of stalls as metrics of an entity, given how they are read.
macro_rules! stall_metrics {
    ($entity:ty, $of:expr) => {
        $crate::model::memory::stall_metrics!(
            @ $entity, $of, RECLAIM, Reclaim, "observer.memory.reclaim.latency", "RECLAIM",
            "Distribution of direct reclaims: a task freed pages itself, because the machine had too few."
        );
        $crate::model::memory::stall_metrics!(
            @ $entity, $of, MEMCG_RECLAIM, MemcgReclaim, "observer.memory.memcg_reclaim.latency", "MEMCG",
            "Distribution of reclaims at a memory cgroup's limit, by the tasks that met it."
        );
        $crate::model::memory::stall_metrics!(
            @ $entity, $of, COMPACTION, Compaction, "observer.memory.compaction.latency", "COMPACT",
            "Distribution of direct compactions: a task moved pages out of the way of a large allocation."
        );
    };
    (@ $entity:ty, $of:expr, $static:ident, $kind:ident, $name:literal, $title:literal, $help:literal) => {
        #[doc = $help]
        pub static $static: Metric<$entity> = Metric::new(
            $name,
            $title,
            Unit::Seconds,
            $help,
            Read::Histogram(|entity| {
                let of: fn(&$entity) -> Option<&$crate::model::memory::StallLatency> = $of;
                Some(&of(entity)?[observer_common::memory::Stall::$kind as usize])
            }),
        );
    };
}
pub(in crate::model) use stall_metrics;

stall_metrics!(Allocator, |a| Some(&a.counts.as_ref()?.stalls));

/// Every zone and order.
static ZONES_AND_ORDERS: LazyLock<Vec<Attributes>> = LazyLock::new(|| {
    let pair = |zone| ORDER_NAMES.map(|order| [("observer.memory.zone", zone), ("observer.memory.order", order)]);
    // Once in the life of the process.
    ZONE_NAMES.into_iter().flat_map(pair).map(|pair| -> Attributes { Box::leak(Box::new(pair)) }).collect()
});

/// Fragmentation.
pub static FREE_BLOCKS: Metric<Allocator> = Metric::new(
    "observer.memory.free_blocks",
    "FREE",
    Unit::Count("block"),
    "Free blocks of 2^order pages on this node, by zone (/proc/buddyinfo): how fragmented free memory is. Pages that CPUs keep at hand are not      among them.",
    Read::CrossGauge(Cross {
        attributes: || &ZONES_AND_ORDERS,
        read: |a, index| {
            let (zone, order) = (index / ORDERS, index % ORDERS);
            let (_, counts) = a.free.as_ref()?.zones.iter().find(|(known, _)| *known == zone)?;
            counts.get(order).map(|count| *count as f64)
        },
    }),
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
static ALL: &[&Metric<Allocator>] =
    &[&ALLOCATIONS, &FAILURES, &FALLBACKS, &RECLAIM, &MEMCG_RECLAIM, &COMPACTION, &LOCALITY, &FREE_BLOCKS];

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
    use crate::model::Value;

    #[test]
    fn pages_of_all_orders() {
        let mut all = Allocations::default();
        (all.counts[place(0, 1, 0)], all.counts[place(9, 0, 3)], all.counts[place(9, 1, 0)]) = (3, 1, 1);
        assert_eq!(all.pages(), 3 + 2 * 512);
    }

    #[test]
    fn combinations_are_where_the_kernel_side_counts_them() {
        assert_eq!(COMBINATIONS[place(9, 1, 0)].iter().map(|(_, value)| *value).collect::<Vec<_>>(), ["9", "movable", "user"]);
        assert!(COMBINATIONS.iter().all(|attributes| attributes.len() == 3));
    }

    #[test]
    fn free_blocks_are_told_with_zone_and_order() {
        let free = FreeBlocks { zones: vec![(0, vec![0, 3]), (2, vec![7])] };
        let node = Allocator { node: Some(0), counts: None, locality: None, free: Some(Arc::new(free)) };
        let mut found = Vec::new();
        FREE_BLOCKS.points(&node, None, None, &mut |point| {
            if let Value::Gauge(value) = point.value {
                found.push((point.attributes[0].1, point.attributes[1].1, value));
            }
        });
        assert_eq!(found, [("DMA", "0", 0.0), ("DMA", "1", 3.0), ("Normal", "0", 7.0)], "none is known, too");
    }
}

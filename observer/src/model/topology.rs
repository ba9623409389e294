//! Where CPUs are in the machine, and how far it is from one to another.

use std::collections::BTreeSet;
use std::fmt;

use observer_common::locality::place;

/// A CPU's place, from `/sys/devices/system/{cpu,node}`; `None` is unknown.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Topology {
    /// Core: the lowest-numbered of the CPUs that share it.
    pub core: Option<u32>,
    /// Last-level cache: the lowest-numbered of the CPUs that share it.
    pub llc: Option<u32>,
    /// Package (socket), as the kernel numbers it.
    pub package: Option<u32>,
    /// NUMA node.
    pub node: Option<u32>,
}

impl Topology {
    /// The place of a CPU with this number as the kernel side compares it, by the rules of [`Distance::between`]; 0 where too little is known.
    pub fn word(&self, number: u32) -> u64 {
        let Some(cache) = self.llc.or(self.package).or(self.node) else { return 0 };
        place(self.node.unwrap_or(0), cache, self.core.unwrap_or(number))
    }
}

/// How far it is from one CPU to another: what of a task's warmth is still there after it was moved. From near to far, each within the next.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Distance {
    /// The same CPU.
    Cpu,
    /// The same core: an SMT sibling. All caches are shared.
    Core,
    /// The same last-level cache.
    Cache,
    /// The same NUMA node; its memory is as near as it was.
    Node,
    /// Another NUMA node.
    Remote,
}

impl Distance {
    /// All, from near to far; each at the index that is its number.
    pub const ALL: [Distance; 5] = [Distance::Cpu, Distance::Core, Distance::Cache, Distance::Node, Distance::Remote];

    /// What [`Distance::table`] has where the distance is unknown: one more than the farthest.
    pub const UNKNOWN: u8 = Distance::ALL.len() as u8;

    /// The lower-case word of every output.
    pub fn name(self) -> &'static str {
        match self {
            Distance::Cpu => "cpu",
            Distance::Core => "core",
            Distance::Cache => "cache",
            Distance::Node => "node",
            Distance::Remote => "remote",
        }
    }

    /// How far it is between two CPUs, each a number and a place; `None` where too little is known. It is the same in both directions.
    ///
    /// Nodes decide first: cores and caches that span nodes (a cache does with sub-NUMA clustering) are cut at them, as the kernel's
    /// scheduler does. Without cache information the package stands for the last-level cache, and without that the node, as in the
    /// kernel's own `cpu_coregroup_mask`. Nothing is taken to be on another node unless both nodes are known: a kernel without
    /// NUMA has one. Clusters of cores that share a cache below the last one are within [`Distance::Cache`].
    pub fn between((a, here): (u32, Topology), (b, there): (u32, Topology)) -> Option<Distance> {
        let same = |a: Option<u32>, b: Option<u32>| Some(a? == b?);
        let node = same(here.node, there.node);
        if a == b {
            return Some(Distance::Cpu);
        }
        if node == Some(false) {
            return Some(Distance::Remote);
        }
        if same(here.core, there.core) == Some(true) {
            return Some(Distance::Core);
        }
        let near = same(here.llc, there.llc).or_else(|| same(here.package, there.package)).or(node)?;
        Some(if near { Distance::Cache } else { Distance::Node })
    }

    /// The distances between CPUs `0 … n − 1`, whose places these are: from CPU `a` to CPU `b` it is at `a * n + b`, as the number of a
    /// [`Distance`], or [`Distance::UNKNOWN`].
    pub fn table(places: &[Topology]) -> Vec<u8> {
        let numbered = || (0..).zip(places.iter().copied());
        let pairs = numbered().flat_map(|from| numbered().map(move |to| Distance::between(from, to)));
        pairs.map(|distance| distance.map_or(Distance::UNKNOWN, |distance| distance as u8)).collect()
    }
}

/// How many of each a machine has; `None` where no CPU's is known.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Shape {
    /// NUMA nodes that have CPUs.
    pub nodes: Option<usize>,
    /// Packages.
    pub packages: Option<usize>,
    /// Last-level caches.
    pub caches: Option<usize>,
    /// Cores.
    pub cores: Option<usize>,
    /// CPUs.
    pub cpus: usize,
}

impl Shape {
    /// Counts the places of all CPUs.
    pub fn of(places: &[Topology]) -> Shape {
        let count = |part: fn(&Topology) -> Option<u32>| {
            let different: BTreeSet<u32> = places.iter().filter_map(part).collect();
            Some(different.len()).filter(|count| *count > 0)
        };
        Shape {
            nodes: count(|place| place.node),
            packages: count(|place| place.package),
            caches: count(|place| place.llc),
            cores: count(|place| place.core),
            cpus: places.len(),
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [(self.nodes, "node"), (self.packages, "package"), (self.caches, "last-level cache"), (self.cores, "core")];
        for (count, name) in parts.into_iter().chain([(Some(self.cpus), "CPU")]) {
            let comma = if name == "node" { "" } else { ", " };
            match count {
                Some(1) => write!(f, "{comma}1 {name}")?,
                Some(count) => write!(f, "{comma}{count} {name}s")?,
                None => write!(f, "{comma}– {name}s")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `core llc package node`, a dash for what is unknown.
    fn place(text: &str) -> Topology {
        let mut parts = text.split(' ').map(|part| part.parse().ok());
        let mut next = || parts.next().unwrap();
        Topology { core: next(), llc: next(), package: next(), node: next() }
    }

    #[track_caller]
    fn check(here: &str, there: &str, expected: Option<Distance>) {
        let (here, there) = ((1, place(here)), (9, place(there)));
        assert_eq!(Distance::between(here, there), expected);
        assert_eq!(Distance::between(there, here), expected, "the other way round");
    }

    #[test]
    fn everything_is_known() {
        use Distance::{Cache, Core, Node, Remote};
        check("1 0 0 0", "1 0 0 0", Some(Core));
        check("1 0 0 0", "9 0 0 0", Some(Cache));
        check("1 0 0 0", "9 8 0 0", Some(Node)); // Several last-level caches in a node, as AMD has them.
        check("1 0 0 0", "9 8 1 0", Some(Node)); // Two packages in a node.
        check("1 0 0 0", "9 8 1 1", Some(Remote));
        check("1 0 0 0", "9 0 0 1", Some(Remote)); // Sub-NUMA clusters below one cache.
        check("1 0 0 0", "1 0 0 1", Some(Remote)); // A hypervisor's nonsense.
    }

    #[test]
    fn one_stands_for_another() {
        use Distance::{Cache, Core, Node, Remote};
        check("1 - 0 0", "9 - 0 0", Some(Cache));
        check("1 - 0 0", "9 - 1 0", Some(Node));
        check("1 0 0 0", "9 - 0 0", Some(Cache)); // One of them has no cache.
        check("1 - 0 0", "9 - 0 1", Some(Remote));
        check("1 - - 0", "9 - - 0", Some(Cache));
        check("1 - - 0", "9 - - 1", Some(Remote));
        check("1 0 0 -", "9 8 1 -", Some(Node)); // A kernel without NUMA.
        check("1 0 0 -", "9 0 0 -", Some(Cache));
        check("1 0 0 0", "9 8 1 -", Some(Node));
        check("1 - - -", "1 - - -", Some(Core));
        check("1 - - -", "9 - - -", None);
        check("- - - -", "- - - -", None);
        check("1 0 0 0", "- - - -", None);
        assert_eq!(Distance::between((3, place("- - - -")), (3, place("- - - -"))), Some(Distance::Cpu), "known in any case");
    }

    #[test]
    fn a_table_by_number() {
        let places = ["0 0 0 0", "- - - -", "0 0 0 0", "3 3 1 1"].map(place);
        let unknown = Distance::UNKNOWN;
        assert_eq!(
            Distance::table(&places).chunks(4).collect::<Vec<_>>(),
            [[0, unknown, 1, 4], [unknown, 0, unknown, unknown], [1, unknown, 0, 4], [4, unknown, 4, 0]]
        );
        assert!(Distance::table(&[]).is_empty());
        for (number, distance) in (0..).zip(Distance::ALL) {
            assert_eq!(distance as u8, number);
        }
    }

    #[test]
    fn shapes() {
        let check = |places: &[&str], expected: &str| {
            let places: Vec<_> = places.iter().map(|text| place(text)).collect();
            assert_eq!(Shape::of(&places).to_string(), expected);
        };
        check(&["0 0 0 0", "0 0 0 0", "2 2 1 1", "3 2 1 1"], "2 nodes, 2 packages, 2 last-level caches, 3 cores, 4 CPUs");
        check(&["0 - 0 -"], "– nodes, 1 package, – last-level caches, 1 core, 1 CPU");
    }

    proptest! {
        /// Whatever is known, as long as the same is known of all, and cores lie within everything else: no way round is nearer.
        #[test]
        fn no_way_round_is_nearer(known: [bool; 4], places: [[bool; 4]; 3]) {
            let place = |bits: [bool; 4]| {
                let number = |at: usize| known[at].then_some(u32::from(bits[at]));
                let core = bits.iter().fold(0, |number, bit| number * 2 + u32::from(*bit));
                Topology { core: known[0].then_some(core), llc: number(1), package: number(2), node: number(3) }
            };
            let [a, b, c] = [(0, place(places[0])), (1, place(places[1])), (2, place(places[2]))];
            let distances = (Distance::between(a, b), Distance::between(b, c), Distance::between(a, c));
            if let (Some(ab), Some(bc), Some(ac)) = distances {
                prop_assert!(ac <= ab.max(bc), "{ab:?} {bc:?} {ac:?}");
            }
        }
    }
}

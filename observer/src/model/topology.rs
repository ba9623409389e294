//! Where CPUs are in the machine.

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

/// The places of CPUs, each with its number, as the kernel side compares them ([`observer_common::locality::distance`]); 0 where too little is known.
///
/// Nodes decide first: cores and caches that span nodes (a cache does with sub-NUMA clustering) are cut at them, as the kernel's
/// scheduler does. Where not all CPUs have a last-level cache the package stands for it, and without that the node, as in the kernel's
/// own `cpu_coregroup_mask`. A kernel without NUMA has one node. Clusters of cores that share a cache below the last one are within it.
pub fn words(cpus: &[(u32, Topology)]) -> Vec<(u32, u64)> {
    let parts: [fn(&Topology) -> Option<u32>; 3] = [|place| place.llc, |place| place.package, |place| place.node];
    let is_known = |place: &Topology| parts.iter().any(|part| part(place).is_some());
    let near = parts.iter().find(|part| cpus.iter().filter(|(_, place)| is_known(place)).all(|(_, place)| part(place).is_some()));
    let word = |(number, topology): &(u32, Topology)| {
        let cache = near.and_then(|near| near(topology));
        let word = cache.map(|cache| place(topology.node.unwrap_or(0), cache, topology.core.unwrap_or(*number)));
        (*number, word.unwrap_or(0))
    };
    cpus.iter().map(word).collect()
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
    use observer_common::locality::{CACHE, CORE, NODE, REMOTE, UNKNOWN, distance};
    use proptest::prelude::*;

    use super::*;

    /// `core llc package node`, a dash for what is unknown.
    fn place(text: &str) -> Topology {
        let mut parts = text.split(' ').map(|part| part.parse().ok());
        let mut next = || parts.next().unwrap();
        Topology { core: next(), llc: next(), package: next(), node: next() }
    }

    fn between(places: [Topology; 2]) -> usize {
        let words = words(&[(1, places[0]), (9, places[1])]);
        distance(words[0].1, words[1].1)
    }

    #[track_caller]
    fn check(here: &str, there: &str, expected: usize) {
        let (here, there) = (place(here), place(there));
        assert_eq!(between([here, there]), expected);
        assert_eq!(between([there, here]), expected, "the other way round");
    }

    #[test]
    fn everything_is_known() {
        check("1 0 0 0", "1 0 0 0", CORE);
        check("1 0 0 0", "9 0 0 0", CACHE);
        check("1 0 0 0", "9 8 0 0", NODE); // Several last-level caches in a node, as AMD has them.
        check("1 0 0 0", "9 8 1 0", NODE); // Two packages in a node.
        check("1 0 0 0", "9 8 1 1", REMOTE);
        check("1 0 0 0", "9 0 0 1", REMOTE); // Sub-NUMA clusters below one cache.
        check("1 0 0 0", "1 0 0 1", REMOTE); // A hypervisor's nonsense.
    }

    #[test]
    fn one_stands_for_another() {
        check("1 - 0 0", "9 - 0 0", CACHE);
        check("1 - 0 0", "9 - 1 0", NODE);
        check("1 0 0 0", "9 - 0 0", CACHE); // One of them has no cache.
        check("1 1 0 0", "9 - 1 0", NODE); // Nor is a cache's number compared with a package's.
        check("1 - 0 0", "9 - 0 1", REMOTE);
        check("1 - - 0", "9 - - 0", CACHE);
        check("1 - - 0", "9 - - 1", REMOTE);
        check("1 0 0 -", "9 8 1 -", NODE); // A kernel without NUMA.
        check("1 0 0 -", "9 0 0 -", CACHE);
        check("1 0 0 0", "9 8 1 -", NODE);
        check("1 - - -", "9 - - -", UNKNOWN);
        check("- - - -", "- - - -", UNKNOWN);
        check("1 0 0 0", "- - - -", UNKNOWN);
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
            let words = words(&[(0, place(places[0])), (1, place(places[1])), (2, place(places[2]))]);
            let between = |a: usize, b: usize| distance(words[a].1, words[b].1);
            let (ab, bc, ac) = (between(0, 1), between(1, 2), between(0, 2));
            prop_assert!(ac <= ab.max(bc), "{ab} {bc} {ac}");
        }
    }
}

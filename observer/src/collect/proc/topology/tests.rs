//! Machines as `/sys` describes them, and the distances that follow.

use observer_common::locality::{UNKNOWN, distance};

use super::*;

/// A CPU's files: its number, who shares its core and its last-level cache, its package. Empty is a file that is not there.
type Files = (u32, &'static str, &'static str, &'static str);

/// Writes a machine: the list of CPUs that are on, their files, and the CPUs of each node.
fn tree(online: &str, cpus: &[Files], nodes: &[&str]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = root.path().join("devices/system").join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        if !text.is_empty() {
            std::fs::write(path, format!("{text}\n")).unwrap();
        }
    };
    write("cpu/online", online);
    for (number, core, cache, package) in cpus {
        write(&format!("cpu/cpu{number}/uevent"), "x");
        write(&format!("cpu/cpu{number}/topology/core_cpus_list"), core);
        write(&format!("cpu/cpu{number}/topology/physical_package_id"), package);
        if !cache.is_empty() {
            // A first level of the core's own, and clusters, must not matter.
            write(&format!("cpu/cpu{number}/topology/cluster_cpus_list"), core);
            write(&format!("cpu/cpu{number}/cache/index0/level"), "1");
            write(&format!("cpu/cpu{number}/cache/index0/shared_cpu_list"), core);
            write(&format!("cpu/cpu{number}/cache/index3/level"), "3");
            write(&format!("cpu/cpu{number}/cache/index3/shared_cpu_list"), cache);
        }
    }
    for (number, list) in nodes.iter().enumerate() {
        write(&format!("node/node{number}/cpulist"), list);
    }
    root
}

fn machine(online: &str, cpus: &[Files], nodes: &[&str]) -> Machine {
    let machine = read(tree(online, cpus, nodes).path()).unwrap();
    assert!(machine.problem.is_none(), "{:?}", machine.problem);
    machine
}

/// The distances as digits, a row for each CPU: 0 to itself, then from near to far; `?` is unknown.
fn rows(machine: &Machine, cpus: u32) -> Vec<String> {
    let words: BTreeMap<u32, u64> = machine.words().into_iter().collect();
    let word = |cpu| words.get(&cpu).copied().unwrap_or(0);
    let digit = |from, to| match distance(word(from), word(to)) {
        _ if from == to => '0',
        UNKNOWN => '?',
        distance => char::from(b'1' + distance as u8),
    };
    (0..cpus).map(|from| (0..cpus).map(|to| digit(from, to)).collect()).collect()
}

#[test]
fn two_sockets_with_smt() {
    let cpus = [
        (0, "0,4", "0-1,4-5", "0"),
        (1, "1,5", "0-1,4-5", "0"),
        (2, "2,6", "2-3,6-7", "1"),
        (3, "3,7", "2-3,6-7", "1"),
        (4, "0,4", "0-1,4-5", "0"),
        (5, "1,5", "0-1,4-5", "0"),
        (6, "2,6", "2-3,6-7", "1"),
        (7, "3,7", "2-3,6-7", "1"),
    ];
    let machine = machine("0-7", &cpus, &["0-1,4-5", "2-3,6-7"]);
    assert_eq!(
        rows(&machine, 8),
        ["02441244", "20442144", "44024412", "44204421", "12440244", "21442044", "44124402", "44214420"]
    );
    assert_eq!(machine.shape().to_string(), "2 nodes, 2 packages, 2 last-level caches, 4 cores, 8 CPUs");
    assert!(machine.lacking().is_empty());
}

#[test]
fn a_virtual_machine_without_caches() {
    let together = machine("0-2", &[(0, "0-1", "", "0"), (1, "0-1", "", "0"), (2, "2", "", "0")], &["0-2"]);
    assert_eq!(rows(&together, 3), ["012", "102", "220"]);
    assert_eq!(together.lacking(), ["caches unknown: the package stands for the last-level cache"]);
    // A package for each CPU is what QEMU makes of `-smp 3`.
    let apart = machine("0-2", &[(0, "0", "", "0"), (1, "1", "", "1"), (2, "2", "", "2")], &["0-2"]);
    assert_eq!(rows(&apart, 3), ["033", "303", "330"]);
    let unnumbered = machine("0-1", &[(0, "0", "", "-1"), (1, "1", "", "-1")], &["0-1"]);
    assert_eq!(rows(&unnumbered, 2), ["02", "20"]);
    assert_eq!(
        unnumbered.lacking(),
        ["caches unknown: the node stands for the last-level cache, as packages are not known either"]
    );
    assert_eq!(unnumbered.shape().to_string(), "1 node, – packages, – last-level caches, 2 cores, 2 CPUs");
}

#[test]
fn one_cpu_without_a_last_level_cache() {
    let cpus = [(0, "0", "0-1", "0"), (1, "1", "0-1", "0"), (2, "2", "", "0")];
    let machine = machine("0-2", &cpus, &["0-2"]);
    assert_eq!(rows(&machine, 3), ["022", "202", "220"]);
    assert_eq!(machine.lacking(), ["caches unknown of some CPUs: the package stands for the last-level cache"]);
}

#[test]
fn a_kernel_without_numa() {
    let machine = machine("0-2", &[(0, "0", "0-1", "0"), (1, "1", "0-1", "0"), (2, "2", "2", "1")], &[]);
    assert_eq!(rows(&machine, 3), ["023", "203", "330"]);
    assert_eq!(machine.lacking(), ["NUMA nodes unknown: no CPU is taken to be on another one"]);
}

#[test]
fn nothing_is_told() {
    let machine = machine("0-1", &[(0, "", "", ""), (1, "", "", "")], &[]);
    assert_eq!(rows(&machine, 2), ["0?", "?0"]);
    assert_eq!(
        machine.lacking(),
        [
            "SMT siblings unknown: a CPU is taken for a core of its own",
            "caches unknown: as neither packages nor nodes are known, distances between CPUs are not",
            "NUMA nodes unknown: no CPU is taken to be on another one"
        ]
    );
}

#[test]
fn several_last_level_caches_in_a_node() {
    let cpus = [(0, "0", "0-1", "0"), (1, "1", "0-1", "0"), (2, "2", "2-3", "0"), (3, "3", "2-3", "0")];
    assert_eq!(rows(&machine("0-3", &cpus, &["0-3"]), 4), ["0233", "2033", "3302", "3320"]);
}

#[test]
fn sub_numa_clusters_cut_the_cache() {
    let cpus = [(0, "0", "0-3", "0"), (1, "1", "0-3", "0"), (2, "2", "0-3", "0"), (3, "3", "0-3", "0")];
    assert_eq!(rows(&machine("0-3", &cpus, &["0-1", "2-3"]), 4), ["0244", "2044", "4402", "4420"]);
}

#[test]
fn a_node_of_memory_only_has_no_cpus() {
    let machine = machine("0-1", &[(0, "0", "0-1", "0"), (1, "1", "0-1", "0")], &["0-1", " "]);
    assert_eq!(machine.shape().nodes, Some(1));
    assert_eq!(rows(&machine, 2), ["02", "20"]);
}

#[test]
fn sparse_numbers_and_cpus_that_were_never_on() {
    let cpus = [(1, "1,5", "1,5", "0"), (3, "", "", ""), (5, "1,5", "1,5", "0")];
    let machine = machine("1,5", &cpus, &["1,5"]);
    assert_eq!(rows(&machine, 6), ["0?????", "?0???1", "??0???", "???0??", "????0?", "?1???0"]);
    assert_eq!(machine.shape().cpus, 2, "those that are on");
    assert!(machine.lacking().is_empty(), "nobody asks for the place of a CPU that is off");
}

#[test]
fn a_cpu_that_goes_off_keeps_its_place() {
    let all = [(0, "0,2", "0-3", "0"), (1, "1,3", "0-3", "0"), (2, "0,2", "0-3", "0"), (3, "1,3", "0-3", "0")];
    let before = machine("0-3", &all, &["0-3"]);
    let whole = rows(&before, 4);
    assert_eq!(whole, ["0212", "2021", "1202", "2120"]);
    // The lowest goes, after which its core and its cache are called are others.
    let fewer = [(0, "", "", ""), (1, "1,3", "1-3", "0"), (2, "2", "1-3", "0"), (3, "1,3", "1-3", "0")];
    let mut after = machine("1-3", &fewer, &["1-3"]);
    assert_eq!(after.place(0), Topology::default());
    after.keep(&before);
    assert_eq!(after.place(0), Topology { core: Some(2), llc: Some(1), package: Some(0), node: Some(0) });
    assert_eq!(rows(&after, 4), whole);
    // Its sibling goes, too: what is left of the core is what was known of it.
    let fewest = [(0, "", "", ""), (1, "1,3", "1,3", "0"), (2, "", "", ""), (3, "1,3", "1,3", "0")];
    let mut last = machine("1,3", &fewest, &["1,3"]);
    last.keep(&after);
    assert_eq!(rows(&last, 4), whole);
    assert_eq!(last.shape().to_string(), "1 node, 1 package, 1 last-level cache, 1 core, 2 CPUs");
    // And all come back.
    let mut again = machine("0-3", &all, &["0-3"]);
    again.keep(&last);
    assert_eq!((rows(&again, 4), again.cpus), (whole, before.cpus));
}

/// The files of a guest with Linux 7.2 in QEMU (`-smp 8,sockets=2,cores=2,threads=2`, two nodes): `path|text` on each line.
fn guest(listing: &str) -> Machine {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in listing.lines().map(|line| line.split_once('|').unwrap()) {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, format!("{text}\n")).unwrap();
    }
    let machine = read(root.path()).unwrap();
    assert!(machine.problem.is_none() && machine.lacking().is_empty(), "{machine:?}");
    machine
}

#[test]
fn a_guest_before_and_after_one_of_its_cpus_went_off() {
    let before = guest(include_str!("../../../../tests/fixtures/topology/guest.txt"));
    let whole = rows(&before, 8);
    assert_eq!(whole, ["01224444", "10224444", "22014444", "22104444", "44440122", "44441022", "44442201", "44442210"]);
    assert_eq!(before.shape().to_string(), "2 nodes, 2 packages, 2 last-level caches, 4 cores, 8 CPUs");
    let mut after = guest(include_str!("../../../../tests/fixtures/topology/guest-without-cpu5.txt"));
    assert_eq!((after.place(5), rows(&after, 8)[4].as_str()), (Topology::default(), "44440?22"));
    assert_eq!(after.shape().to_string(), "2 nodes, 2 packages, 2 last-level caches, 4 cores, 7 CPUs");
    after.keep(&before);
    assert_eq!(rows(&after, 8), whole);
}

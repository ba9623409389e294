//! The place of each CPU in the machine, from `/sys/devices/system/{cpu,node}`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Error, Malformed, cpulist, file};
use crate::model::topology::{Shape, Topology, words};

/// The machine as `/sys` describes it. It changes when a CPU goes on or off, and reading takes some ten files per CPU: read it once, and
/// again when the CPUs in `/proc/stat` are others; [`Machine::keep`] then brings over what has vanished.
#[derive(Default, Debug)]
pub struct Machine {
    /// Numbers of the CPUs that are on, ascending (`cpu/online`); `None` where the kernel does not tell.
    pub online: Option<Vec<u32>>,
    /// Places by CPU number; of a CPU that is off the kernel tells none.
    pub cpus: BTreeMap<u32, Topology>,
    /// The first file that exists and could not be used; what it would have told is unknown.
    pub problem: Option<Error>,
}

impl Machine {
    /// The place of a CPU, all unknown where it was not listed.
    pub fn place(&self, cpu: u32) -> Topology {
        self.cpus.get(&cpu).copied().unwrap_or_default()
    }

    /// Takes over the places of CPUs that have gone off since an earlier reading: their files vanish, but tasks still come from there.
    /// Cores and caches are named after the lowest CPU that is on, so they may have other names by now.
    pub fn keep(&mut self, before: &Machine) {
        let now = |of: fn(&Topology) -> Option<u32>, then: &Topology| {
            let name = of(then)?;
            let sharers = before.cpus.iter().filter(|(_, place)| of(place) == Some(name));
            sharers.filter_map(|(number, _)| of(self.cpus.get(number)?)).next().or(Some(name))
        };
        let gone = before.cpus.iter().filter(|(number, _)| self.place(**number) == Topology::default());
        let place =
            |then: &Topology| Topology { core: now(|place| place.core, then), llc: now(|place| place.llc, then), ..*then };
        let kept: Vec<_> = gone.map(|(number, then)| (*number, place(then))).collect();
        self.cpus.extend(kept);
    }

    /// The places of all CPUs, as the kernel side compares them. A CPU that was never on has none.
    pub fn words(&self) -> Vec<(u32, u64)> {
        words(&self.cpus.iter().map(|(number, place)| (*number, *place)).collect::<Vec<_>>())
    }

    /// How many nodes, packages, caches and cores the CPUs that are on have.
    pub fn shape(&self) -> Shape {
        Shape::of(&self.places().collect::<Vec<_>>())
    }

    /// What the kernel does not tell of CPUs that are on, and what stands for it in distances; a sentence each.
    pub fn lacking(&self) -> Vec<String> {
        let unknown = |of: fn(&Topology) -> Option<u32>| {
            let (all, none) = (self.places().all(|place| of(&place).is_some()), self.places().all(|place| of(&place).is_none()));
            (!all).then_some(if none { "unknown" } else { "unknown of some CPUs" })
        };
        let (core, llc) = (unknown(|place| place.core), unknown(|place| place.llc));
        let (package, node) = (unknown(|place| place.package), unknown(|place| place.node));
        let mut lacking = Vec::new();
        if let Some(unknown) = core {
            lacking.push(format!("SMT siblings {unknown}: a CPU is taken for a core of its own"));
        }
        if let Some(unknown) = llc {
            let substitute = match (package, node) {
                (None, _) => "the package stands for the last-level cache",
                (Some(_), None) => "the node stands for the last-level cache, as packages are not known either",
                (Some(_), Some(_)) => "as neither packages nor nodes are known, distances between CPUs are not",
            };
            lacking.push(format!("caches {unknown}: {substitute}"));
        }
        if let Some(unknown) = node {
            lacking.push(format!("NUMA nodes {unknown}: no CPU is taken to be on another one"));
        }
        lacking
    }

    /// The places of the CPUs that are on, or of all where the kernel does not tell which.
    fn places(&self) -> impl Iterator<Item = Topology> {
        let all = self.online.clone().unwrap_or_else(|| self.cpus.keys().copied().collect());
        all.into_iter().map(|cpu| self.place(cpu))
    }
}

/// Reads what is below `{sys}/devices/system`. Fails only when the CPUs cannot be listed at all.
pub fn read(sys: &Path) -> Result<Machine, Error> {
    let system = sys.join("devices/system");
    let mut reader = Reader::default();
    let mut machine = Machine { online: reader.cpus(&system.join("cpu/online")), ..Machine::default() };
    for (number, path) in numbered(&system.join("cpu"), "cpu")? {
        let topology = path.join("topology");
        let siblings = reader.cpus(&topology.join("core_cpus_list"));
        // The older name of the same file, until 5.3.
        let siblings = siblings.or_else(|| reader.cpus(&topology.join("thread_siblings_list")));
        let place = Topology {
            core: lowest(siblings),
            llc: reader.last_level_cache(&path.join("cache")),
            package: reader.id(&topology.join("physical_package_id")),
            node: None,
        };
        machine.cpus.insert(number, place);
    }
    // Kernels without NUMA have no such directory; the node is then unknown.
    for (node, path) in reader.numbered(&system.join("node"), "node") {
        for cpu in reader.cpus(&path.join("cpulist")).unwrap_or_default() {
            if let Some(place) = machine.cpus.get_mut(&cpu) {
                place.node = Some(node);
            }
        }
    }
    machine.problem = reader.problem;
    Ok(machine)
}

fn lowest(cpus: Option<Vec<u32>>) -> Option<u32> {
    cpus?.first().copied()
}

/// Reads files that may be missing, and remembers the first that was there and useless.
#[derive(Default)]
struct Reader {
    buffer: Vec<u8>,
    problem: Option<Error>,
}

impl Reader {
    /// The lowest CPU that shares the cache of the highest level; of several (instructions, data) the first.
    fn last_level_cache(&mut self, cache: &Path) -> Option<u32> {
        let mut last: Option<(u32, &Path)> = None;
        let indexes = self.numbered(cache, "index");
        for (_, index) in &indexes {
            let level = self.file(&index.join("level"), |text| {
                text.trim().parse::<u32>().map_err(|_| Malformed::expected("a cache level", text))
            });
            if let Some(level) = level
                && last.is_none_or(|(highest, _)| level > highest)
            {
                last = Some((level, index));
            }
        }
        lowest(self.cpus(&last?.1.join("shared_cpu_list")))
    }

    /// A number, or what some firmware gives instead: −1.
    fn id(&mut self, path: &Path) -> Option<u32> {
        let parse = |text: &str| match text.trim() {
            "-1" => Ok(None),
            number => number.parse().map(Some).map_err(|_| Malformed::expected("a number", text)),
        };
        self.file(path, parse).flatten()
    }

    fn cpus(&mut self, path: &Path) -> Option<Vec<u32>> {
        self.file(path, cpulist::parse)
    }

    fn file<T>(&mut self, path: &Path, parse: impl FnOnce(&str) -> Result<T, Malformed>) -> Option<T> {
        let read = file::parse(path, &mut self.buffer, parse);
        self.known(read)
    }

    fn numbered(&mut self, directory: &Path, prefix: &str) -> Vec<(u32, PathBuf)> {
        let read = numbered(directory, prefix);
        self.known(read).unwrap_or_default()
    }

    fn known<T>(&mut self, read: Result<T, Error>) -> Option<T> {
        match read {
            Ok(value) => Some(value),
            Err(error) => {
                if !error.is_missing() {
                    self.problem.get_or_insert(error);
                }
                None
            }
        }
    }
}

/// Entries called `prefix` and a number, ascending by the number (`cpu7`, but not `cpufreq`).
pub(in crate::collect) fn numbered(directory: &Path, prefix: &str) -> Result<Vec<(u32, PathBuf)>, Error> {
    let failed = |error: io::Error| Error::Read { path: directory.to_owned(), error };
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let digits = name.to_str().and_then(|name| name.strip_prefix(prefix)).filter(|digits| !digits.starts_with('+'));
        if let Some(number) = digits.and_then(|digits| digits.parse().ok()) {
            found.push((number, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests;

//! Memory and pressure of each cgroup, read again where something may have moved.
//!
//! There are nine files a cgroup, two of them dear (for `memory.stat` the kernel sums what all CPUs hold), and most cgroups do nothing most of
//! the time. So they are read again when the cgroup or one below it has run since, as the usage in `cpu.stat` tells, which has just been read,
//! knows nothing of full tables and is there without eBPF, too; and when the last reading brought news, since a task that sleeps on a disk or
//! a memory that shrinks moves numbers without any run. All others keep theirs: every tenth reading looks after them, and reads the dear
//! files only where the cheap ones brought news.

use std::collections::HashMap;
use std::fmt::Display;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use observer_common::sched::Key;
use rustix::io::Errno;

use super::files::{Budget, Files};
use super::{Unreadable, memory, stat};
use crate::collect::proc::{Malformed, pressure};
use crate::model::cgroup::Resources;
use crate::model::cgroup::resources::{Memory, MemoryStat};

/// Readings from one to the next of a cgroup that does nothing.
const SELDOM: u64 = 10;
/// More than any of the files, but for the `memory.numa_stat` of very many nodes, which has what is wanted in front.
const FILE_BYTES: usize = 16 << 10;

/// Where a file is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Home {
    /// In a v2 cgroup's directory.
    V2,
    /// There, where the v2 hierarchy may have the memory controller: where v1 has not.
    V2Memory,
    /// At the same path in the v1 hierarchy of the memory controller.
    V1Memory,
}

/// One kind of file.
pub(super) struct File {
    pub(super) home: Home,
    pub(super) name: &'static str,
    parse: Parse,
    price: Price,
}

/// When a file is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Price {
    /// Whenever anything is.
    Cheap,
    /// Where somebody works, or a cheap one brought news.
    Dear,
    /// So, and at every tenth reading only.
    Dearest,
}

/// Sets what a file tells.
type Parse = fn(&str, &mut Resources) -> Result<(), Malformed>;

const fn cheap(home: Home, name: &'static str, parse: Parse) -> File {
    File { home, name, parse, price: Price::Cheap }
}

const fn dear(home: Home, name: &'static str, price: Price, parse: Parse) -> File {
    File { home, name, parse, price }
}

/// A file's place here is its number among a cgroup's.
static FILES: [File; 15] = [
    cheap(Home::V2, "cpu.pressure", |text, to| pressure::parse(text).map(|time| to.cpu_pressure = Some(time))),
    cheap(Home::V2, "memory.pressure", |text, to| pressure::parse(text).map(|time| to.memory_pressure = Some(time))),
    cheap(Home::V2, "io.pressure", |text, to| pressure::parse(text).map(|time| to.io_pressure = Some(time))),
    cheap(Home::V2Memory, "memory.current", |text, to| memory::usage(text, &mut to.memory)),
    cheap(Home::V2Memory, "memory.max", |text, to| memory::limit(text, &mut to.memory)),
    cheap(Home::V2Memory, "memory.high", |text, to| memory::high(text, &mut to.memory)),
    cheap(Home::V2Memory, "memory.events", |text, to| memory::events(text, &mut to.memory)),
    dear(Home::V2Memory, "memory.stat", Price::Dear, |text, to| memory::stat(text, &mut to.memory.stat)),
    dear(Home::V2Memory, "memory.numa_stat", Price::Dearest, |text, to| memory::nodes(text, &mut to.memory)),
    cheap(Home::V1Memory, "memory.usage_in_bytes", |text, to| memory::usage(text, &mut to.memory)),
    cheap(Home::V1Memory, "memory.limit_in_bytes", |text, to| memory::limit(text, &mut to.memory)),
    cheap(Home::V1Memory, "memory.failcnt", |text, to| memory::failures(text, &mut to.memory)),
    cheap(Home::V1Memory, "memory.oom_control", |text, to| memory::oom_control(text, &mut to.memory)),
    dear(Home::V1Memory, "memory.stat", Price::Dear, |text, to| memory::stat_v1(text, &mut to.memory.stat)),
    dear(Home::V1Memory, "memory.numa_stat", Price::Dearest, |text, to| {
        memory::nodes_v1(text, rustix::param::page_size() as u64, &mut to.memory)
    }),
];

/// What is known of all cgroups.
#[derive(Debug)]
pub(super) struct Store {
    known: HashMap<Key, Known>,
    budget: Budget,
    /// The present walk.
    round: u64,
    buffer: Box<[u8]>,
}

/// What is known of one cgroup.
#[derive(Default, Debug)]
struct Known {
    /// As it was last told, with its ancestors' limits.
    resources: Arc<Resources>,
    /// Its own limits.
    own: Thresholds,
    /// What could not be read when it was read last.
    unreadable: Option<Box<Unreadable>>,
    files: Files<{ FILES.len() }>,
    /// A bit for each file that does not exist.
    missing: u32,
    /// CPU time used when it was read last.
    usage: Option<u64>,
    /// The last reading brought news.
    moved: bool,
    /// The walk that saw it last.
    round: u64,
}

/// `memory.max` and `memory.high` in bytes.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Thresholds {
    pub(super) limit: Option<u64>,
    pub(super) high: Option<u64>,
}

impl Thresholds {
    pub(super) fn of(resources: &Resources) -> Thresholds {
        Thresholds { limit: resources.memory.limit, high: resources.memory.high }
    }

    fn tighter(self, other: Thresholds) -> Thresholds {
        Thresholds { limit: stat::tighter(self.limit, other.limit), high: stat::tighter(self.high, other.high) }
    }
}

impl Default for Store {
    fn default() -> Self {
        Store { known: HashMap::new(), budget: Budget::default(), round: 0, buffer: vec![0; FILE_BYTES].into() }
    }
}

/// Opens a kind of file, and says what is wrong with one.
pub(super) trait Source {
    /// Whether such files are to be had.
    fn has(&self, home: Home) -> bool;
    /// Opens one.
    fn open(&mut self, file: &File) -> Result<OwnedFd, Errno>;
    /// Where it is and what is wrong with it: one line fit to print.
    fn complaint(&self, file: &File, what: &dyn Display) -> String;
}

impl Store {
    /// Begins a walk.
    pub(super) fn begin(&mut self) {
        self.round += 1;
    }

    /// Forgets the cgroups that this walk has not seen.
    pub(super) fn sweep(&mut self) {
        let (round, budget) = (self.round, &mut self.budget);
        self.known.retain(|_, known| {
            let lives = known.round == round;
            if !lives {
                known.files.close(budget);
            }
            lives
        });
    }

    /// What a cgroup's files say, or said when they were read last, and what of them could not be read. `usage` is the CPU time that the cgroup
    /// has used, `inherited` what its ancestors let it have.
    pub(super) fn read(
        &mut self,
        key: Key,
        usage: Option<u64>,
        inherited: Thresholds,
        source: &mut impl Source,
    ) -> (Arc<Resources>, Option<&Unreadable>) {
        let round = self.round;
        let mut born = false;
        let known = self.known.entry(key).or_insert_with(|| {
            born = true;
            Known::default()
        });
        if !born && known.round == round {
            // The root of a second hierarchy: the first one's stands for both.
            return (Arc::clone(&known.resources), None);
        }
        known.round = round;
        // Not all at the same time.
        let is_turn = (round + key.number()).is_multiple_of(SELDOM);
        let why = match () {
            () if born => Some(Why::Born),
            () if usage != known.usage || known.moved => Some(Why::Works),
            () => is_turn.then_some(Why::Turn),
        };
        match why {
            Some(why) => {
                known.usage = usage;
                let reader = Reader { source, budget: &mut self.budget, buffer: &mut self.buffer };
                known.refresh(why, is_turn || born, inherited, reader);
            }
            None if Thresholds::of(&known.resources) != known.own.tighter(inherited) => known.limit(inherited),
            None => {}
        }
        (Arc::clone(&known.resources), known.unreadable.as_deref())
    }
}

/// Why a cgroup's files are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Why {
    /// Nothing is known of it.
    Born,
    /// Something may have moved.
    Works,
    /// It was not looked after for long.
    Turn,
}

/// What it takes to read files.
struct Reader<'a, S> {
    source: &'a mut S,
    budget: &'a mut Budget,
    buffer: &'a mut [u8],
}

impl Known {
    /// Reads the files; with `seldom` also those that are read at every tenth reading only.
    fn refresh(&mut self, why: Why, seldom: bool, inherited: Thresholds, mut reader: Reader<'_, impl Source>) {
        if seldom {
            self.missing = 0;
        }
        if why == Why::Turn {
            self.files.close(reader.budget);
        }
        let had_trouble = self.unreadable.take().is_some();
        let mut resources = Resources::default();
        self.read(&mut resources, &mut reader, why, |price| price == Price::Cheap);
        self.own = Thresholds::of(&resources);
        let thresholds = self.own.tighter(inherited);
        let before = &self.resources.memory;
        resources.memory = Memory {
            limit: thresholds.limit,
            high: thresholds.high,
            stat: before.stat,
            nodes: Arc::clone(&before.nodes),
            ..resources.memory
        };
        if why != Why::Turn || had_trouble || resources != *self.resources {
            resources.memory.stat = MemoryStat::default();
            if seldom {
                resources.memory.nodes = Arc::default();
            }
            self.read(&mut resources, &mut reader, why, |price| price == Price::Dear || (price == Price::Dearest && seldom));
        }
        self.moved = resources != *self.resources;
        if self.moved {
            self.resources = Arc::new(resources);
        }
    }

    /// Reads the files of some prices. Those of a cgroup that works stay open.
    fn read(
        &mut self,
        resources: &mut Resources,
        reader: &mut Reader<'_, impl Source>,
        why: Why,
        wanted: impl Fn(Price) -> bool,
    ) {
        let Reader { source, budget, buffer } = reader;
        for (number, file) in FILES.iter().enumerate() {
            if !wanted(file.price) || !source.has(file.home) || self.missing & 1 << number != 0 {
                continue;
            }
            let keep = why == Why::Works && file.price != Price::Dearest;
            let complaint: &dyn Display = match self.files.read(budget, number, keep, || source.open(file), buffer) {
                Ok(length) => {
                    match text(&buffer[..length], length == buffer.len()).and_then(|text| (file.parse)(text, resources)) {
                        Ok(()) => continue,
                        Err(malformed) => &{ malformed },
                    }
                }
                // Where pressure is not counted, its files can be opened and not read.
                Err(Errno::NOENT | Errno::OPNOTSUPP) => {
                    self.missing |= 1 << number;
                    continue;
                }
                // It has ended.
                Err(Errno::NODEV) => continue,
                Err(errno) => &{ errno },
            };
            let first = || Box::new(Unreadable { count: 0, first: source.complaint(file, complaint) });
            self.unreadable.get_or_insert_with(first).count += 1;
        }
    }

    /// Takes on what the ancestors' limits are now.
    fn limit(&mut self, inherited: Thresholds) {
        let Thresholds { limit, high } = self.own.tighter(inherited);
        let memory = &mut Arc::make_mut(&mut self.resources).memory;
        (memory.limit, memory.high) = (limit, high);
    }
}

/// What was read as text; of what is only the beginning of a file, the whole lines.
fn text(bytes: &[u8], is_cut: bool) -> Result<&str, Malformed> {
    let end = if is_cut { bytes.iter().rposition(|byte| *byte == b'\n').unwrap_or(0) } else { bytes.len() };
    std::str::from_utf8(&bytes[..end]).map_err(|error| Malformed::new(error.to_string()))
}

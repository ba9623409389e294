//! Memory, pressure, I/O and settings of each cgroup, read again where something may have moved.
//!
//! There are nineteen files a cgroup, three of them dear (for `memory.stat` the kernel sums what all CPUs hold), and most cgroups do nothing most of
//! the time. So they are read again when the cgroup or one below it has run since, as the usage in `cpu.stat` tells, which has just been read,
//! knows nothing of full tables and is there without eBPF, too; and when the last reading brought news, since a task that sleeps on a disk or
//! a memory that shrinks moves numbers without any run. All others keep theirs: they are looked after in turn, and their dear files read only
//! where the cheap ones brought news. Settings change when somebody writes to a file, of which the kernel tells.

use std::fmt::Display;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::Errno;

use super::files::{Budget, Files};
use super::{Unreadable, control, memory, stat};
use crate::collect::proc::{Malformed, pressure};
use crate::model::cgroup::Resources;
use crate::model::cgroup::control::{Io, Limiting};
use crate::model::cgroup::resources::{Memory, MemoryStat};

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
    /// In a directory of the v1 hierarchy of the `cpu` controller.
    V1Cpu,
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
    /// So, and in turn only.
    Dearest,
    /// In turn, and when somebody has written to one of the cgroup's files.
    Setting,
}

/// Sets what a file tells.
type Parse = fn(&str, &mut Resources) -> Result<(), Malformed>;

const fn cheap(home: Home, name: &'static str, parse: Parse) -> File {
    File { home, name, parse, price: Price::Cheap }
}

const fn setting(home: Home, name: &'static str, parse: Parse) -> File {
    File { home, name, parse, price: Price::Setting }
}

const fn dear(home: Home, name: &'static str, price: Price, parse: Parse) -> File {
    File { home, name, parse, price }
}

/// A file's place here is its number among a cgroup's.
static FILES: [File; 28] = [
    cheap(Home::V2, "cpu.pressure", |text, to| pressure::parse(text).map(|time| to.cpu_pressure = Some(time))),
    cheap(Home::V2, "memory.pressure", |text, to| pressure::parse(text).map(|time| to.memory_pressure = Some(time))),
    cheap(Home::V2, "io.pressure", |text, to| pressure::parse(text).map(|time| to.io_pressure = Some(time))),
    cheap(Home::V2, "cpu.stat.local", control::local),
    cheap(Home::V2, "pids.current", control::pids),
    dear(Home::V2, "io.stat", Price::Dear, control::io),
    setting(Home::V2, "cpu.weight", control::weight),
    setting(Home::V2, "cpu.max.burst", control::burst),
    setting(Home::V2, "cpuset.cpus.effective", control::cpus),
    setting(Home::V2, "pids.max", control::pids_limit),
    setting(Home::V2, "pids.events", control::pids_events),
    setting(Home::V2, "cgroup.events", control::events),
    setting(Home::V2, "cgroup.type", control::kind),
    cheap(Home::V1Cpu, "cpu.stat.local", control::local),
    setting(Home::V1Cpu, "cpu.shares", control::shares),
    setting(Home::V1Cpu, "cpu.cfs_burst_us", control::burst),
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

/// What readings share.
#[derive(Debug)]
pub(super) struct Means {
    pub(super) budget: Budget,
    pub(super) buffer: Box<[u8]>,
}

/// What is known of one cgroup.
#[derive(Default, Debug)]
pub(super) struct Known {
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
    /// It was read before.
    is_read: bool,
    /// The last reading brought news.
    moved: bool,
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

impl Default for Means {
    fn default() -> Self {
        Means { budget: Budget::default(), buffer: vec![0; FILE_BYTES].into() }
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

/// What a walk knows of a cgroup when it comes to these files.
#[derive(Clone, Copy, Debug)]
pub(super) struct Visit {
    /// CPU time that it has used.
    pub(super) usage: Option<u64>,
    /// Somebody wrote to one of its files.
    pub(super) is_touched: bool,
    /// Nobody would tell if somebody did.
    pub(super) is_untold: bool,
    /// It is its turn to be looked after.
    pub(super) is_turn: bool,
    /// What its ancestors let it have.
    pub(super) inherited: Thresholds,
}

impl Known {
    /// What the files said when they were read last.
    pub(super) fn resources(&self) -> &Arc<Resources> {
        &self.resources
    }

    /// What of them could not be read.
    pub(super) fn unreadable(&self) -> Option<&Unreadable> {
        self.unreadable.as_deref()
    }

    /// The last reading brought news.
    pub(super) fn moved(&self) -> bool {
        self.moved
    }

    /// Reads the files if something may have moved.
    pub(super) fn update(&mut self, visit: Visit, means: &mut Means, source: &mut impl Source) {
        let why = match () {
            () if !self.is_read => Why::Born,
            () if visit.usage != self.usage || self.moved || visit.is_touched => Why::Works,
            () if visit.is_turn => Why::Turn,
            () => return,
        };
        self.usage = visit.usage;
        let probed = match () {
            () if visit.is_touched || visit.is_untold => std::mem::take(&mut self.missing),
            () if visit.is_turn => self.first_missing(),
            () => 0,
        };
        self.missing &= !probed;
        let reader = Reader { source, budget: &mut means.budget, buffer: &mut means.buffer };
        let seldom = visit.is_turn || why == Why::Born;
        self.refresh(why, seldom, seldom || visit.is_touched || visit.is_untold, visit.inherited, reader);
        if probed & !self.missing != 0 {
            // There are more than there were.
            self.missing = 0;
        }
        self.is_read = true;
    }

    /// The first file of each home that does not exist, of those that are read in any case: where that comes, the others may have come, too.
    fn first_missing(&self) -> u32 {
        let is_read = |price| matches!(price, Price::Cheap | Price::Setting);
        let is_missing = |number: &usize| self.missing & 1 << number != 0 && is_read(FILES[*number].price);
        let first = |home| (0..FILES.len()).filter(is_missing).find(|number| FILES[*number].home == home);
        let homes = [Home::V2, Home::V2Memory, Home::V1Memory, Home::V1Cpu];
        homes.into_iter().filter_map(first).fold(0, |bits, number| bits | 1 << number)
    }

    /// Takes on what the ancestors' limits are now.
    pub(super) fn inherit(&mut self, inherited: Thresholds) {
        let thresholds = self.own.tighter(inherited);
        if Thresholds::of(&self.resources) != thresholds {
            let memory = &mut Arc::make_mut(&mut self.resources).memory;
            (memory.limit, memory.high) = (thresholds.limit, thresholds.high);
        }
    }

    /// Says whose limits it has.
    pub(super) fn limited_by(&mut self, limiting: Limiting) {
        if self.resources.limiting != limiting {
            Arc::make_mut(&mut self.resources).limiting = limiting;
        }
    }

    /// Its own limits of memory.
    pub(super) fn own(&self) -> Thresholds {
        self.own
    }

    /// Closes its files.
    pub(super) fn close(&mut self, budget: &mut Budget) {
        self.files.close(budget);
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
    /// Reads the files; with `seldom` also those that are read in turn only, with `set` the settings.
    fn refresh(&mut self, why: Why, seldom: bool, set: bool, inherited: Thresholds, mut reader: Reader<'_, impl Source>) {
        if why == Why::Turn {
            self.files.close(reader.budget);
        }
        let had_trouble = self.unreadable.take().is_some();
        let mut resources = Resources::default();
        if !set {
            resources.settings = self.resources.settings.clone();
        }
        self.read(&mut resources, &mut reader, why, |price| price == Price::Cheap || (price == Price::Setting && set));
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
        (resources.io, resources.limiting) = (self.resources.io, self.resources.limiting.clone());
        if why != Why::Turn || had_trouble || resources != *self.resources {
            (resources.memory.stat, resources.io) = (MemoryStat::default(), Io::default());
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
            let keep = why == Why::Works && matches!(file.price, Price::Cheap | Price::Dear);
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
}

/// What was read as text; of what is only the beginning of a file, the whole lines.
fn text(bytes: &[u8], is_cut: bool) -> Result<&str, Malformed> {
    let end = if is_cut { bytes.iter().rposition(|byte| *byte == b'\n').unwrap_or(0) } else { bytes.len() };
    std::str::from_utf8(&bytes[..end]).map_err(|error| Malformed::new(error.to_string()))
}

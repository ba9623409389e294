//! Loads the checked-in object for the running kernel, attaches its programs and maps their memory.

use std::borrow::Cow;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aya::maps::Map;
use aya::{Btf, Ebpf, EbpfLoader, include_bytes_aligned};
use aya_log::EbpfLogger;
use log::Log;
use observer_common::memory::MemoryOffsets;
use observer_common::pod;
use observer_common::sched::{CpuState, Offsets};
use observer_common::tasks::TaskOffsets;
use observer_common::tcp::{self, TcpOffsets};

use super::attached::Attached;
use super::btf::Missing;
use super::memory::Memory;
use super::offsets::{self, Lacking, OffsetsError};
use super::operands::{self, Numbers};
use super::sched::{Tables, delay_places, moved_places, sibling};
use super::tasks::Tasks;
use super::tcp::Tcp;
use crate::collect::Roots;
use crate::model::{Placement, Sched};
use crate::sys::Mapping;

/// The checked-in object (`cargo xtask ebpf` builds it).
static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/bpf/observer.bpf.o"));

/// Names another object to load instead: for those who change the programs, and for CI with another compiler.
pub const OBJECT_VARIABLE: &str = "OBSERVER_BPF_OBJECT";

/// Why the programs do not run. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// No BTF.
    #[error("cannot read {}: {source}; the kernel needs CONFIG_DEBUG_INFO_BTF", path.display())]
    NoBtf {
        /// Where it should be.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The kernel lacks a field.
    #[error(transparent)]
    Offsets(#[from] OffsetsError),
    /// The kernel lacks a field of the task iterator's.
    #[error("the kernel's BTF says: {0}")]
    NoTasks(Missing),
    /// The kernel lacks what migrations need.
    #[error("the kernel's BTF says: {0}; without it nobody tells where tasks ran before and why they are moved")]
    NoMoves(Missing),
    /// The kernel lacks a tracepoint of the memory family's.
    #[error("the kernel's BTF says: {0}; without it nobody counts page allocations")]
    NoMemory(Missing),
    /// The kernel lacks what the TCP family needs.
    #[error("the kernel's BTF says: {0}")]
    NoTcp(Missing),
    /// The object in [`OBJECT_VARIABLE`].
    #[error("cannot read {} (named by {OBJECT_VARIABLE}): {source}", path.display())]
    Object {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Privileges.
    #[error("not permitted to load programs; needs CAP_BPF and CAP_PERFMON (or root): {0}")]
    NotPermitted(String),
    /// Everything else that loading can say.
    #[error("{doing}: {said}")]
    Refused {
        /// What was tried.
        doing: &'static str,
        /// What aya and the kernel said, without the verifier's log (which goes to the debug log).
        said: String,
    },
    /// Mapping the tables.
    #[error("cannot map the tables of the scheduler hook: {0}; the kernel needs mappable arrays (5.5 and later)")]
    Map(#[source] std::io::Error),
}

/// The programs at work. Dropping it detaches them.
pub struct Programs {
    /// Keeps programs, links and maps alive.
    ebpf: Ebpf,
    logger: Option<EbpfLogger<&'static dyn Log>>,
    /// The scheduler family's program.
    hook: Attached,
    /// The scheduler family's tables.
    pub sched: Tables,
    /// Its program that follows migrations, or why there is none.
    moves: Result<Attached, LoadError>,
    /// The task iterator, or why there is none.
    pub tasks: Result<Tasks, LoadError>,
    /// The memory family, or why there is none.
    pub memory: Result<Memory, LoadError>,
    /// The TCP family, or why there is none.
    pub tcp: Result<Tcp, LoadError>,
    /// What this kernel lacks, each with what is lost.
    pub lacking: Vec<Lacking>,
    /// Nothing yet, of what this kernel accounts.
    pub zero: Sched,
}

impl std::fmt::Debug for Programs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Programs").field("lacking", &self.lacking).finish_non_exhaustive()
    }
}

impl Programs {
    /// Loads and attaches everything; `cpus` is one more than the highest CPU number in use.
    ///
    /// # Errors
    ///
    /// What stands in the way, and what to do about it.
    pub fn load(roots: &Roots, cpus: u32) -> Result<Programs, LoadError> {
        Programs::load_with(roots, cpus, &[], |_| ())
    }

    /// As [`Programs::load`], for CPUs of which it is known where they are in the machine
    /// ([`words`](crate::model::topology::words)), on a kernel that would have its fields elsewhere: a test lets one clock stand for another that no kernel at
    /// hand keeps.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn load_with(
        roots: &Roots,
        cpus: u32,
        places: &[(u32, u64)],
        adapt: impl FnOnce(&mut Offsets),
    ) -> Result<Programs, LoadError> {
        let path = roots.sys.join("kernel/btf/vmlinux");
        let bytes = std::fs::read(&path).map_err(|source| LoadError::NoBtf { path: path.clone(), source })?;
        let mut resolved = offsets::resolve(&bytes)?;
        adapt(&mut resolved.offsets);
        resolved.offsets.delays_mask = u64::from(delay_places(cpus) - 1);
        let has_siblings = places.iter().any(|(cpu, _)| sibling(places, *cpu).is_some());
        resolved.offsets.has_siblings = u64::from(has_siblings);
        resolved.offsets.moved_mask = u64::from(moved_places(cpus) - 1);
        let btf = Btf::parse(&bytes, aya::Endianness::default()).map_err(|error| refused("cannot read BTF", &error))?;
        drop(bytes);
        let task_offsets: TaskOffsets = resolved.tasks.clone().unwrap_or(pod::zeroed());
        let memory_offsets: MemoryOffsets = resolved.memory.clone().unwrap_or(pod::zeroed());
        let tcp_offsets: TcpOffsets = resolved.tcp.clone().unwrap_or(pod::zeroed());
        let mut object = object()?.into_owned();
        let numbers = [
            Numbers::of(Offsets::PLACEHOLDER, &resolved.offsets),
            Numbers::of(TaskOffsets::PLACEHOLDER, &task_offsets),
            Numbers::of(MemoryOffsets::PLACEHOLDER, &memory_offsets),
            Numbers::of(TcpOffsets::PLACEHOLDER, &tcp_offsets),
        ];
        operands::set(&mut object, &numbers).map_err(|error| refused("cannot use the object", &error))?;
        let level = log_level();
        let mut ebpf = EbpfLoader::new()
            .btf(Some(&btf))
            .override_global(aya_log::LEVEL, &level, false)
            .map_max_entries("CPUS", cpus)
            .map_max_entries("DELAYS", delay_places(cpus))
            .map_max_entries("MOVED", moved_places(cpus))
            .map_max_entries("FLOWS", if resolved.tcp.is_ok() { tcp::FLOWS } else { 1 })
            .load(&object)
            .map_err(|error| refused("cannot create the maps", &error))?;
        let logger = EbpfLogger::init(&mut ebpf).inspect_err(|error| tracing::debug!(%error, "no log from the programs")).ok();

        let mapping = match ebpf.map("CPUS") {
            Some(Map::Array(map)) => {
                Mapping::of_map(map.fd().as_fd(), cpus as usize * size_of::<CpuState>()).map_err(LoadError::Map)?
            }
            _ => return Err(missing("CPUS")),
        };
        let sched = Tables::new(mapping, cpus);
        sched.place(places);
        let hook = Attached::new(&mut ebpf, &btf, &roots.proc, "sched_switch", "sched_switch")?;
        let moves = match &resolved.moves {
            Ok(()) => Attached::new(&mut ebpf, &btf, &roots.proc, "sched_migrate_task", "sched_migrate_task"),
            Err(missing) => Err(LoadError::NoMoves(missing.clone())),
        };
        let mut zero = Sched::zero(
            resolved.offsets.rq_steal != 0,
            resolved.offsets.rq_interrupt != 0,
            resolved.offsets.cfs_rq_throttled != 0,
        );
        let tasks = match &resolved.tasks {
            Ok(offsets) => Tasks::attach(&mut ebpf, &btf, offsets),
            Err(missing) => Err(LoadError::NoTasks(missing.clone())),
        };
        let memory = match &resolved.memory {
            Ok(offsets) => Memory::attach(&mut ebpf, &btf, offsets, &roots.proc),
            Err(missing) => Err(LoadError::NoMemory(missing.clone())),
        };
        zero.shared = has_siblings.then_some(0);
        zero.nodes = places.iter().any(|(_, place)| *place != 0).then(Default::default);
        zero.placement = moves.as_ref().ok().map(|_| Placement::default());
        zero.used = memory.as_ref().ok().map(Memory::zero);
        let tcp = match &resolved.tcp {
            Ok(offsets) => Tcp::attach(&mut ebpf, &btf, offsets, &roots.proc),
            Err(missing) => Err(LoadError::NoTcp(missing.clone())),
        };
        let programs = Programs { ebpf, logger, hook, sched, moves, tasks, memory, tcp, lacking: resolved.lacking, zero };
        tracing::debug!(verified = programs.verified(), "the scheduler hook is attached");
        Ok(programs)
    }

    /// Takes all programs off their tracepoints. They stay loaded, and their maps keep what was counted: for who compares with and without.
    ///
    /// # Errors
    ///
    /// What aya and the kernel say.
    pub fn pause(&mut self) -> Result<(), LoadError> {
        self.each(Attached::pause)
    }

    /// Puts them back.
    ///
    /// # Errors
    ///
    /// What aya and the kernel say.
    pub fn resume(&mut self) -> Result<(), LoadError> {
        self.each(Attached::resume)
    }

    fn each(&mut self, act: impl Fn(&mut Attached, &mut Ebpf) -> Result<(), LoadError>) -> Result<(), LoadError> {
        let Programs { ebpf, hook, moves, memory, tcp, .. } = self;
        let memory = memory.iter_mut().flat_map(|memory| &mut memory.programs);
        let tcp = tcp.iter_mut().flat_map(|tcp| &mut tcp.programs);
        std::iter::once(hook).chain(moves).chain(memory).chain(tcp).try_for_each(|program| act(program, ebpf))
    }

    /// Why migrations are not followed, if they are not.
    pub fn moves_off(&self) -> Option<&LoadError> {
        self.moves.as_ref().err()
    }

    /// How often a program ran and for how long, as the kernel counts while its statistics are on.
    ///
    /// # Errors
    ///
    /// What the kernel says to the question.
    pub fn counted(&self, program: &str) -> Result<(u64, Duration), LoadError> {
        let program = self.ebpf.program(program).ok_or_else(|| missing(program))?;
        let info = program.info().map_err(|error| refused("cannot ask for statistics", &error))?;
        Ok((info.run_count(), info.run_time()))
    }

    /// How many instructions the verifier walked to prove the scheduler hook safe: most of the time of loading. `None` where the kernel
    /// does not tell (before 5.16).
    pub fn verified(&self) -> Option<u32> {
        self.ebpf.program("sched_switch")?.info().ok()?.verified_instruction_count()
    }

    /// Hands what the programs logged to the daemon's log.
    pub fn flush_log(&mut self) {
        if let Some(logger) = &mut self.logger {
            logger.flush();
        }
    }
}

/// The object to load: the checked-in one, or what [`OBJECT_VARIABLE`] names.
///
/// # Errors
///
/// When that cannot be read.
pub fn object() -> Result<Cow<'static, [u8]>, LoadError> {
    let Some(path) = std::env::var_os(OBJECT_VARIABLE) else { return Ok(Cow::Borrowed(OBJECT)) };
    let path = Path::new(&path);
    tracing::info!(path = %path.display(), "loading another object");
    std::fs::read(path).map(Cow::Owned).map_err(|source| LoadError::Object { path: path.into(), source })
}

/// The programs log no more than the daemon's own log shows.
fn log_level() -> u8 {
    use tracing::level_filters::LevelFilter;
    match LevelFilter::current() {
        LevelFilter::OFF => 0,
        LevelFilter::ERROR => aya_log::Level::Error as u8,
        LevelFilter::WARN => aya_log::Level::Warn as u8,
        LevelFilter::INFO => aya_log::Level::Info as u8,
        LevelFilter::DEBUG => aya_log::Level::Debug as u8,
        LevelFilter::TRACE => aya_log::Level::Trace as u8,
    }
}

pub(super) fn missing(what: &str) -> LoadError {
    LoadError::Refused { doing: "cannot use the object", said: format!("it has no {what}") }
}

/// An error as one line: the chain of causes, of the verifier's log only the sentence that refuses. EPERM is about privileges, EACCES
/// about the program.
pub(super) fn refused(doing: &'static str, error: &(dyn std::error::Error + 'static)) -> LoadError {
    let mut said: Vec<String> = Vec::new();
    let mut not_permitted = false;
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            not_permitted |= io.raw_os_error() == Some(libc::EPERM);
        }
        let text = error.to_string();
        if text.lines().nth(1).is_some() {
            tracing::debug!(%text, "the kernel said");
        }
        let statistics = |line: &str| {
            ["processed ", "insns processed", "verification time", "stack depth"].iter().any(|start| line.starts_with(start))
        };
        let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty() && !statistics(line)).collect();
        let first = lines.first().map_or("", |line| line.split(". Verifier output").next().unwrap_or(line));
        for line in [Some(first), lines.get(1..).and_then(<[&str]>::last).copied()].into_iter().flatten() {
            if !said.iter().any(|before| before.contains(line)) {
                said.push(line.trim().to_owned());
            }
        }
        cause = error.source();
    }
    let said = said.join(": ");
    if not_permitted { LoadError::NotPermitted(said) } else { LoadError::Refused { doing, said } }
}

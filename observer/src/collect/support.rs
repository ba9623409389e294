//! What this machine and these privileges allow: facts are read and loading is tried, then a pure function decides. `observer doctor`
//! shows the result.

mod decide;
pub mod scheduler;
mod settings;

use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::process::{Resource, getrlimit};

use super::bpf::loader::{LoadError, Programs};
use super::bpf::offsets::{self, Lacking};
use super::bpf::sched::BYTES_PER_CPU;
use super::bpf::tcp;
use super::cgroup::Cgroups;
use super::proc::topology::{self, Machine};
use super::proc::{Error, Proc};
use super::{Roots, tasks};
use crate::model::topology::Shape;
use crate::sys;
pub use decide::decide;
pub use scheduler::Scheduler;
pub use settings::settings;

/// What was found. `None` is what could not be read; a `String` in place of an answer is the sentence that says why there is none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    /// Effective user (`Uid:` in `/proc/self/status`).
    pub euid: Option<u32>,
    /// Effective capabilities (`CapEff:` there), a bit for each.
    pub capabilities: Option<u64>,
    /// Whether the capabilities are those of a user namespace, where they allow no BPF (`/proc/self/uid_map`).
    pub user_namespace: bool,
    /// The soft limit of locked memory in bytes, `None` without one. Kernels before 5.11 count maps.
    pub memlock: Option<u64>,
    /// What lockdown forbids reading kernel memory, if any (`confidentiality` in `/sys/kernel/security/lockdown`).
    pub confidential: bool,
    /// Whether `membarrier(2)` works. Nothing is lost without: each table is then read twice.
    pub membarrier: bool,
    /// `/proc/stat`: nanoseconds stolen by the hypervisor since boot, on all CPUs, where the kernel has that field.
    pub stolen: Result<Option<u64>, String>,
    /// What lies below the cgroup root.
    pub cgroups: Result<Hierarchies, String>,
    /// The kernel's description of its types.
    pub types: Types,
    /// How many nodes, caches and cores there are, and what of them the kernel does not tell.
    pub topology: Result<(Shape, Vec<String>), String>,
    /// What may make the scheduler unusual.
    pub scheduler: Scheduler,
    /// CPUs that need a table: one more than the highest number that is on.
    pub cpus: Result<u32, String>,
    /// Kernel memory of one CPU's tables, in bytes.
    pub bytes_per_cpu: usize,
    /// Kernel memory of the map of TCP flows, in bytes.
    pub bytes_of_flows: usize,
    /// Whether the programs can be loaded and attached.
    pub attempt: Attempt,
    /// Where the programs work, whether the task iterator does, too: how many threads it told, or why not.
    pub tasks: Result<usize, String>,
    /// What is missing of following migrations, or why they are not followed.
    pub migrations: Result<Vec<String>, String>,
    /// Where the programs work, what is missing of the memory family, or why there is none of it.
    pub allocations: Result<Vec<String>, String>,
    /// Where the programs work, whether those of TCP do, too, and what they lack, or why not.
    pub tcp: Result<Vec<String>, String>,
    /// The roots, for the sentences.
    pub roots: Roots,
}

/// The hierarchies whose cgroups are shown.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Hierarchies {
    /// Where the v2 hierarchy is mounted.
    pub v2: Option<PathBuf>,
    /// Where the v1 `cpu` hierarchy is mounted.
    pub cpu: Option<PathBuf>,
    /// Number of cgroups in both.
    pub count: usize,
    /// Whether what is mounted is only a part of the tree.
    pub namespaced: bool,
    /// What exists and could not be read.
    pub unreadable: Option<String>,
}

/// What the kernel's BTF gave for the scheduler family.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Types {
    /// There is none: what the system said to opening it.
    Unreadable(String),
    /// It is damaged, or lacks a field that the family cannot do without.
    Unusable(String),
    /// All that is needed, and what else is missing.
    Resolved(Vec<Lacking>),
}

/// What came of loading and attaching the programs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Attempt {
    /// Nobody wanted to know: why.
    NotTried(&'static str),
    /// It worked, in so many milliseconds; they are detached again.
    Worked(u128),
    /// The kernel did not permit it.
    NotPermitted(String),
    /// It failed in another way.
    Failed(String),
}

/// Reads the facts below the roots; with `bpf`, loads and attaches the programs for a moment.
pub fn read(roots: &Roots, bpf: bool) -> Facts {
    let status = std::fs::read_to_string(roots.proc.join("self/status")).unwrap_or_default();
    let uid_map = std::fs::read_to_string(roots.proc.join("self/uid_map")).unwrap_or_default();
    let lockdown = std::fs::read_to_string(roots.sys.join("kernel/security/lockdown")).unwrap_or_default();
    let machine = topology::read(&roots.sys);
    let cpus = cpus(&roots.sys, &machine);
    let cgroups = hierarchies(&roots.cgroup);
    let v2 = cgroups.as_ref().ok().and_then(|found| found.v2.as_deref());
    let Tried { attempt, tasks, migrations, allocations, tcp } =
        if bpf { attempt(roots, &cpus) } else { Tried::failed(Attempt::NotTried("eBPF is switched off (--no-bpf)")) };
    Facts {
        euid: field(&status, "Uid:").and_then(|ids| ids.split_whitespace().nth(1)?.parse().ok()),
        capabilities: field(&status, "CapEff:").and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()),
        user_namespace: is_user_namespace(&uid_map),
        memlock: getrlimit(Resource::Memlock).current,
        confidential: lockdown.contains("[confidentiality]"),
        membarrier: sys::membarrier().is_ok(),
        stolen: stolen(roots),
        scheduler: scheduler::read(roots, machine.as_ref().ok(), v2),
        topology: machine.as_ref().map(|machine| (machine.shape(), machine.lacking())).map_err(ToString::to_string),
        cgroups,
        types: types(&roots.sys.join("kernel/btf/vmlinux")),
        attempt,
        tasks,
        migrations,
        allocations,
        tcp,
        cpus,
        bytes_per_cpu: BYTES_PER_CPU,
        bytes_of_flows: tcp::BYTES,
        roots: roots.clone(),
    }
}

fn stolen(roots: &Roots) -> Result<Option<u64>, String> {
    let stat = Proc::new(roots).stat().map_err(|error| error.to_string())?;
    Ok(stat.cpus.iter().map(|(_, time)| time.steal).sum())
}

fn hierarchies(root: &Path) -> Result<Hierarchies, String> {
    let mut cgroups = Cgroups::open(root).map_err(|error| error.to_string())?;
    let listing = cgroups.read_hastily().map_err(|error| error.to_string())?;
    let layout = cgroups.layout();
    Ok(Hierarchies {
        v2: layout.v2.clone(),
        cpu: layout.cpu.clone(),
        count: listing.groups.len(),
        namespaced: listing.namespaced,
        unreadable: listing.unreadable.map(|unreadable| unreadable.to_string()),
    })
}

fn types(path: &Path) -> Types {
    match std::fs::read(path) {
        Err(error) => Types::Unreadable(format!("cannot read {}: {error}", path.display())),
        Ok(bytes) => offsets::resolve(&bytes)
            .map_or_else(|error| Types::Unusable(error.to_string()), |resolved| Types::Resolved(resolved.lacking)),
    }
}

fn cpus(sys: &Path, machine: &Result<Machine, Error>) -> Result<u32, String> {
    let online = machine.as_ref().map_err(ToString::to_string)?.online.as_ref();
    let highest = online.and_then(|numbers| numbers.iter().max());
    highest.map(|highest| highest + 1).ok_or_else(|| format!("{} tells none", sys.join("devices/system/cpu/online").display()))
}

/// What came of loading and attaching, and of the families that may fail alone.
struct Tried {
    attempt: Attempt,
    tasks: Result<usize, String>,
    migrations: Result<Vec<String>, String>,
    allocations: Result<Vec<String>, String>,
    tcp: Result<Vec<String>, String>,
}

impl Tried {
    fn failed(attempt: Attempt) -> Tried {
        let not_tried = || "not tried".to_owned();
        Tried {
            attempt,
            tasks: Err(not_tried()),
            migrations: Err(not_tried()),
            allocations: Err(not_tried()),
            tcp: Err(not_tried()),
        }
    }
}

/// Loads and attaches everything, and reads the task iterator.
fn attempt(roots: &Roots, cpus: &Result<u32, String>) -> Tried {
    let cpus = match cpus {
        Ok(cpus) => *cpus,
        Err(why) => return Tried::failed(Attempt::Failed(format!("cannot tell the CPUs: {why}"))),
    };
    let began = Instant::now();
    match Programs::load(roots, cpus) {
        Ok(mut programs) => Tried {
            attempt: Attempt::Worked(began.elapsed().as_millis()),
            tasks: threads(roots, &mut programs),
            migrations: programs.moves_off().map_or(Ok(Vec::new()), |error| Err(error.to_string())),
            tcp: programs.tcp.as_ref().map(|tcp| tcp.lacking().to_vec()).map_err(ToString::to_string),
            allocations: programs.memory.map(|memory| memory.lacking).map_err(|error| error.to_string()),
        },
        Err(error @ LoadError::NotPermitted(_)) => Tried::failed(Attempt::NotPermitted(error.to_string())),
        Err(error) => Tried::failed(Attempt::Failed(error.to_string())),
    }
}

fn threads(roots: &Roots, programs: &mut Programs) -> Result<usize, String> {
    let tasks = programs.tasks.as_mut().map_err(|error| error.to_string())?;
    tasks::in_initial_namespace(roots)?;
    tasks.read().map(<[_]>::len).map_err(|error| error.to_string())
}

/// The first namespace maps every user to itself.
fn is_user_namespace(uid_map: &str) -> bool {
    let numbers: Vec<&str> = uid_map.split_whitespace().collect();
    !numbers.is_empty() && numbers != ["0", "0", "4294967295"]
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_of_a_small_tree() {
        let tree = tempfile::tempdir().unwrap();
        let root = |name: &str| tree.path().join(name);
        let write = |path: &str, text: &str| {
            std::fs::create_dir_all(root(path).parent().unwrap()).unwrap();
            std::fs::write(root(path), text).unwrap();
        };
        let roots = Roots { proc: root("proc"), sys: root("sys"), cgroup: root("cgroup"), ..Roots::default() };
        let nothing = read(&roots, false);
        assert!(nothing.stolen.is_err() && nothing.cgroups.is_err() && nothing.cpus.is_err(), "{nothing:?}");
        assert!(matches!(&nothing.types, Types::Unreadable(why) if why.contains("kernel/btf/vmlinux")), "{nothing:?}");
        assert!(matches!(nothing.attempt, Attempt::NotTried(_)) && nothing.capabilities.is_none());
        assert!(matches!(read(&roots, true).attempt, Attempt::Failed(why) if why.contains("devices/system/cpu")));

        write("proc/self/status", "Name:\tx\nUid:\t1000\t1001\t1000\t1000\nCapEff:\t000000c000000000\n");
        write("proc/self/uid_map", "         0       1000          1\n");
        write("proc/stat", "cpu  0 0 0 0 0 0 0 150\ncpu0 0 0 0 0 0 0 0 100\ncpu1 0 0 0 0 0 0 0 50\n");
        write("sys/kernel/security/lockdown", "none integrity [confidentiality]\n");
        write("sys/kernel/btf/vmlinux", "no BTF");
        write("sys/devices/system/cpu/online", "0-1,3\n");
        write("sys/devices/system/cpu/isolated", "3\n");
        write("cgroup/unified/cpu.stat", "core_sched.force_idle_usec 9\n");
        write("cgroup/cpu/cpu.shares", "1024\n");
        write("cgroup/unified/cgroup.controllers", "");
        let facts = read(&roots, false);
        assert_eq!((facts.euid, facts.capabilities), (Some(1001), Some(3 << 38)));
        assert!(facts.user_namespace && facts.confidential);
        assert!(matches!(facts.types, Types::Unusable(_)), "{:?}", facts.types);
        assert!(facts.stolen.unwrap().unwrap() > 0);
        assert_eq!(facts.cpus, Ok(4));
        assert_eq!(facts.topology.unwrap().0.cpus, 3);
        assert_eq!(facts.scheduler.isolated.as_deref(), Some("3"));
        assert_eq!(facts.scheduler.force_idle, Some(9));
        let cgroups = facts.cgroups.unwrap();
        assert_eq!((cgroups.v2, cgroups.cpu), (Some(root("cgroup/unified")), Some(root("cgroup/cpu"))));
    }

    #[test]
    fn the_first_user_namespace() {
        assert!(!is_user_namespace("         0          0 4294967295\n"));
        assert!(!is_user_namespace(""), "an old kernel, or no /proc");
        assert!(is_user_namespace("0 100000 65536\n"));
    }
}

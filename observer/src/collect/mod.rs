//! Fills a [`Sample`]: one reader for each file and each family of programs; none knows another, and each fails alone.

pub mod bpf;
pub mod cgroup;
mod hook;
mod imbalance;
mod names;
pub mod proc;
pub mod roots;
pub mod support;
pub mod tasks;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use observer_common::sched::{Key, Offsets};
use observer_common::tasks::Task;

use self::cgroup::{Cgroups, Listing};
use self::hook::Hook;
use self::names::Names;
use self::proc::topology::{self, Machine};
use self::proc::{Proc, numa};
use self::tasks::TaskSource;
pub use roots::Roots;

use crate::model::cgroup::CpuStat;
use crate::model::cpu::{Starved, Time};
use crate::model::tcp::{KernelTcp, Who};
use crate::model::{Allocator, Cgroup, Cpu, Host, NetNs, Sample, Source, State, TcpFlow, TcpTotals};

/// All sources together.
#[derive(Debug)]
pub struct Collector {
    roots: Roots,
    began: Instant,
    start: SystemTime,
    proc: Proc,
    machine: Option<Machine>,
    /// The CPUs that were on when the machine's topology was read, ascending.
    placed: Vec<u32>,
    cgroups: Option<Cgroups>,
    names: Names,
    hook: Hook,
    /// Commands whose processes are to be counted apart.
    watched: Vec<String>,
    tasks: TaskSource,
    /// Somebody waits for the first sample, and more come soon.
    is_hasty: bool,
}

impl Collector {
    /// Readers of files below the roots. Nothing is opened yet, and nothing can fail: what cannot be read becomes a row of health.
    pub fn new(roots: Roots) -> Collector {
        Collector {
            proc: Proc::new(&roots),
            tasks: TaskSource::new(&roots),
            names: Names::new(&roots),
            roots,
            began: Instant::now(),
            start: SystemTime::now(),
            machine: None,
            placed: Vec::new(),
            cgroups: None,
            hook: Hook::off("the programs are not attached (--no-bpf)"),
            watched: Vec::new(),
            is_hasty: false,
        }
    }

    /// Asks the kubelet, too, for the names of containers and what they are there for, at its URL: `http://host:port`.
    pub fn ask_kubelet(&mut self, url: &str) {
        self.names.ask(url);
    }

    /// Loads and attaches the programs; what does not work becomes a row of health. Counting begins here.
    pub fn attach(&mut self) {
        self.attach_with(|_| ());
    }

    /// As [`Collector::attach`], with other offsets than the kernel's BTF gave: for tests.
    pub fn attach_with(&mut self, adapt: impl FnOnce(&mut Offsets)) {
        if self.machine.is_none() {
            self.machine = topology::read(&self.roots.sys).ok();
            self.placed = self.machine.as_ref().and_then(|machine| machine.online.clone()).unwrap_or_default();
        }
        let online = self.machine.as_ref().and_then(|machine| machine.online.as_deref());
        self.is_hasty = false;
        self.hook = Hook::attach(&self.roots, online.unwrap_or_default(), &self.places(), adapt);
        self.hook.watch(&self.watched);
        self.start = SystemTime::now();
    }

    /// Says in health that [`Collector::attach`] is about to be called; until then samples leave out what takes long.
    pub fn will_attach(&mut self) {
        self.is_hasty = true;
        self.hook = Hook::off("the programs are being attached");
    }

    /// Splits these cgroups by process, besides those that deserve it by themselves.
    pub fn focus(&mut self, keys: Vec<Key>) {
        self.hook.focus(keys);
    }

    /// Counts the processes of commands with these names, escaped, apart from now on: their cgroups are split by process.
    pub fn watch(&mut self, commands: Vec<String>) {
        self.hook.watch(&commands);
        self.watched = commands;
    }

    /// Whether there are run queues for [`Collector::poll`] to compare.
    pub fn can_poll(&self) -> bool {
        self.placed.len() > 1 && self.hook.can_poll()
    }

    /// Looks at the run queues, without a system call, for CPUs that idle while tasks wait on others. What is found stands for so much time of
    /// the interval: `observer.sched.imbalance.time` is as good as these polls are many, and it does not grow without them.
    pub fn poll(&mut self, time: Duration) {
        self.hook.poll(&self.placed, time);
    }

    /// Reads the hook's tables as on a kernel without `membarrier`: for tests.
    pub fn without_barrier(&mut self) {
        self.hook.without_barrier();
    }

    /// Every thread as the task iterator told it in the last [`Collector::collect`], ascending by thread id; empty without the iterator.
    pub fn tasks(&self) -> &[Task] {
        self.hook.records()
    }

    /// Reads everything once. The moment of the sample is that at which the hook's tables change hands.
    pub fn collect(&mut self) -> Sample {
        let mut health = Health::default();
        let time = SystemTime::now();
        let uptime = self.began.elapsed();
        let turned = Instant::now();
        self.hook.turn();
        let turning = turned.elapsed();
        // Beside the moment up to which flows are counted.
        let netstat = health.read("netstat", || self.proc.tcp());
        self.tasks.read(self.hook.tasks());
        let waited = Instant::now();
        self.hook.wait();
        let turning = turning + waited.elapsed();

        self.hook.ask_waiting(|tid| self.proc.affinity(tid).ok());
        let stat = health.read("stat", || self.proc.stat());
        let mut host = self.host(&mut health);
        let listing = self.listing(&mut health);
        let cpus = stat.as_ref().map(|stat| stat.cpus.as_slice()).unwrap_or_default();
        let numbers: Vec<u32> = cpus.iter().map(|(number, _)| *number).collect();
        self.topology(&mut health, &numbers);

        let drained = Instant::now();
        self.hook.drain(&listing);
        health.push(self.hook.source(&numbers, turning + drained.elapsed()));

        if let Some(stat) = &stat {
            host.context_switches = stat.context_switches;
            host.tasks = stat.tasks;
        }
        host.table_full = self.hook.overflows();
        host.untraced = self.hook.untraced();
        host.sched = self.hook.cgroup(Key::ROOT);
        host.imbalance = self.hook.imbalance();
        host.delay = self.hook.delay();
        host.busy = busy(cpus);
        let place = |number| self.machine.as_ref().map(|machine| machine.place(number)).unwrap_or_default();
        let cpu = |&(number, time)| Cpu {
            number,
            topology: place(number),
            time,
            sched: self.hook.cpu(number),
            depths: self.hook.depths(number),
            traffic: self.hook.traffic(number),
        };
        let cpus = cpus.iter().map(cpu).collect();
        let paths: HashMap<Key, Arc<str>> =
            listing.groups.iter().map(|group| (group.key, Arc::clone(&group.path))).chain([(Key::ROOT, "/".into())]).collect();
        let path = |key: Key| paths.get(&key).cloned();
        let contentions = self.hook.contentions(&path);
        // Beside each other, because they are compared.
        host.vmstat = health.read("vmstat", || self.proc.vmstat());
        let memory = self.memory(&mut health);
        let long_stalls = self.hook.long_stalls(&path);
        let starved = self.starved();
        let tcp_flows = self.hook.tcp_flows(&path);
        host.pages = memory.iter().find_map(|row| Some(row.counts.as_ref()?.pages()));
        host.tcp = self.tcp(&mut health, netstat);
        let netns = self.netns(&tcp_flows);
        let (processes, threads) = self.tasks.rows(&listing);
        health.push(self.tasks.source());
        if !self.is_hasty {
            self.names.read(&listing.groups, Instant::now());
        }
        health.push(self.names.source());
        let cgroups = self.rows(listing, &path);
        Sample {
            time,
            uptime,
            start: self.start,
            host,
            cpus,
            cgroups,
            objectives: Vec::new(),
            commands: self.hook.commands(),
            contentions,
            memory,
            long_stalls,
            starved,
            tcp_flows,
            netns,
            processes,
            threads,
            sources: health.sorted(),
            events: Vec::new(),
        }
    }

    fn host(&mut self, health: &mut Health) -> Host {
        Host {
            name: self.proc.host_name().unwrap_or_default(),
            load: health.read("loadavg", || self.proc.load()),
            memory: health.read("meminfo", || self.proc.memory()),
            uptime: health.read("uptime", || self.proc.uptime()),
            pressure: health.read("pressure", || self.proc.pressure()),
            ..Host::default()
        }
    }

    /// The machine's page allocator first, then its nodes.
    fn memory(&mut self, health: &mut Health) -> Vec<Allocator> {
        let (counts, source) = self.hook.memory();
        health.push(source);
        let machine = counts.map(|counts| Allocator { node: None, counts: Some(counts), locality: None, free: None });
        let locality: BTreeMap<_, _> =
            health.read("numa", || numa::read(&self.roots.sys)).unwrap_or_default().into_iter().collect();
        let mut free = health.read("buddyinfo", || self.proc.free_blocks()).unwrap_or_default();
        let nodes: BTreeSet<u32> = locality.keys().chain(free.keys()).copied().collect();
        let node = |node| Allocator {
            node: Some(node),
            counts: None,
            locality: locality.get(&node).copied(),
            free: free.remove(&node).map(Arc::new),
        };
        machine.into_iter().chain(nodes.into_iter().map(node)).collect()
    }

    /// The programs' count of all namespaces beside the kernel's of this one.
    fn tcp(&mut self, health: &mut Health, kernel: Option<KernelTcp>) -> TcpTotals {
        let (totals, source) = self.hook.tcp();
        health.push(source);
        TcpTotals { kernel, ..totals }
    }

    /// The network namespaces of some flows, with the kernel's counters where one of the flows has a process.
    fn netns(&mut self, flows: &[TcpFlow]) -> Vec<NetNs> {
        /// Each costs two files.
        const MOST: usize = 64;
        let mut processes: HashMap<u32, u32> = HashMap::new();
        for flow in flows {
            if let (Who::Flow(flow), Some(holder)) = (flow.who, &flow.holder) {
                processes.insert(flow.netns, holder.pid);
            }
        }
        let mut asked = 0;
        let row = |(inode, resent)| {
            let process = processes.get(&inode).filter(|_| asked < MOST);
            asked += usize::from(process.is_some());
            NetNs { inode, resent, kernel: process.and_then(|pid| self.proc.tcp_of(*pid, inode)) }
        };
        self.hook.netns().into_iter().map(row).collect()
    }

    /// CPUs that tasks of real-time priority keep from ordinary ones, with what limits those.
    fn starved(&mut self) -> Vec<Starved> {
        let mut starved = self.hook.starved();
        if !starved.is_empty() {
            let limit = self.proc.real_time_share().ok();
            starved.iter_mut().for_each(|starved| starved.limit = limit);
        }
        starved
    }

    fn listing(&mut self, health: &mut Health) -> Listing {
        let ran = self.hook.ran_last();
        let listing = health.read("cgroup", || {
            if self.cgroups.is_none() {
                self.cgroups = Some(Cgroups::open(&self.roots.cgroup)?);
            }
            let Some(cgroups) = &mut self.cgroups else { return Ok(None) };
            if self.is_hasty { cgroups.read_hastily() } else { cgroups.read_knowing(ran.as_deref()) }.map(Some)
        });
        let listing = listing.flatten().unwrap_or_default();
        if let Some(unreadable) = &listing.unreadable {
            health.degrade("cgroup", unreadable.to_string());
        }
        if let Some(unwatched) = &listing.unwatched {
            health.degrade("cgroup", unwatched.clone());
        }
        if listing.namespaced {
            let sees = "sees only its own cgroup namespace; give it the host's (cgroupns: host) or its /sys/fs/cgroup";
            health.degrade("cgroup", sees.into());
        }
        listing
    }

    /// The machine's topology, read again when the CPUs are others.
    fn topology(&mut self, health: &mut Health, numbers: &[u32]) {
        if self.machine.is_none() || self.placed != numbers {
            let before = self.machine.take();
            self.machine = health.read("topology", || topology::read(&self.roots.sys));
            if let (Some(machine), Some(before)) = (&mut self.machine, &before) {
                machine.keep(before);
            }
            self.placed = numbers.to_vec();
            self.hook.place(&self.places());
        } else {
            health.push(Source { name: "topology", state: State::On, duration: None, dropped: 0 });
        }
        if let Some(problem) = self.machine.as_ref().and_then(|machine| machine.problem.as_ref()) {
            health.degrade("topology", problem.to_string());
        }
    }

    /// Where each CPU is, as the hook compares it.
    fn places(&self) -> Vec<(u32, u64)> {
        self.machine.as_ref().map(Machine::words).unwrap_or_default()
    }

    /// One row for each cgroup that is listed, and those that no listing can name.
    fn rows(&self, listing: Listing, path: &impl Fn(Key) -> Option<Arc<str>>) -> Vec<Cgroup> {
        let mut rows: Vec<Cgroup> = listing
            .groups
            .into_iter()
            .map(|found| Cgroup {
                id: found.key,
                sched: self.hook.cgroup(found.key),
                stalled: self.hook.stalls(found.key),
                longest: self.hook.longest(found.key, path),
                path: found.path,
                names: found.identity.as_ref().and_then(|identity| self.names.of(identity)),
                identity: found.identity,
                cpu: found.cpu,
                resources: found.resources,
            })
            .collect();
        for (id, name) in [(Key::ROOT, "/"), (Key::OTHER, "~other"), (Key::GONE, "~gone"), (Key::IDLE, "~idle")] {
            if let Some(sched) = self.hook.ran(id)
                && !rows.iter().any(|row| row.id == id || *row.path == *name)
            {
                rows.push(Cgroup {
                    id,
                    path: name.into(),
                    identity: None,
                    names: None,
                    cpu: CpuStat::default(),
                    resources: Arc::default(),
                    sched: Some(sched),
                    stalled: self.hook.stalls(id),
                    longest: self.hook.longest(id, path),
                });
            }
        }
        rows.sort_by_key(|row| row.id);
        rows
    }
}

/// Time of all CPUs that was not idle, as `/proc/stat` has it.
fn busy(cpus: &[(u32, Time)]) -> Option<u64> {
    let of = |time: &Time| Some(time.user? + time.nice? + time.system? + time.interrupt.unwrap_or(0) + time.steal.unwrap_or(0));
    cpus.iter().map(|(_, time)| of(time)).sum()
}

/// The rows of health of one reading.
#[derive(Default)]
struct Health {
    sources: Vec<Source>,
}

impl Health {
    /// Runs one source's reading; an error puts it off and costs nobody else anything.
    fn read<T, E: std::fmt::Display>(&mut self, name: &'static str, read: impl FnOnce() -> Result<T, E>) -> Option<T> {
        let began = Instant::now();
        let result = read();
        let duration = Some(began.elapsed());
        let (state, value) = match result {
            Ok(value) => (State::On, Some(value)),
            Err(error) => (State::Off(error.to_string()), None),
        };
        self.push(Source { name, state, duration, dropped: 0 });
        value
    }

    fn push(&mut self, source: Source) {
        self.sources.push(source);
    }

    /// Says what is missing of a source that works.
    fn degrade(&mut self, name: &str, reason: String) {
        let Some(source) = self.sources.iter_mut().find(|source| source.name == name) else { return };
        match &mut source.state {
            State::On => source.state = State::Degraded(reason),
            State::Degraded(before) => *before = format!("{before}; {reason}"),
            State::Off(_) => {}
        }
    }

    fn sorted(mut self) -> Vec<Source> {
        self.sources.sort_by_key(|source| source.name);
        self.sources
    }
}

#[cfg(test)]
mod tests {
    use observer_common::locality::{CORE, distance};

    use super::*;

    #[test]
    fn cpus_have_their_places_again_when_they_come_back() {
        let tree = tempfile::tempdir().unwrap();
        let root = |name: &str| tree.path().join(name);
        let write = |path: &str, text: &str| {
            std::fs::create_dir_all(root(path).parent().unwrap()).unwrap();
            std::fs::write(root(path), text).unwrap();
        };
        let cpu = "sys/devices/system/cpu";
        write("proc/stat", "cpu0 1 1 1 1 1 1 1 1\n");
        write(&format!("{cpu}/online"), "0\n");
        write(&format!("{cpu}/cpu0/topology/core_cpus_list"), "0\n");
        write(&format!("{cpu}/cpu0/topology/physical_package_id"), "0\n");
        write(&format!("{cpu}/cpu1/online"), "0\n");
        let mut collector =
            Collector::new(Roots { proc: root("proc"), sys: root("sys"), cgroup: root("cgroup"), host: root("host") });
        let mut cores = || collector.collect().cpus.iter().map(|cpu| cpu.topology.core).collect::<Vec<_>>();
        assert_eq!(cores(), [Some(0)]);
        write("proc/stat", "cpu0 1 1 1 1 1 1 1 1\ncpu1 1 1 1 1 1 1 1 1\n");
        write(&format!("{cpu}/online"), "0-1\n");
        write(&format!("{cpu}/cpu0/topology/core_cpus_list"), "0-1\n");
        write(&format!("{cpu}/cpu1/topology/core_cpus_list"), "0-1\n");
        write(&format!("{cpu}/cpu1/topology/physical_package_id"), "0\n");
        assert_eq!(cores(), [Some(0), Some(0)]);
        // It is on although the kernel no longer says where, as between two steps of going off.
        std::fs::remove_dir_all(root(&format!("{cpu}/cpu1/topology"))).unwrap();
        assert_eq!(cores(), [Some(0), Some(0)], "the same CPUs: not read again");
        write("proc/stat", "cpu0 1 1 1 1 1 1 1 1\n");
        write(&format!("{cpu}/cpu0/topology/core_cpus_list"), "0\n");
        assert_eq!(cores(), [Some(0)]);
        let words = collector.machine.as_ref().unwrap().words();
        assert_eq!(distance(words[0].1, words[1].1), CORE, "tasks still come from it");
    }
}

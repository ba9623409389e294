//! The scheduler hook as a source: attached or not and why, its tables turned and added up.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use observer_common::locality;
use observer_common::memory::{STALLED, Stall};
use observer_common::sched::{Key, Offsets, kind};
use observer_common::tasks::Task;

use super::Roots;
use super::bpf::accounts::Accounts;
use super::bpf::blame::{self, Blame};
use super::bpf::commands::Commands;
use super::bpf::flows::Flows;
use super::bpf::focus::{Focus, Seen};
use super::bpf::loader::Programs;
use super::bpf::memory;
use super::bpf::pending;
use super::bpf::sched::{Entry, Tables};
use super::bpf::starved;
use super::bpf::tasks::Tasks;
use super::bpf::tcp::Tcp;
use super::cgroup::{Listing, Ran};
use super::imbalance::{Balance, Queue};
use crate::model::cpu::Starved;
use crate::model::memory::StallLatency;
use crate::model::tcp::Resent;
use crate::model::text::escape_padded;
use crate::model::{
    Allocations, Command, Contention, Depths, Histogram, Imbalance, LongStall, Longest, Sched, Source, State, TcpFlow, TcpTotals,
    Traffic,
};
use crate::sys;

/// The hook, or why there is none.
#[derive(Debug)]
pub(super) enum Hook {
    On(Box<Attached>),
    Off(String),
}

#[derive(Debug)]
pub(super) struct Attached {
    programs: Programs,
    accounts: Accounts,
    blame: Blame,
    focus: Focus,
    commands: Commands,
    flows: Flows,
    /// Why the flows of the last round could not be taken.
    flows_trouble: Option<String>,
    /// How long that took.
    flows_took: Option<Duration>,
    trouble: Option<String>,
    /// When the tables were turned last, and the time before.
    turned: [Option<Instant>; 2],
    /// The cgroups that are split by process.
    focused: Vec<Key>,
    /// How long each CPU's queue was for how long.
    depths: Vec<Depths>,
    /// CPUs that idle while tasks wait on others.
    balance: Balance,
}

impl Hook {
    pub(super) fn off(reason: &str) -> Hook {
        Hook::Off(reason.into())
    }

    /// Loads and attaches for the CPUs that are on.
    pub(super) fn attach(roots: &Roots, online: &[u32], places: &[(u32, u64)], adapt: impl FnOnce(&mut Offsets)) -> Hook {
        let Some(highest) = online.iter().max() else {
            let path = roots.sys.join("devices/system/cpu/online");
            return Hook::Off(format!("cannot tell the CPUs: {} gives none", path.display()));
        };
        match Programs::load_with(roots, highest + 1, places, adapt) {
            Ok(programs) => {
                let mut accounts = Accounts::new(programs.sched.cpus(), programs.zero.clone());
                accounts.place(nodes(places));
                let (blame, focus) = (Blame::default(), Focus::default());
                let tells_failures = programs.tcp.as_ref().is_ok_and(Tcp::tells_failures);
                let netns = std::fs::metadata(roots.proc.join("self/ns/net")).ok();
                let netns = netns.and_then(|netns| u32::try_from(netns.ino()).ok());
                let flows = Flows::new(tells_failures, sys::tick(), netns);
                Hook::On(Box::new(Attached {
                    programs,
                    accounts,
                    blame,
                    focus,
                    commands: Commands::default(),
                    flows,
                    flows_trouble: None,
                    flows_took: None,
                    trouble: None,
                    turned: [None; 2],
                    focused: Vec::new(),
                    depths: Vec::new(),
                    balance: Balance::default(),
                }))
            }
            Err(error) => {
                tracing::warn!("the scheduler hook is off: {error}");
                Hook::Off(error.to_string())
            }
        }
    }

    pub(super) fn without_barrier(&mut self) {
        if let Hook::On(on) = self {
            on.programs.sched.without_barrier();
        }
    }

    /// Splits these cgroups by process, besides those that deserve it by themselves.
    pub(super) fn focus(&mut self, keys: Vec<Key>) {
        if let Hook::On(on) = self {
            on.focused = on.focus.ask(keys);
            on.programs.sched.focus(&on.focused);
        }
    }

    /// Says where CPUs are in the machine.
    pub(super) fn place(&mut self, places: &[(u32, u64)]) {
        if let Hook::On(on) = self {
            on.programs.sched.place(places);
            on.accounts.place(nodes(places));
        }
    }

    /// How long a CPU's queue was for how long.
    pub(super) fn depths(&self, cpu: u32) -> Option<Depths> {
        match self {
            Hook::On(on) => on.depths.get(cpu as usize).copied(),
            Hook::Off(_) => None,
        }
    }

    /// Whether [`Hook::poll`] finds anything.
    pub(super) fn can_poll(&self) -> bool {
        matches!(self, Hook::On(_))
    }

    /// Looks at the run queues of the CPUs that are on, ascending; what is found stands for so much time.
    pub(super) fn poll(&mut self, online: &[u32], time: Duration) {
        if let Hook::On(on) = self {
            on.poll(online, time);
        }
    }

    /// Asks those who waited at the last reading of tasks where they may run, if there is need; `affinity` reads that of a thread.
    pub(super) fn ask_waiting(&mut self, affinity: impl FnMut(u32) -> Option<Vec<u32>>) {
        if let Hook::On(on) = self {
            on.balance.read(on.programs.tasks.as_ref().map_or(&[], Tasks::records), affinity);
        }
    }

    /// CPU time that stood idle while tasks waited, by the polls so far.
    pub(super) fn imbalance(&self) -> Option<Imbalance> {
        match self {
            Hook::On(on) => Some(on.balance.total()),
            Hook::Off(_) => None,
        }
    }

    /// Migrations to a CPU and from it.
    pub(super) fn traffic(&self, cpu: u32) -> Option<Traffic> {
        match self {
            Hook::On(on) if on.programs.moves_off().is_none() && cpu < on.programs.sched.cpus() => {
                let (arrived, left) = on.programs.sched.moved(cpu);
                Some(Traffic { arrived, left })
            }
            _ => None,
        }
    }

    /// Counts the processes of commands with these names, escaped, apart from now on.
    pub(super) fn watch(&mut self, names: &[String]) {
        if let Hook::On(on) = self {
            on.commands = Commands::new(names);
        }
    }

    /// Begins a generation of the tables.
    pub(super) fn turn(&mut self) {
        if let Hook::On(on) = self {
            on.turn();
        }
    }

    /// Waits until nothing is written to the former one.
    pub(super) fn wait(&mut self) {
        if let Hook::On(on) = self
            && let Err(error) = on.programs.sched.wait()
        {
            on.trouble = Some(format!("membarrier: {error}"));
        }
    }

    /// The task iterator, or why there is none.
    pub(super) fn tasks(&mut self) -> Result<&mut Tasks, String> {
        match self {
            Hook::Off(reason) => Err(reason.clone()),
            Hook::On(on) => on.programs.tasks.as_mut().map_err(|error| error.to_string()),
        }
    }

    /// What the task iterator told when it was last read.
    pub(super) fn records(&self) -> &[Task] {
        match self {
            Hook::On(on) => on.programs.tasks.as_ref().map_or(&[], Tasks::records),
            Hook::Off(_) => &[],
        }
    }

    /// The cgroups that had tasks on a CPU between the last two turns; `None` where nobody knows of all.
    pub(super) fn ran_last(&self) -> Option<Vec<Ran>> {
        let Hook::On(on) = self else { return None };
        // Before the last turn but one nobody counted.
        on.turned[1]?;
        let left = on.programs.sched.ran()?;
        let of = |&(key, parent): &(Key, Key)| match key.kind() {
            kind::PROCESS => Ran { key: parent, parent: None },
            _ => Ran { key, parent: (parent != Key::NONE).then_some(parent) },
        };
        let processes: HashMap<Key, Key> = left.iter().filter(|(key, _)| key.kind() == kind::PROCESS).copied().collect();
        let stayed = on.programs.sched.open_runs();
        let stayed = stayed.iter().map(|run| Ran {
            key: processes.get(&run.key).copied().unwrap_or_else(|| on.blame.cgroup_of(run.key)),
            parent: None,
        });
        Some(left.iter().map(of).chain(stayed).collect())
    }

    /// Adds up the ended generation, given the cgroups as they are now.
    pub(super) fn drain(&mut self, listing: &Listing) {
        if let Hook::On(on) = self {
            on.drain(listing);
        }
    }

    /// What the page allocator did, and the memory family's row of health.
    pub(super) fn memory(&mut self) -> (Option<Arc<Allocations>>, Source) {
        const NAME: &str = "memory";
        let off = |reason: String| (None, off(NAME, reason));
        let on = match self {
            Hook::Off(reason) => return off(reason.clone()),
            Hook::On(on) => on,
        };
        let Attached { programs, accounts, .. } = &mut **on;
        let family = match &mut programs.memory {
            Ok(family) => family,
            Err(error) => return off(error.to_string()),
        };
        let began = Instant::now();
        let (counts, lost) = memory::read(&programs.sched);
        let stalls = counts.stalls.iter().map(Histogram::count).sum();
        let told = family.stalls(stalls, |key| accounts.has(key));
        let nested = family.nested().unwrap_or(0);
        let mut reasons = family.lacking.clone();
        match told {
            Ok(told) => told.iter().for_each(|(cgroup, kind, grown)| accounts.add_stalls(*cgroup, *kind, grown)),
            Err(error) => reasons.push(format!("cannot read the stalls of cgroups: {error}")),
        }
        if lost.stalls > 0 {
            reasons.push(format!("{} stalls found no room among those that go on at a time", lost.stalls));
        }
        if lost.unplaced > 0 {
            reasons.push(format!(
                "{} stalls are in no cgroup's distribution: there was no room for more cgroups than {STALLED}",
                lost.unplaced
            ));
        }
        if lost.untold > 0 {
            reasons
                .push(format!("{} long stalls are counted, but nobody can tell whose they were: the ring was full", lost.untold));
        }
        let state = if reasons.is_empty() { State::On } else { State::Degraded(reasons.join("; ")) };
        // An allocation inside an interrupted one now and then is no trouble, but it is in no count.
        (
            Some(Arc::new(counts)),
            Source {
                name: NAME,
                state,
                duration: Some(began.elapsed()),
                dropped: lost.stalls + lost.unplaced + lost.untold + nested,
            },
        )
    }

    /// Long stalls in the allocator that ended since the last sample; `path` names cgroups.
    pub(super) fn long_stalls(&mut self, path: &impl Fn(Key) -> Option<Arc<str>>) -> Vec<LongStall> {
        let Hook::On(on) = self else { return Vec::new() };
        let Ok(family) = &mut on.programs.memory else { return Vec::new() };
        let stalls = family.long_stalls().into_iter();
        stalls
            .filter_map(|stall| {
                Some(LongStall {
                    cgroup: path(Key(stall.cgroup)),
                    tid: u32::try_from(stall.tid).ok()?,
                    comm: escape_padded(&stall.comm).into(),
                    kind: Stall::of(stall.kind)?,
                    time: stall.time,
                })
            })
            .collect()
    }

    /// Its row of health, given the CPUs that are on now.
    pub(super) fn source(&self, online: &[u32], duration: Duration) -> Source {
        let (state, duration) = match self {
            Hook::Off(reason) => (State::Off(reason.clone()), None),
            Hook::On(on) => (on.state(online), Some(duration)),
        };
        let dropped = self.overflows().unwrap_or(0) + self.untraced().unwrap_or(0);
        Source { name: "sched", state, duration, dropped }
    }

    pub(super) fn cpu(&self, number: u32) -> Option<Arc<Sched>> {
        self.accounts()?.cpu(number)
    }

    pub(super) fn cgroup(&self, key: Key) -> Option<Arc<Sched>> {
        Some(self.accounts()?.cgroup(key))
    }

    /// The longest wait that ended in a cgroup or below it in the last interval; `path` names cgroups.
    pub(super) fn longest(&self, key: Key, path: &impl Fn(Key) -> Option<Arc<str>>) -> Option<Longest> {
        let Hook::On(on) = self else { return None };
        let longest = on.accounts.longest(key)?;
        let culprit = on.blame.party(longest.culprit, path).name;
        Some(Longest { time: longest.time, tid: longest.tid, comm: blame::comm(longest.comm), culprit })
    }

    /// Who waited for whom; `path` names cgroups.
    pub(super) fn contentions(&self, path: &impl Fn(Key) -> Option<Arc<str>>) -> Vec<Contention> {
        match self {
            Hook::On(on) => on.blame.rows(path),
            Hook::Off(_) => Vec::new(),
        }
    }

    /// The watched commands, where it is known who lives.
    pub(super) fn commands(&self) -> Vec<Command> {
        match self {
            Hook::On(on) => on.commands.rows(),
            Hook::Off(_) => Vec::new(),
        }
    }

    /// CPUs that tasks of real-time priority keep from ordinary ones, as far as the task iterator tells.
    pub(super) fn starved(&self) -> Vec<Starved> {
        starved::starved(self.records())
    }

    /// What TCP sent again on the whole machine, unknown while that is not counted, and the TCP family's row of health.
    pub(super) fn tcp(&self) -> (TcpTotals, Source) {
        const NAME: &str = "tcp";
        let off = |reason: String| (TcpTotals::default(), off(NAME, reason));
        let on = match self {
            Hook::Off(reason) => return off(reason.clone()),
            Hook::On(on) => on,
        };
        let tcp = match &on.programs.tcp {
            Ok(tcp) => tcp,
            Err(error) => return off(error.to_string()),
        };
        let (overflow, nested) = (tcp.overflow().events, tcp.nested());
        let mut reasons = tcp.lacking().to_vec();
        reasons.extend(on.flows_trouble.clone());
        if overflow > 0 {
            reasons.push(format!("map full {overflow} times: more flows retransmitted in one interval than it can tell apart; use a shorter interval"));
        }
        if let Some(nested) = nested.filter(|nested| *nested > 0) {
            reasons.push(format!(
                "{nested} events came while the same program was interrupted in its work; the kernel skipped them"
            ));
        }
        let state = if reasons.is_empty() { State::On } else { State::Degraded(reasons.join("; ")) };
        let (resent, tells_failures) = (Some(on.flows.sum()), tcp.tells_failures());
        let totals = TcpTotals { resent, own: on.flows.own(), tells_failures, full: Some(overflow), nested, kernel: None };
        (totals, Source { name: NAME, state, duration: on.flows_took, dropped: overflow + nested.unwrap_or(0) })
    }

    /// Flows that retransmitted; `path` names cgroups.
    pub(super) fn tcp_flows(&self, path: &impl Fn(Key) -> Option<Arc<str>>) -> Vec<TcpFlow> {
        match self {
            Hook::On(on) => {
                let tcp = on.programs.tcp.as_ref().ok();
                on.flows.rows(path, |flow| tcp?.holder(flow))
            }
            Hook::Off(_) => Vec::new(),
        }
    }

    /// Stalls in the allocator of a cgroup's tasks with its descendants', by kind; `None` while there was none.
    pub(super) fn stalls(&self, key: Key) -> Option<Arc<StallLatency>> {
        self.accounts()?.stalls(key)
    }

    /// What was sent again in each network namespace, ascending by inode.
    pub(super) fn netns(&self) -> Vec<(u32, Resent)> {
        match self {
            Hook::On(on) => on.flows.netns(),
            Hook::Off(_) => Vec::new(),
        }
    }

    pub(super) fn ran(&self, key: Key) -> Option<Arc<Sched>> {
        self.accounts()?.ran(key)
    }

    /// `run_delay` of all tasks, those that ended included, as the kernel counts it, in nanoseconds; `None` without the task iterator. Only
    /// its growth means something.
    pub(super) fn delay(&self) -> Option<u64> {
        let Hook::On(on) = self else { return None };
        let alive = pending::delay(on.programs.tasks.as_ref().ok()?.records())?;
        Some(alive + on.accounts.cgroup(Key::ROOT).exited)
    }

    /// Look-ups that found the table full.
    pub(super) fn overflows(&self) -> Option<u64> {
        match self {
            Hook::On(on) => Some(on.programs.sched.overflows()),
            Hook::Off(_) => None,
        }
    }

    /// Switches that the kernel did not report and that took something with them.
    pub(super) fn untraced(&self) -> Option<u64> {
        match self {
            Hook::On(on) => Some(on.programs.sched.lost()),
            Hook::Off(_) => None,
        }
    }

    fn accounts(&self) -> Option<&Accounts> {
        match self {
            Hook::On(on) => Some(&on.accounts),
            Hook::Off(_) => None,
        }
    }
}

impl Attached {
    fn turn(&mut self) {
        let Attached { programs, accounts, blame, commands, .. } = self;
        self.turned = [Some(Instant::now()), self.turned[0]];
        blame.begin();
        programs.sched.turn(&mut |cpu, entry| book(accounts, blame, commands, cpu, entry));
    }

    fn poll(&mut self, online: &[u32], time: Duration) {
        let Attached { programs, balance, .. } = self;
        let covered = online.partition_point(|cpu| *cpu < programs.sched.cpus());
        let queue = |cpu| {
            let (length, since) = programs.sched.queue(cpu);
            Queue { length, since }
        };
        balance.poll(&online[..covered], rustix::thread::sched_getcpu(), queue, time);
    }

    fn drain(&mut self, listing: &Listing) {
        let Attached { programs, accounts, blame, depths, commands, focused, .. } = self;
        // A listing that failed says nothing about who died.
        let listed = !listing.groups.is_empty();
        if listed {
            accounts.list(listing.groups.iter().map(|group| (group.key, group.parent)));
        }
        accounts.begin_drain();
        commands.begin();
        programs.sched.drain(&mut |cpu, entry| book(accounts, blame, commands, cpu, entry));
        measure(depths, &programs.sched);
        let runs = programs.sched.open_runs().into_iter().map(|run| (run.cpu, blame.cgroup_of(run.key), run.time));
        let tasks = programs.tasks.as_ref().ok().filter(|tasks| !tasks.records().is_empty());
        let waits = tasks.map(|tasks| pending::waits(tasks.records(), tasks.has()));
        accounts.set_open(&runs.collect::<Vec<_>>(), waits.as_ref());
        if listed {
            accounts.sweep();
            let alive =
                tasks.map(|tasks| tasks.records().iter().map(|task| Key::process(task.tgid, task.leader_start)).collect());
            // All that ran in this generation was born before the listing: what is not in it has no name any more.
            let named: HashSet<Key> = listing.groups.iter().map(|group| group.key).collect();
            blame.settle(|key| named.contains(&key), alive.as_ref());
        }
        let watched = commands.live(tasks.map_or(&[], Tasks::records), focused);
        programs.flush_log();
        self.take_flows();
        self.refocus(watched);
    }

    /// Takes the flows of the generation that ended.
    fn take_flows(&mut self) {
        let Attached { programs, flows, .. } = self;
        let Ok(tcp) = &mut programs.tcp else { return };
        let began = Instant::now();
        flows.begin();
        let taken = tcp.drain(programs.sched.ended(), &mut |key, flow| flows.add(key, flow, began));
        flows.set_overflow(&tcp.overflow());
        flows.settle(began);
        self.flows_trouble = taken.err().map(|error| format!("cannot read the map of flows: {error}"));
        if let Err(error) = tcp.see(&flows.list(), began) {
            self.flows_trouble.get_or_insert(format!("cannot ask for the processes of flows: {error}"));
        }
        self.flows_took = Some(began.elapsed());
    }

    /// Chooses anew which cgroups are split by process, those among them that hold processes of watched commands.
    fn refocus(&mut self, watched: Vec<Key>) {
        let mut chosen = self.focus.watch(watched);
        if let [Some(now), Some(before)] = self.turned {
            let on_itself = self.blame.on_itself();
            let interval = u64::try_from((now - before).as_nanos()).unwrap_or(u64::MAX);
            let seen = Seen { on_itself: &on_itself, only_root_ran: self.accounts.only_root_ran(), interval };
            chosen = self.focus.choose(&seen);
        }
        if chosen != self.focused {
            let left = self.programs.sched.focus(&chosen);
            if !left.is_empty() {
                tracing::debug!(?left, "no place in the focus");
            }
            self.focused = chosen;
        }
    }

    fn state(&self, online: &[u32]) -> State {
        let mut reasons: Vec<String> =
            self.programs.lacking.iter().map(|lacking| format!("{}: {}", lacking.missing, lacking.lost)).collect();
        reasons.extend(self.programs.moves_off().map(ToString::to_string));
        reasons.extend(self.trouble.clone());
        let covered = self.programs.sched.cpus();
        if let Some(late) = online.iter().find(|number| **number >= covered) {
            reasons.push(format!("CPU {late} came after the start and is not counted; restart observer"));
        }
        let overflows = self.programs.sched.overflows();
        if overflows > 0 {
            reasons.push(format!("table full {overflows} times: more cgroups ran on a CPU in one interval than it can tell apart; use a shorter interval"));
        }
        if reasons.is_empty() { State::On } else { State::Degraded(reasons.join("; ")) }
    }
}

/// The NUMA nodes of CPUs, as far as they are known.
fn nodes(places: &[(u32, u64)]) -> impl Iterator<Item = (u32, u32)> {
    places.iter().filter_map(|(cpu, place)| Some((*cpu, locality::node(*place)?)))
}

/// Takes in how long the queues were up to now. What goes on is booked otherwise when it ends, if somebody joined the queue meanwhile: so that
/// no number goes backwards it stays where it was until the others have come there, too.
fn measure(depths: &mut Vec<Depths>, tables: &Tables) {
    let now = tables.turned_at();
    depths.resize(tables.cpus() as usize, Depths::default());
    for (cpu, known) in (0..).zip(depths) {
        let mut is = tables.depths(cpu, now);
        is.iter_mut().zip(known.iter()).for_each(|(is, was)| *is = (*is).max(*was));
        *known = is;
    }
}

/// The row of health of a family that does not work.
fn off(name: &'static str, reason: String) -> Source {
    Source { name, state: State::Off(reason), duration: None, dropped: 0 }
}

/// Adds what a table holds to the totals.
fn book(accounts: &mut Accounts, blame: &mut Blame, commands: &mut Commands, cpu: u32, entry: Entry<'_>) {
    match entry {
        Entry::Slot(slot) => {
            blame.slot(slot);
            commands.slot(cpu, slot);
            accounts.add(cpu, slot);
        }
        Entry::Cell(cell) => blame.cell(cell),
    }
}

//! The daemon's own totals: what the tables of all generations add up to, by CPU and by cgroup with its descendants.
//!
//! Counts go to a cgroup and to every ancestor at the moment they are read, so that a cgroup's death takes nothing from its parent's
//! subtree: the rows of the living only grow.

use std::collections::HashMap;
use std::sync::Arc;

use observer_common::memory::Stall;
use observer_common::sched::{Key, Slot, kind};

use super::pending::Waits;
use crate::model::memory::StallLatency;
use crate::model::placement::{NODES, node_place};
use crate::model::{Histogram, OffCpu, Open, Placement, Sched, Sleeps, Used};

/// Totals since observer attached.
#[derive(Debug)]
pub struct Accounts {
    cpus: Vec<Total>,
    nodes: HashMap<Key, Node>,
    /// The roots of the listed trees: [`Key::ROOT`], or what a cgroup namespace shows as one.
    roots: Vec<Key>,
    round: u64,
    /// The reading of the tables.
    drain: u64,
    zero: Arc<Sched>,
    /// NUMA nodes of CPUs.
    places: HashMap<u32, u32>,
}

#[derive(Debug)]
struct Node {
    parent: Option<Key>,
    total: Total,
    /// The round in which it was last listed, or first heard of.
    seen: u64,
    /// Stalls in the allocator, by [`Stall`]; `None` while there was none.
    stalls: Option<Arc<StallLatency>>,
    /// The longest of the waits that were read, and in which reading of the tables.
    longest: Option<(u64, LongestWait)>,
}

/// Counts, and what they with what is open came to at the last reading.
#[derive(Clone, Debug)]
struct Total {
    sched: Arc<Sched>,
    reached: Open,
}

/// The longest wait of a cgroup and interval.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LongestWait {
    /// Nanoseconds.
    pub time: u64,
    /// Thread id of who waited.
    pub tid: u32,
    /// Its `comm`, as the kernel has it.
    pub comm: [u64; 2],
    /// Who held the CPU for the longest stretch of it.
    pub culprit: Key,
}

/// Deeper than any cgroup tree; ends the walk should parents ever form a ring.
const MAX_DEPTH: usize = 4096;

impl Accounts {
    /// Nothing yet, for this many CPUs; `zero` says what the kernel accounts.
    pub fn new(cpus: u32, zero: Sched) -> Accounts {
        let zero = Arc::new(zero);
        let total = Total { sched: Arc::clone(&zero), reached: Open::default() };
        Accounts {
            cpus: vec![total; cpus as usize],
            nodes: HashMap::new(),
            roots: Vec::new(),
            round: 0,
            drain: 0,
            zero,
            places: HashMap::new(),
        }
    }

    /// Says on which NUMA node each CPU is; of others it is not known.
    pub fn place(&mut self, nodes: impl Iterator<Item = (u32, u32)>) {
        self.places = nodes.collect();
    }

    /// Takes in the tree as it is listed now: each cgroup with its parent.
    pub fn list(&mut self, cgroups: impl Iterator<Item = (Key, Option<Key>)>) {
        self.round += 1;
        self.roots.clear();
        for (key, parent) in cgroups {
            if parent.is_none() {
                self.roots.push(key);
            }
            let node = node(&mut self.nodes, &self.zero, key, parent);
            node.parent = parent;
            node.seen = self.round;
        }
    }

    /// Tables are about to be read: the longest waits are those of this reading.
    pub fn begin_drain(&mut self) {
        self.drain += 1;
    }

    /// Adds what one slot of one CPU held. A process's counts are its cgroup's.
    pub fn add(&mut self, cpu: u32, slot: &Slot) {
        let mut counts = counts(slot);
        if let (Some(nodes), Some(node)) = (&mut counts.nodes, self.places.get(&cpu)) {
            nodes[node_place(*node)] = slot.run;
        }
        if slot.key == Key::IDLE.0 {
            // No cgroup's: not the machine's cgroup either.
            return node(&mut self.nodes, &self.zero, Key::IDLE, None).total.add(&counts);
        }
        if let Some(total) = self.cpus.get_mut(cpu as usize) {
            total.add(&counts);
        }
        let longest = (slot.longest > 0).then_some(LongestWait {
            time: slot.longest,
            tid: slot.longest_tid as u32,
            comm: slot.longest_comm,
            culprit: Key(slot.longest_culprit),
        });
        self.add_upwards(leaf(slot), &counts, longest);
    }

    /// Adds what a cgroup's tasks were stalled since it was last added.
    pub fn add_stalls(&mut self, cgroup: Key, kind: Stall, grown: &Histogram) {
        self.upwards((cgroup, None), &mut |node| {
            Arc::make_mut(node.stalls.get_or_insert_default())[kind as usize].add(grown);
        });
    }

    fn add_upwards(&mut self, leaf: (Key, Option<Key>), counts: &Sched, longest: Option<LongestWait>) {
        let drain = self.drain;
        self.upwards(leaf, &mut |node| {
            node.total.add(counts);
            if let Some(longest) = longest
                && node.longest.is_none_or(|(of, former)| of != drain || former.time < longest.time)
            {
                node.longest = Some((drain, longest));
            }
        });
    }

    /// Visits a cgroup and its ancestors; for what nobody can name also `~gone`.
    fn upwards(&mut self, leaf: (Key, Option<Key>), each: &mut dyn FnMut(&mut Node)) {
        let round = self.round;
        let mut next = Some(leaf);
        let mut last = Key::NONE;
        for _ in 0..MAX_DEPTH {
            let Some((key, parent)) = next else { break };
            let known = self.nodes.contains_key(&key);
            let node = node(&mut self.nodes, &self.zero, key, parent);
            if !known {
                node.seen = round;
            }
            each(node);
            last = key;
            let parent = node.parent;
            next = match parent {
                Some(parent) if parent == Key::ROOT || self.nodes.contains_key(&parent) => Some((parent, None)),
                _ => None,
            };
        }
        if last != Key::ROOT {
            each(node(&mut self.nodes, &self.zero, Key::ROOT, None));
        }
        if ![Key::ROOT, Key::OTHER, Key::GONE].contains(&last) && !self.roots.contains(&last) {
            each(node(&mut self.nodes, &self.zero, Key::GONE, None));
        }
    }

    /// Says what goes on at the moment of this reading: who has been on which CPU for how long, and, where it is known, what the tasks of
    /// each cgroup itself wait now. Everything else has nothing open.
    pub fn set_open(&mut self, runs: &[(u32, Key, u64)], waits: Option<&Waits>) {
        let nothing = Open { run: 0, wait: waits.map(|_| 0), throttled: waits.and(self.zero.throttled).map(|_| 0) };
        let known = |open: &Open| Open { throttled: nothing.throttled.and(open.throttled), ..*open };
        for (number, total) in (0..).zip(&mut self.cpus) {
            let mut open = waits.and_then(|waits| waits.cpus.get(&number)).map_or(nothing, known);
            open.run = runs.iter().filter(|(cpu, ..)| *cpu == number).map(|(.., time)| time).sum();
            total.set_open(open);
        }
        let mut open: HashMap<Key, Open> = HashMap::new();
        let runs = runs.iter().map(|(_, key, run)| (*key, Open { run: *run, ..nothing }));
        let waits = waits.into_iter().flat_map(|waits| &waits.cgroups).map(|(key, open)| (*key, known(open)));
        for (leaf, more) in runs.chain(waits) {
            let mut next = Some(leaf);
            let mut last = Key::NONE;
            for _ in 0..MAX_DEPTH {
                let Some(key) = next else { break };
                open.entry(key).or_insert(nothing).add(&more);
                last = key;
                next = self.nodes.get(&key).and_then(|node| node.parent);
            }
            if last != Key::ROOT {
                open.entry(Key::ROOT).or_insert(nothing).add(&more);
            }
        }
        for (key, node) in &mut self.nodes {
            node.total.set_open(open.get(key).copied().unwrap_or(nothing));
        }
    }

    /// Forgets cgroups that the last listing no longer had; those first heard of since then stay until the next one.
    pub fn sweep(&mut self) {
        let round = self.round;
        self.nodes.retain(|key, node| node.seen >= round || [Key::ROOT, Key::OTHER, Key::GONE, Key::IDLE].contains(key));
    }

    /// Whether no cgroup but the root has run since observer attached.
    pub fn only_root_ran(&self) -> bool {
        let others = [Key::ROOT, Key::IDLE];
        self.nodes.iter().all(|(key, node)| others.contains(key) || node.total.sched.runs == 0)
    }

    /// A cgroup's counts with its descendants'; zeros for one that never ran.
    pub fn cgroup(&self, key: Key) -> Arc<Sched> {
        self.nodes.get(&key).map_or_else(|| Arc::clone(&self.zero), |node| Arc::clone(&node.total.sched))
    }

    /// As [`Accounts::cgroup`], `None` for one that never ran.
    pub fn ran(&self, key: Key) -> Option<Arc<Sched>> {
        let sched = &self.nodes.get(&key)?.total.sched;
        let ended = Sched { open: self.zero.open, ..Sched::clone(sched) };
        (ended != *self.zero).then(|| Arc::clone(sched))
    }

    /// Whether it is a cgroup that was listed, or heard of since.
    pub fn has(&self, key: Key) -> bool {
        self.nodes.contains_key(&key)
    }

    /// Stalls of a cgroup's tasks with its descendants', by kind; `None` while there was none.
    pub fn stalls(&self, key: Key) -> Option<Arc<StallLatency>> {
        self.nodes.get(&key)?.stalls.clone()
    }

    /// The longest wait that ended in this cgroup or below it in the last interval.
    pub fn longest(&self, key: Key) -> Option<LongestWait> {
        let (drain, longest) = self.nodes.get(&key)?.longest?;
        (drain == self.drain).then_some(longest)
    }

    /// A CPU's counts.
    pub fn cpu(&self, cpu: u32) -> Option<Arc<Sched>> {
        self.cpus.get(cpu as usize).map(|total| Arc::clone(&total.sched))
    }
}

impl Total {
    fn add(&mut self, counts: &Sched) {
        Arc::make_mut(&mut self.sched).add(counts);
    }

    /// What ended and what is open are not read at the same instant: something may end in between, be open no more and not be counted
    /// yet. So their sum stays where it was rather than go backwards.
    fn set_open(&mut self, open: Open) {
        let sched = &self.sched;
        let throttled = sched.throttled.unwrap_or(0);
        let keep = |reached: u64, ended: u64, open: u64| open.max(reached.saturating_sub(ended));
        let open = Open {
            run: keep(self.reached.run, sched.run, open.run),
            wait: open.wait.map(|wait| keep(self.reached.wait.unwrap_or(0), sched.latency.sum, wait)),
            throttled: open.throttled.map(|open| keep(self.reached.throttled.unwrap_or(0), throttled, open)),
        };
        self.reached = Open {
            run: sched.run + open.run,
            wait: open.wait.map(|wait| sched.latency.sum + wait),
            throttled: open.throttled.map(|open| throttled + open),
        };
        if sched.open != open {
            Arc::make_mut(&mut self.sched).open = open;
        }
    }
}

fn node<'a>(nodes: &'a mut HashMap<Key, Node>, zero: &Arc<Sched>, key: Key, parent: Option<Key>) -> &'a mut Node {
    let total = || Total { sched: Arc::clone(zero), reached: Open::default() };
    nodes.entry(key).or_insert_with(|| Node { parent, total: total(), seen: 0, stalls: None, longest: None })
}

/// Whose counts a slot's are, and that cgroup's parent where it is told.
fn leaf(slot: &Slot) -> (Key, Option<Key>) {
    let (key, parent) = (Key(slot.key), (slot.parent != 0).then_some(Key(slot.parent)));
    match (key.kind(), parent) {
        (kind::PROCESS, cgroup) => (cgroup.unwrap_or(Key::GONE), None),
        _ => (key, parent),
    }
}

/// Zero of everything that may be known: adding it takes no knowledge away.
fn nothing() -> Sched {
    let open = Open { run: 0, wait: Some(0), throttled: Some(0) };
    let used = Some(Used { off_cpu: Some(OffCpu::default()), ..Used::default() });
    Sched {
        open,
        used,
        shared: Some(0),
        nodes: Some([0; NODES]),
        placement: Some(Placement::default()),
        ..Sched::zero(true, true, true)
    }
}

/// The waits of a slot.
pub(super) fn latency(slot: &Slot) -> Histogram {
    let mut latency = Histogram { sum: slot.wait, ..Histogram::default() };
    for (to, from) in latency.counts.iter_mut().zip(&slot.latency) {
        *to = u64::from(*from);
    }
    latency
}

fn counts(slot: &Slot) -> Sched {
    Sched {
        run: slot.run,
        steal: Some(slot.steal),
        interrupt: Some(slot.interrupt),
        runs: u64::from(slot.runs),
        preempted: u64::from(slot.preempted),
        voluntary: u64::from(slot.voluntary),
        sleeps: Sleeps {
            io: u64::from(slot.io),
            uninterruptible: u64::from(slot.uninterruptible),
            stopped: u64::from(slot.stopped),
        },
        placement: Some(Placement { away: slot.away.map(u64::from), away_run: slot.away_run, moves: slot.moves.map(u64::from) }),
        shared: Some(slot.shared),
        latency: latency(slot),
        used: Some(Used {
            pages: slot.used.pages,
            stalls: slot.used.stalls,
            stalled: slot.used.stalled,
            off_cpu: Some(OffCpu { waited: slot.used.waited, slept: slot.used.slept }),
        }),
        throttled: Some(slot.throttled),
        migrated: slot.migrated,
        exited: slot.exited,
        ..nothing()
    }
}

#[cfg(test)]
mod tests {
    use observer_common::latency::BUCKETS;
    use observer_common::memory::Use;
    use observer_common::pod;

    use super::*;

    fn slot(key: Key, parent: Key, run: u64) -> Slot {
        let mut latency = [0; BUCKETS];
        latency[5] = 2;
        Slot {
            generation: 1,
            key: key.0,
            parent: parent.0,
            run,
            wait: 7,
            steal: 4,
            interrupt: 5,
            used: Use { pages: 6, stalls: 1, stalled: 90, waited: 20, slept: 30 },
            runs: 3,
            preempted: 1,
            voluntary: 2,
            latency,
            ..pod::zeroed()
        }
    }

    const A: Key = Key::v2(10);
    const B: Key = Key::v2(11);
    const C: Key = Key::v2(12);

    fn run(accounts: &Accounts, key: Key) -> u64 {
        accounts.cgroup(key).run
    }

    #[test]
    fn stalls_go_to_every_ancestor_and_of_the_dead_to_gone() {
        let mut accounts = Accounts::new(1, Sched::zero(true, true, true));
        accounts.list([(Key::ROOT, None), (A, Some(Key::ROOT)), (B, Some(A))].into_iter());
        let grown = |count| {
            let mut grown = Histogram { sum: 10 * count, ..Histogram::default() };
            grown.counts[7] = count;
            grown
        };
        accounts.add_stalls(B, Stall::Compaction, &grown(2));
        accounts.add_stalls(A, Stall::Compaction, &grown(1));
        accounts.add_stalls(C, Stall::Reclaim, &grown(4));
        let of = |key, kind: Stall| accounts.stalls(key).map(|stalls| stalls[kind as usize].count());
        let compactions = [B, A, Key::ROOT, Key::GONE, C].map(|key| of(key, Stall::Compaction));
        assert_eq!(compactions, [Some(2), Some(3), Some(3), Some(0), Some(0)]);
        assert_eq!([A, Key::ROOT, Key::GONE].map(|key| of(key, Stall::Reclaim)), [Some(0), Some(4), Some(4)]);
        assert_eq!(accounts.stalls(Key::IDLE), None);
    }

    #[test]
    fn counts_go_to_every_ancestor() {
        let mut accounts = Accounts::new(2, Sched::zero(true, false, true));
        accounts.list([(Key::ROOT, None), (A, Some(Key::ROOT)), (B, Some(A))].into_iter());
        accounts.add(1, &slot(B, A, 100));
        accounts.add(0, &slot(A, Key::ROOT, 10));
        accounts.add(0, &slot(Key::ROOT, Key::NONE, 1));
        assert_eq!((run(&accounts, B), run(&accounts, A), run(&accounts, Key::ROOT)), (100, 110, 111));
        assert_eq!(accounts.cpu(1).unwrap().run, 100);
        assert_eq!(accounts.cpu(0).unwrap().latency.count(), 4);
        assert_eq!(accounts.cgroup(A).latency.sum, 14);
        assert!(accounts.ran(Key::GONE).is_none());
    }

    #[test]
    fn what_was_taken_from_an_idle_cpu_is_nobodys() {
        let mut accounts = Accounts::new(1, Sched::zero(true, false, true));
        accounts.list([(Key::ROOT, None), (A, Some(Key::ROOT))].into_iter());
        accounts.add(0, &slot(A, Key::ROOT, 10));
        accounts.add(0, &slot(Key::IDLE, Key::NONE, 0));
        assert_eq!(accounts.cgroup(Key::ROOT).steal, Some(4));
        assert_eq!(accounts.ran(Key::IDLE).unwrap().steal, Some(4));
        assert_eq!(accounts.cgroup(A).interrupt, None, "not accounted: unknown, not 0");
        assert!(accounts.ran(Key::GONE).is_none());
    }

    #[test]
    fn a_process_counts_for_its_cgroup() {
        let mut accounts = Accounts::new(1, Sched::zero(true, false, true));
        accounts.list([(Key::ROOT, None), (A, Some(Key::ROOT))].into_iter());
        accounts.add(0, &slot(Key::process(77, 1 << 40), A, 100));
        accounts.add(0, &slot(A, Key::ROOT, 10));
        assert_eq!((run(&accounts, A), run(&accounts, Key::ROOT)), (110, 110));
    }

    #[test]
    fn the_longest_wait_is_of_the_last_reading() {
        let mut accounts = Accounts::new(1, Sched::zero(true, false, true));
        accounts.list([(Key::ROOT, None), (A, Some(Key::ROOT)), (B, Some(A))].into_iter());
        let longest = |key, time| Slot { longest: time, longest_tid: 5, longest_culprit: C.0, ..slot(key, A, 1) };
        accounts.begin_drain();
        accounts.add(0, &longest(B, 50));
        accounts.add(0, &longest(B, 40));
        let of = |accounts: &Accounts, key| accounts.longest(key).map(|longest| (longest.time, longest.culprit));
        assert_eq!((of(&accounts, B), of(&accounts, A)), (Some((50, C)), Some((50, C))));
        accounts.begin_drain();
        assert_eq!(of(&accounts, B), None);
    }

    #[test]
    fn what_goes_on_is_counted_once() {
        let mut accounts = Accounts::new(1, Sched::zero(true, false, true));
        accounts.list([(Key::ROOT, None), (A, Some(Key::ROOT)), (B, Some(A))].into_iter());
        let open = Open { run: 0, wait: Some(30), throttled: Some(10) };
        let waits = Waits { cgroups: HashMap::from([(B, open)]), cpus: HashMap::from([(0, open)]) };
        accounts.set_open(&[(0, B, 70)], Some(&waits));
        let open = |accounts: &Accounts, key| accounts.cgroup(key).open;
        let expected = Open { run: 70, wait: Some(30), throttled: Some(10) };
        for key in [B, A, Key::ROOT] {
            assert_eq!(open(&accounts, key), expected);
        }
        assert_eq!(accounts.cpu(0).unwrap().open, expected);
        // The run ends; of the wait, 7 have ended in the meantime and nothing is seen to wait: it must be in the next table.
        accounts.add(0, &slot(B, A, 75));
        accounts.set_open(&[], Some(&Waits::default()));
        assert_eq!(open(&accounts, B), Open { run: 0, wait: Some(23), throttled: Some(10) }, "what was told is not taken back");
        assert_eq!(accounts.cgroup(B).run, 75);
        accounts.set_open(&[], None);
        assert_eq!(open(&accounts, A).wait, None, "unknown without the iterator");
    }

    #[test]
    fn what_dies_stays_in_its_parents_subtree() {
        let mut accounts = Accounts::new(1, Sched::zero(true, false, true));
        accounts.list([(Key::ROOT, None), (A, Some(Key::ROOT)), (B, Some(A))].into_iter());
        accounts.add(0, &slot(B, A, 100));
        accounts.sweep();
        accounts.list([(Key::ROOT, None), (A, Some(Key::ROOT))].into_iter());
        // Its last run is read after its directory is gone; so are those of a cgroup that was never listed.
        accounts.add(0, &slot(B, A, 5));
        accounts.add(0, &slot(C, A, 50));
        accounts.sweep();
        assert_eq!((run(&accounts, A), run(&accounts, Key::ROOT)), (155, 155));
        assert_eq!(run(&accounts, B), 0, "a dead cgroup has no row");
    }

    #[test]
    fn one_first_heard_of_after_the_listing_keeps_its_counts() {
        let mut accounts = Accounts::new(1, Sched::zero(true, false, true));
        accounts.list([(Key::ROOT, None)].into_iter());
        accounts.add(0, &slot(A, Key::ROOT, 100));
        accounts.sweep();
        accounts.list([(Key::ROOT, None), (A, Some(Key::ROOT))].into_iter());
        accounts.sweep();
        assert_eq!(run(&accounts, A), 100);
    }

    #[test]
    fn what_nobody_can_name_is_shown_all_the_same() {
        let mut accounts = Accounts::new(1, Sched::zero(true, false, true));
        accounts.list([(Key::ROOT, None)].into_iter());
        accounts.add(0, &slot(B, A, 100));
        accounts.add(0, &slot(Key::OTHER, Key::NONE, 10));
        accounts.sweep();
        assert_eq!(run(&accounts, Key::ROOT), 110);
        assert_eq!((run(&accounts, Key::GONE), run(&accounts, Key::OTHER)), (100, 10));
    }

    #[test]
    fn a_namespaced_root_is_where_the_walk_ends() {
        let mut accounts = Accounts::new(1, Sched::zero(true, false, true));
        accounts.list([(A, None), (B, Some(A))].into_iter());
        accounts.add(0, &slot(B, A, 100));
        assert_eq!((run(&accounts, A), run(&accounts, Key::ROOT), run(&accounts, Key::GONE)), (100, 100, 0));
        accounts.add(0, &slot(C, Key::v2(99), 1));
        assert_eq!((run(&accounts, Key::ROOT), run(&accounts, Key::GONE)), (101, 1), "what is outside the namespace");
    }
}

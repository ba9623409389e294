//! The daemon's own totals: what the tables of all generations add up to, by CPU and by cgroup with its descendants.
//!
//! Counts go to a cgroup and to every ancestor at the moment they are read, so that a cgroup's death takes nothing from its parent's
//! subtree: the rows of the living only grow.

use std::collections::HashMap;
use std::sync::Arc;

use observer_common::sched::{Key, Slot};

use crate::model::{Histogram, Sched};

/// Totals since observer attached.
#[derive(Debug)]
pub struct Accounts {
    cpus: Vec<Arc<Sched>>,
    nodes: HashMap<Key, Node>,
    /// The roots of the listed trees: [`Key::ROOT`], or what a cgroup namespace shows as one.
    roots: Vec<Key>,
    round: u64,
    zero: Arc<Sched>,
}

#[derive(Debug)]
struct Node {
    parent: Option<Key>,
    sched: Arc<Sched>,
    /// The round in which it was last listed, or first heard of.
    seen: u64,
}

/// Deeper than any cgroup tree; ends the walk should parents ever form a ring.
const MAX_DEPTH: usize = 4096;

impl Accounts {
    /// Nothing yet, for this many CPUs; `zero` says what the kernel accounts.
    pub fn new(cpus: u32, zero: Sched) -> Accounts {
        let zero = Arc::new(zero);
        Accounts { cpus: vec![Arc::clone(&zero); cpus as usize], nodes: HashMap::new(), roots: Vec::new(), round: 0, zero }
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

    /// Adds what one slot of one CPU held.
    pub fn add(&mut self, cpu: u32, slot: &Slot) {
        let counts = counts(slot);
        if slot.key == Key::IDLE.0 {
            // No cgroup's: not the machine's cgroup either.
            return self.add_to(Key::IDLE, &counts);
        }
        if let Some(total) = self.cpus.get_mut(cpu as usize) {
            Arc::make_mut(total).add(&counts);
        }
        let parent = (slot.parent != 0).then_some(Key(slot.parent));
        let round = self.round;
        let mut next = Some((Key(slot.key), parent));
        let mut last = Key::NONE;
        for _ in 0..MAX_DEPTH {
            let Some((key, parent)) = next else { break };
            let known = self.nodes.contains_key(&key);
            let node = node(&mut self.nodes, &self.zero, key, parent);
            if !known {
                node.seen = round;
            }
            Arc::make_mut(&mut node.sched).add(&counts);
            last = key;
            let parent = node.parent;
            next = match parent {
                Some(parent) if parent == Key::ROOT || self.nodes.contains_key(&parent) => Some((parent, None)),
                _ => None,
            };
        }
        if last != Key::ROOT {
            self.add_to(Key::ROOT, &counts);
        }
        if last != Key::ROOT && last != Key::OTHER && !self.roots.contains(&last) {
            self.add_to(Key::GONE, &counts);
        }
    }

    fn add_to(&mut self, key: Key, counts: &Sched) {
        Arc::make_mut(&mut node(&mut self.nodes, &self.zero, key, None).sched).add(counts);
    }

    /// Forgets cgroups that the last listing no longer had; those first heard of since then stay until the next one.
    pub fn sweep(&mut self) {
        let round = self.round;
        self.nodes.retain(|key, node| node.seen >= round || [Key::ROOT, Key::OTHER, Key::GONE, Key::IDLE].contains(key));
    }

    /// A cgroup's counts with its descendants'; zeros for one that never ran.
    pub fn cgroup(&self, key: Key) -> Arc<Sched> {
        self.nodes.get(&key).map_or_else(|| Arc::clone(&self.zero), |node| Arc::clone(&node.sched))
    }

    /// As [`Accounts::cgroup`], `None` for one that never ran.
    pub fn ran(&self, key: Key) -> Option<Arc<Sched>> {
        self.nodes.get(&key).map(|node| Arc::clone(&node.sched)).filter(|sched| **sched != *self.zero)
    }

    /// A CPU's counts.
    pub fn cpu(&self, cpu: u32) -> Option<Arc<Sched>> {
        self.cpus.get(cpu as usize).map(Arc::clone)
    }
}

fn node<'a>(nodes: &'a mut HashMap<Key, Node>, zero: &Arc<Sched>, key: Key, parent: Option<Key>) -> &'a mut Node {
    nodes.entry(key).or_insert_with(|| Node { parent, sched: Arc::clone(zero), seen: 0 })
}

fn counts(slot: &Slot) -> Sched {
    let mut latency = Histogram { sum: slot.wait, ..Histogram::default() };
    for (to, from) in latency.counts.iter_mut().zip(&slot.latency) {
        *to = u64::from(*from);
    }
    Sched {
        run: slot.run,
        steal: Some(slot.steal),
        interrupt: Some(slot.interrupt),
        runs: u64::from(slot.runs),
        preempted: u64::from(slot.preempted),
        voluntary: u64::from(slot.voluntary),
        latency,
        throttled: Some(0),
        ..Sched::default()
    }
}

#[cfg(test)]
mod tests {
    use observer_common::latency::BUCKETS;

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
            runs: 3,
            preempted: 1,
            voluntary: 2,
            latency,
        }
    }

    const A: Key = Key::v2(10);
    const B: Key = Key::v2(11);
    const C: Key = Key::v2(12);

    fn run(accounts: &Accounts, key: Key) -> u64 {
        accounts.cgroup(key).run
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

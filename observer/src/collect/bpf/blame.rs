//! The daemon's own totals of who waited for whom.
//!
//! A victim's pairs sum to its waits, whatever dies: a process's go to its cgroup's, a cgroup's to `~gone`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use observer_common::blame::Cell;
use observer_common::sched::{Key, Slot, kind};
use observer_common::tasks::comm_bytes;

use crate::model::text::escape_padded;
use crate::model::{Contention, Party};

/// Totals since observer attached, in nanoseconds.
#[derive(Default, Debug)]
pub struct Blame {
    pairs: HashMap<(Key, Key), Pair>,
    processes: HashMap<Key, Process>,
    round: u64,
}

/// How long one waited for another, in nanoseconds.
#[derive(Default, Debug)]
struct Pair {
    time: u64,
    /// Of it what others had told before they died.
    inherited: u64,
    /// The time when the round began, as the last sample told it.
    told: u64,
}

/// A process of a cgroup in focus.
#[derive(Debug)]
struct Process {
    cgroup: Key,
    comm: Arc<str>,
    /// The round in which it was last seen to run or to be alive.
    seen: u64,
}

/// Rounds for which a process is remembered that has ended: segments name it that long at the most, in all likelihood.
const REMEMBERED: u64 = 64;

impl Blame {
    /// A round begins: what was added up so far has been told, under the names that it has now.
    pub fn begin(&mut self) {
        for pair in self.pairs.values_mut() {
            pair.told = pair.time;
        }
    }

    /// A slot was read: processes introduce themselves in theirs, and what found no cell is there.
    pub fn slot(&mut self, slot: &Slot) {
        let key = Key(slot.key);
        if key.kind() == kind::PROCESS && slot.parent != 0 {
            let process = Process { cgroup: Key(slot.parent), comm: comm(slot.comm), seen: self.round };
            self.processes.insert(key, process);
        }
        if slot.other > 0 {
            self.add(key, Key::OTHER, slot.other);
        }
    }

    /// A cell was read.
    pub fn cell(&mut self, cell: &Cell) {
        self.add(Key(cell.victim), Key(cell.culprit), cell.time);
    }

    /// Adds time that a victim waited.
    pub fn add(&mut self, victim: Key, culprit: Key, time: u64) {
        // Before its first switch a CPU had nobody of whom the hook knew.
        let culprit = if culprit == Key::NONE { Key::UNKNOWN } else { culprit };
        self.pairs.entry((victim, culprit)).or_default().time += time;
    }

    /// The cgroup of a key that the hook used; itself for a cgroup.
    pub fn cgroup_of(&self, key: Key) -> Key {
        match key.kind() {
            kind::PROCESS => self.processes.get(&key).map_or(Key::GONE, |process| process.cgroup),
            _ => key,
        }
    }

    /// Gives what the dead had to whom it goes, once a reading: all of it to the heir's total, and what they waited in this very round
    /// to its rate as well. `alive` has all processes where they are known.
    pub fn settle(&mut self, knows: impl Fn(Key) -> bool, alive: Option<&HashSet<Key>>) {
        self.round += 1;
        let round = self.round;
        for (key, process) in &mut self.processes {
            if alive.is_some_and(|alive| alive.contains(key)) {
                process.seen = round;
            }
        }
        self.processes.retain(|_, process| process.seen + REMEMBERED > round);
        let processes = &self.processes;
        let lives = |key: &Key| alive.map_or(processes.contains_key(key), |alive| alive.contains(key));
        let settled = |key: Key| {
            let cgroup = match key.kind() {
                kind::PROCESS => match processes.get(&key) {
                    Some(_) if lives(&key) => return key,
                    Some(process) => process.cgroup,
                    None => return Key::GONE,
                },
                _ => key,
            };
            if matches!(cgroup.kind(), kind::V2 | kind::CPU) && !knows(cgroup) { Key::GONE } else { cgroup }
        };
        let moved: Vec<_> = self
            .pairs
            .keys()
            .copied()
            .filter(|(victim, culprit)| (settled(*victim), settled(*culprit)) != (*victim, *culprit))
            .collect();
        let moved: Vec<_> =
            moved.into_iter().filter_map(|pair| Some(((settled(pair.0), settled(pair.1)), self.pairs.remove(&pair)?))).collect();
        for (heirs, left) in moved {
            let heir = self.pairs.entry(heirs).or_default();
            heir.time += left.time;
            heir.inherited += left.told;
        }
    }

    /// How long each cgroup's tasks have waited for tasks of the same cgroup.
    pub fn on_itself(&self) -> HashMap<Key, u64> {
        let mut sums: HashMap<Key, u64> = HashMap::new();
        for ((victim, culprit), pair) in &self.pairs {
            let cgroup = self.cgroup_of(*victim);
            let is_one = matches!(cgroup.kind(), kind::ROOT | kind::V2 | kind::CPU);
            if is_one && cgroup == self.cgroup_of(*culprit) {
                *sums.entry(cgroup).or_default() += pair.time;
            }
        }
        sums
    }

    /// All pairs, ascending; `path` names cgroups.
    pub fn rows(&self, path: impl Fn(Key) -> Option<Arc<str>>) -> Vec<Contention> {
        let mut parties: HashMap<Key, Party> = HashMap::new();
        let mut party = |key: Key| parties.entry(key).or_insert_with(|| self.party(key, &path)).clone();
        let row = |((victim, culprit), pair): (&(Key, Key), &Pair)| Contention {
            victim: party(*victim),
            culprit: party(*culprit),
            time: pair.time,
            inherited: pair.inherited,
        };
        let mut rows: Vec<_> = self.pairs.iter().map(row).collect();
        rows.sort_by_key(|row| (row.victim.key, row.culprit.key));
        rows
    }

    /// Who a key is.
    pub fn party(&self, key: Key, path: &impl Fn(Key) -> Option<Arc<str>>) -> Party {
        let named = |name: &str| Party { key, cgroup: key, name: name.into() };
        match key.kind() {
            kind::PROCESS => {
                let Some(process) = self.processes.get(&key) else { return named("~gone") };
                let cgroup = path(process.cgroup).unwrap_or_else(|| "~gone".into());
                Party { key, cgroup: process.cgroup, name: format!("{cgroup} #{} {}", key.tgid(), process.comm).into() }
            }
            kind::OTHER => named("~other"),
            kind::GONE => named("~gone"),
            kind::IDLE => named("~idle"),
            kind::THROTTLED => named("~throttled"),
            kind::HYPERVISOR => named("~hypervisor"),
            kind::INTERRUPT => named("~interrupt"),
            kind::MIGRATED => named("~migrated"),
            kind::ROOT | kind::V2 | kind::CPU => Party { key, cgroup: key, name: path(key).unwrap_or_else(|| "~gone".into()) },
            _ => named("~unknown"),
        }
    }
}

/// A `comm` as the kernel keeps it, escaped.
pub fn comm(words: [u64; 2]) -> Arc<str> {
    escape_padded(&comm_bytes(words)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Key = Key::v2(10);
    const B: Key = Key::v2(11);

    fn cell(victim: Key, culprit: Key, time: u64) -> Cell {
        Cell { generation: 1, victim: victim.0, culprit: culprit.0, time }
    }

    fn times(blame: &Blame) -> Vec<(String, String, u64)> {
        let path = |key: Key| match key {
            A => Some("/a".into()),
            B => Some("/b".into()),
            _ => None,
        };
        blame.rows(path).into_iter().map(|row| (row.victim.name.to_string(), row.culprit_name().to_owned(), row.time)).collect()
    }

    fn named(victim: &str, culprit: &str, time: u64) -> (String, String, u64) {
        (victim.into(), culprit.into(), time)
    }

    #[test]
    fn cells_of_all_cpus_and_readings_add_up() {
        let mut blame = Blame::default();
        for (victim, culprit, time) in [(A, B, 5), (A, A, 2), (A, B, 6), (B, Key::IDLE, 1), (B, Key::UNKNOWN, 1), (B, Key(0), 2)]
        {
            blame.cell(&cell(victim, culprit, time));
        }
        assert_eq!(
            times(&blame),
            [named("/a", "~self", 2), named("/a", "/b", 11), named("/b", "~idle", 1), named("/b", "~unknown", 3)]
        );
        assert_eq!(blame.on_itself(), HashMap::from([(A, 2)]));
    }

    #[test]
    fn the_dead_leave_their_pairs_to_others() {
        let mut blame = Blame::default();
        let [p, q] = [7, 8].map(|tgid| Key::process(tgid, 1 << 40));
        for process in [p, q] {
            blame.processes.insert(process, Process { cgroup: A, comm: "x".into(), seen: 0 });
        }
        for (victim, culprit, time) in [(p, q, 5), (q, p, 3), (p, p, 1), (B, p, 4), (p, B, 2)] {
            blame.cell(&cell(victim, culprit, time));
        }
        assert_eq!(blame.on_itself()[&A], 9);
        blame.settle(|_| true, Some(&HashSet::from([p, q])));
        assert!(times(&blame).contains(&named("/a #7 x", "/a #8 x", 5)));
        blame.settle(|_| true, Some(&HashSet::from([q])));
        let expected = [
            named("/a", "~self", 1),
            named("/a", "/b", 2),
            named("/a", "/a #8 x", 5),
            named("/b", "/a", 4),
            named("/a #8 x", "/a", 3),
        ];
        assert_eq!(times(&blame), expected);
        blame.settle(|key| key != A, Some(&HashSet::new()));
        assert_eq!(times(&blame), [named("/b", "~gone", 4), named("~gone", "/b", 2), named("~gone", "~self", 9)]);
    }

    #[test]
    fn what_the_dead_had_told_is_no_news_of_their_heirs() {
        let mut blame = Blame::default();
        let process = Key::process(7, 1 << 40);
        blame.processes.insert(process, Process { cgroup: A, comm: "x".into(), seen: 0 });
        let told = |blame: &Blame| {
            let rows = blame.rows(|key| (key == B).then(|| "/b".into())).into_iter();
            rows.map(|row| (row.victim.key, row.time, row.own())).collect::<Vec<_>>()
        };
        blame.cell(&cell(process, B, 100));
        blame.cell(&cell(A, B, 5));
        blame.settle(|_| true, Some(&HashSet::from([process])));
        assert_eq!(told(&blame), [(A, 5, 5), (process, 100, 100)]);
        // It waits once more and dies in the same round.
        blame.begin();
        blame.cell(&cell(process, B, 3));
        blame.cell(&cell(A, B, 1));
        blame.settle(|_| true, Some(&HashSet::new()));
        assert_eq!(told(&blame), [(A, 109, 9)], "1 + 3 of this round");
        // The heir dies as well: nothing is told twice.
        blame.begin();
        blame.cell(&cell(A, B, 2));
        blame.settle(|key| key == B, Some(&HashSet::new()));
        assert_eq!(told(&blame), [(Key::GONE, 111, 2)]);
    }

    #[test]
    fn names_are_escaped() {
        let word = |bytes: &[u8; 8]| u64::from_ne_bytes(*bytes);
        assert_eq!(&*comm([word(b"x\x1b[2J\0ab"), 0]), "x\\x1b[2J");
        assert_eq!(&*comm([word(b"01234567"), word(b"89abcdef")]), "0123456789abcdef");
    }
}

//! Which pairs of victim and culprit are sent: their number grows with the square of that of the cgroups.
//!
//! At most [`PAIRS`] are sent by name; the rest of a victim's time is summed into its culprit `~other`. Two things must hold although
//! names come and go. Every series is cumulative and only grows, or a receiver takes it for a reset. And a victim's points sum to its
//! rows, so that no time is sent twice or lost.
//!
//! - A pair that was sent stays sent while it lives: leaving, it would take its time back to `~other`, which would look like that much
//!   waiting in one interval.
//! - A newcomer brings what it grew since the last export, and begins then (its start time). What it had before was sent as `~other` and
//!   stays there: `~other` is the victim's total less what the named points say.
//! - So room is for those who matter: a pair is named when it has grown by at least a [`WORTH`]th of all that grew, the largest
//!   growth first.
//! - A row may vanish because its culprit died; the model then has its time in another row of the same victim (that of the parent, or
//!   `~gone`). If that one is named and began later than the lost one, `~other` would shrink by the difference. Then
//!   that much of the heir's growth is left to `~other`.
//!
//! `~other` itself is never named: its label is that of the rest.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use observer_common::sched::{Key, kind};

use crate::model::{Contention, Party, Sample};

/// Pairs sent by name. Each is a series in the receiver and, with both names, 200 bytes of an export: 40 kB. Blame is read from the top;
/// who delays somebody noticeably is among far fewer.
const PAIRS: usize = 200;
/// A pair is named when it has at least this part of all growth.
const WORTH: u64 = 1_000;
/// The culprit of the rest; another number than that of the row `~other`, so that even `~other` as victim is not taken for its own.
const REST: Key = Key::new(kind::OTHER, 1);

/// A pair of keys: victim and culprit.
type Pair = (Key, Key);

/// What of the pairs was sent.
#[derive(Default, Debug)]
pub(super) struct Pairs {
    named: BTreeMap<Pair, Named>,
    /// What was last sent as a victim's rest.
    rests: HashMap<Key, u64>,
    /// The sample that was sent last.
    before: Option<Arc<Sample>>,
}

#[derive(Clone, Copy, Debug)]
struct Named {
    /// Of the row's time, what stays in the rest.
    base: u64,
    /// When that was.
    since: SystemTime,
    /// What was last sent.
    sent: u64,
}

/// A pair as it is sent.
#[derive(Debug)]
pub(super) struct Sent {
    /// With its time since `since`.
    pub(super) pair: Contention,
    /// When its counting began.
    pub(super) since: SystemTime,
}

impl Pairs {
    /// The pairs of a sample as they are sent.
    pub(super) fn select(&mut self, sample: &Arc<Sample>) -> Vec<Sent> {
        let rows = &sample.contentions;
        // A row that shrank is another one's beginning.
        self.named.retain(|pair, named| find(rows, pair).is_some_and(|row| row.time >= named.base + named.sent));
        self.admit(sample);
        let mut all = Vec::new();
        let mut rests = HashMap::new();
        for rows in rows.chunk_by(|a, b| a.victim.key == b.victim.key) {
            let Some(victim) = rows.first().map(|first| &first.victim) else { continue };
            let floor = self.rests.get(&victim.key).copied();
            let (sent, rest) = self.of_victim(rows, floor.unwrap_or(0));
            all.extend(sent);
            if rest > 0 || floor.is_some() {
                rests.insert(victim.key, rest);
                let culprit = Party { key: REST, cgroup: REST, name: "~other".into() };
                let pair = Contention { victim: victim.clone(), culprit, time: rest, inherited: 0 };
                all.push(Sent { pair, since: sample.start });
            }
        }
        self.rests = rests;
        self.before = Some(sample.clone());
        all
    }

    /// Names newcomers while there is room.
    fn admit(&mut self, sample: &Sample) {
        let before = self.before.as_deref();
        let mut old = before.map_or(&[][..], |before| &before.contentions).iter().peekable();
        let mut named = self.named.keys().peekable();
        let (mut all, mut newcomers) = (0, Vec::new());
        for row in &sample.contentions {
            let pair = key(row);
            while old.next_if(|old| key(old) < pair).is_some() {}
            let base = old.next_if(|old| key(old) == pair).map_or(0, |old| old.time);
            let grown = row.time.saturating_sub(base);
            all += grown;
            while named.next_if(|named| **named < pair).is_some() {}
            let is_named = named.next_if(|named| **named == pair).is_some();
            if !is_named && grown > 0 && pair.1.kind() != kind::OTHER {
                newcomers.push((grown, pair, base));
            }
        }
        newcomers.retain(|(grown, ..)| *grown >= all / WORTH);
        newcomers.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
        newcomers.truncate(PAIRS.saturating_sub(self.named.len()));
        for (_, pair, base) in newcomers {
            let since = before.filter(|_| base > 0).map_or(sample.start, |before| before.time);
            self.named.insert(pair, Named { base, since, sent: 0 });
        }
    }

    /// A victim's named points and its rest, which was `floor` before.
    fn of_victim(&mut self, rows: &[Contention], floor: u64) -> (Vec<Sent>, u64) {
        let mut rest: u64 = rows.iter().map(|row| row.time).sum();
        for row in rows {
            if let Some(named) = self.named.get(&key(row)) {
                rest = rest.saturating_sub(row.time.saturating_sub(named.base));
            }
        }
        let mut sent = Vec::new();
        for row in rows {
            let Some(named) = self.named.get_mut(&key(row)) else { continue };
            let grown = row.time.saturating_sub(named.base).saturating_sub(named.sent);
            let left = grown.min(floor.saturating_sub(rest));
            named.base += left;
            rest += left;
            named.sent = row.time.saturating_sub(named.base);
            sent.push(Sent { pair: Contention { time: named.sent, ..row.clone() }, since: named.since });
        }
        (sent, rest.max(floor))
    }
}

fn key(row: &Contention) -> Pair {
    (row.victim.key, row.culprit.key)
}

fn find<'a>(rows: &'a [Contention], pair: &Pair) -> Option<&'a Contention> {
    rows.binary_search_by_key(pair, key).ok().map(|at| &rows[at])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::tests::samples;
    use super::*;

    const GONE: u64 = 500;

    fn party(number: u64) -> Party {
        let key = if number == GONE { Key::GONE } else { Key::v2(number) };
        Party { key, cgroup: key, name: format!("/{number}").into() }
    }

    fn sample(step: u64, times: &BTreeMap<(u64, u64), u64>) -> Arc<Sample> {
        let pair = |((victim, culprit), time): (&(u64, u64), &u64)| {
            let culprit = if *culprit == 0 {
                Party { key: Key::OTHER, cgroup: Key::OTHER, name: "~other".into() }
            } else {
                party(*culprit)
            };
            Contention { victim: party(*victim), culprit, time: *time, inherited: 0 }
        };
        let mut contentions: Vec<_> = times.iter().map(pair).collect();
        contentions.sort_by_key(key);
        Arc::new(Sample { contentions, ..samples::sample(step, 0) })
    }

    /// What must hold after each step.
    #[derive(Default)]
    struct Receiver {
        last: BTreeMap<Pair, (u64, SystemTime)>,
    }

    impl Receiver {
        fn check(&mut self, times: &BTreeMap<(u64, u64), u64>, sent: &[Sent]) {
            let mut sums: BTreeMap<Key, u64> = BTreeMap::new();
            let mut series = BTreeSet::new();
            for Sent { pair, since } in sent {
                *sums.entry(pair.victim.key).or_default() += pair.time;
                assert!(series.insert((pair.victim.name.clone(), pair.culprit_name().to_owned())), "twice: {pair:?}");
                let (before, began) = self.last.insert(key(pair), (pair.time, *since)).unwrap_or((0, *since));
                assert!(pair.time >= before && *since >= began, "{pair:?} was {before}");
            }
            self.last.retain(|pair, _| sent.iter().any(|sent| key(&sent.pair) == *pair));
            let mut rows: BTreeMap<Key, u64> = BTreeMap::new();
            for ((victim, _), time) in times {
                *rows.entry(party(*victim).key).or_default() += time;
            }
            rows.retain(|_, sum| *sum > 0);
            assert_eq!(sums, rows, "what is sent of a victim is what it waited");
            assert!(sent.iter().filter(|sent| sent.pair.culprit.key != REST).count() <= PAIRS);
        }
    }

    #[test]
    fn the_largest_are_named_and_the_rest_is_summed() {
        let mut times: BTreeMap<(u64, u64), u64> = (1..=400).map(|culprit| ((7, culprit), 1_000_000 + culprit)).collect();
        times.insert((7, 0), 5);
        let (mut pairs, mut receiver) = (Pairs::default(), Receiver::default());
        let sent = pairs.select(&sample(0, &times));
        receiver.check(&times, &sent);
        assert_eq!(sent.len(), PAIRS + 1);
        assert!(sent.iter().all(|sent| sent.pair.culprit.key == REST || sent.pair.time > 1_000_200));
        // One dies, and a newcomer takes its place with what it grew; it begins at the last export.
        let left = times.remove(&(7, 400)).unwrap();
        times.insert((7, GONE), left);
        *times.get_mut(&(7, 1)).unwrap() += 5_000_000;
        let sent = pairs.select(&sample(1, &times));
        receiver.check(&times, &sent);
        let newcomer = sent.iter().find(|sent| sent.pair.culprit.key == Key::v2(1)).unwrap();
        assert_eq!((newcomer.pair.time, newcomer.since), (5_000_000, samples::epoch()));
    }

    #[test]
    fn noise_takes_no_room() {
        let times: BTreeMap<(u64, u64), u64> = [((1, 2), 10_000_000), ((1, 3), 9_000)].into();
        let sent = Pairs::default().select(&sample(0, &times));
        let names: Vec<_> =
            sent.iter().map(|sent| (sent.pair.culprit_name(), sent.pair.culprit_kind(), sent.pair.time)).collect();
        assert_eq!(names, [("/2", "cgroup", 10_000_000), ("~other", "other", 9_000)]);
        assert!(sent.iter().all(|sent| sent.since == samples::epoch() - Duration::from_secs(10)));
    }

    proptest! {
        #[test]
        fn every_series_only_grows_and_nothing_is_lost(
            steps in proptest::collection::vec(proptest::collection::vec((1..6u64, 0..90u64, 0..2_000u64, 0..8u8), 0..120), 1..12)
        ) {
            let mut times = BTreeMap::new();
            let (mut pairs, mut receiver) = (Pairs::default(), Receiver::default());
            for (step, events) in (0..).zip(steps) {
                for (victim, culprit, time, what) in events {
                    if what == 0 && culprit > 0 {
                        // The culprit dies: in every victim's rows its time goes to another.
                        for victim in 1..6 {
                            if let Some(left) = times.remove(&(victim, culprit)) {
                                let heir = if culprit % 2 == 0 { GONE } else { culprit % 7 + 1 };
                                *times.entry((victim, heir)).or_default() += left;
                            }
                        }
                    } else {
                        *times.entry((victim, culprit)).or_default() += time;
                    }
                }
                let sent = pairs.select(&sample(step, &times));
                receiver.check(&times, &sent);
            }
        }
    }
}

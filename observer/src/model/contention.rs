//! Who waited for whom: a pair of a victim and a culprit.

use std::sync::{Arc, LazyLock};

use observer_common::sched::{Key, kind};

use super::{Entity, Kind, Label, Labels, Metric, Paced, Read, Sample, Unit};

/// Time that one's tasks waited while another held the CPU. The rows of one victim sum to its completed waits, and the row with the
/// culprit `~migrated` comes on top. Pairs are leaf × leaf: a cgroup without its descendants.
#[derive(Clone, PartialEq, Debug)]
pub struct Contention {
    /// Who waited.
    pub victim: Party,
    /// Who ran meanwhile, or what else kept the victim waiting.
    pub culprit: Party,
    /// Nanoseconds, cumulative since observer attached.
    pub time: u64,
    /// The part of it that the dead left to this pair, and that was told under their names before.
    pub inherited: u64,
}

/// A cgroup, a process of a cgroup in focus, or one of the names with `~`.
#[derive(Clone, PartialEq, Debug)]
pub struct Party {
    /// The kernel side's key.
    pub key: Key,
    /// The cgroup it is in; the key itself where it is no process.
    pub cgroup: Key,
    /// What the labels say, escaped: `/a.slice`, `/a.slice #123 nginx`, `~idle`.
    pub name: Arc<str>,
}

impl Contention {
    /// What kind of culprit it is: `self`, `cgroup`, `process`, `idle`, `throttled`, `migrated`, `interrupt`, `hypervisor`, `other` or
    /// `unknown`.
    pub fn culprit_kind(&self) -> &'static str {
        if self.culprit.key == self.victim.key {
            return "self";
        }
        match self.culprit.key.kind() {
            kind::ROOT | kind::V2 | kind::CPU | kind::GONE => "cgroup",
            kind::PROCESS => "process",
            kind::IDLE => "idle",
            kind::THROTTLED => "throttled",
            kind::MIGRATED => "migrated",
            kind::INTERRUPT => "interrupt",
            kind::HYPERVISOR => "hypervisor",
            kind::OTHER => "other",
            _ => "unknown",
        }
    }

    /// What was waited under this pair's own names: its growth is the rate.
    pub fn own(&self) -> u64 {
        self.time.saturating_sub(self.inherited)
    }

    /// The culprit as the label has it: `~self` for the victim's own tasks.
    pub fn culprit_name(&self) -> &str {
        if self.culprit.key == self.victim.key { "~self" } else { &self.culprit.name }
    }
}

/// Time lost.
pub static TIME: Metric<Contention> = Metric::new(
    "observer.cpu.contention.time",
    "TIME",
    Unit::Seconds,
    "Time that the victim's tasks waited on a run queue while the culprit held that CPU, in proportion to the overlap. A victim's rows \
     sum to observer.cpu.run_queue.wait.time of its own tasks; what was waited on another queue before a migration (~migrated) is beside it. \
     The total has what the dead left to this pair, the rate has not.",
    Read::Paced(&[Paced { attributes: &[], total: |c| Some(c.time), pace: |c| Some(c.own()) }]),
);

/// In order of importance.
static ALL: &[&Metric<Contention>] = &[&TIME];

impl Entity for Contention {
    const KIND: Kind = Kind::Contention;
    type Key = (Key, Key);

    fn key(&self) -> (Key, Key) {
        (self.victim.key, self.culprit.key)
    }

    fn labels(&self) -> Labels<'_> {
        vec![
            ("victim", Label::Text((*self.victim.name).into())),
            ("culprit", Label::Text(self.culprit_name().into())),
            ("culprit_kind", Label::Text(self.culprit_kind().into())),
        ]
    }

    fn metrics() -> &'static [&'static Metric<Contention>] {
        ALL
    }

    fn of(sample: &Sample) -> &[Contention] {
        &sample.contentions
    }

    /// A pair is there as soon as it waited at all, if the scheduler hook was on.
    fn unborn(then: &Sample) -> Option<&'static Contention> {
        static UNBORN: LazyLock<Contention> = LazyLock::new(|| {
            let nobody = Party { key: Key::UNKNOWN, cgroup: Key::UNKNOWN, name: "~unknown".into() };
            Contention { victim: nobody.clone(), culprit: nobody, time: 0, inherited: 0 }
        });
        then.cgroups.iter().any(|cgroup| cgroup.sched.is_some()).then(|| &*UNBORN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn party(key: Key, name: &str) -> Party {
        Party { key, cgroup: key, name: name.into() }
    }

    #[test]
    fn culprits_by_kind() {
        let a = party(Key::v2(7), "/a");
        let check = |culprit: Party, name: &str, kind: &str| {
            let pair = Contention { victim: a.clone(), culprit, time: 1, inherited: 0 };
            assert_eq!((pair.culprit_name(), pair.culprit_kind()), (name, kind));
        };
        check(a.clone(), "~self", "self");
        check(party(Key::cpu(7), "/a"), "/a", "cgroup");
        check(party(Key::new(kind::PROCESS, 9), "/b #9 x"), "/b #9 x", "process");
        check(party(Key::IDLE, "~idle"), "~idle", "idle");
        check(party(Key::UNKNOWN, "~unknown"), "~unknown", "unknown");
    }
}

//! Which cgroups are split by process: those that somebody looks at, those with processes of a command that somebody watches, the root where
//! everything is in it, and those whose tasks wait most for each other.

use std::collections::HashMap;

use observer_common::sched::{FOCUS, Key};

/// What the choice is made from, once an interval.
#[derive(Debug)]
pub struct Seen<'a> {
    /// How long each cgroup's tasks have waited for tasks of the same cgroup, cumulative nanoseconds.
    pub on_itself: &'a HashMap<Key, u64>,
    /// Whether no other cgroup than the root has run.
    pub only_root_ran: bool,
    /// The interval in nanoseconds.
    pub interval: u64,
}

/// Remembers what was chosen.
#[derive(Default, Debug)]
pub struct Focus {
    asked: Vec<Key>,
    watched: Vec<Key>,
    former: HashMap<Key, u64>,
    /// Cgroups that deserved it, and for how many more intervals they keep it.
    kept: HashMap<Key, u32>,
    /// The same, who waits most on itself first.
    order: Vec<Key>,
}

/// One part in so many of a CPU's time waited for its own tasks, and a cgroup deserves to be split.
const SHARE: u64 = 100;
/// Intervals for which one stays split that no longer deserves it, so that names do not come and go.
const KEPT: u32 = 30;

impl Focus {
    /// What somebody looks at; it comes first, until something else is asked for. Returns the choice, which is otherwise as it was.
    pub fn ask(&mut self, keys: Vec<Key>) -> Vec<Key> {
        self.asked = keys;
        self.chosen()
    }

    /// What is watched all the time; it comes next, until something else is watched. Returns the choice, as [`Focus::ask`] does.
    pub fn watch(&mut self, keys: Vec<Key>) -> Vec<Key> {
        self.watched = keys;
        self.chosen()
    }

    /// The choice: at most [`FOCUS`] cgroups.
    pub fn choose(&mut self, seen: &Seen<'_>) -> Vec<Key> {
        let grown = |key: &Key| seen.on_itself.get(key).map_or(0, |now| now - self.former.get(key).unwrap_or(&0).min(now));
        for left in self.kept.values_mut() {
            *left -= 1;
        }
        self.kept.retain(|_, left| *left > 0);
        for key in seen.on_itself.keys().filter(|key| grown(key) * SHARE >= seen.interval) {
            self.kept.insert(*key, KEPT);
        }
        if seen.only_root_ran {
            self.kept.insert(Key::ROOT, KEPT);
        }
        let mut order: Vec<_> = self.kept.keys().copied().collect();
        order.sort_by_key(|key| (std::cmp::Reverse(grown(key)), *key));
        self.order = order;
        self.former.clone_from(seen.on_itself);
        self.chosen()
    }

    fn chosen(&self) -> Vec<Key> {
        let mut chosen = self.asked.clone();
        for key in self.watched.iter().chain(&self.order) {
            if !chosen.contains(key) {
                chosen.push(*key);
            }
        }
        chosen.truncate(FOCUS);
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Key = Key::v2(10);
    const B: Key = Key::v2(11);
    const C: Key = Key::v2(12);
    const SECOND: u64 = 1_000_000_000;

    fn choose(focus: &mut Focus, on_itself: &[(Key, u64)], only_root_ran: bool) -> Vec<Key> {
        let on_itself = on_itself.iter().copied().collect();
        focus.choose(&Seen { on_itself: &on_itself, only_root_ran, interval: SECOND })
    }

    #[test]
    fn who_waits_for_its_own_is_split() {
        let mut focus = Focus::default();
        assert_eq!(choose(&mut focus, &[(A, SECOND / 2), (B, SECOND / 1000)], false), [A]);
        assert_eq!(choose(&mut focus, &[(A, SECOND), (B, 2 * SECOND)], false), [B, A]);
        for _ in 1..KEPT {
            assert_eq!(choose(&mut focus, &[(A, SECOND), (B, 2 * SECOND)], false).len(), 2, "for a while");
        }
        assert!(choose(&mut focus, &[(A, SECOND), (B, 2 * SECOND)], false).is_empty());
    }

    #[test]
    fn what_somebody_looks_at_comes_first() {
        let mut focus = Focus::default();
        assert_eq!(focus.ask(vec![B]), [B]);
        assert_eq!(choose(&mut focus, &[(A, SECOND), (B, SECOND)], false), [B, A]);
        assert_eq!(focus.ask(Vec::new()), [A, B], "both deserved it");
        let many: Vec<_> = (0..100).map(|id| (Key::v2(100 + id), (id + 1) * SECOND)).collect();
        assert_eq!(choose(&mut focus, &many, false).len(), FOCUS);
    }

    #[test]
    fn what_is_watched_comes_after_what_somebody_looks_at() {
        let mut focus = Focus::default();
        assert_eq!(focus.watch(vec![B, C]), [B, C]);
        assert_eq!(choose(&mut focus, &[(A, SECOND), (B, SECOND)], false), [B, C, A]);
        assert_eq!(focus.ask(vec![C]), [C, B, A]);
        assert_eq!(focus.watch(Vec::new()), [C, A, B], "both deserved it");
    }

    #[test]
    fn the_root_where_everything_is_in_it() {
        assert_eq!(choose(&mut Focus::default(), &[], true), [Key::ROOT]);
    }
}

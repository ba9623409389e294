//! What the records of all tasks tell of waits that go on, and of the kernel's own sum. Pure.

use std::collections::HashMap;

use observer_common::sched::Key;
use observer_common::tasks::{TASK_DEAD, Task};

use super::tasks::Has;
use crate::model::Open;

/// The waits that go on.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Waits {
    /// By cgroup.
    pub cgroups: HashMap<Key, Open>,
    /// By the CPU on whose queue they are.
    pub cpus: HashMap<u32, Open>,
}

/// The waits that go on.
pub fn waits(tasks: &[Task], has: Has) -> Waits {
    let mut waits = Waits::default();
    for task in tasks {
        let Some(pending) = task.pending() else { continue };
        let throttled = if task.throttled_since == 0 { 0 } else { task.since(task.throttled_since.max(task.last_queued)) };
        let more = Open { run: 0, wait: Some(pending), throttled: has.throttled.then_some(throttled) };
        let nothing = Open { run: 0, wait: Some(0), throttled: has.throttled.then_some(0) };
        waits.cgroups.entry(Key(task.key)).or_insert(nothing).add(&more);
        waits.cpus.entry(task.cpu).or_insert(nothing).add(&more);
    }
    waits
}

/// The sum of `run_delay` over all that live (the scheduler hook knows of the dead); `None` when there are no records.
pub fn delay(tasks: &[Task]) -> Option<u64> {
    if tasks.is_empty() {
        return None;
    }
    Some(tasks.iter().filter(|task| task.state & TASK_DEAD == 0).map(|task| task.run_delay).sum())
}

#[cfg(test)]
mod tests {
    use observer_common::pod;

    use super::*;

    const A: Key = Key::v2(10);

    fn waiting(clock: u64, last_queued: u64, throttled_since: u64) -> Task {
        Task { key: A.0, clock, last_queued, throttled_since, run_delay: 7, ..pod::zeroed() }
    }

    #[test]
    fn waits_of_a_cgroup_and_of_a_cpu_add_up() {
        let has = Has { migrations: true, throttled: true };
        let running = Task { on_cpu: 1, ..waiting(100, 40, 0) };
        let tasks =
            [waiting(100, 40, 0), waiting(100, 90, 30), waiting(100, 20, 30), waiting(100, 0, 0), running, waiting(5, 9, 0)];
        let expected = Open { run: 0, wait: Some(60 + 10 + 80), throttled: Some(10 + 70) };
        assert_eq!(waits(&tasks, has), Waits { cgroups: HashMap::from([(A, expected)]), cpus: HashMap::from([(0, expected)]) });
        let open = waits(&tasks, Has { throttled: false, ..has }).cgroups[&A];
        assert_eq!(open.throttled, None, "this kernel does not tell");
    }

    #[test]
    fn the_dead_are_counted_by_the_hook() {
        let dead = Task { state: TASK_DEAD, ..waiting(1, 0, 0) };
        assert_eq!(delay(&[waiting(1, 0, 0), dead, waiting(1, 0, 0)]), Some(14));
        assert_eq!(delay(&[]), None);
    }
}

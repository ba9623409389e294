//! CPUs that a task of real-time priority keeps from ordinary tasks, from what the records of all tasks tell. Pure.

use std::collections::BTreeMap;

use observer_common::tasks::{Task, comm_bytes};

use crate::model::cpu::{Class, Starved};
use crate::model::text::escape_padded;

/// `MAX_RT_PRIO`: from here on a priority is an ordinary one (include/linux/sched/prio.h).
const ORDINARY: u32 = 100;

/// The CPUs, ascending, that are held by a task of real-time priority while ordinary ones wait for them. Tasks that a quota stops do not
/// wait for anybody.
pub fn starved(tasks: &[Task]) -> Vec<Starved> {
    let mut held: BTreeMap<u32, Starved> = BTreeMap::new();
    for task in tasks.iter().filter(|task| task.on_cpu != 0) {
        let Some(class) = class(task) else { continue };
        let time = task.since(task.last_arrival);
        // Records are made one after the other: two tasks may seem to hold one CPU.
        if task.last_arrival == 0 || held.get(&task.cpu).is_some_and(|other| other.held >= time) {
            continue;
        }
        let comm = escape_padded(&comm_bytes(task.comm)).into();
        held.insert(
            task.cpu,
            Starved { cpu: task.cpu, tid: task.pid, comm, class, held: time, waiting: 0, longest: 0, limit: None },
        );
    }
    if held.is_empty() {
        return Vec::new();
    }
    for task in tasks.iter().filter(|task| class(task).is_none() && task.throttled_since == 0) {
        if let (Some(wait), Some(starved)) = (task.pending(), held.get_mut(&task.cpu)) {
            starved.waiting += 1;
            starved.longest = starved.longest.max(wait);
        }
    }
    held.into_values().filter(|starved| starved.waiting > 0).collect()
}

/// The class whose priority a task has; `None` of ordinary ones.
fn class(task: &Task) -> Option<Class> {
    match task.prio {
        0..ORDINARY => Some(Class::RealTime),
        prio if prio.cast_signed() < 0 => Some(Class::Deadline),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use observer_common::pod;

    use super::*;

    fn runs(cpu: u32, prio: i32, arrival: u64) -> Task {
        let comm = [u64::from_ne_bytes(*b"chr\x1bny\0\0"), 0];
        let prio = prio.cast_unsigned();
        Task { pid: 123, cpu, prio, on_cpu: 1, comm, clock: 1_000, last_arrival: arrival, ..pod::zeroed() }
    }

    fn waits(cpu: u32, prio: u32, queued: u64, throttled_since: u64) -> Task {
        Task { cpu, prio, clock: 1_000, last_queued: queued, throttled_since, ..pod::zeroed() }
    }

    #[test]
    fn ordinary_tasks_behind_a_real_time_one() {
        let tasks = [
            waits(1, 120, 400, 0),
            waits(1, 139, 900, 0),
            waits(1, 100, 0, 0),
            waits(1, 120, 100, 50),
            waits(1, 98, 50, 0),
            runs(1, 49, 300),
            runs(1, 9, 0),
            waits(0, 120, 400, 0),
            runs(0, 120, 300),
            runs(2, 9, 100),
            runs(3, -1, 100),
            waits(3, 120, 800, 0),
        ];
        let expected = |cpu, class, held, waiting, longest| Starved {
            cpu,
            tid: 123,
            comm: r"chr\x1bny".into(),
            class,
            held,
            waiting,
            longest,
            limit: None,
        };
        assert_eq!(starved(&tasks), [expected(1, Class::RealTime, 700, 2, 600), expected(3, Class::Deadline, 900, 1, 200)]);
        assert!(starved(&[]).is_empty());
    }
}

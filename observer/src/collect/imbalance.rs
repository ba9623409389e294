//! CPU time that stood idle while tasks waited on other CPUs, from polls of the run queues. Pure: what the queues and the waiting tasks are,
//! others read.
//!
//! A poll sees, without a system call, how long each CPU's queue was at its last switch. Two things are wrong with that, and are put right:
//! whoever polls runs on one of the CPUs, nearly always one that would idle otherwise; and a queue that a task was pulled from stays
//! as long as it was until its CPU switches again. So the poller takes itself out of its queue, and a length counts where the CPU
//! has switched since the last poll, as it does every few milliseconds where tasks of the fair class wait. Where it has not (a real-time
//! task holds it, or nobody waits any more), no more tasks count than the task iterator saw waiting there.

use std::collections::HashMap;
use std::time::Duration;

use observer_common::tasks::Task;

use crate::model::Imbalance;

/// Waiting tasks that are asked for their affinity after one reading, those that wait longest first: each costs a file.
const MOST_ASKED: usize = 16;

/// A CPU's run queue at its last switch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Queue {
    /// Tasks that run or could; 0 where it idles.
    pub(super) length: u64,
    /// The run queue's clock then: 0 before the first switch that was seen, and another number after each.
    pub(super) since: u64,
}

/// What the polls found so far.
#[derive(Default, Debug)]
pub(super) struct Balance {
    total: Imbalance,
    /// By CPU: the last switch that a poll saw.
    switched: Vec<u64>,
    /// By CPU: the tasks that waited there when they were last read.
    waiting: HashMap<u32, Waiting>,
    /// Whether a poll saw a CPU idle since then.
    has_idled: bool,
}

/// The tasks that waited on one CPU.
#[derive(Default, Debug)]
struct Waiting {
    count: u64,
    /// The CPUs allowed to each of those that were asked, ascending.
    allowed: Vec<Vec<u32>>,
}

impl Balance {
    /// Nanoseconds, cumulative.
    pub(super) fn total(&self) -> Imbalance {
        self.total
    }

    /// Takes in what the queues are now, which stands for so much time: `online` are the CPUs that are on, ascending, and `here` is the one
    /// that this runs on.
    pub(super) fn poll(&mut self, online: &[u32], here: usize, queue: impl Fn(u32) -> Queue, time: Duration) {
        let mut idle = Vec::new();
        let mut waits = Vec::new();
        for &cpu in online {
            let Queue { length, since } = queue(cpu);
            if since == 0 {
                continue;
            }
            let at = cpu as usize;
            if self.switched.len() <= at {
                self.switched.resize(at + 1, 0);
            }
            let is_fresh = std::mem::replace(&mut self.switched[at], since) != since;
            let Some(waiting) = length.saturating_sub(u64::from(at == here)).checked_sub(1) else {
                idle.push(cpu);
                continue;
            };
            let known = || self.waiting.get(&cpu).map_or(0, |waiting| waiting.count);
            let count = if is_fresh { waiting } else { waiting.min(known()) };
            if count > 0 {
                waits.push((cpu, count));
            }
        }
        self.has_idled |= !idle.is_empty();
        if !idle.is_empty() && !waits.is_empty() {
            self.total.add(&divided(&idle, &waits, &self.waiting, time));
        }
    }

    /// Takes in who waits, after a reading of all tasks. `affinity` gives the CPUs allowed to a thread, ascending; it is asked only if the polls
    /// since the last reading saw an idle CPU.
    pub(super) fn read(&mut self, tasks: &[Task], mut affinity: impl FnMut(u32) -> Option<Vec<u32>>) {
        self.waiting.clear();
        // Who is throttled is in no queue.
        let waits = |task: &&Task| task.throttled_since == 0 && task.pending().is_some();
        let mut waiting: Vec<&Task> = tasks.iter().filter(waits).collect();
        waiting.sort_by_key(|task| std::cmp::Reverse(task.pending()));
        let asked = if std::mem::take(&mut self.has_idled) { MOST_ASKED } else { 0 };
        for (at, task) in waiting.into_iter().enumerate() {
            let there = self.waiting.entry(task.cpu).or_default();
            there.count += 1;
            if at < asked {
                there.allowed.extend(affinity(task.pid));
            }
        }
    }
}

/// The imbalance of one poll. `idle` are the CPUs that idle, ascending, `waits` the numbers of tasks that wait on others.
///
/// Of those that wait on a CPU as many may run on an idle one as of those asked there. First come those that may, each with an idle CPU of
/// theirs, then those of whom nobody knows: so what counts as pinned is.
fn divided(idle: &[u32], waits: &[(u32, u64)], known: &HashMap<u32, Waiting>, time: Duration) -> Imbalance {
    let idles = |cpu: &u32| idle.binary_search(cpu).is_ok();
    let (mut allowed, mut unknown) = (0.0, 0.0);
    let mut lists = Vec::new();
    for (cpu, count) in waits {
        let count = *count as f64;
        match known.get(cpu).map_or(&[][..], |waiting| &waiting.allowed) {
            [] => unknown += count,
            asked => {
                let before = lists.len();
                lists.extend(asked.iter().filter(|list| list.iter().any(idles)));
                allowed += count * (lists.len() - before) as f64 / asked.len() as f64;
            }
        }
    }
    let usable = idle.iter().filter(|cpu| lists.iter().any(|list| list.binary_search(cpu).is_ok())).count();
    let all = (idle.len() as u64).min(waits.iter().map(|(_, count)| count).sum());
    let allowed = allowed.min(usable as f64).min(all as f64);
    let unknown = unknown.min(all as f64 - allowed);
    let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let part = |cpus: f64| (cpus * time as f64) as u64;
    let (whole, allowed, unknown) = (all.saturating_mul(time), part(allowed), part(unknown));
    Imbalance { allowed, unknown, pinned: whole.saturating_sub(allowed + unknown) }
}

#[cfg(test)]
mod tests {
    use observer_common::pod;

    use super::*;

    const TIME: Duration = Duration::from_nanos(100);

    /// Polls CPUs whose queues are so long, each having switched at that time, from a CPU beyond them.
    fn poll(balance: &mut Balance, lengths: &[u64], switched: u64) -> [u64; 3] {
        let before = balance.total();
        let online: Vec<u32> = (0..).take(lengths.len()).collect();
        balance.poll(&online, 99, |cpu| Queue { length: lengths[cpu as usize], since: switched }, TIME);
        let Imbalance { allowed, pinned, unknown } = balance.total();
        [allowed - before.allowed, pinned - before.pinned, unknown - before.unknown]
    }

    fn waiter(pid: u32, cpu: u32, waited: u64) -> Task {
        Task { pid, cpu, clock: 1000, last_queued: 1000 - waited, ..pod::zeroed() }
    }

    #[test]
    fn no_more_than_idle_cpus_and_no_more_than_waiting_tasks() {
        let check = |lengths: &[u64], expected| {
            assert_eq!(poll(&mut Balance::default(), lengths, 7), [0, 0, expected], "{lengths:?}");
        };
        check(&[2, 0], 100);
        check(&[5, 0], 100);
        check(&[2, 0, 0, 0], 100);
        check(&[3, 2, 0, 0, 0, 0], 300);
        check(&[1, 0], 0);
        check(&[2, 1], 0);
        check(&[0, 0], 0);
        check(&[2], 0);
    }

    #[test]
    fn who_polls_takes_itself_out_of_its_queue() {
        let check = |here, lengths: [u64; 2], expected| {
            let mut balance = Balance::default();
            balance.poll(&[0, 1], here, |cpu| Queue { length: lengths[cpu as usize], since: 7 }, TIME);
            assert_eq!(balance.total().unknown, expected, "{lengths:?} from {here}");
        };
        check(1, [2, 1], 100);
        check(1, [2, 2], 0);
        check(0, [2, 0], 0);
        check(0, [3, 0], 100);
        // Its own switch was not reported.
        check(1, [2, 0], 100);
    }

    #[test]
    fn only_cpus_that_are_on_and_were_seen_to_switch() {
        let mut balance = Balance::default();
        let queue = |cpu: u32| Queue { length: if cpu == 0 { 2 } else { 0 }, since: if cpu == 3 { 0 } else { 7 } };
        balance.poll(&[0, 2, 3], 99, queue, TIME);
        assert_eq!(balance.total(), Imbalance { unknown: 100, ..Imbalance::default() }, "1 is off, 3 may run anything");
    }

    #[test]
    fn an_old_length_counts_as_far_as_tasks_were_seen_to_wait() {
        let mut balance = Balance::default();
        assert_eq!(poll(&mut balance, &[3, 0, 0], 7), [0, 0, 200]);
        assert_eq!(poll(&mut balance, &[3, 0, 0], 7), [0; 3], "no switch since: they may have been pulled away");
        balance.read(&[waiter(1, 0, 10), waiter(2, 5, 10)], |_| None);
        assert_eq!(poll(&mut balance, &[3, 0, 0], 7), [0, 0, 100], "one waits behind somebody who does not leave");
        assert_eq!(poll(&mut balance, &[3, 0, 0], 8), [0, 0, 200]);
    }

    #[test]
    fn why_by_the_affinity_of_who_waits() {
        let check = |lengths: &[u64], waiters: &[(u32, &[u32])], expected| {
            let mut balance = Balance { has_idled: true, ..Balance::default() };
            let tasks: Vec<_> = (0..).zip(waiters).map(|(pid, (cpu, _))| waiter(pid, *cpu, 10)).collect();
            balance.read(&tasks, |pid| Some(waiters[pid as usize].1.to_vec()).filter(|list| !list.is_empty()));
            assert_eq!(poll(&mut balance, lengths, 7), expected, "{lengths:?}, {waiters:?}");
        };
        check(&[2, 0], &[(0, &[0])], [0, 100, 0]);
        check(&[2, 0], &[(0, &[0, 1])], [100, 0, 0]);
        check(&[2, 0, 1], &[(0, &[0, 2])], [0, 100, 0]);
        check(&[2, 0], &[(0, &[])], [0, 0, 100]);
        check(&[2, 0], &[(1, &[0, 1])], [0, 0, 100]);
        // One idle CPU is enough for the one who may.
        check(&[3, 0], &[(0, &[0]), (0, &[0, 1])], [100, 0, 0]);
        // All may, but only to one of the idle CPUs.
        check(&[3, 0, 0], &[(0, &[0, 1]), (0, &[0, 1])], [100, 100, 0]);
        // Half of those asked may, hence one and a half of three.
        check(&[4, 0, 0, 0], &[(0, &[0]), (0, &[0, 1, 2, 3])], [150, 150, 0]);
        // Nobody knows of the one on CPU 1.
        check(&[2, 2, 0, 0], &[(0, &[0, 1])], [0, 100, 100]);
    }

    #[test]
    fn the_longest_waits_are_asked_and_only_beside_idle_cpus() {
        let throttled = Task { throttled_since: 5, ..waiter(90, 0, 999) };
        let running = Task { on_cpu: 1, ..waiter(91, 0, 999) };
        let mut tasks = vec![throttled, running];
        tasks.extend((0..20).map(|pid| waiter(pid, 0, u64::from(pid))));
        let mut balance = Balance::default();
        let asked = |balance: &mut Balance| {
            let mut asked = Vec::new();
            balance.read(&tasks, |pid| {
                asked.push(pid);
                None
            });
            asked
        };
        assert_eq!(asked(&mut balance), [0; 0]);
        assert_eq!(balance.waiting[&0].count, 20, "who is throttled and who runs do not wait");
        poll(&mut balance, &[2, 1], 6);
        assert_eq!(asked(&mut balance), [0; 0]);
        poll(&mut balance, &[2, 0], 7);
        assert_eq!(asked(&mut balance), (4..20).rev().collect::<Vec<u32>>());
        assert_eq!(asked(&mut balance), [0; 0], "nothing since");
    }
}

//! From what was seen of threads at moments to rows whose counters only grow. Pure.
//!
//! **Threads die, their process's counters must not.** The kernel keeps what released threads did (`signal_struct`) of run time, CPU time
//! and switches: with it a process's number is exact, threads that nobody ever saw included. Nothing is locked while the records are made, so
//! that a thread that dies meanwhile may be in neither or, were it not for taking the kernel's sums from the first record of the process, in
//! both; in the former case the number stays where it was until the next reading. Waits and migrations of the dead are kept nowhere: there
//! the process adds up how its threads grow, and what a thread did between the last reading and its death is missing, as are the threads that
//! nobody saw. From `/proc` all counters are made like that.
//!
//! A thread that calls `exec` while it is not the first of its process takes the first one's place and id, with its own counters: that
//! thread's numbers may step back, and then have no rate.

use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::ids::Map;
use super::seen::Seen;
use crate::model::text::escape_padded;
use crate::model::{Counts, Identity, Process, Status, Thread};

/// How many new processes' command lines are read at the most in one reading: 10 ms or so.
const LOOKS: usize = 512;

/// What was known of threads and processes at the last reading.
#[derive(Debug, Default)]
pub struct Accounts {
    /// Number of the reading, so that who is gone can be told.
    round: u64,
    threads: Map<Id, ThreadAccount>,
    processes: Map<Id, ProcessAccount>,
}

/// An id and a start.
type Id = (u32, u64);

/// Where names come from.
pub trait Names {
    /// The command line of a process, escaped; `None` when it has none or is gone.
    fn command(&mut self, pid: u32) -> Option<String>;
    /// The name of a user, escaped, or its number.
    fn user(&mut self, uid: u32) -> String;
    /// The path of the cgroup in which a thread was seen.
    fn cgroup(&self, seen: &Seen) -> Option<Arc<str>>;
}

#[derive(Debug)]
struct ThreadAccount {
    round: u64,
    last: Counts,
    split: Split,
    name: Name,
}

#[derive(Debug)]
struct ProcessAccount {
    round: u64,
    /// What is shown: never less than before.
    counts: Counts,
    split: Split,
    name: Name,
    /// The name that it had when its command line was read: another one means that it has become another program since.
    looked: Option<[u8; 16]>,
    uid: Option<u32>,
    identity: Arc<Identity>,
    now: Now,
}

/// What the records of this reading add up to.
#[derive(Debug, Default)]
struct Now {
    ppid: u32,
    threads: u64,
    status: Option<Status>,
    pending: Option<u64>,
    cgroup: Option<Arc<str>>,
    dead: Option<Counts>,
    alive: Counts,
}

impl Accounts {
    /// One reading, in which each thread occurs once: the rows of processes and threads, ascending by key.
    pub fn update(&mut self, seen: &[Seen], names: &mut dyn Names) -> (Vec<Process>, Vec<Thread>) {
        self.round += 1;
        let mut looks = LOOKS;
        let mut threads = Vec::with_capacity(seen.len());
        for seen in seen {
            threads.push(self.thread(seen, &mut looks, names));
        }
        let round = self.round;
        self.threads.retain(|_, thread| thread.round == round);
        self.processes.retain(|_, process| process.round == round);
        let mut processes: Vec<Process> = self.processes.iter_mut().map(|(id, process)| process.row(*id)).collect();
        processes.sort_unstable_by_key(|process| (process.pid, process.start));
        threads.sort_by_key(|thread| (thread.tid, thread.start));
        (processes, threads)
    }

    fn thread(&mut self, seen: &Seen, looks: &mut usize, names: &mut dyn Names) -> Thread {
        let cgroup = names.cgroup(seen);
        let round = self.round;
        let process = self.processes.entry((seen.pid, seen.leader_start)).or_insert_with(|| ProcessAccount::new(seen));
        process.meet(round, seen, cgroup.as_ref());
        if seen.tid == seen.pid {
            process.identify(seen, looks, names);
        }
        let thread = match self.threads.entry((seen.tid, seen.start)) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let last = Counts::default();
                entry.insert(ThreadAccount { round, last, split: Split::default(), name: Name::new(seen.comm) })
            }
        };
        thread.round = round;
        process.add(seen, &thread.last);
        thread.last = seen.counts;
        let mut counts = seen.counts;
        if seen.dead.is_some() {
            thread.split.divide(&mut counts);
        }
        Thread {
            tid: seen.tid,
            pid: seen.pid,
            start: seen.start,
            comm: thread.name.shown(seen.comm),
            identity: process.identity.clone(),
            cgroup,
            status: seen.status,
            counts,
            pending: seen.pending,
        }
    }
}

impl ProcessAccount {
    fn new(seen: &Seen) -> ProcessAccount {
        ProcessAccount {
            round: 0,
            counts: Counts::default(),
            split: Split::default(),
            name: Name::new(seen.comm),
            looked: None,
            uid: None,
            identity: Arc::default(),
            now: Now::default(),
        }
    }

    /// Begins a reading with the first record of the process, and takes from the first thread's what the process is called and where it is.
    fn meet(&mut self, round: u64, seen: &Seen, cgroup: Option<&Arc<str>>) {
        let is_first = self.round != round;
        if is_first {
            self.round = round;
            self.now = Now { dead: seen.dead, ..Now::default() };
        }
        if is_first || seen.tid == seen.pid {
            self.now.ppid = seen.ppid;
            self.now.cgroup = cgroup.cloned();
            self.name.shown(seen.comm);
        }
    }

    /// Adds one thread's record, given what the thread had at the last reading.
    fn add(&mut self, seen: &Seen, last: &Counts) {
        let now = &mut self.now;
        now.threads += 1;
        now.status = now.status.into_iter().chain(seen.status).min();
        now.pending = plus(now.pending, seen.pending);
        now.alive = each(now.alive, seen.counts, plus);
        // Growth since the last reading; all of it for a thread that is new.
        let grown = each(seen.counts, *last, |is, was| Some(is?.saturating_sub(was.unwrap_or(0))));
        self.counts = Counts {
            wait: plus(self.counts.wait, grown.wait),
            migrations: plus(self.counts.migrations, grown.migrations),
            ..if now.dead.is_some() { self.counts } else { each(self.counts, grown, plus) }
        };
    }

    /// Reads the command line when it is new or has changed its name, as `exec` makes it.
    fn identify(&mut self, seen: &Seen, looks: &mut usize, names: &mut dyn Names) {
        let must_look = !seen.is_kernel && self.looked != Some(seen.comm) && *looks > 0;
        if !must_look && self.uid == seen.uid {
            return;
        }
        let mut identity = Identity::clone(&self.identity);
        if must_look {
            *looks -= 1;
            self.looked = Some(seen.comm);
            // What ended has no command line any more; what it was stays known.
            identity.command = names.command(seen.pid).or(identity.command);
        }
        self.uid = seen.uid;
        identity.user = seen.uid.map(|uid| names.user(uid));
        self.identity = Arc::new(identity);
    }

    /// The row, once all records were added.
    fn row(&mut self, (pid, start): Id) -> Process {
        let now = std::mem::take(&mut self.now);
        let mut counts = self.counts;
        if let Some(dead) = now.dead {
            let all = each(now.alive, dead, plus);
            // CPU time by mode is divided below, from the ticks of all threads together.
            let (user, system) = (all.user, all.system);
            let known = Counts { wait: None, migrations: None, ..all };
            self.counts = each(self.counts, known, Ord::max);
            counts = Counts { user, system, ..self.counts };
            self.split.divide(&mut counts);
        }
        Process {
            pid,
            start,
            ppid: now.ppid,
            comm: self.name.escaped.clone(),
            identity: self.identity.clone(),
            cgroup: now.cgroup,
            status: now.status,
            threads: now.threads,
            counts,
            pending: now.pending,
        }
    }
}

/// Applies an operation to each counter of two.
fn each(a: Counts, b: Counts, apply: impl Fn(Option<u64>, Option<u64>) -> Option<u64>) -> Counts {
    Counts {
        run: apply(a.run, b.run),
        wait: apply(a.wait, b.wait),
        user: apply(a.user, b.user),
        system: apply(a.system, b.system),
        preempted: apply(a.preempted, b.preempted),
        voluntary: apply(a.voluntary, b.voluntary),
        migrations: apply(a.migrations, b.migrations),
    }
}

/// The sum of what is known.
fn plus(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    a.into_iter().chain(b).reduce(u64::saturating_add)
}

/// CPU time by mode as it was shown: neither part may go back.
#[derive(Clone, Copy, Default, Debug)]
struct Split {
    user: u64,
    system: u64,
}

impl Split {
    /// Turns user and system time as ticks sampled them into parts of the exact run time, as the kernel does for `/proc`
    /// (`cputime_adjust`).
    fn divide(&mut self, counts: &mut Counts) {
        let (Some(run), Some(user), Some(system)) = (counts.run, counts.user, counts.system) else { return };
        if run > self.user + self.system {
            let part = u128::from(run) * u128::from(system) / (u128::from(user) + u128::from(system)).max(1);
            let mut system = u64::try_from(part).unwrap_or(run).max(self.system).min(run);
            let mut user = run - system;
            if user < self.user {
                user = self.user;
                system = run - user;
            }
            *self = Split { user, system };
        }
        (counts.user, counts.system) = (Some(self.user), Some(self.system));
    }
}

/// A name as the kernel has it, and as it is shown; kept, since it hardly ever changes.
#[derive(Debug)]
struct Name {
    raw: [u8; 16],
    escaped: Arc<str>,
}

impl Name {
    fn new(raw: [u8; 16]) -> Name {
        Name { raw, escaped: escape_padded(&raw).into() }
    }

    fn shown(&mut self, raw: [u8; 16]) -> Arc<str> {
        if raw != self.raw {
            *self = Name::new(raw);
        }
        self.escaped.clone()
    }
}

#[cfg(test)]
mod tests;

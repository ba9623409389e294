//! Threads and processes as a source: the task iterator where it can be used, else `/proc`; then what names them, and the accounts.

pub mod accounts;
pub(super) mod ids;
pub mod seen;

use std::sync::Arc;
use std::time::{Duration, Instant};

use observer_common::sched::Key;

use self::accounts::Accounts;
use self::ids::Map;
use self::seen::{Place, Seen};
use super::Roots;
use super::bpf::tasks::Tasks;
use super::cgroup::Listing;
use super::proc::names::Names;
use super::proc::tasks::Threads;
use crate::model::{Process, Source, State, Thread};

/// `PROC_PID_INIT_INO`: the number of the initial PID namespace.
const INITIAL_NAMESPACE: &str = "pid:[4026531836]";

/// The first process, and its first thread.
const FIRST: u32 = 1;

/// All threads, from wherever they can be had.
#[derive(Debug)]
pub(super) struct TaskSource {
    roots: Roots,
    threads: Threads,
    seen: Vec<Seen>,
    accounts: Accounts,
    known: Known,
    state: State,
    duration: Duration,
}

impl TaskSource {
    /// Opens nothing yet.
    pub(super) fn new(roots: &Roots) -> TaskSource {
        TaskSource {
            roots: roots.clone(),
            threads: Threads::new(roots),
            seen: Vec::new(),
            accounts: Accounts::default(),
            known: Known { names: Names::new(roots), paths: Map::default() },
            state: State::Off("not read yet".into()),
            duration: Duration::ZERO,
        }
    }

    /// Looks at all threads, with the iterator unless there is none for the given reason.
    pub(super) fn read(&mut self, iterator: Result<&mut Tasks, String>) {
        let began = Instant::now();
        self.state = match self.iterate(iterator) {
            Ok(()) => State::On,
            Err(reason) => match self.threads.read(&mut self.seen) {
                Ok(()) => State::Degraded(format!(
                    "read from /proc, which is slow and tells neither pending waits nor migrations: {reason}"
                )),
                Err(error) => State::Off(format!("{error}; {reason}")),
            },
        };
        self.duration = began.elapsed();
    }

    fn iterate(&mut self, iterator: Result<&mut Tasks, String>) -> Result<(), String> {
        let iterator = iterator?;
        in_initial_namespace(&self.roots)?;
        let has = iterator.has();
        let records = iterator.read().map_err(|error| format!("the task iterator cannot be read: {error}"))?;
        self.seen.clear();
        self.seen.extend(records.iter().map(|task| Seen::of(task, has)));
        if records.first().is_none_or(|task| task.pid != FIRST) {
            // Some kernels hide what they protect from programs: seen on that of our CI, for the machine's first process.
            self.threads.process(FIRST, &mut self.seen);
        }
        Ok(())
    }

    /// The rows of what was read, given the cgroups as they are now.
    pub(super) fn rows(&mut self, listing: &Listing) -> (Vec<Process>, Vec<Thread>) {
        let began = Instant::now();
        self.known.list(listing);
        let rows = self.accounts.update(&self.seen, &mut self.known);
        self.seen.clear();
        self.duration += began.elapsed();
        rows
    }

    /// Its row of health.
    pub(super) fn source(&self) -> Source {
        Source { name: "tasks", state: self.state.clone(), duration: Some(self.duration), dropped: 0 }
    }
}

/// An error outside the initial PID namespace: there the iterator shows only the threads inside, under numbers that nothing else there uses.
pub(super) fn in_initial_namespace(roots: &Roots) -> Result<(), String> {
    match std::fs::read_link(roots.proc.join("self/ns/pid")) {
        Ok(name) if name.as_os_str() != INITIAL_NAMESPACE => {
            Err("the task iterator sees only the PID namespace in which observer runs; give it the host's (hostPID)".into())
        }
        _ => Ok(()),
    }
}

/// What names tasks.
#[derive(Debug)]
struct Known {
    names: Names,
    paths: Map<Key, Arc<str>>,
}

impl Known {
    /// Keeps the paths of the listed cgroups; those that did not change keep their memory, which all rows share.
    fn list(&mut self, listing: &Listing) {
        if self.paths.len() > 2 * listing.groups.len() {
            self.paths.clear();
        }
        for group in &listing.groups {
            let path = self.paths.entry(group.key).or_insert_with(|| Arc::clone(&group.path));
            if *path != group.path {
                *path = Arc::clone(&group.path);
            }
        }
    }
}

impl accounts::Names for Known {
    fn command(&mut self, pid: u32) -> Option<String> {
        self.names.command(pid)
    }

    fn user(&mut self, uid: u32) -> String {
        self.names.user(uid)
    }

    fn cgroup(&self, seen: &Seen) -> Option<Arc<str>> {
        match &seen.place {
            Place::Key(key) => self.paths.get(key).cloned(),
            Place::Path(path) => Some(path.clone()),
            Place::Unknown => None,
        }
    }
}

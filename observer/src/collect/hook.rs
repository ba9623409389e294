//! The scheduler hook as a source: attached or not and why, its tables turned and added up.

use std::sync::Arc;
use std::time::Duration;

use observer_common::sched::Key;
use observer_common::tasks::Task;

use super::Roots;
use super::bpf::accounts::Accounts;
use super::bpf::loader::Programs;
use super::bpf::tasks::Tasks;
use super::cgroup::Listing;
use crate::model::{Sched, Source, State};

/// The hook, or why there is none.
#[derive(Debug)]
pub(super) enum Hook {
    On(Box<Attached>),
    Off(String),
}

#[derive(Debug)]
pub(super) struct Attached {
    programs: Programs,
    accounts: Accounts,
    trouble: Option<String>,
}

impl Hook {
    pub(super) fn off(reason: &str) -> Hook {
        Hook::Off(reason.into())
    }

    /// Loads and attaches for the CPUs that are on.
    pub(super) fn attach(roots: &Roots, online: &[u32]) -> Hook {
        let Some(highest) = online.iter().max() else {
            let path = roots.sys.join("devices/system/cpu/online");
            return Hook::Off(format!("cannot tell the CPUs: {} gives none", path.display()));
        };
        match Programs::load(roots, highest + 1) {
            Ok(programs) => {
                let accounts = Accounts::new(programs.sched.cpus(), programs.zero.clone());
                Hook::On(Box::new(Attached { programs, accounts, trouble: None }))
            }
            Err(error) => {
                tracing::warn!("the scheduler hook is off: {error}");
                Hook::Off(error.to_string())
            }
        }
    }

    pub(super) fn without_barrier(&mut self) {
        if let Hook::On(on) = self {
            on.programs.sched.without_barrier();
        }
    }

    /// Ends a generation of the tables.
    pub(super) fn turn(&mut self) {
        let Hook::On(on) = self else { return };
        let Attached { programs, accounts, trouble } = on.as_mut();
        if let Err(error) = programs.sched.turn(&mut |cpu, slot| accounts.add(cpu, slot)) {
            *trouble = Some(format!("membarrier: {error}"));
        }
    }

    /// The task iterator, or why there is none.
    pub(super) fn tasks(&mut self) -> Result<&mut Tasks, String> {
        match self {
            Hook::Off(reason) => Err(reason.clone()),
            Hook::On(on) => on.programs.tasks.as_mut().map_err(|error| error.to_string()),
        }
    }

    /// What the task iterator told when it was last read.
    pub(super) fn records(&self) -> &[Task] {
        match self {
            Hook::On(on) => on.programs.tasks.as_ref().map_or(&[], Tasks::records),
            Hook::Off(_) => &[],
        }
    }

    /// Adds up the ended generation, given the cgroups as they are now.
    pub(super) fn drain(&mut self, listing: &Listing) {
        let Hook::On(on) = self else { return };
        let Attached { programs, accounts, .. } = on.as_mut();
        // A listing that failed says nothing about who died.
        let listed = !listing.groups.is_empty();
        if listed {
            accounts.list(listing.groups.iter().map(|group| (group.key, group.parent)));
        }
        programs.sched.drain(&mut |cpu, slot| accounts.add(cpu, slot));
        if listed {
            accounts.sweep();
        }
        programs.flush_log();
    }

    /// Its row of health, given the CPUs that are on now.
    pub(super) fn source(&self, online: &[u32], duration: Duration) -> Source {
        let (state, duration) = match self {
            Hook::Off(reason) => (State::Off(reason.clone()), None),
            Hook::On(on) => (on.state(online), Some(duration)),
        };
        let dropped = self.overflows().unwrap_or(0) + self.untraced().unwrap_or(0);
        Source { name: "sched", state, duration, dropped }
    }

    pub(super) fn cpu(&self, number: u32) -> Option<Arc<Sched>> {
        self.accounts()?.cpu(number)
    }

    pub(super) fn cgroup(&self, key: Key) -> Option<Arc<Sched>> {
        Some(self.accounts()?.cgroup(key))
    }

    pub(super) fn ran(&self, key: Key) -> Option<Arc<Sched>> {
        self.accounts()?.ran(key)
    }

    /// Look-ups that found the table full.
    pub(super) fn overflows(&self) -> Option<u64> {
        match self {
            Hook::On(on) => Some(on.programs.sched.overflows()),
            Hook::Off(_) => None,
        }
    }

    /// Switches that the kernel did not report and that took something with them.
    pub(super) fn untraced(&self) -> Option<u64> {
        match self {
            Hook::On(on) => Some(on.programs.sched.lost()),
            Hook::Off(_) => None,
        }
    }

    fn accounts(&self) -> Option<&Accounts> {
        match self {
            Hook::On(on) => Some(&on.accounts),
            Hook::Off(_) => None,
        }
    }
}

impl Attached {
    fn state(&self, online: &[u32]) -> State {
        let mut reasons: Vec<String> =
            self.programs.lacking.iter().map(|lacking| format!("{}: {}", lacking.missing, lacking.lost)).collect();
        reasons.extend(self.trouble.clone());
        let covered = self.programs.sched.cpus();
        if let Some(late) = online.iter().find(|number| **number >= covered) {
            reasons.push(format!("CPU {late} came after the start and is not counted; restart observer"));
        }
        let overflows = self.programs.sched.overflows();
        if overflows > 0 {
            reasons.push(format!("table full {overflows} times: more cgroups ran on a CPU in one interval than it can tell apart; use a shorter interval"));
        }
        if reasons.is_empty() { State::On } else { State::Degraded(reasons.join("; ")) }
    }
}

//! The names that people use, from state that container runtimes and the kubelet keep on this machine.
//!
//! Nobody waits for them: of each reading only a few containers are looked up, those that are new first, so that names fill in over the
//! first seconds; what was found is kept, what was not is tried again after a pause that doubles. A container that has no cgroup any more is
//! forgotten. Nothing here is needed by anything else, and what cannot be read is a sentence in health.
//!
//! Whoever makes a cgroup chooses its path, and whoever runs a container what its state says. So containers below a user's slice are
//! looked up in that user's home alone, and all others in the system's folders alone.

mod formats;
mod kubelet;
mod lookup;
mod root;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::kubelet::Kubelet;
use self::lookup::Lookup;
use self::root::{Problem, Root};
use super::Roots;
use super::cgroup::Found;
use super::proc::names::Names as Users;
use crate::model::cgroup::identity::{Container, Identity, Names as Told};
use crate::model::{Source, State};

/// Containers and pods that are looked up in one reading.
const LOOKUPS: u32 = 32;
/// Of those, as many are kept for who was never looked up.
const FOR_NEW: u32 = 16;
/// Bytes after which a reading looks nobody up any more.
const BYTES: u64 = 1 << 20;
/// Pauses until who was not found is tried again.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// Tries after which it is worth a word that nobody is found.
const PATIENCE: u32 = 4;

/// All names that are known.
#[derive(Debug)]
pub(super) struct Names {
    root: Root,
    passwd: Users,
    kubelet: Option<Kubelet>,
    /// By the user in whose slice they are, `None` for the system's, and by id.
    containers: HashMap<Option<u32>, HashMap<Box<str>, Slot>>,
    /// By UID.
    pods: HashMap<Box<str>, Slot>,
    users: HashMap<u32, User>,
    /// Counts readings, so that who is not listed any more is forgotten.
    reading: u64,
    /// Why nobody can be looked up.
    off: Option<Problem>,
    duration: Option<Duration>,
}

#[derive(Debug)]
struct User {
    names: Arc<Told>,
    seen: u64,
}

/// What is known of one container or pod.
#[derive(Debug)]
struct Slot {
    names: Option<Arc<Told>>,
    problem: Option<Problem>,
    /// When it is looked up next.
    due: Instant,
    pause: Duration,
    tries: u32,
    /// The last reading that listed it.
    seen: u64,
}

impl Slot {
    fn new(now: Instant) -> Slot {
        Slot { names: None, problem: None, due: now, pause: SHORTEST_PAUSE, tries: 0, seen: 0 }
    }

    /// Keeps what a look-up gave. A name may change, which is seen after the longest pause; who is not found any more keeps its name.
    fn tell(&mut self, now: Instant, found: Result<Option<Told>, Problem>) {
        self.tries = self.tries.saturating_add(1);
        self.problem = None;
        match found {
            Ok(Some(names)) => {
                self.set(Some(names));
                self.pause = LONGEST_PAUSE;
            }
            Ok(None) => {}
            Err(problem) => self.problem = Some(problem),
        }
        self.due = now + self.pause;
        self.pause = (2 * self.pause).min(LONGEST_PAUSE);
    }

    fn set(&mut self, names: Option<Told>) {
        if self.names.as_deref() != names.as_ref() {
            self.names = names.map(Arc::new);
        }
    }
}

impl Names {
    /// Opens nothing yet.
    pub(super) fn new(roots: &Roots) -> Names {
        Names {
            root: Root::new(&roots.host),
            passwd: Users::new(roots),
            kubelet: None,
            containers: HashMap::new(),
            pods: HashMap::new(),
            users: HashMap::new(),
            reading: 0,
            off: None,
            duration: None,
        }
    }

    /// Asks the kubelet, too, that listens at this URL: `http://host:port`.
    pub(super) fn ask(&mut self, kubelet: &str) {
        self.kubelet = Some(Kubelet::new(kubelet));
    }

    /// Looks up some of those that are listed and whose names are not known, and forgets those that are not listed any more.
    pub(super) fn read(&mut self, listed: &[Found], now: Instant) {
        let began = Instant::now();
        self.reading += 1;
        let mut budget = Budget { now, lookups: LOOKUPS, lookup: Lookup::new(&mut self.root), off: None };
        for identity in listed.iter().filter_map(|found| found.identity.as_deref()) {
            let owner = owner(identity);
            if let Some(uid) = owner {
                let passwd = &mut self.passwd;
                let mut named = || Arc::new(Told { user: Some(passwd.user(uid).into()), ..Told::default() });
                self.users.entry(uid).or_insert_with(|| User { names: named(), seen: 0 }).seen = self.reading;
            }
            // The kubelet's folders are the system's. The pod has a row of its own.
            let pod = identity.pod.as_ref().filter(|_| owner.is_none());
            if let Some(pod) = pod.filter(|_| identity.container.is_none())
                && let Some(slot) = slot(&mut self.pods, pod, now)
            {
                slot.seen = self.reading;
                budget.spend(slot, |lookup| lookup.pod(pod));
            }
            if let Some(container) = identity.container.as_ref().filter(|container| is_told(container))
                && let Some(slot) = slot(self.containers.entry(owner).or_default(), &container.id, now)
            {
                slot.seen = self.reading;
                let user = || self.users.get(&owner?)?.names.user.clone();
                let kubelet = self.kubelet.as_mut().filter(|_| pod.is_some());
                let looked_up = budget.spend(slot, |lookup| match owner {
                    Some(uid) => Ok(lookup.of_user(uid, container)?.map(|told| Told { user: user(), ..told })),
                    None => {
                        let told = lookup.of_system(container, pod.is_some())?;
                        Ok(kubelet.as_ref().map_or(told.clone(), |kubelet| kubelet.complete(&container.id, told)))
                    }
                });
                if let (true, Some(pod)) = (looked_up, pod) {
                    kubelet.filter(|_| slot.tries == 1).into_iter().for_each(|kubelet| kubelet.meet(now));
                    teach(&mut self.pods, pod, slot.names.as_deref(), self.reading, now);
                }
            }
        }
        self.off = budget.off;
        if let Some(kubelet) = &mut self.kubelet
            && kubelet.poll(now)
        {
            let of_system = self.containers.get_mut(&None).into_iter().flatten().chain(&mut self.pods);
            of_system.for_each(|(id, slot)| slot.set(kubelet.complete(id, slot.names.as_deref().cloned())));
        }
        self.forget();
        self.duration = Some(began.elapsed());
    }

    fn forget(&mut self) {
        let reading = self.reading;
        self.containers.values_mut().for_each(|slots| slots.retain(|_, slot| slot.seen == reading));
        self.containers.retain(|_, slots| !slots.is_empty());
        self.pods.retain(|_, slot| slot.seen == reading);
        self.users.retain(|_, user| user.seen == reading);
    }

    /// The names of a cgroup, as far as they are known.
    pub(super) fn of(&self, identity: &Identity) -> Option<Arc<Told>> {
        let owner = owner(identity);
        let container = || self.containers.get(&owner)?.get(&identity.container.as_ref()?.id)?.names.clone();
        let pod = || self.pods.get(identity.pod.as_ref().filter(|_| owner.is_none())?)?.names.clone();
        let user = || Some(Arc::clone(&self.users.get(&owner?)?.names));
        container().or_else(pod).or_else(user)
    }

    /// The row of health.
    pub(super) fn source(&self) -> Source {
        Source { name: "names", state: self.state(), duration: self.duration, dropped: 0 }
    }

    fn state(&self) -> State {
        if let Some(Problem(reason)) = &self.off {
            return State::Off(format!("{reason}; name the folder where the host's root is with --host-root"));
        }
        let slots = || self.containers.values().flat_map(HashMap::values).chain(self.pods.values());
        let kubelet = self.kubelet.as_ref().and_then(Kubelet::problem);
        let problems = || slots().filter_map(|slot| slot.problem.as_ref()).chain(kubelet).map(|Problem(problem)| problem);
        if let Some(first) = problems().min() {
            let more = problems().count() - 1;
            let more = if more > 0 { format!(" (and {more} more)") } else { String::new() };
            return State::Degraded(format!("names of containers: {first}{more}"));
        }
        let count = slots().count();
        if count > 0 && slots().all(|slot| slot.names.is_none() && slot.tries >= PATIENCE) {
            return State::Degraded(format!(
                "no container runtime's state tells the names of {count} containers and pods; in a container mount the host's root and \
                 name it with --host-root"
            ));
        }
        State::On
    }
}

/// What one reading may still do.
struct Budget<'a> {
    now: Instant,
    lookups: u32,
    lookup: Lookup<'a>,
    off: Option<Problem>,
}

impl Budget<'_> {
    /// Looks somebody up who is due, if there is enough left; whether it did.
    fn spend(&mut self, slot: &mut Slot, find: impl FnOnce(&mut Lookup<'_>) -> Result<Option<Told>, Problem>) -> bool {
        let kept = if slot.tries == 0 { 0 } else { FOR_NEW };
        if slot.due > self.now || self.lookups <= kept || self.lookup.bytes >= BYTES || self.off.is_some() {
            return false;
        }
        if let Err(problem) = self.lookup.root.open() {
            self.off = Some(problem);
            return false;
        }
        self.lookups -= 1;
        slot.tell(self.now, find(&mut self.lookup));
        true
    }
}

/// Somebody's slot; an id is copied only for who is new.
fn slot<'a>(slots: &'a mut HashMap<Box<str>, Slot>, id: &str, now: Instant) -> Option<&'a mut Slot> {
    if !slots.contains_key(id) {
        slots.insert(id.into(), Slot::new(now));
    }
    slots.get_mut(id)
}

/// Gives a pod the names that one of its containers has for it, where there is no folder of its own.
fn teach(pods: &mut HashMap<Box<str>, Slot>, pod: &str, names: Option<&Told>, reading: u64, now: Instant) {
    if let Some(names) = names.filter(|names| names.pod.is_some())
        && let Some(slot) = slot(pods, pod, now).filter(|slot| slot.names.is_none())
    {
        slot.seen = reading;
        slot.tell(now, Ok(Some(Told { pod: names.pod.clone(), namespace: names.namespace.clone(), ..Told::default() })));
    }
}

/// Whether state may tell more of it: its id is one that a runtime made, and so safe in a path, and its path does not say its name.
fn is_told(container: &Container) -> bool {
    container.name.is_none() && container.id.len() == 64 && container.id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The user below whose slice something is; `None` is the system.
fn owner(identity: &Identity) -> Option<u32> {
    identity.user.as_deref()?.parse().ok()
}

#[cfg(test)]
mod tests;

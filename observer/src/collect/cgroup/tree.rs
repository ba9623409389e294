//! The cgroups of one hierarchy as they are kept from one reading to the next.

use std::sync::Arc;

use observer_common::sched::Key;

use super::files::Files;
use super::resources::{Known, Means, Thresholds};
use super::watch::Watches;
use super::{Ran, Unreadable, identity, stat};
use crate::collect::tasks::ids::Map;
use crate::model::cgroup::control::Limiting;
use crate::model::cgroup::{CpuStat, Identity};
use crate::model::text;

/// Of so many cgroups one is looked after in each reading although nothing says that it moved.
const SELDOM: usize = 10;
/// But no more than so many: of 10,000, each in its turn every 313th reading.
const MOST_IN_TURN: usize = 32;
/// Of so many in each reading everything is learned that is not known yet; of those that work in any case.
const MOST_LEARNED: usize = 512;

/// A cgroup's number in its tree.
pub(super) type Id = usize;

/// A cgroup's tree and its number there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub(super) tree: usize,
    pub(super) id: Id,
}

/// What a cgroup and its ancestors may have: CPUs, and bytes.
#[derive(Clone, Default, PartialEq, Debug)]
pub(super) struct Limits {
    pub(super) cpu: Option<f64>,
    pub(super) memory: Thresholds,
    /// Whose these are.
    pub(super) by: Limiting,
}

/// The cgroups of one hierarchy.
#[derive(Debug)]
pub(super) struct Tree {
    /// Device and inode of the root's directory.
    pub(super) identity: (u64, u64),
    /// Of its cgroups' keys.
    kind: u8,
    /// Numbers that are free have no key.
    nodes: Vec<Node>,
    free: Vec<Id>,
    by_key: Map<Key, Id>,
    /// Ascending by key, while `is_sorted`.
    order: Vec<Id>,
    is_sorted: bool,
    /// Who was read with news last time, and may have more.
    restless: Vec<Id>,
    /// Who has others below it and could not be watched.
    unwatched: Vec<Id>,
    /// Of whom nothing but usage is known.
    unknown: Vec<Id>,
    /// Up to where the turn has come.
    turn: Id,
}

/// One cgroup.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) key: Key,
    pub(super) parent: Option<Id>,
    /// The parent's key.
    pub(super) above: Option<Key>,
    pub(super) children: Vec<Id>,
    /// Those of them to which this walk has to come.
    pub(super) wanted: Vec<Id>,
    /// From the hierarchy's root; empty for the root.
    pub(super) path: Box<[u8]>,
    /// The same as it is shown.
    pub(super) shown: Arc<str>,
    pub(super) identity: Option<Arc<Identity>>,
    /// 0 for the root.
    pub(super) depth: usize,
    /// What it says of its CPU, with the tightest limit of its ancestors'.
    pub(super) cpu: CpuStat,
    /// What those below it had used in sum when they were read last.
    below: i64,
    /// What it had used beyond that when all of them had just been read.
    beyond: Option<i64>,
    /// Its own limit.
    pub(super) own_limit: Option<f64>,
    /// `cpu.stat` and `cpuacct.usage`.
    pub(super) files: Files<2>,
    pub(super) known: Known,
    /// What of the directory, and what of the files of its CPU could not be read.
    pub(super) unlisted: Option<Box<Unreadable>>,
    pub(super) unread: Option<Box<Unreadable>>,
    /// Its number at the kernel, while it is watched.
    pub(super) watch: Option<i32>,
    /// Its CPU was read before.
    pub(super) is_read: bool,
    /// Its limit was.
    pub(super) is_known: bool,
    /// That brought news the last time.
    pub(super) moved: bool,
    /// Somebody wrote to one of its files.
    pub(super) is_touched: bool,
    /// The walk that was here last, that found its directory last, that found it with none in it, that comes by on its way to others, that looks for directories in it, that reads it, that learns
    /// all of it, and that looks after it in turn.
    pub(super) visit: u64,
    pub(super) found: u64,
    pub(super) leaf: u64,
    reach: u64,
    pub(super) look: u64,
    pub(super) read: u64,
    pub(super) learn: u64,
    pub(super) in_turn: u64,
}

impl Tree {
    /// Of a root that has this key.
    pub(super) fn new(identity: (u64, u64), kind: u8, key: Key) -> Tree {
        let mut tree = Tree {
            identity,
            kind,
            nodes: Vec::new(),
            free: Vec::new(),
            by_key: Map::default(),
            order: Vec::new(),
            is_sorted: false,
            restless: Vec::new(),
            unwatched: Vec::new(),
            unknown: Vec::new(),
            turn: 0,
        };
        tree.insert(key, None, b"");
        tree
    }

    /// The number of the root.
    pub(super) const ROOT: Id = 0;

    /// One of its cgroups.
    pub(super) fn node(&mut self, id: Id) -> &mut Node {
        &mut self.nodes[id]
    }

    /// All of them, ascending by key.
    pub(super) fn sorted(&mut self) -> impl Iterator<Item = &Node> {
        if !self.is_sorted {
            self.order.clear();
            self.order.extend((0..self.nodes.len()).filter(|id| self.nodes[*id].lives()));
            self.order.sort_unstable_by_key(|id| self.nodes[*id].key);
            self.is_sorted = true;
        }
        self.order.iter().map(|id| &self.nodes[*id])
    }

    /// The cgroup with this key.
    pub(super) fn find(&self, key: Key) -> Option<Id> {
        self.by_key.get(&key).copied()
    }

    /// Adds a cgroup with a path from the hierarchy's root.
    pub(super) fn insert(&mut self, key: Key, parent: Option<Id>, path: &[u8]) -> Id {
        let mut node = Node::new(key, parent, path);
        if let Some(parent) = parent.map(|parent| &self.nodes[parent]) {
            (node.depth, node.above) = (parent.depth + 1, Some(parent.key));
        }
        let id = match self.free.pop() {
            Some(id) => {
                self.nodes[id] = node;
                id
            }
            None => {
                self.nodes.push(node);
                self.nodes.len() - 1
            }
        };
        if let Some(parent) = parent {
            self.nodes[parent].children.push(id);
        }
        self.by_key.insert(key, id);
        self.is_sorted = false;
        id
    }

    /// Takes a cgroup out with all below it.
    pub(super) fn remove(&mut self, id: Id, means: &mut Means, watches: &mut Watches) {
        if let Some(parent) = self.nodes[id].parent {
            self.nodes[parent].children.retain(|child| *child != id);
        }
        self.bury(id);
        self.drop_subtree(id, means, watches);
    }

    /// Takes out those below a cgroup that this walk did not find.
    pub(super) fn remove_lost(&mut self, id: Id, walk: u64, means: &mut Means, watches: &mut Watches) {
        let (found, lost) =
            std::mem::take(&mut self.nodes[id].children).into_iter().partition(|id| self.nodes[*id].found == walk);
        self.nodes[id].children = found;
        let lost: Vec<Id> = lost;
        for id in lost {
            self.bury(id);
            self.drop_subtree(id, means, watches);
        }
    }

    /// Takes on what a cgroup has used by now.
    pub(super) fn set_cpu(&mut self, id: Id, cpu: CpuStat) {
        let used = |cpu: &CpuStat| cpu.usage.unwrap_or(0).cast_signed();
        let before = std::mem::replace(&mut self.nodes[id].cpu, cpu);
        if let Some(parent) = self.nodes[id].parent {
            let below = &mut self.nodes[parent].below;
            *below = below.wrapping_add(used(&cpu)).wrapping_sub(used(&before));
        }
    }

    /// Whether what a cgroup has used since all below it were read is what those have used that were read since, but for the rounding of so
    /// many numbers to microseconds: then nobody else has run.
    pub(super) fn is_explained(&self, id: Id, read: usize) -> bool {
        let node = &self.nodes[id];
        let rounding = 1_000 * (read as i64 + 2);
        node.beyond.zip(node.used_beyond()).is_some_and(|(then, now)| now.wrapping_sub(then) <= rounding)
    }

    /// All below a cgroup have just been read.
    pub(super) fn explain(&mut self, id: Id) {
        let node = &mut self.nodes[id];
        node.beyond = node.used_beyond();
    }

    /// What a cgroup that ended had used stays with its parent.
    fn bury(&mut self, id: Id) {
        let Some(parent) = self.nodes[id].parent else { return };
        let used = self.nodes[id].cpu.usage.unwrap_or(0).cast_signed();
        let parent = &mut self.nodes[parent];
        parent.below = parent.below.wrapping_sub(used);
        parent.beyond = parent.beyond.map(|beyond| beyond.wrapping_add(used));
    }

    fn drop_subtree(&mut self, id: Id, means: &mut Means, watches: &mut Watches) {
        let mut node = std::mem::replace(&mut self.nodes[id], Node::new(Key::NONE, None, b""));
        if !node.lives() {
            return;
        }
        for child in std::mem::take(&mut node.children) {
            self.drop_subtree(child, means, watches);
        }
        node.files.close(&mut means.budget);
        node.known.close(&mut means.budget);
        if let Some(watch) = node.watch {
            watches.remove(watch);
        }
        self.by_key.remove(&node.key);
        self.free.push(id);
        self.is_sorted = false;
    }

    /// Who is to be looked at for directories in this walk.
    pub(super) fn look(&mut self, id: Id, walk: u64) {
        self.nodes[id].look = walk;
        self.reach(id, walk);
    }

    /// Who is to be read in this walk. Its ancestors are, too, and first: what a parent has used is news of its children, and must not be
    /// read after them.
    pub(super) fn read(&mut self, id: Id, walk: u64) {
        self.reach(id, walk);
        let mut next = Some(id);
        while let Some(node) = next.map(|id| &mut self.nodes[id]).filter(|node| node.read != walk) {
            node.read = walk;
            next = node.parent;
        }
    }

    /// As [`Tree::read`], of who ran; `false` when neither it nor its parent is known here.
    pub(super) fn read_ran(&mut self, ran: Ran, walk: u64) -> bool {
        if ran.key.kind() != self.kind {
            return true;
        }
        let known = self.find(ran.key).or_else(|| ran.parent.and_then(|parent| self.find(parent)));
        if let Some(id) = known {
            self.read(id, walk);
        }
        known.is_some()
    }

    /// Somebody gave those in a cgroup other controllers, or took some.
    pub(super) fn touch_children(&mut self, id: Id, walk: u64) {
        for at in 0..self.nodes[id].children.len() {
            let child = self.nodes[id].children[at];
            self.nodes[child].is_touched = true;
            self.read(child, walk);
        }
    }

    /// Shows the walk the way to a cgroup.
    fn reach(&mut self, id: Id, walk: u64) {
        let mut next = Some(id);
        while let Some(id) = next {
            let node = &mut self.nodes[id];
            if !node.lives() || std::mem::replace(&mut node.reach, walk) == walk {
                break;
            }
            next = node.parent;
            if let Some(parent) = next {
                self.nodes[parent].wanted.push(id);
            }
        }
    }

    /// What is to be read in any case: what moved last time, those whose turn it is, and what is not known yet, unless the walk is hasty. Tells
    /// how much more the walk may learn.
    pub(super) fn plan(&mut self, walk: u64, is_hasty: bool) -> usize {
        let mut may_learn = if is_hasty { 0 } else { MOST_LEARNED };
        while may_learn > 0
            && let Some(id) = self.unknown.pop()
        {
            may_learn -= 1;
            self.nodes[id].learn = walk;
            self.read(id, walk);
        }
        for id in std::mem::take(&mut self.restless) {
            // The number may be another's by now, which does no harm.
            self.read(id, walk);
        }
        for id in std::mem::take(&mut self.unwatched) {
            self.look(id, walk);
        }
        let mut left = self.by_key.len().div_ceil(SELDOM).min(MOST_IN_TURN);
        for _ in 0..self.nodes.len() {
            if left == 0 {
                break;
            }
            self.turn = if self.turn + 1 < self.nodes.len() { self.turn + 1 } else { 0 };
            let id = self.turn;
            if self.nodes[id].lives() {
                left -= 1;
                self.nodes[id].in_turn = walk;
                self.look(id, walk);
                self.read(id, walk);
            }
        }
        may_learn
    }

    /// Everybody is to be looked at for directories.
    pub(super) fn look_everywhere(&mut self, walk: u64) {
        for id in 0..self.nodes.len() {
            self.look(id, walk);
        }
    }

    /// Reads it in the next walk, too.
    pub(super) fn read_again(&mut self, id: Id) {
        self.restless.push(id);
    }

    /// Learns all of it in one of the next walks.
    pub(super) fn learn_later(&mut self, id: Id) {
        self.unknown.push(id);
    }

    /// Looks at it in the next walk, too.
    pub(super) fn look_again(&mut self, id: Id) {
        self.unwatched.push(id);
    }

    /// The limits that those in a cgroup have from it and its ancestors.
    pub(super) fn limits(&self, id: Option<Id>) -> Limits {
        let of = |node: &Node| {
            let resources = node.known.resources();
            Limits { cpu: node.cpu.limit, memory: Thresholds::of(resources), by: resources.limiting.clone() }
        };
        id.map(|id| of(&self.nodes[id])).unwrap_or_default()
    }

    /// Hands a cgroup's limits on to those below it.
    pub(super) fn hand_down(&mut self, id: Id) {
        let limits = self.limits(Some(id));
        let children = std::mem::take(&mut self.nodes[id].children);
        for child in &children {
            let before = self.limits(Some(*child));
            self.nodes[*child].inherit(&limits);
            if self.limits(Some(*child)) != before {
                self.hand_down(*child);
            }
        }
        self.nodes[id].children = children;
    }
}

impl Node {
    fn new(key: Key, parent: Option<Id>, path: &[u8]) -> Node {
        Node {
            key,
            parent,
            above: None,
            children: Vec::new(),
            wanted: Vec::new(),
            path: path.into(),
            shown: if path.is_empty() { "/".into() } else { text::escape(path).into() },
            identity: identity::of(path),
            depth: 0,
            cpu: CpuStat::default(),
            below: 0,
            beyond: None,
            own_limit: None,
            files: Files::default(),
            known: Known::default(),
            unlisted: None,
            unread: None,
            watch: None,
            is_read: false,
            is_known: false,
            moved: false,
            is_touched: false,
            visit: 0,
            found: 0,
            leaf: 0,
            reach: 0,
            look: 0,
            read: 0,
            learn: 0,
            in_turn: 0,
        }
    }

    /// What it has used and those below it have not.
    fn used_beyond(&self) -> Option<i64> {
        Some(self.cpu.usage?.cast_signed().wrapping_sub(self.below))
    }

    /// Takes on its ancestors' limits beside its own. Of two that are equal the upper one is named: it stops whoever the lower one would.
    pub(super) fn inherit(&mut self, above: &Limits) {
        let mine = |is_tighter: bool| is_tighter.then(|| Arc::clone(&self.shown));
        let cpu = mine(self.own_limit.is_some_and(|own| above.cpu.is_none_or(|above| own < above)));
        let memory = mine(self.known.own().limit.is_some_and(|own| above.memory.limit.is_none_or(|above| own < above)));
        let by = Limiting { cpu: cpu.or_else(|| above.by.cpu.clone()), memory: memory.or_else(|| above.by.memory.clone()) };
        self.cpu.limit = stat::tighter(above.cpu, self.own_limit);
        self.known.inherit(above.memory);
        self.known.limited_by(by);
    }

    /// The last part of its path.
    pub(super) fn name(&self) -> &[u8] {
        self.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
    }

    pub(super) fn lives(&self) -> bool {
        self.key != Key::NONE
    }
}

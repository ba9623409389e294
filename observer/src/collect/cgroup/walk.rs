//! The walk through the trees: the edge that opens directories and files.
//!
//! The cost is system calls, so a walk makes them where something moved. The tree is kept from one reading to the next, and `watch` tells
//! where directories came or went. Which cgroups have run the scheduler hook knows; without it their parents' usage tells, since it includes
//! theirs: who has not moved has nobody below it that has, and if those that were busy before account for what a parent used, so has nobody
//! else. What brought news may bring more and is read again, and some are looked after in turn, whatever is said of them. Of a cgroup that is
//! read again and again the files stay open.

use std::sync::Arc;

use observer_common::sched::{Key, kind};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, fstat, openat, statat};
use rustix::io::Errno;

use super::mount::{CpuFiles, Mount, Opening, below, complaint, count, count_boxed, key};
use super::resources::{Means, Visit};
use super::tree::{Id, Node, Place, Tree};
use super::watch::{Change, Watches};
use super::{Error, Found, Layout, Listing, Ran, stat};
use crate::model::Hierarchy;
use crate::model::cgroup::CpuStat;

/// Deeper directories are left out and counted as unreadable. Real trees have about ten levels.
const MAX_DEPTH: usize = 64;
/// For directory entries, some five hundred at a time.
const ENTRY_BYTES: usize = 32 << 10;
/// Watches are given to so many cgroups in a walk that have none below them: each costs as much as a reading.
const NEW_WATCHES: usize = 64;

/// What is known of all trees between walks.
#[derive(Default, Debug)]
pub struct Walker {
    /// That of v2, and that of the v1 `cpu` hierarchy.
    trees: [Option<Tree>; 2],
    watches: Watches,
    means: Means,
    /// Counts walks.
    walk: u64,
    entries: Vec<u8>,
    /// The name of the file that is read, from its hierarchy's root.
    name: Vec<u8>,
}

/// What a walk came for, and what it found.
struct Walk<'a> {
    number: u64,
    mount: Mount<'a>,
    tree: &'a mut Tree,
    watches: &'a mut Watches,
    means: &'a mut Means,
    entries: &'a mut Vec<u8>,
    name: &'a mut Vec<u8>,
    /// Cgroups that it may still watch, and of which it may learn all.
    may_watch: usize,
    may_learn: usize,
    vanished: u64,
}

impl Walker {
    /// Everything in all hierarchies that give keys, v2 first. `ran` has the keys of all that ran since the last walk, where that is known;
    /// a hasty one leaves out memory and pressure. Fails when no root can be opened.
    pub fn walk(&mut self, layout: &Layout, ran: Option<&[Ran]>, is_hasty: bool) -> Result<Listing, Error> {
        self.walk += 1;
        self.take_changes();
        let mut listing = Listing::default();
        let mut failed = None;
        let roots = [(Hierarchy::V2, &layout.v2), (Hierarchy::Cpu, &layout.cpu)];
        for (number, (hierarchy, root)) in roots.into_iter().enumerate() {
            let Some(root) = root.as_deref() else { continue };
            // A task has one key: that of its v2 cgroup, if that is not the root.
            let ran = ran.filter(|ran| hierarchy == Hierarchy::V2 || !ran.iter().any(|ran| ran.key.kind() == kind::V2));
            let mount = Mount::open(layout, number, hierarchy, root, &mut listing);
            match mount {
                Ok(mount) => {
                    let is_second = listing.groups.iter().any(|group| group.key == Key::ROOT);
                    self.tree(Mount { is_hasty, is_second, ..mount }, ran, &mut listing);
                }
                Err(errno) => {
                    self.forget(number);
                    failed.get_or_insert((root, errno));
                    count(&mut listing.unreadable, 1, || complaint(root, b"", "", &errno));
                }
            }
        }
        listing.unwatched = self.watches.trouble();
        match failed {
            Some((root, errno)) if listing.groups.is_empty() => Err(Error::Read { path: root.to_owned(), error: errno.into() }),
            _ => Ok(listing),
        }
    }

    /// Marks what the watches tell of.
    fn take_changes(&mut self) {
        let (walk, trees) = (self.walk, &mut self.trees);
        let is_whole = self.watches.take(&mut |Place { tree, id }, change| {
            let Some(tree) = &mut trees[tree] else { return };
            match change {
                Change::Children => tree.look(id, walk),
                Change::File => {
                    tree.node(id).is_touched = true;
                    tree.read(id, walk);
                }
                Change::Controllers => tree.touch_children(id, walk),
                Change::Unwatched => {
                    tree.node(id).watch = None;
                    tree.look(id, walk);
                }
            }
        });
        if is_whole.is_none() {
            tracing::debug!("more changed among cgroups than the kernel told: every directory is looked at");
            for tree in trees.iter_mut().flatten() {
                tree.look_everywhere(walk);
            }
        }
    }

    /// Walks one hierarchy and lists what is in it.
    fn tree(&mut self, mount: Mount<'_>, ran: Option<&[Ran]>, listing: &mut Listing) {
        let identity = match fstat(&mount.directory) {
            Ok(stat) => (stat.st_dev, stat.st_ino),
            Err(_) => (0, 0),
        };
        let (number, hierarchy) = (mount.number, mount.hierarchy);
        if self.trees[number].as_ref().is_some_and(|tree| tree.identity != identity) {
            self.forget(number);
        }
        let namespaced = mount.is_cgroupfs && identity.1 != 1;
        listing.namespaced |= namespaced;
        let root = if namespaced { key(hierarchy, identity.1) } else { Key::ROOT };
        let tree = self.trees[number].get_or_insert_with(|| Tree::new(identity, key(hierarchy, 0).kind(), root));
        let may_learn = tree.plan(self.walk, mount.is_hasty);
        tree.read(Tree::ROOT, self.walk);
        let knows_who_ran = ran.is_some_and(|ran| ran.iter().all(|ran| tree.read_ran(*ran, self.walk)));
        let Walker { watches, means, entries, name, .. } = self;
        let mut walk = Walk {
            number: self.walk,
            mount: Mount { knows_who_ran, ..mount },
            tree,
            watches,
            means,
            entries,
            name,
            may_watch: NEW_WATCHES,
            may_learn,
            vanished: 0,
        };
        walk.visit(Tree::ROOT, false);
        listing.vanished += walk.vanished;
        for node in tree.sorted() {
            for unreadable in [node.unlisted.as_deref(), node.unread.as_deref(), node.known.unreadable()].into_iter().flatten() {
                count(&mut listing.unreadable, unreadable.count, || unreadable.first.clone());
            }
            listing.groups.push(Found {
                key: node.key,
                parent: node.above,
                path: Arc::clone(&node.shown),
                identity: node.identity.clone(),
                cpu: node.cpu,
                resources: Arc::clone(node.known.resources()),
            });
        }
    }

    fn forget(&mut self, number: usize) {
        if let Some(mut tree) = self.trees[number].take() {
            tree.remove(Tree::ROOT, &mut self.means, &mut self.watches);
        }
    }
}

impl Walk<'_> {
    /// A directory, then those in it to which there is a reason to go; `false` when the cgroup has ended. `is_news` when it is to be read
    /// because its parent brought news.
    fn visit(&mut self, id: Id, is_news: bool) -> bool {
        let node = self.tree.node(id);
        if !node.lives() || std::mem::replace(&mut node.visit, self.number) == self.number {
            return node.lives();
        }
        let reads = node.read == self.number || is_news || !node.is_read;
        let is_copy = !self.mount.is_cgroupfs;
        // Who is not watched may have others below it when it moves.
        let looks = is_copy || node.look == self.number || (reads && node.watch.is_none());
        let looked = if looks { self.look(id) } else { Some(()) };
        let Some(brings_news) = looked.and_then(|()| if reads { self.read(id) } else { Some(false) }) else {
            self.vanished += 1;
            return false;
        };
        let is_news = brings_news && !self.mount.knows_who_ran;
        // Those first that most likely have run: what they have used may be all that there is to tell.
        let wanted = std::mem::take(&mut self.tree.node(id).wanted);
        self.visit_all(&wanted, is_news);
        let is_news = is_news && !self.tree.is_explained(id, wanted.len());
        if is_news || is_copy {
            let children = self.tree.node(id).children.clone();
            self.visit_all(&children, is_news);
        }
        if is_news {
            self.tree.explain(id);
        }
        true
    }

    fn visit_all(&mut self, ids: &[Id], is_news: bool) {
        for id in ids {
            if !self.visit(*id, is_news) {
                self.tree.remove(*id, self.means, self.watches);
            }
        }
    }

    /// Looks for directories in a cgroup's, and has it watched; `None` when the cgroup has ended.
    fn look(&mut self, id: Id) -> Option<()> {
        let node = self.tree.node(id);
        let is_turn = node.in_turn == self.number;
        // Before it is looked at: nothing gets lost in between.
        if self.may_watch > 0 || is_turn {
            self.may_watch = self.may_watch.saturating_sub(1);
            self.watch(id);
        } else if node.leaf == self.number {
            return Some(());
        }
        let listed = match self.is_leaf(id) {
            Ok(true) => Ok(()),
            _ => {
                self.watch(id);
                let listed = self.list(id);
                if self.mount.is_cgroupfs && self.tree.node(id).watch.is_none() {
                    self.tree.look_again(id);
                }
                listed
            }
        };
        let node = self.tree.node(id);
        match listed {
            Ok(()) => Some(()),
            Err(Errno::NOENT | Errno::NODEV) if id != Tree::ROOT => None,
            Err(errno) => {
                let (root, path) = (self.mount.root, &node.path);
                count_boxed(&mut node.unlisted, || complaint(root, path, "", &errno));
                Some(())
            }
        }
    }

    /// Has a cgroup's directory watched, if it is not.
    fn watch(&mut self, id: Id) {
        let node = self.tree.node(id);
        if self.mount.is_cgroupfs && node.watch.is_none() {
            self.name.clear();
            self.name.extend_from_slice(self.mount.root.as_os_str().as_encoded_bytes());
            self.name.extend_from_slice(&node.path);
            node.watch = self.watches.add(self.name, Place { tree: self.mount.number, id });
        }
    }

    /// Whether there are no directories in a cgroup's and none is known: kernfs counts them in its links.
    fn is_leaf(&mut self, id: Id) -> Result<bool, Errno> {
        let node = self.tree.node(id);
        if !self.mount.is_cgroupfs || !node.children.is_empty() {
            return Ok(false);
        }
        below(self.name, &node.path, "");
        let stat = statat(&self.mount.directory, &self.name[..], AtFlags::SYMLINK_NOFOLLOW)?;
        node.unlisted = None;
        Ok(stat.st_nlink == 2)
    }

    /// Takes in the directories that are in a cgroup's now, links left out.
    fn list(&mut self, id: Id) -> Result<(), Errno> {
        let node = self.tree.node(id);
        let (mut path, depth) = (node.path.to_vec(), node.depth + 1);
        below(self.name, &path, "");
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = openat(&self.mount.directory, &self.name[..], flags, Mode::empty())?;
        self.tree.node(id).unlisted = None;
        let (root, mut born) = (self.mount.root, 0);
        self.entries.reserve(ENTRY_BYTES);
        let mut entries = RawDir::new(&directory, self.entries.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = match entry {
                Ok(entry) => entry,
                // It ended meanwhile, and so it has none.
                Err(Errno::NOENT) => break,
                Err(errno) => return Err(errno),
            };
            let name = entry.file_name();
            if !matches!(entry.file_type(), FileType::Directory | FileType::Unknown) || name == c"." || name == c".." {
                continue;
            }
            let above = path.len();
            path.push(b'/');
            path.extend_from_slice(name.to_bytes());
            // A copy may lie on a file system whose listings have other numbers, or no kinds.
            let inode = match self.mount.is_cgroupfs {
                true => Ok(Some(entry.ino())),
                false => statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)
                    .map(|stat| (FileType::from_raw_mode(stat.st_mode) == FileType::Directory).then_some(stat.st_ino)),
            };
            match inode {
                Ok(Some(_)) if depth > MAX_DEPTH => {
                    let deep = || complaint(root, &path, "", &format_args!("deeper than {MAX_DEPTH} levels"));
                    count_boxed(&mut self.tree.node(id).unlisted, deep);
                }
                Ok(Some(inode)) => {
                    let key = key(self.mount.hierarchy, inode);
                    let known = self.tree.find(key);
                    let is_same = |node: &Node| node.parent == Some(id) && node.name() == name.to_bytes();
                    let child = match known {
                        Some(child) if is_same(self.tree.node(child)) => child,
                        // Renamed, and all below it with it.
                        Some(other) if other != Tree::ROOT => {
                            self.tree.remove(other, self.means, self.watches);
                            self.tree.insert(key, Some(id), &path)
                        }
                        _ => self.tree.insert(key, Some(id), &path),
                    };
                    self.tree.node(child).found = self.number;
                    if Some(child) != known {
                        self.tree.look(child, self.number);
                        born += 1;
                    }
                }
                Ok(None) => {}
                Err(Errno::NOENT | Errno::NODEV) => self.vanished += 1,
                Err(errno) => count_boxed(&mut self.tree.node(id).unlisted, || complaint(root, &path, "", &errno)),
            }
            path.truncate(above);
        }
        self.tree.remove_lost(id, self.number, self.means, self.watches);
        if born > 1 && self.mount.is_cgroupfs && self.descendants(id) == Some(self.tree.node(id).children.len() as u64) {
            // Those are all: none of them has any. That spares a look at each.
            for child in self.tree.node(id).children.clone() {
                self.tree.node(child).leaf = self.number;
            }
        }
        Ok(())
    }

    /// How many cgroups there are below one, as the kernel counts them (v2).
    fn descendants(&mut self, id: Id) -> Option<u64> {
        let file = self.mount.open_file(&self.tree.node(id).path, "cgroup.stat", self.name).ok()?;
        let length = rustix::io::read(file, &mut self.means.buffer[..]).ok()?;
        stat::descendants(&self.means.buffer[..length])
    }

    /// Reads one cgroup's files and tells whether its CPU brings news, or nobody knows; `None` when it has ended.
    fn read(&mut self, id: Id) -> Option<bool> {
        let above = self.tree.node(id).parent;
        let above = self.tree.limits(above);
        let before = self.tree.limits(Some(id));
        let node = self.tree.node(id);
        let is_turn = node.in_turn == self.number;
        if is_turn && !node.moved {
            node.files.close(&mut self.means.budget);
        }
        let (was, was_read, was_unread) = (node.cpu, node.is_read, node.unread.is_some());
        let Walk { mount, means, name, may_learn, .. } = self;
        let mut files = CpuFiles { mount, node, means, name };
        let cpu = files.stat()?;
        let moved = CpuStat { limit: was.limit, ..cpu } != was;
        let node = &mut *files.node;
        (node.moved, node.is_read) = (moved, true);
        let mut learns = node.is_known || node.learn == self.number || is_turn || (was_read && moved);
        if !learns && *may_learn > 0 {
            (learns, *may_learn) = (true, *may_learn - 1);
        }
        if learns && !mount.is_hasty {
            let is_touched = std::mem::take(&mut node.is_touched);
            // Where nobody tells of writes to its files they are read each time.
            let is_told = node.is_known && node.watch.is_some() && was.periods.is_some() == cpu.periods.is_some();
            if is_turn || is_touched || was_unread || !is_told {
                files.node.own_limit = files.limit(&cpu)?;
            }
            let CpuFiles { mount, node, means, name } = files;
            // Of the root of a second hierarchy, the first one's stand for both.
            if node.key != Key::ROOT || !mount.is_second {
                let mut source = Opening { mount, path: &node.path, name };
                let is_untold = node.watch.is_none();
                let visit = Visit { usage: cpu.usage, is_touched, is_untold, is_turn, inherited: above.memory };
                node.known.update(visit, means, &mut source);
            }
            node.is_known = true;
        }
        self.tree.set_cpu(id, cpu);
        let node = self.tree.node(id);
        node.inherit(&above);
        if moved || node.unread.is_some() || node.known.moved() {
            self.tree.read_again(id);
        }
        if !was_read && !self.tree.node(id).is_known {
            self.tree.learn_later(id);
        }
        if self.tree.limits(Some(id)) != before {
            self.tree.hand_down(id);
        }
        Some(moved || cpu.usage.is_none())
    }
}

//! The walk through the trees: the edge that opens directories and files.
//!
//! The cost is system calls, and opening and closing most of it, so there are few: files are opened relative to a directory and read with
//! one call (the kernel gives these files in one piece), and a directory without subdirectories, as its link count says on a cgroup file
//! system, is neither opened nor listed, which makes a reading a tenth cheaper. (Reading files that stay open would make it four times
//! cheaper, and cost a descriptor for each.)

use std::ffi::{CStr, CString};
use std::fmt::Display;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use observer_common::sched::Key;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, fstat, fstatfs, openat, statat};
use rustix::io::{Errno, read};

use super::resources::{File, Home, Source, Store, Thresholds};
use super::{Error, Found, Layout, Listing, Unreadable, identity, stat};
use crate::model::Hierarchy;
use crate::model::cgroup::{CpuStat, Resources};
use crate::model::text;

/// Deeper directories are left out and counted as unreadable; each level holds a descriptor open. Real trees have about ten.
const MAX_DEPTH: usize = 64;
/// More than any file read here has.
const FILE_BYTES: usize = 4096;
/// For directory entries, some five hundred at a time.
const ENTRY_BYTES: usize = 32 << 10;

const CGROUP_SUPER_MAGIC: u64 = 0x27_e0eb;
const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;

/// Memory that walks use again, and what the present one has found.
#[derive(Default, Debug)]
pub struct Walker {
    file: Vec<u8>,
    entries: Vec<u8>,
    /// The name of the file that is read, relative to an open directory.
    name: Vec<u8>,
    /// The present directory, from the hierarchy's root; empty for the root.
    path: Vec<u8>,
    listing: Listing,
    /// Memory and pressure, which outlive the walk.
    resources: Store,
    /// Those are left out of this walk.
    is_hasty: bool,
    /// What all cgroups tell of them then.
    nothing: Arc<Resources>,
}

/// A hierarchy that is walked.
struct Tree<'a> {
    root: &'a Path,
    hierarchy: Hierarchy,
    /// Whether this is the kernel's file system and not a copy of its files.
    is_cgroupfs: bool,
    cpuacct: Cpuacct,
    /// The v1 hierarchy of the memory controller.
    memory: Option<(&'a Path, OwnedFd)>,
}

/// Where `cpuacct.usage` is.
enum Cpuacct {
    Nowhere,
    /// In the same directory: both controllers are one hierarchy.
    Here,
    /// At the same path below this root.
    Below(OwnedFd),
}

/// A cgroup's directory: one that is open, or a leaf in one that is open.
#[derive(Clone, Copy)]
struct Directory<'a> {
    open: BorrowedFd<'a>,
    leaf: Option<&'a CStr>,
}

/// Where a cgroup is in the tree.
#[derive(Clone, Copy)]
struct Place {
    key: Key,
    parent: Option<Key>,
    /// The tightest limits of its ancestors; on the way down, its own too.
    limits: Limits,
    /// 0 for the root.
    depth: usize,
}

/// What a cgroup and its ancestors may have.
#[derive(Clone, Copy, Default)]
struct Limits {
    cpu: Option<f64>,
    memory: Thresholds,
}

impl Walker {
    /// Everything in all hierarchies that give keys, v2 first; without memory and pressure if it is hasty. Fails when no root can be opened.
    pub fn walk(&mut self, layout: &Layout, is_hasty: bool) -> Result<Listing, Error> {
        self.listing = Listing::default();
        self.resources.begin();
        self.is_hasty = is_hasty;
        let roots = [(Hierarchy::V2, &layout.v2), (Hierarchy::Cpu, &layout.cpu)];
        let mut failed = None;
        for (hierarchy, root) in roots.into_iter().filter_map(|(hierarchy, root)| Some((hierarchy, root.as_deref()?))) {
            if let Err(errno) = self.tree(layout, hierarchy, root) {
                failed.get_or_insert((root, errno));
                complain(&mut self.listing, root, b"", "", &errno);
            }
        }
        self.resources.sweep();
        match failed {
            Some((root, errno)) if self.listing.groups.is_empty() => {
                Err(Error::Read { path: root.to_owned(), error: errno.into() })
            }
            _ => Ok(std::mem::take(&mut self.listing)),
        }
    }

    fn tree(&mut self, layout: &Layout, hierarchy: Hierarchy, root: &Path) -> Result<(), Errno> {
        let open = |root: &Path| openat(CWD, root, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let directory = open(root)?;
        let is_cgroupfs = matches!(fstatfs(&directory)?.f_type as u64, CGROUP_SUPER_MAGIC | CGROUP2_SUPER_MAGIC);
        let memory = layout.memory.as_deref().and_then(|root| match open(root) {
            Ok(directory) => Some((root, directory)),
            Err(errno) => {
                complain(&mut self.listing, root, b"", "", &errno);
                None
            }
        });
        let cpuacct = match layout.cpuacct.as_deref() {
            Some(same) if same == root => Cpuacct::Here,
            Some(other) => open(other).map(Cpuacct::Below).unwrap_or_else(|errno| {
                complain(&mut self.listing, other, b"", "", &errno);
                Cpuacct::Nowhere
            }),
            None => Cpuacct::Nowhere,
        };
        let inode = fstat(&directory)?.st_ino;
        let namespaced = is_cgroupfs && inode != 1;
        self.listing.namespaced |= namespaced;
        let key = if namespaced { key(hierarchy, inode) } else { Key::ROOT };
        self.path.clear();
        let tree = Tree { root, hierarchy, is_cgroupfs, cpuacct, memory };
        self.visit(&tree, directory.as_fd(), Place { key, parent: None, limits: Limits::default(), depth: 0 });
        Ok(())
    }

    /// A directory, then those in it.
    fn visit(&mut self, tree: &Tree<'_>, open: BorrowedFd<'_>, place: Place) {
        let Some(limits) = self.group(tree, Directory { open, leaf: None }, place) else { return };
        for name in self.children(tree, open) {
            let above = self.path.len();
            self.path.push(b'/');
            self.path.extend_from_slice(name.to_bytes());
            self.child(tree, open, &name, Place { limits, ..place });
            self.path.truncate(above);
        }
    }

    fn child(&mut self, tree: &Tree<'_>, open: BorrowedFd<'_>, name: &CStr, above: Place) {
        let depth = above.depth + 1;
        if depth > MAX_DEPTH {
            return complain(&mut self.listing, tree.root, &self.path, "", &format_args!("deeper than {MAX_DEPTH} levels"));
        }
        let visited = statat(open, name, AtFlags::SYMLINK_NOFOLLOW).and_then(|stat| {
            let place = Place { key: key(tree.hierarchy, stat.st_ino), parent: Some(above.key), limits: above.limits, depth };
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                // Where the entries of the file system do not say so.
                return Ok(());
            }
            if tree.is_cgroupfs && stat.st_nlink == 2 {
                // kernfs counts a directory's subdirectories in its links; other file systems need not.
                self.group(tree, Directory { open, leaf: Some(name) }, place);
            } else {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                self.visit(tree, openat(open, name, flags, Mode::empty())?.as_fd(), place);
            }
            Ok(())
        });
        match visited {
            Ok(()) => {}
            Err(Errno::NOENT | Errno::NODEV) => self.listing.vanished += 1,
            Err(errno) => complain(&mut self.listing, tree.root, &self.path, "", &errno),
        }
    }

    /// Lists one cgroup and tells the limits that those in it have from it; `None` when it has ended.
    fn group(&mut self, tree: &Tree<'_>, directory: Directory<'_>, place: Place) -> Option<Limits> {
        let Some(cpu) = self.cpu(tree, directory, place.limits.cpu) else {
            self.listing.vanished += 1;
            return None;
        };
        let resources = self.resources(tree, directory, place, cpu.usage);
        let path = if self.path.is_empty() { "/".into() } else { text::escape(&self.path).into_owned() };
        let memory = Thresholds::of(&resources);
        let identity = identity::of(&self.path);
        self.listing.groups.push(Found { key: place.key, parent: place.parent, path, identity, cpu, resources });
        Some(Limits { cpu: cpu.limit, memory })
    }

    /// Memory and pressure of a cgroup that has used so much CPU time.
    fn resources(&mut self, tree: &Tree<'_>, directory: Directory<'_>, place: Place, usage: Option<u64>) -> Arc<Resources> {
        if self.is_hasty {
            return Arc::clone(&self.nothing);
        }
        let mut source = Opening { tree, directory, path: &self.path, name: &mut self.name };
        let (resources, unreadable) = self.resources.read(place.key, usage, place.limits.memory, &mut source);
        if let Some(unreadable) = unreadable {
            let first = || Unreadable { count: 0, first: unreadable.first.clone() };
            self.listing.unreadable.get_or_insert_with(first).count += unreadable.count;
        }
        resources
    }

    /// Names of the directories in a directory, links left out.
    fn children(&mut self, tree: &Tree<'_>, directory: BorrowedFd<'_>) -> Vec<CString> {
        let mut children = Vec::new();
        self.entries.reserve(ENTRY_BYTES);
        let mut entries = RawDir::new(directory, self.entries.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            match entry {
                Ok(entry) => {
                    let name = entry.file_name();
                    let may_be_directory = matches!(entry.file_type(), FileType::Directory | FileType::Unknown);
                    if may_be_directory && name != c"." && name != c".." {
                        children.push(name.to_owned());
                    }
                }
                // It ended meanwhile, and so it has none.
                Err(Errno::NOENT) => break,
                Err(errno) => {
                    complain(&mut self.listing, tree.root, &self.path, "", &errno);
                    break;
                }
            }
        }
        children
    }

    /// What the files of a directory say; `None` when the cgroup has ended.
    fn cpu(&mut self, tree: &Tree<'_>, directory: Directory<'_>, inherited: Option<f64>) -> Option<CpuStat> {
        let known = self.value(tree, directory, "cpu.stat", stat::cpu_stat)?;
        // The directory of a cgroup that has ended looks empty; every living one has cgroup.procs.
        if known.is_none() && tree.is_cgroupfs && self.is_missing(directory, "cgroup.procs") {
            return None;
        }
        let mut cpu = known.unwrap_or_default();
        let own = match tree.hierarchy {
            // Where the controller is off there is neither the one nor the other.
            Hierarchy::V2 if cpu.periods.is_none() => None,
            Hierarchy::V2 => self.value(tree, directory, "cpu.max", stat::cpu_max)?.flatten(),
            Hierarchy::Cpu => match self.value(tree, directory, "cpu.cfs_quota_us", stat::quota)?.flatten() {
                Some(quota) => {
                    let period = self.value(tree, directory, "cpu.cfs_period_us", stat::count)?;
                    period.and_then(|period| stat::cpus(quota, period))
                }
                None => None,
            },
        };
        cpu.limit = stat::tighter(inherited, own);
        if cpu.usage.is_none() {
            // A cgroup that ended in cpuacct alone is still there in this hierarchy.
            cpu.usage = self.cpuacct(tree, directory).flatten();
        }
        Some(cpu)
    }

    fn cpuacct(&mut self, tree: &Tree<'_>, directory: Directory<'_>) -> Option<Option<u64>> {
        match &tree.cpuacct {
            Cpuacct::Nowhere => Some(None),
            Cpuacct::Here => self.value(tree, directory, "cpuacct.usage", stat::count),
            Cpuacct::Below(root) => {
                below(&mut self.name, &self.path, "cpuacct.usage");
                let read = read_file(root.as_fd(), &self.name, &mut self.file);
                self.parsed(tree, "cpuacct.usage", read, stat::count)
            }
        }
    }

    /// A file of a directory: `None` when the cgroup has ended, `Some(None)` when what the file says is unknown.
    fn value<T, P>(&mut self, tree: &Tree<'_>, directory: Directory<'_>, name: &str, parse: P) -> Option<Option<T>>
    where
        P: FnOnce(&[u8]) -> Result<T, stat::Malformed>,
    {
        join(&mut self.name, directory, name);
        let read = read_file(directory.open, &self.name, &mut self.file);
        self.parsed(tree, name, read, parse)
    }

    fn is_missing(&mut self, directory: Directory<'_>, name: &str) -> bool {
        join(&mut self.name, directory, name);
        matches!(statat(directory.open, &self.name[..], AtFlags::empty()), Err(Errno::NOENT))
    }

    fn parsed<T, P>(&mut self, tree: &Tree<'_>, name: &str, read: Result<(), Errno>, parse: P) -> Option<Option<T>>
    where
        P: FnOnce(&[u8]) -> Result<T, stat::Malformed>,
    {
        let complaint: &dyn Display = match read {
            Ok(()) => match parse(&self.file) {
                Ok(value) => return Some(Some(value)),
                Err(malformed) => &{ malformed },
            },
            Err(Errno::NOENT) => return Some(None),
            Err(Errno::NODEV) => return None,
            Err(errno) => &{ errno },
        };
        complain(&mut self.listing, tree.root, &self.path, name, complaint);
        Some(None)
    }
}

/// The files of memory and pressure of the cgroup at which the walk is.
struct Opening<'a> {
    tree: &'a Tree<'a>,
    directory: Directory<'a>,
    path: &'a [u8],
    /// For names.
    name: &'a mut Vec<u8>,
}

impl Source for Opening<'_> {
    fn has(&self, home: Home) -> bool {
        match home {
            Home::V2 => self.tree.hierarchy == Hierarchy::V2,
            Home::V2Memory => self.tree.hierarchy == Hierarchy::V2 && self.tree.memory.is_none(),
            Home::V1Memory => self.tree.memory.is_some(),
        }
    }

    fn open(&mut self, file: &File) -> Result<OwnedFd, Errno> {
        match (file.home, &self.tree.memory) {
            (Home::V1Memory, Some((_, root))) => {
                below(self.name, self.path, file.name);
                open_file(root.as_fd(), self.name)
            }
            _ => {
                join(self.name, self.directory, file.name);
                open_file(self.directory.open, self.name)
            }
        }
    }

    fn complaint(&self, file: &File, what: &dyn Display) -> String {
        let root = match (file.home, &self.tree.memory) {
            (Home::V1Memory, Some((root, _))) => root,
            _ => self.tree.root,
        };
        complaint(root, self.path, file.name, what)
    }
}

/// Sets `to` to where a directory's file is, seen from the open one.
fn join(to: &mut Vec<u8>, directory: Directory<'_>, name: &str) {
    to.clear();
    if let Some(leaf) = directory.leaf {
        to.extend_from_slice(leaf.to_bytes());
        to.push(b'/');
    }
    to.extend_from_slice(name.as_bytes());
}

/// Sets `to` to where the file of a cgroup with this path is, seen from a hierarchy's root.
fn below(to: &mut Vec<u8>, path: &[u8], name: &str) {
    to.clear();
    if let Some(path) = path.strip_prefix(b"/") {
        to.extend_from_slice(path);
        to.push(b'/');
    }
    to.extend_from_slice(name.as_bytes());
}

fn key(hierarchy: Hierarchy, inode: u64) -> Key {
    match hierarchy {
        Hierarchy::V2 => Key::v2(inode),
        Hierarchy::Cpu => Key::cpu(inode),
    }
}

/// The beginning of a file, by one call: a file of this kind comes whole.
fn read_file(directory: BorrowedFd<'_>, name: &[u8], buffer: &mut Vec<u8>) -> Result<(), Errno> {
    let file = open_file(directory, name)?;
    buffer.resize(FILE_BYTES, 0);
    let length = read(&file, &mut buffer[..])?;
    buffer.truncate(length);
    Ok(())
}

/// Opens a file for reading.
fn open_file(directory: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    openat(directory, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

/// Counts something unreadable, and names it if it is the first.
fn complain(listing: &mut Listing, root: &Path, path: &[u8], name: &str, what: &dyn Display) {
    let first = || Unreadable { count: 0, first: complaint(root, path, name, what) };
    listing.unreadable.get_or_insert_with(first).count += 1;
}

/// Which file of which cgroup, and what is wrong with it.
fn complaint(root: &Path, path: &[u8], name: &str, what: &dyn Display) -> String {
    let root = text::escape(root.as_os_str().as_encoded_bytes());
    let slash = if name.is_empty() { "" } else { "/" };
    format!("{root}{}{slash}{name}: {what}", text::escape(path))
}

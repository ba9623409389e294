//! A hierarchy that is mounted somewhere, and the files of a cgroup in it: opened, read with one call (the kernel gives files of this kind in
//! one piece), and what is wrong with them.

use std::fmt::Display;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use observer_common::sched::Key;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, fstatfs, openat, statat};
use rustix::io::Errno;

use super::resources::{File, Home, Means, Source};
use super::tree::Node;
use super::{Layout, Listing, Unreadable, stat};
use crate::model::Hierarchy;
use crate::model::cgroup::CpuStat;
use crate::model::text;

const CGROUP_SUPER_MAGIC: u64 = 0x27_e0eb;
const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;

/// A hierarchy that is walked.
pub(super) struct Mount<'a> {
    /// Its place among the trees.
    pub(super) number: usize,
    pub(super) root: &'a Path,
    pub(super) directory: OwnedFd,
    pub(super) hierarchy: Hierarchy,
    /// Whether this is the kernel's file system and not a copy of its files.
    pub(super) is_cgroupfs: bool,
    pub(super) cpuacct: Cpuacct,
    /// The v1 hierarchy of the memory controller.
    pub(super) memory: Option<(&'a Path, OwnedFd)>,
    /// Somebody knows who ran; otherwise parents tell of their children.
    pub(super) knows_who_ran: bool,
    /// Memory and pressure are left out.
    pub(super) is_hasty: bool,
    /// There is a root already.
    pub(super) is_second: bool,
}

/// Where `cpuacct.usage` is.
pub(super) enum Cpuacct {
    Nowhere,
    /// In the same directory: both controllers are one hierarchy.
    Here,
    /// At the same path below this root.
    Below(OwnedFd),
}

impl<'a> Mount<'a> {
    pub(super) fn open(
        layout: &'a Layout,
        number: usize,
        hierarchy: Hierarchy,
        root: &'a Path,
        listing: &mut Listing,
    ) -> Result<Mount<'a>, Errno> {
        let open = |root: &Path| openat(CWD, root, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let directory = open(root)?;
        let is_cgroupfs = matches!(fstatfs(&directory)?.f_type as u64, CGROUP_SUPER_MAGIC | CGROUP2_SUPER_MAGIC);
        let mut complain = |root: &Path, errno: Errno| count(&mut listing.unreadable, 1, || complaint(root, b"", "", &errno));
        let memory = layout.memory.as_deref().and_then(|root| match open(root) {
            Ok(directory) => Some((root, directory)),
            Err(errno) => {
                complain(root, errno);
                None
            }
        });
        let cpuacct = match layout.cpuacct.as_deref() {
            Some(same) if same == root => Cpuacct::Here,
            Some(other) => open(other).map(Cpuacct::Below).unwrap_or_else(|errno| {
                complain(other, errno);
                Cpuacct::Nowhere
            }),
            None => Cpuacct::Nowhere,
        };
        Ok(Mount {
            number,
            root,
            directory,
            hierarchy,
            is_cgroupfs,
            cpuacct,
            memory,
            knows_who_ran: false,
            is_hasty: false,
            is_second: false,
        })
    }

    /// Opens a file of the cgroup with this path.
    pub(super) fn open_file(&self, path: &[u8], file: &str, name: &mut Vec<u8>) -> Result<OwnedFd, Errno> {
        below(name, path, file);
        open_file(self.directory.as_fd(), name)
    }
}

/// The files of a cgroup's CPU.
pub(super) struct CpuFiles<'a> {
    pub(super) mount: &'a Mount<'a>,
    pub(super) node: &'a mut Node,
    pub(super) means: &'a mut Means,
    pub(super) name: &'a mut Vec<u8>,
}

impl CpuFiles<'_> {
    /// Usage and throttling; `None` when the cgroup has ended.
    pub(super) fn stat(&mut self) -> Option<CpuStat> {
        self.node.unread = None;
        let known = self.kept(0, "cpu.stat", |text| {
            let (stat, malformed) = stat::cpu_stat(text);
            (Some(stat), malformed)
        })?;
        // The directory of a cgroup that has ended looks empty; every living one has cgroup.procs.
        if known.is_none() && self.mount.is_cgroupfs && self.is_missing("cgroup.procs") {
            return None;
        }
        let mut cpu = known.unwrap_or_default();
        if cpu.usage.is_none() && !matches!(self.mount.cpuacct, Cpuacct::Nowhere) {
            // A cgroup that ended in cpuacct alone is still there in this hierarchy.
            cpu.usage = self.kept(1, "cpuacct.usage", |text| split(stat::count(text))).flatten();
        }
        Some(cpu)
    }

    /// Its own limit, in CPUs; `None` when the cgroup has ended.
    pub(super) fn limit(&mut self, cpu: &CpuStat) -> Option<Option<f64>> {
        match self.mount.hierarchy {
            // Where the controller is off there is neither the one nor the other.
            Hierarchy::V2 if cpu.periods.is_none() => Some(None),
            Hierarchy::V2 => Some(self.once("cpu.max", stat::cpu_max)?.flatten()),
            Hierarchy::Cpu => match self.once("cpu.cfs_quota_us", stat::quota)?.flatten() {
                Some(quota) => {
                    let period = self.once("cpu.cfs_period_us", stat::count)?;
                    Some(period.and_then(|period| stat::cpus(quota, period)))
                }
                None => Some(None),
            },
        }
    }

    /// A file that stays open while it brings news: `None` when the cgroup has ended, `Some(None)` when what the file says is unknown.
    fn kept<T>(
        &mut self,
        number: usize,
        file: &str,
        parse: impl FnOnce(&[u8]) -> (Option<T>, Option<stat::Malformed>),
    ) -> Option<Option<T>> {
        let CpuFiles { mount, node, means, name } = self;
        let open = || match &mount.cpuacct {
            Cpuacct::Below(root) if number == 1 => {
                below(name, &node.path, file);
                open_file(root.as_fd(), name)
            }
            _ => mount.open_file(&node.path, file, name),
        };
        let keep = node.moved;
        let read = node.files.read(&mut means.budget, number, keep, open, &mut means.buffer);
        self.parsed(file, read, parse)
    }

    /// A file that is seldom read.
    fn once<T>(&mut self, file: &str, parse: impl FnOnce(&[u8]) -> Result<T, stat::Malformed>) -> Option<Option<T>> {
        let opened = self.mount.open_file(&self.node.path, file, self.name);
        let read = opened.and_then(|opened| rustix::io::read(opened, &mut self.means.buffer[..]));
        self.parsed(file, read, |text| split(parse(text)))
    }

    fn parsed<T>(
        &mut self,
        file: &str,
        read: Result<usize, Errno>,
        parse: impl FnOnce(&[u8]) -> (Option<T>, Option<stat::Malformed>),
    ) -> Option<Option<T>> {
        let (value, wrong) = match read {
            Ok(length) => {
                let (value, malformed) = parse(&self.means.buffer[..length]);
                (value, malformed.map(|malformed| malformed.to_string()))
            }
            Err(Errno::NOENT) => (None, None),
            Err(Errno::NODEV) => return None,
            Err(errno) => (None, Some(errno.to_string())),
        };
        if let Some(wrong) = wrong {
            let (root, path) = (self.mount.root, &self.node.path);
            count_boxed(&mut self.node.unread, || complaint(root, path, file, &wrong));
        }
        Some(value)
    }

    fn is_missing(&mut self, file: &str) -> bool {
        below(self.name, &self.node.path, file);
        matches!(statat(&self.mount.directory, &self.name[..], AtFlags::empty()), Err(Errno::NOENT))
    }
}

/// The files of memory and pressure of a cgroup.
pub(super) struct Opening<'a> {
    pub(super) mount: &'a Mount<'a>,
    pub(super) path: &'a [u8],
    /// For names.
    pub(super) name: &'a mut Vec<u8>,
}

impl Source for Opening<'_> {
    fn has(&self, home: Home) -> bool {
        match home {
            Home::V2 => self.mount.hierarchy == Hierarchy::V2,
            Home::V2Memory => self.mount.hierarchy == Hierarchy::V2 && self.mount.memory.is_none(),
            Home::V1Memory => self.mount.memory.is_some(),
            Home::V1Cpu => self.mount.hierarchy == Hierarchy::Cpu,
        }
    }

    fn open(&mut self, file: &File) -> Result<OwnedFd, Errno> {
        match (file.home, &self.mount.memory) {
            (Home::V1Memory, Some((_, root))) => {
                below(self.name, self.path, file.name);
                open_file(root.as_fd(), self.name)
            }
            _ => self.mount.open_file(self.path, file.name, self.name),
        }
    }

    fn complaint(&self, file: &File, what: &dyn Display) -> String {
        let root = match (file.home, &self.mount.memory) {
            (Home::V1Memory, Some((root, _))) => root,
            _ => self.mount.root,
        };
        complaint(root, self.path, file.name, what)
    }
}

/// A value or what is wrong with it.
fn split<T>(result: Result<T, stat::Malformed>) -> (Option<T>, Option<stat::Malformed>) {
    match result {
        Ok(value) => (Some(value), None),
        Err(malformed) => (None, Some(malformed)),
    }
}

/// Sets `to` to where the file of a cgroup with this path is, seen from a hierarchy's root; the directory itself without a name.
pub(super) fn below(to: &mut Vec<u8>, path: &[u8], name: &str) {
    to.clear();
    to.extend_from_slice(path.strip_prefix(b"/").unwrap_or(b"."));
    if !name.is_empty() {
        to.push(b'/');
        to.extend_from_slice(name.as_bytes());
    }
}

pub(super) fn key(hierarchy: Hierarchy, inode: u64) -> Key {
    match hierarchy {
        Hierarchy::V2 => Key::v2(inode),
        Hierarchy::Cpu => Key::cpu(inode),
    }
}

/// Opens a file for reading.
fn open_file(directory: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    openat(directory, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

/// Counts things unreadable, and names the first.
pub(super) fn count(unreadable: &mut Option<Unreadable>, more: u64, first: impl FnOnce() -> String) {
    unreadable.get_or_insert_with(|| Unreadable { count: 0, first: first() }).count += more;
}

/// The same for one thing of a cgroup's.
pub(super) fn count_boxed(unreadable: &mut Option<Box<Unreadable>>, first: impl FnOnce() -> String) {
    unreadable.get_or_insert_with(|| Box::new(Unreadable { count: 0, first: first() })).count += 1;
}

/// Which file of which cgroup, and what is wrong with it.
pub(super) fn complaint(root: &Path, path: &[u8], name: &str, what: &dyn Display) -> String {
    let root = text::escape(root.as_os_str().as_encoded_bytes());
    let slash = if name.is_empty() { "" } else { "/" };
    format!("{root}{}{slash}{name}: {what}", text::escape(path))
}

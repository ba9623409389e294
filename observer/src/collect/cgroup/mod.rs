//! The cgroup tree and its files, on v2, v1 and hybrid hosts.
//!
//! [`layout`] finds the hierarchies, [`walk`] goes through them, `mount` opens their files, [`stat`], [`memory`], [`control`], [`identity`] and
//! [`mod@unit`] parse what it finds; `tree` keeps what need not be looked for again, `resources` what need not be read again, [`files`] what is
//! open; `watch` is told what changed. Only the hierarchies that give keys are walked: the v2 tree, and the v1 tree of the `cpu` controller;
//! `cpuacct` and `memory` join by path.

pub mod control;
pub mod files;
pub mod identity;
pub mod layout;
pub mod memory;
mod mount;
mod resources;
pub mod stat;
mod tree;
pub mod unit;
pub mod walk;
mod watch;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use layout::Layout;
use observer_common::sched::Key;
use walk::Walker;

use crate::model::cgroup::{CpuStat, Identity, Resources};
use crate::model::text;

/// Reads every cgroup of a host.
#[derive(Debug)]
pub struct Cgroups {
    layout: Layout,
    /// Kept between readings.
    walker: Walker,
}

/// All cgroups at one moment.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Listing {
    /// Ascending by key. The roots of all hierarchies are one row, [`Key::ROOT`], unless `namespaced`.
    pub groups: Vec<Found>,
    /// What is mounted is a part of the tree (a cgroup namespace or a bind mount): some root's inode is not 1. That root is still called
    /// `/`, its key is that of the cgroup which it really is, and numbers of the machine are not to be had here.
    pub namespaced: bool,
    /// Cgroups that ended between being listed and being read.
    pub vanished: u64,
    /// What exists and could not be read.
    pub unreadable: Option<Unreadable>,
    /// Why the kernel does not tell of changes in all directories, so that the others are looked at in each reading.
    pub unwatched: Option<String>,
}

/// A cgroup that has run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ran {
    /// Its key.
    pub key: Key,
    /// The cgroup above it, where that is known.
    pub parent: Option<Key>,
}

/// One cgroup and what its files say.
#[derive(Clone, PartialEq, Debug)]
pub struct Found {
    /// Hierarchy and id; the id is the directory's inode.
    pub key: Key,
    /// The cgroup above it, `None` for a root.
    pub parent: Option<Key>,
    /// Path from the root of its hierarchy, escaped; `/` for the root.
    pub path: Arc<str>,
    /// Whose it is, by its path ([`identity::of`]).
    pub identity: Option<Arc<Identity>>,
    /// Usage and quota.
    pub cpu: CpuStat,
    /// Memory and pressure; those of the v1 memory hierarchy at the same path, where that has the controller.
    pub resources: Arc<Resources>,
}

/// Directories and files that exist and gave nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unreadable {
    /// How many.
    pub count: u64,
    /// The first one: its path and what was wrong, escaped.
    pub first: String,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count {
            1 => f.write_str(&self.first),
            count => write!(f, "{} (and {} more)", self.first, count - 1),
        }
    }
}

/// Why there are no cgroups at all. One line fit to print.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing known lies below the root.
    #[error(
        "{}: no cgroup hierarchy of use here: looked for cgroup.controllers (v2), and in each directory for cgroup.controllers, \
         cpu.cfs_quota_us, cpu.shares or cpuacct.usage (v1)",
        text::escape(root.as_os_str().as_encoded_bytes())
    )]
    NoLayout {
        /// Where it was looked.
        root: PathBuf,
    },
    /// The system refused.
    #[error("{}: {error}", text::escape(path.as_os_str().as_encoded_bytes()))]
    Read {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

impl Cgroups {
    /// Finds the hierarchies below a root: `/sys/fs/cgroup`, whatever is mounted there.
    pub fn open(root: &Path) -> Result<Cgroups, Error> {
        Ok(Cgroups { layout: layout::find(root)?, walker: Walker::default() })
    }

    /// Where the hierarchies are.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Lists all cgroups, and reads those of which something may have moved since the last time. Fails only when no root can be opened;
    /// whatever else goes wrong is counted in the listing.
    pub fn read(&mut self) -> Result<Listing, Error> {
        self.walk(None, false)
    }

    /// The same, told which cgroups' own tasks have run since the last reading, where somebody knows that: spares reading those beside them.
    pub fn read_knowing(&mut self, ran: Option<&[Ran]>) -> Result<Listing, Error> {
        self.walk(ran, false)
    }

    /// The same without memory and pressure, which are most of the work when nothing is known yet: for who cannot wait.
    pub fn read_hastily(&mut self) -> Result<Listing, Error> {
        self.walk(None, true)
    }

    fn walk(&mut self, ran: Option<&[Ran]>, is_hasty: bool) -> Result<Listing, Error> {
        let mut listing = self.walker.walk(&self.layout, ran, is_hasty)?;
        // The v2 root comes first, and what it knows wins: v1 roots only fill gaps.
        listing.groups.sort_by_key(|group| group.key);
        listing.groups.dedup_by(|later, kept| {
            if later.key == Key::ROOT && kept.key == Key::ROOT {
                kept.cpu = merged(kept.cpu, later.cpu);
            }
            later.key == kept.key
        });
        Ok(listing)
    }
}

fn merged(first: CpuStat, second: CpuStat) -> CpuStat {
    CpuStat {
        usage: first.usage.or(second.usage),
        user: first.user.or(second.user),
        system: first.system.or(second.system),
        periods: first.periods.or(second.periods),
        throttled_periods: first.throttled_periods.or(second.throttled_periods),
        throttled: first.throttled.or(second.throttled),
        nice: first.nice.or(second.nice),
        force_idle: first.force_idle.or(second.force_idle),
        bursts: first.bursts.or(second.bursts),
        burst: first.burst.or(second.burst),
        limit: first.limit.or(second.limit),
    }
}

#[cfg(test)]
mod tests;

//! Being told which directories of a cgroup file system changed, instead of looking at each of them.
//!
//! inotify tells of directories that somebody makes, removes or renames in one that is watched, and of files that somebody writes to: limits.
//! All mounts of a hierarchy are one file system to the kernel, so it does not matter in which cgroup namespace that happens. Whoever is not
//! watched yet, or cannot be because there are no more watches to be had, is looked at: a cgroup with others below it in each reading, one
//! without when it is read.

use std::collections::HashMap;
use std::ffi::CStr;
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

use super::tree::Place;

/// Watches at the most. Each takes a kilobyte of the kernel, with the directory's inode, which it keeps in memory.
const MOST: usize = 1 << 14;
/// Watches that one user may have: others want some, too, so that half of them is left.
const LIMIT: &str = "/proc/sys/fs/inotify/max_user_watches";
/// For the events of one call.
const EVENT_BYTES: usize = 32 << 10;

/// What happened in a directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Change {
    /// Directories in it came or went.
    Children,
    /// One of its files was written to.
    File,
    /// So was that which tells the controllers of those in it.
    Controllers,
    /// It is not watched any more: it is gone.
    Unwatched,
}

/// Directories that are watched.
#[derive(Debug)]
pub(super) struct Watches {
    /// Opened for the first watch.
    inotify: Option<OwnedFd>,
    places: HashMap<i32, Place>,
    most: usize,
    /// What the kernel said when it wanted no more of them.
    refused: Option<Errno>,
}

impl Default for Watches {
    fn default() -> Self {
        let allowed = fs::read_to_string(LIMIT).ok().and_then(|text| text.trim().parse::<usize>().ok());
        Watches {
            inotify: None,
            places: HashMap::new(),
            most: allowed.map_or(MOST, |allowed| MOST.min(allowed / 2)),
            refused: None,
        }
    }
}

impl Watches {
    /// Watches a directory, from now on; `None` where that is not to be had. What happened before has to be looked at.
    pub(super) fn add(&mut self, path: &[u8], place: Place) -> Option<i32> {
        if self.refused.is_some() || self.places.len() >= self.most {
            return None;
        }
        let added = self.inotify().and_then(|inotify| {
            let what = WatchFlags::CREATE
                | WatchFlags::DELETE
                | WatchFlags::MOVED_FROM
                | WatchFlags::MOVED_TO
                | WatchFlags::MODIFY
                | WatchFlags::ONLYDIR
                | WatchFlags::DONT_FOLLOW;
            inotify::add_watch(inotify, path, what)
        });
        match added {
            Ok(watch) => {
                self.places.insert(watch, place);
                Some(watch)
            }
            // The directory's own fault.
            Err(Errno::NOENT | Errno::ACCESS | Errno::NOTDIR | Errno::NAMETOOLONG) => None,
            Err(errno) => {
                self.refused = Some(errno);
                None
            }
        }
    }

    /// Watches it no longer.
    pub(super) fn remove(&mut self, watch: i32) {
        self.places.remove(&watch);
        if let Some(inotify) = &self.inotify {
            // That of a directory that is gone went with it.
            let _ = inotify::remove_watch(inotify, watch);
        }
        // There may be room again.
        self.refused = None;
    }

    /// What happened since the last call. `None` if that was more than the kernel kept: anything may have.
    pub(super) fn take(&mut self, each: &mut dyn FnMut(Place, Change)) -> Option<()> {
        let Some(inotify) = &self.inotify else { return Some(()) };
        let mut buffer = [MaybeUninit::uninit(); EVENT_BYTES];
        let mut events = Reader::new(inotify, &mut buffer);
        let mut is_whole = true;
        // An error other than that there is no more would be new to this interface: then anything may have happened, too.
        let last = loop {
            let event = match events.next() {
                Ok(event) => event,
                Err(errno) => break errno,
            };
            let what = event.events();
            if what.contains(ReadFlags::QUEUE_OVERFLOW) {
                is_whole = false;
            }
            let Some(place) = self.places.get(&event.wd()).copied() else { continue };
            if what.contains(ReadFlags::IGNORED) {
                self.places.remove(&event.wd());
                each(place, Change::Unwatched);
            } else if what.contains(ReadFlags::ISDIR) {
                each(place, Change::Children);
            } else {
                match event.file_name().map(CStr::to_bytes) {
                    // Tasks come and go; that changes nothing by itself.
                    Some(b"cgroup.procs" | b"cgroup.threads" | b"tasks") => {}
                    Some(b"cgroup.subtree_control") => each(place, Change::Controllers),
                    _ => each(place, Change::File),
                }
            }
        };
        (is_whole && last == Errno::AGAIN).then_some(())
    }

    /// Why not everything is watched, if there is a reason other than the directories themselves.
    pub(super) fn trouble(&self) -> Option<String> {
        let watched = self.places.len();
        match self.refused {
            Some(Errno::NOSPC) => Some(format!(
                "only {watched} cgroups are watched for changes, the others are looked at: raise fs.inotify.max_user_watches"
            )),
            Some(errno) => {
                Some(format!("only {watched} cgroups are watched for changes, the others are looked at: inotify: {errno}"))
            }
            None if watched >= self.most && self.most < MOST => Some(format!(
                "only {watched} cgroups are watched for changes, half of fs.inotify.max_user_watches; the others are looked at"
            )),
            None => None,
        }
    }

    fn inotify(&mut self) -> Result<&OwnedFd, Errno> {
        match &mut self.inotify {
            Some(inotify) => Ok(inotify),
            none => Ok(none.insert(inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?)),
        }
    }
}

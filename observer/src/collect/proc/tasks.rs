//! Every thread from `/proc/PID/task/TID/{stat,schedstat,status}`: what is left where the task iterator cannot be used.
//!
//! It is slow, about 35 µs a thread, and a thread's files are read one after the other while it runs. Files that cannot be read, because the
//! thread is gone or belongs to somebody else, cost only that row. What is not in them, migrations and waits that go on, is unknown.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::file::{self, Error, Malformed};
use crate::collect::Roots;
use crate::collect::tasks::seen::{Place, Seen};
use crate::model::text::escape;
use crate::model::{Counts, Status};

const SECOND: u64 = 1_000_000_000;

/// `PF_KTHREAD` of include/linux/sched.h.
const KTHREAD: u64 = observer_common::tasks::KTHREAD as u64;

/// Reads all threads of one `/proc`.
#[derive(Debug)]
pub struct Threads {
    root: PathBuf,
    ticks_per_second: u64,
    buffer: Vec<u8>,
}

impl Threads {
    /// A reader below `roots.proc`; asks the C library for USER_HZ and opens nothing.
    pub fn new(roots: &Roots) -> Threads {
        Threads::with_ticks(roots, rustix::param::clock_ticks_per_second())
    }

    /// The same with a given USER_HZ.
    pub fn with_ticks(roots: &Roots, ticks_per_second: u64) -> Threads {
        Threads { root: roots.proc.clone(), ticks_per_second: ticks_per_second.max(1), buffer: Vec::new() }
    }

    /// Replaces the list by the threads that there are, in no order.
    ///
    /// # Errors
    ///
    /// When `/proc` itself cannot be listed.
    pub fn read(&mut self, into: &mut Vec<Seen>) -> Result<(), Error> {
        into.clear();
        let listing = fs::read_dir(&self.root).map_err(|error| Error::Read { path: self.root.clone(), error })?;
        for pid in listing.flatten().filter_map(|entry| number(&entry.file_name())) {
            self.process(pid, into);
        }
        Ok(())
    }

    /// Appends the threads of a process; none when its first thread cannot be read, whose start names the process.
    pub fn process(&mut self, pid: u32, into: &mut Vec<Seen>) {
        let directory = self.root.join(pid.to_string());
        let tasks = directory.join("task");
        let Some(leader) = self.thread(&tasks, pid, pid, Place::Unknown, None) else { return };
        // Threads of one process are in one cgroup nearly always, and those of the v1 cpu hierarchy are not worth a file each.
        let place = self.place(&directory).map_or(Place::Unknown, Place::Path);
        let start = leader.start;
        into.push(Seen { place: place.clone(), ..leader });
        let Ok(listing) = fs::read_dir(&tasks) else { return };
        for tid in listing.flatten().filter_map(|entry| number(&entry.file_name())).filter(|tid| *tid != pid) {
            into.extend(self.thread(&tasks, pid, tid, place.clone(), Some(start)));
        }
    }

    fn thread(&mut self, tasks: &Path, pid: u32, tid: u32, place: Place, leader_start: Option<u64>) -> Option<Seen> {
        let directory = tasks.join(tid.to_string());
        let stat = file::read(&directory.join("stat"), &mut self.buffer).ok()?;
        let Stat { comm, letter, ppid, flags, utime, stime, start } = parse_stat(stat).ok()?;
        let start = nanoseconds(start, self.ticks_per_second);
        // An absent schedstat (CONFIG_SCHED_INFO) or status makes some numbers unknown, not the thread.
        let schedstat = file::parse(&directory.join("schedstat"), &mut self.buffer, parse_schedstat).ok();
        let status = file::read(&directory.join("status"), &mut self.buffer).map(parse_status).unwrap_or_default();
        Some(Seen {
            tid,
            pid,
            ppid,
            start,
            leader_start: leader_start.unwrap_or(start),
            comm,
            uid: status.uid,
            is_kernel: flags & KTHREAD != 0,
            status: Status::of_letter(letter),
            counts: Counts {
                run: schedstat.map(|(run, _)| run),
                wait: schedstat.map(|(_, wait)| wait),
                user: Some(nanoseconds(utime, self.ticks_per_second)),
                system: Some(nanoseconds(stime, self.ticks_per_second)),
                preempted: status.preempted,
                voluntary: status.voluntary,
                migrations: None,
            },
            pending: None,
            dead: None,
            place,
        })
    }

    /// The path of a process's cgroup, by the rule of the keys: the v2 one unless that is the root, else the v1 `cpu` hierarchy's.
    fn place(&mut self, directory: &Path) -> Option<Arc<str>> {
        let text = file::read(&directory.join("cgroup"), &mut self.buffer).ok()?;
        parse_cgroup(text).map(|path| escape(path).into())
    }
}

fn number(name: &std::ffi::OsStr) -> Option<u32> {
    name.to_str()?.parse().ok()
}

fn nanoseconds(ticks: u64, per_second: u64) -> u64 {
    // Seconds and the rest apart, or the product would overflow.
    (ticks / per_second).saturating_mul(SECOND).saturating_add(ticks % per_second * SECOND / per_second)
}

#[derive(Debug, PartialEq)]
struct Stat {
    comm: [u8; 16],
    letter: u8,
    ppid: u32,
    flags: u64,
    utime: u64,
    stime: u64,
    start: u64,
}

/// `pid (comm) state ppid …`: the name may hold anything, parentheses and spaces too, so it ends at the last one.
fn parse_stat(text: &[u8]) -> Result<Stat, Malformed> {
    let malformed = || Malformed::expected("PID (name) state …", &String::from_utf8_lossy(text));
    let begin = text.iter().position(|byte| *byte == b'(').ok_or_else(malformed)?;
    let end = text.iter().rposition(|byte| *byte == b')').filter(|end| *end > begin).ok_or_else(malformed)?;
    let rest = std::str::from_utf8(&text[end + 1..]).map_err(|_| malformed())?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // Fields count from 1, and the state is the third.
    let field = |number: usize| fields.get(number - 3).copied().ok_or_else(malformed);
    let number = |at: usize| field(at)?.parse::<u64>().map_err(|_| malformed());
    let mut comm = [0; 16];
    // The kernel shows names of its workers that are longer than what a name can be.
    for (to, from) in comm.iter_mut().take(15).zip(&text[begin + 1..end]) {
        *to = *from;
    }
    Ok(Stat {
        comm,
        letter: field(3)?.bytes().next().ok_or_else(malformed)?,
        ppid: number(4)?.try_into().map_err(|_| malformed())?,
        flags: number(9)?,
        utime: number(14)?,
        stime: number(15)?,
        start: number(22)?,
    })
}

/// Run time and run-queue wait in nanoseconds, and dispatches.
fn parse_schedstat(text: &str) -> Result<(u64, u64), Malformed> {
    let mut numbers = text.split_ascii_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(run)), Some(Ok(wait))) => Ok((run, wait)),
        _ => Err(Malformed::expected("two numbers", text)),
    }
}

#[derive(Debug, Default, PartialEq)]
struct StatusFile {
    uid: Option<u32>,
    voluntary: Option<u64>,
    preempted: Option<u64>,
}

/// The effective user and the switches; a name in it need not be UTF-8, so each line stands alone.
fn parse_status(text: &[u8]) -> StatusFile {
    let mut found = StatusFile::default();
    for line in text.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok()) {
        match line.split_once(':') {
            Some(("Uid", ids)) => found.uid = ids.split_ascii_whitespace().nth(1).and_then(|id| id.parse().ok()),
            Some(("voluntary_ctxt_switches", count)) => found.voluntary = count.trim().parse().ok(),
            Some(("nonvoluntary_ctxt_switches", count)) => found.preempted = count.trim().parse().ok(),
            _ => {}
        }
    }
    found
}

/// Lines of `hierarchy:controllers:path`.
fn parse_cgroup(text: &[u8]) -> Option<&[u8]> {
    let (mut v2, mut cpu) = (None, None);
    for line in text.split(|byte| *byte == b'\n') {
        let mut parts = line.splitn(3, |byte| *byte == b':');
        let (Some(number), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        // A cgroup that was removed while its last task was dying.
        let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
        if number == b"0" && controllers.is_empty() {
            v2 = Some(path);
        } else if controllers.split(|byte| *byte == b',').any(|name| name == b"cpu") {
            cpu = Some(path);
        }
    }
    v2.filter(|path| *path != b"/").or(cpu).or(v2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_hold_anything() {
        let stat = parse_stat(b"12 (a) R 3 (\xff) S 1 12 12 0 -1 4194560 5 0 0 0 7 8 0 0 20 0 1 0 99 0").unwrap();
        assert_eq!(&stat.comm[..9], b"a) R 3 (\xff");
        assert_eq!((stat.letter, stat.ppid, stat.flags), (b'S', 1, 4194560));
        assert_eq!((stat.utime, stat.stime, stat.start), (7, 8, 99));
        let long = parse_stat(b"2 (kworker/0:1-events_freezable) I 0 0 0 0 -1 69238880 0 0 0 0 0 0 0 0 20 0 1 0 9").unwrap();
        assert_eq!(&long.comm, b"kworker/0:1-eve\0");
        for broken in [&b""[..], b"1 x S", b"1 )x( S 1", b"1 (x) S 1 2 3", b"1 (x) S a b c d e f g h i j k l m n o p q r s t"] {
            assert!(parse_stat(broken).is_err(), "{broken:?}");
        }
    }

    #[test]
    fn cgroups_by_the_rule_of_the_keys() {
        let check = |text: &str, path: Option<&str>| assert_eq!(parse_cgroup(text.as_bytes()), path.map(str::as_bytes), "{text}");
        check("0::/a/b:c\n", Some("/a/b:c"));
        check("5:cpu,cpuacct:/v1\n0::/\n", Some("/v1"));
        check("5:cpu,cpuacct:/v1\n0::/v2 (deleted)\n", Some("/v2"));
        check("5:cpuset:/v1\n0::/\n", Some("/"));
        check("1:name=systemd:/x\n", None);
        check("", None);
    }

    #[test]
    fn a_small_tree() {
        let tree = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = tree.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let stat = |tid: u32, name: &str, flags: u64, start: u64| {
            format!("{tid} ({name}) S 1 5 5 0 -1 {flags} 0 0 0 0 30 20 0 0 20 0 2 0 {start} 0 0\n")
        };
        write("5/task/5/stat", &stat(5, "main", 0, 700));
        write("5/task/5/schedstat", "123 45 6\n");
        write("5/task/5/status", "Uid:\t0\t33\t0\t0\nvoluntary_ctxt_switches:\t3\nnonvoluntary_ctxt_switches:\t4\n");
        write("5/cgroup", "2:cpu,cpuacct:/\n0::/system.slice/a\x1b.service\n");
        write("5/task/6/stat", &stat(6, "helper", 0, 800));
        write("5/task/7/stat", "broken");
        write("5/task/8/schedstat", "1 2 3");
        write("2/task/2/stat", &stat(2, "kthreadd", KTHREAD, 0));
        write("9/task/10/stat", &stat(10, "whose first thread is gone", 0, 900));
        write("uptime", "1 1");
        let roots = Roots { proc: tree.path().into(), ..Roots::default() };

        let mut seen = Vec::new();
        Threads::with_ticks(&roots, 100).read(&mut seen).unwrap();
        seen.sort_by_key(|seen| seen.tid);
        assert_eq!(
            seen.iter().map(|seen| (seen.pid, seen.tid, seen.is_kernel)).collect::<Vec<_>>(),
            [(2, 2, true), (5, 5, false), (5, 6, false)]
        );
        let (main, helper) = (&seen[1], &seen[2]);
        assert_eq!((main.start, main.leader_start), (7 * SECOND, 7 * SECOND));
        assert_eq!((helper.start, helper.leader_start), (8 * SECOND, 7 * SECOND));
        assert_eq!((main.uid, main.status, main.pending), (Some(33), Some(Status::Sleeping), None));
        let known = Counts {
            run: Some(123),
            wait: Some(45),
            user: Some(300_000_000),
            system: Some(200_000_000),
            voluntary: Some(3),
            preempted: Some(4),
            migrations: None,
        };
        assert_eq!(main.counts, known);
        assert_eq!((helper.counts.run, helper.counts.user), (None, Some(300_000_000)), "what can be read is known");
        assert_eq!(helper.place, Place::Path(r"/system.slice/a\x1b.service".into()));
        assert_eq!(seen[0].place, Place::Unknown);

        let nowhere = Roots { proc: tree.path().join("nowhere"), ..Roots::default() };
        assert!(Threads::with_ticks(&nowhere, 100).read(&mut seen).unwrap_err().is_missing());
        assert!(seen.is_empty());
    }

    #[test]
    fn the_rest() {
        assert_eq!(parse_schedstat("5 6 7\n"), Ok((5, 6)));
        assert!(parse_schedstat("5").is_err());
        let status =
            parse_status(b"Name:\t\xff\nUid:\t0\t5\t0\t0\nvoluntary_ctxt_switches:\t3\nnonvoluntary_ctxt_switches:\t4\n");
        assert_eq!(status, StatusFile { uid: Some(5), voluntary: Some(3), preempted: Some(4) });
        assert_eq!(nanoseconds(u64::MAX, 100), u64::MAX);
        assert_eq!(nanoseconds(1, 1024), 976_562);
    }
}

//! The tree of cgroups while it changes: what is born, dies, is renamed or gets a limit shows at once, and churn leaves nothing behind.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use observer::collect::cgroup::{Cgroups, Found, Listing};
use observer::model::{Sample, State};
use observer_common::sched::Key;

use super::Test;
use super::cgroups::{TestCgroup, cpu_root};
use super::launcher::Launcher;
use super::sched::{collector, load, row, sched, v2};
use super::storms::resident;

/// All tests of this family.
pub(crate) fn trials() -> Vec<Test> {
    vec![
        ("tree::changes_show_at_once", changes_show_at_once),
        ("tree::limits_show_at_once", limits_show_at_once),
        ("tree::settings_show_at_once", settings_show_at_once),
        ("tree::who_runs_is_read_and_nobody_is_forgotten", who_runs_is_read_and_nobody_is_forgotten),
        ("tree::churn_leaves_nothing_behind", churn_leaves_nothing_behind),
    ]
}

/// A reader that has seen all cgroups so often that each is watched.
fn reader() -> Result<Cgroups, String> {
    let mut cgroups = Cgroups::open(Path::new("/sys/fs/cgroup")).map_err(|error| error.to_string())?;
    let groups = read(&mut cgroups)?.groups.len();
    for _ in 0..groups / 32 + 2 {
        read(&mut cgroups)?;
    }
    Ok(cgroups)
}

fn read(cgroups: &mut Cgroups) -> Result<Listing, String> {
    // Nobody ran, somebody says: only what the kernel tells of is looked at.
    let listing = cgroups.read_knowing(Some(&[])).map_err(|error| error.to_string())?;
    match (&listing.unreadable, &listing.unwatched) {
        (None, None) => Ok(listing),
        (unreadable, unwatched) => Err(format!("{unreadable:?}, {unwatched:?}")),
    }
}

/// The paths of those below a cgroup.
fn below(cgroups: &mut Cgroups, path: &str) -> Result<Vec<String>, String> {
    let listing = read(cgroups)?;
    let mut paths: Vec<_> = listing.groups.iter().filter_map(|group| group.path.strip_prefix(path)).map(str::to_owned).collect();
    paths.sort();
    Ok(paths)
}

fn found<'a>(listing: &'a Listing, path: &str) -> Result<&'a Found, String> {
    listing.groups.iter().find(|group| &*group.path == path).ok_or(format!("no row {path}"))
}

fn changes_show_at_once() -> Result<String, String> {
    let text = |error: std::io::Error| error.to_string();
    let mut cgroups = reader()?;
    let group = TestCgroup::new(&v2()?, "tree").map_err(text)?;
    let expect = |cgroups: &mut Cgroups, expected: &[&str]| match below(cgroups, &group.path())? {
        paths if paths == expected => Ok(()),
        paths => Err(format!("{paths:?} instead of {expected:?}")),
    };
    let at = |name: &str| group.directory().join(name);
    expect(&mut cgroups, &[""])?;
    // A leaf that becomes none, and one that is made where none was.
    fs::create_dir_all(at("a/b")).map_err(text)?;
    expect(&mut cgroups, &["", "/a", "/a/b"])?;
    fs::create_dir(at("a/b/c")).map_err(text)?;
    expect(&mut cgroups, &["", "/a", "/a/b", "/a/b/c"])?;
    // As many die as are born, so that no number of them tells.
    fs::remove_dir(at("a/b/c")).map_err(text)?;
    fs::create_dir(at("a/b/d")).map_err(text)?;
    expect(&mut cgroups, &["", "/a", "/a/b", "/a/b/d"])?;
    // The same name, another cgroup.
    let id =
        |cgroups: &mut Cgroups| read(cgroups).and_then(|listing| Ok(found(&listing, &format!("{}/a/b/d", group.path()))?.key));
    let before = id(&mut cgroups)?;
    fs::remove_dir(at("a/b/d")).and_then(|()| fs::create_dir(at("a/b/d"))).map_err(text)?;
    if id(&mut cgroups)? == before {
        return Err("one that was made anew has the key of the former".into());
    }
    for name in ["a/b/d", "a/b", "a"] {
        fs::remove_dir(at(name)).map_err(text)?;
    }
    expect(&mut cgroups, &[""])?;
    // Only v1 knows renames.
    let Some(root) = cpu_root() else { return Ok("births and deaths; no v1 hierarchy to rename in".into()) };
    let group = TestCgroup::new(&root, "rename").map_err(text)?;
    fs::create_dir_all(group.directory().join("a/b")).map_err(text)?;
    read(&mut cgroups)?;
    fs::rename(group.directory().join("a"), group.directory().join("c")).map_err(text)?;
    match below(&mut cgroups, &group.path())? {
        paths if paths == ["", "/c", "/c/b"] => Ok("births, deaths and renames".into()),
        paths => Err(format!("after a rename {paths:?}")),
    }
}

fn limits_show_at_once() -> Result<String, String> {
    let text = |error: std::io::Error| error.to_string();
    let (root, file, values) = match cpu_root() {
        Some(root) => (root, "cpu.cfs_quota_us", ["50000", "-1", "200000"]),
        None => {
            let root = v2()?;
            fs::write(root.join("cgroup.subtree_control"), "+cpu").map_err(text)?;
            (root, "cpu.max", ["50000 100000", "max", "200000 100000"])
        }
    };
    let mut cgroups = reader()?;
    let group = TestCgroup::new(&root, "limit").map_err(text)?;
    let child = group.directory().join("child");
    fs::create_dir(&child).map_err(text)?;
    read(&mut cgroups)?;
    for (value, limit) in values.into_iter().zip([Some(0.5), None, Some(2.0)]) {
        fs::write(group.directory().join(file), value).map_err(text)?;
        let listing = read(&mut cgroups)?;
        for path in [group.path(), format!("{}/child", group.path())] {
            let row = found(&listing, &path)?;
            let told = (row.cpu.limit, row.resources.limiting.cpu.as_deref());
            let expected = (limit, limit.map(|_| group.path()));
            if told != (expected.0, expected.1.as_deref()) {
                return Err(format!("{path}: {told:?} instead of {expected:?}"));
            }
        }
    }
    Ok(format!("{file} of a cgroup in which nobody is"))
}

/// Of a cgroup in which nobody is: its weight, and whether it is frozen.
fn settings_show_at_once() -> Result<String, String> {
    let text = |error: std::io::Error| error.to_string();
    let (root, file) = match cpu_root() {
        Some(root) => (root, "cpu.shares"),
        None => (v2()?, "cpu.weight"),
    };
    if file == "cpu.weight" {
        fs::write(root.join("cgroup.subtree_control"), "+cpu").map_err(text)?;
    }
    let mut cgroups = reader()?;
    let (weighed, frozen) = (TestCgroup::new(&root, "weight").map_err(text)?, TestCgroup::new(&v2()?, "freeze").map_err(text)?);
    let settings = |cgroups: &mut Cgroups, path: &str| {
        read(cgroups).and_then(|listing| Ok(found(&listing, path)?.resources.settings.clone()))
    };
    for weight in [100, 50, 200] {
        let value = if file == "cpu.shares" { weight * 1024 / 100 } else { weight };
        fs::write(weighed.directory().join(file), value.to_string()).map_err(text)?;
        let told = settings(&mut cgroups, &weighed.path())?.weight;
        if told != Some(weight) {
            return Err(format!("{file} {value}: a weight of {told:?}"));
        }
    }
    let freeze = frozen.directory().join("cgroup.freeze");
    if !freeze.exists() {
        return Ok(format!("{file}; this kernel freezes no cgroup of v2"));
    }
    for is_frozen in [true, false] {
        fs::write(&freeze, u8::from(is_frozen).to_string()).map_err(text)?;
        let told = settings(&mut cgroups, &frozen.path())?.is_frozen;
        if told != Some(is_frozen) {
            return Err(format!("{told:?} although frozen is {is_frozen}"));
        }
    }
    Ok(format!("{file}, cgroup.freeze"))
}

/// The reader that is told by the hook who ran says the same as one that reads everything.
fn who_runs_is_read_and_nobody_is_forgotten() -> Result<String, String> {
    let text = |error: std::io::Error| error.to_string();
    let mut collector = collector()?;
    let parent = TestCgroup::new(&v2()?, "who").map_err(text)?;
    let leaves: Vec<_> = (0..20).map(|number| parent.directory().join(number.to_string())).collect();
    leaves.iter().try_for_each(fs::create_dir).map_err(text)?;
    collector.collect();
    let mut compared = 0;
    for turn in 0..10 {
        let mut launcher = Launcher::start(&leaves[turn * 7 % leaves.len()], None)?;
        let worker = launcher.work("spin 20")?;
        launcher.finished(worker)?;
        launcher.reap()?;
        launcher.quiet()?;
        // What ran after the tables were turned is told the next time.
        collector.collect();
        let sample = collector.collect();
        let all = Cgroups::open(Path::new("/sys/fs/cgroup")).and_then(|mut all| all.read()).map_err(|error| error.to_string())?;
        for leaf in 0..leaves.len() {
            let path = format!("{}/{leaf}", parent.path());
            let (told, kernels) = (row(&sample, &path)?.cpu.usage, found(&all, &path)?.cpu.usage);
            if told != kernels {
                return Err(format!("{path}: {told:?} told, {kernels:?} in its file"));
            }
            compared += usize::from(told > Some(0));
        }
    }
    Ok(format!("{compared} usages of cgroups that had run are those of their files"))
}

/// Cgroups made in a second, and for how long each lives.
const BIRTHS: u64 = 1_000;
const LIFE: usize = 50;

/// A thousand cgroups a second are made and removed, and some of them worked in.
fn churn_leaves_nothing_behind() -> Result<String, String> {
    let lasts = std::env::var("OBSERVER_LIVE_CHURN").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(6);
    let parent = TestCgroup::new(&v2()?, "churn").map_err(|error| error.to_string())?;
    let mut launcher = Launcher::start(parent.directory(), None)?;
    let worker = launcher.work(&format!("spin {}", lasts * 1000))?;
    let mut collector = collector()?;
    let stop = AtomicBool::new(false);
    let directory = parent.directory().to_owned();
    let churning = || churn(&directory, worker, &stop);
    let (made, seen) = std::thread::scope(|scope| {
        let churn = scope.spawn(churning);
        let seen = watch(&mut collector, &parent.path(), Duration::from_secs(lasts));
        stop.store(true, Ordering::Relaxed);
        let made = churn.join().map_err(|_| "the churn panicked".to_owned()).and_then(|made| made);
        (made, seen)
    });
    launcher.finished(worker)?;
    launcher.reap()?;
    let (made, seen) = (made?, seen?);
    let left = collector.collect().cgroups.len();
    let (files, watches) = (open_files()?, watches()?);
    let figures = format!(
        "{made} cgroups in {lasts} s, {} rows at the most in {} samples; memory grew by {} KiB, {files} files (before {}), {watches} watches of {left} cgroups",
        seen.most,
        seen.samples,
        seen.grown >> 10,
        seen.files
    );
    // An emulated machine makes fewer.
    let is_churn = made >= load(BIRTHS * lasts / 2);
    let is_clean = seen.grown < 4 << 20 && files <= seen.files + 64 && watches <= left;
    if is_churn && is_clean && seen.most > 1 { Ok(figures) } else { Err(figures) }
}

/// What the samples said.
struct Seen {
    samples: u64,
    /// Rows below the parent at the most.
    most: usize,
    /// Memory from the first second to the end.
    grown: u64,
    /// Open files after the first second.
    files: usize,
}

/// Takes samples for so long: every source works, and what the parent and the machine have used only grows.
fn watch(collector: &mut observer::collect::Collector, parent: &str, lasts: Duration) -> Result<Seen, String> {
    let began = Instant::now();
    let mut seen = Seen { samples: 0, most: 0, grown: 0, files: 0 };
    let (mut last, mut memory) = (HashMap::new(), None);
    while began.elapsed() < lasts {
        std::thread::sleep(Duration::from_millis(100));
        let sample = collector.collect();
        let source = sample.sources.iter().find(|source| source.name == "cgroup").ok_or("no health of cgroup")?;
        if source.state != State::On {
            return Err(format!("{:?}", source.state));
        }
        for path in ["/", parent] {
            let now = (row(&sample, path)?.cpu.usage, sched(&sample, path)?.run);
            let before: (Option<u64>, u64) = last.insert(path, now).unwrap_or_default();
            if now.0 < before.0 || now.1 < before.1 || now.0.is_none() {
                return Err(format!("{path}: {now:?} after {before:?}"));
            }
        }
        keys_are_distinct(&sample)?;
        let below = sample.cgroups.iter().filter(|row| row.path.strip_prefix(parent).is_some_and(|rest| !rest.is_empty()));
        seen.most = seen.most.max(below.count());
        seen.samples += 1;
        if began.elapsed() > Duration::from_secs(1) && memory.is_none() {
            (memory, seen.files) = (Some(resident()?), open_files()?);
        }
    }
    seen.grown = resident()?.saturating_sub(memory.unwrap_or(0));
    Ok(seen)
}

fn keys_are_distinct(sample: &Sample) -> Result<(), String> {
    let keys: Vec<Key> = sample.cgroups.iter().map(|row| row.id).collect();
    if keys.is_sorted_by(|one, next| one < next) { Ok(()) } else { Err("a key stands twice, or not in order".into()) }
}

/// Makes cgroups and removes them some fifty later, and now and then puts a task into one, until it is told to stop.
fn churn(parent: &Path, worker: u32, stop: &AtomicBool) -> Result<u64, String> {
    fn done(path: &Path, result: std::io::Result<()>) -> Result<(), String> {
        result.map_err(|error| format!("{}: {error}", path.display()))
    }
    let mut living: VecDeque<PathBuf> = VecDeque::new();
    let (began, mut made) = (Instant::now(), 0);
    while !stop.load(Ordering::Relaxed) {
        let due = began + Duration::from_secs(1) * made as u32 / BIRTHS as u32;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let path = parent.join(made.to_string());
        done(&path, fs::create_dir(&path))?;
        if made % 40 == 0 {
            let procs = path.join("cgroup.procs");
            // It ends on its own before the last one.
            let _ = fs::write(procs, worker.to_string());
        }
        made += 1;
        living.push_back(path);
        if living.len() > LIFE {
            let oldest = living.pop_front().unwrap_or_default();
            done(&oldest, fs::remove_dir(&oldest))?;
        }
    }
    // The last one in which the worker was may take a moment to be free; the parent's end removes it.
    living.iter().for_each(|path| drop(fs::remove_dir(path)));
    Ok(made)
}

fn open_files() -> Result<usize, String> {
    Ok(fs::read_dir("/proc/self/fd").map_err(|error| error.to_string())?.count())
}

/// Directories that this process watches.
fn watches() -> Result<usize, String> {
    let infos = fs::read_dir("/proc/self/fdinfo").map_err(|error| error.to_string())?;
    let texts = infos.flatten().filter_map(|info| fs::read_to_string(info.path()).ok());
    Ok(texts.map(|text| text.lines().filter(|line| line.starts_with("inotify ")).count()).sum())
}

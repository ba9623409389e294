//! What a reading of cgroups costs, in CPU time. Of 1,000: of their CPU alone; the first one, which opens every file; one while nobody runs;
//! one while every tenth cgroup works. Of 10,000, a hundred slices of a hundred: the first one; one while nobody runs; while every hundredth
//! works, spread over all slices, told by the scheduler hook who ran and not told; and a whole sample with the hook.
//!
//! Needs root; `cargo xtask bench cgroups`. On a host with v1 the memory files are those of v1, of 1,000 only: a memory cgroup of v1 takes the
//! kernel tens of kilobytes. Where no cgroups can be made, the same is read from a copy of such a tree in files, which is always listed whole.

use std::error::Error;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use std::time::Duration;

use observer::collect::cgroup::{Cgroups, Listing, Ran};
use observer::collect::{Collector, Roots};
use observer_common::sched::Key;
use rustix::time::{ClockId, clock_gettime};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A multiple of the readings between which an idle cgroup of few is looked after.
const ROUNDS: usize = 40;
/// Long enough for everybody who works to run.
const INTERVAL: Duration = Duration::from_millis(200);

fn main() -> ExitCode {
    if let Some("work") = std::env::args().nth(1).as_deref() {
        loop {
            std::thread::sleep(INTERVAL / 4);
        }
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cgroups bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let root = Path::new("/sys/fs/cgroup");
    let layout = Cgroups::open(root).ok().map(|cgroups| cgroups.layout().clone());
    let v2 = layout.and_then(|layout| layout.v2);
    match v2.as_deref().map(|v2| Made::fill(v2, 1, 1_000, Kind::Cgroup)) {
        Some(Ok(made)) => {
            few(root, &made)?;
            drop(made);
            many(root, v2.as_deref().unwrap_or(root))
        }
        Some(Err(error)) => copies(&format!("no cgroups can be made: {error}")),
        None => copies("no v2 hierarchy"),
    }
}

fn few(root: &Path, made: &Made) -> Result<()> {
    let memory = root.join("memory");
    let is_v1 = memory.join("memory.limit_in_bytes").exists();
    let _beside = if is_v1 { Some(Made::fill(&memory, 1, 1_000, Kind::Cgroup)?) } else { None };
    let cold = cold(root)?;
    let mut cgroups = Cgroups::open(root)?;
    let all = cgroups.read()?.groups.len();
    let idle = steady(|| cgroups.read(), Duration::ZERO)?;
    let _workers = Workers::start(made.leaves().step_by(10))?;
    let working = steady(|| cgroups.read(), INTERVAL)?;
    table(all, [cold, vec![("nobody works", idle), ("every tenth works", working)]].concat());
    Ok(())
}

fn many(root: &Path, v2: &Path) -> Result<()> {
    let made = Made::fill(v2, 100, 100, Kind::Cgroup)?;
    let mut rows = cold(root)?;
    let mut cgroups = Cgroups::open(root)?;
    let all = cgroups.read()?.groups.len();
    // Until everything is known.
    settle(|| cgroups.read())?;
    rows.push(("nobody works", steady(|| cgroups.read_knowing(Some(&[])), Duration::ZERO)?));
    rows.push(("… nor is told", steady(|| cgroups.read(), Duration::ZERO)?));
    let working = || made.leaves().step_by(100);
    let workers = Workers::start(working())?;
    let ran = |leaf: PathBuf| Ok(Ran { key: Key::v2(fs::metadata(leaf)?.ino()), parent: None });
    let ran = working().map(ran).collect::<Result<Vec<_>>>()?;
    rows.push(("1 % works", steady(|| cgroups.read_knowing(Some(&ran)), INTERVAL)?));
    rows.push(("… and is not told", steady(|| cgroups.read(), INTERVAL)?));
    drop(cgroups);
    let mut collector = Collector::new(Roots::default());
    collector.attach();
    for _ in 0..ROUNDS {
        collector.collect();
    }
    let mut samples = Vec::new();
    for _ in 0..ROUNDS {
        std::thread::sleep(INTERVAL);
        samples.push(cost(|| Ok::<_, Box<dyn Error>>(collector.collect()))?);
    }
    rows.push(("whole sample, 1 %", samples));
    table(all, rows);
    drop(workers);
    Ok(())
}

/// The same from files.
fn copies(why: &str) -> Result<()> {
    println!("{why}: files stand in for them");
    let root = std::env::temp_dir().join(format!("observer-bench-{}", std::process::id()));
    fs::create_dir(&root)?;
    let copy = Made { directory: root.clone(), slices: 0, each: 0, kind: Kind::Copy };
    fs::write(root.join("cgroup.controllers"), "")?;
    let _made = Made::fill(&root, 100, 100, Kind::Copy)?;
    let mut rows = cold(&root)?;
    let mut cgroups = Cgroups::open(&root)?;
    let all = cgroups.read()?.groups.len();
    rows.push(("nobody works", steady(|| cgroups.read(), Duration::ZERO)?));
    table(all, rows);
    drop(copy);
    Ok(())
}

type Row = (&'static str, Vec<f64>);

/// Readings of who knows nothing yet.
fn cold(root: &Path) -> Result<Vec<Row>> {
    let (mut hasty, mut first) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let mut cgroups = Cgroups::open(root)?;
        hasty.push(cost(|| cgroups.read_hastily())?);
        let mut cgroups = Cgroups::open(root)?;
        first.push(cost(|| cgroups.read())?);
    }
    Ok(vec![("first, CPU alone", hasty), ("first", first)])
}

fn settle(mut read: impl FnMut() -> std::result::Result<Listing, observer::collect::cgroup::Error>) -> Result<()> {
    for _ in 0..ROUNDS {
        read()?;
    }
    Ok(())
}

fn steady(
    mut read: impl FnMut() -> std::result::Result<Listing, observer::collect::cgroup::Error>,
    interval: Duration,
) -> Result<Vec<f64>> {
    let once = |_| {
        std::thread::sleep(interval);
        cost(&mut read)
    };
    (0..ROUNDS).map(once).collect()
}

fn table(all: usize, rows: Vec<Row>) {
    println!("{all} cgroups: CPU time of a reading in ms, mean and least; of a cgroup in µs, mean");
    for (what, times) in rows {
        let mean = times.iter().sum::<f64>() / times.len() as f64;
        let least = times.iter().copied().fold(f64::INFINITY, f64::min);
        println!("{what:<20} {:8.2} {:8.2} {:8.2}", mean * 1e3, least * 1e3, mean * 1e6 / all as f64);
    }
}

/// CPU time of this thread in seconds; what was made is given back outside of it.
fn cost<T, E: Into<Box<dyn Error>>>(read: impl FnOnce() -> std::result::Result<T, E>) -> Result<f64> {
    let now = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
    };
    let before = now();
    let made = read().map_err(Into::into)?;
    let took = now() - before;
    drop(made);
    Ok(took)
}

#[derive(Clone, Copy)]
enum Kind {
    Cgroup,
    /// A directory with files such as those.
    Copy,
}

/// Cgroups of this bench, removed with it: so many in each of so many slices.
struct Made {
    directory: PathBuf,
    slices: usize,
    each: usize,
    kind: Kind,
}

impl Made {
    fn fill(root: &Path, slices: usize, each: usize, kind: Kind) -> Result<Made> {
        let directory = root.join(format!("observer-bench-{}", std::process::id()));
        fs::create_dir(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        let made = Made { directory, slices, each, kind };
        for path in made.slices().flat_map(|slice| std::iter::once(slice.clone()).chain(made.leaves_of(slice))) {
            fs::create_dir(&path)?;
            if let Kind::Copy = kind {
                fs::write(path.join("cpu.stat"), "usage_usec 1\nuser_usec 1\nsystem_usec 0\n")?;
            }
        }
        Ok(made)
    }

    fn slices(&self) -> impl Iterator<Item = PathBuf> {
        (0..self.slices).map(|number| self.directory.join(format!("bench-{number}.slice")))
    }

    fn leaves_of(&self, slice: PathBuf) -> impl Iterator<Item = PathBuf> {
        (0..self.each).map(move |number| slice.join(number.to_string()))
    }

    fn leaves(&self) -> impl Iterator<Item = PathBuf> {
        self.slices().flat_map(|slice| self.leaves_of(slice))
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        if let Kind::Copy = self.kind {
            let _ = fs::remove_dir_all(&self.directory);
            return;
        }
        // Tasks take a moment to be gone.
        for _ in 0..100 {
            for path in self.leaves().chain(self.slices()) {
                let _ = fs::remove_dir(path);
            }
            if fs::remove_dir(&self.directory).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        eprintln!("left behind: {}", self.directory.display());
    }
}

/// Processes that do a little now and then, each in a cgroup of its own.
struct Workers(Vec<Child>);

impl Workers {
    fn start(leaves: impl Iterator<Item = PathBuf>) -> Result<Workers> {
        let mut workers = Workers(Vec::new());
        for leaf in leaves {
            let child = Command::new(std::env::current_exe()?).arg("work").spawn()?;
            let pid = child.id();
            workers.0.push(child);
            fs::write(leaf.join("cgroup.procs"), pid.to_string())?;
        }
        Ok(workers)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

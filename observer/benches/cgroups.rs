//! What a reading of 1,000 cgroups costs: of their CPU alone; the first one, which opens every file; one while nobody runs; one while every
//! tenth cgroup works. Needs root; `cargo xtask bench cgroups`. On a host with v1 the memory files are those of v1.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use std::time::Duration;

use observer::collect::cgroup::Cgroups;
use rustix::time::{ClockId, clock_gettime};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const CGROUPS: usize = 1_000;
/// Of so many cgroups one works.
const WORKS: usize = 10;
/// A multiple of the readings between which an idle cgroup is looked after.
const ROUNDS: usize = 40;
/// Long enough for everybody who works to run.
const INTERVAL: Duration = Duration::from_millis(100);

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
    let layout = Cgroups::open(root)?.layout().clone();
    let v2 = layout.v2.ok_or("no v2 hierarchy")?;
    let mut made = Made::default();
    made.fill(&v2)?;
    let memory = root.join("memory");
    if memory.join("memory.limit_in_bytes").exists() {
        made.fill(&memory)?;
    }
    let (mut hasty, mut first) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let mut cgroups = Cgroups::open(root)?;
        hasty.push(cost(|| cgroups.read_hastily().map(drop))?);
        first.push(cost(|| cgroups.read().map(drop))?);
    }
    let mut cgroups = Cgroups::open(root)?;
    let all = cgroups.read()?.groups.len();
    let idle = (0..ROUNDS).map(|_| cost(|| cgroups.read().map(drop))).collect::<Result<Vec<_>>>()?;
    let _workers = Workers::start(&made.directories[0])?;
    let mut working = Vec::new();
    for _ in 0..ROUNDS {
        std::thread::sleep(INTERVAL);
        working.push(cost(|| cgroups.read().map(drop))?);
    }
    println!("microseconds of CPU time a cgroup, {all} cgroups: mean, least");
    for (what, times) in [("CPU alone", hasty), ("first reading", first), ("nobody works", idle), ("every tenth works", working)]
    {
        let mean = times.iter().sum::<f64>() / times.len() as f64;
        let least = times.iter().copied().fold(f64::INFINITY, f64::min);
        println!("{what:<20} {:7.2} {:7.2}", mean * 1e6 / all as f64, least * 1e6 / all as f64);
    }
    Ok(())
}

/// CPU time of this thread in seconds.
fn cost<E: Into<Box<dyn Error>>>(read: impl FnOnce() -> std::result::Result<(), E>) -> Result<f64> {
    let now = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
    };
    let before = now();
    read().map_err(Into::into)?;
    Ok(now() - before)
}

/// Cgroups of this bench, removed with it.
#[derive(Default)]
struct Made {
    directories: Vec<PathBuf>,
}

impl Made {
    fn fill(&mut self, root: &Path) -> Result<()> {
        let directory = root.join(format!("observer-bench-{}", std::process::id()));
        fs::create_dir(&directory)?;
        self.directories.push(directory.clone());
        (0..CGROUPS).try_for_each(|number| fs::create_dir(directory.join(number.to_string())))?;
        Ok(())
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for directory in &self.directories {
            for number in 0..CGROUPS {
                let _ = fs::remove_dir(directory.join(number.to_string()));
            }
            let _ = fs::remove_dir(directory);
        }
    }
}

/// Processes that do a little now and then, each in a cgroup of its own.
struct Workers(Vec<Child>);

impl Workers {
    fn start(directory: &Path) -> Result<Workers> {
        let mut workers = Workers(Vec::new());
        for number in (0..CGROUPS).step_by(WORKS) {
            let child = Command::new(std::env::current_exe()?).arg("work").spawn()?;
            let pid = child.id();
            workers.0.push(child);
            fs::write(directory.join(number.to_string()).join("cgroup.procs"), pid.to_string())?;
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

//! What reading all threads costs, the iterator beside `/proc`, while a child has 5,000 threads that sleep. Needs root;
//! `cargo xtask bench tasks`. Budget: 3 ms of CPU time for the iterator on a machine that is otherwise idle.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use observer::collect::bpf::loader::Programs;
use observer::collect::proc::tasks::Threads;
use observer::collect::{Collector, Roots};
use rustix::process::setpriority_process;
use rustix::time::{ClockId, clock_gettime};

const THREADS: usize = 5_000;
const ROUNDS: usize = 51;
/// Of what takes longer.
const FEW: usize = 7;

fn main() {
    if let Some("sleep") = std::env::args().nth(1).as_deref() {
        return sleep();
    }
    if let Err(error) = run() {
        eprintln!("tasks bench: {error}");
        std::process::exit(1);
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let _sleepers = Sleepers::start()?;
    // So that the rest of the machine comes between as seldom as can be: it leaves cold caches behind.
    setpriority_process(None, -20)?;
    let roots = Roots::default();
    let cpus = std::thread::available_parallelism()?.get() as u32;

    let mut programs = Programs::load(&roots, cpus)?;
    let tasks = programs.tasks.as_mut().map_err(|error| error.to_string())?;
    let told = tasks.read()?.len();
    let iterator = measure(ROUNDS, || tasks.read().map(<[_]>::len))?;
    println!("iterator: {told} threads, {iterator}");
    drop(programs);

    let mut reader = Threads::new(&roots);
    let mut seen = Vec::new();
    let proc = measure(FEW, || reader.read(&mut seen).map(|()| seen.len()))?;
    println!("/proc: {} threads, {proc}: {:.0} times as much", seen.len(), proc.median / iterator.median);

    let mut collector = Collector::new(roots);
    collector.attach();
    let mut durations = Vec::new();
    for _ in 0..ROUNDS {
        let sample = collector.collect();
        let source = sample.sources.iter().find(|source| source.name == "tasks").ok_or("no health of tasks")?;
        durations.push(source.duration.ok_or("no duration")?.as_secs_f64());
    }
    durations.sort_by(f64::total_cmp);
    println!(
        "iterator and the rows of threads and processes, by the wall: least {:.2} ms, median {:.2} ms",
        durations[0] * 1e3,
        durations[ROUNDS / 2] * 1e3
    );
    Ok(())
}

/// CPU time of this thread in seconds, and by the wall: others use the machine, too.
struct Measured {
    least: f64,
    median: f64,
    wall: f64,
}

impl std::fmt::Display for Measured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Measured { least, median, wall } = self;
        write!(f, "CPU time least {:.2} ms, median {:.2} ms; by the wall {:.2} ms", least * 1e3, median * 1e3, wall * 1e3)
    }
}

fn measure<T, E>(rounds: usize, mut read: impl FnMut() -> Result<T, E>) -> Result<Measured, E> {
    let cpu_time = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
    };
    let (mut cpu, mut wall) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (began, before) = (Instant::now(), cpu_time());
        read()?;
        cpu.push(cpu_time() - before);
        wall.push(began.elapsed().as_secs_f64());
    }
    cpu.sort_by(f64::total_cmp);
    wall.sort_by(f64::total_cmp);
    Ok(Measured { least: cpu[0], median: cpu[rounds / 2], wall: wall[rounds / 2] })
}

/// A child with many threads, killed with this.
struct Sleepers(Child);

impl Sleepers {
    fn start() -> Result<Sleepers, Box<dyn std::error::Error>> {
        let mut child = Command::new(std::env::current_exe()?).arg("sleep").stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().ok_or("no output of the child")?;
        let sleepers = Sleepers(child);
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        if line.trim() == "ready" { Ok(sleepers) } else { Err("the child cannot make so many threads".into()) }
    }
}

impl Drop for Sleepers {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn sleep() {
    let one = || std::thread::Builder::new().stack_size(16 << 10).spawn(|| std::thread::sleep(Duration::from_secs(600)));
    let threads: Result<Vec<_>, _> = (0..THREADS).map(|_| one()).collect();
    let mut stdout = std::io::stdout();
    let _ = writeln!(stdout, "{}", if threads.is_ok() { "ready" } else { "no" }).and_then(|()| stdout.flush());
    std::thread::sleep(Duration::from_secs(600));
}

//! What reading all threads costs, the iterator beside `/proc`, while a child has 5,000 threads that sleep. Needs root;
//! `cargo xtask bench tasks`. Budget: 3 ms for the iterator's records.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use observer::collect::bpf::loader::Programs;
use observer::collect::proc::tasks::Threads;
use observer::collect::{Collector, Roots};

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
    let roots = Roots::default();
    let cpus = std::thread::available_parallelism()?.get() as u32;

    let mut programs = Programs::load(&roots, cpus)?;
    let tasks = programs.tasks.as_mut().map_err(|error| error.to_string())?;
    let told = tasks.read()?.len();
    let iterator = median(ROUNDS, || tasks.read().map(<[_]>::len))?;
    println!("iterator: {told} threads, median {:.2} ms", milliseconds(iterator));
    drop(programs);

    let mut reader = Threads::new(&roots);
    let mut seen = Vec::new();
    let proc = median(FEW, || reader.read(&mut seen).map(|()| seen.len()))?;
    println!(
        "/proc: {} threads, median {:.1} ms, {:.0} times as much",
        seen.len(),
        milliseconds(proc),
        proc.as_secs_f64() / iterator.as_secs_f64()
    );

    let mut collector = Collector::new(roots);
    collector.attach();
    let mut durations = Vec::new();
    for _ in 0..ROUNDS {
        let sample = collector.collect();
        let source = sample.sources.iter().find(|source| source.name == "tasks").ok_or("no health of tasks")?;
        durations.push(source.duration.ok_or("no duration")?);
    }
    durations.sort();
    println!(
        "with the rows of threads and processes: median {:.2} ms, the first {:.2} ms at the most",
        milliseconds(durations[ROUNDS / 2]),
        milliseconds(durations[ROUNDS - 1])
    );
    Ok(())
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn median<T, E>(rounds: usize, mut read: impl FnMut() -> Result<T, E>) -> Result<Duration, E> {
    let mut durations = Vec::new();
    for _ in 0..rounds {
        let began = Instant::now();
        read()?;
        durations.push(began.elapsed());
    }
    durations.sort();
    Ok(durations[rounds / 2])
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

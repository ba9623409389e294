//! How long a start takes, from the call that starts the program: the budgets are 50 ms to the first frame with numbers, and 150 ms to
//! attached programs. Beside them, in the same run, what starting any program costs here.

use std::io::{Error, Read, Result};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use observer::collect::Roots;
use observer::collect::bpf::loader::Programs;

#[path = "../tests/pty/mod.rs"]
mod pty;

const RUNS: usize = 10;

/// Does a thing once and tells how long it took.
type Once = fn() -> Result<Duration>;

fn main() {
    let rows: [(&str, Once); 7] = [
        ("/bin/true: start to end", || to_end(&mut Command::new("/bin/true"))),
        ("observer --version: start to end", || to_end(&mut observer(&["--version"]))),
        ("dump --no-bpf: to its first line, one interval of 10 ms inside", || {
            to_output(&mut observer(&["dump", "--no-bpf", "--count", "1", "--interval", "10ms"]))
        }),
        ("dashboard --no-bpf: to the first frame with numbers", || to_numbers(&["--no-bpf"])),
        ("dashboard: to the first frame with numbers", || to_numbers(&[])),
        ("dump with eBPF: to its first line, one interval of 10 ms inside", || {
            to_output(&mut observer(&["dump", "--count", "1", "--interval", "10ms"]))
        }),
        ("loading and attaching alone", loading),
    ];
    println!("{:<66} {:>8} {:>8} {:>8}", format!("ms, {RUNS} runs"), "min", "median", "max");
    for (what, once) in rows {
        match measured(once) {
            Ok([min, median, max]) => println!("{what:<66} {min:8.1} {median:8.1} {max:8.1}"),
            Err(why) => println!("{what:<66} not measured: {why}"),
        }
    }
}

/// Least, median and most, in milliseconds.
fn measured(once: Once) -> Result<[f64; 3]> {
    // The first brings the file into memory.
    once()?;
    let mut times = (0..RUNS).map(|_| once()).collect::<Result<Vec<_>>>()?;
    times.sort();
    Ok([times[0], times[RUNS / 2], times[RUNS - 1]].map(|time| time.as_secs_f64() * 1e3))
}

fn observer(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_observer"));
    command.args(arguments);
    command
}

fn to_end(command: &mut Command) -> Result<Duration> {
    let began = Instant::now();
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    let took = began.elapsed();
    if status.success() { Ok(took) } else { Err(Error::other(format!("{command:?}: {status}"))) }
}

fn to_output(command: &mut Command) -> Result<Duration> {
    let began = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut out = child.stdout.take().ok_or_else(|| Error::other("no output"))?;
    out.read_exact(&mut [0])?;
    let took = began.elapsed();
    // So that its write of the rest does not fail.
    out.read_to_end(&mut Vec::new())?;
    let mut said = String::new();
    child.stderr.take().map(|mut err| err.read_to_string(&mut said)).transpose()?;
    child.wait()?;
    // A warning on standard error is that the programs are off.
    if said.is_empty() { Ok(took) } else { Err(Error::other(said.trim().to_owned())) }
}

fn to_numbers(arguments: &[&str]) -> Result<Duration> {
    let mut terminal = pty::Terminal::open(200, 60)?;
    let began = Instant::now();
    let mut child = terminal.start(&mut observer(arguments))?;
    terminal.wait_for("load")?;
    let took = began.elapsed();
    terminal.keys("q")?;
    let status = terminal.end_of(&mut child)?;
    if status.success() { Ok(took) } else { Err(Error::other(format!("the dashboard: {status}"))) }
}

fn loading() -> Result<Duration> {
    let cpus = std::thread::available_parallelism()?.get() as u32;
    let began = Instant::now();
    let programs = Programs::load(&Roots::default(), cpus).map_err(Error::other)?;
    let took = began.elapsed();
    drop(programs);
    Ok(took)
}

//! What this binary plays when it is not the test: launchers, which sit in a cgroup and start workers there, and workers.

use std::fs;
use std::io::{BufRead, Write};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_setaffinity};

/// Plays a role; the exit code says whether it could.
pub(crate) fn play(role: &str, arguments: &[String]) -> ExitCode {
    let done = match (role, arguments) {
        ("launch", [directory, cpu]) => launch(Path::new(directory), cpu),
        ("spin", [ms]) => spin(ms),
        ("mix", [ms]) => mix(ms),
        ("visit", [directory, ms]) => visit(directory, ms),
        ("hostile", [ms]) => hostile(ms),
        ("rest", [ms]) => rest(ms),
        ("threads", [count, ms]) => threads(count, ms),
        _ => Err(format!("no role {role} with {arguments:?}")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("role {role}: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Enters the cgroup, pins itself if told to, then obeys lines on standard input. Workers inherit cgroup and CPU, so they are born
/// where they belong; dead ones stay zombies, whose numbers the kernel keeps, until `reap`.
fn launch(directory: &Path, cpu: &str) -> Result<(), String> {
    fs::write(directory.join("cgroup.procs"), std::process::id().to_string()).map_err(|error| error.to_string())?;
    if let Ok(cpu) = cpu.parse() {
        let mut cpus = CpuSet::new();
        cpus.set(cpu);
        sched_setaffinity(None, &cpus).map_err(|error| error.to_string())?;
    }
    let mut workers: Vec<Child> = Vec::new();
    say("ready");
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|error| error.to_string())?;
        if line == "reap" {
            for mut worker in workers.drain(..) {
                worker.wait().map_err(|error| error.to_string())?;
            }
            say("reaped");
        } else {
            let worker = worker(&line)?;
            say(&worker.id().to_string());
            workers.push(worker);
        }
    }
    Ok(())
}

fn say(word: &str) {
    let mut stdout = std::io::stdout();
    let _ = writeln!(stdout, "{word}").and_then(|()| stdout.flush());
}

fn worker(line: &str) -> Result<Child, String> {
    let exe = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut words = line.split(' ');
    let role = format!("role:{}", words.next().unwrap_or_default());
    Command::new(exe).arg(role).args(words).stdin(Stdio::null()).stdout(Stdio::null()).spawn().map_err(|error| error.to_string())
}

fn milliseconds(ms: &str) -> Result<Duration, String> {
    ms.parse().map(Duration::from_millis).map_err(|_| format!("{ms} is no number of milliseconds"))
}

/// Uses the CPU all the time.
fn spin(ms: &str) -> Result<(), String> {
    let end = Instant::now() + milliseconds(ms)?;
    while Instant::now() < end {
        std::hint::spin_loop();
    }
    Ok(())
}

/// Uses the CPU and sleeps in turn, a few hundred microseconds each.
fn mix(ms: &str) -> Result<(), String> {
    let end = Instant::now() + milliseconds(ms)?;
    while Instant::now() < end {
        let turn = Instant::now() + Duration::from_micros(200);
        while Instant::now() < turn {
            std::hint::spin_loop();
        }
        std::thread::sleep(Duration::from_micros(100));
    }
    Ok(())
}

/// Moves to another cgroup and works there for a moment.
fn visit(directory: &str, ms: &str) -> Result<(), String> {
    fs::write(Path::new(directory).join("cgroup.procs"), "0").map_err(|error| error.to_string())?;
    mix(ms)
}

/// Works under a name that would clear a terminal, and is no UTF-8.
fn hostile(ms: &str) -> Result<(), String> {
    fs::write("/proc/self/comm", b"x\x1b[2J\x07\xff\ny").map_err(|error| error.to_string())?;
    mix(ms)
}

/// Uses the CPU and sleeps in turn, then rests until it is ended.
fn rest(ms: &str) -> Result<(), String> {
    mix(ms)?;
    std::thread::sleep(Duration::from_secs(600));
    Ok(())
}

/// Starts threads that each use the CPU for so long and end, one after the other so that none outlives the next for long, then rests.
/// A line of output would be lost here, so that its name says when it is done.
fn threads(count: &str, ms: &str) -> Result<(), String> {
    let count: usize = count.parse().map_err(|_| format!("{count} is no number"))?;
    for _ in 0..count {
        let ms = ms.to_owned();
        std::thread::spawn(move || spin(&ms)).join().map_err(|_| "a thread panicked")??;
    }
    fs::write("/proc/self/comm", "done").map_err(|error| error.to_string())?;
    std::thread::sleep(Duration::from_secs(600));
    Ok(())
}

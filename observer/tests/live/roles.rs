//! What this binary plays when it is not the test: launchers, which sit in a cgroup and start workers there, and workers.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant, SystemTime};

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};

/// Plays a role; the exit code says whether it could.
pub(crate) fn play(role: &str, arguments: &[String]) -> ExitCode {
    let done = match (role, arguments) {
        ("launch", [directory, cpu]) => launch(Path::new(directory), cpu),
        ("spin", [ms]) => spin(ms),
        ("between", [from, to]) => between(from, to),
        ("mix", [ms]) => mix(ms),
        ("pingpong", [directory, ms]) => pingpong(directory, ms),
        ("echo", [directory]) => echo(directory),
        ("throw", [pid, ms]) => throw(pid, ms),
        ("ask", [there, back, turns]) => ask(there, back, turns),
        ("answer", [there, back]) => answer(there, back),
        ("short", [count]) => short(count),
        ("visit", [directory, ms]) => visit(directory, ms),
        ("visit-between", [directory, from, to]) => visit_between(directory, from, to),
        ("hostile", [ms]) => hostile(ms),
        ("called", [name, from, ms]) => called(name, from, ms),
        ("bursts", [count, ms]) => bursts(count, ms),
        ("waits", [path, ms]) => waits(path, ms),
        ("rest", [turns]) => rest(turns),
        ("threads", [count, ms]) => threads(count, ms),
        ("touch", [mib]) => touch(mib).map(drop),
        ("hold", [mib]) => hold(mib),
        ("write", [path, mib]) => write(path, mib),
        ("read", [path, times]) => read(path, times),
        ("unheard", []) => super::tcp::unheard(),
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

/// Uses the CPU all the time from one moment to another, in milliseconds since 1970: what starts at different moments competes for the
/// very same time.
fn between(from: &str, to: &str) -> Result<(), String> {
    let moment = |ms: &str| milliseconds(ms).map(|since| SystemTime::UNIX_EPOCH + since);
    let (from, to) = (moment(from)?, moment(to)?);
    if let Ok(left) = from.duration_since(SystemTime::now()) {
        std::thread::sleep(left);
    }
    while SystemTime::now() < to {
        std::hint::spin_loop();
    }
    Ok(())
}

/// Hands a byte to and fro with a process in another cgroup: both switch every few microseconds.
fn pingpong(directory: &str, ms: &str) -> Result<(), String> {
    let end = Instant::now() + milliseconds(ms)?;
    let say = |error: std::io::Error| error.to_string();
    let exe = std::env::current_exe().map_err(say)?;
    let echo = Command::new(exe).args(["role:echo", directory]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut echo = echo.map_err(say)?;
    let (Some(mut to), Some(mut from)) = (echo.stdin.take(), echo.stdout.take()) else { return Err("no pipes".into()) };
    let mut byte = [0];
    while Instant::now() < end {
        to.write_all(&byte).and_then(|()| from.read_exact(&mut byte)).map_err(say)?;
    }
    drop(to);
    echo.wait().map_err(say).map(|_| ())
}

fn echo(directory: &str) -> Result<(), String> {
    let say = |error: std::io::Error| error.to_string();
    fs::write(Path::new(directory).join("cgroup.procs"), "0").map_err(say)?;
    let (mut from, mut to) = (std::io::stdin().lock(), std::io::stdout().lock());
    let mut byte = [0];
    while from.read_exact(&mut byte).is_ok() {
        to.write_all(&byte).and_then(|()| to.flush()).map_err(say)?;
    }
    Ok(())
}

/// Hands a byte to and fro over two FIFOs, so many times.
fn ask(there: &str, back: &str, turns: &str) -> Result<(), String> {
    let say = |error: std::io::Error| error.to_string();
    let turns: u64 = turns.parse().map_err(|_| format!("{turns} is no number"))?;
    let (mut to, mut from) = (fs::OpenOptions::new().write(true).open(there).map_err(say)?, fs::File::open(back).map_err(say)?);
    let mut byte = [0];
    (0..turns).try_for_each(|_| to.write_all(&byte).and_then(|()| from.read_exact(&mut byte)).map_err(say))
}

/// Its partner.
fn answer(there: &str, back: &str) -> Result<(), String> {
    let say = |error: std::io::Error| error.to_string();
    let (mut from, mut to) = (fs::File::open(there).map_err(say)?, fs::OpenOptions::new().write(true).open(back).map_err(say)?);
    let mut byte = [0];
    while from.read_exact(&mut byte).is_ok() {
        to.write_all(&byte).map_err(say)?;
    }
    Ok(())
}

/// Moves another process to and fro between the first two CPUs, every two milliseconds.
fn throw(pid: &str, ms: &str) -> Result<(), String> {
    let end = Instant::now() + milliseconds(ms)?;
    let pid = pid.parse().ok().and_then(Pid::from_raw).ok_or("no pid")?;
    for cpu in (0..2).cycle().take_while(|_| Instant::now() < end) {
        let mut cpus = CpuSet::new();
        cpus.set(cpu);
        if sched_setaffinity(Some(pid), &cpus).is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Starts so many processes that end at once, sixteen at a time.
fn short(count: &str) -> Result<(), String> {
    let count: usize = count.parse().map_err(|_| format!("{count} is no number"))?;
    let mut running = VecDeque::new();
    for _ in 0..count {
        if running.len() == 16 {
            wait(running.pop_front())?;
        }
        running.push_back(Command::new("/bin/true").stdin(Stdio::null()).spawn().map_err(|error| error.to_string())?);
    }
    running.into_iter().try_for_each(|child| wait(Some(child)))
}

fn wait(child: Option<Child>) -> Result<(), String> {
    child.map_or(Ok(()), |mut child| child.wait().map(|_| ()).map_err(|error| error.to_string()))
}

/// Uses the CPU and sleeps in turn, a few hundred microseconds each.
fn mix(ms: &str) -> Result<(), String> {
    let end = Instant::now() + milliseconds(ms)?;
    while Instant::now() < end {
        turn();
    }
    Ok(())
}

fn turn() {
    let end = Instant::now() + Duration::from_micros(200);
    while Instant::now() < end {
        std::hint::spin_loop();
    }
    std::thread::sleep(Duration::from_micros(100));
}

/// Moves to another cgroup and works there for a moment.
fn visit(directory: &str, ms: &str) -> Result<(), String> {
    fs::write(Path::new(directory).join("cgroup.procs"), "0").map_err(|error| error.to_string())?;
    mix(ms)
}

/// Moves to another cgroup at once and uses the CPU there from one moment to another.
fn visit_between(directory: &str, from: &str, to: &str) -> Result<(), String> {
    fs::write(Path::new(directory).join("cgroup.procs"), "0").map_err(|error| error.to_string())?;
    between(from, to)
}

/// Works under a name that would clear a terminal, and is no UTF-8.
fn hostile(ms: &str) -> Result<(), String> {
    fs::write("/proc/self/comm", b"x\x1b[2J\x07\xff\ny").map_err(|error| error.to_string())?;
    mix(ms)
}

/// Takes a name, sleeps until a moment, in milliseconds since 1970, then uses the CPU and sleeps in turn.
fn called(name: &str, from: &str, ms: &str) -> Result<(), String> {
    fs::write("/proc/self/comm", name).map_err(|error| error.to_string())?;
    let from = SystemTime::UNIX_EPOCH + milliseconds(from)?;
    if let Ok(left) = from.duration_since(SystemTime::now()) {
        std::thread::sleep(left);
    }
    mix(ms)
}

/// Works and sleeps in turn, and writes down each of its waits for a CPU, in nanoseconds, as the kernel tells it (`/proc/self/schedstat`): it looks so
/// often that it hardly ever finds two at once, which it leaves out.
fn waits(path: &str, ms: &str) -> Result<(), String> {
    let say = |error: std::io::Error| error.to_string();
    let end = Instant::now() + milliseconds(ms)?;
    let schedstat = fs::File::open("/proc/self/schedstat").map_err(say)?;
    let read = || {
        let mut text = [0; 96];
        let length = schedstat.read_at(&mut text, 0).map_err(say)?;
        let text = String::from_utf8_lossy(&text[..length]).into_owned();
        let numbers: Vec<u64> = text.split_whitespace().flat_map(str::parse).collect();
        match numbers[..] {
            [_, delay, count] => Ok((delay, count)),
            _ => Err(format!("schedstat: {text:?}")),
        }
    };
    let mut waits = String::new();
    let mut was: (u64, u64) = read()?;
    for turn in 0u64.. {
        let is = read()?;
        if is.1 == was.1 + 1 {
            waits.push_str(&format!("{}\n", is.0 - was.0));
        }
        was = is;
        if Instant::now() >= end {
            break;
        }
        // Of each thousand looks the last ten follow a sleep.
        if turn % 1000 >= 990 {
            std::thread::sleep(Duration::from_micros(300));
        }
    }
    fs::write(path, waits).map_err(say)
}

/// Uses the CPU for so long, then sleeps as long, a number of times. Whoever may start it with real-time priority: it never holds a CPU for good.
fn bursts(count: &str, ms: &str) -> Result<(), String> {
    let time = milliseconds(ms)?.min(Duration::from_millis(400));
    for _ in 0..number(count)?.min(20) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            std::hint::spin_loop();
        }
        std::thread::sleep(time);
    }
    Ok(())
}

/// Uses the CPU and sleeps in turn, so many times however long they take, then rests until it is ended.
fn rest(turns: &str) -> Result<(), String> {
    let turns: usize = turns.parse().map_err(|_| format!("{turns} is no number of turns"))?;
    (0..turns).for_each(|_| turn());
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

/// Touches every page of so much memory, once.
fn touch(mib: &str) -> Result<Vec<u8>, String> {
    let bytes = (number(mib)? << 20) as usize;
    let mut memory = vec![0u8; bytes];
    for page in memory.chunks_mut(4096) {
        page[0] = 1;
    }
    Ok(std::hint::black_box(memory))
}

/// The same, and keeps it until it is killed.
fn hold(mib: &str) -> Result<(), String> {
    let memory = touch(mib)?;
    std::thread::sleep(Duration::from_secs(600));
    drop(memory);
    Ok(())
}

/// Writes a file of so many MiB, in pieces of 2 MiB.
fn write(path: &str, mib: &str) -> Result<(), String> {
    fill(Path::new(path), number(mib)?).map(drop).map_err(|error| format!("{path}: {error}"))
}

/// As [`write`], and on disk alone when it returns.
pub(crate) fn write_file(path: &Path, mib: u64) -> std::io::Result<()> {
    let file = fill(path, mib)?;
    file.sync_all()?;
    // Or the page cache has it, and who reads it allocates nothing.
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    Ok(())
}

fn fill(path: &Path, mib: u64) -> std::io::Result<fs::File> {
    let piece = vec![1u8; 2 << 20];
    let mut file = fs::File::create(path)?;
    for _ in 0..mib / 2 {
        file.write_all(&piece)?;
    }
    Ok(file)
}

/// Reads a file from its beginning to its end, a number of times.
fn read(path: &str, times: &str) -> Result<(), String> {
    let mut piece = vec![0u8; 1 << 20];
    for _ in 0..number(times)? {
        let mut file = fs::File::open(path).map_err(|error| format!("{path}: {error}"))?;
        while file.read(&mut piece).map_err(|error| format!("{path}: {error}"))? > 0 {}
    }
    Ok(())
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text} is no number"))
}

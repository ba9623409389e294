//! Starts known tasks in a cgroup and asks the kernel for their numbers.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// The kernel's own numbers of tasks: `/proc/PID/schedstat` and the context switches of `/proc/PID/status`.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub(crate) struct Truth {
    /// `se.sum_exec_runtime`, nanoseconds.
    pub(crate) exec: u64,
    /// `sched_info.run_delay`, nanoseconds.
    pub(crate) run_delay: u64,
    /// `sched_info.pcount`: dispatches that waited; on old kernels all of them ([`super::health::pcount_is_of_waits`]).
    pub(crate) pcount: u64,
    /// `nvcsw`.
    pub(crate) voluntary: u64,
    /// `nivcsw`.
    pub(crate) preempted: u64,
}

impl Truth {
    /// Reads one process of one thread.
    pub(crate) fn of(pid: u32) -> Result<Truth, String> {
        let read = |file: &str| {
            fs::read_to_string(format!("/proc/{pid}/{file}")).map_err(|error| format!("/proc/{pid}/{file}: {error}"))
        };
        let schedstat = read("schedstat")?;
        let numbers: Vec<u64> = schedstat.split_whitespace().flat_map(str::parse).collect();
        let [exec, run_delay, pcount] = numbers[..] else { return Err(format!("schedstat of {pid}: {schedstat:?}")) };
        let status = read("status")?;
        let count = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or(format!("no {name} in status of {pid}"))?;
            line.trim().parse::<u64>().map_err(|error| format!("{name} of {pid}: {error}"))
        };
        Ok(Truth {
            exec,
            run_delay,
            pcount,
            voluntary: count("voluntary_ctxt_switches:")?,
            preempted: count("nonvoluntary_ctxt_switches:")?,
        })
    }

    /// Adds another's.
    pub(crate) fn add(&mut self, other: Truth) {
        self.exec += other.exec;
        self.run_delay += other.run_delay;
        self.pcount += other.pcount;
        self.voluntary += other.voluntary;
        self.preempted += other.preempted;
    }

    /// What came since.
    pub(crate) fn since(&self, before: Truth) -> Truth {
        Truth {
            exec: self.exec - before.exec,
            run_delay: self.run_delay - before.run_delay,
            pcount: self.pcount - before.pcount,
            voluntary: self.voluntary - before.voluntary,
            preempted: self.preempted - before.preempted,
        }
    }
}

/// A process that sits in a cgroup, asleep, and starts workers there.
pub(crate) struct Launcher {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Launcher {
    /// Starts one in a cgroup's directory; with a CPU, it and its workers are pinned there.
    pub(crate) fn start(directory: &Path, cpu: Option<usize>) -> Result<Launcher, String> {
        let exe = std::env::current_exe().map_err(|error| error.to_string())?;
        let cpu = cpu.map_or("any".into(), |cpu| cpu.to_string());
        let mut child = Command::new(exe)
            .arg("role:launch")
            .arg(directory)
            .arg(cpu)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start a launcher: {error}"))?;
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().ok_or("a launcher without output")?);
        let mut launcher = Launcher { child, stdin, stdout };
        launcher.expect("ready")?;
        launcher.quiet()?;
        Ok(launcher)
    }

    /// Its pid.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Starts a worker and returns its pid.
    pub(crate) fn work(&mut self, role: &str) -> Result<u32, String> {
        self.tell(role)?;
        let answer = self.answer()?;
        answer.parse().map_err(|_| format!("a launcher said {answer:?} to {role}"))
    }

    /// Waits until a worker is a zombie, and returns what it did in its life. A task shows as a zombie a moment before it leaves the CPU
    /// for the last time, hence not before two readings agree.
    pub(crate) fn finished(&self, pid: u32) -> Result<Truth, String> {
        wait_for(pid, 'Z')?;
        at_rest(|| Truth::of(pid), Duration::from_millis(3))
    }

    /// Whether a worker is a zombie already.
    pub(crate) fn is_zombie(&self, pid: u32) -> Result<bool, String> {
        Ok(state(pid)? == Some('Z'))
    }

    /// Lets the zombies go.
    pub(crate) fn reap(&mut self) -> Result<(), String> {
        self.tell("reap")?;
        self.expect("reaped")
    }

    /// Waits until the launcher sleeps, and returns what it did so far.
    pub(crate) fn quiet(&self) -> Result<Truth, String> {
        self.asleep(self.pid())
    }

    /// Waits until a worker sleeps, and returns what it did so far.
    pub(crate) fn asleep(&self, pid: u32) -> Result<Truth, String> {
        at_rest(|| wait_for(pid, 'S').and_then(|()| Truth::of(pid)), Duration::from_millis(10))
    }

    fn tell(&mut self, line: &str) -> Result<(), String> {
        let stdin = self.stdin.as_mut().ok_or("a launcher without input")?;
        writeln!(stdin, "{line}").and_then(|()| stdin.flush()).map_err(|error| format!("cannot tell a launcher {line}: {error}"))
    }

    fn answer(&mut self) -> Result<String, String> {
        let mut line = String::new();
        match self.stdout.read_line(&mut line) {
            Ok(0) => Err("a launcher ended".into()),
            Ok(_) => Ok(line.trim_end().to_owned()),
            Err(error) => Err(format!("a launcher does not answer: {error}")),
        }
    }

    fn expect(&mut self, word: &str) -> Result<(), String> {
        let answer = self.answer()?;
        if answer == word { Ok(()) } else { Err(format!("a launcher said {answer:?}, not {word}")) }
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.wait();
    }
}

/// Reads until two readings in a row agree.
fn at_rest(read: impl Fn() -> Result<Truth, String>, pause: Duration) -> Result<Truth, String> {
    let mut before = read()?;
    for _ in 0..500 {
        std::thread::sleep(pause);
        let now = read()?;
        if now == before {
            return Ok(now);
        }
        before = now;
    }
    Err("a task does not come to rest".into())
}

/// A process's state (`/proc/PID/stat`).
fn state(pid: u32) -> Result<Option<char>, String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).map_err(|error| format!("/proc/{pid}/stat: {error}"))?;
    Ok(stat.rsplit(')').next().and_then(|rest| rest.trim().chars().next()))
}

/// Waits until a process is in a state (`/proc/PID/stat`).
fn wait_for(pid: u32, wanted: char) -> Result<(), String> {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let state = state(pid)?;
        if state == Some(wanted) {
            return Ok(());
        }
        if Instant::now() > end {
            return Err(format!("process {pid} is {state:?}, not {wanted}, after a minute"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

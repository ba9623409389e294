//! What is measured: processes of this program's own on one CPU, in cgroups of their own where they are to be told apart.

use std::fs;
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use observer_common::sched::Key;
use rustix::process::{Pid, setpriority_process};
use rustix::thread::{CpuSet, sched_setaffinity, sched_yield};
use rustix::time::{ClockId, clock_gettime};

use crate::Result;

/// The CPU that all loads share.
pub(crate) const CPU: u32 = 0;

/// Workers at work, ended with this.
pub(crate) struct Load {
    workers: Vec<Child>,
    /// Whoever ends last still writes.
    _pipes: Vec<(PipeReader, PipeWriter)>,
}

impl Load {
    /// A byte goes round, one worker for each entry: in that cgroup, or in this program's own. Each passes it on `turns` times.
    pub(crate) fn relay(cgroups: &[Option<&Cgroup>], turns: u64) -> Result<Load> {
        let pipes = cgroups.iter().map(|_| pipe()).collect::<std::io::Result<Vec<_>>>()?;
        let mut load = Load { workers: Vec::new(), _pipes: Vec::new() };
        for (number, cgroup) in cgroups.iter().enumerate() {
            let from = pipes[number].0.try_clone()?.into();
            let to = pipes[(number + 1) % pipes.len()].1.try_clone()?.into();
            load.start(&["relay", &turns.to_string()], *cgroup, from, to)?;
        }
        if let Some((_, first)) = pipes.first() {
            (&*first).write_all(&[0])?;
        }
        load._pipes = pipes;
        Ok(load)
    }

    /// Each gives up the CPU and wants it at once, so that each waits for all others.
    pub(crate) fn storm(cgroups: &[Option<&Cgroup>]) -> Result<Load> {
        let mut load = Load { workers: Vec::new(), _pipes: Vec::new() };
        load.runnable("yield", cgroups)?;
        Ok(load)
    }

    /// One that never gives up the CPU, alone.
    pub(crate) fn spinner() -> Result<Load> {
        Load { workers: Vec::new(), _pipes: Vec::new() }.beside_spinner(None)
    }

    /// The workers' process ids.
    pub(crate) fn pids(&self) -> impl Iterator<Item = u32> {
        self.workers.iter().map(Child::id)
    }

    /// One that never gives up the CPU joins.
    pub(crate) fn beside_spinner(mut self, cgroup: Option<&Cgroup>) -> Result<Load> {
        self.runnable("spin", &[cgroup])?;
        Ok(self)
    }

    /// The CPU time of all workers between their first and their last turn, once all have had it.
    pub(crate) fn cpu_time(mut self) -> Result<Duration> {
        let mut all = Duration::ZERO;
        for worker in &mut self.workers {
            let mut said = String::new();
            worker.stderr.take().ok_or("no errors of a worker")?.read_to_string(&mut said)?;
            all += Duration::from_nanos(said.trim().parse().map_err(|_| format!("a worker said {said:?}"))?);
            worker.wait()?;
        }
        Ok(all)
    }

    /// All begin once all are where they belong: then their input ends.
    fn runnable(&mut self, role: &str, cgroups: &[Option<&Cgroup>]) -> Result<()> {
        let (from, _go) = pipe()?;
        for cgroup in cgroups {
            self.start(&[role], *cgroup, from.try_clone()?.into(), Stdio::null())?;
        }
        Ok(())
    }

    fn start(&mut self, role: &[&str], cgroup: Option<&Cgroup>, from: Stdio, to: Stdio) -> Result<()> {
        let mut command = Command::new(std::env::current_exe()?);
        let worker = command.arg("play").args(role).stdin(from).stdout(to).stderr(Stdio::piped()).spawn()?;
        let (pid, id) = (Pid::from_child(&worker), worker.id());
        self.workers.push(worker);
        let mut cpus = CpuSet::new();
        cpus.set(CPU as usize);
        sched_setaffinity(Some(pid), &cpus)?;
        // So that the rest of the machine comes between them as seldom as can be.
        setpriority_process(Some(pid), -20)?;
        if let Some(cgroup) = cgroup {
            fs::write(cgroup.directory.join("cgroup.procs"), id.to_string())?;
        }
        Ok(())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            let _ = worker.kill();
        }
        for worker in &mut self.workers {
            let _ = worker.wait();
        }
    }
}

/// What a worker does. All begin with the first byte of their input, or with its end.
pub(crate) fn play(role: &[String]) -> Result<()> {
    let (mut from, mut to) = (std::io::stdin().lock(), std::io::stdout().lock());
    let mut byte = [0];
    let _ = from.read(&mut byte)?;
    match role.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["relay", turns] => {
            let began = clock_gettime(ClockId::ProcessCPUTime);
            let mut pass_on = || to.write_all(&[0]).and_then(|()| to.flush());
            pass_on()?;
            for _ in 1..turns.parse::<u64>()? {
                from.read_exact(&mut byte)?;
                pass_on()?;
            }
            let took = clock_gettime(ClockId::ProcessCPUTime) - began;
            eprintln!("{}", took.tv_sec * 1_000_000_000 + took.tv_nsec);
            Ok(())
        }
        ["yield"] => loop {
            sched_yield();
        },
        ["spin"] => loop {
            std::hint::spin_loop();
        },
        _ => Err(format!("no role {role:?}").into()),
    }
}

/// A cgroup of the v2 hierarchy, removed with this.
pub(crate) struct Cgroup {
    directory: PathBuf,
    /// Under which the hook books it.
    pub(crate) key: Key,
}

impl Cgroup {
    /// Makes some below the root.
    pub(crate) fn make(count: usize) -> Result<Vec<Cgroup>> {
        let mounts = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
        let root = mounts.into_iter().find(|root| root.join("cgroup.controllers").exists()).ok_or("no cgroup v2 is mounted")?;
        let make = |number| {
            let directory = root.join(format!("observer-bench-{}-{number}", std::process::id()));
            fs::create_dir(&directory)?;
            let key = Key::v2(fs::metadata(&directory)?.ino());
            Ok(Cgroup { directory, key })
        };
        (0..count).map(make).collect()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Processes take a moment to be gone.
        for _ in 0..100 {
            if fs::remove_dir(&self.directory).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        eprintln!("left behind: {}", self.directory.display());
    }
}

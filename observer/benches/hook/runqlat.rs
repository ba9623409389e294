//! Nanoseconds a dispatch beside others that measure run-queue waits, net of what an empty program reads at each of their hooks: theirs
//! are `sched_wakeup` and `sched_switch`. They come from the distribution (Debian: libbpf-tools, bpftrace) or are not measured.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aya::programs::loaded_programs;
use aya::sys::{Stats, enable_stats};

use crate::beside::{Counted, Empty, Result, counted, median};
use crate::load::Load;
use crate::{HOOK, observer};

const ROUNDS: usize = 5;
const SPAN: Duration = Duration::from_millis(300);

/// Names of their programs.
const TOOLS: [&str; 3] = ["runqlat", "bpf-runqlat", "runqlat.bt"];

pub(crate) fn run() -> Result<()> {
    let tools: Vec<PathBuf> = TOOLS.into_iter().filter_map(installed).collect();
    if tools.is_empty() {
        println!("skipped the comparison with others: none of {} is installed", TOOLS.join(", "));
        return Ok(());
    }
    let _stats = enable_stats(Stats::RunTime)?;
    let mut ours = Vec::new();
    let mut theirs = vec![Vec::new(); tools.len()];
    let mut hooks = vec![String::new(); tools.len()];
    for _ in 0..ROUNDS {
        let base = empty()?;
        ours.push(hook()? - base);
        for (number, tool) in tools.iter().enumerate() {
            match rival(tool) {
                Ok(programs) => {
                    theirs[number].push(net(&programs, base)?);
                    hooks[number] = told(&programs);
                }
                Err(why) => hooks[number] = why.to_string(),
            }
        }
    }
    println!("{:<36} {:>9} {:>9}", "ns a dispatch, net, medians", "net", "times");
    let ours = median(&ours);
    println!("{:<36} {ours:9.1} {:9.1}", "observer", 1.0);
    for ((tool, theirs), hooks) in tools.iter().zip(theirs).zip(hooks) {
        let tool = tool.display();
        if theirs.is_empty() {
            println!("skipped {tool}: {hooks}");
            continue;
        }
        let theirs = median(&theirs);
        println!("{:<36} {theirs:9.1} {:9.1}  as read: {hooks}", tool.to_string(), theirs / ours);
    }
    println!();
    Ok(())
}

fn installed(name: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&folders).chain(["/usr/sbin", "/usr/share/bpftrace/tools"].map(PathBuf::from));
    folders.map(|folder| folder.join(name)).find(|path| path.is_file())
}

fn empty() -> Result<f64> {
    let empty = Empty::attach(HOOK)?;
    let _load = Load::relay(&[None, None], u64::MAX)?;
    let before = empty.counted()?;
    std::thread::sleep(SPAN);
    Ok(empty.counted()?.since(before).each())
}

fn hook() -> Result<f64> {
    let programs = observer()?;
    let _load = Load::relay(&[None, None], u64::MAX)?;
    let before = counted(&programs, HOOK)?;
    std::thread::sleep(SPAN);
    Ok(counted(&programs, HOOK)?.since(before).each())
}

/// What each of a tool's programs counted, by name.
fn rival(tool: &Path) -> Result<Vec<(String, Counted)>> {
    let running = Running::start(tool)?;
    let _load = Load::relay(&[None, None], u64::MAX)?;
    let before = running.counted()?;
    std::thread::sleep(SPAN);
    let after = running.counted()?;
    let since = |(id, (name, after)): (u32, (String, Counted))| {
        let before = before.get(&id).map_or(Counted::default(), |(_, before)| *before);
        (name, after.since(before))
    };
    Ok(after.into_iter().map(since).filter(|(_, counted)| counted.runs > 0).collect())
}

/// Their time less that of as many runs of an empty program, by dispatch.
fn net(programs: &[(String, Counted)], base: f64) -> Result<f64> {
    let dispatches = programs.iter().filter(|(name, _)| is_switch(name)).map(|(_, counted)| counted.runs).max();
    let dispatches = dispatches.filter(|runs| *runs > 0).ok_or("it has no program on sched_switch")?;
    let time: f64 = programs.iter().map(|(_, counted)| counted.time.as_nanos() as f64 - counted.runs as f64 * base).sum();
    Ok(time / dispatches as f64)
}

fn is_switch(name: &str) -> bool {
    name.contains("sched_switch")
}

fn told(programs: &[(String, Counted)]) -> String {
    let each: Vec<String> = programs.iter().map(|(name, counted)| format!("{name} {:.0} ns", counted.each())).collect();
    each.join(", ")
}

/// A tool at work, ended with this.
struct Running {
    child: Child,
    ids: Vec<u32>,
}

impl Running {
    fn start(tool: &Path) -> Result<Running> {
        let child = Command::new(tool).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let mut running = Running { child, ids: Vec::new() };
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(10) {
            if let Some(status) = running.child.try_wait()? {
                return Err(format!("it ended: {status}").into());
            }
            running.ids = programs_of(running.child.id());
            if running.counted()?.values().any(|(name, counted)| is_switch(name) && counted.runs > 0) {
                return Ok(running);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err("it attached nothing to sched_switch".into())
    }

    fn counted(&self) -> Result<BTreeMap<u32, (String, Counted)>> {
        let mut counted = BTreeMap::new();
        for info in loaded_programs() {
            let info = info?;
            if self.ids.contains(&info.id()) {
                let name = info.name_as_str().unwrap_or("?").to_owned();
                counted.insert(info.id(), (name, Counted { runs: info.run_count(), time: info.run_time() }));
            }
        }
        Ok(counted)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ids of the programs that a process holds, itself or by a link.
fn programs_of(pid: u32) -> Vec<u32> {
    let Ok(files) = fs::read_dir(format!("/proc/{pid}/fdinfo")) else { return Vec::new() };
    let ids = files.flatten().filter_map(|file| {
        let text = fs::read_to_string(file.path()).ok()?;
        text.lines().find_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok())
    });
    let mut ids: Vec<u32> = ids.collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

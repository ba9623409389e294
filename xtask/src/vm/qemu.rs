//! The machine that runs the guest.

use std::fmt;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::report;

const PROGRAM: &str = "qemu-system-x86_64";

const DISK_BYTES: u64 = 256 << 20;

/// Where the guest's instructions are run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accelerator {
    /// By emulation: everywhere, slowly.
    Tcg,
    /// By this machine's processor.
    Kvm,
}

/// What a guest is made of.
pub(crate) struct Machine<'a> {
    pub(crate) kernel: &'a Path,
    pub(crate) initramfs: &'a Path,
    /// A file, which becomes an empty disk.
    pub(crate) disk: &'a Path,
    pub(crate) accelerator: Accelerator,
    pub(crate) shape: Shape,
}

/// How long a guest may take.
pub(crate) struct Limits {
    /// To come as far as its tests: then it is not started any more.
    pub(crate) start: Duration,
    /// For all of it.
    pub(crate) whole: Duration,
}

/// How a guest's two CPUs are related.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Each has a cache and a node of its own.
    Nodes,
    /// They are the threads of one core.
    Threads,
}

/// How a guest ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Off,
    Overdue(Duration),
    Died(ExitStatus),
}

impl fmt::Display for Ending {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => write!(out, "switched itself off"),
            Self::Overdue(limit) => write!(out, "was still running after {} s, its limit", limit.as_secs()),
            Self::Died(status) => write!(out, "ended with {PROGRAM}: {status}"),
        }
    }
}

/// Boots and shows what the guest says until it ends; all of it is returned.
pub(crate) fn boot(machine: &Machine<'_>, limits: &Limits) -> Result<(String, Ending)> {
    let mut guest = Guest::start(machine)?;
    let begin = Instant::now();
    let mut limit = limits.start;
    let mut said = String::new();
    loop {
        match guest.lines.recv_timeout((begin + limit).saturating_duration_since(Instant::now())) {
            Ok(line) => {
                println!("  {line}");
                if report::started(&line) {
                    limit = limits.whole;
                }
                said.push_str(&line);
                said.push('\n');
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => return Ok((said, Ending::Overdue(limit))),
        }
    }
    let status = guest.process.wait().context("cannot wait for qemu")?;
    Ok((said, if status.success() { Ending::Off } else { Ending::Died(status) }))
}

/// A running qemu, which does not outlive this.
struct Guest {
    process: Child,
    lines: Receiver<String>,
}

impl Guest {
    fn start(machine: &Machine<'_>) -> Result<Self> {
        empty(machine.disk)?;
        // Through setpriv, which becomes qemu: a qemu whose xtask was killed would go on for ever.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", PROGRAM, "-nodefaults", "-no-user-config", "-no-reboot"]);
        match machine.accelerator {
            // Two CPUs in one thread. With a thread each, qemu 7.2 loses a race when one CPU patches code that the other is about to run:
            // the guest double-faults while it boots, or meets for ever a breakpoint that is no longer there (seen: in `__schedule`, when
            // tests attached to `sched_switch`).
            //
            // Without cmpxchg16b, with which kernels allocate memory: once in a while the flags hold an address after it (seen with 6.12, in
            // the dumps of double faults).
            Accelerator::Tcg => command.args(["-accel", "tcg,thread=single", "-cpu", "max,-cx16"]),
            Accelerator::Kvm => command.args(["-accel", "kvm", "-cpu", "host"]),
        };
        // Two CPUs, because the tests need a second one to look from.
        command.args(["-m", "768", "-display", "none", "-serial", "stdio", "-smp"]);
        match machine.shape {
            Shape::Threads => command.arg("2,sockets=1,cores=1,threads=2"),
            Shape::Nodes => command.arg("2,sockets=2,cores=1,threads=1").args(["0", "1"].iter().flat_map(|node| {
                let memory = format!("memory-backend-ram,id=node{node},size=384M");
                ["-object".into(), memory, "-numa".into(), format!("node,nodeid={node},cpus={node},memdev=node{node}")]
            })),
        };
        command.arg("-kernel").arg(machine.kernel).arg("-initrd").arg(machine.initramfs);
        // NVMe is the one kind of disk whose driver all these kernels have built in, so that the guest needs no modules.
        let drive =
            format!("if=none,id=disk,format=raw,cache=unsafe,file={}", machine.disk.display().to_string().replace(',', ",,"));
        command.args(["-drive", &drive, "-device", "nvme,drive=disk,serial=observer"]);
        command.args(["-append", "console=ttyS0 quiet panic=-1"]);
        eprintln!("$ {command:?}");
        let mut process = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {PROGRAM} through setpriv"))?;
        let lines = reader(process.stdout.take());
        Ok(Self { process, lines })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Both do nothing to one that was waited for.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Makes the disk anew, of holes alone: what the last guest wrote is gone.
fn empty(disk: &Path) -> Result<()> {
    let make = || File::create(disk)?.set_len(DISK_BYTES);
    make().with_context(|| format!("cannot make {}", disk.display()))
}

/// A thread that reads, because reading knows no deadline.
fn reader(output: Option<ChildStdout>) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        let Some(output) = output else { return };
        // A serial line may carry anything, and ends with "\r\n".
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                return;
            }
        }
    });
    lines
}

//! The machine that runs the guest.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

const PROGRAM: &str = "qemu-system-x86_64";

/// Where the guest's instructions are run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accelerator {
    /// By emulation: everywhere, slowly.
    Tcg,
    /// By this machine's processor.
    Kvm,
}

/// Boots and shows what the guest says until it switches itself off; all of it is returned.
pub(crate) fn boot(kernel: &Path, initramfs: &Path, accelerator: Accelerator, deadline: Duration) -> Result<String> {
    let mut guest = Guest::start(kernel, initramfs, accelerator)?;
    let end = Instant::now() + deadline;
    let mut said = String::new();
    loop {
        match guest.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                println!("  {line}");
                said.push_str(&line);
                said.push('\n');
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => bail!("the guest was still running after {} s", deadline.as_secs()),
        }
    }
    let status = guest.process.wait().context("cannot wait for qemu")?;
    if !status.success() {
        bail!("{PROGRAM} failed: {status}");
    }
    Ok(said)
}

/// A running qemu, which does not outlive this.
struct Guest {
    process: Child,
    lines: Receiver<String>,
}

impl Guest {
    fn start(kernel: &Path, initramfs: &Path, accelerator: Accelerator) -> Result<Self> {
        // Through setpriv, which becomes qemu: a qemu whose xtask was killed would go on for ever.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", PROGRAM, "-nodefaults", "-no-user-config", "-no-reboot"]);
        match accelerator {
            Accelerator::Tcg => command.args(["-accel", "tcg", "-cpu", "max"]),
            Accelerator::Kvm => command.args(["-accel", "kvm", "-cpu", "host"]),
        };
        // Two CPUs, because the tests need a second one to look from.
        command.args(["-m", "768", "-smp", "2", "-display", "none", "-serial", "stdio"]);
        command.arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs);
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

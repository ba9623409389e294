//! `cargo xtask vm`: the live tests on other kernels than the running one, each in a virtual machine.
//!
//! The machine is emulated, so that neither root nor hardware support is needed. It has no disk:
//! the tests, the program and busybox are all there is, and `xtask/vm/init` is process 1.

mod apt;
mod initramfs;
mod kernels;
mod qemu;
mod report;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use self::initramfs::Initramfs;
use self::kernels::{KERNELS, Kernel};
use self::qemu::Accelerator;
use self::report::Skips;
use crate::packages;
use crate::process::{Cmd, find_program};
use crate::steps::{self, OnFailure, Step};
use crate::workspace::{Workspace, read, read_text};

const INIT: &str = "xtask/vm/init";
const SKIPS: &str = "xtask/vm/skips.toml";

/// Ends what hangs. Emulated on a busy machine, the tests take a quarter of it.
const DEADLINE: Duration = Duration::from_secs(20 * 60);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Which ones (see --list); all without a name
    kernels: Vec<String>,
    /// Print the kernels and end
    #[arg(long)]
    list: bool,
    /// Fetch the kernels again: `newest` moves on
    #[arg(long)]
    fetch: bool,
    /// Use this machine's own processor; many virtual machines cannot
    #[arg(long)]
    kvm: bool,
    /// Names of tests, after `--`
    #[arg(last = true)]
    tests: Vec<String>,
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    if args.list {
        for kernel in &KERNELS {
            println!("{}", kernel.describe(workspace));
        }
        return Ok(());
    }
    let kernels = kernels::chosen(&args.kernels)?;
    install_tools()?;
    let programs = Programs::build(workspace)?;
    let skips = skips(workspace, &programs)?;
    let initramfs = initramfs(workspace, &programs, &args.tests)?;
    let expected = programs.tests(&args.tests)?;
    ensure!(!expected.is_empty(), "no live test has such a name");

    let test = |kernel: &'static Kernel| {
        let (skips, expected, initramfs) = (&skips, &expected, &initramfs);
        Step::new(kernel.name, move || {
            let image = kernel.image(workspace, args.fetch)?;
            let accelerator = if args.kvm { Accelerator::Kvm } else { Accelerator::Tcg };
            let said = boot(&image, initramfs, accelerator)?;
            judge(kernel, skips, expected, &said)
        })
    };
    steps::run(kernels.into_iter().map(test).collect(), OnFailure::Continue)
}

/// Once in a while the emulator faults while a kernel starts (seen: a double fault at cmpxchg16b). Such a guest has tested nothing,
/// and is started again; one that came as far as its tests never is.
fn boot(image: &Path, initramfs: &Path, accelerator: Accelerator) -> Result<String> {
    let mut said = String::new();
    for _ in 0..3 {
        said = qemu::boot(image, initramfs, accelerator, DEADLINE)?;
        if report::started(&said) {
            break;
        }
        eprintln!("the guest did not come as far as its tests");
    }
    Ok(said)
}

fn judge(kernel: &Kernel, skips: &Skips, expected: &[String], said: &str) -> Result<()> {
    let outcomes = report::outcomes(said);
    let mut complaints = skips.complaints(kernel.name, expected, &outcomes);
    match report::marks(said) {
        Ok(marks) => {
            println!("{}: {} of {} tests ran on {}", kernel.name, outcomes.len(), expected.len(), marks.kernel);
            let failed = outcomes.values().any(|outcome| *outcome == report::Outcome::Fails);
            if marks.exit != 0 && !failed {
                complaints.push(format!("the tests exited with status {}", marks.exit));
            }
        }
        Err(error) => complaints.insert(0, error.to_string()),
    }
    ensure!(complaints.is_empty(), "{}", complaints.join("; "));
    Ok(())
}

fn install_tools() -> Result<()> {
    let tools = [("qemu-system-x86_64", "qemu-system-x86"), ("busybox", "busybox-static"), ("setpriv", "util-linux")];
    let missing: Vec<&str> =
        tools.into_iter().filter(|(tool, _)| find_program(tool).is_none()).map(|(_, package)| package).collect();
    if missing.is_empty() { Ok(()) } else { packages::install(&missing, "run kernels in virtual machines") }
}

/// The same list for every kernel: a name that no test has must not stay in it.
fn skips(workspace: &Workspace, programs: &Programs) -> Result<Skips> {
    let skips = Skips::parse(&read_text(&workspace.path(SKIPS))?).with_context(|| format!("cannot use {SKIPS}"))?;
    let unknown = skips.unknown(&programs.tests(&[])?, &KERNELS.map(|kernel| kernel.name));
    if !unknown.is_empty() {
        bail!("{SKIPS} names what does not exist: {}", unknown.join(", "));
    }
    Ok(skips)
}

fn initramfs(workspace: &Workspace, programs: &Programs, tests: &[String]) -> Result<PathBuf> {
    let tool = |name: &str| find_program(name).with_context(|| format!("{name} is missing"));
    let mut initramfs = Initramfs::default();
    initramfs.file("/init", &read(&workspace.path(INIT))?);
    initramfs.program("/bin/busybox", &tool("busybox")?)?;
    initramfs.program("/usr/bin/setpriv", &tool("setpriv")?)?;
    initramfs.program("/live", &programs.live)?;
    initramfs.program("/observer", &programs.observer)?;
    let arguments: String = tests.iter().map(|test| format!("{test}\n")).collect();
    initramfs.file("/arguments", arguments.as_bytes());
    for folder in ["/proc", "/sys", "/dev", "/tmp"] {
        initramfs.folder(folder);
    }
    initramfs.write(&workspace.target.join("vm/initramfs.cpio"))
}

/// What is tested: the very programs that `cargo xtask live` runs here.
struct Programs {
    live: PathBuf,
    observer: PathBuf,
}

/// A line of cargo's messages, as far as it matters.
#[derive(Deserialize)]
struct Message {
    executable: Option<PathBuf>,
    target: Option<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

impl Programs {
    fn build(workspace: &Workspace) -> Result<Self> {
        let messages = Cmd::cargo("test")
            .args(["--package", "observer", "--test", "live", "--no-run", "--message-format", "json-render-diagnostics"])
            .dir(&workspace.root)
            .text()?;
        let find = |name: &str| executable(&messages, name).with_context(|| format!("cargo built no program {name}"));
        Ok(Self { live: find("live")?, observer: find("observer")? })
    }

    /// The names of the tests that match.
    fn tests(&self, filters: &[String]) -> Result<Vec<String>> {
        Ok(report::names(&Cmd::new(Path::new(&self.live)).args(filters).arg("--list").quiet().text()?))
    }
}

fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    let mut messages = messages.lines().filter_map(|line| serde_json::from_str::<Message>(line).ok());
    messages.find_map(|message| message.target.filter(|target| target.name == name).and(message.executable))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_in_the_messages_of_cargo() {
        let messages = "\
{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"observer\",\"kind\":[\"lib\"]},\"executable\":null}
{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"observer\",\"kind\":[\"bin\"]},\"executable\":\"/t/observer\"}
{\"reason\":\"build-finished\",\"success\":true}
";
        assert_eq!(executable(messages, "observer"), Some(PathBuf::from("/t/observer")));
        assert_eq!(executable(messages, "live"), None);
    }
}

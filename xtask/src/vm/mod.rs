//! `cargo xtask vm`: the live tests on other kernels than the running one, each in a virtual machine.
//!
//! The machine is emulated, so that neither root nor hardware support is needed. The tests, the program and busybox are all there is,
//! and `xtask/vm/init` is process 1. Its disk is empty: it is there because the pages of its files can be reclaimed.

mod apt;
mod initramfs;
mod kernels;
mod qemu;
mod report;

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use self::initramfs::Initramfs;
use self::kernels::{KERNELS, Kernel};
use self::qemu::{Accelerator, Ending, Limits, Machine, Shape};
use self::report::Skips;
use crate::packages;
use crate::process::{Cmd, find_program};
use crate::steps::{self, OnFailure, Outcome, Step};
use crate::workspace::{Workspace, read, read_text};

const INIT: &str = "xtask/vm/init";
const SKIPS: &str = "xtask/vm/skips.toml";

/// End what hangs. Emulated on two CPUs that others use, too, a guest comes to its tests after 10 s and is done with them after 6 to 10 minutes.
const LIMITS: Limits = Limits { start: Duration::from_secs(2 * 60), whole: Duration::from_secs(15 * 60) };

/// How often a guest is started that does not come as far as its tests.
const STARTS: usize = 3;

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
    /// Two threads of one core, instead of a node each
    #[arg(long)]
    smt: bool,
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
    if let Some(obstacle) = obstacle() {
        bail!("{obstacle}");
    }
    install_tools()?;
    let accelerator = if args.kvm { Accelerator::Kvm } else { Accelerator::Tcg };
    let shape = if args.smt { Shape::Threads } else { Shape::Nodes };
    let tests = Tests::build(workspace, &args.tests, accelerator, shape)?;
    let step = |kernel: &'static Kernel| {
        let tests = &tests;
        Step::new(kernel.name, move || tests.run(kernel, &kernel.image(workspace, args.fetch)?))
    };
    steps::run(kernels.into_iter().map(step).collect(), OnFailure::Continue)
}

/// The live tests on the oldest kernel, as a step of others.
pub(crate) fn step(workspace: &Workspace) -> Result<Outcome> {
    let [oldest, ..] = &KERNELS;
    // What this machine does not have, or cannot fetch, says nothing about observer. Where CI is set, a skip is a failure.
    let image = match obstacle() {
        Some(obstacle) => return Ok(Outcome::Skipped(obstacle)),
        None => install_tools().and_then(|()| oldest.image(workspace, false)),
    };
    let image = match image {
        Ok(image) => image,
        Err(error) => return Ok(Outcome::Skipped(format!("{error:#}"))),
    };
    Tests::build(workspace, &[], Accelerator::Tcg, Shape::Nodes)?.run(oldest, &image)?;
    Ok(Outcome::Passed)
}

/// What no package can give to this machine.
fn obstacle() -> Option<String> {
    if env::consts::ARCH != "x86_64" {
        return Some(format!("the guests run this machine's programs on x86_64, and this is {}", env::consts::ARCH));
    }
    let can_fetch = ["apt-get", "apt-cache", "dpkg"].into_iter().all(|tool| find_program(tool).is_some()) && apt::is_debian();
    (!can_fetch)
        .then(|| "the guests' kernels are Debian's packages, and this machine has not Debian's apt to fetch them".to_owned())
}

/// The tests, ready to be run on any kernel.
struct Tests {
    initramfs: PathBuf,
    disk: PathBuf,
    accelerator: Accelerator,
    shape: Shape,
    expected: Vec<String>,
    skips: Skips,
}

impl Tests {
    fn build(workspace: &Workspace, names: &[String], accelerator: Accelerator, shape: Shape) -> Result<Self> {
        let programs = Programs::build(workspace)?;
        let expected = programs.tests(names)?;
        ensure!(!expected.is_empty(), "no live test has such a name");
        let skips = skips(workspace, &programs)?;
        let initramfs = initramfs(workspace, &programs, names)?;
        Ok(Self { initramfs, disk: workspace.target.join("vm/disk"), accelerator, shape, expected, skips })
    }

    fn run(&self, kernel: &Kernel, image: &Path) -> Result<()> {
        judge(kernel, &self.skips, &self.expected, &self.boot(image)?)
    }

    /// Once in a while the emulator faults while a kernel starts (seen: a double fault at cmpxchg16b). Such a guest has tested nothing,
    /// and is started again; one that came as far as its tests never is.
    fn boot(&self, image: &Path) -> Result<String> {
        let machine = Machine {
            kernel: image,
            initramfs: &self.initramfs,
            disk: &self.disk,
            accelerator: self.accelerator,
            shape: self.shape,
        };
        for _ in 0..STARTS {
            let (said, ending) = qemu::boot(&machine, &LIMITS)?;
            match (report::started(&said), ending) {
                (true, Ending::Off) => return Ok(said),
                (true, _) => bail!("the guest {ending}; its last words are above"),
                (false, _) => eprintln!("the guest did not come as far as its tests: it {ending}"),
            }
        }
        bail!("the guest did not come as far as its tests, {STARTS} times")
    }
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
    for folder in ["/proc", "/sys", "/dev", "/tmp", "/var/tmp"] {
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

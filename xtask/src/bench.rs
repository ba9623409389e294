//! `cargo xtask bench`: what things cost, beside the budgets in their sources.

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::live::SUDO_RUNNER;
use crate::process::{Cmd, find_program};
use crate::steps::{self, OnFailure, Outcome, Step};
use crate::workspace::Workspace;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Which ones; all without a name
    #[arg(value_enum)]
    names: Vec<Name>,
    /// Options of the bench program, after `--`
    #[arg(last = true)]
    args: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    /// The scheduler hook beside an empty program and beside `runqlat`, and what a pinned pipe pays for it; needs root
    Hook,
    /// Frames of the dashboard at 200×60 with 1,000 cgroups
    Frame,
    /// An export of 10,000 points, before compression
    Encode,
    /// Reading 5,000 threads, the iterator beside /proc; needs root
    Tasks,
    /// Counting page allocations beside an empty program, and what a loop of page faults pays; needs root
    Pages,
    /// Counting a retransmitted segment beside an empty program; needs root
    Tcp,
    /// Reading 1,000 and 10,000 cgroups, the first time, while nobody runs and while some work; needs root
    Cgroups,
    /// Start to first frame, to first line, to attached programs; as root with eBPF, too
    Start,
}

impl Name {
    fn needs_root(self) -> bool {
        matches!(self, Self::Hook | Self::Tasks | Self::Cgroups | Self::Pages | Self::Tcp)
    }

    /// The bench target's name.
    fn target(self) -> &'static str {
        match self {
            Self::Hook => "hook",
            Self::Frame => "frame",
            Self::Encode => "encode",
            Self::Tasks => "tasks",
            Self::Cgroups => "cgroups",
            Self::Pages => "pages",
            Self::Tcp => "tcp",
            Self::Start => "start",
        }
    }
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    if args.names.is_empty() {
        let step = |name: Name| Step::optional(name.target(), move || unless_root_is_missing(workspace, name, &args.args));
        return steps::run(Name::value_variants().iter().copied().map(step).collect(), OnFailure::Continue);
    }
    args.names.iter().try_for_each(|name| bench(workspace, *name, &args.args))
}

/// For a run of all: nobody asked for privileges, so that none are asked for.
fn unless_root_is_missing(workspace: &Workspace, name: Name, args: &[String]) -> Result<Outcome> {
    if name.needs_root() && !is_root() {
        let target = name.target();
        return Ok(Outcome::Skipped(format!("it needs root (`cargo xtask bench {target}` asks for it through sudo)")));
    }
    bench(workspace, name, args).map(|()| Outcome::Passed)
}

fn bench(workspace: &Workspace, name: Name, args: &[String]) -> Result<()> {
    let mut call = Cmd::cargo("bench").dir(&workspace.root);
    if name.needs_root() && !is_root() {
        if find_program("sudo").is_none() {
            let target = name.target();
            bail!("the {target} bench needs root, and there is no sudo: run `cargo xtask bench {target}` as root");
        }
        call = call.args(["--config", SUDO_RUNNER]);
    }
    call.args(["--package", "observer", "--bench", name.target(), "--"]).args(args).run()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

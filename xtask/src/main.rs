//! Every developer task of observer: `cargo xtask <task>`.

mod bench;
mod bless;
mod ci;
mod collector;
mod digest;
mod docs;
mod ebpf;
mod licences;
mod live;
mod packages;
mod process;
mod run;
mod steps;
mod test;
mod vm;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

/// Every developer task of observer.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build observer and start it, asking for privileges through sudo
    Run(run::Args),
    /// Run every test that this machine can run
    Test,
    /// Check everything else that must hold before a merge
    Ci,
    /// Build the kernel side into observer/bpf/, installing what that needs
    Ebpf(ebpf::Args),
    /// Run only the tests that load programs into the running kernel
    Live(live::Args),
    /// Run the live tests on other kernels, in virtual machines
    Vm(vm::Args),
    /// Measure what observer costs
    Bench(bench::Args),
    /// Accept what the snapshot tests see now
    Bless(bless::Args),
    /// Write the documentation that is made from the program
    Docs(docs::Args),
    /// Build the OpenTelemetry Collector for the tests and print its path
    Collector,
}

fn main() -> ExitCode {
    let Err(error) = run_task(Cli::parse().task) else {
        return ExitCode::SUCCESS;
    };
    // Not by returning it from `main`: where RUST_BACKTRACE is set, a screen of frames would
    // bury the sentence that says what to do.
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}

fn run_task(task: Task) -> Result<()> {
    let workspace = Workspace::find()?;
    match task {
        Task::Run(args) => run::run(&workspace, &args),
        Task::Test => test::run(&workspace),
        Task::Ci => ci::run(&workspace),
        Task::Ebpf(args) => ebpf::run(&workspace, &args),
        Task::Live(args) => live::run(&workspace, &args),
        Task::Vm(args) => vm::run(&workspace, &args),
        Task::Bench(args) => bench::run(&workspace, &args),
        Task::Bless(args) => bless::run(&workspace, &args),
        Task::Docs(args) => docs::run(&workspace, &args),
        Task::Collector => collector::run(&workspace),
    }
}

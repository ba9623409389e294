//! Every developer task of observer: `cargo xtask <task>`.

mod digest;
mod ebpf;
mod packages;
mod process;
mod workspace;

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
    /// Build the kernel side into observer/bpf/, installing what that needs
    Ebpf(ebpf::Args),
}

fn main() -> Result<()> {
    let task = Cli::parse().task;
    let workspace = Workspace::find()?;
    match task {
        Task::Ebpf(args) => ebpf::run(&workspace, &args),
    }
}

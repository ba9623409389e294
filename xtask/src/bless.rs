//! `cargo xtask bless`: accepts what the snapshot tests see now. Read the diff before committing.

use anyhow::Result;

use crate::process::Cmd;
use crate::workspace::Workspace;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Names of tests, and options of `cargo test`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    Cmd::cargo("test")
        .args(["--workspace", "--exclude", "observer-ebpf"])
        .args(&args.args)
        .env("INSTA_UPDATE", "always")
        .dir(&workspace.root)
        .run()
}

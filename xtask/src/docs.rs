//! `cargo xtask docs`: documentation that is made from the program itself.

use anyhow::{Result, ensure};

use crate::process::Cmd;
use crate::workspace::{self, Workspace};

const METRICS: &str = "docs/METRICS.md";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Compare with the checked-in files instead of writing them
    #[arg(long)]
    pub(crate) check: bool,
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let path = workspace.path(METRICS);
    let fresh = Cmd::cargo("run")
        .args(["--quiet", "--package", "observer", "--", "metrics", "--format", "markdown"])
        .dir(&workspace.root)
        .text()?;
    ensure!(!fresh.is_empty(), "`observer metrics --format markdown` printed nothing");
    if !args.check {
        workspace::write(&path, fresh)?;
        println!("{METRICS} written");
        return Ok(());
    }
    let committed = workspace::read_text(&path)?;
    if let Some(line) = first_difference(&committed, &fresh) {
        anyhow::bail!(
            "{METRICS} is not what the program says, from line {line} on: \
             run `cargo xtask docs` and commit it"
        );
    }
    println!("{METRICS} is what the program says");
    Ok(())
}

/// The number of the first line that is not the same.
fn first_difference(left: &str, right: &str) -> Option<usize> {
    if left == right {
        return None;
    }
    // Split at every line end, so that a missing last one counts too.
    let same = left.split('\n').zip(right.split('\n')).take_while(|(left, right)| left == right);
    Some(same.count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_differing_line() {
        assert_eq!(first_difference("a\nb\n", "a\nb\n"), None);
        assert_eq!(first_difference("a\nb\n", "a\nc\n"), Some(2));
        assert_eq!(first_difference("a\n", "a"), Some(2));
    }
}

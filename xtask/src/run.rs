//! `cargo xtask run`: the dashboard, with the privileges that it can use.

use std::io::{IsTerminal as _, stdout};

use anyhow::Result;

use crate::process::{Cmd, find_program};
use crate::workspace::Workspace;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// What observer gets; nothing means its dashboard
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    Cmd::cargo("build").args(["--release", "--package", "observer"]).dir(&workspace.root).run()?;
    let program = workspace.target.join("release/observer");
    if wants_terminal(&args.args) && !stdout().is_terminal() {
        let shown = workspace.show(&program);
        println!(
            "The dashboard needs a terminal, and stdout is none. Without one:\n  \
             {shown} dump --count 1    one snapshot, as text\n  \
             {shown} export            headless, as OpenTelemetry metrics"
        );
        return Ok(());
    }
    let direct = Cmd::new(&program).args(&args.args).dir(&workspace.root);
    if rustix::process::geteuid().is_root() {
        return direct.run();
    }
    if find_program("sudo").is_some() {
        eprintln!("eBPF needs privileges: sudo may ask for your password");
        // Asked first and alone, so that a refusal is not taken for a failure of observer.
        if Cmd::new("sudo").arg("--validate").status()?.success() {
            return Cmd::new("sudo").arg(&program).args(&args.args).dir(&workspace.root).run();
        }
    }
    eprintln!(
        "no privileges: observer starts without eBPF and shows what /proc and cgroup files say; \
         missing are run-queue waits and who caused them, page allocations, stalls and \
         retransmits (`observer doctor` tells what to grant)"
    );
    direct.run()
}

/// Whether these arguments start the dashboard: no command at all, or its name.
fn wants_terminal(args: &[String]) -> bool {
    const COMMANDS: [&str; 10] = ["export", "dump", "check", "why", "watch", "doctor", "metrics", "config", "completions", "man"];
    const ANSWERS: [&str; 5] = ["--help", "-h", "--version", "-V", "help"];
    !args.iter().any(|arg| COMMANDS.contains(&arg.as_str()) || ANSWERS.contains(&arg.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_dashboard_needs_a_terminal() {
        let wants = |line: &str| {
            let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            wants_terminal(&args)
        };
        assert!(wants(""));
        assert!(wants("tui --plain"));
        assert!(wants("--interval 200ms --no-bpf"));
        assert!(!wants("dump --count 1"));
        assert!(!wants("--no-bpf export"));
        assert!(!wants("--help"));
    }
}

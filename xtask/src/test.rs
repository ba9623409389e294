//! `cargo xtask test`: every test that this machine can run.

use anyhow::Result;

use crate::process::Cmd;
use crate::steps::{self, OnFailure, Outcome, Step};
use crate::workspace::Workspace;
use crate::{collector, live};

pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let steps = vec![
        Step::new("unit, snapshot and integration tests", || ordinary(workspace)),
        Step::optional("live tests: eBPF in the running kernel", || live::step(workspace, None)),
        Step::optional("collector test: export to the OpenTelemetry Collector", || collector_test(workspace)),
    ];
    steps::run(steps, OnFailure::Stop)
}

fn ordinary(workspace: &Workspace) -> Result<()> {
    Cmd::cargo("test")
        .args(["--workspace", "--exclude", "observer-ebpf"])
        // A snapshot that differs is a failure, never a file left behind.
        .env("INSTA_UPDATE", "no")
        .dir(&workspace.root)
        .run()
}

fn collector_test(workspace: &Workspace) -> Result<Outcome> {
    // It makes a cgroup and attaches the programs, as the live tests do.
    if let Some(obstacle) = live::obstacle() {
        return Ok(Outcome::Skipped(obstacle));
    }
    let Some(go) = collector::go() else {
        return Ok(Outcome::Skipped(collector::WITHOUT_GO.to_owned()));
    };
    let program = collector::build(workspace, &go)?;
    Cmd::cargo("test")
        .args(["--package", "observer", "--test", "collector", "--", "--nocapture"])
        .env("OBSERVER_OTELCOL", program)
        .env("INSTA_UPDATE", "no")
        .dir(&workspace.root)
        .run()?;
    Ok(Outcome::Passed)
}

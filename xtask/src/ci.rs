//! `cargo xtask ci`: what must hold before a change is merged, beside `cargo xtask test`.

use anyhow::Result;

use crate::process::Cmd;
use crate::steps::{self, OnFailure, Step};
use crate::workspace::Workspace;
use crate::{docs, ebpf, licences, vm};

/// Everything but the kernel side, which only compiles with its own profile.
const USER_SIDE: [&str; 3] = ["--workspace", "--exclude", "observer-ebpf"];
/// On the host it is only looked at, never linked; the profile has the `panic = "abort"` it needs.
const KERNEL_SIDE: [&str; 4] = ["--package", "observer-ebpf", "--profile", "ebpf"];

pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let cargo = |subcommand: &str| Cmd::cargo(subcommand).dir(&workspace.root);
    let doc = || cargo("doc").arg("--no-deps").env("RUSTDOCFLAGS", "-Dwarnings");
    let clippy = || cargo("clippy").arg("--locked");
    const DENY: [&str; 3] = ["--", "-D", "warnings"];
    let steps = vec![
        Step::new("Cargo.lock is current", || {
            let call = cargo("metadata").args(["--locked", "--format-version", "1"]);
            call.text().map(drop)
        }),
        Step::new("licences", || licences::check(workspace)),
        Step::new("format", || cargo("fmt").args(["--all", "--check"]).run()),
        Step::new("clippy", || clippy().args(USER_SIDE).arg("--all-targets").args(DENY).run()),
        Step::new("clippy, kernel side", || clippy().args(KERNEL_SIDE).args(DENY).run()),
        // Both have a program `observer`: the second one's pages are those that stay.
        Step::new("rustdoc, kernel side", || doc().args(KERNEL_SIDE).run()),
        Step::new("rustdoc", || doc().args(USER_SIDE).run()),
        Step::new("docs/ is current", || docs::run(workspace, &docs::Args { check: true })),
        Step::optional("the eBPF object is that of its sources", || ebpf::check(workspace)),
        Step::optional("live tests on the oldest kernel, in a virtual machine", || vm::step(workspace)),
    ];
    steps::run(steps, OnFailure::Continue)
}

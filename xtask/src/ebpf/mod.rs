//! `cargo xtask ebpf`: the kernel side, from source to the object that is checked in.
//!
//! The object is checked in so that everybody else needs neither a nightly compiler nor LLVM. That
//! is honest only while anybody can make the same bytes again: this builds them without any trace
//! of the machine, records what they were built with, and `--check` does it again and compares.

mod compile;
mod llvm;
mod record;
mod scan;
mod toolchain;

use std::fs;

use anyhow::{Context as _, Result, bail, ensure};

use self::llvm::Llvm;
use self::record::{Record, Tools};
use self::toolchain::Toolchain;
use crate::digest::{sha256, sha256_tree};
use crate::live;
use crate::steps::{self, Outcome};
use crate::workspace::{self, Workspace};

const OBJECT: &str = "observer/bpf/observer.bpf.o";
const RECORD: &str = "observer/bpf/observer.bpf.toml";
/// In the build folder: the object built last.
const FRESH: &str = "ebpf/observer.bpf.o";
/// What the object is made from. Not Cargo.lock: most of it is about
/// the crates of the user side.
const SOURCES: [&str; 3] = ["observer-ebpf/Cargo.toml", "observer-ebpf/src", "observer-common/src"];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Build again and compare with the checked-in object instead of replacing it
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    if !args.check {
        return build(workspace);
    }
    match check(workspace)? {
        Outcome::Skipped(reason) if steps::is_ci() => bail!("not checked: {reason}"),
        Outcome::Skipped(reason) => println!("skipped, because {reason}"),
        Outcome::Passed => {}
    }
    Ok(())
}

fn build(workspace: &Workspace) -> Result<()> {
    let recorded = Record::read(&workspace.path(RECORD))?;
    let fresh = Fresh::build(workspace, recorded.as_ref())?;
    if let Some(recorded) = &recorded {
        for line in recorded.tools.differences(&fresh.record.tools) {
            eprintln!("note: the record changes: {line}");
        }
    }
    let same = recorded.is_some_and(|recorded| recorded.object == fresh.record.object);
    workspace::write(&workspace.path(OBJECT), &fresh.object)?;
    workspace::write(&workspace.path(RECORD), fresh.record.to_text()?)?;
    println!("{OBJECT}: {} bytes, {}", fresh.object.len(), if same { "as before" } else { "new" });
    Ok(())
}

/// Builds again. With the recorded tools the bytes must be the same; with others the fresh object
/// has to pass the live tests instead, where they can run.
pub(crate) fn check(workspace: &Workspace) -> Result<Outcome> {
    let Some(recorded) = Record::read(&workspace.path(RECORD))? else {
        bail!("{RECORD} is missing: run `cargo xtask ebpf` and commit what it writes");
    };
    let checked_in = workspace::read(&workspace.path(OBJECT))?;
    recorded.verify(&checked_in, &sources_digest(workspace)?)?;

    let fresh = Fresh::build(workspace, Some(&recorded))?;
    if fresh.object == checked_in {
        println!("{OBJECT}: built again, the same {} bytes", checked_in.len());
        return Ok(Outcome::Passed);
    }
    let differences = recorded.tools.differences(&fresh.record.tools);
    let path = workspace.target.join(FRESH);
    ensure!(
        !differences.is_empty(),
        "{OBJECT} is not what its sources give with the recorded tools: {} of {} bytes differs \
         from it at byte {}; run `cargo xtask ebpf` and commit what it writes",
        path.display(),
        fresh.object.len(),
        first_difference(&checked_in, &fresh.object),
    );
    println!("{OBJECT} cannot be compared: this machine has other tools than the recorded ones");
    for line in differences {
        println!("  {line}");
    }
    println!("the live tests run with the fresh object instead, {}", path.display());
    Ok(match live::step(workspace, Some(&path))? {
        Outcome::Passed => Outcome::Passed,
        Outcome::Skipped(reason) => {
            Outcome::Skipped(format!("the tools are others than the recorded ones, and the live tests did not run: {reason}"))
        }
    })
}

fn sources_digest(workspace: &Workspace) -> Result<String> {
    sha256_tree(&workspace.root, &SOURCES)
}

fn first_difference(left: &[u8], right: &[u8]) -> usize {
    left.iter().zip(right).take_while(|(left, right)| left == right).count()
}

/// An object just built, and its record.
struct Fresh {
    object: Vec<u8>,
    record: Record,
}

impl Fresh {
    /// Leaves the object in the build folder too, for tests and for a look inside.
    fn build(workspace: &Workspace, recorded: Option<&Record>) -> Result<Self> {
        let toolchain = Toolchain::find(recorded.map(|recorded| &recorded.tools))?;
        let llvm = Llvm::find(&toolchain.version)?;
        let linker = llvm.bpf_linker(workspace)?;
        let linked = compile::compile(workspace, &toolchain, &linker)?;
        let stripped = workspace.target.join(FRESH);
        llvm.strip_debug(&linked, &stripped)?;

        let object = workspace::read(&stripped)?;
        let leaks = scan::leaks(&object, &scan::Machine::here(workspace));
        if !leaks.is_empty() {
            // Nobody shall commit it by hand.
            let _ = fs::remove_file(&stripped);
            bail!("{} names this machine:\n  {}", stripped.display(), leaks.join("\n  "));
        }
        let record = Record {
            object: sha256(&object),
            sources: sources_digest(workspace).context("cannot tell the state of the sources")?,
            tools: Tools::new(&toolchain.version, &llvm),
        };
        Ok(Self { object, record })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole check needs the compiler; this half of it does not, so that it runs everywhere.
    #[test]
    fn the_checked_in_object_is_that_of_these_sources() {
        let workspace = Workspace::find().unwrap();
        let recorded = Record::read(&workspace.path(RECORD)).unwrap().expect(RECORD);
        let object = workspace::read(&workspace.path(OBJECT)).unwrap();
        recorded.verify(&object, &sources_digest(&workspace).unwrap()).unwrap();
    }

    #[test]
    fn the_checked_in_object_names_no_machine() {
        let workspace = Workspace::find().unwrap();
        let object = workspace::read(&workspace.path(OBJECT)).unwrap();
        assert_eq!(scan::leaks(&object, &scan::Machine::here(&workspace)), [""; 0]);
    }

    #[test]
    fn where_two_objects_part() {
        assert_eq!(first_difference(b"abcd", b"abxd"), 2);
        assert_eq!(first_difference(b"ab", b"abxd"), 2);
    }
}

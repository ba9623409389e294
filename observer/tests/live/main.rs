//! Live tests: cause a known event in the kernel and look for exactly it. They need root and BPF; `cargo xtask live` runs them.
//!
//! The harness is libtest-mimic because this binary plays the loads as well: a role as its first argument makes it a launcher or a
//! worker ([`roles`]), so that every task of a test is known and may be asked for the kernel's own numbers.

mod blame;
mod cgroups;
mod cli;
mod health;
mod imbalance;
mod launcher;
mod locality;
mod memory;
mod objectives;
mod program;
mod roles;
mod sched;
mod storms;
mod tasks;
mod tcp;
mod tree;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    if let Some(role) = arguments.next().and_then(|argument| argument.strip_prefix("role:").map(str::to_owned)) {
        return roles::play(&role, &arguments.collect::<Vec<_>>());
    }
    let families = [
        sched::trials(),
        locality::trials(),
        imbalance::trials(),
        storms::trials(),
        blame::trials(),
        tasks::trials(),
        objectives::trials(),
        memory::trials(),
        tcp::trials(),
        tree::trials(),
        cli::trials(),
    ];
    let trials = families.into_iter().flatten().map(|(name, test)| Trial::test(name, move || thrice(test)));
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

/// A test's name and body.
type Test = (&'static str, fn() -> Result<String, String>);

/// The machine is shared, and a window may be disturbed: up to three tries, every one printed.
fn thrice(test: fn() -> Result<String, String>) -> Result<(), Failed> {
    let mut last = String::new();
    for attempt in 1..=3 {
        match test() {
            Ok(figures) => {
                println!("  try {attempt}: ok: {figures}");
                return Ok(());
            }
            Err(why) => {
                println!("  try {attempt}: failed: {why}");
                last = why;
            }
        }
    }
    Err(last.into())
}

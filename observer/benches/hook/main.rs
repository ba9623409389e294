//! What the scheduler hook costs, always beside something else in the same run, as the machine's own speed varies. Four parts, all
//! without a name (`cargo xtask bench hook -- pipe`); needs root:
//!
//! - `cost`: nanoseconds a `sched_switch`, beside an empty program; at most twice that.
//! - `pipe`: what a load that only switches pays in CPU time; at most 6 %.
//! - `moves`: nanoseconds a migration, beside an empty program; at most 80 more.
//! - `runqlat`: nanoseconds a dispatch, beside the `runqlat` of others where that is installed; at most a twelfth.

use std::process::ExitCode;

use self::beside::{Result, observer};

#[path = "../beside/mod.rs"]
mod beside;
mod cost;
mod load;
mod moves;
mod pipe;
mod runqlat;
#[path = "../turns/mod.rs"]
mod turns;

/// The hook that is measured.
const HOOK: &str = "sched_switch";

/// Measures and prints.
type Part = fn() -> Result<()>;

const PARTS: [(&str, Part); 4] = [("cost", cost::run), ("moves", moves::run), ("pipe", pipe::run), ("runqlat", runqlat::run)];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hook bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    if let Some(("play", role)) = arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        return load::play(role);
    }
    if let Some(unknown) = arguments.iter().find(|argument| PARTS.iter().all(|(name, _)| name != argument)) {
        return Err(format!("no part named {unknown}: cost, moves, pipe, runqlat").into());
    }
    for (name, part) in PARTS {
        if arguments.is_empty() || arguments.iter().any(|argument| argument == name) {
            part()?;
        }
    }
    Ok(())
}

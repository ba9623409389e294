//! observer: who stole my CPU time?

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use observer::cli::{self, Cli};
use observer::run::{self, Failure};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => return complain(&cli::one_line(&error), 2),
        // Help and version. What is left when their reader is gone is nothing.
        Err(error) => return error.print().map_or(ExitCode::SUCCESS, |()| ExitCode::SUCCESS),
    };
    match run::run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(problem)) => complain(&problem, 2),
        Err(Failure::Failed(error)) => complain(&format!("{error:#}"), 1),
    }
}

/// One line on standard error, whatever the message holds; when that is closed, the exit status has to do.
fn complain(problem: &str, status: u8) -> ExitCode {
    let _ = writeln!(io::stderr(), "observer: error: {}", problem.trim().replace('\n', "; "));
    ExitCode::from(status)
}

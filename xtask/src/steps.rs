//! A list of checks: each is announced, and a table at the end says what became of it.

use std::time::{Duration, Instant};
use std::{env, fmt};

use anyhow::{Result, bail};

/// One check.
pub(crate) struct Step<'a> {
    name: &'static str,
    check: Box<dyn FnOnce() -> Result<Outcome> + 'a>,
}

/// What a check that did not fail has to say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed,
    /// Not run, and why.
    Skipped(String),
}

/// What is done after a failure.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnFailure {
    /// The rest is not run.
    Stop,
    /// The rest is run all the same.
    Continue,
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Passed,
    Skipped(String),
    Failed(String),
    NotRun,
}

impl<'a> Step<'a> {
    /// A check that can always be made.
    pub(crate) fn new(name: &'static str, check: impl FnOnce() -> Result<()> + 'a) -> Self {
        Self::optional(name, move || check().map(|()| Outcome::Passed))
    }

    /// A check that some machines cannot make.
    pub(crate) fn optional(name: &'static str, check: impl FnOnce() -> Result<Outcome> + 'a) -> Self {
        Self { name, check: Box::new(check) }
    }
}

/// Runs them in order and prints the table; any failure is an error.
pub(crate) fn run(steps: Vec<Step<'_>>, on_failure: OnFailure) -> Result<()> {
    let strict = is_ci();
    let total = steps.len();
    let mut failed = 0;
    let mut rows = Vec::new();
    for (index, step) in steps.into_iter().enumerate() {
        if failed > 0 && on_failure == OnFailure::Stop {
            rows.push((step.name, Verdict::NotRun, Duration::ZERO));
            continue;
        }
        eprintln!("\n== {}/{total} {}", index + 1, step.name);
        let start = Instant::now();
        let verdict = judge((step.check)(), strict);
        if verdict != Verdict::Passed {
            eprintln!("{verdict}: {}", step.name);
        }
        failed += usize::from(matches!(verdict, Verdict::Failed(_)));
        rows.push((step.name, verdict, start.elapsed()));
    }
    eprint!("\n{}", table(&rows));
    match failed {
        0 => Ok(()),
        1 => bail!("one of {total} checks failed"),
        _ => bail!("{failed} of {total} checks failed"),
    }
}

/// Whether this is a machine that has everything: what others skip is a failure there.
pub(crate) fn is_ci() -> bool {
    env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false" && value != "0")
}

fn judge(outcome: Result<Outcome>, strict: bool) -> Verdict {
    match outcome {
        Ok(Outcome::Passed) => Verdict::Passed,
        Ok(Outcome::Skipped(reason)) if strict => Verdict::Failed(format!("cannot be skipped when CI is set: {reason}")),
        Ok(Outcome::Skipped(reason)) => Verdict::Skipped(reason),
        Err(error) => Verdict::Failed(format!("{error:#}")),
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => write!(out, "passed"),
            Self::Skipped(reason) => write!(out, "skipped, because {reason}"),
            Self::Failed(reason) => write!(out, "FAILED: {reason}"),
            Self::NotRun => write!(out, "not run"),
        }
    }
}

fn table(rows: &[(&str, Verdict, Duration)]) -> String {
    let width = rows.iter().map(|(name, ..)| name.chars().count()).max().unwrap_or(0);
    let line =
        |(name, verdict, time): &(&str, Verdict, Duration)| format!("{name:width$}  {:>6.1} s  {verdict}\n", time.as_secs_f64());
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skip_is_a_failure_only_where_nothing_may_be_skipped() {
        let skipped = || Ok(Outcome::Skipped("no Go".to_owned()));
        assert_eq!(judge(skipped(), false), Verdict::Skipped("no Go".to_owned()));
        assert!(matches!(judge(skipped(), true), Verdict::Failed(_)));
        assert_eq!(judge(Ok(Outcome::Passed), true), Verdict::Passed);
    }

    #[test]
    fn the_table_lines_up() {
        let rows = [
            ("unit tests", Verdict::Passed, Duration::from_millis(61_250)),
            ("live", Verdict::Skipped("not root".to_owned()), Duration::ZERO),
            ("docs", Verdict::NotRun, Duration::ZERO),
        ];
        let expected = "\
unit tests    61.2 s  passed
live           0.0 s  skipped, because not root
docs           0.0 s  not run
";
        assert_eq!(table(&rows), expected);
    }

    #[test]
    fn what_follows_a_failure() {
        for (on_failure, expected) in [(OnFailure::Stop, 1), (OnFailure::Continue, 2)] {
            let calls = std::cell::Cell::new(0);
            let step = || {
                Step::new("step", || {
                    calls.set(calls.get() + 1);
                    bail!("broken")
                })
            };
            run(vec![step(), step()], on_failure).unwrap_err();
            assert_eq!(calls.get(), expected);
        }
    }
}

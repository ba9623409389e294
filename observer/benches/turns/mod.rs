//! What a load pays for programs: it runs with and without them in turn.

use observer::collect::bpf::loader::Programs;

use crate::beside::{Attached, Counted, Empty, Result, alternate, counted, median, observer, range};

/// Nanoseconds that a program of observer's takes on a hook, and an empty one, each measured in every round.
pub(crate) fn beside_empty(
    what: &str,
    (hook, program): (&str, &str),
    rounds: usize,
    measure: impl Fn(&dyn Fn() -> Result<Counted>) -> Result<f64>,
) -> Result<()> {
    let (mut empty, mut ours) = (Vec::new(), Vec::new());
    alternate(rounds, hook, |attached| {
        match attached {
            Attached::Empty(other) => empty.push(measure(&|| other.counted())?),
            Attached::Observer(programs) => ours.push(measure(&|| counted(&programs, program))?),
        }
        Ok(())
    })?;
    let net: Vec<f64> = ours.iter().zip(&empty).map(|(ours, empty)| ours - empty).collect();
    println!("{what:<36} {:>9} {:>9}", "median", "least");
    for (name, times) in [("empty", empty), ("observer", ours), ("net", net)] {
        println!("{name:<36} {:9.1} {:9.1}", median(&times), range(&times).0);
    }
    println!();
    Ok(())
}

/// What is compared.
const WAYS: [&str; 3] = ["off", "empty", "observer"];

/// Nothing, an empty program, and observer: loaded once and attached in turn for a moment each. So what differs is what a program costs, and
/// not the machine's mood a second later nor where a fresh copy's memory came to lie.
pub(crate) struct Turns {
    empty: Empty,
    observer: Programs,
    /// What was measured, each time in the order of [`WAYS`].
    rounds: Vec<[f64; 3]>,
}

impl Turns {
    pub(crate) fn load(tracepoint: &str) -> Result<Turns> {
        let mut observer = observer()?;
        observer.pause()?;
        Ok(Turns { empty: Empty::load(tracepoint)?, observer, rounds: Vec::new() })
    }

    /// Measures with each. Who is first rotates.
    pub(crate) fn round(&mut self, measure: impl Fn() -> Result<f64>) -> Result<()> {
        let mut round = [f64::NAN; 3];
        for step in 0..WAYS.len() {
            let way = (self.rounds.len() + step) % WAYS.len();
            match way {
                0 => round[way] = measure()?,
                1 => {
                    let link = self.empty.program()?.attach()?;
                    round[way] = measure()?;
                    self.empty.program()?.detach(link)?;
                }
                _ => {
                    self.observer.resume()?;
                    round[way] = measure()?;
                    self.observer.pause()?;
                }
            }
        }
        self.rounds.push(round);
        Ok(())
    }

    /// Prints what each costs more than nothing.
    pub(crate) fn print(&self, what: &str) {
        println!("{what:<36} {:>9} {:>17} {:>17} {:>9}", "median", "paired", "middle half", "of least");
        let all = |way: usize| self.rounds.iter().map(|round| round[way]).collect::<Vec<_>>();
        for (way, name) in WAYS.iter().enumerate() {
            let mut more: Vec<f64> = self.rounds.iter().map(|round| (round[way] / round[0] - 1.0) * 100.0).collect();
            more.sort_by(f64::total_cmp);
            let (lower, upper) = (more[more.len() / 4], more[more.len() * 3 / 4]);
            // Of a median, by the rule of notched box plots (McGill, Tukey, Larsen 1978).
            let sure = 1.57 * (upper - lower) / (more.len() as f64).sqrt();
            let of_least = (range(&all(way)).0 / range(&all(0)).0 - 1.0) * 100.0;
            println!(
                "{name:<36} {:9.1} {:>17} {:>17} {of_least:>+7.1} %",
                median(&all(way)),
                format!("{:+.2} ± {sure:.2} %", median(&more)),
                format!("{lower:+.1} to {upper:+.1} %"),
            );
        }
        println!(
            "paired: median of {} rounds, each beside its own moment without; of least: the quickest alone\n",
            self.rounds.len()
        );
    }
}

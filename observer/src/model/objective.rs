//! A latency objective: of the dispatches of some tasks a share waits no longer than a bound, and misses beyond the rest spend a budget.
//!
//! The words are those of the SRE workbook (chapters "Implementing SLOs" and "Alerting on SLOs"): the budget is what the target leaves of
//! the window's dispatches, the burn rate is how many times faster than that they are missed.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::histogram::Above;
use super::{Entity, Histogram, Kind, Label, Labels, Metric, Part, Read, Sample, Share, Unit};

/// What was asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Slo {
    /// What it is called; no two have the same name.
    pub name: String,
    /// Whose dispatches.
    pub scope: Scope,
    /// The longest run-queue wait that meets it.
    pub bound: Duration,
    /// The share of dispatches that must meet it.
    pub target: Target,
    /// The time over which misses are held against the budget.
    pub window: Duration,
}

/// Whose dispatches count.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Scope {
    /// Those of the cgroups whose path fits, with their descendants. A `*` stands for any characters but a slash, so that no cgroup that fits
    /// lies below another one.
    Cgroup(String),
    /// Those of all processes with this `comm`, escaped.
    Command(String),
}

/// A share of dispatches in millionths: more than none and less than all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Target(u32);

/// How dispatches fared since observer attached. A dispatch without a wait met its objective.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Dispatches {
    /// Waited no longer than the bound.
    pub met: u64,
    /// Waited longer.
    pub missed: u64,
    /// Of both those whose wait is in the histogram's bucket that holds the bound: on which side they are is interpolated, so that `missed` is
    /// off by fewer than these.
    pub interpolated: u64,
}

/// Adds up dispatches of intervals to totals that only grow.
#[derive(Clone, Copy, Default, Debug)]
pub struct Tally {
    /// The totals.
    pub dispatches: Dispatches,
    /// The interpolated misses that are not whole yet: at least 0, less than 1.
    carry: f64,
}

/// A command whose processes an objective covers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Command {
    /// `comm`, escaped.
    pub name: Arc<str>,
    /// Dispatches that were counted since observer attached, those of processes that have ended included.
    pub runs: u64,
    /// Their waits.
    pub latency: Histogram,
    /// Processes that are alive.
    pub processes: Members,
    /// Whether more processes ran on a CPU in the last interval than can be told apart: then not all that these did may be counted.
    pub crowded: bool,
}

/// The cgroups or processes that an objective covers at the moment.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Members {
    /// Whose dispatches are counted.
    pub counted: u64,
    /// Whose are not: processes of a cgroup that was not in focus in the last interval.
    pub uncounted: u64,
}

/// An objective and what became of it.
#[derive(Clone, PartialEq, Debug)]
pub struct Objective {
    /// Its place in the configuration.
    pub number: usize,
    /// What was asked for.
    pub slo: Arc<Slo>,
    /// `None` where run-queue waits are not measured.
    pub dispatches: Option<Dispatches>,
    /// What of the misses allowed in the window is left, as a share of them: 1 is untouched, 0 spent, less than 0 overdrawn. `None` where
    /// nothing was dispatched in the window.
    pub budget: Option<f64>,
    /// `None` where that is not known.
    pub members: Option<Members>,
}

impl Slo {
    /// How many times as many were missed as the target allows; `None` when nothing was dispatched.
    pub fn burn(&self, grown: &Dispatches) -> Option<f64> {
        let allowed = grown.total() as f64 * f64::from(self.target.allowed()) / f64::from(Target::WHOLE);
        (allowed > 0.0).then(|| grown.missed as f64 / allowed)
    }
}

impl Scope {
    /// Whether it is of this cgroup.
    pub fn covers(&self, path: &str) -> bool {
        let Scope::Cgroup(pattern) = self else { return false };
        // All lie below the root: no `*` stands for it.
        if path == "/" {
            return pattern == "/";
        }
        let (mut patterns, mut names) = (pattern.split('/'), path.split('/'));
        loop {
            match (patterns.next(), names.next()) {
                (Some(pattern), Some(name)) if fits(pattern, name) => {}
                (None, None) => return true,
                _ => return false,
            }
        }
    }

    /// The path with its `*`, or the command's name.
    pub fn text(&self) -> &str {
        match self {
            Scope::Cgroup(text) | Scope::Command(text) => text,
        }
    }
}

/// Whether a name fits a pattern in which `*` stands for any characters.
fn fits(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    let Some(mut left) = name.strip_prefix(first).and_then(|left| left.strip_suffix(last)) else { return false };
    middle.split('*').all(|part| {
        left.split_once(part).is_some_and(|(_, after)| {
            left = after;
            true
        })
    })
}

impl Target {
    const WHOLE: u32 = 1_000_000;

    /// From millionths; `None` for none and for all.
    pub fn of_millionths(millionths: u32) -> Option<Target> {
        (1..Target::WHOLE).contains(&millionths).then_some(Target(millionths))
    }

    /// As a share of one.
    pub fn share(self) -> f64 {
        f64::from(self.0) / f64::from(Target::WHOLE)
    }

    /// The share that may miss, in millionths: at least 1.
    pub fn allowed(self) -> u32 {
        Target::WHOLE - self.0
    }
}

impl fmt::Display for Target {
    /// As a percentage: `99.9%`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / 10_000, self.0 % 10_000);
        if rest == 0 {
            return write!(f, "{whole}%");
        }
        write!(f, "{whole}.{}%", format!("{rest:04}").trim_end_matches('0'))
    }
}

impl Dispatches {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.met + self.missed
    }

    /// What came since `before`, which they continue.
    pub fn since(&self, before: &Dispatches) -> Dispatches {
        Dispatches {
            met: self.met.saturating_sub(before.met),
            missed: self.missed.saturating_sub(before.missed),
            interpolated: self.interpolated.saturating_sub(before.interpolated),
        }
    }
}

impl Tally {
    /// Adds what was dispatched in an interval, and its waits above the bound; `part` is the part of the waits beside the bound that counts as
    /// missed ([`part_above`](super::histogram::part_above)).
    ///
    /// What is left of a whole miss is carried over: over many intervals no rounding adds up.
    pub fn add(&mut self, runs: u64, waits: Above, part: f64) {
        self.carry += waits.beside as f64 * part;
        let whole = self.carry.floor();
        self.carry -= whole;
        let missed = waits.above + whole as u64;
        let Dispatches { met, missed: all, interpolated } = &mut self.dispatches;
        *met += runs.saturating_sub(missed);
        *all += missed;
        *interpolated += waits.beside;
    }
}

/// Dispatches by result.
pub static DISPATCHES: Metric<Objective> = Metric::new(
    "observer.objective.dispatches",
    "DISPATCHES",
    Unit::Count("dispatch"),
    "Dispatches of its tasks: met waited no longer than the bound, or not at all; missed waited longer. Completed waits only. In the bucket \
     of the latency histogram that holds the bound, misses are interpolated as if waits were spread evenly over the logarithm: \
     observer.objective.interpolated says how many that concerns.",
    Read::Counter(&[
        Part { attributes: &[("observer.objective.result", "met")], read: |o| Some(o.dispatches?.met) },
        Part { attributes: &[("observer.objective.result", "missed")], read: |o| Some(o.dispatches?.missed) },
    ]),
);

/// The share of misses.
pub static MISSED: Metric<Objective> = Metric::new(
    "observer.objective.missed.ratio",
    "MISSED",
    Unit::Ratio,
    "Share of the interval's dispatches that waited longer than the bound; unknown where nothing was dispatched.",
    Read::Ratio(&[Part {
        attributes: &[],
        read: |o| o.dispatches.map(|dispatches| Share { part: dispatches.missed, whole: dispatches.total() }),
    }]),
);

/// The pace of misses.
pub static BURN: Metric<Objective> = Metric::new(
    "observer.objective.burn_rate",
    "BURN",
    Unit::Count("budget"),
    "Budgets that would be spent in the window at the interval's pace: its share of misses over the share that the target allows. At 1 the budget \
     lasts exactly as long as the window.",
    Read::Ratio(&[Part {
        attributes: &[],
        read: |o| {
            let dispatches = o.dispatches?;
            Some(Share {
                part: dispatches.missed.saturating_mul(u64::from(Target::WHOLE)),
                whole: dispatches.total().saturating_mul(u64::from(o.slo.target.allowed())),
            })
        },
    }]),
);

/// What is left of the budget.
pub static BUDGET: Metric<Objective> = Metric::new(
    "observer.objective.budget",
    "BUDGET",
    Unit::Ratio,
    "What is left of the misses that the target allows of the dispatches in the window (as far as observer has seen it): 1 untouched, 0 spent, \
     less than 0 overdrawn.",
    Read::Gauge(&[Part { attributes: &[], read: |o| o.budget }]),
);

/// The error of the misses.
pub static INTERPOLATED: Metric<Objective> = Metric::new(
    "observer.objective.interpolated",
    "AT BOUND",
    Unit::Count("dispatch"),
    "Dispatches whose wait is in the histogram's bucket that holds the bound (at most 9.1 % wide below one second, an octave above): the \
     missed ones among them are interpolated, so that the count of all missed is off by fewer than these.",
    Read::Counter(&[Part { attributes: &[], read: |o| Some(o.dispatches?.interpolated) }]),
);

/// The bound.
pub static BOUND: Metric<Objective> = Metric::new(
    "observer.objective.bound",
    "BOUND",
    Unit::Seconds,
    "The longest run-queue wait that meets the objective.",
    Read::Gauge(&[Part { attributes: &[], read: |o| Some(o.slo.bound.as_secs_f64()) }]),
);

/// The target.
pub static TARGET: Metric<Objective> = Metric::new(
    "observer.objective.target",
    "TARGET",
    Unit::Ratio,
    "The share of dispatches that must meet the objective.",
    Read::Gauge(&[Part { attributes: &[], read: |o| Some(o.slo.target.share()) }]),
);

/// The window.
pub static WINDOW: Metric<Objective> = Metric::new(
    "observer.objective.window",
    "WINDOW",
    Unit::Seconds,
    "The time over which misses are held against the budget.",
    Read::Gauge(&[Part { attributes: &[], read: |o| Some(o.slo.window.as_secs_f64()) }]),
);

/// Whom it covers.
pub static MEMBERS: Metric<Objective> = Metric::new(
    "observer.objective.members",
    "MEMBERS",
    Unit::Count("member"),
    "Cgroups, or processes of the command, that the objective covers at the moment: counted, or uncounted because the process's cgroup was not \
     split by process in the last interval.",
    Read::Gauge(&[
        Part { attributes: &[("observer.objective.member", "counted")], read: |o| Some(o.members?.counted as f64) },
        Part { attributes: &[("observer.objective.member", "uncounted")], read: |o| Some(o.members?.uncounted as f64) },
    ]),
);

/// In order of importance.
static ALL: &[&Metric<Objective>] = &[&DISPATCHES, &MISSED, &BURN, &BUDGET, &INTERPOLATED, &BOUND, &TARGET, &WINDOW, &MEMBERS];

impl Entity for Objective {
    const KIND: Kind = Kind::Objective;
    type Key = usize;

    fn key(&self) -> usize {
        self.number
    }

    fn labels(&self) -> Labels<'_> {
        let scope = match &self.slo.scope {
            Scope::Cgroup(path) => ("cgroup", Label::Text(path.as_str().into())),
            Scope::Command(name) => ("command", Label::Text(name.as_str().into())),
        };
        vec![("objective", Label::Text(self.slo.name.as_str().into())), scope]
    }

    fn metrics() -> &'static [&'static Metric<Objective>] {
        ALL
    }

    fn of(sample: &Sample) -> &[Objective] {
        &sample.objectives
    }
}

#[cfg(test)]
mod tests {
    use observer_common::latency::bucket;
    use proptest::prelude::*;

    use super::super::histogram::part_above;
    use super::super::histogram::tests::of;
    use super::*;

    #[test]
    fn a_star_stays_within_its_part_of_the_path() {
        let check = |pattern: &str, path: &str, expected| {
            assert_eq!(Scope::Cgroup(pattern.into()).covers(path), expected, "{pattern} {path}");
        };
        check("/a", "/a", true);
        check("/a", "/a/b", false);
        check("/a", "/ab", false);
        check("/", "/", true);
        check("/*", "/", false);
        check("/*", "/a", true);
        check("/*", "/a/b", false);
        check("/*/b", "/a/b", true);
        check("/kubepods/*/pod*-x*", "/kubepods/burstable/podaa-bb-xyz", true);
        check("/kubepods/*/pod*-x*", "/kubepods/burstable/podaa-bb-yz", false);
        check("/a*a", "/a", false);
        check("/a*a", "/aa", true);
        check("/a*b*b", "/axb", false);
        check("/a*b*b", "/axbb", true);
        assert!(!Scope::Command("a".into()).covers("a"));
    }

    #[test]
    fn targets_are_exact() {
        let text = |millionths| Target::of_millionths(millionths).map(|target| target.to_string());
        let check = |millionths, expected: &str| assert_eq!(text(millionths).as_deref(), Some(expected));
        check(999_000, "99.9%");
        check(990_000, "99%");
        check(999_999, "99.9999%");
        check(500, "0.05%");
        assert_eq!((text(0), text(1_000_000)), (None, None));
        assert_eq!(Target::of_millionths(999_000).unwrap().allowed(), 1_000);
    }

    #[test]
    fn a_burn_rate_of_one_spends_the_budget_in_the_window() {
        let slo = Slo {
            name: "x".into(),
            scope: Scope::Cgroup("/".into()),
            bound: Duration::from_millis(1),
            target: Target::of_millionths(999_000).unwrap(),
            window: Duration::from_secs(3600),
        };
        let burn = |met, missed| slo.burn(&Dispatches { met, missed, interpolated: 0 });
        assert_eq!((burn(999, 1), burn(1_000, 0), burn(0, 0)), (Some(1.0), Some(0.0), None));
        assert_eq!(burn(0, 5), Some(1_000.0));
    }

    proptest! {
        #[test]
        fn counts_only_grow_and_are_off_by_less_than_the_bucket_of_the_bound(
            bound in 1_000u64..128_000_000_000,
            intervals in prop::collection::vec(
                (prop::collection::vec((0u32..38, any::<u64>()), 0..60), 0u64..5), 1..20),
        ) {
            let part = part_above(bound);
            let (mut tally, mut before) = (Tally::default(), Dispatches::default());
            let (mut dispatches, mut missed) = (0, 0);
            for (waits, unwaited) in intervals {
                let values: Vec<u64> = waits.into_iter().map(|(exponent, bits)| (1 << exponent) | bits & ((1 << exponent) - 1)).collect();
                let runs = values.len() as u64 + unwaited;
                tally.add(runs, of(&values).above(bound), part);
                let is = tally.dispatches;
                prop_assert!(is.met >= before.met && is.missed >= before.missed && is.interpolated >= before.interpolated);
                dispatches += runs;
                missed += values.iter().filter(|wait| **wait > bound).count() as u64;
                prop_assert_eq!(is.total(), dispatches);
                prop_assert!(is.missed.abs_diff(missed) <= is.interpolated, "{:?}, truly {}", is, missed);
                before = is;
            }
        }

        #[test]
        fn waits_spread_evenly_over_the_logarithm_are_interpolated_to_within_one(index in 1usize..160, at in 1u32..1000) {
            // A thousand values in one bucket, and the bound after so many of them.
            let [lower, upper] = [index - 1, index].map(|index| super::super::histogram::upper(index).unwrap() * 1e9);
            let value = |at: f64| lower * (upper / lower).powf(at / 1000.0);
            let values: Vec<u64> = (0..1000).map(|at| value(f64::from(at) + 0.5) as u64).collect();
            let bound = value(f64::from(at)) as u64;
            prop_assume!(bucket(bound) == index && values.iter().all(|value| bucket(*value) == index));
            let mut tally = Tally::default();
            tally.add(1000, of(&values).above(bound), part_above(bound));
            let truly = values.iter().filter(|value| **value > bound).count() as u64;
            // Whole nanoseconds hold several of the values in the lowest buckets.
            let slack = 1 + (1000.0 / (upper - lower)).ceil() as u64;
            prop_assert!(tally.dispatches.missed.abs_diff(truly) <= slack, "{} {}", tally.dispatches.missed, truly);
        }
    }
}

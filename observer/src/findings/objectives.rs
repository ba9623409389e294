//! The configured latency objectives: what became of them in each sample, and a finding where one's budget is spent, or will be soon.
//!
//! The alert is that of the SRE workbook ("Multiwindow, multi-burn-rate alerts") in simple form: the budget burns too fast over a part of
//! the window, and still does in the last twelfth of that part, so that the condition ends soon after its cause.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use observer_common::sched::Key;

use super::{Finding, Subject, time};
use crate::model::event::Severity;
use crate::model::histogram::{Above, part_above};
use crate::model::objective::{Dispatches, Members, Scope, Slo, Tally};
use crate::model::{Cgroup, Entity, Histogram, Kind, Objective, Sample, Source, State};

/// The alert looks at one part in so many of the window: a minute of an hour.
const LONG: u32 = 60;
/// And, to end soon, at one in so many: five seconds.
const SHORT: u32 = 12 * LONG;
/// A burn rate at which a sixth of the window spends the budget: worth a warning.
const FAST: f64 = 6.0;
/// The workbook's fastest burn rate: it is critical.
const FASTEST: f64 = 14.4;
/// Fewer misses tell nothing about the share of them.
const LEAST: u64 = 10;
/// A budget is not called spent before one part in so many of the window was seen.
const SEEN: u32 = 10;

/// All objectives, in the order of the configuration.
#[derive(Debug)]
pub(super) struct Objectives {
    watched: Vec<Watched>,
}

/// An objective, and what was counted so far.
#[derive(Debug)]
struct Watched {
    slo: Arc<Slo>,
    /// The bound in nanoseconds, and the part of its bucket that is above it.
    bound: u64,
    part: f64,
    /// What each member had at the last sample. One that is new began at nothing.
    members: HashMap<Key, Counts>,
    tally: Tally,
    history: History,
}

/// What a member counted since observer attached.
#[derive(Clone, Copy, Default, Debug)]
struct Counts {
    runs: u64,
    waits: Above,
}

/// The totals at moments of the window, no more of them than the alert needs.
#[derive(Debug)]
struct History {
    window: Duration,
    marks: VecDeque<(Duration, Dispatches)>,
}

/// What an objective covers, as a sample has it.
struct Covered<'a> {
    key: Key,
    runs: u64,
    latency: &'a Histogram,
}

impl Objectives {
    pub(super) fn new(slos: Vec<Slo>) -> Objectives {
        Objectives { watched: slos.into_iter().map(Watched::new).collect() }
    }

    /// Adds their rows, and that of health, to a sample; returns those that burn.
    pub(super) fn see(&mut self, sample: &mut Sample) -> Vec<Finding> {
        let mut found = Vec::new();
        for (number, watched) in self.watched.iter_mut().enumerate() {
            let row = watched.see(number, sample);
            found.extend(watched.finding(sample, &row));
            sample.objectives.push(row);
        }
        if !self.watched.is_empty() {
            let source = source(sample);
            super::put_source(sample, source);
        }
        found
    }
}

impl Watched {
    fn new(slo: Slo) -> Watched {
        let bound = u64::try_from(slo.bound.as_nanos()).unwrap_or(u64::MAX);
        let history = History { window: slo.window, marks: VecDeque::new() };
        let part = part_above(bound);
        Watched { slo: Arc::new(slo), bound, part, members: HashMap::new(), tally: Tally::default(), history }
    }

    fn see(&mut self, number: usize, sample: &Sample) -> Objective {
        let mut row = Objective { number, slo: Arc::clone(&self.slo), dispatches: None, budget: None, members: None };
        let Some((covered, members)) = covered(&self.slo.scope, sample) else { return row };
        for Covered { key, runs, latency } in &covered {
            let is = Counts { runs: *runs, waits: latency.above(self.bound) };
            let was = self.members.insert(*key, is).unwrap_or_default();
            let Counts { runs, waits } = is.since(&was);
            self.tally.add(runs, waits, self.part);
        }
        // A listing that failed says nothing about who died.
        if sample.cgroups.iter().any(|cgroup| cgroup.id != Key::ROOT && cgroup.hierarchy().is_some()) {
            self.members.retain(|key, _| covered.binary_search_by_key(key, |covered| covered.key).is_ok());
        }
        self.history.push(sample.uptime, self.tally.dispatches);
        row.dispatches = Some(self.tally.dispatches);
        row.budget = self.slo.burn(&self.grown(sample, self.slo.window)).map(|burnt| 1.0 - burnt);
        row.members = Some(members);
        row
    }

    /// What was dispatched within the last time, as far as that was seen.
    fn grown(&self, sample: &Sample, within: Duration) -> Dispatches {
        self.tally.dispatches.since(&self.history.before(sample.uptime, within))
    }

    fn finding(&self, sample: &Sample, row: &Objective) -> Option<Finding> {
        let Slo { scope, bound, target, window, .. } = &*self.slo;
        let (long, budget) = (*window / LONG, row.budget?);
        let lately = self.grown(sample, long);
        let burn = |within| self.slo.burn(&self.grown(sample, within)).unwrap_or(0.0);
        let burns = if lately.missed < LEAST { 0.0 } else { burn(long).min(burn(*window / SHORT)) };
        let seen = self.history.seen(sample.uptime) >= *window / SEEN;
        let spent = seen && budget <= 0.0 && self.grown(sample, *window).missed >= LEAST;
        if burns < FAST && !spent {
            return None;
        }
        let whose = match scope {
            Scope::Cgroup(path) => path.clone(),
            Scope::Command(name) => format!("processes {name}"),
        };
        let total = lately.total();
        let missed = percent(if total > 0 { lately.missed as f64 / total as f64 } else { 0.0 }, 2);
        let bound = humantime::format_duration(*bound);
        // Exact: the target is in millionths.
        let allowed = percent(1.0 - target.share(), 4);
        let budget = if budget <= 0.0 { "is spent".to_owned() } else { format!("has {} left", percent(budget, 0)) };
        let (long, window) = (time(u64::try_from(long.as_nanos()).unwrap_or(u64::MAX)), humantime::format_duration(*window));
        Some(Finding {
            subject: Subject::Objective(row.number),
            severity: if burns >= FASTEST { Severity::Critical } else { Severity::Warn },
            size: (burns * 1e3) as u64,
            entity: Kind::Objective,
            labels: row.labels().into_iter().map(|(name, label)| (name, label.into_owned())).collect(),
            text: format!(
                "objective {}: {missed} of the dispatches of {whose} within {long} waited longer than {bound}, {allowed} may: the budget \
                 of {window} {budget}{}",
                self.slo.name,
                longest(scope, sample).unwrap_or_default()
            ),
        })
    }
}

impl Counts {
    /// What came since, which is all of it where the former is of something else.
    fn since(&self, was: &Counts) -> Counts {
        let grown = || {
            let waits = Above {
                above: self.waits.above.checked_sub(was.waits.above)?,
                beside: self.waits.beside.checked_sub(was.waits.beside)?,
            };
            Some(Counts { runs: self.runs.checked_sub(was.runs)?, waits })
        };
        grown().unwrap_or(*self)
    }
}

impl History {
    fn push(&mut self, now: Duration, dispatches: Dispatches) {
        let age = |at: &Duration| now.saturating_sub(*at);
        if self.marks.is_empty() {
            // What the first sample has was counted since observer attached, a moment before.
            self.marks.push_back((now, Dispatches::default()));
        }
        while self.marks.get(1).is_some_and(|(at, _)| age(at) >= self.window) {
            self.marks.pop_front();
        }
        if self.marks.back().is_none_or(|(at, _)| age(at) >= self.window / SHORT) {
            self.marks.push_back((now, dispatches));
        }
    }

    /// The totals at the last mark that is at least so long ago, or at the first one.
    fn before(&self, now: Duration, within: Duration) -> Dispatches {
        let later = self.marks.partition_point(|(at, _)| now.saturating_sub(*at) >= within);
        self.marks.get(later.saturating_sub(1)).map(|(_, dispatches)| *dispatches).unwrap_or_default()
    }

    /// How long something has been counted, up to the window.
    fn seen(&self, now: Duration) -> Duration {
        self.marks.front().map_or(Duration::ZERO, |(at, _)| now.saturating_sub(*at))
    }
}

/// What an objective covers, ascending by key; `None` where it is not measured.
fn covered<'a>(scope: &Scope, sample: &'a Sample) -> Option<(Vec<Covered<'a>>, Members)> {
    match scope {
        Scope::Cgroup(_) => {
            sample.host.sched.as_ref()?;
            let of = |cgroup: &'a Cgroup| {
                let sched = cgroup.sched.as_ref()?;
                Some(Covered { key: cgroup.id, runs: sched.runs, latency: &sched.latency })
            };
            let covered: Vec<_> = sample.cgroups.iter().filter(|cgroup| scope.covers(&cgroup.path)).filter_map(of).collect();
            let members = Members { counted: covered.len() as u64, uncounted: 0 };
            Some((covered, members))
        }
        Scope::Command(name) => {
            let command = sample.commands.iter().find(|command| *command.name == **name)?;
            let covered = Covered { key: Key::NONE, runs: command.runs, latency: &command.latency };
            Some((vec![covered], command.processes))
        }
    }
}

/// A share with so many decimals at the most.
fn percent(share: f64, decimals: usize) -> String {
    let text = format!("{:.decimals$}", share * 100.0);
    let text = if decimals > 0 { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}%")
}

/// The longest wait of the cgroups in the last interval, and behind whom.
fn longest(scope: &Scope, sample: &Sample) -> Option<String> {
    let cgroups = sample.cgroups.iter().filter(|cgroup| scope.covers(&cgroup.path));
    let longest = cgroups.filter_map(|cgroup| cgroup.longest.as_ref()).max_by_key(|longest| longest.time)?;
    Some(format!(
        "; the longest wait, {}, was that of {} (thread {}) behind {}",
        time(longest.time),
        longest.comm,
        longest.tid,
        longest.culprit
    ))
}

/// The row of health: what keeps objectives from being measured.
fn source(sample: &Sample) -> Source {
    let off = |why: &str| State::Off(why.into());
    let mut reasons = Vec::new();
    let crowded = |command: &str| sample.commands.iter().any(|known| *known.name == *command && known.crowded);
    for Objective { slo, dispatches, members, .. } in &sample.objectives {
        let Slo { name, scope, .. } = &**slo;
        match (members, scope) {
            (Some(Members { counted: 0, uncounted: 0 }), Scope::Cgroup(path)) => {
                reasons.push(format!("{name}: there is no cgroup {path} now"));
            }
            (Some(Members { counted: 0, uncounted: 0 }), Scope::Command(command)) => {
                reasons.push(format!("{name}: there is no process {command} now"));
            }
            (Some(Members { counted, uncounted: uncounted @ 1.. }), _) => {
                reasons.push(format!(
                    "{name}: {uncounted} of {} processes are not counted apart from their cgroup",
                    counted + uncounted
                ));
            }
            (Some(_), Scope::Command(command)) if crowded(command) => {
                reasons.push(format!(
                    "{name}: more processes ran on a CPU in the interval than can be told apart; use a shorter interval"
                ));
            }
            (None, Scope::Command(_)) if sample.host.sched.is_some() && dispatches.is_none() => {
                reasons.push(format!("{name}: processes cannot be told apart without the task iterator"));
            }
            _ => {}
        }
    }
    let state = match reasons.is_empty() {
        _ if sample.host.sched.is_none() => off("run-queue waits are not measured: see the source sched"),
        true => State::On,
        false => State::Degraded(reasons.join("; ")),
    };
    Source { name: "objectives", state, duration: None, dropped: 0 }
}

#[cfg(test)]
mod tests;

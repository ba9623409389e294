//! Conditions that somebody should hear of, found in samples, and the events that they make when they begin, grow worse and end.
//!
//! A rule (`retransmits`, `stalls`, `objectives`, `starvation`) tells of each sample what holds; [`Watch`] compares that with what held before. It sees every
//! sample, so that what happens in one that no consumer takes is told with the next.

mod objectives;
mod retransmits;
mod stalls;
mod starvation;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::model::event::{Cause, Severity, Stage};
use crate::model::objective::Slo;
use crate::model::tcp::Who;
use crate::model::{Event, Kind, Labels, Sample, Source, State};
use objectives::Objectives;
use retransmits::Retransmits;
use stalls::Stalls;
use starvation::Starvation;

/// From when on something is worth an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Thresholds {
    /// A flow that sends more segments again than this.
    pub burst: Burst,
    /// A task that the allocator stalls for so long.
    pub stall: Duration,
}

/// So many within a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Burst {
    /// How many.
    pub count: u64,
    /// Within which time.
    pub within: Duration,
}

impl Thresholds {
    /// Shorter stalls are not told one by one.
    pub const SHORTEST_STALL: Duration = Duration::from_nanos(observer_common::memory::LONG);
}

impl Default for Thresholds {
    fn default() -> Thresholds {
        let burst = Burst { count: 5, within: Duration::from_secs(10) };
        Thresholds { burst, stall: Duration::from_millis(100) }
    }
}

/// How many times a threshold makes it critical.
const CRITICAL: u64 = 10;

/// Conditions that are told at a time; of more the worst.
const MOST: usize = 256;

/// Who a condition is about. Two samples' findings about the same are one condition.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Subject {
    /// A flow.
    Retransmits(Who),
    /// A cgroup's path; `None` where the kernel does not tell whose.
    Stalls(Option<Arc<str>>),
    /// An objective's place in the configuration.
    Objective(usize),
    /// A CPU's number.
    Starvation(u32),
}

impl Subject {
    fn cause(&self) -> Cause {
        match self {
            Subject::Retransmits(_) => Cause::TcpRetransmits,
            Subject::Stalls(_) => Cause::AllocationStalls,
            Subject::Objective(_) => Cause::LatencyObjective,
            Subject::Starvation(_) => Cause::RealTimeStarvation,
        }
    }
}

/// A condition that holds.
#[derive(Clone, PartialEq, Debug)]
struct Finding {
    subject: Subject,
    severity: Severity,
    /// How bad it is among those of its cause.
    size: u64,
    entity: Kind,
    labels: Labels<'static>,
    text: String,
}

/// A condition that was told.
#[derive(Debug)]
struct Told {
    number: u64,
    /// When it began, by the samples' uptime.
    since: Duration,
    /// As it was at the worst.
    worst: Finding,
}

/// Remembers what holds.
#[derive(Debug)]
pub struct Watch {
    retransmits: Retransmits,
    stalls: Stalls,
    objectives: Objectives,
    starvation: Starvation,
    told: BTreeMap<Subject, Told>,
    /// How many conditions were told so far.
    numbers: u64,
    /// Conditions that were not told, because too many held, each counted once a sample.
    untold: u64,
}

impl Watch {
    /// Nothing holds yet.
    pub fn new(thresholds: Thresholds, objectives: Vec<Slo>) -> Watch {
        Watch {
            retransmits: Retransmits::new(thresholds.burst),
            stalls: Stalls::new(thresholds.stall),
            objectives: Objectives::new(objectives),
            starvation: Starvation::default(),
            told: BTreeMap::new(),
            numbers: 0,
            untold: 0,
        }
    }

    /// Adds to a sample what it makes to tell: its events, the rows of the objectives, and those of health of this.
    pub fn see(&mut self, sample: &mut Sample) {
        let mut findings = self.retransmits.see(sample);
        findings.extend(self.stalls.see(sample));
        findings.extend(self.objectives.see(sample));
        findings.extend(self.starvation.see(sample));
        let untold = self.compare(sample, findings);
        let state = match untold {
            0 => State::On,
            _ => State::Degraded(format!("{untold} conditions more hold than the {MOST} that are told at a time")),
        };
        put_source(sample, Source { name: "events", state, duration: None, dropped: self.untold });
    }

    /// Events of what began, grew worse and ended. Returns how many conditions found no room.
    fn compare(&mut self, sample: &mut Sample, findings: Vec<Finding>) -> usize {
        let mut holds: BTreeMap<Subject, Finding> =
            findings.into_iter().map(|finding| (finding.subject.clone(), finding)).collect();
        let (time, now) = (sample.time, sample.uptime);
        let mut tell = |number: u64, state, finding: &Finding, text| {
            let cause = finding.subject.cause();
            sample.events.push(Event {
                time,
                id: format!("{}-{number}", cause.name()),
                state,
                severity: finding.severity,
                cause,
                entity: finding.entity,
                labels: finding.labels.clone(),
                text,
            });
        };
        self.told.retain(|subject, told| {
            let Some(finding) = holds.remove(subject) else {
                let lasted = humantime::format_duration(Duration::from_secs((now.saturating_sub(told.since)).as_secs()));
                tell(told.number, Stage::Close, &told.worst, format!("over after {lasted}; at the worst: {}", told.worst.text));
                return false;
            };
            if finding.severity > told.worst.severity {
                tell(told.number, Stage::Change, &finding, finding.text.clone());
            }
            if (finding.severity, finding.size) > (told.worst.severity, told.worst.size) {
                told.worst = finding;
            }
            true
        });
        let mut new: Vec<Finding> = holds.into_values().collect();
        new.sort_by_key(|finding| (Reverse(finding.severity), Reverse(finding.size)));
        let room = MOST.saturating_sub(self.told.len());
        let untold = new.split_off(room.min(new.len())).len();
        self.untold += untold as u64;
        for finding in new {
            self.numbers += 1;
            tell(self.numbers, Stage::Open, &finding, finding.text.clone());
            let subject = finding.subject.clone();
            self.told.insert(subject, Told { number: self.numbers, since: now, worst: finding });
        }
        untold
    }
}

/// Puts a row of health in its place.
fn put_source(sample: &mut Sample, source: Source) {
    let at = sample.sources.partition_point(|other| other.name < source.name);
    sample.sources.insert(at, source);
}

/// The severity of something that is so many times its threshold.
fn severity(size: u64, threshold: u64) -> Severity {
    if size >= threshold.saturating_mul(CRITICAL) { Severity::Critical } else { Severity::Warn }
}

/// A time as a sentence says it, to the millisecond.
fn time(nanoseconds: u64) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_millis(nanoseconds / 1_000_000))
}

#[cfg(test)]
mod tests;

//! Health: one row for each source of observer's own knowledge. A source fails alone.

use std::time::Duration;

use super::{Entity, Kind, Label, Labels, Metric, Part, Read, Sample, Unit};

/// A source of knowledge and how it fares.
#[derive(Clone, PartialEq, Debug)]
pub struct Source {
    /// Short name: `sched`, `stat`, `cgroup`, …
    pub name: &'static str,
    /// How it fares.
    pub state: State,
    /// Wall time of its last reading.
    pub duration: Option<Duration>,
    /// What it lost since observer started.
    pub dropped: u64,
}

/// How a source fares. Reasons are whole sentences without a full stop: what is missing, and what to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum State {
    /// All is well.
    On,
    /// It works, with something missing.
    Degraded(String),
    /// It does not work, or was not asked for.
    Off(String),
}

impl State {
    /// The lower-case word of every output.
    pub fn name(&self) -> &'static str {
        match self {
            State::On => "on",
            State::Degraded(_) => "degraded",
            State::Off(_) => "off",
        }
    }

    /// Why it is not simply on.
    pub fn reason(&self) -> Option<&str> {
        match self {
            State::On => None,
            State::Degraded(reason) | State::Off(reason) => Some(reason),
        }
    }
}

/// Whether it works.
pub static UP: Metric<Source> = Metric::new(
    "observer.source.up",
    "UP",
    Unit::Ratio,
    "1: works; 0.5: something is missing; 0: off (see observer.source.reason).",
    Read::Gauge(&[Part {
        attributes: &[],
        read: |s| {
            Some(match s.state {
                State::On => 1.0,
                State::Degraded(_) => 0.5,
                State::Off(_) => 0.0,
            })
        },
    }]),
);

/// What a reading cost.
pub static DURATION: Metric<Source> = Metric::new(
    "observer.source.read.duration",
    "READ",
    Unit::Seconds,
    "Wall time of the source's last reading.",
    Read::Gauge(&[Part { attributes: &[], read: |s| Some(s.duration?.as_secs_f64()) }]),
);

/// Why it is not simply on.
pub static REASON: Metric<Source> = Metric::new(
    "observer.source.reason",
    "REASON",
    Unit::Count("reason"),
    "Why the source is degraded or off, and what to do.",
    Read::Text(|s| s.state.reason().map(str::to_owned)),
);

/// In order of importance.
static ALL: &[&Metric<Source>] = &[&UP, &DURATION, &REASON];

impl Entity for Source {
    const KIND: Kind = Kind::Source;
    type Key = &'static str;

    fn key(&self) -> &'static str {
        self.name
    }

    fn labels(&self) -> Labels<'_> {
        vec![("source", Label::Text(self.name.into()))]
    }

    fn metrics() -> &'static [&'static Metric<Source>] {
        ALL
    }

    fn of(sample: &Sample) -> &[Source] {
        &sample.sources
    }
}

//! What happens now and then: conditions that begin, change and end, each in a sentence.

use std::time::SystemTime;

use super::{Kind, Labels};

/// A condition began, changed or ended.
#[derive(Clone, PartialEq, Debug)]
pub struct Event {
    /// When it was noticed.
    pub time: SystemTime,
    /// Which condition: its cause and a number, the same from its beginning to its end.
    pub id: String,
    /// What became of it.
    pub state: Stage,
    /// How bad it is; at its end, how bad it was at the worst.
    pub severity: Severity,
    /// What kind of condition.
    pub cause: Cause,
    /// Whose it is.
    pub entity: Kind,
    /// The labels of that one.
    pub labels: Labels<'static>,
    /// A sentence without a full stop; names in it are escaped.
    pub text: String,
}

/// What became of a condition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// It began.
    Open,
    /// It is worse than when it was last told.
    Change,
    /// It ended.
    Close,
}

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    /// Good to know.
    Info,
    /// Somebody should look.
    Warn,
    /// Somebody should have looked.
    Critical,
}

/// What kind of condition.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Cause {
    /// A flow sends many segments again.
    TcpRetransmits,
    /// The allocator lets tasks of a cgroup wait long.
    AllocationStalls,
    /// Too many dispatches wait longer than an objective allows.
    LatencyObjective,
    /// A task of real-time priority keeps a CPU from ordinary ones.
    RealTimeStarvation,
}

impl Stage {
    /// The lower-case word of every output.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Open => "open",
            Stage::Change => "change",
            Stage::Close => "close",
        }
    }
}

impl Severity {
    /// The lower-case word of every output.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Warn => "warn",
            Severity::Critical => "critical",
        }
    }
}

impl Cause {
    /// The lower-case word of every output.
    pub fn name(self) -> &'static str {
        match self {
            Cause::TcpRetransmits => "tcp_retransmits",
            Cause::AllocationStalls => "allocation_stalls",
            Cause::LatencyObjective => "latency_objective",
            Cause::RealTimeStarvation => "real_time_starvation",
        }
    }
}

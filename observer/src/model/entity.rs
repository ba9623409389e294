//! The kinds of things that have metrics, and what names them.

use std::borrow::Cow;

use super::{Metric, Sample};

/// A kind of entity; its name is the `entity` of a row in `observer dump`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// The machine.
    Host,
    /// A logical CPU.
    Cpu,
    /// A control group with its descendants.
    Cgroup,
    /// A latency objective.
    Objective,
    /// A victim and a culprit.
    Contention,
    /// The page allocator of the machine or of a NUMA node.
    Memory,
    /// A TCP flow that retransmitted.
    TcpFlow,
    /// A network namespace in which TCP retransmitted.
    NetNs,
    /// A process with all its threads.
    Process,
    /// A thread.
    Thread,
    /// A source of observer's own knowledge: its health.
    Source,
}

impl Kind {
    /// All kinds, in the order of output.
    pub const ALL: [Kind; 11] = [
        Kind::Host,
        Kind::Cpu,
        Kind::Cgroup,
        Kind::Objective,
        Kind::Contention,
        Kind::Memory,
        Kind::TcpFlow,
        Kind::NetNs,
        Kind::Process,
        Kind::Thread,
        Kind::Source,
    ];

    /// The name used on the command line and in every output.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Host => "host",
            Kind::Cpu => "cpu",
            Kind::Cgroup => "cgroup",
            Kind::Objective => "objective",
            Kind::Contention => "contention",
            Kind::Memory => "memory",
            Kind::TcpFlow => "tcp_flow",
            Kind::NetNs => "netns",
            Kind::Process => "process",
            Kind::Thread => "thread",
            Kind::Source => "source",
        }
    }

    /// Whether its rows are part of what nobody narrowed. Threads are too many: they are there for who asks for them.
    pub fn is_usual(self) -> bool {
        self != Kind::Thread
    }

    /// Whether its rows leave as time series. Processes, threads, flows and their namespaces come and go by the thousand, and each would be a series that ends
    /// soon and is kept for years; their cgroups carry the same time, the host the same segments.
    pub fn is_exported(self) -> bool {
        !matches!(self, Kind::Process | Kind::Thread | Kind::TcpFlow | Kind::NetNs)
    }
}

/// A label's value.
#[derive(Clone, PartialEq, Debug)]
pub enum Label<'a> {
    /// Text, escaped ([`super::text::escape`]).
    Text(Cow<'a, str>),
    /// A number.
    Number(u64),
}

impl Label<'_> {
    /// For those who keep it.
    pub fn into_owned(self) -> Label<'static> {
        match self {
            Label::Text(text) => Label::Text(text.into_owned().into()),
            Label::Number(number) => Label::Number(number),
        }
    }
}

impl std::fmt::Display for Label<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Label::Text(text) => f.write_str(text),
            Label::Number(number) => write!(f, "{number}"),
        }
    }
}

/// Labels in order; those that are unknown are left out.
pub type Labels<'a> = Vec<(&'static str, Label<'a>)>;

/// Something that has metrics.
pub trait Entity: Sized + 'static {
    /// Its kind.
    const KIND: Kind;
    /// What makes it the same thing in two samples.
    type Key: Ord;

    /// What makes it the same thing in two samples.
    fn key(&self) -> Self::Key;
    /// What names it to people and scripts.
    fn labels(&self) -> Labels<'_>;
    /// Its metrics, in order of importance.
    fn metrics() -> &'static [&'static Metric<Self>];
    /// All of its kind in a sample, ascending by key.
    fn of(sample: &Sample) -> &[Self];
    /// What one that a sample does not have was then, where that is known: its counters began at nothing.
    fn unborn(_then: &Sample) -> Option<&'static Self> {
        None
    }
}

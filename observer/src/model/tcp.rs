//! TCP flows that sent something again, and what the machine did in sum.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};

use observer_common::sched::Key;
use observer_common::tcp::{Cause, Last};

use super::{Entity, Kind, Label, Labels, Metric, Paced, Part, Read, Sample, Unit};

/// What was sent again, cumulative since observer attached.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Resent {
    /// Segments by [`Cause`].
    pub segments: [u64; Cause::COUNT],
    /// Attempts that failed.
    pub failures: u64,
}

impl Resent {
    /// Adds what another has.
    pub fn add(&mut self, other: &Resent) {
        for (segments, more) in self.segments.iter_mut().zip(other.segments) {
            *segments += more;
        }
        self.failures += other.failures;
    }

    /// Segments of all causes.
    pub fn total(&self) -> u64 {
        self.segments.iter().sum()
    }

    fn without(&self, other: &Resent, cause: Cause) -> u64 {
        self.segments[cause as usize].saturating_sub(other.segments[cause as usize])
    }
}

/// A connection, or part of one, between two ends; or all others in sum.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Who {
    /// One that is told apart.
    Flow(FlowId),
    /// The row `~other`: flows that were forgotten after they had been quiet for long, or for which there was no room.
    Other,
}

/// What makes a flow the same in two samples.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FlowId {
    /// Inode of its network namespace; 0 where the kernel does not tell.
    pub netns: u32,
    /// This end; IPv4 where it is mapped into IPv6.
    pub local: SocketAddr,
    /// The other end.
    pub peer: SocketAddr,
    /// The socket's cgroup of the default hierarchy; [`Key::NONE`] where the kernel does not tell.
    pub cgroup: Key,
}

/// A process that has a socket open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holder {
    /// Its id.
    pub pid: u32,
    /// Its name, escaped.
    pub comm: Arc<str>,
}

/// A flow that retransmitted since observer attached.
#[derive(Clone, PartialEq, Debug)]
pub struct TcpFlow {
    /// Which.
    pub who: Who,
    /// Path of its cgroup, escaped; `None` where it is unknown, or gone.
    pub cgroup: Option<Arc<str>>,
    /// A process that has its socket open; `None` where nobody has, or nobody can tell.
    pub holder: Option<Holder>,
    /// What it sent again.
    pub resent: Resent,
    /// The part of it that other rows told before they joined this one.
    pub inherited: Resent,
    /// Whether the kernel tells of attempts that failed.
    pub tells_failures: bool,
    /// How it was when it last retransmitted.
    pub last: Option<Condition>,
}

/// A socket when it retransmitted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Condition {
    /// As the kernel told it.
    pub kernel: Last,
    /// Nanoseconds of one tick of the kernel, in which it counts [`Last::rto`].
    pub tick: u64,
}

impl Condition {
    /// Of a full socket, which a connection of which only a SYN came has none of.
    fn full(&self) -> Option<&Last> {
        Some(&self.kernel).filter(|last| last.rto != 0)
    }

    /// The state's name in the kernel, in lower case.
    pub fn state(&self) -> &'static str {
        match self.kernel.state {
            1 => "established",
            2 => "syn_sent",
            3 | 12 => "syn_recv",
            4 => "fin_wait1",
            5 => "fin_wait2",
            6 => "time_wait",
            7 => "close",
            8 => "close_wait",
            9 => "last_ack",
            10 => "listen",
            11 => "closing",
            _ => "unknown",
        }
    }
}

/// The machine's TCP: what the programs counted in all network namespaces, and what the kernel counts in observer's own.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct TcpTotals {
    /// What the programs counted; `None` while they are off.
    pub resent: Option<Resent>,
    /// Segments among them of the network namespace in which observer runs; `None` where that cannot be told.
    pub own: Option<u64>,
    /// Whether the kernel tells of attempts that failed.
    pub tells_failures: bool,
    /// Events that found no place for their flow; they are counted in the row `~other`.
    pub full: Option<u64>,
    /// Events that the kernel kept from the programs; they are in no count. `None` where it does not tell.
    pub nested: Option<u64>,
    /// The kernel's own counters.
    pub kernel: Option<KernelTcp>,
}

/// Counters of the network namespace in which observer runs (`/proc/net/snmp`, `/proc/net/netstat`), since that was made.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct KernelTcp {
    /// `Tcp: RetransSegs`.
    pub segments: Option<u64>,
    /// `TcpExt: TCPRetransFail`.
    pub failed: Option<u64>,
    /// `TcpExt: TCPTimeouts`.
    pub timeouts: Option<u64>,
    /// `TcpExt: TCPLossProbes`.
    pub loss_probes: Option<u64>,
    /// `TcpExt: TCPFastRetrans`.
    pub fast: Option<u64>,
    /// `TcpExt: TCPSynRetrans`.
    pub syn: Option<u64>,
}

/// Names of the causes, in the order of [`Cause`].
pub const CAUSE_NAMES: [&str; Cause::COUNT] = ["timeout", "fast", "probe", "syn", "synack"];

impl KernelTcp {
    /// Segments that were sent again indeed, as the programs count them.
    pub fn sent(&self) -> Option<u64> {
        Some(self.segments?.saturating_sub(self.failed.unwrap_or(0)))
    }
}

/// The attribute that tells causes apart.
pub(in crate::model) const CAUSE: &str = "observer.tcp.cause";
pub(in crate::model) const NAME: &str = "observer.tcp.retransmits";
pub(in crate::model) const HELP: &str = "Segments that were sent again, by cause: timeout (the socket is in the Loss state: its timer expired), fast (Recovery: \
     acknowledgements told of the loss), probe (tail-loss probe), syn, synack. The causes sum to the kernel's RetransSegs less \
     TCPRetransFail.";
const FAILURES: &str = "observer.tcp.retransmit.failures";
const FAILURES_HELP: &str = "Attempts to send a segment again that failed on this machine, mostly because the segment was still in one of its queues; they \
     are not among the retransmits. Known from Linux 6.17 on.";

/// What was sent again by cause, as points of a metric of an entity.
macro_rules! causes {
    ($entity:ty, $total:expr, $pace:expr) => {
        &[
            $crate::model::tcp::causes!(@ $entity, Cause::Timeout, $total, $pace),
            $crate::model::tcp::causes!(@ $entity, Cause::Fast, $total, $pace),
            $crate::model::tcp::causes!(@ $entity, Cause::Probe, $total, $pace),
            $crate::model::tcp::causes!(@ $entity, Cause::Syn, $total, $pace),
            $crate::model::tcp::causes!(@ $entity, Cause::SynAck, $total, $pace),
        ]
    };
    (@ $entity:ty, $cause:expr, $total:expr, $pace:expr) => {
        Paced {
            attributes: const { &[($crate::model::tcp::CAUSE, $crate::model::tcp::CAUSE_NAMES[$cause as usize])] },
            total: |e: &$entity| $total(e, $cause),
            pace: |e: &$entity| $pace(e, $cause),
        }
    };
}

/// The kernel's own counters as metrics of an entity, given how they are read, and where they count.
macro_rules! kernel_metrics {
    ($entity:ty, $kernel:expr, $where:literal) => {
        $crate::model::tcp::kernel_metrics!(
            @ $entity, $kernel, $where, KERNEL_SEGMENTS, "observer.tcp.kernel.retransmits", "K.RETRANS", "segment", segments,
            "Segments sent again by the kernel's own count, some failed ones included (RetransSegs)."
        );
        $crate::model::tcp::kernel_metrics!(
            @ $entity, $kernel, $where, KERNEL_FAILED, "observer.tcp.kernel.retransmit.failures", "K.FAILED", "segment", failed,
            "Segments among those that could not be sent after all, by the kernel's own count (TCPRetransFail)."
        );
        $crate::model::tcp::kernel_metrics!(
            @ $entity, $kernel, $where, KERNEL_TIMEOUTS, "observer.tcp.kernel.timeouts", "K.TIMEOUT", "timeout", timeouts,
            "Retransmission timers that expired, by the kernel's own count (TCPTimeouts)."
        );
        $crate::model::tcp::kernel_metrics!(
            @ $entity, $kernel, $where, KERNEL_PROBES, "observer.tcp.kernel.loss_probes", "K.PROBES", "probe", loss_probes,
            "Tail-loss probes by the kernel's own count, those with new data included (TCPLossProbes)."
        );
        $crate::model::tcp::kernel_metrics!(
            @ $entity, $kernel, $where, KERNEL_FAST, "observer.tcp.kernel.fast_retransmits", "K.FAST", "segment", fast,
            "Segments sent again by fast retransmit, by the kernel's own count (TCPFastRetrans)."
        );
        $crate::model::tcp::kernel_metrics!(
            @ $entity, $kernel, $where, KERNEL_SYN, "observer.tcp.kernel.syn_retransmits", "K.SYN", "segment", syn,
            "SYNs and SYN-ACKs sent again by the kernel's own count (TCPSynRetrans)."
        );
    };
    (@ $entity:ty, $kernel:expr, $where:literal, $static:ident, $name:literal, $title:literal, $thing:literal, $field:ident, $help:literal) => {
        #[doc = $help]
        pub static $static: Metric<$entity> = Metric::new(
            $name,
            $title,
            Unit::Count($thing),
            concat!($help, " ", $where),
            Read::Counter(&[Part {
                attributes: &[],
                read: |entity| {
                    let kernel: fn(&$entity) -> Option<$crate::model::tcp::KernelTcp> = $kernel;
                    kernel(entity)?.$field
                },
            }]),
        );
    };
}
pub(in crate::model) use {causes, kernel_metrics};

/// What a flow sent again.
pub static RETRANSMITS: Metric<TcpFlow> = Metric::new(
    NAME,
    "RETRANS",
    Unit::Count("segment"),
    HELP,
    Read::Paced(causes!(TcpFlow, |flow: &TcpFlow, cause| Some(flow.resent.segments[cause as usize]), |flow: &TcpFlow, cause| {
        Some(flow.resent.without(&flow.inherited, cause))
    })),
);

/// What failed.
pub static RETRANSMIT_FAILURES: Metric<TcpFlow> = Metric::new(
    FAILURES,
    "FAILED",
    Unit::Count("attempt"),
    FAILURES_HELP,
    Read::Paced(&[Paced {
        attributes: &[],
        total: |f| f.tells_failures.then_some(f.resent.failures),
        pace: |f| f.tells_failures.then(|| f.resent.failures.saturating_sub(f.inherited.failures)),
    }]),
);

/// Round-trip time.
pub static RTT: Metric<TcpFlow> = Metric::new(
    "observer.tcp.rtt",
    "RTT",
    Unit::Seconds,
    "Smoothed round-trip time of the connection when it last retransmitted (srtt_us).",
    Read::Gauge(&[Part {
        attributes: &[],
        read: |f| Some(f.last?.kernel.srtt).filter(|srtt| *srtt != 0).map(|srtt| f64::from(srtt) / 1e6),
    }]),
);

/// Congestion window.
pub static CWND: Metric<TcpFlow> = Metric::new(
    "observer.tcp.congestion_window",
    "CWND",
    Unit::Count("segment"),
    "Congestion window of the connection when it last retransmitted (snd_cwnd).",
    Read::Gauge(&[Part { attributes: &[], read: |f| Some(f64::from(f.last?.full()?.cwnd)) }]),
);

/// Retransmission timeout.
pub static RTO: Metric<TcpFlow> = Metric::new(
    "observer.tcp.retransmission_timeout",
    "RTO",
    Unit::Seconds,
    "Retransmission timeout of the connection when it last retransmitted (icsk_rto).",
    Read::Gauge(&[Part {
        attributes: &[],
        read: |f| {
            let last = f.last?;
            Some(Unit::Seconds.scale(u64::from(last.full()?.rto) * last.tick))
        },
    }]),
);

/// Backoff.
pub static BACKOFF: Metric<TcpFlow> = Metric::new(
    "observer.tcp.backoff",
    "BACKOFF",
    Unit::Count("doubling"),
    "How often the retransmission timeout had been doubled when the connection last retransmitted (icsk_backoff).",
    Read::Gauge(&[Part { attributes: &[], read: |f| Some(f64::from(f.last?.full()?.backoff)) }]),
);

/// Timeouts in a row.
pub static UNANSWERED: Metric<TcpFlow> = Metric::new(
    "observer.tcp.unanswered",
    "UNANSWERED",
    Unit::Count("timeout"),
    "Timeouts in a row without an answer when the connection last retransmitted (icsk_retransmits).",
    Read::Gauge(&[Part { attributes: &[], read: |f| Some(f64::from(f.last?.full()?.retransmits)) }]),
);

/// State.
pub static STATE: Metric<TcpFlow> = Metric::new(
    "observer.tcp.state",
    "STATE",
    Unit::Count("state"),
    "State of the connection when it last retransmitted: established, syn_sent, syn_recv, fin_wait1, fin_wait2, time_wait, close, \
     close_wait, last_ack, listen, closing.",
    Read::Text(|f| Some(f.last?.state().to_owned())),
);

/// In order of importance.
static ALL: &[&Metric<TcpFlow>] = &[&RETRANSMITS, &RETRANSMIT_FAILURES, &RTT, &CWND, &RTO, &BACKOFF, &UNANSWERED, &STATE];

impl TcpFlow {
    /// This end, as the label says it.
    pub fn local(&self) -> String {
        self.end(|flow| flow.local)
    }

    /// The other end.
    pub fn peer(&self) -> String {
        self.end(|flow| flow.peer)
    }

    fn end(&self, of: fn(&FlowId) -> SocketAddr) -> String {
        match &self.who {
            Who::Flow(flow) => of(flow).to_string(),
            Who::Other => "~other".into(),
        }
    }
}

impl Entity for TcpFlow {
    const KIND: Kind = Kind::TcpFlow;
    type Key = Who;

    fn key(&self) -> Who {
        self.who
    }

    fn labels(&self) -> Labels<'_> {
        let mut labels = vec![("local", Label::Text(self.local().into())), ("peer", Label::Text(self.peer().into()))];
        if let Some(cgroup) = &self.cgroup {
            labels.push(("cgroup", Label::Text(cgroup.as_ref().into())));
        }
        if let Some(holder) = &self.holder {
            labels.push(("pid", Label::Number(holder.pid.into())));
            labels.push(("comm", Label::Text(holder.comm.as_ref().into())));
        }
        if let Who::Flow(FlowId { netns: netns @ 1.., .. }) = self.who {
            labels.push(("netns", Label::Number(netns.into())));
        }
        labels
    }

    fn metrics() -> &'static [&'static Metric<TcpFlow>] {
        ALL
    }

    fn of(sample: &Sample) -> &[TcpFlow] {
        &sample.tcp_flows
    }

    /// A flow is there as soon as it retransmitted at all, if the programs were on.
    fn unborn(then: &Sample) -> Option<&'static TcpFlow> {
        static UNBORN: LazyLock<TcpFlow> = LazyLock::new(|| TcpFlow {
            who: Who::Other,
            cgroup: None,
            holder: None,
            resent: Resent::default(),
            inherited: Resent::default(),
            tells_failures: true,
            last: None,
        });
        then.host.tcp.resent.is_some().then(|| &*UNBORN)
    }
}

/// The metrics of the machine.
pub mod host {
    use super::*;
    use crate::model::Host;

    /// What the machine sent again.
    pub static RETRANSMITS: Metric<Host> =
        Metric::new(NAME, "RETRANS", Unit::Count("segment"), HELP, Read::Paced(causes!(Host, resent, resent)));

    fn resent(host: &Host, cause: Cause) -> Option<u64> {
        Some(host.tcp.resent?.segments[cause as usize])
    }

    /// What failed.
    pub static RETRANSMIT_FAILURES: Metric<Host> = Metric::new(
        FAILURES,
        "FAILED",
        Unit::Count("attempt"),
        FAILURES_HELP,
        Read::Counter(&[Part { attributes: &[], read: |h| Some(h.tcp.resent.filter(|_| h.tcp.tells_failures)?.failures) }]),
    );

    kernel_metrics!(Host, |h| h.tcp.kernel, "In the network namespace in which observer runs, since that was made.");
}

#[cfg(test)]
mod tests {
    use super::*;
    use observer_common::pod;

    fn flow(local: &str, peer: &str) -> TcpFlow {
        let id = FlowId { netns: 4026531840, local: local.parse().unwrap(), peer: peer.parse().unwrap(), cgroup: Key::ROOT };
        let last = Last { srtt: 1500, cwnd: 10, rto: 50, state: 1, ..pod::zeroed() };
        TcpFlow {
            who: Who::Flow(id),
            cgroup: Some("/".into()),
            holder: None,
            resent: Resent { segments: [1, 2, 3, 4, 5], failures: 6 },
            inherited: Resent::default(),
            tells_failures: true,
            last: Some(Condition { kernel: last, tick: 4_000_000 }),
        }
    }

    fn points(flow: &TcpFlow, metric: &'static Metric<TcpFlow>) -> Vec<String> {
        let mut seen = Vec::new();
        metric.points(flow, Some(TcpFlow::unborn_for_tests()), Some(2.0), &mut |point| seen.push(format!("{:?}", point.value)));
        seen
    }

    impl TcpFlow {
        fn unborn_for_tests() -> &'static TcpFlow {
            static NOTHING: LazyLock<TcpFlow> = LazyLock::new(|| TcpFlow {
                who: Who::Other,
                cgroup: None,
                holder: None,
                resent: Resent::default(),
                inherited: Resent::default(),
                tells_failures: true,
                last: None,
            });
            &NOTHING
        }
    }

    #[test]
    fn names() {
        let labels = |flow: &TcpFlow| flow.labels().iter().map(|(name, label)| format!("{name}={label}")).collect::<Vec<_>>();
        assert_eq!(
            labels(&flow("10.0.0.1:80", "[fd00::2]:443")),
            ["local=10.0.0.1:80", "peer=[fd00::2]:443", "cgroup=/", "netns=4026531840"]
        );
        let other = TcpFlow { who: Who::Other, cgroup: None, ..flow("1.1.1.1:1", "1.1.1.1:1") };
        assert_eq!(labels(&other), ["local=~other", "peer=~other"]);
    }

    #[test]
    fn values() {
        let flow = flow("10.0.0.1:80", "10.0.0.2:443");
        assert_eq!(points(&flow, &RTT), ["Gauge(0.0015)"]);
        assert_eq!(points(&flow, &RTO), ["Gauge(0.2)"]);
        assert_eq!(points(&flow, &RETRANSMIT_FAILURES), ["Counter { total: 6, rate: Some(3.0) }"]);
        let silent = TcpFlow { tells_failures: false, ..flow.clone() };
        assert!(points(&silent, &RETRANSMIT_FAILURES).is_empty(), "unknown, not 0");
        let request = TcpFlow { last: Some(Condition { kernel: Last { state: 12, ..pod::zeroed() }, tick: 1 }), ..flow };
        assert!(points(&request, &RTT).is_empty() && points(&request, &RTO).is_empty() && points(&request, &CWND).is_empty());
        assert_eq!(points(&request, &STATE), [r#"Text("syn_recv")"#]);
    }

    #[test]
    fn what_was_inherited_is_no_news() {
        let inherited = Resent { segments: [1, 0, 1, 0, 5], failures: 6 };
        let flow = TcpFlow { inherited, ..flow("10.0.0.1:80", "10.0.0.2:443") };
        let expected = [(1, 0.0), (2, 1.0), (3, 1.0), (4, 2.0), (5, 0.0)];
        assert_eq!(
            points(&flow, &RETRANSMITS),
            expected.map(|(total, rate)| format!("Counter {{ total: {total}, rate: Some({rate:?}) }}"))
        );
    }
}

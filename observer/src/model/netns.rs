//! A network namespace: what TCP sent again in it, and the kernel's own count beside that.

use super::tcp::{KernelTcp, Resent, causes, kernel_metrics};
use super::{Entity, Kind, Label, Labels, Metric, Paced, Part, Read, Residual, Sample, Unit};
use observer_common::tcp::Cause;

/// A network namespace in which a flow retransmitted that has a row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NetNs {
    /// Its inode.
    pub inode: u32,
    /// What the programs counted, since the first of its flows was seen.
    pub resent: Resent,
    /// The kernel's own counters; `None` where no process is known through which they could be read.
    pub kernel: Option<KernelTcp>,
}

/// What was sent again.
pub static RETRANSMITS: Metric<NetNs> =
    Metric::new(super::tcp::NAME, "RETRANS", Unit::Count("segment"), super::tcp::HELP, Read::Paced(causes!(NetNs, of, of)));

fn of(netns: &NetNs, cause: Cause) -> Option<u64> {
    Some(netns.resent.segments[cause as usize])
}

kernel_metrics!(NetNs, |n| n.kernel, "Since this network namespace was made.");

/// Observer against the kernel.
pub static RESIDUAL: Metric<NetNs> = Metric::new(
    "observer.reconcile.residual",
    "RESIDUAL",
    Unit::Ratio,
    "By what part the interval's count exceeds the kernel's own: netstat, segments sent again against RetransSegs less TCPRetransFail. They \
     are not read at one moment: what comes in between is in the next interval.",
    Read::Residual(&[Part {
        attributes: &[("observer.reconcile.source", "netstat")],
        read: |n| Some(Residual { ours: n.resent.total(), kernels: n.kernel?.sent()? }),
    }]),
);

/// In order of importance.
static ALL: &[&Metric<NetNs>] =
    &[&RETRANSMITS, &RESIDUAL, &KERNEL_SEGMENTS, &KERNEL_FAILED, &KERNEL_TIMEOUTS, &KERNEL_PROBES, &KERNEL_FAST, &KERNEL_SYN];

impl Entity for NetNs {
    const KIND: Kind = Kind::NetNs;
    type Key = u32;

    fn key(&self) -> u32 {
        self.inode
    }

    fn labels(&self) -> Labels<'_> {
        vec![("netns", Label::Number(self.inode.into()))]
    }

    fn metrics() -> &'static [&'static Metric<NetNs>] {
        ALL
    }

    fn of(sample: &Sample) -> &[NetNs] {
        &sample.netns
    }
}

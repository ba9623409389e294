//! Which process has a flow's socket open.
//!
//! The kernel's side of a retransmit runs in whoever's name, and a socket does not know its process. So the kernel is asked to go through
//! all open files (an iterator, some 100 ns each) when there is a flow of which that is not known, and not again for the same flow unless it
//! retransmits again; nor does the asking take more than a five-hundredth of the time.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use aya::{Btf, Ebpf};
use observer_common::tcp::{self, TcpOffsets};

use super::blame::comm;
use super::flows;
use super::iterator::Records;
use super::loader::LoadError;
use crate::model::tcp::{FlowId, Holder};

/// Of the time, one part in so many may go into asking.
const SHARE: u32 = 500;

/// A flow, whichever cgroup its socket is in.
type Ends = (u32, SocketAddr, SocketAddr);

fn ends(flow: &FlowId) -> Ends {
    (flow.netns, flow.local, flow.peer)
}

/// What is known.
#[derive(Debug)]
pub struct Holders {
    records: Records<tcp::Holder>,
    known: HashMap<Ends, Known>,
    /// When it may be asked again.
    next: Option<Instant>,
}

/// Of one flow.
#[derive(Debug)]
struct Known {
    /// Who has it open; `None` when nobody had, as with a connection that was closed or is not accepted yet.
    holder: Option<Holder>,
    /// Segments that it had sent again when that was asked.
    total: u64,
}

impl Holders {
    /// Loads and attaches the iterator of an object whose offsets have been set.
    ///
    /// # Errors
    ///
    /// What aya and the kernel say.
    pub(super) fn attach(ebpf: &mut Ebpf, btf: &Btf, offsets: &TcpOffsets) -> Result<Holders, LoadError> {
        if offsets.socket_sk == 0 {
            let said = "the kernel has no bpf_sock_from_file (5.11 and later)".into();
            return Err(LoadError::Refused { doing: "cannot ask for the processes of sockets", said });
        }
        let records = Records::attach(ebpf, btf, "holders", "task_file")?;
        Ok(Holders { records, known: HashMap::new(), next: None })
    }

    /// Finds out what is not known of these flows, each with the segments that it has sent again so far; the others are forgotten.
    ///
    /// # Errors
    ///
    /// What the system says to the question.
    pub fn see(&mut self, flows: &[(FlowId, u64)], now: Instant) -> io::Result<()> {
        let present: HashSet<Ends> = flows.iter().map(|(flow, _)| ends(flow)).collect();
        self.known.retain(|ends, _| present.contains(ends));
        let is_open = |(flow, total): &&(FlowId, u64)| {
            self.known.get(&ends(flow)).is_none_or(|known| known.holder.is_none() && known.total < *total)
        };
        if self.next.is_some_and(|next| now < next) || !flows.iter().any(|flow| is_open(&flow)) {
            return Ok(());
        }
        let began = Instant::now();
        let asked = self.records.read().map(|records| found(records, &present));
        self.next = Some(now + (began.elapsed() * SHARE).max(Duration::from_millis(100)));
        let mut found = asked?;
        for (flow, total) in flows {
            let ends = ends(flow);
            let holder = found.remove(&ends);
            let known = self.known.entry(ends).or_insert(Known { holder: None, total: 0 });
            // Who closed its end meanwhile had it all the same.
            known.holder = holder.or(known.holder.take());
            known.total = *total;
        }
        Ok(())
    }

    /// The process of a flow.
    pub fn of(&self, flow: &FlowId) -> Option<Holder> {
        self.known.get(&ends(flow))?.holder.clone()
    }
}

/// The holders of some flows. Of several processes that have a socket open the first is taken: mostly the others are its children.
fn found(records: &[tcp::Holder], wanted: &HashSet<Ends>) -> HashMap<Ends, Holder> {
    let mut found = HashMap::new();
    for record in records {
        let (local, peer) = flows::ends(record.local, record.peer, record.ports);
        let ends = (record.netns, local, peer);
        if wanted.contains(&ends) {
            found.entry(ends).or_insert_with(|| Holder { pid: record.tgid, comm: comm(record.comm) });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use observer_common::pod;

    use super::*;

    #[test]
    fn the_first_of_several_is_taken() {
        let [local, peer] = ["10.0.0.1:80", "10.0.0.2:443"].map(|end| end.parse().unwrap());
        let mapped = |last: u8| [0, 0, 0xffff_u32.to_be(), u32::from_ne_bytes([10, 0, 0, last])];
        let record = |netns, tgid| tcp::Holder {
            local: mapped(1),
            peer: mapped(2),
            ports: 80 << 16 | 443,
            netns,
            tgid,
            comm: [u64::from_ne_bytes(*b"nginx\x1b[\0"), 0],
            ..pod::zeroed()
        };
        let wanted = [(9, local, peer)].into();
        let found = found(&[record(8, 1), record(9, 2), record(9, 3)], &wanted);
        assert_eq!(found, [((9, local, peer), Holder { pid: 2, comm: r"nginx\x1b[".into() })].into());
    }
}

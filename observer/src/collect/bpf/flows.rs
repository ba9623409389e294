//! The daemon's own totals of what flows sent again.
//!
//! Sums never go backwards: a flow that is forgotten leaves what it had to the row `~other`, where what the kernel's map had no room for
//! is, too.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use observer_common::sched::Key;
use observer_common::tcp::{Flow, FlowKey, Overflow};

use crate::model::TcpFlow;
use crate::model::tcp::{Condition, FlowId, Holder, Resent, Who};

/// Flows that have a row of their own: as many as anybody can look through.
const MOST: usize = 1000;
/// A flow that was quiet for so long is forgotten.
const QUIET: Duration = Duration::from_secs(300);

/// Totals since observer attached.
#[derive(Debug)]
pub struct Flows {
    flows: HashMap<FlowId, Total>,
    /// What those had that were forgotten, and what of it they had told before.
    forgotten: Resent,
    inherited: Resent,
    overflow: Resent,
    /// Of the network namespaces of these flows, and of observer's own, if that can be told.
    netns: HashMap<u32, Resent>,
    own: Option<u32>,
    tells_failures: bool,
    /// Nanoseconds of a tick of the kernel.
    tick: u64,
}

#[derive(Debug)]
struct Total {
    resent: Resent,
    /// What it was when the round began, as the last sample told it.
    told: Resent,
    last: Condition,
    seen: Instant,
}

impl Flows {
    /// Nothing yet, of a kernel with ticks of `tick` nanoseconds; `netns` is the inode of observer's own network namespace.
    pub fn new(tells_failures: bool, tick: u64, netns: Option<u32>) -> Flows {
        let nothing = Resent::default();
        let (flows, own) = (HashMap::new(), netns);
        let netns = own.iter().map(|inode| (*inode, nothing)).collect();
        Flows { flows, forgotten: nothing, inherited: nothing, overflow: nothing, netns, own, tells_failures, tick }
    }

    /// A round begins: what was added up so far has been told.
    pub fn begin(&mut self) {
        for total in self.flows.values_mut() {
            total.told = total.resent;
        }
    }

    /// A flow was taken from the kernel's map.
    pub fn add(&mut self, key: &FlowKey, flow: &Flow, now: Instant) {
        let last = Condition { kernel: flow.last, tick: self.tick };
        let nothing = Resent::default();
        let grown = Resent { segments: flow.segments, failures: flow.failures };
        self.netns.entry(key.netns).or_default().add(&grown);
        let total = self.flows.entry(id(key)).or_insert(Total { resent: nothing, told: nothing, last, seen: now });
        total.resent.add(&grown);
        (total.last, total.seen) = (last, now);
    }

    /// All that found no place in the kernel's map so far.
    pub fn set_overflow(&mut self, overflow: &Overflow) {
        self.overflow = Resent { segments: overflow.segments, failures: overflow.failures };
    }

    /// Forgets flows that were quiet for long, and of too many those that were quiet for longest.
    pub fn settle(&mut self, now: Instant) {
        let mut quiet: Vec<(Instant, FlowId)> = self.flows.iter().map(|(id, total)| (total.seen, *id)).collect();
        quiet.sort_unstable();
        let too_many = quiet.len().saturating_sub(MOST);
        let is_quiet = |seen: Instant| now.saturating_duration_since(seen) > QUIET;
        let leave = quiet.iter().enumerate().take_while(|(index, (seen, _))| *index < too_many || is_quiet(*seen));
        for (_, (_, id)) in leave {
            if let Some(total) = self.flows.remove(id) {
                self.forgotten.add(&total.resent);
                self.inherited.add(&total.told);
            }
        }
        let present: HashSet<u32> = self.flows.keys().map(|id| id.netns).chain(self.own).collect();
        self.netns.retain(|inode, _| present.contains(inode));
    }

    /// Segments of observer's own network namespace, but for those that found no place; `None` where it cannot be told.
    pub fn own(&self) -> Option<u64> {
        Some(self.netns.get(&self.own?)?.total())
    }

    /// What was sent again in each network namespace of these flows, ascending by inode.
    pub fn netns(&self) -> Vec<(u32, Resent)> {
        let mut all: Vec<_> =
            self.netns.iter().map(|(inode, resent)| (*inode, *resent)).filter(|(inode, _)| *inode != 0).collect();
        all.sort_unstable_by_key(|(inode, _)| *inode);
        all
    }

    /// All of it in sum.
    pub fn sum(&self) -> Resent {
        let mut sum = self.other();
        self.flows.values().for_each(|total| sum.add(&total.resent));
        sum
    }

    /// The flows that have a row, each with the segments that it sent again.
    pub fn list(&self) -> Vec<(FlowId, u64)> {
        self.flows.iter().map(|(id, total)| (*id, total.resent.total())).collect()
    }

    /// A row for each flow, ascending, and `~other` if there is anything in it; `path` names cgroups, `holder` processes.
    pub fn rows(&self, path: impl Fn(Key) -> Option<Arc<str>>, holder: impl Fn(&FlowId) -> Option<Holder>) -> Vec<TcpFlow> {
        let row = |(id, total): (&FlowId, &Total)| TcpFlow {
            who: Who::Flow(*id),
            cgroup: path(id.cgroup),
            holder: holder(id),
            resent: total.resent,
            inherited: Resent::default(),
            tells_failures: self.tells_failures,
            last: Some(total.last),
        };
        let mut rows: Vec<_> = self.flows.iter().map(row).collect();
        let other = self.other();
        if other != Resent::default() {
            rows.push(TcpFlow {
                who: Who::Other,
                cgroup: None,
                holder: None,
                resent: other,
                inherited: self.inherited,
                tells_failures: self.tells_failures,
                last: None,
            });
        }
        rows.sort_by_key(|row| row.who);
        rows
    }

    fn other(&self) -> Resent {
        let mut other = self.forgotten;
        other.add(&self.overflow);
        other
    }
}

/// Whose flow a key is, whatever the generation.
fn id(key: &FlowKey) -> FlowId {
    let (local, peer) = ends(key.local, key.peer, key.ports);
    FlowId { netns: key.netns, local, peer, cgroup: Key(key.cgroup) }
}

/// Local end and peer's, as the kernel side writes them.
pub(super) fn ends(local: [u32; 4], peer: [u32; 4], ports: u32) -> (SocketAddr, SocketAddr) {
    let end = |address: [u32; 4], port: u32| {
        let mut bytes = [0; 16];
        for (bytes, word) in bytes.chunks_exact_mut(4).zip(address) {
            // Network order already.
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
        SocketAddr::new(IpAddr::from(Ipv6Addr::from(bytes)).to_canonical(), (port & 0xffff) as u16)
    };
    (end(local, ports >> 16), end(peer, ports))
}

#[cfg(test)]
mod tests {
    use observer_common::pod;

    use super::*;

    fn words(address: &str) -> [u32; 4] {
        let address = match address.parse().unwrap() {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(address.octets().chunks_exact(4)) {
            *word = u32::from_ne_bytes(bytes.try_into().unwrap());
        }
        words
    }

    fn key(generation: u64, port: u16) -> FlowKey {
        FlowKey {
            generation,
            cgroup: Key::v2(7).0,
            local: words("10.0.0.1"),
            peer: words("fd00::2"),
            ports: u32::from(port) << 16 | 443,
            netns: 9,
        }
    }

    fn flow(timeouts: u64) -> Flow {
        Flow { segments: [timeouts, 0, 0, 0, 0], failures: 1, ..pod::zeroed() }
    }

    fn table(flows: &Flows) -> Vec<(String, u64, u64)> {
        let path = |key: Key| (key == Key::v2(7)).then(|| "/a".into());
        flows.rows(path, |_| None).iter().map(|row| (row.local(), row.resent.total(), row.inherited.total())).collect()
    }

    #[test]
    fn ends_of_both_families() {
        let found = id(&key(3, 80));
        assert_eq!((found.local.to_string(), found.peer.to_string()), ("10.0.0.1:80".into(), "[fd00::2]:443".into()));
        assert_eq!((found.netns, found.cgroup), (9, Key::v2(7)));
    }

    #[test]
    fn generations_of_a_flow_add_up() {
        let now = Instant::now();
        let mut flows = Flows::new(true, 1, Some(9));
        for (generation, timeouts) in [(1, 2), (2, 3)] {
            flows.begin();
            flows.add(&key(generation, 80), &flow(timeouts), now);
        }
        assert_eq!(table(&flows), [("10.0.0.1:80".into(), 5, 0)]);
        assert_eq!(flows.sum(), Resent { segments: [5, 0, 0, 0, 0], failures: 2 });
        flows.add(&FlowKey { netns: 8, ..key(2, 80) }, &flow(7), now);
        assert_eq!((flows.own(), flows.sum().total()), (Some(5), 12), "another namespace's are not our own");
    }

    #[test]
    fn the_forgotten_leave_what_they_had_to_other() {
        let start = Instant::now();
        let mut flows = Flows::new(true, 1, Some(9));
        flows.add(&key(1, 80), &flow(2), start);
        flows.add(&key(1, 81), &flow(4), start + QUIET);
        flows.begin();
        flows.settle(start + QUIET + Duration::from_secs(1));
        assert_eq!(table(&flows), [("10.0.0.1:81".into(), 4, 0), ("~other".into(), 2, 2)]);
        flows.set_overflow(&Overflow { segments: [0, 0, 0, 7, 0], failures: 0, events: 7 });
        assert_eq!(table(&flows)[1], ("~other".into(), 9, 2), "the overflow is news");
        // It comes back, and begins anew.
        flows.add(&key(2, 80), &flow(1), start + QUIET);
        assert_eq!(flows.sum().total(), 14);
    }

    #[test]
    fn of_too_many_the_quietest_are_forgotten_and_no_sum_shrinks() {
        let start = Instant::now();
        let mut flows = Flows::new(true, 1, Some(9));
        let mut before = 0;
        for round in 0..20u16 {
            flows.begin();
            let now = start + Duration::from_secs(round.into());
            for number in 0..300 {
                flows.add(&key(round.into(), round * 300 + number), &flow(1), now);
            }
            flows.settle(now);
            assert_eq!(flows.sum().total(), before + 300);
            before = flows.sum().total();
            assert!(flows.flows.len() <= MOST);
        }
        let rows = table(&flows);
        assert_eq!(rows.len(), MOST + 1);
        assert_eq!(rows.last(), Some(&("~other".into(), 5000, 5000)));
    }

    #[test]
    fn a_hundred_thousand_flows_leave_a_thousand_rows_and_exact_sums() {
        let start = Instant::now();
        let mut flows = Flows::new(true, 1, Some(9));
        let (mut opened, mut expected, mut before) = (0u32, Resent::default(), Resent::default());
        // From none to more than the kernel's map has room for.
        for round in 0..40u32 {
            flows.begin();
            let now = start + Duration::from_secs(round.into());
            let born = opened..opened + round % 20 * 600;
            opened = born.end;
            for number in born {
                let cause = (number % 5) as usize;
                let mut sent = flow(0);
                sent.segments[cause] = u64::from(number % 7 + 1);
                flows.add(&FlowKey { netns: number, ..key(round.into(), 80) }, &sent, now);
                expected.segments[cause] += sent.segments[cause];
                expected.failures += sent.failures;
            }
            flows.settle(now);
            let rows = flows.rows(|_| None, |_| None);
            let mut sum = Resent::default();
            rows.iter().for_each(|row| sum.add(&row.resent));
            assert_eq!((sum, flows.sum()), (expected, expected));
            assert!(rows.len() <= MOST + 1);
            let other = flows.other();
            let shrank =
                other.segments.iter().zip(before.segments).any(|(is, was)| *is < was) || other.failures < before.failures;
            assert!(!shrank, "{other:?} after {before:?}");
            before = other;
        }
        assert!(opened > 100_000, "{opened}");
        // The room of the largest round is kept, no more.
        assert!(flows.flows.capacity() < 40_000, "{}", flows.flows.capacity());
    }

    #[test]
    fn what_comes_and_goes_in_one_round_is_news() {
        let now = Instant::now();
        let mut flows = Flows::new(true, 1, Some(9));
        flows.begin();
        for port in 0..MOST as u16 + 10 {
            flows.add(&key(1, port), &flow(1), now);
        }
        flows.settle(now);
        assert_eq!(table(&flows).last(), Some(&("~other".into(), 10, 0)));
    }
}

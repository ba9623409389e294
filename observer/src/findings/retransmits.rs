//! A flow sends many segments again within a short time.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::{Burst, Finding, Subject, severity};
use crate::model::tcp::{CAUSE_NAMES, Who};
use crate::model::{Entity, Kind, Sample, TcpFlow};

/// Segments by cause, in the order of [`CAUSE_NAMES`].
type Segments = [u64; CAUSE_NAMES.len()];

/// What the flows of the last sample sent again lately.
#[derive(Debug)]
pub(super) struct Retransmits {
    burst: Burst,
    flows: HashMap<Who, Lately>,
}

/// Of one flow.
#[derive(Default, Debug)]
struct Lately {
    total: Segments,
    /// By when it was seen, no longer ago than the burst's time.
    grown: VecDeque<(Duration, Segments)>,
}

impl Retransmits {
    pub(super) fn new(burst: Burst) -> Retransmits {
        Retransmits { burst, flows: HashMap::new() }
    }

    pub(super) fn see(&mut self, sample: &Sample) -> Vec<Finding> {
        let mut found = Vec::new();
        let mut flows = HashMap::with_capacity(sample.tcp_flows.len());
        for flow in sample.tcp_flows.iter().filter(|flow| flow.who != Who::Other) {
            let mut lately = self.flows.remove(&flow.who).unwrap_or_default();
            let sum = lately.see(flow.resent.segments, sample.uptime, self.burst.within);
            if sum.iter().sum::<u64>() > self.burst.count {
                found.push(self.finding(flow, &sum));
            }
            flows.insert(flow.who, lately);
        }
        self.flows = flows;
        found
    }

    fn finding(&self, flow: &TcpFlow, sum: &Segments) -> Finding {
        let Burst { count, within } = self.burst;
        let size = sum.iter().sum();
        let mut causes: Vec<_> = CAUSE_NAMES.into_iter().zip(*sum).filter(|(_, segments)| *segments > 0).collect();
        causes.sort_by_key(|(_, segments)| std::cmp::Reverse(*segments));
        let causes: Vec<_> = causes.iter().map(|(name, segments)| format!("{segments} {name}")).collect();
        let mut whose =
            flow.holder.as_ref().map(|process| format!(" of {} (pid {})", process.comm, process.pid)).unwrap_or_default();
        if let Some(path) = &flow.cgroup {
            whose.push_str(&format!(" in {path}"));
        }
        Finding {
            subject: Subject::Retransmits(flow.who),
            severity: severity(size, count),
            size,
            entity: Kind::TcpFlow,
            labels: flow.labels().into_iter().map(|(name, label)| (name, label.into_owned())).collect(),
            text: format!(
                "{size} segments sent again within {} ({}) by {} to {}{whose}",
                humantime::format_duration(within),
                causes.join(", "),
                flow.local(),
                flow.peer()
            ),
        }
    }
}

impl Lately {
    /// What was sent again within the time before `now`.
    fn see(&mut self, total: Segments, now: Duration, within: Duration) -> Segments {
        // A flow that was forgotten and is back begins at nothing.
        let before = if self.total.iter().sum::<u64>() <= total.iter().sum() { self.total } else { Segments::default() };
        let mut grown = total;
        grown.iter_mut().zip(before).for_each(|(grown, before)| *grown = grown.saturating_sub(before));
        self.total = total;
        if grown != Segments::default() {
            self.grown.push_back((now, grown));
        }
        while self.grown.front().is_some_and(|(seen, _)| now.saturating_sub(*seen) >= within) {
            self.grown.pop_front();
        }
        let mut sum = Segments::default();
        for (_, grown) in &self.grown {
            sum.iter_mut().zip(grown).for_each(|(sum, grown)| *sum += grown);
        }
        sum
    }
}

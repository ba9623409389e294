//! The page allocator lets a task wait long: in reclaim, at its memory cgroup's limit, in compaction.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use observer_common::memory::Stall;

use super::{Finding, Subject, severity, time};
use crate::model::{Entity, Kind, Label, LongStall, Sample};

/// A cgroup's condition ends when it had no long stall for so long.
const WITHIN: Duration = Duration::from_secs(10);
/// Stalls of one cgroup that are remembered: enough for any sentence.
const MOST: usize = 1000;

/// The long stalls of the last seconds.
#[derive(Debug)]
pub(super) struct Stalls {
    threshold: u64,
    cgroups: BTreeMap<Option<Arc<str>>, VecDeque<(Duration, LongStall)>>,
}

impl Stalls {
    pub(super) fn new(threshold: Duration) -> Stalls {
        Stalls { threshold: u64::try_from(threshold.as_nanos()).unwrap_or(u64::MAX), cgroups: BTreeMap::new() }
    }

    pub(super) fn see(&mut self, sample: &Sample) -> Vec<Finding> {
        for stall in sample.long_stalls.iter().filter(|stall| stall.time >= self.threshold) {
            let stalls = self.cgroups.entry(stall.cgroup.clone()).or_default();
            stalls.push_back((sample.uptime, stall.clone()));
            if stalls.len() > MOST {
                stalls.pop_front();
            }
        }
        self.cgroups.retain(|_, stalls| {
            stalls.retain(|(seen, _)| sample.uptime.saturating_sub(*seen) < WITHIN);
            !stalls.is_empty()
        });
        self.cgroups.iter().filter_map(|(cgroup, stalls)| self.finding(sample, cgroup.as_ref(), stalls)).collect()
    }

    fn finding(&self, sample: &Sample, cgroup: Option<&Arc<str>>, stalls: &VecDeque<(Duration, LongStall)>) -> Option<Finding> {
        let (_, longest) = stalls.iter().max_by_key(|(_, stall)| stall.time)?;
        let sum = stalls.iter().map(|(_, stall)| stall.time).sum();
        let others = match stalls.len() {
            1 => String::new(),
            count => format!(
                "; {count} stalls of {} or longer within {}, {} in all",
                time(self.threshold),
                humantime::format_duration(WITHIN),
                time(sum)
            ),
        };
        let whose = cgroup.map(|path| format!(" of {path}")).unwrap_or_default();
        let (entity, labels) = match cgroup {
            Some(path) => (Kind::Cgroup, vec![("cgroup", Label::Text(path.to_string().into()))]),
            None => (Kind::Host, sample.host.labels().into_iter().map(|(name, label)| (name, label.into_owned())).collect()),
        };
        Some(Finding {
            subject: Subject::Stalls(cgroup.cloned()),
            severity: severity(longest.time, self.threshold),
            size: longest.time,
            entity,
            labels,
            text: format!(
                "{} in {} by {} (thread {}){whose}{others}",
                time(longest.time),
                doing(longest.kind),
                longest.comm,
                longest.tid
            ),
        })
    }
}

fn doing(kind: Stall) -> &'static str {
    match kind {
        Stall::Reclaim => "direct reclaim",
        Stall::MemcgReclaim => "reclaim at its cgroup's memory limit",
        Stall::Compaction => "direct compaction",
    }
}

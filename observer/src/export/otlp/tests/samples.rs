//! Made-up samples.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use observer_common::sched::Key;

use crate::model::cgroup::{CpuStat, Identity};
use crate::model::cpu::Time;
use crate::model::{Cgroup, Cpu, Histogram, Host, Sample, Sched, Snapshot, Source, State, Topology};

pub(super) const SECOND: u64 = 1_000_000_000;

/// The wall clock at step 0, when the machine had been up for 1000 s and observer counting for 10 s.
pub(in super::super) fn epoch() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

/// One CPU, `cgroups` cgroups and one source, `step` seconds later.
pub(in super::super) fn sample(step: u64, cgroups: u64) -> Sample {
    Sample {
        time: epoch() + Duration::from_secs(step),
        uptime: Duration::from_secs(1000 + step),
        start: epoch() - Duration::from_secs(10),
        // A clock that was corrected: the boot must not seem to move.
        host: Host { name: "node-7".into(), uptime: Some((1000 + step) * SECOND + step * 7), ..Host::default() },
        cpus: vec![Cpu {
            number: 3,
            topology: Topology { core: Some(1), node: Some(0), ..Topology::default() },
            time: Time { user: Some(5 * SECOND + step), steal: Some(SECOND / 2), ..Time::default() },
            sched: Some(Arc::new(sched(step))),
            ..Cpu::default()
        }],
        cgroups: (0..cgroups).map(|number| cgroup(number, step)).collect(),
        objectives: Vec::new(),
        commands: Vec::new(),
        starved: Vec::new(),
        contentions: Vec::new(),
        memory: Vec::new(),
        tcp_flows: Vec::new(),
        processes: Vec::new(),
        netns: Vec::new(),
        long_stalls: Vec::new(),
        events: Vec::new(),
        threads: Vec::new(),
        sources: vec![Source { name: "sched", state: State::Degraded("why".into()), duration: None, dropped: 0 }],
    }
}

fn cgroup(number: u64, step: u64) -> Cgroup {
    Cgroup {
        id: Key::v2(1000 + number),
        path: format!("/system.slice/service-{number}.service").into(),
        identity: Some(Arc::new(Identity { unit: Some(format!("service-{number}.service").into()), ..Identity::default() })),
        names: None,
        cpu: CpuStat {
            usage: Some(7 * SECOND + step),
            user: Some(4 * SECOND),
            system: Some(3 * SECOND),
            throttled: Some(3),
            periods: Some(10 + 10 * step),
            throttled_periods: Some(step),
            limit: Some(1.5),
            ..CpuStat::default()
        },
        resources: Arc::default(),
        sched: Some(Arc::new(sched(step))),
        stalled: None,
        longest: None,
    }
}

/// Three waits at first and one more with every step: 500 ns, 5 µs, 3 s, then 5 µs each.
fn sched(step: u64) -> Sched {
    let mut latency = Histogram::default();
    for ns in [500, 5_000, 3 * SECOND].into_iter().chain((0..step).map(|_| 5_000)) {
        latency.counts[observer_common::latency::bucket(ns)] += 1;
        latency.sum += ns;
    }
    Sched {
        run: (step + 1) * SECOND,
        steal: Some(step),
        interrupt: None,
        runs: 100 + step,
        preempted: 40,
        voluntary: 60 + step,
        latency,
        ..Sched::default()
    }
}

/// The snapshot of a step and the one before.
pub(super) fn snapshot(step: u64, cgroups: u64) -> Arc<Snapshot> {
    let was = step.checked_sub(1).map(|step| Arc::new(sample(step, cgroups)));
    Arc::new(Snapshot { is: Arc::new(sample(step, cgroups)), was })
}

//! Snapshots made by hand, for tests.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use observer_common::latency::bucket;
use observer_common::sched::Key;

use crate::model::cgroup::CpuStat;
use crate::model::cpu::{Time, Topology};
use crate::model::host::{Memory, Tasks};
use crate::model::text::escape;
use crate::model::{Cgroup, Cpu, Histogram, Host, Sample, Sched, Snapshot, Source, State};

const MS: u64 = 1_000_000;
const GIB: u64 = 1 << 30;

/// What one cgroup did in the second between the two samples, in milliseconds.
struct Did {
    path: &'static [u8],
    unit: Option<&'static str>,
    cpu: u64,
    wait: u64,
    throttled: Option<u64>,
}

const fn did(path: &'static [u8], cpu: u64, wait: u64) -> Did {
    Did { path, unit: None, cpu, wait, throttled: None }
}

/// Ids are given in this order, from 1.
static CGROUPS: &[Did] = &[
    did(b"/", 2_900, 1_240),
    did(b"/system.slice", 300, 12),
    Did { unit: Some("nginx.service"), ..did(b"/system.slice/nginx.service", 250, 10) },
    Did { unit: Some("ssh.service"), ..did(b"/system.slice/ssh.service", 50, 2) },
    did(b"/batch.slice", 1_900, 900),
    did(b"/batch.slice/train-0", 1_000, 620),
    did(b"/batch.slice/train-1", 900, 280),
    Did { throttled: Some(300), ..did(b"/api.slice", 700, 328) },
    Did { throttled: Some(0), ..did(b"/api.slice/web", 700, 328) },
    did(b"/idle.slice", 0, 0),
    did(b"/evil.slice", 0, 0),
    did(b"/evil.slice/\x1b[2J\x1b]0;boo\x07", 0, 0),
    did("/evil.slice/漢字の長い長い長い長い長い長い長い長い長い長い長い長い名前.service".as_bytes(), 0, 0),
    did("/evil.slice/e\u{301}\u{202e}gnp.exe".as_bytes(), 0, 0),
];

/// Cgroups, CPUs, waits: all there.
pub(super) fn snapshot() -> Snapshot {
    Snapshot { was: Some(Arc::new(sample(0, 4, true))), is: Arc::new(sample(1, 4, true)) }
}

/// The scheduler hook is off and knows nothing; the cgroup files are degraded; something was dropped.
pub(super) fn without_sched() -> Snapshot {
    Snapshot { was: Some(Arc::new(sample(0, 4, false))), is: Arc::new(sample(1, 4, false)) }
}

/// Only one sample: no rates.
pub(super) fn first() -> Snapshot {
    Snapshot { was: None, is: Arc::new(sample(0, 4, true)) }
}

/// Many CPUs, more than fit.
pub(super) fn many_cpus() -> Snapshot {
    Snapshot { was: Some(Arc::new(sample(0, 96, true))), is: Arc::new(sample(1, 96, true)) }
}

/// Nothing is known at all.
pub(super) fn nothing() -> Snapshot {
    let mut sample = sample(0, 0, false);
    (sample.host, sample.cgroups, sample.sources) = (Host::default(), Vec::new(), Vec::new());
    Snapshot { was: None, is: Arc::new(sample) }
}

/// Changes the newer sample.
pub(super) fn change(snapshot: &Snapshot, change: impl FnOnce(&mut Sample)) -> Snapshot {
    let mut is = (*snapshot.is).clone();
    change(&mut is);
    Snapshot { is: Arc::new(is), was: snapshot.was.clone() }
}

/// The id that [`snapshot`] gives to a path.
pub(super) fn key(path: &str) -> Key {
    let at = CGROUPS.iter().position(|did| did.path == path.as_bytes()).unwrap();
    if at == 0 { Key::ROOT } else { Key::v2(at as u64 + 1) }
}

fn sample(second: u64, cpus: u32, sched: bool) -> Sample {
    let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_248_000);
    let cgroup = |(at, did): (usize, &Did)| Cgroup {
        id: if at == 0 { Key::ROOT } else { Key::v2(at as u64 + 1) },
        path: escape(did.path).into_owned(),
        unit: did.unit.map(str::to_owned),
        cpu: CpuStat {
            usage: Some(did.cpu * MS * (5 + second)),
            user: Some(did.cpu * MS * (5 + second) / 4 * 3),
            system: Some(did.cpu * MS * (5 + second) / 4),
            periods: did.throttled.map(|_| 10 * second),
            throttled_periods: did.throttled.map(|throttled| throttled.min(3) * second),
            throttled: did.throttled.map(|throttled| throttled * MS * second),
            limit: did.throttled.map(|_| 2.0),
        },
        sched: sched.then(|| Arc::new(waited(second, did.cpu, did.wait))),
        longest: None,
    };
    Sample {
        time: start + Duration::from_secs(second),
        uptime: Duration::from_secs(1_000 + second),
        start,
        host: host(second, if sched { 0 } else { 12 }),
        cpus: (0..cpus).map(|number| cpu(second, number, sched)).collect(),
        cgroups: CGROUPS.iter().enumerate().map(cgroup).collect(),
        contentions: Vec::new(),
        processes: Vec::new(),
        threads: Vec::new(),
        sources: sources(sched),
    }
}

fn host(second: u64, dropped: u64) -> Host {
    Host {
        name: "node-7".into(),
        load: Some([5.21, 3.4, 1.07]),
        memory: Some(Memory { total: 16 * GIB, free: 2 * GIB, buffers: GIB / 2, cached: 8 * GIB, available: Some(9 * GIB) }),
        uptime: Some(273_600_000 * MS),
        tasks: Some(Tasks { running: 7, blocked: 1 }),
        context_switches: Some(1_000_000 + 48_211 * second),
        table_full: Some(0),
        untraced: Some(dropped),
        sched: None,
    }
}

fn cpu(second: u64, number: u32, sched: bool) -> Cpu {
    let ms = |each: u64| Some(each * MS * second);
    let load = u64::from(number % 4);
    Cpu {
        number,
        topology: Topology { core: Some(number / 2), llc: Some(0), node: Some(0) },
        time: Time {
            user: ms(200 * load),
            nice: ms(0),
            system: ms(80),
            idle: ms(880 - 230 * load),
            iowait: ms(20),
            interrupt: ms(10 * load),
            steal: ms(20 * load),
        },
        sched: sched.then(|| Arc::new(waited(second, 280 + 200 * load, 10 + 200 * load))),
    }
}

fn waited(second: u64, run: u64, wait: u64) -> Sched {
    let mut latency = Histogram::default();
    if wait > 0 {
        for (ns, count) in [(3_000, 400), (20_000, 250), (400_000, 60), (MS * 2, wait), (MS * 30, wait / 100)] {
            latency.counts[bucket(ns)] += count * second;
        }
        latency.sum = wait * MS * second;
    }
    Sched {
        run: run * MS * second,
        steal: Some(run * MS * second / 50),
        interrupt: None,
        runs: 4 * run * second,
        preempted: run * second,
        voluntary: 3 * run * second,
        latency,
        ..Sched::default()
    }
}

fn sources(sched: bool) -> Vec<Source> {
    let source = |name, state, dropped| Source { name, state, duration: Some(Duration::from_micros(340)), dropped };
    let off = State::Off("needs CAP_BPF and CAP_PERFMON".into());
    let degraded = State::Degraded("3 of 14 cgroups could not be read".into());
    vec![
        source("cgroup", if sched { State::On } else { degraded }, 0),
        source("sched", if sched { State::On } else { off }, if sched { 0 } else { 12 }),
        source("stat", State::On, 0),
    ]
}

//! An invented machine: what the frame bench draws and `examples/dashboard.rs` plays with.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use observer::model::cgroup::{CpuStat, Identity};
use observer::model::cpu::Time;
use observer::model::host::{Memory, Tasks};
use observer::model::{
    Cgroup, Contention, Cpu, Histogram, Host, Imbalance, Longest, Open, Party, Placement, Sample, Sched, Sleeps, Source, State,
    TcpTotals, Topology, Traffic, Used,
};
use observer_common::latency::bucket;
use observer_common::locality::{AWAY, MOVES};
use observer_common::sched::Key;

const MS: u64 = 1_000_000;

/// The machine after so many intervals of a second, cumulative: `cgroups` control groups, ten to a slice, on `cpus` CPUs.
pub(crate) fn sample(second: u64, cgroups: u64, cpus: u32) -> Sample {
    let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_248_000);
    let off = State::Off("needs CAP_BPF and CAP_PERFMON".into());
    let cgroups: Vec<_> = (0..cgroups).map(|number| cgroup(second, number)).collect();
    let source = |name, state| Source { name, state, duration: Some(Duration::from_micros(340)), dropped: 0 };
    Sample {
        time: start + Duration::from_secs(second),
        uptime: Duration::from_secs(second),
        start,
        host: Host {
            name: "invented".into(),
            pressure: None,
            vmstat: None,
            pages: None,
            load: Some([5.21, 3.4, 1.07]),
            memory: Some(Memory { total: 16 << 30, free: 2 << 30, buffers: 1 << 29, cached: 8 << 30, available: Some(9 << 30) }),
            uptime: Some(273_600_000 * MS + second * 1000 * MS),
            tasks: Some(Tasks { running: 7, blocked: 1 }),
            context_switches: Some(48_211 * second),
            table_full: Some(0),
            untraced: Some(0),
            imbalance: Some(Imbalance::default()),
            delay: None,
            busy: None,
            tcp: TcpTotals::default(),
            sched: cgroups.first().and_then(|root| root.sched.clone()),
        },
        cpus: (0..cpus).map(|number| cpu(second, number)).collect(),
        objectives: Vec::new(),
        commands: Vec::new(),
        starved: Vec::new(),
        contentions: contentions(second, &cgroups),
        cgroups,
        tcp_flows: Vec::new(),
        processes: Vec::new(),
        memory: Vec::new(),
        netns: Vec::new(),
        long_stalls: Vec::new(),
        events: Vec::new(),
        threads: Vec::new(),
        sources: vec![source("cgroup", State::On), source("memory", off), source("sched", State::On), source("stat", State::On)],
    }
}

/// Six culprits each for those that are no slices: with 1,000 cgroups some 5,000 pairs. What a slice has, its services have.
fn contentions(second: u64, cgroups: &[Cgroup]) -> Vec<Contention> {
    let party = |cgroup: &Cgroup| Party { key: cgroup.id, cgroup: cgroup.id, name: cgroup.path.clone() };
    let idle = Party { key: Key::IDLE, cgroup: Key::IDLE, name: "~idle".into() };
    let leaves: Vec<_> = cgroups.iter().filter(|cgroup| cgroup.path.ends_with(".service")).map(party).collect();
    let mut all = Vec::new();
    for (at, victim) in leaves.iter().enumerate() {
        let wait = at as u64 * 104_729 % 900;
        let mut culprits: Vec<_> = (0..5).map(|step| leaves[(at * 31 + step * 97) % leaves.len()].clone()).collect();
        culprits.push(idle.clone());
        culprits.sort_by_key(|party| party.key);
        culprits.dedup_by_key(|party| party.key);
        let pair = |(step, culprit)| Contention {
            victim: victim.clone(),
            culprit,
            time: total(second, step, wait / (1 + step)),
            inherited: 0,
        };
        all.extend((0..).zip(culprits).map(pair));
    }
    all
}

fn cgroup(second: u64, number: u64) -> Cgroup {
    let path = match number {
        0 => "/".to_owned(),
        slice if slice % 10 == 1 => format!("/slice-{slice:04}.slice"),
        leaf => format!("/slice-{:04}.slice/service-{leaf:04}.service", (leaf - 1) / 10 * 10 + 1),
    };
    let cpu = 10 + number * 7919 % 400;
    let limited = number.is_multiple_of(5);
    Cgroup {
        id: if number == 0 { Key::ROOT } else { Key::v2(number + 1) },
        identity: path
            .rsplit('/')
            .next()
            .filter(|name| name.ends_with(".service"))
            .map(|name| Arc::new(Identity { unit: Some(name.into()), ..Identity::default() })),
        names: None,
        path: path.into(),
        cpu: CpuStat {
            usage: Some(total(second, number, cpu)),
            user: Some(total(second, number, cpu) / 4 * 3),
            system: Some(total(second, number, cpu) / 4),
            periods: limited.then_some(10 * second),
            throttled_periods: limited.then_some(2 * second),
            throttled: limited.then(|| total(second, number, cpu / 4)),
            limit: limited.then_some(1.5),
            ..CpuStat::default()
        },
        resources: Arc::default(),
        sched: Some(Arc::new(sched(second, number, cpu, number * 104_729 % 900))),
        stalled: None,
        longest: Some(Longest {
            time: (1 + number % 90) * MS,
            tid: 4_000 + number as u32,
            comm: "worker".into(),
            culprit: "/slice-0001.slice/service-0002.service".into(),
        }),
    }
}

fn cpu(second: u64, number: u32) -> Cpu {
    let load = u64::from(number % 4);
    let ms = |each: u64| Some(total(second, u64::from(number), each));
    Cpu {
        number,
        topology: Topology {
            core: Some(number / 2 * 2),
            llc: Some(number / 4 * 4),
            package: Some(number / 4),
            node: Some(number / 4),
        },
        time: Time {
            user: ms(200 * load),
            nice: ms(0),
            system: ms(80),
            idle: ms(880 - 230 * load),
            iowait: ms(20),
            interrupt: ms(10 * load),
            steal: ms(20 * load),
        },
        sched: Some(Arc::new(sched(second, u64::from(number), 280 + 200 * load, 10 + 200 * load))),
        depths: Some(std::array::from_fn(|length| total(second, length as u64, 1000 >> length))),
        traffic: Some(Traffic { arrived: [second * load; MOVES], left: [second; MOVES] }),
    }
}

fn sched(second: u64, number: u64, run: u64, wait: u64) -> Sched {
    let mut latency = Histogram::default();
    for octave in 0..20 {
        let ns = 1_000 << octave;
        latency.counts[bucket(ns)] += wait / (1 + octave) * second;
    }
    latency.sum = total(second, number + 3, wait);
    Sched {
        run: total(second, number, run),
        steal: Some(total(second, number, run / 50)),
        interrupt: None,
        runs: 4 * run * second,
        preempted: run * second,
        voluntary: 3 * run * second,
        shared: None,
        nodes: None,
        sleeps: Sleeps { io: run * second / 9, ..Sleeps::default() },
        placement: Some(Placement {
            away: [run * second / 9; AWAY],
            away_run: [run * second; AWAY],
            moves: [wait * second; MOVES],
        }),
        throttled: Some(total(second, number + 3, wait / 5)),
        migrated: 0,
        exited: 0,
        used: Some(Used { pages: run * second, ..Used::default() }),
        open: Open { run: 0, wait: Some(wait % 7 * MS), throttled: Some(0) },
        latency,
    }
}

/// Nanoseconds after so many seconds of `ms` each, give or take a fifth, so that rows change places.
fn total(second: u64, seed: u64, ms: u64) -> u64 {
    let wobble = (second * 31 + seed * 17) % 40;
    (second * 100 + wobble) * ms * MS / 100
}

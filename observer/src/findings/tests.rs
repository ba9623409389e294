use std::net::SocketAddr;
use std::time::SystemTime;

use observer_common::memory::Stall;
use observer_common::sched::Key;

use super::*;
use crate::model::cpu::{Class, Starved};
use crate::model::tcp::{FlowId, Holder, Resent};
use crate::model::{Cpu, Host, LongStall, TcpFlow};

fn flow(port: u16, timeouts: u64, fast: u64) -> TcpFlow {
    let end = |port| SocketAddr::from(([10, 0, 0, 1], port));
    TcpFlow {
        who: Who::Flow(FlowId { netns: 1, local: end(port), peer: end(443), cgroup: Key::v2(7) }),
        cgroup: Some(r"/web\x1b".into()),
        holder: (port == 1).then(|| Holder { pid: 41, comm: "nginx".into() }),
        resent: Resent { segments: [timeouts, fast, 0, 0, 0], failures: 0 },
        inherited: Resent::default(),
        tells_failures: true,
        last: None,
    }
}

fn stall(cgroup: &str, ms: u64) -> LongStall {
    let cgroup = (!cgroup.is_empty()).then(|| cgroup.into());
    LongStall { cgroup, tid: 12, comm: "java".into(), kind: Stall::MemcgReclaim, time: ms * 1_000_000 }
}

pub(super) fn sample(second: u64, tcp_flows: Vec<TcpFlow>, long_stalls: Vec<LongStall>) -> Sample {
    Sample {
        time: SystemTime::UNIX_EPOCH + Duration::from_secs(second),
        uptime: Duration::from_secs(second),
        start: SystemTime::UNIX_EPOCH,
        host: Host { name: "web-1".into(), ..Host::default() },
        cpus: Vec::new(),
        cgroups: Vec::new(),
        objectives: Vec::new(),
        commands: Vec::new(),
        starved: Vec::new(),
        contentions: Vec::new(),
        memory: Vec::new(),
        netns: Vec::new(),
        long_stalls,
        tcp_flows,
        processes: Vec::new(),
        threads: Vec::new(),
        sources: Vec::new(),
        events: Vec::new(),
    }
}

/// The events of samples that are a second apart, each after its second.
#[track_caller]
fn check(samples: Vec<(Vec<TcpFlow>, Vec<LongStall>)>, expected: &[&str]) {
    let mut watch = Watch::new(Thresholds::default(), Vec::new());
    let mut seen = Vec::new();
    for (second, (flows, stalls)) in (0..).zip(samples) {
        let mut sample = sample(second, flows, stalls);
        watch.see(&mut sample);
        seen.extend(
            sample
                .events
                .iter()
                .map(|event| format!("{second} {} {} {}: {}", event.id, event.state.name(), event.severity.name(), event.text)),
        );
    }
    assert_eq!(seen, expected);
}

fn flows(flows: Vec<TcpFlow>) -> (Vec<TcpFlow>, Vec<LongStall>) {
    (flows, Vec::new())
}

fn stalls(stalls: Vec<LongStall>) -> (Vec<TcpFlow>, Vec<LongStall>) {
    (Vec::new(), stalls)
}

#[test]
fn a_burst_begins_grows_worse_and_ends() {
    let mut samples = vec![flows(vec![flow(1, 3, 0), flow(2, 5, 0)]), flows(vec![flow(1, 3, 2), flow(2, 5, 0)])];
    // The sixth within ten seconds, then the fiftieth, then nothing.
    samples.push(flows(vec![flow(1, 4, 2), flow(2, 5, 0)]));
    samples.push(flows(vec![flow(1, 40, 10), flow(2, 5, 0)]));
    samples.extend((0..12).map(|_| flows(vec![flow(1, 40, 10), flow(2, 5, 0)])));
    check(
        samples,
        &[
            r"2 tcp_retransmits-1 open warn: 6 segments sent again within 10s (4 timeout, 2 fast) by 10.0.0.1:1 to 10.0.0.1:443 of nginx (pid 41) in /web\x1b",
            r"3 tcp_retransmits-1 change critical: 50 segments sent again within 10s (40 timeout, 10 fast) by 10.0.0.1:1 to 10.0.0.1:443 of nginx (pid 41) in /web\x1b",
            r"13 tcp_retransmits-1 close critical: over after 11s; at the worst: 50 segments sent again within 10s (40 timeout, 10 fast) by 10.0.0.1:1 to 10.0.0.1:443 of nginx (pid 41) in /web\x1b",
        ],
    );
}

#[test]
fn slow_retransmits_are_no_burst() {
    check((0..40).map(|second| flows(vec![flow(1, second / 2, 0)])).collect(), &[]);
}

#[test]
fn a_flow_that_was_forgotten_begins_anew() {
    let text = |segments: u32| {
        format!(
            r"{segments} segments sent again within 10s ({segments} timeout) by 10.0.0.1:1 to 10.0.0.1:443 of nginx (pid 41) in /web\x1b"
        )
    };
    check(
        vec![flows(vec![flow(1, 9, 0)]), flows(vec![]), flows(vec![flow(1, 4, 0)]), flows(vec![flow(1, 6, 0)])],
        &[
            &format!("0 tcp_retransmits-1 open warn: {}", text(9)),
            &format!("1 tcp_retransmits-1 close warn: over after 1s; at the worst: {}", text(9)),
            &format!("3 tcp_retransmits-2 open warn: {}", text(6)),
        ],
    );
}

#[test]
fn long_stalls_of_a_cgroup() {
    let mut samples = vec![stalls(vec![stall("/db", 99)]), stalls(vec![stall("/db", 340), stall("/db", 120), stall("", 1_500)])];
    samples.extend((0..11).map(|_| stalls(vec![])));
    let in_reclaim = "in reclaim at its cgroup's memory limit";
    let first = format!("340ms {in_reclaim} by java (thread 12) of /db; 2 stalls of 100ms or longer within 10s, 460ms in all");
    let second = format!("1s 500ms {in_reclaim} by java (thread 12)");
    check(
        samples,
        &[
            &format!("1 allocation_stalls-1 open critical: {second}"),
            &format!("1 allocation_stalls-2 open warn: {first}"),
            &format!("11 allocation_stalls-1 close critical: over after 10s; at the worst: {second}"),
            &format!("11 allocation_stalls-2 close warn: over after 10s; at the worst: {first}"),
        ],
    );
}

#[test]
fn a_real_time_task_that_keeps_a_cpu_from_the_others() {
    let starved = |held: u64, longest: u64, waiting, class, limit| {
        let (held, longest) = (held * 1_000_000, longest * 1_000_000);
        vec![Starved { cpu: 1, tid: 123, comm: r"chr\x1bny".into(), class, held, waiting, longest, limit }]
    };
    let mut watch = Watch::new(Thresholds::default(), Vec::new());
    let mut see = |second, starved: Vec<Starved>| {
        let mut sample = Sample { starved, ..sample(second, Vec::new(), Vec::new()) };
        sample.cpus = vec![Cpu { number: 1, ..Cpu::default() }];
        watch.see(&mut sample);
        let told =
            |event: &Event| format!("{} {} {}: {}", event.state.name(), event.severity.name(), event.labels[0].1, event.text);
        sample.events.iter().map(told).collect::<Vec<_>>()
    };
    assert!(see(0, starved(99, 400, 1, Class::RealTime, None)).is_empty(), "it came a moment ago");
    assert!(see(1, starved(400, 99, 1, Class::RealTime, None)).is_empty(), "nobody has waited for long");
    assert_eq!(
        see(2, starved(400, 300, 4, Class::RealTime, Some(0.95))),
        [
            r"open warn 1: CPU 1: real-time task chr\x1bny (thread 123) has held it for 400ms; 4 ordinary tasks wait, the longest for 300ms; real-time tasks may take 95% of it (sched_rt_runtime_us)"
        ]
    );
    assert_eq!(
        see(3, starved(3_200, 3_100, 1, Class::RealTime, Some(1.0))),
        [
            r"change critical 1: CPU 1: real-time task chr\x1bny (thread 123) has held it for 3s 200ms; 1 ordinary task waits, the longest for 3s 100ms; nothing limits real-time tasks (sched_rt_runtime_us)"
        ]
    );
    assert!(see(12, Vec::new()).is_empty(), "not over yet");
    assert!(see(13, Vec::new())[0].starts_with("close critical 1: over after 11s; at the worst: CPU 1: real-time task"));
    let deadline = see(14, starved(400, 300, 1, Class::Deadline, Some(0.95)));
    assert!(deadline[0].ends_with("has held it for 400ms; 1 ordinary task waits, the longest for 300ms"), "{deadline:?}");
}

#[test]
fn too_many_at_once_are_counted_and_the_worst_are_told() {
    let mut watch = Watch::new(Thresholds::default(), Vec::new());
    let all = (1..=300).map(|port| flow(port, 10 + u64::from(port), 0)).collect();
    let mut sample = sample(1, all, Vec::new());
    watch.see(&mut sample);
    assert_eq!(sample.events.len(), MOST);
    assert!(sample.events[0].text.contains("10.0.0.1:300 "), "{}", sample.events[0].text);
    let source = &sample.sources[0];
    assert_eq!((source.name, source.dropped), ("events", 44));
    assert_eq!(source.state.reason(), Some("44 conditions more hold than the 256 that are told at a time"));
}

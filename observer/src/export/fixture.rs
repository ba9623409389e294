//! A snapshot that has one of everything, for the tests of outputs.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use observer_common::latency::bucket;
use observer_common::memory::place;
use observer_common::pod;
use observer_common::sched::{Key, kind};
use observer_common::tcp::{Cause, Last};

use super::Narrow;
use crate::model::cgroup::identity::{Container, Qos, Role, Runtime};
use crate::model::cgroup::{CpuStat, Identity as Owner, Names};
use crate::model::cpu::Time;
use crate::model::event::{Cause as EventCause, Severity, Stage};
use crate::model::memory::FreeBlocks;
use crate::model::objective::{Dispatches, Members, Scope, Slo, Target};
use crate::model::tcp::{Condition, FlowId, Holder, KernelTcp, Resent, Who};
use crate::model::{
    Allocations, Allocator, Cgroup, Contention, Counts, Cpu, Event, Histogram, Host, Identity, Kind, Label, Locality, NetNs,
    Objective, Party, Process, Sample, Sched, Snapshot, Source, State, Status, TcpFlow, Thread, Topology,
};

/// Two samples, two seconds apart.
pub(super) fn snapshot() -> Snapshot {
    Snapshot { is: Arc::new(sample(2)), was: Some(Arc::new(sample(0))) }
}

/// The same, with pairs of victim and culprit.
pub(super) fn contended() -> Snapshot {
    let sample = |second| {
        let party = |key: Key, name: &str| Party { key, cgroup: key, name: name.into() };
        let (root, a) = (party(Key::ROOT, "/"), party(Key::v2(7), "/a.slice"));
        let process = Party { cgroup: Key::ROOT, ..party(Key::new(kind::PROCESS, 12), r"/ #12 \x1b[2Jnginx") };
        let pair = |victim: &Party, culprit: &Party, ms: u64| Contention {
            victim: victim.clone(),
            culprit: culprit.clone(),
            time: ms * 1_000_000 * second,
            inherited: 0,
        };
        let contentions = vec![
            pair(&root, &a, 15),
            pair(&root, &process, 0),
            pair(&a, &a, 31),
            pair(&a, &process, 434),
            pair(&a, &party(Key::IDLE, "~idle"), 9),
        ];
        Arc::new(Sample { contentions, ..sample(second) })
    };
    Snapshot { is: sample(2), was: Some(sample(0)) }
}

/// The same, with TCP flows.
pub(super) fn flowing() -> Snapshot {
    let netns = |second| {
        let kernel = Some(KernelTcp { segments: Some(30 + 16 * second), failed: Some(second), ..KernelTcp::default() });
        let resent = Resent { segments: [2, 14, 1, 0, 0].map(|each| each * second), failures: second };
        vec![NetNs { inode: 4_026_531_840, resent, kernel }]
    };
    let sample = |second| Arc::new(Sample { tcp_flows: flows(second), netns: netns(second), ..sample(second) });
    Snapshot { is: sample(2), was: Some(sample(0)) }
}

fn event(time: SystemTime) -> Event {
    Event {
        time,
        id: "tcp_retransmits-3".into(),
        state: Stage::Open,
        severity: Severity::Warn,
        cause: EventCause::TcpRetransmits,
        entity: Kind::TcpFlow,
        labels: vec![("local", Label::Text("10.0.0.1:80".into())), ("netns", Label::Number(4_026_531_840))],
        text: "6 segments sent again within 10s (6 timeout) by 10.0.0.1:80 to 10.0.0.2:443".into(),
    }
}

fn sample(second: u64) -> Sample {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_248_000 + second);
    Sample {
        time: now,
        uptime: Duration::from_secs(100 + second),
        start: SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_247_900),
        host: Host {
            name: "web-1".into(),
            load: Some([0.5, 0.25, f64::NAN]),
            context_switches: Some((1 << 53) + 1 - 3_000 * (2 - second)),
            ..Host::default()
        },
        cpus: vec![Cpu {
            number: 0,
            topology: Topology { core: Some(0), ..Topology::default() },
            time: Time { user: Some(second * 500_000_000), idle: Some(second * 1_500_000_000), ..Time::default() },
            depths: Some(std::array::from_fn(|length| if length < 3 { second * 250_000_000 } else { 0 })),
            ..Cpu::default()
        }],
        cgroups: vec![
            cgroup("/", Key::ROOT, CpuStat::default(), second),
            cgroup(
                "/a.slice",
                Key::v2(7),
                CpuStat { throttled: Some(7_000_000), limit: Some(1.5), ..CpuStat::default() },
                second,
            ),
        ],
        objectives: vec![objective(second)],
        commands: Vec::new(),
        starved: Vec::new(),
        contentions: Vec::new(),
        memory: allocators(second),
        tcp_flows: Vec::new(),
        processes: vec![process(second)],
        netns: Vec::new(),
        long_stalls: Vec::new(),
        events: if second == 2 { vec![event(now)] } else { Vec::new() },
        threads: vec![thread(second)],
        sources: vec![
            Source { name: "sched", state: State::Off("not asked for (--no-bpf)".into()), duration: None, dropped: 0 },
            Source { name: "stat", state: State::On, duration: Some(Duration::from_micros(400)), dropped: 3 },
        ],
    }
}

fn objective(second: u64) -> Objective {
    let slo = Slo {
        name: "a latency".into(),
        scope: Scope::Cgroup("/a.slice".into()),
        bound: Duration::from_millis(1),
        target: Target::of_millionths(990_000).expect("a share"),
        window: Duration::from_secs(3600),
    };
    Objective {
        number: 0,
        slo: Arc::new(slo),
        dispatches: Some(Dispatches { met: 95 * second, missed: 5 * second, interpolated: second }),
        budget: Some(-4.0),
        members: Some(Members { counted: 1, uncounted: 0 }),
    }
}

/// A flow of each family, and those that are not told apart.
fn flows(second: u64) -> Vec<TcpFlow> {
    let id = |netns, local: &str, peer: &str| {
        let end = |text: &str| text.parse().expect("an address");
        Who::Flow(FlowId { netns, local: end(local), peer: end(peer), cgroup: Key::v2(7) })
    };
    let flow = |who, segments: [u64; Cause::COUNT], last| TcpFlow {
        who,
        cgroup: matches!(who, Who::Flow(_)).then(|| r"/a\x1b.slice".into()),
        holder: matches!(who, Who::Flow(FlowId { netns: 1.., .. })).then(|| Holder { pid: 41, comm: r"wor\x1bker".into() }),
        resent: Resent { segments: segments.map(|each| each * second), failures: second },
        inherited: Resent::default(),
        tells_failures: true,
        last,
    };
    let last = |kernel| Some(Condition { kernel, tick: 4_000_000 });
    vec![
        flow(id(0, "[2001:db8::7]:443", "[2001:db8::99]:1025"), [0, 0, 0, 0, 3], last(Last { state: 12, ..pod::zeroed() })),
        flow(
            id(4_026_531_840, "10.0.0.7:443", "192.0.2.10:51514"),
            [2, 14, 1, 0, 0],
            last(Last { srtt: 48_210, cwnd: 12, rto: 62, backoff: 1, retransmits: 2, state: 1 }),
        ),
        flow(Who::Other, [1, 1, 1, 1, 1], None),
    ]
}

fn counts(second: u64) -> Counts {
    Counts { run: Some(500_000_000 * second), wait: Some(1_000_000 * second), migrations: Some(7), ..Counts::default() }
}

fn identity() -> Arc<Identity> {
    Arc::new(Identity { command: Some("/bin/worker --fast".into()), user: Some("www".into()) })
}

fn process(second: u64) -> Process {
    Process {
        pid: 41,
        start: 1,
        ppid: 1,
        comm: r"wor\x1bker".into(),
        identity: identity(),
        cgroup: Some("/a.slice".into()),
        status: Some(Status::Running),
        threads: 1,
        counts: counts(second),
        pending: Some(0),
    }
}

fn thread(second: u64) -> Thread {
    Thread {
        tid: 41,
        pid: 41,
        start: 1,
        comm: r"wor\x1bker".into(),
        identity: identity(),
        cgroup: Some("/a.slice".into()),
        status: Some(Status::Runnable),
        counts: counts(second),
        pending: Some(2_000_000),
    }
}

fn cgroup(path: &str, id: Key, cpu: CpuStat, second: u64) -> Cgroup {
    let mut latency = Histogram::default();
    for ns in [20_000, 5_000_000, 1 << 40].into_iter().take(second as usize + 1) {
        latency.counts[bucket(ns)] += 1;
        latency.sum += ns;
    }
    let sched = Sched {
        run: 250_000_000 * second,
        steal: Some(0),
        interrupt: None,
        runs: 10 * second,
        preempted: 4,
        voluntary: 6 * second,
        latency,
        ..Sched::default()
    };
    Cgroup {
        id,
        path: path.into(),
        identity: (path != "/").then(|| Arc::new(owned())),
        names: (path != "/").then(|| Arc::new(named())),
        cpu,
        resources: Arc::default(),
        sched: Some(Arc::new(sched)),
        stalled: None,
        longest: None,
    }
}

/// A sandbox, with all that can be known of one.
fn owned() -> Owner {
    let container = Container { id: "4f".repeat(32).into(), runtime: Some(Runtime::CriO), name: None, is_monitor: false };
    Owner {
        unit: Some("a.slice".into()),
        slice: Some("a.slice".into()),
        session: None,
        user: None,
        qos: Some(Qos::BestEffort),
        pod: Some("0b7a4a9c-51f1-4a7e-8c5e-0d7d7f1f9d10".into()),
        container: Some(container),
        below: 0,
    }
}

fn named() -> Names {
    Names {
        role: Some(Role::Pause),
        image: Some("registry.example/pause:3.9".into()),
        pod: Some("web-0".into()),
        namespace: Some(r"shop\x1b".into()),
        ..Names::default()
    }
}

/// What each way to narrow the snapshot leaves of its rows.
#[track_caller]
pub(super) fn narrowed(rows: impl Fn(Narrow) -> Vec<String>) {
    let count = |entity, cgroup: Option<&str>| rows(Narrow { entity, cgroup: cgroup.map(str::to_owned) }).len();
    assert_eq!(count(None, None), 10, "threads only for who asks for them");
    assert_eq!(count(Some(Kind::Cgroup), None), 2);
    assert_eq!(count(Some(Kind::Process), None), 1);
    assert_eq!(count(Some(Kind::Thread), None), 1);
    assert_eq!(count(None, Some("/a.slice")), 3, "the cgroup, its objective and its process");
    assert_eq!(count(Some(Kind::Thread), Some("/a.slice")), 1);
    assert_eq!(count(Some(Kind::Cgroup), Some("/")), 1);
    assert_eq!(count(Some(Kind::Cpu), Some("/")), 0);
    assert_eq!(count(None, Some("/a")), 0);
}

fn allocators(second: u64) -> Vec<Allocator> {
    let mut counts = Allocations::default();
    counts.counts[place(0, 1, 0)] = 40 * second;
    counts.counts[place(9, 1, 0)] = 2 * second;
    counts.stalls[0].counts[bucket(3_000_000)] = second;
    counts.stalls[0].sum = 3_000_000 * second;
    let node = Allocator {
        node: Some(0),
        counts: None,
        locality: Some(Locality { local: 90 * second, remote: 10 * second }),
        free: Some(Arc::new(FreeBlocks { zones: vec![(2, vec![8077, 0, 12])] })),
    };
    vec![Allocator { node: None, counts: Some(Arc::new(counts)), locality: None, free: None }, node]
}

//! Snapshots made by hand, for tests.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use observer_common::latency::bucket;
use observer_common::locality::{CACHE, CORE, NEW, REMOTE, Reason, move_place};
use observer_common::memory::place;
use observer_common::sched::{Key, kind};
use observer_common::tcp::{Cause, Last};

use crate::model::cgroup::control::Limiting;
use crate::model::cgroup::identity::{Container, Qos, Role, Runtime};
use crate::model::cgroup::resources::{self, Events, MemoryStat, Resources};
use crate::model::cgroup::{CpuStat, Identity, Names};
use crate::model::cpu::Time;
use crate::model::event::{Cause as EventCause, Severity, Stage};
use crate::model::host::{Memory, Pressure, Stalled, Tasks, Vmstat};
use crate::model::memory::{FreeBlocks, StallLatency};
use crate::model::objective::{Dispatches, Members, Scope, Slo, Target};
use crate::model::tcp::{Condition, FlowId, Holder, KernelTcp, Resent, Who};
use crate::model::text::escape;
use crate::model::{
    Allocations, Allocator, Cgroup, Contention, Counts, Cpu, Depths, Event, Histogram, Host, Imbalance, Kind, Longest, NetNs,
    Objective, OffCpu, Open, Party, Placement, Process, Sample, Sched, Snapshot, Source, State, Status, TcpFlow, TcpTotals,
    Topology, Traffic, Used, task,
};

const MS: u64 = 1_000_000;
const GIB: u64 = 1 << 30;

/// What one cgroup did in the second between the two samples, in milliseconds.
struct Did {
    path: &'static [u8],
    unit: Option<&'static str>,
    cpu: u64,
    wait: u64,
    throttled: Option<u64>,
    /// How long its tasks were stopped by a quota, which is a part of the wait.
    stopped: u64,
    /// What waits at each moment, and what was waited on other queues.
    pending: u64,
}

const fn did(path: &'static [u8], cpu: u64, wait: u64) -> Did {
    Did { path, unit: None, cpu, wait, throttled: None, stopped: 0, pending: 0 }
}

/// What one process did in that second, in milliseconds.
struct Ran {
    pid: u32,
    comm: &'static [u8],
    command: Option<&'static [u8]>,
    cgroup: &'static str,
    cpu: u64,
    wait: u64,
    pending: u64,
}

/// Ascending by pid.
static PROCESSES_DID: &[Ran] = &[
    Ran { pid: 1, comm: b"systemd", command: Some(b"/sbin/init"), cgroup: "/", cpu: 0, wait: 0, pending: 0 },
    Ran { pid: 9, comm: b"kworker/0:1", command: None, cgroup: "/", cpu: 4, wait: 1, pending: 0 },
    Ran {
        pid: 812,
        comm: b"nginx",
        command: Some(b"nginx: worker process"),
        cgroup: "/system.slice/nginx.service",
        cpu: 250,
        wait: 10,
        pending: 0,
    },
    Ran {
        pid: 4_242,
        comm: b"train\x1b[31m",
        command: Some(
            b"/usr/bin/python3 /srv/train.py --epochs 100 --learning-rate 0.001 --checkpoints /srv/checkpoints/train-0",
        ),
        cgroup: "/batch.slice/train-0",
        cpu: 1_000,
        wait: 620,
        pending: 10,
    },
    Ran {
        pid: 4_194_303,
        comm: "漢字の長い長い".as_bytes(),
        command: Some(b"evil\x1b[2J"),
        cgroup: "/no/longer/there",
        cpu: 0,
        wait: 700,
        pending: 0,
    },
];

/// Ids are given in this order, from 1.
static CGROUPS: &[Did] = &[
    Did { stopped: 180, pending: 10, ..did(b"/", 2_900, 1_240) },
    did(b"/system.slice", 300, 12),
    Did { unit: Some("nginx.service"), ..did(b"/system.slice/nginx.service", 250, 10) },
    Did { unit: Some("ssh.service"), ..did(b"/system.slice/ssh.service", 50, 2) },
    Did { pending: 10, ..did(b"/batch.slice", 1_900, 900) },
    Did { pending: 10, ..did(b"/batch.slice/train-0", 1_000, 620) },
    did(b"/batch.slice/train-1", 900, 280),
    Did { throttled: Some(300), stopped: 180, ..did(b"/api.slice", 700, 328) },
    Did { throttled: Some(0), stopped: 180, ..did(b"/api.slice/web", 700, 328) },
    did(b"/idle.slice", 0, 0),
    did(b"/evil.slice", 0, 0),
    did(b"/evil.slice/\x1b[2J\x1b]0;boo\x07", 0, 0),
    did("/evil.slice/漢字の長い長い長い長い長い長い長い長い長い長い長い長い名前.service".as_bytes(), 0, 0),
    did("/evil.slice/e\u{301}\u{202e}gnp.exe".as_bytes(), 0, 0),
];

/// Further ones, whose ids are given from 100 on.
static CONTAINED: &[Did] = &[
    did(b"/kubepods.slice", 400, 840),
    did(b"/kubepods.slice/kubepods-burstable.slice", 400, 840),
    did(b"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0b7a4a9c_51f1_4a7e_8c5e_0d7d7f1f9d10.slice", 400, 840),
    did(
        b"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0b7a4a9c_51f1_4a7e_8c5e_0d7d7f1f9d10.slice/cri-containerd-4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f.scope",
        390,
        840,
    ),
    did(
        b"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0b7a4a9c_51f1_4a7e_8c5e_0d7d7f1f9d10.slice/cri-containerd-9d9d9d9d9d9d9d9d9d9d9d9d9d9d9d9d9d9d9d9d9d9d9d9d9d9d9d9d9d9d9d9d.scope",
        10,
        0,
    ),
    did(b"/user.slice/user-1000.slice/session-3.scope", 20, 0),
    did(b"/system.slice/docker-acacacacacacacacacacacacacacacacacacacacacacacacacacacacacacacac.scope", 700, 10),
];

/// Who waited for whom in that second, in milliseconds; a cgroup's sum is what it waited itself.
static CONTENTIONS: &[(&str, &[(&str, u64)])] = &[
    (
        "/batch.slice/train-0",
        &[
            ("/api.slice/web", 434),
            ("/batch.slice/train-1", 96),
            ("/batch.slice/train-0", 31),
            ("/system.slice/nginx.service", 22),
            ("~idle", 14),
            (r"/evil.slice/\x1b[2J\x1b]0;boo\x07", 9),
            ("~interrupt", 6),
            ("~hypervisor", 4),
            ("~unknown", 3),
            ("~other", 1),
            ("~migrated", 10),
        ],
    ),
    ("/batch.slice/train-1", &[("/batch.slice/train-0", 168), ("/api.slice/web", 84), ("/batch.slice/train-1", 28)]),
    ("/api.slice/web", &[("~throttled", 180), ("/batch.slice/train-0", 90), ("/batch.slice/train-1", 40), ("~idle", 18)]),
    ("/system.slice/nginx.service", &[("/api.slice/web", 6), ("/batch.slice/train-0", 3), ("~idle", 1)]),
    ("/system.slice/ssh.service", &[("/batch.slice/train-0", 2)]),
];

/// The same where the root is all there is, and in focus.
static PROCESSES: &[(&str, &[(&str, u64)])] = &[
    ("/ #4242 stress-ng", &[("/ #4243 stress-ng", 500), ("/ #4244 stress-ng", 150), ("/ #4242 stress-ng", 50)]),
    ("/ #4243 stress-ng", &[("/ #4242 stress-ng", 350), ("~idle", 50)]),
    (r"/ #77 \x1b[2J漢字の長い長い", &[("/ #4242 stress-ng", 100)]),
    ("/ #1 systemd", &[("~interrupt", 40)]),
];

/// Cgroups, CPUs, waits: all there.
pub(super) fn snapshot() -> Snapshot {
    Snapshot { was: Some(Arc::new(sample(0, 4, true))), is: Arc::new(sample(1, 4, true)) }
}

/// The scheduler hook is off and knows nothing; the cgroup files are degraded; something was dropped.
pub(super) fn without_sched() -> Snapshot {
    Snapshot { was: Some(Arc::new(sample(0, 4, false))), is: Arc::new(sample(1, 4, false)) }
}

/// As [`without_sched`], with all sources that there are and the reasons that they give.
pub(super) fn in_trouble() -> Snapshot {
    let off = |reason: &str| State::Off(reason.into());
    let needs = "needs CAP_BPF and CAP_PERFMON, or root; kernel.unprivileged_bpf_disabled is 2: see `observer doctor`";
    let degraded = State::Degraded("the task iterator is off: a reading of /proc takes longer".into());
    let all =
        [("loadavg", State::On), ("meminfo", State::On), ("topology", State::On), ("uptime", off("/proc/uptime: no such file"))];
    change(&without_sched(), |sample| {
        sample.sources.extend(all.into_iter().chain([("tasks", degraded)]).map(|(name, state)| source(name, state, 0)));
        sample.sources.sort_by_key(|source| source.name);
        let sched = sample.sources.iter_mut().find(|source| source.name == "sched").unwrap();
        (sched.state, sched.duration) = (off(needs), None);
    })
}

/// Only one sample: no rates.
pub(super) fn first() -> Snapshot {
    Snapshot { was: None, is: Arc::new(sample(0, 4, true)) }
}

/// Many CPUs, more than fit.
pub(super) fn many_cpus() -> Snapshot {
    Snapshot { was: Some(Arc::new(sample(0, 96, true))), is: Arc::new(sample(1, 96, true)) }
}

/// Two nodes of cores with two CPUs each, which are numbered as Linux does: first one of each core, then the others.
pub(super) fn two_nodes(cpus: u32) -> Snapshot {
    let sample = |second| {
        let mut sample = sample(second, cpus, true);
        for cpu in &mut sample.cpus {
            let cores = cpus / 2;
            let core = cpu.number % cores;
            let node = core / (cores / 2);
            cpu.topology = Topology { core: Some(core), llc: Some(node * cores / 2), package: Some(node), node: Some(node) };
        }
        Arc::new(sample)
    };
    Snapshot { was: Some(sample(0)), is: sample(1) }
}

/// Every task is in the root, which is in focus.
pub(super) fn in_focus() -> Snapshot {
    let sample = |second| {
        let mut sample = sample(second, 4, true);
        sample.cgroups.retain(|cgroup| ["/", "/idle.slice"].contains(&&*cgroup.path));
        sample.contentions = contentions(PROCESSES, second);
        Arc::new(sample)
    };
    Snapshot { was: Some(sample(0)), is: sample(1) }
}

/// As [`snapshot`], with a CPU that idled while tasks waited on another.
pub(super) fn uneven() -> Snapshot {
    change(&snapshot(), |sample| {
        sample.host.imbalance = Some(Imbalance { allowed: 9 * MS, pinned: 381 * MS, unknown: 4 * MS });
    })
}

/// As [`snapshot`], after much has happened.
pub(super) fn eventful() -> Snapshot {
    change(&snapshot(), |sample| {
        let event = |ago: u64, state, severity, text: &str| Event {
            time: sample.time - Duration::from_secs(ago),
            id: format!("tcp_retransmits-{ago}"),
            state,
            severity,
            cause: EventCause::TcpRetransmits,
            entity: Kind::TcpFlow,
            labels: Vec::new(),
            text: text.into(),
        };
        let burst = "12 segments sent again within 10s (9 timeout, 3 probe) by 10.0.0.1:443 to 10.0.0.2:40000 of /system.slice/nginx.service";
        sample.events = vec![
            event(7_300, Stage::Close, Severity::Critical, &format!("over after 1m 2s; at the worst: {burst}")),
            event(61, Stage::Open, Severity::Info, "nothing much"),
            event(40, Stage::Open, Severity::Warn, burst),
            event(0, Stage::Change, Severity::Critical, burst),
        ];
    })
}

/// As [`snapshot`], with a pod, a container that nobody knows the name of yet, and somebody's session.
pub(super) fn contained() -> Snapshot {
    let sample = |second| {
        let mut sample = sample(second, 4, true);
        let ids = || (0..).map(|at| Key::v2(100 + at));
        sample.cgroups.extend(ids().zip(CONTAINED).map(|(id, did)| did.cgroup(id, second, true)));
        for cgroup in &mut sample.cgroups {
            if let Some((identity, names)) = owner(&cgroup.path) {
                (cgroup.identity, cgroup.names) = (Some(Arc::new(identity)), names.map(Arc::new));
            }
        }
        let party = |at: usize| {
            let key = Key::v2(100 + at as u64);
            Party { key, cgroup: key, name: escape(CONTAINED[at].path).into() }
        };
        let process = |at: usize, pid: u64| {
            let party = party(at);
            Party { key: Key::new(kind::PROCESS, pid), name: format!("{} #{pid} nginx", party.name).into(), ..party }
        };
        let pair = |victim, culprit, ms: u64| Contention { victim, culprit, time: ms * MS * second, inherited: 0 };
        sample.contentions.push(pair(party(3), party(4), 300));
        sample.contentions.push(pair(party(3), party(6), 500));
        sample.contentions.push(pair(process(3, 77), process(3, 78), 40));
        sample.contentions.sort_by_key(|pair| (pair.victim.key, pair.culprit.key));
        Arc::new(sample)
    };
    Snapshot { was: Some(sample(0)), is: sample(1) }
}

/// As [`snapshot`], with objectives: two are missed, one of which has no budget left, one is met, one is not measured.
pub(super) fn objectives() -> Snapshot {
    let objective = |(number, (name, scope, wait, met, missed, budget)): (usize, &(&str, Scope, u64, u64, u64, f64)), second| {
        let measured = *met > 0;
        Objective {
            number,
            slo: Arc::new(Slo {
                name: (*name).into(),
                scope: scope.clone(),
                bound: Duration::from_micros(*wait),
                target: Target::of_millionths(999_000).expect("a share"),
                window: Duration::from_secs(3600),
            }),
            dispatches: measured.then_some(Dispatches { met: met * second, missed: missed * second, interpolated: 3 * second }),
            budget: measured.then_some(*budget),
            members: Some(Members { counted: 1, uncounted: 0 }),
        }
    };
    let cgroup = |path: &str| Scope::Cgroup(path.into());
    let all = [
        ("api latency", cgroup("/api.slice/*"), 1_000, 9_767, 233, 0.41),
        ("a name that is far too long for the line it stands in", cgroup("/batch.slice/train-*"), 250, 9_000, 4_000, -7.2),
        ("ssh", Scope::Command("sshd".into()), 5_000, 700, 0, 1.0),
        ("nothing", Scope::Command("gone".into()), 5_000, 0, 0, 1.0),
    ];
    let sample = |second| {
        let objectives = all.iter().enumerate().map(|each| objective(each, second)).collect();
        Arc::new(Sample { objectives, ..sample(second, 4, true) })
    };
    Snapshot { was: Some(sample(0)), is: sample(1) }
}

/// Whose the cgroups of [`CONTAINED`] are.
fn owner(path: &str) -> Option<(Identity, Option<Names>)> {
    let pod = path.contains("-pod").then(|| "0b7a4a9c-51f1-4a7e-8c5e-0d7d7f1f9d10".into());
    let container = |runtime, id: &str| Container { id: id.into(), runtime: Some(runtime), name: None, is_monitor: false };
    let name = path.rsplit('/').next()?;
    let scope = |prefix| name.strip_prefix(prefix)?.strip_suffix(".scope");
    let container = scope("cri-containerd-")
        .map(|id| container(Runtime::Containerd, id))
        .or_else(|| scope("docker-").map(|id| container(Runtime::Docker, id)));
    let session = scope("session-").map(Into::into);
    let user = session.is_some().then(|| "1000".into());
    let qos = pod.is_some().then_some(Qos::Burstable);
    let known = Names { pod: Some("web-5d78c9869d-x2x9z".into()), namespace: Some("shop".into()), ..Names::default() };
    let names = match container.as_ref().map(|container| &container.id[..2]) {
        Some("4f") => Some(Names { container: Some("nginx".into()), image: Some("registry.example/nginx:1.27".into()), ..known }),
        Some("9d") => Some(Names { role: Some(Role::Pause), ..known }),
        Some(_) => None,
        None if pod.is_some() => Some(known),
        None => session.is_some().then(|| Names { user: Some("alice".into()), ..Names::default() }),
    };
    let owned = pod.is_some() || container.is_some() || session.is_some();
    let identity = Identity { unit: Some(name.into()), pod, container, session, user, qos, ..Identity::default() };
    owned.then_some((identity, names))
}

/// Nothing is known at all.
pub(super) fn nothing() -> Snapshot {
    let mut sample = sample(0, 0, false);
    (sample.host, sample.cgroups, sample.sources) = (Host::default(), Vec::new(), Vec::new());
    sample.contentions.clear();
    sample.memory.clear();
    sample.processes.clear();
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
    let cgroup = |(at, did): (usize, &Did)| did.cgroup(if at == 0 { Key::ROOT } else { Key::v2(at as u64 + 1) }, second, sched);
    Sample {
        time: start + Duration::from_secs(second),
        uptime: Duration::from_secs(1_000 + second),
        start,
        host: Host {
            sched: sched.then(|| Arc::new(CGROUPS[0].sched(second))),
            delay: sched.then_some(7 * MS + 1_250 * MS * second),
            busy: sched.then_some(2_880 * MS * second),
            imbalance: sched.then_some(Imbalance {
                allowed: 9 * MS * second,
                pinned: 21 * MS * second,
                unknown: 4 * MS * second,
            }),
            tcp: tcp(second, sched),
            ..host(second, if sched { 0 } else { 12 * second })
        },
        cpus: (0..cpus).map(|number| cpu(second, number, sched)).collect(),
        cgroups: CGROUPS.iter().enumerate().map(cgroup).collect(),
        objectives: Vec::new(),
        commands: Vec::new(),
        starved: Vec::new(),
        contentions: if sched { contentions(CONTENTIONS, second) } else { Vec::new() },
        memory: if sched { vec![allocator(second), node()] } else { vec![node()] },
        tcp_flows: if sched { FLOWS.iter().map(|flow| flow.at(second)).collect() } else { Vec::new() },
        processes: PROCESSES_DID.iter().map(|did| did.process(second, sched)).collect(),
        netns: if sched { NETNS.iter().map(|(inode, kernels)| netns(*inode, *kernels, second)).collect() } else { Vec::new() },
        long_stalls: Vec::new(),
        events: Vec::new(),
        threads: Vec::new(),
        sources: sources(sched),
    }
}

impl Ran {
    /// Without `all` only what everybody may read.
    fn process(&self, second: u64, all: bool) -> Process {
        let ms = |each: u64| all.then_some(each * MS * second);
        Process {
            pid: self.pid,
            start: 5,
            ppid: 1,
            comm: escape(self.comm).into(),
            identity: Arc::new(task::Identity { command: self.command.map(|command| escape(command).into_owned()), user: None }),
            cgroup: Some(self.cgroup.into()),
            status: Some(Status::Sleeping),
            threads: 1,
            counts: Counts {
                run: ms(self.cpu),
                wait: ms(self.wait),
                user: Some(self.cpu * MS * second),
                system: Some(0),
                preempted: ms(0),
                voluntary: Some(self.cpu * second),
                migrations: None,
            },
            pending: all.then_some(self.pending * MS),
        }
    }
}

impl Did {
    fn cgroup(&self, id: Key, second: u64, sched: bool) -> Cgroup {
        Cgroup {
            id,
            path: escape(self.path).into(),
            identity: self.unit.map(|unit| Arc::new(Identity { unit: Some(unit.into()), ..Identity::default() })),
            names: None,
            cpu: CpuStat {
                usage: Some(self.cpu * MS * (5 + second)),
                user: Some(self.cpu * MS * (5 + second) / 4 * 3),
                system: Some(self.cpu * MS * (5 + second) / 4),
                periods: self.throttled.map(|_| 10 * second),
                throttled_periods: self.throttled.map(|throttled| throttled.min(3) * second),
                throttled: self.throttled.map(|throttled| throttled * MS * second),
                limit: self.throttled.map(|_| 2.0),
                ..CpuStat::default()
            },
            resources: Arc::new(self.resources(second)),
            sched: sched.then(|| Arc::new(self.sched(second))),
            stalled: (sched && self.pending > 0).then(|| Arc::new(stalled(second))),
            longest: (sched && self.pending + self.stopped > 0).then(|| Longest {
                time: 30_100_000,
                tid: 4_242,
                comm: escape(b"train\x1b[31m").into(),
                culprit: "/api.slice/web".into(),
            }),
        }
    }

    fn sched(&self, second: u64) -> Sched {
        let ms = |each: u64| Some(each * MS * second);
        let open = Open { run: 0, wait: Some(self.pending * MS), throttled: Some(0) };
        let used = Used {
            pages: 1_000 * self.cpu * second,
            stalls: self.stopped * second,
            stalled: self.stopped * MS * second / 10,
            off_cpu: Some(OffCpu::default()),
        };
        let (throttled, migrated) = (ms(self.stopped), self.pending * MS * second);
        Sched { throttled, migrated, open, used: Some(used), ..waited(second, self.cpu, self.wait) }
    }

    /// The root has no memory files, who does nothing has no files at all, who has a quota has limits of memory, too.
    fn resources(&self, second: u64) -> Resources {
        if self.cpu == 0 {
            return Resources::default();
        }
        let stalled = |some: u64, full: u64| Some(Stalled { some: some * MS * second, full: Some(full * MS * second) });
        let pressures = Resources {
            cpu_pressure: stalled(self.wait.min(1_000), 0),
            memory_pressure: stalled(self.stopped / 2, self.stopped / 4),
            io_pressure: stalled(0, 0),
            ..Resources::default()
        };
        if self.path == b"/" {
            return pressures;
        }
        let usage = self.cpu << 20;
        let limited = |value: u64| self.throttled.map(|_| value);
        let memory = resources::Memory {
            usage: Some(usage),
            limit: limited(GIB),
            high: limited(900 << 20),
            events: Events { max: Some(7 * second), oom_kill: limited(second), ..Events::default() },
            stat: MemoryStat {
                anon: Some(usage / 2),
                file: Some(usage / 4),
                kernel: Some(usage / 8),
                faults: Some(1_200 * second),
                major_faults: Some(3 * second),
                ..MemoryStat::default()
            },
            nodes: Arc::from([(0, usage / 2), (1, usage / 4)]),
        };
        // Those that have a limit have that of their slice.
        let by = self.throttled.map(|_| Arc::from("/api.slice"));
        Resources { memory, limiting: Limiting { cpu: by.clone(), memory: by }, ..pressures }
    }
}

fn allocator(second: u64) -> Allocator {
    let mut counts = Allocations::default();
    for (order, migratetype, class, each) in [(0, 1, 0, 48_200), (0, 0, 2, 310), (3, 0, 3, 75), (9, 1, 0, 12)] {
        counts.counts[place(order, migratetype, class)] = each * second;
    }
    counts.failures[3] = 2 * second;
    counts.fallbacks[1] = 5 * second;
    counts.stalls = stalled(second);
    Allocator { node: None, counts: Some(Arc::new(counts)), locality: None, free: None }
}

/// A node whose free memory is in pieces.
fn node() -> Allocator {
    let normal = vec![8_077, 5_927, 4_655, 3_227, 2_161, 1_508, 974, 655, 485, 381, 66];
    let free = FreeBlocks { zones: vec![(1, vec![1, 2, 4, 2, 5, 4, 3, 3, 4, 2, 52]), (2, normal)] };
    Allocator { node: Some(0), counts: None, locality: None, free: Some(Arc::new(free)) }
}

/// Reclaim at a memory cgroup's limit.
fn stalled(second: u64) -> StallLatency {
    let mut stalled = StallLatency::default();
    stalled[1].counts[bucket(40_000)] = 300 * second;
    stalled[1].counts[bucket(2 * MS)] = 9 * second;
    stalled[1].sum = 30 * MS * second;
    stalled
}

/// In the order of the model. Like the kernel side's, a counter is there only when it has grown.
fn contentions(pairs: &[(&str, &[(&str, u64)])], second: u64) -> Vec<Contention> {
    let pair = |victim: &str, culprit: &str, ms: u64| Contention {
        victim: party(victim),
        culprit: party(culprit),
        time: ms * MS * second,
        inherited: 0,
    };
    let all = pairs.iter().flat_map(|(victim, culprits)| culprits.iter().map(|(culprit, ms)| pair(victim, culprit, *ms)));
    let mut all: Vec<_> = all.filter(|pair| pair.time > 0).collect();
    all.sort_by_key(|pair| (pair.victim.key, pair.culprit.key));
    all
}

fn party(name: &str) -> Party {
    let cgroup = |path: &str| match CGROUPS.iter().position(|did| escape(did.path) == path) {
        Some(0) => Key::ROOT,
        at => Key::v2(at.map_or(999, |at| at as u64 + 1)),
    };
    let key = match name {
        "~idle" => Key::IDLE,
        "~interrupt" => Key::INTERRUPT,
        "~hypervisor" => Key::HYPERVISOR,
        "~throttled" => Key::THROTTLED,
        "~migrated" => Key::MIGRATED,
        "~unknown" => Key::UNKNOWN,
        "~other" => Key::OTHER,
        _ => match name.split_once(" #") {
            Some((_, process)) => Key::new(kind::PROCESS, process.split(' ').next().unwrap().parse().unwrap()),
            None => cgroup(name),
        },
    };
    Party { key, cgroup: name.split_once(" #").map_or(key, |(path, _)| cgroup(path)), name: name.into() }
}

fn host(second: u64, dropped: u64) -> Host {
    Host {
        name: "node-7".into(),
        load: Some([5.21, 3.4, 1.07]),
        memory: Some(Memory { total: 16 * GIB, free: 2 * GIB, buffers: GIB / 2, cached: 8 * GIB, available: Some(9 * GIB) }),
        uptime: Some(273_600_000 * MS),
        tasks: Some(Tasks { running: 7, blocked: 1 }),
        context_switches: Some(1_000_000 + 48_211 * second),
        pressure: Some(Pressure {
            memory: Stalled { some: 31 * MS * second, full: Some(4 * MS * second) },
            ..Pressure::default()
        }),
        vmstat: Some(Vmstat {
            allocated: Some(9_000_000 + 48_000 * second),
            reclaims: Some(2 * second),
            compactions: Some(0),
            oom_kills: Some(1),
        }),
        pages: (dropped == 0).then_some(47_900 * second),
        table_full: Some(0),
        untraced: Some(dropped),
        imbalance: None,
        sched: None,
        delay: None,
        busy: None,
        tcp: TcpTotals::default(),
    }
}

/// A flow, and what it sends again every second, by cause.
struct Resends {
    netns: u32,
    local: &'static str,
    peer: &'static str,
    cgroup: Option<&'static str>,
    process: Option<(u32, &'static str)>,
    segments: [u64; Cause::COUNT],
    last: Last,
}

const fn last(srtt: u32, cwnd: u32, rto: u32, backoff: u32, state: u32) -> Last {
    Last { srtt, cwnd, rto, backoff, retransmits: backoff, state }
}

static FLOWS: &[Resends] = &[
    Resends {
        netns: 4_026_531_840,
        local: "10.0.0.7:443",
        peer: "192.0.2.10:51514",
        cgroup: Some("/system.slice/nginx.service"),
        process: Some((812, "nginx")),
        segments: [0, 14, 1, 0, 0],
        last: last(48_210, 12, 62, 0, 1),
    },
    Resends {
        netns: 4_026_531_840,
        local: "10.0.0.7:51002",
        peer: "10.0.0.9:5432",
        cgroup: Some("/kubepods.slice/kubepods-burstable.slice"),
        process: Some((4_194_303, r"postgres\x1b[2J")),
        segments: [3, 0, 0, 0, 0],
        last: last(310, 1, 1_600, 3, 1),
    },
    Resends {
        netns: 4_026_532_201,
        local: "[2001:db8::7]:40110",
        peer: "[2001:db8:1234:5678:9abc:def0:1234:5678]:443",
        cgroup: None,
        process: None,
        segments: [0, 0, 0, 1, 0],
        last: last(0, 1, 500, 1, 2),
    },
    Resends {
        netns: 4_026_532_201,
        local: "[2001:db8::7]:443",
        peer: "[2001:db8::99]:1025",
        cgroup: Some("/system.slice/nginx.service"),
        process: None,
        segments: [0, 0, 0, 0, 2],
        last: last(0, 0, 0, 0, 12),
    },
];

/// Their namespaces: the inode, and the segments a second that the kernel counts, where that is known.
static NETNS: &[(u32, Option<u64>)] = &[(4_026_531_840, Some(18)), (4_026_532_201, None)];

fn netns(inode: u32, kernels: Option<u64>, second: u64) -> NetNs {
    let mut resent = Resent::default();
    FLOWS.iter().filter(|flow| flow.netns == inode).for_each(|flow| resent.add(&flow.at(second).resent));
    let kernel = kernels.map(|segments| KernelTcp { segments: Some(segments * second), failed: Some(0), ..KernelTcp::default() });
    NetNs { inode, resent, kernel }
}

impl Resends {
    fn at(&self, second: u64) -> TcpFlow {
        let end = |text: &str| text.parse().expect("an address");
        let id = FlowId { netns: self.netns, local: end(self.local), peer: end(self.peer), cgroup: Key::NONE };
        TcpFlow {
            who: Who::Flow(id),
            cgroup: self.cgroup.map(Into::into),
            holder: self.process.map(|(pid, comm)| Holder { pid, comm: comm.into() }),
            resent: Resent { segments: self.segments.map(|each| each * second), failures: 0 },
            inherited: Resent::default(),
            tells_failures: true,
            last: Some(Condition { kernel: self.last, tick: 4_000_000 }),
        }
    }
}

fn tcp(second: u64, programs: bool) -> TcpTotals {
    let mut resent = Resent::default();
    FLOWS.iter().for_each(|flow| resent.add(&flow.at(second).resent));
    let kernel = KernelTcp {
        segments: Some(100 + 18 * second),
        failed: Some(0),
        timeouts: Some(9 + 3 * second),
        loss_probes: Some(7 + second),
        fast: Some(80 + 14 * second),
        syn: Some(4),
    };
    let nothing = programs.then_some(0);
    TcpTotals {
        resent: programs.then_some(resent),
        own: programs.then_some(18 * second),
        tells_failures: programs,
        full: nothing,
        nested: nothing,
        kernel: Some(kernel),
    }
}

fn cpu(second: u64, number: u32, sched: bool) -> Cpu {
    let ms = |each: u64| Some(each * MS * second);
    let load = u64::from(number % 4);
    Cpu {
        number,
        topology: Topology { core: Some(number / 2 * 2), llc: Some(0), package: Some(0), node: Some(0) },
        time: Time {
            user: ms(200 * load),
            nice: ms(0),
            system: ms(80),
            idle: ms(880 - 230 * load),
            iowait: ms(20),
            interrupt: ms(10 * load),
            steal: ms(20 * load),
        },
        sched: sched.then(|| {
            let open = Open { run: 0, wait: Some(3 * MS * load), throttled: Some(0) };
            Arc::new(Sched { open, ..waited(second, 280 + 200 * load, 10 + 200 * load) })
        }),
        depths: sched.then(|| {
            let mut depths = Depths::default();
            (depths[0], depths[1]) = ((880 - 230 * load) * MS * second, (100 + 150 * load) * MS * second);
            depths[2] = (20 + 80 * load) * MS * second;
            depths
        }),
        traffic: sched.then(|| {
            let mut traffic = Traffic::default();
            traffic.arrived[move_place(Reason::WakeUp, CACHE)] = 40 * second;
            traffic.arrived[move_place(Reason::Balance, REMOTE)] = load * second;
            traffic.left[move_place(Reason::WakeUp, CACHE)] = 40 * second;
            traffic
        }),
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
        placement: Some(placed(4 * run * second)),
        latency,
        ..Sched::default()
    }
}

/// Every eighth dispatch on a sibling, every sixteenth on another node.
fn placed(runs: u64) -> Placement {
    let mut placement = Placement::default();
    (placement.away[CORE], placement.away[REMOTE], placement.away[NEW]) = (runs / 8, runs / 16, runs / 64);
    (placement.away_run[CORE], placement.away_run[REMOTE]) = (runs * 20_000, runs * 10_000);
    placement.moves[move_place(Reason::WakeUp, CORE)] = runs / 8;
    placement.moves[move_place(Reason::Balance, REMOTE)] = runs / 16;
    placement
}

fn source(name: &'static str, state: State, dropped: u64) -> Source {
    Source { name, state, duration: Some(Duration::from_micros(340)), dropped }
}

fn sources(sched: bool) -> Vec<Source> {
    let off = State::Off("needs CAP_BPF and CAP_PERFMON".into());
    let degraded = State::Degraded("3 of 14 cgroups could not be read".into());
    vec![
        source("cgroup", if sched { State::On } else { degraded }, 0),
        source("sched", if sched { State::On } else { off }, if sched { 0 } else { 12 }),
        source("stat", State::On, 0),
    ]
}

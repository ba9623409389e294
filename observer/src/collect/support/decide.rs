//! From facts to sentences; pure.

use std::path::Path;

use super::{Attempt, Facts, Hierarchies, Types};
use crate::model::text::escape;
use crate::model::{Availability, Feature};

/// `CAP_SYS_ADMIN`, `CAP_PERFMON`, `CAP_BPF`: numbers of linux/capability.h.
const SYS_ADMIN: u64 = 1 << 21;
const PERFMON: u64 = 1 << 38;
const BPF: u64 = 1 << 39;

const IN_KERNEL: &str = "Everything measured inside the kernel: run-queue waits and latency, switches.";

/// What can be done given the facts, the foundations first.
pub fn decide(facts: &Facts) -> Vec<Feature> {
    vec![
        files(facts),
        steal(facts),
        topology(facts),
        cgroups(facts),
        types(facts),
        privileges(facts),
        programs(facts),
        tasks(facts),
        migrations(facts),
        allocations(facts),
        tcp(facts),
        memory(facts),
    ]
}

fn available(name: &'static str, lost: &'static str, found: impl Into<Option<String>>) -> Feature {
    Feature { name, state: Availability::Available, lost, found: found.into(), remedy: None }
}

fn degraded(name: &'static str, lost: &'static str, reason: String, remedy: Option<&str>) -> Feature {
    Feature { name, state: Availability::Degraded(reason), lost, found: None, remedy: remedy.map(str::to_owned) }
}

fn missing(name: &'static str, lost: &'static str, reason: String, remedy: Option<&str>) -> Feature {
    Feature { name, state: Availability::Missing(reason), lost, found: None, remedy: remedy.map(str::to_owned) }
}

fn files(facts: &Facts) -> Feature {
    const LOST: &str = "Time by CPU and mode, load, memory.";
    match &facts.stolen {
        Ok(_) => available("proc", LOST, None),
        Err(why) => missing("proc", LOST, why.clone(), Some("mount the host's /proc and name it with --proc-root")),
    }
}

/// A hypervisor that does not tell and one that took nothing look the same.
fn steal(facts: &Facts) -> Feature {
    const LOST: &str = "Time that the hypervisor took from this machine.";
    match facts.stolen {
        Ok(Some(0)) => {
            let found = "none since boot: no hypervisor, one that took nothing, or one that does not tell";
            available("steal", LOST, found.to_owned())
        }
        Ok(Some(stolen)) => {
            let found = format!("{:.2} s on all CPUs since boot", stolen as f64 / 1e9);
            available("steal", LOST, found)
        }
        Ok(None) => missing("steal", LOST, "/proc/stat has no such field".into(), None),
        Err(_) => missing("steal", LOST, "/proc/stat is missing".into(), Some("see proc")),
    }
}

fn topology(facts: &Facts) -> Feature {
    const NAME: &str = "topology";
    const LOST: &str = "Which CPUs share a core, a cache, a node: how far tasks are moved.";
    let (shape, lacking) = match &facts.topology {
        Ok(found) => found,
        Err(why) => {
            let remedy = "mount the host's /sys and name it with --sys-root";
            return missing(NAME, LOST, why.clone(), Some(remedy));
        }
    };
    let state = if lacking.is_empty() { available(NAME, LOST, None) } else { degraded(NAME, LOST, lacking.join("; "), None) };
    Feature { found: Some(shape.to_string()), ..state }
}

fn cgroups(facts: &Facts) -> Feature {
    const LOST: &str = "Names of cgroups, their CPU usage, limits and throttling.";
    let found = match &facts.cgroups {
        Ok(found) => found,
        Err(why) => {
            let remedy = "mount the host's cgroups and name them with --cgroup-root";
            return missing("cgroups", LOST, why.clone(), Some(remedy));
        }
    };
    let state = if found.namespaced {
        let remedy = "give it the host's cgroup namespace (cgroupns: host), or mount the host's tree and use --cgroup-root";
        degraded("cgroups", LOST, "sees only its own cgroup namespace, a part of the tree".into(), Some(remedy))
    } else if let Some(unreadable) = &found.unreadable {
        degraded("cgroups", LOST, format!("cannot be read: {unreadable}"), Some("run as a user who may read them"))
    } else {
        available("cgroups", LOST, None)
    };
    Feature { found: Some(mounts(found)), ..state }
}

fn mounts(found: &Hierarchies) -> String {
    let shown = |path: &Path| escape(path.as_os_str().as_encoded_bytes()).into_owned();
    let places = [("v2", &found.v2), ("v1 cpu", &found.cpu)];
    let places = places.iter().filter_map(|(kind, path)| Some(format!("{kind} at {}", shown(path.as_ref()?))));
    let mut parts: Vec<String> = places.collect();
    parts.push(format!("number of cgroups: {}", found.count));
    parts.join(", ")
}

fn types(facts: &Facts) -> Feature {
    const NAME: &str = "btf";
    match &facts.types {
        Types::Resolved(lacking) if lacking.is_empty() => {
            available(NAME, IN_KERNEL, "every field that the scheduler hook reads".to_owned())
        }
        Types::Resolved(lacking) => {
            let reasons: Vec<String> = lacking.iter().map(|lacking| format!("{}: {}", lacking.missing, lacking.lost)).collect();
            degraded(NAME, IN_KERNEL, reasons.join("; "), None)
        }
        Types::Unreadable(why) => {
            let remedy = "use a kernel built with CONFIG_DEBUG_INFO_BTF=y, or mount the host's /sys and name it with --sys-root";
            missing(NAME, IN_KERNEL, why.clone(), Some(remedy))
        }
        Types::Unusable(why) => {
            let remedy = "use a kernel with CONFIG_SCHED_INFO, CONFIG_FAIR_GROUP_SCHED and CONFIG_CGROUPS";
            missing(NAME, IN_KERNEL, why.clone(), Some(remedy))
        }
    }
}

const GRANT: &str =
    "run as root, or grant CAP_BPF and CAP_PERFMON (AmbientCapabilities= of a systemd unit, securityContext of a pod)";

/// Loading wants CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN, which includes both and is all that kernels before 5.8 know.
fn privileges(facts: &Facts) -> Feature {
    const NAME: &str = "privileges";
    let absent = match absent_capabilities(facts) {
        None => {
            let reason = format!("{} does not tell capabilities", facts.roots.proc.join("self/status").display());
            return degraded(NAME, IN_KERNEL, reason, Some("see --proc-root"));
        }
        Some(absent) => absent.join(" and "),
    };
    if !absent.is_empty() {
        let who = facts.euid.map_or(String::new(), |euid| format!("user {euid} "));
        return missing(NAME, IN_KERNEL, format!("{who}lacks {absent}"), Some(GRANT));
    }
    if facts.user_namespace {
        let reason = "the capabilities are those of a user namespace, which allow no BPF";
        let remedy = "run it in the host's user namespace: no rootless container, no PrivateUsers=, no hostUsers: false";
        return missing(NAME, IN_KERNEL, reason.into(), Some(remedy));
    }
    available(NAME, IN_KERNEL, None)
}

/// What is missing of CAP_BPF and CAP_PERFMON; `None` when the capabilities are unknown.
fn absent_capabilities(facts: &Facts) -> Option<Vec<&'static str>> {
    let bits = facts.capabilities?;
    let needed = if bits & SYS_ADMIN != 0 { &[][..] } else { &[("CAP_BPF", BPF), ("CAP_PERFMON", PERFMON)] };
    Some(needed.iter().filter(|(_, bit)| bits & bit == 0).map(|(name, _)| *name).collect())
}

/// The only row that says it works, because it was tried.
fn programs(facts: &Facts) -> Feature {
    const NAME: &str = "programs";
    match &facts.attempt {
        Attempt::Worked(milliseconds) => {
            let barrier = if facts.membarrier { "" } else { "; no membarrier(2) here, so that each table is read twice" };
            let found = format!("loaded and attached in {milliseconds} ms, and detached again{barrier}");
            available(NAME, IN_KERNEL, found)
        }
        Attempt::NotTried(why) => {
            degraded(NAME, IN_KERNEL, format!("loading was not tried: {why}"), Some("ask again without --no-bpf"))
        }
        Attempt::NotPermitted(why) => missing(NAME, IN_KERNEL, why.clone(), Some(&permission(facts))),
        Attempt::Failed(why) => {
            let remedy = match &facts.types {
                Types::Resolved(_) if facts.confidential => "boot without lockdown=confidentiality",
                Types::Resolved(_) => "please report it with what `observer dump --count 1 --log-level debug` says",
                Types::Unreadable(_) | Types::Unusable(_) => "see btf",
            };
            missing(NAME, IN_KERNEL, why.clone(), Some(remedy))
        }
    }
}

/// Never wholly missing: `/proc` tells most of it.
fn tasks(facts: &Facts) -> Feature {
    const NAME: &str = "tasks";
    const LOST: &str = "Pending waits and migrations of threads and processes, and all of them in milliseconds instead of a slow reading of /proc.";
    let from_proc = |why: &str, remedy| degraded(NAME, LOST, format!("read from /proc: {why}"), Some(remedy));
    match (&facts.attempt, &facts.tasks) {
        (Attempt::Worked(_), Ok(threads)) => available(NAME, LOST, format!("the task iterator told {threads} threads")),
        (Attempt::Worked(_), Err(why)) => from_proc(why, "use a kernel that has BPF task iterators (5.8 and later)"),
        (Attempt::NotTried(why), _) => from_proc(why, "ask again without --no-bpf"),
        (Attempt::NotPermitted(_) | Attempt::Failed(_), _) => from_proc("the programs cannot be loaded", "see programs"),
    }
}

fn migrations(facts: &Facts) -> Feature {
    const LOST: &str = "Dispatches by distance from where the task ran last, migrations by distance and reason.";
    family(facts, "migrations", LOST, &facts.migrations, None)
}

fn allocations(facts: &Facts) -> Feature {
    const LOST: &str =
        "Page allocations by order, migratetype, class and cgroup; stalls in reclaim and compaction, also in the ledger.";
    family(facts, "allocations", LOST, &facts.allocations, None)
}

fn tcp(facts: &Facts) -> Feature {
    const LOST: &str = "Retransmitted segments by flow, peer, cgroup and cause; the kernel's own counters remain.";
    family(facts, "tcp", LOST, &facts.tcp, Some("use a kernel that has bpf_skc_to_tcp_sock (5.9 and later)"))
}

/// Programs that can fail alone: what they lack where they work, or why they do not and what would help then.
fn family(
    facts: &Facts,
    name: &'static str,
    lost: &'static str,
    tried: &Result<Vec<String>, String>,
    remedy: Option<&str>,
) -> Feature {
    match (&facts.attempt, tried) {
        (Attempt::Worked(_), Ok(lacking)) if lacking.is_empty() => {
            available(name, lost, "its programs can be attached".to_owned())
        }
        (Attempt::Worked(_), Ok(lacking)) => degraded(name, lost, lacking.join("; "), None),
        (Attempt::Worked(_), Err(why)) => missing(name, lost, why.clone(), remedy),
        (Attempt::NotTried(why), _) => {
            missing(name, lost, format!("loading was not tried: {why}"), Some("ask again without --no-bpf"))
        }
        (Attempt::NotPermitted(_) | Attempt::Failed(_), _) => {
            missing(name, lost, "the programs cannot be loaded".into(), Some("see programs"))
        }
    }
}

/// What to do when the kernel did not permit it: not always what its answer suggests.
fn permission(facts: &Facts) -> String {
    if facts.user_namespace || absent_capabilities(facts).is_none_or(|absent| !absent.is_empty()) {
        return "see privileges".into();
    }
    let mut causes = Vec::new();
    if let Some(bytes) = facts.memlock {
        causes.push(format!(
            "kernels before 5.11 count tables as locked memory, of which {bytes} bytes are allowed: raise it (LimitMEMLOCK=infinity)"
        ));
    }
    if facts.confidential {
        causes.push("this kernel is locked down: boot without lockdown=confidentiality".to_owned());
    }
    causes.push("a container's seccomp profile or a security module may forbid bpf(): allow it".to_owned());
    format!("the capabilities are there; {}", causes.join("; or "))
}

fn memory(facts: &Facts) -> Feature {
    const NAME: &str = "memory";
    const LOST: &str = "Room in the kernel for what the programs count, while observer runs.";
    match &facts.cpus {
        Ok(cpus) => {
            let kib = |bytes: usize| bytes as f64 / 1024.0;
            let (each, all) = (kib(facts.bytes_per_cpu), kib(facts.bytes_per_cpu * *cpus as usize));
            let flows = kib(facts.bytes_of_flows);
            let found = format!("scheduler tables: {each:.0} KiB × {cpus} CPUs = {all:.0} KiB; TCP flows: {flows:.0} KiB");
            available(NAME, LOST, found)
        }
        Err(why) => {
            missing(NAME, LOST, format!("cannot tell the CPUs: {why}"), Some("mount the host's /sys and name it with --sys-root"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::Roots;
    use crate::collect::bpf::btf::Missing;
    use crate::collect::bpf::offsets::Lacking;
    use crate::collect::support::Scheduler;
    use crate::model::topology::Shape;

    fn facts() -> Facts {
        Facts {
            euid: Some(0),
            capabilities: Some(u64::MAX),
            user_namespace: false,
            memlock: None,
            confidential: false,
            membarrier: true,
            stolen: Ok(Some(0)),
            cgroups: Ok(Hierarchies { v2: Some("/sys/fs/cgroup".into()), count: 42, ..Hierarchies::default() }),
            types: Types::Resolved(Vec::new()),
            topology: Ok((Shape { nodes: Some(1), packages: Some(1), caches: Some(2), cores: Some(4), cpus: 8 }, Vec::new())),
            scheduler: Scheduler::default(),
            cpus: Ok(8),
            bytes_per_cpu: 700 << 10,
            bytes_of_flows: 1536 << 10,
            attempt: Attempt::Worked(31),
            tasks: Ok(1234),
            migrations: Ok(Vec::new()),
            allocations: Ok(Vec::new()),
            tcp: Ok(Vec::new()),
            roots: Roots::default(),
        }
    }

    /// Facts in, the report out: all that is said of each feature, but for the column that is always the same.
    fn report(facts: &Facts) -> String {
        let mut text = String::new();
        for Feature { name, state, found, remedy, .. } in decide(facts) {
            text.push_str(&format!("{name}: {}", state.name()));
            let parts = [("found", found), ("because", state.reason().map(str::to_owned)), ("remedy", remedy)];
            for (label, part) in parts.iter().filter_map(|(label, part)| Some((label, part.as_ref()?))) {
                text.push_str(&format!("\n  {label}: {part}"));
            }
            text.push('\n');
        }
        text
    }

    #[test]
    fn all_is_well() {
        insta::assert_snapshot!(report(&facts()));
    }

    #[test]
    fn an_ordinary_user_on_a_hybrid_host() {
        insta::assert_snapshot!(report(&Facts {
            euid: Some(1000),
            capabilities: Some(PERFMON),
            stolen: Ok(Some(1_234_000_000)),
            cgroups: Ok(Hierarchies {
                v2: Some("/sys/fs/cgroup/unified".into()),
                cpu: Some("/sys/fs/cgroup/cpu,cpuacct".into()),
                count: 7,
                namespaced: false,
                unreadable: Some("/a/cpu.stat: Permission denied".into()),
            }),
            attempt: Attempt::NotPermitted("not permitted to load programs".into()),
            memlock: Some(65536),
            ..facts()
        }));
    }

    #[test]
    fn a_rootless_container() {
        let cgroups = facts().cgroups.map(|found| Hierarchies { namespaced: true, ..found });
        insta::assert_snapshot!(report(&Facts {
            user_namespace: true,
            cgroups,
            attempt: Attempt::NotPermitted("not permitted to load programs".into()),
            ..facts()
        }));
    }

    #[test]
    fn a_kernel_that_lacks_this_and_that() {
        let lacking = Lacking {
            missing: Missing::Member { within: "css_set".into(), name: "subsys".into() },
            lost: "cgroups of the v1 cpu hierarchy are counted as /",
        };
        insta::assert_snapshot!(report(&Facts {
            types: Types::Resolved(vec![lacking]),
            topology: Ok((
                Shape { cores: Some(8), cpus: 8, ..Shape::default() },
                vec!["caches unknown: x".into(), "NUMA nodes unknown: y".into()]
            )),
            stolen: Ok(None),
            membarrier: false,
            ..facts()
        }));
    }

    #[test]
    fn nothing_is_there() {
        insta::assert_snapshot!(report(&Facts {
            euid: None,
            capabilities: None,
            stolen: Err("/proc/stat: No such file or directory".into()),
            cgroups: Err("/sys/fs/cgroup: no cgroup hierarchy of use here".into()),
            types: Types::Unreadable("cannot read /sys/kernel/btf/vmlinux: No such file or directory".into()),
            topology: Err("/sys/devices/system/cpu: No such file or directory".into()),
            cpus: Err("/sys/devices/system/cpu: No such file or directory".into()),
            attempt: Attempt::Failed("cannot tell the CPUs".into()),
            ..facts()
        }));
    }

    /// The reason and the remedy of the programs.
    #[track_caller]
    fn check(facts: &Facts, reason: &str, remedy: &str) {
        let programs = decide(facts).into_iter().find(|feature| feature.name == "programs").unwrap();
        assert_eq!(programs.state.reason(), Some(reason));
        assert!(programs.remedy.as_ref().unwrap().contains(remedy), "{programs:?}");
    }

    #[test]
    fn refused_although_privileged() {
        let refused = || Facts { attempt: Attempt::NotPermitted("no".into()), ..facts() };
        check(&refused(), "no", "seccomp profile");
        check(&Facts { memlock: Some(65536), ..refused() }, "no", "65536 bytes are allowed: raise it (LimitMEMLOCK=infinity)");
        check(&Facts { confidential: true, ..refused() }, "no", "lockdown=confidentiality");
        check(&Facts { attempt: Attempt::Failed("verifier".into()), ..facts() }, "verifier", "report");
        check(&Facts { confidential: true, attempt: Attempt::Failed("verifier".into()), ..facts() }, "verifier", "lockdown");
        check(&Facts { types: Types::Unusable("x".into()), attempt: Attempt::Failed("x".into()), ..facts() }, "x", "see btf");
        check(&Facts { capabilities: None, ..refused() }, "no", "see privileges");
    }

    #[test]
    fn what_was_not_tried_does_not_work() {
        let facts = Facts { attempt: Attempt::NotTried("why"), ..facts() };
        check(&facts, "loading was not tried: why", "--no-bpf");
        assert!(decide(&facts).iter().any(|feature| feature.state != Availability::Available));
    }

    #[test]
    fn the_task_iterator_fails_alone() {
        let facts = Facts { tasks: Err("why".into()), ..facts() };
        let is = |name| decide(&facts).into_iter().find(|feature| feature.name == name).unwrap().state;
        assert_eq!(is("tasks"), Availability::Degraded("read from /proc: why".into()));
        assert_eq!(is("programs"), Availability::Available);
    }

    #[test]
    fn the_tcp_programs_fail_alone() {
        let is = |tcp| {
            let facts = Facts { tcp, ..facts() };
            let find = |name| decide(&facts).into_iter().find(|feature| feature.name == name).unwrap().state;
            assert_eq!(find("programs"), Availability::Available);
            find("tcp")
        };
        assert_eq!(is(Ok(Vec::new())), Availability::Available);
        assert_eq!(is(Ok(vec!["a".into(), "b".into()])), Availability::Degraded("a; b".into()));
        assert_eq!(is(Err("why".into())), Availability::Missing("why".into()));
    }

    #[test]
    fn capabilities() {
        let lacks = |capabilities| {
            let facts = Facts { euid: Some(1000), capabilities: Some(capabilities), ..facts() };
            privileges(&facts).state.reason().map(str::to_owned)
        };
        assert_eq!(lacks(BPF | PERFMON), None);
        assert_eq!(lacks(SYS_ADMIN), None);
        assert_eq!(lacks(BPF).as_deref(), Some("user 1000 lacks CAP_PERFMON"));
        assert_eq!(lacks(0).as_deref(), Some("user 1000 lacks CAP_BPF and CAP_PERFMON"));
    }
}

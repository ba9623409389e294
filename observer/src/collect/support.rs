//! What this machine and these privileges allow: facts are read, then a pure function decides. `observer doctor` shows the result.

use std::path::Path;

use super::Roots;
use crate::model::{Availability, Feature};

/// What can be found out without trying anything. `None` is what could not be read.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Facts {
    /// Effective user (`Uid:` in `/proc/self/status`).
    pub euid: Option<u32>,
    /// Effective capabilities (`CapEff:` there), a bit for each.
    pub capabilities: Option<u64>,
    /// Whether the kernel tells its types: `/sys/kernel/btf/vmlinux`.
    pub btf: bool,
    /// Whether `/proc/stat` can be read.
    pub stat: bool,
    /// What lies below the cgroup root.
    pub cgroups: Cgroups,
    /// The roots, for the sentences.
    pub roots: Roots,
}

/// What lies below the cgroup root, told by its files.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub enum Cgroups {
    /// A v2 hierarchy.
    V2,
    /// v1 mounts with the `cpu` controller, and perhaps a v2 hierarchy beside them.
    V1 {
        /// Whether a v2 hierarchy is mounted at `unified`.
        hybrid: bool,
    },
    /// Nothing known.
    #[default]
    Unreadable,
}

/// `CAP_SYS_ADMIN`, `CAP_PERFMON`, `CAP_BPF`: numbers of linux/capability.h.
const SYS_ADMIN: u64 = 1 << 21;
const PERFMON: u64 = 1 << 38;
const BPF: u64 = 1 << 39;

/// Reads the facts below the roots.
pub fn read(roots: &Roots) -> Facts {
    let status = std::fs::read_to_string(roots.proc.join("self/status")).unwrap_or_default();
    Facts {
        euid: field(&status, "Uid:").and_then(|ids| ids.split_whitespace().nth(1)?.parse().ok()),
        capabilities: field(&status, "CapEff:").and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()),
        btf: roots.sys.join("kernel/btf/vmlinux").exists(),
        stat: std::fs::File::open(roots.proc.join("stat")).is_ok(),
        cgroups: layout(&roots.cgroup),
        roots: roots.clone(),
    }
}

/// What can be done given the facts, the foundations first.
pub fn decide(facts: &Facts) -> Vec<Feature> {
    vec![files(facts), cgroups(facts), btf(facts), privileges(facts)]
}

fn files(facts: &Facts) -> Feature {
    let path = facts.roots.proc.join("stat");
    let (state, remedy) = if facts.stat {
        (Availability::Available, None)
    } else {
        let reason = format!("{} cannot be read", path.display());
        (Availability::Missing(reason), Some("mount the host's /proc and name it with --proc-root".into()))
    };
    Feature { name: "proc", state, lost: "Time by CPU and mode, hypervisor steal, load, memory.", remedy }
}

fn cgroups(facts: &Facts) -> Feature {
    let (state, remedy) = match facts.cgroups {
        Cgroups::V2 | Cgroups::V1 { .. } => (Availability::Available, None),
        Cgroups::Unreadable => {
            let reason = format!("{} holds neither a v2 hierarchy nor v1 mounts with cpu", facts.roots.cgroup.display());
            (Availability::Missing(reason), Some("mount the host's cgroups and name them with --cgroup-root".into()))
        }
    };
    Feature { name: "cgroups", state, lost: "Names of cgroups, their CPU usage, limits and throttling.", remedy }
}

fn btf(facts: &Facts) -> Feature {
    let (state, remedy) = if facts.btf {
        (Availability::Available, None)
    } else {
        let reason = format!("{} does not exist", facts.roots.sys.join("kernel/btf/vmlinux").display());
        (Availability::Missing(reason), Some("use a kernel built with CONFIG_DEBUG_INFO_BTF=y, or mount the host's /sys".into()))
    };
    Feature { name: "btf", state, lost: "Everything measured inside the kernel: run-queue waits and latency, switches.", remedy }
}

/// Loading wants CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN, which includes both and is all that kernels before 5.8 know.
fn privileges(facts: &Facts) -> Feature {
    let grant =
        "run as root, or grant CAP_BPF and CAP_PERFMON (AmbientCapabilities= of a systemd unit, securityContext of a pod)";
    let has = |capability| facts.capabilities.is_some_and(|bits| bits & capability != 0);
    let (state, remedy) = match facts.capabilities {
        None => {
            let reason = format!("{} does not tell capabilities", facts.roots.proc.join("self/status").display());
            (Availability::Degraded(reason), Some("see --proc-root".into()))
        }
        Some(_) if has(SYS_ADMIN) || (has(BPF) && has(PERFMON)) => (Availability::Available, None),
        Some(_) => {
            let absent = [("CAP_BPF", BPF), ("CAP_PERFMON", PERFMON)].into_iter().filter(|(_, bit)| !has(*bit));
            let absent = absent.map(|(name, _)| name).collect::<Vec<_>>().join(" and ");
            let who = facts.euid.map_or(String::new(), |euid| format!("user {euid} "));
            (Availability::Missing(format!("{who}lacks {absent}")), Some(grant.into()))
        }
    };
    Feature {
        name: "privileges",
        state,
        lost: "Everything measured inside the kernel: run-queue waits and latency, switches.",
        remedy,
    }
}

fn layout(root: &Path) -> Cgroups {
    if root.join("cgroup.controllers").exists() {
        Cgroups::V2
    } else if root.join("cpu/cpu.shares").exists() || root.join("cpu,cpuacct/cpu.shares").exists() {
        Cgroups::V1 { hybrid: root.join("unified/cgroup.controllers").exists() }
    } else {
        Cgroups::Unreadable
    }
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            euid: Some(0),
            capabilities: Some(u64::MAX),
            btf: true,
            stat: true,
            cgroups: Cgroups::V2,
            roots: Roots::default(),
        }
    }

    /// Facts in; each feature that is not available, with its reason, out.
    #[track_caller]
    fn check(facts: &Facts, expected: &[&str]) {
        let features = decide(facts);
        let found: Vec<_> =
            features.iter().filter_map(|feature| Some(format!("{}: {}", feature.name, feature.state.reason()?))).collect();
        assert_eq!(found, expected);
        for feature in features {
            assert_eq!(feature.remedy.is_some(), feature.state != Availability::Available, "{}", feature.name);
        }
    }

    #[test]
    fn decisions() {
        check(&facts(), &[]);
        check(&Facts { capabilities: Some(BPF | PERFMON), euid: Some(1000), ..facts() }, &[]);
        check(&Facts { capabilities: Some(SYS_ADMIN), ..facts() }, &[]);
        check(&Facts { capabilities: Some(BPF), euid: Some(1000), ..facts() }, &["privileges: user 1000 lacks CAP_PERFMON"]);
        check(
            &Facts { capabilities: Some(0), euid: Some(1000), ..facts() },
            &["privileges: user 1000 lacks CAP_BPF and CAP_PERFMON"],
        );
        check(&Facts { btf: false, ..facts() }, &["btf: /sys/kernel/btf/vmlinux does not exist"]);
        check(
            &Facts { cgroups: Cgroups::Unreadable, ..facts() },
            &["cgroups: /sys/fs/cgroup holds neither a v2 hierarchy nor v1 mounts with cpu"],
        );
    }

    #[test]
    fn facts_of_a_small_tree() {
        let tree = tempfile::tempdir().unwrap();
        let root = |name: &str| tree.path().join(name);
        let write = |path: &str, text: &str| {
            std::fs::create_dir_all(root(path).parent().unwrap()).unwrap();
            std::fs::write(root(path), text).unwrap();
        };
        let roots = Roots { proc: root("proc"), sys: root("sys"), cgroup: root("cgroup") };
        assert_eq!(read(&roots), Facts { roots: roots.clone(), ..Facts::default() });
        write("proc/self/status", "Name:\tx\nUid:\t1000\t1001\t1000\t1000\nCapEff:\t000000c000000000\n");
        write("proc/stat", "cpu 1\n");
        write("sys/kernel/btf/vmlinux", "");
        write("cgroup/cpu/cpu.shares", "1024\n");
        write("cgroup/unified/cgroup.controllers", "");
        let facts = read(&roots);
        assert_eq!((facts.euid, facts.capabilities), (Some(1001), Some(BPF | PERFMON)));
        assert!(facts.btf && facts.stat);
        assert_eq!(facts.cgroups, Cgroups::V1 { hybrid: true });
        write("cgroup/cgroup.controllers", "");
        assert_eq!(read(&roots).cgroups, Cgroups::V2);
    }
}

//! What is unusual about the machine's scheduler: facts from `/sys`, `/proc` and the root cgroup. [`super::settings()`] says what they mean.

use std::collections::BTreeMap;
use std::path::Path;

use crate::collect::proc::cpulist;
use crate::collect::proc::topology::{Machine, numbered};
use crate::collect::{Roots, tasks};
use crate::model::text::escape;

/// What was found; `None` is what does not exist here or cannot be read. Texts are escaped.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Scheduler {
    /// The BPF scheduler's state (`/sys/kernel/sched_ext/state`): `disabled`, `enabled`, …
    pub extension: Option<String>,
    /// Its name (`root/ops` there).
    pub extension_name: Option<String>,
    /// Whether it has all tasks of the normal class, or only those that asked for it (`switch_all` there).
    pub extension_has_all: Option<bool>,
    /// The kernel's description of its build (`/proc/sys/kernel/version`).
    pub version: Option<String>,
    /// The preemption model in force, in parentheses among those there are (`/sys/kernel/debug/sched/preempt`; only root may read it).
    pub preempt: Option<String>,
    /// Nanoseconds that a task of the fair class is meant to run at a stretch, and whose they are.
    pub slice: Option<Slice>,
    /// Microseconds that real-time tasks may take of each period, −1 without a limit, and the period (`/proc/sys/kernel/sched_rt_*`).
    pub realtime: Option<(i64, u64)>,
    /// Whether sessions are groups (`/proc/sys/kernel/sched_autogroup_enabled`).
    pub autogroup: Option<bool>,
    /// CPUs that the scheduler leaves alone, as a list (`/sys/devices/system/cpu/isolated`); empty where there are none. Whether those of
    /// partitions are among them depends on the kernel.
    pub isolated: Option<String>,
    /// CPUs of isolated cpuset partitions, as a list (`cpuset.cpus.isolated` of the root cgroup).
    pub partitions: Option<String>,
    /// CPUs without a tick while one task runs, as a list (`/sys/devices/system/cpu/nohz_full`).
    pub nohz_full: Option<String>,
    /// Microseconds since boot in which core scheduling kept CPUs idle (`core_sched.force_idle_usec` of the root cgroup).
    pub force_idle: Option<u64>,
    /// Whether cores run several threads at once (`/sys/devices/system/cpu/smt/active`).
    pub smt: Option<bool>,
    /// Who has a say in that (`control` there): `on`, `off`, `forceoff`, `notsupported`, …
    pub smt_control: Option<String>,
    /// Frequencies by policy (`/sys/devices/system/cpu/cpufreq`); `None` without any.
    pub frequencies: Option<Vec<Frequency>>,
    /// Times since boot that heat slowed cores, and packages (`/sys/devices/system/cpu/cpu*/thermal_throttle`).
    pub throttled: Option<(u64, u64)>,
    /// Whether observer is in the machine's first PID namespace; otherwise what that costs.
    pub namespace: Option<Result<(), String>>,
}

/// How long a task of the fair class is meant to run at a stretch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Slice {
    /// Of EEVDF (`base_slice_ns`). Nanoseconds.
    Eevdf(u64),
    /// Of CFS, before 6.6 (`min_granularity_ns`, before 5.13 a sysctl). Nanoseconds.
    Cfs(u64),
}

/// A frequency policy. In kHz.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frequency {
    /// The highest frequency that the hardware has (`cpuinfo_max_freq`).
    pub highest: u64,
    /// The highest that is allowed (`scaling_max_freq`).
    pub allowed: u64,
}

/// Reads the facts below the roots; the root cgroup of the v2 hierarchy is where that one is mounted.
pub fn read(roots: &Roots, machine: Option<&Machine>, root_cgroup: Option<&Path>) -> Scheduler {
    let ext = roots.sys.join("kernel/sched_ext");
    let cpu = roots.sys.join("devices/system/cpu");
    let kernel = roots.proc.join("sys/kernel");
    let in_cgroup = |name: &str| text(&root_cgroup?.join(name));
    Scheduler {
        extension: text(&ext.join("state")),
        extension_name: text(&ext.join("root/ops")),
        extension_has_all: flag(&ext.join("switch_all")),
        version: text(&kernel.join("version")),
        preempt: text(&roots.sys.join("kernel/debug/sched/preempt")),
        slice: slice(roots),
        realtime: number(&kernel.join("sched_rt_runtime_us")).zip(number(&kernel.join("sched_rt_period_us"))),
        autogroup: flag(&kernel.join("sched_autogroup_enabled")),
        isolated: text(&cpu.join("isolated")).and_then(list),
        partitions: in_cgroup("cpuset.cpus.isolated").and_then(list),
        nohz_full: text(&cpu.join("nohz_full")).and_then(list),
        force_idle: root_cgroup.and_then(force_idle),
        smt: flag(&cpu.join("smt/active")),
        smt_control: text(&cpu.join("smt/control")),
        frequencies: frequencies(&cpu.join("cpufreq")),
        throttled: machine.and_then(|machine| throttled(&cpu, machine)),
        namespace: std::fs::read_link(roots.proc.join("self/ns/pid")).ok().map(|_| tasks::in_initial_namespace(roots)),
    }
}

fn force_idle(root_cgroup: &Path) -> Option<u64> {
    let stat = std::fs::read_to_string(root_cgroup.join("cpu.stat")).ok()?;
    stat.lines().find_map(|line| line.strip_prefix("core_sched.force_idle_usec ")?.trim().parse().ok())
}

fn slice(roots: &Roots) -> Option<Slice> {
    let debug = roots.sys.join("kernel/debug/sched");
    let cfs = || number(&debug.join("min_granularity_ns"));
    let older = || number(&roots.proc.join("sys/kernel/sched_min_granularity_ns"));
    number(&debug.join("base_slice_ns")).map(Slice::Eevdf).or_else(|| cfs().or_else(older).map(Slice::Cfs))
}

fn frequencies(policies: &Path) -> Option<Vec<Frequency>> {
    let frequency = |path: &Path| {
        Some(Frequency { highest: number(&path.join("cpuinfo_max_freq"))?, allowed: number(&path.join("scaling_max_freq"))? })
    };
    let known: Vec<_> = numbered(policies, "policy").ok()?.iter().filter_map(|(_, path)| frequency(path)).collect();
    Some(known).filter(|known| !known.is_empty())
}

/// Every CPU of a core tells the core's count, every CPU of a package the package's.
fn throttled(cpu: &Path, machine: &Machine) -> Option<(u64, u64)> {
    let (mut cores, mut packages) = (BTreeMap::new(), BTreeMap::new());
    for (cpu_number, place) in &machine.cpus {
        let folder = cpu.join(format!("cpu{cpu_number}/thermal_throttle"));
        if let Some(count) = number::<u64>(&folder.join("core_throttle_count")) {
            cores.insert(place.core.unwrap_or(*cpu_number), count);
        }
        if let Some(count) = number::<u64>(&folder.join("package_throttle_count")) {
            packages.insert(place.package, count);
        }
    }
    (!cores.is_empty() || !packages.is_empty()).then(|| (cores.values().sum(), packages.values().sum()))
}

/// A file's text without the line's end.
fn text(path: &Path) -> Option<String> {
    let bytes = std::fs::read(path).ok()?;
    Some(escape(bytes.trim_ascii()).into_owned())
}

fn number<T: std::str::FromStr>(path: &Path) -> Option<T> {
    text(path)?.parse().ok()
}

fn flag(path: &Path) -> Option<bool> {
    number::<u8>(path).map(|number| number != 0)
}

/// A list of CPUs as the kernel writes it; of none it writes nothing, or for a mask that it never made `(null)`.
fn list(text: String) -> Option<String> {
    let text = if text == "(null)" { String::new() } else { text };
    cpulist::parse(&text).is_ok().then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::proc::topology;

    /// Files in, facts out.
    fn facts(files: &[(&str, &str)]) -> Scheduler {
        let tree = tempfile::tempdir().unwrap();
        let root = |name: &str| tree.path().join(name);
        for (path, text) in files {
            std::fs::create_dir_all(root(path).parent().unwrap()).unwrap();
            std::fs::write(root(path), text).unwrap();
        }
        let roots = Roots { proc: root("proc"), sys: root("sys"), cgroup: root("cgroup"), ..Roots::default() };
        let machine = topology::read(&roots.sys).ok();
        read(&roots, machine.as_ref(), Some(&roots.cgroup))
    }

    #[test]
    fn nothing_is_there() {
        assert_eq!(facts(&[]), Scheduler::default());
    }

    #[test]
    fn every_file() {
        let found = facts(&[
            ("sys/kernel/sched_ext/state", "enabled\n"),
            ("sys/kernel/sched_ext/switch_all", "1\n"),
            ("sys/kernel/sched_ext/root/ops", "evil\x1b[2J\n"),
            ("proc/sys/kernel/version", "#1 SMP PREEMPT_DYNAMIC\n"),
            ("sys/kernel/debug/sched/preempt", "none voluntary (full) lazy\n"),
            ("sys/kernel/debug/sched/base_slice_ns", "2800000\n"),
            ("proc/sys/kernel/sched_rt_runtime_us", "-1\n"),
            ("proc/sys/kernel/sched_rt_period_us", "1000000\n"),
            ("proc/sys/kernel/sched_autogroup_enabled", "1\n"),
            ("sys/devices/system/cpu/isolated", "2-3\n"),
            ("sys/devices/system/cpu/nohz_full", "  (null)\n"),
            ("cgroup/cpuset.cpus.isolated", "5\n"),
            ("cgroup/cpu.stat", "usage_usec 5\ncore_sched.force_idle_usec 1700\n"),
            ("sys/devices/system/cpu/smt/active", "0\n"),
            ("sys/devices/system/cpu/smt/control", "forceoff\n"),
            ("sys/devices/system/cpu/cpufreq/policy0/cpuinfo_max_freq", "3600000\n"),
            ("sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq", "1200000\n"),
            ("sys/devices/system/cpu/cpufreq/boost", "1\n"),
            // Two threads of a core and another core, in one package.
            ("sys/devices/system/cpu/cpu0/topology/core_cpus_list", "0,4\n"),
            ("sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count", "7\n"),
            ("sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count", "30\n"),
            ("sys/devices/system/cpu/cpu4/topology/core_cpus_list", "0,4\n"),
            ("sys/devices/system/cpu/cpu4/thermal_throttle/core_throttle_count", "7\n"),
            ("sys/devices/system/cpu/cpu4/thermal_throttle/package_throttle_count", "30\n"),
            ("sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count", "1\n"),
        ]);
        let expected = Scheduler {
            extension: Some("enabled".into()),
            extension_name: Some(r"evil\x1b[2J".into()),
            extension_has_all: Some(true),
            version: Some("#1 SMP PREEMPT_DYNAMIC".into()),
            preempt: Some("none voluntary (full) lazy".into()),
            slice: Some(Slice::Eevdf(2_800_000)),
            realtime: Some((-1, 1_000_000)),
            autogroup: Some(true),
            isolated: Some("2-3".into()),
            partitions: Some("5".into()),
            nohz_full: Some(String::new()),
            force_idle: Some(1_700),
            smt: Some(false),
            smt_control: Some("forceoff".into()),
            frequencies: Some(vec![Frequency { highest: 3_600_000, allowed: 1_200_000 }]),
            throttled: Some((8, 30)),
            namespace: None,
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn nonsense_is_unknown() {
        let found = facts(&[
            ("sys/devices/system/cpu/isolated", "all\n"),
            ("sys/devices/system/cpu/smt/active", "maybe\n"),
            ("proc/sys/kernel/sched_rt_runtime_us", "950000\n"),
            ("cgroup/cpu.stat", "core_sched.force_idle_usec x\n"),
            ("sys/devices/system/cpu/cpufreq/policy0/cpuinfo_max_freq", "fast\n"),
        ]);
        assert_eq!(found, Scheduler::default());
    }

    #[test]
    fn slices_of_older_kernels() {
        let of = |path: &str| facts(&[(path, "3000000\n")]).slice;
        assert_eq!(of("sys/kernel/debug/sched/min_granularity_ns"), Some(Slice::Cfs(3_000_000)));
        assert_eq!(of("proc/sys/kernel/sched_min_granularity_ns"), Some(Slice::Cfs(3_000_000)));
    }

    #[test]
    fn the_pid_namespace() {
        let tree = tempfile::tempdir().unwrap();
        let roots = Roots { proc: tree.path().into(), sys: tree.path().into(), cgroup: tree.path().into(), ..Roots::default() };
        std::fs::create_dir_all(tree.path().join("self/ns")).unwrap();
        let link = tree.path().join("self/ns/pid");
        let of = |target: &str| {
            let _ = std::fs::remove_file(&link);
            std::os::unix::fs::symlink(target, &link).unwrap();
            read(&roots, None, None).namespace
        };
        assert_eq!(of("pid:[4026531836]"), Some(Ok(())));
        assert!(of("pid:[4026532445]").unwrap().unwrap_err().contains("hostPID"));
    }
}

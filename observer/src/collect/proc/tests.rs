//! Every file of every fixture host, with all that is expected of it.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::*;
use crate::model::cpu::Time;

const HOSTS: [&str; 4] = ["v2-server", "v1-host", "hybrid-host", "container"];

fn roots(host: &str) -> Roots {
    let host = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(host);
    Roots { proc: host.join("proc"), sys: host.join("sys"), cgroup: host.join("cgroup"), host }
}

/// A line for each fact; times in ticks.
fn facts(host: &str) -> String {
    let roots = roots(host);
    let mut proc = Proc::with_ticks(&roots, 100);
    let mut out = String::new();
    let stat = proc.stat().unwrap();
    writeln!(out, "{} up {} ns, load {:?}", proc.host_name().unwrap(), proc.uptime().unwrap(), proc.load().unwrap()).unwrap();
    writeln!(out, "{:?}", proc.memory().unwrap()).unwrap();
    writeln!(out, "switches {:?}, {:?}", stat.context_switches, stat.tasks).unwrap();
    let machine = topology::read(&roots.sys).unwrap();
    assert!(machine.problem.is_none(), "{:?}", machine.problem);
    writeln!(out, "online {:?}, listed {:?}", machine.online, machine.cpus.keys()).unwrap();
    for (number, time) in &stat.cpus {
        let place = machine.place(*number);
        let Time { user, nice, system, idle, iowait, interrupt, steal } = *time;
        let ticks = [user, nice, system, idle, iowait, interrupt, steal].map(|time| show(time.map(|time| time as f64 / 1e7)));
        let [core, llc, node] = [place.core, place.llc, place.node].map(show);
        writeln!(out, "cpu{number} core {core} llc {llc} node {node}: {}", ticks.join(" ")).unwrap();
    }
    out
}

fn show(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| value.to_string())
}

#[test]
fn hosts() {
    insta::assert_snapshot!(HOSTS.map(facts).join("\n"));
}

#[test]
fn problems_name_the_file() {
    let root = tempfile::tempdir().unwrap();
    let mut proc = Proc::with_ticks(&Roots { proc: root.path().into(), ..Roots::default() }, 100);
    assert_eq!(
        proc.stat().unwrap_err().to_string(),
        format!("{}/stat: No such file or directory (os error 2)", root.path().display())
    );
    std::fs::write(root.path().join("stat"), "cpu0 1 2 3 4\nctxt x\n").unwrap();
    assert_eq!(proc.stat().unwrap_err().to_string(), format!(r#"{}/stat: expected a number, found "x""#, root.path().display()));
    std::fs::write(root.path().join("stat"), b"cpu0 \xff").unwrap();
    assert!(proc.stat().unwrap_err().to_string().contains("/stat: invalid utf-8"));
}

#[test]
fn hostile_host_names_are_escaped() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("sys/kernel")).unwrap();
    std::fs::write(root.path().join("sys/kernel/hostname"), b"a\x1b[2J\xff\n").unwrap();
    let mut proc = Proc::with_ticks(&Roots { proc: root.path().into(), ..Roots::default() }, 100);
    assert_eq!(proc.host_name().unwrap(), r"a\x1b[2J\xff");
}

#[test]
fn a_broken_topology_leaves_the_rest() {
    let root = tempfile::tempdir().unwrap();
    assert!(topology::read(root.path()).unwrap_err().is_missing());
    let cpu = root.path().join("devices/system/cpu");
    for (file, text) in [
        ("cpu0/topology/core_cpus_list", "nonsense"),
        ("cpu0/cache/index0/level", "2"),
        ("cpu0/cache/index0/shared_cpu_list", "0-1"),
        ("cpu0/cache/index1/level", "three"),
        ("cpufreq/policy0", ""),
        ("cpu+1/x", ""),
    ] {
        let path = cpu.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let machine = topology::read(root.path()).unwrap();
    assert_eq!(machine.cpus.keys().collect::<Vec<_>>(), [&0]);
    assert_eq!((machine.place(0).core, machine.place(0).llc, machine.online), (None, Some(0), None));
    let problem = machine.problem.unwrap().to_string();
    assert!(problem.ends_with(r#"core_cpus_list: expected an ascending list of CPUs, found "nonsense""#), "{problem}");
}

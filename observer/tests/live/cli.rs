//! The program itself, as root and as an ordinary user.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use observer::model::State;
use rustix::process::{Resource, Rlimit, setrlimit};
use serde_json::Value as Json;

use super::Test;
use super::cgroups::{TestCgroup, cpu_root, v2_root};
use super::health::attached;
use super::launcher::Launcher;
use super::program::{Dumping, NOBODY, PublicCopy, kill, objects, observer, printed};

/// All tests of the program.
pub(crate) fn trials() -> Vec<Test> {
    vec![
        ("cli::root_measures", root_measures),
        ("cli::nobody_reads_files_and_is_told_the_rest", nobody_reads_files_and_is_told_the_rest),
        ("cli::two_capabilities_are_enough", two_capabilities_are_enough),
        ("cli::hostile_names_stay_text", hostile_names_stay_text),
        ("cli::several_instances_agree", several_instances_agree),
    ]
}

const TWO_OBJECTS: &str = "dump --format json --interval 200ms --count 2";

/// A hierarchy whose cgroups have rows of their own, on any machine.
fn hierarchy() -> Result<PathBuf, String> {
    v2_root().or_else(cpu_root).ok_or("no cgroup hierarchy is mounted".into())
}

/// A load in a cgroup; whatever is left of it ends with this.
struct Load {
    workers: Vec<u32>,
    launcher: Launcher,
}

impl Load {
    fn start(directory: &Path, roles: &[&str]) -> Result<Load, String> {
        let mut load = Load { workers: Vec::new(), launcher: Launcher::start(directory, None)? };
        for role in roles {
            load.workers.push(load.launcher.work(role)?);
        }
        Ok(load)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // The launcher has not waited for them, so that these pids are still theirs.
        for pid in &self.workers {
            let _ = kill(*pid);
        }
        let _ = self.launcher.reap();
    }
}

// ---- What the objects say ----

fn array<'a>(object: &'a Json, key: &str) -> Result<&'a Vec<Json>, String> {
    object[key].as_array().ok_or(format!("no list {key}"))
}

fn health<'a>(object: &'a Json, source: &str) -> Result<&'a Json, String> {
    array(object, "health")?.iter().find(|row| row["source"] == source).ok_or(format!("no health of {source}"))
}

fn expect_state(object: &Json, source: &str, state: &str) -> Result<(), String> {
    let health = health(object, source)?;
    if health["state"] == state { Ok(()) } else { Err(format!("not {state}: {health}")) }
}

/// The hook is on, as far as this kernel has what it needs.
fn expect_attached(object: &Json) -> Result<(), String> {
    let (state, reason) = match attached()? {
        State::Degraded(why) => ("degraded", Json::from(why)),
        _ => ("on", Json::Null),
    };
    let health = health(object, "sched")?;
    if health["state"] == state && health["reason"] == reason { Ok(()) } else { Err(format!("not {state}: {health}")) }
}

fn rows<'a>(object: &'a Json, entity: &str) -> Result<Vec<&'a Json>, String> {
    Ok(array(object, "rows")?.iter().filter(|row| row["entity"] == entity).collect())
}

fn cgroup<'a>(object: &'a Json, path: &str) -> Result<&'a Json, String> {
    rows(object, "cgroup")?.into_iter().find(|row| row["labels"]["cgroup"] == path).ok_or(format!("no row of {path}"))
}

fn points<'a>(row: &'a Json, name: &str) -> Result<Vec<&'a Json>, String> {
    Ok(array(row, "metrics")?.iter().filter(|point| point["name"] == name).collect())
}

fn point<'a>(row: &'a Json, name: &str) -> Result<&'a Json, String> {
    points(row, name)?.first().copied().ok_or(format!("{} has no {name}", row["labels"]))
}

/// The waits of a row: how many, and seconds. The histogram and the counter must tell the same.
fn waits(row: &Json) -> Result<(u64, f64), String> {
    let latency = point(row, "observer.cpu.run_queue.latency")?;
    let count = latency["count"].as_u64().ok_or(format!("no count: {latency}"))?;
    let in_buckets: u64 = array(latency, "buckets")?.iter().filter_map(|bucket| bucket[1].as_u64()).sum();
    let wait = point(row, "observer.cpu.run_queue.wait.time")?;
    if count != in_buckets || latency["sum"] != wait["value"] {
        return Err(format!("{count} waits, {in_buckets} in buckets; {wait}; {latency}"));
    }
    Ok((count, wait["value"].as_f64().ok_or(format!("no value: {wait}"))?))
}

// ---- The tests ----

/// Counts are on; every row's histogram agrees with its counter; rates are there, and those of a load are not 0.
fn root_measures() -> Result<String, String> {
    let test = TestCgroup::new(&hierarchy()?, "dump").map_err(|error| error.to_string())?;
    let load = Load::start(test.directory(), &["mix 600000", "mix 600000"])?;
    let objects = objects(observer(TWO_OBJECTS))?;
    drop(load);
    let [_, second] = &objects[..] else { return Err(format!("{} objects", objects.len())) };
    for object in &objects {
        expect_attached(object)?;
        for row in rows(object, "cgroup")? {
            waits(row)?;
        }
    }
    let row = cgroup(second, &test.path())?;
    if row["labels"]["id"].as_u64() != Some(test.id().map_err(|error| error.to_string())?) {
        return Err(format!("not the id of the directory: {}", row["labels"]));
    }
    let (count, seconds) = waits(row)?;
    for name in ["observer.cpu.run.time", "observer.cpu.run_queue.wait.time", "observer.sched.runs", "observer.sched.switches"] {
        for point in points(row, name)? {
            point["rate"].as_f64().ok_or(format!("no rate: {point}"))?;
        }
    }
    let runs = &point(row, "observer.sched.runs")?["rate"];
    if count == 0 || runs.as_f64().is_none_or(|rate| rate <= 0.0) {
        return Err(format!("{count} waits, {runs} runs a second of a load that always runs"));
    }
    let usage = points(rows(second, "cpu")?[0], "system.cpu.time")?;
    if usage.is_empty() || usage.iter().any(|point| point["rate"].is_null()) {
        return Err(format!("no rates of CPU time: {usage:?}"));
    }
    Ok(format!("{count} waits of {seconds:.3} s in two intervals; {} cgroups", rows(second, "cgroup")?.len()))
}

/// Without privileges: what files tell is there, what they do not is named, and nothing is a failure.
fn nobody_reads_files_and_is_told_the_rest() -> Result<String, String> {
    let copy = PublicCopy::new()?;
    let objects = objects(copy.as_nobody(TWO_OBJECTS))?;
    let second = objects.get(1).ok_or("no second object")?;
    expect_state(second, "sched", "off")?;
    let names = |text: &str| text.contains("CAP_BPF") && text.contains("CAP_PERFMON");
    let health = health(second, "sched")?;
    if !health["reason"].as_str().is_some_and(names) {
        return Err(format!("the reason does not name the capabilities: {health}"));
    }
    for (entity, metric) in [("cpu", "system.cpu.time"), ("cgroup", "observer.cgroup.cpu.time")] {
        let rows = rows(second, entity)?;
        let told = rows.iter().filter(|row| points(row, metric).is_ok_and(|points| !points.is_empty())).count();
        if told == 0 {
            return Err(format!("none of {} rows of {entity} has {metric}", rows.len()));
        }
    }
    let doctor = String::from_utf8_lossy(&printed(copy.as_nobody("doctor"))?).into_owned();
    if !names(&doctor) || !doctor.contains("To get it: ") {
        return Err(format!("doctor does not say what to grant: {doctor}"));
    }
    let doctor: Json =
        serde_json::from_slice(&printed(copy.as_nobody("doctor --format json"))?).map_err(|error| error.to_string())?;
    let privileges = array(&doctor, "features")?.iter().find(|feature| feature["feature"] == "privileges");
    let privileges = privileges.ok_or(format!("no privileges in {doctor}"))?;
    if privileges["state"] != "missing" || !names(&privileges["remedy"].to_string()) {
        return Err(format!("doctor says {privileges}"));
    }
    Ok(format!("{health}"))
}

/// Exactly CAP_BPF and CAP_PERFMON, as an ordinary user.
fn two_capabilities_are_enough() -> Result<String, String> {
    if Command::new("setpriv").arg("--version").output().is_err() {
        return Ok("not exercised: there is no setpriv (util-linux) here".into());
    }
    // Before 5.11 maps count as locked memory; a service has LimitMEMLOCK=. Where we may not raise it, it hardly matters.
    let _ = setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None });
    let copy = PublicCopy::new()?;
    let starter = capable(&copy)?;
    let starter: Vec<&str> = starter.iter().map(String::as_str).collect();
    let objects = objects(copy.through(&starter, TWO_OBJECTS))?;
    let second = objects.get(1).ok_or("no second object")?;
    expect_attached(second)?;
    let (count, _) = waits(cgroup(second, "/")?)?;
    let doctor = printed(copy.through(&starter, "doctor --format json"))?;
    let doctor: Json = serde_json::from_slice(&doctor).map_err(|error| error.to_string())?;
    let programs = array(&doctor, "features")?.iter().find(|feature| feature["feature"] == "programs");
    if programs.is_none_or(|programs| programs["state"] != "available") {
        return Err(format!("doctor could not load them: {doctor}"));
    }
    if count == 0 { Err("no waits on the whole machine".into()) } else { Ok(format!("on; {count} waits on the machine")) }
}

/// The call of setpriv that starts the program as nobody with the two capabilities and can get no other.
fn capable(copy: &PublicCopy) -> Result<Vec<String>, String> {
    let mut refused = String::new();
    // Numbers for a setpriv that is older than these capabilities.
    for set in ["-all,+bpf,+perfmon", "-all,+cap_39,+cap_38"] {
        let mut starter = vec!["setpriv".to_owned(), format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")];
        starter.extend(["--clear-groups", "--no-new-privs"].map(str::to_owned));
        starter.extend(["--inh-caps=", "--ambient-caps=", "--bounding-set="].map(|which| format!("{which}{set}")));
        match printed(copy.through(&starter.iter().map(String::as_str).collect::<Vec<_>>(), "--version")) {
            Ok(_) => return Ok(starter),
            Err(why) => refused = why,
        }
    }
    Err(refused)
}

/// What an attacker may call a cgroup; the kernel itself refuses a newline, and cuts nothing else out.
const HOSTILE: &[u8] = b"a\x1b]0;boo\x07\x1b[2J\xff\xfe\xc2\x9bz";

/// Names with escape sequences and bytes that are not UTF-8, of a cgroup and of the process in it.
fn hostile_names_stay_text() -> Result<String, String> {
    let test = TestCgroup::new(&hierarchy()?, "hostile").map_err(|error| error.to_string())?;
    if fs::create_dir(test.directory().join("a\nb")).is_ok() {
        return Err("this kernel takes newlines in names of cgroups: add one to the test".into());
    }
    let inner = test.directory().join(OsStr::from_bytes(HOSTILE));
    fs::create_dir(&inner).map_err(|error| format!("cannot make {}: {error}", inner.display()))?;
    // The hostile directory cannot be told to a launcher, whose arguments are text.
    let load = Load::start(test.directory(), &["hostile 600000"])?;
    for pid in &load.workers {
        fs::write(inner.join("cgroup.procs"), pid.to_string()).map_err(|error| error.to_string())?;
    }
    let json = printed(observer(TWO_OBJECTS))?;
    let table = printed(observer("dump --interval 200ms --count 1"))?;
    drop(load);
    for (name, bytes) in [("json", &json), ("table", &table)] {
        let text = std::str::from_utf8(bytes).map_err(|error| format!("{name} is not UTF-8: {error}"))?;
        if let Some(c) = text.chars().find(|c| c.is_control() && *c != '\n') {
            return Err(format!("{name} has {c:?}"));
        }
    }
    let expected = format!(r"{}/a\x1b]0;boo\x07\x1b[2J\xff\xfe\xc2\x9bz", test.path());
    let json = String::from_utf8_lossy(&json).into_owned();
    for line in json.lines() {
        let object: Json = serde_json::from_str(line).map_err(|error| error.to_string())?;
        // JSON can hide a control character in an escape of its own.
        if let Some(text) = texts(&object).into_iter().find(|text| text.chars().any(char::is_control)) {
            return Err(format!("a string of the json has a control character: {text:?}"));
        }
        cgroup(&object, &expected)?;
    }
    if !String::from_utf8_lossy(&table).contains(&expected) {
        return Err(format!("the table has no {expected}"));
    }
    Ok(expected)
}

/// Every string in it, keys included.
fn texts(value: &Json) -> Vec<&str> {
    match value {
        Json::String(text) => vec![text],
        Json::Array(values) => values.iter().flat_map(texts).collect(),
        Json::Object(map) => map.iter().flat_map(|(key, value)| [vec![key.as_str()], texts(value)].concat()).collect(),
        Json::Null | Json::Bool(_) | Json::Number(_) => Vec::new(),
    }
}

/// Two at once, each with programs of its own: of a load that began and ended while both looked on, both say the same.
fn several_instances_agree() -> Result<String, String> {
    let test = TestCgroup::new(&hierarchy()?, "twice").map_err(|error| error.to_string())?;
    let mut launcher = Launcher::start(test.directory(), None)?;
    let mut dumps = [Dumping::start("--interval 100ms")?, Dumping::start("--interval 130ms")?];
    for dump in &mut dumps {
        expect_attached(&dump.next()?)?;
    }
    for pid in [launcher.work("mix 1000")?, launcher.work("spin 500")?, launcher.work("mix 1000")?] {
        launcher.finished(pid)?;
    }
    launcher.quiet()?;
    let ended = jiff::Timestamp::now();
    let mut told = Vec::new();
    let mut dropped = 0;
    for dump in &mut dumps {
        let object = loop {
            let object = dump.next()?;
            let time = object["time"].as_str().unwrap_or_default();
            if time.parse::<jiff::Timestamp>().map_err(|error| format!("{time}: {error}"))? > ended {
                break object;
            }
        };
        expect_attached(&object)?;
        dropped += health(&object, "sched")?["dropped"].as_u64().unwrap_or(u64::MAX);
        let row = cgroup(&object, &test.path())?;
        let (count, seconds) = waits(row)?;
        let values =
            ["observer.cpu.run.time", "observer.sched.runs"].map(|name| point(row, name).map(|point| point["value"].clone()));
        let [run, runs] = values;
        told.push((count, seconds, run?, runs?));
    }
    for dump in dumps {
        dump.end()?;
    }
    launcher.reap()?;
    // A switch that the kernel reports to neither is missing in both; one that it reports to one only is told as dropped.
    if told[0] != told[1] || told[0].0 == 0 {
        return Err(format!("they differ ({dropped} dropped): {told:?}"));
    }
    let (count, seconds, run, runs) = &told[0];
    Ok(format!("both: {runs} runs of {run} s, {count} waits of {seconds} s"))
}

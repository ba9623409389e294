//! The program from outside: what it prints, on which stream, with which exit status.
#![allow(clippy::unwrap_used, reason = "clippy exempts test functions, not the helpers beside them; all of this file is test")]

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value as Json;

fn observer(line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_observer"));
    command.args(line.split_whitespace()).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("OBSERVER_") || text.starts_with("OTEL_") || text == "COLUMNS" {
            command.env_remove(&name);
        }
    }
    command
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

/// Runs, expects success and an empty standard error, and gives what was printed.
#[track_caller]
fn printed(line: &str) -> String {
    let output = observer(line).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{line}: {output:?}");
    stdout(&output).to_owned()
}

/// Runs, expects that it is refused as bad usage, with one line that holds all of `parts`.
#[track_caller]
fn refused(command: &mut Command, parts: &[&str]) {
    let output = command.output().unwrap();
    let message = std::str::from_utf8(&output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(message.starts_with("observer: error: ") && message.trim_end().lines().count() == 1, "{message}");
    assert!(output.stdout.is_empty(), "{output:?}");
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

#[test]
fn help() {
    insta::assert_snapshot!("help", printed("--help"));
    for command in ["tui", "export", "dump", "doctor", "metrics", "config", "completions", "man"] {
        insta::assert_snapshot!(format!("help_{command}"), printed(&format!("{command} --help")));
    }
    assert!(printed("--version").starts_with("observer "));
}

#[test]
fn bad_usage() {
    refused(&mut observer(""), &["no terminal", "observer dump", "observer export"]);
    refused(&mut observer("tui"), &["terminal", "observer dump"]);
    refused(&mut observer("--nonsense"), &["--nonsense", "--help"]);
    refused(&mut observer("nonsense"), &["nonsense"]);
    refused(&mut observer("dump --cuont 1"), &["--cuont", "--count"]);
    refused(&mut observer("dump --count 0"), &["--count"]);
    refused(
        &mut observer("dump --entity pod"),
        &["--entity", "host, cpu, cgroup, objective, contention, memory, tcp_flow, netns, process, thread, source"],
    );
    refused(&mut observer("dump --cgroup a.slice"), &["--cgroup", "a.slice", "/system.slice"]);
    refused(&mut observer("dump --interval 1"), &["--interval", "200ms"]);
    refused(&mut observer("dump --interval 1ms"), &["--interval", "10ms to 10m"]);
    refused(&mut observer("dump --interval -1s"), &["--interval", "-1s"]);
    refused(&mut observer("dump --log-level loud"), &["--log-level", "error, warn, info, debug, trace"]);
    refused(observer("dump").env("OBSERVER_INTERVAL", "1h"), &["OBSERVER_INTERVAL", "10ms to 10m"]);
    refused(&mut observer("config"), &["--print-default", "--check"]);
    refused(&mut observer("completions tcsh"), &["bash", "zsh"]);
    refused(&mut observer("man nonsense"), &["nonsense"]);
}

#[test]
fn configuration_files() {
    let folder = tempfile::tempdir().unwrap();
    let file = |text: &str| {
        let path = folder.path().join("observer.toml");
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let config = |text: &str| observer(&format!("config --check --config {}", file(text)));
    refused(&mut observer("config --check --config /nonexistent/x.toml"), &["/nonexistent/x.toml", "No such file", "--config"]);
    refused(observer("config --check").env("OBSERVER_CONFIG", "/nonexistent/y.toml"), &["/nonexistent/y.toml"]);
    refused(&mut config("bpf = true\ninterval = "), &["observer.toml:2:", "not TOML"]);
    refused(&mut config("\n[roots]\nprco = '/p'"), &["observer.toml:3:", "roots.prco", "roots.proc"]);
    refused(&mut config("interval = 5"), &["observer.toml:1:", "a string", "an integer"]);
    refused(&mut config("[export]\nprotocol = 'smoke'"), &["observer.toml:2:", "grpc, http/protobuf"]);
    refused(&mut observer(&format!("dump --config {}", file("bpf = 1"))), &["observer.toml:1:"]);

    let foreign = |line: &str| {
        let mut command = observer(line);
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4317");
        command
    };
    refused(&mut foreign("config --check"), &["OTEL_EXPORTER_OTLP_ENDPOINT", "http://host:port"]);
    assert!(foreign("doctor").output().unwrap().status.success(), "what does not export does not mind");

    let ok = config("interval = '2s'").output().unwrap();
    assert!(ok.status.success() && stdout(&ok).starts_with("ok: ") && stdout(&ok).contains("observer.toml"), "{ok:?}");
    let path = file(&printed("config --print-default"));
    assert!(printed(&format!("config --check --config {path}")).starts_with("ok: "));
}

/// The objects that `observer dump --format json` prints with these flags.
#[track_caller]
fn dumped(flags: &str) -> Vec<Json> {
    let text = printed(&format!("dump --no-bpf --interval 20ms --format json {flags}"));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn dump_keeps_the_contract() {
    let objects = dumped("--count 2");
    assert_eq!(objects.len(), 2);
    for object in objects {
        for key in ["time", "start", "interval", "host", "rows", "events", "health"] {
            assert!(object.get(key).is_some(), "{key}");
        }
        let interval = object["interval"].as_f64().unwrap();
        assert!((0.001..10.0).contains(&interval), "{interval}");
        assert!(object["time"].as_str().unwrap().ends_with('Z'));
        assert_eq!(object["events"], Json::Array(Vec::new()));
        object["rows"].as_array().unwrap().iter().for_each(check_row);
        for source in object["health"].as_array().unwrap() {
            assert!(source["source"].is_string() && source["dropped"].is_u64(), "{source}");
            assert!(["on", "degraded", "off"].contains(&source["state"].as_str().unwrap()), "{source}");
        }
    }
}

fn check_row(row: &Json) {
    assert!(row["entity"].is_string() && row["labels"].is_object(), "{row}");
    for point in row["metrics"].as_array().unwrap() {
        assert!(point["name"].is_string() && point["attributes"].is_object(), "{point}");
        assert!(["value", "text", "count"].iter().any(|key| point.get(*key).is_some()), "{point}");
    }
}

#[test]
fn dump_is_narrowed() {
    let kinds = |flags: &str| -> Vec<String> {
        let objects = dumped(&format!("--count 1 {flags}"));
        objects[0]["rows"].as_array().unwrap().iter().map(|row| row["entity"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(kinds("--entity host"), ["host"]);
    assert!(kinds("--cgroup /").iter().all(|kind| ["cgroup", "process"].contains(&kind.as_str())));
    assert!(!kinds("").iter().any(|kind| kind == "thread"), "they are many: only for who asks");
    assert!(kinds("--entity thread").iter().all(|kind| kind == "thread"));
}

#[test]
fn dump_is_readable_as_a_table() {
    let text = printed("dump --no-bpf --interval 20ms --count 1 --entity host");
    assert!(text.contains("\nHOST") && text.contains("interval "), "{text}");
}

#[test]
fn empty_roots_degrade_and_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_str().unwrap();
    let objects = dumped(&format!("--count 1 --proc-root {root} --sys-root {root} --cgroup-root {root}"));
    for source in objects[0]["health"].as_array().unwrap() {
        if source["state"] != "on" {
            let reason = source["reason"].as_str().unwrap();
            assert!(reason.len() > 10 && !reason.contains("panicked"), "{source}");
        }
    }
    let doctor: Json = serde_json::from_str(&printed(&format!("doctor --format json --proc-root {root}"))).unwrap();
    let proc = doctor["features"].as_array().unwrap().iter().find(|feature| feature["feature"] == "proc").unwrap();
    assert_eq!(proc["state"], "missing");
    assert!(
        proc["reason"].as_str().unwrap().contains(root) && proc["remedy"].as_str().unwrap().contains("--proc-root"),
        "{proc}"
    );
}

#[test]
fn catalogue_and_doctor() {
    let metrics: Json = serde_json::from_str(&printed("metrics --format json")).unwrap();
    assert!(metrics.as_array().unwrap().iter().any(|metric| metric["name"] == "observer.cpu.run_queue.wait.time"));
    assert!(printed("metrics").contains("observer.cpu.run_queue.wait.time"));
    assert!(printed("metrics --format markdown").starts_with("# Metrics\n"));
    assert!(printed("doctor").starts_with("FEATURE"));
}

#[test]
fn completions_and_manual() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        assert!(printed(&format!("completions {shell}")).contains("dump"), "{shell}");
    }
    assert!(printed("man").contains(".TH observer"));
    assert!(printed("man dump").contains(".TH observer-dump"));
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let mut command = observer("dump --no-bpf --interval 10ms --format json");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.ends_with("}\n"));
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[track_caller]
fn ends_well(mut child: std::process::Child, signal: &str) {
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_signal_ends_it_well() {
    for (signal, format) in [("-INT", "json"), ("-TERM", "table")] {
        let mut command = observer(&format!("dump --no-bpf --interval 10ms --format {format}"));
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut reader = BufReader::new(child.stdout.take().unwrap());
        reader.read_line(&mut String::new()).unwrap();
        ends_well(child, signal);
    }
}

#[test]
fn a_signal_is_heard_while_nobody_reads() {
    // The pipe is full before the first snapshot, so that its write blocks.
    let (_reader, mut writer) = std::io::pipe().unwrap();
    let full = writer.try_clone().unwrap();
    std::thread::spawn(move || std::io::Write::write_all(&mut writer, &[b'x'; 1 << 20]));
    std::thread::sleep(Duration::from_millis(300));
    let child = observer("dump --no-bpf --interval 10ms").stdout(full).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    ends_well(child, "-TERM");
}

#[test]
fn a_log_file_that_cannot_be_written_is_a_failure() {
    let output = observer("dump --no-bpf --count 1 --log-file /nonexistent/log").output().unwrap();
    let message = std::str::from_utf8(&output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(message.starts_with("observer: error: cannot write the log file /nonexistent/log"), "{message}");
}

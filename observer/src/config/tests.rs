use super::*;

/// Flags, environment and file in; the settings that differ from the default, or the message, out.
#[track_caller]
fn check(flags: &[(&'static str, &str)], env: &[(&str, &str)], file: &str, expected: &str) {
    let flags: Vec<_> = flags.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
    let lookup = |name: &str| env.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    let file = (!file.is_empty()).then(|| File { path: "f.toml".into(), text: file.into() });
    let found = match resolve(&flags, &lookup, file.as_ref()) {
        Ok(config) => difference(&config),
        Err(error) => error.to_string(),
    };
    assert_eq!(found, expected);
}

fn difference(config: &Config) -> String {
    let default = Config::default();
    let changed = SETTINGS.iter().filter(|setting| (setting.show)(config) != (setting.show)(&default));
    changed.map(|setting| format!("{}={}", setting.key, (setting.show)(config).unwrap())).collect::<Vec<_>>().join(" ")
}

#[test]
fn flag_before_environment_before_file_before_default() {
    check(&[], &[], "", "");
    check(&[], &[], "interval = '2s'", "interval=2s");
    check(&[], &[("OBSERVER_INTERVAL", "3s")], "interval = '2s'", "interval=3s");
    check(&[("interval", "4s")], &[("OBSERVER_INTERVAL", "3s")], "interval = '2s'", "interval=4s");
    check(&[("bpf", "false")], &[], "", "bpf=false");
    check(&[], &[("OBSERVER_BPF", "true")], "bpf = false", "");
    check(&[], &[("OBSERVER_BPF", "")], "bpf = false", "bpf=false");
    check(
        &[("roots.proc", "/host/proc")],
        &[("OBSERVER_SYS_ROOT", "/host/sys"), ("OBSERVER_HOST_ROOT", "/host")],
        "",
        "roots.proc=/host/proc roots.sys=/host/sys roots.host=/host",
    );
    check(&[], &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:1")], "export.endpoint = 'http://b:2'", "export.endpoint=http://a:1");
    check(&[], &[], "[log]\nlevel = 'debug'\nfile = '/l'\n[tui]\nplain = true", "log.level=debug log.file=/l tui.plain=true");
    check(&[], &[], "[export]\nprotocol = 'http/protobuf'", "export.protocol=http/protobuf");
}

#[test]
fn durations() {
    let check = |value: &str, expected: &str| check(&[("interval", value)], &[], "", expected);
    check("200ms", "interval=200ms");
    check("10ms", "interval=10ms");
    check("10m", "interval=10m");
    check("1", r#"--interval: "1" is not a duration: write a number and a unit, as in 200ms, 1s or 2m"#);
    check("-1s", r#"--interval: "-1s" is not a duration: write a number and a unit, as in 200ms, 1s or 2m"#);
    check("", r#"--interval: "" is not a duration: write a number and a unit, as in 200ms, 1s or 2m"#);
    check("9ms", r#"--interval: "9ms" is out of bounds: choose an interval from 10ms to 10m"#);
    check("601s", r#"--interval: "601s" is out of bounds: choose an interval from 10ms to 10m"#);
    check(
        "99999999999999999999s",
        r#"--interval: "99999999999999999999s" is not a duration: write a number and a unit, as in 200ms, 1s or 2m"#,
    );
}

#[test]
fn events() {
    let burst = |value: &str, expected: &str| check(&[("events.retransmits", value)], &[], "", expected);
    burst("5 in 10s", "");
    burst("20 in 1m", "events.retransmits=20 in 1m");
    burst("0 in 500ms", "events.retransmits=0 in 500ms");
    for wrong in ["5", "5 in", "-1 in 10s", "5 in 10", "in 10s", ""] {
        burst(wrong, &format!("--event-retransmits: {wrong:?} is not a number within a time: write it as 5 in 10s"));
    }
    burst("5 in 0s", r#"--event-retransmits: "5 in 0s" is out of bounds: choose a time of up to 10m"#);
    burst("5 in 1h", r#"--event-retransmits: "5 in 1h" is out of bounds: choose a time of up to 10m"#);
    let stall = |value: &str, expected: &str| check(&[("events.stall", value)], &[], "", expected);
    stall("1s", "events.stall=1s");
    stall("19ms", r#"--event-stall: "19ms" is too short: the kernel side tells of stalls of 20ms or longer"#);
    stall("long", r#"--event-stall: "long" is not a duration: write a number and a unit, as in 200ms, 1s or 2m"#);
}

#[test]
fn the_kubelet() {
    let check = |value: &str, expected: &str| check(&[("names.kubelet", value)], &[], "", expected);
    check("http://127.0.0.1:10255", "names.kubelet=http://127.0.0.1:10255");
    check("http://[::1]:10255/", "names.kubelet=http://[::1]:10255/");
    for wrong in ["https://127.0.0.1:10250", "127.0.0.1:10255", "http://node", "http://:1", "http://a:99999", "http://a/b:1", ""]
    {
        check(wrong, &format!("--kubelet: {wrong:?} is not a URL of a plain port: write it as http://127.0.0.1:10255"));
    }
}

#[test]
fn objectives_in_words() {
    let check = |value: &str, expected: &str| check(&[("objective", value)], &[], "", expected);
    check("/a.slice 1ms for 99.9%", "objective=/a.slice 1ms for 99.9% in 1h");
    check(
        "nginx: worker 250us for 99% in 1d; / 2s for 50.25%",
        "objective=nginx: worker 250us for 99% in 1day; / 2s for 50.25% in 1h",
    );
    check("/a b/ 1ms for 99.9% in 10s", "objective=/a b 1ms for 99.9% in 10s");
    for wrong in ["", "/a", "/a 1ms", "/a 1ms for", "1ms for 99%"] {
        check(
            wrong,
            &format!(
                "--objective: {wrong:?} is not an objective: write it as /a.slice 1ms for 99.9% in 1h, or with a command's name for the path"
            ),
        );
    }
    let refused = |value: &str, expected: &str| check(value, &format!("--objective: {value:?} is wrong: {expected}"));
    refused("/a 1 for 99%", r#"wait: "1" is not a duration: write a number and a unit, as in 200ms, 1s or 2m"#);
    refused("/a 999ns for 99%", r#"wait: "999ns" is out of bounds: choose a wait from 1us to 128s"#);
    refused("/a 129s for 99%", r#"wait: "129s" is out of bounds: choose a wait from 1us to 128s"#);
    for share in ["99", "100%", "0%", "0.0000%", "99.99999%", "-1%", "9e1%", ".5%", "1.%", "0.999", "%"] {
        let problem = "is not a share: write a percentage between 0% and 100% with at most four decimals, as in 99.9%";
        refused(&format!("/a 1ms for {share}"), &format!("share: {share:?} {problem}"));
    }
    refused("/a 1ms for 99% in 1s", r#"window: "1s" is out of bounds: choose a window from 10s to 30d"#);
    refused(
        "a name of sixteen 1ms for 99%",
        r#"command: "a name of sixteen" is longer than what the kernel keeps of a name: write its first 15 bytes"#,
    );
    check(
        "/a 1ms for 99%; /a 1ms for 50%",
        r#"--objective: "/a 1ms for 99%; /a 1ms for 50%" has two objectives named "/a 1ms": give each a name of its own in the file"#,
    );
    let many = vec!["/a 1ms for 99%"; 65].join(";");
    check(&many, &format!("--objective: {many:?} has more than 64 objectives"));
}

#[test]
fn objectives_in_the_file() {
    let check = |file: &str, expected: &str| check(&[], &[], file, expected);
    let one = "[[objective]]\ncgroup = '/a/*'\nwait = '1ms'\nshare = '99.9%'\n";
    check(one, "objective=/a/* 1ms for 99.9% in 1h");
    check(
        &format!("{one}[[objective]]\ncommand = 'nginx'\nwait = '5ms'\nshare = '99%'\nwindow = '1d'\n[tui]\nplain = true"),
        "objective=/a/* 1ms for 99.9% in 1h; nginx 5ms for 99% in 1day tui.plain=true",
    );
    check(
        &format!("{one}name = 'x'\n{one}name = 'x'"),
        r#"f.toml:1: objective: has two objectives named "x": give each a name of its own in the file"#,
    );
    check(
        &format!("{one}name = \"\\u001b[2J\""),
        r#"f.toml:5: objective.name: "\u{1b}[2J" has a control character: write it as observer shows it"#,
    );
    check(&format!("{one}wiat = '1ms'"), "f.toml:5: unknown key objective.wiat: did you mean objective.wait?");
    check(
        &format!("{one}command = 'x'"),
        "f.toml:5: objective.command: is one too many beside cgroup: an objective has one of them",
    );
    check(&format!("{one}window = 1"), r#"f.toml:5: objective.window must be a string such as "1h""#);
    check("[[objective]]\nwait = '1ms'", "f.toml:1: objective.cgroup: is missing, and so is command: name one of them");
    check("bpf = true\n[[objective]]\ncgroup = '/a'\nshare = '9%'", r#"f.toml:2: objective.wait: is missing: write it as "1ms""#);
    check(
        "[[objective]]\ncgroup = 'a'\nwait = '1ms'\nshare = '9%'",
        r#"f.toml:2: objective.cgroup: "a" is not a path from the root of a hierarchy: write it as /system.slice/nginx.service"#,
    );
    check("[objective]\ncgroup = '/a'", "f.toml:1: objective must be tables that begin with [[objective]], found a table");
    check("objective = ['/a']", "f.toml:1: objective must be tables: begin each with [[objective]]");
    let named = File { path: "f.toml".into(), text: format!("{one}name = 'api'") };
    let config = resolve(&[], &|_| None, Some(&named)).unwrap();
    assert_eq!(config.objectives[0].name, "api");
    flags_go_before_the_file(one);
}

/// Flags go before the file's, all together.
fn flags_go_before_the_file(file: &str) {
    check(&[("objective", "/b 2ms for 9%")], &[("OBSERVER_OBJECTIVE", "/c 2ms for 9%")], file, "objective=/b 2ms for 9% in 1h");
    check(&[], &[("OBSERVER_OBJECTIVE", "/c 2ms for 9%")], file, "objective=/c 2ms for 9% in 1h");
}

#[test]
fn what_the_environment_gets_wrong() {
    check(&[], &[("OBSERVER_BPF", "no")], "", r#"OBSERVER_BPF: "no" is neither true nor false"#);
    check(
        &[],
        &[("OBSERVER_LOG_LEVEL", "loud")],
        "",
        r#"OBSERVER_LOG_LEVEL: "loud" is unknown: choose one of error, warn, info, debug, trace"#,
    );
    check(
        &[],
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4317")],
        "",
        r#"OTEL_EXPORTER_OTLP_ENDPOINT: "localhost:4317" is not a URL: write it as http://host:port or https://host:port"#,
    );
}

#[test]
fn what_the_file_gets_wrong() {
    let check = |file: &str, expected: &str| check(&[], &[], file, expected);
    check("# x\n\nintervall = '1s'", "f.toml:3: unknown key intervall: did you mean interval?");
    check("[roots]\nprox = '/p'", "f.toml:2: unknown key roots.prox: did you mean roots.proc?");
    check("[root]\nproc = '/p'", "f.toml:1: unknown key root: did you mean roots?");
    check("level = 'info'", "f.toml:1: unknown key level: did you mean log.level?");
    check("interval = 5", r#"f.toml:1: interval must be a string such as "1s", found an integer"#);
    check("\nbpf = 'yes'", "f.toml:2: bpf must be true or false, found a string");
    check("roots = true", "f.toml:1: roots must be a table, found true or false");
    check("interval = '1h'", r#"f.toml:1: interval: "1h" is out of bounds: choose an interval from 10ms to 10m"#);
    check("[roots]\nproc = ''", r#"f.toml:2: roots.proc: "" is empty: name a path"#);
}

#[test]
fn what_is_not_toml_names_its_line() {
    let file = File { path: "f.toml".into(), text: "bpf = true\ninterval = \n".into() };
    let message = resolve(&[], &|_| None, Some(&file)).unwrap_err().to_string();
    assert!(message.starts_with("f.toml:2: not TOML: "), "{message}");
    assert!(!message.contains('\n'), "{message}");
}

#[test]
fn the_printed_default_is_the_default() {
    let text = print_default();
    let file = File { path: "default".into(), text: text.clone() };
    assert_eq!(resolve(&[], &|_| None, Some(&file)), Ok(Config::default()));
    for setting in SETTINGS {
        assert!(text.contains(setting.flag) && text.contains(setting.env) && text.contains(setting.help), "{}", setting.key);
    }
    let uncommented = text
        .replace("# kubelet =", "kubelet =")
        .replace("# file =", "file =")
        .replace("# endpoint =", "endpoint =")
        .replace("# protocol =", "protocol =");
    let uncommented = ["[[objective]]", "cgroup =", "wait =", "share =", "window ="]
        .iter()
        .fold(uncommented, |text, line| text.replace(&format!("# {line}"), line));
    let file = File { path: "examples".into(), text: uncommented };
    let config = resolve(&[], &|_| None, Some(&file)).unwrap();
    assert!(
        config.kubelet.is_some()
            && config.objectives.len() == 1
            && config.log.file.is_some()
            && config.export.endpoint.is_some()
            && config.export.protocol.is_some(),
        "the commented examples are valid, too"
    );
}

#[test]
fn a_named_file_must_exist() {
    let message = File::read(Some("/nonexistent/observer.toml".as_ref())).unwrap_err().to_string();
    assert!(message.contains("/nonexistent/observer.toml") && message.contains("--config"), "{message}");
}

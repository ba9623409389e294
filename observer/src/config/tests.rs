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
    let file = File { path: "examples".into(), text: uncommented };
    let config = resolve(&[], &|_| None, Some(&file)).unwrap();
    assert!(
        config.kubelet.is_some()
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

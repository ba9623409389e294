//! The configuration: flag before environment before file before default.
//!
//! Every setting is stated once, in [`SETTINGS`]: its key in the file, its flag, its variable, its meaning, how it is read and shown.
//! The three layers write through the same function, so they accept the same words and refuse them with the same sentence.

mod file;
mod objectives;

use std::path::PathBuf;
use std::time::Duration;

pub use file::{DEFAULT_FILE, File};

use crate::collect::Roots;
use crate::findings::{Burst, Thresholds};
use crate::model::objective::Slo;

/// What observer was asked to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Time between two snapshots.
    pub interval: Duration,
    /// Whether programs are attached to the kernel.
    pub bpf: bool,
    /// Where the system's files are.
    pub roots: Roots,
    /// URL at which the kubelet tells of its pods; it is not asked without one.
    pub kubelet: Option<String>,
    /// From when on something is an event.
    pub events: Thresholds,
    /// Latency objectives, each with a name of its own.
    pub objectives: Vec<Slo>,
    /// observer's own log.
    pub log: Log,
    /// `observer export`.
    pub export: Export,
    /// The dashboard.
    pub tui: Tui,
}

/// observer's own log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Log {
    /// What is written.
    pub level: Level,
    /// Where to; standard error without one, and nowhere while the dashboard has the terminal.
    pub file: Option<PathBuf>,
}

/// How much is logged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Level {
    /// What failed.
    Error,
    /// What is missing or lost.
    Warn,
    /// What began and ended.
    Info,
    /// For a bug report.
    Debug,
    /// Everything.
    Trace,
}

impl Level {
    /// All levels, the quietest first.
    pub const ALL: [Level; 5] = [Level::Error, Level::Warn, Level::Info, Level::Debug, Level::Trace];

    /// The word of the command line and the file.
    pub fn name(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
            Level::Trace => "trace",
        }
    }
}

/// Where `observer export` sends to. What OpenTelemetry's other variables (`OTEL_*`) say is read where it is used.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Export {
    /// URL of the receiver; without one, the protocol's default port on this machine.
    pub endpoint: Option<String>,
    /// How to speak to it; without one, gRPC on port 4317 and `http/protobuf` elsewhere.
    pub protocol: Option<Protocol>,
}

/// The transports of OTLP, named as OpenTelemetry names them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// `grpc`.
    Grpc,
    /// `http/protobuf`.
    Http,
}

impl Protocol {
    /// All protocols.
    pub const ALL: [Protocol; 2] = [Protocol::Grpc, Protocol::Http];

    /// The word of OpenTelemetry.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Grpc => "grpc",
            Protocol::Http => "http/protobuf",
        }
    }
}

/// How the dashboard looks.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Tui {
    /// ASCII and no colour.
    pub plain: bool,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            interval: Duration::from_secs(1),
            bpf: true,
            roots: Roots::default(),
            kubelet: None,
            events: Thresholds::default(),
            objectives: Vec::new(),
            log: Log { level: Level::Warn, file: None },
            export: Export::default(),
            tui: Tui::default(),
        }
    }
}

/// What a value in the file is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// A string, with one that is right.
    Text(&'static str),
    /// `true` or `false`.
    Switch,
    /// Tables with these keys and values that are right; elsewhere their words in one line.
    Tables(&'static [(&'static str, &'static str)]),
}

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// Its key in the file, with its table: `roots.proc`.
    pub key: &'static str,
    /// Its flag.
    pub flag: &'static str,
    /// Its environment variable.
    pub env: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// What its value is.
    pub form: Form,
    /// Reads it; the error completes the sentence "VALUE: …".
    set: fn(&mut Config, &str) -> Result<(), String>,
    /// Shows it; `None` when it is not set.
    show: fn(&Config) -> Option<String>,
}

/// All settings, in the order of the printed file: those without a table first.
pub static SETTINGS: &[Setting] = &[
    Setting {
        key: "interval",
        flag: "--interval",
        env: "OBSERVER_INTERVAL",
        help: "Time between two snapshots: 10ms to 10m.",
        form: Form::Text("1s"),
        set: |config, value| duration(value).map(|interval| config.interval = interval),
        show: |config| Some(humantime::format_duration(config.interval).to_string()),
    },
    Setting {
        key: "bpf",
        flag: "--no-bpf",
        env: "OBSERVER_BPF",
        help: "Attach programs to the kernel; without them /proc and cgroup files alone are read.",
        form: Form::Switch,
        set: |config, value| switch(value).map(|on| config.bpf = on),
        show: |config| Some(config.bpf.to_string()),
    },
    Setting {
        key: "objective",
        flag: "--objective",
        env: "OBSERVER_OBJECTIVE",
        help: "A latency objective: this share of the dispatches of a cgroup (* for any characters but a slash), or instead of a command, \
               waits no longer for a CPU; what may wait longer is the budget of the window.",
        form: Form::Tables(objectives::KEYS),
        set: |config, value| objectives::words(value).map(|slos| config.objectives = slos),
        show: |config| objectives::show(&config.objectives),
    },
    Setting {
        key: "roots.proc",
        flag: "--proc-root",
        env: "OBSERVER_PROC_ROOT",
        help: "Where /proc is: in a container, where the host's is mounted.",
        form: Form::Text("/proc"),
        set: |config, value| folder(value).map(|path| config.roots.proc = path),
        show: |config| Some(config.roots.proc.display().to_string()),
    },
    Setting {
        key: "roots.sys",
        flag: "--sys-root",
        env: "OBSERVER_SYS_ROOT",
        help: "Where /sys is.",
        form: Form::Text("/sys"),
        set: |config, value| folder(value).map(|path| config.roots.sys = path),
        show: |config| Some(config.roots.sys.display().to_string()),
    },
    Setting {
        key: "roots.cgroup",
        flag: "--cgroup-root",
        env: "OBSERVER_CGROUP_ROOT",
        help: "Where the cgroups are: the root of a v2 hierarchy or the folder of v1 mounts.",
        form: Form::Text("/sys/fs/cgroup"),
        set: |config, value| folder(value).map(|path| config.roots.cgroup = path),
        show: |config| Some(config.roots.cgroup.display().to_string()),
    },
    Setting {
        key: "roots.host",
        flag: "--host-root",
        env: "OBSERVER_HOST_ROOT",
        help: "Where the host's / is: container runtimes keep the names of containers below it.",
        form: Form::Text("/"),
        set: |config, value| folder(value).map(|path| config.roots.host = path),
        show: |config| Some(config.roots.host.display().to_string()),
    },
    Setting {
        key: "names.kubelet",
        flag: "--kubelet",
        env: "OBSERVER_NAMES_KUBELET",
        help: "URL of the kubelet's read-only port, which tells init containers and sidecars apart; not asked without.",
        form: Form::Text("http://127.0.0.1:10255"),
        set: |config, value| kubelet(value).map(|url| config.kubelet = Some(url)),
        show: |config| config.kubelet.clone(),
    },
    Setting {
        key: "events.retransmits",
        flag: "--event-retransmits",
        env: "OBSERVER_EVENTS_RETRANSMITS",
        help: "A TCP flow that sends more segments again than so many within a time is an event.",
        form: Form::Text("5 in 10s"),
        set: |config, value| burst(value).map(|burst| config.events.burst = burst),
        show: |config| {
            let Burst { count, within } = config.events.burst;
            Some(format!("{count} in {}", humantime::format_duration(within)))
        },
    },
    Setting {
        key: "events.stall",
        flag: "--event-stall",
        env: "OBSERVER_EVENTS_STALL",
        help: "A task that is stalled for so long in the page allocator is an event: 20ms or longer.",
        form: Form::Text("100ms"),
        set: |config, value| stall(value).map(|stall| config.events.stall = stall),
        show: |config| Some(humantime::format_duration(config.events.stall).to_string()),
    },
    Setting {
        key: "log.level",
        flag: "--log-level",
        env: "OBSERVER_LOG_LEVEL",
        help: "How much observer says about itself: error, warn, info, debug or trace.",
        form: Form::Text("warn"),
        set: |config, value| word(value, &Level::ALL, Level::name).map(|level| config.log.level = level),
        show: |config| Some(config.log.level.name().into()),
    },
    Setting {
        key: "log.file",
        flag: "--log-file",
        env: "OBSERVER_LOG_FILE",
        help: "Where it says so; without, standard error, and nowhere while the dashboard has the terminal.",
        form: Form::Text("/var/log/observer.log"),
        set: |config, value| folder(value).map(|path| config.log.file = Some(path)),
        show: |config| Some(config.log.file.as_ref()?.display().to_string()),
    },
    Setting {
        key: "export.endpoint",
        flag: "--endpoint",
        env: "OTEL_EXPORTER_OTLP_ENDPOINT",
        help: "URL of the OTLP receiver; without, port 4318 (http/protobuf) or 4317 (grpc) of this machine.",
        form: Form::Text("http://localhost:4318"),
        set: |config, value| url(value).map(|url| config.export.endpoint = Some(url)),
        show: |config| config.export.endpoint.clone(),
    },
    Setting {
        key: "export.protocol",
        flag: "--protocol",
        env: "OTEL_EXPORTER_OTLP_PROTOCOL",
        help: "How to speak to it: http/protobuf or grpc; without, grpc on port 4317 and http/protobuf elsewhere.",
        form: Form::Text("http/protobuf"),
        set: |config, value| word(value, &Protocol::ALL, Protocol::name).map(|protocol| config.export.protocol = Some(protocol)),
        show: |config| Some(config.export.protocol?.name().into()),
    },
    Setting {
        key: "tui.plain",
        flag: "--plain",
        env: "OBSERVER_PLAIN",
        help: "The dashboard in ASCII and without colour.",
        form: Form::Switch,
        set: |config, value| switch(value).map(|on| config.tui.plain = on),
        show: |config| Some(config.tui.plain.to_string()),
    },
];

/// Why a configuration is refused: it names the flag, the variable, or the file and line, and says what to do.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
pub enum Error {
    /// A value that its setting does not take, from a flag or a variable.
    #[error("{origin}: {value:?} {problem}")]
    Value {
        /// Flag or variable.
        origin: &'static str,
        /// What it held.
        value: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Something in the file.
    #[error("{path}:{line}: {problem}")]
    Line {
        /// The file.
        path: String,
        /// Line, counted from 1.
        line: usize,
        /// What is wrong there.
        problem: String,
    },
    /// The file itself.
    #[error("cannot read the configuration file {path}: {reason}; name an existing one with --config, or leave the flag out")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system said.
        reason: String,
    },
}

/// The configuration that flags (key and value), environment and file together ask for.
///
/// An empty variable counts as absent, as OpenTelemetry has it. Every layer is checked, also where a higher one overrides it: a typing
/// error in the file does not wait for the day when the flag is gone.
pub fn resolve(
    flags: &[(&'static str, String)],
    env: &dyn Fn(&str) -> Option<String>,
    file: Option<&File>,
) -> Result<Config, Error> {
    let mut config = Config::default();
    if let Some(file) = file {
        file::apply(&mut config, file)?;
    }
    for setting in SETTINGS {
        if let Some(value) = env(setting.env).filter(|value| !value.is_empty()) {
            (setting.set)(&mut config, &value).map_err(|problem| Error::Value { origin: setting.env, value, problem })?;
        }
    }
    for setting in SETTINGS {
        for (_, value) in flags.iter().filter(|(key, _)| *key == setting.key) {
            let refused = |problem| Error::Value { origin: setting.flag, value: value.clone(), problem };
            (setting.set)(&mut config, value).map_err(refused)?;
        }
    }
    Ok(config)
}

/// A commented file that says what is so without one.
pub fn print_default() -> String {
    let config = Config::default();
    let mut text = String::from("# observer's configuration. A flag and an environment variable go before what stands here.\n");
    let mut table = "";
    for setting in SETTINGS {
        let (of, name) = setting.key.rsplit_once('.').unwrap_or(("", setting.key));
        if of != table {
            text.push_str(&format!("\n[{of}]\n"));
            table = of;
        } else {
            text.push('\n');
        }
        text.push_str(&format!("# {} ({}, {})\n", setting.help, setting.flag, setting.env));
        let value = |value: String| match setting.form {
            Form::Text(_) | Form::Tables(_) => toml::Value::String(value).to_string(),
            Form::Switch => value,
        };
        match ((setting.show)(&config), setting.form) {
            (_, Form::Tables(keys)) => {
                text.push_str(&format!("# [[{name}]]\n"));
                keys.iter().for_each(|(key, example)| text.push_str(&format!("# {key} = {}\n", value((*example).into()))));
            }
            (Some(shown), _) => text.push_str(&format!("{name} = {}\n", value(shown))),
            (None, Form::Text(example)) => text.push_str(&format!("# {name} = {}\n", value(example.into()))),
            (None, Form::Switch) => {}
        }
    }
    text
}

const SHORTEST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(600);

fn duration(value: &str) -> Result<Duration, String> {
    bounded(any_duration(value)?)
}

fn any_duration(value: &str) -> Result<Duration, String> {
    humantime::parse_duration(value).map_err(|_| "is not a duration: write a number and a unit, as in 200ms, 1s or 2m".to_owned())
}

fn burst(value: &str) -> Result<Burst, String> {
    let wrong = || "is not a number within a time: write it as 5 in 10s".to_owned();
    let (count, within) = value.split_once(" in ").ok_or_else(wrong)?;
    let count = count.trim().parse().map_err(|_| wrong())?;
    let within = any_duration(within.trim()).map_err(|_| wrong())?;
    if within > LONGEST || within.is_zero() {
        return Err("is out of bounds: choose a time of up to 10m".into());
    }
    Ok(Burst { count, within })
}

fn stall(value: &str) -> Result<Duration, String> {
    let stall = any_duration(value)?;
    if stall < Thresholds::SHORTEST_STALL {
        return Err("is too short: the kernel side tells of stalls of 20ms or longer".into());
    }
    Ok(stall)
}

/// An interval that observer can keep; the error completes the sentence "VALUE: …".
pub fn bounded(interval: Duration) -> Result<Duration, String> {
    if (SHORTEST..=LONGEST).contains(&interval) {
        Ok(interval)
    } else {
        Err("is out of bounds: choose an interval from 10ms to 10m".into())
    }
}

fn switch(value: &str) -> Result<bool, String> {
    match value {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err("is neither true nor false".into()),
    }
}

fn folder(value: &str) -> Result<PathBuf, String> {
    if value.is_empty() { Err("is empty: name a path".into()) } else { Ok(value.into()) }
}

/// One that can be asked without TLS, by its root.
fn kubelet(value: &str) -> Result<String, String> {
    let place = value.strip_prefix("http://").map(|place| place.trim_end_matches('/'));
    let is_place = |place: &str| {
        let (host, port) = place.rsplit_once(':')?;
        (!host.is_empty() && !place.contains(['/', '@', ' ']) && port.parse::<u16>().is_ok()).then_some(())
    };
    match place.and_then(is_place) {
        Some(()) => Ok(value.to_owned()),
        None => Err("is not a URL of a plain port: write it as http://127.0.0.1:10255".into()),
    }
}

fn url(value: &str) -> Result<String, String> {
    let (scheme, rest) = value.split_once("://").unwrap_or_default();
    let has_host = ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) && !rest.is_empty();
    if has_host { Ok(value.into()) } else { Err("is not a URL: write it as http://host:port or https://host:port".into()) }
}

fn word<T: Copy>(value: &str, all: &[T], name: fn(T) -> &'static str) -> Result<T, String> {
    all.iter().copied().find(|one| name(*one) == value).ok_or_else(|| {
        let names: Vec<_> = all.iter().copied().map(name).collect();
        format!("is unknown: choose one of {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests;

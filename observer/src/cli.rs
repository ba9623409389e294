//! The command line: what can be said. [`crate::config`] decides what it means together with the environment and the file.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::config::{Level, Protocol};
use crate::model::Kind;

/// Who stole my CPU time? What slows a service down although its CPU usage looks fine: measured in the kernel for every cgroup at once.
///
/// Without a command, observer opens the dashboard.
///
/// Exit status: 0 done, 1 failed, 2 bad usage or configuration.
#[derive(Parser, Debug)]
#[command(name = "observer", version, disable_help_subcommand = true, max_term_width = 100, infer_long_args = false)]
pub struct Cli {
    /// What every command understands.
    #[command(flatten)]
    pub shared: Shared,
    /// What to do; the dashboard without one.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What every command understands.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Shared options")]
pub struct Shared {
    /// Read this configuration file instead of /etc/observer/config.toml [env: OBSERVER_CONFIG]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Time between two snapshots: 200ms, 1s, 2m [env: OBSERVER_INTERVAL] [default: 1s]
    #[arg(long, global = true, value_name = "DURATION", allow_hyphen_values = true)]
    pub interval: Option<String>,
    /// Attach nothing to the kernel: read /proc and cgroup files alone [env: OBSERVER_BPF=false]
    #[arg(long, global = true)]
    pub no_bpf: bool,
    /// A latency objective, of a cgroup's path or a command's name: "/a.slice 1ms for 99.9% in 1h". Several are allowed, and go before
    /// those of the file [env: OBSERVER_OBJECTIVE, with ; between two]
    #[arg(long, global = true, value_name = "WHOSE WAIT for SHARE [in WINDOW]", allow_hyphen_values = true)]
    pub objective: Vec<String>,
    /// Where /proc is [env: OBSERVER_PROC_ROOT] [default: /proc]
    #[arg(long, global = true, value_name = "DIR")]
    pub proc_root: Option<String>,
    /// Where /sys is [env: OBSERVER_SYS_ROOT] [default: /sys]
    #[arg(long, global = true, value_name = "DIR")]
    pub sys_root: Option<String>,
    /// Where the cgroups are [env: OBSERVER_CGROUP_ROOT] [default: /sys/fs/cgroup]
    #[arg(long, global = true, value_name = "DIR")]
    pub cgroup_root: Option<String>,
    /// Where the host's / is, for the names of containers [env: OBSERVER_HOST_ROOT] [default: /]
    #[arg(long, global = true, value_name = "DIR")]
    pub host_root: Option<String>,
    /// Ask the kubelet for init containers and sidecars: http://127.0.0.1:10255 [env: OBSERVER_NAMES_KUBELET]
    #[arg(long, global = true, value_name = "URL")]
    pub kubelet: Option<String>,
    /// A TCP flow that sends more segments again than this is an event [env: OBSERVER_EVENTS_RETRANSMITS] [default: 5 in 10s]
    #[arg(long, global = true, value_name = "COUNT in DURATION", allow_hyphen_values = true)]
    pub event_retransmits: Option<String>,
    /// A task stalled for so long in the page allocator is an event [env: OBSERVER_EVENTS_STALL] [default: 100ms]
    #[arg(long, global = true, value_name = "DURATION", allow_hyphen_values = true)]
    pub event_stall: Option<String>,
    /// How much observer says about itself [env: OBSERVER_LOG_LEVEL] [default: warn]
    #[arg(long, global = true, value_name = "LEVEL", value_parser = PossibleValuesParser::new(Level::ALL.map(Level::name)))]
    pub log_level: Option<String>,
    /// Where it says so, instead of standard error [env: OBSERVER_LOG_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub log_file: Option<String>,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Open the dashboard; the default on a terminal
    Tui(Tui),
    /// Send everything to an OpenTelemetry receiver until stopped
    Export(Export),
    /// Write snapshots to standard output, one after each interval
    Dump(Dump),
    /// Say what this kernel and these privileges allow, and what is lost without the rest
    Doctor(Doctor),
    /// List every metric: name, meaning, unit
    Metrics(Metrics),
    /// Print or check the configuration file
    Config(ConfigAction),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, in roff
    Man {
        /// Of this command instead of observer as a whole
        command: Option<String>,
    },
}

/// `observer tui`.
#[derive(Args, Debug, Default)]
pub struct Tui {
    /// ASCII and no colour [env: OBSERVER_PLAIN=true]
    #[arg(long)]
    pub plain: bool,
}

/// `observer export`.
#[derive(Args, Debug)]
pub struct Export {
    /// Where the receiver listens [env: OTEL_EXPORTER_OTLP_ENDPOINT] [default: port 4318, or 4317 for grpc, of this machine]
    #[arg(long, value_name = "URL")]
    pub endpoint: Option<String>,
    /// How to speak to it [env: OTEL_EXPORTER_OTLP_PROTOCOL] [default: http/protobuf]
    #[arg(long, value_parser = PossibleValuesParser::new(Protocol::ALL.map(Protocol::name)))]
    pub protocol: Option<String>,
}

/// `observer dump`.
#[derive(Args, Debug)]
pub struct Dump {
    /// A table to read, or one JSON object for each snapshot, each on its line
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// End after so many snapshots; without, when stopped
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Only rows of this kind; without it those of all kinds but threads
    #[arg(long, value_name = "KIND", value_parser = PossibleValuesParser::new(Kind::ALL.map(Kind::name)))]
    pub entity: Option<String>,
    /// Only rows of exactly this cgroup, without its descendants: its path from the root of its hierarchy. Pairs of victim and
    /// culprit stay when it is either of them, and are told apart by process
    #[arg(long, value_name = "PATH")]
    pub cgroup: Option<String>,
}

/// For people or for scripts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Format {
    /// Aligned columns.
    Table,
    /// The stable interface.
    Json,
}

/// `observer doctor`.
#[derive(Args, Debug)]
pub struct Doctor {
    /// A table to read, or one JSON object
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
}

/// `observer metrics`.
#[derive(Args, Debug)]
pub struct Metrics {
    /// A table to read, a JSON array, or the page docs/METRICS.md
    #[arg(long, value_enum, default_value_t = MetricsFormat::Table)]
    pub format: MetricsFormat,
}

/// How the catalogue is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum MetricsFormat {
    /// Aligned columns.
    Table,
    /// An array of objects.
    Json,
    /// docs/METRICS.md.
    Markdown,
}

/// `observer config`.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub struct ConfigAction {
    /// Print a commented file that says what is so without one
    #[arg(long)]
    pub print_default: bool,
    /// Check the file, the environment and the flags, and say so
    #[arg(long)]
    pub check: bool,
}

impl Cli {
    /// The settings that were given as flags: key of [`crate::config::SETTINGS`] and value.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let shared = &self.shared;
        let mut given = Vec::new();
        let mut add = |key, value: &Option<String>| given.extend(value.clone().map(|value| (key, value)));
        add("interval", &shared.interval);
        add("bpf", &shared.no_bpf.then(|| "false".to_owned()));
        add("objective", &(!shared.objective.is_empty()).then(|| shared.objective.join("; ")));
        add("roots.proc", &shared.proc_root);
        add("roots.sys", &shared.sys_root);
        add("roots.cgroup", &shared.cgroup_root);
        add("roots.host", &shared.host_root);
        add("names.kubelet", &shared.kubelet);
        add("events.retransmits", &shared.event_retransmits);
        add("events.stall", &shared.event_stall);
        add("log.level", &shared.log_level);
        add("log.file", &shared.log_file);
        match &self.command {
            Some(Command::Export(export)) => {
                add("export.endpoint", &export.endpoint);
                add("export.protocol", &export.protocol);
            }
            Some(Command::Tui(tui)) => add("tui.plain", &tui.plain.then(|| "true".to_owned())),
            _ => {}
        }
        given
    }
}

/// The completion script of a shell.
pub fn completions(shell: clap_complete::Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "observer", &mut script);
    script
}

/// The manual page of observer or of one command; `None` when there is no such command.
pub fn man(command: Option<&str>) -> Option<Vec<u8>> {
    let mut whole = Cli::command();
    // Building hands the shared flags down to the commands and joins their names: observer-dump.
    whole.build();
    let page = match command {
        None => whole,
        Some(name) => whole.find_subcommand(name)?.clone(),
    };
    let mut roff = Vec::new();
    clap_mangen::Man::new(page).render(&mut roff).ok()?;
    Some(roff)
}

/// What clap says in several lines, in one: the problem and its hint, without the usage.
pub fn one_line(error: &clap::Error) -> String {
    let rendered = error.render().to_string();
    let lines = rendered.lines().map(str::trim).filter(|line| !line.is_empty());
    let said = lines.take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"));
    let joined = said
        .map(|line| line.trim_start_matches("error: ").trim_start_matches("tip: "))
        .collect::<Vec<_>>()
        .join("; ")
        .replace(":; ", ": ");
    format!("{joined}; see observer --help")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SETTINGS;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_setting_has_its_flag_and_the_flag_names_its_variable() {
        let mut command = Cli::command();
        command.build();
        for setting in SETTINGS {
            let name = setting.flag.trim_start_matches("--");
            let commands = std::iter::once(&command).chain(command.get_subcommands());
            let arg = commands.flat_map(clap::Command::get_arguments).find(|arg| arg.get_long() == Some(name));
            let help = arg.unwrap_or_else(|| panic!("{} has no flag", setting.key)).get_help().unwrap().to_string();
            assert!(help.contains(&format!("[env: {}", setting.env)), "{}: {help}", setting.flag);
        }
    }

    #[test]
    fn every_flag_reaches_its_setting() {
        let line = "observer --interval 2s --no-bpf --objective a --objective b --proc-root /p --sys-root /s --cgroup-root /c --host-root /h --kubelet http://k:1 --event-retransmits 9in1s \
                    --event-stall 1s --log-level info --log-file /l";
        let given = |rest: &str| Cli::try_parse_from(format!("{line} {rest}").split(' ')).unwrap().settings();
        let mut keys: Vec<_> = given("export --endpoint http://a --protocol grpc").into_iter().map(|(key, _)| key).collect();
        keys.extend(given("tui --plain").into_iter().map(|(key, _)| key).filter(|key| key.starts_with("tui")));
        let known: Vec<_> = SETTINGS.iter().map(|setting| setting.key).collect();
        assert_eq!(keys, known);
    }

    #[test]
    fn errors_take_one_line() {
        let message = |line: &str| one_line(&Cli::try_parse_from(line.split(' ')).unwrap_err());
        let unknown = message("observer dump --cuont 1");
        assert!(unknown.contains("'--cuont'") && unknown.contains("'--count'") && !unknown.contains('\n'), "{unknown}");
        let missing = message("observer config");
        assert!(missing.contains("not provided: <--print-default|--check>; see"), "{missing}");
        let kind = message("observer dump --entity pod");
        assert!(
            kind.contains("host, cpu, cgroup, objective, contention, memory, tcp_flow, netns, process, thread, source"),
            "{kind}"
        );
    }

    #[test]
    fn a_manual_page_for_each_command() {
        for command in Cli::command().get_subcommands() {
            let page = String::from_utf8(man(Some(command.get_name())).unwrap()).unwrap();
            assert!(page.contains(&format!(".TH observer-{} ", command.get_name())), "{page}");
        }
        assert!(man(Some("nonsense")).is_none());
    }
}

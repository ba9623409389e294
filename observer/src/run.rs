//! The only file that knows sources and consumers together: it starts the collector's thread and hands its snapshots to the consumer
//! that the command line asks for.

mod collecting;
mod polls;

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::Receiver;

use crate::cli::{self, Cli, Command, ConfigAction, Doctor, Dump, Format, Metrics, MetricsFormat};
use crate::collect::support;
use crate::config::{self, Config};
use crate::export::{doctor, json, metrics, narrow, otlp, table};
use crate::model::{Kind, Snapshot};
use crate::tui;
use collecting::{Begin, Collecting, Look};

/// Why a run ended badly; the variants differ in the exit status.
#[derive(Debug)]
pub enum Failure {
    /// The command line or the configuration is wrong: exit status 2, so that a service manager need not try again.
    Usage(String),
    /// It could not be done: exit status 1.
    Failed(anyhow::Error),
}

impl From<config::Error> for Failure {
    fn from(error: config::Error) -> Self {
        Failure::Usage(error.to_string())
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Failure::Failed(error)
    }
}

fn usage(problem: impl Into<String>) -> Failure {
    Failure::Usage(problem.into())
}

/// Does what the command line says. Returns `Ok` also when standard output was closed by its reader (`observer dump | head`).
pub fn run(cli: &Cli) -> Result<(), Failure> {
    match dispatch(cli) {
        Err(Failure::Failed(error)) if is_broken_pipe(&error) => Ok(()),
        result => result,
    }
}

fn dispatch(cli: &Cli) -> Result<(), Failure> {
    match &cli.command {
        Some(Command::Completions { shell }) => print(&cli::completions(*shell)),
        Some(Command::Man { command }) => {
            let unknown = || usage(format!("man: no command {:?}; see observer --help", command.as_deref().unwrap_or_default()));
            print(&cli::man(command.as_deref()).ok_or_else(unknown)?)
        }
        Some(Command::Config(ConfigAction { print_default: true, .. })) => print(config::print_default().as_bytes()),
        Some(Command::Config(_)) => check(cli),
        Some(Command::Metrics(Metrics { format })) => print(&match format {
            MetricsFormat::Table => metrics::table().into_bytes(),
            MetricsFormat::Json => pretty(&metrics::json())?,
            MetricsFormat::Markdown => metrics::markdown().into_bytes(),
        }),
        Some(Command::Doctor(Doctor { format })) => {
            let config = configured(cli)?;
            let facts = support::read(&config.roots, config.bpf);
            let (features, settings) = (support::decide(&facts), support::settings(&facts.scheduler));
            print(&match format {
                Format::Table => doctor::table(&features, &settings).into_bytes(),
                Format::Json => pretty(&doctor::json(&features, &settings))?,
            })
        }
        Some(Command::Dump(options)) => dump(options, &configured(cli)?),
        Some(Command::Export(_)) => export(cli, configured(cli)?),
        Some(Command::Tui(_)) => dashboard(&configured(cli)?),
        None if io::stdout().is_terminal() => dashboard(&configured(cli)?),
        None => Err(usage(
            "standard output is no terminal: use `observer dump` for text and JSON, or `observer export` for OpenTelemetry",
        )),
    }
}

// ---- The consumers ----

fn dashboard(config: &Config) -> Result<(), Failure> {
    if !io::stdout().is_terminal() {
        return Err(usage("the dashboard needs a terminal: use `observer dump` or `observer export`"));
    }
    log_to(config, false)?;
    let (collecting, snapshots) = Collecting::start(config, Begin::AtOnce)?;
    let mut options = tui::Options::from_env(|name| std::env::var(name).ok());
    if config.tui.plain {
        options.palette = tui::Palette::None;
        options.ascii = true;
    }
    runtime()?.block_on(tui::run(options, snapshots, |opened| collecting.look(Look::At(opened))))?;
    // Who leaves the dashboard does not wait for a reading, or for programs that are just being attached.
    collecting.stop()?;
    Ok(())
}

fn export(cli: &Cli, mut config: Config) -> Result<(), Failure> {
    let settings = otlp::Settings::from_lookup(export_lookup(cli, &config)).map_err(|invalid| usage(invalid.to_string()))?;
    // OpenTelemetry's variable goes before the file, but not before a flag or a variable of observer's own.
    let own = std::env::var_os("OBSERVER_INTERVAL").is_some_and(|value| !value.is_empty());
    if let Some(interval) = settings.interval.filter(|_| !own && !flagged(cli, "interval")) {
        let refused = |problem| usage(format!("OTEL_METRIC_EXPORT_INTERVAL: {problem}"));
        config.interval = config::bounded(interval).map_err(refused)?;
    }
    let config = &config;
    log_to(config, true)?;
    runtime()?.block_on(async {
        let shutdown = shutdown()?;
        let (collecting, snapshots) = Collecting::start(config, Begin::Attached)?;
        otlp::run(settings, snapshots, shutdown).await?;
        collecting.finish()
    })?;
    Ok(())
}

/// What the exporter reads as its environment: where to send is settled already (flag, environment, file), the rest is OpenTelemetry's.
fn export_lookup(cli: &Cli, config: &Config) -> impl Fn(&str) -> Option<String> {
    let endpoint = config.export.endpoint.clone();
    let protocol = config.export.protocol.map(|protocol| protocol.name().to_owned());
    let (endpoint_flag, protocol_flag) = (flagged(cli, "export.endpoint"), flagged(cli, "export.protocol"));
    move |name| match name {
        "OTEL_EXPORTER_OTLP_ENDPOINT" => endpoint.clone(),
        "OTEL_EXPORTER_OTLP_PROTOCOL" => protocol.clone(),
        // A signal's own variable goes before the general one, but not before a flag.
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT" if endpoint_flag => None,
        "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL" if protocol_flag => None,
        _ => std::env::var(name).ok(),
    }
}

/// Was this setting given as a flag?
fn flagged(cli: &Cli, key: &str) -> bool {
    cli.settings().iter().any(|(flag, _)| *flag == key)
}

/// How long what is being written when a signal comes may take; its reader may have stopped reading.
const GRACE: Duration = Duration::from_millis(500);

fn dump(options: &Dump, config: &Config) -> Result<(), Failure> {
    let cgroup = options.cgroup.as_deref().map(narrow::cgroup_path).transpose();
    let narrow = narrow::Narrow {
        entity: Kind::ALL.into_iter().find(|kind| Some(kind.name()) == options.entity.as_deref()),
        cgroup: cgroup.map_err(|problem| usage(format!("--cgroup: {problem}")))?,
    };
    let (format, count) = (options.format, options.count.unwrap_or(u64::MAX));
    log_to(config, true)?;
    runtime()?.block_on(async {
        let shutdown = shutdown()?;
        let (collecting, mut snapshots) = Collecting::start(config, Begin::Attached)?;
        if let Some(path) = &narrow.cgroup {
            collecting.look(Look::Path(path.clone()));
        }
        // On a thread of its own, since a write blocks for as long as the reader does not read, and a signal must be heard meanwhile.
        let mut printed = tokio::task::spawn_blocking(move || print_snapshots(&mut snapshots, format, count, &narrow));
        tokio::select! {
            result = &mut printed => {
                result??;
                collecting.finish()
            }
            () = shutdown => {
                collecting.stop()?;
                tokio::time::timeout(GRACE, printed).await.map_or(Ok(()), |result| Ok(result??))
            }
        }
    })?;
    Ok(())
}

fn print_snapshots(from: &mut Receiver<Arc<Snapshot>>, format: Format, count: u64, narrow: &narrow::Narrow) -> io::Result<()> {
    let mut out = io::BufWriter::with_capacity(64 << 10, io::stdout().lock());
    for _ in 0..count {
        let Some(snapshot) = from.blocking_recv() else { break };
        match format {
            Format::Table => table::write(&mut out, &snapshot, narrow)?,
            Format::Json => json::write(&mut out, &snapshot, narrow)?,
        }
        out.flush()?;
    }
    Ok(())
}

// ---- What they share ----

fn check(cli: &Cli) -> Result<(), Failure> {
    let (_, file) = configured_with_file(cli)?;
    let what = file.map_or_else(|| format!("no file at {}, flags and environment", config::DEFAULT_FILE), |file| file.path);
    print(format!("ok: {what}\n").as_bytes())
}

fn configured(cli: &Cli) -> Result<Config, Failure> {
    Ok(configured_with_file(cli)?.0)
}

fn configured_with_file(cli: &Cli) -> Result<(Config, Option<config::File>), Failure> {
    let variable = std::env::var_os("OBSERVER_CONFIG").filter(|value| !value.is_empty());
    let named = cli.shared.config.as_deref().or(variable.as_deref().map(Path::new));
    let file = config::File::read(named)?;
    // Variables that other programs share count only where they matter: what one of those programs reads differently must not keep
    // the dashboard from opening.
    let exports = matches!(cli.command, Some(Command::Export(_) | Command::Config(_)));
    let env = |name: &str| {
        let value = std::env::var_os(name).filter(|_| exports || !name.starts_with("OTEL_"))?;
        Some(value.to_string_lossy().into_owned())
    };
    let config = config::resolve(&cli.settings(), &env, file.as_ref())?;
    Ok((config, file))
}

/// One thread for everything asynchronous: the work is elsewhere, in the collector's thread.
fn runtime() -> anyhow::Result<Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(Runtime(Some(runtime.context("cannot start the asynchronous runtime")?)))
}

/// A runtime that does not wait, when it is dropped, for a thread whose write nobody reads.
struct Runtime(Option<tokio::runtime::Runtime>);

impl Runtime {
    fn block_on<T>(&self, future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        self.0.as_ref().context("the runtime was shut down")?.block_on(future)
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Completes when the process is asked to end: SIGINT or SIGTERM. From the call on, they no longer end it by themselves.
fn shutdown() -> anyhow::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Sends the log to the configured file; without one to standard error, or nowhere when that is where the dashboard is.
fn log_to(config: &Config, stderr_is_free: bool) -> anyhow::Result<()> {
    let level = config.log.level.name();
    // Libraries say much that concerns nobody: only their warnings, unless less is wanted of observer itself.
    let others = if level == "error" { "error" } else { "warn" };
    let filter = tracing_subscriber::EnvFilter::try_new(format!("{others},observer={level}"))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter);
    if let Some(path) = &config.log.file {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        log.with_writer(file.with_context(|| format!("cannot write the log file {}", path.display()))?).init();
    } else if stderr_is_free {
        log.with_writer(io::stderr).init();
    }
    Ok(())
}

fn pretty(value: &serde_json::Value) -> anyhow::Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    Ok(text)
}

fn print(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).context("cannot write to standard output")?;
    Ok(())
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let is = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    };
    error.chain().any(is)
}

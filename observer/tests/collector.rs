//! `observer export` against the real OpenTelemetry Collector: what arrives there is what `observer dump` prints.
//!
//! `cargo xtask test` builds a Collector and runs this as root; by hand:
//! `OBSERVER_OTELCOL=… cargo test -p observer --test collector -- --nocapture`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

const TRIES: usize = 3;
/// For a slow machine; nothing here measures time.
const PATIENCE: Duration = Duration::from_secs(40);
const LATENCY: &str = "observer.cpu.run_queue.latency";

#[test]
fn grpc() {
    try_thrice("grpc");
}

#[test]
fn http() {
    try_thrice("http/protobuf");
}

/// The two observers attach to a running kernel and the load shares the machine with whatever else runs: three tries, each told.
fn try_thrice(protocol: &str) {
    // One at a time: each test counts on the machine's attention.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let collector = std::env::var_os("OBSERVER_OTELCOL").expect("OBSERVER_OTELCOL must name a Collector: run `cargo xtask test`");
    assert!(rustix::process::geteuid().is_root(), "attaching to the scheduler and creating a cgroup needs root");
    for number in 1..=TRIES {
        let folder = tempfile::tempdir().unwrap();
        match attempt(Path::new(&collector), folder.path(), protocol) {
            Ok(()) => return println!("{protocol}, try {number}: passed"),
            Err(error) => {
                println!("{protocol}, try {number} of {TRIES}: {error:#}");
                for log in ["collector.log", "export.log", "dump.log"] {
                    println!("--- {log}\n{}", fs::read_to_string(folder.path().join(log)).unwrap_or_default());
                }
            }
        }
    }
    panic!("{protocol}: failed {TRIES} times, see above");
}

fn attempt(otelcol: &Path, folder: &Path, protocol: &str) -> Result<()> {
    let (collector, mut receiving) = Collector::start(otelcol, folder)?;
    let cgroup = Cgroup::new()?;
    let observer = env!("CARGO_BIN_EXE_observer");

    let mut export = Command::new(observer);
    export.args(["export", "--interval", "500ms"]).env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol);
    export.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", collector.address(protocol)));
    let mut export = Running::start(export.stdout(Stdio::null()), &folder.join("export.log"))?;
    let mut dump = Command::new(observer);
    dump.args([
        "dump",
        "--format",
        "json",
        "--interval",
        "500ms",
        "--count",
        "240",
        "--entity",
        "cgroup",
        "--cgroup",
        &cgroup.name,
    ]);
    let mut dump = Running::start(dump.stdout(Stdio::piped()), &folder.join("dump.log"))?;
    let snapshots = Snapshots::read(&mut dump.child)?;

    // Both must be attached before the cgroup is born, or one would miss a part of its life. The dump tells why a hook is refused.
    wait("observer dump to attach its scheduler hook", &mut [&mut dump], || snapshots.attached().map(|yes| yes.then_some(())))?;
    wait("observer export to attach its scheduler hook", &mut [&mut receiving, &mut export], || {
        let up = collector
            .points("observer.source.up")
            .into_iter()
            .rfind(|point| attribute(&point.point, "observer.source") == "sched");
        Ok(up.filter(|up| up.point["asDouble"].as_f64().is_some_and(|up| up > 0.0)).map(drop))
    })?;

    cgroup.create()?;
    Load::start(&cgroup.folder)?.finish()?;
    let ended = nanoseconds(SystemTime::now());

    let mut last = (None, None);
    let agreed = wait("export and dump to agree", &mut [&mut receiving, &mut export, &mut dump], || {
        last = (collector.latency(&cgroup.name, ended)?, snapshots.latency(&cgroup.name, ended)?);
        Ok(last.0.clone().filter(|exported| last.1.as_ref() == Some(exported)))
    });
    let agreed = agreed.with_context(|| format!("exported {:#?}\ndumped {:#?}", last.0, last.1))?;
    ensure!(agreed.count > 0, "nothing waited although the load shared one CPU");
    println!("{protocol}: {} waits, {} s in all, in {} buckets", agreed.count, agreed.sum(), agreed.buckets.len());

    let steal = collector.points("system.cpu.time");
    ensure!(steal.iter().any(|point| attribute(&point.point, "cpu.mode") == "steal"), "no system.cpu.time with cpu.mode=steal");
    let status = export.terminate()?;
    ensure!(status.success(), "observer export ended with {status} when asked to");
    Ok(())
}

/// The Collector with an OTLP receiver and a file exporter, which writes each request as a line of JSON.
struct Collector {
    grpc: SocketAddr,
    http: SocketAddr,
    file: PathBuf,
}

impl Collector {
    fn start(otelcol: &Path, folder: &Path) -> Result<(Collector, Running)> {
        let (grpc, http, file) = (free_address()?, free_address()?, folder.join("metrics.jsonl"));
        let config = folder.join("collector.yaml");
        fs::write(&config, Self::config(grpc, http, &file))?;
        let mut command = Command::new(otelcol);
        command.arg("--config").arg(&config).stdout(Stdio::null());
        let mut process =
            Running::start(&mut command, &folder.join("collector.log")).with_context(|| otelcol.display().to_string())?;
        wait("the Collector to listen", &mut [&mut process], || {
            Ok([grpc, http].iter().all(|address| TcpStream::connect(address).is_ok()).then_some(()))
        })?;
        Ok((Collector { grpc, http, file }, process))
    }

    fn config(grpc: SocketAddr, http: SocketAddr, file: &Path) -> String {
        format!(
            "receivers:
  otlp:
    protocols:
      grpc: {{ endpoint: {grpc} }}
      http: {{ endpoint: {http} }}
exporters:
  file: {{ path: {file:?}, flush_interval: 100ms }}
service:
  telemetry: {{ metrics: {{ level: none }} }}
  pipelines:
    metrics: {{ receivers: [otlp], exporters: [file] }}
"
        )
    }

    fn address(&self, protocol: &str) -> SocketAddr {
        if protocol == "grpc" { self.grpc } else { self.http }
    }

    /// All points of a metric, in the order of arrival.
    fn points(&self, name: &str) -> Vec<Point> {
        let text = fs::read_to_string(&self.file).unwrap_or_default();
        // The last line may be half written.
        let requests: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let mut points = Vec::new();
        for resource in requests.iter().flat_map(|request| list(&request["resourceMetrics"])) {
            let metrics = list(&resource["scopeMetrics"]).iter().flat_map(|scope| list(&scope["metrics"]));
            for metric in metrics.filter(|metric| metric["name"] == name) {
                for (kind, data) in metric.as_object().into_iter().flatten() {
                    let resource = &resource["resource"];
                    let point = |point: &Value| Point { resource: resource.clone(), kind: kind.clone(), point: point.clone() };
                    points.extend(list(&data["dataPoints"]).iter().map(point));
                }
            }
        }
        points
    }

    /// The newest latency of a cgroup, if it is of after `since`.
    fn latency(&self, cgroup: &str, since: u64) -> Result<Option<Latency>> {
        let of_cgroup = |point: &Point| attribute(&point.resource, "observer.cgroup.path") == cgroup;
        let Some(Point { kind, point, .. }) = self.points(LATENCY).into_iter().rfind(of_cgroup) else { return Ok(None) };
        ensure!(kind == "exponentialHistogram", "{LATENCY} is a {kind}");
        ensure!(point["scale"] == 3, "scale {}", point["scale"]);
        if integer(&point["timeUnixNano"])? < since {
            return Ok(None);
        }
        let mut buckets = BTreeMap::from([(ZERO, integer(&point["zeroCount"]).unwrap_or(0))]);
        let positive = &point["positive"];
        let offset = positive["offset"].as_i64().unwrap_or(0);
        for (index, count) in (offset..).zip(list(&positive["bucketCounts"])) {
            // Bucket i ends where bucket i + 1 begins.
            buckets.insert(index + 1, integer(count)?);
        }
        Latency::new(integer(&point["count"])?, &point["sum"], buckets).map(Some)
    }
}

/// A data point of OTLP in JSON, and whose it is.
struct Point {
    resource: Value,
    kind: String,
    point: Value,
}

/// What `observer dump` has printed so far.
struct Snapshots(Arc<Mutex<Vec<Value>>>);

impl Snapshots {
    fn read(dump: &mut Child) -> Result<Snapshots> {
        let lines = BufReader::new(dump.stdout.take().context("no pipe")?).lines();
        let snapshots = Snapshots(Arc::default());
        let to = snapshots.0.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                to.lock().unwrap().push(serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}")));
            }
        });
        Ok(snapshots)
    }

    fn last(&self) -> Value {
        self.0.lock().unwrap().last().cloned().unwrap_or(Value::Null)
    }

    /// Whether the scheduler hook is attached; an error when it never will be.
    fn attached(&self) -> Result<bool> {
        let last = self.last();
        let Some(sched) = list(&last["health"]).iter().find(|health| health["source"] == "sched") else { return Ok(false) };
        match sched["state"].as_str() {
            Some("on" | "degraded") => Ok(true),
            _ => bail!("the scheduler hook cannot be attached: {}", sched["reason"]),
        }
    }

    /// The newest latency of a cgroup, if it is of after `since`.
    fn latency(&self, cgroup: &str, since: u64) -> Result<Option<Latency>> {
        let last = self.last();
        let Some(row) = list(&last["rows"]).iter().find(|row| row["labels"]["cgroup"] == cgroup) else { return Ok(None) };
        let Some(metric) = list(&row["metrics"]).iter().find(|metric| metric["name"] == LATENCY) else { return Ok(None) };
        let time: jiff::Timestamp = last["time"].as_str().context("no time")?.parse()?;
        if nanoseconds(time.into()) < since {
            return Ok(None);
        }
        let mut buckets = BTreeMap::new();
        for bucket in list(&metric["buckets"]) {
            // Upper bounds are powers of 2^(1/8); what has none is held below 256 s.
            let upper = bucket[0].as_f64().unwrap_or(256.0);
            buckets.insert((upper.log2() * 8.0).round() as i64, integer(&bucket[1])?);
        }
        Latency::new(integer(&metric["count"])?, &metric["sum"], buckets).map(Some)
    }
}

/// 2^(-160/8) s, the zero bucket's upper bound.
const ZERO: i64 = -160;

/// A distribution, whoever tells it: counts by the eighth of an octave where a bucket ends.
#[derive(Clone, PartialEq, Debug)]
struct Latency {
    count: u64,
    nanoseconds: u64,
    buckets: BTreeMap<i64, u64>,
}

impl Latency {
    fn new(count: u64, sum: &Value, mut buckets: BTreeMap<i64, u64>) -> Result<Latency> {
        buckets.retain(|_, count| *count > 0);
        ensure!(buckets.values().sum::<u64>() == count, "buckets {buckets:?} do not add up to {count}");
        // Whole nanoseconds, so that digits of a float do not matter.
        let nanoseconds = (sum.as_f64().context("no sum")? * 1e9).round() as u64;
        Ok(Latency { count, nanoseconds, buckets })
    }

    fn sum(&self) -> f64 {
        self.nanoseconds as f64 / 1e9
    }
}

/// A cgroup that does not exist until it is created, and no longer when this is dropped.
struct Cgroup {
    name: String,
    folder: PathBuf,
}

impl Cgroup {
    fn new() -> Result<Cgroup> {
        let roots = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(Path::new);
        let root = roots.iter().find(|root| root.join("cgroup.procs").exists()).context("no cgroup v2 hierarchy is mounted")?;
        let name = format!("/observer-test-{}-{}", std::process::id(), nanoseconds(SystemTime::now()) % 1_000_000_000);
        Ok(Cgroup { folder: root.join(&name[1..]), name })
    }

    fn create(&self) -> Result<()> {
        fs::create_dir(&self.folder).with_context(|| self.folder.display().to_string())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A process that has just ended may be in it for a moment longer.
        let gone = |_| {
            fs::remove_dir(&self.folder).is_ok() || !self.folder.exists() || {
                sleep(Duration::from_millis(50));
                false
            }
        };
        (0..100).any(gone);
    }
}

/// Processes of a cgroup that compete for one CPU for a while, and end by themselves.
struct Load(Vec<Running>);

impl Load {
    fn start(cgroup: &Path) -> Result<Load> {
        const JOIN_AND_SPIN: &str =
            r#"echo $$ > "$0/cgroup.procs" && exec taskset -c "$1" sh -c 'i=0; while [ $i -lt 400000 ]; do i=$((i + 1)); done'"#;
        let status = fs::read_to_string("/proc/self/status")?;
        let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).context("no Cpus_allowed_list")?;
        let cpu = allowed.trim().split([',', '-']).next_back().context("no CPU")?.to_owned();
        let log =
            |_| Running::start(Command::new("sh").args(["-c", JOIN_AND_SPIN]).arg(cgroup).arg(&cpu), Path::new("/dev/null"));
        (0..4).map(log).collect::<Result<_>>().map(Load)
    }

    fn finish(mut self) -> Result<()> {
        for process in &mut self.0 {
            let status = process.ended("the load")?;
            ensure!(status.success(), "the load ended with {status}");
        }
        Ok(())
    }
}

/// A process that is ended, by its own id, when this is dropped.
struct Running {
    name: String,
    child: Child,
}

impl Running {
    fn start(command: &mut Command, log: &Path) -> Result<Running> {
        let child = command.stdin(Stdio::null()).stderr(File::options().append(true).create(true).open(log)?).spawn()?;
        Ok(Running { name: format!("{command:?}"), child })
    }

    fn ended(&mut self, what: &str) -> Result<ExitStatus> {
        let child = &mut self.child;
        wait(&format!("{what} to end"), &mut [], || Ok(child.try_wait()?))
    }

    /// Asks for the end.
    fn terminate(&mut self) -> Result<ExitStatus> {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), rustix::process::Signal::TERM)?;
        self.ended("observer export")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only for a process that has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks until there is an answer, while the processes live.
fn wait<T>(what: &str, alive: &mut [&mut Running], mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        for process in &mut *alive {
            if let Some(status) = process.child.try_wait()? {
                bail!("waiting for {what}: {} ended with {status}", process.name);
            }
        }
        sleep(Duration::from_millis(100));
    }
    bail!("waited {PATIENCE:?} in vain for {what}")
}

fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The text of an attribute of a Resource or a point; empty when it has none.
fn attribute(of: &Value, key: &str) -> String {
    let found = list(&of["attributes"]).iter().find(|attribute| attribute["key"] == key);
    found.and_then(|attribute| attribute["value"]["stringValue"].as_str()).unwrap_or_default().to_owned()
}

/// OTLP's JSON has 64-bit integers as text.
fn integer(value: &Value) -> Result<u64> {
    match value {
        Value::String(text) => Ok(text.parse()?),
        _ => value.as_u64().with_context(|| format!("{value} is not a whole number")),
    }
}

fn nanoseconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

//! Runs the program itself, and ends it whatever happens.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use observer::collect::bpf::loader::OBJECT_VARIABLE;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value as Json;
use tempfile::TempDir;

/// No test measures time here; this only ends what hangs.
const DEADLINE: Duration = Duration::from_secs(90);

/// `nobody`, nearly everywhere: a user who owns nothing.
pub(crate) const NOBODY: u32 = 65534;

/// The program as cargo built it.
pub(crate) fn observer(line: &str) -> Command {
    with(Command::new(program()), line)
}

/// Where cargo left it, or where `cargo xtask vm` took it.
fn program() -> PathBuf {
    std::env::var_os("OBSERVER_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_observer").into()).into()
}

fn with(mut command: Command, line: &str) -> Command {
    command.args(line.split_whitespace()).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if (text.starts_with("OBSERVER_") && text != OBJECT_VARIABLE) || text.starts_with("OTEL_") || text.starts_with("RUST_LOG")
        {
            command.env_remove(&name);
        }
    }
    command
}

/// A copy that everybody may execute: the checkout may be in a folder that only its owner may enter.
pub(crate) struct PublicCopy {
    folder: TempDir,
    object: Option<PathBuf>,
}

impl PublicCopy {
    pub(crate) fn new() -> Result<PublicCopy, String> {
        let say = |error: std::io::Error| format!("cannot copy the program: {error}");
        let folder = tempfile::Builder::new().prefix("observer-live-").tempdir().map_err(say)?;
        let everybody = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(say);
        everybody(folder.path())?;
        let copy = |from: &Path, name: &str| {
            let to = folder.path().join(name);
            fs::copy(from, &to).map_err(say)?;
            everybody(&to)?;
            Ok::<_, String>(to)
        };
        copy(&program(), "observer")?;
        let object = std::env::var_os(OBJECT_VARIABLE).map(|object| copy(Path::new(&object), "object")).transpose()?;
        Ok(PublicCopy { folder, object })
    }

    /// The copy, as a user without any privilege.
    pub(crate) fn as_nobody(&self, line: &str) -> Command {
        let mut command = self.command(Command::new(self.program()), line);
        // std drops the supplementary groups, too.
        command.uid(NOBODY).gid(NOBODY);
        command
    }

    /// The copy, started by another program that is given with its arguments.
    pub(crate) fn through(&self, starter: &[&str], line: &str) -> Command {
        let mut command = Command::new(starter[0]);
        command.args(&starter[1..]).arg(self.program());
        self.command(command, line)
    }

    fn program(&self) -> PathBuf {
        self.folder.path().join("observer")
    }

    fn command(&self, command: Command, line: &str) -> Command {
        let mut command = with(command, line);
        if let Some(object) = &self.object {
            command.env(OBJECT_VARIABLE, object);
        }
        command.current_dir("/");
        command
    }
}

/// Runs to the end, expects success, and gives the bytes of standard output.
pub(crate) fn printed(mut command: Command) -> Result<Vec<u8>, String> {
    let shown = format!("{command:?}");
    let mut child = Running::of(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn(), &shown)?;
    let out = gather(child.child.stdout.take());
    let err = gather(child.child.stderr.take());
    let status = child.ended()?;
    let out = out.recv().unwrap_or_default();
    if !status.success() {
        let said = String::from_utf8_lossy(&err.recv().unwrap_or_default()).into_owned();
        return Err(format!("{shown}: {status}: {said}"));
    }
    Ok(out)
}

/// As [`printed`], one JSON object a line.
pub(crate) fn objects(command: Command) -> Result<Vec<Json>, String> {
    let text = printed(command)?;
    let text = std::str::from_utf8(&text).map_err(|error| format!("output is not UTF-8: {error}"))?;
    text.lines().map(parsed).collect()
}

fn parsed(line: &str) -> Result<Json, String> {
    serde_json::from_str(line).map_err(|error| format!("{error} in {line}"))
}

fn gather(pipe: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (done, all) = channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        let _ = done.send(bytes);
    });
    all
}

/// A child that is killed, by its pid, when this is dropped before its end.
struct Running {
    child: Child,
    shown: String,
}

impl Running {
    fn of(child: std::io::Result<Child>, shown: &str) -> Result<Running, String> {
        let child = child.map_err(|error| format!("cannot start {shown}: {error}"))?;
        Ok(Running { child, shown: shown.to_owned() })
    }

    fn ended(&mut self) -> Result<std::process::ExitStatus, String> {
        let end = Instant::now() + DEADLINE;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait().map_err(|error| error.to_string())? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(format!("{} does not end", self.shown))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both do nothing to a child that was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A `dump --format json` that goes on until it is ended.
pub(crate) struct Dumping {
    running: Running,
    lines: Receiver<String>,
}

impl Dumping {
    pub(crate) fn start(flags: &str) -> Result<Dumping, String> {
        let mut command = observer(&format!("dump --format json {flags}"));
        let shown = format!("{command:?}");
        let mut running = Running::of(command.stdout(Stdio::piped()).spawn(), &shown)?;
        let out = running.child.stdout.take().ok_or("a dump without output")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Dumping { running, lines })
    }

    /// Waits for the next object.
    pub(crate) fn next(&mut self) -> Result<Json, String> {
        let line = self.lines.recv_timeout(DEADLINE).map_err(|_| format!("{} prints nothing", self.running.shown))?;
        parsed(&line)
    }

    /// Asks it to end, and expects success.
    pub(crate) fn end(mut self) -> Result<(), String> {
        kill(self.running.child.id())?;
        let status = self.running.ended()?;
        if status.success() { Ok(()) } else { Err(format!("{}: {status} after SIGTERM", self.running.shown)) }
    }
}

/// Sends SIGTERM to one process.
pub(crate) fn kill(pid: u32) -> Result<(), String> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or("no pid")?;
    kill_process(pid, Signal::TERM).map_err(|error| format!("cannot end {}: {error}", pid.as_raw_pid()))
}

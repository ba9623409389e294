//! The dashboard in a terminal: that it shows numbers, and gives the terminal back however it ends. A panic does so, too, but there is no
//! honest way to cause one from outside.
#![allow(clippy::unwrap_used, reason = "clippy exempts test functions, not the helpers beside them; all of this file is test")]

mod pty;

use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use pty::Terminal;

const ENTER: &[u8] = b"\x1b[?1049h";
const LEAVE: &[u8] = b"\x1b[?1049l";
const SHOW_CURSOR: &[u8] = b"\x1b[?25h";
const MOUSE_OFF: &[u8] = b"\x1b[?1000l";

/// The dashboard, with its first numbers on the screen. No privileges are needed, and none used.
fn dashboard(flags: &str) -> (Terminal, Child, String) {
    let mut terminal = Terminal::open(120, 40).unwrap();
    let modes = terminal.modes().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_observer"));
    command.args(["--no-bpf", "--interval", "50ms"]).args(flags.split_whitespace());
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("OBSERVER_")) {
        command.env_remove(name);
    }
    let child = terminal.start(&mut command).unwrap();
    // The load average is in the status line once there is a snapshot.
    terminal.wait_for("load").unwrap();
    assert_ne!(terminal.modes().unwrap(), modes, "raw while it is open");
    (terminal, child, modes)
}

/// Ended well, and the terminal is as it was.
#[track_caller]
fn restored(terminal: &Terminal, modes: &str, status: ExitStatus) {
    let written = terminal.written();
    assert!(status.success(), "{status}: {}", written.escape_ascii());
    assert_eq!(terminal.modes().unwrap(), modes);
    let last = |what: &[u8]| written.windows(what.len()).rposition(|part| part == what);
    assert!(last(ENTER).is_some() && last(LEAVE) > last(ENTER), "the alternate screen is left: {}", written.escape_ascii());
    for undone in [SHOW_CURSOR, MOUSE_OFF] {
        assert!(last(undone) > last(ENTER), "{} is missing", undone.escape_ascii());
    }
}

fn kill(child: &Child, signal: &str) {
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
}

#[test]
fn quitting_gives_the_terminal_back() {
    for flags in ["", "tui --plain"] {
        let (mut terminal, mut child, modes) = dashboard(flags);
        terminal.keys("2?\x1b").unwrap();
        std::thread::sleep(Duration::from_millis(100));
        terminal.keys("q").unwrap();
        let status = terminal.end_of(&mut child).unwrap();
        restored(&terminal, &modes, status);
    }
}

#[test]
fn signals_give_the_terminal_back() {
    for signal in ["-TERM", "-INT", "-HUP"] {
        let (mut terminal, mut child, modes) = dashboard("");
        kill(&child, signal);
        let status = terminal.end_of(&mut child).unwrap();
        restored(&terminal, &modes, status);
    }
}

#[test]
fn stopping_gives_the_terminal_back_for_as_long() {
    let (mut terminal, mut child, modes) = dashboard("");
    kill(&child, "-TSTP");
    terminal.wait_for(std::str::from_utf8(LEAVE).unwrap()).unwrap();
    let state = || std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    while !state().contains(") T ") {
        assert!(Instant::now() < end, "not stopped: {}", state());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(terminal.modes().unwrap(), modes, "the shell's while it is stopped");
    kill(&child, "-CONT");
    let entered = |terminal: &Terminal| terminal.written().windows(ENTER.len()).filter(|part| *part == ENTER).count();
    while entered(&terminal) < 2 {
        assert!(Instant::now() < end, "it does not come back");
        terminal.pause().unwrap();
    }
    terminal.keys("q").unwrap();
    let status = terminal.end_of(&mut child).unwrap();
    restored(&terminal, &modes, status);
}

#[test]
fn a_terminal_that_goes_away_ends_it() {
    let (terminal, mut child, _) = dashboard("");
    terminal.close();
    let end = Instant::now() + Duration::from_secs(60);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > end {
            child.kill().unwrap();
            panic!("it goes on without a terminal");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

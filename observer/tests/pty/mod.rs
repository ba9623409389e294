//! A terminal of a program's own, for the tests of the dashboard and for the bench of its start. No thread, no `unsafe`, no helper.
#![allow(dead_code, reason = "shared by a test and a bench, which use different parts")]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcgetattr, tcsetwinsize};

/// Ends what hangs; nothing is measured with it.
const DEADLINE: Duration = Duration::from_secs(60);

/// Both ends of a pseudo-terminal, and all that was written to it.
pub(crate) struct Terminal {
    master: File,
    slave: OwnedFd,
    written: Vec<u8>,
}

impl Terminal {
    /// A new one.
    pub(crate) fn open(columns: u16, rows: u16) -> io::Result<Terminal> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let path = ptsname(&master, Vec::new())?;
        let slave = rustix::fs::open(path, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
        tcsetwinsize(&slave, Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 })?;
        Ok(Terminal { master: master.into(), slave, written: Vec::new() })
    }

    /// Starts a program with all three streams here. It is not the controlling terminal, so that no signal comes from it.
    pub(crate) fn start(&self, command: &mut Command) -> io::Result<Child> {
        let end = || self.slave.try_clone();
        command.stdin(end()?).stdout(end()?).stderr(end()?).env("TERM", "xterm-256color").env_remove("NO_COLOR").spawn()
    }

    /// Its modes, all that `stty` would change.
    pub(crate) fn modes(&self) -> io::Result<String> {
        let modes = tcgetattr(&self.slave)?;
        Ok(format!(
            "{:?} {:?} {:?} {:?} {:?}",
            modes.input_modes, modes.output_modes, modes.control_modes, modes.local_modes, modes.special_codes
        ))
    }

    /// Types keys.
    pub(crate) fn keys(&mut self, keys: &str) -> io::Result<()> {
        self.master.write_all(keys.as_bytes())
    }

    /// Waits until this is written: one word of one style, since blanks are skipped by moving the cursor.
    pub(crate) fn wait_for(&mut self, word: &str) -> io::Result<()> {
        let end = Instant::now() + DEADLINE;
        while !contains(&self.written, word.as_bytes()) {
            if !self.read(Duration::from_millis(100))? && Instant::now() > end {
                return Err(io::Error::other(format!("{word} does not come: {}", self.written.escape_ascii())));
            }
        }
        Ok(())
    }

    /// Waits for the end of a program and reads what it still writes; one that does not end is killed, by its pid.
    pub(crate) fn end_of(&mut self, child: &mut Child) -> io::Result<ExitStatus> {
        let end = Instant::now() + DEADLINE;
        loop {
            let status = child.try_wait()?;
            while self.read(Duration::from_millis(if status.is_some() { 0 } else { 5 }))? {}
            if let Some(status) = status {
                return Ok(status);
            }
            if Instant::now() > end {
                child.kill()?;
                child.wait()?;
                return Err(io::Error::other(format!("does not end: {}", self.written.escape_ascii())));
            }
        }
    }

    /// Everything that was written so far.
    pub(crate) fn written(&self) -> &[u8] {
        &self.written
    }

    /// Reads for a moment.
    pub(crate) fn pause(&mut self) -> io::Result<()> {
        self.read(Duration::from_millis(5)).map(drop)
    }

    /// Goes away, as when a window is closed.
    pub(crate) fn close(self) {}

    /// Reads what is there, or comes within this time; whether there was something.
    fn read(&mut self, patience: Duration) -> io::Result<bool> {
        let patience = Timespec { tv_sec: 0, tv_nsec: patience.subsec_nanos().into() };
        let mut ready = [PollFd::new(&self.master, PollFlags::IN)];
        if poll(&mut ready, Some(&patience))? == 0 {
            return Ok(false);
        }
        let mut bytes = [0; 1 << 16];
        let length = self.master.read(&mut bytes)?;
        self.written.extend_from_slice(&bytes[..length]);
        Ok(length > 0)
    }
}

fn contains(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|part| part == word)
}

//! The terminal is taken and always given back: at the end, on an error, in a panic, when suspended.

use std::io::{BufWriter, IsTerminal, Stdout, Write, stdin, stdout};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

use anyhow::Context;
use crossterm::cursor::{Hide, Show};
use crossterm::style::Print;
use crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use crossterm::{execute, queue};
use ratatui::backend::CrosstermBackend;
use ratatui::layout::{Position, Rect};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Signal, kill_current_process_group};
use tokio::sync::Notify;

use super::app::{App, Effect};
use super::draw;

/// Buttons and the wheel, in the encoding without a limit of columns. Not crossterm's `EnableMouseCapture`: that also asks for every
/// movement, each of which would wake us.
const MOUSE_ON: &str = "\x1b[?1000h\x1b[?1006h";
const MOUSE_OFF: &str = "\x1b[?1006l\x1b[?1000l";

/// Whether the terminal is ours now. Static, because a panic hook must know.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The terminal while it is ours; dropping it gives it back.
pub(super) struct Screen {
    terminal: ratatui::Terminal<CrosstermBackend<BufWriter<Stdout>>>,
}

impl Screen {
    /// Takes the terminal.
    pub(super) fn take() -> anyhow::Result<Screen> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let former = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                give_back();
                former(info);
            }));
        });
        let guard = Guard;
        enter()?;
        let terminal =
            ratatui::Terminal::new(CrosstermBackend::new(BufWriter::new(stdout()))).context("cannot read the terminal's size")?;
        std::mem::forget(guard);
        Ok(Screen { terminal })
    }

    /// Draws the dashboard.
    pub(super) fn draw(&mut self, app: &mut App) -> anyhow::Result<()> {
        self.terminal.draw(|frame| draw(app, frame.buffer_mut())).context("cannot write to the terminal")?;
        Ok(())
    }

    /// Forgets what the terminal shows, so that the next frame is drawn whole.
    ///
    /// Not by ratatui's `clear`: that asks the terminal for its cursor and waits for an answer which the event reader takes.
    pub(super) fn forget(&mut self) -> anyhow::Result<()> {
        let size = self.terminal.size().context("cannot read the terminal's size")?;
        self.terminal.resize(Rect::from((Position::ORIGIN, size))).context("cannot write to the terminal")
    }

    /// Gives the terminal back for as long as we are stopped.
    pub(super) fn release(&mut self) {
        give_back();
    }

    /// Takes it again. Somebody may have changed its mode meanwhile even if we did not release it (SIGSTOP from outside).
    pub(super) fn retake(&mut self) -> anyhow::Result<()> {
        give_back();
        enter()?;
        self.forget()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        give_back();
    }
}

fn enter() -> anyhow::Result<()> {
    enable_raw_mode().context("cannot switch the terminal to raw mode (is there one?)")?;
    TAKEN.store(true, Ordering::SeqCst);
    execute!(stdout(), EnterAlternateScreen, Hide, Print(MOUSE_ON)).context("cannot write to the terminal")
}

fn give_back() {
    if !TAKEN.swap(false, Ordering::SeqCst) {
        return;
    }
    // Whoever lost the terminal has nobody to tell, so errors are left alone.
    let mut out = stdout();
    let _ = queue!(out, Print(MOUSE_OFF), Show, LeaveAlternateScreen);
    let _ = out.flush();
    let _ = disable_raw_mode();
}

/// Watches for the end of the terminal, on a thread of its own: crossterm takes no notice of it and reads for ever, in its own thread or,
/// if it happens to be asked just then, in ours.
pub(super) struct Hangup(Arc<Notify>);

/// How long the loop may take to end by itself once the terminal is gone.
const PATIENCE: Duration = Duration::from_millis(500);

impl Hangup {
    /// Watches the descriptor that crossterm reads: standard input if that is a terminal, else the controlling terminal.
    pub(super) fn watch() -> Hangup {
        let gone = Arc::new(Notify::new());
        let input = stdin();
        let tty = if input.is_terminal() {
            input.as_fd().try_clone_to_owned().ok()
        } else {
            std::fs::File::open("/dev/tty").ok().map(OwnedFd::from)
        };
        let notify = Arc::clone(&gone);
        let watch = move |tty: OwnedFd| {
            if wait_for_hangup(&tty).is_ok() {
                notify.notify_one();
                std::thread::sleep(PATIENCE);
                // Still here: the loop is inside crossterm's reader and will not come back.
                std::process::exit(1);
            }
        };
        // Without the thread a lost terminal is noticed only by the next write to it.
        if let Some(tty) = tty {
            let _ = std::thread::Builder::new().name("hangup".into()).spawn(move || watch(tty));
        }
        Hangup(gone)
    }

    /// Ends when the terminal is gone.
    pub(super) async fn gone(&self) {
        self.0.notified().await;
    }
}

/// Returns when nothing can be read from this terminal any more. No event is asked for: what ends a terminal is always reported.
fn wait_for_hangup(tty: &OwnedFd) -> rustix::io::Result<()> {
    loop {
        let mut fds = [PollFd::new(tty, PollFlags::empty())];
        match poll(&mut fds, None) {
            Ok(_) if !fds[0].revents().is_empty() => return Ok(()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Does what a change asks for; false at the end.
pub(super) fn apply(screen: &mut Screen, app: &mut App, effect: Effect) -> anyhow::Result<bool> {
    match effect {
        Effect::Nothing => {}
        Effect::Draw => screen.draw(app)?,
        Effect::Redraw => {
            screen.forget()?;
            screen.draw(app)?;
        }
        Effect::Suspend => {
            // As the terminal's driver would in its ordinary mode: the whole job, so that what started us is stopped, too.
            kill_current_process_group(Signal::TSTP).context("cannot suspend")?;
        }
        Effect::Quit => return Ok(false),
    }
    Ok(true)
}

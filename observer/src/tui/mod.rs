//! The terminal dashboard. It knows only the model: it draws what a [`Snapshot`] says, and reads neither clock nor files for it.
//!
//! - [`run`]: the one loop over keys, snapshots and signals; a frame is drawn only when one of them changed something.
//! - [`app`]: what is shown and what keys make of it; pure. [`keys`]: the one table of keys. [`lines`]: which cgroups, in which order; [`list`]: where one is.
//! - [`table`]: the one table, whose columns are references to metrics; [`heat`]: a distribution in a line. [`views`]: the screens.
//! - [`mod@format`], [`text`], [`palette`], [`options`]: how numbers, names and meanings look.
//! - `terminal`: taking the terminal and giving it back.

pub mod app;
#[cfg(test)]
mod fixture;
pub mod format;
pub mod heat;
pub mod keys;
pub mod lines;
pub mod list;
pub mod options;
pub mod palette;
pub mod table;
mod terminal;
#[cfg(test)]
mod tests;
pub mod text;
pub mod views;

use std::sync::Arc;

use anyhow::{Context, bail};
use crossterm::event::{Event, EventStream};
use futures_util::StreamExt;
use observer_common::sched::Key;
use ratatui::buffer::Buffer;
use rustix::process::{Signal, getpid, kill_process};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::Receiver;

pub use app::App;
pub use options::Options;
pub use palette::Palette;

use crate::model::Snapshot;
use app::Effect;
use terminal::{Hangup, Screen};

/// Shows snapshots until the user quits, a signal asks for it, or whoever sends snapshots stops. `look` is told which cgroup's page is
/// opened, and when it is closed, so that it can be split by process meanwhile.
///
/// Needs a tokio runtime with I/O enabled; a current-thread one will do. While it runs, the terminal is in raw mode on its alternate
/// screen; it is given back however this ends.
///
/// # Errors
///
/// When there is no terminal, or it is lost.
pub async fn run(options: Options, mut snapshots: Receiver<Arc<Snapshot>>, look: impl Fn(Option<Key>)) -> anyhow::Result<()> {
    let catch = |kind| signal(kind).context("cannot catch a signal");
    let mut terminate = catch(SignalKind::terminate())?;
    let mut hangup = catch(SignalKind::hangup())?;
    let mut interrupt = catch(SignalKind::interrupt())?;
    let mut stop = catch(SignalKind::from_raw(libc::SIGTSTP))?;
    let mut go_on = catch(SignalKind::from_raw(libc::SIGCONT))?;
    let mut app = App::new(options);
    let mut screen = Screen::take()?;
    let mut events = EventStream::new();
    let tty = Hangup::watch();
    let mut stopped = false;
    let mut opened = None;
    screen.draw(&mut app)?;
    loop {
        let effect = tokio::select! {
            event = events.next() => match event {
                Some(event) => on_event(&mut app, &event.context("cannot read from the terminal")?),
                None => bail!("the terminal is gone"),
            },
            snapshot = snapshots.recv() => match snapshot {
                Some(snapshot) => app.take(snapshot),
                None => return Ok(()),
            },
            () = tty.gone() => bail!("the terminal is gone"),
            _ = terminate.recv() => Effect::Quit,
            _ = hangup.recv() => Effect::Quit,
            _ = interrupt.recv() => Effect::Quit,
            _ = stop.recv() => {
                screen.release();
                stopped = true;
                kill_process(getpid(), Signal::STOP).context("cannot stop")?;
                Effect::Nothing
            }
            _ = go_on.recv() => {
                stopped = false;
                screen.retake()?;
                Effect::Draw
            }
        };
        if app.open != opened {
            opened = app.open;
            look(opened);
        }
        // Between the stop and SIGCONT the terminal is not ours; what changed is drawn then.
        let hidden = stopped && matches!(effect, Effect::Draw | Effect::Redraw);
        if !hidden && !terminal::apply(&mut screen, &mut app, effect)? {
            return Ok(());
        }
    }
}

/// Draws a frame, and remembers in the application what was drawn where.
pub fn draw(app: &mut App, buffer: &mut Buffer) {
    let hits = views::draw(app, buffer);
    // At another size the selection may have been outside.
    if app.drawn(hits) {
        buffer.reset();
        let hits = views::draw(app, buffer);
        app.drawn(hits);
    }
}

fn on_event(app: &mut App, event: &Event) -> Effect {
    match event {
        Event::Key(key) => app.key(*key),
        Event::Mouse(mouse) => app.mouse(*mouse),
        Event::Resize(..) => Effect::Draw,
        Event::FocusGained | Event::FocusLost | Event::Paste(_) => Effect::Nothing,
    }
}

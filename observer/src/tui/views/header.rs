//! What surrounds every view: the status line, health, the tabs, the hints.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::below;
use crate::model::{Host, Snapshot, Source, State, Value, host};
use crate::tui::app::{App, Hits, View};
use crate::tui::format::{UNKNOWN, count};
use crate::tui::keys::{KEYS, Mode};
use crate::tui::palette::Tone;
use crate::tui::text::{self, Piece, piece};

/// Draws what is around the body; returns the body.
pub(super) fn draw(app: &App, buffer: &mut Buffer, area: Rect, hits: &mut Hits) -> Rect {
    text::put_pieces(buffer, area, 0, app.options.palette, status(app));
    let mut body = below(area, 1);
    let health = app.snapshot.as_deref().map(|snapshot| health(snapshot, body.width.saturating_sub(2))).unwrap_or_default();
    if !health.is_empty() {
        let style = app.options.palette.style(Tone::Warn);
        text::put(buffer, body, 0, 0, &text::head(&format!("! {health}"), body.width), style);
        body = below(body, 1);
    }
    tabs(app, buffer, body, hits);
    body = below(body, 1);
    if body.height > 1 {
        let last = below(body, body.height - 1);
        text::put_pieces(buffer, last, 0, app.options.palette, hints(app));
        body.height -= 1;
    }
    body
}

/// What is shown before the first snapshot.
pub(super) fn waiting(app: &App, buffer: &mut Buffer, body: Rect) {
    text::put(buffer, body, 0, 0, "waiting for the first numbers", app.options.palette.style(Tone::Dim));
}

fn status(app: &App) -> Vec<Piece> {
    let mode = if app.paused { piece(0, Tone::Warn, "PAUSED") } else { piece(0, Tone::Good, "LIVE") };
    let mut pieces = vec![piece(4, Tone::Title, "observer")];
    let Some(snapshot) = app.snapshot.as_deref() else {
        pieces.push(mode);
        return pieces;
    };
    let host = &snapshot.is.host;
    pieces.push(piece(1, Tone::Plain, text::head(&host.name, 40)));
    pieces.push(piece(2, Tone::Plain, time(snapshot)));
    let load = host.load.map_or_else(|| UNKNOWN.to_owned(), |[one, five, fifteen]| format!("{one:.2} {five:.2} {fifteen:.2}"));
    pieces.push(piece(3, Tone::Plain, format!("load {load}")));
    pieces.push(mode);
    let dropped = dropped(snapshot);
    if !dropped.is_empty() {
        pieces.push(piece(0, Tone::Bad, format!("✗ dropped {}", dropped.join(", "))));
    }
    pieces.extend(app.options.notes.iter().map(|note| piece(5, Tone::Dim, note)));
    pieces
}

fn time(snapshot: &Snapshot) -> String {
    let time = jiff::Timestamp::try_from(snapshot.is.time);
    time.map_or_else(|_| UNKNOWN.into(), |time| time.strftime("%Y-%m-%d %H:%M:%SZ").to_string())
}

/// What was lost, by cause.
fn dropped(snapshot: &Snapshot) -> Vec<String> {
    let rows = snapshot.rows::<Host>();
    let points = rows.flat_map(|row| row.points_of(&host::DROPPED));
    let lost = points.filter_map(|point| match (point.value, point.attributes.first()) {
        (Value::Counter { total, .. }, Some((_, cause))) if total > 0 => Some(format!("{} {cause}", count(total as f64))),
        _ => None,
    });
    lost.collect()
}

/// Which sources are not simply on, why, and where to read on; empty when all is well. Where there is too little room the reasons go,
/// first those of sources that still work.
fn health(snapshot: &Snapshot, room: u16) -> String {
    let mut troubled: Vec<_> = snapshot.is.sources.iter().filter(|source| source.state != State::On).collect();
    troubled.sort_by_key(|source| matches!(source.state, State::Degraded(_)));
    let text = |reasons: fn(&State) -> bool| {
        let sentence = |source: &&Source| match source.state.reason() {
            Some(reason) if reasons(&source.state) && !reason.is_empty() => {
                format!("{} {}: {reason}", source.name, source.state.name())
            }
            _ => format!("{} {}", source.name, source.state.name()),
        };
        let text = troubled.iter().map(sentence).collect::<Vec<_>>().join("; ");
        if text.is_empty() || text.contains("observer doctor") { text } else { format!("{text} — see `observer doctor`") }
    };
    let all = text(|_| true);
    if text::width(&all) <= room {
        return all;
    }
    let off = text(|state| matches!(state, State::Off(_)));
    if text::width(&off) <= room { off } else { text(|_| false) }
}

/// The views, then the filter; where there is no room for both the other views are numbers only.
fn tabs(app: &App, buffer: &mut Buffer, area: Rect, hits: &mut Hits) {
    let palette = app.options.palette;
    let filter = match (app.typing, app.filter.is_empty()) {
        (true, _) => format!("/{}_", app.filter),
        (false, false) => format!("filter: {}", app.filter),
        (false, true) => String::new(),
    };
    let title = |view: View, name: &str| {
        let (number, current) = (view.number(), view == app.view);
        if current { format!("[{number} {}]", view.name()) } else { format!(" {number}{name} ") }
    };
    let whole = View::ALL.map(|view| title(view, &format!(" {}", view.name())));
    let needed: u16 = whole.iter().map(|title| text::width(title) + 1).sum();
    let is_tight = !filter.is_empty() && needed.saturating_add(text::width(&filter)) > area.width;
    let titles = if is_tight { View::ALL.map(|view| title(view, "")) } else { whole };
    let mut x = 0;
    for (view, title) in View::ALL.into_iter().zip(titles) {
        let tone = if view == app.view { Tone::Title } else { Tone::Dim };
        let end = text::put(buffer, area, x, 0, &title, palette.style(tone));
        hits.tabs.push((Rect::new(area.x + x, area.y, end - x, 1).intersection(area), view));
        x = end + 1;
    }
    let room = area.width.saturating_sub(x);
    text::put(buffer, area, x, 0, &text::tail(&filter, room), palette.style(Tone::Key));
}

fn hints(app: &App) -> Vec<Piece> {
    let mode = if app.typing { Mode::Filter } else { Mode::Browse };
    let hinted = KEYS.iter().filter(|binding| binding.mode == mode && !binding.hint.is_empty());
    let hint = |(at, text): (usize, String)| piece(at.min(usize::from(u8::MAX)) as u8, Tone::Dim, text);
    let back = (app.help || app.open.is_some()).then(|| "Esc back".to_owned());
    let texts = hinted.filter_map(|binding| Some(format!("{} {}", binding.strokes.first()?, binding.hint)));
    back.into_iter().chain(texts).enumerate().map(hint).collect()
}

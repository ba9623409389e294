//! What began, grew worse and ended lately, the newest first.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use crate::model::event::{Severity, Stage};
use crate::model::{Event, Snapshot};
use crate::tui::app::App;
use crate::tui::format::Format;
use crate::tui::palette::Tone;
use crate::tui::text;

/// Of a view's lines these take no more than one in so many.
const SHARE: u16 = 5;
/// Nor more than this.
const MOST: u16 = 8;

/// Those that the shown snapshot knows of: a paused screen is of its moment.
fn known<'a>(app: &'a App, snapshot: &Snapshot) -> impl Iterator<Item = &'a Event> {
    let time = snapshot.is.time;
    app.events.iter().rev().filter(move |event| event.time <= time)
}

/// How many lines of an area they take, the title included: none where nothing happened.
pub(super) fn lines(app: &App, snapshot: &Snapshot, area: Rect) -> u16 {
    let most = (area.height / SHARE).min(MOST);
    match known(app, snapshot).take(usize::from(MOST)).count() {
        0 => 0,
        _ if most == 0 => 0,
        count => (count as u16 + 1).min(most.max(2)),
    }
}

/// A title, then a line each: how long ago, what became of it, the sentence.
pub(super) fn draw(app: &App, snapshot: &Snapshot, buffer: &mut Buffer, area: Rect) {
    const AGO: u16 = 9;
    const WORD: u16 = 11;
    if area.is_empty() {
        return;
    }
    let palette = app.options.palette;
    let inner = text::panel(buffer, area, palette, "Events, the newest first", "");
    for (y, event) in (0..inner.height).zip(known(app, snapshot)) {
        let (tone, word) = match (event.state, event.severity) {
            (Stage::Close, _) => (Tone::Good, "over"),
            (_, Severity::Critical) => (Tone::Bad, "✗ critical"),
            (_, Severity::Warn) => (Tone::Warn, "! warning"),
            (_, Severity::Info) => (Tone::Plain, "info"),
        };
        let ago = snapshot.is.time.duration_since(event.time).ok().map(|ago| ago.as_secs_f64());
        let dim = palette.style(Tone::Dim);
        text::put_right(buffer, inner, AGO - 2, y, AGO - 2, &format!("-{}", Format::Duration.text(ago)), dim);
        text::put(buffer, inner, AGO, y, word, palette.style(tone));
        let room = inner.width.saturating_sub(AGO + WORD);
        text::put(buffer, inner, AGO + WORD, y, &text::head(&event.text, room), palette.style(Tone::Plain));
    }
}

//! The help: every key, and what the columns mean. Made from the table of keys and the catalogue.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::{cgroups, cpus, health, memory, overview, tasks, tcp};
use crate::model::memory::{ALLOCATIONS, FAILURES, FALLBACKS};
use crate::model::{Entity, host};
use crate::tui::app::{App, Hits, View};
use crate::tui::keys::{KEYS, Mode};
use crate::tui::palette::Tone;
use crate::tui::table::Column;
use crate::tui::text;

const WIDTH: u16 = 100;
const KEYS_WIDTH: usize = 14;

/// Draws the popup over everything.
pub(super) fn draw(app: &App, buffer: &mut Buffer, area: Rect, hits: &mut Hits) {
    let palette = app.options.palette;
    let width = WIDTH.min(area.width);
    let lines = lines(app.view, width.saturating_sub(4));
    let height = (lines.len() as u16).saturating_add(2).min(area.height);
    let frame = Rect::new(area.x + (area.width - width) / 2, area.y + (area.height - height) / 2, width, height);
    let more = lines.len() > usize::from(height.saturating_sub(2));
    border(buffer, frame, palette.style(Tone::Title), if more { " more: j k PgDn PgUp " } else { "" });
    let inner = Rect {
        x: frame.x + 2.min(width),
        y: frame.y + 1.min(height),
        width: width.saturating_sub(4),
        height: height.saturating_sub(2),
    };
    hits.body = inner;
    hits.headers.clear();
    hits.scrollable = lines.len().saturating_sub(usize::from(inner.height));
    let first = app.scroll.min(hits.scrollable);
    for (y, (tone, line)) in (0..inner.height).zip(&lines[first..]) {
        text::put(buffer, inner, 0, y, line, palette.style(*tone));
    }
}

fn lines(view: View, width: u16) -> Vec<(Tone, String)> {
    let mut lines = Vec::new();
    for (mode, title) in [(Mode::Browse, "Keys"), (Mode::Filter, "Keys while typing a filter")] {
        lines.push((Tone::Title, title.to_owned()));
        for binding in KEYS.iter().filter(|binding| binding.mode == mode) {
            let strokes: Vec<_> = binding.strokes.iter().map(ToString::to_string).collect();
            lines.push((Tone::Plain, format!("  {:KEYS_WIDTH$}{}", strokes.join(" "), binding.help)));
        }
        lines.push((Tone::Plain, String::new()));
    }
    lines.push((Tone::Plain, "Mouse: click a tab, a header, a line; the wheel scrolls. – is unknown, 0 is zero.".into()));
    lines.push((Tone::Plain, String::new()));
    lines.push((Tone::Title, "Columns".into()));
    match view {
        View::Overview => {
            columns(&mut lines, overview::CPUS, width);
            columns(&mut lines, overview::LOSERS, width);
        }
        View::Cgroups => columns(&mut lines, cgroups::COLUMNS, width),
        View::Tasks => columns(&mut lines, tasks::COLUMNS, width),
        View::Cpus => columns(&mut lines, cpus::COLUMNS, width),
        View::Tcp => columns(&mut lines, tcp::COLUMNS, width),
        View::Health => {
            for metric in [&host::RESIDUAL, &host::DROPPED] {
                explain(&mut lines, metric.info.title, metric.info.help, width);
            }
            columns(&mut lines, health::COLUMNS, width);
        }
        View::Memory => {
            for (metric, _) in memory::STALLS {
                explain(&mut lines, metric.info.title, metric.info.help, width);
            }
            for metric in [&ALLOCATIONS, &FAILURES, &FALLBACKS] {
                explain(&mut lines, metric.info.title, metric.info.help, width);
            }
            columns(&mut lines, memory::COLUMNS, width);
        }
    }
    lines
}

fn columns<E: Entity>(lines: &mut Vec<(Tone, String)>, columns: &[Column<E>], width: u16) {
    for column in columns {
        explain(lines, column.title, column.help(), width);
    }
}

fn explain(lines: &mut Vec<(Tone, String)>, title: &str, help: &str, width: u16) {
    let room = width.saturating_sub(KEYS_WIDTH as u16 + 2);
    for (index, part) in text::wrap(help, room, 4).into_iter().enumerate() {
        let title = if index == 0 { title } else { "" };
        lines.push((Tone::Plain, format!("  {title:KEYS_WIDTH$}{part}")));
    }
}

fn border(buffer: &mut Buffer, frame: Rect, style: ratatui::style::Style, foot: &str) {
    let blank = " ".repeat(usize::from(frame.width));
    let rule = "─".repeat(usize::from(frame.width.saturating_sub(2)));
    for y in 0..frame.height {
        text::put(buffer, frame, 0, y, &blank, ratatui::style::Style::reset());
        text::put(buffer, frame, 0, y, "│", style);
        text::put(buffer, frame, frame.width.saturating_sub(1), y, "│", style);
    }
    text::put(buffer, frame, 0, 0, &format!("┌{rule}┐"), style);
    text::put(buffer, frame, 2, 0, " Help ", style);
    text::put(buffer, frame, 0, frame.height.saturating_sub(1), &format!("└{rule}┘"), style);
    text::put(buffer, frame, 2, frame.height.saturating_sub(1), foot, style);
}

//! How far observer itself can be trusted: its sources, its counts against the kernel's own, and what it lost.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::{below, cgroups, row, trouble};
use crate::model::{Attributes, Blame, Cgroup, Snapshot, Source, State, Value, cgroup, host, source};
use crate::tui::app::{App, Hits};
use crate::tui::format::{Format, UNKNOWN, count};
use crate::tui::palette::{Palette, Tone};
use crate::tui::table::Column;
use crate::tui::text::{self, Piece, piece};

/// The columns of the cgroups that differ most.
pub static COLUMNS: &[Column<Cgroup>] = &[
    Column::label("CGROUP", 30),
    Column::number(&cgroup::RESIDUAL, Format::Percent, 8),
    Column::number(&cgroup::RUN_TIME, Format::Percent, 6),
    Column::number(&cgroup::CPU_TIME, Format::Percent, 6),
    Column::number(&cgroup::STEAL, Format::Percent, 6).priority(1),
];

/// What the machine's counts are held to, and how far they may be apart and still agree.
static AGAINST: &[(Attributes, f64, &str)] = &[
    (&[("observer.reconcile.source", "run_delay")], 0.02, "waits, against run_delay of all tasks"),
    // Ticks: what runs between two of them is not there, or is there twice.
    (&[("observer.reconcile.source", "proc_stat")], 0.1, "runs, against what /proc/stat calls not idle"),
    // Pages against /proc/vmstat are not here: of the few that an idle machine gives, half are taken in bulk and pass no tracepoint.
    // Not read at one moment.
    (&[("observer.reconcile.source", "netstat")], 0.1, "TCP segments sent again here, against RetransSegs"),
];

/// Lines of the panel of [`AGAINST`], with its title and what was lost.
const COUNTS: u16 = AGAINST.len() as u16 + 2;
/// Lines that the list of cgroups keeps at the most, with its title and header.
const LIST: usize = 6;
/// A reason takes at most so many lines.
const REASON: usize = 4;
/// Below this width there is no room for what a source's reading cost and lost.
const NARROW: u16 = 60;

pub(super) fn draw(app: &App, snapshot: &Snapshot, buffer: &mut Buffer, area: Rect, hits: &mut Hits) {
    let palette = app.options.palette;
    let sources = sorted(&snapshot.is.sources);
    let troubled = sources.iter().filter(|source| source.state != State::On).count();
    let title = match troubled {
        0 => format!("Sources: all {} are on", sources.len()),
        _ => format!("Sources, {troubled} of {} not simply on", sources.len()),
    };
    let inner = text::panel(buffer, area, palette, &title, "");
    let list = (app.health.lines.len().max(1) + 2).min(LIST) as u16;
    let room = Rect { height: inner.height.saturating_sub(COUNTS + list), ..inner };
    let used = draw_sources(buffer, room, palette, snapshot, &sources);
    let rest = below(inner, used);
    let inner =
        text::panel(buffer, rest, palette, "Against the kernel's own counters", &trouble(snapshot, &["sched", "tasks", "stat"]));
    draw_counts(buffer, inner, palette, snapshot);
    let rest = below(rest, COUNTS);
    let inner = text::panel(buffer, rest, palette, "Cgroups farthest from cpu.stat", &trouble(snapshot, cgroups::SOURCES));
    cgroups::list(app, &Blame::of(snapshot), &app.health, COLUMNS, buffer, inner, hits);
    if app.health.lines.is_empty() {
        text::put(buffer, hits.body, 0, 0, "nothing to compare", palette.style(Tone::Dim));
    }
}

/// Those that need attention first.
fn sorted(sources: &[Source]) -> Vec<&Source> {
    let mut sorted: Vec<_> = sources.iter().collect();
    sorted.sort_by_key(|source| match source.state {
        State::Off(_) => 0,
        State::Degraded(_) => 1,
        State::On => 2,
    });
    sorted
}

/// One line each, and more for a reason that is longer, where there is room. Returns how many lines that took.
fn draw_sources(buffer: &mut Buffer, area: Rect, palette: Palette, snapshot: &Snapshot, sources: &[&Source]) -> u16 {
    const NAME: u16 = 10;
    const STATE: u16 = 9;
    const NUMBER: u16 = 8;
    let numbers = if area.width < NARROW { 0 } else { 2 * NUMBER + 1 };
    let reason = NAME + STATE + numbers;
    let room = area.width.saturating_sub(reason);
    let header = palette.style(Tone::Header);
    text::put(buffer, area, 0, 0, &" ".repeat(usize::from(area.width)), header);
    text::put(buffer, area, 0, 0, "SOURCE", header);
    text::put(buffer, area, NAME, 0, "STATE", header);
    if numbers > 0 {
        text::put_right(buffer, area, NAME + STATE + NUMBER - 1, 0, NUMBER, source::DURATION.info.title, header);
        text::put_right(buffer, area, NAME + STATE + 2 * NUMBER - 1, 0, NUMBER, "DROPPED", header);
    }
    text::put(buffer, area, reason, 0, "REASON", header);

    let wrapped = |most| {
        let lines = |source: &&Source| text::wrap(source.state.reason().unwrap_or_default(), room, most);
        sources.iter().map(lines).collect::<Vec<_>>()
    };
    let height = |reasons: &[Vec<String>]| 1 + reasons.iter().map(Vec::len).sum::<usize>();
    let fitting = (1..=REASON).rev().map(wrapped).find(|reasons| height(reasons) <= usize::from(area.height));
    let mut y = 1;
    for (source, lines) in sources.iter().zip(fitting.unwrap_or_else(|| wrapped(1))) {
        let (tone, mark) = match source.state {
            State::On => (Tone::Good, ""),
            State::Degraded(_) => (Tone::Warn, "!"),
            State::Off(_) => (Tone::Bad, "✗"),
        };
        let plain = palette.style(Tone::Plain);
        text::put(buffer, area, 0, y, &text::head(source.name, NAME - 1), plain);
        text::put(buffer, area, NAME, y, &text::head(&format!("{}{mark}", source.state.name()), STATE), palette.style(tone));
        if numbers > 0 {
            let read = Format::Duration.text(row(snapshot, *source).number(&source::DURATION, &[]));
            text::put_right(buffer, area, NAME + STATE + NUMBER - 1, y, NUMBER, &read, plain);
            let dropped = palette.style(if source.dropped > 0 { Tone::Bad } else { Tone::Plain });
            text::put_right(buffer, area, NAME + STATE + 2 * NUMBER - 1, y, NUMBER, &count(source.dropped as f64), dropped);
        }
        for line in lines {
            text::put(buffer, area, reason, y, &line, palette.style(tone));
            y += 1;
        }
    }
    y.min(area.height)
}

/// The machine's residuals, a line each, and what was lost.
fn draw_counts(buffer: &mut Buffer, area: Rect, palette: Palette, snapshot: &Snapshot) {
    let host = row(snapshot, &snapshot.is.host);
    for (y, (attributes, tolerance, what)) in (0..).zip(AGAINST) {
        let residual = host.number(&host::RESIDUAL, attributes);
        let (tone, word) = verdict(residual, *tolerance);
        let name = attributes.first().map_or("", |(_, value)| value);
        let line = vec![
            piece(0, Tone::Plain, format!("{name:10}{:>7}", Format::Percent.text(residual))),
            piece(0, tone, format!("{word:10}")),
            piece(1, Tone::Dim, *what),
        ];
        text::put_pieces(buffer, area, y, palette, line);
    }
    text::put_pieces(buffer, area, AGAINST.len() as u16, palette, lost(snapshot));
}

/// A residual in a word.
fn verdict(residual: Option<f64>, tolerance: f64) -> (Tone, &'static str) {
    match residual {
        None => (Tone::Dim, "unknown"),
        Some(residual) if residual.abs() <= tolerance => (Tone::Good, "agrees"),
        Some(residual) if residual > 0.0 => (Tone::Warn, "too much!"),
        Some(_) => (Tone::Warn, "too little!"),
    }
}

/// What was lost, by cause: the whole, and how fast.
fn lost(snapshot: &Snapshot) -> Vec<Piece> {
    let mut pieces = vec![piece(0, Tone::Plain, format!("{:10}", "lost"))];
    for point in row(snapshot, &snapshot.is.host).points_of(&host::DROPPED) {
        let (Value::Counter { total, rate }, Some((_, cause))) = (point.value, point.attributes.first()) else { continue };
        let going_on = rate.filter(|rate| *rate > 0.0).map(|rate| format!(", {}", Format::Rate.text(Some(rate))));
        let tone = if total > 0 { Tone::Bad } else { Tone::Plain };
        pieces.push(piece(0, tone, format!("{cause} {}{}", count(total as f64), going_on.unwrap_or_default())));
    }
    if pieces.len() == 1 {
        pieces.push(piece(0, Tone::Dim, UNKNOWN));
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_residual_in_a_word() {
        let check = |residual, expected| assert_eq!(verdict(residual, 0.02).1, expected, "{residual:?}");
        check(None, "unknown");
        check(Some(0.0), "agrees");
        check(Some(-0.02), "agrees");
        check(Some(0.03), "too much!");
        check(Some(-0.5), "too little!");
    }
}

//! Latency objectives: a line each for those that are being missed, and on a cgroup's page for its own.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::below;
use crate::model::objective::{BUDGET, BURN, DISPATCHES, MISSED};
use crate::model::{Objective, Row, Snapshot};
use crate::tui::format::Format;
use crate::tui::palette::{Palette, Tone};
use crate::tui::text::{self, Piece, piece};

/// Longer names are cut.
const NAME: u16 = 32;

/// Those that are missed faster than their budget allows, or have spent it, the worst first.
pub(super) fn missed(snapshot: &Snapshot) -> Vec<Row<'_, Objective>> {
    let spent = |row: &Row<'_, Objective>| row.number(&BUDGET, &[]).is_some_and(|budget| budget <= 0.0);
    let burn = |row: &Row<'_, Objective>| row.number(&BURN, &[]).unwrap_or(0.0);
    let mut rows: Vec<_> = snapshot.rows::<Objective>().filter(|row| spent(row) || burn(row) >= 1.0).collect();
    rows.sort_by(|a, b| burn(b).total_cmp(&burn(a)));
    rows
}

/// Those of a cgroup, in the order of the configuration.
pub(super) fn of<'a>(snapshot: &'a Snapshot, path: &str) -> Vec<Row<'a, Objective>> {
    snapshot.rows::<Objective>().filter(|row| row.is.slo.scope.covers(path)).collect()
}

/// A line each; what finds no room is told in the last one. Returns how many were drawn.
pub(super) fn draw(buffer: &mut Buffer, area: Rect, palette: Palette, rows: &[Row<'_, Objective>], most: u16) -> u16 {
    let lines = u16::try_from(rows.len()).unwrap_or(u16::MAX).min(most).min(area.height);
    for (y, row) in (0..lines).zip(rows) {
        let mut pieces = line(row);
        let more = rows.len() - usize::from(lines);
        if more > 0 && y + 1 == lines {
            pieces.push(piece(0, Tone::Dim, format!("… {more} more")));
        }
        text::put_pieces(buffer, below(area, y), 0, palette, pieces);
    }
    lines
}

fn line(row: &Row<'_, Objective>) -> Vec<Piece> {
    let number = |metric, format: Format| format.text(row.number(metric, &[]));
    let slo = &row.is.slo;
    let burn = row.number(&BURN, &[]);
    let (tone, budget) = match row.number(&BUDGET, &[]) {
        Some(budget) if budget <= 0.0 => (Tone::Bad, "✗ budget spent".to_owned()),
        budget => (if burn >= Some(1.0) { Tone::Warn } else { Tone::Plain }, format!("budget {}", Format::Percent.text(budget))),
    };
    let bound = Format::Duration.text(Some(slo.bound.as_secs_f64()));
    vec![
        piece(0, tone, format!("objective {}", text::head(&slo.name, NAME))),
        piece(0, tone, format!("missed {}", number(&MISSED, Format::Percent))),
        piece(1, Tone::Plain, format!("of {} over {bound}", number(&DISPATCHES, Format::Rate))),
        piece(0, tone, budget),
        piece(2, Tone::Plain, format!("burn {}x", Format::Count.text(burn))),
        piece(3, Tone::Plain, format!("target {}", slo.target)),
        piece(4, Tone::Dim, slo.scope.text()),
    ]
}

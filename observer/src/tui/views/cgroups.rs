//! The table of control groups, as a tree or flat.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::ledger::ACCOUNTS;
use super::{blame, row, trouble};
use crate::model::{Blame, Cgroup, Snapshot, cgroup};
use crate::tui::app::{App, Hits};
use crate::tui::format::Format;
use crate::tui::lines::Fold;
use crate::tui::list::List;
use crate::tui::table::{Cell, Column, Line, Table};
use crate::tui::text;

/// All columns.
pub static COLUMNS: &[Column<Cgroup>] = &[
    Column::label("CGROUP", 24),
    Column::number(&cgroup::CPU_TIME, Format::Percent, 6),
    Column::number(&cgroup::WAIT_TIME, Format::PerSecond, 8).warn(WAIT_WARN),
    Column::ledger(&cgroup::LEDGER, ACCOUNTS, 14).priority(1),
    Column::quantile("P50", &cgroup::LATENCY, 0.5).priority(3),
    Column::quantile("P99", &cgroup::LATENCY, 0.99).priority(1),
    Column::number(&cgroup::THROTTLED_TIME, Format::PerSecond, 10).warn(THROTTLED_WARN),
    BEHIND.priority(2),
    Column::number(&cgroup::WAIT_PENDING, Format::Duration, 8).priority(4),
    Column::number(&cgroup::STEAL, Format::Percent, 6).priority(3),
    Column::number(&cgroup::LIMIT, Format::Cpus, 6).priority(3),
    Column::number(&cgroup::LOCAL_RUN_RATIO, Format::Percent, 9).priority(4),
    Column::number(&cgroup::LOCAL_DISPATCHES, Format::Percent, 6).priority(4),
    Column::number(&cgroup::MIGRATIONS, Format::Rate, 8).priority(6),
    Column::part("USER", &cgroup::CPU_TIME, &[("cpu.mode", "user")], Format::Percent, 6).priority(7),
    Column::part("SYSTEM", &cgroup::CPU_TIME, &[("cpu.mode", "system")], Format::Percent, 7).priority(8),
    Column::number(&cgroup::RUN_TIME, Format::Percent, 6).priority(6),
    Column::number(&cgroup::RUNS, Format::Rate, 8).priority(5),
    Column::part("PREEMPTED", &cgroup::SWITCHES, &[("observer.switch.type", "preempted")], Format::Rate, 10).priority(5),
    Column::quantile("P90", &cgroup::LATENCY, 0.9).priority(9),
];

/// The main culprit of a cgroup's waits.
pub(super) const BEHIND: Column<Cgroup> =
    Column::note("BEHIND", "Who held the CPU for most of the time that the cgroup waited, and for what share of it.", 24);

/// The column of [`COLUMNS`] by which the list is sorted at first: the wait.
pub const SORTED_BY: usize = 2;
/// Seconds waited a second from which a cell is marked: half a CPU's worth.
pub const WAIT_WARN: f64 = 0.5;
/// Seconds throttled a second from which a cell is marked.
pub const THROTTLED_WARN: f64 = 0.05;
/// Sources whose trouble the title tells.
pub(super) const SOURCES: &[&str] = &["sched", "cgroup"];

pub(super) fn draw(app: &App, snapshot: &Snapshot, buffer: &mut Buffer, area: Rect, hits: &mut Hits) {
    let shape = if app.tree { "tree" } else { "flat" };
    let (shown, all) = (app.cgroups.lines.len(), snapshot.is.cgroups.len());
    let title = format!("Control groups, {shape}, {shown} of {all}");
    let inner = text::panel(buffer, area, app.options.palette, &title, &trouble(snapshot, SOURCES));
    list(app, &Blame::of(snapshot), &app.cgroups, COLUMNS, buffer, inner, hits);
}

/// Draws a list of cgroups with its selection.
pub(super) fn list(
    app: &App,
    blamed: &Blame<'_>,
    list: &List,
    columns: &'static [Column<Cgroup>],
    buffer: &mut Buffer,
    area: Rect,
    hits: &mut Hits,
) {
    let snapshot = blamed.snapshot();
    let selected = list.selected.and_then(|_| list.at.checked_sub(list.offset));
    let sort = Some(list.sort).filter(|sort| sort.column < columns.len());
    let table = Table { columns, palette: app.options.palette, sort, selected };
    let tree = app.tree && std::ptr::eq(list, &raw const app.cgroups);
    let noted = table.shown(area.width).find(|(column, _)| matches!(column.cell, Cell::Note(_))).map(|(_, width)| width);
    let lines = list.lines.iter().skip(list.offset).filter_map(|line| {
        let cgroup = snapshot.is.cgroups.get(line.index)?;
        let mark = match line.fold {
            _ if !tree => "",
            Fold::Leaf => "  ",
            Fold::Open => "▾ ",
            Fold::Closed => "▸ ",
        };
        let label = if tree && line.depth > 0 { cgroup.title() } else { cgroup.full_title() };
        let note = noted.map_or_else(String::new, |room| blame::main(&blamed.culprits(cgroup.id), room)).into();
        Some(Line { row: row(snapshot, cgroup), label, indent: line.depth * 2, mark, dim: !line.matches, note })
    });
    let drawn = table.draw(buffer, area, lines);
    if sort.is_some() {
        hits.headers = drawn.headers;
    }
    hits.body = drawn.body;
}

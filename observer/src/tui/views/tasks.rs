//! The table of processes.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::{row, trouble};
use crate::model::{Process, Snapshot, process};
use crate::tui::app::{App, Hits};
use crate::tui::format::{Format, UNKNOWN};
use crate::tui::table::{Column, Line, Table};
use crate::tui::text;

/// All columns.
pub static COLUMNS: &[Column<Process>] = &[
    Column { grow: false, ..Column::label("PID", 8) },
    Column::words("COMM", "The name of its first thread.", |p| &p.comm, 16),
    Column::number(&process::CPU_TIME, Format::Percent, 6),
    Column::number(&process::WAIT_TIME, Format::PerSecond, 8).warn(WAIT_WARN),
    Column::number(&process::PENDING, Format::Duration, 8),
    Column::number(&process::SWITCHES, Format::Rate, 8).priority(2),
    Column::path("CGROUP", "Where it is.", |p: &Process| p.cgroup.as_deref().unwrap_or(UNKNOWN), 19).priority(1),
    Column {
        grow: true,
        ..Column::words("COMMAND", "Its command line.", |p: &Process| p.identity.command.as_deref().unwrap_or(UNKNOWN), 24)
    }
    .priority(3),
];

/// The column of [`COLUMNS`] by which the list is sorted at first: the wait.
pub const SORTED_BY: usize = 3;
/// Seconds waited a second from which a cell is marked: half a CPU's worth.
const WAIT_WARN: f64 = 0.5;

pub(super) fn draw(app: &App, snapshot: &Snapshot, buffer: &mut Buffer, area: Rect, hits: &mut Hits) {
    let list = &app.tasks;
    let title = format!("Processes, {} of {}", list.lines.len(), snapshot.is.processes.len());
    let inner = text::panel(buffer, area, app.options.palette, &title, &trouble(snapshot, &["tasks"]));
    let selected = list.selected.and_then(|_| list.at.checked_sub(list.offset));
    let table = Table { columns: COLUMNS, palette: app.options.palette, sort: Some(list.sort), selected };
    let lines = list.lines.iter().skip(list.offset).filter_map(|line| {
        let process = snapshot.is.processes.get(line.index)?;
        let label = process.pid.to_string().into();
        Some(Line { row: row(snapshot, process), label, indent: 0, mark: "", dim: false, note: "".into() })
    });
    let drawn = table.draw(buffer, inner, lines);
    hits.headers = drawn.headers;
    hits.body = drawn.body;
}

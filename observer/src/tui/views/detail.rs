//! One cgroup's page, the most telling first: its ledger, whom it waited for and whom it delayed, its waits, and all its metrics.

use std::borrow::Cow;

use observer_common::sched::Key;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::ledger::Ledger;
use super::{below, blame, cgroups, objectives, row, trouble, waits};
use crate::model::blame::{List, Victim, titled};
use crate::model::cgroup::resources::{
    CPU_PRESSURE, IO_PRESSURE, MEMORY_EVENTS, MEMORY_HIGH, MEMORY_LIMIT, MEMORY_PRESSURE, MEMORY_USAGE,
};
use crate::model::metric::Shape;
use crate::model::{Attributes, Blame, Cgroup, Entity, Label, Row, Snapshot, Value, cgroup};
use crate::tui::app::{App, Hits};
use crate::tui::format::{Format, UNKNOWN, duration};
use crate::tui::palette::{Palette, Tone};
use crate::tui::text::{self, Piece, piece};

/// From this width on the histogram and all numbers stand beside the rest.
const WIDE: u16 = 130;
/// Room for a title of the catalogue, and for a number.
const TITLE: usize = 11;
const NUMBER: usize = 9;
/// Lines of objectives, at the most.
const OBJECTIVES: u16 = 4;
/// A list is at most so long: what matters is at its top, and what comes below it is to be seen, too.
const LIST: u16 = 12;
/// The histogram's title.
const WAITS: &str = "Waits that ended in the interval";
const OOM_KILL: Attributes = &[("observer.memory.event", "oom_kill")];
const SOME: Attributes = &[("system.pressure.stall_type", "some")];

pub(super) fn draw(app: &App, snapshot: &Snapshot, key: Key, buffer: &mut Buffer, area: Rect, hits: &mut Hits) {
    let palette = app.options.palette;
    let Ok(index) = snapshot.is.cgroups.binary_search_by_key(&key, |cgroup| cgroup.id) else {
        text::put(buffer, area, 0, 0, "This control group is no longer there (Esc: back).", palette.style(Tone::Warn));
        return;
    };
    let cgroup = &snapshot.is.cgroups[index];
    let row = row(snapshot, cgroup);
    let title = text::tail(&cgroup.path, area.width.saturating_sub(4)).into_owned();
    let inner = text::panel(buffer, area, palette, &title, &trouble(snapshot, cgroups::SOURCES));
    let ended = waits::waits(&row);
    let histogram = waits::lines(ended.as_ref());
    let wide = inner.width >= WIDE;
    let (left, right) = if wide {
        let half = inner.width / 2;
        (Rect { width: half - 2, ..inner }, Rect { x: inner.x + half, width: inner.width - half, ..inner })
    } else {
        let height = inner.height - histogram.min(inner.height * 3 / 10);
        (Rect { height, ..inner }, below(inner, height))
    };
    let mut page = Page::new(left.width, palette);
    page.top(snapshot, &row, left.height);
    if wide {
        let height = histogram.min(right.height / 2);
        waits::draw(buffer, Rect { height, ..right }, palette, WAITS, ended.as_ref());
        let mut numbers = Page::new(right.width, palette);
        numbers.numbers(&row);
        numbers.show(buffer, below(right, height + 1), 0);
    } else {
        page.numbers(&row);
        waits::draw(buffer, right, palette, WAITS, ended.as_ref());
    }
    hits.body = left;
    hits.scrollable = usize::from(page.used.saturating_sub(left.height));
    page.show(buffer, left, app.scroll.min(hits.scrollable) as u16);
}

/// Lines of a width, as many as they are; a part of them is shown.
struct Page {
    buffer: Buffer,
    used: u16,
    palette: Palette,
}

impl Page {
    fn new(width: u16, palette: Palette) -> Page {
        // Labels, names and ledger, objectives, three lists with their titles, every metric.
        let height = 9 + OBJECTIVES + 3 * (LIST + 1) + Cgroup::metrics().len() as u16 + 1;
        Page { buffer: Buffer::empty(Rect::new(0, 0, width, height)), used: 0, palette }
    }

    /// Draws something into so many of the next lines.
    fn add(&mut self, height: u16, draw: impl FnOnce(&mut Buffer, Rect, Palette)) {
        let area = below(self.buffer.area, self.used);
        draw(&mut self.buffer, Rect { height: height.min(area.height), ..area }, self.palette);
        self.used += height.min(area.height);
    }

    /// A title, and a list of so many lines.
    fn section(&mut self, title: &str, height: u16, draw: impl FnOnce(&mut Buffer, Rect, Palette)) {
        self.add(1, |buffer, area, palette| {
            text::panel(buffer, area, palette, title, "");
        });
        self.add(height, draw);
    }

    /// Copies what fits into an area, from the line `first` on.
    fn show(&self, buffer: &mut Buffer, area: Rect, first: u16) {
        for y in 0..area.height.min(self.used.saturating_sub(first)) {
            for x in 0..area.width.min(self.buffer.area.width) {
                buffer[(area.x + x, area.y + y)] = self.buffer[(x, first + y)].clone();
            }
        }
    }

    /// What one wants to know first; `height` lines can be seen at once.
    fn top(&mut self, snapshot: &Snapshot, row: &Row<'_, Cgroup>, height: u16) {
        self.add(1, |buffer, area, palette| text::put_pieces(buffer, area, 0, palette, labels(row)));
        let names = names(row.is);
        if !names.is_empty() {
            self.add(1, |buffer, area, palette| text::put_pieces(buffer, area, 0, palette, names));
        }
        let mut used = 0;
        let ledger = Ledger::of(row, &cgroup::LEDGER);
        self.add(3, |buffer, area, palette| used = ledger.draw(buffer, area, palette, true));
        self.used -= 3 - used;
        self.add(1, |buffer, area, palette| longest(buffer, area, palette, snapshot, row));
        let objectives = objectives::of(snapshot, &row.is.path);
        if !objectives.is_empty() {
            let lines = OBJECTIVES.min(objectives.len() as u16);
            self.add(lines, |buffer, area, palette| {
                objectives::draw(buffer, area, palette, &objectives, lines);
            });
        }
        let memory = memory(row);
        if !memory.is_empty() {
            self.add(1, |buffer, area, palette| text::put_pieces(buffer, area, 0, palette, memory));
        }

        let blame = Blame::of(snapshot);
        let lists = blame.lists(row.is.id);
        let inside = blame.inside(row.is.id);
        let (culprits, victims) = (&lists.culprits, &lists.victims);
        let per_second = |list: &List| match list.blamed.is_empty() {
            true => String::new(),
            false => format!(", {}", Format::PerSecond.text(Some(list.total))),
        };
        // Below: two titles, and three lines of the second list.
        let room = height.saturating_sub(self.used + 2);
        let waited = blame::lines(culprits, room.saturating_sub(3).clamp(3, LIST));
        let nobody = if row.number(&cgroup::WAIT_TIME, &[]) == Some(0.0) { "nobody: it did not wait" } else { UNKNOWN };
        self.section(&format!("Who held the CPU while it waited{}", per_second(culprits)), waited, |buffer, area, palette| {
            blame::list(buffer, area, palette, culprits, nobody);
        });
        let delayed = blame::lines(victims, room.saturating_sub(waited).clamp(3, LIST));
        let nobody = if nobody == UNKNOWN && culprits.blamed.is_empty() { UNKNOWN } else { "nobody" };
        self.section(&format!("Whom it delayed{}", per_second(victims)), delayed, |buffer, area, palette| {
            blame::list(buffer, area, palette, victims, nobody);
        });
        self.inside(&inside);
    }

    fn inside(&mut self, inside: &[Victim<'_>]) {
        if !inside.is_empty() {
            let height = (inside.len().min(usize::from(LIST))) as u16;
            self.section("Inside it: who waits, how long, and behind whom", height, |buffer, area, palette| {
                blame::victims(buffer, area, palette, inside);
            });
        }
    }

    fn numbers(&mut self, row: &Row<'_, Cgroup>) {
        let metrics = Cgroup::metrics();
        self.section("All numbers", metrics.len() as u16, |buffer, area, palette| {
            for (y, metric) in (0..).zip(metrics) {
                let line = numbers(row, metric);
                text::put(buffer, area, 0, y, &text::head(&line, area.width), palette.style(Tone::Plain));
            }
        });
    }
}

/// Where it is, and its CPU time beside its limit.
fn labels(row: &Row<'_, Cgroup>) -> Vec<Piece> {
    let shown = |(name, label): (&'static str, Label<'_>)| {
        let priority = match name {
            "hierarchy" | "id" => 2,
            "session" | "user" => 1,
            // A container's scope is called what the title says.
            "unit" if label.to_string() != row.is.name() || row.is.identity.as_ref()?.container.is_none() => 0,
            _ => return None,
        };
        Some(piece(priority, Tone::Plain, format!("{name} {label}")))
    };
    let mut pieces: Vec<_> = row.is.labels().into_iter().filter_map(shown).collect();
    let by = row.is.resources.limiting.cpu.as_deref().filter(|by| **by != *row.is.path);
    let by = by.map_or_else(String::new, |by| format!(", the limit of {by}"));
    let limit = row.number(&cgroup::LIMIT, &[]).map(|limit| format!("  of at most {}{by}", Format::Percent.text(Some(limit))));
    let cpu = Format::Percent.text(row.number(&cgroup::CPU_TIME, &[]));
    pieces.push(piece(0, Tone::Plain, format!("CPU {cpu}{}", limit.unwrap_or_default())));
    pieces
}

/// Container and pod, by name as far as that is known; nothing outside of both.
fn names(cgroup: &Cgroup) -> Vec<Piece> {
    let Cow::Owned(title) = cgroup.full_title() else { return Vec::new() };
    let mut pieces = vec![piece(0, Tone::Plain, title)];
    pieces.extend(cgroup.labels().into_iter().filter_map(|(name, label)| {
        let priority = match name {
            "image" => 1,
            "runtime" | "qos" => 2,
            "container" | "pod" => 3,
            _ => return None,
        };
        Some(piece(priority, Tone::Plain, format!("{name} {label}")))
    }));
    pieces
}

/// Waits going on, and the longest of those that ended.
fn longest(buffer: &mut Buffer, area: Rect, palette: Palette, snapshot: &Snapshot, row: &Row<'_, Cgroup>) {
    let pending = Format::Duration.text(row.number(&cgroup::WAIT_PENDING, &[]));
    let longest = match &row.is.longest {
        Some(longest) => {
            let time = duration(longest.time as f64 / 1e9);
            let culprit = titled(&snapshot.is, &longest.culprit);
            format!("longest wait {time}: {} {}, behind {culprit}", longest.tid, longest.comm)
        }
        None => format!("longest wait {UNKNOWN}"),
    };
    let pieces = vec![piece(0, Tone::Plain, format!("waiting now {pending}")), piece(0, Tone::Plain, longest)];
    text::put_pieces(buffer, area, 0, palette, pieces);
}

/// Memory in use beside what is allowed, and who was killed for it; the share of time in which some task was stalled. Nothing where the
/// files tell nothing, as of the rows with `~`.
fn memory(row: &Row<'_, Cgroup>) -> Vec<Piece> {
    let bytes = |metric| row.number(metric, &[]).map(|bytes| Format::Bytes.text(Some(bytes)));
    let mut pieces = Vec::new();
    if let Some(usage) = bytes(&MEMORY_USAGE) {
        let limit = bytes(&MEMORY_LIMIT).map(|limit| format!(" of {limit}")).unwrap_or_default();
        pieces.push(piece(0, Tone::Plain, format!("memory {usage}{limit}")));
    }
    if let Some(high) = bytes(&MEMORY_HIGH) {
        pieces.push(piece(2, Tone::Plain, format!("high {high}")));
    }
    if let Some(killed) = row.is.resources.memory.events.oom_kill.filter(|killed| *killed > 0) {
        let tone = if row.number(&MEMORY_EVENTS, OOM_KILL) > Some(0.0) { Tone::Bad } else { Tone::Warn };
        pieces.push(piece(0, tone, format!("OOM kills {}", Format::Count.text(Some(killed as f64)))));
    }
    let known = row.is.resources.cpu_pressure.or(row.is.resources.memory_pressure).or(row.is.resources.io_pressure);
    if known.is_some() {
        let stalled = |metric| Format::Percent.text(row.number(metric, SOME));
        let [cpu, memory, io] = [&CPU_PRESSURE, &MEMORY_PRESSURE, &IO_PRESSURE].map(stalled);
        pieces.push(piece(1, Tone::Plain, format!("pressure cpu {cpu} memory {memory} io {io}")));
    }
    pieces
}

/// A metric's total and, where it has several points, each of them.
fn numbers(row: &Row<'_, Cgroup>, metric: &'static crate::model::Metric<Cgroup>) -> String {
    let info = &metric.info;
    if info.shape == Shape::Histogram {
        let of = |q| Format::Duration.text(row.quantile(metric, q));
        return format!("{:TITLE$}{:NUMBER$}  p50 {}  p90 {}  p99 {}", info.title, "", of(0.5), of(0.9), of(0.99));
    }
    let points = row.points_of(metric);
    if let [point] = &*points
        && let Value::Text(text) = &point.value
    {
        return format!("{:TITLE$}{:NUMBER$}  {text}", info.title, "");
    }
    let format = Format::of(info.unit, info.shape);
    let mut line = format!("{:TITLE$}{:>NUMBER$}", info.title, format.text(row.number(metric, &[])));
    for point in points.iter().filter(|_| points.len() > 1) {
        let number = match point.value {
            Value::Counter { rate, .. } => rate,
            Value::Gauge(value) => Some(value),
            Value::Histogram { .. } | Value::Text(_) => None,
        };
        let names: Vec<_> = point.attributes.iter().map(|(_, value)| *value).collect();
        line.push_str(&format!("  {} {}", names.join(" "), format.text(number)));
    }
    line
}

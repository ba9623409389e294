//! One cgroup's page: all its metrics, and how its waits were distributed in the last interval.

use observer_common::latency::{BUCKETS, FINE, SCALE};
use observer_common::sched::Key;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::{below, cgroups, row, trouble};
use crate::model::metric::Shape;
use crate::model::{Cgroup, Entity, Histogram, Row, Snapshot, Value, cgroup, histogram};
use crate::tui::app::{App, Hits};
use crate::tui::format::{Format, UNKNOWN, count, duration};
use crate::tui::palette::Tone;
use crate::tui::text;

/// From this width on the numbers and the histogram stand side by side.
const WIDE: u16 = 130;
/// Room for a title of the catalogue, and for a number.
const TITLE: usize = 11;
const NUMBER: usize = 9;

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
    let mut lines = vec![labels(cgroup)];
    lines.extend(Cgroup::metrics().iter().map(|metric| numbers(&row, metric)));
    let waits = waits(&row);
    let (left, right) = if inner.width >= WIDE {
        let half = inner.width / 2;
        (Rect { width: half - 2, ..inner }, Rect { x: inner.x + half, width: inner.width - half, ..inner })
    } else {
        let height = (lines.len() as u16).min(inner.height * 3 / 5);
        (Rect { height, ..inner }, below(inner, height))
    };
    hits.body = left;
    hits.scrollable = lines.len().saturating_sub(usize::from(left.height));
    let first = app.scroll.min(hits.scrollable);
    for (y, line) in (0..left.height).zip(&lines[first..]) {
        text::put(buffer, left, 0, y, &text::head(line, left.width), palette.style(Tone::Plain));
    }
    draw_waits(app, buffer, right, waits.as_ref());
}

fn labels(cgroup: &Cgroup) -> String {
    let labels = cgroup.labels().into_iter().filter(|(name, _)| *name != "cgroup");
    labels.map(|(name, label)| format!("{name} {label}")).collect::<Vec<_>>().join("  ")
}

/// A metric's total and, where it has several points, each of them.
fn numbers(row: &Row<'_, Cgroup>, metric: &'static crate::model::Metric<Cgroup>) -> String {
    let info = &metric.info;
    if info.shape == Shape::Histogram {
        let of = |q| Format::Duration.text(row.quantile(metric, q));
        return format!("{:TITLE$}{:NUMBER$}  p50 {}  p90 {}  p99 {}", info.title, "", of(0.5), of(0.9), of(0.99));
    }
    let format = Format::of(info.unit, info.shape);
    let mut line = format!("{:TITLE$}{:>NUMBER$}", info.title, format.text(row.number(metric, &[])));
    let points = row.points_of(metric);
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

/// The waits that ended in the last interval.
fn waits(row: &Row<'_, Cgroup>) -> Option<Histogram> {
    row.points_of(&cgroup::LATENCY).into_iter().find_map(|point| match point.value {
        Value::Histogram { now, before } => now.since(before?),
        _ => None,
    })
}

fn draw_waits(app: &App, buffer: &mut Buffer, area: Rect, waits: Option<&Histogram>) {
    let palette = app.options.palette;
    let quantile = |q| waits.and_then(|waits| waits.quantile(q)).map_or_else(|| UNKNOWN.into(), duration);
    let number = waits.map_or_else(|| UNKNOWN.into(), |waits| count(waits.count() as f64));
    let title = format!(
        "Run-queue waits of the last interval: {number}   p50 {}  p90 {}  p99 {}",
        quantile(0.5),
        quantile(0.9),
        quantile(0.99)
    );
    let inner = text::panel(buffer, area, palette, &title, "");
    let bars = waits.map(|waits| octaves(waits, usize::from(inner.height))).unwrap_or_default();
    let most = bars.iter().map(|(_, count)| *count).max().unwrap_or(0);
    for (y, (bound, number)) in (0..inner.height).zip(&bars) {
        let bound = bound.map_or_else(|| ">128s".into(), |bound| format!("≤ {}", duration(bound)));
        text::put_right(buffer, inner, 9, y, 9, &bound, palette.style(Tone::Dim));
        text::put_right(buffer, inner, 18, y, 8, &count(*number as f64), palette.style(Tone::Plain));
        // Anything at all is at least one cell.
        let room = f64::from(inner.width.saturating_sub(20));
        let cells = (room * *number as f64 / most.max(1) as f64).round().max(if *number > 0 { 1.0 } else { 0.0 });
        text::put(buffer, inner, 20, y, &"█".repeat(cells as usize), palette.style(Tone::Wait));
    }
}

/// Counts by octave from the first that holds something to the last, at most `room` of them: the shortest waits are put together when
/// there are more. The bound is in seconds, `None` above the last.
fn octaves(waits: &Histogram, room: usize) -> Vec<(Option<f64>, u64)> {
    let mut bars: Vec<(Option<f64>, u64)> = Vec::new();
    let fine = 1 << SCALE;
    let mut from = 0;
    while from < BUCKETS {
        let to = if from == 0 || from > FINE { from + 1 } else { from + fine };
        bars.push((histogram::upper(to - 1), waits.counts[from..to].iter().sum()));
        from = to;
    }
    let first = bars.iter().position(|(_, count)| *count > 0);
    let (Some(first), Some(last)) = (first, bars.iter().rposition(|(_, count)| *count > 0)) else { return Vec::new() };
    let mut bars = bars[first..=last].to_vec();
    let surplus = bars.len().saturating_sub(room.max(1));
    let short: u64 = bars.drain(..surplus).map(|(_, count)| count).sum();
    bars[0].1 += short;
    bars
}

#[cfg(test)]
mod tests {
    use observer_common::latency::bucket;

    use super::*;

    #[test]
    fn octaves_lose_no_count() {
        let mut waits = Histogram::default();
        for ns in [10, 1_000, 5_000, 6_000, 40_000_000, 1_500_000_000, 1 << 40] {
            waits.counts[bucket(ns)] += 1;
        }
        let all = octaves(&waits, 100);
        assert_eq!(all.len(), 29);
        assert_eq!(all.iter().map(|(_, count)| count).sum::<u64>(), 7);
        assert_eq!((all[0].1, all[1].1, all[3].1), (1, 1, 2), "{all:?}");
        assert_eq!(all.last(), Some(&(None, 1)));
        let few = octaves(&waits, 5);
        assert_eq!(few.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [6, 0, 0, 0, 1]);
        assert!(octaves(&Histogram::default(), 5).is_empty());
    }
}

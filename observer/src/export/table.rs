//! Snapshots for people: one table for each kind of entity.

use std::io::{self, Write};

use super::Narrow;
use super::grid::{Align, Grid};
use super::json::time;
use crate::model::catalogue::{self, Entry};
use crate::model::metric::Shape;
use crate::model::{AnyRow, Attributes, Event, Histogram, Info, Kind, Point, Snapshot, Unit, Value};

/// What stands where nothing is known.
const UNKNOWN: &str = "–";

/// Writes a snapshot: a line that says when, then the tables, then an empty line.
///
/// Counters show as growth per second (of time: seconds of it each second), histograms as the median and the 99th percentile of what
/// came in during the interval. Pairs of victim and culprit are in the order of their rates, all other rows in that of their keys.
pub fn write(out: &mut dyn Write, snapshot: &Snapshot, narrow: &Narrow) -> io::Result<()> {
    let interval = snapshot.interval().map_or(UNKNOWN.into(), seconds);
    writeln!(out, "{}  {}  interval {interval}", time(snapshot.is.time), snapshot.is.host.name)?;
    for kind in Kind::ALL {
        if let Some(grid) = of_kind(snapshot, narrow, kind) {
            write!(out, "\n{}", grid.render())?;
        }
    }
    if !snapshot.is.events.is_empty() {
        write!(out, "\n{}", events(&snapshot.is.events).render())?;
    }
    writeln!(out)
}

/// The table of what began, grew worse and ended.
fn events(events: &[Event]) -> Grid {
    let mut grid = Grid::new(["EVENT", "SEVERITY", "STATE", "WHAT"].map(|title| (title.to_owned(), Align::Left)).into());
    for event in events {
        grid.push(vec![event.id.clone(), event.severity.name().into(), event.state.name().into(), event.text.clone()]);
    }
    grid
}

/// The table of one kind; `None` without rows.
fn of_kind(snapshot: &Snapshot, narrow: &Narrow, kind: Kind) -> Option<Grid> {
    let mut columns = columns(kind);
    let mut labels: Vec<&'static str> = Vec::new();
    let mut occurs = vec![false; columns.len()];
    let mut is_empty = true;
    each_kept(snapshot, narrow, kind, &mut |row| {
        is_empty = false;
        for (name, _) in row.labels() {
            if !labels.contains(&name) {
                labels.push(name);
            }
        }
        row.each_point(&mut |point| {
            if let Some(at) = columns.iter().position(|column| column.is_of(&point)) {
                occurs[at] = true;
            }
        });
    });
    if is_empty {
        return None;
    }
    let mut occurs = occurs.into_iter();
    columns.retain(|column| occurs.next() == Some(true) || !column.one_of_many);
    let title = |name: &&str| (name.to_uppercase().replace('_', " "), Align::Left);
    let mut titles: Vec<_> = labels.iter().map(title).collect();
    titles.extend(columns.iter().map(Column::title));
    let mut rows = Vec::new();
    each_kept(snapshot, narrow, kind, &mut |row| rows.push((first_rate(row), cells(row, &labels, &columns))));
    // Thousands of pairs or flows in the order of their keys would tell nobody anything.
    if matches!(kind, Kind::Contention | Kind::TcpFlow) {
        rows.sort_by(|(a, one), (b, other)| {
            let [a, b] = [a, b].map(|rate| rate.unwrap_or(f64::NEG_INFINITY));
            b.total_cmp(&a).then_with(|| one.cmp(other))
        });
    }
    let mut grid = Grid::new(titles);
    rows.into_iter().for_each(|(_, cells)| grid.push(cells));
    Some(grid)
}

/// The rate of a row's first counter, all its points together.
fn first_rate(row: &dyn AnyRow) -> Option<f64> {
    let mut first: Option<(&str, Option<f64>)> = None;
    row.each_point(&mut |point| {
        let Value::Counter { rate, .. } = point.value else { return };
        match &mut first {
            None => first = Some((point.info.name, rate)),
            Some((name, sum)) if *name == point.info.name => *sum = sum.zip(rate).map(|(sum, rate)| sum + rate),
            Some(_) => {}
        }
    });
    first?.1
}

fn each_kept(snapshot: &Snapshot, narrow: &Narrow, kind: Kind, visit: &mut dyn FnMut(&dyn AnyRow)) {
    snapshot.each_row(&mut |row| {
        if row.kind() == kind && narrow.keeps(row) {
            visit(row);
        }
    });
}

fn cells(row: &dyn AnyRow, labels: &[&'static str], columns: &[Column]) -> Vec<String> {
    let known = row.labels();
    let label = |name: &&str| match known.iter().find(|(known, _)| known == name) {
        Some((known, value)) => clipped(known, value.to_string()),
        None => UNKNOWN.into(),
    };
    let mut cells: Vec<String> = labels.iter().map(label).collect();
    cells.resize(labels.len() + columns.len(), UNKNOWN.into());
    row.each_point(&mut |point| {
        for (at, column) in columns.iter().enumerate().filter(|(_, column)| column.is_of(&point)) {
            if let Some(text) = column.cell(&point.value) {
                cells[labels.len() + at] = text;
            }
        }
    });
    cells
}

/// Command lines have no end; JSON has them whole. All other labels are wanted whole, to be copied.
fn clipped(name: &str, value: String) -> String {
    const COLUMNS: usize = 60;
    match value.char_indices().nth(COLUMNS) {
        Some((end, _)) if name == "command" => format!("{}…", &value[..end]),
        _ => value,
    }
}

/// A point of a metric, or a quantile of one.
struct Column {
    info: &'static Info,
    attributes: Attributes,
    quantile: Option<(f64, &'static str)>,
    /// Its metric has so many points that those which no row has are left out.
    one_of_many: bool,
}

/// From so many points on.
const MANY: usize = 16;

/// Median and 99th percentile.
const QUANTILES: [(f64, &str); 2] = [(0.5, "p50"), (0.99, "p99")];

fn columns(kind: Kind) -> Vec<Column> {
    let mut columns = Vec::new();
    for Entry { info, attributes, .. } in catalogue::all().into_iter().filter(|entry| entry.kind == kind) {
        let one_of_many = attributes.len() >= MANY;
        for attributes in attributes {
            if info.shape == Shape::Histogram {
                columns.extend(QUANTILES.map(|quantile| Column { info, attributes, quantile: Some(quantile), one_of_many }));
            } else {
                columns.push(Column { info, attributes, quantile: None, one_of_many });
            }
        }
    }
    columns
}

impl Column {
    fn is_of(&self, point: &Point<'_>) -> bool {
        self.info.name == point.info.name && self.attributes == point.attributes
    }

    fn title(&self) -> (String, Align) {
        let mut title = self.info.title.to_owned();
        for word in self.attributes.iter().map(|(_, value)| *value).chain(self.quantile.map(|(_, name)| name)) {
            title.push(' ');
            title.push_str(word);
        }
        (title, if self.info.shape == Shape::Text { Align::Left } else { Align::Right })
    }

    fn cell(&self, value: &Value<'_>) -> Option<String> {
        match value {
            Value::Counter { rate, .. } => rate.map(|rate| format!("{}/s", number(self.info.unit, rate))),
            Value::Gauge(value) => value.is_finite().then(|| number(self.info.unit, *value)),
            Value::Text(text) => Some(text.clone()),
            Value::Histogram { now, before } => quantile(now, (*before)?, self.quantile?.0),
        }
    }
}

fn quantile(now: &Histogram, before: &Histogram, q: f64) -> Option<String> {
    let value = now.since(before)?.quantile(q)?;
    Some(if value.is_finite() { seconds(value) } else { ">128s".into() })
}

fn number(unit: Unit, value: f64) -> String {
    match unit {
        Unit::Seconds => seconds(value),
        Unit::Bytes => scaled(value, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB"]),
        Unit::Ratio => format!("{:.1}%", value * 100.0),
        Unit::Cpus => format!("{value:.2}"),
        Unit::Count(_) => scaled(value, 1000.0, &["", "k", "M", "G", "T"]),
    }
}

/// A time in the unit that suits its size, with three digits.
fn seconds(value: f64) -> String {
    let size = value.abs();
    let (value, unit) = match size {
        0.0 => return "0s".into(),
        _ if size < 999.5e-9 => (value * 1e9, "ns"),
        _ if size < 999.5e-6 => (value * 1e6, "µs"),
        _ if size < 0.9995 => (value * 1e3, "ms"),
        _ if size < 120.0 => (value, "s"),
        _ if size < 2.0 * 3600.0 => (value / 60.0, "min"),
        _ if size < 48.0 * 3600.0 => (value / 3600.0, "h"),
        _ => (value / 86400.0, "d"),
    };
    format!("{}{unit}", three_digits(value))
}

fn scaled(mut value: f64, base: f64, units: &[&str]) -> String {
    let mut units = units.iter();
    let mut unit = units.next();
    while value.abs() >= base * 0.9995
        && let Some(next) = units.next()
    {
        value /= base;
        unit = Some(next);
    }
    format!("{}{}", three_digits(value), unit.unwrap_or(&""))
}

/// Whole numbers as they are below a thousand; else as many decimals as make three digits.
fn three_digits(value: f64) -> String {
    let size = value.abs();
    if size.fract() == 0.0 || size >= 99.95 {
        format!("{value:.0}")
    } else if size >= 9.995 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{narrowed, snapshot};
    use super::*;

    fn written(narrow: &Narrow) -> String {
        let mut out = Vec::new();
        write(&mut out, &snapshot(), narrow).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_table_for_each_kind() {
        insta::assert_snapshot!(written(&Narrow::default()));
    }

    #[test]
    fn the_worst_pair_comes_first() {
        let mut out = Vec::new();
        let narrow = Narrow { entity: Some(Kind::Contention), cgroup: None };
        write(&mut out, &super::super::fixture::contended(), &narrow).unwrap();
        insta::assert_snapshot!(String::from_utf8(out).unwrap());
    }

    #[test]
    fn the_worst_flow_comes_first() {
        let mut out = Vec::new();
        let narrow = Narrow { entity: Some(Kind::TcpFlow), cgroup: None };
        write(&mut out, &super::super::fixture::flowing(), &narrow).unwrap();
        insta::assert_snapshot!(String::from_utf8(out).unwrap());
    }

    #[test]
    fn rows_are_narrowed() {
        let rows = |narrow| {
            let text = written(&narrow);
            let tables = text.split("\n\n").skip(1).filter(|table| !table.starts_with("EVENT"));
            tables.flat_map(|table| table.trim().lines().skip(1).map(str::to_owned).collect::<Vec<_>>()).collect()
        };
        narrowed(rows);
    }

    #[test]
    fn numbers() {
        let check = |unit, value, expected: &str| assert_eq!(number(unit, value), expected);
        check(Unit::Seconds, 0.0, "0s");
        check(Unit::Seconds, 0.25, "250ms");
        check(Unit::Seconds, 0.000_012_34, "12.3µs");
        check(Unit::Seconds, 1.5e-7, "150ns");
        check(Unit::Seconds, 0.9999, "1.00s");
        check(Unit::Seconds, 12.0, "12s");
        check(Unit::Seconds, 3.0 * 86400.0, "3d");
        check(Unit::Bytes, 1023.9, "1.00KiB");
        check(Unit::Bytes, 1.5 * 1024.0 * 1024.0, "1.50MiB");
        check(Unit::Count("run"), 999.0, "999");
        check(Unit::Count("run"), 1500.0, "1.50k");
        check(Unit::Count("run"), 1e30, "1000000000000000000T");
        check(Unit::Ratio, 0.9333, "93.3%");
        check(Unit::Cpus, 1.5, "1.50");
    }
}

//! One table for every kind of entity: columns are references to metrics of the catalogue.

use std::borrow::Cow;
use std::cmp::Ordering;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::format::{Format, UNKNOWN};
use super::heat;
use super::palette::{Palette, Tone};
use super::text;
use crate::model::{Attributes, Entity, Metric, Row};

/// A column that grows stops here: farther away from its numbers a name is hard to follow.
const MOST: u16 = 76;

/// Columns of this priority and above are there only where names have [`ROOM`] as well.
const OPTIONAL: u8 = 5;
/// Cells that a name has before optional columns come.
const ROOM: u16 = 44;

/// A column.
pub struct Column<E: 'static> {
    /// Header.
    pub title: &'static str,
    /// What stands in its cells.
    pub cell: Cell<E>,
    /// Cells of the terminal, at least.
    pub width: u16,
    /// Takes what room is left; at most one column of a table should.
    pub grow: bool,
    /// 0 stays; the higher, the sooner it goes when there is too little room.
    pub priority: u8,
    /// From this number on a cell is marked.
    pub warn: Option<f64>,
}

/// What stands in a cell.
pub enum Cell<E: 'static> {
    /// What the table's user names the row.
    Label,
    /// The rate of a counter or the value of a gauge, summed over the points that have the attributes.
    Number(&'static Metric<E>, Attributes, Format),
    /// What a counter has counted so far, summed over its points.
    Total(&'static Metric<E>),
    /// A quantile of what a histogram took in during the interval.
    Quantile(&'static Metric<E>, f64),
    /// Which part of a counter's rate the points with the attributes are.
    Share(&'static Metric<E>, Attributes),
    /// What a histogram took in during the interval, by octaves.
    Heat(&'static Metric<E>),
    /// A counter's rates by attributes, side by side.
    Bar(&'static Metric<E>, &'static [Segment], Whole),
    /// What the table's user says of the row ([`Line::note`]); the text is its meaning.
    Note(&'static str),
    /// What the entity itself says.
    Words(Words<E>),
    /// A number that belongs to what the entity is, as its place does; the text is its meaning.
    Own(fn(&E) -> Option<u32>, &'static str),
}

/// What an entity says of itself.
pub struct Words<E: 'static> {
    /// Reads it.
    pub read: fn(&E) -> &str,
    /// What it means.
    pub help: &'static str,
    /// Which end of it says most.
    pub end: End,
}

/// An end of a text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Its beginning.
    Head,
    /// Its end, as of a path.
    Tail,
}

/// What a bar's full width stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whole {
    /// One second a second; what is not known or not counted is left empty.
    Second,
    /// The sum of the segments. The first is what went well: rows are sorted by the others.
    Sum,
}

/// A part of a bar.
pub struct Segment {
    /// Which points.
    pub attributes: Attributes,
    /// Its symbol.
    pub symbol: &'static str,
    /// Its word in a legend.
    pub name: &'static str,
    /// Its meaning.
    pub tone: Tone,
}

impl<E> Column<E> {
    /// The column that names the row and takes what room is left.
    pub const fn label(title: &'static str, width: u16) -> Column<E> {
        Column { title, cell: Cell::Label, width, grow: true, priority: 0, warn: None }
    }

    /// A number under its metric's own title.
    pub const fn number(metric: &'static Metric<E>, format: Format, width: u16) -> Column<E> {
        Column::part(metric.info.title, metric, &[], format, width)
    }

    /// Those points of a metric that have the attributes.
    pub const fn part(
        title: &'static str,
        metric: &'static Metric<E>,
        attributes: Attributes,
        format: Format,
        width: u16,
    ) -> Column<E> {
        Column { title, cell: Cell::Number(metric, attributes, format), width, grow: false, priority: 0, warn: None }
    }

    /// A counter's total.
    pub const fn total(title: &'static str, metric: &'static Metric<E>, width: u16) -> Column<E> {
        Column { title, cell: Cell::Total(metric), width, grow: false, priority: 0, warn: None }
    }

    /// A quantile.
    pub const fn quantile(title: &'static str, metric: &'static Metric<E>, q: f64) -> Column<E> {
        Column { title, cell: Cell::Quantile(metric, q), width: 7, grow: false, priority: 0, warn: None }
    }

    /// The share of some points in all of a counter's.
    pub const fn share(title: &'static str, metric: &'static Metric<E>, attributes: Attributes, width: u16) -> Column<E> {
        Column { title, cell: Cell::Share(metric, attributes), width, grow: false, priority: 0, warn: None }
    }

    /// Shades, a cell of the terminal for each octave.
    pub const fn heat(metric: &'static Metric<E>) -> Column<E> {
        Column { title: metric.info.title, cell: Cell::Heat(metric), width: heat::WIDTH, grow: false, priority: 0, warn: None }
    }

    /// A number of the entity itself.
    pub const fn own(title: &'static str, help: &'static str, read: fn(&E) -> Option<u32>, width: u16) -> Column<E> {
        Column { title, cell: Cell::Own(read, help), width, grow: false, priority: 0, warn: None }
    }

    /// Parts of their sum.
    pub const fn ledger(metric: &'static Metric<E>, segments: &'static [Segment], width: u16) -> Column<E> {
        let cell = Cell::Bar(metric, segments, Whole::Sum);
        Column { title: metric.info.title, cell, width, grow: false, priority: 0, warn: None }
    }

    /// Words of the table's user.
    pub const fn note(title: &'static str, help: &'static str, width: u16) -> Column<E> {
        Column { title, cell: Cell::Note(help), width, grow: false, priority: 0, warn: None }
    }

    /// Words of the entity itself, which begin with what matters.
    pub const fn words(title: &'static str, help: &'static str, read: fn(&E) -> &str, width: u16) -> Column<E> {
        let cell = Cell::Words(Words { read, help, end: End::Head });
        Column { title, cell, width, grow: false, priority: 0, warn: None }
    }

    /// A path of the entity, which ends with what matters.
    pub const fn path(title: &'static str, help: &'static str, read: fn(&E) -> &str, width: u16) -> Column<E> {
        let cell = Cell::Words(Words { read, help, end: End::Tail });
        Column { title, cell, width, grow: false, priority: 0, warn: None }
    }

    /// Whether it reads best in ascending order, as names do.
    pub fn ascends(&self) -> bool {
        matches!(self.cell, Cell::Label | Cell::Words(_) | Cell::Own(..))
    }

    /// Goes when there is too little room, the higher the number the sooner.
    pub const fn priority(self, priority: u8) -> Column<E> {
        Column { priority, ..self }
    }

    /// Marked from this number on.
    pub const fn warn(self, from: f64) -> Column<E> {
        Column { warn: Some(from), ..self }
    }

    /// What its metric means, from the catalogue.
    pub fn help(&self) -> &'static str {
        match self.cell {
            Cell::Label => "Its name.",
            Cell::Number(metric, ..)
            | Cell::Total(metric)
            | Cell::Quantile(metric, _)
            | Cell::Share(metric, _)
            | Cell::Heat(metric)
            | Cell::Bar(metric, ..) => metric.info.help,
            Cell::Note(help) | Cell::Words(Words { help, .. }) | Cell::Own(_, help) => help,
        }
    }
}

impl<E: Entity> Column<E> {
    /// The number in a cell, or by which it is sorted; `None` when it is unknown or no number.
    pub fn value(&self, row: &Row<'_, E>) -> Option<f64> {
        match self.cell {
            Cell::Number(metric, attributes, _) => row.number(metric, attributes),
            Cell::Total(metric) => row.total(metric),
            Cell::Quantile(metric, q) => row.quantile(metric, q),
            Cell::Heat(metric) => row.quantile(metric, 0.5),
            Cell::Share(metric, attributes) => {
                let whole = row.number(metric, &[]).filter(|whole| *whole > 0.0)?;
                Some(row.number(metric, attributes)? / whole)
            }
            Cell::Own(read, _) => read(row.is).map(f64::from),
            Cell::Bar(metric, segments, Whole::Sum) => {
                let lost = segments.iter().skip(1).filter_map(|segment| row.number(metric, segment.attributes));
                lost.reduce(|sum, lost| sum + lost)
            }
            Cell::Label | Cell::Note(_) | Cell::Words(_) | Cell::Bar(..) => None,
        }
    }

    fn text(&self, value: Option<f64>) -> String {
        match self.cell {
            Cell::Number(_, _, format) => format.text(value),
            Cell::Total(_) => Format::Count.text(value),
            Cell::Quantile(..) => Format::Duration.text(value),
            Cell::Share(..) => Format::Percent.text(value),
            // Not rounded: it is a name.
            Cell::Own(..) => value.map_or_else(|| UNKNOWN.into(), |number| number.to_string()),
            Cell::Label | Cell::Note(_) | Cell::Words(_) | Cell::Heat(_) | Cell::Bar(..) => UNKNOWN.into(),
        }
    }

    fn is_left(&self) -> bool {
        matches!(self.cell, Cell::Label | Cell::Note(_) | Cell::Words(_) | Cell::Heat(_) | Cell::Bar(..))
    }
}

/// By which column, and which way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sort {
    /// Index of the column.
    pub column: usize,
    /// Highest first.
    pub descending: bool,
}

/// The order of two numbers; what is unknown comes last either way.
pub fn order(a: Option<f64>, b: Option<f64>, descending: bool) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) if descending => b.total_cmp(&a),
        (Some(a), Some(b)) => a.total_cmp(&b),
        (a, b) => b.is_some().cmp(&a.is_some()),
    }
}

/// A line of a table.
pub struct Line<'a, E> {
    /// Its entity.
    pub row: Row<'a, E>,
    /// Its name.
    pub label: Cow<'a, str>,
    /// Cells before the name.
    pub indent: u16,
    /// A symbol before the name, such as that of a fold.
    pub mark: &'static str,
    /// Of less interest: it is there for its children only.
    pub dim: bool,
    /// What a [`Cell::Note`] says.
    pub note: Cow<'a, str>,
}

/// What of a table was drawn where: for clicks and for the next page.
#[derive(Default, Debug)]
pub struct Drawn {
    /// Headers and the index of their column.
    pub headers: Vec<(Rect, usize)>,
    /// The lines.
    pub body: Rect,
}

/// How a table looks.
pub struct Table<E: 'static> {
    /// All columns, most important first.
    pub columns: &'static [Column<E>],
    /// Colours.
    pub palette: Palette,
    /// Which header has the arrow.
    pub sort: Option<Sort>,
    /// Which of the lines is selected.
    pub selected: Option<usize>,
}

impl<E: Entity> Table<E> {
    /// Draws the header and the lines that fit.
    pub fn draw<'a>(&self, buffer: &mut Buffer, area: Rect, lines: impl Iterator<Item = Line<'a, E>>) -> Drawn {
        let mut drawn = Drawn::default();
        if area.is_empty() {
            return drawn;
        }
        let columns = self.fit(area.width);
        let header = self.palette.style(Tone::Header);
        let blank = " ".repeat(usize::from(area.width));
        text::put(buffer, area, 0, 0, &blank, header);
        for (index, x, width) in &columns {
            let column = &self.columns[*index];
            let arrow = match self.sort {
                Some(Sort { column, descending }) if column == *index => ["▲", "▼"][usize::from(descending)],
                _ => "",
            };
            let title = format!("{}{arrow}", column.title);
            if let Cell::Heat(_) = column.cell {
                heat::axis(buffer, Rect { x: area.x + x, width: *width, ..area }.intersection(area), header);
                text::put(buffer, area, x + width.saturating_sub(1), 0, arrow, header);
            } else if column.is_left() {
                text::put(buffer, area, *x, 0, &text::head(&title, *width), header);
            } else {
                text::put_right(buffer, area, x + width, 0, *width + 1, &title, header);
            }
            drawn.headers.push((Rect::new(area.x + x, area.y, *width, 1).intersection(area), *index));
        }
        drawn.body = Rect { y: area.y + 1, height: area.height - 1, ..area };
        for (y, line) in (0..drawn.body.height).zip(lines) {
            for (index, x, width) in &columns {
                self.cell(buffer, drawn.body, &self.columns[*index], &line, (*x, y, *width));
            }
            if self.selected == Some(usize::from(y)) {
                let row = Rect { y: drawn.body.y + y, height: 1, ..drawn.body };
                buffer.set_style(row, self.palette.style(Tone::Selected));
            }
        }
        drawn
    }

    fn cell(&self, buffer: &mut Buffer, area: Rect, column: &Column<E>, line: &Line<'_, E>, (x, y, width): (u16, u16, u16)) {
        let plain = self.palette.style(if line.dim { Tone::Dim } else { Tone::Plain });
        match column.cell {
            Cell::Label => {
                let indent = line.indent.min(width / 2);
                let start = text::put(buffer, area, x + indent, y, line.mark, plain);
                let room = (x + width).saturating_sub(start);
                text::put(buffer, area, start, y, &text::tail(&line.label, room), plain);
            }
            Cell::Note(_) => {
                text::put(buffer, area, x, y, &text::head(&line.note, width), plain);
            }
            Cell::Words(Words { read, end, .. }) => {
                let words = read(line.row.is);
                let cut = if end == End::Head { text::head(words, width) } else { text::tail(words, width) };
                text::put(buffer, area, x, y, &cut, plain);
            }
            Cell::Bar(metric, segments, whole) => {
                let numbers = segments.iter().map(|segment| line.row.number(metric, segment.attributes));
                bar(
                    buffer,
                    Rect { x: area.x + x, y: area.y + y, width, height: 1 }.intersection(area),
                    self.palette,
                    segments,
                    numbers,
                    whole,
                );
            }
            Cell::Heat(metric) => {
                let place = Rect { x: area.x + x, y: area.y + y, width, height: 1 }.intersection(area);
                heat::draw(buffer, place, self.palette, line.row.grown(metric).as_ref());
            }
            Cell::Number(..) | Cell::Total(_) | Cell::Quantile(..) | Cell::Share(..) | Cell::Own(..) => {
                let value = column.value(&line.row);
                let tone = match value {
                    None => Tone::Dim,
                    Some(value) if column.warn.is_some_and(|from| value >= from) => Tone::Warn,
                    Some(_) => Tone::Plain,
                };
                let style = if line.dim { plain } else { self.palette.style(tone) };
                text::put_right(buffer, area, x + width, y, width, &column.text(value), style);
            }
        }
    }

    /// The columns that fit, with their widths.
    pub fn shown(&self, room: u16) -> impl Iterator<Item = (&'static Column<E>, u16)> {
        self.fit(room).into_iter().map(|(index, _, width)| (&self.columns[index], width))
    }

    /// The columns that fit, with where they begin and how wide they are.
    fn fit(&self, room: u16) -> Vec<(usize, u16, u16)> {
        let mut shown: Vec<usize> = (0..self.columns.len()).collect();
        let needed = |shown: &[usize]| shown.iter().map(|at| self.columns[*at].width + 1).sum::<u16>().saturating_sub(1);
        let name = self.columns.first().filter(|first| first.grow).map_or(0, |first| ROOM.saturating_sub(first.width));
        while let Some(at) = (1..shown.len()).rev().max_by_key(|at| self.columns[shown[*at]].priority) {
            let optional = self.columns[shown[at]].priority >= OPTIONAL;
            if needed(&shown) + if optional { name } else { 0 } <= room {
                break;
            }
            shown.remove(at);
        }
        let mut spare = room.saturating_sub(needed(&shown));
        let mut x = 0;
        let mut placed = Vec::with_capacity(shown.len());
        for index in shown {
            let column = &self.columns[index];
            // What a growing column leaves is for words.
            let most = match column.cell {
                Cell::Words(_) if column.grow => u16::MAX,
                _ if column.grow => MOST.max(column.width),
                // Octaves are equally wide.
                Cell::Heat(_) if spare >= column.width => column.width * 2,
                Cell::Note(_) | Cell::Words(Words { end: End::Tail, .. }) => column.width * 2,
                _ => column.width,
            };
            let grown = column.width.saturating_add(spare).min(most);
            spare -= grown - column.width;
            let width = grown.min(room.saturating_sub(x));
            placed.push((index, x, width));
            x += width + 1;
        }
        placed
    }
}

/// Draws numbers side by side between brackets.
pub fn bar(
    buffer: &mut Buffer,
    area: Rect,
    palette: Palette,
    segments: &[Segment],
    numbers: impl Iterator<Item = Option<f64>>,
    whole: Whole,
) {
    let numbers: Vec<_> = numbers.collect();
    let inner = area.width.saturating_sub(2);
    let all = match whole {
        Whole::Second => 1.0,
        Whole::Sum => numbers.iter().flatten().sum::<f64>().max(f64::MIN_POSITIVE),
    };
    let (mut sum, mut cell) = (0.0, 0);
    for (segment, number) in segments.iter().zip(&numbers) {
        sum += number.unwrap_or(0.0);
        let end = ((sum / all * f64::from(inner)).round().max(0.0) as u16).min(inner);
        let style = palette.style(segment.tone);
        while cell < end {
            text::put(buffer, area, 1 + cell, 0, segment.symbol, style);
            cell += 1;
        }
    }
    let dim = palette.style(Tone::Dim);
    text::put(buffer, area, 0, 0, "[", dim);
    text::put(buffer, area, area.width.saturating_sub(1), 0, "]", dim);
    if numbers.iter().all(Option::is_none) {
        text::put(buffer, area, 1, 0, UNKNOWN, dim);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Cgroup, cgroup};

    static COLUMNS: &[Column<Cgroup>] = &[
        Column::label("NAME", 10),
        Column::number(&cgroup::CPU_TIME, Format::Percent, 6).priority(1),
        Column::quantile("P99", &cgroup::LATENCY, 0.99).priority(2),
    ];

    #[test]
    fn columns_go_by_priority() {
        let table = Table { columns: COLUMNS, palette: Palette::None, sort: None, selected: None };
        let check = |room, expected: &[(usize, u16, u16)]| assert_eq!(table.fit(room), expected, "{room}");
        check(30, &[(0, 0, 15), (1, 16, 6), (2, 23, 7)]);
        check(25, &[(0, 0, 10), (1, 11, 6), (2, 18, 7)]);
        check(24, &[(0, 0, 17), (1, 18, 6)]);
        check(16, &[(0, 0, 16)]);
        check(5, &[(0, 0, 5)]);
        check(0, &[(0, 0, 0)]);
    }

    #[test]
    fn unknown_comes_last_either_way() {
        for descending in [false, true] {
            assert_eq!(order(Some(1.0), None, descending), Ordering::Less);
            assert_eq!(order(None, Some(1.0), descending), Ordering::Greater);
        }
        assert_eq!(order(Some(1.0), Some(2.0), true), Ordering::Greater);
        assert_eq!(order(Some(1.0), Some(2.0), false), Ordering::Less);
    }
}

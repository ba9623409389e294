//! The CPUs by node, cache and core: how busy each is, what it costs to wait there, and how its waits were distributed.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::{below, cgroups, imbalance, overview, row, trouble, verdict, waits};
use crate::model::topology::Shape;
use crate::model::{Cpu, Snapshot, Topology, cpu};
use crate::tui::app::{App, Hits};
use crate::tui::format::{Format, UNKNOWN};
use crate::tui::heat;
use crate::tui::palette::{Palette, Tone};
use crate::tui::table::{Cell, Column, Line, Table, Whole};
use crate::tui::text::{self, Piece, piece};

/// All columns.
pub static COLUMNS: &[Column<Cpu>] = &[
    Column { grow: false, ..Column::label("CPU", 5) },
    Column::own("NODE", "NUMA node.", |cpu: &Cpu| cpu.topology.node, 4).priority(1),
    Column::own("CACHE", "Last-level cache: the lowest of the CPUs that share it.", |cpu: &Cpu| cpu.topology.llc, 5).priority(2),
    Column::own("CORE", "The lowest of the CPUs that share the core.", |cpu: &Cpu| cpu.topology.core, 4).priority(2),
    Column { cell: Cell::Bar(&cpu::TIME, overview::MODES, Whole::Second), ..Column::number(&cpu::TIME, Format::Percent, 12) },
    Column::part("STEAL", &cpu::TIME, &[("cpu.mode", "steal")], Format::Percent, 6).priority(1).warn(verdict::STEAL_MATTERS),
    Column::part("INT", &cpu::TIME, &[("cpu.mode", "interrupt")], Format::Percent, 5).priority(3),
    Column::part("IDLE", &cpu::TIME, &[("cpu.mode", "idle")], Format::Percent, 5).priority(3),
    Column::number(&cpu::DEPTH, Format::Count, 5).warn(DEPTH_WARN),
    Column::number(&cpu::WAIT_TIME, Format::PerSecond, 8).warn(cgroups::WAIT_WARN),
    Column::quantile("P99", &cpu::LATENCY, 0.99),
    Column::number(&cpu::LOCAL_DISPATCHES, Format::Percent, 5).priority(2),
    Column::number(&cpu::CACHE_DISPATCHES, Format::Percent, 9).priority(4),
    Column::number(&cpu::MIGRATIONS, Format::Rate, 8).priority(3),
    Column::number(&cpu::MIGRATIONS_OUT, Format::Rate, 8).priority(4),
    Column::number(&cpu::WAIT_PENDING, Format::Duration, 8).priority(4),
    Column::number(&cpu::SWITCHES, Format::Rate, 8).priority(3),
    Column::share("PREEMPTED", &cpu::SWITCHES, &[("observer.switch.type", "preempted")], 9).priority(4),
    Column::heat(&cpu::LATENCY),
];

/// Tasks that run or could, on average, from which a cell is marked: as many wait as run.
pub const DEPTH_WARN: f64 = 2.0;

/// The column of [`COLUMNS`] by which the list is sorted at first: the place.
pub const SORTED_BY: usize = 0;

/// Lines that the distribution below the list has at the least, with its title; with fewer it is left out.
const WAITS: u16 = 8;

pub(super) fn draw(app: &App, snapshot: &Snapshot, buffer: &mut Buffer, area: Rect, hits: &mut Hits) {
    let palette = app.options.palette;
    let list = &app.cpus;
    let modes: Vec<_> = overview::MODES.iter().map(|mode| format!("{} {}", mode.symbol, mode.name)).collect();
    let title = format!("CPUs, {} of {}   {}", list.lines.len(), snapshot.is.cpus.len(), modes.join("  "));
    let inner = text::panel(buffer, area, palette, &title, &trouble(snapshot, &["sched", "stat", "topology"]));
    text::put_pieces(buffer, inner, 0, palette, shape(snapshot));
    let rest = below(inner, 1);

    // All of the list, and below it what is left; a list that needs all has all.
    let wanted = u16::try_from(list.lines.len()).unwrap_or(u16::MAX).saturating_add(2);
    let height = if rest.height.saturating_sub(wanted) < WAITS { rest.height } else { wanted };
    let selected = list.selected.and_then(|_| list.at.checked_sub(list.offset));
    let table = Table { columns: COLUMNS, palette, sort: Some(list.sort), selected };
    let cpu = |at: usize| snapshot.is.cpus.get(list.lines.get(at)?.index);
    let lines = (list.offset..list.lines.len()).filter_map(|at| {
        let (here, above) = (cpu(at)?, at.checked_sub(1).and_then(cpu));
        let siblings = here.topology.core.is_some() && above.is_some_and(|above| above.topology.core == here.topology.core);
        let mark = if siblings && list.sort.column == SORTED_BY { "└" } else { "" };
        let label = here.number.to_string().into();
        Some(Line { row: row(snapshot, here), label, indent: 0, mark, dim: false, note: "".into() })
    });
    let drawn = table.draw(buffer, Rect { height, ..rest }, lines);
    hits.headers = drawn.headers;
    hits.body = drawn.body;
    draw_waits(app, snapshot, buffer, below(rest, height), palette);
}

/// The distribution of the selected CPU's waits, or of all CPUs'.
fn draw_waits(app: &App, snapshot: &Snapshot, buffer: &mut Buffer, area: Rect, palette: Palette) {
    if area.is_empty() {
        return;
    }
    let list = &app.cpus;
    let selected = list.selected.and_then(|_| snapshot.is.cpus.get(list.lines.get(list.at)?.index));
    let grown = |cpu: &Cpu| row(snapshot, cpu).grown(&cpu::LATENCY);
    let (title, histogram) = match selected {
        Some(cpu) => (format!("Waits on CPU {}", cpu.number), grown(cpu)),
        None => {
            let all = snapshot.is.cpus.iter().filter_map(grown).reduce(|mut all, one| {
                all.add(&one);
                all
            });
            ("Waits on all CPUs".to_owned(), all)
        }
    };
    waits::draw(buffer, area, palette, &title, histogram.as_ref());
}

/// What the shades mean, and how many there are of everything.
fn shape(snapshot: &Snapshot) -> Vec<Piece> {
    let places: Vec<Topology> = snapshot.is.cpus.iter().map(|cpu| cpu.topology).collect();
    let shape = Shape::of(&places);
    let count = |priority, name: &str, count: Option<usize>| {
        let count = count.map_or_else(|| UNKNOWN.to_owned(), |count| count.to_string());
        piece(priority, Tone::Plain, format!("{name} {count}"))
    };
    vec![
        count(1, "nodes", shape.nodes),
        count(3, "packages", shape.packages),
        count(2, "caches", shape.caches),
        count(2, "cores", shape.cores),
        imbalance::number(snapshot),
        piece(0, Tone::Dim, format!("waits  {}", heat::legend())),
    ]
}

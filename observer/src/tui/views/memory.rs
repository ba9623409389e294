//! Memory: what the page allocator gave and to whom, and how long it let tasks wait for it.

use observer_common::memory::ORDERS;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::{below, cgroups, row, trouble};
use crate::model::host::{KERNEL_STALLS, OOM_KILLS, PRESSURE_FULL, PRESSURE_SOME};
use crate::model::memory::{
    ALLOCATIONS, CLASS_NAMES, COMPACTION, FAILURES, FALLBACKS, FREE_BLOCKS, MEMCG_RECLAIM, RECLAIM, TYPE_NAMES,
};
use crate::model::{Allocator, Blame, Cgroup, Metric, Row, Snapshot, Value, cgroup};
use crate::tui::app::{App, Hits};
use crate::tui::format::Format;
use crate::tui::palette::{Palette, Tone};
use crate::tui::table::Column;
use crate::tui::text::{self, Piece, piece};

/// The columns of who allocates and who is stalled.
pub static COLUMNS: &[Column<Cgroup>] = &[
    Column::label("CGROUP", 30),
    Column::number(&cgroup::STALL_TIME, Format::PerSecond, 9),
    Column::number(&cgroup::STALLS, Format::Rate, 9),
    Column::number(&cgroup::PAGES, Format::Rate, 9),
    Column::number(&cgroup::RUN_TIME, Format::Percent, 6).priority(1),
];

/// The kinds of stalls and what each is.
pub(super) static STALLS: [(&Metric<Allocator>, &str); 3] = [
    (&RECLAIM, "direct reclaim: the machine had too few free pages"),
    (&MEMCG_RECLAIM, "reclaim at a memory cgroup's limit"),
    (&COMPACTION, "direct compaction: no block large enough"),
];

/// Lines of the panel of stalls, with its title, its header and the kernel's own counts.
const STALL_LINES: u16 = STALLS.len() as u16 + 3;
/// Lines that the list of cgroups keeps at the least, with its title and header.
const LIST: u16 = 5;
/// Orders from which on a block is large, and how soon each is left out: beyond the first the kernel holds that an allocation may fail
/// (`PAGE_ALLOC_COSTLY_ORDER`), the second is a huge page.
const LARGE: [(u8, usize); 2] = [(1, 3), (0, 9)];
/// Widths of the tables' columns.
const NAME: u16 = 14;
const NUMBER: u16 = 10;

pub(super) fn draw(app: &App, snapshot: &Snapshot, buffer: &mut Buffer, area: Rect, hits: &mut Hits) {
    let palette = app.options.palette;
    let machine = snapshot.is.memory.iter().find(|allocator| allocator.node.is_none()).map(|machine| row(snapshot, machine));
    let orders = machine.map(|machine| orders(&machine)).unwrap_or_default();

    let inner =
        text::panel(buffer, area, palette, "Stalls: tasks that had to do the allocator's work", &trouble(snapshot, &["memory"]));
    draw_stalls(buffer, inner, palette, machine.as_ref());
    text::put_pieces(buffer, inner, STALL_LINES - 2, palette, kernel(snapshot));
    let rest = below(area, STALL_LINES);

    let wanted = orders.len() as u16 + 5;
    let height = wanted.min(rest.height.saturating_sub(LIST));
    let inner = text::panel(buffer, rest, palette, "Allocations of 2^order pages", "");
    let inner = Rect { height: height.saturating_sub(1), ..inner };
    draw_orders(buffer, Rect { height: inner.height.saturating_sub(1), ..inner }, palette, machine.as_ref(), &orders);
    text::put_pieces(buffer, inner, inner.height.saturating_sub(1), palette, free(snapshot));
    let rest = below(rest, height);

    let inner = text::panel(buffer, rest, palette, "Who was stalled, who allocates", &trouble(snapshot, cgroups::SOURCES));
    cgroups::list(app, &Blame::of(snapshot), &app.memory, COLUMNS, buffer, inner, hits);
    if app.memory.lines.is_empty() {
        text::put(buffer, hits.body, 0, 0, "nobody, as far as observer knows", palette.style(Tone::Dim));
    }
}

/// The stalls of the interval, a line each kind.
fn draw_stalls(buffer: &mut Buffer, area: Rect, palette: Palette, machine: Option<&Row<'_, Allocator>>) {
    let cell = |buffer: &mut Buffer, column: u16, y: u16, text: &str, tone: Tone| {
        text::put_right(buffer, area, NUMBER * (column + 1) - 1, y, NUMBER, text, palette.style(tone));
    };
    let header = ["STALLS", "TIME", "p50", "p99"];
    text::put(buffer, area, 0, 0, &" ".repeat(usize::from(area.width)), palette.style(Tone::Header));
    for (column, title) in (0..).zip(header) {
        cell(buffer, column, 0, title, Tone::Header);
    }
    for (y, (metric, what)) in (1..).zip(STALLS) {
        let grown = machine.and_then(|machine| machine.grown(metric));
        let interval = machine.and_then(|machine| machine.interval).filter(|interval| *interval > 0.0);
        let rate = |number: Option<f64>| Some(number? / interval?);
        let count = rate(grown.as_ref().map(|grown| grown.count() as f64));
        let time = rate(grown.as_ref().map(|grown| grown.sum as f64 / 1e9));
        let quantile = |q| Format::Duration.text(grown.as_ref().and_then(|grown| grown.quantile(q)));
        let tone = if time > Some(0.0) { Tone::Warn } else { Tone::Plain };
        let texts = [Format::Rate.text(count), Format::PerSecond.text(time), quantile(0.5), quantile(0.99)];
        for (column, text) in (0..).zip(&texts) {
            cell(buffer, column, y, text, tone);
        }
        text::put(buffer, area, NUMBER * header.len() as u16 + 2, y, what, palette.style(Tone::Dim));
    }
}

/// What the kernel itself says: how long memory was what tasks waited for, and its counts of the same stalls.
fn kernel(snapshot: &Snapshot) -> Vec<Piece> {
    let host = row(snapshot, &snapshot.is.host);
    let memory = &[("observer.pressure.resource", "memory")];
    let share = |metric| Format::Percent.text(host.number(metric, memory));
    let stalls = |kind| Format::Rate.text(host.number(&KERNEL_STALLS, kind));
    let killed = host.number(&OOM_KILLS, &[]);
    let tone = if killed > Some(0.0) { Tone::Bad } else { Tone::Plain };
    vec![
        piece(0, Tone::Plain, format!("pressure some {} full {}", share(&PRESSURE_SOME), share(&PRESSURE_FULL))),
        piece(1, Tone::Dim, format!("vmstat: reclaims {}", stalls(&[("observer.memory.stall", "reclaim")]))),
        piece(1, Tone::Dim, format!("compactions {}", stalls(&[("observer.memory.stall", "compaction")]))),
        piece(0, tone, format!("OOM kills {}", Format::Rate.text(killed))),
    ]
}

/// What was given of one order, a second.
#[derive(Clone, Copy, Default)]
struct Order {
    order: usize,
    classes: [f64; CLASS_NAMES.len()],
}

/// The orders of which something was given in the interval.
fn orders(machine: &Row<'_, Allocator>) -> Vec<Order> {
    let mut orders = [Order::default(); ORDERS];
    for point in machine.points_of(&ALLOCATIONS) {
        let (Value::Counter { rate: Some(rate), .. }, [(_, order), _, (_, class)]) = (point.value, point.attributes) else {
            continue;
        };
        let class = CLASS_NAMES.iter().position(|name| name == class);
        if let (Some(order), Some(class)) = (order.parse().ok().and_then(|order: usize| orders.get_mut(order)), class) {
            order.classes[class] += rate;
        }
    }
    let numbered = orders.into_iter().enumerate().map(|(number, order)| Order { order: number, ..order });
    numbered.filter(|order| order.classes.iter().any(|rate| *rate > 0.0)).collect()
}

/// A line an order, by what it was for; below, what failed and what another migratetype had to give.
fn draw_orders(buffer: &mut Buffer, area: Rect, palette: Palette, machine: Option<&Row<'_, Allocator>>, orders: &[Order]) {
    let cell = |buffer: &mut Buffer, column: u16, y: u16, text: &str, tone: Tone| {
        text::put_right(buffer, area, NAME + NUMBER * (column + 1) - 1, y, NUMBER, text, palette.style(tone));
    };
    text::put(buffer, area, 0, 0, &" ".repeat(usize::from(area.width)), palette.style(Tone::Header));
    text::put(buffer, area, 0, 0, "ORDER", palette.style(Tone::Header));
    let titles = ["ALL", "USER", "KERNEL", "ACCOUNTED", "ATOMIC"];
    for (column, title) in (0..).zip(titles) {
        cell(buffer, column, 0, title, Tone::Header);
    }
    let room = usize::from(area.height.saturating_sub(3));
    for (y, order) in (1..).zip(orders.iter().take(room)) {
        let bytes = Format::Bytes.text(Some((4096_u64 << order.order) as f64));
        text::put(buffer, area, 0, y, &format!("{:>2}  {bytes}", order.order), palette.style(Tone::Plain));
        let all = order.classes.iter().sum();
        for (column, rate) in (0..).zip([all].into_iter().chain(order.classes)) {
            cell(buffer, column, y, &Format::Rate.text(Some(rate)), Tone::Plain);
        }
    }
    let y = 1 + orders.len().min(room) as u16;
    text::put_pieces(buffer, area, y, palette, named("failed", machine, &FAILURES, "observer.memory.class", &CLASS_NAMES));
    let y = y + 1;
    text::put_pieces(
        buffer,
        area,
        y,
        palette,
        named("fallbacks", machine, &FALLBACKS, "observer.memory.migratetype", &TYPE_NAMES),
    );
}

/// How much is free on all nodes, and how much of it lies in large blocks.
fn free(snapshot: &Snapshot) -> Vec<Piece> {
    let width = usize::from(NAME);
    let mut orders = [0.0; ORDERS];
    let nodes = snapshot.is.memory.iter().map(|node| row(snapshot, node));
    let points: Vec<_> = nodes.flat_map(|node| node.points_of(&FREE_BLOCKS)).collect();
    for point in &points {
        let order = point.attributes.iter().find(|(name, _)| *name == "observer.memory.order");
        let order = order.and_then(|(_, order)| orders.get_mut(order.parse::<usize>().ok()?));
        if let (Some(order), Value::Gauge(blocks)) = (order, &point.value) {
            *order += blocks;
        }
    }
    let pages = |from: usize| (from..ORDERS).map(|order| orders[order] * (1_u64 << order) as f64).sum::<f64>();
    let all = (!points.is_empty()).then(|| pages(0));
    let mut pieces = vec![piece(0, Tone::Plain, format!("{:width$}{}", "free", Format::Bytes.text(all.map(|all| all * 4096.0))))];
    for (priority, order) in LARGE {
        let share = all.filter(|all| *all > 0.0).map(|all| pages(order) / all);
        let block = Format::Bytes.text(Some((4096_u64 << order) as f64));
        pieces.push(piece(priority, Tone::Plain, format!("{} in blocks of {block} and more", Format::Percent.text(share))));
    }
    pieces
}

/// The rates of a counter by one attribute: those that are not nothing.
fn named(
    title: &str,
    machine: Option<&Row<'_, Allocator>>,
    metric: &'static Metric<Allocator>,
    attribute: &str,
    names: &[&str],
) -> Vec<Piece> {
    let width = usize::from(NAME);
    let mut pieces =
        vec![piece(0, Tone::Plain, format!("{title:width$}{}", Format::Rate.text(machine.and_then(|m| m.number(metric, &[])))))];
    for point in machine.map(|machine| machine.points_of(metric)).unwrap_or_default() {
        let (Value::Counter { rate: Some(rate), .. }, Some((_, name))) =
            (point.value, point.attributes.iter().find(|(name, _)| *name == attribute))
        else {
            continue;
        };
        if rate > 0.0 && names.contains(name) {
            pieces.push(piece(1, Tone::Warn, format!("{name} {}", Format::Rate.text(Some(rate)))));
        }
    }
    pieces
}

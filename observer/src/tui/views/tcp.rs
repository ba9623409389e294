//! What TCP sends again: the machine in sum beside the kernel's own counters, and every flow.

use std::collections::BTreeMap;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::{below, trouble};
use crate::model::tcp::Who;
use crate::model::{Host, Metric, NetNs, Row, Snapshot, TcpFlow, Value, netns, tcp};
use crate::tui::app::{App, Hits};
use crate::tui::format::{Format, UNKNOWN, count};
use crate::tui::palette::{Palette, Tone};
use crate::tui::table::{Column, Line, Table, order};
use crate::tui::text::{self, Piece, piece};

/// All columns.
pub static COLUMNS: &[Column<TcpFlow>] = &[
    Column { grow: false, ..Column::label("LOCAL", 20) },
    Column::note("PEER", "The other end.", 20),
    Column::number(&tcp::RETRANSMITS, Format::Rate, 8).warn(WARN),
    Column::total("TOTAL", &tcp::RETRANSMITS, 7),
    Column::number(&tcp::RTT, Format::Duration, 8),
    Column::words("STATE", "State of the connection when it last retransmitted.", state, 11),
    Column::words("PROCESS", "A process that has the socket open.", process, 12).priority(1),
    Column::number(&tcp::CWND, Format::Count, 6).priority(1),
    Column::number(&tcp::RTO, Format::Duration, 8).priority(1),
    Column::part("TIMEOUT", &tcp::RETRANSMITS, &[("observer.tcp.cause", "timeout")], Format::Rate, 8).priority(2),
    Column::part("FAST", &tcp::RETRANSMITS, &[("observer.tcp.cause", "fast")], Format::Rate, 8).priority(2),
    Column::part("PROBE", &tcp::RETRANSMITS, &[("observer.tcp.cause", "probe")], Format::Rate, 8).priority(2),
    Column::part("SYN", &tcp::RETRANSMITS, &[("observer.tcp.cause", "syn")], Format::Rate, 8).priority(3),
    Column::part("SYNACK", &tcp::RETRANSMITS, &[("observer.tcp.cause", "synack")], Format::Rate, 8).priority(3),
    Column::number(&tcp::RETRANSMIT_FAILURES, Format::Rate, 8).priority(4),
    Column {
        grow: true,
        ..Column::path("CGROUP", "That of the socket.", |flow: &TcpFlow| flow.cgroup.as_deref().unwrap_or(UNKNOWN), 19)
    }
    .priority(2),
];

/// The column of [`COLUMNS`] by which the list is sorted at first: what is sent again now.
pub const SORTED_BY: usize = 2;
/// Segments a second from which a cell is marked.
const WARN: f64 = 10.0;

fn process(flow: &TcpFlow) -> &str {
    flow.holder.as_ref().map_or(UNKNOWN, |holder| &holder.comm)
}

fn state(flow: &TcpFlow) -> &str {
    flow.last.as_ref().map_or(UNKNOWN, |last| last.state())
}

pub(super) fn draw(app: &App, snapshot: &Snapshot, buffer: &mut Buffer, area: Rect, hits: &mut Hits) {
    let palette = app.options.palette;
    let inner = text::panel(buffer, area, palette, "Sent again", &trouble(snapshot, &["tcp", "netstat"]));
    for row in snapshot.rows::<Host>() {
        text::put_pieces(buffer, inner, 0, palette, ours(&row));
        text::put_pieces(buffer, inner, 1, palette, kernels(&row));
    }
    let spaces = namespaces(snapshot);
    let lines = 2 + u16::from(!spaces.is_empty());
    text::put_pieces(buffer, inner, 2, palette, spaces);
    let rest = below(inner, lines);
    let sums = sums(rest.height, snapshot.is.tcp_flows.len());
    draw_sums(buffer, below(rest, rest.height - sums), palette, snapshot);
    let list = &app.tcp;
    let title = format!("Flows, {} of {}", list.lines.len(), snapshot.is.tcp_flows.len());
    let inner = text::panel(buffer, Rect { height: rest.height - sums, ..rest }, palette, &title, "");
    let selected = list.selected.and_then(|_| list.at.checked_sub(list.offset));
    let table = Table { columns: COLUMNS, palette, sort: Some(list.sort), selected };
    // All at once: a flow that was not there before began at nothing, which only the snapshot knows.
    let rows: Vec<_> = snapshot.rows::<TcpFlow>().collect();
    let lines = list.lines.iter().skip(list.offset).filter_map(|line| {
        let row = *rows.get(line.index)?;
        Some(Line { row, label: row.is.local().into(), indent: 0, mark: "", dim: false, note: row.is.peer().into() })
    });
    let drawn = table.draw(buffer, inner, lines);
    if snapshot.is.tcp_flows.is_empty() {
        let known = snapshot.is.host.tcp.resent.is_some();
        let words = if known { "nothing was sent again" } else { "unknown: the programs are off" };
        text::put(buffer, drawn.body, 0, 0, words, palette.style(Tone::Dim));
    }
    hits.headers = drawn.headers;
    hits.body = drawn.body;
}

/// Lines for the sums by peer and by cgroup, of those that there are: the flows keep more than twice as many.
fn sums(lines: u16, flows: usize) -> u16 {
    const MOST: u16 = 12;
    let wanted = u16::try_from(flows).unwrap_or(MOST).min(MOST) + 1;
    if flows == 0 { 0 } else { wanted.min(lines / 3) }
}

/// The network namespaces of the flows, where there are several, each beside the kernel's own count; those that send most again first.
fn namespaces(snapshot: &Snapshot) -> Vec<Piece> {
    let mut rows: Vec<_> = snapshot.rows::<NetNs>().map(|row| (row.number(&netns::RETRANSMITS, &[]), row)).collect();
    if rows.len() < 2 {
        return Vec::new();
    }
    rows.sort_by(|a, b| order(a.0, b.0, true));
    let mut pieces = vec![piece(0, Tone::Dim, "by network namespace:")];
    for (number, (rate, row)) in (1..=u8::MAX).zip(rows) {
        let kernels = Format::Rate.text(row.number(&netns::KERNEL_SEGMENTS, &[]));
        let text = format!("{} {}, kernel {kernels};", row.is.inode, Format::Rate.text(rate));
        pieces.push(piece(number, Tone::Dim, text));
    }
    pieces
}

/// Flows in sum, on the left by the peer's address, on the right by cgroup; those that send most again first.
fn draw_sums(buffer: &mut Buffer, area: Rect, palette: Palette, snapshot: &Snapshot) {
    if area.is_empty() {
        return;
    }
    let peer = |flow: &TcpFlow| match flow.who {
        Who::Flow(id) => id.peer.ip().to_string(),
        Who::Other => "~other".to_owned(),
    };
    let cgroup = |flow: &TcpFlow| flow.cgroup.as_deref().unwrap_or(UNKNOWN).to_owned();
    let left = Rect { width: area.width / 2, ..area };
    let right = Rect { x: area.x + left.width, width: area.width - left.width, ..area };
    let inner = text::panel(buffer, left, palette, "By peer", "");
    draw_sum(buffer, Rect { width: inner.width.saturating_sub(2), ..inner }, palette, summed(snapshot, peer));
    let inner = text::panel(buffer, right, palette, "By cgroup", "");
    draw_sum(buffer, inner, palette, summed(snapshot, cgroup));
}

/// Some flows in sum: their name, their rate, their total.
type Sum = (String, Option<f64>, f64);

fn summed(snapshot: &Snapshot, name: impl Fn(&TcpFlow) -> String) -> Vec<Sum> {
    let mut sums: BTreeMap<String, (Option<f64>, f64)> = BTreeMap::new();
    for row in snapshot.rows::<TcpFlow>() {
        let (rate, total) = sums.entry(name(row.is)).or_default();
        if let Some(more) = row.number(&tcp::RETRANSMITS, &[]) {
            *rate.get_or_insert(0.0) += more;
        }
        *total += row.total(&tcp::RETRANSMITS).unwrap_or(0.0);
    }
    let mut sums: Vec<Sum> = sums.into_iter().map(|(name, (rate, total))| (name, rate, total)).collect();
    sums.sort_by(|a, b| order(a.1, b.1, true).then(b.2.total_cmp(&a.2)));
    sums
}

fn draw_sum(buffer: &mut Buffer, area: Rect, palette: Palette, sums: Vec<Sum>) {
    const NUMBER: u16 = 9;
    let room = area.width.saturating_sub(2 * NUMBER);
    for (y, (name, rate, total)) in (0..area.height).zip(sums) {
        let tone = if rate >= Some(WARN) { Tone::Warn } else { Tone::Plain };
        text::put(buffer, area, 0, y, &text::tail(&name, room), palette.style(Tone::Plain));
        text::put_right(buffer, area, room + NUMBER - 1, y, NUMBER, &Format::Rate.text(rate), palette.style(tone));
        text::put_right(buffer, area, room + 2 * NUMBER - 1, y, NUMBER, &count(total), palette.style(Tone::Dim));
    }
}

/// What the programs count, on the whole machine.
fn ours(row: &Row<'_, Host>) -> Vec<Piece> {
    let mut pieces = vec![piece(0, Tone::Plain, format!("all {}", rate(row, &tcp::host::RETRANSMITS)))];
    for point in row.points_of(&tcp::host::RETRANSMITS) {
        if let (Value::Counter { rate, .. }, [(_, cause)]) = (point.value, point.attributes) {
            pieces.push(piece(1, Tone::Plain, format!("{cause} {}", Format::Rate.text(rate))));
        }
    }
    pieces.push(piece(2, Tone::Dim, format!("failed {}", rate(row, &tcp::host::RETRANSMIT_FAILURES))));
    pieces
}

/// What the kernel counts, in one network namespace.
fn kernels(row: &Row<'_, Host>) -> Vec<Piece> {
    let of = |name: &str, metric| format!("{name} {}", rate(row, metric));
    vec![
        piece(0, Tone::Dim, of("kernel, this network namespace:", &tcp::host::KERNEL_SEGMENTS)),
        piece(1, Tone::Dim, of("timeouts", &tcp::host::KERNEL_TIMEOUTS)),
        piece(1, Tone::Dim, of("fast", &tcp::host::KERNEL_FAST)),
        piece(2, Tone::Dim, of("probes", &tcp::host::KERNEL_PROBES)),
        piece(2, Tone::Dim, of("syn", &tcp::host::KERNEL_SYN)),
        piece(3, Tone::Dim, of("failed", &tcp::host::KERNEL_FAILED)),
    ]
}

fn rate(row: &Row<'_, Host>, metric: &'static Metric<Host>) -> String {
    Format::Rate.text(row.number(metric, &[]))
}

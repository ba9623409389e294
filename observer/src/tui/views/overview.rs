//! Where the time went, in one screen: a verdict, the host, its CPUs, and who lost most.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::ledger::{ACCOUNTS, Ledger};
use super::{below, blame, cgroups, events, imbalance, objectives, row, trouble, verdict};
use crate::model::blame::Victim;
use crate::model::{Blame, Cgroup, Cpu, Host, Row, Snapshot, TcpFlow, Value, cgroup, cpu, host, tcp};
use crate::tui::app::{App, Hits};
use crate::tui::format::Format;
use crate::tui::palette::Tone;
use crate::tui::table::{Cell, Column, Line, Segment, Table, Whole};
use crate::tui::text::{self, Piece, piece};

/// A CPU's time by mode as a bar; idle time is what is left of it.
pub(super) static MODES: &[Segment] = &[
    Segment { attributes: &[("cpu.mode", "user")], symbol: "█", name: "user", tone: Tone::User },
    Segment { attributes: &[("cpu.mode", "nice")], symbol: "▒", name: "nice", tone: Tone::User },
    Segment { attributes: &[("cpu.mode", "system")], symbol: "s", name: "system", tone: Tone::System },
    Segment { attributes: &[("cpu.mode", "interrupt")], symbol: "i", name: "interrupt", tone: Tone::Interrupt },
    Segment { attributes: &[("cpu.mode", "steal")], symbol: "X", name: "steal", tone: Tone::Steal },
    Segment { attributes: &[("cpu.mode", "iowait")], symbol: "░", name: "iowait", tone: Tone::Dim },
];

/// The columns of the CPUs.
pub static CPUS: &[Column<Cpu>] = &[
    Column { grow: false, ..Column::label("CPU", 4) },
    Column { title: "TIME", cell: Cell::Bar(&cpu::TIME, MODES, Whole::Second), width: 12, grow: true, priority: 3, warn: None },
    Column::part("USER", &cpu::TIME, &[("cpu.mode", "user")], Format::Percent, 5).priority(4),
    Column::part("SYS", &cpu::TIME, &[("cpu.mode", "system")], Format::Percent, 5).priority(4),
    Column::part("INT", &cpu::TIME, &[("cpu.mode", "interrupt")], Format::Percent, 5).priority(5),
    Column::part("STEAL", &cpu::TIME, &[("cpu.mode", "steal")], Format::Percent, 5).priority(1).warn(verdict::STEAL_MATTERS),
    Column::part("IDLE", &cpu::TIME, &[("cpu.mode", "idle")], Format::Percent, 5).priority(2),
    Column::number(&cpu::WAIT_TIME, Format::PerSecond, 8).warn(cgroups::WAIT_WARN),
    Column::quantile("P99", &cpu::LATENCY, 0.99).priority(1),
];

/// The columns of those who lost most.
pub static LOSERS: &[Column<Cgroup>] = &[
    Column::label("CGROUP", 22),
    Column::number(&cgroup::WAIT_TIME, Format::PerSecond, 8).warn(cgroups::WAIT_WARN),
    Column::ledger(&cgroup::LEDGER, ACCOUNTS, 13),
    Column { width: 22, ..cgroups::BEHIND },
    Column::number(&cgroup::CPU_TIME, Format::Percent, 6),
    Column::number(&cgroup::THROTTLED_TIME, Format::PerSecond, 10).warn(cgroups::THROTTLED_WARN).priority(1),
    Column::quantile("P99", &cgroup::LATENCY, 0.99).priority(2),
    Column::number(&cgroup::LIMIT, Format::Cpus, 6).priority(2),
    Column::number(&cgroup::WAIT_PENDING, Format::Duration, 8).priority(3),
    Column::number(&cgroup::STEAL, Format::Percent, 6).priority(3),
    Column::quantile("P50", &cgroup::LATENCY, 0.5).priority(3),
    Column::number(&cgroup::LOCAL_RUN_RATIO, Format::Percent, 9).priority(4),
];

/// A block of the CPU table takes at least so many columns of the terminal; wide ones have several side by side.
const CPU_BLOCK: u16 = 64;

/// Seconds a second, of all tasks together, from which time that the allocator takes is marked.
const STALL_WARN: f64 = 0.01;

/// Lines of objectives that are missed, at the most.
const OBJECTIVES: u16 = 3;

/// Lines of the processes' panel, its title included, where there is room for little.
const PROCESSES: u16 = 4;

pub(super) fn draw(app: &App, snapshot: &Snapshot, buffer: &mut Buffer, area: Rect, hits: &mut Hits) {
    let palette = app.options.palette;
    let blamed = Blame::of(snapshot);
    let most = match area.height {
        20.. => 3,
        13.. => 2,
        _ => 1,
    };
    let sentences = text::wrap(&verdict::sentence(&verdict::evidence(&blamed)), area.width, most);
    for (y, line) in (0..).zip(&sentences) {
        text::put(buffer, area, 0, y, line, palette.style(Tone::Title));
    }
    let mut rest = below(area, sentences.len() as u16);
    if let Some(uneven) = imbalance::Uneven::of(snapshot).and_then(|uneven| uneven.sentence()) {
        let lines = text::wrap(&uneven, rest.width, if area.height < 20 { 1 } else { 2 });
        for (y, line) in (0..).zip(&lines) {
            text::put(buffer, rest, 0, y, line, palette.style(Tone::Warn));
        }
        rest = below(rest, lines.len() as u16);
    }
    let ledger = Ledger::of(&row(snapshot, &snapshot.is.host), &host::LEDGER);
    rest = below(rest, ledger.draw(buffer, rest, palette, false));
    let lines = if area.height < 20 { 1 } else { 3 };
    for (y, line) in (0..lines).zip([host_line(snapshot), memory_line(snapshot), tcp_line(snapshot)]) {
        text::put_pieces(buffer, rest, y, palette, line);
    }
    rest = below(rest, lines);
    let missed = objectives::missed(snapshot);
    rest = below(rest, objectives::draw(buffer, rest, palette, &missed, if area.height < 20 { 1 } else { OBJECTIVES }));
    let events = events::lines(app, snapshot, rest);
    let (above, below_all) = (rest.height - events, below(rest, rest.height - events));
    events::draw(app, snapshot, buffer, below_all);
    rest.height = above;
    let processes = blamed.processes();
    let cpus = u16::try_from(snapshot.is.cpus.len()).unwrap_or(u16::MAX);
    // The losers keep three fifths, and the processes the half of them; of the CPUs that do not fit the worst are shown.
    let most = (rest.height * 2 / 5).saturating_sub(2).max(1);
    let blocks = cpus.div_ceil(most).clamp(1, (rest.width / CPU_BLOCK).max(1));
    let lines = cpus.div_ceil(blocks).clamp(1, most);
    let height = (lines + 2).min(rest.height);
    draw_cpus(app, snapshot, buffer, Rect { height, ..rest }, blocks);
    rest = below(rest, height);
    let wanted = (processes.len().min(usize::from(u16::MAX) - 1) as u16 + 1).min(rest.height);
    let spare = rest.height.saturating_sub(app.losers.lines.len().min(usize::from(u16::MAX) - 2) as u16 + 2);
    let height =
        if processes.is_empty() { 0 } else { wanted.min(spare.max(PROCESSES.max(rest.height / 2))).min(rest.height * 2 / 3) };
    let losers = Rect { height: rest.height - height, ..rest };
    let title = "Who lost most: waited, throttled, stolen, interrupted, stalled";
    let inner = text::panel(buffer, losers, palette, title, &trouble(snapshot, cgroups::SOURCES));
    cgroups::list(app, &blamed, &app.losers, LOSERS, buffer, inner, hits);
    draw_processes(app, &processes, buffer, below(rest, losers.height));
}

/// Processes of the cgroups in focus: there the cgroups themselves do not tell who waits for whom.
fn draw_processes(app: &App, processes: &[Victim<'_>], buffer: &mut Buffer, area: Rect) {
    if !area.is_empty() {
        let title = "Processes: who waits, how long, and behind whom";
        let inner = text::panel(buffer, area, app.options.palette, title, "");
        blame::victims(buffer, inner, app.options.palette, processes);
    }
}

fn host_line(snapshot: &Snapshot) -> Vec<Piece> {
    let host = row(snapshot, &snapshot.is.host);
    let number = |metric, attributes, format: Format| format.text(host.number(metric, attributes));
    let tasks = |name: &'static [(&str, &str)]| number(&host::TASKS, name, Format::Count);
    let plain = |priority, text: String| piece(priority, Tone::Plain, text);
    vec![
        plain(
            0,
            format!(
                "tasks {} runnable, {} blocked",
                tasks(&[("observer.task.state", "runnable")]),
                tasks(&[("observer.task.state", "blocked")])
            ),
        ),
        plain(1, format!("switches {}", number(&host::CONTEXT_SWITCHES, &[], Format::Rate))),
        plain(2, format!("CPUs {}", snapshot.is.cpus.len())),
        plain(3, format!("up {}", number(&host::UPTIME, &[], Format::Duration))),
    ]
}

/// Memory, what it costs to get some, and how fast it is asked for.
fn memory_line(snapshot: &Snapshot) -> Vec<Piece> {
    let host = row(snapshot, &snapshot.is.host);
    let number = |metric, attributes, format: Format| format.text(host.number(metric, attributes));
    let state = |name: &'static [(&str, &str)]| number(&host::MEMORY_USAGE, name, Format::Bytes);
    let plain = |priority, text: String| piece(priority, Tone::Plain, text);
    let total: fn(&Host) -> Option<u64> = |host| Some(host.memory?.total);
    let total = Format::Bytes.text(total(host.is).map(|total| total as f64));
    let stalled = host.number(&host::LEDGER, &[("observer.ledger.account", "stalled")]);
    let pressure = host.number(&host::PRESSURE_SOME, &[("observer.pressure.resource", "memory")]);
    let killed = host.number(&host::OOM_KILLS, &[]).filter(|killed| *killed > 0.0);
    let tone =
        |number: Option<f64>, warn: f64| if number.is_some_and(|number| number >= warn) { Tone::Warn } else { Tone::Plain };
    let mut pieces = vec![
        plain(0, format!("memory {} used of {total}", state(&[("system.memory.state", "used")]))),
        plain(1, format!("available {}", number(&host::MEMORY_AVAILABLE, &[], Format::Bytes))),
        piece(0, tone(stalled, STALL_WARN), format!("stalled {}", Format::PerSecond.text(stalled))),
        piece(2, tone(pressure, STALL_WARN), format!("pressure {}", Format::Percent.text(pressure))),
        plain(3, format!("pages {}", number(&host::KERNEL_PAGES, &[], Format::Rate))),
        plain(4, format!("cached {}", state(&[("system.memory.state", "cached")]))),
        plain(5, format!("free {}", state(&[("system.memory.state", "free")]))),
    ];
    if let Some(killed) = killed {
        pieces.push(piece(0, Tone::Bad, format!("✗ OOM kills {}", Format::Rate.text(Some(killed)))));
    }
    pieces
}

/// What TCP sends again, and who most of it.
fn tcp_line(snapshot: &Snapshot) -> Vec<Piece> {
    let host = row(snapshot, &snapshot.is.host);
    let all = host.number(&tcp::host::RETRANSMITS, &[]);
    let mut pieces = vec![piece(0, Tone::Plain, format!("TCP {} sent again", Format::Rate.text(all)))];
    for point in host.points_of(&tcp::host::RETRANSMITS) {
        if let (Value::Counter { rate: Some(rate), .. }, [(_, cause)]) = (point.value, point.attributes)
            && rate > 0.0
        {
            pieces.push(piece(2, Tone::Plain, format!("{cause} {}", Format::Rate.text(Some(rate)))));
        }
    }
    let rate = |flow: &Row<'_, TcpFlow>| flow.number(&tcp::RETRANSMITS, &[]).filter(|rate| *rate > 0.0);
    let flows = snapshot.rows::<TcpFlow>().filter_map(|flow| Some((rate(&flow)?, flow.is)));
    if let Some((rate, flow)) = flows.max_by(|a, b| a.0.total_cmp(&b.0)) {
        let process = flow.holder.as_ref().map(|process| format!(" ({})", process.comm)).unwrap_or_default();
        let text = format!("most {} to {}{process} {}", flow.local(), flow.peer(), Format::Rate.text(Some(rate)));
        pieces.push(piece(1, Tone::Plain, text));
    }
    pieces
}

fn draw_cpus(app: &App, snapshot: &Snapshot, buffer: &mut Buffer, area: Rect, blocks: u16) {
    let palette = app.options.palette;
    let mut rows: Vec<_> = snapshot.rows::<Cpu>().collect();
    let all = rows.len();
    let lines = usize::from(area.height.saturating_sub(2)).max(1);
    let room = lines * usize::from(blocks);
    let legend: Vec<_> = MODES.iter().map(|mode| format!("{} {}", mode.symbol, mode.name)).collect();
    let title = if all > room {
        // Idle time is what nobody wanted, so that the least of it is the worst; the kernel's wait goes before.
        let badness = |row: &crate::model::Row<'_, Cpu>| {
            let idle = row.number(&cpu::TIME, &[("cpu.mode", "idle")]);
            (row.number(&cpu::WAIT_TIME, &[]), idle.map(|idle| -idle))
        };
        let keys: Vec<_> = rows.iter().map(badness).collect();
        let mut order: Vec<usize> = (0..all).collect();
        order.sort_by(|a, b| {
            let by = crate::tui::table::order;
            by(keys[*a].0, keys[*b].0, true).then_with(|| by(keys[*a].1, keys[*b].1, true)).then(a.cmp(b))
        });
        order.truncate(room);
        rows = order.into_iter().map(|at| rows[at]).collect();
        format!("CPUs, the worst {room} of {all}   {}", legend.join("  "))
    } else {
        format!("CPUs   {}", legend.join("  "))
    };
    let inner = text::panel(buffer, area, palette, &title, &trouble(snapshot, &["sched", "stat"]));
    let table = Table { columns: CPUS, palette, sort: None, selected: None };
    let gap = if blocks > 1 { 2 } else { 0 };
    let width = (inner.width + gap) / blocks;
    for (block, rows) in (0..blocks).zip(rows.chunks(lines)) {
        let place = Rect { x: inner.x + block * width, width: width.saturating_sub(gap), ..inner };
        let lines = rows.iter().map(|row| Line {
            row: *row,
            label: row.is.number.to_string().into(),
            indent: 0,
            mark: "",
            dim: false,
            note: "".into(),
        });
        table.draw(buffer, place, lines);
    }
}

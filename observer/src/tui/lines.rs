//! Which cgroups, processes, CPUs or flows a list shows, in which order: pure functions of a snapshot, a filter, an order and what is folded.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use observer_common::sched::{Key, kind};

use super::table::{Cell, Column, Sort, Words, order};
use crate::model::{Cgroup, Cpu, Entity, Process, Row, Snapshot, TcpFlow, Value, cgroup};

/// A line of a list of cgroups, of processes, of CPUs or of flows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Line {
    /// Index in the sample's cgroups, processes, CPUs or flows.
    pub index: usize,
    /// Its cgroup or process, the CPU's number, or one that is as good as the flow's own.
    pub key: Key,
    /// Levels of indentation.
    pub depth: u16,
    /// Whether it hides its children.
    pub fold: Fold,
    /// Whether it is what the filter asks for, and not only an ancestor of it.
    pub matches: bool,
}

/// Whether a line's children are to be seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fold {
    /// It has none, or they are not below it.
    Leaf,
    /// They are below it.
    Open,
    /// They are hidden.
    Closed,
}

/// Whether a filter (lower case) lets a cgroup pass.
pub fn matches(cgroup: &Cgroup, filter: &str) -> bool {
    filter.is_empty() || cgroup.has(|text| text.to_lowercase().contains(filter))
}

/// The nearest ancestor of each cgroup that is in the sample.
pub fn parents(cgroups: &[Cgroup]) -> Vec<Option<usize>> {
    let places: HashMap<(u8, &str), usize> =
        cgroups.iter().enumerate().map(|(index, cgroup)| ((cgroup.id.kind(), &*cgroup.path), index)).collect();
    let parent = |cgroup: &Cgroup| {
        let mut path = &*cgroup.path;
        while let Some((above, _)) = path.rsplit_once('/') {
            if above.is_empty() {
                return places.get(&(kind::ROOT, "/")).copied().filter(|_| &*cgroup.path != "/");
            }
            if let Some(index) = places.get(&(cgroup.id.kind(), above)) {
                return Some(*index);
            }
            path = above;
        }
        None
    };
    cgroups.iter().map(parent).collect()
}

/// All that pass the filter, in order.
pub fn flat(snapshot: &Snapshot, columns: &[Column<Cgroup>], sort: Sort, filter: &str) -> Vec<Line> {
    let rows: Vec<_> = snapshot.rows::<Cgroup>().collect();
    let mut shown: Vec<usize> = (0..rows.len()).filter(|index| matches(rows[*index].is, filter)).collect();
    arrange(&mut shown, &rows, &columns[sort.column], sort.descending, by_path);
    shown.into_iter().map(|index| Line { index, key: rows[index].is.id, depth: 0, fold: Fold::Leaf, matches: true }).collect()
}

/// All that pass the filter with their ancestors, siblings in order, without what is folded. A filter unfolds everything.
pub fn tree(snapshot: &Snapshot, columns: &[Column<Cgroup>], sort: Sort, filter: &str, folded: &HashSet<Key>) -> Vec<Line> {
    let rows: Vec<_> = snapshot.rows::<Cgroup>().collect();
    let parents = parents(&snapshot.is.cgroups);
    let matched: Vec<bool> = rows.iter().map(|row| matches(row.is, filter)).collect();
    let mut shown = matched.clone();
    for index in 0..rows.len() {
        let mut above = parents[index].filter(|_| matched[index]);
        while let Some(ancestor) = above.filter(|ancestor| !shown[*ancestor]) {
            shown[ancestor] = true;
            above = parents[ancestor];
        }
    }
    let mut ordered: Vec<usize> = (0..rows.len()).filter(|index| shown[*index]).collect();
    arrange(&mut ordered, &rows, &columns[sort.column], sort.descending, by_path);
    let mut children = vec![Vec::new(); rows.len()];
    let mut stack = Vec::new();
    // Last first, because a stack is emptied from its end.
    for index in ordered.into_iter().rev() {
        match parents[index] {
            Some(parent) => children[parent].push(index),
            None => stack.push((index, 0)),
        }
    }
    let mut lines = Vec::new();
    while let Some((index, depth)) = stack.pop() {
        let key = rows[index].is.id;
        let fold = match children[index].is_empty() {
            true => Fold::Leaf,
            false if filter.is_empty() && folded.contains(&key) => Fold::Closed,
            false => Fold::Open,
        };
        lines.push(Line { index, key, depth, fold, matches: matched[index] });
        if fold == Fold::Open {
            stack.extend(children[index].iter().map(|child| (*child, depth.saturating_add(1))));
        }
    }
    lines
}

/// A row whose loss is nearly all inside its children is left out of the losers: they are listed themselves.
pub const OWN_SHARE: f64 = 0.05;

/// Those that lost most themselves: by what the ledger says was waited, throttled, stolen, interrupted and stalled, and at least what their own
/// quota stopped them; where neither is known, by CPU time.
pub fn losers(snapshot: &Snapshot, filter: &str) -> Vec<Line> {
    let rows: Vec<_> = snapshot.rows::<Cgroup>().collect();
    let loss: Vec<_> = rows.iter().map(|row| Loss::of(row).all).collect();
    let throttled: Vec<_> = rows.iter().map(|row| row.number(&cgroup::THROTTLED_TIME, &[])).collect();
    let cpu: Vec<_> = rows.iter().map(|row| row.number(&cgroup::CPU_TIME, &[])).collect();
    let parents = parents(&snapshot.is.cgroups);
    let (mut loss_inside, mut cpu_inside) = (vec![0.0; rows.len()], vec![0.0; rows.len()]);
    for (index, parent) in parents.iter().enumerate() {
        if let Some(parent) = parent {
            loss_inside[*parent] += loss[index].unwrap_or(0.0);
            cpu_inside[*parent] += cpu[index].unwrap_or(0.0);
        }
    }
    let lost = |index: usize| {
        let own = loss[index].map(|loss| (loss - loss_inside[index]).max(0.0));
        own.into_iter().chain(throttled[index]).reduce(f64::max)
    };
    let own = |all: f64, inside: f64| all - inside > all * OWN_SHARE;
    let own_loss = |index: usize| {
        throttled[index].is_some_and(|throttled| throttled > 0.0)
            || match (loss[index], cpu[index]) {
                (Some(loss), _) if loss > 0.0 => own(loss, loss_inside[index]),
                (_, Some(cpu)) => own(cpu, cpu_inside[index]),
                (_, None) => false,
            }
    };
    let mut shown: Vec<usize> = (0..rows.len()).filter(|index| matches(rows[*index].is, filter) && own_loss(*index)).collect();
    shown.sort_by(|a, b| {
        order(lost(*a), lost(*b), true)
            .then_with(|| order(cpu[*a], cpu[*b], true))
            .then_with(|| rows[*a].is.path.cmp(&rows[*b].is.path))
    });
    shown.into_iter().map(|index| Line { index, key: rows[index].is.id, depth: 0, fold: Fold::Leaf, matches: true }).collect()
}

/// Those whose tasks the page allocator stalled, by how long; then those to which it gave most.
pub fn allocators(snapshot: &Snapshot, filter: &str) -> Vec<Line> {
    let rows: Vec<_> = snapshot.rows::<Cgroup>().collect();
    let stalled: Vec<_> = rows.iter().map(|row| row.number(&cgroup::STALL_TIME, &[])).collect();
    let pages: Vec<_> = rows.iter().map(|row| row.number(&cgroup::PAGES, &[])).collect();
    let takes = |index: &usize| stalled[*index] > Some(0.0) || pages[*index] > Some(0.0);
    let mut shown: Vec<usize> = (0..rows.len()).filter(|index| takes(index) && matches(rows[*index].is, filter)).collect();
    shown.sort_by(|a, b| {
        order(stalled[*a], stalled[*b], true)
            .then_with(|| order(pages[*a], pages[*b], true))
            .then_with(|| rows[*a].is.path.cmp(&rows[*b].is.path))
    });
    shown.into_iter().map(|index| Line { index, key: rows[index].is.id, depth: 0, fold: Fold::Leaf, matches: true }).collect()
}

/// Those whose time the kernel counts otherwise, by how much time that is: a large part of next to nothing means little.
pub fn residuals(snapshot: &Snapshot, filter: &str) -> Vec<Line> {
    let rows: Vec<_> = snapshot.rows::<Cgroup>().collect();
    let apart = |row: &Row<'_, Cgroup>| Some(row.number(&cgroup::RESIDUAL, &[])?.abs() * row.number(&cgroup::CPU_TIME, &[])?);
    let apart: Vec<_> = rows.iter().map(apart).collect();
    let mut shown: Vec<usize> =
        (0..rows.len()).filter(|index| apart[*index].is_some() && matches(rows[*index].is, filter)).collect();
    shown.sort_by(|a, b| order(apart[*a], apart[*b], true).then_with(|| rows[*a].is.path.cmp(&rows[*b].is.path)));
    shown.into_iter().map(|index| Line { index, key: rows[index].is.id, depth: 0, fold: Fold::Leaf, matches: true }).collect()
}

/// Processes that pass the filter, in order.
pub fn processes(snapshot: &Snapshot, columns: &[Column<Process>], sort: Sort, filter: &str) -> Vec<Line> {
    let rows: Vec<_> = snapshot.rows::<Process>().collect();
    let has = |text: &str| text.to_lowercase().contains(filter);
    let passes = |process: &Process| {
        let words = [Some(&*process.comm), process.identity.command.as_deref(), process.cgroup.as_deref()];
        filter.is_empty() || words.into_iter().flatten().any(has) || process.pid.to_string() == filter
    };
    let mut shown: Vec<usize> = (0..rows.len()).filter(|index| passes(rows[*index].is)).collect();
    arrange(&mut shown, &rows, &columns[sort.column], sort.descending, |a, b| a.key().cmp(&b.key()));
    let line = |index: usize| {
        let Process { pid, start, .. } = *rows[index].is;
        Line { index, key: Key::process(pid, start), depth: 0, fold: Fold::Leaf, matches: true }
    };
    shown.into_iter().map(line).collect()
}

/// CPUs that pass the filter, in order. A number is that of a CPU, a word a part of its place, such as `node1`; by their names they are ordered
/// by place: node, cache, core.
pub fn cpus(snapshot: &Snapshot, columns: &[Column<Cpu>], sort: Sort, filter: &str) -> Vec<Line> {
    let rows: Vec<_> = snapshot.rows::<Cpu>().collect();
    let parts = |cpu: &Cpu| [("node", cpu.topology.node), ("cache", cpu.topology.llc), ("core", cpu.topology.core)];
    let number = filter.parse::<u32>();
    let passes = |cpu: &Cpu| match number {
        Ok(number) => number == cpu.number,
        Err(_) if filter.is_empty() => true,
        Err(_) => {
            let places = parts(cpu).into_iter().chain([("cpu", Some(cpu.number))]);
            places.filter_map(|(name, number)| Some(format!("{name}{}", number?))).any(|place| place.starts_with(filter))
        }
    };
    let mut shown: Vec<usize> = (0..rows.len()).filter(|index| passes(rows[*index].is)).collect();
    let place = |cpu: &Cpu| (parts(cpu).map(|(_, number)| number.unwrap_or(u32::MAX)), cpu.number);
    arrange(&mut shown, &rows, &columns[sort.column], sort.descending, |a, b| place(a).cmp(&place(b)));
    let line = |index: usize| {
        let key = Key(u64::from(rows[index].is.number));
        Line { index, key, depth: 0, fold: Fold::Leaf, matches: true }
    };
    shown.into_iter().map(line).collect()
}

/// TCP flows that pass the filter, in order.
pub fn flows(snapshot: &Snapshot, columns: &[Column<TcpFlow>], sort: Sort, filter: &str) -> Vec<Line> {
    let rows: Vec<_> = snapshot.rows::<TcpFlow>().collect();
    let has = |text: &str| text.to_lowercase().contains(filter);
    let passes = |flow: &TcpFlow| {
        let process = flow.holder.as_ref().map(|holder| &*holder.comm);
        filter.is_empty()
            || has(&flow.local())
            || has(&flow.peer())
            || [flow.cgroup.as_deref(), process].into_iter().flatten().any(has)
    };
    let mut shown: Vec<usize> = (0..rows.len()).filter(|index| passes(rows[*index].is)).collect();
    arrange(&mut shown, &rows, &columns[sort.column], sort.descending, |a, b| a.who.cmp(&b.who));
    let number = |index: usize| BuildHasherDefault::<DefaultHasher>::default().hash_one(rows[index].is.who);
    let line = |index| Line { index, key: Key(number(index)), depth: 0, fold: Fold::Leaf, matches: true };
    shown.into_iter().map(line).collect()
}

/// What a cgroup with its descendants lost by the ledger, in seconds a second.
#[derive(Clone, Copy, Default, Debug)]
pub struct Loss {
    /// Waited for a CPU that somebody else had.
    pub waited: Option<f64>,
    /// Stopped by a quota.
    pub throttled: Option<f64>,
    /// All accounts but the work.
    pub all: Option<f64>,
}

impl Loss {
    /// Reads it in one go: it is asked of every cgroup in every frame.
    pub fn of(row: &Row<'_, Cgroup>) -> Loss {
        let mut loss = Loss::default();
        cgroup::LEDGER.points(row.is, row.was, row.interval, &mut |point| {
            let (Value::Counter { rate: Some(rate), .. }, [(_, account)]) = (point.value, point.attributes) else { return };
            match *account {
                "worked" => return,
                "waited" => loss.waited = Some(rate),
                "throttled" => loss.throttled = Some(rate),
                _ => {}
            }
            *loss.all.get_or_insert(0.0) += rate;
        });
        loss
    }
}

/// Brings rows into a column's order; `by_name` is that of a label, and of equal ones.
fn arrange<E: Entity>(
    indices: &mut [usize],
    rows: &[Row<'_, E>],
    column: &Column<E>,
    descending: bool,
    by_name: impl Fn(&E, &E) -> Ordering,
) {
    let names = |a: &usize, b: &usize| by_name(rows[*a].is, rows[*b].is);
    let either = |order: Ordering| if descending { order.reverse() } else { order };
    match &column.cell {
        Cell::Label => indices.sort_by(|a, b| either(names(a, b))),
        Cell::Words(Words { read, .. }) => {
            indices.sort_by(|a, b| either(read(rows[*a].is).cmp(read(rows[*b].is))).then_with(|| names(a, b)));
        }
        _ => {
            let values: Vec<_> = rows.iter().map(|row| column.value(row)).collect();
            indices.sort_by(|a, b| order(values[*a], values[*b], descending).then_with(|| names(a, b)));
        }
    }
}

fn by_path(a: &Cgroup, b: &Cgroup) -> Ordering {
    a.path.cmp(&b.path)
}

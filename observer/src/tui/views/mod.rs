//! The views, and what surrounds each of them.

pub mod blame;
pub mod cgroups;
pub mod cpus;
pub mod detail;
pub mod events;
pub mod header;
pub mod health;
pub mod help;
pub mod imbalance;
pub mod ledger;
pub mod memory;
pub mod objectives;
pub mod overview;
pub mod tasks;
pub mod tcp;
pub mod verdict;
pub mod waits;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::app::{App, Hits, View};
use super::text;
use crate::model::{Entity, Row, Snapshot, State};

/// Draws everything; returns what is where.
pub fn draw(app: &App, buffer: &mut Buffer) -> Hits {
    let mut hits = Hits::default();
    let area = *buffer.area();
    if area.is_empty() {
        return hits;
    }
    let body = header::draw(app, buffer, area, &mut hits);
    match (&app.snapshot, app.open) {
        (None, _) => header::waiting(app, buffer, body),
        (Some(snapshot), Some(key)) => detail::draw(app, snapshot, key, buffer, body, &mut hits),
        (Some(snapshot), None) => match app.view {
            View::Overview => overview::draw(app, snapshot, buffer, body, &mut hits),
            View::Cgroups => cgroups::draw(app, snapshot, buffer, body, &mut hits),
            View::Tasks => tasks::draw(app, snapshot, buffer, body, &mut hits),
            View::Cpus => cpus::draw(app, snapshot, buffer, body, &mut hits),
            View::Tcp => tcp::draw(app, snapshot, buffer, body, &mut hits),
            View::Health => health::draw(app, snapshot, buffer, body, &mut hits),
            View::Memory => memory::draw(app, snapshot, buffer, body, &mut hits),
        },
    }
    if app.help {
        help::draw(app, buffer, area, &mut hits);
    }
    if app.options.ascii {
        text::to_ascii(buffer);
    }
    hits
}

/// One entity of a snapshot with what it was before.
pub(super) fn row<'a, E: Entity>(snapshot: &'a Snapshot, is: &'a E) -> Row<'a, E> {
    let before = snapshot.was.as_deref().map_or(&[][..], E::of);
    let key = is.key();
    let was = before.binary_search_by(|other| other.key().cmp(&key)).ok().map(|at| &before[at]);
    Row { is, was, interval: snapshot.interval() }
}

/// What a panel's title says of those of its sources that are not simply on: `sched off`.
pub(super) fn trouble(snapshot: &Snapshot, sources: &[&str]) -> String {
    let troubled = snapshot.is.sources.iter().filter(|source| sources.contains(&source.name) && source.state != State::On);
    let words: Vec<_> = troubled.map(|source| format!("{} {}", source.name, source.state.name())).collect();
    if words.is_empty() { String::new() } else { format!("! {}", words.join(", ")) }
}

/// An area without its first lines.
pub(super) fn below(area: Rect, lines: u16) -> Rect {
    let lines = lines.min(area.height);
    Rect { y: area.y + lines, height: area.height - lines, ..area }
}

//! A list on screen and where one is in it.

use observer_common::sched::Key;

use super::lines::Line;
use super::table::Sort;

/// The order of a list that is sorted by no column.
pub const OWN: Sort = Sort { column: usize::MAX, descending: true };

/// A list of cgroups: what it holds and where one is in it.
#[derive(Debug)]
pub struct List {
    /// The order; those of the overview and of health have their own.
    pub sort: Sort,
    /// The lines, in order.
    pub lines: Vec<Line>,
    /// The selected thing; the selection follows it when lines move.
    pub selected: Option<Key>,
    /// Its line, or where it was when it went.
    pub at: usize,
    /// The first line on screen.
    pub offset: usize,
    /// How many lines the screen has for it.
    pub page: usize,
}

impl List {
    /// An empty one.
    pub(super) fn new(sort: Sort) -> List {
        List { sort, lines: Vec::new(), selected: None, at: 0, offset: 0, page: 1 }
    }

    /// Other lines: the selection stays with its thing, or where it was.
    pub(super) fn set(&mut self, lines: Vec<Line>) {
        self.lines = lines;
        if let Some(key) = self.selected {
            match self.lines.iter().position(|line| line.key == key) {
                Some(at) => self.at = at,
                None => self.select(self.at),
            }
        }
        self.show();
    }

    /// Selects a line, or the last one.
    pub(super) fn select(&mut self, at: usize) {
        self.at = at.min(self.lines.len().saturating_sub(1));
        self.selected = self.lines.get(self.at).map(|line| line.key);
        self.show();
    }

    /// Leaves a line that is only an ancestor of what the filter asks for, for the first one that matches.
    pub(super) fn select_match(&mut self) {
        if self.lines.get(self.at).is_some_and(|line| !line.matches)
            && let Some(first) = self.lines.iter().position(|line| line.matches)
        {
            self.select(first);
        }
    }

    /// Scrolls so far that the selection is on screen, and no further than the end.
    pub(super) fn show(&mut self) {
        let page = self.page.max(1);
        self.offset = self.offset.min(self.lines.len().saturating_sub(page));
        if self.selected.is_some() {
            self.offset = self.offset.clamp((self.at + 1).saturating_sub(page), self.at);
        }
    }
}

//! What the dashboard shows, and what keys, clicks and snapshots make of it. Pure: no terminal, no clock.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use crossterm::event::{KeyEvent, MouseButton, MouseEvent, MouseEventKind};
use observer_common::sched::Key;
use ratatui::layout::{Position, Rect};

use super::keys::{self, Mode};
use super::lines::{self, Fold};
use super::list::{List, OWN};
use super::options::Options;
use super::table::{Column, Sort};
use super::views::cgroups::{self, COLUMNS};
use super::views::{cpus, tasks, tcp};
use crate::model::{Event, Snapshot};

/// A view.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum View {
    /// Where the time went, in one screen.
    Overview,
    /// All control groups.
    Cgroups,
    /// All processes.
    Tasks,
    /// All CPUs.
    Cpus,
    /// What the page allocator gave and cost.
    Memory,
    /// What TCP sends again.
    Tcp,
    /// How far observer itself can be trusted.
    Health,
}

impl View {
    /// All, in the order of their numbers.
    pub const ALL: [View; 7] = [View::Overview, View::Cgroups, View::Tasks, View::Cpus, View::Memory, View::Tcp, View::Health];

    /// Its key.
    pub fn number(self) -> u32 {
        match self {
            View::Overview => 1,
            View::Cgroups => 2,
            View::Tasks => 3,
            View::Cpus => 4,
            View::Memory => 5,
            View::Tcp => 6,
            View::Health => 7,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            View::Overview => "Overview",
            View::Cgroups => "Cgroups",
            View::Tasks => "Tasks",
            View::Cpus => "CPUs",
            View::Memory => "Memory",
            View::Tcp => "TCP",
            View::Health => "Health",
        }
    }
}

/// What a key asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the table of keys says each in words")]
pub enum Action {
    Quit,
    Back,
    Help,
    Pause,
    Redraw,
    Suspend,
    NextView,
    PreviousView,
    Show(View),
    Move(Motion),
    Open,
    Filter,
    Type(char),
    Erase,
    EraseAll,
    KeepFilter,
    ClearFilter,
    SortNext,
    SortPrevious,
    SortBy(usize),
    Reverse,
    Tree,
    Fold,
    Unfold,
    FoldAll,
    Select(usize),
}

/// Where the selection goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the table of keys says each in words")]
pub enum Motion {
    Up,
    Down,
    PageUp,
    PageDown,
    HalfUp,
    HalfDown,
    Top,
    Bottom,
    By(i16),
}

/// What the loop has to do after a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Nothing: no frame is drawn.
    Nothing,
    /// Draw.
    Draw,
    /// Forget what the terminal shows and draw.
    Redraw,
    /// Give the terminal back and stop until the shell continues us.
    Suspend,
    /// End.
    Quit,
}

/// What was drawn where, for the mouse and for pages.
#[derive(Default, Debug)]
pub struct Hits {
    /// Tabs.
    pub tabs: Vec<(Rect, View)>,
    /// Headers of the list and the index of their column.
    pub headers: Vec<(Rect, usize)>,
    /// The list's lines.
    pub body: Rect,
    /// How many lines the open page or the help could be scrolled.
    pub scrollable: usize,
}

/// Everything the dashboard remembers.
#[derive(Debug)]
pub struct App {
    /// How it looks.
    pub options: Options,
    /// What is shown.
    pub snapshot: Option<Arc<Snapshot>>,
    /// The newest that came during a pause.
    newest: Option<Arc<Snapshot>>,
    /// Whether the shown snapshot is frozen.
    pub paused: bool,
    /// Which view.
    pub view: View,
    /// The opened cgroup.
    pub open: Option<Key>,
    /// Whether the help is open.
    pub help: bool,
    /// Lines scrolled in the open page or the help.
    pub scroll: usize,
    /// The filter, as typed.
    pub filter: String,
    /// Whether it is being typed.
    pub typing: bool,
    /// Whether cgroups are shown as a tree.
    pub tree: bool,
    /// Folded cgroups.
    pub folded: HashSet<Key>,
    /// The overview's list of losers.
    pub losers: List,
    /// The list of cgroups.
    pub cgroups: List,
    /// The list of processes.
    pub tasks: List,
    /// The list of CPUs.
    pub cpus: List,
    /// The list of TCP flows.
    pub tcp: List,
    /// Health's list of cgroups, in an order of its own.
    pub health: List,
    /// Memory's list of cgroups.
    pub memory: List,
    /// The last events, the newest last; those of snapshots that came during a pause included.
    pub events: VecDeque<Event>,
    pending: Option<char>,
    hits: Hits,
}

impl App {
    /// An empty dashboard.
    pub fn new(options: Options) -> App {
        App {
            options,
            snapshot: None,
            newest: None,
            paused: false,
            view: View::Overview,
            open: None,
            help: false,
            scroll: 0,
            filter: String::new(),
            typing: false,
            tree: true,
            folded: HashSet::new(),
            losers: List::new(OWN),
            tasks: List::new(Sort { column: tasks::SORTED_BY, descending: true }),
            cpus: List::new(Sort { column: cpus::SORTED_BY, descending: false }),
            tcp: List::new(Sort { column: tcp::SORTED_BY, descending: true }),
            health: List::new(OWN),
            memory: List::new(OWN),
            events: VecDeque::new(),
            cgroups: List::new(Sort { column: cgroups::SORTED_BY, descending: true }),
            pending: None,
            hits: Hits::default(),
        }
    }

    /// A new snapshot came.
    pub fn take(&mut self, snapshot: Arc<Snapshot>) -> Effect {
        /// More than anybody scrolls through.
        const EVENTS: usize = 200;
        self.events.extend(snapshot.is.events.iter().cloned());
        self.events.drain(..self.events.len().saturating_sub(EVENTS));
        if self.paused && self.snapshot.is_some() {
            self.newest = Some(snapshot);
            return Effect::Nothing;
        }
        self.snapshot = Some(snapshot);
        self.refresh();
        Effect::Draw
    }

    /// A key was pressed.
    pub fn key(&mut self, key: KeyEvent) -> Effect {
        let mode = if self.typing { Mode::Filter } else { Mode::Browse };
        match keys::action(mode, key, &mut self.pending) {
            Some(action) => self.update(action),
            None => Effect::Nothing,
        }
    }

    /// Something happened with the mouse.
    pub fn mouse(&mut self, mouse: MouseEvent) -> Effect {
        match self.mouse_action(mouse) {
            Some(action) => self.update(action),
            None => Effect::Nothing,
        }
    }

    fn mouse_action(&self, mouse: MouseEvent) -> Option<Action> {
        let at = Position::new(mouse.column, mouse.row);
        match mouse.kind {
            MouseEventKind::ScrollUp => Some(Action::Move(Motion::By(-3))),
            MouseEventKind::ScrollDown => Some(Action::Move(Motion::By(3))),
            MouseEventKind::Down(MouseButton::Left) if self.help => Some(Action::Back),
            MouseEventKind::Down(MouseButton::Left) => {
                if let Some((_, view)) = self.hits.tabs.iter().find(|(area, _)| area.contains(at)) {
                    return Some(Action::Show(*view));
                }
                if let Some((_, column)) = self.hits.headers.iter().find(|(area, _)| area.contains(at)) {
                    return Some(Action::SortBy(*column));
                }
                let line = self.list().offset + usize::from(at.y.checked_sub(self.hits.body.y)?);
                (self.hits.body.contains(at) && line < self.list().lines.len()).then_some(Action::Select(line))
            }
            _ => None,
        }
    }

    /// Does what was asked for. The effect is [`Effect::Nothing`] exactly when nothing on screen changes.
    pub fn update(&mut self, action: Action) -> Effect {
        match action {
            Action::Quit => return Effect::Quit,
            Action::Redraw => return Effect::Redraw,
            Action::Suspend => return Effect::Suspend,
            Action::Back => return self.back(),
            Action::Help => {
                self.help = !self.help;
                self.scroll = 0;
            }
            Action::Pause => {
                self.paused = !self.paused;
                if let Some(newest) = self.newest.take() {
                    self.snapshot = Some(newest);
                }
            }
            Action::NextView | Action::PreviousView => {
                let step = if action == Action::NextView { 1 } else { View::ALL.len() - 1 };
                let at = View::ALL.iter().position(|view| *view == self.view).unwrap_or(0);
                self.show(View::ALL[(at + step) % View::ALL.len()]);
            }
            Action::Show(view) => self.show(view),
            Action::Move(motion) => return self.go(motion),
            Action::Select(line) => self.list_mut().select(line),
            Action::Open => return self.open_selected(),
            Action::Filter => {
                self.typing = true;
                self.help = false;
                self.open = None;
            }
            Action::Type(c) => self.filter.push(c),
            Action::Erase if self.filter.pop().is_none() => return Effect::Nothing,
            Action::Erase => {}
            Action::EraseAll => self.filter.clear(),
            Action::KeepFilter => self.typing = false,
            Action::ClearFilter => {
                self.filter.clear();
                self.typing = false;
            }
            _ => return self.arrange(action),
        }
        self.refresh();
        if self.typing {
            self.list_mut().select_match();
        }
        Effect::Draw
    }

    /// The order of the list, and the folds of that of cgroups.
    fn arrange(&mut self, action: Action) -> Effect {
        if self.open.is_some() || self.help {
            return Effect::Nothing;
        }
        let columns = match self.view {
            View::Cgroups => COLUMNS.len(),
            View::Tasks => tasks::COLUMNS.len(),
            View::Cpus => cpus::COLUMNS.len(),
            View::Tcp => tcp::COLUMNS.len(),
            View::Overview | View::Health | View::Memory => return Effect::Nothing,
        };
        let Sort { column, descending } = self.list().sort;
        match action {
            Action::SortNext => self.sort_by((column + 1) % columns),
            Action::SortPrevious => self.sort_by((column + columns - 1) % columns),
            Action::SortBy(clicked) if clicked != column => self.sort_by(clicked),
            Action::SortBy(_) | Action::Reverse => self.list_mut().sort.descending = !descending,
            _ if self.view != View::Cgroups => return Effect::Nothing,
            Action::Tree => self.tree = !self.tree,
            Action::FoldAll if self.tree => self.fold_all(),
            Action::Fold if self.tree => return self.fold(),
            Action::Unfold if self.tree => {
                let Some(key) = self.cgroups.selected.filter(|key| self.folded.remove(key)) else { return Effect::Nothing };
                self.folded.remove(&key);
            }
            _ => return Effect::Nothing,
        }
        self.refresh();
        Effect::Draw
    }

    fn sort_by(&mut self, column: usize) {
        let ascends = match self.view {
            View::Tasks => tasks::COLUMNS.get(column).is_some_and(Column::ascends),
            View::Cpus => cpus::COLUMNS.get(column).is_some_and(Column::ascends),
            View::Tcp => tcp::COLUMNS.get(column).is_some_and(Column::ascends),
            _ => COLUMNS.get(column).is_some_and(Column::ascends),
        };
        self.list_mut().sort = Sort { column, descending: !ascends };
    }

    /// Folds the selected cgroup; where that is done or there is nothing to fold, selects its parent.
    fn fold(&mut self) -> Effect {
        let list = &mut self.cgroups;
        let Some(line) = list.selected.and_then(|_| list.lines.get(list.at)).copied() else { return Effect::Nothing };
        if line.fold == Fold::Open && self.filter.is_empty() {
            self.folded.insert(line.key);
            self.refresh();
            return Effect::Draw;
        }
        let above = list.lines[..list.at].iter().rposition(|above| above.depth < line.depth);
        let Some(parent) = above else { return Effect::Nothing };
        list.select(parent);
        Effect::Draw
    }

    /// Folds everything below the root; when anything is folded, unfolds everything.
    fn fold_all(&mut self) {
        if self.folded.is_empty() {
            self.folded =
                self.cgroups.lines.iter().filter(|line| line.depth > 0 && line.fold == Fold::Open).map(|line| line.key).collect();
        } else {
            self.folded.clear();
        }
    }

    fn show(&mut self, view: View) {
        self.view = view;
        self.open = None;
        self.help = false;
        self.scroll = 0;
    }

    fn back(&mut self) -> Effect {
        if self.help {
            self.help = false;
        } else if self.open.take().is_some() {
        } else if !self.filter.is_empty() {
            self.filter.clear();
        } else {
            return Effect::Nothing;
        }
        self.scroll = 0;
        self.refresh();
        Effect::Draw
    }

    fn open_selected(&mut self) -> Effect {
        if self.help || self.open.is_some() || self.view == View::Cpus {
            return Effect::Nothing;
        }
        let list = self.list_mut();
        if list.selected.is_none() {
            list.select(0);
        }
        let Some(key) = list.selected.and_then(|key| self.cgroup_of(key)) else { return Effect::Nothing };
        self.open = Some(key);
        self.scroll = 0;
        Effect::Draw
    }

    /// The cgroup of a line: its own, or that of its process or flow.
    fn cgroup_of(&self, key: Key) -> Option<Key> {
        let sample = &self.snapshot.as_ref()?.is;
        let index = |list: &List| list.lines.get(list.at).map(|line| line.index);
        let path = match self.view {
            View::Tasks => sample.processes.get(index(&self.tasks)?)?.cgroup.as_deref()?,
            View::Tcp => sample.tcp_flows.get(index(&self.tcp)?)?.cgroup.as_deref()?,
            View::Cpus => return None,
            View::Overview | View::Cgroups | View::Health | View::Memory => return Some(key),
        };
        sample.cgroups.iter().find(|cgroup| &*cgroup.path == path).map(|cgroup| cgroup.id)
    }

    fn go(&mut self, motion: Motion) -> Effect {
        if self.help || self.open.is_some() {
            let page = usize::from(self.hits.body.height).max(1);
            let to = target(motion, self.scroll, page, self.hits.scrollable);
            let changed = to != self.scroll;
            self.scroll = to;
            return if changed { Effect::Draw } else { Effect::Nothing };
        }
        let list = self.list_mut();
        let before = (list.selected, list.at, list.offset);
        let last = list.lines.len().saturating_sub(1);
        let first = list.selected.is_none() && matches!(motion, Motion::Down | Motion::Up);
        list.select(if first { list.offset } else { target(motion, list.at, list.page, last) });
        if before == (list.selected, list.at, list.offset) { Effect::Nothing } else { Effect::Draw }
    }

    /// Remembers what was drawn where, and scrolls the list so that the selection is on screen at this size.
    /// True when that moved something: draw again.
    pub fn drawn(&mut self, hits: Hits) -> bool {
        let page = usize::from(hits.body.height);
        self.scroll = self.scroll.min(hits.scrollable);
        self.hits = hits;
        if self.open.is_some() || self.help {
            return false;
        }
        let list = self.list_mut();
        let before = list.offset;
        list.page = page;
        list.show();
        list.offset != before
    }

    /// The list of the view.
    pub fn list(&self) -> &List {
        match self.view {
            View::Overview => &self.losers,
            View::Cgroups => &self.cgroups,
            View::Tasks => &self.tasks,
            View::Cpus => &self.cpus,
            View::Tcp => &self.tcp,
            View::Health => &self.health,
            View::Memory => &self.memory,
        }
    }

    fn list_mut(&mut self) -> &mut List {
        match self.view {
            View::Overview => &mut self.losers,
            View::Cgroups => &mut self.cgroups,
            View::Tasks => &mut self.tasks,
            View::Cpus => &mut self.cpus,
            View::Tcp => &mut self.tcp,
            View::Health => &mut self.health,
            View::Memory => &mut self.memory,
        }
    }

    fn refresh(&mut self) {
        let Some(snapshot) = &self.snapshot else { return };
        let filter = self.filter.to_lowercase();
        let lines = match self.view {
            View::Overview => lines::losers(snapshot, &filter),
            View::Cgroups if self.tree => lines::tree(snapshot, COLUMNS, self.cgroups.sort, &filter, &self.folded),
            View::Cgroups => lines::flat(snapshot, COLUMNS, self.cgroups.sort, &filter),
            View::Tasks => lines::processes(snapshot, tasks::COLUMNS, self.tasks.sort, &filter),
            View::Cpus => lines::cpus(snapshot, cpus::COLUMNS, self.cpus.sort, &filter),
            View::Tcp => lines::flows(snapshot, tcp::COLUMNS, self.tcp.sort, &filter),
            View::Health => lines::residuals(snapshot, &filter),
            View::Memory => lines::allocators(snapshot, &filter),
        };
        self.list_mut().set(lines);
    }
}

fn target(motion: Motion, at: usize, page: usize, last: usize) -> usize {
    let half = (page / 2).max(1);
    let page = page.max(1);
    let to = match motion {
        Motion::Up => at.saturating_sub(1),
        Motion::Down => at + 1,
        Motion::PageUp => at.saturating_sub(page),
        Motion::PageDown => at + page,
        Motion::HalfUp => at.saturating_sub(half),
        Motion::HalfDown => at + half,
        Motion::Top => 0,
        Motion::Bottom => last,
        Motion::By(lines) => at.saturating_add_signed(isize::from(lines)),
    };
    to.min(last)
}

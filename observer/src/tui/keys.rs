//! The one table of keys: dispatch, the help screen and the hints are made from it.

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::app::{Action, Motion, View};

/// When a key means something.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Mode {
    /// Looking at things.
    Browse,
    /// Typing a filter; every other character is text.
    Filter,
}

/// What is pressed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Stroke {
    /// A key.
    Key(KeyCode),
    /// A letter with Ctrl.
    Ctrl(char),
    /// A letter twice.
    Twice(char),
}

/// One line of the table.
#[derive(Debug)]
pub struct Binding {
    /// When.
    pub mode: Mode,
    /// Any of these.
    pub strokes: &'static [Stroke],
    /// Does this.
    pub action: Action,
    /// In words, for the help screen.
    pub help: &'static str,
    /// In a word, for the last line; empty to leave it out.
    pub hint: &'static str,
}

use Mode::{Browse, Filter};
use Stroke::{Ctrl, Key, Twice};

const fn bind(mode: Mode, strokes: &'static [Stroke], action: Action, help: &'static str, hint: &'static str) -> Binding {
    Binding { mode, strokes, action, help, hint }
}

const fn char(c: char) -> Stroke {
    Key(KeyCode::Char(c))
}

/// All keys, in the order of the help screen; hints in the same order.
pub static KEYS: &[Binding] = &[
    bind(Browse, &[char('?'), Key(KeyCode::F(1))], Action::Help, "this help", "help"),
    bind(Browse, &[char('q'), Ctrl('c')], Action::Quit, "quit", "quit"),
    bind(Browse, &[Key(KeyCode::Tab)], Action::NextView, "next view", "view"),
    bind(Browse, &[Key(KeyCode::BackTab)], Action::PreviousView, "previous view", ""),
    bind(Browse, &[char('1')], Action::Show(View::Overview), "overview", ""),
    bind(Browse, &[char('2')], Action::Show(View::Cgroups), "cgroups", ""),
    bind(Browse, &[char('3')], Action::Show(View::Tasks), "tasks", ""),
    bind(Browse, &[char('4')], Action::Show(View::Cpus), "CPUs", ""),
    bind(Browse, &[char('5')], Action::Show(View::Memory), "memory", ""),
    bind(Browse, &[char('6')], Action::Show(View::Tcp), "TCP", ""),
    bind(Browse, &[char('7')], Action::Show(View::Health), "health", ""),
    bind(Browse, &[char(' ')], Action::Pause, "pause, go on", "pause"),
    bind(Browse, &[char('/')], Action::Filter, "filter by path, unit, name, command, address or CPU", "filter"),
    bind(Browse, &[Key(KeyCode::Enter)], Action::Open, "open the cgroup, or that of the process or flow", "open"),
    bind(Browse, &[Key(KeyCode::Esc)], Action::Back, "close what is open; clear the filter", ""),
    bind(Browse, &[char('>'), char('.')], Action::SortNext, "sort by the next column", "sort"),
    bind(Browse, &[char('<'), char(',')], Action::SortPrevious, "sort by the previous column", ""),
    bind(Browse, &[char('I')], Action::Reverse, "reverse the order", ""),
    bind(Browse, &[char('t')], Action::Tree, "tree or flat", "tree"),
    bind(Browse, &[char('-'), Key(KeyCode::Left)], Action::Fold, "fold; again: the parent", "fold"),
    bind(Browse, &[char('+'), Key(KeyCode::Right)], Action::Unfold, "unfold", ""),
    bind(Browse, &[char('*')], Action::FoldAll, "fold or unfold all", ""),
    bind(Browse, &[Key(KeyCode::Up), char('k')], Action::Move(Motion::Up), "up", ""),
    bind(Browse, &[Key(KeyCode::Down), char('j')], Action::Move(Motion::Down), "down", ""),
    bind(Browse, &[Key(KeyCode::PageUp), Ctrl('b')], Action::Move(Motion::PageUp), "page up", ""),
    bind(Browse, &[Key(KeyCode::PageDown), Ctrl('f')], Action::Move(Motion::PageDown), "page down", ""),
    bind(Browse, &[Ctrl('u')], Action::Move(Motion::HalfUp), "half a page up", ""),
    bind(Browse, &[Ctrl('d')], Action::Move(Motion::HalfDown), "half a page down", ""),
    bind(Browse, &[Twice('g'), Key(KeyCode::Home)], Action::Move(Motion::Top), "top", ""),
    bind(Browse, &[char('G'), Key(KeyCode::End)], Action::Move(Motion::Bottom), "bottom", ""),
    bind(Browse, &[Ctrl('l')], Action::Redraw, "draw the screen anew", ""),
    bind(Browse, &[Ctrl('z')], Action::Suspend, "suspend", ""),
    bind(Filter, &[Key(KeyCode::Enter)], Action::KeepFilter, "keep the filter", "keep"),
    bind(Filter, &[Key(KeyCode::Esc)], Action::ClearFilter, "clear the filter", "clear"),
    bind(Filter, &[Key(KeyCode::Backspace), Ctrl('h')], Action::Erase, "erase a character", ""),
    bind(Filter, &[Ctrl('u')], Action::EraseAll, "erase all", "erase all"),
    bind(Filter, &[Key(KeyCode::Up)], Action::Move(Motion::Up), "up", ""),
    bind(Filter, &[Key(KeyCode::Down)], Action::Move(Motion::Down), "down", ""),
    bind(Filter, &[Ctrl('l')], Action::Redraw, "draw the screen anew", ""),
    bind(Filter, &[Ctrl('z')], Action::Suspend, "suspend", ""),
    bind(Filter, &[Ctrl('c')], Action::Quit, "quit", ""),
];

impl std::fmt::Display for Stroke {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Ctrl(c) => write!(f, "^{c}"),
            Twice(c) => write!(f, "{c}{c}"),
            Key(KeyCode::Char(' ')) => f.write_str("Space"),
            Key(KeyCode::Char(c)) => write!(f, "{c}"),
            Key(KeyCode::F(number)) => write!(f, "F{number}"),
            Key(KeyCode::PageUp) => f.write_str("PgUp"),
            Key(KeyCode::PageDown) => f.write_str("PgDn"),
            Key(KeyCode::BackTab) => f.write_str("S-Tab"),
            Key(code) => write!(f, "{code:?}"),
        }
    }
}

/// What a key does; `pending` holds the first of two letters between calls.
pub fn action(mode: Mode, key: KeyEvent, pending: &mut Option<char>) -> Option<Action> {
    if key.kind == KeyEventKind::Release || key.modifiers.contains(KeyModifiers::ALT) {
        return None;
    }
    let before = pending.take();
    let stroke = match key.code {
        KeyCode::Char(c) if key.modifiers.contains(KeyModifiers::CONTROL) => Ctrl(c.to_ascii_lowercase()),
        KeyCode::Char(c) if before == Some(c) => Twice(c),
        code => Key(code),
    };
    let bound = |stroke| KEYS.iter().find(|binding| binding.mode == mode && binding.strokes.contains(&stroke));
    if let Some(binding) = bound(stroke) {
        return Some(binding.action);
    }
    match (mode, key.code, stroke) {
        (Filter, KeyCode::Char(c), Key(_) | Twice(_)) => Some(Action::Type(c)),
        (Browse, KeyCode::Char(c), Key(_)) if bound(Twice(c)).is_some() => {
            *pending = Some(c);
            None
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_stroke_means_two_things() {
        let mut seen = HashSet::new();
        for binding in KEYS {
            for stroke in binding.strokes {
                assert!(seen.insert((binding.mode as u8, *stroke)), "{stroke} twice");
                if let Twice(c) = stroke {
                    assert!(!KEYS.iter().any(|other| other.mode == binding.mode && other.strokes.contains(&char(*c))), "{c}");
                }
            }
            assert!(!binding.help.is_empty() && !binding.help.ends_with('.'));
        }
    }

    #[test]
    fn views_have_the_keys_of_their_tabs() {
        for view in View::ALL {
            let key = char(std::char::from_digit(view.number(), 10).unwrap());
            assert!(
                KEYS.iter().any(|binding| binding.strokes.contains(&key) && binding.action == Action::Show(view)),
                "{view:?}"
            );
        }
    }

    #[test]
    fn dispatches() {
        let check = |mode, keys: &[(KeyCode, KeyModifiers)], expected: &[Option<Action>]| {
            let mut pending = None;
            let got: Vec<_> = keys.iter().map(|(code, with)| action(mode, KeyEvent::new(*code, *with), &mut pending)).collect();
            assert_eq!(got, expected, "{keys:?}");
        };
        let none = KeyModifiers::NONE;
        let g = (KeyCode::Char('g'), none);
        let top = Some(Action::Move(Motion::Top));
        check(Browse, &[g, g, g, g], &[None, top, None, top]);
        check(Browse, &[g, (KeyCode::Char('j'), none), g], &[None, Some(Action::Move(Motion::Down)), None]);
        check(Browse, &[(KeyCode::Char('G'), KeyModifiers::SHIFT)], &[Some(Action::Move(Motion::Bottom))]);
        check(Browse, &[(KeyCode::Char('c'), KeyModifiers::CONTROL)], &[Some(Action::Quit)]);
        check(Browse, &[(KeyCode::Char('q'), KeyModifiers::ALT)], &[None]);
        check(
            Filter,
            &[g, g, (KeyCode::Char('q'), none)],
            &[Some(Action::Type('g')), Some(Action::Type('g')), Some(Action::Type('q'))],
        );
        check(Filter, &[(KeyCode::Char('c'), KeyModifiers::CONTROL)], &[Some(Action::Quit)]);
        check(Filter, &[(KeyCode::Char('x'), KeyModifiers::CONTROL)], &[None]);
    }
}

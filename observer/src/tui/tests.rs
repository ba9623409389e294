//! Frames and keys as data.

use std::sync::Arc;
use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use observer_common::sched::kind;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Color;

use super::app::{Effect, View};
use super::*;
use super::{fixture, keys};

fn options() -> Options {
    Options { palette: Palette::Dark, ascii: false, notes: Vec::new() }
}

fn app(snapshot: Snapshot) -> App {
    let mut app = App::new(options());
    app.take(Arc::new(snapshot));
    app
}

/// Presses keys: words are keys of that name, `^x` is Ctrl, anything else is typed letter by letter.
fn press(app: &mut App, keys: &str) -> Effect {
    let mut effect = Effect::Nothing;
    for word in keys.split_whitespace() {
        let named = match word {
            "Enter" => Some(KeyCode::Enter),
            "Esc" => Some(KeyCode::Esc),
            "Tab" => Some(KeyCode::Tab),
            "Space" => Some(KeyCode::Char(' ')),
            "Down" => Some(KeyCode::Down),
            "Left" => Some(KeyCode::Left),
            "Right" => Some(KeyCode::Right),
            "Back" => Some(KeyCode::Backspace),
            "PgDn" => Some(KeyCode::PageDown),
            "End" => Some(KeyCode::End),
            _ => None,
        };
        let events: Vec<KeyEvent> = match (named, word.strip_prefix('^')) {
            (Some(code), _) => vec![code.into()],
            (None, Some(letter)) if !letter.is_empty() => {
                vec![KeyEvent::new(KeyCode::Char(letter.chars().next().unwrap()), KeyModifiers::CONTROL)]
            }
            _ => word.chars().map(|c| KeyCode::Char(c).into()).collect(),
        };
        for event in events {
            effect = app.key(event);
        }
    }
    effect
}

fn frame(app: &mut App, width: u16, height: u16) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(app, frame.buffer_mut())).unwrap();
    terminal.backend().buffer().clone()
}

fn text_of(buffer: &Buffer) -> String {
    let mut text = String::new();
    for y in 0..buffer.area.height {
        let mut line = String::new();
        let mut x = 0;
        while x < buffer.area.width {
            let symbol = buffer[(x, y)].symbol();
            line.push_str(symbol);
            x += super::text::width(symbol).max(1);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn golden(name: &str, snapshot: Snapshot, keys: &str) {
    let mut app = app(snapshot);
    // The size is known before the first key, as it is for a user.
    for (width, height) in [(80, 24), (200, 60)] {
        frame(&mut app, width, height);
    }
    press(&mut app, keys);
    for (width, height) in [(80, 24), (200, 60)] {
        insta::assert_snapshot!(format!("{name}-{width}x{height}"), text_of(&frame(&mut app, width, height)));
    }
}

#[test]
fn events_of_a_pause_wait_for_its_end() {
    let mut app = app(fixture::snapshot());
    press(&mut app, "Space");
    let mut later = fixture::eventful();
    later = fixture::change(&later, |sample| {
        sample.time += Duration::from_secs(60);
        sample.events.iter_mut().for_each(|event| event.time = sample.time);
    });
    app.take(Arc::new(later));
    let shows = |app: &mut App| text_of(&frame(app, 80, 24)).contains("12 segments sent again");
    assert!(!shows(&mut app), "the frozen screen is of its moment");
    press(&mut app, "Space");
    assert!(shows(&mut app));
}

#[test]
fn frames() {
    golden("overview", fixture::snapshot(), "");
    golden("overview-in-focus", fixture::in_focus(), "");
    golden("overview-without-sched", fixture::without_sched(), "");
    golden("overview-first", fixture::first(), "");
    golden("overview-many-cpus", fixture::many_cpus(), "");
    golden("overview-nothing", fixture::nothing(), "");
    golden("overview-objectives", fixture::objectives(), "");
    golden("overview-eventful", fixture::eventful(), "");
    golden("overview-uneven", fixture::uneven(), "");
    golden("cgroups-tree", fixture::snapshot(), "2 j j");
    golden("cgroups-flat-by-name", fixture::snapshot(), "2 t < <");
    golden("cgroups-without-sched", fixture::without_sched(), "2 *");
    golden("cgroups-filter", fixture::snapshot(), "2 / NGINX");
    golden("cgroups-paused", fixture::snapshot(), "2 Space");
    golden("overview-contained", fixture::contained(), "");
    golden("cgroups-contained", fixture::contained(), "2");
    golden("cgroups-contained-flat", fixture::contained(), "2 t / 5d78");
    golden("detail", fixture::snapshot(), "Enter");
    golden("detail-of-a-container", fixture::contained(), "Enter");
    golden("detail-without-sched", fixture::without_sched(), "2 j j j Enter");
    golden("detail-of-a-parent", fixture::snapshot(), "2 j Enter");
    golden("detail-of-a-culprit", fixture::snapshot(), "j j Enter");
    golden("detail-with-an-objective", fixture::objectives(), "Enter");
    golden("detail-in-focus", fixture::in_focus(), "2 j Enter");
    golden("cpus", fixture::two_nodes(16), "4");
    golden("cpus-by-wait", fixture::two_nodes(16), "4 > > > > > > > > j");
    golden("cpus-of-a-large-machine", fixture::two_nodes(500), "4 G");
    golden("cpus-of-node1", fixture::two_nodes(500), "4 / node1 Enter j");
    golden("cpus-without-sched", fixture::without_sched(), "4 j");
    golden("cpus-first", fixture::first(), "4");
    golden("help-of-cpus", fixture::snapshot(), "4 ? G");
    golden("health", fixture::snapshot(), "7 j");
    golden("memory", fixture::snapshot(), "5 j");
    golden("memory-without-sched", fixture::without_sched(), "5");
    golden("health-in-trouble", fixture::in_trouble(), "7");
    golden("health-first", fixture::first(), "7");
    golden("help", fixture::snapshot(), "2 ?");
    golden("help-of-health", fixture::snapshot(), "7 ? G");
    golden("tasks", fixture::snapshot(), "3 j");
    golden("tcp", fixture::snapshot(), "6 j");
    golden("tcp-by-total-filtered", fixture::snapshot(), "6 > / nginx");
    golden("tcp-without-programs", fixture::without_sched(), "6");
    golden("tasks-without-sched", fixture::without_sched(), "3 > > > >");
}

#[test]
fn the_page_scrolls_to_its_end() {
    let mut app = app(fixture::snapshot());
    press(&mut app, "Enter");
    let mut seen = text_of(&frame(&mut app, 80, 24));
    for (what, wanted) in [("ledger", "X stolen 20.0ms/s"), ("blame", "/api.slice/web   "), ("waits", "≤ 31.2ms")] {
        assert!(seen.contains(wanted), "{what} is on the first screen");
    }
    let mut last = String::new();
    while last != seen {
        press(&mut app, "PgDn");
        last = std::mem::replace(&mut seen, text_of(&frame(&mut app, 80, 24)));
    }
    insta::assert_snapshot!("detail-end-80x24", seen);
}

#[test]
fn ascii_frames_with_everything() {
    let mut app = app(fixture::in_focus());
    app.options.ascii = true;
    for keys in ["", "j Enter"] {
        press(&mut app, keys);
        for (width, height) in [(80, 24), (200, 60)] {
            assert!(frame(&mut app, width, height).content.iter().all(|cell| cell.symbol().is_ascii()));
        }
    }
    insta::assert_snapshot!("ascii-detail-in-focus-80x24", text_of(&frame(&mut app, 80, 24)));
}

#[test]
fn ascii_frame() {
    let mut app = app(fixture::without_sched());
    app.options.ascii = true;
    press(&mut app, "2 j");
    let buffer = frame(&mut app, 80, 24);
    assert!(buffer.content.iter().all(|cell| cell.symbol().is_ascii()));
    insta::assert_snapshot!("ascii-80x24", text_of(&buffer));
}

#[test]
fn ascii_heat() {
    let mut app = app(fixture::two_nodes(16));
    app.options.ascii = true;
    press(&mut app, "4 j");
    let buffer = frame(&mut app, 80, 24);
    assert!(buffer.content.iter().all(|cell| cell.symbol().is_ascii()));
    insta::assert_snapshot!("ascii-cpus-80x24", text_of(&buffer));
}

#[test]
fn no_colour_frame() {
    for palette in [Palette::None, Palette::Sixteen, Palette::Dark] {
        let mut app = app(fixture::without_sched());
        app.options.palette = palette;
        for keys in ["", "j", "2", "4", "?", "? Enter"] {
            press(&mut app, keys);
            let colours: Vec<_> = frame(&mut app, 120, 40).content.iter().flat_map(|cell| [cell.fg, cell.bg]).collect();
            let reset = colours.iter().all(|colour| *colour == Color::Reset);
            assert_eq!(reset, palette == Palette::None, "{palette:?}");
            if palette == Palette::Sixteen {
                assert!(!colours.iter().any(|colour| matches!(colour, Color::Indexed(_) | Color::Rgb(..))));
            }
        }
    }
}

#[test]
fn every_size() {
    let small = || (1..=82).flat_map(|width| (1..=26).map(move |height| (width, height)));
    let big = [(100, 30), (132, 43), (200, 60), (250, 80), (250, 1), (1, 80)];
    let check = |snapshot: Snapshot, keys: &str, every: usize| {
        let mut app = app(snapshot);
        press(&mut app, keys);
        for (width, height) in small().step_by(every).chain(big) {
            draw(&mut app, &mut Buffer::empty(Rect::new(0, 0, width, height)));
        }
    };
    for keys in ["", "2 G", "2 t / e Enter", "Enter", "2 ? G", "3 G", "4 G", "7 G"] {
        check(fixture::snapshot(), keys, 1);
        check(fixture::in_focus(), keys, 3);
        check(fixture::objectives(), keys, 7);
        check(fixture::without_sched(), keys, 7);
        check(fixture::many_cpus(), keys, 7);
        check(fixture::nothing(), keys, 7);
    }
    check(fixture::two_nodes(500), "4 G", 3);
    let mut app = App::new(options());
    draw(&mut app, &mut Buffer::empty(Rect::new(0, 0, 3, 3)));
    draw(&mut app, &mut Buffer::empty(Rect::new(0, 0, 0, 0)));
}

/// What a user would call the state.
fn state(app: &App) -> String {
    let list = app.list();
    let selected = list
        .selected
        .filter(|_| app.view != View::Cpus)
        .and_then(|key| app.snapshot.as_ref()?.is.cgroups.iter().find(|cgroup| cgroup.id == key));
    let mut state = vec![app.view.name().to_lowercase(), format!("{} lines", list.lines.len())];
    state.extend(selected.map(|cgroup| format!("at {}", cgroup.path)));
    let cpu = list.selected.filter(|_| app.view == View::Cpus);
    state.extend(cpu.map(|cpu| format!("at CPU {}", cpu.0)));
    let process = list.selected.filter(|key| key.kind() == kind::PROCESS);
    state.extend(process.map(|key| format!("at {}", key.tgid())));
    state.extend((!app.filter.is_empty()).then(|| format!("filter {}", app.filter)));
    let flags =
        [(app.typing, "typing"), (app.paused, "paused"), (app.help, "help"), (app.open.is_some(), "open"), (!app.tree, "flat")];
    state.extend(flags.into_iter().filter(|(set, _)| *set).map(|(_, name)| name.to_owned()));
    state.join(", ")
}

#[test]
fn keys_change_the_state() {
    let check = |keys: &str, expected: &str| {
        let mut app = app(fixture::snapshot());
        frame(&mut app, 80, 24);
        press(&mut app, keys);
        assert_eq!(state(&app), expected, "{keys}");
    };
    check("", "overview, 6 lines");
    check("j", "overview, 6 lines, at /batch.slice/train-0");
    check("j j", "overview, 6 lines, at /api.slice/web");
    check("Tab", "cgroups, 14 lines");
    check("Tab Tab", "tasks, 5 lines");
    check("Tab Tab Tab", "cpus, 4 lines");
    check("7 / batch Enter j", "health, 3 lines, at /batch.slice, filter batch");
    check("7 j Enter", "health, 9 lines, at /, open");
    check("Tab Tab Tab Tab", "memory, 9 lines");
    check("5 / batch Enter j", "memory, 3 lines, at /batch.slice, filter batch");
    check("Tab Tab Tab Tab Tab", "tcp, 4 lines");
    check("Tab Tab Tab Tab Tab Tab", "health, 9 lines");
    check("Tab Tab Tab Tab Tab Tab Tab", "overview, 6 lines");
    check("4 Enter", "cpus, 4 lines");
    check("4 j j Enter", "cpus, 4 lines, at CPU 1");
    check("4 I j", "cpus, 4 lines, at CPU 3");
    check("4 / core2 Enter j j", "cpus, 2 lines, at CPU 3, filter core2");
    check("4 / 2 Enter j", "cpus, 1 lines, at CPU 2, filter 2");
    check("4 / node Enter", "cpus, 4 lines, filter node");
    check("4 / nosuch Enter j", "cpus, 0 lines, filter nosuch");
    check("6 / 5432", "tcp, 1 lines, filter 5432, typing");
    check("6 j Enter", "tcp, 4 lines, open");
    check("3 j", "tasks, 5 lines, at 4194303");
    check("3 j j", "tasks, 5 lines, at 4242");
    check("3 I j", "tasks, 5 lines, at 1");
    check("3 < j", "tasks, 5 lines, at 4242");
    check("3 < < j", "tasks, 5 lines, at 9");
    check("3 < < < j G", "tasks, 5 lines, at 4194303");
    check("3 / train.PY Enter j", "tasks, 1 lines, at 4242, filter train.PY");
    check("3 / 812 Enter j", "tasks, 1 lines, at 812, filter 812");
    check("3 j j Enter", "tasks, 5 lines, at 4242, open");
    check("3 j Enter", "tasks, 5 lines, at 4194303");
    check("3 t - *", "tasks, 5 lines");
    check("2 j j j", "cgroups, 14 lines, at /batch.slice/train-0");
    check("2 j j -", "cgroups, 12 lines, at /batch.slice");
    check("2 j j Left Left", "cgroups, 12 lines, at /");
    check("2 j j - +", "cgroups, 14 lines, at /batch.slice");
    check("2 j j j Left", "cgroups, 14 lines, at /batch.slice");
    check("2 j *", "cgroups, 6 lines, at /");
    check("2 * *", "cgroups, 14 lines");
    check("2 t", "cgroups, 14 lines, flat");
    check("2 G", "cgroups, 14 lines, at /idle.slice");
    check("2 G gg", "cgroups, 14 lines, at /");
    check("2 G g j", "cgroups, 14 lines, at /idle.slice");
    check("2 / nginx", "cgroups, 3 lines, at /system.slice/nginx.service, filter nginx, typing");
    check("2 / nginx Enter", "cgroups, 3 lines, at /system.slice/nginx.service, filter nginx");
    check("2 / nginx Enter Esc", "cgroups, 14 lines, at /system.slice/nginx.service");
    check("2 / nginx Esc", "cgroups, 14 lines, at /system.slice/nginx.service");
    check("2 / nq Back ginx", "cgroups, 3 lines, at /system.slice/nginx.service, filter nginx, typing");
    check("2 / nq ^u", "cgroups, 14 lines, typing");
    check("2 t / SSH.SERV Enter", "cgroups, 1 lines, filter SSH.SERV, flat");
    check("2 / nosuch", "cgroups, 0 lines, filter nosuch, typing");
    check("2 / nosuch Enter j Enter", "cgroups, 0 lines, filter nosuch");
    check("Space", "overview, 6 lines, paused");
    check("Space Space", "overview, 6 lines");
    check("? ?", "overview, 6 lines");
    check("? Esc", "overview, 6 lines");
    check("Esc Esc Esc", "overview, 6 lines");
    check("Enter", "overview, 6 lines, at /batch.slice/train-0, open");
    check("Enter Esc", "overview, 6 lines, at /batch.slice/train-0");
    check("2 j j Enter", "cgroups, 14 lines, at /batch.slice, open");
}

#[test]
fn effects() {
    let check = |keys: &str, expected: Effect| {
        let mut app = app(fixture::snapshot());
        frame(&mut app, 80, 24);
        assert_eq!(press(&mut app, keys), expected, "{keys}");
    };
    check("q", Effect::Quit);
    check("^c", Effect::Quit);
    check("? q", Effect::Quit);
    check("/ ^c", Effect::Quit);
    check("^l", Effect::Redraw);
    check("^z", Effect::Suspend);
    // Nothing changes, so nothing is drawn.
    check("x", Effect::Nothing);
    check("g", Effect::Nothing);
    check("Esc", Effect::Nothing);
    check("2 G G", Effect::Nothing);
    check("t", Effect::Nothing);
    check("2 +", Effect::Nothing);
    check("2", Effect::Draw);
}

#[test]
fn the_selection_follows_the_thing() {
    let mut app = app(fixture::snapshot());
    frame(&mut app, 80, 24);
    press(&mut app, "2 t I j");
    let chosen = app.cgroups.selected;
    press(&mut app, "I");
    assert_eq!((app.cgroups.selected, app.cgroups.at), (chosen, 9));
    // It is gone: whatever took its place is selected.
    let gone = fixture::change(&fixture::snapshot(), |sample| sample.cgroups.retain(|cgroup| Some(cgroup.id) != chosen));
    app.take(Arc::new(gone));
    assert_eq!(app.cgroups.at, 9);
    assert!(app.cgroups.selected.is_some_and(|key| Some(key) != chosen));
}

#[test]
fn an_open_cgroup_may_vanish() {
    let mut app = app(fixture::snapshot());
    press(&mut app, "Enter");
    let open = app.open;
    assert_eq!(open, Some(fixture::key("/batch.slice/train-0")));
    app.take(Arc::new(fixture::change(&fixture::snapshot(), |sample| sample.cgroups.retain(|cgroup| Some(cgroup.id) != open))));
    assert!(text_of(&frame(&mut app, 80, 24)).contains("no longer there"));
}

#[test]
fn a_pause_freezes_what_is_shown() {
    let mut app = app(fixture::snapshot());
    press(&mut app, "2 Space");
    let before = text_of(&frame(&mut app, 80, 24));
    let later = fixture::change(&fixture::snapshot(), |sample| sample.cgroups.truncate(2));
    assert_eq!(app.take(Arc::new(later)), Effect::Nothing, "no frame for what is not shown");
    assert_eq!(text_of(&frame(&mut app, 80, 24)), before);
    press(&mut app, "/ nginx Enter");
    assert_eq!(app.cgroups.lines.len(), 3, "what is frozen can be filtered");
    press(&mut app, "Esc Space");
    assert_eq!(app.cgroups.lines.len(), 2, "going on shows the newest at once");
}

#[test]
fn the_mouse() {
    let mut app = app(fixture::snapshot());
    let click = |app: &mut App, kind, column, row| {
        frame(app, 80, 24);
        app.mouse(MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE })
    };
    let left = MouseEventKind::Down(MouseButton::Left);
    let find = |app: &mut App, wanted: &str| {
        let text = text_of(&frame(app, 80, 24));
        let (y, line) = text.lines().enumerate().find(|(_, line)| line.contains(wanted)).unwrap();
        (line.find(wanted).map(|at| line[..at].chars().count()).unwrap() as u16, y as u16)
    };
    let (x, y) = find(&mut app, "2 Cgroups");
    assert_eq!(click(&mut app, left, x, y), Effect::Draw);
    assert_eq!(app.view, View::Cgroups);
    let (x, y) = find(&mut app, "train-1");
    click(&mut app, left, x, y);
    assert_eq!(app.cgroups.selected, Some(fixture::key("/batch.slice/train-1")));
    let (x, y) = find(&mut app, " CPU ");
    click(&mut app, left, x + 1, y);
    assert_eq!((app.cgroups.sort.column, app.cgroups.sort.descending), (1, true));
    let (x, y) = find(&mut app, "CPU▼");
    click(&mut app, left, x, y);
    assert!(!app.cgroups.sort.descending);
    let at = app.cgroups.at;
    click(&mut app, MouseEventKind::ScrollUp, 1, 10);
    assert_eq!(app.cgroups.at, at.saturating_sub(3));
    assert_eq!(click(&mut app, MouseEventKind::Moved, 1, 1), Effect::Nothing);
    assert_eq!(click(&mut app, left, 79, 23), Effect::Nothing);
}

#[test]
fn scrolling_keeps_the_selection_on_screen_at_any_size() {
    let mut app = app(fixture::snapshot());
    press(&mut app, "2");
    for (keys, height) in [("G", 24), ("", 8), ("k k", 10), ("^d", 9), ("gg", 12), ("PgDn", 12), ("End", 60)] {
        frame(&mut app, 80, height);
        press(&mut app, keys);
        frame(&mut app, 80, height);
        let list = app.list();
        assert!(
            (list.offset..list.offset + list.page).contains(&list.at),
            "{keys} {height}: {} {} {}",
            list.offset,
            list.at,
            list.page
        );
    }
}

#[test]
fn the_hints_and_the_help_name_only_keys_of_the_table() {
    let mut app = app(fixture::snapshot());
    press(&mut app, "?");
    let help = text_of(&frame(&mut app, 120, 80));
    for binding in keys::KEYS {
        assert!(help.contains(binding.help), "{}", binding.help);
    }
}

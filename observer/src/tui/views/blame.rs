//! Who waited for whom, as lists with bars.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use crate::model::blame::{Blamed, List, Victim};
use crate::tui::format::{Format, UNKNOWN};
use crate::tui::palette::{Palette, Tone};
use crate::tui::text;

/// Room for a rate and for a share.
const RATE: u16 = 9;
const SHARE: u16 = 5;
/// A list narrower than this has no bars.
const BARS: u16 = 60;

/// What the culprits with `~` are, in plain words; empty for what needs none.
fn word(kind: &str) -> &'static str {
    match kind {
        "self" => "its own tasks",
        "idle" => "waking up an idle CPU",
        "throttled" => "a CPU quota",
        "migrated" => "another queue, before a move",
        "hypervisor" => "the host had the CPU",
        "interrupt" => "interrupts",
        "other" => "those without room in a table",
        "unknown" => "longer ago than is kept",
        _ => "",
    }
}

/// The culprit after a verb: `behind /a.slice`, `stopped by a CPU quota`.
pub(super) fn phrase(blamed: &Blamed, room: u16) -> String {
    match blamed.kind {
        "self" => "behind its own tasks".into(),
        "idle" => "waking up an idle CPU".into(),
        "throttled" => "stopped by a CPU quota".into(),
        "migrated" => "queued elsewhere before a move".into(),
        "hypervisor" => "behind the hypervisor".into(),
        "interrupt" => "behind interrupts".into(),
        "other" | "unknown" => "behind others without a name".into(),
        _ => format!("behind {}", text::tail(&blamed.name, room)),
    }
}

/// The main culprit in a cell: `70% /a.slice`.
pub(super) fn main(list: &List, room: u16) -> String {
    match list.main() {
        Some((blamed, share)) => behind(blamed, share, room),
        None => UNKNOWN.into(),
    }
}

fn behind(blamed: &Blamed, share: f64, room: u16) -> String {
    let share = Format::Percent.text(Some(share));
    format!("{share:>4} {}", text::tail(&blamed.name, room.saturating_sub(5)))
}

/// How many of so many entries are shown in `room` lines: when one line has to say how many more there are, one less.
fn fitting(entries: usize, room: u16) -> usize {
    let room = usize::from(room);
    if entries <= room { entries } else { room.saturating_sub(1) }
}

/// The lines that a list takes of `room`; it has at least one.
pub(super) fn lines(list: &List, room: u16) -> u16 {
    (list.blamed.len().min(usize::from(room)) as u16).max(1)
}

/// Draws a list below its title; `nobody` says what it means that it is empty.
pub(super) fn list(buffer: &mut Buffer, area: Rect, palette: Palette, list: &List, nobody: &str) {
    if list.blamed.is_empty() {
        text::put(buffer, area, 0, 0, &text::head(nobody, area.width), palette.style(Tone::Dim));
        return;
    }
    let shown = fitting(list.blamed.len(), area.height);
    let line = |blamed: &Blamed| (blamed.name.to_string(), word(blamed.kind), blamed.rate, list.share(blamed));
    let mut lines: Vec<_> = list.blamed[..shown].iter().map(line).collect();
    if let more @ 1.. = list.blamed.len() - shown {
        let rate: f64 = list.blamed[shown..].iter().map(|blamed| blamed.rate).sum();
        lines.push((format!("… {more} more"), "", rate, if list.total > 0.0 { rate / list.total } else { 0.0 }));
    }
    let bars = if area.width >= BARS { area.width / 4 } else { 0 };
    let name = area.width.saturating_sub(RATE + SHARE + 2 + if bars > 0 { bars + 1 } else { 0 });
    for (y, (who, word, rate, share)) in (0..area.height).zip(lines) {
        let x = text::put(buffer, area, 0, y, &text::tail(&who, name), palette.style(Tone::Plain)) + 1;
        if x + text::width(word) <= name {
            text::put(buffer, area, x, y, word, palette.style(Tone::Dim));
        }
        let right = name + 1 + RATE;
        let plain = palette.style(Tone::Plain);
        text::put_right(buffer, area, right, y, RATE, &Format::PerSecond.text(Some(rate)), plain);
        text::put_right(buffer, area, right + 1 + SHARE, y, SHARE, &Format::Percent.text(Some(share)), plain);
        let cells = (f64::from(bars) * share).round().clamp(0.0, f64::from(bars));
        text::put(buffer, area, right + SHARE + 2, y, &"█".repeat(cells as usize), palette.style(Tone::Wait));
    }
}

/// Draws who waited, how long, and behind whom, without a title.
pub(super) fn victims(buffer: &mut Buffer, area: Rect, palette: Palette, victims: &[Victim<'_>]) {
    let shown = fitting(victims.len(), area.height);
    let name = (area.width / 2).saturating_sub(RATE).min(60);
    let right = name + 1 + RATE;
    let room = area.width.saturating_sub(right + 2);
    let plain = palette.style(Tone::Plain);
    for (y, victim) in (0..area.height).zip(&victims[..shown]) {
        text::put(buffer, area, 0, y, &text::tail(&victim.name, name), plain);
        text::put_right(buffer, area, right, y, RATE, &Format::PerSecond.text(Some(victim.rate)), plain);
        text::put(buffer, area, right + 2, y, &behind(&victim.behind, victim.behind.rate / victim.rate, room), plain);
    }
    if let (more @ 1.., Ok(y)) = (victims.len() - shown, u16::try_from(shown)) {
        let rate: f64 = victims[shown..].iter().map(|victim| victim.rate).sum();
        text::put(buffer, area, 0, y, &text::head(&format!("… {more} more"), name), plain);
        text::put_right(buffer, area, right, y, RATE, &Format::PerSecond.text(Some(rate)), plain);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_counted() {
        assert_eq!([fitting(3, 3), fitting(4, 3), fitting(4, 1), fitting(4, 0), fitting(0, 0)], [3, 2, 0, 0, 0]);
    }

    #[test]
    fn every_culprit_has_a_phrase() {
        let blamed = |name: &str, kind| Blamed { name: name.into(), kind, rate: 1.0 };
        assert_eq!(phrase(&blamed("/a/very/long/path.service", "cgroup"), 9), "behind ….service");
        assert_eq!(phrase(&blamed("~self", "self"), 9), "behind its own tasks");
        for kind in ["self", "idle", "throttled", "migrated", "hypervisor", "interrupt", "other", "unknown"] {
            assert!(!word(kind).is_empty() && !phrase(&blamed("~", kind), 9).contains('~'), "{kind}");
        }
    }
}

//! How waits were distributed in the last interval.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use crate::model::{Cgroup, Histogram, Row, cgroup, histogram};
use crate::tui::format::{UNKNOWN, count, duration};
use crate::tui::palette::{Palette, Tone};
use crate::tui::text;

/// The waits that ended in the last interval.
pub(super) fn waits(row: &Row<'_, Cgroup>) -> Option<Histogram> {
    row.grown(&cgroup::LATENCY)
}

/// A bar an octave, of those that fit; the shortest are put together. The title begins as it is given, and goes on with numbers.
pub(super) fn draw(buffer: &mut Buffer, area: Rect, palette: Palette, title: &str, waits: Option<&Histogram>) {
    let quantile = |q| waits.and_then(|waits| waits.quantile(q)).map_or_else(|| UNKNOWN.into(), duration);
    let number = waits.map_or_else(|| UNKNOWN.into(), |waits| count(waits.count() as f64));
    let title = format!("{title}: {number}   p50 {}  p90 {}  p99 {}", quantile(0.5), quantile(0.9), quantile(0.99));
    let inner = text::panel(buffer, area, palette, &title, "");
    let bars = waits.map(|waits| octaves(waits, usize::from(inner.height))).unwrap_or_default();
    let most = bars.iter().map(|(_, count)| *count).max().unwrap_or(0);
    for (y, (bound, number)) in (0..inner.height).zip(&bars) {
        let bound = bound.map_or_else(|| ">128s".into(), |bound| format!("≤ {}", duration(bound)));
        text::put_right(buffer, inner, 9, y, 9, &bound, palette.style(Tone::Dim));
        text::put_right(buffer, inner, 18, y, 8, &count(*number as f64), palette.style(Tone::Plain));
        // Anything at all is at least one cell.
        let room = f64::from(inner.width.saturating_sub(20));
        let cells = (room * *number as f64 / most.max(1) as f64).round().max(if *number > 0 { 1.0 } else { 0.0 });
        text::put(buffer, inner, 20, y, &"█".repeat(cells as usize), palette.style(Tone::Wait));
    }
}

/// The lines that the histogram would like, with its title.
pub(super) fn lines(waits: Option<&Histogram>) -> u16 {
    waits.map_or(1, |waits| octaves(waits, usize::MAX).len() as u16 + 1)
}

/// Counts by octave from the first that holds something to the last, at most `room` of them: the shortest waits are put together when
/// there are more. The bound is in seconds, `None` above the last.
fn octaves(waits: &Histogram, room: usize) -> Vec<(Option<f64>, u64)> {
    let bars: Vec<_> = (0..).map(histogram::octave_upper).zip(waits.octaves()).collect();
    let first = bars.iter().position(|(_, count)| *count > 0);
    let (Some(first), Some(last)) = (first, bars.iter().rposition(|(_, count)| *count > 0)) else { return Vec::new() };
    let mut bars = bars[first..=last].to_vec();
    let surplus = bars.len().saturating_sub(room.max(1));
    let short: u64 = bars.drain(..surplus).map(|(_, count)| count).sum();
    bars[0].1 += short;
    bars
}

#[cfg(test)]
mod tests {
    use observer_common::latency::bucket;

    use super::*;

    #[test]
    fn octaves_lose_no_count() {
        let mut waits = Histogram::default();
        for ns in [10, 1_000, 5_000, 6_000, 40_000_000, 1_500_000_000, 1 << 40] {
            waits.counts[bucket(ns)] += 1;
        }
        let all = octaves(&waits, 100);
        assert_eq!(all.len(), 29);
        assert_eq!(all.iter().map(|(_, count)| count).sum::<u64>(), 7);
        assert_eq!((all[0].1, all[1].1, all[3].1), (1, 1, 2), "{all:?}");
        assert_eq!(all.last(), Some(&(None, 1)));
        let few = octaves(&waits, 5);
        assert_eq!(few.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [6, 0, 0, 0, 1]);
        assert!(octaves(&Histogram::default(), 5).is_empty());
    }
}

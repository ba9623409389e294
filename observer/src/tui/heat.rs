//! A distribution in a line: a cell for each octave, the darker the more of the values lie there.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::format::UNKNOWN;
use super::palette::{Palette, Tone};
use super::text;
use crate::model::Histogram;
use crate::model::histogram::BY_OCTAVE;

/// Cells of the terminal, one for each octave; several times as many are fine, too.
pub const WIDTH: u16 = BY_OCTAVE as u16;

/// Shares from which on a shade stands, descending, with the words of the legend. The steps are uneven because a wait in a hundred is what hurts, and is
/// to be seen beside the ninety-nine.
static SHADES: [(f64, &str, Tone); 5] =
    [(0.5, "█", Tone::Wait), (0.2, "▓", Tone::Wait), (0.05, "▒", Tone::Wait), (0.01, "░", Tone::Wait), (0.0, "·", Tone::Dim)];

/// Draws what was taken in; a dash where that is unknown, nothing where it was nothing.
pub fn draw(buffer: &mut Buffer, area: Rect, palette: Palette, values: Option<&Histogram>) {
    let Some(values) = values else {
        text::put(buffer, area, 0, 0, UNKNOWN, palette.style(Tone::Dim));
        return;
    };
    let wide = (area.width / WIDTH).max(1);
    let all = values.count() as f64;
    for (octave, count) in (0..).zip(values.octaves()).filter(|(_, count)| *count > 0) {
        let share = count as f64 / all;
        if let Some((_, symbol, tone)) = SHADES.iter().find(|(from, ..)| share >= *from) {
            text::put(buffer, area, octave * wide, 0, &symbol.repeat(usize::from(wide)), palette.style(*tone));
        }
    }
}

/// Writes upper bounds of some octaves above their cells.
pub fn axis(buffer: &mut Buffer, area: Rect, style: Style) {
    let wide = (area.width / WIDTH).max(1);
    for (octave, bound) in (0..).step_by(5).zip(["1µs", "31µs", "1ms", "31ms", "1s", "32s"]) {
        text::put(buffer, area, octave * wide, 0, bound, style);
    }
}

/// What the shades mean, in a line.
pub fn legend() -> String {
    let shade = |(from, symbol, _): &(f64, &str, Tone)| match *from {
        0.0 => format!("{symbol} fewer"),
        from => format!("{symbol} {:.0}%", from * 100.0),
    };
    SHADES.iter().map(shade).collect::<Vec<_>>().join("  ")
}

#[cfg(test)]
mod tests {
    use observer_common::latency::bucket;
    use ratatui::buffer::Cell;

    use super::*;

    /// A line of so many cells.
    fn line(width: u16, values: &[(u64, u64)]) -> String {
        let mut histogram = Histogram::default();
        for (ns, count) in values {
            histogram.counts[bucket(*ns)] += count;
        }
        let mut buffer = Buffer::empty(Rect::new(0, 0, width, 1));
        draw(&mut buffer, Rect::new(0, 0, width, 1), Palette::None, Some(&histogram));
        buffer.content.iter().map(Cell::symbol).collect()
    }

    #[test]
    fn shades_by_share() {
        let values = [(500, 1_000), (1_500, 300), (3_000, 100), (6_000, 20), (1 << 45, 1)];
        assert_eq!(line(WIDTH, &values), format!("█▓▒░{}·", " ".repeat(24)));
        assert_eq!(line(WIDTH * 2, &values), format!("██▓▓▒▒░░{}··", " ".repeat(48)));
        assert_eq!(line(3, &values), "█▓▒", "clipped");
        assert_eq!(line(WIDTH, &[]).trim(), "");
        assert_eq!(legend(), "█ 50%  ▓ 20%  ▒ 5%  ░ 1%  · fewer");
    }

    #[test]
    fn the_axis_names_the_octaves_below_it() {
        use crate::model::histogram::octave_upper;
        let mut buffer = Buffer::empty(Rect::new(0, 0, WIDTH, 1));
        axis(&mut buffer, Rect::new(0, 0, WIDTH, 1), Style::new());
        let text: String = buffer.content.iter().map(Cell::symbol).collect();
        assert_eq!(text, "1µs  31µs 1ms  31ms 1s   32s ");
        let bounds = [0, 5, 10, 15, 20, 25].map(|octave| octave_upper(octave).unwrap());
        for (bound, named) in bounds.iter().zip([1e-6, 31e-6, 1e-3, 31e-3, 1.0, 32.0]) {
            assert!((bound / named - 1.0).abs() < 0.05, "{bound}");
        }
    }
}

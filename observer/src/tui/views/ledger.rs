//! The lost-time ledger: what wanted to run, and what became of it, as a bar and in numbers.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::below;
use crate::model::{Entity, Metric, Row};
use crate::tui::format::Format;
use crate::tui::palette::{Palette, Tone};
use crate::tui::table::{Segment, Whole, bar};
use crate::tui::text::{self, Piece, piece};

/// The accounts; what went well comes first.
pub static ACCOUNTS: &[Segment] = &[
    account(&[("observer.ledger.account", "worked")], "█", "worked", Tone::User),
    account(&[("observer.ledger.account", "waited")], "░", "waited", Tone::Wait),
    account(&[("observer.ledger.account", "throttled")], "t", "throttled", Tone::Throttled),
    account(&[("observer.ledger.account", "stolen")], "X", "stolen", Tone::Steal),
    account(&[("observer.ledger.account", "interrupted")], "i", "interrupted", Tone::Interrupt),
    account(&[("observer.ledger.account", "stalled")], "m", "stalled", Tone::Stalled),
];

const fn account(attributes: crate::model::Attributes, symbol: &'static str, name: &'static str, tone: Tone) -> Segment {
    Segment { attributes, symbol, name, tone }
}

/// From this width on the numbers stand beside the bar.
const WIDE: u16 = 180;
/// The bar's width there.
const BAR: u16 = 50;

/// The numbers of one thing, in seconds a second, in the order of [`ACCOUNTS`].
pub(super) struct Ledger {
    numbers: Vec<Option<f64>>,
}

impl Ledger {
    /// Of an entity.
    pub(super) fn of<E: Entity>(row: &Row<'_, E>, metric: &'static Metric<E>) -> Ledger {
        Ledger { numbers: ACCOUNTS.iter().map(|account| row.number(metric, account.attributes)).collect() }
    }

    /// What wanted to run; `None` when nothing is known.
    pub(super) fn wanted(&self) -> Option<f64> {
        self.numbers.iter().flatten().copied().reduce(|sum, number| sum + number)
    }

    fn lost(&self) -> Option<f64> {
        self.numbers.iter().skip(1).flatten().copied().reduce(|sum, number| sum + number)
    }

    fn share(&self, number: Option<f64>) -> Option<f64> {
        Some(number? / self.wanted().filter(|wanted| *wanted > 0.0)?)
    }

    /// Draws it in one line where that is wide, else a line of shares below the bar; `seconds` gives the shares their times, where
    /// that takes a line more. Returns the lines used.
    pub(super) fn draw(&self, buffer: &mut Buffer, area: Rect, palette: Palette, seconds: bool) -> u16 {
        let per_second = |number| Format::PerSecond.text(number);
        let head = match self.share(self.lost()) {
            Some(share) => {
                format!("wanted {}, lost {} of it", per_second(self.wanted()), Format::Percent.text(Some(share)))
            }
            None => format!("wanted {}", per_second(self.wanted())),
        };
        let x = text::put(buffer, area, 0, 0, &text::head(&head, area.width), palette.style(Tone::Plain)) + 1;
        let wide = area.width >= WIDE;
        let room = area.width.saturating_sub(x);
        let width = if wide { BAR.min(room) } else { room };
        let place = Rect { x: area.x + x, width, height: 1.min(area.height), ..area };
        bar(buffer, place.intersection(area), palette, ACCOUNTS, self.numbers.iter().copied(), Whole::Sum);
        if self.wanted().is_none() {
            return 1;
        }
        if wide {
            let beside = Rect { x: place.x + width + 2, width: room.saturating_sub(width + 2), ..area };
            text::put_pieces(buffer, beside.intersection(area), 0, palette, self.pieces(true));
            return 1;
        }
        let mut pieces = self.pieces(seconds);
        if !seconds {
            text::put_pieces(buffer, below(area, 1), 0, palette, pieces);
            return 2;
        }
        let rest = pieces.split_off(pieces.len().min(3));
        text::put_pieces(buffer, below(area, 1), 0, palette, pieces);
        text::put_pieces(buffer, below(area, 2), 0, palette, rest);
        3
    }

    fn pieces(&self, seconds: bool) -> Vec<Piece> {
        let accounts = ACCOUNTS.iter().zip(&self.numbers);
        let text = |(account, number): (&Segment, &Option<f64>)| {
            let share = Format::Percent.text(self.share(*number));
            let text = match number {
                Some(number) if seconds => {
                    format!("{} {} {} {share}", account.symbol, account.name, Format::PerSecond.text(Some(*number)))
                }
                _ => format!("{} {} {share}", account.symbol, account.name),
            };
            // Where there is no room for all, what is nothing or unknown goes.
            piece(u8::from(number.is_none_or(|number| number == 0.0)), account.tone, text)
        };
        accounts.map(text).collect()
    }
}

//! Text in cells of a terminal: clipped, cut to a display width, never wrapped where a name could move its neighbours.

use std::borrow::Cow;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::palette::{Palette, Tone};

/// Display width.
pub fn width(text: &str) -> u16 {
    UnicodeWidthStr::width(text).try_into().unwrap_or(u16::MAX)
}

/// The text, or `…` and as much of its end as fits: of a path the end says most.
pub fn tail(text: &str, room: u16) -> Cow<'_, str> {
    if width(text) <= room {
        return Cow::Borrowed(text);
    }
    let mut left = room.saturating_sub(1);
    let mut from = text.len();
    for (at, c) in text.char_indices().rev() {
        let wide = c.width().unwrap_or(0) as u16;
        if wide > left {
            break;
        }
        left -= wide;
        from = at;
    }
    Cow::Owned(if room == 0 { String::new() } else { format!("…{}", &text[from..]) })
}

/// The text, or as much of its beginning as fits and `…`.
pub fn head(text: &str, room: u16) -> Cow<'_, str> {
    if width(text) <= room {
        return Cow::Borrowed(text);
    }
    let mut left = room.saturating_sub(1);
    let mut cut = String::new();
    for c in text.chars() {
        let Some(rest) = left.checked_sub(c.width().unwrap_or(0) as u16) else { break };
        left = rest;
        cut.push(c);
    }
    if room > 0 {
        cut.push('…');
    }
    Cow::Owned(cut)
}

/// Breaks a sentence at spaces into at most `lines` lines; what does not fit is cut.
pub fn wrap(text: &str, room: u16, lines: usize) -> Vec<String> {
    let mut wrapped: Vec<String> = Vec::new();
    for word in text.split(' ') {
        let full = wrapped.len() >= lines;
        match wrapped.last_mut() {
            Some(line) if full || width(line).saturating_add(1 + width(word)) <= room => {
                line.push(' ');
                line.push_str(word);
            }
            _ => wrapped.push(word.to_owned()),
        }
    }
    wrapped.iter().map(|line| head(line, room).into_owned()).collect()
}

/// Writes text at a place inside an area, clipped by it; returns where it ends, relative to the area.
pub fn put(buffer: &mut Buffer, area: Rect, x: u16, y: u16, text: &str, style: Style) -> u16 {
    if x >= area.width || y >= area.height {
        return x;
    }
    let (end, _) = buffer.set_stringn(area.x + x, area.y + y, text, usize::from(area.width - x), style);
    end - area.x
}

/// Writes text so that it ends at `right` (exclusive), clipped by `room` cells.
pub fn put_right(buffer: &mut Buffer, area: Rect, right: u16, y: u16, room: u16, text: &str, style: Style) {
    let text = head(text, room);
    put(buffer, area, right.saturating_sub(width(&text)), y, &text, style);
}

/// A piece of a line: the higher its number, the sooner it goes when there is too little room.
#[derive(Clone, Debug)]
pub struct Piece {
    /// 0 stays.
    pub priority: u8,
    /// What it says.
    pub text: String,
    /// What it means.
    pub tone: Tone,
}

/// Makes a [`Piece`].
pub fn piece(priority: u8, tone: Tone, text: impl Into<String>) -> Piece {
    Piece { priority, text: text.into(), tone }
}

/// Writes pieces with two spaces between them, leaving out those of the highest numbers until the rest fits.
pub fn put_pieces(buffer: &mut Buffer, area: Rect, y: u16, palette: Palette, mut pieces: Vec<Piece>) {
    let needed = |pieces: &[Piece]| pieces.iter().map(|piece| u32::from(width(&piece.text)) + 2).sum::<u32>();
    while needed(&pieces) > u32::from(area.width) + 2 {
        let Some(worst) = pieces.iter().map(|piece| piece.priority).max().filter(|worst| *worst > 0) else { break };
        let Some(at) = pieces.iter().rposition(|piece| piece.priority == worst) else { break };
        pieces.remove(at);
    }
    let mut x = 0;
    for piece in pieces {
        x = put(buffer, area, x, y, &head(&piece.text, area.width.saturating_sub(x)), palette.style(piece.tone)) + 2;
    }
}

/// A panel's title on a rule; returns the area below.
pub fn panel(buffer: &mut Buffer, area: Rect, palette: Palette, title: &str, trouble: &str) -> Rect {
    let dim = palette.style(Tone::Dim);
    let mut x = put(buffer, area, 0, 0, "─ ", dim);
    x = put(buffer, area, x, 0, &head(title, area.width.saturating_sub(x)), palette.style(Tone::Title));
    if !trouble.is_empty() {
        x = put(buffer, area, x + 1, 0, &head(trouble, area.width.saturating_sub(x + 1)), palette.style(Tone::Warn));
    }
    x += 1;
    while x < area.width {
        x = put(buffer, area, x, 0, "─", dim).max(x + 1);
    }
    Rect { y: area.y + 1.min(area.height), height: area.height.saturating_sub(1), ..area }
}

/// The last pass over a frame where the locale is not UTF-8: every character that is not ASCII becomes one that is and looks alike.
pub fn to_ascii(buffer: &mut Buffer) {
    for cell in &mut buffer.content {
        let symbol = cell.symbol();
        if symbol.is_ascii() {
            continue;
        }
        let plain = match symbol {
            "–" | "─" | "—" => '-',
            "…" => '~',
            "µ" => 'u',
            "▼" => 'v',
            "▲" => '^',
            "▸" => '>',
            "▾" => 'v',
            "│" => '|',
            "┌" | "┐" | "└" | "┘" => '+',
            "·" => '.',
            "≤" => '<',
            "█" => '#',
            "▓" => '%',
            "▒" => '=',
            "░" => ':',
            "✗" => 'X',
            _ => '?',
        };
        cell.set_char(plain);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_by_display_width() {
        let check = |text: &str, room, from_tail: &str, from_head: &str| {
            assert_eq!(tail(text, room), from_tail);
            assert_eq!(head(text, room), from_head);
        };
        check("abc", 3, "abc", "abc");
        check("abcd", 3, "…cd", "ab…");
        check("abcd", 1, "…", "…");
        check("abcd", 0, "", "");
        check("漢字漢字", 6, "…漢字", "漢字…");
        check("漢字漢字", 4, "…字", "漢…");
        check("", 0, "", "");
    }

    #[test]
    fn wraps_at_spaces_and_cuts_the_last_line() {
        assert_eq!(wrap("one two three four", 9, 2), ["one two", "three fo…"]);
        assert_eq!(wrap("one two", 80, 2), ["one two"]);
        assert_eq!(wrap("abcdefgh", 4, 1), ["abc…"]);
    }
}

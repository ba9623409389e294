//! Colours by meaning. No meaning is carried by colour alone: a number, a word or a symbol always says it too.

use ratatui::style::{Color, Modifier, Style};

/// Which colours the terminal can show and the user wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Palette {
    /// 256 colours on a dark background.
    Dark,
    /// The terminal's own 16.
    Sixteen,
    /// None: bold, dim and reversed only (`NO_COLOR`, `TERM=dumb`).
    None,
}

/// What a piece of text means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tone {
    /// Ordinary text.
    Plain,
    /// Of less interest.
    Dim,
    /// A heading.
    Title,
    /// A column header.
    Header,
    /// Something that is as it should be.
    Good,
    /// Worth a look.
    Warn,
    /// Lost or broken.
    Bad,
    /// A key to press.
    Key,
    /// The selected line.
    Selected,
    /// CPU time in user space.
    User,
    /// CPU time in the kernel.
    System,
    /// CPU time in interrupts.
    Interrupt,
    /// CPU time taken by the hypervisor.
    Steal,
    /// Time waiting.
    Wait,
    /// Time stopped by a quota.
    Throttled,
    /// Time doing the page allocator's work.
    Stalled,
}

impl Palette {
    /// The style of a meaning.
    pub fn style(self, tone: Tone) -> Style {
        let style = Style::new().add_modifier(modifier(tone));
        let color = match self {
            Palette::None => return style,
            Palette::Dark => dark(tone),
            Palette::Sixteen => sixteen(tone),
        };
        color.map_or(style, |color| style.fg(color))
    }
}

fn modifier(tone: Tone) -> Modifier {
    match tone {
        Tone::Title | Tone::Warn | Tone::Bad | Tone::Key => Modifier::BOLD,
        Tone::Header => Modifier::BOLD.union(Modifier::UNDERLINED),
        Tone::Selected => Modifier::REVERSED,
        Tone::Dim => Modifier::DIM,
        _ => Modifier::empty(),
    }
}

fn dark(tone: Tone) -> Option<Color> {
    Some(Color::Indexed(match tone {
        Tone::Plain | Tone::Selected => return None,
        Tone::Dim => 246,
        Tone::Title => 117,
        Tone::Header => 250,
        Tone::Good => 114,
        Tone::Warn => 221,
        Tone::Bad => 203,
        Tone::Key => 153,
        Tone::User => 75,
        Tone::System => 180,
        Tone::Interrupt => 176,
        Tone::Steal => 203,
        Tone::Wait => 215,
        Tone::Throttled => 80,
        Tone::Stalled => 183,
    }))
}

fn sixteen(tone: Tone) -> Option<Color> {
    Some(match tone {
        Tone::Plain | Tone::Selected | Tone::Dim | Tone::Header => return None,
        Tone::Title | Tone::Key | Tone::Throttled => Color::Cyan,
        Tone::Good => Color::Green,
        Tone::Warn | Tone::Wait => Color::Yellow,
        Tone::Bad | Tone::Steal => Color::Red,
        Tone::User => Color::Blue,
        Tone::System => Color::Green,
        Tone::Interrupt | Tone::Stalled => Color::Magenta,
    })
}

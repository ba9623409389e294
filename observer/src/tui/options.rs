//! What the caller decides: colours, characters.

use super::palette::Palette;

/// How the dashboard looks. The dashboard itself reads no environment; [`Options::from_env`] is for its caller.
#[derive(Clone, Debug)]
pub struct Options {
    /// Colours.
    pub palette: Palette,
    /// ASCII only, for terminals whose locale is not UTF-8.
    pub ascii: bool,
    /// What the header shall say beside the health of the sources, such as `read-only`.
    pub notes: Vec<String>,
}

impl Options {
    /// What the variables NO_COLOR, TERM, COLORTERM, LC_ALL, LC_CTYPE and LANG ask for: `Options::from_env(|name| std::env::var(name).ok())`.
    ///
    /// As the conventions have it, an empty variable counts as not set, and the first of the three locale variables that is set decides.
    pub fn from_env(variable: impl Fn(&str) -> Option<String>) -> Options {
        let set = |name| variable(name).filter(|value| !value.is_empty());
        let term = set("TERM").unwrap_or_default();
        let many = term.contains("256color") || term.contains("direct") || set("COLORTERM").is_some();
        let palette = if set("NO_COLOR").is_some() || term == "dumb" || term.is_empty() {
            Palette::None
        } else if many {
            Palette::Dark
        } else {
            Palette::Sixteen
        };
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set).unwrap_or_default().to_ascii_lowercase();
        Options { palette, ascii: !(locale.contains("utf-8") || locale.contains("utf8")), notes: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_environment() {
        let check = |variables: &[(&str, &str)], palette, ascii| {
            let options = Options::from_env(|name| {
                variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
            });
            assert_eq!((options.palette, options.ascii), (palette, ascii), "{variables:?}");
        };
        check(&[], Palette::None, true);
        check(&[("TERM", "xterm-256color"), ("LANG", "en_GB.UTF-8")], Palette::Dark, false);
        check(&[("TERM", "xterm"), ("LANG", "C.utf8")], Palette::Sixteen, false);
        check(&[("TERM", "xterm"), ("COLORTERM", "truecolor"), ("LANG", "C")], Palette::Dark, true);
        check(&[("TERM", "xterm-256color"), ("NO_COLOR", "1"), ("LANG", "de_DE.UTF-8")], Palette::None, false);
        check(&[("TERM", "xterm-256color"), ("NO_COLOR", ""), ("LANG", "de_DE.UTF-8")], Palette::Dark, false);
        check(&[("TERM", "dumb"), ("COLORTERM", "truecolor")], Palette::None, true);
        check(&[("TERM", "linux"), ("LC_ALL", "C"), ("LANG", "de_DE.UTF-8")], Palette::Sixteen, true);
        check(&[("TERM", "linux"), ("LC_ALL", ""), ("LC_CTYPE", "en_US.UTF-8"), ("LANG", "C")], Palette::Sixteen, false);
    }
}

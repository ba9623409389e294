//! Reads Rust source just well enough to know which paths it mentions. No parser: a list of words and signs suffices.

/// A path that a file mentions.
pub(crate) enum Used {
    /// Of this crate, from its root.
    Here(String),
    /// That begins with another name: perhaps an external crate.
    Elsewhere(String),
}

impl Used {
    pub(crate) fn path(&self) -> &str {
        let (Used::Here(path) | Used::Elsewhere(path)) = self;
        path
    }
}

/// All paths of a module's text: `use` trees spread out, `crate`, `self` and `super` resolved.
pub(crate) fn paths(module: &[String], text: &str) -> Vec<Used> {
    let tokens = tokens(text);
    let mut found = Vec::new();
    // Inline modules that are open, each with the depth of braces at which it ends.
    let (mut inline, mut depth): (Vec<(String, usize)>, usize) = (Vec::new(), 0);
    let mut at = 0;
    while at < tokens.len() {
        match tokens[at].as_str() {
            "mod" if tokens.get(at + 2).is_some_and(|token| token == "{") => {
                inline.push((tokens[at + 1].clone(), depth));
                depth += 1;
                at += 3;
            }
            "{" => (depth, at) = (depth + 1, at + 1),
            "}" => {
                depth = depth.saturating_sub(1);
                inline.pop_if(|(_, ends)| *ends == depth);
                at += 1;
            }
            _ if begins_path(&tokens, at) => {
                let here: Vec<_> = module.iter().chain(inline.iter().map(|(name, _)| name)).cloned().collect();
                let mut spread = Vec::new();
                at = tree(&tokens, at, &[], &mut spread);
                found.extend(spread.into_iter().map(|path| resolve(&here, path)));
            }
            _ => at += 1,
        }
    }
    found
}

/// Whether a path begins here: a name before `::` or after `use`, that is not itself part of what stands before it.
fn begins_path(tokens: &[String], at: usize) -> bool {
    let is = |at: Option<usize>, sign: &str| at.and_then(|at| tokens.get(at)).is_some_and(|token| token == sign);
    let before = |steps| at.checked_sub(steps);
    if !is_name(&tokens[at]) || tokens[at] == "use" || !(is(Some(at + 1), "::") || is(before(1), "use")) || is(before(1), ".") {
        return false;
    }
    // `a::name` goes on with a path; `use ::name` and `(::name` begin one.
    let goes_on = |token: &String| (is_name(token) && token != "use") || token == ">";
    !is(before(1), "::") || !before(2).and_then(|at| tokens.get(at)).is_some_and(goes_on)
}

/// Reads one path or `use` tree, adds every path in it, and tells where it ends: always further than where it began.
fn tree(tokens: &[String], start: usize, before: &[String], found: &mut Vec<Vec<String>>) -> usize {
    let (mut at, mut path) = (start, before.to_vec());
    while let Some(token) = tokens.get(at) {
        if token == "{" {
            at += 1;
            while tokens.get(at).is_some_and(|token| token != "}") {
                at = if tokens[at] == "," { at + 1 } else { tree(tokens, at, &path, found) };
            }
            return at + 1;
        }
        // A turbofish or a macro's variable ends the path.
        if !is_name(token) && token != "*" {
            break;
        }
        path.push(token.clone());
        at += 1;
        if tokens.get(at).is_none_or(|token| token != "::") {
            break;
        }
        at += 1;
    }
    found.push(path);
    if tokens.get(at).is_some_and(|token| token == "as") {
        at += 2;
    }
    at.max(start + 1)
}

fn resolve(here: &[String], mut path: Vec<String>) -> Used {
    if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
        path.pop();
    }
    let mut base = match path[0].as_str() {
        "crate" => Vec::new(),
        "self" | "super" => here.to_vec(),
        _ => return Used::Elsewhere(path.join("::")),
    };
    let mut rest = path.into_iter().peekable();
    while let Some(step) = rest.next_if(|step| matches!(step.as_str(), "crate" | "self" | "super")) {
        if step == "super" {
            base.pop();
        }
    }
    base.extend(rest);
    Used::Here(base.join("::"))
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Names, `::` and single signs; comments, strings and characters left out.
pub(crate) fn tokens(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let (mut tokens, mut at) = (Vec::new(), 0);
    while let Some(rest) = chars.get(at..).filter(|rest| !rest.is_empty()) {
        let word = rest.iter().take_while(|c| is_word(**c)).count();
        at += match rest {
            ['/', '/', ..] => until(rest, 0, &['\n']),
            ['/', '*', ..] => comment(rest),
            ['"', ..] => string(rest),
            ['\'', '\\', ..] => until(rest, 3, &['\'']),
            // Without the second quote it is a lifetime.
            ['\'', _, '\'', ..] => 3,
            _ if let Some(length) = raw_string(rest) => length,
            _ if word > 0 => {
                tokens.push(rest[..word].iter().collect());
                word
            }
            [':', ':', ..] => {
                tokens.push("::".into());
                2
            }
            [sign, ..] => {
                tokens.extend((!sign.is_whitespace()).then(|| sign.to_string()));
                1
            }
            [] => 1,
        };
    }
    tokens
}

/// Where `end` ends, sought from `from` on; the whole length without one.
fn until(chars: &[char], from: usize, end: &[char]) -> usize {
    let found = chars.get(from..).and_then(|rest| rest.windows(end.len()).position(|window| window == end));
    found.map_or(chars.len(), |at| from + at + end.len())
}

/// The length of the comment that begins here; comments nest.
fn comment(chars: &[char]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < chars.len() {
        match chars[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// The length of the string that begins here.
fn string(chars: &[char]) -> usize {
    let mut at = 1;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

/// The length of the raw string that begins here: `r"`, `br#"`, `cr##"`.
fn raw_string(chars: &[char]) -> Option<usize> {
    let prefix = usize::from(matches!(chars, ['b' | 'c', 'r', ..]));
    let hashes = chars[prefix..].strip_prefix(&['r'])?.iter().take_while(|c| **c == '#').count();
    let open = prefix + 1 + hashes;
    let end: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    (chars.get(open) == Some(&'"')).then(|| until(chars, open + 1, &end))
}

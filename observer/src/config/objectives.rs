//! Latency objectives as words, `/a.slice 1ms for 99.9% in 1h`, and as tables of the file.

use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::any_duration;
use crate::model::objective::{Scope, Slo, Target};

/// The keys of a table, with values that are right.
pub(super) const KEYS: &[(&str, &str)] = &[
    ("name", "api latency"),
    ("cgroup", "/system.slice/nginx.service"),
    ("command", "nginx"),
    ("wait", "1ms"),
    ("share", "99.9%"),
    ("window", "1h"),
];

/// Without a window.
const WINDOW: Duration = Duration::from_secs(3600);
/// What may be asked for: the histogram tells nothing apart below a microsecond and above its last octave.
const BOUNDS: (Duration, Duration) = (Duration::from_micros(1), Duration::from_secs(128));
const WINDOWS: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(30 * 86_400));
/// More would say nothing to anybody, and each is kept in memory.
const MOST: usize = 64;
/// Bytes that the kernel keeps of a task's name.
const COMM: usize = 15;

/// What is said of an objective, each word still to be understood.
#[derive(Default)]
struct Said<'a> {
    name: Option<&'a str>,
    cgroup: Option<&'a str>,
    command: Option<&'a str>,
    wait: Option<&'a str>,
    share: Option<&'a str>,
    window: Option<&'a str>,
}

/// Reads the words of a flag or a variable: objectives, with a semicolon between two.
pub(super) fn words(value: &str) -> Result<Vec<Slo>, String> {
    all(value.split(';').map(|one| one_of_words(one.trim())))
}

/// Reads the tables of the file. The error is where it lies in the text, and what it is.
pub(super) fn tables(tables: &[Spanned<DeValue<'_>>]) -> Result<Vec<Slo>, (Option<usize>, String)> {
    let mut slos = Vec::new();
    for table in tables {
        let DeValue::Table(entries) = table.get_ref() else {
            return Err((Some(table.span().start), "objective must be tables: begin each with [[objective]]".into()));
        };
        slos.push(of_table(entries).map_err(|(at, problem)| (at.or(Some(table.span().start)), problem))?);
    }
    all(slos.into_iter().map(Ok)).map_err(|problem| (None, format!("objective: {problem}")))
}

/// In the words of a flag.
pub(super) fn show(slos: &[Slo]) -> Option<String> {
    let one = |slo: &Slo| {
        let [bound, window] = [slo.bound, slo.window].map(humantime::format_duration);
        format!("{} {bound} for {} in {window}", slo.scope.text(), slo.target)
    };
    (!slos.is_empty()).then(|| slos.iter().map(one).collect::<Vec<_>>().join("; "))
}

fn all(slos: impl Iterator<Item = Result<Slo, String>>) -> Result<Vec<Slo>, String> {
    let slos = slos.collect::<Result<Vec<_>, _>>()?;
    if slos.len() > MOST {
        return Err(format!("has more than {MOST} objectives"));
    }
    let twice = slos.iter().enumerate().find(|(at, slo)| slos[..*at].iter().any(|other| other.name == slo.name));
    match twice {
        Some((_, slo)) => Err(format!("has two objectives named {:?}: give each a name of its own in the file", slo.name)),
        None => Ok(slos),
    }
}

fn one_of_words(text: &str) -> Result<Slo, String> {
    let wrong =
        || "is not an objective: write it as /a.slice 1ms for 99.9% in 1h, or with a command's name for the path".to_owned();
    let (rest, share) = text.rsplit_once(" for ").ok_or_else(wrong)?;
    let (share, window) = match share.split_once(" in ") {
        Some((share, window)) => (share, Some(window.trim())),
        None => (share, None),
    };
    let (whose, wait) = rest.trim_end().rsplit_once(' ').ok_or_else(wrong)?;
    let whose = whose.trim();
    let (cgroup, command) = if whose.starts_with('/') { (Some(whose), None) } else { (None, Some(whose)) };
    let said = Said { name: None, cgroup, command, wait: Some(wait.trim()), share: Some(share.trim()), window };
    slo(&said).map_err(|(key, problem)| format!("is wrong: {key}: {problem}"))
}

fn of_table(entries: &DeTable<'_>) -> Result<Slo, (Option<usize>, String)> {
    let mut said = Said::default();
    for (name, value) in entries {
        let key: &str = name.get_ref();
        let Some((known, example)) = KEYS.iter().find(|(known, _)| *known == key) else {
            let near = KEYS.iter().min_by_key(|(known, _)| strsim::damerau_levenshtein(key, known));
            let near = near.map(|(known, _)| *known).unwrap_or_default();
            return Err((Some(name.span().start), format!("unknown key objective.{key}: did you mean objective.{near}?")));
        };
        let DeValue::String(text) = value.get_ref() else {
            let problem = format!("objective.{key} must be a string such as {example:?}");
            return Err((Some(value.span().start), problem));
        };
        let place = match *known {
            "name" => &mut said.name,
            "cgroup" => &mut said.cgroup,
            "command" => &mut said.command,
            "wait" => &mut said.wait,
            "share" => &mut said.share,
            _ => &mut said.window,
        };
        *place = Some(text.as_ref());
    }
    slo(&said).map_err(|(key, problem)| {
        let value = entries.iter().find(|(name, _)| *name.get_ref() == key);
        (value.map(|(_, value)| value.span().start), format!("objective.{key}: {problem}"))
    })
}

/// Understands what was said; an error names the key.
fn slo(said: &Said<'_>) -> Result<Slo, (&'static str, String)> {
    let scope = match (said.cgroup, said.command) {
        (Some(path), None) => Scope::Cgroup(cgroup(path).map_err(|problem| ("cgroup", problem))?),
        (None, Some(name)) => Scope::Command(command(name).map_err(|problem| ("command", problem))?),
        (Some(_), Some(_)) => return Err(("command", "is one too many beside cgroup: an objective has one of them".into())),
        (None, None) => return Err(("cgroup", "is missing, and so is command: name one of them".into())),
    };
    let said_so = |key, value: Option<&str>, example| match value {
        Some(value) => Ok(value.to_owned()),
        None => Err((key, format!("is missing: write it as {example:?}"))),
    };
    let wait = said_so("wait", said.wait, "1ms")?;
    let bound = within(&wait, BOUNDS, "choose a wait from 1us to 128s").map_err(|problem| ("wait", problem))?;
    let target = target(&said_so("share", said.share, "99.9%")?).map_err(|problem| ("share", problem))?;
    let window = said.window.map(|window| within(window, WINDOWS, "choose a window from 10s to 30d"));
    let window = window.transpose().map_err(|problem| ("window", problem))?.unwrap_or(WINDOW);
    let name = match said.name {
        Some(name) => printable(name).map_err(|problem| ("name", problem))?.to_owned(),
        None => format!("{} {}", scope.text(), humantime::format_duration(bound)),
    };
    Ok(Slo { name, scope, bound, target, window })
}

fn cgroup(path: &str) -> Result<String, String> {
    if !path.starts_with('/') {
        return Err(format!("{path:?} is not a path from the root of a hierarchy: write it as /system.slice/nginx.service"));
    }
    let trimmed = printable(path)?.trim_end_matches('/');
    Ok(if trimmed.is_empty() { "/".into() } else { trimmed.into() })
}

fn command(name: &str) -> Result<String, String> {
    // A backslash is of an escaped byte, which is longer here than in the kernel.
    if name.len() > COMM && !name.contains('\\') {
        return Err(format!("{name:?} is longer than what the kernel keeps of a name: write its first {COMM} bytes"));
    }
    printable(name).map(str::to_owned)
}

fn printable(text: &str) -> Result<&str, String> {
    if text.is_empty() {
        return Err("\"\" is empty: write a name".into());
    }
    match text.chars().any(char::is_control) {
        true => Err(format!("{text:?} has a control character: write it as observer shows it")),
        false => Ok(text),
    }
}

fn within(text: &str, (shortest, longest): (Duration, Duration), bounds: &str) -> Result<Duration, String> {
    let duration = any_duration(text).map_err(|problem| format!("{text:?} {problem}"))?;
    if (shortest..=longest).contains(&duration) { Ok(duration) } else { Err(format!("{text:?} is out of bounds: {bounds}")) }
}

/// A percentage with at most four decimals: millionths.
fn target(text: &str) -> Result<Target, String> {
    let wrong =
        || format!("{text:?} is not a share: write a percentage between 0% and 100% with at most four decimals, as in 99.9%");
    let number = text.strip_suffix('%').ok_or_else(wrong)?.trim_end();
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    let is_number = |digits: &str, most| (1..=most).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole, 2) || !is_number(decimals, 4) {
        return Err(wrong());
    }
    let millionths = format!("{whole}{decimals:0<4}").parse().ok().and_then(Target::of_millionths);
    millionths.ok_or_else(wrong)
}

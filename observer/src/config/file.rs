//! The configuration file: TOML whose every key is one of [`SETTINGS`].

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Config, Error, Form, SETTINGS, Setting, objectives};

/// Read when it exists and no other is named.
pub const DEFAULT_FILE: &str = "/etc/observer/config.toml";

/// A configuration file that was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct File {
    /// Its name in messages.
    pub path: String,
    /// Its text.
    pub text: String,
}

impl File {
    /// Reads the named file, which must exist, or else the default one if it exists.
    pub fn read(named: Option<&Path>) -> Result<Option<File>, Error> {
        let path = named.unwrap_or(Path::new(DEFAULT_FILE));
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Some(File { path: path.display().to_string(), text })),
            Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::Unreadable { path: path.display().to_string(), reason: error.to_string() }),
        }
    }

    fn refuse(&self, at: usize, problem: String) -> Error {
        let before = self.text.get(..at).unwrap_or(&self.text);
        Error::Line { path: self.path.clone(), line: before.matches('\n').count() + 1, problem }
    }
}

/// Writes what the file says into the configuration.
pub(super) fn apply(config: &mut Config, file: &File) -> Result<(), Error> {
    let table = DeTable::parse(&file.text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        file.refuse(at, format!("not TOML: {}", error.message().replace('\n', ", ")))
    })?;
    apply_table(config, file, "", table.get_ref())
}

fn apply_table(config: &mut Config, file: &File, table: &str, entries: &DeTable<'_>) -> Result<(), Error> {
    for (name, value) in entries {
        let key = if table.is_empty() { name.get_ref().to_string() } else { format!("{table}.{}", name.get_ref()) };
        let setting = SETTINGS.iter().find(|setting| setting.key == key);
        let is_table = tables().any(|known| known == key);
        match (setting, value.get_ref()) {
            (Some(setting), _) => apply_value(config, file, setting, value)?,
            (None, DeValue::Table(inner)) if is_table => apply_table(config, file, &key, inner)?,
            (None, other) if is_table => {
                let problem = format!("{key} must be a table, found {}", described(other));
                return Err(file.refuse(value.span().start, problem));
            }
            (None, _) => {
                let problem = format!("unknown key {key}: did you mean {}?", nearest(&key));
                return Err(file.refuse(name.span().start, problem));
            }
        }
    }
    Ok(())
}

fn apply_value(config: &mut Config, file: &File, setting: &Setting, value: &Spanned<DeValue<'_>>) -> Result<(), Error> {
    let at = value.span().start;
    let word = match (setting.form, value.get_ref()) {
        (Form::Text(_), DeValue::String(text)) => text.to_string(),
        (Form::Switch, DeValue::Boolean(on)) => on.to_string(),
        (Form::Tables(_), DeValue::Array(tables)) => {
            config.objectives =
                objectives::tables(tables).map_err(|(place, problem)| file.refuse(place.unwrap_or(at), problem))?;
            return Ok(());
        }
        (Form::Tables(_), other) => {
            let problem = format!("{0} must be tables that begin with [[{0}]], found {1}", setting.key, described(other));
            return Err(file.refuse(at, problem));
        }
        (Form::Text(example), other) => {
            let problem = format!("{} must be a string such as {example:?}, found {}", setting.key, described(other));
            return Err(file.refuse(at, problem));
        }
        (Form::Switch, other) => {
            return Err(file.refuse(at, format!("{} must be true or false, found {}", setting.key, described(other))));
        }
    };
    (setting.set)(config, &word).map_err(|problem| file.refuse(at, format!("{}: {word:?} {problem}", setting.key)))
}

fn tables() -> impl Iterator<Item = &'static str> {
    SETTINGS.iter().filter_map(|setting| Some(setting.key.rsplit_once('.')?.0))
}

/// The known key or table that a mistyped one most likely meant; also found when only its table is missing or wrong.
fn nearest(key: &str) -> &'static str {
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let distance = |known: &&str| {
        let whole = strsim::damerau_levenshtein(key, known);
        // A right name in the wrong table is nearer than it looks.
        whole.min(strsim::damerau_levenshtein(&last(key), &last(known)) * 2 + 1)
    };
    SETTINGS.iter().map(|setting| setting.key).chain(tables()).min_by_key(distance).unwrap_or_default()
}

fn described(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

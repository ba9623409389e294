//! Which rows of a snapshot are wanted.

use crate::model::{AnyRow, Kind, Label};

/// Which rows are wanted; by default those of every kind that is [usual](Kind::is_usual), that is, not of threads. Host labels, events and health are always written.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Narrow {
    /// Only rows of this kind.
    pub entity: Option<Kind>,
    /// Only rows whose `cgroup` label is exactly this: not its descendants, and on a hybrid host that path in either hierarchy.
    pub cgroup: Option<String>,
}

impl Narrow {
    /// Whether the row is wanted.
    pub fn keeps(&self, row: &dyn AnyRow) -> bool {
        self.entity.map_or(row.kind().is_usual(), |kind| kind == row.kind())
            && self.cgroup.as_deref().is_none_or(|path| {
                row.labels().iter().any(|(name, value)| *name == "cgroup" && matches!(value, Label::Text(text) if text == path))
            })
    }
}

/// The label value that a path given by hand means: a trailing slash does not matter. The error says how to write it.
pub fn cgroup_path(given: &str) -> Result<String, String> {
    if given.starts_with('~') {
        return Ok(given.into());
    }
    if !given.starts_with('/') {
        return Err(format!("{given:?} is not a path from the root of a hierarchy: write it as /system.slice/nginx.service"));
    }
    let trimmed = given.trim_end_matches('/');
    Ok(if trimmed.is_empty() { "/".into() } else { trimmed.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let check = |given: &str, expected: &str| assert_eq!(cgroup_path(given).as_deref(), Ok(expected));
        check("/", "/");
        check("/a.slice/b/", "/a.slice/b");
        check("~gone", "~gone");
        assert!(cgroup_path("a.slice").is_err());
        assert!(cgroup_path("").is_err());
    }
}

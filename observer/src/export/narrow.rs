//! Which rows of a snapshot are wanted.

use crate::model::{AnyRow, Kind, Label};

/// Which rows are wanted; by default those of every kind that is [usual](Kind::is_usual), that is, not of threads. Host labels, events and health are always written.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Narrow {
    /// Only rows of this kind.
    pub entity: Option<Kind>,
    /// Only rows whose `cgroup` label is exactly this, and pairs of which it or one of its processes is the victim or the culprit: not its
    /// descendants, and on a hybrid host that path in either hierarchy.
    pub cgroup: Option<String>,
}

impl Narrow {
    /// Whether the row is wanted.
    pub fn keeps(&self, row: &dyn AnyRow) -> bool {
        self.entity.map_or(row.kind().is_usual(), |kind| kind == row.kind())
            && self.cgroup.as_deref().is_none_or(|path| row.labels().iter().any(|(name, value)| is_of(path, name, value)))
    }
}

/// Whether a label says that the row is of this cgroup.
fn is_of(path: &str, name: &str, value: &Label<'_>) -> bool {
    let Label::Text(text) = value else { return false };
    match name {
        "cgroup" => text == path,
        "victim" | "culprit" => text.strip_prefix(path).is_some_and(|rest| rest.is_empty() || is_process(rest)),
        _ => false,
    }
}

/// Whether it is what follows a cgroup's path in the name of one of its processes: ` #12 nginx`.
fn is_process(rest: &str) -> bool {
    let named = rest.strip_prefix(" #").and_then(|process| process.split_once(' '));
    named.is_some_and(|(pid, _)| !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit()))
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
    use super::super::fixture;
    use super::*;

    #[test]
    fn pairs_of_a_cgroup() {
        let check = |path: &str, expected: &[&str]| {
            let narrow = Narrow { entity: Some(Kind::Contention), cgroup: Some(path.into()) };
            let mut kept = Vec::new();
            fixture::contended().each_row(&mut |row| {
                if narrow.keeps(row) {
                    let labels = row.labels();
                    kept.push(format!("{} < {}", labels[0].1, labels[1].1));
                }
            });
            assert_eq!(kept, expected, "{path}");
        };
        let process = r"/ #12 \x1b[2Jnginx";
        let of_both = format!("/a.slice < {process}");
        check("/", &["/ < /a.slice", &format!("/ < {process}"), &of_both]);
        check("/a.slice", &["/ < /a.slice", "/a.slice < ~self", &of_both, "/a.slice < ~idle"]);
        check("~idle", &["/a.slice < ~idle"]);
        check("/a", &[]);
    }

    #[test]
    fn processes_by_name() {
        let check = |rest: &str, expected| assert_eq!(is_process(rest), expected, "{rest}");
        check(" #12 nginx", true);
        check(" #12 a b", true);
        check(" #12 ", true);
        check(" #x y", false);
        check(" # y", false);
        check(".slice", false);
        check("", false);
    }

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

//! Looks for traces of the machine in an object that everybody will get.

use std::env;

use crate::workspace::Workspace;

/// Folders that only an absolute path of a build machine starts with. `/proc` and `/sys` are not
/// among them: the line information holds lines of the sources, and those may speak of them.
const FOLDERS: [&str; 10] = ["/root", "/home", "/work", "/tmp", "/usr", "/opt", "/mnt", "/build", "/Users", "/nix"];
/// Parts of folder names below cargo's home.
const PARTS: [&str; 2] = ["registry", "index.crates"];

/// What would tell this machine from another.
#[derive(Debug, Default)]
pub(super) struct Machine {
    /// Found anywhere.
    paths: Vec<String>,
    /// Found as a whole word.
    hostname: Option<String>,
}

impl Machine {
    pub(super) fn here(workspace: &Workspace) -> Self {
        let mut paths = vec![workspace.root.display().to_string(), workspace.target.display().to_string()];
        paths.extend(["HOME", "CARGO_HOME", "RUSTUP_HOME"].iter().filter_map(|name| env::var(name).ok()));
        // A home of `/` would be found everywhere.
        paths.retain(|path| path.len() > 1);
        let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
        // A name that is an ordinary word cannot be told from the text of the sources.
        let telling = hostname.chars().any(|letter| !letter.is_ascii_lowercase());
        Self { paths, hostname: telling.then_some(hostname).filter(|name| name.len() > 3) }
    }
}

/// Every printable text in the object that names the machine, with the reason.
pub(super) fn leaks(object: &[u8], machine: &Machine) -> Vec<String> {
    let texts = object.split(|byte| !(b' '..=b'~').contains(byte)).filter(|text| text.len() > 3);
    let texts = texts.map(|text| String::from_utf8_lossy(text).into_owned());
    texts.filter_map(|text| Some(format!("{:?} in {text:?}", reason(&text, machine)?))).collect()
}

fn reason<'a>(text: &str, machine: &'a Machine) -> Option<&'a str> {
    let folder = FOLDERS.into_iter().find(|folder| names_folder(text, folder));
    let part = || PARTS.into_iter().find(|part| text.contains(part));
    let path = || machine.paths.iter().map(String::as_str).find(|path| text.contains(path));
    let host = || machine.hostname.as_deref().filter(|host| has_word(text, host));
    folder.or_else(part).or_else(path).or_else(host)
}

/// `/usr/lib` names `/usr`; `crates/usr/lib` and `/usrlib` do not.
fn names_folder(text: &str, folder: &str) -> bool {
    text.match_indices(folder).any(|(start, _)| {
        let before = text[..start].chars().next_back();
        let after = text[start + folder.len()..].chars().next();
        !before.is_some_and(|letter| letter.is_alphanumeric() || "._-".contains(letter)) && after == Some('/')
    })
}

fn has_word(text: &str, word: &str) -> bool {
    let part_of_word = |letter: char| letter.is_alphanumeric() || letter == '-' || letter == '_';
    text.match_indices(word).any(|(start, _)| {
        let before = text[..start].chars().next_back();
        let after = text[start + word.len()..].chars().next();
        !before.is_some_and(part_of_word) && !after.is_some_and(part_of_word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: bool) {
        let machine = Machine { paths: vec!["/srv/me/observer".to_owned()], hostname: Some("box-7".to_owned()) };
        let object = [b"\x7fELF\0\x01", text.as_bytes(), b"\0\x02"].concat();
        assert_eq!(!leaks(&object, &machine).is_empty(), expected, "{text}");
    }

    #[test]
    fn neutral_names_pass() {
        check("./observer-ebpf/src/main.rs", false);
        check("crates/aya-ebpf-0.2.1/src/lib.rs", false);
        check("rust/library/core/src/ptr/mod.rs", false);
        check("observer-ebpf/src/home/usr.rs", false);
        check("// as /proc/stat and /sys/fs/cgroup say", false);
        check("/usrlocal", false);
        check("box-77", false);
    }

    #[test]
    fn machines_are_found() {
        check("/root/.cargo/x", true);
        check("/home/somebody/observer/src/main.rs", true);
        check("=/usr/include", true);
        check("cargo/registry/src", true);
        check("index.crates-1949cf8c6b5b557f", true);
        check("/srv/me/observer/x", true);
        check("built on box-7.", true);
    }

    #[test]
    fn the_report_names_the_trace_and_the_text() {
        let found = leaks(b"\0/root/a.rs\0", &Machine::default());
        assert_eq!(found, [r#""/root" in "/root/a.rs""#]);
    }
}

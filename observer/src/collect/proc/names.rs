//! Names of processes and users: `/proc/PID/cmdline` and `etc/passwd`.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;
use std::time::SystemTime;

use crate::collect::Roots;
use crate::model::text::escape;

/// What is shown of a command line at the most, in bytes: they may have two million.
const COMMAND: u64 = 1024;

/// Reads names below one `/proc`.
#[derive(Debug)]
pub struct Names {
    root: PathBuf,
    users: HashMap<u32, String>,
    read: Option<PasswdFile>,
}

/// The file of users that was read.
type PasswdFile = (PathBuf, Option<SystemTime>);

impl Names {
    /// Opens nothing yet.
    pub fn new(roots: &Roots) -> Names {
        Names { root: roots.proc.clone(), users: HashMap::new(), read: None }
    }

    /// A command line, its words joined by spaces, escaped; `None` when there is none (threads of the kernel, zombies) or it cannot be read.
    pub fn command(&self, pid: u32) -> Option<String> {
        let mut words = Vec::new();
        let file = File::open(self.root.join(format!("{pid}/cmdline"))).ok()?;
        file.take(COMMAND).read_to_end(&mut words).ok()?;
        let end = words.iter().rposition(|byte| *byte != 0)? + 1;
        words.truncate(end);
        words.iter_mut().filter(|byte| **byte == 0).for_each(|byte| *byte = b' ');
        Some(escape(&words).into_owned())
    }

    /// The name of a user, escaped; the number where it has none. The file is read when a user is met for the first time, and again
    /// when it has changed.
    pub fn user(&mut self, uid: u32) -> String {
        if !self.users.contains_key(&uid) {
            self.read_users();
        }
        self.users.entry(uid).or_insert_with(|| uid.to_string()).clone()
    }

    /// The users of the machine: as its first process sees them, or this one where that may not be read. Both are below `/proc`, so that the
    /// host's `/proc` in a container gives the host's names.
    fn read_users(&mut self) {
        for of in ["1", "self"] {
            let path = self.root.join(of).join("root/etc/passwd");
            let Ok(metadata) = fs::metadata(&path) else { continue };
            let now = Some((path, metadata.modified().ok()));
            if now == self.read {
                return;
            }
            let Some(Ok(text)) = now.as_ref().map(|(path, _)| fs::read(path)) else { continue };
            self.users = parse_passwd(&text).collect();
            self.read = now;
            return;
        }
    }
}

/// `name:password:uid:…`; the first line of a number counts, as for everybody else.
fn parse_passwd(text: &[u8]) -> impl Iterator<Item = (u32, String)> {
    let lines = text.split(|byte| *byte == b'\n').rev();
    lines.filter_map(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        let (name, uid) = (fields.next()?, fields.nth(1)?);
        let uid = std::str::from_utf8(uid).ok()?.parse().ok()?;
        Some((uid, escape(name).into_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_users() {
        let tree = tempfile::tempdir().unwrap();
        let write = |path: &str, bytes: &[u8]| {
            let path = tree.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        };
        let roots = Roots { proc: tree.path().into(), ..Roots::default() };
        let mut names = Names::new(&roots);
        assert_eq!(names.user(7), "7");
        write("5/cmdline", b"/bin/sh\0-c\0a\x1b b\xff\0\0");
        write("6/cmdline", b"");
        write("8/cmdline", &[b'x'; 5000]);
        assert_eq!(names.command(5).as_deref(), Some(r"/bin/sh -c a\x1b b\xff"));
        assert_eq!((names.command(6), names.command(7)), (None, None));
        assert_eq!(names.command(8).unwrap().len(), COMMAND as usize);

        write("self/root/etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nw\xffw:x:33:33::/:\nnonsense\nother:x:33:33::/:\n");
        assert_eq!(names.user(33), r"w\xffw");
        assert_eq!((names.user(0), names.user(7)), ("root".into(), "7".into()));
        write("1/root/etc/passwd", b"seven:x:7:7::/:\neight:x:8:8::/:");
        assert_eq!((names.user(8), names.user(7)), ("eight".into(), "seven".into()));
    }
}

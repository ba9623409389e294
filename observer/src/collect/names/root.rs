//! The host's root folder, below which the state of container runtimes is found.
//!
//! What lies there was written by others. So every path is resolved by the kernel as if the folder were `/` (`openat2`, since Linux 5.6):
//! links and dots cannot lead out of it, nor out of a home directory; only regular files are read, and of them no more than a limit.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2};
use rustix::io::Errno;

use crate::collect::proc::Malformed;
use crate::collect::proc::file::Shown;

/// Of a folder, more entries are not looked at.
const ENTRIES: usize = 20_000;

/// The folder that stands for the host's `/`.
#[derive(Debug)]
pub(super) struct Root {
    path: PathBuf,
    folder: Option<OwnedFd>,
}

/// A user's home directory. What is below it is the user's: no link is followed there, and no file read that is somebody else's.
#[derive(Debug)]
pub(super) struct Home {
    uid: u32,
    path: PathBuf,
    folder: OwnedFd,
}

/// Something that exists and cannot be read: the path and what is wrong, escaped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Problem(pub(super) String);

impl Problem {
    fn new(path: &Path, what: impl std::fmt::Display) -> Problem {
        Problem(format!("{}: {what}", Shown(path)))
    }

    /// What the system said, and what to do about it.
    fn refused(path: &Path, errno: Errno) -> Problem {
        let remedy = if errno == Errno::ACCESS { "; run as root, or grant CAP_DAC_READ_SEARCH" } else { "" };
        Problem::new(path, format_args!("{errno}{remedy}"))
    }
}

impl Root {
    /// Opens nothing yet.
    pub(super) fn new(path: &Path) -> Root {
        Root { path: path.to_owned(), folder: None }
    }

    /// Opens the folder, once.
    pub(super) fn open(&mut self) -> Result<(), Problem> {
        if self.folder.is_none() {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let folder = openat(CWD, &self.path, flags, Mode::empty()).map_err(|errno| Problem::refused(&self.path, errno))?;
            self.folder = Some(folder);
        }
        Ok(())
    }

    /// A file's content; `None` where there is none. A path is relative to the root.
    pub(super) fn read<T>(
        &self,
        path: &str,
        limit: u64,
        parse: impl FnOnce(&[u8]) -> Result<T, Malformed>,
    ) -> Result<Option<(T, u64)>, Problem> {
        let Some(folder) = &self.folder else { return Ok(None) };
        let file = beneath(folder, Path::new(path), ResolveFlags::IN_ROOT, READ);
        read(&self.path.join(path), file, None, limit, parse)
    }

    /// Names of what is in a folder; none where there is no such folder.
    pub(super) fn list(&self, path: &str) -> Result<Vec<Vec<u8>>, Problem> {
        let Some(folder) = &self.folder else { return Ok(Vec::new()) };
        let problem = |errno| Problem::refused(&self.path.join(path), errno);
        let opened = match beneath(folder, Path::new(path), ResolveFlags::IN_ROOT, READ | OFlags::DIRECTORY) {
            Ok(opened) => opened,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Vec::new()),
            Err(errno) => return Err(problem(errno)),
        };
        let entries = Dir::new(opened).map_err(problem)?;
        let names = entries.take(ENTRIES).map(|entry| Ok(entry.map_err(problem)?.file_name().to_bytes().to_vec()));
        names.filter(|name| !matches!(name.as_deref(), Ok(b"." | b".."))).collect()
    }

    /// A user's home directory; `None` where there is none.
    pub(super) fn home(&self, uid: u32, path: &Path) -> Result<Option<Home>, Problem> {
        let Some(folder) = &self.folder else { return Ok(None) };
        let below = path.strip_prefix("/").unwrap_or(path);
        match beneath(folder, below, ResolveFlags::IN_ROOT, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(folder) => Ok(Some(Home { uid, path: self.path.join(below), folder })),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(Problem::refused(&self.path.join(below), errno)),
        }
    }
}

impl Home {
    /// As [`Root::read`], relative to the home.
    pub(super) fn read<T>(
        &self,
        path: &str,
        limit: u64,
        parse: impl FnOnce(&[u8]) -> Result<T, Malformed>,
    ) -> Result<Option<(T, u64)>, Problem> {
        let file = beneath(&self.folder, Path::new(path), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS, READ);
        read(&self.path.join(path), file, Some(self.uid), limit, parse)
    }
}

/// For reading, without waiting: a pipe that somebody put there has no writer.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

fn beneath(folder: &OwnedFd, path: &Path, resolve: ResolveFlags, flags: OFlags) -> Result<OwnedFd, Errno> {
    openat2(folder, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve | ResolveFlags::NO_MAGICLINKS)
}

/// What a file's content means, and how much that was.
fn read<T>(
    path: &Path,
    file: Result<OwnedFd, Errno>,
    owner: Option<u32>,
    limit: u64,
    parse: impl FnOnce(&[u8]) -> Result<T, Malformed>,
) -> Result<Option<(T, u64)>, Problem> {
    let file = match file {
        Ok(file) => file,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(errno) => return Err(Problem::refused(path, errno)),
    };
    let stat = fstat(file.as_fd()).map_err(|errno| Problem::refused(path, errno))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Problem::new(path, "is not a regular file"));
    }
    if owner.is_some_and(|owner| owner != stat.st_uid) {
        return Err(Problem::new(path, format_args!("belongs to user {} instead of its home's", stat.st_uid)));
    }
    let mut bytes = Vec::new();
    File::from(file).take(limit + 1).read_to_end(&mut bytes).map_err(|error| Problem::new(path, error))?;
    let length = bytes.len() as u64;
    if length > limit {
        return Err(Problem::new(path, format_args!("is larger than {} KiB", limit >> 10)));
    }
    parse(&bytes).map(|parsed| Some((parsed, length))).map_err(|malformed| Problem::new(path, malformed))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    use rustix::fs::mknodat;

    use super::*;

    fn text(bytes: &[u8]) -> Result<String, Malformed> {
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }

    fn tree() -> (tempfile::TempDir, Root) {
        let tree = tempfile::tempdir().unwrap();
        fs::create_dir_all(tree.path().join("host/var/lib")).unwrap();
        fs::write(tree.path().join("secret"), "out").unwrap();
        fs::write(tree.path().join("host/file"), "in").unwrap();
        let mut root = Root::new(&tree.path().join("host"));
        root.open().unwrap();
        (tree, root)
    }

    #[test]
    fn links_are_those_of_the_host() {
        let (tree, root) = tree();
        let host = tree.path().join("host");
        symlink("/file", host.join("absolute")).unwrap();
        symlink("../../file", host.join("var/lib/up")).unwrap();
        symlink("/var", host.join("to-var")).unwrap();
        symlink("../secret", host.join("out")).unwrap();
        symlink(tree.path().join("secret"), host.join("out-absolute")).unwrap();
        let read = |path| root.read(path, 9, text).map(|read| read.map(|(text, _)| text));
        for path in ["file", "absolute", "var/lib/up", "to-var/lib/up", "../file"] {
            assert_eq!(read(path), Ok(Some("in".into())), "{path}");
        }
        for path in ["out", "out-absolute", "../secret", "nothing", "file/below"] {
            assert_eq!(read(path), Ok(None), "{path}");
        }
    }

    #[test]
    fn only_regular_files_up_to_a_limit() {
        let (tree, root) = tree();
        let host = tree.path().join("host");
        mknodat(CWD, host.join("pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        let message = |path: &str, limit| root.read(path, limit, text).unwrap_err().0;
        let expected = |path: &str, what: &str| format!("{}: {what}", host.join(path).display());
        assert_eq!(message("pipe", 9), expected("pipe", "is not a regular file"));
        assert_eq!(message("var", 9), expected("var", "is not a regular file"));
        assert_eq!(root.read("file", 2, text), Ok(Some(("in".into(), 2))));
        assert_eq!(message("file", 1), expected("file", "is larger than 0 KiB"));
        let wrong = root.read("file", 9, |_| Err::<(), _>(Malformed::new("nonsense"))).unwrap_err().0;
        assert_eq!(wrong, expected("file", "nonsense"));
        assert_eq!(root.list("var"), Ok(vec![b"lib".to_vec()]));
        assert_eq!((root.list("nothing"), root.list("file")), (Ok(Vec::new()), Ok(Vec::new())));
    }

    #[test]
    fn a_home_is_its_users_alone() {
        let (tree, root) = tree();
        let host = tree.path().join("host");
        fs::create_dir_all(host.join("home/alice")).unwrap();
        fs::write(host.join("home/alice/own"), "hers").unwrap();
        symlink("own", host.join("home/alice/link")).unwrap();
        symlink("/file", host.join("home/alice/other")).unwrap();
        let uid = fs::metadata(host.join("file")).unwrap().uid();
        let home = root.home(uid, Path::new("/home/alice")).unwrap().unwrap();
        assert_eq!(home.read("own", 9, text), Ok(Some(("hers".into(), 4))));
        for path in ["link", "other", "../../file"] {
            assert!(home.read(path, 9, text).is_err(), "{path}");
        }
        let stranger = root.home(uid + 1, Path::new("/home/alice")).unwrap().unwrap();
        assert!(stranger.read("own", 9, text).unwrap_err().0.contains("belongs to user"));
        assert!(root.home(uid, Path::new("/home/nobody")).unwrap().is_none());
    }

    #[test]
    fn who_may_not_is_told_what_to_do() {
        let Problem(problem) = Problem::refused(Path::new("/a"), Errno::ACCESS);
        assert_eq!(problem, "/a: Permission denied (os error 13); run as root, or grant CAP_DAC_READ_SEARCH");
    }

    #[test]
    fn a_root_that_is_not_there_is_named() {
        let mut root = Root::new(Path::new("/no\x1bsuch"));
        assert_eq!(root.open().unwrap_err().0, r"/no\x1bsuch: No such file or directory (os error 2)");
    }
}

//! The one way in which small kernel files are opened, and what can go wrong with them.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::model::text;

/// More than any file read here has, so that a mistaken root (`/proc/kcore` by another name) cannot fill the memory.
const MAX_BYTES: u64 = 16 << 20;

/// Why a file gave nothing. The message names the path and the reason in one line fit to print.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused.
    #[error("{}: {error}", Shown(path))]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The content is not what the kernel writes.
    #[error("{}: {malformed}", Shown(path))]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        malformed: Malformed,
    },
}

impl Error {
    /// Whether the file does not exist, which is how the kernel says that it does not know.
    pub fn is_missing(&self) -> bool {
        matches!(self, Error::Read { error, .. } if error.kind() == io::ErrorKind::NotFound)
    }
}

/// What is wrong with a text: one line, hostile bytes escaped.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(String);

impl Malformed {
    /// A sentence without a full stop.
    pub fn new(what: impl Into<String>) -> Malformed {
        Malformed(what.into())
    }

    /// What was expected, and the beginning of what is there instead.
    pub fn expected(what: &str, found: &str) -> Malformed {
        let mut beginning: String = found.chars().take(40).collect();
        if beginning.len() < found.len() {
            beginning.push('…');
        }
        Malformed(format!("expected {what}, found \"{}\"", text::escape(beginning.as_bytes())))
    }
}

/// Reads a file into the buffer, whose memory is used again, and parses it.
pub fn parse<T>(path: &Path, buffer: &mut Vec<u8>, parse: impl FnOnce(&str) -> Result<T, Malformed>) -> Result<T, Error> {
    let malformed = |malformed| Error::Parse { path: path.to_owned(), malformed };
    let text = std::str::from_utf8(read(path, buffer)?).map_err(|error| malformed(Malformed::new(error.to_string())))?;
    parse(text).map_err(malformed)
}

/// Reads a file into the buffer, whose memory is used again.
pub fn read<'a>(path: &Path, buffer: &'a mut Vec<u8>) -> Result<&'a [u8], Error> {
    buffer.clear();
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_end(buffer));
    read.map_err(|error| Error::Read { path: path.to_owned(), error })?;
    Ok(buffer)
}

/// A path as it may be printed.
pub(in crate::collect) struct Shown<'a>(pub(in crate::collect) &'a Path);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text::escape(self.0.as_os_str().as_encoded_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_the_path_and_the_reason() {
        let mut buffer = Vec::new();
        let missing = read(Path::new("/proc/no\nsuch"), &mut buffer).unwrap_err();
        assert!(missing.is_missing());
        assert_eq!(missing.to_string(), r"/proc/no\x0asuch: No such file or directory (os error 2)");
        let wrong =
            parse(Path::new("/proc/self/comm"), &mut buffer, |_| Err::<(), _>(Malformed::expected("a number", "\x1b[2J")));
        assert_eq!(wrong.unwrap_err().to_string(), r#"/proc/self/comm: expected a number, found "\x1b[2J""#);
    }
}

//! The guest's only file system: an archive that the kernel unpacks into memory.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::process::Cmd;
use crate::workspace::{self, read};

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;

/// An archive in cpio's "newc" format, as the kernel's buffer-format.rst has it.
#[derive(Default)]
pub(crate) struct Initramfs {
    archive: Vec<u8>,
    /// Paths that are in it, without a slash in front.
    names: BTreeSet<String>,
}

impl Initramfs {
    pub(crate) fn folder(&mut self, path: &str) {
        self.folders_above(&format!("{path}/"));
    }

    /// Whatever is executable or need not be.
    pub(crate) fn file(&mut self, path: &str, content: &[u8]) {
        let path = path.trim_start_matches('/');
        self.folders_above(path);
        if self.names.insert(path.to_owned()) {
            self.entry(path, PROGRAM, content);
        }
    }

    /// A program of this machine, and what it is linked against, under the same paths as here.
    pub(crate) fn program(&mut self, path: &str, program: &Path) -> Result<()> {
        self.file(path, &read(program)?);
        // Of a static program ldd knows nothing, and there is nothing to know.
        let libraries = Cmd::new("ldd").arg(program).quiet().answer().unwrap_or_default();
        for library in libraries_of(&libraries) {
            self.file(library, &read(Path::new(library))?);
        }
        Ok(())
    }

    pub(crate) fn write(mut self, to: &Path) -> Result<PathBuf> {
        self.entry("TRAILER!!!", 0, &[]);
        workspace::write(to, &self.archive)?;
        // Programs under test may be nobody's business.
        fs::set_permissions(to, fs::Permissions::from_mode(0o600)).with_context(|| format!("cannot protect {}", to.display()))?;
        Ok(to.to_owned())
    }

    fn folders_above(&mut self, path: &str) {
        let path = path.trim_start_matches('/');
        for (end, _) in path.match_indices('/') {
            let folder = &path[..end];
            if self.names.insert(folder.to_owned()) {
                self.entry(folder, FOLDER, &[]);
            }
        }
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        // Only hard links need distinct inode numbers, and there are none.
        let (inode, owner, group, links, time) = (0, 0, 0, 1, 0);
        let device = [0; 4];
        let size = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let name_size = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
        let mut header = "070701".to_owned();
        for field in [inode, mode, owner, group, links, time, size].into_iter().chain(device).chain([name_size, 0]) {
            header.push_str(&format!("{field:08x}"));
        }
        self.archive.extend_from_slice(header.as_bytes());
        self.archive.extend_from_slice(name.as_bytes());
        self.archive.push(0);
        self.pad();
        self.archive.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.archive.resize(self.archive.len().next_multiple_of(4), 0);
    }
}

/// The paths in the answer of ldd: `name => /path (address)`, and for the loader `/path (address)`.
fn libraries_of(ldd: &str) -> impl Iterator<Item = &str> {
    ldd.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_the_loader() {
        let answer = "\tlinux-vdso.so.1 (0x00007fff)\n\
                      \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                      \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let expected = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(libraries_of(answer).collect::<Vec<_>>(), expected);
        assert_eq!(libraries_of("\tstatically linked\n").count(), 0);
    }

    #[test]
    fn an_archive_has_every_folder_once_and_is_aligned() {
        let mut archive = Initramfs::default();
        archive.file("/usr/bin/one", b"1");
        archive.file("/usr/bin/two", b"22222");
        archive.file("/usr/bin/two", b"again");
        archive.folder("/usr/share");
        assert_eq!(archive.names.iter().collect::<Vec<_>>(), ["usr", "usr/bin", "usr/bin/one", "usr/bin/two", "usr/share"]);
        assert_eq!(archive.archive.len() % 4, 0);
        let text = String::from_utf8_lossy(&archive.archive).into_owned();
        assert_eq!(text.matches("070701").count(), 5);
        // Mode and size where the kernel looks for them.
        let (_, two) = text.split_at(text.find("usr/bin/two").unwrap() - 110);
        assert_eq!((&two[14..22], &two[54..62], &two[94..102]), ("000081ed", "00000005", "0000000c"));
    }
}

//! Files of cgroups that stay open between readings.
//!
//! Opening and closing is most of what a small file costs. But an open one costs the kernel 4.7 KB (`seq_file` keeps the page into which it
//! wrote), on the bill of the cgroup in which observer runs: all files of 10,000 cgroups would be 400 MB. So whoever reads decides which
//! are worth it, and the [`Budget`] has an end; the rest is opened for each reading.

use std::os::fd::OwnedFd;

use rustix::io::{Errno, pread};

use crate::sys;

/// Descriptors that are kept at the most: 10 MB of the kernel.
const MOST: usize = 2048;

/// How many more descriptors may be kept.
#[derive(Debug)]
pub struct Budget {
    left: usize,
}

impl Default for Budget {
    /// At most half of what the process may open, and that is often set lower than it need be.
    fn default() -> Self {
        Budget::of(MOST.min(sys::allow_files(2 * MOST) / 2))
    }
}

impl Budget {
    /// So many.
    pub fn of(left: usize) -> Budget {
        Budget { left }
    }
}

/// The files of one cgroup, by their number.
#[derive(Debug)]
pub struct Files<const N: usize> {
    kept: [Option<OwnedFd>; N],
}

impl<const N: usize> Default for Files<N> {
    fn default() -> Self {
        Files { kept: [const { None }; N] }
    }
}

impl<const N: usize> Files<N> {
    /// Reads the beginning of a file into the buffer and tells how much that was: by one call, since the kernel gives files of this kind in
    /// one piece. One that is not open is opened, and stays open if it is to be kept and the budget allows it.
    ///
    /// # Errors
    ///
    /// What opening or reading said. A kept file that cannot be read any more, because its cgroup has ended (ENODEV), is closed.
    pub fn read(
        &mut self,
        budget: &mut Budget,
        number: usize,
        keep: bool,
        open: impl FnOnce() -> Result<OwnedFd, Errno>,
        buffer: &mut [u8],
    ) -> Result<usize, Errno> {
        let slot = &mut self.kept[number];
        if let Some(file) = slot {
            let read = pread(file, buffer, 0);
            if read.is_err() {
                *slot = None;
                budget.left += 1;
            }
            return read;
        }
        let file = open()?;
        let read = pread(&file, buffer, 0)?;
        if keep && budget.left > 0 {
            budget.left -= 1;
            *slot = Some(file);
        }
        Ok(read)
    }

    /// Closes all that is open.
    pub fn close(&mut self, budget: &mut Budget) {
        budget.left += self.kept.iter_mut().filter_map(Option::take).count();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::fs;
    use std::path::Path;

    use rustix::fs::{CWD, Mode, OFlags, openat};

    use super::*;

    /// Reads file `number` of a fresh folder, counting how often it is opened.
    struct Bench {
        files: Files<2>,
        budget: Budget,
        opened: Cell<u32>,
    }

    impl Bench {
        fn new(budget: usize) -> Bench {
            Bench { files: Files::default(), budget: Budget::of(budget), opened: Cell::new(0) }
        }

        fn read(&mut self, path: &Path, number: usize, keep: bool) -> Result<String, Errno> {
            let mut buffer = [0; 16];
            let open = || {
                self.opened.set(self.opened.get() + 1);
                openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            };
            let length = self.files.read(&mut self.budget, number, keep, open, &mut buffer)?;
            Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
        }
    }

    #[test]
    fn a_kept_file_is_opened_once_and_tells_what_it_holds_now() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let mut bench = Bench::new(1);
        for (text, keep) in [("one", false), ("two", true), ("three", true), ("four", false)] {
            fs::write(&path, text).unwrap();
            assert_eq!(bench.read(&path, 0, keep).unwrap(), text);
        }
        assert_eq!((bench.opened.get(), bench.budget.left), (2, 0));
        bench.read(&path, 1, true).unwrap();
        bench.read(&path, 1, true).unwrap();
        assert_eq!(bench.opened.get(), 4, "the budget is at its end");
        bench.files.close(&mut bench.budget);
        assert_eq!(bench.budget.left, 1);
    }

    #[test]
    fn a_file_that_is_gone_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let mut bench = Bench::new(9);
        assert_eq!(bench.read(&folder.path().join("x"), 0, true), Err(Errno::NOENT));
        assert_eq!(bench.read(folder.path(), 0, true), Err(Errno::ISDIR));
        assert_eq!(bench.budget.left, 9);
    }
}

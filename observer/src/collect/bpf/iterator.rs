//! Records that a BPF iterator writes.
//!
//! **What a reading costs in system calls.** A file of the iterator gives its content once: it has no position to go back to (`lseek`
//! and `pread` say ESPIPE, tried on 6.18), and after its end it stays at its end. So each reading asks for a new file of the kept link
//! with one `bpf(BPF_ITER_CREATE)`, and reads it in steps of 32 KiB, which is what the kernel
//! fills at a time. The only way without that call is a link pinned in a bpffs, which is then opened by its path; that leaves files
//! behind and wants a mounted bpffs. Kernels before 5.19 where unprivileged BPF is forbidden refuse the call to who has given up CAP_BPF.

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use aya::programs::Iter;
use aya::{Btf, Ebpf};
use observer_common::pod::{self, Pod};

use super::loader::{LoadError, missing, refused};
use crate::sys;

/// Records that there is room for at first.
const FIRST: usize = 1024;

/// An attached iterator, and what it told last.
#[derive(Debug)]
pub(super) struct Records<T> {
    link: OwnedFd,
    /// Kept between readings; the first `len` are of the last one.
    buffer: Vec<T>,
    len: usize,
}

impl<T: Pod> Records<T> {
    /// Loads and attaches a program of the object that iterates over what the kernel calls `target`.
    ///
    /// # Errors
    ///
    /// What aya and the kernel say.
    pub(super) fn attach(ebpf: &mut Ebpf, btf: &Btf, program: &str, target: &str) -> Result<Records<T>, LoadError> {
        let program = ebpf.program_mut(program).ok_or_else(|| missing(program))?;
        let program: &mut Iter = program.try_into().map_err(|error| refused("cannot use an iterator", &error))?;
        program.load(target, btf).map_err(|error| refused("cannot load an iterator", &error))?;
        let fd = program.fd().map_err(|error| refused("cannot use an iterator", &error))?;
        let link = sys::iterator_link(fd.as_fd()).map_err(|error| refused("cannot attach an iterator", &error))?;
        Ok(Records { link, buffer: Vec::new(), len: 0 })
    }

    /// Reads everything once.
    ///
    /// # Errors
    ///
    /// What the system says; then there are no records.
    pub(super) fn read(&mut self) -> io::Result<&[T]> {
        self.len = 0;
        let mut file = sys::iterator_file(self.link.as_fd())?;
        let mut filled = 0;
        loop {
            if filled == size_of_val(self.buffer.as_slice()) {
                self.buffer.resize((2 * self.buffer.len()).max(FIRST), pod::zeroed());
            }
            match file.read(&mut pod::bytes_mut(&mut self.buffer)[filled..]) {
                Ok(0) => break,
                Ok(bytes) => filled += bytes,
                // The second is how the kernel asks to be called again after a million objects.
                Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
                Err(error) => return Err(error),
            }
        }
        if !filled.is_multiple_of(size_of::<T>()) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a record was cut short"));
        }
        self.len = filled / size_of::<T>();
        Ok(self.last())
    }

    /// What the last reading gave.
    pub(super) fn last(&self) -> &[T] {
        &self.buffer[..self.len]
    }
}

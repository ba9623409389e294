//! The few system calls that no crate offers safely. The only file of this crate with `unsafe` in it.
#![allow(unsafe_code, reason = "mapped kernel memory and membarrier have no safe wrapper")]

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use observer_common::pod::Pod;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// A map's memory, shared with programs in the kernel that write it at any moment.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the memory belongs to no thread, and every access below is atomic or volatile.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps `len` bytes of a BPF array that was created with `BPF_F_MMAPABLE`, readable and writable.
    ///
    /// # Errors
    ///
    /// What `mmap` says.
    pub fn of_map(fd: BorrowedFd<'_>, len: usize) -> io::Result<Mapping> {
        // SAFETY: a new mapping at an address of the kernel's choice; nothing else is touched.
        let start = unsafe { mmap(std::ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, fd, 0) }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Mapping { start, len })
    }

    /// The 64-bit word at a byte offset, which programs read and write at any moment. `None` outside the mapping or unaligned.
    pub fn word(&self, offset: usize) -> Option<&AtomicU64> {
        let end = offset.checked_add(8)?;
        if end > self.len || !offset.is_multiple_of(8) {
            return None;
        }
        // SAFETY: within the mapping (checked), which is page-aligned, so aligned; it lives as long as self; the kernel side writes
        // whole aligned words.
        Some(unsafe { AtomicU64::from_ptr(self.start.as_ptr().add(offset).cast()) })
    }

    /// A copy of the value at a byte offset. `None` outside the mapping or unaligned.
    pub fn read<T: Pod>(&self, offset: usize) -> Option<T> {
        let end = offset.checked_add(size_of::<T>())?;
        if end > self.len || !offset.is_multiple_of(align_of::<T>()) {
            return None;
        }
        // SAFETY: within the mapping and aligned (checked); any bytes are a T; volatile, because the kernel side may write meanwhile.
        Some(unsafe { self.start.as_ptr().add(offset).cast::<T>().read_volatile() })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly what was mapped; no reference outlives self.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// Returns when every CPU has passed a point outside any program that ran when this was called (`membarrier(2)`,
/// `MEMBARRIER_CMD_GLOBAL`; the kernel waits for an RCU grace period). It sleeps some milliseconds and needs no capability.
///
/// # Errors
///
/// `EINVAL` on kernels with CPUs in `nohz_full`.
pub fn membarrier() -> io::Result<()> {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: the command takes no memory.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Stores a word so that programs see it, and everything before it.
pub fn publish(word: &AtomicU64, value: u64) {
    word.store(value, Ordering::Release);
}

//! The few system calls that no crate offers safely, and one that changes the whole process. The only file of this crate with `unsafe` in it.
#![allow(unsafe_code, reason = "mapped kernel memory, membarrier and BPF iterators have no safe wrapper")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use observer_common::pod::Pod;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Nanoseconds of one tick of the kernel (CONFIG_HZ), in which it counts many timeouts: the resolution of its coarse clock.
pub fn tick() -> u64 {
    let resolution = rustix::time::clock_getres(rustix::time::ClockId::MonotonicCoarse);
    u64::try_from(resolution.tv_nsec).unwrap_or(0)
}

/// Lets the process open so many files, as far as its hard limit allows (`RLIMIT_NOFILE`), and tells how many it may open now.
pub fn allow_files(wanted: usize) -> usize {
    let Rlimit { current: Some(current), maximum } = getrlimit(Resource::Nofile) else { return wanted };
    let raised = maximum.map_or(wanted as u64, |maximum| maximum.min(wanted as u64));
    let limit = Rlimit { current: Some(raised), maximum };
    let allowed = if raised > current && setrlimit(Resource::Nofile, limit).is_ok() { raised } else { current };
    usize::try_from(allowed).unwrap_or(usize::MAX)
}

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

/// Attaches a loaded iterator program (`bpf(BPF_LINK_CREATE)`). aya can, too, but its link gives a single file and is gone.
///
/// # Errors
///
/// What `bpf` says.
pub fn iterator_link(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    const BPF_LINK_CREATE: libc::c_int = 28;
    const BPF_TRACE_ITER: u32 = 28;
    // The beginning of `union bpf_attr`: program, target, kind, flags, parameters and their length.
    #[repr(C)]
    struct Attributes([u32; 4], u64, u64);
    bpf(BPF_LINK_CREATE, &Attributes([program.as_raw_fd().cast_unsigned(), 0, BPF_TRACE_ITER, 0], 0, 0))
}

/// A file that holds, once, what the link's program writes (`bpf(BPF_ITER_CREATE)`).
///
/// # Errors
///
/// What `bpf` says; EPERM on some kernels for who has dropped CAP_BPF while unprivileged BPF is forbidden.
pub fn iterator_file(link: BorrowedFd<'_>) -> io::Result<File> {
    const BPF_ITER_CREATE: libc::c_int = 33;
    bpf(BPF_ITER_CREATE, &[link.as_raw_fd().cast_unsigned(), 0]).map(File::from)
}

/// `bpf(2)`, for commands that only read their attributes and return a new descriptor.
fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads so many bytes of the attributes, which outlive the call and name no other memory.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attributes, size_of::<T>()) };
    match i32::try_from(result) {
        // SAFETY: the two commands above return a descriptor that nobody else has.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

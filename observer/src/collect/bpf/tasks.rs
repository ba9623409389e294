//! The task family: every thread of the PID namespace in one go, from a BPF iterator.
//!
//! **What a reading costs in system calls.** A file of the iterator gives its content once: it has no position to go back to (`lseek`
//! and `pread` say ESPIPE, tried on 6.18), and after its end it stays at its end. So each reading asks for a new file of the kept link
//! with one `bpf(BPF_ITER_CREATE)`, the only `bpf()` call that collecting makes, and reads it in steps of 32 KiB, which is what the kernel
//! fills at a time. The only way without that call is a link pinned in a bpffs, which is then opened by its path; that leaves files
//! behind and wants a mounted bpffs. Kernels before 5.19 where unprivileged BPF is forbidden refuse the call to who has given up CAP_BPF; then
//! `/proc` is read instead, and health says so.

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use aya::programs::Iter;
use aya::{Btf, Ebpf};
use observer_common::pod;
use observer_common::tasks::{Task, TaskOffsets};

use super::btf::{self, BtfError, Missing};
use super::loader::LoadError;
use crate::sys;

/// The program's name in the object.
pub(super) const PROGRAM: &str = "tasks";

/// Records that there is room for at first.
const FIRST: usize = 1024;

/// The attached iterator, and what it told last.
#[derive(Debug)]
pub struct Tasks {
    link: OwnedFd,
    /// Kept between readings; the first `len` are of the last one.
    buffer: Vec<Task>,
    len: usize,
    has: Has,
}

/// Which of the numbers that not every kernel has are known; the others are 0 in every record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Has {
    /// [`Task::nr_migrations`].
    pub migrations: bool,
    /// [`Task::throttled_since`].
    pub throttled: bool,
}

impl Tasks {
    /// Loads and attaches the iterator of an object whose offsets have been set.
    ///
    /// # Errors
    ///
    /// What aya and the kernel say.
    pub(super) fn attach(ebpf: &mut Ebpf, btf: &Btf, offsets: &TaskOffsets) -> Result<Tasks, LoadError> {
        let program = ebpf.program_mut(PROGRAM).ok_or_else(|| super::loader::missing(PROGRAM))?;
        let refused = |doing| move |error: &(dyn std::error::Error + 'static)| super::loader::refused(doing, error);
        let program: &mut Iter = program.try_into().map_err(|error| refused("cannot use the task iterator")(&error))?;
        program.load("task", btf).map_err(|error| refused("cannot load the task iterator")(&error))?;
        let fd = program.fd().map_err(|error| refused("cannot use the task iterator")(&error))?;
        let link = sys::iterator_link(fd.as_fd()).map_err(|error| refused("cannot attach the task iterator")(&error))?;
        let has = Has { migrations: offsets.nr_migrations != 0, throttled: offsets.throttled_clock_self != 0 };
        Ok(Tasks { link, buffer: Vec::new(), len: 0, has })
    }

    /// Reads all threads of the PID namespace in which this runs, ascending by thread id. Nothing is locked meanwhile: those that are born or
    /// die during the reading may be in it or not.
    ///
    /// # Errors
    ///
    /// What the system says; then there are no records.
    pub fn read(&mut self) -> io::Result<&[Task]> {
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
        if !filled.is_multiple_of(size_of::<Task>()) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a record was cut short"));
        }
        self.len = filled / size_of::<Task>();
        Ok(self.records())
    }

    /// What the last reading gave, ascending by thread id.
    pub fn records(&self) -> &[Task] {
        &self.buffer[..self.len]
    }

    /// Which of the optional numbers this kernel has.
    pub fn has(&self) -> Has {
        self.has
    }
}

/// Resolves the family's offsets; inside, the field that this kernel lacks and without which the family is off.
pub(super) fn resolve(btf: &btf::Btf<'_>) -> Result<Result<TaskOffsets, Missing>, BtfError> {
    let mut lacks = None;
    let mut member = |path: &str| match btf.member(path)? {
        Ok(member) => Ok(member.offset),
        Err(missing) => {
            lacks.get_or_insert(missing);
            Ok(0)
        }
    };
    let optional = |path: &str| Ok(btf.member(path)?.map_or(0, |member| member.offset));
    let on_cpu = btf.member("task_struct.on_cpu")?.ok();
    let offsets = TaskOffsets {
        real_parent: member("task_struct.real_parent")?,
        flags: member("task_struct.flags")?,
        exit_state: member("task_struct.exit_state")?,
        on_cpu: on_cpu.as_ref().map_or(0, |member| member.offset),
        on_cpu_is_byte: u64::from(on_cpu.is_some_and(|member| member.size == 1)),
        prio: member("task_struct.prio")?,
        cred: member("task_struct.cred")?,
        cred_euid: member("cred.euid.val")?,
        utime: member("task_struct.utime")?,
        stime: member("task_struct.stime")?,
        sum_exec_runtime: member("task_struct.se.sum_exec_runtime")?,
        nvcsw: member("task_struct.nvcsw")?,
        nivcsw: member("task_struct.nivcsw")?,
        nr_migrations: optional("task_struct.se.nr_migrations")?,
        throttled_clock_self: optional("cfs_rq.throttled_clock_self")?,
        signal: member("task_struct.signal")?,
        signal_utime: member("signal_struct.utime")?,
        signal_stime: member("signal_struct.stime")?,
        signal_runtime: member("signal_struct.sum_sched_runtime")?,
        signal_nvcsw: member("signal_struct.nvcsw")?,
        signal_nivcsw: member("signal_struct.nivcsw")?,
    };
    Ok(lacks.map_or(Ok(offsets), Err))
}

//! The task family: every thread of the PID namespace in one go, from a BPF iterator.
//!
//! Where the kernel refuses the one `bpf()` call of a reading (see `iterator`), `/proc` is read instead, and health says so.

use std::io;

use aya::{Btf, Ebpf};
use observer_common::tasks::{Task, TaskOffsets};

use super::btf::{self, BtfError, Missing};
use super::iterator::Records;
use super::loader::LoadError;

/// The program's name in the object.
pub(super) const PROGRAM: &str = "tasks";

/// The attached iterator, and what it told last.
#[derive(Debug)]
pub struct Tasks {
    records: Records<Task>,
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
        let records = Records::attach(ebpf, btf, PROGRAM, "task")?;
        let has = Has { migrations: offsets.nr_migrations != 0, throttled: offsets.throttled_clock_self != 0 };
        Ok(Tasks { records, has })
    }

    /// Reads all threads of the PID namespace in which this runs, ascending by thread id. Nothing is locked meanwhile: those that are born or
    /// die during the reading may be in it or not.
    ///
    /// # Errors
    ///
    /// What the system says; then there are no records.
    pub fn read(&mut self) -> io::Result<&[Task]> {
        self.records.read()
    }

    /// What the last reading gave, ascending by thread id.
    pub fn records(&self) -> &[Task] {
        self.records.last()
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

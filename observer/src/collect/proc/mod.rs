//! Readers of `/proc`, and of the machine's topology in `/sys`: parsers are pure, [`Proc`] and [`topology::read`] open the files.

pub mod affinity;
pub mod buddyinfo;
pub mod cpulist;
pub mod file;
pub mod loadavg;
pub mod meminfo;
pub mod names;
pub mod net;
pub mod numa;
pub mod pressure;
pub mod realtime;
pub mod stat;
pub mod tasks;
pub mod topology;
pub mod uptime;
pub mod vmstat;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

pub use file::{Error, Malformed};
pub use stat::Stat;

use super::Roots;
use crate::model::host::{Memory, Pressure, Vmstat};
use crate::model::memory::FreeBlocks;
use crate::model::tcp::KernelTcp;
use crate::model::text;

/// Opens the files of one `/proc` and hands them to their parsers. Each reading stands alone, so that each can fail alone.
#[derive(Debug)]
pub struct Proc {
    root: PathBuf,
    ticks_per_second: u64,
    /// Kept between readings: `/proc/stat` has tens of kilobytes on large machines.
    buffer: Vec<u8>,
}

impl Proc {
    /// A reader below `roots.proc`; asks the C library for USER_HZ and opens nothing.
    pub fn new(roots: &Roots) -> Proc {
        Proc::with_ticks(roots, rustix::param::clock_ticks_per_second())
    }

    /// The same with a given USER_HZ: ticks per second in `/proc/stat`.
    pub fn with_ticks(roots: &Roots, ticks_per_second: u64) -> Proc {
        Proc { root: roots.proc.clone(), ticks_per_second, buffer: Vec::new() }
    }

    /// CPU times, context switches and numbers of tasks (`/proc/stat`).
    pub fn stat(&mut self) -> Result<Stat, Error> {
        let ticks = self.ticks_per_second;
        self.read("stat", |text| stat::parse(text, ticks))
    }

    /// Load averages over 1, 5 and 15 minutes (`/proc/loadavg`).
    pub fn load(&mut self) -> Result<[f64; 3], Error> {
        self.read("loadavg", loadavg::parse)
    }

    /// Memory in bytes (`/proc/meminfo`).
    pub fn memory(&mut self) -> Result<Memory, Error> {
        self.read("meminfo", meminfo::parse)
    }

    /// Nanoseconds since boot, suspended time included (`/proc/uptime`).
    pub fn uptime(&mut self) -> Result<u64, Error> {
        self.read("uptime", uptime::parse)
    }

    /// How long tasks were stalled for CPU, memory and I/O (`/proc/pressure`).
    pub fn pressure(&mut self) -> Result<Pressure, Error> {
        Ok(Pressure {
            cpu: self.read("pressure/cpu", pressure::parse)?,
            memory: self.read("pressure/memory", pressure::parse)?,
            io: self.read("pressure/io", pressure::parse)?,
        })
    }

    /// The kernel's counters of the page allocator (`/proc/vmstat`).
    pub fn vmstat(&mut self) -> Result<Vmstat, Error> {
        self.read("vmstat", vmstat::parse)
    }

    /// Free blocks by node (`/proc/buddyinfo`).
    pub fn free_blocks(&mut self) -> Result<BTreeMap<u32, FreeBlocks>, Error> {
        self.read("buddyinfo", buddyinfo::parse)
    }

    /// The CPUs allowed to a thread, ascending (`/proc/TID/status`).
    pub fn affinity(&mut self, tid: u32) -> Result<Vec<u32>, Error> {
        let path = self.root.join(format!("{tid}/status"));
        let status = file::read(&path, &mut self.buffer)?;
        affinity::parse(status).map_err(|malformed| Error::Parse { path, malformed })
    }

    /// The kernel's counters of TCP (`/proc/net/snmp`, `/proc/net/netstat`) in the network namespace of whoever reads.
    pub fn tcp(&mut self) -> Result<KernelTcp, Error> {
        let mut tcp = KernelTcp::default();
        self.read("net/snmp", |text| net::parse(text, &mut tcp))?;
        self.read("net/netstat", |text| net::parse(text, &mut tcp))?;
        Ok(tcp)
    }

    /// The same in the network namespace with this inode, through a process that is said to be in it; `None` when it is not there.
    pub fn tcp_of(&mut self, pid: u32, inode: u32) -> Option<KernelTcp> {
        let found = std::fs::metadata(self.root.join(format!("{pid}/ns/net"))).ok()?;
        if found.ino() != u64::from(inode) {
            return None;
        }
        let mut tcp = KernelTcp::default();
        for file in ["snmp", "netstat"] {
            self.read(&format!("{pid}/net/{file}"), |text| net::parse(text, &mut tcp)).ok()?;
        }
        Some(tcp)
    }

    /// The share of a CPU that tasks of real-time priority may take (`/proc/sys/kernel/sched_rt_runtime_us` of `sched_rt_period_us`); 1 without
    /// a limit.
    pub fn real_time_share(&mut self) -> Result<f64, Error> {
        let runtime = self.read("sys/kernel/sched_rt_runtime_us", realtime::parse)?;
        let period = self.read("sys/kernel/sched_rt_period_us", realtime::parse)?;
        let share = |(runtime, period)| if period > 0 { runtime as f64 / period as f64 } else { 1.0 };
        Ok(runtime.zip(period).map_or(1.0, share))
    }

    /// Host name, escaped (`/proc/sys/kernel/hostname`): the name in the reader's own UTS namespace, whichever mount of proc it is.
    pub fn host_name(&mut self) -> Result<String, Error> {
        let path = self.root.join("sys/kernel/hostname");
        let name = file::read(&path, &mut self.buffer)?;
        Ok(text::escape(name.trim_ascii_end()).into_owned())
    }

    fn read<T>(&mut self, name: &str, parse: impl FnOnce(&str) -> Result<T, Malformed>) -> Result<T, Error> {
        file::parse(&self.root.join(name), &mut self.buffer, parse)
    }
}

#[cfg(test)]
mod tests;

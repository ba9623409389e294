//! The memory family: its programs attached, what the CPUs counted added up.

use std::fmt;
use std::path::Path;

use aya::maps::{MapData, RingBuf};
use aya::{Btf, Ebpf};
use observer_common::memory::{CpuMemory, LongStall, MemoryOffsets};
use observer_common::pod;

use super::attached::Attached;
use super::btf::{self, BtfError, Missing};
use super::loader::{LoadError, missing, refused};
use super::sched::Tables;
use crate::model::{Allocations, OffCpu, Used};

/// Counts every allocation: without it there is nothing.
const COUNTS: (&str, &str) = ("page_alloc", "mm_page_alloc");

/// What else is attached, each part as a whole: its programs with their tracepoints, and what is lost without it.
const PARTS: [(&[(&str, &str)], &str); 4] = [
    (&[("page_fallback", "mm_page_alloc_extfrag")], "fallbacks to another migratetype are not counted"),
    (
        &[("reclaim_end", "mm_vmscan_direct_reclaim_end"), ("reclaim_begin", "mm_vmscan_direct_reclaim_begin")],
        "stalls in direct reclaim are not seen",
    ),
    (
        &[("memcg_reclaim_end", "mm_vmscan_memcg_reclaim_end"), ("memcg_reclaim_begin", "mm_vmscan_memcg_reclaim_begin")],
        "stalls at a memory cgroup's limit are not seen",
    ),
    (
        &[("compaction_end", "mm_compaction_end"), ("compaction_begin", "mm_compaction_begin")],
        "stalls in direct compaction are not seen",
    ),
];

/// The attached family.
pub struct Memory {
    programs: Vec<Attached>,
    long_stalls: RingBuf<MapData>,
    /// What is missing of it, in sentences.
    pub lacking: Vec<String>,
    /// Whether the parts of a stall are told apart.
    divided: bool,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("lacking", &self.lacking).finish_non_exhaustive()
    }
}

impl Memory {
    /// Loads and attaches the programs of an object whose numbers have been set.
    ///
    /// # Errors
    ///
    /// What aya and the kernel say of the program without which there is nothing.
    pub(super) fn attach(ebpf: &mut Ebpf, btf: &Btf, offsets: &MemoryOffsets, proc: &Path) -> Result<Memory, LoadError> {
        let mut attach = |(program, tracepoint): (&str, &str)| Attached::new(ebpf, btf, proc, program, tracepoint);
        let mut programs = vec![attach(COUNTS)?];
        let mut lacking = Vec::new();
        for (part, lost) in PARTS {
            match part.iter().map(|each| attach(*each)).collect::<Result<Vec<_>, _>>() {
                Ok(attached) => programs.extend(attached),
                Err(error) => lacking.push(format!("{lost}: {error}")),
            }
        }
        let divided = offsets.has_current != 0;
        if !divided {
            lacking.push("stalls are not in the ledger: this kernel does not tell what of them was spent on a CPU".into());
        }
        let ring = ebpf.take_map("LONG_STALLS").ok_or_else(|| missing("LONG_STALLS"))?;
        let long_stalls = RingBuf::try_from(ring).map_err(|error| refused("cannot read the ring of long stalls", &error))?;
        Ok(Memory { programs, long_stalls, lacking, divided })
    }

    /// Events that the kernel kept from the programs; `None` where it does not tell.
    pub fn nested(&self) -> Option<u64> {
        self.programs.iter().map(Attached::nested).sum()
    }

    /// The long stalls that ended since they were last taken, without a system call.
    pub fn long_stalls(&mut self) -> Vec<LongStall> {
        let mut taken = Vec::new();
        while let Some(bytes) = self.long_stalls.next() {
            let mut stall: LongStall = pod::zeroed();
            let place = pod::bytes_mut(std::slice::from_mut(&mut stall));
            if let Some(bytes) = bytes.get(..place.len()) {
                place.copy_from_slice(bytes);
                taken.push(stall);
            }
        }
        taken
    }

    /// Nothing yet, of what is known.
    pub fn zero(&self) -> Used {
        Used { off_cpu: self.divided.then(OffCpu::default), ..Used::default() }
    }
}

/// Resolves what the family must know; inside, the tracepoint that this kernel lacks and without which the family is off.
pub(super) fn resolve(btf: &btf::Btf<'_>) -> Result<Result<MemoryOffsets, Missing>, BtfError> {
    if let Err(missing) = btf.tracepoint_arguments(COUNTS.1)? {
        return Ok(Err(missing));
    }
    let has_current = btf.enumerator("bpf_func_id", "BPF_FUNC_get_current_task_btf")?.is_ok();
    Ok(Ok(MemoryOffsets { has_current: has_current.into() }))
}

/// What found no room.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Lost {
    /// Stalls among those that go on at a time: they are in no count.
    pub stalls: u64,
    /// Long stalls among those that are to be told: they are counted, nobody knows whose they were.
    pub untold: u64,
}

/// What all CPUs counted, and what found no room.
pub fn read(tables: &Tables) -> (Allocations, Lost) {
    let mut all = Allocations::default();
    let mut lost = Lost::default();
    for memory in (0..tables.cpus()).filter_map(|cpu| tables.memory(cpu)) {
        add(&mut all, &memory);
        lost.stalls += memory.lost;
        lost.untold += memory.untold;
    }
    (all, lost)
}

fn add(all: &mut Allocations, memory: &CpuMemory) {
    let sum = |to: &mut [u64], from: &[u64]| to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
    sum(&mut all.counts, &memory.allocations);
    sum(&mut all.failures, &memory.failures);
    sum(&mut all.fallbacks, &memory.fallbacks);
    for (to, from) in all.stalls.iter_mut().zip(&memory.stalls) {
        to.sum += from.time;
        sum(&mut to.counts, &from.latency);
    }
}

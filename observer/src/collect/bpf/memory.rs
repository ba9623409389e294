//! The memory family: its programs attached, what the CPUs counted added up.

use std::path::Path;

use aya::{Btf, Ebpf};
use observer_common::memory::{CpuMemory, MemoryOffsets};

use super::attached::Attached;
use super::btf::{self, BtfError, Missing};
use super::loader::LoadError;
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
#[derive(Debug)]
pub struct Memory {
    programs: Vec<Attached>,
    /// What is missing of it, in sentences.
    pub lacking: Vec<String>,
    /// Whether the parts of a stall are told apart.
    divided: bool,
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
        Ok(Memory { programs, lacking, divided })
    }

    /// Events that the kernel kept from the programs; `None` where it does not tell.
    pub fn nested(&self) -> Option<u64> {
        self.programs.iter().map(Attached::nested).sum()
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

/// What all CPUs counted, and the stalls that found no room.
pub fn read(tables: &Tables) -> (Allocations, u64) {
    let mut all = Allocations::default();
    let mut lost = 0;
    for memory in (0..tables.cpus()).filter_map(|cpu| tables.memory(cpu)) {
        add(&mut all, &memory);
        lost += memory.lost;
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

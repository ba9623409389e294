//! The memory family: its programs attached, what the CPUs counted added up.

use std::fmt;
use std::path::Path;

use aya::maps::{HashMap, MapData, MapError, RingBuf};
use aya::{Btf, Ebpf};
use observer_common::memory::{CpuMemory, LongStall, MemoryOffsets, Stall, StallCounts, StallKey};
use observer_common::pod;
use observer_common::sched::Key;

use super::attached::Attached;
use super::btf::{self, BtfError, Missing};
use super::loader::{LoadError, missing, refused};
use super::sched::Tables;
use super::words::{from_words, words_of};
use crate::model::{Allocations, Histogram, OffCpu, Used};

/// A key and a value as aya takes them.
type KeyWords = [u64; words_of::<StallKey>()];
type CountWords = [u64; words_of::<StallCounts>()];

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
    /// Those at tracepoints.
    pub(super) programs: Vec<Attached>,
    long_stalls: RingBuf<MapData>,
    stalled: HashMap<MapData, KeyWords, CountWords>,
    /// What was read of each entry so far, and how many stalls there were in all then.
    told: std::collections::HashMap<(Key, u64), Histogram>,
    told_in_all: u64,
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
        let mut attach = |(program, tracepoint): (&'static str, &str)| Attached::new(ebpf, btf, proc, program, tracepoint);
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
            lacking.push(
                "stalls are not in the ledger, and have no distribution by cgroup: this kernel (before 5.11) does not tell programs of the \
                 current task"
                    .into(),
            );
        }
        let ring = ebpf.take_map("LONG_STALLS").ok_or_else(|| missing("LONG_STALLS"))?;
        let long_stalls = RingBuf::try_from(ring).map_err(|error| refused("cannot read the ring of long stalls", &error))?;
        let stalled = ebpf.take_map("STALLED").ok_or_else(|| missing("STALLED"))?;
        let stalled = HashMap::try_from(stalled).map_err(|error| refused("cannot use the map of stalls", &error))?;
        let (told, told_in_all) = (std::collections::HashMap::new(), 0);
        Ok(Memory { programs, long_stalls, stalled, told, told_in_all, lacking, divided })
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

    /// What each cgroup itself was stalled since that was last asked; those that live no more are forgotten. It makes
    /// `bpf()` calls, but only after a stall; `in_all` is how many there were on the machine.
    ///
    /// # Errors
    ///
    /// What the kernel says. What is then not told is told the next time.
    pub fn stalls(&mut self, in_all: u64, lives: impl Fn(Key) -> bool) -> Result<Vec<(Key, Stall, Histogram)>, MapError> {
        let mut all = Vec::new();
        if in_all == self.told_in_all {
            return Ok(all);
        }
        // All first, so that an error leaves nothing told that nobody hears.
        let mut entries = Vec::new();
        for words in self.stalled.keys().collect::<Result<Vec<_>, _>>()? {
            entries.push((words, self.stalled.get(&words, 0)?));
        }
        for (words, counts) in entries {
            let key: StallKey = from_words(&words);
            let counts: StallCounts = from_words(&counts);
            let cgroup = Key(key.cgroup);
            let is = Histogram { sum: counts.time, counts: counts.latency };
            let told = self.told.entry((cgroup, key.kind)).or_default();
            if let (Some(kind), Some(grown)) = (Stall::of(key.kind), is.since(told))
                && grown != Histogram::default()
            {
                all.push((cgroup, kind, grown));
                *told = is;
            }
            // It has no tasks any more that could be stalled. What cannot be removed stays known, and is tried again.
            if !lives(cgroup) && self.stalled.remove(&words).is_ok() {
                self.told.remove(&(cgroup, key.kind));
            }
        }
        self.told_in_all = in_all;
        Ok(all)
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
    /// Stalls among those of cgroups: they are in the machine's counts.
    pub unplaced: u64,
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
        lost.unplaced += memory.unplaced;
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

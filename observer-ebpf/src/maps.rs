//! The maps, and all raw access to their memory.
#![allow(unsafe_code, reason = "map values are reached by pointer; the kernel's verifier checks every access")]

use aya_ebpf::{macros::map, maps::Array};
use observer_common::sched::{CpuState, Key, OTHER_SLOT, PROBES, SLOTS, Slot};

/// User space maps the array's memory and reads it without a system call (kernel 5.5 and later).
const BPF_F_MMAPABLE: u32 = 1 << 10;

/// One element a CPU; user space sets how many.
#[map]
static CPUS: Array<CpuState> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// This CPU's state, which no other CPU touches: interrupts are off in every hook that uses it.
#[derive(Clone, Copy)]
pub(crate) struct Cpu(*mut CpuState);

macro_rules! field {
    ($($name:ident / $set:ident),+) => { $(
        #[inline(always)]
        pub(crate) fn $name(self) -> u64 {
            // SAFETY: the pointer came from the map; user space reads the same word, hence volatile.
            unsafe { (&raw const (*self.0).$name).read_volatile() }
        }

        #[inline(always)]
        #[allow(dead_code, reason = "not every field is written by the hook")]
        pub(crate) fn $set(self, value: u64) {
            // SAFETY: as above.
            unsafe { (&raw mut (*self.0).$name).write_volatile(value) }
        }
    )+ };
}

impl Cpu {
    /// The state of the CPU with this number; `None` for one that came after the daemon had counted them.
    #[inline(always)]
    pub(crate) fn get(cpu: u32) -> Option<Cpu> {
        CPUS.get_ptr_mut(cpu).map(Cpu)
    }

    field!(
        generation / set_generation,
        since / set_since,
        current / set_current,
        current_generation / set_current_generation,
        current_slot / set_current_slot,
        overflows / set_overflows
    );

    /// The slot with this index in the table of a generation.
    #[inline(always)]
    pub(crate) fn slot(self, generation: u64, index: u64) -> SlotRef {
        let index = if index >= SLOTS as u64 { OTHER_SLOT } else { index as usize };
        // SAFETY: both indices are within bounds; the pointer came from the map.
        SlotRef(unsafe { &raw mut (*self.0).tables[(generation & 1) as usize][index] })
    }

    /// Finds the slot of a key, claims a free one, or falls back to [`OTHER_SLOT`]. Slots of a generation are never given back within
    /// it, so a free slot ends the search. Returns the index, and whether the slot has just been claimed.
    #[inline(always)]
    pub(crate) fn find(self, generation: u64, key: Key) -> (u64, SlotRef, bool) {
        // kernfs ids are handed out one after the other, so their low bits spread well; the kind tells hierarchies apart.
        let home = key.0 ^ (key.0 >> 50);
        let mut probe = 0;
        while probe < PROBES as u64 {
            let index = (home + probe) & (SLOTS as u64 - 1);
            let slot = self.slot(generation, index);
            if slot.generation() != generation {
                slot.claim(generation, key);
                return (index, slot, true);
            }
            if slot.key() == key.0 {
                return (index, slot, false);
            }
            probe += 1;
        }
        self.set_overflows(self.overflows() + 1);
        let slot = self.slot(generation, OTHER_SLOT as u64);
        let fresh = slot.generation() != generation;
        if fresh {
            slot.claim(generation, Key::OTHER);
        }
        (OTHER_SLOT as u64, slot, fresh)
    }
}

/// A slot of a table.
#[derive(Clone, Copy)]
pub(crate) struct SlotRef(*mut Slot);

impl SlotRef {
    #[inline(always)]
    fn generation(self) -> u64 {
        // SAFETY: the pointer came from the map.
        unsafe { (&raw const (*self.0).generation).read_volatile() }
    }

    #[inline(always)]
    fn key(self) -> u64 {
        // SAFETY: as above.
        unsafe { (*self.0).key }
    }

    /// Empties the slot and gives it to a key.
    #[inline(always)]
    fn claim(self, generation: u64, key: Key) {
        // SAFETY: the pointer came from the map; the slot is this CPU's alone.
        unsafe {
            let slot = self.0;
            // Volatile, word by word: otherwise the compiler makes a call of memset out of it, which BPF does not have.
            let words = slot.cast::<u64>();
            let mut i = 0;
            while i < size_of::<Slot>() / 8 {
                words.add(i).write_volatile(0);
                i += 1;
            }
            (*slot).key = key.0;
            (&raw mut (*slot).generation).write_volatile(generation);
        }
    }

    /// Remembers the parent of the slot's cgroup.
    #[inline(always)]
    pub(crate) fn set_parent(self, parent: u64) {
        // SAFETY: as above.
        unsafe { (*self.0).parent = parent }
    }

    /// Books a run that ended.
    #[inline(always)]
    pub(crate) fn ran(self, time: u64, preempted: bool) {
        // SAFETY: as above.
        unsafe {
            (*self.0).run += time;
            if preempted {
                (*self.0).preempted += 1;
            } else {
                (*self.0).voluntary += 1;
            }
        }
    }

    /// Books a dispatch.
    #[inline(always)]
    pub(crate) fn dispatched(self) {
        // SAFETY: as above.
        unsafe { (*self.0).runs += 1 }
    }

    /// Books a wait that ended, in the bucket that it belongs to.
    #[inline(always)]
    pub(crate) fn waited(self, time: u64, bucket: usize) {
        // SAFETY: as above; the bucket is within bounds.
        unsafe {
            (*self.0).wait += time;
            (*self.0).latency[bucket] += 1;
        }
    }
}

//! The maps, and all raw access to their memory.
#![allow(unsafe_code, reason = "map values are reached by pointer; the kernel's verifier checks every access")]

use aya_ebpf::{macros::map, maps::Array};
use observer_common::sched::{CpuState, DEPARTED, Departed, Key, OTHER_SLOT, PROBES, SLOTS, Slot};

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
        current_pid / set_current_pid,
        overflows / set_overflows,
        untraced / set_untraced,
        lost / set_lost
    );

    /// The slot with this index in the table of a generation.
    #[inline(always)]
    pub(crate) fn slot(self, generation: u64, index: u64) -> SlotRef {
        let index = if index >= SLOTS as u64 { OTHER_SLOT } else { index as usize };
        // SAFETY: both indices are within bounds; the pointer came from the map.
        SlotRef(unsafe { &raw mut (*self.0).tables[(generation & 1) as usize][index] })
    }

    /// Finds the slot of a key, claims a free one, or falls back to [`OTHER_SLOT`]. Returns the index, and whether the slot has just
    /// been claimed.
    #[inline(always)]
    pub(crate) fn find(self, generation: u64, key: Key) -> (u64, SlotRef, bool) {
        let home = home(key);
        let slot = self.slot(generation, home);
        if slot.generation() == generation && slot.key() == key.0 {
            return (home, slot, false);
        }
        let found = search(self.0, generation, key.0);
        let index = found & (FRESH - 1);
        (index, self.slot(generation, index), found & FRESH != 0)
    }

    /// Remembers that a task was preempted.
    #[inline(always)]
    pub(crate) fn depart(self, pid: u64, pcount: u64, at: u64) {
        // SAFETY: the index is within bounds; the pointer came from the map.
        unsafe { (*self.0).departed[pid as usize & (DEPARTED - 1)] = Departed { who: who(pid, pcount), at } }
    }

    /// When a task began to wait whose dispatch number `pcount` was not seen; `None` unless it had been preempted here just before.
    #[inline(always)]
    pub(crate) fn departed(self, pid: u64, pcount: u64) -> Option<u64> {
        // SAFETY: as above.
        let departed = unsafe { (*self.0).departed[pid as usize & (DEPARTED - 1)] };
        (departed.who == who(pid, pcount.wrapping_sub(1))).then_some(departed.at)
    }
}

#[inline(always)]
fn who(pid: u64, pcount: u64) -> u64 {
    pid << 32 | (pcount & 0xffff_ffff)
}

/// Where a key's search begins: kernfs ids are handed out one after the other, so their low bits spread well; the kind tells
/// hierarchies apart.
#[inline(always)]
fn home(key: Key) -> u64 {
    (key.0 ^ (key.0 >> 50)) & (SLOTS as u64 - 1)
}

/// Set in the result of [`search`] when the slot has just been claimed.
const FRESH: u64 = 1 << 32;

/// Slots of a generation are never given back within it, so a free slot ends the search. Not inlined: it is rare, and the verifier
/// walks every copy of its loops.
#[inline(never)]
fn search(cpu: *mut CpuState, generation: u64, key: u64) -> u64 {
    let cpu = Cpu(cpu);
    let mut free = OTHER_SLOT as u64;
    let mut probe = 0;
    while probe < PROBES as u64 {
        let index = (home(Key(key)) + probe) & (SLOTS as u64 - 1);
        let slot = cpu.slot(generation, index);
        if slot.generation() != generation {
            free = index;
            break;
        }
        if slot.key() == key {
            return index;
        }
        probe += 1;
    }
    let mut key = Key(key);
    if free == OTHER_SLOT as u64 {
        cpu.set_overflows(cpu.overflows() + 1);
        if cpu.slot(generation, free).generation() == generation {
            return free;
        }
        key = Key::OTHER;
    }
    cpu.slot(generation, free).claim(generation, key);
    free | FRESH
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

    /// Books the time of a run.
    #[inline(always)]
    pub(crate) fn ran(self, time: u64) {
        // SAFETY: as above.
        unsafe { (*self.0).run += time }
    }

    /// Books how a run ended.
    #[inline(always)]
    pub(crate) fn left(self, preempted: bool) {
        // SAFETY: as above.
        unsafe {
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

//! The maps, and all raw access to their memory.
//!
//! One file, although it is long: `unsafe` is allowed here, beside `kernel.rs`, and nowhere else on the kernel side. It is a list: the maps, a view of
//! each kind of record, then what is done to one in a line or two.
#![allow(unsafe_code, reason = "map values are reached by pointer; the kernel's verifier checks every access")]
#![allow(clippy::pointers_in_nomem_asm_block, reason = "the assembly reads nothing")]

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, RingBuf},
};
use aya_log_ebpf::warn;
use observer_common::blame::{
    CELL_PROBES, CELLS, Cell, LEVELS, SEGMENTS, SHARES, Segment, Share, THROTTLES, THROTTLINGS, Throttle, Throttling, WINDOWS,
    Window,
};
use observer_common::locality::{AWAY, LENGTHS, MOVES, distance, length_place, moved_is_of, moved_word};
use observer_common::memory::{
    self, GOING, Going, LONG_BYTES, LongStall, STALLED as MAX_STALLED, Stall, StallCounts, StallKey, Use,
};
use observer_common::sched::{
    CpuState, DELAY_WAYS, FOCUS_PLACES, Key, OTHER_SLOT, PROBES, SLOTS, Slot, delay_is_moved, delay_is_of, delay_moved,
    delay_since, delay_word, focus_bit, focus_place,
};
use observer_common::tcp::{Cause, FLOWS as MAX_FLOWS, Flow, FlowKey, Overflow};

/// User space maps the array's memory and reads it without a system call (kernel 5.5 and later).
const BPF_F_MMAPABLE: u32 = 1 << 10;

/// One element a CPU; user space sets how many.
#[map]
static CPUS: Array<CpuState> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// What tasks had waited when they were last dispatched ([`delay_word`]); user space sets how many.
#[map]
static DELAYS: Array<[u64; DELAY_WAYS]> = Array::with_max_entries(1, 0);

/// Tasks that were moved to another CPU and did not run since ([`moved_word`]); user space sets how many. Of two whose thread ids lead to one
/// place the later one is remembered.
#[map]
static MOVED: Array<u64> = Array::with_max_entries(1, 0);

/// Stalls that go on, by thread id.
#[map]
static STALLS: HashMap<u32, Going> = HashMap::with_max_entries(GOING, 0);

/// Stalls of cgroups. User space removes those of cgroups that are gone.
#[map]
static STALLED: HashMap<StallKey, StallCounts> = HashMap::with_max_entries(MAX_STALLED, 0);

/// What an entry of [`STALLED`] begins as: too large for a program's stack.
#[map]
static NO_STALLS: Array<StallCounts> = Array::with_max_entries(1, 0);

/// Long stalls that ended, until user space reads them.
#[map]
static LONG_STALLS: RingBuf = RingBuf::with_byte_size(LONG_BYTES, 0);

/// Flows that retransmitted, each in its generation. User space removes those of generations that ended.
#[map]
static FLOWS: HashMap<FlowKey, Flow> = HashMap::with_max_entries(MAX_FLOWS, 0);

/// What found no place among [`FLOWS`].
#[map]
static OTHER_FLOWS: Array<Overflow> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// A pointer into map memory with a reader and a writer for each word. Volatile, because user space reads the same words.
macro_rules! view {
    ($(#[$meta:meta])* $name:ident of $type:ty { $($field:ident / $set:ident),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy)]
        pub(crate) struct $name(*mut $type);

        impl $name { $(
            #[inline(always)]
            #[allow(dead_code, reason = "not every word is both read and written here")]
            pub(crate) fn $field(self) -> u64 {
                // SAFETY: the pointer came from the map, with indices within bounds.
                unsafe { (&raw const (*self.0).$field).read_volatile() }
            }

            #[inline(always)]
            #[allow(dead_code, reason = "as above")]
            pub(crate) fn $set(self, value: u64) {
                // SAFETY: as above.
                unsafe { (&raw mut (*self.0).$field).write_volatile(value) }
            }
        )+ }
    };
}

view! {
    /// This CPU's state, which no other CPU touches: interrupts are off in every hook that uses it.
    Cpu of CpuState {
        generation / set_generation,
        focused / set_focused,
        since / set_since,
        current / set_current,
        current_slot / set_current_slot,
        current_pid / set_current_pid,
        dispatch / set_dispatch,
        place / set_place,
        sibling / set_sibling,
        busy / set_busy,
        beside / set_beside,
        overflows / set_overflows,
        untraced / set_untraced,
        lost / set_lost,
        steal / set_steal,
        interrupt / set_interrupt,
        common / set_common,
        css_set / set_css_set,
        cgroup / set_cgroup,
        segment / set_segment,
        queue / set_queue,
        throttled / set_throttled,
        delay / set_delay,
        first / set_first,
        split / set_split,
        processes / set_processes,
        longest / set_longest,
        culprit / set_culprit,
        turned / set_turned,
        turned_at / set_turned_at,
        turned_current / set_turned_current,
        turned_since / set_turned_since,
    }
}

view! {
    /// A run, or several of one owner.
    SegmentRef of Segment { start / set_start, owner / set_owner, steal / set_steal, interrupt / set_interrupt }
}

view! {
    /// An owner's part of a window.
    ShareRef of Share { owner / set_owner, time / set_time }
}

view! {
    /// A window.
    WindowRef of Window { start / set_start }
}

view! {
    /// A pair of victim and culprit.
    CellRef of Cell { generation / set_generation, victim / set_victim, culprit / set_culprit, time / set_time }
}

view! {
    /// A run queue under a quota.
    ThrottleRef of Throttle { cfs_rq / set_cfs_rq, total / set_total, left / set_left, count / set_count }
}

view! {
    /// Once that a quota stopped it.
    ThrottlingRef of Throttling { start / set_start, end / set_end }
}

view! {
    /// What the memory family booked to somebody.
    UseRef of Use {
        pages / set_pages,
        stalls / set_stalls,
        stalled / set_stalled,
        waited / set_waited,
        slept / set_slept,
    }
}

view! {
    /// Stalls of one kind.
    StallRef of StallCounts { time / set_time }
}

view! {
    /// A slot of a table.
    SlotRef of Slot {
        generation / set_generation,
        key / set_key,
        parent / set_parent,
        run / set_run,
        wait / set_wait,
        throttled / set_throttled,
        migrated / set_migrated,
        other / set_other,
        exited / set_exited,
        longest / set_longest,
        longest_tid / set_longest_tid,
        longest_culprit / set_longest_culprit,
        steal / set_steal,
        interrupt / set_interrupt,
        shared / set_shared,
    }
}

impl Cpu {
    /// The state of the CPU with this number; `None` for one that came after the daemon had counted them.
    #[inline(always)]
    pub(crate) fn get(cpu: u32) -> Option<Cpu> {
        CPUS.get_ptr_mut(cpu).map(Cpu)
    }

    /// Whether a cgroup is split by process.
    #[inline(always)]
    pub(crate) fn in_focus(self, key: Key) -> bool {
        if self.focused() & focus_bit(key) == 0 {
            return false;
        }
        let place = focus_place(key);
        // SAFETY: both indices are within bounds; the pointer came from the map; user space writes the words, hence volatile.
        let at = |place: usize| unsafe { (&raw const (*self.0).focus[place & (FOCUS_PLACES - 1)]).read_volatile() };
        at(place) == key.0 || at(place ^ 1) == key.0
    }

    /// The slot with this index in the table of a generation.
    #[inline(always)]
    pub(crate) fn slot(self, generation: u64, index: u64) -> SlotRef {
        let index = if index >= SLOTS as u64 { OTHER_SLOT } else { index as usize };
        // SAFETY: both indices are within bounds; the pointer came from the map.
        SlotRef(unsafe { &raw mut (*self.0).tables[(generation & 1) as usize].slots[index] })
    }

    /// The slot of who was dispatched last, in this hook.
    #[inline(always)]
    pub(crate) fn victim(self) -> SlotRef {
        self.slot(self.turned(), self.current_slot())
    }

    /// How far another CPU is.
    #[inline(always)]
    pub(crate) fn distance(self, other: Cpu) -> usize {
        distance(self.place(), other.place())
    }

    /// Books time during which so many tasks ran or could.
    #[inline(always)]
    pub(crate) fn queued(self, length: u64, time: u64) {
        let place = opaque(length_place(length));
        if place >= LENGTHS {
            return;
        }
        // SAFETY: the index is within bounds; the pointer came from the map; user space reads the word, hence volatile.
        unsafe {
            let word = (&raw mut (*self.0).lengths).cast::<u64>().add(place);
            word.write_volatile(word.read_volatile() + time);
        }
    }

    /// Counts a migration from this CPU to another. Other CPUs may count at once.
    #[inline(always)]
    pub(crate) fn moved(self, to: Cpu, place: usize) {
        let place = opaque(place);
        if place < MOVES {
            // SAFETY: the index is within bounds; the pointers came from the map.
            unsafe {
                add(&raw mut (*self.0).moved_out[place], 1);
                add(&raw mut (*to.0).moved_in[place], 1);
            }
        }
    }

    /// What the memory family counted since the last switch.
    #[inline(always)]
    pub(crate) fn used(self) -> UseRef {
        // SAFETY: the pointer came from the map.
        UseRef(unsafe { &raw mut (*self.0).used })
    }

    /// Counts an allocation.
    #[inline(always)]
    pub(crate) fn allocated(self, order: usize, migratetype: usize, class: usize) {
        // Index by index: joined to one with an `or` the verifier of 5.10 loses its bounds. (An empty line of assembly would do, but for
        // two lines of debug information at one instruction, which kernels refuse.)
        let order = (order & (memory::ORDERS - 1)) * memory::TYPES * memory::CLASSES;
        let migratetype = (migratetype & (memory::TYPES - 1)) * memory::CLASSES;
        let class = class & (memory::CLASSES - 1);
        // SAFETY: the sum of the three is an index within bounds; the pointer came from the map; the assembly adds nothing.
        unsafe {
            let mut at = (&raw mut (*self.0).memory.allocations).cast::<u64>().add(order);
            core::arch::asm!("{0} += 0", inout(reg) at, options(nomem, nostack, preserves_flags));
            at = at.add(migratetype);
            core::arch::asm!("{0} += 0", inout(reg) at, options(nomem, nostack, preserves_flags));
            *at.add(class) += 1;
        }
    }

    /// Counts one that failed.
    #[inline(always)]
    pub(crate) fn failed(self, class: usize) {
        // SAFETY: as above.
        unsafe { (*self.0).memory.failures[class & (memory::CLASSES - 1)] += 1 }
    }

    /// Counts a block taken from another migratetype.
    #[inline(always)]
    pub(crate) fn fell_back(self, migratetype: usize) {
        // SAFETY: as above.
        unsafe { (*self.0).memory.fallbacks[migratetype & (memory::TYPES - 1)] += 1 }
    }

    /// Stalls of a kind.
    #[inline(always)]
    pub(crate) fn stalls(self, kind: u64) -> StallRef {
        // SAFETY: as above.
        StallRef(unsafe { &raw mut (*self.0).memory.stalls[kind as usize & 3] })
    }

    /// Counts a stall that found no room.
    #[inline(always)]
    pub(crate) fn stall_lost(self) {
        // SAFETY: the pointer came from the map.
        unsafe { (*self.0).memory.lost += 1 }
    }

    /// Counts a stall that is in no cgroup's counts.
    #[inline(always)]
    pub(crate) fn stall_unplaced(self) {
        // SAFETY: the pointer came from the map.
        unsafe { (*self.0).memory.unplaced += 1 }
    }

    /// Counts a long stall that nobody will hear of.
    #[inline(always)]
    pub(crate) fn stall_untold(self) {
        // SAFETY: the pointer came from the map.
        unsafe { (*self.0).memory.untold += 1 }
    }

    /// The segment with this number.
    #[inline(always)]
    pub(crate) fn segment_at(self, number: u64) -> SegmentRef {
        // SAFETY: the index is within bounds; the pointer came from the map.
        SegmentRef(unsafe { &raw mut (*self.0).segments[number as usize & (SEGMENTS - 1)] })
    }

    /// The window with this number on this level.
    #[inline(always)]
    pub(crate) fn window_at(self, level: usize, number: u64) -> WindowRef {
        // SAFETY: both indices are within bounds; the pointer came from the map.
        WindowRef(unsafe { &raw mut (*self.0).windows[level & (LEVELS - 1)][number as usize & (WINDOWS - 1)] })
    }

    /// Number of the newest window of a level.
    #[inline(always)]
    pub(crate) fn window(self, level: usize) -> u64 {
        // SAFETY: the index is within bounds; the pointer came from the map.
        unsafe { (&raw const (*self.0).window[level & (LEVELS - 1)]).read_volatile() }
    }

    /// Sets it.
    #[inline(always)]
    pub(crate) fn set_window(self, level: usize, number: u64) {
        // SAFETY: as above.
        unsafe { (&raw mut (*self.0).window[level & (LEVELS - 1)]).write_volatile(number) }
    }

    /// A window on its way; levels take turns.
    #[inline(always)]
    pub(crate) fn carry(self, level: usize) -> WindowRef {
        // SAFETY: the index is within bounds; the pointer came from the map.
        WindowRef(unsafe { &raw mut (*self.0).carry[level & 1] })
    }

    /// The place of a run queue under a quota, which another may have.
    #[inline(always)]
    pub(crate) fn throttle(self, cfs_rq: u64) -> ThrottleRef {
        // A cfs_rq is some hundred bytes long.
        let place = (cfs_rq >> 9 ^ cfs_rq >> 15) as usize & (THROTTLES - 1);
        // SAFETY: the index is within bounds; the pointer came from the map.
        ThrottleRef(unsafe { &raw mut (*self.0).throttles[place] })
    }

    /// A cell of a generation's table.
    #[inline(always)]
    pub(crate) fn cell(self, generation: u64, index: u64) -> CellRef {
        // SAFETY: both indices are within bounds; the pointer came from the map.
        CellRef(unsafe { &raw mut (*self.0).tables[(generation & 1) as usize].cells[index as usize & (CELLS - 1)] })
    }

    /// Finds the slot of a key, claims a free one, or falls back to [`OTHER_SLOT`]. Returns the index, and whether the slot has just
    /// been claimed.
    #[inline(always)]
    pub(crate) fn find(self, number: u32, generation: u64, key: Key) -> (u64, SlotRef, bool) {
        let home = home(key);
        let slot = self.slot(generation, home);
        if slot.generation() == generation && slot.key() == key.0 {
            return (home, slot, false);
        }
        let found = search(number, generation, key.0);
        let index = found & (FRESH - 1);
        (index, self.slot(generation, index), found & FRESH != 0)
    }
}

/// A task's place among [`DELAYS`]: other CPUs write it, too, but never this task's word while it is dispatched here. Should two take the
/// same free word at once, one of them is not remembered.
#[derive(Clone, Copy)]
pub(crate) struct DelayRef(*mut [u64; DELAY_WAYS]);

impl DelayRef {
    /// The place of a thread id.
    #[inline(always)]
    pub(crate) fn get(tid: u64, mask: u64) -> Option<DelayRef> {
        DELAYS.get_ptr_mut((tid & mask) as u32).map(DelayRef)
    }

    #[inline(always)]
    fn word(self, way: usize) -> u64 {
        // SAFETY: the pointer came from the map; the index is a constant within bounds.
        unsafe { (&raw const (*self.0)[way]).read_volatile() }
    }

    #[inline(always)]
    fn store(self, way: usize, word: u64) {
        // SAFETY: as above.
        unsafe { (&raw mut (*self.0)[way]).write_volatile(word) }
    }

    /// Whether this task is remembered as it is: it has not waited since it was last dispatched, nor was it moved. From now on it is remembered
    /// with `next`.
    #[inline(always)]
    pub(crate) fn is_as_expected(self, tid: u64, delay: u64, next: u64) -> bool {
        let (expected, next) = (delay_word(tid, delay), delay_word(tid, next));
        if self.word(0) == expected {
            self.store(0, next);
            return true;
        }
        if self.word(1) == expected {
            self.store(1, next);
            return true;
        }
        false
    }

    /// What of a `run_delay` came since this task was last dispatched, and whether it was moved; `None` when it is not remembered. From
    /// now on it is remembered with `next`, in the place of another if there is no room.
    #[inline(always)]
    pub(crate) fn since(self, tid: u64, delay: u64, next: u64) -> Option<(u64, bool)> {
        let next = delay_word(tid, next);
        let first = self.word(0);
        if delay_is_of(first, tid) {
            self.store(0, next);
            return Some((delay_since(first, delay), delay_is_moved(first)));
        }
        let second = self.word(1);
        if delay_is_of(second, tid) {
            self.store(1, next);
            return Some((delay_since(second, delay), delay_is_moved(second)));
        }
        self.store(if second == 0 && first != 0 { 1 } else { 0 }, next);
        None
    }

    /// Remembers that this task was moved. Tells whether that was known already.
    #[inline(always)]
    pub(crate) fn moves(self, tid: u64) -> bool {
        let (first, second) = (self.word(0), self.word(1));
        if delay_is_of(first, tid) {
            self.store(0, delay_moved(first));
            delay_is_moved(first)
        } else if delay_is_of(second, tid) {
            self.store(1, delay_moved(second));
            delay_is_moved(second)
        } else {
            false
        }
    }

    /// Forgets a task that ends.
    #[inline(always)]
    pub(crate) fn clear(self, tid: u64) {
        if delay_is_of(self.word(0), tid) {
            self.store(0, 0);
        }
        if delay_is_of(self.word(1), tid) {
            self.store(1, 0);
        }
    }
}

/// Remembers from where a task was moved, if it is not known of it already.
#[inline(always)]
pub(crate) fn remember_origin(tid: u64, mask: u64, is_known: bool, from: u32) {
    let Some(place) = MOVED.get_ptr_mut((tid & mask) as u32) else { return };
    // SAFETY: the pointer came from the map; other CPUs write the word, hence volatile.
    unsafe {
        if !is_known && !moved_is_of(place.read_volatile(), tid) {
            place.write_volatile(moved_word(tid, from));
        }
    }
}

/// Where a task ran last that was moved since, if that is remembered; from now on it is not.
#[inline(always)]
pub(crate) fn forget_origin(tid: u64, mask: u64) -> Option<u32> {
    let place = MOVED.get_ptr_mut((tid & mask) as u32)?;
    // SAFETY: as above.
    unsafe {
        let word = place.read_volatile();
        if !moved_is_of(word, tid) {
            return None;
        }
        place.write_volatile(0);
        Some(word as u32)
    }
}

/// An index of which the compiler knows nothing: what it knows it leaves out, or tests in another register, and the verifier does not see it.
#[inline(always)]
fn opaque(index: usize) -> usize {
    let mut index = index;
    // SAFETY: the assembly adds nothing.
    unsafe { core::arch::asm!("{0} += 0", inout(reg) index, options(pure, nomem, nostack, preserves_flags)) }
    index
}

/// Where a key's search begins. Kernfs ids and thread-group ids are handed out one after the other; spread by the golden ratio they leave
/// gaps between them, where low bits would make one long run in which others find no place.
#[inline(always)]
fn home(key: Key) -> u64 {
    let spread = (key.0 ^ (key.0 >> 34)).wrapping_mul(GOLDEN) >> 32;
    (spread * SLOTS as u64) >> 32
}

/// 2⁶⁴ divided by the golden ratio.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Set in the result of [`search`] when the slot has just been claimed.
const FRESH: u64 = 1 << 32;

/// Slots of a generation are never given back within it, so a free slot ends the search.
///
/// A global function: the verifier walks it once, whoever calls it. Hence numbers for arguments, and a number as its result.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn search(cpu: u32, generation: u64, key: u64) -> u64 {
    let Some(cpu) = Cpu::get(cpu) else { return OTHER_SLOT as u64 };
    let mut found = OTHER_SLOT as u64;
    // Kept, rather than found by its index again: kernel 5.10 follows a branch that its own bounds of the index rule out.
    let mut free = None;
    let mut probe = 0;
    while probe < PROBES as u64 {
        let mut index = home(Key(key)) + probe;
        if index >= SLOTS as u64 {
            index -= SLOTS as u64;
        }
        let slot = cpu.slot(generation, index);
        if slot.generation() != generation {
            found = index;
            free = Some(slot);
            break;
        }
        if slot.key() == key {
            return index;
        }
        probe += 1;
    }
    let slot = match free {
        Some(slot) => {
            slot.set_key(key);
            slot
        }
        None => {
            cpu.set_overflows(cpu.overflows() + 1);
            // So that the next dispatch is counted, too.
            cpu.set_css_set(0);
            let other = cpu.slot(generation, OTHER_SLOT as u64);
            if other.generation() == generation {
                return found;
            }
            // Once a CPU and generation at the most.
            warn!(&(), "scheduler table full: a cgroup goes to the row ~other until the next reading");
            other.set_key(Key::OTHER.0);
            other
        }
    };
    slot.claim(generation);
    found | FRESH
}

impl CellRef {
    /// Where a pair's search begins.
    #[inline(always)]
    pub(crate) fn home(victim: u64, culprit: u64) -> u64 {
        (victim ^ culprit.rotate_left(23)).wrapping_mul(GOLDEN) >> (64 - CELLS.trailing_zeros())
    }

    /// Whether it is this pair's.
    #[inline(always)]
    pub(crate) fn is(self, generation: u64, victim: u64, culprit: u64) -> bool {
        self.generation() == generation && self.victim() == victim && self.culprit() == culprit
    }

    /// Gives it to a pair.
    #[inline(always)]
    pub(crate) fn claim(self, generation: u64, victim: u64, culprit: u64) {
        self.set_victim(victim);
        self.set_culprit(culprit);
        self.set_time(0);
        self.set_generation(generation);
    }

    /// How many places are looked at.
    pub(crate) const PROBES: u64 = CELL_PROBES as u64;
}

impl SegmentRef {
    /// Whether anything was taken of it.
    #[inline(always)]
    pub(crate) fn is_cut(self) -> bool {
        self.steal() | self.interrupt() != 0
    }

    /// Begins it, in a place of which nothing is taken.
    #[inline(always)]
    pub(crate) fn begin(self, start: u64, owner: u64) {
        self.set_start(start);
        self.set_owner(owner);
    }
}

impl WindowRef {
    /// An owner's part.
    #[inline(always)]
    pub(crate) fn share(self, index: usize) -> ShareRef {
        // SAFETY: the index is within bounds; the pointer came from the map.
        ShareRef(unsafe { &raw mut (*self.0).shares[if index < SHARES { index } else { 0 }] })
    }

    /// Empties it and lets it begin.
    #[inline(always)]
    pub(crate) fn begin(self, start: u64) {
        self.set_start(start);
        let mut index = 0;
        while index < SHARES {
            self.share(index).set_owner(0);
            self.share(index).set_time(0);
            index += 1;
        }
    }

    /// Makes it a copy of another.
    #[inline(always)]
    pub(crate) fn copy(self, other: WindowRef) {
        self.set_start(other.start());
        let mut index = 0;
        while index < SHARES {
            self.share(index).set_owner(other.share(index).owner());
            self.share(index).set_time(other.share(index).time());
            index += 1;
        }
    }
}

impl ThrottleRef {
    /// The throttling with this number.
    #[inline(always)]
    pub(crate) fn throttling(self, number: u64) -> ThrottlingRef {
        // SAFETY: the index is within bounds; the pointer came from the map.
        ThrottlingRef(unsafe { &raw mut (*self.0).throttlings[number as usize & (THROTTLINGS - 1)] })
    }
}

impl StallRef {
    /// Books a stall.
    #[inline(always)]
    pub(crate) fn add(self, time: u64, bucket: usize) {
        self.set_time(self.time() + time);
        // SAFETY: the pointer came from the map; the bucket is within bounds.
        unsafe { (*self.0).latency[bucket] += 1 }
    }
}

impl UseRef {
    /// Moves all to another.
    #[inline(always)]
    pub(crate) fn move_to(self, other: UseRef) {
        other.set_pages(other.pages() + self.pages());
        self.set_pages(0);
        if self.stalls() != 0 {
            other.set_stalls(other.stalls() + self.stalls());
            other.set_stalled(other.stalled() + self.stalled());
            other.set_waited(other.waited() + self.waited());
            other.set_slept(other.slept() + self.slept());
            self.set_stalls(0);
            self.set_stalled(0);
            self.set_waited(0);
            self.set_slept(0);
        }
    }
}

/// Remembers a stall that begins. Tells whether there was room.
#[inline(always)]
pub(crate) fn stall_begins(tid: u32, going: &Going) -> bool {
    STALLS.insert(tid, going, 0).is_ok()
}

/// Forgets a stall of this kind, and tells what was known of it.
#[inline(always)]
pub(crate) fn stall_ends(tid: u32, kind: Stall) -> Option<Going> {
    let place = STALLS.get_ptr(tid)?;
    // SAFETY: the pointer came from the map, and only this task removes its entry.
    let going = unsafe { *place };
    if going.kind != kind as u64 {
        return None;
    }
    // It was there.
    let _ = STALLS.remove(tid);
    Some(going)
}

/// Counts a stall of a cgroup. Tells whether there was room.
#[inline(always)]
pub(crate) fn count_stall(key: &StallKey, time: u64, bucket: usize) -> bool {
    let mut place = STALLED.get_ptr_mut(key);
    if place.is_none()
        && let Some(nothing) = NO_STALLS.get_ptr(0)
    {
        // SAFETY: the pointer came from the map, to which nobody writes.
        let nothing: &StallCounts = unsafe { &*nothing };
        // Fails where another CPU was faster, and where all is full.
        let _ = STALLED.insert(key, nothing, BPF_NOEXIST);
        place = STALLED.get_ptr_mut(key);
    }
    let Some(counts) = place else { return false };
    // SAFETY: the pointer came from the map; the bucket is within bounds.
    unsafe {
        add(&raw mut (*counts).time, time);
        add(&raw mut (*counts).latency[bucket], 1);
    }
    true
}

/// Tells of a stall. Nobody is woken: user space looks at each interval. Tells whether there was room.
#[inline(always)]
pub(crate) fn tell_stall(stall: &LongStall) -> bool {
    LONG_STALLS.output::<LongStall>(stall, BPF_RB_NO_WAKEUP).is_ok()
}

/// Why a task sleeps, if not just so.
#[derive(Clone, Copy)]
pub(crate) enum Sleep {
    /// For I/O.
    Io,
    /// Not to be interrupted.
    Uninterruptible,
    /// Stopped or traced.
    Stopped,
}

impl SlotRef {
    /// What the memory family booked to it.
    #[inline(always)]
    pub(crate) fn used(self) -> UseRef {
        // SAFETY: the pointer came from the map.
        UseRef(unsafe { &raw mut (*self.0).used })
    }

    /// Empties the slot, which has its key already.
    #[inline(always)]
    fn claim(self, generation: u64) {
        let key = self.key();
        // Volatile, word by word: otherwise the compiler makes a call of memset out of it, which BPF does not have.
        let words = self.0.cast::<u64>();
        let mut i = 0;
        while i < size_of::<Slot>() / 8 {
            // SAFETY: the pointer came from the map, and the index is within the slot, which is this CPU's alone.
            unsafe { words.add(i).write_volatile(0) };
            i += 1;
        }
        self.set_key(key);
        self.set_generation(generation);
    }

    /// The first half of a process's name.
    #[inline(always)]
    pub(crate) fn comm_first(self) -> u64 {
        // SAFETY: the pointer came from the map.
        unsafe { (*self.0).comm[0] }
    }

    /// The second half.
    #[inline(always)]
    pub(crate) fn comm_second(self) -> u64 {
        // SAFETY: as above.
        unsafe { (*self.0).comm[1] }
    }

    /// Remembers a process's name.
    #[inline(always)]
    pub(crate) fn set_comm(self, comm: [u64; 2]) {
        // SAFETY: the pointer came from the map.
        unsafe { (*self.0).comm = comm }
    }

    /// Remembers who had the longest wait.
    #[inline(always)]
    pub(crate) fn set_longest_comm(self, comm: [u64; 2]) {
        // SAFETY: as above.
        unsafe { (*self.0).longest_comm = comm }
    }

    /// Books the time of a run.
    #[inline(always)]
    pub(crate) fn ran(self, time: u64) {
        self.set_run(self.run() + time);
    }

    /// Books the time of a run to which its task came from elsewhere ([`AWAY`]).
    #[inline(always)]
    pub(crate) fn ran_away(self, how: u64, time: u64) {
        let how = opaque(how as usize);
        if how < AWAY {
            // SAFETY: the index is within bounds; the pointer came from the map.
            unsafe { (*self.0).away_run[how] += time }
        }
    }

    /// Books such a dispatch.
    #[inline(always)]
    pub(crate) fn dispatched_away(self, how: u64) {
        let how = opaque(how as usize);
        if how < AWAY {
            // SAFETY: as above.
            unsafe { (*self.0).away[how] += 1 }
        }
    }

    /// Books a migration.
    #[inline(always)]
    pub(crate) fn moved(self, place: usize) {
        let place = opaque(place);
        if place < MOVES {
            // SAFETY: as above.
            unsafe { (*self.0).moves[place] += 1 }
        }
    }

    /// Books why a task went to sleep that did not just do that.
    #[inline(always)]
    pub(crate) fn slept(self, why: Sleep) {
        // SAFETY: the pointer came from the map.
        unsafe {
            match why {
                Sleep::Io => (*self.0).io += 1,
                Sleep::Uninterruptible => (*self.0).uninterruptible += 1,
                Sleep::Stopped => (*self.0).stopped += 1,
            }
        }
    }

    /// Books what was taken from a run.
    #[inline(always)]
    pub(crate) fn taken(self, steal: u64, interrupt: u64) {
        self.set_steal(self.steal() + steal);
        self.set_interrupt(self.interrupt() + interrupt);
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
        self.set_wait(self.wait() + time);
        // SAFETY: as above; the bucket is within bounds.
        unsafe { (*self.0).latency[bucket] += 1 }
    }
}

/// Counts what a flow sent again, and how it was then. Several CPUs may count at once, for one flow, too.
#[inline(always)]
pub(crate) fn count_flow(key: &FlowKey, more: &Flow) {
    if key.generation != 0 {
        if let Some(flow) = FLOWS.get_ptr_mut(key) {
            return add_to_flow(flow, more);
        }
        // As it is to be, which saves looking it up once more. Fails where another CPU was faster, and where all is full.
        if FLOWS.insert(key, more, BPF_NOEXIST).is_ok() {
            return;
        }
        if let Some(flow) = FLOWS.get_ptr_mut(key) {
            return add_to_flow(flow, more);
        }
    }
    let Some(other) = OTHER_FLOWS.get_ptr_mut(0) else { return };
    // SAFETY: the pointer came from the map.
    unsafe {
        add(&raw mut (*other).events, 1);
        add_counts(&raw mut (*other).segments, &raw mut (*other).failures, more);
    }
}

#[inline(always)]
fn add_to_flow(flow: *mut Flow, more: &Flow) {
    // SAFETY: the pointer came from the map; nobody removes a flow of a generation in which programs still work. Two CPUs may mix the words of
    // how it was, each of which is true.
    unsafe {
        add_counts(&raw mut (*flow).segments, &raw mut (*flow).failures, more);
        (&raw mut (*flow).last).write_volatile(more.last);
    }
}

/// Adds to a flow's or to the common counts; most stay as they are.
///
/// # Safety
///
/// Both must be in a map.
#[inline(always)]
unsafe fn add_counts(segments: *mut [u64; Cause::COUNT], failures: *mut u64, more: &Flow) {
    let mut index = 0;
    while index < Cause::COUNT {
        if more.segments[index] != 0 {
            // SAFETY: in a map, says the caller; the index is within bounds.
            unsafe { add(&raw mut (*segments)[index], more.segments[index]) }
        }
        index += 1;
    }
    if more.failures != 0 {
        // SAFETY: as above.
        unsafe { add(failures, more.failures) }
    }
}

/// `BPF_NOEXIST`: only if there is none yet.
const BPF_NOEXIST: u64 = 1;
/// `BPF_RB_NO_WAKEUP`: nobody waits for it.
const BPF_RB_NO_WAKEUP: u64 = 1;

/// Adds to a word that other CPUs add to.
///
/// # Safety
///
/// The word must be in a map.
#[inline(always)]
unsafe fn add(word: *mut u64, more: u64) {
    // In assembly, because core has no such method for a target without compare-and-swap, which BPF has only since 5.12.
    // SAFETY: in a map, says the caller, where all words are aligned.
    unsafe { core::arch::asm!("lock *(u64 *)({word} + 0) += {more}", word = in(reg) word, more = in(reg) more, options(nostack)) }
}

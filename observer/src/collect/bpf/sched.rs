//! The scheduler family's shared memory: beginning generations and reading the tables of those that ended.
//!
//! ARCHITECTURE.md, "Two generations", has the argument why nothing is lost or counted twice.

use std::collections::HashMap;
use std::io;
use std::mem::{offset_of, size_of};
use std::sync::atomic::Ordering;

use observer_common::blame::{CELLS, Cell};
use observer_common::latency::BUCKETS;
use observer_common::locality::{LENGTHS, MOVED_PER_CPU, MOVES, length_place};
use observer_common::memory::{COMMON, CpuMemory, Use};
use observer_common::pod::Pod;
use observer_common::sched::{
    CpuState, DELAY_WAYS, DELAYS_PER_CPU, FOCUS, FOCUS_PLACES, Key, SLOTS, Slot, Table, focus_bit, focus_place,
};

use crate::sys::{self, Mapping};

/// Kernel memory for one CPU, in bytes: its tables, and its part of what is remembered of tasks.
pub const BYTES_PER_CPU: usize = size_of::<CpuState>() + (DELAYS_PER_CPU as usize + MOVED_PER_CPU as usize) * size_of::<u64>();

/// Places for what the kernel side remembers of tasks: a power of two.
pub fn delay_places(cpus: u32) -> u32 {
    (cpus * DELAYS_PER_CPU).next_power_of_two() / DELAY_WAYS as u32
}

/// Places for tasks that were moved and did not run since: a power of two.
pub fn moved_places(cpus: u32) -> u32 {
    (cpus * MOVED_PER_CPU).next_power_of_two()
}

/// Words that belong together are read again if their CPU switched in between, which is the exception.
const TRIES: usize = 3;

/// What a generation's table holds.
#[derive(Clone, Copy, Debug)]
pub enum Entry<'a> {
    /// What one key did.
    Slot(&'a Slot),
    /// For whom one key waited.
    Cell(&'a Cell),
}

/// Who was on a CPU when a generation began.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OpenRun {
    /// The CPU's number.
    pub cpu: u32,
    /// Who.
    pub key: Key,
    /// For how long, in nanoseconds.
    pub time: u64,
}

/// The tables of all CPUs.
#[derive(Debug)]
pub struct Tables {
    mapping: Mapping,
    cpus: u32,
    generation: u64,
    /// Set where the kernel offers no barrier: what was read of the last table, which a hook may have gone on writing for a moment.
    read: Option<Read>,
}

/// What was read of a table: by CPU and index.
#[derive(Default, Debug)]
struct Read {
    slots: HashMap<(u32, usize), Slot>,
    cells: HashMap<(u32, usize), Cell>,
}

impl Tables {
    /// Before the hook is attached.
    pub fn new(mapping: Mapping, cpus: u32) -> Tables {
        let tables = Tables { mapping, cpus, generation: 1, read: None };
        // A slot's stamp of 0 is that of memory never used, so generations count from 1.
        tables.publish();
        tables
    }

    /// Number of CPUs that have a table.
    pub fn cpus(&self) -> u32 {
        self.cpus
    }

    /// Bytes of kernel memory.
    pub fn bytes(&self) -> usize {
        self.cpus as usize * size_of::<CpuState>()
            + delay_places(self.cpus) as usize * size_of::<[u64; DELAY_WAYS]>()
            + moved_places(self.cpus) as usize * size_of::<u64>()
    }

    /// The newest generation that no program writes to any more, once [`Tables::wait`] has returned: the last one, or without a barrier
    /// the one before, which nobody has written to for an interval.
    pub fn ended(&self) -> u64 {
        self.generation.saturating_sub(if self.read.is_some() { 2 } else { 1 })
    }

    /// Does without a barrier, as on a kernel that has none: for tests.
    pub fn without_barrier(&mut self) {
        self.read = Some(Read::default());
    }

    /// Begins a new generation on every CPU. `late` gets what came to the former table since it was read, where there is no barrier;
    /// nothing otherwise.
    pub fn turn(&mut self, late: &mut dyn FnMut(u32, Entry<'_>)) {
        if let Some(read) = self.read.take() {
            self.settle(&read, late);
            self.read = Some(Read::default());
        }
        self.generation += 1;
        self.publish();
    }

    /// Waits until no hook works in the ended generation any more.
    ///
    /// # Errors
    ///
    /// What `membarrier` may say beyond not being there. Nothing is lost: every table is then read again before it is used again.
    pub fn wait(&mut self) -> io::Result<()> {
        if self.read.is_some() {
            return Ok(());
        }
        let Err(error) = sys::membarrier() else { return Ok(()) };
        self.read = Some(Read::default());
        match error.raw_os_error() {
            Some(libc::EINVAL | libc::ENOSYS) => {
                tracing::info!("no membarrier on this kernel (CPUs in nohz_full?): each table is read twice");
                Ok(())
            }
            _ => Err(error),
        }
    }

    /// Hands over what the ended generation holds, with the CPU's number; a CPU's slots come before its cells.
    pub fn drain(&mut self, each: &mut dyn FnMut(u32, Entry<'_>)) {
        let ended = self.generation - 1;
        let mut read = self.read.take();
        for cpu in 0..self.cpus {
            for index in 0..=SLOTS {
                let Some(slot) = self.slot(cpu, ended, index) else { continue };
                each(cpu, Entry::Slot(&slot));
                if let Some(read) = &mut read {
                    read.slots.insert((cpu, index), slot);
                }
            }
            for index in 0..CELLS {
                let Some(cell) = self.cell(cpu, ended, index) else { continue };
                each(cpu, Entry::Cell(&cell));
                if let Some(read) = &mut read {
                    read.cells.insert((cpu, index), cell);
                }
            }
        }
        self.read = read;
    }

    /// Whose tasks left a CPU in the ended generation, by key and parent as in [`Slot`]; `None` when the table was full, and some are not in it.
    pub fn ran(&self) -> Option<Vec<(Key, Key)>> {
        let ended = self.generation - 1;
        let mut ran = Vec::new();
        for cpu in 0..self.cpus {
            let at = |index: usize| self.table(cpu, ended) + offset_of!(Table, slots) + index * size_of::<Slot>();
            let word = |index, field| self.mapping.word(at(index) + field).map(|word| word.load(Ordering::Acquire));
            for index in 0..=SLOTS {
                if word(index, offset_of!(Slot, generation)) != Some(ended) {
                    continue;
                }
                if index == SLOTS {
                    return None;
                }
                ran.push((Key(word(index, offset_of!(Slot, key))?), Key(word(index, offset_of!(Slot, parent))?)));
            }
        }
        Some(ran)
    }

    /// The run queues' clock when the present generation began, as closely as the first switch since tells: at the latest that of the
    /// CPU on which the daemon fell asleep waiting for the barrier. `None` where no CPU has switched since.
    pub fn turned_at(&self) -> Option<u64> {
        let turned = (0..self.cpus).filter(|cpu| self.header(*cpu, offset_of!(CpuState, turned)) == self.generation);
        turned.map(|cpu| self.header(cpu, offset_of!(CpuState, turned_at))).min()
    }

    /// Who was on which CPU when the present generation began. Their runs are in no table yet; when they end, they are booked whole.
    pub fn open_runs(&self) -> Vec<OpenRun> {
        let Some(at) = self.turned_at() else { return Vec::new() };
        let open = |cpu: u32| {
            let word = |offset| self.header(cpu, offset);
            let mut run = (word(offset_of!(CpuState, current)), word(offset_of!(CpuState, since)));
            // Read after the two words before: if the CPU has switched meanwhile, the hook has kept what they were.
            std::sync::atomic::fence(Ordering::Acquire);
            if word(offset_of!(CpuState, turned)) == self.generation {
                run = (word(offset_of!(CpuState, turned_current)), word(offset_of!(CpuState, turned_since)));
            }
            let (key, since) = run;
            (key != 0 && since != 0).then(|| OpenRun { cpu, key: Key(key), time: at.saturating_sub(since) })
        };
        (0..self.cpus).filter_map(open).collect()
    }

    /// Says where CPUs are in the machine ([`place`](observer_common::locality::place)).
    pub fn place(&self, places: &[(u32, u64)]) {
        for (cpu, place) in places {
            self.set(*cpu, offset_of!(CpuState, place), *place);
            self.set(*cpu, offset_of!(CpuState, sibling), sibling(places, *cpu).map_or(0, |sibling| u64::from(sibling) + 1));
        }
    }

    /// Migrations to a CPU and from it so far, at [`move_place`](observer_common::locality::move_place).
    pub fn moved(&self, cpu: u32) -> ([u64; MOVES], [u64; MOVES]) {
        (self.words(cpu, offset_of!(CpuState, moved_in)), self.words(cpu, offset_of!(CpuState, moved_out)))
    }

    /// How long a CPU's queue was at its last switch, tasks that run or could, and that switch on the run queue's clock: 0 before the first.
    pub fn queue(&self, cpu: u32) -> (u64, u64) {
        let since = || self.header(cpu, offset_of!(CpuState, since));
        let mut queue = (0, 0);
        for _ in 0..TRIES {
            queue = (self.length(cpu), since());
            std::sync::atomic::fence(Ordering::Acquire);
            if self.length(cpu) == queue.0 {
                break;
            }
        }
        queue
    }

    /// How long a CPU's queue was for how long; up to this moment on its run queue's clock, or to its last switch.
    pub fn depths(&self, cpu: u32, now: Option<u64>) -> [u64; LENGTHS] {
        let since = || self.header(cpu, offset_of!(CpuState, since));
        let mut depths = [0; LENGTHS];
        for _ in 0..TRIES {
            let began = since();
            depths = self.words(cpu, offset_of!(CpuState, lengths));
            let length = self.length(cpu);
            std::sync::atomic::fence(Ordering::Acquire);
            if since() == began {
                let goes_on = now.filter(|_| began != 0).map_or(0, |now| now.saturating_sub(began));
                depths[length_place(length)] += goes_on;
                break;
            }
        }
        depths
    }

    fn set(&self, cpu: u32, offset: usize, value: u64) {
        if let Some(word) = self.mapping.word(self.offset(cpu) + offset) {
            word.store(value, Ordering::Relaxed);
        }
    }

    /// 0 while it idles.
    fn length(&self, cpu: u32) -> u64 {
        self.header(cpu, offset_of!(CpuState, dispatch)) & u64::from(u32::MAX)
    }

    fn words<const N: usize>(&self, cpu: u32, offset: usize) -> [u64; N] {
        std::array::from_fn(|index| self.header(cpu, offset + index * size_of::<u64>()))
    }

    /// What the memory family counted on a CPU so far.
    pub fn memory(&self, cpu: u32) -> Option<CpuMemory> {
        let mut memory: CpuMemory = self.mapping.read(self.offset(cpu) + offset_of!(CpuState, memory))?;
        memory.allocations[COMMON] += self.header(cpu, offset_of!(CpuState, common));
        Some(memory)
    }

    /// Splits these cgroups by process from now on. Returns those for which there was no place.
    pub fn focus(&mut self, keys: &[Key]) -> Vec<Key> {
        let mut places = [0u64; FOCUS_PLACES];
        let mut left = Vec::new();
        for (number, key) in keys.iter().enumerate() {
            let home = focus_place(*key);
            match [home, home ^ 1].into_iter().find(|place| places[*place] == 0) {
                Some(place) if number < FOCUS => places[place] = key.0,
                _ => left.push(*key),
            }
        }
        let focused = places.iter().filter(|key| **key != 0).fold(0, |bits, key| bits | focus_bit(Key(*key)));
        for cpu in 0..self.cpus {
            self.set(cpu, offset_of!(CpuState, focused), focused);
            for (place, key) in places.iter().enumerate() {
                self.set(cpu, offset_of!(CpuState, focus) + place * size_of::<u64>(), *key);
            }
        }
        left
    }

    /// Look-ups that found no slot, since the hook was attached; their counts are booked to [`Key::OTHER`](observer_common::sched::Key).
    pub fn overflows(&self) -> u64 {
        self.sum(offset_of!(CpuState, overflows))
    }

    /// Switches that the kernel did not report, since the hook was attached ([`CpuState::untraced`]).
    pub fn untraced(&self) -> u64 {
        self.sum(offset_of!(CpuState, untraced))
    }

    /// Of those, the ones that took a wait or a run with them ([`CpuState::lost`]).
    pub fn lost(&self) -> u64 {
        self.sum(offset_of!(CpuState, lost))
    }

    fn sum(&self, offset: usize) -> u64 {
        (0..self.cpus).map(|cpu| self.header(cpu, offset)).sum()
    }

    /// A word of a CPU's header.
    fn header(&self, cpu: u32, offset: usize) -> u64 {
        self.mapping.word(self.offset(cpu) + offset).map_or(0, |word| word.load(Ordering::Acquire))
    }

    fn publish(&self) {
        for cpu in 0..self.cpus {
            if let Some(word) = self.mapping.word(self.offset(cpu) + offset_of!(CpuState, generation)) {
                sys::publish(word, self.generation);
            }
        }
    }

    /// Hands over what came to the table of the generation before this one since it was read.
    fn settle(&self, read: &Read, each: &mut dyn FnMut(u32, Entry<'_>)) {
        let generation = self.generation - 1;
        for cpu in 0..self.cpus {
            for index in 0..=SLOTS {
                let Some(slot) = self.slot(cpu, generation, index) else { continue };
                let late = read.slots.get(&(cpu, index)).map_or(slot, |before| difference(&slot, before));
                each(cpu, Entry::Slot(&late));
            }
            for index in 0..CELLS {
                let Some(cell) = self.cell(cpu, generation, index) else { continue };
                let before = read.cells.get(&(cpu, index)).map_or(0, |before| before.time);
                each(cpu, Entry::Cell(&Cell { time: cell.time.wrapping_sub(before), ..cell }));
            }
        }
    }

    fn slot(&self, cpu: u32, generation: u64, index: usize) -> Option<Slot> {
        let offset = self.table(cpu, generation) + offset_of!(Table, slots) + index * size_of::<Slot>();
        self.stamped(offset, offset_of!(Slot, generation), generation)
    }

    fn cell(&self, cpu: u32, generation: u64, index: usize) -> Option<Cell> {
        let offset = self.table(cpu, generation) + offset_of!(Table, cells) + index * size_of::<Cell>();
        self.stamped(offset, offset_of!(Cell, generation), generation)
    }

    /// What lies at an offset, if it is this generation's.
    fn stamped<T: Pod>(&self, offset: usize, stamp: usize, generation: u64) -> Option<T> {
        let stamp = self.mapping.word(offset + stamp)?.load(Ordering::Acquire);
        if stamp == generation { self.mapping.read(offset) } else { None }
    }

    fn table(&self, cpu: u32, generation: u64) -> usize {
        self.offset(cpu) + offset_of!(CpuState, tables) + (generation & 1) as usize * size_of::<Table>()
    }

    fn offset(&self, cpu: u32) -> usize {
        cpu as usize * size_of::<CpuState>()
    }
}

/// The next thread of a CPU's core, in a ring.
pub fn sibling(places: &[(u32, u64)], cpu: u32) -> Option<u32> {
    let (_, own) = *places.iter().find(|(number, place)| *number == cpu && *place != 0)?;
    let threads = || places.iter().filter(|(_, place)| *place == own).map(|(number, _)| *number);
    threads().filter(|number| *number > cpu).min().or_else(|| threads().min()).filter(|number| *number != cpu)
}

fn difference(is: &Slot, was: &Slot) -> Slot {
    let mut latency = [0; BUCKETS];
    for (to, (is, was)) in latency.iter_mut().zip(is.latency.iter().zip(&was.latency)) {
        *to = is.wrapping_sub(*was);
    }
    Slot {
        run: is.run.wrapping_sub(was.run),
        wait: is.wait.wrapping_sub(was.wait),
        throttled: is.throttled.wrapping_sub(was.throttled),
        migrated: is.migrated.wrapping_sub(was.migrated),
        other: is.other.wrapping_sub(was.other),
        exited: is.exited.wrapping_sub(was.exited),
        steal: is.steal.wrapping_sub(was.steal),
        interrupt: is.interrupt.wrapping_sub(was.interrupt),
        used: Use {
            pages: is.used.pages.wrapping_sub(was.used.pages),
            stalls: is.used.stalls.wrapping_sub(was.used.stalls),
            stalled: is.used.stalled.wrapping_sub(was.used.stalled),
            waited: is.used.waited.wrapping_sub(was.used.waited),
            slept: is.used.slept.wrapping_sub(was.used.slept),
        },
        runs: is.runs.wrapping_sub(was.runs),
        preempted: is.preempted.wrapping_sub(was.preempted),
        voluntary: is.voluntary.wrapping_sub(was.voluntary),
        io: is.io.wrapping_sub(was.io),
        uninterruptible: is.uninterruptible.wrapping_sub(was.uninterruptible),
        stopped: is.stopped.wrapping_sub(was.stopped),
        shared: is.shared.wrapping_sub(was.shared),
        away_run: std::array::from_fn(|how| is.away_run[how].wrapping_sub(was.away_run[how])),
        away: std::array::from_fn(|how| is.away[how].wrapping_sub(was.away[how])),
        moves: std::array::from_fn(|place| is.moves[place].wrapping_sub(was.moves[place])),
        latency,
        // Names, and the longest wait, which may be told twice.
        ..*is
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn siblings_are_in_a_ring() {
        let places = [(0, 7), (1, 8), (2, 7), (3, 8), (4, 9), (5, 0), (6, 0), (9, 7)];
        let siblings: Vec<_> = places.iter().map(|(cpu, _)| sibling(&places, *cpu)).collect();
        assert_eq!(siblings, [Some(2), Some(3), Some(9), Some(1), None, None, None, Some(0)]);
    }

    #[test]
    fn kernel_memory_is_bounded() {
        const { assert!(BYTES_PER_CPU <= 1 << 20, "a mebibyte a CPU") };
        assert_eq!((delay_places(1), delay_places(2), delay_places(3)), (4096, 8192, 16384));
    }
}

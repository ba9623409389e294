//! The scheduler family's shared memory: beginning generations and reading the tables of those that ended.
//!
//! ARCHITECTURE.md, "Two generations", has the argument why nothing is lost or counted twice.

use std::collections::HashMap;
use std::io;
use std::mem::{offset_of, size_of};
use std::sync::atomic::Ordering;

use observer_common::latency::BUCKETS;
use observer_common::sched::{CpuState, SLOTS, Slot};

use crate::sys::{self, Mapping};

/// Kernel memory of one CPU's tables, in bytes.
pub const BYTES_PER_CPU: usize = size_of::<CpuState>();

/// The tables of all CPUs.
#[derive(Debug)]
pub struct Tables {
    mapping: Mapping,
    cpus: u32,
    generation: u64,
    /// Set where the kernel offers no barrier: what was read of the last table, which a hook may have gone on writing for a moment.
    read: Option<HashMap<(u32, usize), Slot>>,
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
        self.cpus as usize * BYTES_PER_CPU
    }

    /// Does without a barrier, as on a kernel that has none: for tests.
    pub fn without_barrier(&mut self) {
        self.read = Some(HashMap::new());
    }

    /// Begins a new generation on every CPU and waits until no hook works in the ended one any more. `late` gets what came to the
    /// former table since it was read, where there is no barrier; nothing otherwise.
    ///
    /// # Errors
    ///
    /// What `membarrier` may say beyond not being there. Nothing is lost: every table is then read again before it is used again.
    pub fn turn(&mut self, late: &mut dyn FnMut(u32, &Slot)) -> io::Result<()> {
        if let Some(read) = self.read.take() {
            self.settle(&read, late);
            self.read = Some(HashMap::new());
        }
        self.generation += 1;
        self.publish();
        if self.read.is_some() {
            return Ok(());
        }
        let Err(error) = sys::membarrier() else { return Ok(()) };
        self.read = Some(HashMap::new());
        match error.raw_os_error() {
            Some(libc::EINVAL | libc::ENOSYS) => {
                tracing::info!("no membarrier on this kernel (CPUs in nohz_full?): each table is read twice");
                Ok(())
            }
            _ => Err(error),
        }
    }

    /// Hands over what the ended generation holds: the CPU's number and the slot, for every slot in use.
    pub fn drain(&mut self, each: &mut dyn FnMut(u32, &Slot)) {
        let ended = self.generation - 1;
        let mut read = self.read.take();
        for cpu in 0..self.cpus {
            for index in 0..=SLOTS {
                if let Some(slot) = self.slot(cpu, ended, index) {
                    each(cpu, &slot);
                    if let Some(read) = &mut read {
                        read.insert((cpu, index), slot);
                    }
                }
            }
        }
        self.read = read;
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
        let words = (0..self.cpus).filter_map(|cpu| self.mapping.word(self.offset(cpu) + offset));
        words.map(|word| word.load(Ordering::Relaxed)).sum()
    }

    fn publish(&self) {
        for cpu in 0..self.cpus {
            if let Some(word) = self.mapping.word(self.offset(cpu) + offset_of!(CpuState, generation)) {
                sys::publish(word, self.generation);
            }
        }
    }

    /// Hands over what came to the table of the generation before this one since it was read.
    fn settle(&self, read: &HashMap<(u32, usize), Slot>, each: &mut dyn FnMut(u32, &Slot)) {
        let generation = self.generation - 1;
        for cpu in 0..self.cpus {
            for index in 0..=SLOTS {
                let Some(slot) = self.slot(cpu, generation, index) else { continue };
                let late = match read.get(&(cpu, index)) {
                    Some(before) => difference(&slot, before),
                    None => slot,
                };
                each(cpu, &late);
            }
        }
    }

    fn slot(&self, cpu: u32, generation: u64, index: usize) -> Option<Slot> {
        let table = self.offset(cpu) + offset_of!(CpuState, tables) + (generation & 1) as usize * size_of::<[Slot; SLOTS + 1]>();
        let offset = table + index * size_of::<Slot>();
        let stamp = self.mapping.word(offset + offset_of!(Slot, generation))?.load(Ordering::Acquire);
        if stamp == generation { self.mapping.read(offset) } else { None }
    }

    fn offset(&self, cpu: u32) -> usize {
        cpu as usize * size_of::<CpuState>()
    }
}

fn difference(is: &Slot, was: &Slot) -> Slot {
    let mut latency = [0; BUCKETS];
    for (to, (is, was)) in latency.iter_mut().zip(is.latency.iter().zip(&was.latency)) {
        *to = is.wrapping_sub(*was);
    }
    Slot {
        run: is.run.wrapping_sub(was.run),
        wait: is.wait.wrapping_sub(was.wait),
        runs: is.runs.wrapping_sub(was.runs),
        preempted: is.preempted.wrapping_sub(was.preempted),
        voluntary: is.voluntary.wrapping_sub(was.voluntary),
        latency,
        ..*is
    }
}

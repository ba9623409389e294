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
    /// The hook has not run yet, or works in generation 0 since.
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
    }

    /// Does without a barrier, as on a kernel that has none: for tests.
    pub fn without_barrier(&mut self) {
        self.read = Some(HashMap::new());
    }

    /// Begins a new generation on every CPU and hands over what the ended one holds: `(CPU, slot)`, for every slot in use.
    ///
    /// # Errors
    ///
    /// Only what `membarrier` may say beyond not being there.
    pub fn turn(&mut self, each: &mut dyn FnMut(u32, &Slot)) -> io::Result<()> {
        // Where there is no barrier, the table that is about to be used again may have got a last switch after it was read.
        if let Some(read) = self.read.take() {
            self.settle(&read, each);
            self.read = Some(HashMap::new());
        }
        let ended = self.generation;
        self.generation += 1;
        self.publish();
        if self.read.is_none() {
            match sys::membarrier() {
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) || error.raw_os_error() == Some(libc::ENOSYS) => {
                    tracing::info!("no membarrier on this kernel (CPUs in nohz_full?): each table is read twice");
                    self.read = Some(HashMap::new());
                }
                Err(error) => {
                    // Nothing is lost: without the barrier, too, every table is read again before it is used again.
                    self.read = Some(HashMap::new());
                    self.drain(ended, each);
                    return Err(error);
                }
            }
        }
        self.drain(ended, each);
        Ok(())
    }

    /// Reads the table of the generation that ended last once more: for measuring.
    pub fn reread(&mut self, each: &mut dyn FnMut(u32, &Slot)) {
        self.drain(self.generation.saturating_sub(1), each);
    }

    fn publish(&self) {
        for cpu in 0..self.cpus {
            if let Some(word) = self.mapping.word(self.offset(cpu) + offset_of!(CpuState, generation)) {
                sys::publish(word, self.generation);
            }
        }
    }

    fn drain(&mut self, generation: u64, each: &mut dyn FnMut(u32, &Slot)) {
        for cpu in 0..self.cpus {
            for index in 0..=SLOTS {
                if let Some(slot) = self.slot(cpu, generation, index) {
                    each(cpu, &slot);
                    if let Some(read) = &mut self.read {
                        read.insert((cpu, index), slot);
                    }
                }
            }
        }
    }

    /// Hands over what came to the table of the generation before this one since it was read.
    fn settle(&self, read: &HashMap<(u32, usize), Slot>, each: &mut dyn FnMut(u32, &Slot)) {
        let Some(generation) = self.generation.checked_sub(1) else { return };
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

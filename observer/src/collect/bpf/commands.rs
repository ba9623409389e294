//! Commands that somebody watches: their processes' cgroups want to be split by process, and what was counted for those processes is added up
//! by the command's name, whoever of them lives. Pure.

use std::collections::HashMap;

use observer_common::sched::{Key, MAX_PROCESSES, Slot, kind};
use observer_common::tasks::{Task, comm_bytes};

use super::accounts;
use crate::model::objective::Members;
use crate::model::text::escape_padded;
use crate::model::{Command, Histogram};

/// The watched commands, and what was counted since observer attached.
#[derive(Default, Debug)]
pub struct Commands {
    watched: Vec<Command>,
    /// Processes that had a slot of their own in the table that was read last, by CPU.
    told_apart: HashMap<u32, u64>,
    /// Whether it is known who lives.
    known: bool,
}

impl Commands {
    /// Watches commands with these names, escaped.
    pub fn new(names: &[String]) -> Commands {
        let (latency, processes) = (Histogram::default(), Members::default());
        let command =
            |name: &String| Command { name: name.as_str().into(), runs: 0, latency: latency.clone(), processes, crowded: false };
        Commands { watched: names.iter().map(command).collect(), ..Commands::default() }
    }

    /// Tables are about to be read.
    pub fn begin(&mut self) {
        self.told_apart.clear();
    }

    /// A slot of a CPU was read: those of processes have their name.
    pub fn slot(&mut self, cpu: u32, slot: &Slot) {
        if self.watched.is_empty() || Key(slot.key).kind() != kind::PROCESS {
            return;
        }
        *self.told_apart.entry(cpu).or_default() += 1;
        if let Some(command) = self.named(slot.comm) {
            command.runs += u64::from(slot.runs);
            command.latency.add(&accounts::latency(slot));
        }
    }

    /// Takes in who lives, as the task iterator tells it, and which cgroups were split in the interval that has ended. Returns those that must
    /// be.
    pub fn live(&mut self, tasks: &[Task], split: &[Key]) -> Vec<Key> {
        self.known = !tasks.is_empty();
        let crowded = self.told_apart.values().any(|processes| *processes >= MAX_PROCESSES);
        for command in &mut self.watched {
            (command.processes, command.crowded) = (Members::default(), crowded);
        }
        let mut wanted = Vec::new();
        if self.watched.is_empty() {
            return wanted;
        }
        for task in tasks.iter().filter(|task| task.pid == task.tgid && task.exit_state == 0) {
            let Some(command) = self.named(task.comm) else { continue };
            let cgroup = Key(task.key);
            match split.contains(&cgroup) {
                true => command.processes.counted += 1,
                false => command.processes.uncounted += 1,
            }
            if !wanted.contains(&cgroup) {
                wanted.push(cgroup);
            }
        }
        wanted
    }

    /// The commands; none where nobody tells who lives.
    pub fn rows(&self) -> Vec<Command> {
        if self.known { self.watched.clone() } else { Vec::new() }
    }

    fn named(&mut self, comm: [u64; 2]) -> Option<&mut Command> {
        let bytes = comm_bytes(comm);
        let name = escape_padded(&bytes);
        self.watched.iter_mut().find(|command| *command.name == *name)
    }
}

#[cfg(test)]
mod tests {
    use observer_common::pod;

    use super::*;

    const A: Key = Key::v2(10);
    const B: Key = Key::v2(11);

    fn words(name: &[u8]) -> [u64; 2] {
        let mut bytes = [0; 16];
        bytes[..name.len()].copy_from_slice(name);
        let word = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap());
        [word(0), word(8)]
    }

    fn task(pid: u32, tgid: u32, comm: &[u8], cgroup: Key) -> Task {
        Task { pid, tgid, comm: words(comm), key: cgroup.0, ..pod::zeroed() }
    }

    #[test]
    fn processes_of_a_name_add_up_whoever_lives() {
        let mut commands = Commands::new(&[r"ng\x1bnx".into(), "x".into()]);
        let slot = |key: Key, comm: &[u8]| {
            let mut slot = Slot { key: key.0, comm: words(comm), runs: 3, wait: 700, ..pod::zeroed() };
            slot.latency[5] = 2;
            slot
        };
        let process = |tgid| Key::process(tgid, 1 << 40);
        for (key, comm) in [(process(7), &b"ng\x1bnx"[..]), (process(8), b"ng\x1bnx"), (process(9), b"other"), (A, b"x")] {
            commands.slot(0, &slot(key, comm));
        }
        assert!(commands.rows().is_empty(), "nobody knows who lives");
        commands.live(&[task(1, 1, b"init", Key::ROOT)], &[]);
        let rows = commands.rows();
        let of = |at: usize| (rows[at].runs, rows[at].latency.count(), rows[at].latency.sum);
        assert_eq!((of(0), of(1)), ((6, 4, 1_400), (0, 0, 0)));
    }

    #[test]
    fn a_crowded_cpu_is_told() {
        let mut commands = Commands::new(&["x".into()]);
        let init = [task(1, 1, b"init", Key::ROOT)];
        let mut crowded = |on: [u32; 2]| {
            commands.begin();
            for (cpu, processes) in (0..).zip(on) {
                (0..processes).for_each(|tgid| commands.slot(cpu, &Slot { key: Key::process(tgid, 1 << 40).0, ..pod::zeroed() }));
            }
            commands.live(&init, &[]);
            commands.rows()[0].crowded
        };
        assert!(!crowded([159, 159]));
        assert!(crowded([0, 160]));
        assert!(!crowded([0, 0]), "it is of one interval");
    }

    #[test]
    fn the_cgroups_of_its_processes_want_to_be_split() {
        let mut commands = Commands::new(&["nginx".into()]);
        let zombie = Task { exit_state: 0x20, ..task(9, 9, b"nginx", Key::ROOT) };
        let tasks = [
            task(7, 7, b"nginx", A),
            task(17, 7, b"nginx", A),
            task(8, 8, b"nginx", B),
            task(18, 18, b"nginx", B),
            task(19, 19, b"nginx2", Key::ROOT),
            zombie,
        ];
        assert_eq!(commands.live(&tasks, &[B]), [A, B]);
        assert_eq!(commands.rows()[0].processes, Members { counted: 2, uncounted: 1 });
        assert!(Commands::default().live(&tasks, &[B]).is_empty());
    }
}

//! What processes and threads have in common: their counters, their state, what names them.

use super::Label;

/// Counters of a thread, or of a process with all its threads. Times in nanoseconds; `None` is unknown.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Counts {
    /// Time on a CPU (`sum_exec_runtime`).
    pub run: Option<u64>,
    /// Time runnable and not running (`run_delay`), of waits that ended.
    pub wait: Option<u64>,
    /// Of the time on a CPU that in user space.
    pub user: Option<u64>,
    /// The rest of it, in the kernel.
    pub system: Option<u64>,
    /// Times a CPU was taken away (`nivcsw`).
    pub preempted: Option<u64>,
    /// Times a CPU was given up (`nvcsw`).
    pub voluntary: Option<u64>,
    /// Moves to another CPU (`nr_migrations`).
    pub migrations: Option<u64>,
}

/// What a task does. In ascending order, so that the least of its threads' states says what a process does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Status {
    /// It holds a CPU.
    Running,
    /// It wants one. Where nobody tells who holds a CPU, those that do as well.
    Runnable,
    /// It waits and no signal wakes it, most often for a disk.
    Uninterruptible,
    /// It waits.
    Sleeping,
    /// A signal stopped it.
    Stopped,
    /// A tracer stopped it.
    Traced,
    /// A thread of the kernel that has nothing to do, and is not counted as load.
    Idle,
    /// A thread of the kernel that was put aside.
    Parked,
    /// It ended, and its parent has not asked for the result.
    Zombie,
    /// It is about to vanish.
    Dead,
}

impl Status {
    /// The lower-case word of every output.
    pub fn name(self) -> &'static str {
        match self {
            Status::Running => "running",
            Status::Runnable => "runnable",
            Status::Uninterruptible => "uninterruptible",
            Status::Sleeping => "sleeping",
            Status::Stopped => "stopped",
            Status::Traced => "traced",
            Status::Idle => "idle",
            Status::Parked => "parked",
            Status::Zombie => "zombie",
            Status::Dead => "dead",
        }
    }

    /// From the letter in `/proc/PID/stat`.
    pub fn of_letter(letter: u8) -> Option<Status> {
        Some(match letter {
            b'R' => Status::Runnable,
            b'S' => Status::Sleeping,
            b'D' => Status::Uninterruptible,
            b'T' => Status::Stopped,
            b't' => Status::Traced,
            b'X' | b'x' => Status::Dead,
            b'Z' => Status::Zombie,
            b'P' => Status::Parked,
            b'I' => Status::Idle,
            _ => return None,
        })
    }
}

/// What is known of a process beyond its numbers; its threads share it.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Command line, its words joined by spaces, escaped; `None` for threads of the kernel and where it cannot be read.
    pub command: Option<String>,
    /// Name of the effective user, escaped, or the number of one without a name.
    pub user: Option<String>,
}

impl Identity {
    /// The labels `command`, `user` and `cgroup`, as far as they are known.
    pub(super) fn labels<'a>(&'a self, cgroup: Option<&'a str>) -> impl Iterator<Item = (&'static str, Label<'a>)> {
        let known = [("command", self.command.as_deref()), ("user", self.user.as_deref()), ("cgroup", cgroup)];
        known.into_iter().filter_map(|(name, value)| Some((name, Label::Text(value?.into()))))
    }
}

/// The metrics that threads and processes share, given an entity with the fields `counts`, `pending` and `status`.
macro_rules! task_metrics {
    ($entity:ty, $cpu_time:literal, $of:literal) => {
        /// On-CPU time.
        pub static RUN_TIME: Metric<$entity> = Metric::new(
            "observer.cpu.run.time",
            "RUN",
            Unit::Seconds,
            concat!(
                "Time on a CPU by the task clock (sum_exec_runtime), ",
                $of,
                ": without hypervisor steal and interrupts where the kernel \
                 accounts them, unlike that of CPUs and cgroups; the open run up to the last tick."
            ),
            Read::Counter(&[Part { attributes: &[], read: |e| e.counts.run }]),
        );
        /// Run-queue wait.
        pub static WAIT_TIME: Metric<$entity> = Metric::new(
            "observer.cpu.run_queue.wait.time",
            "WAIT",
            Unit::Seconds,
            concat!("Time runnable and not running (run_delay), ", $of, "; completed waits only."),
            Read::Counter(&[Part { attributes: &[], read: |e| e.counts.wait }]),
        );
        /// The wait that goes on.
        pub static PENDING: Metric<$entity> = Metric::new(
            "observer.cpu.run_queue.wait.pending",
            "PENDING",
            Unit::Seconds,
            "Waits for a CPU that go on at this moment, as long as they are so far (of a process: of all its threads together); throttled \
             time is inside. Not yet in observer.cpu.run_queue.wait.time.",
            Read::Gauge(&[Part { attributes: &[], read: |e| Some(e.pending? as f64 / 1e9) }]),
        );
        /// CPU time by mode.
        pub static CPU_TIME: Metric<$entity> = Metric::new(
            $cpu_time,
            "CPU",
            Unit::Seconds,
            concat!(
                "CPU time by mode, ",
                $of,
                ", as /proc shows it: observer.cpu.run.time divided in proportion to the ticks that were seen in \
                 user space and in the kernel."
            ),
            Read::Counter(&[
                Part { attributes: &[("cpu.mode", "user")], read: |e| e.counts.user },
                Part { attributes: &[("cpu.mode", "system")], read: |e| e.counts.system },
            ]),
        );
        /// Switches.
        pub static SWITCHES: Metric<$entity> = Metric::new(
            "observer.sched.switches",
            "SWITCHES",
            Unit::Count("switch"),
            concat!("Times a CPU was taken away (preempted: nivcsw) or given up (voluntary: nvcsw), ", $of, "."),
            Read::Counter(&[
                Part { attributes: &[("observer.switch.type", "preempted")], read: |e| e.counts.preempted },
                Part { attributes: &[("observer.switch.type", "voluntary")], read: |e| e.counts.voluntary },
            ]),
        );
        /// Migrations.
        pub static MIGRATIONS: Metric<$entity> = Metric::new(
            "observer.task.migrations",
            "MIGRATIONS",
            Unit::Count("migration"),
            concat!("Moves to another CPU, by whatever cause (nr_migrations), ", $of, "."),
            Read::Counter(&[Part { attributes: &[], read: |e| e.counts.migrations }]),
        );
    };
}
pub(super) use task_metrics;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_thread_says_what_a_process_does() {
        let least = |states: &[Status]| states.iter().min().copied();
        assert_eq!(least(&[Status::Sleeping, Status::Running, Status::Runnable]), Some(Status::Running));
        assert_eq!(least(&[Status::Zombie, Status::Uninterruptible]), Some(Status::Uninterruptible));
    }

    #[test]
    fn letters() {
        assert_eq!(Status::of_letter(b'D'), Some(Status::Uninterruptible));
        assert_eq!(Status::of_letter(b'?'), None);
    }
}

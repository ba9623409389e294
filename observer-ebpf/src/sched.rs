//! Question: who ran, who waited, how long, for whom, on which CPU?
//!
//! Hook: `tp_btf/sched_switch`, alone. The kernel itself stamps the moment a task begins to wait (`sched_info.last_queued`), and this
//! tracepoint fires before the stamp is cleared: so there is no wake-up hook, no map keyed by pid and no clock read.
//! Cost: one array look-up, about thirty loads and fifteen stores a switch; `cargo xtask bench` measures it.
//! Needs: BTF, CONFIG_SCHED_INFO, CONFIG_FAIR_GROUP_SCHED; kernel 5.5 for mappable arrays, 5.8 for the log's ring buffer.
//! Lost without it: run-queue waits, their histogram and who is to blame; exact run time, preemptions; what /proc and cgroup files tell
//! remains.
//!
//! Interrupts are off here and the run queue is locked, so the hook never meets itself on one CPU.

#![allow(unsafe_code, reason = "#[unsafe(no_mangle)] on global functions (see blame.rs); no unsafe block")]

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use observer_common::latency;
use observer_common::sched::{Key, MAX_PROCESSES, OTHER_SLOT};
use observer_common::tasks::TASK_DEAD;

use crate::blame;
use crate::kernel::{self, CfsRq, CssSet, RunQueue, Task};
use crate::maps::{Cpu, DelayRef, SlotRef};

/// `sched_switch(bool preempt, struct task_struct *prev, struct task_struct *next, unsigned int prev_state)`
///
/// Pointers are followed first, before any branch: each time the verifier walks such a load it searches all of the kernel's BTF for a
/// name, which makes up most of the time of loading.
#[btf_tracepoint(function = "sched_switch")]
#[expect(clippy::needless_pass_by_value, reason = "the macro calls it so")]
pub(crate) fn sched_switch(ctx: BtfTracePointContext) -> i32 {
    let prev = Task(ctx.arg(1));
    let next = Task(ctx.arg(2));
    let queue = prev.cfs_rq();
    let run_queue = queue.run_queue();
    let now = run_queue.clock();
    let number = run_queue.cpu();
    let (comes, goes) = (next.css_set(), prev.css_set());
    let queue_of_next = next.cfs_rq();
    let Some(cpu) = Cpu::get(number) else { return 0 };
    let expected = cpu.current_pid() == prev.pid();
    // Most switches of a storm are within one cgroup. A `css_set` that the leaving task was in all the time was not freed meanwhile, so
    // that the same address is the same cgroup.
    let same = expected && comes.address() == cpu.css_set() && comes.address() == goes.address();
    let cgroup = if same { Key(cpu.cgroup()) } else { comes.cgroup().key };
    let pid = next.pid();
    let generation = cpu.generation();
    if cpu.turned() != generation {
        turn_over(number, generation, now);
    }
    let here = Here { cpu, number, generation, since: cpu.since(), now };

    let taken = Taken::since_last(cpu, run_queue);
    let slot = if expected { here.ran() } else { here.untraced(prev, goes, queue) };
    if let Some(slot) = slot {
        here.left(&ctx, slot, prev, queue);
    }
    if taken.is_some() && here.since != 0 {
        book(number, taken.steal, taken.interrupt, here.since);
    }
    let used = cpu.used();
    if used.pages() | used.stalls() != 0 {
        book_use(number);
    }
    cpu.set_current_pid(pid);
    cpu.set_since(now);
    if pid == 0 {
        cpu.set_current(Key::NONE.0);
        blame::turn(cpu, number, now, Key::IDLE.0);
    } else if same && cpu.current() == cgroup.0 {
        let slot = cpu.victim();
        slot.dispatched();
        here.arrive(slot, next, pid, queue_of_next);
        if taken.is_some() {
            blame::turn(cpu, number, now, cgroup.0);
        }
    } else {
        let split = here.splits(if same { cpu.split() != 0 } else { cpu.in_focus(cgroup) });
        let key = if split { next.process() } else { cgroup };
        cpu.set_css_set(comes.address());
        cpu.set_cgroup(cgroup.0);
        cpu.set_split(u64::from(split));
        let (slot, claimed) = enter(cpu, number, key);
        here.arrive(slot, next, pid, queue_of_next);
        blame::turn(cpu, number, now, key.0);
        if claimed != 0 {
            here.describe(claimed, next, comes);
        }
    }
    0
}

/// What the hypervisor and interrupts took from this CPU since its last switch, in nanoseconds.
struct Taken {
    steal: u64,
    interrupt: u64,
}

impl Taken {
    /// The growth of the run queue's clocks, which the kernel brought up to date on its way here.
    #[inline(always)]
    fn since_last(cpu: Cpu, run_queue: RunQueue) -> Taken {
        let mut taken = Taken { steal: 0, interrupt: 0 };
        if let Some(steal) = run_queue.steal() {
            taken.steal = steal.wrapping_sub(cpu.steal());
            cpu.set_steal(steal);
        }
        if let Some(interrupt) = run_queue.interrupt() {
            taken.interrupt = interrupt.wrapping_sub(cpu.interrupt());
            cpu.set_interrupt(interrupt);
        }
        taken
    }

    #[inline(always)]
    fn is_some(&self) -> bool {
        self.steal | self.interrupt != 0
    }
}

/// A switch: on which CPU, in which generation, and between which of its moments.
#[derive(Clone, Copy)]
struct Here {
    cpu: Cpu,
    number: u32,
    generation: u64,
    since: u64,
    now: u64,
}

impl Here {
    /// The run of the task that was dispatched last ends, and this is it. It is booked to the cgroup in which it was dispatched, if there was one.
    #[inline(always)]
    fn ran(self) -> Option<SlotRef> {
        if self.cpu.current() == Key::NONE.0 {
            return None;
        }
        let slot = self.cpu.victim();
        slot.ran(self.now - self.since);
        Some(slot)
    }

    /// Books how a run ended.
    #[inline(always)]
    fn left(self, ctx: &BtfTracePointContext, slot: SlotRef, prev: Task, queue: CfsRq) {
        let preempt: u64 = ctx.arg(0);
        let state: u32 = if kernel::switch_has_state() { ctx.arg(3) } else { prev.state() };
        let preempted = preempt & 1 != 0 || state == 0;
        slot.left(preempted);
        if preempted {
            let throttled = queue.throttled();
            if throttled != 0 {
                self.cpu.set_queue(queue.address());
                blame::left_under_quota(self.number, throttled, self.now);
            }
        } else if state & TASK_DEAD != 0 {
            slot.set_exited(slot.exited() + prev.run_delay());
            let pid = prev.pid();
            if let Some(place) = DelayRef::get(pid, kernel::delays_mask()) {
                place.clear(pid);
            }
        }
    }

    /// Somebody else leaves than was last seen to come: the kernel did not report a switch in between (some kernels hide those of
    /// tasks that they protect). The kernel's own stamp of the dispatch divides the time between the two. Returns the slot of the
    /// leaving task, if its run is known.
    #[cold]
    #[inline(always)]
    fn untraced(self, prev: Task, css_set: CssSet, queue: CfsRq) -> Option<SlotRef> {
        let Here { cpu, number, since, now, .. } = self;
        if since == 0 {
            return None;
        }
        cpu.set_untraced(cpu.untraced() + 1);
        let pid = prev.pid();
        if pid == 0 {
            // Nobody stamps the moment when a CPU goes idle: that run is lost, too, rather than the idle time booked to it.
            cpu.set_lost(cpu.lost() + 1);
            cpu.set_current(Key::NONE.0);
            blame::turn(cpu, number, since, Key::UNKNOWN.0);
            return None;
        }
        let arrival = prev.last_arrival();
        let divided = if arrival < since || arrival > now { now } else { arrival };
        let cgroup = css_set.cgroup().key;
        let split = self.splits(cpu.in_focus(cgroup));
        let key = if split { prev.process() } else { cgroup };
        cpu.set_queue(queue.address());
        cpu.set_throttled(queue.throttled());
        cpu.set_delay(prev.run_delay());
        cpu.set_first(u64::from(prev.pcount() == 1));
        cpu.set_split(u64::from(split));
        let claimed = untraced(number, pid, key.0, divided, now);
        if claimed & LONGEST != 0 {
            cpu.victim().set_longest_comm(prev.comm());
        }
        if claimed & !LONGEST != 0 {
            self.describe(claimed & !LONGEST, prev, css_set);
        }
        Some(cpu.victim())
    }

    /// The task that was just dispatched may have waited here, and before that on another queue: the kernel adds that part to its
    /// `run_delay` when it takes it off there.
    #[inline(always)]
    fn arrive(self, slot: SlotRef, next: Task, pid: u64, queue: CfsRq) {
        let delay = next.run_delay();
        let queued = next.last_queued();
        let mut wait = 0;
        if queued != 0 {
            // Both stamps are of this run queue's clock, which never goes back; were it to, the wait is nothing rather than centuries.
            wait = self.now.saturating_sub(queued);
            let throttled = queue.throttled();
            if throttled != 0 {
                self.cpu.set_queue(queue.address());
            }
            if waited(self.cpu, self.number, slot, pid, throttled, queued, self.now) {
                slot.set_longest_comm(next.comm());
            }
        }
        let Some(place) = DelayRef::get(pid, kernel::delays_mask()) else { return };
        let since = place.since(pid, delay, delay + wait);
        if since != Some(0) && delay != 0 {
            // Of a task that was never dispatched before, all there is; its place may be that of another, or of one that had its id.
            let before = if next.pcount() == 0 { delay } else { since.unwrap_or(0) };
            blame::migrated(self.cpu, self.number, before);
        }
    }

    /// Whether a task's time is booked to its process: if its cgroup is in focus, and there is room.
    #[inline(always)]
    fn splits(self, in_focus: bool) -> bool {
        in_focus && self.cpu.processes() < MAX_PROCESSES
    }

    /// Writes into a slot that was just claimed (its index and one) to whom its counts go when nobody can tell any more: a cgroup's
    /// parent; a process's cgroup and name.
    #[cold]
    #[inline(always)]
    fn describe(self, claimed: u64, task: Task, css_set: CssSet) {
        let slot = self.cpu.slot(self.generation, claimed - 1);
        let cgroup = css_set.cgroup();
        if cgroup.key.0 == slot.key() {
            slot.set_parent(cgroup.parent());
        } else if task.process().0 == slot.key() {
            slot.set_parent(cgroup.key.0);
            slot.set_comm(task.leader().comm());
        }
    }
}

/// A task is dispatched: its slot is that of the victim, should it have waited. Returns it and
/// what [`Here::describe`] wants, 0 for nothing.
#[inline(always)]
fn enter(cpu: Cpu, number: u32, key: Key) -> (SlotRef, u64) {
    let (index, slot, fresh) = cpu.find(number, cpu.turned(), key);
    slot.dispatched();
    cpu.set_current(key.0);
    cpu.set_current_slot(index);
    if !fresh || index >= OTHER_SLOT as u64 {
        return (slot, 0);
    }
    if cpu.split() != 0 {
        cpu.set_processes(cpu.processes() + 1);
    }
    (slot, index + 1)
}

/// A wait of the task that was just dispatched ended at `until`, this CPU's last switch. `throttled` is how long a quota has stopped its
/// queue so far. Returns whether it is its party's longest one, whose `comm` is wanted.
#[inline(always)]
fn waited(cpu: Cpu, number: u32, slot: SlotRef, pid: u64, throttled: u64, queued: u64, until: u64) -> bool {
    let wait = until.saturating_sub(queued);
    slot.waited(wait, latency::bucket(wait));
    let culprit = blame::blame(cpu, number, slot, throttled, queued, until);
    let longest = wait > slot.longest();
    if longest {
        slot.set_longest(wait);
        slot.set_longest_tid(pid);
        slot.set_longest_culprit(culprit);
    }
    longest
}

/// In the result of [`untraced`]: the wait was its party's longest one.
const LONGEST: u64 = 1 << 32;

/// Books a dispatch at `divided` that was not reported, of a task that leaves at `now`: the run before it, its own, and the wait before that,
/// which is what the task's `run_delay` has grown by since it was last dispatched. The caller wrote the rest into this CPU's state.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn untraced(number: u32, pid: u64, key: u64, divided: u64, now: u64) -> u64 {
    let Some(cpu) = Cpu::get(number) else { return 0 };
    if cpu.current() != Key::NONE.0 {
        cpu.victim().ran(divided - cpu.since());
    }
    cpu.set_since(divided);
    cpu.set_css_set(0);
    let (slot, mut claimed) = enter(cpu, number, Key(key));
    let delay = cpu.delay();
    if let Some(place) = DelayRef::get(pid, kernel::delays_mask()) {
        match place.since(pid, delay, delay).or(if cpu.first() != 0 { Some(delay) } else { None }) {
            Some(wait) => {
                if waited(cpu, number, slot, pid, cpu.throttled(), divided.saturating_sub(wait), divided) {
                    claimed |= LONGEST;
                }
            }
            None => cpu.set_lost(cpu.lost() + 1),
        }
    }
    blame::turn(cpu, number, divided, key);
    slot.ran(now - divided);
    claimed
}

/// The first switch of a generation. It keeps who ran when the generation began, and since when, so that user space can tell the run
/// that was open then; and it finds who runs a slot in the new table.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn turn_over(number: u32, generation: u64, now: u64) -> u64 {
    let Some(cpu) = Cpu::get(number) else { return 0 };
    cpu.set_turned_at(now);
    cpu.set_turned_current(cpu.current());
    cpu.set_turned_since(cpu.since());
    cpu.set_processes(0);
    // Whether it is in focus is to be asked again.
    cpu.set_css_set(0);
    if cpu.current() != Key::NONE.0 {
        // Its task may be somewhere else by now, but the slot of the dispatch has its description. It may lie in the place of the new one.
        let former = cpu.slot(cpu.turned(), cpu.current_slot());
        let (parent, comm) = (former.parent(), [former.comm_first(), former.comm_second()]);
        let (index, slot, fresh) = cpu.find(number, generation, Key(cpu.current()));
        if fresh && index < OTHER_SLOT as u64 {
            slot.set_parent(parent);
            slot.set_comm(comm);
        }
        cpu.set_current_slot(index);
    }
    cpu.set_turned(generation);
    0
}

/// Books what was taken since this CPU's last switch to whom it was taken from: the task that leaves, or nobody.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn book(number: u32, steal: u64, interrupt: u64, since: u64) -> u64 {
    let Some(cpu) = Cpu::get(number) else { return 0 };
    let slot = holder(cpu, number);
    slot.taken(steal, interrupt);
    blame::cut(cpu, number, since, steal, interrupt);
    0
}

/// Books what the memory family counted since this CPU's last switch to who held the CPU meanwhile.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn book_use(number: u32) -> u64 {
    let Some(cpu) = Cpu::get(number) else { return 0 };
    cpu.used().move_to(holder(cpu, number).used());
    0
}

/// The slot of who held the CPU until now, nobody included.
#[inline(always)]
fn holder(cpu: Cpu, number: u32) -> SlotRef {
    if cpu.current() == Key::NONE.0 { cpu.find(number, cpu.turned(), Key::IDLE).1 } else { cpu.victim() }
}

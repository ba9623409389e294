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

use aya_ebpf::helpers::bpf_get_current_comm;
use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use observer_common::latency;
use observer_common::locality::{AWAY, NEW, Reason, UNKNOWN, move_place};
use observer_common::sched::{Key, MAX_PROCESSES, OTHER_SLOT};
use observer_common::tasks::TASK_DEAD;

use crate::blame;
use crate::kernel::{self, CfsRq, CssSet, RunQueue, Task};
use crate::maps::{self, Cpu, DelayRef, Sleep, SlotRef};

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
    let length = u64::from(run_queue.length());
    let queued = next.last_queued();
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
    if kernel::has_siblings() {
        share(number, now);
    }
    here.queued(queued);
    cpu.set_dispatch(if pid == 0 { 0 } else { length });
    cpu.set_current_pid(pid);
    cpu.set_since(now);
    if pid == 0 {
        cpu.set_current(Key::NONE.0);
        blame::turn(cpu, number, now, Key::IDLE.0);
    } else if same && cpu.current() == cgroup.0 {
        let slot = cpu.victim();
        slot.dispatched();
        here.arrive(slot, next, pid, queued, queue_of_next);
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
        here.arrive(slot, next, pid, queued, queue_of_next);
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
        if self.cpu.dispatch() >> AWAY_SHIFT != 0 {
            ran_away(self.number, self.now - self.since);
        }
        Some(slot)
    }

    /// Books the time since the last switch by the length of the queue then; who is dispatched next may have joined it meanwhile. Others that
    /// did and still wait are seen from this switch on.
    #[inline(always)]
    fn queued(self, joined: u64) {
        if self.since == 0 {
            return;
        }
        let length = self.cpu.dispatch() & LENGTH_MASK;
        let mut time = self.now - self.since;
        if joined > self.since {
            let joined = self.now.saturating_sub(joined);
            self.cpu.queued(length + 1, joined);
            time = time.saturating_sub(joined);
        }
        self.cpu.queued(length, time);
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
        } else if state == TASK_INTERRUPTIBLE {
            // Most just sleep.
        } else if state & TASK_DEAD != 0 {
            slot.set_exited(slot.exited() + prev.run_delay());
            let pid = prev.pid();
            if let Some(place) = DelayRef::get(pid, kernel::delays_mask()) {
                place.clear(pid);
            }
        } else if prev.in_iowait() {
            slot.slept(Sleep::Io);
        } else if state & (TASK_UNINTERRUPTIBLE | TASK_NOLOAD) == TASK_UNINTERRUPTIBLE {
            slot.slept(Sleep::Uninterruptible);
        } else if state & (TASK_STOPPED | TASK_TRACED) != 0 {
            slot.slept(Sleep::Stopped);
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
    fn arrive(self, slot: SlotRef, next: Task, pid: u64, queued: u64, queue: CfsRq) {
        let delay = next.run_delay();
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
        if !place.is_as_expected(pid, delay, delay + wait) {
            came(self.number, pid, delay, wait, u64::from(next.pcount() == 0));
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

/// Where [`CpuState::dispatch`](observer_common::sched::CpuState::dispatch) says how a dispatch was away.
const AWAY_SHIFT: u32 = 32;
const LENGTH_MASK: u64 = (1 << AWAY_SHIFT) - 1;

/// Task states (include/linux/sched.h). No BTF names them; `TASK_NOLOAD` is that of kernel threads that are idle.
const TASK_INTERRUPTIBLE: u32 = 0x1;
const TASK_UNINTERRUPTIBLE: u32 = 0x2;
const TASK_STOPPED: u32 = 0x4;
const TASK_TRACED: u32 = 0x8;
const TASK_NOLOAD: u32 = 0x400;

/// The task that was just dispatched is not remembered as it is: it waited on other queues before it was moved to this one, was moved, has
/// never run (`is_new`), or has not run since observer looks.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn came(number: u32, pid: u64, delay: u64, wait: u64, is_new: u64) -> u64 {
    let Some(cpu) = Cpu::get(number) else { return 0 };
    let Some(place) = DelayRef::get(pid, kernel::delays_mask()) else { return 0 };
    // Of a task that was never dispatched before, all there is; its place may be that of another, or of one that had its id.
    match place.since(pid, delay, delay + wait) {
        Some((before, moved)) => {
            if before != 0 {
                blame::migrated(cpu, number, if is_new != 0 { delay } else { before });
            }
            if moved {
                away(number, pid, UNKNOWN as u64);
            }
        }
        None => {
            if is_new != 0 && delay != 0 {
                blame::migrated(cpu, number, delay);
            }
            away(number, pid, if is_new != 0 { NEW as u64 } else { AWAY as u64 });
        }
    }
    0
}

/// Books how long the core's other thread was busy during the run that ends now. Its own state may change meanwhile: then it is a moment off,
/// never more than the run.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn share(number: u32, now: u64) -> u64 {
    let Some(cpu) = Cpu::get(number) else { return 0 };
    let sibling = cpu.sibling();
    if sibling == 0 {
        return 0;
    }
    let Some(other) = Cpu::get((sibling - 1) as u32) else { return 0 };
    // The clocks of run queues are one clock, but each was read when its CPU last needed it.
    let goes_on = if other.current_pid() == 0 { 0 } else { now.saturating_sub(other.since()) };
    let busy = other.busy() + goes_on;
    if cpu.current() != Key::NONE.0 {
        let ran = now - cpu.since();
        cpu.set_busy(cpu.busy() + ran);
        let slot = cpu.victim();
        slot.set_shared(slot.shared() + busy.saturating_sub(cpu.beside()).min(ran));
    }
    cpu.set_beside(busy);
    0
}

/// Books a run's time, if its task came to it from elsewhere.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ran_away(number: u32, time: u64) -> u64 {
    let Some(cpu) = Cpu::get(number) else { return 0 };
    let how = cpu.dispatch() >> AWAY_SHIFT;
    if how != 0 {
        cpu.victim().ran_away(how - 1, time);
    }
    0
}

/// Books that the task that was just dispatched came from elsewhere: from where it ran last, if that is remembered, else as `otherwise`
/// says.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn away(number: u32, pid: u64, otherwise: u64) -> u64 {
    let Some(cpu) = Cpu::get(number) else { return 0 };
    let how = match maps::forget_origin(pid, kernel::moved_mask()) {
        // There and back.
        Some(from) if from == number => return 0,
        Some(from) => match Cpu::get(from) {
            Some(from) => from.distance(cpu) as u64,
            None => UNKNOWN as u64,
        },
        None => otherwise,
    };
    if how < AWAY as u64 {
        cpu.victim().dispatched_away(how);
        cpu.set_dispatch(cpu.dispatch() & LENGTH_MASK | (how + 1) << AWAY_SHIFT);
    }
    0
}

/// `sched_migrate_task(struct task_struct *p, int dest_cpu)`: before the task is moved, and sometimes when it is not.
#[btf_tracepoint(function = "sched_migrate_task")]
#[expect(clippy::needless_pass_by_value, reason = "the macro calls it so")]
pub(crate) fn sched_migrate_task(ctx: BtfTracePointContext) -> i32 {
    let task = Task(ctx.arg(0));
    let to: u32 = ctx.arg(1);
    let cgroup = task.css_set().cgroup();
    let (from, tid, state, on_rq) = (task.cpu(), task.pid(), task.state(), task.on_rq());
    if from == to {
        return 0;
    }
    let number = kernel::this_cpu();
    let (Some(cpu), Some(origin), Some(target)) = (Cpu::get(number), Cpu::get(from), Cpu::get(to)) else { return 0 };
    let reason = if on_rq == 0 {
        Reason::WakeUp
    } else if state == 0 && task.may_run_on(from) && !by_stopper() {
        Reason::Balance
    } else {
        Reason::Other
    };
    let place = move_place(reason, origin.distance(target));
    origin.moved(target, place);
    let is_known = DelayRef::get(tid, kernel::delays_mask()).is_some_and(|place| place.moves(tid));
    maps::remember_origin(tid, kernel::moved_mask(), is_known, from);
    let generation = cpu.generation();
    if cpu.turned() != generation && cpu.current() != Key::NONE.0 {
        carry_over(cpu, number, generation);
    }
    let (index, slot, fresh) = cpu.find(number, generation, cgroup.key);
    slot.moved(place);
    if fresh && index < OTHER_SLOT as u64 {
        slot.set_parent(cgroup.parent());
    }
    0
}

/// Whether the kernel's stopper thread is at work: it moves tasks that call `exec`, and those that run.
#[inline(always)]
fn by_stopper() -> bool {
    bpf_get_current_comm().is_ok_and(|comm| comm.starts_with(b"migration/"))
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
        ran_away(number, divided - cpu.since());
    }
    cpu.set_since(divided);
    cpu.set_css_set(0);
    cpu.set_dispatch(cpu.dispatch() & LENGTH_MASK);
    let (slot, mut claimed) = enter(cpu, number, Key(key));
    let delay = cpu.delay();
    if let Some(place) = DelayRef::get(pid, kernel::delays_mask()) {
        match place.since(pid, delay, delay).or(if cpu.first() != 0 { Some((delay, false)) } else { None }) {
            Some((wait, moved)) => {
                if moved {
                    away(number, pid, UNKNOWN as u64);
                }
                if waited(cpu, number, slot, pid, cpu.throttled(), divided.saturating_sub(wait), divided) {
                    claimed |= LONGEST;
                }
            }
            None => cpu.set_lost(cpu.lost() + 1),
        }
    }
    blame::turn(cpu, number, divided, key);
    slot.ran(now - divided);
    ran_away(number, now - divided);
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
        let index = carry_over(cpu, number, generation);
        cpu.set_current_slot(index);
    }
    cpu.set_turned(generation);
    0
}

/// Finds who runs a slot in a new generation's table. Its task may be somewhere else by now, but the slot of the dispatch has its description.
/// That may lie in the place of the new one, and in a table that is used again if this CPU has not switched for long: so this comes
/// before anything else is put there.
#[inline(always)]
fn carry_over(cpu: Cpu, number: u32, generation: u64) -> u64 {
    let former = cpu.slot(cpu.turned(), cpu.current_slot());
    let (parent, comm) = (former.parent(), [former.comm_first(), former.comm_second()]);
    let (index, slot, fresh) = cpu.find(number, generation, Key(cpu.current()));
    if fresh && index < OTHER_SLOT as u64 {
        slot.set_parent(parent);
        slot.set_comm(comm);
    }
    index
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

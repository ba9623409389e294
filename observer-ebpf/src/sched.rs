//! Question: who ran, who waited, how long, on which CPU?
//!
//! Hook: `tp_btf/sched_switch`, alone. The kernel itself stamps the moment a task begins to wait (`sched_info.last_queued`), and this
//! tracepoint fires before the stamp is cleared: so there is no wake-up hook, no map keyed by pid and no clock read.
//! Cost: one array look-up, about twenty loads and ten stores a switch; `cargo xtask bench` measures it.
//! Needs: BTF, CONFIG_SCHED_INFO, CONFIG_FAIR_GROUP_SCHED; kernel 5.5 for mappable arrays, 5.8 for the log's ring buffer.
//! Lost without it: run-queue waits and their histogram, exact run time, preemptions; what /proc and cgroup files tell remains.
//!
//! Interrupts are off here and the run queue is locked, so the hook never meets itself on one CPU.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use aya_log_ebpf::warn;
use observer_common::latency;
use observer_common::sched::{Key, OTHER_SLOT};

use crate::kernel::{self, RunQueue, Task};
use crate::maps::{Cpu, SlotRef};

/// `sched_switch(bool preempt, struct task_struct *prev, struct task_struct *next, unsigned int prev_state)`
#[btf_tracepoint(function = "sched_switch")]
#[expect(clippy::needless_pass_by_value, reason = "the macro calls it so")]
pub(crate) fn sched_switch(ctx: BtfTracePointContext) -> i32 {
    let prev = Task(ctx.arg(1));
    let next = Task(ctx.arg(2));
    let run_queue = prev.run_queue();
    let now = run_queue.clock();
    let Some(cpu) = Cpu::get(run_queue.cpu()) else { return 0 };
    let generation = cpu.generation();

    let since = cpu.since();
    let taken = Taken::since_last(cpu, run_queue);
    if cpu.current_pid() == prev.pid() {
        leave(&ctx, cpu, generation, prev, since, now);
    } else if since != 0 {
        untraced(&ctx, cpu, generation, prev, since, now);
    }
    if taken.is_some() && since != 0 {
        book(cpu, generation, prev, &taken);
    }
    let pid = next.pid();
    cpu.set_current_pid(pid);
    cpu.set_since(now);
    if pid == 0 {
        cpu.set_current(Key::NONE.0);
    } else {
        let (slot, full) = enter(cpu, generation, next);
        if full {
            table_full(&ctx);
        }
        let queued = next.last_queued();
        if queued != 0 {
            // Both stamps are of this run queue's clock, which never goes back; were it to, the wait is nothing rather than centuries.
            let wait = now.saturating_sub(queued);
            slot.waited(wait, latency::bucket(wait));
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

/// Books it to whom it was taken from: the task that leaves, or nobody.
#[inline(always)]
fn book(cpu: Cpu, generation: u64, prev: Task, taken: &Taken) {
    let slot = if cpu.current() != Key::NONE.0 { current(cpu, generation, prev) } else { cpu.find(generation, Key::IDLE).1 };
    slot.taken(taken.steal, taken.interrupt);
}

/// The run of the task that was dispatched last ends, and this is it. It is booked to the cgroup in which it was dispatched.
#[inline(always)]
fn leave(ctx: &BtfTracePointContext, cpu: Cpu, generation: u64, prev: Task, since: u64, now: u64) {
    if cpu.current() == Key::NONE.0 {
        return;
    }
    let slot = current(cpu, generation, prev);
    slot.ran(now - since);
    left(ctx, cpu, slot, prev, now);
}

/// Books how a run ended.
#[inline(always)]
fn left(ctx: &BtfTracePointContext, cpu: Cpu, slot: SlotRef, prev: Task, now: u64) {
    let preempt: u64 = ctx.arg(0);
    let state = if kernel::switch_has_state() { ctx.arg(3) } else { prev.state() };
    let preempted = preempt & 1 != 0 || state == 0;
    slot.left(preempted);
    if preempted && cpu.untraced() != 0 {
        cpu.depart(prev.pid(), prev.pcount(), now);
    }
}

/// Somebody else leaves than was last seen to come: the kernel did not report a switch in between (some kernels hide those of tasks
/// that they protect). The kernel's own stamp of the dispatch divides the time between the two. The wait before it is known where the
/// task had been preempted on this CPU, and lost where it had slept.
#[cold]
#[inline(always)]
fn untraced(ctx: &BtfTracePointContext, cpu: Cpu, generation: u64, prev: Task, since: u64, now: u64) {
    cpu.set_untraced(cpu.untraced() + 1);
    let pid = prev.pid();
    if pid == 0 {
        // Nobody stamps the moment when a CPU goes idle: that run is lost, too, rather than the idle time booked to it.
        cpu.set_lost(cpu.lost() + 1);
        return;
    }
    let arrival = prev.last_arrival();
    let divided = if arrival < since || arrival > now { now } else { arrival };
    if cpu.current() != Key::NONE.0 {
        current(cpu, generation, prev).ran(divided - since);
    }
    let (slot, _) = enter(cpu, generation, prev);
    match cpu.departed(pid, prev.pcount()) {
        Some(queued) if queued <= arrival => slot.waited(arrival - queued, latency::bucket(arrival - queued)),
        _ => cpu.set_lost(cpu.lost() + 1),
    }
    slot.ran(now - divided);
    left(ctx, cpu, slot, prev, now);
}

/// The slot of who was dispatched last.
#[inline(always)]
fn current(cpu: Cpu, generation: u64, prev: Task) -> SlotRef {
    if cpu.current_generation() == generation {
        return cpu.slot(generation, cpu.current_slot());
    }
    // User space has begun a new generation since the dispatch.
    let key = Key(cpu.current());
    let (index, slot, fresh) = cpu.find(generation, key);
    if fresh && index != OTHER_SLOT as u64 {
        let cgroup = prev.cgroup();
        if cgroup.key == key {
            slot.set_parent(cgroup.parent());
        }
    }
    slot
}

/// A task is dispatched. Returns its slot, and whether the table has just been found full.
#[inline(always)]
fn enter(cpu: Cpu, generation: u64, task: Task) -> (SlotRef, bool) {
    let cgroup = task.cgroup();
    let (index, slot, fresh) = cpu.find(generation, cgroup.key);
    let full = fresh && index == OTHER_SLOT as u64;
    if fresh && !full {
        slot.set_parent(cgroup.parent());
    }
    slot.dispatched();
    cpu.set_current(cgroup.key.0);
    cpu.set_current_slot(index);
    cpu.set_current_generation(generation);
    (slot, full)
}

/// Once a CPU and generation at the most.
#[cold]
#[inline(always)]
fn table_full(ctx: &BtfTracePointContext) {
    warn!(ctx, "scheduler table full: a cgroup goes to the row ~other until the next reading");
}

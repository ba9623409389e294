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

use crate::kernel::{self, Task};
use crate::maps::Cpu;

/// `sched_switch(bool preempt, struct task_struct *prev, struct task_struct *next, unsigned int prev_state)`
#[btf_tracepoint(function = "sched_switch")]
pub(crate) fn sched_switch(ctx: BtfTracePointContext) -> i32 {
    let prev = Task(ctx.arg(1));
    let next = Task(ctx.arg(2));
    let run_queue = prev.run_queue();
    let now = run_queue.clock();
    let Some(cpu) = Cpu::get(run_queue.cpu()) else { return 0 };
    let generation = cpu.generation();

    leave(&ctx, cpu, generation, prev, now);
    if next.is_idle() {
        cpu.set_current(Key::NONE.0);
    } else {
        enter(&ctx, cpu, generation, next, now);
    }
    cpu.set_since(now);
    0
}

/// The run of the leaving task ends. It is booked to the cgroup in which the task was dispatched.
#[inline(always)]
fn leave(ctx: &BtfTracePointContext, cpu: Cpu, generation: u64, prev: Task, now: u64) {
    let current = Key(cpu.current());
    if current == Key::NONE {
        return;
    }
    let slot = if cpu.current_generation() == generation {
        cpu.slot(generation, cpu.current_slot())
    } else {
        // User space has begun a new generation since the dispatch.
        let (index, slot, fresh) = cpu.find(generation, current);
        if fresh {
            let cgroup = prev.cgroup();
            if index == OTHER_SLOT as u64 {
                table_full(ctx);
            } else if cgroup.key == current {
                slot.set_parent(cgroup.parent());
            }
        }
        slot
    };
    let preempt: u64 = ctx.arg(0);
    let state = if kernel::switch_has_state() { ctx.arg(3) } else { prev.state() };
    slot.ran(now - cpu.since(), preempt & 1 != 0 || state == 0);
}

/// The next task is dispatched: its wait, if it waited, ends.
#[inline(always)]
fn enter(ctx: &BtfTracePointContext, cpu: Cpu, generation: u64, next: Task, now: u64) {
    let cgroup = next.cgroup();
    let (index, slot, fresh) = cpu.find(generation, cgroup.key);
    if fresh {
        if index == OTHER_SLOT as u64 {
            table_full(ctx);
        } else {
            slot.set_parent(cgroup.parent());
        }
    }
    slot.dispatched();
    let queued = next.last_queued();
    if queued != 0 {
        // Both stamps are of this run queue's clock, which never goes back; were it to, the wait is nothing rather than centuries.
        let wait = if now > queued { now - queued } else { 0 };
        slot.waited(wait, latency::bucket(wait));
    }
    cpu.set_current(cgroup.key.0);
    cpu.set_current_slot(index);
    cpu.set_current_generation(generation);
}

/// Once a CPU and generation at the most.
#[cold]
#[inline(always)]
fn table_full(ctx: &BtfTracePointContext) {
    warn!(ctx, "scheduler table full: a cgroup goes to the row ~other until the next reading");
}

//! Question: what did the page allocator give, and how long did it let tasks wait for it?
//!
//! Hooks: `tp_btf/mm_page_alloc` counts; `mm_page_alloc_extfrag` counts blocks that another migratetype had to give; a pair of tracepoints
//! around direct reclaim, memcg reclaim and direct compaction each times a stall.
//! Cost: an allocation, one look-up and four words of this CPU's own memory (`cargo xtask bench pages`); a stall, three more look-ups;
//! a long one, an entry in a ring.
//! Needs: the tracepoints; the current task as a typed pointer (5.11) to tell what of a stall was spent on a CPU, waiting or asleep.
//! Lost without it: pages by order, migratetype and class, by cgroup; stalls. `/proc/vmstat` tells the machine's sums.
//!
//! Whose cgroup it was: what comes between two switches is left in the CPU's state, and the scheduler hook books it to who leaves. An
//! allocation in an interrupt counts for the task that it interrupted, as its time does.

use aya_ebpf::helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid};
use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use observer_common::latency;
use observer_common::memory::{Class, Going, LONG, LongStall, MOVABLE, Stall, StallKey};

use crate::kernel::{Task, now, this_cpu};
use crate::maps::{self, Cpu};

/// `mm_page_alloc(struct page *page, unsigned int order, gfp_t gfp_flags, int migratetype)`; no page when it failed.
#[btf_tracepoint(function = "mm_page_alloc")]
#[expect(clippy::needless_pass_by_value, reason = "the macro calls it so")]
pub(crate) fn page_alloc(ctx: BtfTracePointContext) -> i32 {
    let Some(cpu) = Cpu::get(this_cpu()) else { return 0 };
    let page: u64 = ctx.arg(0);
    let order: u32 = ctx.arg(1);
    let flags: u32 = ctx.arg(2);
    let migratetype: u32 = ctx.arg(3);
    let class = Class::of(u64::from(flags));
    let used = cpu.used();
    if order == 0 && migratetype as usize == MOVABLE && class == Class::User && page != 0 {
        // At `COMMON`.
        cpu.set_common(cpu.common() + 1);
        used.set_pages(used.pages() + 1);
        return 0;
    }
    if page == 0 {
        cpu.failed(class as usize);
        return 0;
    }
    cpu.allocated(order as usize, migratetype as usize, class as usize);
    used.set_pages(used.pages() + (1 << (order & 31)));
    0
}

/// `mm_page_alloc_extfrag(struct page *page, int alloc_order, int fallback_order, int alloc_migratetype, int fallback_migratetype)`
#[btf_tracepoint(function = "mm_page_alloc_extfrag")]
#[expect(clippy::needless_pass_by_value, reason = "the macro calls it so")]
pub(crate) fn page_fallback(ctx: BtfTracePointContext) -> i32 {
    let Some(cpu) = Cpu::get(this_cpu()) else { return 0 };
    let gave: u32 = ctx.arg(4);
    cpu.fell_back(gave as usize);
    0
}

macro_rules! stall {
    ($kind:expr, $begin:ident on $begins:literal, $end:ident on $ends:literal) => {
        /// The task begins to do the allocator's work.
        #[btf_tracepoint(function = $begins)]
        pub(crate) fn $begin(_ctx: BtfTracePointContext) -> i32 {
            begin($kind)
        }

        /// It has done it.
        #[btf_tracepoint(function = $ends)]
        pub(crate) fn $end(_ctx: BtfTracePointContext) -> i32 {
            end($kind)
        }
    };
}

stall!(
    Stall::Reclaim,
    reclaim_begin on "mm_vmscan_direct_reclaim_begin",
    reclaim_end on "mm_vmscan_direct_reclaim_end"
);
stall!(
    Stall::MemcgReclaim,
    memcg_reclaim_begin on "mm_vmscan_memcg_reclaim_begin",
    memcg_reclaim_end on "mm_vmscan_memcg_reclaim_end"
);
stall!(Stall::Compaction, compaction_begin on "mm_compaction_begin", compaction_end on "mm_compaction_end");

#[inline(always)]
fn begin(kind: Stall) -> i32 {
    // The kernel's own thread compacts in the background: that is nobody's stall.
    if kind == Stall::Compaction && bpf_get_current_comm().is_ok_and(|comm| comm.starts_with(b"kcompactd")) {
        return 0;
    }
    let (run_delay, runtime) = Task::current().map_or((0, 0), |task| (task.run_delay(), task.sum_exec_runtime()));
    let going = Going { since: now(), run_delay, runtime, kind: kind as u64 };
    if !maps::stall_begins(this_thread(), &going)
        && let Some(cpu) = Cpu::get(this_cpu())
    {
        cpu.stall_lost();
    }
    0
}

#[inline(always)]
fn end(kind: Stall) -> i32 {
    let Some(going) = maps::stall_ends(this_thread(), kind) else { return 0 };
    let Some(cpu) = Cpu::get(this_cpu()) else { return 0 };
    let time = now().saturating_sub(going.since);
    cpu.stalls(kind as u64).add(time, latency::bucket(time));
    let used = cpu.used();
    used.set_stalls(used.stalls() + 1);
    used.set_stalled(used.stalled() + time);
    let cgroup = Task::current().map_or(0, |task| task.css_set().cgroup().key.0);
    if cgroup != 0 && !maps::count_stall(&StallKey { cgroup, kind: kind as u64 }, time, latency::bucket(time)) {
        cpu.stall_unplaced();
    }
    if time >= LONG {
        tell(cpu, cgroup, kind, time);
    }
    if let Some(task) = Task::current() {
        let waited = task.run_delay().saturating_sub(going.run_delay).min(time);
        let ran = task.sum_exec_runtime().saturating_sub(going.runtime).min(time - waited);
        used.set_waited(used.waited() + waited);
        used.set_slept(used.slept() + (time - waited - ran));
    }
    0
}

/// Rare, so that each can be told with its name.
#[inline(always)]
fn tell(cpu: Cpu, cgroup: u64, kind: Stall, time: u64) {
    let comm = bpf_get_current_comm().unwrap_or_default();
    let stall = LongStall { cgroup, time, tid: u64::from(this_thread()), kind: kind as u64, comm };
    if !maps::tell_stall(&stall) {
        cpu.stall_untold();
    }
}

#[inline(always)]
fn this_thread() -> u32 {
    bpf_get_current_pid_tgid() as u32
}

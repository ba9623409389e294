//! Question: for whom did a task wait?
//!
//! Hook: none of its own; the scheduler hook calls it. A wait that ends is divided by who held this CPU meanwhile: the time goes to
//! cells of (victim, culprit), whose sum is the wait to the nanosecond. See `observer_common::blame` for what is remembered.
//! Cost: one cell for a wait within the newest segment, which most are; the rest is in functions of its own.
//! Lost without it: nothing is; it is part of the scheduler family.
//!
//! The functions that are not inlined are global ones: the verifier walks each once, and the object loads in a third of the time.
//! They take numbers only; the victim is who was dispatched last, the generation that of this CPU's last switch.
#![allow(unsafe_code, reason = "#[unsafe(no_mangle)] on global functions; no unsafe block")]

use observer_common::blame::{LEVEL_SHIFT, LEVELS, SEGMENTS, SHARES, THROTTLINGS, WINDOW_SHIFT, WINDOWS, scaled};
use observer_common::sched::Key;

use crate::maps::{CellRef, Cpu, SegmentRef, SlotRef, WindowRef};

/// Divides the wait of the task that was just dispatched, whose queue, if a quota has ever stopped it, is this CPU's `queue`. Returns who
/// ran for its longest stretch.
#[inline(always)]
pub(crate) fn blame(cpu: Cpu, number: u32, slot: SlotRef, throttled: u64, queued: u64, now: u64) -> u64 {
    if throttled != 0 {
        return under_quota(number, throttled, queued);
    }
    let newest = cpu.segment_at(cpu.segment());
    if newest.start() <= queued && !newest.is_cut() {
        let owner = newest.owner();
        charge(cpu, number, (slot.generation(), slot.key()), owner, now.saturating_sub(queued));
        return owner;
    }
    walk(number, queued, now)
}

/// The task that was just dispatched waited on another queue before it was moved to this one.
#[inline(always)]
pub(crate) fn migrated(cpu: Cpu, number: u32, time: u64) {
    let slot = cpu.victim();
    slot.set_migrated(slot.migrated() + time);
    claim(number, Key::MIGRATED.0, time);
}

/// From `start` on somebody else has the CPU, or the same one after all.
#[inline(always)]
pub(crate) fn turn(cpu: Cpu, number: u32, start: u64, owner: u64) {
    let newest = cpu.segment_at(cpu.segment());
    if newest.owner() != owner || newest.is_cut() {
        begin(cpu, number, newest, start, owner);
    }
}

/// Something was taken from the run that began at `since` and ends now.
#[inline(always)]
pub(crate) fn cut(cpu: Cpu, number: u32, since: u64, steal: u64, interrupt: u64) {
    let mut run = cpu.segment_at(cpu.segment());
    if run.start() < since {
        begin(cpu, number, run, since, run.owner());
        run = cpu.segment_at(cpu.segment());
    }
    run.set_steal(run.steal() + steal);
    run.set_interrupt(run.interrupt() + interrupt);
}

#[inline(always)]
fn begin(cpu: Cpu, number: u32, newest: SegmentRef, start: u64, owner: u64) {
    if newest.start() >= start {
        // Nothing had come of it.
        return newest.set_owner(owner);
    }
    let next = cpu.segment() + 1;
    let place = cpu.segment_at(next);
    if place.owner() != 0 {
        forget(cpu, number, place, cpu.segment_at(next + 1).start());
    }
    place.begin(start, owner);
    cpu.set_segment(next);
}

/// The oldest segment goes to the newest window.
#[inline(always)]
fn forget(cpu: Cpu, number: u32, oldest: SegmentRef, end: u64) {
    let window = cpu.window_at(0, cpu.window(0));
    let start = window.start();
    if start != 0 && end - start < 1 << WINDOW_SHIFT && !oldest.is_cut() {
        let owner = oldest.owner();
        // Most storms are of two.
        let (first, second) = (window.share(0), window.share(1));
        let share = if first.owner() == owner { first } else { second };
        if share.owner() == owner {
            return share.set_time(share.time() + (end - oldest.start()));
        }
    }
    age(number);
}

/// As [`forget`], in all cases: the next segment's place is given up.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn age(number: u32) -> u64 {
    let Some(cpu) = Cpu::get(number) else { return 0 };
    let next = cpu.segment() + 1;
    let oldest = cpu.segment_at(next);
    let (start, end) = (oldest.start(), cpu.segment_at(next + 1).start());
    let mut window = cpu.window_at(0, cpu.window(0));
    if window.start() == 0 {
        window.begin(start);
    } else if end - window.start() >= 1 << WINDOW_SHIFT {
        roll(number, start);
        window = cpu.window_at(0, cpu.window(0));
    }
    let (steal, interrupt) = (oldest.steal(), oldest.interrupt());
    let taken = steal + interrupt;
    add(window, oldest.owner(), (end - start).saturating_sub(taken));
    if taken != 0 {
        add(window, Key::HYPERVISOR.0, steal);
        add(window, Key::INTERRUPT.0, interrupt);
        oldest.set_steal(0);
        oldest.set_interrupt(0);
    }
    0
}

/// A new window on the first level; what falls out of each level joins the next one's newest window, or begins a new one.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn roll(number: u32, start: u64) -> u64 {
    let mut start = start;
    let mut level = 0;
    while level < LEVELS as u64 {
        start = roll_level(number, level, start);
        if start == 0 {
            break;
        }
        level += 1;
    }
    0
}

/// A new window on one level. What comes from the level before is in that one's carry. Returns where the next level's new window has
/// to begin, 0 when it needs none.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn roll_level(number: u32, level: u64, start: u64) -> u64 {
    let Some(cpu) = Cpu::get(number) else { return 0 };
    let level = level as usize;
    let next = cpu.window(level) + 1;
    let place = cpu.window_at(level, next);
    let end = cpu.window_at(level, next + 1).start();
    let carry = cpu.carry(level);
    carry.copy(place);
    place.begin(start);
    cpu.set_window(level, next);
    if level > 0 {
        join(place, cpu.carry(level + 1));
    }
    let above = level + 1;
    if carry.start() == 0 || above >= LEVELS {
        return 0;
    }
    let newest = cpu.window_at(above, cpu.window(above));
    if newest.start() == 0 {
        newest.begin(carry.start());
    }
    if end - newest.start() > 1 << (WINDOW_SHIFT + LEVEL_SHIFT * above as u64) {
        return carry.start();
    }
    join(newest, carry);
    0
}

#[inline(always)]
fn join(window: WindowRef, other: WindowRef) {
    let mut index = 0;
    while index < SHARES {
        let share = other.share(index);
        if share.owner() == 0 {
            break;
        }
        add(window, share.owner(), share.time());
        index += 1;
    }
}

/// Adds to an owner's share. Where there is none and no room, the smallest makes way, to be unknown, or the newcomer is.
#[inline(always)]
fn add(window: WindowRef, owner: u64, time: u64) {
    if time == 0 {
        return;
    }
    let mut smallest = 0;
    let mut least = u64::MAX;
    let mut index = 0;
    while index < SHARES {
        let share = window.share(index);
        if share.owner() == owner || share.owner() == 0 {
            share.set_owner(owner);
            share.set_time(share.time() + time);
            return;
        }
        if share.time() < least {
            (smallest, least) = (index, share.time());
        }
        index += 1;
    }
    if least < time {
        window.share(smallest).set_owner(owner);
        window.share(smallest).set_time(time);
    }
}

/// Books time to the victim's cell with a culprit.
#[inline(always)]
fn charge(cpu: Cpu, number: u32, (generation, victim): (u64, u64), culprit: u64, time: u64) {
    let cell = cpu.cell(generation, CellRef::home(victim, culprit));
    if cell.is(generation, victim, culprit) {
        return cell.set_time(cell.time() + time);
    }
    claim(number, culprit, time);
}

/// As [`charge`], in all cases.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn claim(number: u32, culprit: u64, time: u64) -> u64 {
    let Some(cpu) = Cpu::get(number) else { return 0 };
    if time == 0 {
        return 0;
    }
    let slot = cpu.victim();
    let (generation, victim) = (slot.generation(), slot.key());
    let home = CellRef::home(victim, culprit);
    let mut probe = 0;
    while probe < CellRef::PROBES {
        let cell = cpu.cell(generation, home + probe);
        if cell.generation() != generation {
            cell.claim(generation, victim, culprit);
        }
        if cell.is(generation, victim, culprit) {
            cell.set_time(cell.time() + time);
            return 0;
        }
        probe += 1;
    }
    slot.set_other(slot.other() + time);
    0
}

/// Divides what the victim waited between two moments by the segments, and what is older by the windows. The newest segment ends at
/// this CPU's last switch. Returns the owner of the longest stretch.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn walk(number: u32, from: u64, to: u64) -> u64 {
    let Some(cpu) = Cpu::get(number) else { return 0 };
    cpu.set_longest(0);
    cpu.set_culprit(Key::UNKNOWN.0);
    let mut end = cpu.since();
    let newest = cpu.segment();
    let mut back = 0;
    while back < SEGMENTS as u64 && end > from {
        let start = divide_by_segments(number, newest.wrapping_sub(back), from, to, end);
        if start == end {
            break;
        }
        end = start;
        back += BLOCK;
    }
    let mut step = 0;
    while step < (LEVELS * WINDOWS) as u64 && end > from {
        let start = divide_by_window(number, step, from, to, end);
        if start == 0 {
            break;
        }
        end = start;
        step += 1;
    }
    claim(number, Key::UNKNOWN.0, end.min(to).saturating_sub(from));
    cpu.culprit()
}

/// Segments that one call looks at: a call costs more than a segment does, and the verifier walks each of them.
const BLOCK: u64 = 4;
const _: () = assert!((SEGMENTS as u64).is_multiple_of(BLOCK));

/// Books what lies in a segment, which ends at `end`, and in the next older ones. Returns where the last of them begins, `end` when none was
/// ever used.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn divide_by_segments(number: u32, segment: u64, from: u64, to: u64, end: u64) -> u64 {
    let Some(cpu) = Cpu::get(number) else { return 0 };
    let slot = cpu.victim();
    let whose = (slot.generation(), slot.key());
    let mut end = end;
    let mut back = 0;
    while back < BLOCK {
        let run = cpu.segment_at(segment.wrapping_sub(back));
        let owner = run.owner();
        if owner == 0 {
            break;
        }
        let start = run.start();
        let stretch = end.min(to).saturating_sub(start.max(from));
        note_stretch(cpu, stretch, owner);
        let taken = if run.is_cut() { taken(number, segment.wrapping_sub(back), stretch, end) } else { 0 };
        charge(cpu, number, whose, owner, stretch - taken);
        end = start;
        if start <= from {
            break;
        }
        back += 1;
    }
    end
}

/// Books what was taken of a stretch of a segment, which ends at `end`. Returns how much.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn taken(number: u32, segment: u64, stretch: u64, end: u64) -> u64 {
    let Some(cpu) = Cpu::get(number) else { return 0 };
    let segment = cpu.segment_at(segment);
    let length = end.saturating_sub(segment.start());
    let steal = scaled(segment.steal(), stretch, length).min(stretch);
    let interrupt = scaled(segment.interrupt(), stretch, length).min(stretch - steal);
    claim(number, Key::HYPERVISOR.0, steal);
    claim(number, Key::INTERRUPT.0, interrupt);
    steal + interrupt
}

/// Books what lies in one window, which ends at `end`; of one that was waited through only in part, a part of each owner's time.
/// Windows are numbered from the newest of the first level on. Returns where it begins, 0 when it was never used.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn divide_by_window(number: u32, step: u64, from: u64, to: u64, end: u64) -> u64 {
    let Some(cpu) = Cpu::get(number) else { return 0 };
    let level = step as usize / WINDOWS;
    let window = cpu.window_at(level, cpu.window(level).wrapping_sub(step % WINDOWS as u64));
    let start = window.start();
    let stretch = end.min(to).saturating_sub(start.max(from));
    if start == 0 || stretch == 0 {
        return start;
    }
    let mut rest = stretch;
    let mut index = 0;
    while index < SHARES {
        let share = window.share(index);
        let owner = share.owner();
        if owner == 0 {
            break;
        }
        let time = scaled(share.time(), stretch, end - start).min(rest);
        note_stretch(cpu, time, owner);
        claim(number, owner, time);
        rest -= time;
        index += 1;
    }
    claim(number, Key::UNKNOWN.0, rest);
    start
}

#[inline(always)]
fn note_stretch(cpu: Cpu, stretch: u64, owner: u64) {
    if stretch > cpu.longest() {
        cpu.set_longest(stretch);
        cpu.set_culprit(owner);
    }
}

/// As [`blame`], of a task whose queue a quota has stopped for `total` nanoseconds so far. What of it is new came after one of the
/// queue's tasks last left, or after this one woke up, if that was later: there it began, and nobody is to blame but the quota.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn under_quota(number: u32, total: u64, queued: u64) -> u64 {
    let Some(cpu) = Cpu::get(number) else { return 0 };
    let (now, queue) = (cpu.since(), cpu.queue());
    let throttle = cpu.throttle(queue);
    if throttle.cfs_rq() != queue || throttle.total() > total {
        // Never seen to leave. What it was stopped before observer looked must not be held for part of this wait.
        throttle.set_cfs_rq(queue);
        throttle.set_count(0);
        throttle.set_left(0);
        throttle.set_total(if total <= now.saturating_sub(queued) { 0 } else { total });
    }
    let grown = total - throttle.total();
    if grown != 0 {
        throttle.set_total(total);
        let left = throttle.left();
        let start = if left == 0 { now.saturating_sub(grown).max(queued) } else { left.max(queued.min(now)) };
        let throttling = throttle.throttling(throttle.count());
        throttling.set_start(start);
        throttling.set_end((start + grown).min(now));
        throttle.set_count(throttle.count() + 1);
    }
    let mut upper = now;
    let mut throttled = 0;
    let mut culprit = 0;
    let mut longest = 0;
    let mut back = 1;
    while back <= THROTTLINGS as u64 {
        if back > throttle.count() {
            break;
        }
        let throttling = throttle.throttling(throttle.count().wrapping_sub(back));
        let (start, end) = (throttling.start().max(queued), throttling.end().min(upper));
        if throttling.end() <= queued {
            break;
        }
        if start < end {
            if end < upper {
                let by = walk(number, end, upper);
                if upper - end > longest {
                    (longest, culprit) = (upper - end, by);
                }
            }
            throttled += end - start;
            upper = start;
        }
        back += 1;
    }
    if queued < upper {
        let by = walk(number, queued, upper);
        if upper - queued > longest {
            (longest, culprit) = (upper - queued, by);
        }
    }
    if throttled != 0 {
        claim(number, Key::THROTTLED.0, throttled);
        let slot = cpu.victim();
        slot.set_throttled(slot.throttled() + throttled);
    }
    if throttled > longest { Key::THROTTLED.0 } else { culprit }
}

/// A task of a queue that a quota has stopped before leaves the CPU.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn left_under_quota(number: u32, total: u64, now: u64) -> u64 {
    let Some(cpu) = Cpu::get(number) else { return 0 };
    let queue = cpu.queue();
    let throttle = cpu.throttle(queue);
    if throttle.cfs_rq() != queue || throttle.total() > total {
        throttle.set_cfs_rq(queue);
        throttle.set_total(total);
        throttle.set_count(0);
    }
    throttle.set_left(now);
    0
}

//! Question: what does the kernel's own counting cost, that every measurement of a hook contains?
//!
//! Hook: `tp_btf/sched_switch`, empty. Only `cargo xtask bench` loads it, beside the real one, in the same run.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

/// Does nothing.
#[btf_tracepoint(function = "sched_switch")]
pub(crate) fn empty(_ctx: BtfTracePointContext) -> i32 {
    0
}

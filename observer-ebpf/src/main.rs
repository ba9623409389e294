//! observer's programs inside the kernel.
#![no_std]
#![no_main]

use aya_ebpf::{
    btf_maps::Array,
    macros::{btf_map, btf_tracepoint},
    programs::BtfTracePointContext,
};

/// Provisional: counts context switches, to prove the build.
#[btf_map]
static SWITCHES: Array<u64, 1> = Array::new();

/// Provisional.
#[btf_tracepoint(function = "sched_switch")]
fn sched_switch(_context: BtfTracePointContext) -> i32 {
    if let Some(count) = SWITCHES.get_ptr_mut(0) {
        // SAFETY: the pointer comes from the map and the kernel keeps the map alive while we run.
        #[allow(unsafe_code, reason = "provisional")]
        unsafe {
            *count += 1;
        }
    }
    0
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

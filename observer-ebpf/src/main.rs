//! observer's programs inside the kernel: one object, because families share maps; one module a family.
//!
//! Everything the running kernel decides (field offsets, which variant of a hook fits) arrives in `kernel::OFFSETS` and
//! `kernel::TASK_OFFSETS` before the load.
#![no_std]
#![no_main]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

mod bench;
mod blame;
mod kernel;
mod maps;
mod memory;
mod sched;
mod tasks;
mod tcp;

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // Never reached: the verifier refuses a program that could come here.
    loop {}
}

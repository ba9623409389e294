//! What observer's kernel side and user side must agree on, and nothing else: the layout of shared memory, the keys in it, and the
//! arithmetic of the histogram's buckets. `no_std`, no dependencies, no allocation.
#![no_std]

pub mod blame;
pub mod latency;
pub mod locality;
pub mod memory;
pub mod pod;
pub mod sched;
pub mod tasks;
pub mod tcp;

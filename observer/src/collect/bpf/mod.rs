//! The programs in the kernel, from the side of user space.

pub mod accounts;
pub mod btf;
pub mod loader;
pub mod offsets;
pub mod sched;
pub mod tasks;

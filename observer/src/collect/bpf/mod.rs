//! The programs in the kernel, from the side of user space.

pub mod accounts;
mod attached;
pub mod blame;
pub mod btf;
pub mod commands;
pub mod flows;
pub mod focus;
pub mod holders;
mod iterator;
pub mod loader;
pub mod memory;
pub mod offsets;
mod operands;
pub mod pending;
pub mod sched;
pub mod starved;
pub mod tasks;
pub mod tcp;
mod words;

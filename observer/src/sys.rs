//! The few system calls that no crate offers safely.

//! The programs in the kernel, from the side of user space.

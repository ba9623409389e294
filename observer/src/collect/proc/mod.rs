//! Readers of `/proc`.

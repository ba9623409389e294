//! What observer's kernel side and user side must agree on.
#![no_std]

//! What needs more than one module: made-up samples, and receivers inside the process.

mod delivery;
mod encoding;
mod receivers;
pub(super) mod samples;
mod settings;

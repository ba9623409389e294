//! observer in layers: `model` is pure, `collect` fills it, `export` and `tui` show it, `run` knows them all. ARCHITECTURE.md has the
//! map; `tests/layers.rs` keeps it true.

pub mod cli;
pub mod collect;
pub mod config;
pub mod export;
pub mod findings;
pub mod model;
pub mod run;
pub mod sys;
pub mod tui;

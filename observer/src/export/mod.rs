//! Everything that leaves the process: snapshots as JSON and tables, the catalogue, the report of `observer doctor`.

pub mod doctor;
#[cfg(test)]
mod fixture;
mod grid;
pub mod json;
pub mod metrics;
pub mod narrow;
pub mod table;

pub use narrow::Narrow;

//! Everything that leaves the process: snapshots as JSON, tables and OTLP, the catalogue, the report of `observer doctor`.

pub mod doctor;
#[cfg(test)]
mod fixture;
mod grid;
pub mod json;
pub mod metrics;
pub mod narrow;
pub mod otlp;
pub mod table;

pub use narrow::Narrow;

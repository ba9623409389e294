//! Everything that leaves the process: snapshots as JSON, tables and OTLP.

pub mod otlp;

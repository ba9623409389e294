//! Fills a [`Sample`]: one reader for each file and each family of programs; none knows another, and each fails alone.

pub mod bpf;
pub mod cgroup;
pub mod proc;
pub mod roots;
pub mod support;

use std::time::{Instant, SystemTime};

pub use roots::Roots;

use crate::model::{Host, Sample};

/// All sources together.
#[derive(Debug)]
pub struct Collector {
    roots: Roots,
    began: Instant,
    start: SystemTime,
}

impl Collector {
    /// Readers of files below the roots. Nothing is opened yet, and nothing can fail: what cannot be read becomes a row of health.
    pub fn new(roots: Roots) -> Collector {
        Collector { roots, began: Instant::now(), start: SystemTime::now() }
    }

    /// Loads and attaches the programs; what does not work becomes a row of health.
    pub fn attach(&mut self) {}

    /// Reads everything once.
    pub fn collect(&mut self) -> Sample {
        let _ = &self.roots;
        Sample {
            time: SystemTime::now(),
            uptime: self.began.elapsed(),
            start: self.start,
            host: Host::default(),
            cpus: Vec::new(),
            cgroups: Vec::new(),
            sources: Vec::new(),
        }
    }
}

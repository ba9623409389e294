//! What observer knows, and how it is read: pure data, no files, no clock, no terminal.
//!
//! A [`Sample`] holds what the kernel said, cumulative and in base units. A [`Snapshot`] is two of them and never changes; rates,
//! ratios and quantiles are derived on reading. Each entity (host, cpu, cgroup, process, …) has one file: its struct, then its metrics,
//! then their tests; [`blame`] folds contention. The [`catalogue`] is the list of all of them; every screen and every export is a loop over it.

pub mod blame;
pub mod catalogue;
pub mod cgroup;
pub mod contention;
pub mod cpu;
pub mod entity;
pub mod event;
pub mod feature;
pub mod histogram;
pub mod host;
pub mod memory;
pub mod metric;
pub mod netns;
pub mod objective;
pub mod placement;
pub mod process;
pub mod sample;
pub mod sched;
pub mod setting;
pub mod source;
pub mod task;
pub mod tcp;
pub mod text;
pub mod thread;
pub mod topology;

pub use blame::{Blame, Blamed};
pub use cgroup::{Cgroup, Hierarchy, Longest};
pub use contention::{Contention, Party};
pub use cpu::Cpu;
pub use entity::{Entity, Kind, Label, Labels};
pub use event::Event;
pub use feature::{Availability, Feature};
pub use histogram::Histogram;
pub use host::{Host, Imbalance};
pub use memory::{Allocations, Allocator, Locality, LongStall};
pub use metric::{Attributes, Cross, Info, Metric, Paced, Part, Point, Read, Residual, Share, Unit, Value};
pub use netns::NetNs;
pub use objective::{Command, Objective, Slo};
pub use placement::{Depths, Placement, Traffic};
pub use process::Process;
pub use sample::{AnyRow, Row, Sample, Snapshot};
pub use sched::{Ledger, OffCpu, Open, Sched, Sleeps, Used};
pub use setting::Setting;
pub use source::{Source, State};
pub use task::{Counts, Identity, Status};
pub use tcp::{TcpFlow, TcpTotals};
pub use thread::Thread;
pub use topology::Topology;

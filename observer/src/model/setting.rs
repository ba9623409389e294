//! How the machine's scheduler is set up, and what that means for what observer measures: the second part of `observer doctor`.

/// One fact of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Setting {
    /// Short name: `sched_ext`, `isolated`, …
    pub name: &'static str,
    /// What is set; `None` where the kernel has no such thing or does not tell.
    pub value: Option<String>,
    /// What it means for the numbers, where they then mean something else than usually; one sentence without a full stop.
    pub meaning: Option<String>,
}

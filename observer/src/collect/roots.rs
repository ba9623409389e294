//! Where the system's files are: every path that a reader opens starts here, so that tests and containers can put another tree in place.

use std::path::PathBuf;

/// The roots.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Roots {
    /// `/proc`.
    pub proc: PathBuf,
    /// `/sys`.
    pub sys: PathBuf,
    /// `/sys/fs/cgroup`: a v2 root, or the parent of v1 mounts, told apart by their files.
    pub cgroup: PathBuf,
    /// `/`: below it is the state of container runtimes and of the kubelet, which tells names.
    pub host: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Roots { proc: "/proc".into(), sys: "/sys".into(), cgroup: "/sys/fs/cgroup".into(), host: "/".into() }
    }
}

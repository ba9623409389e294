//! Cgroups of a test's own, removed when it ends.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A fresh cgroup below the root of a hierarchy.
pub(crate) struct TestCgroup {
    directory: PathBuf,
    name: String,
}

/// The v2 hierarchy's mount.
pub(crate) fn v2_root() -> Option<PathBuf> {
    ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        .map(PathBuf::from)
        .into_iter()
        .find(|root| root.join("cgroup.controllers").exists())
}

/// The v1 `cpu` hierarchy's mount, where there is one.
pub(crate) fn cpu_root() -> Option<PathBuf> {
    ["/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/cpu"]
        .map(PathBuf::from)
        .into_iter()
        .find(|root| root.join("cpu.shares").exists() || root.join("cpu.cfs_quota_us").exists())
}

impl TestCgroup {
    /// Makes one with a name that no other test and no other run has.
    pub(crate) fn new(root: &Path, purpose: &str) -> io::Result<TestCgroup> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("observer-live-{purpose}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        TestCgroup::named(root, name)
    }

    /// Makes one at the same path in another hierarchy.
    pub(crate) fn twin(&self, root: &Path) -> io::Result<TestCgroup> {
        TestCgroup::named(root, self.name.clone())
    }

    fn named(root: &Path, name: String) -> io::Result<TestCgroup> {
        let directory = root.join(&name);
        fs::create_dir(&directory)?;
        Ok(TestCgroup { directory, name })
    }

    /// Its directory.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Its path as observer shows it.
    pub(crate) fn path(&self) -> String {
        format!("/{}", self.name)
    }

    /// Its id.
    pub(crate) fn id(&self) -> io::Result<u64> {
        Ok(fs::metadata(&self.directory)?.ino())
    }
}

impl Drop for TestCgroup {
    fn drop(&mut self) {
        // Tasks take a moment to be gone.
        for _ in 0..100 {
            remove_below(&self.directory);
            if fs::remove_dir(&self.directory).is_ok() || !self.directory.exists() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        eprintln!("left behind: {}", self.directory.display());
    }
}

fn remove_below(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_below(&entry.path());
        let _ = fs::remove_dir(entry.path());
    }
}

//! Which hierarchies are mounted below the cgroup root, told by their files and not by their names.

use std::fs;
use std::path::{Path, PathBuf};

use super::Error;

/// Mount points of the hierarchies that are read; at least one that gives cgroups is there.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Layout {
    /// The default hierarchy, v2.
    pub v2: Option<PathBuf>,
    /// The v1 hierarchy of the `cpu` controller.
    pub cpu: Option<PathBuf>,
    /// The v1 hierarchy of the `cpuacct` controller; often the same as `cpu`.
    pub cpuacct: Option<PathBuf>,
    /// The v1 hierarchy of the `memory` controller, which v2 does not have then.
    pub memory: Option<PathBuf>,
}

/// Looks at the root, then at each directory in it. A root that is itself one v1 hierarchy is taken as such.
pub fn find(root: &Path) -> Result<Layout, Error> {
    let failed = |error| Error::Read { path: root.to_owned(), error };
    let mut layout = Layout::default();
    layout.add(root);
    if layout.is_empty() {
        let mut directories = Vec::new();
        for entry in fs::read_dir(root).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            // `cpu` is often a symbolic link to `cpu,cpuacct`: the first of a kind is taken, and real directories come first.
            if path.is_dir() {
                directories.push((path.is_symlink(), path.file_name() != Some("unified".as_ref()), path));
            }
        }
        directories.sort();
        directories.iter().for_each(|(_, _, path)| layout.add(path));
    }
    if layout.is_empty() { Err(Error::NoLayout { root: root.to_owned() }) } else { Ok(layout) }
}

impl Layout {
    /// Memory alone tells of nobody's CPU time.
    fn is_empty(&self) -> bool {
        self.v2.is_none() && self.cpu.is_none() && self.cpuacct.is_none()
    }

    fn add(&mut self, directory: &Path) {
        let has = |name: &str| directory.join(name).exists();
        let place = |slot: &mut Option<PathBuf>, is: bool| {
            if is && slot.is_none() {
                *slot = Some(directory.to_owned());
            }
        };
        if has("cgroup.controllers") {
            return place(&mut self.v2, true);
        }
        // Without CONFIG_CFS_BANDWIDTH there are shares only.
        place(&mut self.cpu, has("cpu.cfs_quota_us") || has("cpu.shares"));
        place(&mut self.cpuacct, has("cpuacct.usage"));
        place(&mut self.memory, has("memory.usage_in_bytes"));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Makes the files (`name -> target` makes a link) and tells the layout with paths relative to the root.
    fn check(files: &[&str], expected: [Option<&str>; 4]) {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            if let Some((name, target)) = file.split_once(" -> ") {
                symlink(target, root.path().join(name)).unwrap();
            } else {
                let path = root.path().join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, "").unwrap();
            }
        }
        let path =
            |name: Option<&str>| name.map(|name| if name == "." { root.path().to_owned() } else { root.path().join(name) });
        let [v2, cpu, cpuacct, memory] = expected.map(path);
        assert_eq!(find(root.path()).unwrap(), Layout { v2, cpu, cpuacct, memory });
    }

    #[test]
    fn layouts() {
        check(&["cgroup.controllers", "cpu/cpu.shares"], [Some("."), None, None, None]);
        check(
            &["cpu,cpuacct/cpu.shares", "cpu,cpuacct/cpuacct.usage", "cpu -> cpu,cpuacct"],
            [None, Some("cpu,cpuacct"), Some("cpu,cpuacct"), None],
        );
        check(
            &["cpu/cpu.cfs_quota_us", "cpuacct/cpuacct.usage", "memory/memory.stat", "mem/memory.usage_in_bytes"],
            [None, Some("cpu"), Some("cpuacct"), Some("mem")],
        );
        check(
            &["a/cgroup.controllers", "unified/cgroup.controllers", "cpu/cpu.shares"],
            [Some("unified"), Some("cpu"), None, None],
        );
        check(&["real/cpu.shares", "cpu.shares.d/x", "systemd/tasks"], [None, Some("real"), None, None]);
        check(&["cpu.shares", "cpuacct.usage", "docker/cpu.shares"], [None, Some("."), Some("."), None]);
    }

    #[test]
    fn nothing_of_use() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("memory")).unwrap();
        fs::write(root.path().join("memory/memory.usage_in_bytes"), "0").unwrap();
        symlink("nowhere", root.path().join("cpu")).unwrap();
        let message = find(root.path()).unwrap_err().to_string();
        assert!(message.starts_with(root.path().to_str().unwrap()) && message.contains("cgroup.controllers"), "{message}");
        let message = find(Path::new("/no\x1bsuch")).unwrap_err().to_string();
        assert_eq!(message, r"/no\x1bsuch: No such file or directory (os error 2)");
    }
}

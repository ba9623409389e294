//! The kernels to test on, and where they come from.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::apt::Apt;
use crate::workspace::{self, Workspace, read_text};

/// One of Debian's kernels.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Kernel {
    /// As the command line and the list of skips have it.
    pub(crate) name: &'static str,
    /// The release of Debian whose kernel it is.
    suite: &'static str,
}

/// From the oldest that observer wants to run on. The one of `newest` moves on.
pub(crate) const KERNELS: [Kernel; 4] = [
    Kernel { name: "5.10", suite: "bullseye" },
    Kernel { name: "6.1", suite: "bookworm" },
    Kernel { name: "6.12", suite: "trixie" },
    Kernel { name: "newest", suite: "sid" },
];

/// The small variant, for virtual machines: whatever the tests need is built in.
const PACKAGE: &str = "linux-image-cloud-amd64";

/// Without names, all of them.
pub(crate) fn chosen(names: &[String]) -> Result<Vec<&'static Kernel>> {
    if names.is_empty() {
        return Ok(KERNELS.iter().collect());
    }
    let find = |name: &String| {
        let known = KERNELS.iter().find(|kernel| kernel.name == name);
        known.with_context(|| format!("no kernel {name}: there are {}", KERNELS.map(|kernel| kernel.name).join(", ")))
    };
    names.iter().map(find).collect()
}

impl Kernel {
    /// What one sees in a list.
    pub(crate) fn describe(&self, workspace: &Workspace) -> String {
        let fetched = read_text(&self.folder(workspace).join("package"));
        let fetched = fetched.map_or("not fetched yet".to_owned(), |package| format!("fetched: {}", package.trim()));
        format!("{:8}Debian {:10}{fetched}", self.name, self.suite)
    }

    /// The image that qemu boots, fetched unless it is there from the last time.
    pub(crate) fn image(&self, workspace: &Workspace, again: bool) -> Result<PathBuf> {
        let folder = self.folder(workspace);
        let image = folder.join("vmlinuz");
        if image.is_file() && !again {
            return Ok(image);
        }
        let _ = fs::remove_dir_all(&folder);
        let apt = Apt::update(&workspace.target.join("vm/apt").join(self.suite), self.suite)?;
        let package = apt.kernel_behind(PACKAGE)?;
        let unpacked = folder.join("unpacked");
        apt.unpack(&package, &unpacked)?;
        let is_image = |path: &std::path::Path| {
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("vmlinuz"))
        };
        let found = workspace::find_below(&unpacked, &is_image).with_context(|| format!("there is no kernel in {package}"))?;
        workspace::write(&folder.join("package"), format!("{package}\n"))?;
        // Last, as its presence says that the rest is done. The modules are ten times its size.
        fs::rename(&found, &image).with_context(|| format!("cannot move {}", found.display()))?;
        let _ = fs::remove_dir_all(&unpacked);
        Ok(image)
    }

    fn folder(&self, workspace: &Workspace) -> PathBuf {
        workspace.target.join("vm/kernels").join(self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_chosen_by_name() {
        let names = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            chosen(&names).map(|kernels| kernels.iter().map(|kernel| kernel.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&[]).unwrap(), ["5.10", "6.1", "6.12", "newest"]);
        assert_eq!(names(&["6.12", "5.10"]).unwrap(), ["6.12", "5.10"]);
        assert_eq!(names(&["4.19"]).unwrap_err().to_string(), "no kernel 4.19: there are 5.10, 6.1, 6.12, newest");
    }
}

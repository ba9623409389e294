//! Where this checkout and its build folder are.

use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::process::Cmd;

/// The checkout that a task works on.
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    /// Cargo's build folder, wherever the user's configuration puts it.
    pub(crate) target: PathBuf,
}

#[derive(Deserialize)]
struct Metadata {
    workspace_root: PathBuf,
    target_directory: PathBuf,
}

impl Workspace {
    /// Asks cargo. The folder is the one that `cargo xtask` was called for, not the one that this
    /// program was compiled in: a copy of the checkout must never work on the original.
    pub(crate) fn find() -> Result<Self> {
        let here = match env::var_os("CARGO_MANIFEST_DIR") {
            Some(folder) => PathBuf::from(folder),
            None => env::current_dir().context("the current directory is gone")?,
        };
        let text = Cmd::cargo("metadata").args(["--no-deps", "--format-version", "1"]).dir(&here).quiet().text()?;
        let metadata: Metadata = serde_json::from_str(&text).context("`cargo metadata` printed something else than its JSON")?;
        Ok(Self { root: metadata.workspace_root, target: metadata.target_directory })
    }

    pub(crate) fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.root.join(relative)
    }

    /// `path` as a developer would type it from the root of the checkout.
    pub(crate) fn show<'a>(&self, path: &'a Path) -> std::path::Display<'a> {
        path.strip_prefix(&self.root).unwrap_or(path).display()
    }
}

/// Reads a file; the error names it.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Reads a text file; the error names it.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Writes a file and the folders above it; the error names it.
pub(crate) fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}

/// The first file below a folder that is wanted.
pub(crate) fn find_below(folder: &Path, wanted: &dyn Fn(&Path) -> bool) -> Option<PathBuf> {
    let paths = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    let (folders, files): (Vec<_>, Vec<_>) = paths.filter(|path| !path.is_symlink()).partition(|path| path.is_dir());
    files.into_iter().find(|file| wanted(file)).or_else(|| folders.iter().find_map(|folder| find_below(folder, wanted)))
}

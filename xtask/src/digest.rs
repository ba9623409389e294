//! SHA-256, of bytes and of source trees.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use crate::workspace::read;

/// In lower-case hexadecimal digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Of every file below `parts` (files or folders, relative to `root`): names and contents, in
/// order of name. Git is not asked, so that it also works in an unpacked archive.
pub(crate) fn sha256_tree(root: &Path, parts: &[&str]) -> Result<String> {
    let mut files = Vec::new();
    for part in parts {
        collect_files(&root.join(part), &mut files)?;
    }
    files.sort();
    let mut hasher = Sha256::new();
    for file in files {
        let name = file.strip_prefix(root).unwrap_or(&file);
        let content = read(&file)?;
        hasher.update(format!("{}\0{}\0", name.display(), content.len()));
        hasher.update(content);
    }
    Ok(hex(&hasher.finalize()))
}

fn collect_files(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if path.is_file() {
        files.push(path.to_owned());
        return Ok(());
    }
    let entries = fs::read_dir(path).with_context(|| format!("cannot list {}", path.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot list {}", path.display()))?;
        // Editors leave hidden files beside the sources.
        if !entry.file_name().to_string_lossy().starts_with('.') {
            collect_files(&entry.path(), files)?;
        }
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_value() {
        assert_eq!(sha256(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn a_tree_changes_with_names_and_contents_only() {
        let root = tempfile::tempdir().unwrap();
        let digest = || sha256_tree(root.path(), &["src"]).unwrap();
        fs::create_dir_all(root.path().join("src/deep")).unwrap();
        fs::write(root.path().join("src/deep/a"), "1").unwrap();
        let first = digest();
        fs::write(root.path().join("src/.a.swp"), "editor").unwrap();
        assert_eq!(digest(), first);
        fs::write(root.path().join("src/deep/a"), "2").unwrap();
        assert_ne!(digest(), first);
        fs::write(root.path().join("src/deep/a"), "1").unwrap();
        assert_eq!(digest(), first);
        fs::rename(root.path().join("src/deep/a"), root.path().join("src/a")).unwrap();
        assert_ne!(digest(), first);
    }
}

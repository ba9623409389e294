//! What the checked-in object was built from and with.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

use super::llvm::{BPF_LINKER, Llvm};
use super::toolchain::Version;
use crate::digest::sha256;
use crate::workspace;

const HEADER: &str = "\
# How observer.bpf.o was built: written by `cargo xtask ebpf`, compared by its --check.

";

/// The file beside the object.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    /// SHA-256 of the object.
    pub(super) object: String,
    /// SHA-256 of its sources, see `digest::sha256_tree`.
    pub(super) sources: String,
    pub(super) tools: Tools,
}

/// The programs that decide about the object's bytes.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Tools {
    /// First line of `rustc -vV`.
    pub(super) rustc: String,
    pub(super) rustc_commit: String,
    pub(super) rustc_llvm: String,
    pub(super) bpf_linker: String,
    /// The LLVM of bpf-linker and of llvm-objcopy.
    pub(super) linker_llvm: String,
}

impl Record {
    /// `None` if there is no such file.
    pub(super) fn read(path: &Path) -> Result<Option<Self>> {
        if !path.exists() {
            return Ok(None);
        }
        let text = workspace::read_text(path)?;
        let record = toml::from_str(&text)
            .with_context(|| format!("{} is not a record; delete it and run `cargo xtask ebpf`", path.display()))?;
        Ok(Some(record))
    }

    pub(super) fn to_text(&self) -> Result<String> {
        let body = toml::to_string(self).context("cannot write the record as TOML")?;
        Ok(format!("{HEADER}{body}"))
    }

    /// Whether the object is the recorded one and the sources are still those it was built from.
    pub(super) fn verify(&self, object: &[u8], sources: &str) -> Result<()> {
        ensure!(
            sha256(object) == self.object,
            "observer.bpf.o is not the object of its record: \
             run `cargo xtask ebpf` and commit both files"
        );
        ensure!(
            sources == self.sources,
            "the sources of the kernel side changed after observer.bpf.o was built: \
             run `cargo xtask ebpf` and commit what it writes"
        );
        Ok(())
    }
}

impl Tools {
    pub(super) fn new(version: &Version, llvm: &Llvm) -> Self {
        Self {
            rustc: version.line.clone(),
            rustc_commit: version.commit.clone(),
            rustc_llvm: version.llvm.clone(),
            bpf_linker: BPF_LINKER.to_owned(),
            linker_llvm: llvm.version.clone(),
        }
    }

    pub(super) fn is_of(&self, version: &Version) -> bool {
        (&self.rustc, &self.rustc_commit, &self.rustc_llvm) == (&version.line, &version.commit, &version.llvm)
    }

    /// One sentence for each program that is another one in `found`.
    pub(super) fn differences(&self, found: &Self) -> Vec<String> {
        let pairs = [
            ("rustc", &self.rustc, &found.rustc),
            ("rustc's commit", &self.rustc_commit, &found.rustc_commit),
            ("rustc's LLVM", &self.rustc_llvm, &found.rustc_llvm),
            ("bpf-linker", &self.bpf_linker, &found.bpf_linker),
            ("bpf-linker's LLVM", &self.linker_llvm, &found.linker_llvm),
        ];
        let differing = pairs.into_iter().filter(|(_, recorded, found)| recorded != found);
        differing.map(|(name, recorded, found)| format!("{name}: recorded {recorded}, here {found}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            object: sha256(b"object"),
            sources: sha256(b"sources"),
            tools: Tools {
                rustc: "rustc 1.96.0 (ac68faa20 2026-05-25)".to_owned(),
                rustc_commit: "ac68faa20c58".to_owned(),
                rustc_llvm: "22.1.8".to_owned(),
                bpf_linker: "0.13.0".to_owned(),
                linker_llvm: "22.1.8".to_owned(),
            },
        }
    }

    #[test]
    fn a_record_survives_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record.toml");
        assert_eq!(Record::read(&path).unwrap(), None);
        workspace::write(&path, record().to_text().unwrap()).unwrap();
        assert_eq!(Record::read(&path).unwrap(), Some(record()));
    }

    #[test]
    fn a_broken_record_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record.toml");
        workspace::write(&path, "object = 1").unwrap();
        let error = Record::read(&path).unwrap_err().to_string();
        assert!(error.contains("record.toml is not a record"), "{error}");
    }

    #[test]
    fn only_the_recorded_object_of_these_sources_passes() {
        let sources = sha256(b"sources");
        record().verify(b"object", &sources).unwrap();
        let error = record().verify(b"other", &sources).unwrap_err();
        assert!(error.to_string().contains("not the object of its record"));
        let error = record().verify(b"object", "other").unwrap_err();
        assert!(error.to_string().contains("sources of the kernel side changed"));
    }

    #[test]
    fn every_other_tool_is_told() {
        let recorded = record().tools;
        let found = Tools { rustc_llvm: "22.1.2".to_owned(), bpf_linker: "0.14.0".to_owned(), ..record().tools };
        assert_eq!(recorded.differences(&record().tools), [""; 0]);
        assert_eq!(
            recorded.differences(&found),
            ["rustc's LLVM: recorded 22.1.8, here 22.1.2", "bpf-linker: recorded 0.13.0, here 0.14.0"]
        );
    }
}

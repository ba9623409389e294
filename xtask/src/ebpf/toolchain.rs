//! A Rust compiler that can build for the BPF target: any that has its own sources beside it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::llvm::Llvm;
use super::record::Tools;
use crate::packages;
use crate::process::Cmd;

/// Debian's compiler, which the record names. It has no fixed folder of its own.
const DEBIAN: &str = "/usr/bin/rustc";
const DEBIAN_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

#[derive(Debug)]
pub(super) struct Toolchain {
    /// Holds `bin/rustc` and `bin/cargo`.
    pub(super) sysroot: PathBuf,
    pub(super) version: Version,
}

/// What `rustc -vV` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) line: String,
    pub(super) commit: String,
    pub(super) release: String,
    pub(super) llvm: String,
}

impl Toolchain {
    /// The best of those that are here; Debian's is installed if there is none.
    pub(super) fn find(recorded: Option<&Tools>) -> Result<Self> {
        let mut usable = discover();
        if usable.is_empty() {
            packages::install(
                &DEBIAN_PACKAGES,
                "compile for the BPF target \
                 (or, with rustup: `rustup toolchain install nightly --component rust-src`)",
            )?;
            usable = discover();
        }
        let best = usable.into_iter().min_by_key(|toolchain| {
            let version = &toolchain.version;
            rank(version, recorded, Llvm::look(version.llvm_major()).is_some())
        });
        let best = best.context(
            "no Rust compiler here has its sources beside it: \
run `rustup component add rust-src --toolchain nightly`",
        )?;
        eprintln!("compiler: {} in {}", best.version.line, best.sysroot.display());
        Ok(best)
    }

    pub(super) fn rustc(&self) -> PathBuf {
        self.sysroot.join("bin/rustc")
    }

    pub(super) fn cargo(&self) -> PathBuf {
        self.sysroot.join("bin/cargo")
    }

    /// The compiler's own sources. Often a symbolic link.
    pub(super) fn sources(&self) -> PathBuf {
        self.sysroot.join("lib/rustlib/src/rust")
    }

    fn at(rustc: &Path) -> Option<Self> {
        let sysroot = Cmd::new(rustc).args(["--print", "sysroot"]).answer()?;
        let version = Version::parse(&Cmd::new(rustc).arg("-vV").answer()?)?;
        let toolchain = Self { sysroot: PathBuf::from(sysroot.trim()), version };
        let complete = toolchain.sources().join("library/core/src/lib.rs").is_file() && toolchain.cargo().is_file();
        complete.then_some(toolchain)
    }
}

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned());
        Some(Self {
            line: text.lines().next()?.to_owned(),
            commit: field("commit-hash:")?,
            release: field("release:")?,
            llvm: field("LLVM version:")?,
        })
    }

    /// The number that bpf-linker must have been built for.
    pub(super) fn llvm_major(&self) -> &str {
        self.llvm.split('.').next().unwrap_or(&self.llvm)
    }
}

/// Smaller is better: the recorded compiler, then one whose LLVM is here (`has_llvm`) as nothing has
/// to be installed for it, then a nightly, as `-Z` is what it is for.
fn rank(version: &Version, recorded: Option<&Tools>, has_llvm: bool) -> (bool, bool, bool) {
    let is_recorded = recorded.is_some_and(|recorded| recorded.is_of(version));
    let is_nightly = version.release.contains("nightly");
    (!is_recorded, !has_llvm, !is_nightly)
}

/// Every compiler here that has its sources, Debian's first.
fn discover() -> Vec<Toolchain> {
    let mut rustcs = vec![PathBuf::from(DEBIAN)];
    rustcs.extend(crate::process::find_program("rustc"));
    let toolchains = Cmd::new("rustup").args(["toolchain", "list"]).answer().unwrap_or_default();
    for name in toolchains.lines().filter_map(|line| line.split_whitespace().next()) {
        let path = Cmd::new("rustup").args(["which", "--toolchain", name, "rustc"]).answer();
        rustcs.extend(path.map(|path| PathBuf::from(path.trim())));
    }
    let mut found: Vec<Toolchain> = Vec::new();
    for toolchain in rustcs.iter().filter_map(|rustc| Toolchain::at(rustc)) {
        if found.iter().all(|known| known.sysroot != toolchain.sysroot) {
            found.push(toolchain);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN_SAYS: &str = "\
rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)
binary: rustc
commit-hash: ac68faa20c58cbccd01ee7208bf3b6e93a7d7f96
commit-date: 2026-05-25
host: x86_64-unknown-linux-gnu
release: 1.96.0
LLVM version: 22.1.8
";

    fn debian() -> Version {
        Version::parse(DEBIAN_SAYS).unwrap()
    }

    #[test]
    fn reads_what_rustc_says() {
        assert_eq!(debian().line, "rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)");
        assert_eq!(debian().commit, "ac68faa20c58cbccd01ee7208bf3b6e93a7d7f96");
        assert_eq!(debian().llvm_major(), "22");
        assert_eq!(Version::parse("rustc 1.0"), None);
    }

    #[test]
    fn the_recorded_compiler_wins_then_one_with_its_llvm_then_a_nightly() {
        let nightly = Version { release: "1.97.0-nightly".to_owned(), line: "rustc 1.97.0-nightly".to_owned(), ..debian() };
        let recorded = Tools {
            rustc: debian().line,
            rustc_commit: debian().commit,
            rustc_llvm: debian().llvm,
            bpf_linker: String::new(),
            linker_llvm: String::new(),
        };
        assert!(rank(&debian(), Some(&recorded), false) < rank(&nightly, Some(&recorded), true));
        assert!(rank(&debian(), None, true) < rank(&nightly, None, false));
        assert!(rank(&nightly, None, true) < rank(&debian(), None, true));
    }
}

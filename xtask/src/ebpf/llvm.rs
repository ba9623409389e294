//! LLVM's part: bpf-linker, built for the compiler's LLVM, and llvm-objcopy.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::toolchain::Version;
use crate::packages;
use crate::process::Cmd;
use crate::workspace::Workspace;

pub(super) const BPF_LINKER: &str = "0.13.0";

/// An LLVM with its development files, of the compiler's major version.
pub(super) struct Llvm {
    /// For instance `/usr/lib/llvm-22`.
    prefix: PathBuf,
    pub(super) version: String,
    major: String,
}

impl Llvm {
    pub(super) fn find(rustc: &Version) -> Result<Self> {
        let major = rustc.llvm_major();
        if let Some(llvm) = Self::look(major) {
            return Ok(llvm);
        }
        let package = format!("llvm-{major}-dev");
        let why = format!("build bpf-linker for {} (LLVM {major})", rustc.line);
        packages::install(&[&package, "zlib1g-dev", "libzstd-dev"], &why)?;
        Self::look(major).with_context(|| format!("{package} is installed but no llvm-config of LLVM {major} is in PATH"))
    }

    /// The LLVM of this major version, if it is here with everything that is needed of it.
    pub(super) fn look(major: &str) -> Option<Self> {
        let programs =
            [format!("/usr/lib/llvm-{major}/bin/llvm-config"), format!("llvm-config-{major}"), "llvm-config".to_owned()];
        programs.iter().find_map(|program| {
            let version = Cmd::new(program).arg("--version").answer()?.trim().to_owned();
            let prefix = Cmd::new(program).arg("--prefix").answer()?;
            let found = Self { prefix: PathBuf::from(prefix.trim()), version, major: major.to_owned() };
            // The libraries alone come without headers, and bpf-linker could not be built.
            let usable = found.version.split('.').next() == Some(major) && found.objcopy().is_file();
            usable.then_some(found)
        })
    }

    /// bpf-linker, built on the first call. It lives in the build folder, not in cargo's home: one
    /// that the user has may be made for another LLVM.
    pub(super) fn bpf_linker(&self, workspace: &Workspace) -> Result<PathBuf> {
        let folder = workspace.target.join("bpf-linker");
        let root = folder.join(format!("{BPF_LINKER}-llvm-{}", self.version));
        let linker = root.join("bin/bpf-linker");
        if Cmd::new(&linker).arg("--version").answer().is_some() {
            return Ok(linker);
        }
        let build = folder.join("build");
        Cmd::cargo("install")
            .args(["bpf-linker", "--version", BPF_LINKER, "--locked", "--force"])
            .args(["--no-default-features", "--features", &format!("llvm-{}", self.major)])
            .arg("--root")
            .arg(&root)
            .env("LLVM_PREFIX", &self.prefix)
            .env("CARGO_TARGET_DIR", &build)
            .run()
            .context(
                "cannot build bpf-linker, which links the kernel side; it needs a C++ compiler, zlib \
                 and zstd (Debian: g++ zlib1g-dev libzstd-dev)",
            )?;
        // 300 MB that nobody needs again.
        let _ = fs::remove_dir_all(&build);
        Ok(linker)
    }

    /// Removes DWARF and what belongs to it. BTF, its relocations, symbols and maps stay.
    pub(super) fn strip_debug(&self, from: &Path, to: &Path) -> Result<()> {
        Cmd::new(self.objcopy()).arg("--strip-debug").arg(from).arg(to).run()
    }

    fn objcopy(&self) -> PathBuf {
        self.prefix.join("bin/llvm-objcopy")
    }
}

//! The call of cargo that compiles and links the kernel side, free of everything that differs
//! between two machines: the user's flags and wrappers, and the paths in the line information.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context as _, Result};

use super::toolchain::Toolchain;
use crate::process::Cmd;
use crate::workspace::Workspace;

const TARGET: &str = "bpfel-unknown-none";

/// Returns the linked object, with all its debug information.
pub(super) fn compile(workspace: &Workspace, toolchain: &Toolchain, linker: &Path) -> Result<PathBuf> {
    let cargo = || clean(Cmd::new(toolchain.cargo())).env("RUSTC", toolchain.rustc()).dir(&workspace.root);
    // The folders below cargo's home must exist before they can be listed and renamed.
    cargo().args(["fetch", "--locked", "--quiet", "--target", TARGET]).quiet().run()?;

    let build = workspace.target.join("ebpf");
    let flags = flags(&remaps(workspace, toolchain)?);
    cargo()
        .args(["build", "--locked", "--package", "observer-ebpf", "--bin", "observer", "--profile", "ebpf"])
        .args(["--target", TARGET, "-Z", "build-std=core", "--target-dir"])
        .arg(&build)
        // Of a nightly this asks nothing; any other compiler is allowed what a nightly is.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags)
        // The linker is found by name, because its path would become part of every symbol's hash.
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", "bpf-linker")
        .env("PATH", path_with(linker)?)
        .run()?;
    Ok(build.join(TARGET).join("ebpf/observer"))
}

/// Leaves nothing in the environment that decides how cargo builds. Variables win over
/// configuration files, so that the wrappers in those are switched off by empty values.
fn clean(mut cmd: Cmd) -> Cmd {
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(decides_the_build) {
            cmd = cmd.env_remove(name);
        }
    }
    cmd.env("RUSTC_WRAPPER", "").env("RUSTC_WORKSPACE_WRAPPER", "").env("CARGO_INCREMENTAL", "0")
}

fn decides_the_build(variable: &str) -> bool {
    // How to reach the registry, and how to print, is the machine's business.
    const HARMLESS: [&str; 5] = ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR", "CARGO_TERM_"];
    const DECISIVE: [&str; 6] = ["CARGO", "RUSTC", "RUSTFLAGS", "RUSTDOC", "AYA_", "BPF_LINKER"];
    // Both come from `cargo run` below rustup; another compiler would load the wrong libraries.
    const EXACT: [&str; 2] = ["RUSTUP_TOOLCHAIN", "LD_LIBRARY_PATH"];
    let starts = |list: &[&str]| list.iter().any(|prefix| variable.starts_with(prefix));
    EXACT.contains(&variable) || (starts(&DECISIVE) && !starts(&HARMLESS))
}

fn path_with(linker: &Path) -> Result<OsString> {
    let folder = linker.parent().map(Path::to_owned);
    let path = env::var_os("PATH").unwrap_or_default();
    env::join_paths(folder.into_iter().chain(env::split_paths(&path)))
        .with_context(|| format!("{} cannot be part of PATH", linker.display()))
}

/// As `CARGO_ENCODED_RUSTFLAGS` wants them: a path may hold spaces.
fn flags(remaps: &[(PathBuf, String)]) -> OsString {
    // The second instruction set (kernel 4.14) can compare for less than a constant. With the first one the constant comes first, in a
    // register, and verifiers up to 6.1 at least follow the branch that cannot be taken.
    // No program touches `pt_regs`, the only thing that depends on the machine: one object for all.
    let mut flags =
        OsString::from("--cfg=bpf_target_arch=\"x86_64\"\u{1f}-Cdebuginfo=2\u{1f}-Clink-arg=--btf\u{1f}-Ctarget-cpu=v2");
    for (from, to) in remaps {
        flags.push("\u{1f}--remap-path-prefix=");
        flags.push(from);
        flags.push("=");
        flags.push(to);
    }
    flags
}

fn remaps(workspace: &Workspace, toolchain: &Toolchain) -> Result<Vec<(PathBuf, String)>> {
    let home = cargo_home()?;
    let source = home.join("registry/src");
    let mut folders =
        vec![(workspace.root.clone(), "."), (workspace.target.clone(), "target"), (toolchain.sources(), "rust"), (home, "cargo")];
    // One folder for each registry, its name made of a host and a hash.
    let registries = fs::read_dir(&source).with_context(|| format!("cannot list {}", source.display()))?;
    for registry in registries {
        let registry = registry.with_context(|| format!("cannot list {}", source.display()))?;
        folders.push((registry.path(), "crates"));
    }
    let real = folders.iter().filter_map(|(path, name)| Some((fs::canonicalize(path).ok()?, *name)));
    let real: Vec<_> = real.collect();
    folders.extend(real);
    Ok(in_order(folders))
}

/// rustc takes the last prefix that fits, so the deepest path has to come last.
fn in_order(mut folders: Vec<(PathBuf, &str)>) -> Vec<(PathBuf, String)> {
    folders.sort_by(|left, right| (left.0.as_os_str().len(), &left.0).cmp(&(right.0.as_os_str().len(), &right.0)));
    folders.dedup();
    folders.into_iter().map(|(path, name)| (path, name.to_owned())).collect()
}

fn cargo_home() -> Result<PathBuf> {
    if let Some(home) = env::var_os("CARGO_HOME") {
        return Ok(PathBuf::from(home));
    }
    let home = env::home_dir().context("neither CARGO_HOME nor HOME is set")?;
    Ok(home.join(".cargo"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_folder_wins() {
        let folders = vec![
            (PathBuf::from("/h/.cargo/registry/src/host-hash"), "crates"),
            (PathBuf::from("/h"), "."),
            (PathBuf::from("/h/.cargo"), "cargo"),
            (PathBuf::from("/h"), "."),
        ];
        let names: Vec<String> = in_order(folders).into_iter().map(|(_, name)| name).collect();
        assert_eq!(names, [".", "cargo", "crates"]);
    }

    #[test]
    fn a_path_with_a_space_stays_one_flag() {
        let flags = flags(&[(PathBuf::from("/my work"), ".".to_owned())]);
        let flags = flags.to_str().unwrap();
        assert_eq!(flags.split('\u{1f}').next_back(), Some("--remap-path-prefix=/my work=."));
    }

    #[test]
    fn the_users_settings_do_not_reach_the_build() {
        for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS", "CARGO_PROFILE_EBPF_DEBUG"] {
            assert!(decides_the_build(name), "{name}");
        }
        for name in ["RUSTC_WRAPPER", "RUSTUP_TOOLCHAIN", "LD_LIBRARY_PATH", "CARGO_TARGET_DIR", "CARGO"] {
            assert!(decides_the_build(name), "{name}");
        }
        for name in ["CARGO_HOME", "CARGO_NET_OFFLINE", "CARGO_REGISTRIES_X_INDEX", "PATH", "HOME", "RUSTUP_HOME"] {
            assert!(!decides_the_build(name), "{name}");
        }
    }
}

//! `cargo xtask live`: the tests that load the programs into the running kernel.

use std::io;
use std::mem::size_of;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::path::Path;

use anyhow::{Result, bail};

use crate::packages;
use crate::process::{Cmd, find_program};
use crate::steps::Outcome;
use crate::workspace::Workspace;

/// The kernel's own type information; without it no program of ours finds its fields.
const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// Cargo's `--config` that gives privileges only to what it runs: what it builds stays the user's.
pub(crate) const SUDO_RUNNER: &str = "target.'cfg(all())'.runner = ['sudo', '--preserve-env']";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Names of tests, and options of the test program
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let call = Cmd::cargo("test").dir(&workspace.root);
    if rustix::process::geteuid().is_root() {
        if let Some(obstacle) = obstacle() {
            bail!("the live tests cannot run: {obstacle}");
        }
        install_tools()?;
        return tests(call, &args.args).run();
    }
    if find_program("sudo").is_none() {
        bail!("the live tests need root, and there is no sudo: run `cargo xtask live` as root");
    }
    install_tools()?;
    tests(call.args(["--config", SUDO_RUNNER]), &args.args).run()
}

/// The live tests as a step of others. `object` replaces the checked-in one.
pub(crate) fn step(workspace: &Workspace, object: Option<&Path>) -> Result<Outcome> {
    if let Some(obstacle) = obstacle() {
        return Ok(Outcome::Skipped(obstacle));
    }
    install_tools()?;
    let mut call = Cmd::cargo("test").dir(&workspace.root);
    if let Some(object) = object {
        call = call.env("OBSERVER_BPF_OBJECT", object);
    }
    tests(call, &[]).run().map(|()| Outcome::Passed)
}

/// Completes a call of `cargo test`. One test at a time: each measures the machine that another
/// would disturb.
fn tests(call: Cmd, args: &[String]) -> Cmd {
    call.args(["--package", "observer", "--test", "live", "--"])
        .args(["--test-threads=1", "--nocapture"])
        .args(args)
        .env("INSTA_UPDATE", "no")
}

/// `ip` sets up the network namespaces of the tests of TCP.
fn install_tools() -> Result<()> {
    if find_program("ip").is_some() { Ok(()) } else { packages::install(&["iproute2"], "set up network namespaces") }
}

/// What this user or this kernel lacks for tests that attach the programs.
pub(crate) fn obstacle() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("it needs root (`cargo xtask live` asks for it through sudo)".to_owned());
    }
    if !Path::new(KERNEL_BTF).exists() {
        return Some(format!("{KERNEL_BTF} is missing: this kernel has no type information"));
    }
    create_map().err().map(|error| format!("this kernel refuses bpf(): {error}"))
}

/// Creates the smallest map there is and drops it. A container's seccomp filter, lockdown or a
/// missing capability show themselves here.
fn create_map() -> io::Result<OwnedFd> {
    /// The head of the kernel's `union bpf_attr` for `BPF_MAP_CREATE`.
    #[repr(C)]
    struct MapCreate {
        map_type: u32,
        key_size: u32,
        value_size: u32,
        max_entries: u32,
    }
    const BPF_MAP_CREATE: libc::c_int = 0;
    const BPF_MAP_TYPE_ARRAY: u32 = 2;
    let attr = MapCreate { map_type: BPF_MAP_TYPE_ARRAY, key_size: 4, value_size: 4, max_entries: 1 };
    #[allow(unsafe_code, reason = "neither std nor rustix has bpf()")]
    // SAFETY: `attr` outlives the call, and its true size is passed.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_CREATE, &raw const attr, size_of::<MapCreate>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    #[allow(unsafe_code, reason = "to close what bpf() opened")]
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    let map = unsafe { OwnedFd::from_raw_fd(fd) };
    Ok(map)
}

//! A `tp_btf` program at work, and what the kernel kept from it.

use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use aya::programs::BtfTracePoint;
use aya::programs::tp_btf::BtfTracePointLinkId;
use aya::{Btf, Ebpf};

use super::loader::{LoadError, missing, refused};

/// An attached program.
#[derive(Debug)]
pub(super) struct Attached {
    /// In the object.
    name: &'static str,
    /// `None` while it is off its tracepoint.
    link: Option<BtfTracePointLinkId>,
    /// What the kernel says of it (`/proc/self/fdinfo/…`).
    info: PathBuf,
}

impl Attached {
    /// Loads a program of the object and attaches it to a tracepoint.
    ///
    /// # Errors
    ///
    /// What aya and the kernel say.
    pub(super) fn new(
        ebpf: &mut Ebpf,
        btf: &Btf,
        proc: &Path,
        name: &'static str,
        tracepoint: &str,
    ) -> Result<Attached, LoadError> {
        let program = program(ebpf, name)?;
        program.load(tracepoint, btf).map_err(|error| refused("cannot load a program", &error))?;
        let link = program.attach().map_err(|error| refused("cannot attach a program", &error))?;
        let fd = program.fd().map_err(|error| refused("cannot use a program", &error))?;
        Ok(Attached { name, link: Some(link), info: proc.join(format!("self/fdinfo/{}", fd.as_fd().as_raw_fd())) })
    }

    /// Takes it off its tracepoint; it stays loaded.
    ///
    /// # Errors
    ///
    /// What aya and the kernel say.
    pub(super) fn pause(&mut self, ebpf: &mut Ebpf) -> Result<(), LoadError> {
        let Some(link) = self.link.take() else { return Ok(()) };
        program(ebpf, self.name)?.detach(link).map_err(|error| refused("cannot detach a program", &error))
    }

    /// Puts it back.
    ///
    /// # Errors
    ///
    /// What aya and the kernel say.
    pub(super) fn resume(&mut self, ebpf: &mut Ebpf) -> Result<(), LoadError> {
        if self.link.is_none() {
            let link = program(ebpf, self.name)?.attach();
            self.link = Some(link.map_err(|error| refused("cannot attach a program", &error))?);
        }
        Ok(())
    }

    /// Events that the kernel (5.12 and later) kept from the program because it was at work on that CPU already, interrupted in the middle:
    /// they are in no count. `None` where it does not tell.
    pub(super) fn nested(&self) -> Option<u64> {
        recursion_misses(&std::fs::read_to_string(&self.info).ok()?)
    }
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut BtfTracePoint, LoadError> {
    let program = ebpf.program_mut(name).ok_or_else(|| missing(name))?;
    program.try_into().map_err(|error| refused("cannot use a program", &error))
}

/// `recursion_misses:` of a program's fdinfo.
fn recursion_misses(info: &str) -> Option<u64> {
    info.lines().find_map(|line| line.strip_prefix("recursion_misses:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_skipped() {
        assert_eq!(recursion_misses("flags:\t02\nrun_cnt:\t0\nrecursion_misses:\t17\nverified_insns:\t9\n"), Some(17));
        assert_eq!(recursion_misses("flags:\t02\nrun_cnt:\t0\n"), None, "before 5.12");
    }
}

//! Where a thread may run: `/proc/TID/status`.

use super::cpulist;
use super::file::Malformed;

/// The CPUs allowed to the thread, ascending: its affinity within its cpuset (`Cpus_allowed_list`).
pub fn parse(status: &[u8]) -> Result<Vec<u32>, Malformed> {
    const NAME: &[u8] = b"Cpus_allowed_list:";
    // The thread's name is in the file, too, and need not be UTF-8; the kernel escapes line breaks in it.
    let list = status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(NAME));
    let list = list.and_then(|list| std::str::from_utf8(list).ok());
    cpulist::parse(list.ok_or_else(|| Malformed::new("no Cpus_allowed_list"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_and_no_name_like_it() {
        let text = b"Name:\tx\\nCpus_allowed_list:\t9\xff\nThreads:\t1\nCpus_allowed:\t7\nCpus_allowed_list:\t0-1,5\nMems_allowed_list:\t0\n";
        assert_eq!(parse(text), Ok(vec![0, 1, 5]));
        assert!(parse(b"Name:\tx\n").is_err());
        assert!(parse(b"Cpus_allowed_list:\tall\n").is_err());
    }
}

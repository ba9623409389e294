//! The systemd unit that a cgroup belongs to, by its path.

use crate::model::text;

/// Kinds of unit that have processes of their own.
const WITH_PROCESSES: [&[u8]; 5] = [b".service", b".scope", b".socket", b".mount", b".swap"];

/// The nearest unit of a path, from the leaf upwards, escaped: a service or another unit that runs something; where there is none, a slice.
pub fn nearest(path: &[u8]) -> Option<String> {
    let names = || path.rsplit(|byte| *byte == b'/');
    let is_unit = |name: &&[u8], suffix: &[u8]| name.len() > suffix.len() && name.ends_with(suffix);
    let runs = names().find(|name| WITH_PROCESSES.iter().any(|suffix| is_unit(name, suffix)));
    let name = runs.or_else(|| names().find(|name| is_unit(name, b".slice")))?;
    // systemd puts an underscore before names that could be a kernel file's: `_cpu.service`.
    Some(text::escape(name.strip_prefix(b"_").unwrap_or(name)).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        let check = |path: &[u8], unit: Option<&str>| assert_eq!(nearest(path).as_deref(), unit, "{path:?}");
        check(b"/system.slice/nginx.service", Some("nginx.service"));
        check(b"/system.slice/nginx.service/workers/1", Some("nginx.service"));
        check(b"/system.slice", Some("system.slice"));
        check(b"/user.slice/user-1000.slice/session-3.scope", Some("session-3.scope"));
        check(b"/user.slice/user-1000.slice/user@1000.service/app.slice/app.service", Some("app.service"));
        check(b"/user.slice/user-1000.slice/user@1000.service/app.slice", Some("user@1000.service"));
        check(b"/kubepods.slice/kubepods-pod1.slice/cri-containerd-0f.scope", Some("cri-containerd-0f.scope"));
        check(b"/kubepods.slice/kubepods-pod1.slice/0f", Some("kubepods-pod1.slice"));
        check(b"/system.slice/mnt-a.mount", Some("mnt-a.mount"));
        check(b"/system.slice/_cpu.service", Some("cpu.service"));
        check(b"/system.slice/a\\x2db\n\xff.service", Some(r"a\\x2db\x0a\xff.service"));
        check(b"/docker/0f", None);
        check(b"/.service/.slice", None);
        check(b"/", None);
        check(b"", None);
    }
}

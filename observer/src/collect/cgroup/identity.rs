//! Whose a cgroup is, by its path alone: systemd's units and sessions, containers of every runtime, pods of Kubernetes under both cgroup
//! drivers, and any of these inside another.
//!
//! Two conventions make most of the names. With systemd's driver a container is a scope, `docker-ID.scope`, below slices whose names hold
//! those of all above them: `kubepods-burstable-podUID.slice`. With the `cgroupfs` driver each is a directory: `/docker/ID`,
//! `/kubepods/burstable/podUID/ID`. runc given a path in the form of the one under the driver of the other makes `SLICE:PREFIX:ID`.
//!
//! A path is what whoever made the directory chose to call it: it is a claim, and what is found by it is never more than a name.

use std::sync::Arc;

use super::unit;
use crate::model::cgroup::identity::{Container, Identity, Qos, Runtime};
use crate::model::text;

/// Digits of the ids that container runtimes make.
const ID_DIGITS: usize = 64;
/// Fewer digits behind a runtime's prefix are no id.
const SHORTEST_ID: usize = 12;

/// What stands before a container's id, and behind it `.scope` with systemd's driver; and whether that is the runtime's process beside it.
static PREFIXES: &[(&[u8], Runtime, bool)] = &[
    (b"docker-", Runtime::Docker, false),
    (b"libpod-", Runtime::Podman, false),
    (b"libpod-payload-", Runtime::Podman, false),
    (b"libpod-conmon-", Runtime::Podman, true),
    (b"cri-containerd-", Runtime::Containerd, false),
    (b"nerdctl-", Runtime::Containerd, false),
    (b"crio-", Runtime::CriO, false),
    (b"crio-conmon-", Runtime::CriO, true),
];

/// Namespaces of containerd, whose containers are directly below the directory of that name at the root.
static NAMESPACES: &[(&[u8], Runtime)] =
    &[(b"default", Runtime::Containerd), (b"k8s.io", Runtime::Containerd), (b"moby", Runtime::Docker)];

/// Whose the cgroup with a path is; `None` where the path tells nothing.
pub fn of(path: &[u8]) -> Option<Arc<Identity>> {
    let mut identity = Identity { unit: unit::nearest(path).map(String::into_boxed_str), ..Identity::default() };
    let mut place = Place::default();
    for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
        place.enter(name, &mut identity);
    }
    (identity != Identity::default()).then(|| Arc::new(identity))
}

/// Where the walk along a path is.
#[derive(Default)]
struct Place<'a> {
    /// The name above; empty at the root.
    above: &'a [u8],
    depth: usize,
    /// In the tree of Kubernetes with the `cgroupfs` driver, above the pods.
    expects_pod: bool,
    /// Below `/ecs`.
    in_ecs: bool,
    in_nomad: bool,
}

impl<'a> Place<'a> {
    /// Goes on to the next name of the path, and changes the identity by what it tells.
    fn enter(&mut self, name: &'a [u8], identity: &mut Identity) {
        let found = self.kubernetes(name, identity) | self.container(name, identity);
        if found {
            identity.below = 0;
        } else if identity.container.is_some() || identity.pod.is_some() {
            identity.below += 1;
        }
        systemd(name, identity);
        self.in_ecs |= self.depth == 0 && name == b"ecs";
        self.in_nomad |= matches!(name, b"nomad" | b"nomad.slice");
        self.above = name;
        self.depth += 1;
    }

    /// Slices and directories of the kubelet; whether the name is a pod's.
    fn kubernetes(&mut self, name: &[u8], identity: &mut Identity) -> bool {
        let expects_pod = std::mem::take(&mut self.expects_pod);
        let level = match name {
            b"kubepods" => Some(Level { qos: None, pod: None }),
            b"burstable" if self.above == b"kubepods" => Some(Level { qos: Some(Qos::Burstable), pod: None }),
            b"besteffort" if self.above == b"kubepods" => Some(Level { qos: Some(Qos::BestEffort), pod: None }),
            _ if expects_pod => {
                let qos = identity.qos.unwrap_or(Qos::Guaranteed);
                name.strip_prefix(b"pod").and_then(pod_uid).map(|pod| Level { qos: Some(qos), pod: Some(pod) })
            }
            _ => name.split(|byte| *byte == b':').next().and_then(slice_level),
        };
        let Some(Level { qos, pod }) = level else { return false };
        // A cluster inside a container (kind, k3d) has pods of its own.
        (identity.container, identity.below) = (None, 0);
        self.expects_pod = pod.is_none() && !name.ends_with(b".slice");
        (identity.qos, identity.pod) = (qos, pod);
        identity.pod.is_some()
    }

    /// Directories and scopes of container runtimes; whether the name is a container's.
    fn container(&self, name: &[u8], identity: &mut Identity) -> bool {
        let found = prefixed(name)
            .or_else(|| lxc(self.above, name))
            .or_else(|| machine(name))
            .or_else(|| self.nomad(name))
            .or_else(|| self.ecs(name))
            .or_else(|| self.garden(name))
            .or_else(|| self.namespaced(name))
            .or_else(|| self.bare(name));
        let is_found = found.is_some();
        if is_found {
            identity.container = found;
        }
        is_found
    }

    /// `nomad.slice/share.slice/ALLOCATION.TASK.scope`, `nomad/ALLOCATION.TASK`: the allocation is the id, the task the name.
    fn nomad(&self, name: &[u8]) -> Option<Container> {
        let name = name.strip_suffix(b".scope").unwrap_or(name);
        let (id, rest) = name.split_at_checked(UUID)?;
        let task = rest.strip_prefix(b".").or_else(|| rest.strip_prefix(b"-")).filter(|task| !task.is_empty());
        if !self.in_nomad || !is_uuid(id) || task.is_none() && !rest.is_empty() {
            return None;
        }
        Some(Container { name: task.map(escaped), ..container(id, Runtime::Nomad) })
    }

    /// Amazon ECS: `ecs/TASK/ID` with Docker, `ecs/TASK/TASK-NUMBER` with containerd on Fargate.
    fn ecs(&self, name: &[u8]) -> Option<Container> {
        if !self.in_ecs {
            return None;
        }
        if is_id(name) {
            return Some(container(name, Runtime::Docker));
        }
        let number = name.strip_prefix(self.above)?.strip_prefix(b"-")?;
        let is_task = self.above.len() == 32 && self.above.iter().all(u8::is_ascii_hexdigit);
        (is_task && is_number(number)).then(|| container(name, Runtime::Containerd))
    }

    fn garden(&self, name: &[u8]) -> Option<Container> {
        (self.above == b"garden" && is_uuid(name)).then(|| container(name, Runtime::Garden))
    }

    /// containerd without a prefix. The ids of Kubernetes and Docker are digits, those that `ctr` takes are any name.
    fn namespaced(&self, name: &[u8]) -> Option<Container> {
        let (_, runtime) = NAMESPACES.iter().find(|(namespace, _)| self.depth == 1 && self.above == *namespace)?;
        (is_id(name) || self.above == b"default" && is_identifier(name)).then(|| container(name, *runtime))
    }

    /// 64 digits alone: below `docker` or `actions_job` Docker's, below a pod or another parent anybody's. A directory of Podman's that is
    /// called so is a pod's.
    fn bare(&self, name: &[u8]) -> Option<Container> {
        if !is_id(name) || self.above == b"libpod_parent" {
            return None;
        }
        let runtime = matches!(self.above, b"docker" | b"actions_job").then_some(Runtime::Docker);
        Some(Container { runtime, ..container(name, Runtime::Docker) })
    }
}

/// What a slice or a directory of the kubelet stands for.
struct Level {
    qos: Option<Qos>,
    pod: Option<Box<str>>,
}

/// `kubepods.slice`, `kubepods-burstable.slice`, `kubepods-podUID.slice`, each also with what the kubelet's `--cgroup-root` puts before it:
/// `kubelet-kubepods.slice`.
fn slice_level(name: &[u8]) -> Option<Level> {
    let mut parts = name.strip_suffix(b".slice")?.split(|byte| *byte == b'-');
    parts.find(|part| *part == b"kubepods")?;
    let mut next = parts.next();
    let qos = match next {
        Some(b"burstable") => Some(Qos::Burstable),
        Some(b"besteffort") => Some(Qos::BestEffort),
        _ => None,
    };
    if qos.is_some() {
        next = parts.next();
    }
    let Some(pod) = next else { return Some(Level { qos, pod: None }) };
    let pod = pod_uid(pod.strip_prefix(b"pod")?).filter(|_| parts.next().is_none())?;
    Some(Level { qos: qos.or(Some(Qos::Guaranteed)), pod: Some(pod) })
}

/// A pod's UID as the API writes it; systemd's driver has underscores in place of dashes, and static pods a hash.
fn pod_uid(name: &[u8]) -> Option<Box<str>> {
    let dashed: Vec<u8> = name.iter().map(|byte| if *byte == b'_' { b'-' } else { *byte }).collect();
    let is_hash = name.len() == 32 && name.iter().all(u8::is_ascii_hexdigit);
    (is_hash || is_uuid(&dashed)).then(|| escaped(&dashed))
}

/// `docker-ID.scope`, `libpod-ID`, `SLICE:cri-containerd:ID`.
fn prefixed(name: &[u8]) -> Option<Container> {
    let of = |id: &[u8], runtime, is_monitor| {
        let is_digits = id.len() >= SHORTEST_ID && id.iter().all(u8::is_ascii_hexdigit);
        is_digits.then(|| Container { is_monitor, ..container(id, runtime) })
    };
    let mut parts = name.rsplitn(3, |byte| *byte == b':');
    if let (Some(id), Some(prefix), Some(_)) = (parts.next(), parts.next(), parts.next()) {
        let is_it = |known: &[u8]| known.strip_suffix(b"-") == Some(prefix);
        let (_, runtime, is_monitor) = PREFIXES.iter().find(|(known, ..)| is_it(known))?;
        return of(id, *runtime, *is_monitor);
    }
    let name = name.strip_suffix(b".scope").unwrap_or(name);
    PREFIXES.iter().find_map(|(prefix, runtime, is_monitor)| of(name.strip_prefix(*prefix)?, *runtime, *is_monitor))
}

/// `lxc.payload.NAME`, `lxc.payload/NAME`, `lxc/NAME`; `lxc.monitor` likewise. The name is the id.
fn lxc(above: &[u8], name: &[u8]) -> Option<Container> {
    let of = |name: &[u8], is_monitor| {
        Some(Container { name: Some(escaped(name)), is_monitor, ..container(name, Runtime::Lxc) }).filter(|_| !name.is_empty())
    };
    match above {
        b"lxc" | b"lxc.payload" => of(name, false),
        b"lxc.monitor" => of(name, true),
        _ => match (name.strip_prefix(b"lxc.payload."), name.strip_prefix(b"lxc.monitor.")) {
            (Some(name), _) => of(name, false),
            (_, Some(name)) => of(name, true),
            _ => None,
        },
    }
}

/// What systemd-machined knows: `machine-NAME.scope`, `systemd-nspawn@NAME.service`. libvirt's names begin with the driver and a number.
fn machine(name: &[u8]) -> Option<Container> {
    let scope = || name.strip_prefix(b"machine-")?.strip_suffix(b".scope");
    let service = || name.strip_prefix(b"systemd-nspawn@")?.strip_suffix(b".service");
    let name = unescape(scope().or_else(service)?);
    let libvirt = || {
        let rest = name.strip_prefix(b"qemu-").or_else(|| name.strip_prefix(b"lxc-"))?;
        let dash = rest.iter().position(|byte| *byte == b'-').filter(|dash| is_number(&rest[..*dash]))?;
        Some(escaped(&rest[dash + 1..]))
    };
    let found = match libvirt() {
        Some(domain) => Container { name: Some(domain), ..container(&name, Runtime::Libvirt) },
        None => Container { name: Some(escaped(&name)), ..container(&name, Runtime::Nspawn) },
    };
    (!name.is_empty()).then_some(found)
}

/// Slices, users and sessions. Those inside a container are its own systemd's, and its users others than the machine's.
fn systemd(name: &[u8], identity: &mut Identity) {
    if name.len() > b".slice".len() && name.ends_with(b".slice") {
        identity.slice = Some(escaped(name.strip_prefix(b"_").unwrap_or(name)));
    }
    if identity.container.is_some() || identity.pod.is_some() {
        return;
    }
    let user_slice = || name.strip_prefix(b"user-")?.strip_suffix(b".slice");
    let user_service = || name.strip_prefix(b"user@")?.strip_suffix(b".service");
    if let Some(user) = user_slice().or_else(user_service).filter(|user| is_uid(user)) {
        identity.user = Some(escaped(user));
    }
    let session = name.strip_prefix(b"session-").and_then(|name| name.strip_suffix(b".scope"));
    if let Some(session) = session.filter(|session| !session.is_empty()) {
        identity.session = Some(escaped(session));
    }
}

fn container(id: &[u8], runtime: Runtime) -> Container {
    Container { id: escaped(id), runtime: Some(runtime), name: None, is_monitor: false }
}

fn is_id(name: &[u8]) -> bool {
    name.len() == ID_DIGITS && name.iter().all(u8::is_ascii_hexdigit)
}

/// As containerd demands of an id.
fn is_identifier(name: &[u8]) -> bool {
    let mut parts = name.split(|byte| matches!(byte, b'-' | b'_' | b'.'));
    name.len() <= 76 && parts.all(|part| !part.is_empty() && part.iter().all(u8::is_ascii_alphanumeric))
}

const UUID: usize = 36;

/// 8-4-4-4-12 digits.
fn is_uuid(name: &[u8]) -> bool {
    let is_digits = |(part, length): (&[u8], usize)| part.len() == length && part.iter().all(u8::is_ascii_hexdigit);
    name.len() == UUID && name.split(|byte| *byte == b'-').zip([8, 4, 4, 4, 12]).all(is_digits)
}

fn is_number(digits: &[u8]) -> bool {
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}

fn is_uid(digits: &[u8]) -> bool {
    is_number(digits) && std::str::from_utf8(digits).is_ok_and(|digits| digits.parse::<u32>().is_ok())
}

/// Names as systemd escapes them in those of units: `\x2d` is a byte.
fn unescape(name: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name;
    while let [first, after @ ..] = rest {
        let digits = after.strip_prefix(b"x").and_then(|after| after.split_at_checked(2)).filter(|_| *first == b'\\');
        let byte = digits.and_then(|(digits, after)| {
            let byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
            digits.iter().all(u8::is_ascii_hexdigit).then_some((byte, after))
        });
        let (byte, after) = byte.unwrap_or((*first, after));
        bytes.push(byte);
        rest = after;
    }
    bytes
}

fn escaped(bytes: &[u8]) -> Box<str> {
    text::escape(bytes).into()
}

#[cfg(test)]
mod tests;

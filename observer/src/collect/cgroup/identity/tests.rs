//! The tree of every runtime under every driver, with whose each cgroup in it is.

use std::fs;

use proptest::prelude::*;

use super::*;
use crate::collect::cgroup::Cgroups;

/// In the tables below `ID` and `NODE` are ids of 64 digits, `UID` a pod's, `U_I_D` the same as systemd's driver writes it, `HASH` that of a
/// static pod, `ALLOC` a UUID, `TASK` 32 digits.
fn spelled(text: &str) -> String {
    text.replace("U_I_D", "0b7a4a9c_51f1_4a7e_8c5e_0d7d7f1f9d10")
        .replace("UID", "0b7a4a9c-51f1-4a7e-8c5e-0d7d7f1f9d10")
        .replace("ALLOC", "3dd61372-cbe0-4e2a-a5be-6e3ac7c4a3b1")
        .replace("NODE", &"9d".repeat(32))
        .replace("HASH", "f4c1d5e0a8b94f0b9d1c2e3f40516273")
        .replace("TASK", "c23e5f76c09d438aa1824ca4058bdcab")
        .replace("ID", &"4f".repeat(32))
}

/// All that is known, without the unit, which has tests of its own.
fn words(identity: &Identity) -> String {
    let Identity { unit: _, slice, session, user, qos, pod, container, below } = identity;
    let mut words = Vec::new();
    let mut add = |name: &str, text: Option<&str>| words.extend(text.map(|text| format!("{name} {text}")));
    add("slice", slice.as_deref());
    add("user", user.as_deref());
    add("session", session.as_deref());
    add("qos", qos.map(Qos::name));
    add("pod", pod.as_deref());
    if let Some(Container { id, runtime, name, is_monitor }) = container {
        let what = if *is_monitor { "monitor" } else { "container" };
        add(runtime.map_or("–", Runtime::name), Some(&format!("{what} {id}")));
        add("name", name.as_deref());
    }
    add("below", Some(&below.to_string()).filter(|_| *below > 0).map(String::as_str));
    words.join(", ")
}

#[track_caller]
fn check(path: &str, expected: &str) {
    let found = of(spelled(path).as_bytes()).map(|identity| words(&identity)).unwrap_or_default();
    assert_eq!(found, spelled(expected), "{path}");
}

type Tree = (&'static str, &'static [(&'static str, &'static str)]);

static TREES: &[Tree] = &[
    (
        "systemd: slices, units, sessions and users",
        &[
            ("/", ""),
            ("/init.scope", ""),
            ("/system.slice", "slice system.slice"),
            ("/system.slice/nginx.service/workers", "slice system.slice"),
            ("/system.slice/system-getty.slice/getty@tty1.service", "slice system-getty.slice"),
            ("/user.slice/user-1000.slice", "slice user-1000.slice, user 1000"),
            ("/user.slice/user-1000.slice/session-3.scope", "slice user-1000.slice, user 1000, session 3"),
            ("/user.slice/user-0.slice/session-c2.scope", "slice user-0.slice, user 0, session c2"),
            ("/user.slice/user-1000.slice/user@1000.service/app.slice/a.service", "slice app.slice, user 1000"),
        ],
    ),
    (
        "Docker, systemd driver",
        &[
            ("/system.slice/docker.service", "slice system.slice"),
            ("/system.slice/docker-ID.scope", "slice system.slice, docker container ID"),
            ("/system.slice/docker-ID.scope/init.scope", "slice system.slice, docker container ID, below 1"),
            ("/system.slice/docker-ID.scope/user.slice/user-7.slice", "slice user-7.slice, docker container ID, below 2"),
            ("/custom.slice/docker-ID.scope", "slice custom.slice, docker container ID"),
        ],
    ),
    (
        "Docker, cgroupfs driver",
        &[
            ("/docker", ""),
            ("/docker/ID", "docker container ID"),
            ("/docker/ID/a/b", "docker container ID, below 2"),
            ("/actions_job/ID", "docker container ID"),
            ("/docker/buildkit/pnf2c1g2yzv9mcm1b0vlq1yfk", ""),
            ("/docker/NODE/docker/ID", "docker container ID"),
            ("/parent/ID", "– container ID"),
            ("/system.slice/docker.service/system.slice:docker:ID", "slice system.slice, docker container ID"),
        ],
    ),
    (
        "Podman, systemd driver",
        &[
            ("/machine.slice/libpod-ID.scope", "slice machine.slice, podman container ID"),
            ("/machine.slice/libpod-ID.scope/container", "slice machine.slice, podman container ID, below 1"),
            ("/machine.slice/libpod-conmon-ID.scope", "slice machine.slice, podman monitor ID"),
            (
                "/machine.slice/machine-libpod_pod_NODE.slice/libpod-ID.scope",
                "slice machine-libpod_pod_NODE.slice, podman container ID",
            ),
            ("/system.slice/web.service/libpod-payload-ID", "slice system.slice, podman container ID"),
            ("/system.slice/web.service/runtime", "slice system.slice"),
        ],
    ),
    (
        "Podman without root",
        &[
            (
                "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope/container",
                "slice user.slice, user 1000, podman container ID, below 1",
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/web.service/libpod-payload-ID",
                "slice app.slice, user 1000, podman container ID",
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/user.slice/user-libpod_pod_NODE.slice/libpod-conmon-ID.scope",
                "slice user-libpod_pod_NODE.slice, user 1000, podman monitor ID",
            ),
        ],
    ),
    (
        "Podman, cgroupfs driver",
        &[
            ("/libpod_parent/libpod-ID", "podman container ID"),
            ("/libpod_parent/conmon", ""),
            ("/libpod_parent/NODE", ""),
            ("/libpod_parent/NODE/libpod-ID", "podman container ID"),
        ],
    ),
    (
        "containerd by itself",
        &[
            ("/default/ID", "containerd container ID"),
            ("/default/redis-1", "containerd container redis-1"),
            ("/k8s.io/ID", "containerd container ID"),
            ("/moby/ID", "docker container ID"),
            ("/default/not an id", ""),
            ("/elsewhere/default/redis-1", ""),
            ("/k8s.io/redis", ""),
            ("/system.slice/nerdctl-ID.scope", "slice system.slice, containerd container ID"),
        ],
    ),
    (
        "Kubernetes with containerd, systemd driver",
        &[
            ("/kubepods.slice", "slice kubepods.slice"),
            ("/kubepods.slice/kubepods-burstable.slice", "slice kubepods-burstable.slice, qos burstable"),
            (
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podU_I_D.slice",
                "slice kubepods-burstable-podU_I_D.slice, qos burstable, pod UID",
            ),
            (
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podU_I_D.slice/cri-containerd-ID.scope",
                "slice kubepods-burstable-podU_I_D.slice, qos burstable, pod UID, containerd container ID",
            ),
            (
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podU_I_D.slice/cri-containerd-ID.scope/init",
                "slice kubepods-besteffort-podU_I_D.slice, qos besteffort, pod UID, containerd container ID, below 1",
            ),
            (
                "/kubepods.slice/kubepods-podU_I_D.slice/cri-containerd-ID.scope",
                "slice kubepods-podU_I_D.slice, qos guaranteed, pod UID, containerd container ID",
            ),
            (
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podHASH.slice/cri-containerd-ID.scope",
                "slice kubepods-burstable-podHASH.slice, qos burstable, pod HASH, containerd container ID",
            ),
        ],
    ),
    (
        "Kubernetes, cgroupfs driver: the runtime is not in the path",
        &[
            ("/kubepods", ""),
            ("/kubepods/besteffort", "qos besteffort"),
            ("/kubepods/besteffort/podUID", "qos besteffort, pod UID"),
            ("/kubepods/burstable/podUID/ID", "qos burstable, pod UID, – container ID"),
            ("/kubepods/podUID/ID", "qos guaranteed, pod UID, – container ID"),
            ("/kubepods/podHASH/ID/child", "qos guaranteed, pod HASH, – container ID, below 1"),
            ("/system.slice/kubepods/burstable/podUID/ID", "slice system.slice, qos burstable, pod UID, – container ID"),
            ("/kubepods/burstable/podwrong", "qos burstable"),
            ("/podUID", ""),
        ],
    ),
    (
        "Kubernetes with the drivers of kubelet and runtime mixed up",
        &[
            (
                "/system.slice/containerd.service/kubepods-burstable-podU_I_D.slice:cri-containerd:ID",
                "slice system.slice, qos burstable, pod UID, containerd container ID",
            ),
            ("/kubepods-podU_I_D.slice:crio:ID", "qos guaranteed, pod UID, cri-o container ID"),
        ],
    ),
    (
        "Kubernetes with CRI-O",
        &[
            (
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podU_I_D.slice/crio-ID.scope/container",
                "slice kubepods-besteffort-podU_I_D.slice, qos besteffort, pod UID, cri-o container ID, below 1",
            ),
            (
                "/kubepods.slice/kubepods-podU_I_D.slice/crio-conmon-ID.scope",
                "slice kubepods-podU_I_D.slice, qos guaranteed, pod UID, cri-o monitor ID",
            ),
            ("/kubepods/burstable/podUID/crio-ID", "qos burstable, pod UID, cri-o container ID"),
            ("/kubepods/burstable/podUID/crio-conmon-ID", "qos burstable, pod UID, cri-o monitor ID"),
        ],
    ),
    (
        "Kubernetes with Docker",
        &[
            (
                "/kubepods.slice/kubepods-podU_I_D.slice/docker-ID.scope",
                "slice kubepods-podU_I_D.slice, qos guaranteed, pod UID, docker container ID",
            ),
            // A pod that runs Docker.
            ("/kubepods/podUID/NODE/docker/ID", "qos guaranteed, pod UID, docker container ID"),
        ],
    ),
    (
        "kind, k3d: Kubernetes in containers",
        &[
            ("/system.slice/docker-NODE.scope/kubelet.slice", "slice kubelet.slice, docker container NODE, below 1"),
            (
                "/system.slice/docker-NODE.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/\
                 kubelet-kubepods-besteffort-podU_I_D.slice/cri-containerd-ID.scope",
                "slice kubelet-kubepods-besteffort-podU_I_D.slice, qos besteffort, pod UID, containerd container ID",
            ),
            ("/docker/NODE/kubelet/kubepods/burstable", "qos burstable"),
            ("/docker/NODE/kubelet/kubepods/burstable/podUID", "qos burstable, pod UID"),
            ("/docker/NODE/kubelet/kubepods/burstable/podUID/ID", "qos burstable, pod UID, – container ID"),
            ("/docker/NODE/system.slice/containerd.service", "slice system.slice, docker container NODE, below 2"),
        ],
    ),
    (
        "LXC, LXD, Incus, Proxmox",
        &[
            ("/lxc.payload.web", "lxc container web, name web"),
            ("/lxc.payload.web/system.slice/ssh.service", "slice system.slice, lxc container web, name web, below 2"),
            ("/lxc.payload/web", "lxc container web, name web"),
            ("/lxc.monitor.web", "lxc monitor web, name web"),
            ("/lxc.monitor/web", "lxc monitor web, name web"),
            ("/lxc/web", "lxc container web, name web"),
            ("/lxc/101/ns/init.scope", "lxc container 101, name 101, below 2"),
            ("/lxc", ""),
            ("/lxc.payload.", ""),
        ],
    ),
    (
        "Nomad",
        &[
            ("/nomad.slice/share.slice", "slice share.slice"),
            ("/nomad.slice/share.slice/ALLOC.web.scope", "slice share.slice, nomad container ALLOC, name web"),
            ("/nomad.slice/reserve.slice/ALLOC.web.db.scope", "slice reserve.slice, nomad container ALLOC, name web.db"),
            ("/nomad.slice/ALLOC.web.scope", "slice nomad.slice, nomad container ALLOC, name web"),
            ("/nomad/ALLOC", "nomad container ALLOC"),
            ("/nomad/share/ALLOC.web", "nomad container ALLOC, name web"),
            ("/nomad/reserved/ALLOC-web", "nomad container ALLOC, name web"),
            ("/nomad/ALLOCweb", ""),
            ("/elsewhere/ALLOC.web.scope", ""),
            ("/nomad.slice/docker-ID.scope", "slice nomad.slice, docker container ID"),
        ],
    ),
    (
        "systemd-nspawn and libvirt",
        &[
            ("/machine.slice/machine-debian.scope", "slice machine.slice, systemd-nspawn container debian, name debian"),
            (
                r"/machine.slice/machine-my\x2dbox.scope/payload",
                "slice machine.slice, systemd-nspawn container my-box, name my-box, below 1",
            ),
            (
                "/machine.slice/systemd-nspawn@web.service/payload/system.slice",
                "slice system.slice, systemd-nspawn container web, name web, below 2",
            ),
            (
                r"/machine.slice/machine-qemu\x2d3\x2dvm\x2d1.scope/libvirt/vcpu0",
                "slice machine.slice, libvirt container qemu-3-vm-1, name vm-1, below 2",
            ),
            (r"/machine.slice/machine-qemu\x2dx.scope", "slice machine.slice, systemd-nspawn container qemu-x, name qemu-x"),
            ("/machine.slice/machine-.scope", "slice machine.slice"),
        ],
    ),
    (
        "Amazon ECS",
        &[
            ("/ecs/TASK", ""),
            ("/ecs/TASK/ID", "docker container ID"),
            ("/ecs/cluster/TASK/ID", "docker container ID"),
            ("/ecs/TASK/TASK-1234567890", "containerd container TASK-1234567890"),
            ("/ecs/TASK/TASK-x", ""),
            ("/ecstasks.slice/ecstasks-TASK.slice/docker-ID.scope", "slice ecstasks-TASK.slice, docker container ID"),
        ],
    ),
    (
        "Garden",
        &[
            ("/garden/ALLOC", "garden container ALLOC"),
            ("/system.slice/garden.service/garden/ALLOC", "slice system.slice, garden container ALLOC"),
            ("/garden/good", ""),
        ],
    ),
    (
        "what only looks like it",
        &[
            ("/system.slice/docker-ID.slice", "slice docker-ID.slice"),
            ("/system.slice/docker-0f.scope", "slice system.slice"),
            ("/system.slice/docker-storage-setup.service", "slice system.slice"),
            ("/system.slice/crio-.scope", "slice system.slice"),
            ("/system.slice/a:b:c", "slice system.slice"),
            ("/my-kubepods-app.slice", "slice my-kubepods-app.slice"),
            ("/kubepods-burstable-podU_I_D-x.slice", "slice kubepods-burstable-podU_I_D-x.slice"),
            ("/user.slice/user-4294967296.slice", "slice user-4294967296.slice"),
            ("/user.slice/user--1.slice", "slice user--1.slice"),
            ("/.slice/session-.scope", ""),
        ],
    ),
];

#[test]
fn every_runtime_under_every_driver() {
    for (_, tree) in TREES {
        tree.iter().for_each(|(path, expected)| check(path, expected));
    }
}

/// The same through the walk, on a v2 and on a v1 host: what a row carries is what its path tells.
#[test]
fn the_walk_carries_it() {
    for file in ["cgroup.controllers", "cpu.shares"] {
        for (runtime, tree) in TREES {
            let root = tempfile::tempdir().unwrap();
            fs::write(root.path().join(file), "").unwrap();
            for (path, _) in *tree {
                fs::create_dir_all(root.path().join(spelled(path).trim_start_matches('/'))).unwrap();
            }
            let listing = Cgroups::open(root.path()).unwrap().read().unwrap();
            for (path, expected) in *tree {
                let escaped = escaped(spelled(path).as_bytes());
                let group = listing.groups.iter().find(|group| *group.path == *escaped).unwrap();
                let found = group.identity.as_ref().map(|identity| words(identity)).unwrap_or_default();
                assert_eq!(found, spelled(expected), "{runtime}: {path}");
            }
        }
    }
}

#[test]
fn hostile_names_are_escaped() {
    let identity = of(b"/lxc.payload.\x1b[2J/evil\xff.slice/x\ny.service").unwrap();
    assert_eq!(words(&identity), r"slice evil\xff.slice, lxc container \x1b[2J, name \x1b[2J, below 2");
    assert_eq!(identity.unit.as_deref(), Some(r"x\x0ay.service"));
    assert_eq!(words(&of(br"/machine.slice/machine-\x1b\xzz\x2.scope").unwrap()), {
        r"slice machine.slice, systemd-nspawn container \x1b\\xzz\\x2, name \x1b\\xzz\\x2"
    });
}

/// Parts of which paths are made, real ones and what comes near them.
fn part() -> impl Strategy<Value = Vec<u8>> {
    let words: Vec<Vec<u8>> = TREES
        .iter()
        .flat_map(|(_, tree)| tree.iter().flat_map(|(path, _)| path.split('/')))
        .map(|part| spelled(part).into_bytes())
        .collect();
    prop_oneof![
        proptest::sample::select(words.clone()),
        // Cut off, or with something behind it.
        (proptest::sample::select(words), any::<proptest::sample::Index>(), any::<Vec<u8>>()).prop_map(|(mut word, at, more)| {
            word.truncate(at.index(word.len() + 1));
            word.extend(more);
            word
        }),
        any::<Vec<u8>>(),
    ]
}

proptest! {
    #[test]
    fn any_path_gives_text_that_is_safe(parts in proptest::collection::vec(part(), 0..8)) {
        let path = parts.iter().flat_map(|part| [b"/".as_slice(), part]).collect::<Vec<_>>().concat();
        let Some(identity) = of(&path) else { return Ok(()) };
        let container = identity.container.as_ref();
        let texts = [
            identity.unit.as_deref(), identity.slice.as_deref(), identity.session.as_deref(), identity.user.as_deref(),
            identity.pod.as_deref(), container.map(|container| &*container.id), container.and_then(|container| container.name.as_deref()),
        ];
        for text in texts.into_iter().flatten() {
            prop_assert!(!text.is_empty() && !text.chars().any(char::is_control), "{text:?}");
            // Every backslash is one of an escape.
            let rest = text.replace(r"\\", "");
            prop_assert!(rest.split('\\').skip(1).all(|escape| escape.starts_with('x')), "{text:?}");
        }
        let depth = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).count();
        prop_assert!(identity.below < depth.max(1));
        prop_assert!(identity.pod.is_none() || identity.qos.is_some());
    }
}

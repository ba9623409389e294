//! Names found below a root that looks like a host's, in the order and at the pace of readings.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use observer_common::sched::Key;

use super::*;
use crate::collect::cgroup::identity;
use crate::model::cgroup::CpuStat;
use crate::model::cgroup::identity::{Role, Runtime};

const UID: &str = "0b7a4a9c-51f1-4a7e-8c5e-0d7d7f1f9d10";
const POD: &str = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0b7a4a9c_51f1_4a7e_8c5e_0d7d7f1f9d10.slice";

/// A host's root, its names, and what is listed.
struct Host {
    folder: tempfile::TempDir,
    names: Names,
    listed: Vec<Found>,
    now: Instant,
}

/// An id of 64 digits.
fn id(number: u32) -> String {
    format!("{number:064x}")
}

impl Host {
    fn new(paths: &[&str]) -> Host {
        let folder = tempfile::tempdir().unwrap();
        let names = Names::new(&Roots { host: folder.path().into(), proc: folder.path().join("proc"), ..Roots::default() });
        let mut host = Host { folder, names, listed: Vec::new(), now: Instant::now() };
        host.list(paths);
        host
    }

    fn list(&mut self, paths: &[&str]) {
        let found = |(number, path): (u64, &&str)| Found {
            key: Key::v2(number),
            parent: None,
            path: (*path).into(),
            identity: identity::of(path.as_bytes()),
            cpu: CpuStat::default(),
            resources: Arc::default(),
        };
        self.listed = (2..).zip(paths).map(found).collect();
    }

    fn write(&self, path: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// Reads after so many seconds.
    fn read(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.names.read(&self.listed, self.now);
    }

    /// What is known of each that is listed: container, pod and namespace, image, role, user.
    fn known(&self) -> Vec<String> {
        self.listed.iter().map(|found| found.identity.as_ref().and_then(|identity| self.names.of(identity))).map(words).collect()
    }

    #[track_caller]
    fn check(&mut self, expected: &[&str]) {
        self.read(1);
        assert_eq!(self.known(), expected);
    }

    fn reason(&self) -> String {
        match self.names.source().state {
            State::On => "on".into(),
            State::Degraded(reason) => format!("degraded: {}", reason.replace(self.folder.path().to_str().unwrap(), "ROOT")),
            State::Off(reason) => format!("off: {}", reason.replace(self.folder.path().to_str().unwrap(), "ROOT")),
        }
    }
}

fn words(told: Option<Arc<Told>>) -> String {
    let Some(told) = told else { return "–".into() };
    let Told { container, role, runtime, image, pod, namespace, user } = &*told;
    let texts = [container, namespace, pod, image, user].map(|text| text.as_deref());
    let words = [role.map(Role::name), runtime.map(Runtime::name)];
    texts.into_iter().chain(words).flatten().collect::<Vec<_>>().join(" ")
}

fn annotated(container: &str, pod: &str) -> String {
    format!(
        r#"{{"annotations": {{"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.container-name": "{container}",
            "io.kubernetes.cri.sandbox-name": "{pod}", "io.kubernetes.cri.sandbox-namespace": "shop",
            "io.kubernetes.cri.image-name": "registry.example/{container}:1"}}}}"#
    )
}

#[test]
fn a_pod_of_containerd() {
    for base in ["run/containerd", "run/k3s/containerd", "run/k0s/containerd", "var/snap/microk8s/common/run/containerd"] {
        let paths =
            [POD.into(), format!("{POD}/cri-containerd-{}.scope", id(1)), format!("{POD}/cri-containerd-{}.scope/a", id(2))];
        let mut host = Host::new(&paths.each_ref().map(String::as_str));
        let file = |number| format!("{base}/io.containerd.runtime.v2.task/k8s.io/{}/config.json", id(number));
        host.write(&file(1), &annotated("nginx", "web-0"));
        host.write(
            &file(2),
            r#"{"annotations": {"io.kubernetes.cri.container-type": "sandbox", "io.kubernetes.cri.sandbox-name": "web-0",
                "io.kubernetes.cri.sandbox-namespace": "shop"}}"#,
        );
        host.check(&["shop web-0", "nginx shop web-0 registry.example/nginx:1 containerd", "shop web-0 pause containerd"]);
        assert_eq!(host.reason(), "on");
    }
}

#[test]
fn a_pod_whose_runtime_the_path_does_not_name() {
    let paths = [
        format!("/kubepods/burstable/pod{UID}/{}", id(1)),
        format!("/kubepods/burstable/pod{UID}/{}", id(2)),
        format!("/kubepods/burstable/pod{UID}/{}", id(3)),
    ];
    let mut host = Host::new(&paths.each_ref().map(String::as_str));
    host.write(
        &format!("run/containerd/io.containerd.runtime.v2.task/k8s.io/{}/config.json", id(1)),
        &annotated("nginx", "web-0"),
    );
    let labels =
        r#"{"Name": "/k8s_db", "Config": {"Labels": {"io.kubernetes.container.name": "db", "io.kubernetes.pod.name": "web-0"}}}"#;
    host.write(&format!("var/lib/docker/containers/{}/config.v2.json", id(2)), labels);
    // The third is known from the kubelet's logs alone.
    host.write(&format!("var/log/containers/web-0_shop_proxy-{}.log", id(3)), "");
    host.check(&["nginx shop web-0 registry.example/nginx:1 containerd", "db web-0 docker", "proxy shop web-0"]);
}

#[test]
fn the_kubelets_folders_tell_of_pods() {
    let container = format!("{POD}/crio-{}.scope", id(1));
    let mut host = Host::new(&[POD, &container]);
    host.write(&format!("var/log/pods/shop_web-0_{UID}/nginx/0.log"), "");
    host.check(&["shop web-0", "shop web-0"]);
    let bundle = r#"{"annotations": {"io.kubernetes.cri-o.ContainerType": "container", "io.kubernetes.container.name": "nginx",
        "io.kubernetes.pod.name": "web-0", "io.kubernetes.pod.namespace": "shop"}}"#;
    host.write(&format!("run/containers/storage/overlay-containers/{}/userdata/config.json", id(1)), bundle);
    host.check(&["shop web-0", "nginx shop web-0 cri-o"]);
}

#[test]
fn a_pod_learns_from_its_containers_whichever_comes_first() {
    let container = format!("{POD}/cri-containerd-{}.scope", id(1));
    let mut host = Host::new(&[&container, POD]);
    host.write(
        &format!("run/containerd/io.containerd.runtime.v2.task/k8s.io/{}/config.json", id(1)),
        &annotated("nginx", "web-0"),
    );
    host.check(&["nginx shop web-0 registry.example/nginx:1 containerd", "shop web-0"]);
}

/// The kubelet alone tells a sidecar; what it says comes with a later reading.
#[test]
fn the_kubelet_is_asked_where_it_may_be() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let list = format!(
        r#"{{"items": [{{"metadata": {{"name": "web-0", "namespace": "shop", "uid": "{UID}"}},
            "spec": {{"initContainers": [{{"name": "nginx", "restartPolicy": "Always"}}]}}, "status": {{
                "initContainerStatuses": [{{"name": "nginx", "containerID": "containerd://{}"}}],
                "containerStatuses": [{{"name": "app", "containerID": "containerd://{}"}}]}}}}]}}"#,
        id(1),
        id(2)
    );
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        assert!(stream.read(&mut [0; 1024]).unwrap() > 0);
        stream.write_all(format!("HTTP/1.0 200 OK\r\n\r\n{list}").as_bytes()).unwrap();
    });
    let paths = [POD.into(), format!("{POD}/cri-containerd-{}.scope", id(1)), format!("{POD}/cri-containerd-{}.scope", id(2))];
    let mut host = Host::new(&paths.each_ref().map(String::as_str));
    host.write(
        &format!("run/containerd/io.containerd.runtime.v2.task/k8s.io/{}/config.json", id(1)),
        &annotated("nginx", "web-0"),
    );
    host.names.ask(&url);
    host.check(&["shop web-0", "nginx shop web-0 registry.example/nginx:1 containerd", "shop web-0"]);
    while host.known()[2] == "shop web-0" {
        std::thread::sleep(Duration::from_millis(1));
        host.read(0);
    }
    host.check(&["shop web-0", "nginx shop web-0 registry.example/nginx:1 sidecar containerd", "app shop web-0"]);
    assert_eq!(host.reason(), "on");
    // It has gone away.
    host.read(9);
    while host.reason() == "on" {
        std::thread::sleep(Duration::from_millis(1));
        host.read(0);
    }
    assert!(host.reason().ends_with("Connection refused (os error 111)"), "{}", host.reason());
    assert_eq!(host.known()[2], "app shop web-0", "what it told stays");
}

#[test]
fn docker_and_podman() {
    let paths = [
        format!("/docker/{}", id(1)),
        format!("/machine.slice/libpod-{}.scope", id(2)),
        format!("/libpod_parent/libpod-{}", id(3)),
    ];
    let mut host = Host::new(&paths.each_ref().map(String::as_str));
    host.write(&format!("var/lib/docker/containers/{}/config.v2.json", id(1)), r#"{"Name": "/shop-web-1"}"#);
    let list = |number, name| format!(r#"[{{"id": "{}", "names": ["{name}"]}}]"#, id(number));
    host.write("var/lib/containers/storage/overlay-containers/containers.json", &list(2, "db"));
    host.write("var/lib/containers/storage/overlay-containers/volatile-containers.json", &list(3, "job"));
    host.check(&["shop-web-1 docker", "db podman", "job podman"]);
}

/// A host on which the one who runs this test has a home and runs a container; another user claims the same.
fn rootless() -> (Host, u32) {
    let folder = tempfile::tempdir().unwrap();
    let uid = fs::metadata(folder.path()).unwrap().uid();
    let of = |uid, number| format!("/user.slice/user-{uid}.slice/user@{uid}.service/user.slice/libpod-{}.scope", id(number));
    let paths = [of(uid, 1), of(uid + 1, 1), of(uid, 2), format!("/user.slice/user-{uid}.slice/session-3.scope")];
    let host = Host::new(&paths.each_ref().map(String::as_str));
    let passwd = format!("alice:x:{uid}:0::/home/alice:/bin/sh\nmallory:x:{}:0::/home/alice:/bin/sh\n", uid + 1);
    host.write("etc/passwd", &passwd);
    host.write("proc/1/root/etc/passwd", &passwd);
    (host, uid)
}

#[test]
fn containers_of_users_are_in_their_homes() {
    let (mut host, _) = rootless();
    let list = |number, name| format!(r#"[{{"id": "{}", "names": ["{name}"]}}]"#, id(number));
    host.write("home/alice/.local/share/containers/storage/overlay-containers/containers.json", &list(1, "mine"));
    // Of the system, which tells nothing of what is in a user's slice.
    host.write("var/lib/containers/storage/overlay-containers/containers.json", &list(2, "theirs"));
    host.check(&["mine alice podman", "mallory", "alice", "alice"]);
    let reason = host.reason();
    assert!(reason.contains("containers.json: belongs to user"), "{reason}");
}

#[test]
fn nobody_is_led_out_of_a_home() {
    let (mut host, _) = rootless();
    let secret = host.write("secret.json", &format!(r#"[{{"id": "{}", "names": ["secret"]}}]"#, id(1)));
    let folder = host.folder.path().join("home/alice/.local/share/containers/storage/overlay-containers");
    fs::create_dir_all(&folder).unwrap();
    symlink(&secret, folder.join("containers.json")).unwrap();
    host.check(&["alice", "mallory", "alice", "alice"]);
    assert!(host.reason().contains("containers.json: Too many levels of symbolic links"), "{}", host.reason());
}

#[test]
fn a_host_without_containers_is_quiet_and_touches_nothing() {
    let mut host = Host::new(&["/", "/system.slice/nginx.service", "/lxc.payload.web", "/machine.slice/machine-debian.scope"]);
    host.names.root = Root::new(Path::new("/nonexistent"));
    host.check(&["–", "–", "–", "–"]);
    assert_eq!(host.reason(), "on");
}

#[test]
fn a_root_that_is_not_there_puts_it_off_until_it_is() {
    let path = format!("/docker/{}", id(1));
    let mut host = Host::new(&[&path]);
    let mounted = host.folder.path().join("host");
    host.names.root = Root::new(&mounted);
    host.check(&["–"]);
    assert_eq!(
        host.reason(),
        "off: ROOT/host: No such file or directory (os error 2); name the folder where the host's root is with --host-root"
    );
    host.write(&format!("host/var/lib/docker/containers/{}/config.v2.json", id(1)), r#"{"Name": "/web"}"#);
    host.check(&["web docker"]);
    assert_eq!(host.reason(), "on");
}

#[test]
fn what_cannot_be_read_is_one_sentence() {
    let paths = [1, 2, 3].map(|number| format!("/docker/{}", id(number)));
    let mut host = Host::new(&paths.each_ref().map(String::as_str));
    let file = |number| format!("var/lib/docker/containers/{}/config.v2.json", id(number));
    host.write(&file(1), "{\"Name\": \x1b");
    host.write(&file(2), &format!("\"{}\"", "x".repeat(1 << 20)));
    host.write(&file(3), r#"{"Name": "/web"}"#);
    host.check(&["–", "–", "web docker"]);
    let expected = format!("degraded: names of containers: ROOT/{}: expected value at line 1 column 10 (and 1 more)", file(1));
    assert_eq!(host.reason(), expected);
    host.write(&file(1), r#"{"Name": "/a"}"#);
    host.write(&file(2), r#"{"Name": "/b"}"#);
    host.check(&["a docker", "b docker", "web docker"]);
    assert_eq!(host.reason(), "on");
}

#[test]
fn where_nothing_is_found_at_all_it_says_what_to_do() {
    let paths = [format!("/docker/{}", id(1)), POD.to_owned()];
    let mut host = Host::new(&paths.each_ref().map(String::as_str));
    for _ in 0..3 {
        host.read(300);
        assert_eq!(host.reason(), "on", "it may only be late");
    }
    host.read(300);
    let reason = host.reason();
    assert!(
        reason.starts_with("degraded: no container runtime's state tells the names of 2 containers and pods; in a"),
        "{reason}"
    );
}

#[test]
fn names_fill_in_over_some_readings() {
    let paths: Vec<String> = (0..80).map(|number| format!("/docker/{}", id(number))).collect();
    let mut host = Host::new(&paths.iter().map(String::as_str).collect::<Vec<_>>());
    for number in 0..80 {
        host.write(&format!("var/lib/docker/containers/{}/config.v2.json", id(number)), r#"{"Name": "/x"}"#);
    }
    let mut counts = (0..4).map(|_| {
        host.read(1);
        host.known().iter().filter(|known| *known == "x docker").count()
    });
    assert_eq!([counts.next(), counts.next(), counts.next(), counts.next()], [32, 64, 80, 80].map(Some));
}

#[test]
fn large_files_leave_less_for_others() {
    let paths: Vec<String> = (0..4).map(|number| format!("/docker/{}", id(number))).collect();
    let mut host = Host::new(&paths.iter().map(String::as_str).collect::<Vec<_>>());
    for number in 0..4 {
        let text = format!(r#"{{"Name": "/x", "Padding": "{}"}}"#, "x".repeat(900 << 10));
        host.write(&format!("var/lib/docker/containers/{}/config.v2.json", id(number)), &text);
    }
    host.check(&["x docker", "x docker", "–", "–"]);
    host.check(&["x docker"; 4]);
}

#[test]
fn who_is_not_found_is_tried_again_ever_more_seldom() {
    let path = format!("/docker/{}", id(1));
    let mut host = Host::new(&[&path]);
    let mut tries = Vec::new();
    for second in 0..40 {
        host.read(1);
        let slot = &host.names.containers[&None][&*id(1)];
        if tries.len() < slot.tries as usize {
            tries.push(second);
        }
    }
    assert_eq!(tries, [0, 1, 3, 7, 15, 31]);
}

#[test]
fn who_is_new_does_not_wait_for_those_that_are_not_found() {
    let paths: Vec<String> = (0..100).map(|number| format!("/docker/{}", id(number))).collect();
    let mut host = Host::new(&paths.iter().map(String::as_str).collect::<Vec<_>>());
    let is_untried = |host: &Host| host.names.containers[&None].values().any(|slot| slot.tries == 0);
    host.read(1);
    let mut readings = 1;
    while is_untried(&host) {
        host.read(1);
        readings += 1;
    }
    assert!(readings <= 6, "{readings}: half of each reading is kept for them");
}

#[test]
fn a_name_is_kept_and_its_change_seen_later() {
    let path = format!("/docker/{}", id(1));
    let mut host = Host::new(&[&path]);
    let file = host.write(&format!("var/lib/docker/containers/{}/config.v2.json", id(1)), r#"{"Name": "/old"}"#);
    host.check(&["old docker"]);
    fs::write(&file, r#"{"Name": "/new"}"#).unwrap();
    host.check(&["old docker"]);
    host.read(LONGEST_PAUSE.as_secs());
    assert_eq!(host.known(), ["new docker"]);
    fs::remove_file(&file).unwrap();
    host.read(LONGEST_PAUSE.as_secs());
    assert_eq!(host.known(), ["new docker"], "who cannot be looked up any more keeps its name");
}

#[test]
fn the_dead_are_forgotten() {
    let (mut host, _) = rootless();
    host.list(&[POD, &format!("/docker/{}", id(1)), "/user.slice/user-7.slice"]);
    host.read(1);
    let known = |host: &Host| (host.names.containers.len(), host.names.pods.len(), host.names.users.len());
    assert_eq!(known(&host), (1, 1, 1));
    host.list(&["/"]);
    host.read(1);
    assert_eq!(known(&host), (0, 0, 0));
}

use proptest::prelude::*;

use super::*;

/// What is known, in one line.
fn words(names: &Names) -> String {
    let Names { container, role, runtime, image, pod, namespace, user } = names;
    let texts = [("container", container), ("image", image), ("pod", pod), ("namespace", namespace), ("user", user)];
    let known = texts.into_iter().filter_map(|(name, text)| Some(format!("{name} {}", text.as_deref()?)));
    let role = role.map(|role| format!("role {}", role.name()));
    let runtime = runtime.map(|runtime| format!("runtime {}", runtime.name()));
    known.chain(role).chain(runtime).collect::<Vec<_>>().join(", ")
}

#[track_caller]
fn check(found: Result<Names, Malformed>, expected: &str) {
    assert_eq!(found.map(|names| words(&names)).unwrap_or_else(|error| error.to_string()), expected);
}

#[test]
fn containerd() {
    check(
        bundle(
            br#"{"ociVersion": "1.1.0", "process": {"args": ["nginx"], "env": ["A=B"]}, "annotations": {
                "io.kubernetes.cri.container-name": "nginx", "io.kubernetes.cri.container-type": "container",
                "io.kubernetes.cri.image-name": "registry.example/nginx:1.27", "io.kubernetes.cri.sandbox-id": "9d9d",
                "io.kubernetes.cri.sandbox-name": "web-0", "io.kubernetes.cri.sandbox-namespace": "default",
                "io.kubernetes.cri.sandbox-uid": "0b7a4a9c-51f1-4a7e-8c5e-0d7d7f1f9d10"}}"#,
        ),
        "container nginx, image registry.example/nginx:1.27, pod web-0, namespace default, runtime containerd",
    );
    check(
        bundle(
            br#"{"annotations": {"io.kubernetes.cri.container-type": "sandbox", "io.kubernetes.cri.sandbox-name": "web-0",
                "io.kubernetes.cri.sandbox-namespace": "default", "io.kubernetes.cri.sandbox-cpu-shares": "2"}}"#,
        ),
        "pod web-0, namespace default, role pause, runtime containerd",
    );
    check(
        bundle(br#"{"annotations": {"nerdctl/name": "redis", "nerdctl/hostname": "x"}}"#),
        "container redis, runtime containerd",
    );
    check(bundle(br#"{"annotations": null}"#), "runtime containerd");
    check(bundle(b"{}"), "runtime containerd");
}

#[test]
fn cri_o() {
    check(
        bundle(
            br#"{"annotations": {"io.kubernetes.cri-o.ContainerType": "container", "io.kubernetes.container.name": "etcd",
                "io.kubernetes.cri-o.ImageName": "registry.example/etcd:3.5.15-0", "io.kubernetes.pod.name": "etcd-node-1",
                "io.kubernetes.pod.namespace": "kube-system", "io.kubernetes.cri-o.Name": "k8s_etcd_etcd-node-1_kube-system_f4_0"}}"#,
        ),
        "container etcd, image registry.example/etcd:3.5.15-0, pod etcd-node-1, namespace kube-system, runtime cri-o",
    );
    check(
        bundle(
            br#"{"annotations": {"io.kubernetes.cri-o.ContainerType": "sandbox", "io.kubernetes.container.name": "POD",
                "io.kubernetes.pod.name": "etcd-node-1", "io.kubernetes.pod.namespace": "kube-system"}}"#,
        ),
        "pod etcd-node-1, namespace kube-system, role pause, runtime cri-o",
    );
}

#[test]
fn docker_and_the_kubelet_on_top_of_it() {
    check(
        docker(
            br#"{"StreamConfig": {}, "ID": "4f4f", "Name": "/shop-web-1", "Config": {"Image": "nginx:1.27",
            "Labels": {"com.docker.compose.service": "web"}}, "Image": "sha256:0f"}"#,
        ),
        "container shop-web-1, image nginx:1.27, runtime docker",
    );
    check(docker(br#"{"Name": "/x", "Config": {"Image": "sha256:0f0f", "Labels": null}}"#), "container x, runtime docker");
    check(
        docker(
            br#"{"Name": "/k8s_web_web-0_default_0b7a_0", "Config": {"Image": "sha256:0f", "Labels": {
            "io.kubernetes.docker.type": "container", "io.kubernetes.container.name": "web",
            "io.kubernetes.pod.name": "web-0", "io.kubernetes.pod.namespace": "default"}}}"#,
        ),
        "container web, pod web-0, namespace default, runtime docker",
    );
    check(
        docker(
            br#"{"Name": "/k8s_POD_web-0_default_0b7a_0", "Config": {"Image": "registry.example/pause:3.9", "Labels": {
            "io.kubernetes.docker.type": "podsandbox", "io.kubernetes.container.name": "POD",
            "io.kubernetes.pod.name": "web-0", "io.kubernetes.pod.namespace": "default"}}}"#,
        ),
        "image registry.example/pause:3.9, pod web-0, namespace default, role pause, runtime docker",
    );
}

#[test]
fn podman() {
    let listed = storage(
        br#"[{"id": "4f", "names": ["web", "alias"], "image": "d7af31", "layer": "67b0",
              "metadata": "{\"image-name\":\"registry.example/nginx:latest\",\"name\":\"web\",\"created-at\":1}", "created": "2026-11-21T08:00:00Z"},
             {"id": "9d", "metadata": "{\"name\":\"db\"}"}, {"id": "00", "names": ["odd"], "metadata": "no JSON"}, {"id": "11"}]"#,
    );
    let mut listed: Vec<_> = listed.unwrap().iter().map(|(id, names)| format!("{id} {}", words(names))).collect();
    listed.sort();
    assert_eq!(
        listed,
        [
            "00 container odd, runtime podman",
            "11 runtime podman",
            "4f container web, image registry.example/nginx:latest, runtime podman",
            "9d container db, runtime podman",
        ]
    );
}

#[test]
fn the_kubelets_logs() {
    let id = "4f".repeat(64 / 2);
    let link = |text: &str| log_link(text.as_bytes()).map(|(id, names)| format!("{} {}", &id[..4], words(&names)));
    let expected = Some("4f4f container istio-proxy, pod web-5d78c9-x2, namespace my-shop".to_owned());
    assert_eq!(link(&format!("web-5d78c9-x2_my-shop_istio-proxy-{id}.log")), expected);
    let more = format!("a_b_c_d-{id}.log");
    for wrong in ["", ".log", "-.log", "a_b_c-4f.log", "a_b-4f4f.log", &more, &format!("a_b_c-{id}"), &format!("a_b-{id}.log")] {
        assert_eq!(link(wrong), None, "{wrong}");
    }
    let folder = |text: &str| log_folder(text.as_bytes()).map(|(uid, names)| format!("{uid} {}", words(&names)));
    assert_eq!(folder("default_web-0_0b7a-1").as_deref(), Some("0b7a-1 pod web-0, namespace default"));
    assert_eq!((folder("default_web-0"), folder("")), (None, None));
}

#[test]
fn the_kubelets_list() {
    let listed = pod_list(
        br#"{"kind": "PodList", "apiVersion": "v1", "items": [
            {"metadata": {"name": "web-0", "namespace": "shop", "uid": "0b-1", "labels": {"app": "web"}},
             "spec": {"initContainers": [{"name": "migrate", "image": "x"}, {"name": "proxy", "restartPolicy": "Always"}],
                      "containers": [{"name": "web"}]},
             "status": {"phase": "Running",
                        "containerStatuses": [{"name": "web", "containerID": "containerd://4f", "image": "registry.example/nginx:1.27"}],
                        "initContainerStatuses": [{"name": "migrate", "containerID": "containerd://aa", "image": "sha256:00"},
                                                  {"name": "proxy", "containerID": "containerd://bb", "image": "proxy:1"}],
                        "ephemeralContainerStatuses": [{"name": "debugger-x", "containerID": "cri-o://cc"}]}},
            {"metadata": {"uid": "0b-2"}, "status": {"containerStatuses": [{"name": "new"}, {"name": "odd", "containerID": "odd"}]}}]}"#,
    );
    let mut listed: Vec<_> = listed.unwrap().iter().map(|(id, names)| format!("{id} {}", words(names))).collect();
    listed.sort();
    assert_eq!(
        listed,
        [
            "0b-1 pod web-0, namespace shop",
            "0b-2 ",
            "4f container web, image registry.example/nginx:1.27, pod web-0, namespace shop",
            "aa container migrate, pod web-0, namespace shop, role init",
            "bb container proxy, image proxy:1, pod web-0, namespace shop, role sidecar",
            "cc container debugger-x, pod web-0, namespace shop, role ephemeral",
        ]
    );
    assert!(pod_list(br#"{"items": null}"#).unwrap().is_empty());
}

#[test]
fn homes_of_users() {
    let homes = homes(b"root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000:A:/home/alice:/bin/sh\nb:x:1000:1:B:/home/b:\nbroken:x\nc:x:7:7::relative:\n");
    assert_eq!((homes.len(), &*homes[&0], &*homes[&1000]), (2, "/root", "/home/alice"));
}

#[test]
fn what_is_wrong_is_named() {
    check(docker(b"{"), "EOF while parsing an object at line 1 column 1");
    check(bundle(br#"{"annotations": {"nerdctl/name": 7}}"#), "invalid type: integer `7`, expected a string at line 1 column 34");
    check(docker(b"{\"Name\": [\"\x1b\"]}"), "invalid type: sequence, expected a string at line 1 column 9");
    assert!(storage(b"{}").unwrap_err().to_string().starts_with("invalid type: map, expected a sequence"));
    let deep = "[".repeat(100_000);
    assert!(
        docker(format!("{{\"Other\": {deep}").as_bytes()).is_err() && docker(format!("{{\"Config\": {deep}").as_bytes()).is_err()
    );
}

#[test]
fn what_others_wrote_is_escaped_and_cut() {
    check(docker(r#"{"Name": "/\u001b[2Jevil\n\u202e"}"#.as_bytes()), r"container \x1b[2Jevil\x0a\xe2\x80\xae, runtime docker");
    let long = docker(format!(r#"{{"Name": "{}é"}}"#, "x".repeat(LONGEST - 1)).as_bytes()).unwrap().container.unwrap();
    assert_eq!(long.len(), LONGEST - 1 + r"\xc3".len(), "cut within a character");
}

proptest! {
    #[test]
    fn never_panics(bytes: Vec<u8>, text in "[a-z_\\-]{0,8}[0-9a-f]{60,66}(.log)?") {
        let _ = (bundle(&bytes), docker(&bytes), storage(&bytes), pod_list(&bytes), homes(&bytes));
        for name in [&*bytes, text.as_bytes()] {
            for names in [log_link(name), log_folder(name)].into_iter().flatten().map(|(_, names)| names) {
                let texts = [names.container, names.pod, names.namespace];
                prop_assert!(texts.into_iter().flatten().all(|text| !text.chars().any(char::is_control)));
            }
        }
    }
}

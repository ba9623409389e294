//! What the state files of container runtimes say of names. Pure: bytes in, names out, everything escaped.
//!
//! Only the fields that are wanted are looked at; whatever else a file holds costs no memory.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;

use crate::collect::proc::Malformed;
use crate::model::cgroup::identity::{Names, Role, Runtime};
use crate::model::text;

/// Names by id of container or UID of pod.
pub(super) type Known = HashMap<Box<str>, Names>;

/// Longer names are cut: people's have at most 253 bytes, references of images may have some more.
const LONGEST: usize = 512;

/// `config.json` of an OCI bundle, as containerd and CRI-O keep it: the annotations that each gives to the containers of a pod, and
/// those of nerdctl.
pub(super) fn bundle(bytes: &[u8]) -> Result<Names, Malformed> {
    #[derive(Deserialize)]
    struct Spec {
        annotations: Option<Annotations>,
    }
    #[derive(Default, Deserialize)]
    struct Annotations {
        #[serde(rename = "io.kubernetes.cri.container-type")]
        cri_type: Option<String>,
        #[serde(rename = "io.kubernetes.cri.container-name")]
        cri_name: Option<String>,
        #[serde(rename = "io.kubernetes.cri.image-name")]
        cri_image: Option<String>,
        #[serde(rename = "io.kubernetes.cri.sandbox-name")]
        cri_pod: Option<String>,
        #[serde(rename = "io.kubernetes.cri.sandbox-namespace")]
        cri_namespace: Option<String>,
        #[serde(rename = "io.kubernetes.cri-o.ContainerType")]
        crio_type: Option<String>,
        #[serde(rename = "io.kubernetes.cri-o.ImageName")]
        crio_image: Option<String>,
        #[serde(rename = "io.kubernetes.container.name")]
        name: Option<String>,
        #[serde(rename = "io.kubernetes.pod.name")]
        pod: Option<String>,
        #[serde(rename = "io.kubernetes.pod.namespace")]
        namespace: Option<String>,
        #[serde(rename = "nerdctl/name")]
        nerdctl_name: Option<String>,
    }
    let of = json::<Spec>(bytes)?.annotations.unwrap_or_default();
    let is_crio = of.crio_type.is_some();
    let is_pause = of.crio_type.or(of.cri_type).as_deref() == Some("sandbox");
    Ok(Names {
        container: name(of.cri_name.or(of.name).or(of.nerdctl_name).filter(|_| !is_pause)),
        role: is_pause.then_some(Role::Pause),
        runtime: Some(if is_crio { Runtime::CriO } else { Runtime::Containerd }),
        image: image(of.cri_image.or(of.crio_image)),
        pod: name(of.cri_pod.or(of.pod)),
        namespace: name(of.cri_namespace.or(of.namespace)),
        user: None,
    })
}

/// Docker's `config.v2.json`; with the kubelet on top of it, its labels.
pub(super) fn docker(bytes: &[u8]) -> Result<Names, Malformed> {
    #[derive(Deserialize)]
    struct State {
        #[serde(rename = "Name")]
        name: Option<String>,
        #[serde(rename = "Config")]
        config: Option<Config>,
    }
    #[derive(Default, Deserialize)]
    struct Config {
        #[serde(rename = "Image")]
        image: Option<String>,
        #[serde(rename = "Labels")]
        labels: Option<Labels>,
    }
    #[derive(Default, Deserialize)]
    struct Labels {
        #[serde(rename = "io.kubernetes.docker.type")]
        kind: Option<String>,
        #[serde(rename = "io.kubernetes.container.name")]
        name: Option<String>,
        #[serde(rename = "io.kubernetes.pod.name")]
        pod: Option<String>,
        #[serde(rename = "io.kubernetes.pod.namespace")]
        namespace: Option<String>,
    }
    let state: State = json(bytes)?;
    let config = state.config.unwrap_or_default();
    let labels = config.labels.unwrap_or_default();
    let is_pause = labels.kind.as_deref() == Some("podsandbox");
    let own = state.name.map(|name| name.trim_start_matches('/').to_owned());
    Ok(Names {
        container: name(labels.name.or(own).filter(|_| !is_pause)),
        role: is_pause.then_some(Role::Pause),
        runtime: Some(Runtime::Docker),
        image: image(config.image),
        pod: name(labels.pod),
        namespace: name(labels.namespace),
        user: None,
    })
}

/// `containers.json` of containers/storage, where Podman keeps all containers of a user: names by id. One whose metadata cannot be read
/// keeps its name.
pub(super) fn storage(bytes: &[u8]) -> Result<Known, Malformed> {
    #[derive(Deserialize)]
    struct Entry {
        id: String,
        names: Option<Vec<String>>,
        metadata: Option<String>,
    }
    #[derive(Default, Deserialize)]
    struct Metadata {
        #[serde(rename = "image-name")]
        image: Option<String>,
        name: Option<String>,
    }
    let named = |entry: Entry| {
        let metadata: Metadata = entry.metadata.and_then(|text| json(text.as_bytes()).ok()).unwrap_or_default();
        let names = Names {
            container: name(entry.names.and_then(|names| names.into_iter().next()).or(metadata.name)),
            runtime: Some(Runtime::Podman),
            image: image(metadata.image),
            ..Names::default()
        };
        (entry.id.into_boxed_str(), names)
    };
    Ok(json::<Vec<Entry>>(bytes)?.into_iter().map(named).collect())
}

/// The kubelet's list of pods (`/pods`, a `PodList` of the API): names by id of container and by UID of pod. What an init container that
/// goes on running is for, the API calls a sidecar.
pub(super) fn pod_list(bytes: &[u8]) -> Result<Known, Malformed> {
    #[derive(Deserialize)]
    struct PodList {
        items: Option<Vec<Pod>>,
    }
    #[derive(Deserialize)]
    struct Pod {
        metadata: Metadata,
        #[serde(default)]
        spec: Spec,
        #[serde(default)]
        status: Status,
    }
    #[derive(Deserialize)]
    struct Metadata {
        name: Option<String>,
        namespace: Option<String>,
        uid: String,
    }
    #[derive(Default, Deserialize)]
    struct Spec {
        #[serde(rename = "initContainers", default)]
        init: Vec<Container>,
    }
    #[derive(Deserialize)]
    struct Container {
        name: String,
        #[serde(rename = "restartPolicy")]
        restart: Option<String>,
    }
    #[derive(Default, Deserialize)]
    struct Status {
        #[serde(rename = "containerStatuses", default)]
        containers: Vec<ContainerStatus>,
        #[serde(rename = "initContainerStatuses", default)]
        init: Vec<ContainerStatus>,
        #[serde(rename = "ephemeralContainerStatuses", default)]
        ephemeral: Vec<ContainerStatus>,
    }
    #[derive(Deserialize)]
    struct ContainerStatus {
        name: String,
        #[serde(rename = "containerID")]
        id: Option<String>,
        image: Option<String>,
    }
    let mut known = HashMap::new();
    for Pod { metadata, spec, status } in json::<PodList>(bytes)?.items.unwrap_or_default() {
        let of_pod = Names { pod: name(metadata.name), namespace: name(metadata.namespace), ..Names::default() };
        let is_sidecar = |name: &str| spec.init.iter().any(|one| one.name == name && one.restart.as_deref() == Some("Always"));
        let init = |name: &str| Some(if is_sidecar(name) { Role::Sidecar } else { Role::Init });
        let all = (status.containers.into_iter().map(|one| (one, None)))
            .chain(status.init.into_iter().map(|one| (init(&one.name), one)).map(|(role, one)| (one, role)))
            .chain(status.ephemeral.into_iter().map(|one| (one, Some(Role::Ephemeral))));
        for (one, role) in all {
            // `containerd://ID`; one that has not been started has none.
            if let Some((_, id)) = one.id.as_deref().and_then(|id| id.split_once("://")) {
                let names = Names { container: name(Some(one.name)), role, image: image(one.image), ..of_pod.clone() };
                known.insert(id.into(), names);
            }
        }
        known.insert(metadata.uid.into_boxed_str(), of_pod);
    }
    Ok(known)
}

/// A link that the kubelet keeps in `/var/log/containers`: `POD_NAMESPACE_CONTAINER-ID.log`.
pub(super) fn log_link(file: &[u8]) -> Option<(Box<str>, Names)> {
    let file = file.strip_suffix(b".log")?;
    let dash = file.iter().rposition(|byte| *byte == b'-')?;
    let (rest, id) = (&file[..dash], &file[dash + 1..]);
    let mut parts = rest.split(|byte| *byte == b'_');
    let [pod, namespace, container] = [parts.next()?, parts.next()?, parts.next()?].map(bytes);
    let is_it = parts.next().is_none() && id.len() == 64 && id.iter().all(u8::is_ascii_hexdigit);
    let id = std::str::from_utf8(id).ok().filter(|_| is_it)?;
    Some((id.into(), Names { container, pod, namespace, ..Names::default() }))
}

/// A folder that the kubelet keeps in `/var/log/pods`: `NAMESPACE_POD_UID`.
pub(super) fn log_folder(folder: &[u8]) -> Option<(Box<str>, Names)> {
    let mut parts = folder.splitn(3, |byte| *byte == b'_');
    let [namespace, pod] = [parts.next()?, parts.next()?].map(bytes);
    let uid = std::str::from_utf8(parts.next()?).ok()?;
    Some((uid.into(), Names { pod, namespace, ..Names::default() }))
}

/// Home directories in `/etc/passwd`, by the user's number; the first line of a number counts.
pub(super) fn homes(bytes: &[u8]) -> HashMap<u32, String> {
    let mut homes = HashMap::new();
    for line in String::from_utf8_lossy(bytes).lines() {
        let mut fields = line.split(':').skip(2);
        let uid = fields.next().and_then(|uid| uid.parse().ok());
        if let (Some(uid), Some(home)) = (uid, fields.nth(2).filter(|home| home.starts_with('/'))) {
            homes.entry(uid).or_insert_with(|| home.to_owned());
        }
    }
    homes
}

fn json<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Malformed> {
    // The error quotes what it found, which anybody may have written.
    serde_json::from_slice(bytes).map_err(|error| Malformed::new(text::escape(error.to_string().as_bytes())))
}

fn name(name: Option<String>) -> Option<Arc<str>> {
    bytes(name?.as_bytes())
}

/// What a container was made from; the digest of an image without a name says nothing to people.
fn image(image: Option<String>) -> Option<Arc<str>> {
    let is_digest = |image: &str| image.len() == 64 && image.bytes().all(|byte| byte.is_ascii_hexdigit());
    name(image.filter(|image| !image.starts_with("sha256:") && !is_digest(image)))
}

fn bytes(bytes: &[u8]) -> Option<Arc<str>> {
    (!bytes.is_empty()).then(|| text::escape(&bytes[..bytes.len().min(LONGEST)]).into())
}

#[cfg(test)]
mod tests;

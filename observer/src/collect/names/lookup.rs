//! Where container runtimes and the kubelet keep what they know, and how one is found there.

use std::collections::HashMap;
use std::path::Path;

use super::formats::{self, Known};
use super::root::{Home, Problem, Root};
use crate::collect::proc::Malformed;
use crate::model::cgroup::identity::{Container, Names, Runtime};

/// A larger file of one container is not read.
const FILE: u64 = 1 << 20;
/// Nor is a larger one of all containers of somebody, or of all users.
const LIST: u64 = 4 << 20;

/// containerd's state, by itself and inside k3s, k0s and MicroK8s.
const CONTAINERD: [&str; 4] =
    ["run/containerd", "run/k3s/containerd", "run/k0s/containerd", "var/snap/microk8s/common/run/containerd"];
/// Its namespaces: that of Kubernetes, and that of who names none.
const NAMESPACES: [&str; 2] = ["k8s.io", "default"];
const DOCKER: [&str; 2] = ["var/lib/docker", "var/snap/docker/common/var-lib-docker"];
/// CRI-O's bundles: what outlives a boot, and what does not.
const CRI_O: [&str; 2] = ["var/lib/containers/storage", "run/containers/storage"];
/// Podman's lists; what is run with `--rm` is in the second.
const PODMAN: [&str; 3] =
    ["overlay-containers/containers.json", "overlay-containers/volatile-containers.json", "vfs-containers/containers.json"];
/// Where the kubelet links the logs of containers, and where it has a folder for each pod.
const LINKS: &str = "var/log/containers";
const FOLDERS: &str = "var/log/pods";

/// Names told by the name of a file.
type OfName = fn(&[u8]) -> Option<(Box<str>, Names)>;

/// The look-ups of one reading: lists are read once, and not kept.
pub(super) struct Lookup<'a> {
    pub(super) root: &'a mut Root,
    /// Read so far.
    pub(super) bytes: u64,
    podman: HashMap<Option<u32>, Result<Known, Problem>>,
    links: Option<Result<Known, Problem>>,
    folders: Option<Result<Known, Problem>>,
    homes: Option<Result<HashMap<u32, String>, Problem>>,
}

impl<'a> Lookup<'a> {
    /// Reads nothing yet.
    pub(super) fn new(root: &'a mut Root) -> Lookup<'a> {
        Lookup { root, bytes: 0, podman: HashMap::new(), links: None, folders: None, homes: None }
    }

    /// A pod, by its UID.
    pub(super) fn pod(&mut self, uid: &str) -> Result<Option<Names>, Problem> {
        let folders = self.folders.get_or_insert_with(|| list(self.root, FOLDERS, formats::log_folder));
        named(folders, uid)
    }

    /// A container of the system, whose id is digits alone. What its runtime knows goes before what the kubelet's logs are called.
    pub(super) fn of_system(&mut self, container: &Container, in_pod: bool) -> Result<Option<Names>, Problem> {
        let id = &*container.id;
        let known = match container.runtime {
            Some(Runtime::Containerd) => self.containerd(id),
            Some(Runtime::CriO) => self.cri_o(id),
            Some(Runtime::Docker) => self.docker(id),
            Some(Runtime::Podman) => self.podman(None, id),
            Some(_) => Ok(None),
            None => either(self.containerd(id), || self.docker(id)),
        };
        either(known, || if in_pod { self.link(id) } else { Ok(None) })
    }

    /// A container that a user runs, by what is in the user's home alone.
    pub(super) fn of_user(&mut self, uid: u32, container: &Container) -> Result<Option<Names>, Problem> {
        let id = &*container.id;
        match container.runtime {
            Some(Runtime::Podman) => self.podman(Some(uid), id),
            Some(Runtime::Docker) => self.docker_of(uid, id),
            _ => Ok(None),
        }
    }

    fn containerd(&mut self, id: &str) -> Result<Option<Names>, Problem> {
        let of =
            |folder| NAMESPACES.map(|namespace| format!("{folder}/io.containerd.runtime.v2.task/{namespace}/{id}/config.json"));
        self.first(CONTAINERD.iter().flat_map(of), formats::bundle)
    }

    fn cri_o(&mut self, id: &str) -> Result<Option<Names>, Problem> {
        let of = |storage| format!("{storage}/overlay-containers/{id}/userdata/config.json");
        self.first(CRI_O.iter().map(of), formats::bundle)
    }

    fn docker(&mut self, id: &str) -> Result<Option<Names>, Problem> {
        self.first(DOCKER.iter().map(|folder| format!("{folder}/containers/{id}/config.v2.json")), formats::docker)
    }

    /// The first of the files that there is; a problem with one matters only where no other tells.
    fn first(
        &mut self,
        paths: impl Iterator<Item = String>,
        parse: fn(&[u8]) -> Result<Names, Malformed>,
    ) -> Result<Option<Names>, Problem> {
        let mut known = Ok(None);
        for path in paths {
            known = either(known, || {
                let read = self.root.read(&path, FILE, parse)?;
                Ok(self.count(read))
            });
        }
        known
    }

    fn link(&mut self, id: &str) -> Result<Option<Names>, Problem> {
        let links = self.links.get_or_insert_with(|| list(self.root, LINKS, formats::log_link));
        named(links, id)
    }

    fn podman(&mut self, owner: Option<u32>, id: &str) -> Result<Option<Names>, Problem> {
        if !self.podman.contains_key(&owner) {
            let known = self.storages(owner);
            self.podman.insert(owner, known);
        }
        self.podman.get(&owner).map_or(Ok(None), |known| named(known, id))
    }

    /// All that Podman keeps of somebody.
    fn storages(&mut self, owner: Option<u32>) -> Result<Known, Problem> {
        let home = owner.map(|uid| self.home(uid)).transpose()?;
        let mut known = Known::new();
        for file in PODMAN {
            let read = match &home {
                None => self.root.read(&format!("var/lib/containers/storage/{file}"), LIST, formats::storage)?,
                Some(Some(home)) => home.read(&format!(".local/share/containers/storage/{file}"), LIST, formats::storage)?,
                Some(None) => None,
            };
            known.extend(self.count(read).into_iter().flatten());
        }
        Ok(known)
    }

    fn docker_of(&mut self, uid: u32, id: &str) -> Result<Option<Names>, Problem> {
        let Some(home) = self.home(uid)? else { return Ok(None) };
        let read = home.read(&format!(".local/share/docker/containers/{id}/config.v2.json"), FILE, formats::docker)?;
        Ok(self.count(read))
    }

    fn home(&mut self, uid: u32) -> Result<Option<Home>, Problem> {
        if self.homes.is_none() {
            let read = self.root.read("etc/passwd", LIST, |bytes| Ok(formats::homes(bytes)));
            self.homes = Some(read.map(|read| self.count(read).unwrap_or_default()));
        }
        match &self.homes {
            Some(Ok(homes)) => homes.get(&uid).map_or(Ok(None), |home| self.root.home(uid, Path::new(home))),
            Some(Err(problem)) => Err(problem.clone()),
            None => Ok(None),
        }
    }

    fn count<T>(&mut self, read: Option<(T, u64)>) -> Option<T> {
        read.map(|(parsed, bytes)| {
            self.bytes += bytes;
            parsed
        })
    }
}

/// What is known already, or else what is found now. A problem goes before finding nothing, and the first before others.
fn either(
    known: Result<Option<Names>, Problem>,
    find: impl FnOnce() -> Result<Option<Names>, Problem>,
) -> Result<Option<Names>, Problem> {
    match known {
        Ok(Some(names)) => Ok(Some(names)),
        Ok(None) => find(),
        Err(problem) => find().ok().flatten().map_or(Err(problem), |names| Ok(Some(names))),
    }
}

fn named(known: &Result<Known, Problem>, id: &str) -> Result<Option<Names>, Problem> {
    known.as_ref().map(|known| known.get(id).cloned()).map_err(Problem::clone)
}

/// What the names of all that is in a folder tell.
fn list(root: &Root, path: &str, parse: OfName) -> Result<Known, Problem> {
    Ok(root.list(path)?.iter().filter_map(|name| parse(name)).collect())
}

//! Whose a cgroup is: what its path tells, and the names that people use.

use std::sync::Arc;

use super::super::{Label, Labels};

/// What the path of a cgroup tells of whom it belongs to: of each kind the nearest, seen from the leaf. All text is escaped.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Nearest systemd unit that runs something; a slice where there is none.
    pub unit: Option<Box<str>>,
    /// Nearest slice.
    pub slice: Option<Box<str>>,
    /// The login session, as logind numbers it: `3`, `c2`.
    pub session: Option<Box<str>>,
    /// Number of the user whose slice it is in. Users of a container are not those of the machine: theirs are not told.
    pub user: Option<Box<str>>,
    /// Quality of service of the Kubernetes pod, or of all pods of the slice.
    pub qos: Option<Qos>,
    /// UID of the Kubernetes pod, in the form of the API: with dashes. That of a static pod is the kubelet's hash, 32 digits.
    pub pod: Option<Box<str>>,
    /// The container.
    pub container: Option<Container>,
    /// How many parts the path has below that of the container, or of the pod where there is no container.
    pub below: usize,
}

/// What a path tells of a container.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Container {
    /// The whole id that its runtime gave it; its name where the runtime knows no other id.
    pub id: Box<str>,
    /// Who runs it; `None` where the path does not say.
    pub runtime: Option<Runtime>,
    /// Its name where the path says it.
    pub name: Option<Box<str>>,
    /// Whether this is the runtime's own process beside it.
    pub is_monitor: bool,
}

/// Who runs containers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Runtime {
    /// Docker.
    Docker,
    /// Podman.
    Podman,
    /// containerd, for Kubernetes or by itself.
    Containerd,
    /// CRI-O.
    CriO,
    /// LXC, and LXD, Incus and Proxmox on top of it.
    Lxc,
    /// Nomad's own drivers.
    Nomad,
    /// systemd-nspawn, and whatever else registers with systemd-machined.
    Nspawn,
    /// Virtual machines of libvirt.
    Libvirt,
    /// Garden, of Cloud Foundry and Concourse.
    Garden,
}

impl Runtime {
    /// The word of every output: what it calls itself.
    pub fn name(self) -> &'static str {
        match self {
            Runtime::Docker => "docker",
            Runtime::Podman => "podman",
            Runtime::Containerd => "containerd",
            Runtime::CriO => "cri-o",
            Runtime::Lxc => "lxc",
            Runtime::Nomad => "nomad",
            Runtime::Nspawn => "systemd-nspawn",
            Runtime::Libvirt => "libvirt",
            Runtime::Garden => "garden",
        }
    }
}

/// Quality of service of a Kubernetes pod.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Qos {
    /// Every container has limits, and requests as much.
    Guaranteed,
    /// Some container requests something.
    Burstable,
    /// None does.
    BestEffort,
}

impl Qos {
    /// The lower-case word of every output.
    pub fn name(self) -> &'static str {
        match self {
            Qos::Guaranteed => "guaranteed",
            Qos::Burstable => "burstable",
            Qos::BestEffort => "besteffort",
        }
    }
}

/// What a container is there for, where it is not simply one of the workload's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Holds the namespaces of a pod and sleeps (its sandbox).
    Pause,
    /// Ends before the containers of its pod begin.
    Init,
    /// An init container that goes on running beside them.
    Sidecar,
    /// Put into a running pod, to look for what is wrong there.
    Ephemeral,
    /// Not the container but its runtime's process beside it, such as conmon.
    Monitor,
}

impl Role {
    /// The lower-case word of every output.
    pub fn name(self) -> &'static str {
        match self {
            Role::Pause => "pause",
            Role::Init => "init",
            Role::Sidecar => "sidecar",
            Role::Ephemeral => "ephemeral",
            Role::Monitor => "monitor",
        }
    }
}

/// Names that people use, as local state tells them; escaped. `None` is unknown.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Names {
    /// The container's: in a pod, as the pod's specification has it.
    pub container: Option<Arc<str>>,
    /// What it is there for.
    pub role: Option<Role>,
    /// Who runs it, where the path does not say.
    pub runtime: Option<Runtime>,
    /// Reference of its image: `registry.example/nginx:1.27`.
    pub image: Option<Arc<str>>,
    /// The pod's.
    pub pod: Option<Arc<str>>,
    /// The pod's namespace.
    pub namespace: Option<Arc<str>>,
    /// Of the user whose slice it is in.
    pub user: Option<Arc<str>>,
}

/// As many digits of an id as people are used to.
const SHORT: usize = 12;

impl Identity {
    /// Its labels and those of the names.
    pub(super) fn labels<'a>(&'a self, names: Option<&'a Names>, labels: &mut Labels<'a>) {
        let mut add = |name, text: Option<&'a str>| labels.extend(text.map(|text| (name, Label::Text(text.into()))));
        let container = self.container.as_ref();
        add("unit", self.unit.as_deref());
        add("slice", self.slice.as_deref());
        add("session", self.session.as_deref());
        add("user", names.and_then(|names| names.user.as_deref()).or(self.user.as_deref()));
        let told = names.and_then(|names| names.runtime);
        add("runtime", container.and_then(|container| container.runtime.or(told)).map(Runtime::name));
        add("container", container.map(|container| &*container.id));
        add("container_name", container.and_then(|container| container.called(names)));
        add("container_role", container.and_then(|container| container.role(names)).map(Role::name));
        add("image", names.and_then(|names| names.image.as_deref()));
        add("pod", self.pod.as_deref());
        add("pod_name", names.and_then(|names| names.pod.as_deref()));
        add("namespace", names.and_then(|names| names.namespace.as_deref()));
        add("qos", self.qos.map(Qos::name));
    }

    /// What people call the container or the pod, without what it is in: `nginx`, `default/web-0`, `docker 0f0f0f0f0f0f` while nobody knows
    /// its name. `None` where it is neither, or only something inside.
    pub(super) fn short(&self, names: Option<&Names>) -> Option<String> {
        (self.below == 0).then(|| self.own(names)).flatten()
    }

    /// The same with the pod before the container, and behind it what is below it of a path: `default/web-0/nginx/init.scope`.
    pub(super) fn long(&self, names: Option<&Names>, path: &str) -> Option<String> {
        let own = self.own(names)?;
        let pod = names.filter(|names| self.container.is_some() && names.pod.is_some()).and_then(|names| self.pod(Some(names)));
        let below = match self.below.checked_sub(1) {
            Some(above) => path.rmatch_indices('/').nth(above).map_or("", |(at, _)| &path[at..]),
            None => "",
        };
        Some(format!("{}{own}{below}", pod.map(|pod| format!("{pod}/")).unwrap_or_default()))
    }

    fn own(&self, names: Option<&Names>) -> Option<String> {
        match &self.container {
            Some(container) => Some(container.title(names)),
            None => self.pod(names),
        }
    }

    fn pod(&self, names: Option<&Names>) -> Option<String> {
        let uid = self.pod.as_deref()?;
        Some(match names.and_then(|names| Some((names.namespace.as_deref(), names.pod.as_deref()?))) {
            Some((Some(namespace), name)) => format!("{namespace}/{name}"),
            Some((None, name)) => name.to_owned(),
            None => format!("pod {uid}"),
        })
    }

    /// Whether one of the texts that name it passes.
    pub(super) fn has(&self, names: Option<&Names>, passes: impl Fn(&str) -> bool) -> bool {
        let container = self.container.as_ref();
        let own = [
            self.unit.as_deref(),
            self.pod.as_deref(),
            container.map(|container| &*container.id),
            container.and_then(|container| container.called(names)),
        ];
        let told = names.map(|names| [&names.image, &names.pod, &names.namespace, &names.user]);
        own.into_iter().flatten().chain(told.into_iter().flatten().flatten().map(|text| &**text)).any(passes)
    }
}

impl Container {
    fn called<'a>(&'a self, names: Option<&'a Names>) -> Option<&'a str> {
        names.and_then(|names| names.container.as_deref()).or(self.name.as_deref())
    }

    fn role(&self, names: Option<&Names>) -> Option<Role> {
        if self.is_monitor { Some(Role::Monitor) } else { names?.role }
    }

    fn title(&self, names: Option<&Names>) -> String {
        let runtime = self.runtime.or(names.and_then(|names| names.runtime)).map_or("container", Runtime::name);
        let role = self.role(names);
        let name = match self.called(names) {
            Some(name) => name.to_owned(),
            // A sandbox has no name of its own.
            None if role == Some(Role::Pause) => return Role::Pause.name().to_owned(),
            None => format!("{runtime} {}", self.id.get(..SHORT).unwrap_or(&self.id)),
        };
        role.map_or_else(|| name.clone(), |role| format!("{name} ({})", role.name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(id: &str, runtime: Option<Runtime>) -> Identity {
        let container = Container { id: id.into(), runtime, name: None, is_monitor: false };
        Identity { container: Some(container), ..Identity::default() }
    }

    #[test]
    fn titles() {
        let check = |identity: &Identity, names: Option<&Names>, short: Option<&str>, long: Option<&str>| {
            assert_eq!(identity.short(names).as_deref(), short);
            assert_eq!(identity.long(names, "/a/b/c/d").as_deref(), long);
        };
        check(&Identity { unit: Some("a.slice".into()), ..Identity::default() }, None, None, None);

        let mut identity = container("0f0f0f0f0f0f1111", Some(Runtime::Docker));
        check(&identity, None, Some("docker 0f0f0f0f0f0f"), Some("docker 0f0f0f0f0f0f"));
        let web = Names { container: Some("web".into()), ..Names::default() };
        check(&identity, Some(&web), Some("web"), Some("web"));
        identity.below = 2;
        check(&identity, Some(&web), None, Some("web/c/d"));
        identity.below = 9;
        check(&identity, Some(&web), None, Some("web"));

        let mut identity = Identity { pod: Some("0f-1".into()), ..container("short", None) };
        check(&identity, None, Some("container short"), Some("container short"));
        let pod = Names { pod: Some("web-0".into()), namespace: Some("default".into()), ..Names::default() };
        check(&identity, Some(&pod), Some("container short"), Some("default/web-0/container short"));
        let pause = Names { role: Some(Role::Pause), ..pod.clone() };
        check(&identity, Some(&pause), Some("pause"), Some("default/web-0/pause"));
        let nginx = Names { container: Some("nginx".into()), ..pod.clone() };
        check(&identity, Some(&nginx), Some("nginx"), Some("default/web-0/nginx"));
        identity.container.as_mut().unwrap().is_monitor = true;
        check(&identity, Some(&nginx), Some("nginx (monitor)"), Some("default/web-0/nginx (monitor)"));
        identity.container = None;
        check(&identity, None, Some("pod 0f-1"), Some("pod 0f-1"));
        check(&identity, Some(&pod), Some("default/web-0"), Some("default/web-0"));
    }

    #[test]
    fn labels_in_order_and_none_that_is_unknown() {
        let mut identity = Identity { pod: Some("0f-1".into()), qos: Some(Qos::BestEffort), ..container("0f", None) };
        identity.unit = Some("x.service".into());
        let names = Names {
            container: Some("web".into()),
            runtime: Some(Runtime::CriO),
            role: Some(Role::Pause),
            user: Some("alice".into()),
            ..Names::default()
        };
        let mut labels = Labels::new();
        identity.labels(Some(&names), &mut labels);
        let labels: Vec<_> = labels.iter().map(|(name, label)| format!("{name} {label}")).collect();
        assert_eq!(
            labels,
            [
                "unit x.service",
                "user alice",
                "runtime cri-o",
                "container 0f",
                "container_name web",
                "container_role pause",
                "pod 0f-1",
                "qos besteffort",
            ]
        );
    }

    #[test]
    fn found_by_any_of_its_names() {
        let mut identity = container("0f0f", None);
        identity.container.as_mut().unwrap().name = Some("task".into());
        let names = Names { pod: Some("web-0".into()), ..Names::default() };
        let has = |names, text| identity.has(names, |name| name.contains(text));
        assert!(has(None, "f0f") && has(None, "task") && has(Some(&names), "web-0"));
        assert!(!has(None, "web-0") && !has(Some(&names), "nginx"));
    }
}

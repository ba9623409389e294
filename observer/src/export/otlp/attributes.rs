//! Labels of the model as attributes of OpenTelemetry: what names an entity, in the words of the semantic conventions where they have one.

use std::borrow::Cow;

use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, any_value};
use opentelemetry_sdk::Resource;

use crate::model::{Kind, Label, Labels};

/// The attribute that a label becomes, on a row that is in a pod or is not.
///
/// `systemd.unit.name` is not (yet) in the conventions; it is what the Collector's own systemd receiver says.
fn name(kind: Kind, label: &'static str, in_pod: bool) -> Cow<'static, str> {
    Cow::Borrowed(match (kind, label) {
        (_, "host") => "host.name",
        (Kind::Cpu, "cpu") => "cpu.logical_number",
        (_, "cgroup") => "observer.cgroup.path",
        (Kind::Contention, "victim") => "observer.victim",
        (Kind::Contention, "culprit") => "observer.culprit",
        (Kind::Contention, "culprit_kind") => "observer.culprit.kind",
        (_, "unit") => "systemd.unit.name",
        (_, "pod") => "k8s.pod.uid",
        (_, "pod_name") => "k8s.pod.name",
        (_, "namespace") => "k8s.namespace.name",
        (_, "container") => "container.id",
        // What the pod's specification calls it is not what its runtime does.
        (_, "container_name") if in_pod => "k8s.container.name",
        (_, "container_name") => "container.name",
        (_, "runtime") => "container.runtime.name",
        (_, "image") => "container.image.name",
        (_, "user") => "user.name",
        _ if label == kind.name() => return Cow::Owned(format!("observer.{label}")),
        _ => return Cow::Owned(format!("observer.{}.{label}", kind.name())),
    })
}

/// All labels of an entity.
pub(super) fn of_labels(kind: Kind, labels: &Labels<'_>) -> Vec<KeyValue> {
    let in_pod = labels.iter().any(|(label, _)| *label == "pod");
    let mut attributes = Vec::with_capacity(labels.len());
    for (label, known) in labels {
        let value = match known {
            Label::Text(image) if *label == "image" => {
                let (name, tag) = reference(image);
                attributes.extend(tag.map(|tag| texts("container.image.tags", tag)));
                any_value::Value::StringValue(name.to_owned())
            }
            Label::Text(text) => any_value::Value::StringValue(text.to_string()),
            Label::Number(number) => any_value::Value::IntValue(int(*number)),
        };
        attributes.push(key_value(name(kind, label, in_pod).into_owned(), value));
    }
    attributes
}

/// Name and tag of an image: `localhost:5000/shop/web:1.2@sha256:…` is `localhost:5000/shop/web` and `1.2`.
fn reference(image: &str) -> (&str, Option<&str>) {
    let named = image.split_once('@').map_or(image, |(named, _)| named);
    match named.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (named, None),
    }
}

/// The attributes of a Resource, sorted by name so that the same Resource always makes the same bytes.
pub(super) fn of_resource(resource: &Resource) -> Vec<KeyValue> {
    let mut attributes: Vec<_> = resource
        .iter()
        .map(|(key, value)| KeyValue { key: key.to_string(), value: Some(AnyValue::from(value.clone())), ..KeyValue::default() })
        .collect();
    attributes.sort_by(|a, b| a.key.cmp(&b.key));
    attributes
}

/// An attribute of text.
pub(super) fn text(key: &str, value: &str) -> KeyValue {
    key_value(key.to_owned(), any_value::Value::StringValue(value.to_owned()))
}

/// An attribute whose value is a list, of one text.
fn texts(key: &str, value: &str) -> KeyValue {
    let text = AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) };
    key_value(key.to_owned(), any_value::Value::ArrayValue(ArrayValue { values: vec![text] }))
}

/// OTLP has signed integers only.
pub(super) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn key_value(key: String, value: any_value::Value) -> KeyValue {
    KeyValue { key, value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The labels of a cgroup as attributes, a line each.
    fn attributes(labels: &[(&'static str, &str)]) -> Vec<String> {
        let labels: Labels<'_> = labels.iter().map(|(name, text)| (*name, Label::Text((*text).into()))).collect();
        let text = |value: &AnyValue| match value.value.as_ref().unwrap() {
            any_value::Value::StringValue(text) => text.clone(),
            any_value::Value::ArrayValue(list) => format!("{} of them", list.values.len()),
            other => panic!("{other:?}"),
        };
        let line = |attribute: &KeyValue| format!("{} {}", attribute.key, text(attribute.value.as_ref().unwrap()));
        of_labels(Kind::Cgroup, &labels).iter().map(line).collect()
    }

    #[test]
    fn a_container_in_a_pod() {
        let labels = [
            ("cgroup", "/k"),
            ("unit", "u.scope"),
            ("slice", "s.slice"),
            ("runtime", "containerd"),
            ("container", "4f"),
            ("container_name", "nginx"),
            ("container_role", "pause"),
            ("image", "registry.example/nginx:1.27"),
            ("pod", "0b-1"),
            ("pod_name", "web-0"),
            ("namespace", "default"),
            ("qos", "burstable"),
        ];
        assert_eq!(
            attributes(&labels),
            [
                "observer.cgroup.path /k",
                "systemd.unit.name u.scope",
                "observer.cgroup.slice s.slice",
                "container.runtime.name containerd",
                "container.id 4f",
                "k8s.container.name nginx",
                "observer.cgroup.container_role pause",
                "container.image.tags 1 of them",
                "container.image.name registry.example/nginx",
                "k8s.pod.uid 0b-1",
                "k8s.pod.name web-0",
                "k8s.namespace.name default",
                "observer.cgroup.qos burstable",
            ]
        );
    }

    #[test]
    fn a_container_of_a_user() {
        let labels = [("user", "alice"), ("session", "3"), ("container_name", "db"), ("image", "postgres")];
        let expected = ["user.name alice", "observer.cgroup.session 3", "container.name db", "container.image.name postgres"];
        assert_eq!(attributes(&labels), expected);
    }

    #[test]
    fn references_of_images() {
        assert_eq!(reference("nginx"), ("nginx", None));
        assert_eq!(reference("nginx:1.27"), ("nginx", Some("1.27")));
        assert_eq!(reference("localhost:5000/shop/web"), ("localhost:5000/shop/web", None));
        assert_eq!(reference("localhost:5000/shop/web:1.2@sha256:0f"), ("localhost:5000/shop/web", Some("1.2")));
        assert_eq!(reference("nginx@sha256:0f"), ("nginx", None));
    }
}

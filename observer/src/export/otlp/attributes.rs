//! Labels of the model as attributes of OpenTelemetry: what names an entity, in the words of the semantic conventions where they have one.

use std::borrow::Cow;

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_sdk::Resource;

use crate::model::{Kind, Label, Labels};

/// The attribute that a label becomes.
///
/// `systemd.unit.name` is not (yet) in the conventions; it is what the Collector's own systemd receiver says.
fn name(kind: Kind, label: &'static str) -> Cow<'static, str> {
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
        (_, "container_name") => "k8s.container.name",
        _ if label == kind.name() => return Cow::Owned(format!("observer.{label}")),
        _ => return Cow::Owned(format!("observer.{}.{label}", kind.name())),
    })
}

/// All labels of an entity.
pub(super) fn of_labels(kind: Kind, labels: &Labels<'_>) -> Vec<KeyValue> {
    let value = |label: &Label<'_>| match label {
        Label::Text(text) => any_value::Value::StringValue(text.to_string()),
        Label::Number(number) => any_value::Value::IntValue(int(*number)),
    };
    labels.iter().map(|(label, known)| key_value(name(kind, label).into_owned(), value(known))).collect()
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

/// OTLP has signed integers only.
pub(super) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn key_value(key: String, value: any_value::Value) -> KeyValue {
    KeyValue { key, value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

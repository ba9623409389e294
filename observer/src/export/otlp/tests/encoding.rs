//! A made-up sample, encoded, and decoded again with prost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use observer_common::sched::Key;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{ExponentialHistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics};
use opentelemetry_sdk::Resource;
use prost::Message as _;

use super::super::encode::Encoder;
use super::super::payload::{MAX_BYTES, Payload, points};
use super::samples::{SECOND, epoch, sample, snapshot};
use crate::model::objective::{Dispatches, Scope, Target};
use crate::model::{Contention, Counts, Identity, Objective, Party, Process, Sample, Slo, Snapshot, Thread};

fn encoder(max_bytes: usize) -> Encoder {
    Encoder::new(&Resource::builder_empty().with_service_name("observer").build(), max_bytes)
}

fn decode(payloads: &[Payload]) -> Vec<ResourceMetrics> {
    let decode = |payload: &Payload| ExportMetricsServiceRequest::decode(payload.body.clone()).unwrap().resource_metrics;
    payloads.iter().flat_map(decode).collect()
}

fn resource(metrics: &ResourceMetrics) -> BTreeMap<&str, String> {
    texts(&metrics.resource.as_ref().unwrap().attributes)
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<&str, String> {
    let text = |attribute: &KeyValue| match attribute.value.as_ref().unwrap().value.as_ref().unwrap() {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        other => panic!("{other:?}"),
    };
    attributes.iter().map(|attribute| (attribute.key.as_str(), text(attribute))).collect()
}

fn metric<'a>(metrics: &'a ResourceMetrics, name: &str) -> Option<&'a Metric> {
    let mut found = metrics.scope_metrics.iter().flat_map(|scope| &scope.metrics).filter(|metric| metric.name == name);
    let first = found.next();
    assert!(found.next().is_none(), "{name} twice in one Resource");
    first
}

fn sum<'a>(metrics: &'a ResourceMetrics, name: &str) -> &'a [NumberDataPoint] {
    match metric(metrics, name).unwrap().data.as_ref().unwrap() {
        Data::Sum(sum) => {
            assert!(sum.is_monotonic && sum.aggregation_temporality == 2, "{name}: cumulative and monotonic");
            &sum.data_points
        }
        other => panic!("{name}: {other:?}"),
    }
}

fn gauge(metrics: &ResourceMetrics, name: &str) -> Number {
    match metric(metrics, name).unwrap().data.as_ref().unwrap() {
        Data::Gauge(gauge) => gauge.data_points[0].value.unwrap(),
        other => panic!("{name}: {other:?}"),
    }
}

fn histogram(metrics: &ResourceMetrics) -> &ExponentialHistogramDataPoint {
    match metric(metrics, "observer.cpu.run_queue.latency").unwrap().data.as_ref().unwrap() {
        Data::ExponentialHistogram(histogram) => {
            assert_eq!((histogram.aggregation_temporality, histogram.data_points.len()), (2, 1));
            &histogram.data_points[0]
        }
        other => panic!("{other:?}"),
    }
}

fn at(seconds: i64) -> u64 {
    let epoch = epoch().duration_since(UNIX_EPOCH).unwrap().as_secs();
    epoch.checked_add_signed(seconds).unwrap() * SECOND
}

#[test]
fn the_node_and_each_cgroup_are_resources() {
    let all = decode(&encoder(MAX_BYTES).encode(&snapshot(1, 2), None));
    let of: Vec<_> = all.iter().map(resource).collect();
    assert_eq!(all.len(), 3);
    for resource in &of {
        assert_eq!((resource["service.name"].as_str(), resource["host.name"].as_str()), ("observer", "node-7"));
        assert_eq!(resource["service.instance.id"], "node-7");
    }
    let cgroup =
        of.iter().find(|resource| resource.get("observer.cgroup.path").is_some_and(|path| path.ends_with("-1.service"))).unwrap();
    assert_eq!(cgroup["observer.cgroup.hierarchy"], "v2");
    assert_eq!(cgroup["observer.cgroup.id"], "1001");
    assert_eq!(cgroup["systemd.unit.name"], "service-1.service");
    assert_eq!(of.iter().filter(|resource| !resource.contains_key("observer.cgroup.path")).count(), 1);
    for metrics in &all {
        let scope = metrics.scope_metrics[0].scope.as_ref().unwrap();
        assert_eq!((scope.name.as_str(), scope.version.as_str()), ("observer", env!("CARGO_PKG_VERSION")));
    }
}

#[test]
fn points_have_values_attributes_and_starts() {
    let mut encoder = encoder(MAX_BYTES);
    encoder.encode(&snapshot(0, 1), None);
    let all = decode(&encoder.encode(&snapshot(1, 1), None));
    let (cgroup, node) = all.iter().partition::<Vec<_>, _>(|metrics| resource(metrics).contains_key("observer.cgroup.path"));
    let (cgroup, node) = (cgroup[0], node[0]);

    let time = sum(node, "system.cpu.time");
    assert_eq!(time.len(), 2, "unknown modes are left out");
    let steal = time.iter().find(|point| texts(&point.attributes)["cpu.mode"] == "steal").unwrap();
    let attributes = texts(&steal.attributes);
    assert_eq!((attributes["cpu.logical_number"].as_str(), attributes["observer.cpu.core"].as_str()), ("3", "1"));
    assert_eq!(steal.value, Some(Number::AsDouble(0.5)));
    assert_eq!((steal.start_time_unix_nano, steal.time_unix_nano), (at(-1000), at(1)), "since boot, as seen at first");

    let runs = &sum(cgroup, "observer.sched.runs")[0];
    assert_eq!((runs.value, runs.start_time_unix_nano), (Some(Number::AsInt(101)), at(-10)), "since observer attached");
    let throttled = &sum(cgroup, "observer.cgroup.cpu.throttled.time")[0];
    assert_eq!((throttled.value, throttled.start_time_unix_nano), (Some(Number::AsDouble(3e-9)), 0), "since nobody knows when");
    assert_eq!(sum(cgroup, "observer.cgroup.cpu.time").len(), 3);

    assert_eq!(gauge(cgroup, "observer.cgroup.cpu.limit"), Number::AsDouble(1.5));
    assert_eq!(gauge(cgroup, "observer.sched.local_run.ratio"), Number::AsDouble(0.9));
    assert_eq!(gauge(node, "observer.source.up"), Number::AsDouble(0.5));
    assert!(metric(node, "observer.source.reason").is_none(), "text is no metric");
    assert!(metric(node, "observer.host.load").is_none(), "unknown");
}

#[test]
fn objectives_belong_to_the_node() {
    let row = |missed| Objective {
        number: 0,
        slo: Arc::new(Slo {
            name: "api".into(),
            scope: Scope::Cgroup("/pods/*".into()),
            bound: Duration::from_millis(1),
            target: Target::of_millionths(990_000).unwrap(),
            window: Duration::from_secs(3600),
        }),
        dispatches: Some(Dispatches { met: 97 * missed, missed, interpolated: 1 }),
        budget: None,
        members: None,
    };
    let sample = |step| Arc::new(Sample { objectives: vec![row(3 * step)], ..sample(step, 1) });
    let all = decode(&encoder(MAX_BYTES).encode(&Snapshot { is: sample(2), was: Some(sample(1)) }, None));
    let node = all.iter().find(|metrics| !resource(metrics).contains_key("observer.cgroup.path")).unwrap();
    let [met, missed] = sum(node, "observer.objective.dispatches") else { panic!("two results") };
    assert_eq!((met.value, missed.value), (Some(Number::AsInt(97 * 6)), Some(Number::AsInt(6))));
    assert_eq!(missed.start_time_unix_nano, at(-10), "since observer attached");
    let attributes = texts(&missed.attributes);
    let expected = [("observer.cgroup.path", "/pods/*"), ("observer.objective", "api"), ("observer.objective.result", "missed")];
    assert_eq!(attributes, expected.map(|(key, value)| (key, value.to_owned())).into());
    assert_eq!(gauge(node, "observer.objective.missed.ratio"), Number::AsDouble(3.0 / 294.0));
    assert_eq!(gauge(node, "observer.objective.target"), Number::AsDouble(0.99));
    assert!(metric(node, "observer.objective.budget").is_none(), "unknown");
}

#[test]
fn processes_and_threads_stay_here() {
    let mut made = sample(1, 1);
    let without = encoder(MAX_BYTES).encode(&Snapshot { is: made.clone().into(), was: None }, None);
    let counts = Counts { run: Some(1), ..Counts::default() };
    let identity = Arc::<Identity>::default();
    let (pid, tid, start, comm) = (1, 1, 1, "a".into());
    let (cgroup, status, pending) = (None, None, None);
    made.threads = vec![Thread { tid, pid, start, comm, identity, cgroup, status, counts, pending }];
    let Thread { comm, identity, .. } = made.threads[0].clone();
    made.processes = vec![Process { pid, start, ppid: 0, comm, identity, cgroup: None, status, threads: 1, counts, pending }];
    let with = encoder(MAX_BYTES).encode(&Snapshot { is: made.into(), was: None }, None);
    assert_eq!(decode(&with), decode(&without));
}

#[test]
fn pairs_belong_to_the_node() {
    let party = |key: Key, name: &str| Party { key, cgroup: key, name: name.into() };
    let mut made = sample(0, 1);
    let victim = party(Key::v2(7), "/a");
    let pair = |culprit, time| Contention { victim: victim.clone(), culprit, time, inherited: 0 };
    made.contentions = vec![
        pair(victim.clone(), 5 * SECOND),
        pair(party(Key::v2(8), "/b"), 3 * SECOND),
        pair(party(Key::OTHER, "~other"), SECOND),
    ];
    let all = decode(&encoder(MAX_BYTES).encode(&Snapshot { is: made.into(), was: None }, None));
    let node = all.iter().find(|metrics| !resource(metrics).contains_key("observer.cgroup.path")).unwrap();
    let points = sum(node, "observer.cpu.contention.time");
    let texts: Vec<_> = points.iter().map(|point| (texts(&point.attributes), point.value, point.start_time_unix_nano)).collect();
    let expected = [("~self", "self", 5.0), ("/b", "cgroup", 3.0), ("~other", "other", 1.0)].map(|(culprit, kind, seconds)| {
        let attributes = [("observer.victim", "/a"), ("observer.culprit", culprit), ("observer.culprit.kind", kind)];
        (attributes.map(|(key, value)| (key, value.to_owned())).into(), Some(Number::AsDouble(seconds)), at(-10))
    });
    assert_eq!(texts, expected);
}

#[test]
fn histograms_keep_every_count() {
    let mut made = sample(2, 1);
    let all = decode(&encoder(MAX_BYTES).encode(&Snapshot { is: made.clone().into(), was: None }, None));
    for metrics in &all {
        let point = histogram(metrics);
        assert_eq!((point.count, point.scale, point.zero_count), (5, 3, 1));
        assert_eq!(point.zero_threshold, 2f64.powi(-20));
        assert_eq!(point.sum, Some((500 + 3 * 5_000 + 3 * SECOND) as f64 / 1e9));
        assert_eq!(point.start_time_unix_nano, at(-10));
        let positive = point.positive.as_ref().unwrap();
        // 5 µs lies in (2^(-141/8), 2^(-140/8)], 3 s at the top eighth of (2, 4].
        assert_eq!((positive.offset, positive.bucket_counts[0], positive.bucket_counts.len()), (-141, 3, 157));
        assert_eq!(positive.bucket_counts.iter().sum::<u64>() + point.zero_count, point.count);
    }

    made.cgroups[0].sched = Some(Default::default());
    let all = decode(&encoder(MAX_BYTES).encode(&Snapshot { is: made.into(), was: None }, None));
    assert_eq!(all.iter().filter(|metrics| metric(metrics, "observer.cpu.run_queue.latency").is_some()).count(), 1, "empty");
}

#[test]
fn an_entity_of_which_nothing_is_known_is_left_out() {
    let mut made = sample(0, 1);
    made.cgroups[0].cpu = Default::default();
    made.cgroups[0].sched = None;
    let all = decode(&encoder(MAX_BYTES).encode(&Snapshot { is: made.into(), was: None }, None));
    assert!(!resource(&all[0]).contains_key("observer.cgroup.path"));
    assert_eq!(all.len(), 1);
}

/// All points by Resource, metric and attributes: what must be the same however the payloads are cut.
fn everything(payloads: &[Payload]) -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    for metrics in decode(payloads) {
        let of = format!("{:?}", resource(&metrics));
        for metric in metrics.scope_metrics.iter().flat_map(|scope| &scope.metrics) {
            let points: Vec<String> = match metric.data.as_ref().unwrap() {
                Data::Sum(sum) => sum.data_points.iter().map(|point| format!("{point:?}")).collect(),
                Data::Gauge(gauge) => gauge.data_points.iter().map(|point| format!("{point:?}")).collect(),
                Data::ExponentialHistogram(histogram) => histogram.data_points.iter().map(|point| format!("{point:?}")).collect(),
                other => panic!("{other:?}"),
            };
            for point in points {
                *all.entry(format!("{of} {} {} {point}", metric.name, metric.unit)).or_default() += 1;
            }
        }
    }
    all
}

#[test]
fn payloads_stay_small_and_lose_nothing() {
    let snapshot = snapshot(1, 1_600);
    let payloads = encoder(MAX_BYTES).encode(&snapshot, None);
    let counted: u64 = payloads.iter().map(|payload| payload.points).sum();
    assert!(counted > 20_000 && payloads.len() > 1, "{counted} points in {} payloads", payloads.len());
    assert!(payloads.iter().all(|payload| payload.body.len() <= MAX_BYTES));
    assert_eq!(decode(&payloads).iter().map(points).sum::<u64>(), counted);
    assert_eq!(everything(&payloads), everything(&encoder(usize::MAX).encode(&snapshot, None)));
}

#[test]
fn one_large_resource_is_cut_by_metric_and_by_point() {
    let mut made = sample(1, 0);
    let cpu = made.cpus[0].clone();
    made.cpus = (0..500).map(|number| crate::model::Cpu { number, ..cpu.clone() }).collect();
    let snapshot = Snapshot { is: made.into(), was: None };
    let payloads = encoder(20_000).encode(&snapshot, None);
    assert!(payloads.len() > 20 && payloads.iter().all(|payload| payload.body.len() <= 20_000));
    assert_eq!(everything(&payloads), everything(&encoder(usize::MAX).encode(&snapshot, None)));
}

#[test]
fn a_point_that_is_too_large_goes_alone() {
    let mut made = sample(0, 1);
    made.cgroups[0].path = "x".repeat(5_000).into();
    let payloads = encoder(2_000).encode(&Snapshot { is: made.into(), was: None }, None);
    assert!(payloads.iter().all(|payload| payload.body.len() <= 2_000 || payload.points == 1));
}

//! A snapshot as OTLP: one loop over the rows and their points, in which no metric is named.
//!
//! The node is one ResourceMetrics (host, cpu, source, … rows; what names a row is in its points' attributes) and every cgroup is one
//! of its own, identified by its Resource: that is what the Collector's processors associate by, and it is three times cheaper than
//! repeating the identity in every point. Of the pairs of victim and culprit the node has those that `pairs` chooses.
//!
//! **Not exported:** rows of processes and threads ([`Kind::is_exported`] says why); their cgroups carry the same time.
//!
//! **Start times.** What observer counts begins at [`Sample::start`](crate::model::Sample); a cgroup born later counted nothing before.
//! What the kernel counts since boot begins at boot. That time is computed once and kept, since computed anew it would move by the clock's
//! corrections, and a receiver takes a new start for a reset. Files of a cgroup count since its creation, which nobody tells: their
//! start is left unspecified (0), as the data model allows, rather than wrong.

use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Metric, NumberDataPoint, ResourceMetrics,
    ScopeMetrics, Sum,
};
use opentelemetry_proto::tonic::resource::v1::Resource;

use super::attributes::{int, of_labels, of_resource, text};
use super::pairs::{Pairs, Sent};
use super::payload::{Packer, Payload};
use crate::model::histogram::zero_threshold;
use crate::model::{AnyRow, Histogram, Info, Kind, Point, Row, Sample, Snapshot, Unit, Value};

/// The semantic conventions whose names are used.
const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.44.0";

const CUMULATIVE: i32 = AggregationTemporality::Cumulative as i32;

/// Turns snapshots into payloads; remembers when the machine was booted, and which pairs it names.
#[derive(Debug)]
pub struct Encoder {
    common: Vec<KeyValue>,
    boot: Option<u64>,
    pairs: Pairs,
    max_bytes: usize,
}

impl Encoder {
    /// An encoder; `resource` describes the service, and every Resource begins with it.
    pub fn new(resource: &opentelemetry_sdk::Resource, max_bytes: usize) -> Encoder {
        Encoder { common: of_resource(resource), boot: None, pairs: Pairs::default(), max_bytes }
    }

    /// Everything known in the snapshot, with what observer says of its own exporting appended.
    pub fn encode(&mut self, snapshot: &Snapshot, own: impl IntoIterator<Item = ResourceMetrics>) -> Vec<Payload> {
        let times = self.times(&snapshot.is);
        let mut packer = Packer::new(self.max_bytes);
        let mut common = self.common.clone();
        let mut node = Metrics::default();
        snapshot.each_row(&mut |row| match row.kind() {
            Kind::Host => {
                identify_host(&mut common, row);
                node.add(row, &times, &[]);
            }
            Kind::Cgroup => {
                let mut metrics = Metrics::default();
                metrics.add(row, &times, &[]);
                let mut attributes = common.clone();
                attributes.extend(of_labels(Kind::Cgroup, &row.labels()));
                metrics.pack(&mut packer, attributes);
            }
            // Below: not all of them are sent.
            Kind::Contention => {}
            kind if !kind.is_exported() => {}
            kind => node.add(row, &times, &of_labels(kind, &row.labels())),
        });
        for Sent { pair, since } in self.pairs.select(&snapshot.is) {
            let row = Row { is: &pair, was: None, interval: None };
            let times = Times { start: nanoseconds(since), ..times };
            node.add(&row, &times, &of_labels(Kind::Contention, &AnyRow::labels(&row)));
        }
        for mut metrics in own {
            let attributes = &mut metrics.resource.get_or_insert_default().attributes;
            let missing = common.iter().filter(|known| !attributes.iter().any(|own| own.key == known.key));
            let missing: Vec<_> = missing.cloned().collect();
            attributes.extend(missing);
            packer.add(metrics);
        }
        node.pack(&mut packer, common);
        packer.finish()
    }

    fn times(&mut self, sample: &Sample) -> Times {
        let now = nanoseconds(sample.time);
        if self.boot.is_none() {
            self.boot = sample.host.uptime.map(|uptime| now.saturating_sub(uptime));
        }
        Times { now, start: nanoseconds(sample.start), boot: self.boot.unwrap_or(0) }
    }
}

/// The host's labels join the common attributes unless the user said otherwise. One observer runs on a host, so that its name also
/// tells this instance of the service from the others, and does so after a restart.
fn identify_host(common: &mut Vec<KeyValue>, row: &dyn AnyRow) {
    for attribute in of_labels(Kind::Host, &row.labels()) {
        if !common.iter().any(|known| known.key == attribute.key) {
            common.push(attribute);
        }
    }
    let host = row.labels().into_iter().find(|(label, _)| *label == "host");
    if let Some((_, name)) = host
        && !common.iter().any(|known| known.key == "service.instance.id")
    {
        common.push(text("service.instance.id", &name.to_string()));
    }
}

/// Nanoseconds since 1970.
#[derive(Clone, Copy)]
struct Times {
    now: u64,
    start: u64,
    boot: u64,
}

impl Times {
    /// When a counter began at 0, by its name's namespace: the model does not tell who counts.
    fn since(&self, name: &str) -> u64 {
        let start = if name.starts_with("observer.cgroup.") {
            0
        } else if name.starts_with("system.") || name.starts_with("observer.host.") {
            self.boot
        } else {
            self.start
        };
        // The wall clock may have been set back since.
        start.min(self.now)
    }
}

fn nanoseconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// The metrics of one Resource.
#[derive(Default)]
struct Metrics {
    list: Vec<Metric>,
}

impl Metrics {
    fn add(&mut self, row: &dyn AnyRow, times: &Times, attributes: &[KeyValue]) {
        // Rows of one kind bring the same metrics in the same order: what comes next is where the last one was, or right after it.
        let mut at = 0;
        row.each_point(&mut |point| {
            if matches!(point.value, Value::Text(_)) || matches!(point.value, Value::Histogram { now, .. } if now.count() == 0) {
                return;
            }
            at = self.position(point.info, at);
            let mut all = Vec::with_capacity(attributes.len() + point.attributes.len());
            all.extend_from_slice(attributes);
            all.extend(point.attributes.iter().map(|(key, value)| text(key, value)));
            push(&mut self.list[at], &point, times, all);
        });
    }

    fn position(&mut self, info: &Info, near: usize) -> usize {
        let length = self.list.len();
        let found = (0..length).map(|step| (near + step) % length).find(|at| self.list[*at].name == info.name);
        found.unwrap_or_else(|| {
            self.list.push(Metric {
                name: info.name.into(),
                description: info.help.into(),
                unit: info.unit.ucum(),
                ..Metric::default()
            });
            length
        })
    }

    fn pack(self, packer: &mut Packer, attributes: Vec<KeyValue>) {
        if self.list.is_empty() {
            return;
        }
        let scope = InstrumentationScope {
            name: "observer".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            ..InstrumentationScope::default()
        };
        packer.add(ResourceMetrics {
            resource: Some(Resource { attributes, ..Resource::default() }),
            scope_metrics: vec![ScopeMetrics { scope: Some(scope), metrics: self.list, schema_url: SCHEMA_URL.into() }],
            schema_url: SCHEMA_URL.into(),
        });
    }
}

/// Appends a point; the first one decides the metric's type, and the catalogue's tests that all others agree.
fn push(metric: &mut Metric, point: &Point<'_>, times: &Times, attributes: Vec<KeyValue>) {
    let unit = point.info.unit;
    match point.value {
        Value::Counter { total, .. } => {
            let empty = || Data::Sum(Sum { data_points: Vec::new(), aggregation_temporality: CUMULATIVE, is_monotonic: true });
            if let Data::Sum(sum) = metric.data.get_or_insert_with(empty) {
                let value = match unit {
                    Unit::Seconds | Unit::Ratio => number_data_point::Value::AsDouble(unit.scale(total)),
                    _ => number_data_point::Value::AsInt(int(total)),
                };
                sum.data_points.push(number(value, times.since(point.info.name), times.now, attributes));
            }
        }
        Value::Gauge(value) => {
            let empty = || Data::Gauge(Gauge { data_points: Vec::new() });
            if let Data::Gauge(gauge) = metric.data.get_or_insert_with(empty) {
                let value = match unit {
                    Unit::Bytes => number_data_point::Value::AsInt(value as i64),
                    _ => number_data_point::Value::AsDouble(value),
                };
                gauge.data_points.push(number(value, 0, times.now, attributes));
            }
        }
        Value::Histogram { now, .. } => {
            let empty = || {
                Data::ExponentialHistogram(ExponentialHistogram { data_points: Vec::new(), aggregation_temporality: CUMULATIVE })
            };
            if let Data::ExponentialHistogram(histogram) = metric.data.get_or_insert_with(empty) {
                histogram.data_points.push(exponential(now, times.since(point.info.name), times.now, attributes));
            }
        }
        Value::Text(_) => {}
    }
}

fn number(value: number_data_point::Value, start: u64, now: u64, attributes: Vec<KeyValue>) -> NumberDataPoint {
    NumberDataPoint {
        attributes,
        start_time_unix_nano: start,
        time_unix_nano: now,
        value: Some(value),
        ..NumberDataPoint::default()
    }
}

/// The shared buckets are OTLP's own: nothing is converted but nanoseconds to seconds.
fn exponential(histogram: &Histogram, start: u64, now: u64, attributes: Vec<KeyValue>) -> ExponentialHistogramDataPoint {
    let exponential = histogram.exponential();
    ExponentialHistogramDataPoint {
        attributes,
        start_time_unix_nano: start,
        time_unix_nano: now,
        count: histogram.count(),
        sum: Some(Unit::Seconds.scale(histogram.sum)),
        scale: SCALE,
        zero_count: exponential.zero_count,
        zero_threshold: zero_threshold(),
        positive: Some(Buckets { offset: exponential.offset, bucket_counts: exponential.counts }),
        ..ExponentialHistogramDataPoint::default()
    }
}

const SCALE: i32 = observer_common::latency::SCALE as i32;

//! Encoded requests of a size that receivers take. They are encoded once; retries send the same bytes.

use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{
    ExponentialHistogram, Gauge, Histogram, Metric, ResourceMetrics, ScopeMetrics, Sum, Summary,
};
use prost::Message;
use prost::bytes::{BufMut, Bytes, BytesMut};

/// Most receivers refuse messages of more than 4 MiB, gRPC's default; the rest is for framing and whatever stands between.
pub const MAX_BYTES: usize = 3_670_016;

/// An encoded `ExportMetricsServiceRequest`.
#[derive(Clone, Debug)]
pub struct Payload {
    /// Protobuf.
    pub body: Bytes,
    /// Data points inside.
    pub points: u64,
}

/// Gathers ResourceMetrics into payloads.
///
/// A request is nothing but a repeated field: each element is its tag, its length and its bytes, and elements may be joined at will.
pub(super) struct Packer {
    max_bytes: usize,
    buffer: BytesMut,
    points: u64,
    payloads: Vec<Payload>,
}

impl Packer {
    pub(super) fn new(max_bytes: usize) -> Packer {
        Packer { max_bytes, buffer: BytesMut::new(), points: 0, payloads: Vec::new() }
    }

    /// Adds one; one that is too large for a payload is halved until its parts fit. A single point that is too large goes alone: the
    /// receiver decides, and its answer is counted.
    pub(super) fn add(&mut self, metrics: ResourceMetrics) {
        /// Field 1, length-delimited.
        const TAG: u8 = 1 << 3 | 2;
        let start = self.buffer.len();
        self.buffer.put_u8(TAG);
        // A BytesMut grows; there is no other error.
        let encoded = metrics.encode_length_delimited(&mut self.buffer);
        debug_assert!(encoded.is_ok());
        let size = self.buffer.len() - start;
        let points = points(&metrics);
        if size > self.max_bytes && points > 1 {
            self.buffer.truncate(start);
            halve(metrics).into_iter().for_each(|half| self.add(half));
            return;
        }
        if self.buffer.len() > self.max_bytes && start > 0 {
            let next = self.buffer.split_off(start);
            self.cut();
            self.buffer = next;
        }
        self.points += points;
    }

    pub(super) fn finish(mut self) -> Vec<Payload> {
        self.cut();
        self.payloads
    }

    fn cut(&mut self) {
        let body = self.buffer.split().freeze();
        let points = std::mem::take(&mut self.points);
        if !body.is_empty() {
            self.payloads.push(Payload { body, points });
        }
    }
}

/// Two with the same Resource and scopes and half of the metrics each, or of the points if there is one metric.
fn halve(metrics: ResourceMetrics) -> [ResourceMetrics; 2] {
    let ResourceMetrics { resource, scope_metrics, schema_url } = metrics;
    let half = |scope_metrics| ResourceMetrics { resource: resource.clone(), scope_metrics, schema_url: schema_url.clone() };
    let (first, second) = halve_list(scope_metrics, |scope| {
        let with = |metrics| ScopeMetrics { metrics, scope: scope.scope.clone(), schema_url: scope.schema_url.clone() };
        let (first, second) = halve_list(scope.metrics, halve_metric);
        (with(first), with(second))
    });
    [half(first), half(second)]
}

/// Splits a list, or its only element.
fn halve_list<T>(mut list: Vec<T>, halve_one: impl FnOnce(T) -> (T, T)) -> (Vec<T>, Vec<T>) {
    if list.len() > 1 {
        let second = list.split_off(list.len() / 2);
        return (list, second);
    }
    list.pop().map(halve_one).map_or((Vec::new(), Vec::new()), |(first, second)| (vec![first], vec![second]))
}

/// The second half of the points goes to a second metric of the same description.
fn halve_metric(mut metric: Metric) -> (Metric, Metric) {
    fn off<T>(points: &mut Vec<T>) -> Vec<T> {
        points.split_off(points.len() / 2)
    }
    let second = metric.data.as_mut().map(|data| match data {
        Data::Gauge(data) => Data::Gauge(Gauge { data_points: off(&mut data.data_points) }),
        Data::Sum(data) => Data::Sum(Sum { data_points: off(&mut data.data_points), ..*data }),
        Data::Histogram(data) => Data::Histogram(Histogram { data_points: off(&mut data.data_points), ..*data }),
        Data::ExponentialHistogram(data) => {
            Data::ExponentialHistogram(ExponentialHistogram { data_points: off(&mut data.data_points), ..*data })
        }
        Data::Summary(data) => Data::Summary(Summary { data_points: off(&mut data.data_points) }),
    });
    let Metric { name, description, unit, metadata, .. } = &metric;
    let (name, description, unit, metadata) = (name.clone(), description.clone(), unit.clone(), metadata.clone());
    (metric, Metric { name, description, unit, metadata, data: second })
}

/// Data points of all metrics.
pub(super) fn points(metrics: &ResourceMetrics) -> u64 {
    let count = |metric: &Metric| match &metric.data {
        None => 0,
        Some(Data::Gauge(data)) => data.data_points.len(),
        Some(Data::Sum(data)) => data.data_points.len(),
        Some(Data::Histogram(data)) => data.data_points.len(),
        Some(Data::ExponentialHistogram(data)) => data.data_points.len(),
        Some(Data::Summary(data)) => data.data_points.len(),
    };
    metrics.scope_metrics.iter().flat_map(|scope| &scope.metrics).map(|metric| count(metric) as u64).sum()
}

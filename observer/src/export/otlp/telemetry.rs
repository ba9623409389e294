//! What observer says of its own exporting: instruments of the OpenTelemetry SDK, named as its conventions name those of an exporter
//! (`otel.sdk.exporter.*`). They leave in the same requests as everything else.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry::metrics::{Counter, Histogram, MeterProvider as _, UpDownCounter};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::ResourceMetrics;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider, Temporality};
use opentelemetry_sdk::resource::TelemetryResourceDetector;

use super::queue::Queue;
use super::settings::Settings;
use super::transport::component;

/// The instruments.
#[derive(Debug)]
pub(super) struct Telemetry {
    provider: SdkMeterProvider,
    collected: Collected,
    exported: Counter<u64>,
    inflight: UpDownCounter<i64>,
    duration: Histogram<f64>,
    attributes: Vec<KeyValue>,
}

impl Telemetry {
    pub(super) fn new(settings: &Settings, queue: Arc<Queue>) -> Telemetry {
        let collected = Collected::default();
        // The reader is asked at every export; its own clock never strikes.
        let reader = PeriodicReader::builder(collected.clone()).with_interval(Duration::from_secs(10 * 365 * 86_400)).build();
        let resource = Resource::builder_empty()
            .with_detector(Box::new(TelemetryResourceDetector))
            .with_attributes(settings.resource.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone())))
            .build();
        let provider = SdkMeterProvider::builder().with_resource(resource).with_reader(reader).build();
        let scope = InstrumentationScope::builder("observer").with_version(env!("CARGO_PKG_VERSION")).build();
        let meter = provider.meter_with_scope(scope);
        let attributes = attributes(settings);
        let of_queue = attributes.clone();
        // Kept alive by the provider.
        let _ = meter
            .i64_observable_up_down_counter("observer.export.queue.size")
            .with_unit("{payload}")
            .with_description("Encoded payloads that wait for the collector.")
            .with_callback(move |size| size.observe(i64::try_from(queue.len().0).unwrap_or(i64::MAX), &of_queue))
            .build();
        Telemetry {
            collected,
            exported: meter
                .u64_counter("otel.sdk.exporter.metric_data_point.exported")
                .with_unit("{data_point}")
                .with_description("Data points whose export has ended; with error.type those that were lost.")
                .build(),
            inflight: meter
                .i64_up_down_counter("otel.sdk.exporter.metric_data_point.inflight")
                .with_unit("{data_point}")
                .with_description("Data points passed to the exporter and not yet exported.")
                .build(),
            duration: meter
                .f64_histogram("otel.sdk.exporter.operation.duration")
                .with_unit("s")
                .with_description("Duration of one attempt to export.")
                .with_boundaries(vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0])
                .build(),
            provider,
            attributes,
        }
    }

    /// Points were put into the queue.
    pub(super) fn queued(&self, points: u64) {
        self.inflight.add(signed(points), &self.attributes);
    }

    /// Points have left, delivered or lost for a reason.
    pub(super) fn finished(&self, points: u64, error: Option<Cow<'static, str>>) {
        self.inflight.add(-signed(points), &self.attributes);
        self.ended(points, error);
    }

    /// Of points that have left, some turned out to be lost.
    pub(super) fn finished_partly(&self, points: u64, rejected: u64) {
        let rejected = rejected.min(points);
        self.inflight.add(-signed(points), &self.attributes);
        self.ended(points - rejected, None);
        if rejected > 0 {
            self.ended(rejected, Some("rejected".into()));
        }
    }

    fn ended(&self, points: u64, error: Option<Cow<'static, str>>) {
        self.exported.add(points, &self.with_error(error));
    }

    /// One attempt.
    pub(super) fn attempted(&self, duration: Duration, error: Option<Cow<'static, str>>) {
        self.duration.record(duration.as_secs_f64(), &self.with_error(error));
    }

    fn with_error(&self, error: Option<Cow<'static, str>>) -> Vec<KeyValue> {
        let mut attributes = self.attributes.clone();
        attributes.extend(error.map(|error| KeyValue::new("error.type", error)));
        attributes
    }

    /// What the instruments show now.
    pub(super) fn collect(&self) -> Option<ResourceMetrics> {
        if let Err(error) = self.provider.force_flush() {
            tracing::debug!(%error, "cannot collect observer's own metrics");
        }
        self.collected.take()
    }
}

fn signed(points: u64) -> i64 {
    i64::try_from(points).unwrap_or(i64::MAX)
}

fn attributes(settings: &Settings) -> Vec<KeyValue> {
    let kind = component(settings.protocol);
    let mut attributes =
        vec![KeyValue::new("otel.component.type", kind), KeyValue::new("otel.component.name", format!("{kind}/0"))];
    if let Some(host) = settings.endpoint.host() {
        attributes.push(KeyValue::new("server.address", host.to_owned()));
    }
    if let Some(port) = settings.endpoint.port_u16() {
        attributes.push(KeyValue::new("server.port", i64::from(port)));
    }
    attributes
}

/// The end of the SDK's pipeline: keeps what it is given, converted, until it is taken.
#[derive(Clone, Default, Debug)]
struct Collected(Arc<Mutex<Option<ResourceMetrics>>>);

impl Collected {
    fn take(&self) -> Option<ResourceMetrics> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl PushMetricExporter for Collected {
    async fn export(&self, metrics: &opentelemetry_sdk::metrics::data::ResourceMetrics) -> OTelSdkResult {
        let request = ExportMetricsServiceRequest::from(metrics);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = request.resource_metrics.into_iter().next();
        Ok(())
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }

    fn temporality(&self) -> Temporality {
        Temporality::Cumulative
    }
}

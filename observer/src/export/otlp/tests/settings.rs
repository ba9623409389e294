//! The environment, as tables.

use std::time::Duration;

use opentelemetry::Key;

use super::super::settings::{Invalid, Protocol, Settings};

fn parse(env: &[(&str, &str)]) -> Result<Settings, Invalid> {
    Settings::from_lookup(|name| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
}

fn with(env: &[(&str, &str)]) -> Settings {
    parse(env).unwrap_or_else(|error| panic!("{env:?}: {error}"))
}

#[test]
fn endpoints() {
    let check = |env: &[(&str, &str)], endpoint: &str| assert_eq!(with(env).endpoint.to_string(), endpoint, "{env:?}");
    let grpc = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
    check(&[], "http://localhost:4318/v1/metrics");
    check(&[grpc], "http://localhost:4317/");
    check(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:1")], "http://c:1/v1/metrics");
    check(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:1/")], "http://c:1/v1/metrics");
    check(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c/otlp/")], "https://c/otlp/v1/metrics");
    check(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c/otlp?key=1")], "https://c/otlp/v1/metrics?key=1");
    check(&[("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://m:2/api/v1/otlp/")], "http://m:2/api/v1/otlp/");
    check(&[("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://m:2")], "http://m:2/");
    check(
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:1"), ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://m:2/x")],
        "http://m:2/x",
    );
    check(&[grpc, ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://[::1]:4317")], "http://[::1]:4317/");
    check(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "  ")], "http://localhost:4318/v1/metrics");
}

#[test]
fn protocols_timeouts_and_the_rest() {
    let settings = with(&[
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "3000"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "250"),
    ]);
    assert_eq!(settings.protocol, Protocol::Http, "the metrics' own variable wins");
    assert_eq!((settings.timeout, settings.gzip), (Duration::from_secs(3), true));
    assert_eq!(settings.interval, Some(Duration::from_millis(250)));
    assert_eq!(with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317")]).protocol, Protocol::Grpc, "by its usual port");
    assert_eq!(with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318")]).protocol, Protocol::Http);
    let default = with(&[]);
    assert_eq!((default.timeout, default.gzip, default.interval), (Duration::from_secs(10), false, None));
    assert!(!with(&[("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"), ("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", "none")]).gzip);
}

#[test]
fn headers_are_decoded_and_secret() {
    let settings = with(&[("OTEL_EXPORTER_OTLP_HEADERS", "api-key = s%20ecret%3D, X-Tenant=a=b ,")]);
    assert_eq!(settings.headers["api-key"], "s ecret=");
    assert_eq!(settings.headers["x-tenant"], "a=b");
    assert!(!format!("{settings:?}").contains("ecret"));
    let own = with(&[("OTEL_EXPORTER_OTLP_HEADERS", "a=1"), ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "b=2")]);
    assert!(own.headers.contains_key("b") && !own.headers.contains_key("a"));
}

#[test]
fn resources() {
    let check = |env: &[(&str, &str)], key: &'static str, value: &str| {
        let found = with(env).resource.get(&Key::from_static_str(key)).map(|value| value.to_string());
        assert_eq!(found.as_deref(), Some(value), "{env:?}");
    };
    let attributes = ("OTEL_RESOURCE_ATTRIBUTES", "service.name=of-attributes,host.name=h%2C1, deployment.environment.name=prod");
    check(&[], "service.name", "observer");
    check(&[attributes], "service.name", "of-attributes");
    check(&[attributes, ("OTEL_SERVICE_NAME", "of-name")], "service.name", "of-name");
    check(&[attributes], "host.name", "h,1");
    check(&[attributes], "deployment.environment.name", "prod");
}

#[test]
fn what_cannot_be_used_is_named() {
    let check = |variable: &str, value: &str, problem: &str| {
        let error = parse(&[(variable, value), ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "")]).unwrap_err().to_string();
        assert!(error.starts_with(variable) && error.contains(problem), "{error}");
    };
    check("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "\"http/json\": JSON is not supported");
    check("OTEL_EXPORTER_OTLP_PROTOCOL", "udp", "use grpc or http/protobuf");
    check("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4317", "\"localhost:4317\": write it as http://");
    check("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://x", "write it as http://");
    check("OTEL_EXPORTER_OTLP_ENDPOINT", "http://", "not a URL");
    check("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:password@x", "credentials belong in");
    check("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "whole number of milliseconds");
    check("OTEL_EXPORTER_OTLP_TIMEOUT", "0", "above 0");
    check("OTEL_METRIC_EXPORT_INTERVAL", "-1", "whole number of milliseconds");
    check("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd", "use gzip or none");
    check("OTEL_EXPORTER_OTLP_HEADERS", "a", "expected key=value");
    check("OTEL_EXPORTER_OTLP_HEADERS", "a b=1", "not a header name");
    check("OTEL_EXPORTER_OTLP_HEADERS", "a=%zz", "percent-encoded");
    check("OTEL_RESOURCE_ATTRIBUTES", "a=1,b", "\"b\": expected key=value");
    check("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta", "only cumulative");
    check("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/k", "set OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE");
    let error = parse(&[("OTEL_EXPORTER_OTLP_HEADERS", "key=%se%cret")]).unwrap_err().to_string();
    assert!(!error.contains("cret"), "{error}: headers are secrets");
    let error = parse(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://x/v1/metrics")]);
    assert!(error.unwrap_err().to_string().contains("gRPC knows no path"));
}

//! The `OTEL_*` environment variables, as OpenTelemetry's specification defines them ("OpenTelemetry Protocol Exporter", "Environment
//! Variable Specification"). Reading them is pure: from a lookup to [`Settings`] or an error that names the variable and the value.

use std::path::PathBuf;
use std::time::Duration;

use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use opentelemetry::KeyValue;
use opentelemetry_otlp::{
    OTEL_EXPORTER_OTLP_COMPRESSION, OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_HEADERS,
    OTEL_EXPORTER_OTLP_METRICS_COMPRESSION, OTEL_EXPORTER_OTLP_METRICS_ENDPOINT, OTEL_EXPORTER_OTLP_METRICS_HEADERS,
    OTEL_EXPORTER_OTLP_METRICS_PROTOCOL, OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE, OTEL_EXPORTER_OTLP_METRICS_TIMEOUT,
    OTEL_EXPORTER_OTLP_PROTOCOL, OTEL_EXPORTER_OTLP_TIMEOUT, OTEL_EXPORTER_OTLP_TIMEOUT_DEFAULT,
};
use opentelemetry_sdk::Resource;

const CERTIFICATE: (&str, &str) = ("OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE");
const CLIENT_CERTIFICATE: (&str, &str) =
    ("OTEL_EXPORTER_OTLP_METRICS_CLIENT_CERTIFICATE", "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE");
const CLIENT_KEY: (&str, &str) = ("OTEL_EXPORTER_OTLP_METRICS_CLIENT_KEY", "OTEL_EXPORTER_OTLP_CLIENT_KEY");
const SERVICE_NAME: &str = "OTEL_SERVICE_NAME";
const RESOURCE_ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";
const EXPORT_INTERVAL: &str = "OTEL_METRIC_EXPORT_INTERVAL";

/// How metrics leave over OTLP.
#[derive(Clone, Debug)]
pub struct Settings {
    /// gRPC or HTTP.
    pub protocol: Protocol,
    /// Where to; for HTTP with the whole path.
    pub endpoint: Uri,
    /// Sent with every request; marked sensitive, so that they are never logged.
    pub headers: HeaderMap,
    /// How long one attempt may take, connecting included.
    pub timeout: Duration,
    /// Compress with gzip.
    pub gzip: bool,
    /// Certificates to trust for `https`, and who we are.
    pub tls: Tls,
    /// What describes this service; the host is added from the first snapshot.
    pub resource: Resource,
    /// `OTEL_METRIC_EXPORT_INTERVAL`, for the caller: [`super::run`] exports every snapshot it is given.
    pub interval: Option<Duration>,
    /// Encoded bytes that may wait for the collector; the oldest are dropped beyond.
    pub queue_bytes: usize,
    /// The first and the longest pause between attempts.
    pub backoff: (Duration, Duration),
    /// How long a payload that a collector keeps answering with "later" is offered again.
    pub give_up: Duration,
    /// How long delivery may go on after the end was asked for.
    pub shutdown: Duration,
}

/// The two transports of OTLP that observer speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// gRPC.
    Grpc,
    /// Protobuf over HTTP/1.1.
    Http,
}

/// PEM files for `https`.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Tls {
    /// Certificate authorities instead of the system's.
    pub certificate: Option<PathBuf>,
    /// Our certificate chain and its key.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// A variable that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{variable}={value:?}: {problem}")]
pub struct Invalid {
    /// Its name.
    pub variable: &'static str,
    /// Its value; only the offending key of headers, whose values are secrets.
    pub value: String,
    /// What is wrong with it.
    pub problem: String,
}

impl Settings {
    /// Settings from the environment, `lookup` being `|name| std::env::var(name).ok()`. An empty value is as good as none.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Settings, Invalid> {
        let env = Env { lookup: &lookup };
        env.refuse_temporality()?;
        let protocol = env.protocol()?;
        Ok(Settings {
            protocol,
            endpoint: env.endpoint(protocol)?,
            headers: env.headers()?,
            timeout: env.timeout()?,
            gzip: env.gzip()?,
            tls: env.tls()?,
            resource: env.resource()?,
            interval: env.get(EXPORT_INTERVAL).as_ref().map(milliseconds).transpose()?,
            queue_bytes: 8 << 20,
            backoff: (Duration::from_secs(1), Duration::from_secs(30)),
            give_up: Duration::from_secs(300),
            shutdown: Duration::from_secs(5),
        })
    }
}

struct Env<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
}

/// A variable that is set.
struct Set {
    variable: &'static str,
    value: String,
}

impl Set {
    fn invalid(&self, problem: impl Into<String>) -> Invalid {
        Invalid { variable: self.variable, value: self.value.clone(), problem: problem.into() }
    }
}

impl Env<'_> {
    fn get(&self, variable: &'static str) -> Option<Set> {
        let value = (self.lookup)(variable)?.trim().to_owned();
        (!value.is_empty()).then_some(Set { variable, value })
    }

    /// The metrics' own variable wins over the common one.
    fn either(&self, own: &'static str, common: &'static str) -> Option<Set> {
        self.get(own).or_else(|| self.get(common))
    }

    /// Without a word about the protocol an endpoint with gRPC's usual port is spoken to in gRPC, since the specification's default,
    /// http/protobuf, could only fail there.
    fn protocol(&self) -> Result<Protocol, Invalid> {
        let Some(set) = self.either(OTEL_EXPORTER_OTLP_METRICS_PROTOCOL, OTEL_EXPORTER_OTLP_PROTOCOL) else {
            let endpoint = self.either(OTEL_EXPORTER_OTLP_METRICS_ENDPOINT, OTEL_EXPORTER_OTLP_ENDPOINT);
            let port = endpoint.and_then(|set| set.value.parse::<Uri>().ok()?.port_u16());
            return Ok(if port == Some(4317) { Protocol::Grpc } else { Protocol::Http });
        };
        match set.value.as_str() {
            "grpc" => Ok(Protocol::Grpc),
            "http/protobuf" => Ok(Protocol::Http),
            "http/json" => Err(set.invalid("JSON is not supported; use http/protobuf or grpc")),
            _ => Err(set.invalid("use grpc or http/protobuf")),
        }
    }

    /// The metrics' own endpoint is taken as it is; the common one is a base to which HTTP adds `/v1/metrics`.
    fn endpoint(&self, protocol: Protocol) -> Result<Uri, Invalid> {
        if let Some(set) = self.get(OTEL_EXPORTER_OTLP_METRICS_ENDPOINT) {
            return endpoint(&set, protocol, "");
        }
        let default = match protocol {
            Protocol::Grpc => "http://localhost:4317",
            Protocol::Http => "http://localhost:4318",
        };
        let default = || Set { variable: OTEL_EXPORTER_OTLP_ENDPOINT, value: default.to_owned() };
        endpoint(&self.get(OTEL_EXPORTER_OTLP_ENDPOINT).unwrap_or_else(default), protocol, "/v1/metrics")
    }

    fn headers(&self) -> Result<HeaderMap, Invalid> {
        let mut headers = HeaderMap::new();
        let Some(set) = self.either(OTEL_EXPORTER_OTLP_METRICS_HEADERS, OTEL_EXPORTER_OTLP_HEADERS) else { return Ok(headers) };
        for (key, value) in pairs(&set.value) {
            // Headers hold credentials: an error shows the key alone.
            let invalid = |problem: &str| Invalid { variable: set.variable, value: key.into(), problem: problem.into() };
            let value = value.ok_or_else(|| invalid("expected key=value, separated by commas"))?;
            let value = percent_decode(value).ok_or_else(|| invalid("the value is not percent-encoded UTF-8"))?;
            let name: HeaderName = key.parse().map_err(|_| invalid("not a header name"))?;
            let mut value: HeaderValue = value.parse().map_err(|_| invalid("the value cannot be sent as a header"))?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        Ok(headers)
    }

    fn timeout(&self) -> Result<Duration, Invalid> {
        let set = self.either(OTEL_EXPORTER_OTLP_METRICS_TIMEOUT, OTEL_EXPORTER_OTLP_TIMEOUT);
        set.as_ref().map_or(Ok(OTEL_EXPORTER_OTLP_TIMEOUT_DEFAULT), milliseconds)
    }

    fn gzip(&self) -> Result<bool, Invalid> {
        let Some(set) = self.either(OTEL_EXPORTER_OTLP_METRICS_COMPRESSION, OTEL_EXPORTER_OTLP_COMPRESSION) else {
            return Ok(false);
        };
        match set.value.as_str() {
            "none" => Ok(false),
            "gzip" => Ok(true),
            _ => Err(set.invalid("use gzip or none")),
        }
    }

    fn tls(&self) -> Result<Tls, Invalid> {
        let certificate = self.either(CERTIFICATE.0, CERTIFICATE.1).map(|set| set.value.into());
        let client = match (self.either(CLIENT_CERTIFICATE.0, CLIENT_CERTIFICATE.1), self.either(CLIENT_KEY.0, CLIENT_KEY.1)) {
            (Some(certificate), Some(key)) => Some((certificate.value.into(), key.value.into())),
            (Some(set), None) => return Err(set.invalid(format!("a client certificate needs its key: set {}", CLIENT_KEY.1))),
            (None, Some(set)) => return Err(set.invalid(format!("a key needs its certificate: set {}", CLIENT_CERTIFICATE.1))),
            (None, None) => None,
        };
        Ok(Tls { certificate, client })
    }

    fn refuse_temporality(&self) -> Result<(), Invalid> {
        match self.get(OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE) {
            Some(set) if !set.value.eq_ignore_ascii_case("cumulative") => Err(set.invalid("only cumulative is supported")),
            _ => Ok(()),
        }
    }

    /// `OTEL_SERVICE_NAME` wins over `service.name` in `OTEL_RESOURCE_ATTRIBUTES`, and that over the default.
    fn resource(&self) -> Result<Resource, Invalid> {
        let mut builder = Resource::builder_empty().with_attributes([
            KeyValue::new("service.name", "observer"),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("os.type", "linux"),
        ]);
        if let Some(set) = self.get(RESOURCE_ATTRIBUTES) {
            for (key, value) in pairs(&set.value) {
                let value = value.and_then(percent_decode).filter(|_| !key.is_empty());
                let value = value.ok_or_else(|| set.invalid(format!("{key:?}: expected key=value, separated by commas")))?;
                let key = percent_decode(key).ok_or_else(|| set.invalid(format!("{key:?} is not percent-encoded UTF-8")))?;
                builder = builder.with_attribute(KeyValue::new(key, value));
            }
        }
        if let Some(set) = self.get(SERVICE_NAME) {
            builder = builder.with_service_name(set.value);
        }
        Ok(builder.build())
    }
}

fn endpoint(set: &Set, protocol: Protocol, suffix: &str) -> Result<Uri, Invalid> {
    let uri: Uri = set.value.parse().map_err(|error| set.invalid(format!("not a URL: {error}")))?;
    let scheme = uri.scheme().cloned().filter(|scheme| *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS);
    let (Some(scheme), Some(authority)) = (scheme, uri.authority().cloned()) else {
        return Err(set.invalid("write it as http://host:port or https://host:port"));
    };
    if authority.as_str().contains('@') {
        return Err(set.invalid(format!("credentials belong in {OTEL_EXPORTER_OTLP_HEADERS}")));
    }
    let path = match protocol {
        Protocol::Http => format!("{}{suffix}", uri.path().trim_end_matches(if suffix.is_empty() { '\0' } else { '/' })),
        Protocol::Grpc if uri.path() == "/" => String::from("/"),
        Protocol::Grpc => {
            return Err(set.invalid("gRPC knows no path; for OTLP over HTTP set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"));
        }
    };
    let path = match uri.query() {
        Some(query) if protocol == Protocol::Http => format!("{path}?{query}"),
        _ => path,
    };
    let path: PathAndQuery = path.parse().map_err(|error| set.invalid(format!("not a path: {error}")))?;
    let built = Uri::builder().scheme(scheme).authority(authority).path_and_query(path).build();
    built.map_err(|error| set.invalid(error.to_string()))
}

fn milliseconds(set: &Set) -> Result<Duration, Invalid> {
    match set.value.parse() {
        Ok(0) | Err(_) => Err(set.invalid("expected a whole number of milliseconds above 0")),
        Ok(milliseconds) => Ok(Duration::from_millis(milliseconds)),
    }
}

/// `key=value,key=value`, as W3C Baggage writes it; empty members are skipped.
fn pairs(list: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    list.split(',').map(str::trim).filter(|member| !member.is_empty()).map(|member| match member.split_once('=') {
        Some((key, value)) => (key.trim(), Some(value.trim())),
        None => (member, None),
    })
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(if byte == b'%' { hex(rest.next()?)? << 4 | hex(rest.next()?)? } else { byte });
    }
    String::from_utf8(bytes).ok()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

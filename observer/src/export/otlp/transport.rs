//! One request with one payload, over gRPC or HTTP, and what came of it.
//!
//! Both protocols share one HTTP client, its connector and its TLS set-up; gRPC is tonic's framing, compression and status on top, with a
//! codec that hands the encoded bytes through.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, USER_AGENT};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use prost::Message as _;
use prost::bytes::{Buf as _, BufMut as _, Bytes};
use tonic::Status;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataMap;

use super::answer::{self, Failure, Outcome};
use super::settings::{Protocol, Settings};
use super::tls;

const EXPORT: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";

/// Answers are small; what is larger is not an OTLP receiver's.
const MAX_ANSWER: usize = 1 << 20;

type HttpClient<B> = Client<HttpsConnector<HttpConnector>, B>;

/// A connection to a collector, made when first needed and again when it breaks.
#[derive(Debug)]
pub struct Transport {
    connector: HttpsConnector<HttpConnector>,
    client: AnyClient,
    endpoint: Uri,
    headers: HeaderMap,
    timeout: Duration,
    gzip: bool,
}

#[derive(Debug)]
enum AnyClient {
    Grpc(HttpClient<tonic::body::Body>),
    Http(HttpClient<Full<Bytes>>),
}

impl Transport {
    /// Reads certificates, where `https` needs them; connects to nothing yet.
    pub fn new(settings: &Settings) -> anyhow::Result<Transport> {
        let secure = settings.endpoint.scheme() == Some(&Scheme::HTTPS);
        let host = settings.endpoint.host().unwrap_or_default();
        let config = tls::client_config(secure, &settings.tls).with_context(|| format!("TLS for {host}"))?;
        let builder = HttpsConnectorBuilder::new().with_tls_config(config).https_or_http();
        let connector = match settings.protocol {
            Protocol::Grpc => builder.enable_http2().build(),
            Protocol::Http => builder.enable_http1().build(),
        };
        let mut headers = settings.headers.clone();
        let agent = HeaderValue::from_static(concat!("observer/", env!("CARGO_PKG_VERSION")));
        headers.entry(USER_AGENT).or_insert(agent);
        Ok(Transport {
            client: AnyClient::new(settings.protocol, &connector),
            connector,
            endpoint: settings.endpoint.clone(),
            headers,
            timeout: settings.timeout,
            gzip: settings.gzip,
        })
    }

    /// The bytes to send for a payload: over HTTP compressed once for all attempts; gRPC compresses on its own.
    pub fn prepare(&self, body: &Bytes) -> std::io::Result<Bytes> {
        match self.client {
            AnyClient::Http(_) if self.gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::with_capacity(body.len() / 8), flate2::Compression::fast());
                encoder.write_all(body)?;
                Ok(encoder.finish()?.into())
            }
            _ => Ok(body.clone()),
        }
    }

    /// One attempt with [prepared](Transport::prepare) bytes.
    pub async fn send(&mut self, body: Bytes) -> Outcome {
        let attempt = async {
            match &self.client {
                AnyClient::Grpc(client) => self.send_grpc(client, body).await,
                AnyClient::Http(client) => self.send_http(client, body).await,
            }
        };
        match tokio::time::timeout(self.timeout, attempt).await {
            Ok(outcome) => outcome,
            Err(_) => {
                // HTTP/2 would use the same silent connection again.
                self.client = self.client.renewed(&self.connector);
                Outcome::Retry(Failure::unreachable("timeout", format!("no answer within {:?}", self.timeout)))
            }
        }
    }

    async fn send_grpc(&self, client: &HttpClient<tonic::body::Body>, body: Bytes) -> Outcome {
        let mut grpc = tonic::client::Grpc::with_origin(client.clone(), self.endpoint.clone())
            .max_decoding_message_size(MAX_ANSWER)
            .accept_compressed(CompressionEncoding::Gzip);
        if self.gzip {
            grpc = grpc.send_compressed(CompressionEncoding::Gzip);
        }
        let mut request = tonic::Request::new(body);
        *request.metadata_mut() = MetadataMap::from_headers(self.headers.clone());
        match grpc.unary(request, PathAndQuery::from_static(EXPORT), RawCodec).await {
            Ok(response) => answer::accepted(response.into_inner()),
            Err(status) => answer::of_grpc(&status),
        }
    }

    async fn send_http(&self, client: &HttpClient<Full<Bytes>>, body: Bytes) -> Outcome {
        let mut request = Request::post(self.endpoint.clone()).body(Full::new(body)).unwrap_or_default();
        let headers = request.headers_mut();
        headers.extend(self.headers.clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        if self.gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        let response = match client.request(request).await {
            Ok(response) => response,
            Err(error) => return Outcome::Retry(Failure::unreachable("connection", chain(&error))),
        };
        let (head, body) = response.into_parts();
        match Limited::new(body, MAX_ANSWER).collect().await {
            Ok(body) => answer::of_http(head.status, &head.headers, &body.to_bytes()),
            Err(error) => Outcome::Retry(Failure::unreachable("connection", chain(error.as_ref()))),
        }
    }
}

impl AnyClient {
    fn new(protocol: Protocol, connector: &HttpsConnector<HttpConnector>) -> AnyClient {
        let mut builder = Client::builder(TokioExecutor::new());
        match protocol {
            Protocol::Grpc => AnyClient::Grpc(builder.http2_only(true).build(connector.clone())),
            Protocol::Http => AnyClient::Http(builder.build(connector.clone())),
        }
    }

    fn renewed(&self, connector: &HttpsConnector<HttpConnector>) -> AnyClient {
        match self {
            AnyClient::Grpc(_) => AnyClient::new(Protocol::Grpc, connector),
            AnyClient::Http(_) => AnyClient::new(Protocol::Http, connector),
        }
    }
}

/// An error with its causes, which is where "connection refused" is said.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            // Writing to a String cannot fail.
            let _ = write!(text, ": {said}");
        }
        cause = error.source();
    }
    text
}

/// Encoded bytes out, a decoded answer in.
struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = ExportMetricsServiceResponse;
    type Encoder = RawCodec;
    type Decoder = RawCodec;

    fn encoder(&mut self) -> RawCodec {
        RawCodec
    }

    fn decoder(&mut self) -> RawCodec {
        RawCodec
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, body: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(body);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = ExportMetricsServiceResponse;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        let bytes = from.copy_to_bytes(from.remaining());
        ExportMetricsServiceResponse::decode(bytes).map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}

/// The kind of transport, as `otel.component.type` calls it.
pub(super) fn component(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Grpc => "otlp_grpc_metric_exporter",
        Protocol::Http => "otlp_http_metric_exporter",
    }
}

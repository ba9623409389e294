//! Receivers inside the process, gRPC and HTTP, that misbehave as they are told, one fault for each request, and then behave.

use std::collections::VecDeque;
use std::io::Read as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{MetricsService, MetricsServiceServer};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tonic::codec::CompressionEncoding;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::super::Protocol;

/// What a receiver does with a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// UNAVAILABLE; 503.
    Unavailable,
    /// RESOURCE_EXHAUSTED with RetryInfo; 429 with Retry-After. Of no time, for the tests' sake.
    Throttled,
    /// No answer.
    Hang,
    /// Takes it, and says that so many points were rejected.
    Partial(i64),
    /// INVALID_ARGUMENT; 400.
    Refuse,
    /// HTTP: closes the connection instead of answering. gRPC: the same as UNAVAILABLE.
    Reset,
}

/// What was received, and what is still to go wrong.
#[derive(Clone, Default)]
pub(super) struct Receiver {
    requests: Arc<Mutex<Vec<ExportMetricsServiceRequest>>>,
    faults: Arc<Mutex<VecDeque<Fault>>>,
    headers: Arc<Mutex<Vec<String>>>,
}

impl Receiver {
    pub(super) fn new(faults: &[Fault]) -> Receiver {
        Receiver { faults: Arc::new(Mutex::new(faults.iter().copied().collect())), ..Receiver::default() }
    }

    /// Serves at a free port.
    pub(super) async fn start(&self, protocol: Protocol) -> SocketAddr {
        self.serve(protocol, TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    pub(super) fn serve(&self, protocol: Protocol, listener: TcpListener) -> SocketAddr {
        let address = listener.local_addr().unwrap();
        let receiver = self.clone();
        match protocol {
            Protocol::Grpc => {
                let service = MetricsServiceServer::new(receiver).accept_compressed(CompressionEncoding::Gzip);
                tokio::spawn(async move {
                    while let Ok((stream, _)) = listener.accept().await {
                        let service = TowerToHyperService::new(service.clone());
                        let server = auto::Builder::new(TokioExecutor::new());
                        tokio::spawn(async move { server.serve_connection(TokioIo::new(stream), service).await });
                    }
                });
            }
            Protocol::Http => {
                tokio::spawn(async move {
                    while let Ok((stream, _)) = listener.accept().await {
                        tokio::spawn(receiver.clone().serve_http(stream));
                    }
                });
            }
        }
        address
    }

    /// Requests that were taken, in order.
    pub(super) fn taken(&self) -> Vec<ExportMetricsServiceRequest> {
        self.requests.lock().unwrap().clone()
    }

    /// Faults that did not come to pass.
    pub(super) fn left(&self) -> usize {
        self.faults.lock().unwrap().len()
    }

    /// The value of the tests' own header in each request.
    pub(super) fn headers(&self) -> Vec<String> {
        self.headers.lock().unwrap().clone()
    }

    fn fault(&self) -> Option<Fault> {
        self.faults.lock().unwrap().pop_front()
    }

    fn take(&self, request: ExportMetricsServiceRequest, rejected: i64) -> ExportMetricsServiceResponse {
        self.requests.lock().unwrap().push(request);
        let partial = ExportMetricsPartialSuccess { rejected_data_points: rejected, error_message: "too old".into() };
        ExportMetricsServiceResponse { partial_success: (rejected > 0).then_some(partial) }
    }

    /// HTTP/1.1, no more of it than the client needs.
    async fn serve_http(self, mut stream: TcpStream) {
        while let Some((head, body)) = read_request(&mut stream).await {
            assert!(head.starts_with("post /v1/metrics http/1.1\r\n"), "{head}");
            assert_eq!(header(&head, "content-type").as_deref(), Some("application/x-protobuf"));
            self.headers.lock().unwrap().extend(header(&head, "x-test"));
            let body = if header(&head, "content-encoding").as_deref() == Some("gzip") { gunzip(&body) } else { body };
            let request = ExportMetricsServiceRequest::decode(&body[..]).unwrap();
            let (status, extra, answer) = match self.fault() {
                None => ("200 OK", "", self.take(request, 0).encode_to_vec()),
                Some(Fault::Partial(rejected)) => ("200 OK", "", self.take(request, rejected).encode_to_vec()),
                Some(Fault::Unavailable) => ("503 Service Unavailable", "", Vec::new()),
                Some(Fault::Throttled) => ("429 Too Many Requests", "retry-after: 0\r\n", Vec::new()),
                Some(Fault::Refuse) => ("400 Bad Request", "", Vec::new()),
                Some(Fault::Reset) => return,
                Some(Fault::Hang) => return std::future::pending().await,
            };
            let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{extra}\r\n", answer.len());
            let _ = stream.write_all(&[head.as_bytes(), &answer].concat()).await;
        }
    }
}

#[tonic::async_trait]
impl MetricsService for Receiver {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let header = request.metadata().get("x-test").map(|value| value.to_str().unwrap().to_owned());
        self.headers.lock().unwrap().extend(header);
        let rejected = match self.fault() {
            None => 0,
            Some(Fault::Partial(rejected)) => rejected,
            Some(Fault::Unavailable | Fault::Reset) => return Err(Status::unavailable("tired")),
            Some(Fault::Throttled) => {
                let details = ErrorDetails::with_retry_info(Some(Duration::ZERO));
                return Err(Status::with_error_details(Code::ResourceExhausted, "full", details));
            }
            Some(Fault::Refuse) => return Err(Status::invalid_argument("no")),
            Some(Fault::Hang) => std::future::pending().await,
        };
        Ok(Response::new(self.take(request.into_inner(), rejected)))
    }
}

/// The head in lower case, and the body.
async fn read_request(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let mut body = vec![0; header(&head, "content-length")?.parse().unwrap()];
    stream.read_exact(&mut body).await.ok()?;
    Some((head, body))
}

fn header(head: &str, name: &str) -> Option<String> {
    head.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim().to_owned()))
}

fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(bytes).read_to_end(&mut plain).unwrap();
    plain
}

//! Whatever a receiver does, at the end it knows the last totals. No test here looks at a clock; the deadlines are for a hung build machine.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::NumberDataPoint;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

use super::super::{Protocol, Settings, run};
use super::receivers::{Fault, Receiver};
use super::samples::snapshot;

const BOTH: [Protocol; 2] = [Protocol::Grpc, Protocol::Http];
const LONG: Duration = Duration::from_secs(60);
/// The last step that is sent.
const LAST: u64 = 6;

fn settings(protocol: Protocol, gzip: bool, address: SocketAddr) -> Settings {
    let env = BTreeMap::from([
        ("OTEL_EXPORTER_OTLP_PROTOCOL", if protocol == Protocol::Grpc { "grpc" } else { "http/protobuf" }.to_owned()),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{address}")),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-test=it%20is%20me".to_owned()),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", if gzip { "gzip" } else { "none" }.to_owned()),
    ]);
    let settings = Settings::from_lookup(|name| env.get(name).cloned()).unwrap();
    Settings {
        backoff: (Duration::from_millis(5), Duration::from_millis(50)),
        timeout: Duration::from_millis(500),
        shutdown: LONG,
        ..settings
    }
}

/// Sends steps 0 to `LAST`, asks for the end, sends one step more, and waits until all is flushed.
async fn export(settings: Settings) {
    let (sender, receiver) = mpsc::channel(1);
    let (end, ended) = oneshot::channel::<()>();
    let exporting = tokio::spawn(run(settings, receiver, async { ended.await.unwrap() }));
    for step in 0..LAST {
        sender.send(snapshot(step, 2)).await.unwrap();
    }
    end.send(()).unwrap();
    sender.send(snapshot(LAST, 2)).await.unwrap();
    drop(sender);
    tokio::time::timeout(LONG, exporting).await.unwrap().unwrap().unwrap();
}

/// All points of a sum, in the order of arrival.
fn sums(requests: &[ExportMetricsServiceRequest], name: &str) -> Vec<NumberDataPoint> {
    let scopes = requests.iter().flat_map(|request| &request.resource_metrics).flat_map(|metrics| &metrics.scope_metrics);
    let metrics = scopes.flat_map(|scope| &scope.metrics).filter(|metric| metric.name == name);
    let points = metrics.flat_map(|metric| match metric.data.as_ref().unwrap() {
        Data::Sum(sum) => sum.data_points.clone(),
        other => panic!("{name}: {other:?}"),
    });
    points.collect()
}

/// The newest known total of both cgroups and the CPU.
fn assert_totals(receiver: &Receiver) {
    let runs = sums(&receiver.taken(), "observer.sched.runs");
    let newest: Vec<_> = runs.iter().rev().take(3).map(|point| point.value.unwrap()).collect();
    assert_eq!(newest, [Value::AsInt(100 + LAST as i64); 3]);
    assert!(runs.is_sorted_by_key(|point| point.time_unix_nano), "the oldest come first");
}

async fn check(faults: &[Fault]) {
    for (protocol, gzip) in BOTH.into_iter().flat_map(|protocol| [(protocol, false), (protocol, true)]) {
        let receiver = Receiver::new(faults);
        let address = receiver.start(protocol).await;
        export(settings(protocol, gzip, address)).await;
        assert_eq!(receiver.left(), 0, "{protocol:?}: every fault was met");
        assert_totals(&receiver);
        assert!(!receiver.headers().is_empty() && receiver.headers().iter().all(|header| header == "it is me"));
    }
}

#[tokio::test]
async fn all_well() {
    check(&[]).await;
}

#[tokio::test]
async fn unavailable_then_well() {
    check(&[Fault::Unavailable, Fault::Unavailable, Fault::Unavailable]).await;
}

#[tokio::test]
async fn throttled() {
    check(&[Fault::Throttled, Fault::Throttled]).await;
}

#[tokio::test]
async fn hanging() {
    check(&[Fault::Hang]).await;
}

#[tokio::test]
async fn everything_goes_wrong() {
    use Fault::{Hang, Partial, Refuse, Reset, Throttled, Unavailable};
    check(&[Unavailable, Throttled, Reset, Hang, Refuse, Unavailable, Partial(2), Reset]).await;
}

#[tokio::test]
async fn the_collector_comes_up_later() {
    for protocol in BOTH {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let receiver = Receiver::new(&[]);
        let late = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            receiver.serve(protocol, TcpListener::bind(address).await.unwrap());
        };
        tokio::join!(export(settings(protocol, false, address)), late);
        assert_totals(&receiver);
    }
}

#[tokio::test]
async fn no_collector_is_no_reason_to_hang() {
    for protocol in BOTH {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        export(Settings { shutdown: Duration::from_millis(200), ..settings(protocol, false, free) }).await;
    }
}

#[tokio::test]
async fn what_is_lost_is_counted() {
    for protocol in BOTH {
        let receiver = Receiver::new(&[Fault::Partial(3), Fault::Refuse]);
        let address = receiver.start(protocol).await;
        // A pause between snapshots, so that the counts of the first are in the later ones.
        let (sender, snapshots) = mpsc::channel(1);
        let exporting = tokio::spawn(run(settings(protocol, false, address), snapshots, std::future::pending()));
        let exported = |error: &str| {
            let points = sums(&receiver.taken(), "otel.sdk.exporter.metric_data_point.exported");
            let of = |point: &&NumberDataPoint| {
                let mut attributes = point.attributes.iter();
                attributes.any(|attribute| attribute.key == "error.type" && format!("{:?}", attribute.value).contains(error))
            };
            points.iter().rfind(of).and_then(|point| point.value)
        };
        let refused = if protocol == Protocol::Grpc { "InvalidArgument" } else { "400" };
        let mut step = 0;
        while exported(refused).is_none() {
            sender.send(snapshot(step, 1)).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
            step += 1;
            assert!(step < 1_000, "never told");
        }
        assert_eq!(exported("rejected"), Some(Value::AsInt(3)));
        drop(sender);
        tokio::time::timeout(LONG, exporting).await.unwrap().unwrap().unwrap();
        assert!(!sums(&receiver.taken(), "observer.export.queue.size").is_empty());
    }
}

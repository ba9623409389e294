//! From the queue to the collector: one payload at a time, the oldest first, with patience.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::uri::Scheme;

use super::answer::{Failure, Outcome};
use super::payload::Payload;
use super::queue::Queue;
use super::settings::{Protocol, Settings};
use super::telemetry::Telemetry;
use super::transport::Transport;

/// Delivers what is in the queue.
#[derive(Debug)]
pub(super) struct Delivery {
    transport: Transport,
    queue: Arc<Queue>,
    telemetry: Arc<Telemetry>,
    backoff: (Duration, Duration),
    give_up: Duration,
    log: Log,
}

impl Delivery {
    pub(super) fn new(settings: &Settings, queue: Arc<Queue>, telemetry: Arc<Telemetry>) -> anyhow::Result<Delivery> {
        Ok(Delivery {
            transport: Transport::new(settings)?,
            queue,
            telemetry,
            backoff: settings.backoff,
            give_up: settings.give_up,
            log: Log { endpoint: without_query(settings), hint: hint(settings), state: Seen::Nothing },
        })
    }

    /// Ends when the queue is closed and empty.
    pub(super) async fn run(&mut self) {
        while let Some(payload) = self.queue.next().await {
            self.deliver(payload).await;
        }
    }

    /// Offers a payload until it is taken or refused. A collector that cannot be reached is waited for as long as it takes, while the queue
    /// behind drops its oldest; one that keeps answering "later" may mean this very payload, which must not hold up the others for ever.
    async fn deliver(&mut self, payload: Payload) {
        let body = match self.transport.prepare(&payload.body) {
            Ok(body) => body,
            Err(error) => {
                tracing::error!(%error, "cannot compress a payload");
                return self.telemetry.finished(payload.points, Some("compression".into()));
            }
        };
        let mut backoff = Backoff::new(self.backoff);
        let mut first_answer = None;
        loop {
            let begin = Instant::now();
            let outcome = self.transport.send(body.clone()).await;
            let error = match &outcome {
                Outcome::Accepted | Outcome::Partial { .. } => None,
                Outcome::Retry(failure) | Outcome::Refused(failure) => Some(failure.kind.clone()),
            };
            self.telemetry.attempted(begin.elapsed(), error);
            self.log.outcome(&outcome);
            match outcome {
                Outcome::Accepted => return self.telemetry.finished(payload.points, None),
                Outcome::Partial { rejected, .. } => return self.telemetry.finished_partly(payload.points, rejected),
                Outcome::Refused(failure) => return self.telemetry.finished(payload.points, Some(failure.kind)),
                Outcome::Retry(failure) => {
                    let waited = if failure.answered { first_answer.get_or_insert(begin).elapsed() } else { Duration::ZERO };
                    if waited > self.give_up {
                        tracing::warn!(points = payload.points, "gave up on a payload that the collector kept putting off");
                        return self.telemetry.finished(payload.points, Some(failure.kind));
                    }
                    self.queue.pause(backoff.next(failure.after)).await;
                }
            }
        }
    }
}

/// Pauses that double, of which a random half is kept so that not all nodes come back at once.
struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    fn new((first, longest): (Duration, Duration)) -> Backoff {
        Backoff { next: first, longest }
    }

    /// Never shorter than what the receiver asked for.
    fn next(&mut self, after: Option<Duration>) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.longest);
        after.unwrap_or_default() + pause.mul_f64(0.5 + random() / 2.0)
    }
}

/// A number in 0 … 1. The standard library seeds every `RandomState` differently, which is enough of chance here.
fn random() -> f64 {
    RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64
}

/// Says when things change, not each time they stay the same.
#[derive(Debug)]
struct Log {
    endpoint: String,
    hint: &'static str,
    state: Seen,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Seen {
    Nothing,
    Taken,
    Partly,
    Unreachable,
    Later,
    Refused,
}

impl Log {
    fn outcome(&mut self, outcome: &Outcome) {
        let state = match outcome {
            Outcome::Accepted => Seen::Taken,
            Outcome::Partial { .. } => Seen::Partly,
            Outcome::Retry(Failure { answered: false, .. }) => Seen::Unreachable,
            Outcome::Retry(_) => Seen::Later,
            Outcome::Refused(_) => Seen::Refused,
        };
        if std::mem::replace(&mut self.state, state) != state {
            self.say(outcome);
        }
    }

    fn say(&self, outcome: &Outcome) {
        let (endpoint, hint) = (&self.endpoint, self.hint);
        match outcome {
            Outcome::Accepted => tracing::info!("metrics reach {endpoint}"),
            Outcome::Partial { rejected, message } => {
                tracing::warn!("{endpoint} rejected {rejected} points of a request: {message}");
            }
            Outcome::Retry(failure) if failure.answered => {
                tracing::warn!("{endpoint} cannot take metrics now ({}); they wait, and are offered again", failure.message);
            }
            Outcome::Retry(failure) => {
                tracing::warn!(
                    "cannot reach a collector at {endpoint} ({}); metrics wait, the oldest are dropped first. {hint}",
                    failure.message
                );
            }
            Outcome::Refused(failure) => {
                tracing::warn!("{endpoint} refuses metrics ({}); they are lost. {hint}", failure.message);
            }
        }
    }
}

/// What to do about a collector that does not answer as one should.
fn hint(settings: &Settings) -> &'static str {
    match (settings.protocol, settings.endpoint.port_u16()) {
        (Protocol::Http, Some(4317)) => "Port 4317 usually speaks gRPC: set OTEL_EXPORTER_OTLP_PROTOCOL=grpc",
        (Protocol::Grpc, Some(4318)) => "Port 4318 usually speaks HTTP: set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf",
        _ if settings.endpoint.scheme() == Some(&Scheme::HTTPS) => {
            "Set OTEL_EXPORTER_OTLP_ENDPOINT to one that runs, and OTEL_EXPORTER_OTLP_CERTIFICATE to an authority that vouches for it"
        }
        _ => "Start one there, or set OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_EXPORTER_OTLP_PROTOCOL to one that runs",
    }
}

/// A query may hold a secret.
fn without_query(settings: &Settings) -> String {
    let endpoint = settings.endpoint.to_string();
    endpoint.split_once('?').map_or(endpoint.clone(), |(head, _)| head.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let second = Duration::from_secs(1);
        let mut backoff = Backoff::new((second, 4 * second));
        for expected in [1, 2, 4, 4] {
            let pause = backoff.next(None);
            assert!((second * expected / 2..=second * expected).contains(&pause), "{pause:?}");
        }
        assert!(backoff.next(Some(60 * second)) >= 60 * second, "the receiver's wish counts");
    }
}

//! OTLP: snapshots to an OpenTelemetry collector, over gRPC or HTTP.
//!
//! A snapshot is [encoded](encode) once into payloads of a size that receivers take; they pass through a bounded queue to
//! the delivery, which offers the oldest until it is taken. All values are cumulative, so that a lost payload costs resolution and
//! never a count.

mod answer;
mod attributes;
mod delivery;
pub mod encode;
mod pairs;
pub mod payload;
mod queue;
pub mod settings;
mod telemetry;
mod tls;
pub mod transport;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;

use tokio::sync::mpsc::Receiver;

use crate::model::Snapshot;
use delivery::Delivery;
use encode::Encoder;
use queue::Queue;
pub use settings::{Protocol, Settings};
use telemetry::Telemetry;

/// Exports every snapshot until `shutdown` completes or the channel is closed, and then what waits, within [`Settings::shutdown`].
///
/// After `shutdown` one snapshot more is waited for, for half of that time at most; a sender that hangs up ends the wait, and best
/// sends a last one before. A collector that cannot be reached is no error: it is said, and waited for.
///
/// # Errors
///
/// Certificates that cannot be read.
pub async fn run(
    settings: Settings,
    mut snapshots: Receiver<Arc<Snapshot>>,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let queue = Arc::new(Queue::new(settings.queue_bytes));
    let telemetry = Arc::new(Telemetry::new(&settings, queue.clone()));
    let mut delivery = Delivery::new(&settings, queue.clone(), telemetry.clone())?;
    let mut intake = Intake { encoder: Encoder::new(&settings.resource, payload::MAX_BYTES), queue, telemetry, full: false };
    let mut delivered = pin!(delivery.run());

    tokio::select! {
        () = shutdown => {}
        () = intake.run(&mut snapshots) => {}
        // It does not end before the queue is closed.
        () = &mut delivered => {}
    }

    let last = async {
        // A sender that has nothing new in time has had its chance.
        let _ = tokio::time::timeout(settings.shutdown / 2, intake.last(&mut snapshots)).await;
        intake.queue.close();
    };
    let flushed = async { tokio::join!(last, delivered) };
    if tokio::time::timeout(settings.shutdown, flushed).await.is_err() {
        let (payloads, points) = intake.queue.len();
        tracing::warn!(
            "stopped after {:?} with a collector that takes nothing; {payloads} payloads more were waiting ({points} points)",
            settings.shutdown
        );
    }
    Ok(())
}

/// From the channel to the queue.
struct Intake {
    encoder: Encoder,
    queue: Arc<Queue>,
    telemetry: Arc<Telemetry>,
    /// The queue overflowed at the last snapshot.
    full: bool,
}

impl Intake {
    /// Ends when the channel is closed.
    async fn run(&mut self, snapshots: &mut Receiver<Arc<Snapshot>>) {
        while let Some(snapshot) = snapshots.recv().await {
            self.take(&snapshot);
        }
    }

    /// What is in the channel, and one snapshot more.
    async fn last(&mut self, snapshots: &mut Receiver<Arc<Snapshot>>) {
        while let Ok(snapshot) = snapshots.try_recv() {
            self.take(&snapshot);
        }
        if let Some(snapshot) = snapshots.recv().await {
            self.take(&snapshot);
        }
    }

    fn take(&mut self, snapshot: &Snapshot) {
        let mut lost = 0;
        for payload in self.encoder.encode(snapshot, self.telemetry.collect()) {
            self.telemetry.queued(payload.points);
            for dropped in self.queue.push(payload) {
                self.telemetry.finished(dropped.points, Some("queue_full".into()));
                lost += dropped.points;
            }
        }
        if lost > 0 && !self.full {
            tracing::warn!(
                "the queue is full: the oldest metrics are dropped ({lost} points so far); totals are cumulative and stay right"
            );
        } else if lost == 0 && self.full {
            tracing::info!("the queue has room again");
        }
        self.full = lost > 0;
    }
}

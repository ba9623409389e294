//! Payloads that wait for the collector: bounded, the oldest first out, and the oldest first dropped.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::payload::Payload;

/// A queue for one taker.
#[derive(Debug)]
pub(super) struct Queue {
    max_bytes: usize,
    state: Mutex<State>,
    /// Something to take, or nothing more to come.
    changed: Notify,
    /// The end is near: pauses become short.
    closing: Notify,
}

#[derive(Debug, Default)]
struct State {
    payloads: VecDeque<Payload>,
    bytes: usize,
    closed: bool,
}

/// Pauses are at most this long once the queue is closed.
const SHORT: Duration = Duration::from_millis(200);

impl Queue {
    pub(super) fn new(max_bytes: usize) -> Queue {
        Queue { max_bytes, state: Mutex::default(), changed: Notify::new(), closing: Notify::new() }
    }

    /// Puts one at the end and gives back what had to leave: with cumulative values, the newest tell most.
    pub(super) fn push(&self, payload: Payload) -> Vec<Payload> {
        let mut state = self.lock();
        let mut dropped = Vec::new();
        while state.bytes + payload.body.len() > self.max_bytes
            && let Some(oldest) = state.payloads.pop_front()
        {
            state.bytes -= oldest.body.len();
            dropped.push(oldest);
        }
        state.bytes += payload.body.len();
        state.payloads.push_back(payload);
        drop(state);
        self.changed.notify_one();
        dropped
    }

    /// The oldest; waits for one. `None` when the queue is closed and empty.
    pub(super) async fn next(&self) -> Option<Payload> {
        loop {
            {
                let mut state = self.lock();
                if let Some(payload) = state.payloads.pop_front() {
                    state.bytes -= payload.body.len();
                    return Some(payload);
                }
                if state.closed {
                    return None;
                }
            }
            self.changed.notified().await;
        }
    }

    /// Nothing more will come, and nobody has much time.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
        self.closing.notify_one();
    }

    /// Sleeps, less once the queue is closed.
    pub(super) async fn pause(&self, time: Duration) {
        if !self.lock().closed {
            tokio::select! {
                () = tokio::time::sleep(time) => return,
                () = self.closing.notified() => {}
            }
        }
        tokio::time::sleep(time.min(SHORT)).await;
    }

    /// Payloads and points that wait.
    pub(super) fn len(&self) -> (usize, u64) {
        let state = self.lock();
        (state.payloads.len(), state.payloads.iter().map(|payload| payload.points).sum())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held; the numbers stay true in any case.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(points: u64) -> Payload {
        Payload { body: vec![0; 10].into(), points }
    }

    #[tokio::test]
    async fn the_oldest_leave_first() {
        let queue = Queue::new(35);
        let dropped: Vec<_> = (1..=5).flat_map(|points| queue.push(payload(points))).map(|payload| payload.points).collect();
        assert_eq!(dropped, [1, 2]);
        assert_eq!(queue.len(), (3, 12));
        queue.close();
        let mut left = Vec::new();
        while let Some(payload) = queue.next().await {
            left.push(payload.points);
        }
        assert_eq!(left, [3, 4, 5]);
    }

    #[tokio::test]
    async fn closing_cuts_a_pause_short() {
        let queue = Queue::new(1);
        tokio::join!(queue.pause(Duration::from_secs(3600)), async { queue.close() });
    }

    #[test]
    fn one_that_is_too_large_for_the_queue_is_kept_alone() {
        let queue = Queue::new(5);
        assert!(queue.push(payload(1)).is_empty());
        assert_eq!(queue.push(payload(2)).len(), 1);
    }
}

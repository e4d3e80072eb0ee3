//! The queue manager of remote write: shards with one request in flight each, batches with a deadline, retries of the same bytes.
//!
//! Facts are of Prometheus 3.14 `storage/remote/{queue_manager,client}.go`: every item is a TimeSeries of its own; 5xx and network
//! errors are tried again for ever with a backoff that doubles, a `Retry-After` above zero replaces one pause; other answers
//! above 2xx drop the batch; `Retry-Attempt` is sent from the second attempt on.

use super::ReplicaShared;
use super::fleet::Kind;
use crate::stand_in::connection::{Connection, NoAnswer};
use crate::stand_in::request::{histogram, histogram_point, put_exemplar, put_histogram, put_sample};
use crate::stand_in::{Bodies, Point, STALE_MARKER_BITS};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// One entry of a shard's queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item {
    pub(super) series: usize,
    pub(super) at_ms: i64,
    pub(super) what: What,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum What {
    /// Value bits.
    Float(u64),
    /// So many observations.
    Histogram(u64),
    /// Value bits.
    Exemplar(u64),
}

impl Item {
    fn point(&self) -> Option<Point> {
        match self.what {
            What::Float(bits) => Some(Point { at_ms: self.at_ms, bits, histogram: false }),
            What::Histogram(count) => Some(histogram_point(&histogram(self.at_ms, count))),
            What::Exemplar(_) => None,
        }
    }

    /// A sample of a series at a time, or its stale marker.
    pub(super) fn sample(
        shared: &ReplicaShared,
        series: usize,
        at_ms: i64,
        override_value: Option<f64>,
    ) -> Self {
        let shape = &shared.fleet.series[series];
        let what = match (override_value, shape.kind) {
            (Some(value), _) => What::Float(value.to_bits()),
            (None, Kind::NativeHistogram) => {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a count, far below 2^53"
                )]
                let count = shape.value(at_ms, shared.seed) as u64;
                What::Histogram(count)
            }
            (None, _) => What::Float(shape.value(at_ms, shared.seed).to_bits()),
        };
        Self { series, at_ms, what }
    }

    pub(super) fn stale(series: usize, at_ms: i64) -> Self {
        Self { series, at_ms, what: What::Float(STALE_MARKER_BITS) }
    }
}

/// One shard: its queue, its connection and its buffers.
pub(super) struct Shard {
    shared: Arc<ReplicaShared>,
    queue: mpsc::Receiver<Item>,
    connection: Connection,
    headers: HeaderMap,
    raw: Vec<u8>,
    compressed: Vec<u8>,
    encoder: snap::raw::Encoder,
}

enum Outcome {
    Acknowledged,
    Dropped,
    Again { retry_after: Option<Duration> },
}

impl Shard {
    pub(super) fn new(shared: Arc<ReplicaShared>, queue: mpsc::Receiver<Item>) -> Result<Self, NoAnswer> {
        let connection = Connection::to(&shared.options.url)?;
        let mut headers = HeaderMap::new();
        headers.insert("content-encoding", HeaderValue::from_static("snappy"));
        headers.insert("content-type", HeaderValue::from_static("application/x-protobuf"));
        headers.insert("user-agent", HeaderValue::from_static("Prometheus/3.14.0"));
        headers.insert("x-prometheus-remote-write-version", HeaderValue::from_static("0.1.0"));
        headers.extend(shared.options.headers.clone());
        Ok(Self {
            shared,
            queue,
            connection,
            headers,
            raw: Vec::new(),
            compressed: Vec::new(),
            encoder: snap::raw::Encoder::new(),
        })
    }

    /// Sends until the queue is closed and empty.
    pub(super) async fn run(mut self) {
        let most = self.shared.options.max_samples_per_send.max(1);
        let patience = self.shared.options.batch_send_deadline;
        let mut batch: Vec<Item> = Vec::with_capacity(most);
        let mut deadline = Instant::now() + patience;
        loop {
            let room = most - batch.len();
            let closed = tokio::select! {
                taken = self.queue.recv_many(&mut batch, room) => {
                    if taken > 0 && batch.len() < most {
                        continue;
                    }
                    taken == 0
                }
                () = tokio::time::sleep_until(deadline) => false,
            };
            if !batch.is_empty() {
                self.send(&batch).await;
                batch.clear();
            }
            if closed {
                return;
            }
            deadline = Instant::now() + patience;
        }
    }

    /// One batch until it is settled.
    async fn send(&mut self, batch: &[Item]) {
        let body = self.encode(batch);
        note(&self.shared.sent_bodies, &body);
        self.record_sent(batch);
        let shared = Arc::clone(&self.shared);
        let mut backoff = shared.options.min_backoff;
        let mut attempt = 0u32;
        loop {
            match self.attempt(body.clone(), attempt).await {
                Outcome::Acknowledged => {
                    note(&self.shared.acknowledged_bodies, &body);
                    return self.record_acknowledged(batch);
                }
                Outcome::Dropped => {
                    shared.stats.dropped_batches.fetch_add(1, Relaxed);
                    shared.stats.dropped_items.fetch_add(batch.len() as u64, Relaxed);
                    return;
                }
                Outcome::Again { retry_after } => {
                    shared.stats.retries.fetch_add(1, Relaxed);
                    let pause = retry_after.filter(|pause| !pause.is_zero()).unwrap_or(backoff);
                    tokio::time::sleep(pause).await;
                    backoff = (pause * 2).min(shared.options.max_backoff);
                    attempt = attempt.saturating_add(1);
                }
            }
        }
    }

    async fn attempt(&mut self, body: Bytes, attempt: u32) -> Outcome {
        if attempt == 0 {
            self.headers.remove("retry-attempt");
        } else {
            self.headers.insert("retry-attempt", attempt.into());
        }
        let shared = &self.shared;
        shared.stats.requests.fetch_add(1, Relaxed);
        shared.stats.body_bytes.fetch_add(body.len() as u64, Relaxed);
        let timeout = shared.options.remote_timeout;
        let reply = match tokio::time::timeout(timeout, self.connection.post(&self.headers, body)).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(_)) | Err(_) => {
                shared.stats.no_answers.fetch_add(1, Relaxed);
                return Outcome::Again { retry_after: None };
            }
        };
        match reply.status {
            200..300 => Outcome::Acknowledged,
            500..600 => Outcome::Again { retry_after: reply.retry_after_s().map(Duration::from_secs) },
            429 if shared.options.retry_on_http_429 => {
                Outcome::Again { retry_after: reply.retry_after_s().map(Duration::from_secs) }
            }
            status => {
                let said = format!("{status} in attempt {attempt}: {}", reply.text);
                *shared.last_refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(said);
                Outcome::Dropped
            }
        }
    }

    fn encode(&mut self, batch: &[Item]) -> Bytes {
        self.raw.clear();
        for item in batch {
            let block = self.shared.block(item.series);
            match item.what {
                What::Float(bits) => put_sample(&mut self.raw, block, item.at_ms, bits),
                What::Histogram(count) => put_histogram(&mut self.raw, block, &histogram(item.at_ms, count)),
                What::Exemplar(bits) => {
                    let trace = format!("{:016x}{:016x}", item.series, item.at_ms);
                    put_exemplar(&mut self.raw, block, &trace, item.at_ms, bits);
                }
            }
        }
        self.compressed.resize(snap::raw::max_compress_len(self.raw.len()), 0);
        // Fails only above 4 GiB; an empty body is then refused and the batch dropped and counted.
        let length = self.encoder.compress(&self.raw, &mut self.compressed).unwrap_or_default();
        Bytes::copy_from_slice(&self.compressed[..length])
    }

    fn record_sent(&self, batch: &[Item]) {
        let mut ledger = self.shared.ledger();
        for item in batch {
            if let Some(point) = item.point() {
                ledger.sent(item.series, point);
            }
        }
    }

    fn record_acknowledged(&self, batch: &[Item]) {
        let mut ledger = self.shared.ledger();
        let mut samples = 0;
        for item in batch {
            if let Some(point) = item.point() {
                samples += 1;
                ledger.acknowledged(item.series, point);
            }
        }
        drop(ledger);
        self.shared.stats.acknowledged_samples.fetch_add(samples, Relaxed);
    }
}

fn note(bodies: &Mutex<Bodies>, body: &[u8]) {
    bodies.lock().unwrap_or_else(PoisonError::into_inner).note(body);
}

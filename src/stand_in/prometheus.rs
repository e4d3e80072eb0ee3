//! Embedded replicas of a Prometheus HA pair: they scrape an invented fleet, and send it as Prometheus' queue manager does, over real
//! HTTP/1.1 with keep-alive, remote write 1.0.
//!
//! A replica can be killed (its queue is lost), restarted after a gap, and can lose sight of targets. It keeps a bounded record of
//! what it sent and of what was acknowledged.

mod fleet;
mod ledger;
mod queue;
mod scrape;

pub use fleet::{Fleet, FleetShape, SeriesShape, TargetShape};
pub use ledger::Sent;
pub use scrape::Reach;

use super::connection::{Connection, NoAnswer};
use super::request::label_block;
use super::{Bodies, Labels};
use http::HeaderMap;
use ledger::Ledger;
use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use xxhash_rust::xxh3::xxh3_64;

/// Most scrapes that wait in the log for a receiver that does not answer.
const LOG_EVENTS_MAX: usize = 100_000;
/// Items a shard queues (`capacity`).
const SHARD_ITEMS_MAX: usize = 10_000;

/// How one replica sends. The defaults are those of Prometheus 3, but for the interval and the deadline.
#[derive(Debug, Clone)]
pub struct Options {
    /// Value of its replica label.
    pub replica: String,
    /// Name of its replica label; empty: it has none.
    pub replica_label: String,
    /// Where it writes.
    pub url: String,
    /// Headers besides those of remote write, such as the tenant's.
    pub headers: HeaderMap,
    /// Scrape and evaluation interval, at least 10 ms.
    pub interval: Duration,
    /// Shards, each with one request in flight.
    pub shards: usize,
    /// Items of a full batch.
    pub max_samples_per_send: usize,
    /// An incomplete batch goes out after this time. Prometheus' 5 s suit intervals of 15 s and more.
    pub batch_send_deadline: Duration,
    /// First pause before a retry.
    pub min_backoff: Duration,
    /// Longest pause before a retry.
    pub max_backoff: Duration,
    /// A request without an answer is given up and retried after this time.
    pub remote_timeout: Duration,
    /// Whether 429 is retried instead of dropped.
    pub retry_on_http_429: bool,
    /// Most samples recorded (32 bytes each); beyond it they are only counted.
    pub recorded_max: usize,
    /// Most bodies that are remembered by their hash; 0: none.
    pub bodies_max: usize,
}

impl Options {
    /// A replica of this name that writes there.
    #[must_use]
    pub fn new(replica: &str, url: &str, interval: Duration) -> Self {
        Self {
            replica: replica.to_owned(),
            replica_label: "prometheus_replica".to_owned(),
            url: url.to_owned(),
            headers: HeaderMap::new(),
            interval,
            shards: 4,
            max_samples_per_send: 2_000,
            // Delivery must stay well within half an interval.
            batch_send_deadline: (interval / 10).clamp(Duration::from_millis(5), Duration::from_secs(5)),
            min_backoff: Duration::from_millis(30),
            max_backoff: Duration::from_secs(5),
            remote_timeout: Duration::from_secs(30),
            retry_on_http_429: false,
            recorded_max: 20_000_000,
            bodies_max: 0,
        }
    }
}

#[derive(Debug, Default)]
struct StatCells {
    requests: AtomicU64,
    retries: AtomicU64,
    no_answers: AtomicU64,
    dropped_batches: AtomicU64,
    dropped_items: AtomicU64,
    acknowledged_samples: AtomicU64,
    body_bytes: AtomicU64,
    log_overflows: AtomicU64,
}

/// Running totals of a replica, over its restarts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Attempts.
    pub requests: u64,
    /// Attempts that will be repeated.
    pub retries: u64,
    /// Attempts without an answer: refused, reset, timed out.
    pub no_answers: u64,
    /// Batches dropped because of a 4xx (or 3xx).
    pub dropped_batches: u64,
    /// Items in them.
    pub dropped_items: u64,
    /// Samples acknowledged by a 2xx.
    pub acknowledged_samples: u64,
    /// Compressed bytes of all attempts.
    pub body_bytes: u64,
    /// Scrapes that found the log full: never delivered, never acknowledged.
    pub log_overflows: u64,
    /// Samples sent but not recorded, because the record is full: a checker cannot judge them.
    pub unrecorded: u64,
}

#[derive(Debug)]
struct ReplicaShared {
    fleet: Arc<Fleet>,
    options: Options,
    seed: u64,
    /// The encoded labels of all series one after the other, and where each ends.
    blocks: Vec<u8>,
    ends: Vec<usize>,
    reach: Mutex<Vec<Reach>>,
    ledger: Mutex<Ledger>,
    sent_bodies: Mutex<Bodies>,
    acknowledged_bodies: Mutex<Bodies>,
    stats: StatCells,
    /// Why a batch was dropped, the last time.
    last_refusal: Mutex<Option<String>>,
}

impl ReplicaShared {
    fn block(&self, series: usize) -> &[u8] {
        let start = if series == 0 { 0 } else { self.ends[series - 1] };
        &self.blocks[start..self.ends[series]]
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reach(&self, target: usize) -> Reach {
        self.reach.lock().unwrap_or_else(PoisonError::into_inner)[target]
    }

    fn interval_ms(&self) -> i64 {
        i64::try_from(self.options.interval.as_millis()).unwrap_or(i64::MAX).max(10)
    }

    /// When in the interval this replica scrapes the target: constant per target and replica.
    fn phase_ms(&self, target: usize) -> i64 {
        (fleet::mix(self.seed, target as i64) % self.interval_ms().unsigned_abs()).cast_signed()
    }
}

/// One embedded Prometheus. Dropping it kills it.
#[derive(Debug)]
pub struct Replica {
    shared: Arc<ReplicaShared>,
    running: JoinSet<()>,
    scraper: Option<tokio::task::AbortHandle>,
    epoch: u64,
}

impl Replica {
    /// Starts to scrape and send.
    pub fn start(fleet: &Arc<Fleet>, options: Options) -> Result<Self, NoAnswer> {
        Connection::to(&options.url)?;
        let mut blocks = Vec::new();
        let mut ends = Vec::with_capacity(fleet.series.len());
        for series in &fleet.series {
            let labels = match options.replica_label.as_str() {
                "" => series.labels.clone(),
                name => series.labels.with(name, &options.replica),
            };
            blocks.extend(label_block(&labels));
            ends.push(blocks.len());
        }
        let shared = ReplicaShared {
            fleet: Arc::clone(fleet),
            seed: xxh3_64(options.replica.as_bytes()),
            blocks,
            ends,
            reach: Mutex::new(vec![Reach::Found; fleet.targets.len()]),
            ledger: Mutex::new(Ledger::new(fleet.series.len(), options.recorded_max)),
            sent_bodies: Mutex::new(Bodies::new(options.bodies_max)),
            acknowledged_bodies: Mutex::new(Bodies::new(options.bodies_max)),
            stats: StatCells::default(),
            last_refusal: Mutex::new(None),
            options,
        };
        let mut replica = Self { shared: Arc::new(shared), running: JoinSet::new(), scraper: None, epoch: 0 };
        replica.launch()?;
        Ok(replica)
    }

    /// Ends at once, as by SIGKILL: what is queued or unanswered is lost. Nothing is sent any more when this returns.
    pub async fn kill(&mut self) {
        self.running.shutdown().await;
        self.scraper = None;
    }

    /// Starts again after [`Replica::kill`], at the same phases, with an empty queue; stale markers for the series of its rules come
    /// first. Kills it before, if it runs.
    pub async fn restart(&mut self) -> Result<(), NoAnswer> {
        self.kill().await;
        self.epoch += 1;
        self.launch()
    }

    /// Scrapes no more; what is queued is still sent.
    pub fn stop_scraping(&mut self) {
        if let Some(scraper) = self.scraper.take() {
            scraper.abort();
        }
    }

    /// Stops scraping and waits until everything is settled, as an orderly shutdown does (without stale markers, as Prometheus).
    /// `false` when `patience` ran out; then the rest is lost.
    pub async fn finish(&mut self, patience: Duration) -> bool {
        self.stop_scraping();
        let all = async { while self.running.join_next().await.is_some() {} };
        let settled = tokio::time::timeout(patience, all).await.is_ok();
        self.kill().await;
        settled
    }

    /// Whether it scrapes and sends now.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.scraper.is_some()
    }

    /// From the next scrape on, this replica reaches the target so.
    pub fn set_reach(&self, target: usize, reach: Reach) {
        if let Some(have) = self.shared.reach.lock().unwrap_or_else(PoisonError::into_inner).get_mut(target) {
            *have = reach;
        }
    }

    /// Value of its replica label.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.options.replica
    }

    /// Running totals.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let stats = &self.shared.stats;
        Stats {
            requests: stats.requests.load(Relaxed),
            retries: stats.retries.load(Relaxed),
            no_answers: stats.no_answers.load(Relaxed),
            dropped_batches: stats.dropped_batches.load(Relaxed),
            dropped_items: stats.dropped_items.load(Relaxed),
            acknowledged_samples: stats.acknowledged_samples.load(Relaxed),
            body_bytes: stats.body_bytes.load(Relaxed),
            log_overflows: stats.log_overflows.load(Relaxed),
            unrecorded: self.shared.ledger().unrecorded,
        }
    }

    /// Status and text of the last answer because of which a batch was dropped.
    #[must_use]
    pub fn last_refusal(&self) -> Option<String> {
        self.shared.last_refusal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All that was sent, by the labels of the series without the replica label.
    #[must_use]
    pub fn sent(&self) -> HashMap<Labels, Vec<Sent>> {
        let ledger = self.shared.ledger();
        let named = self.shared.fleet.series.iter().zip(ledger.series());
        named
            .filter(|(_, sent)| !sent.is_empty())
            .map(|(series, sent)| (series.labels.clone(), sent.clone()))
            .collect()
    }

    /// The bodies that it sent, and those that were acknowledged, by their hash, as far as they were to be remembered.
    #[must_use]
    pub fn bodies(&self) -> [Bodies; 2] {
        [&self.shared.sent_bodies, &self.shared.acknowledged_bodies]
            .map(|bodies| bodies.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn launch(&mut self) -> Result<(), NoAnswer> {
        let shared = &self.shared;
        let mut shards = Vec::new();
        for _ in 0..shared.options.shards.max(1) {
            let (sender, queue) = mpsc::channel(SHARD_ITEMS_MAX);
            shards.push(sender);
            let shard = queue::Shard::new(Arc::clone(shared), queue)?;
            self.running.spawn(shard.run());
        }
        let (log, events) = mpsc::channel(LOG_EVENTS_MAX);
        self.running.spawn(scrape::watch(Arc::clone(shared), events, shards, self.epoch));
        let scraper = scrape::run(Arc::clone(shared), log, self.epoch > 0);
        self.scraper = Some(self.running.spawn(scraper));
        Ok(())
    }
}

//! An embedded Thanos Receive (router and ingestor in one, replication factor 1): what it answers over HTTP, what it stores, and what
//! of that a clean stream would not have contained.
//!
//! Facts are of Thanos 0.43 `pkg/receive/handler.go`: the path, 200 with an empty body, headers of type and encoding not checked, 400
//! for what cannot be decoded, 409 with each cause and its count after the valid rest was stored, 413 and 429 for limits. The record
//! is bounded by [`Options`].

mod fault;
mod serve;
mod tsdb;

pub use fault::{Fault, Limits};
pub use tsdb::{BOUND_MS, Conflicts, Record, Rules, TooManySeries, Tsdb, Violations};

use super::{Bodies, Labels, Point};
use fault::Faults;
use http::HeaderMap;
use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The tenant of requests without a tenant header.
pub const DEFAULT_TENANT: &str = "default-tenant";
/// The header that names the tenant.
pub const TENANT_HEADER: &str = "THANOS-TENANT";

/// How the stand-in is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Labels that must not arrive here.
    pub replica_labels: Vec<String>,
    /// `--tsdb.out-of-order.time-window` in milliseconds; 0 is off.
    pub out_of_order_window_ms: i64,
    /// Whether exemplars are stored (`--tsdb.max-exemplars` above 0), and so can conflict.
    pub exemplars: bool,
    /// Most series of all tenants; beyond it 429, as Thanos' head series limit.
    pub series_max: usize,
    /// Most samples recorded; beyond it they are stored by the rules but only counted (24 bytes each).
    pub points_max: usize,
    /// Most requests whose headers are remembered.
    pub recent_max: usize,
    /// Most bodies that are remembered by their hash; 0: none.
    pub bodies_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            replica_labels: vec!["prometheus_replica".to_owned(), "__replica__".to_owned()],
            out_of_order_window_ms: 0,
            exemplars: true,
            series_max: 2_000_000,
            points_max: 20_000_000,
            recent_max: 256,
            bodies_max: 0,
        }
    }
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct SeenRequest {
    /// All its headers.
    pub headers: HeaderMap,
    /// Bytes of the compressed body.
    pub body_bytes: usize,
    /// TimeSeries in it; 0 if it could not be decoded.
    pub series: usize,
    /// Float samples and histograms in it.
    pub samples: usize,
    /// What was answered; `None`: nothing (yet).
    pub status: Option<u16>,
}

/// Running totals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests read to their end.
    pub requests: u64,
    /// Requests answered with 409 by the rules.
    pub conflicts: u64,
    /// Compressed bytes of all bodies.
    pub body_bytes: u64,
    /// Samples (floats and histograms) stored.
    pub samples: u64,
    /// Exemplars stored.
    pub exemplars: u64,
    /// Series known.
    pub series: u64,
    /// Samples stored but not recorded, because the record is full: a checker cannot judge them.
    pub unrecorded: u64,
}

/// The stand-in. Dropping it closes its port and all connections.
#[derive(Debug)]
pub struct Thanos {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    tsdb: Mutex<Tsdb>,
    faults: watch::Sender<Faults>,
    totals: watch::Sender<Totals>,
    recent: Mutex<VecDeque<(u64, SeenRequest)>>,
    recent_max: usize,
    bodies: Mutex<Bodies>,
}

impl Thanos {
    /// Binds and serves, with the default options.
    pub async fn start() -> std::io::Result<Self> {
        Self::start_with(Options::default()).await
    }

    /// Binds and serves.
    pub async fn start_with(options: Options) -> std::io::Result<Self> {
        let listener = TcpListener::bind(options.listen).await?;
        let address = listener.local_addr()?;
        let rules = Rules {
            replica_labels: options.replica_labels,
            out_of_order_window_ms: options.out_of_order_window_ms,
            exemplars: options.exemplars,
            series_max: options.series_max,
            points_max: options.points_max,
        };
        let shared = Arc::new(Shared {
            tsdb: Mutex::new(Tsdb::new(rules)),
            faults: watch::Sender::new(Faults::default()),
            totals: watch::Sender::new(Totals::default()),
            recent: Mutex::new(VecDeque::new()),
            recent_max: options.recent_max,
            bodies: Mutex::new(Bodies::new(options.bodies_max)),
        });
        let server = tokio::spawn(serve::accept(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, server: Mutex::new(Some(server)) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What a sender is configured with.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/api/v1/receive", self.address)
    }

    /// Every request from now on meets this fault, until [`Thanos::heal`].
    pub fn inject(&self, fault: Fault) {
        self.shared.faults.send_modify(|faults| {
            faults.fault = Some(fault);
            faults.remaining = None;
        });
    }

    /// The next `count` requests meet this fault.
    pub fn inject_next(&self, count: u32, fault: Fault) {
        self.shared.faults.send_modify(|faults| {
            faults.fault = (count > 0).then_some(fault);
            faults.remaining = Some(count);
        });
    }

    /// No fault any more; what hangs goes on. Delay and limits stay.
    pub fn heal(&self) {
        self.shared.faults.send_modify(|faults| {
            faults.fault = None;
            faults.remaining = None;
        });
    }

    /// Every request is stored and answered so much later.
    pub fn delay(&self, delay: Duration) {
        self.shared.faults.send_modify(|faults| faults.delay = delay);
    }

    /// Request limits, answered 413.
    pub fn limit(&self, limits: Limits) {
        self.shared.faults.send_modify(|faults| faults.limits = limits);
    }

    /// The out-of-order window from now on, in milliseconds; 0 is off.
    pub fn set_out_of_order_window(&self, window_ms: i64) {
        self.tsdb().rules.out_of_order_window_ms = window_ms;
    }

    /// Closes the port and every connection, as a process that died; what is stored stays.
    pub async fn go_down(&self) {
        let server = lock(&self.server).take();
        if let Some(server) = server {
            server.abort();
            // Cancelled, as was just asked for.
            drop(server.await);
        }
    }

    /// Listens again on the same port.
    pub async fn come_back(&self) -> std::io::Result<()> {
        self.go_down().await;
        let listener = TcpListener::bind(self.address).await?;
        let server = tokio::spawn(serve::accept(listener, Arc::clone(&self.shared)));
        *lock(&self.server) = Some(server);
        Ok(())
    }

    /// Running totals.
    #[must_use]
    pub fn totals(&self) -> Totals {
        *self.shared.totals.borrow()
    }

    /// Waits until the totals are as wanted; `false` when `patience` ran out before.
    pub async fn wait_until(&self, patience: Duration, wanted: impl FnMut(&Totals) -> bool) -> bool {
        let mut totals = self.shared.totals.subscribe();
        tokio::time::timeout(patience, totals.wait_for(wanted)).await.is_ok_and(|seen| seen.is_ok())
    }

    /// What a clean stream would not have contained.
    #[must_use]
    pub fn violations(&self) -> Violations {
        self.tsdb().violations
    }

    /// The tenants that sent something, sorted.
    #[must_use]
    pub fn tenants(&self) -> Vec<String> {
        let mut names: Vec<String> = self.tsdb().tenants.keys().cloned().collect();
        names.sort();
        names
    }

    /// All series of a tenant and what was stored of each, in the order of arrival.
    #[must_use]
    pub fn stored(&self, tenant: &str) -> BTreeMap<Labels, Vec<Point>> {
        let tsdb = self.tsdb();
        let series = tsdb.tenants.get(tenant).into_iter().flat_map(|head| &head.series);
        series.map(|record| (record.labels.clone(), record.points.clone())).collect()
    }

    /// What was stored of one series of the default tenant, in the order of arrival; empty if it is unknown.
    #[must_use]
    pub fn samples_of(&self, labels: &[(&str, &str)]) -> Vec<Point> {
        self.samples_of_tenant(DEFAULT_TENANT, labels)
    }

    /// What was stored of one series of a tenant.
    #[must_use]
    pub fn samples_of_tenant(&self, tenant: &str, labels: &[(&str, &str)]) -> Vec<Point> {
        let labels = Labels::new(labels.iter().copied());
        let tsdb = self.tsdb();
        let mut series = tsdb.tenants.get(tenant).into_iter().flat_map(|head| &head.series);
        series.find(|record| record.labels == labels).map(|record| record.points.clone()).unwrap_or_default()
    }

    /// How many exemplars were stored of one series of the default tenant.
    #[must_use]
    pub fn exemplars_of(&self, labels: &[(&str, &str)]) -> u64 {
        let labels = Labels::new(labels.iter().copied());
        let tsdb = self.tsdb();
        let mut series = tsdb.tenants.get(DEFAULT_TENANT).into_iter().flat_map(|head| &head.series);
        series.find(|record| record.labels == labels).map_or(0, |record| record.exemplars)
    }

    /// The widest distance between neighbouring samples of one series, in milliseconds, over all tenants: without the first
    /// distance of each series, and without those that follow a stale marker.
    #[must_use]
    pub fn widest_hole_ms(&self) -> i64 {
        let tsdb = self.tsdb();
        let series = tsdb.tenants.values().flat_map(|head| &head.series);
        series.map(|record| super::checker::widest_distance_ms(&record.points)).max().unwrap_or(0)
    }

    /// The most recent requests, oldest first.
    #[must_use]
    pub fn recent(&self) -> Vec<SeenRequest> {
        lock(&self.shared.recent).iter().map(|(_, seen)| seen.clone()).collect()
    }

    /// The bodies that arrived, by their hash, as far as they were to be remembered.
    #[must_use]
    pub fn bodies(&self) -> Bodies {
        lock(&self.shared.bodies).clone()
    }

    fn tsdb(&self) -> MutexGuard<'_, Tsdb> {
        lock(&self.shared.tsdb)
    }
}

impl Drop for Thanos {
    fn drop(&mut self) {
        if let Some(server) = lock(&self.server).take() {
            server.abort();
        }
    }
}

/// A panic elsewhere leaves a record that is still worth reading.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

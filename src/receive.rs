//! RECEIVE: the listener of the senders: routes, headers, admission, reply codes.
//!
//! ```text
//!  accept ─> least loaded data-plane thread ─> TLS ─> who is it? ─> route ─> admission ─> body ─> task of its own ─> reply
//! ```
//!
//! Owns everything that can be said of a request without decompressing it. Refuses strangers, what is not remote write,
//! and whatever the bounds on memory and time do not allow. Decides nothing about samples.

mod admission;
mod auth;
mod connection;
mod headers;
mod metrics;
mod phase;
mod places;
mod refused;
mod routes;
mod threads;
mod tls;

pub(crate) use auth::Gate;
pub use phase::{Phase, PhaseControl};

use crate::config::{OidcConfig, ReceiveConfig};
use crate::forward::Upstream;
use crate::overhead::CpuTime;
use crate::peers::Secret;
use crate::pipeline::{Incoming, Pipeline, Reply};
use crate::reload::{Look, keep_looking};
use crate::socket::NetworkBytes;
use crate::telemetry::LimitHits;
use admission::Admission;
use auth::{Auth, Failures, PeerDoor};
use axum::Router;
use metrics::Metrics;
use prometheus::Registry;
use routes::Room;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use threads::DataPlane;
use tls::Tls;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

/// What serves a request once it is here as a whole.
pub trait Serve: Send + Sync + 'static {
    /// Serves one request to its end. Runs as a task of its own: a sender that hangs up does not cancel it.
    fn serve(self: Arc<Self>, incoming: Incoming) -> impl Future<Output = Reply> + Send;

    /// What requests of other instances have to bring; `None`: there are none.
    fn secret_of_peers(&self) -> Option<Secret> {
        None
    }
}

impl<U: Upstream> Serve for Pipeline<U> {
    #[expect(clippy::disallowed_methods, reason = "a request arrives now: the pipeline is told the time")]
    async fn serve(self: Arc<Self>, incoming: Incoming) -> Reply {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now_ms = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
        Self::serve(&self, incoming, now_ms).await
    }

    fn secret_of_peers(&self) -> Option<Secret> {
        Self::secret_of_peers(self)
    }
}

/// Why receiving cannot begin or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {error}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// A data-plane thread could not be started.
    #[error("cannot start data-plane thread {number}: {error}")]
    Thread {
        /// Which one.
        number: usize,
        /// Why.
        error: io::Error,
    },
    /// Metrics clash.
    #[error("cannot register metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The handler of SIGHUP could not be installed.
    #[error("cannot listen to SIGHUP: {0}")]
    Signal(io::Error),
    /// A file for TLS or authentication has become unusable since the configuration was read.
    #[error("{what}: {problem}")]
    Security {
        /// What it is for.
        what: &'static str,
        /// Why.
        problem: String,
    },
    /// Requests were still in flight when the time to drain was over.
    #[error("{left} request(s) still in flight after {after:?} of draining")]
    DrainTimeout {
        /// How many.
        left: u64,
        /// The bound.
        after: Duration,
    },
}

/// Asks an OpenID provider for its keys, and says how many there are.
///
/// # Errors
/// When they cannot be had.
pub async fn ask_issuer(config: &OidcConfig) -> Result<usize, String> {
    auth::ask_issuer(config).await
}

/// The routes alone, for whoever brings requests by another way than a listener.
///
/// # Errors
/// When metrics clash.
pub fn routes<S: Serve>(
    config: &ReceiveConfig,
    service: Arc<S>,
    registry: &Registry,
    limits: &LimitHits,
    phase: watch::Receiver<Phase>,
) -> Result<Router, ReceiveError> {
    Ok(routes::router(room(config, service, &Failures::new(registry)?, registry, limits)?, phase))
}

fn room<S: Serve>(
    config: &ReceiveConfig,
    service: Arc<S>,
    failures: &Failures,
    registry: &Registry,
    limits: &LimitHits,
) -> Result<Arc<Room<S>>, ReceiveError> {
    let metrics = Metrics::new(registry)?;
    let admission = Admission::new(config.in_flight_max_bytes, &metrics, limits);
    let security = |problem| ReceiveError::Security { what: "authentication", problem };
    let auth = Auth::new(config, failures, registry, limits).map_err(security)?;
    let peers =
        service.secret_of_peers().map(|secret| PeerDoor::new(secret, failures, registry)).transpose()?;
    Ok(Arc::new(Room::new(config, service, metrics, admission, (auth, peers), limits)))
}

/// The data plane: bound, not yet accepting.
#[derive(Debug)]
pub struct Receiver<S> {
    config: ReceiveConfig,
    listener: TcpListener,
    address: SocketAddr,
    room: Arc<Room<S>>,
    tls: Option<Arc<Tls>>,
    network: NetworkBytes,
    cpu: CpuTime,
    limits: LimitHits,
}

impl<S: Serve> Receiver<S> {
    /// Binds the listener. Nothing is accepted before [`Receiver::run`].
    ///
    /// # Errors
    /// When the address is taken or metrics clash.
    pub fn bind(
        config: ReceiveConfig,
        service: Arc<S>,
        registry: &Registry,
        network: &NetworkBytes,
        cpu: &CpuTime,
        limits: &LimitHits,
    ) -> Result<Self, ReceiveError> {
        let failed = |error| ReceiveError::Bind { address: config.listen, error };
        let listener = listen(config.listen).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let failures = Failures::new(registry)?;
        let room = room(&config, service, &failures, registry, limits)?;
        let tls =
            |files| Tls::new(files, config.request_timeout, failures, &network.sender, limits).map(Arc::new);
        let security = |problem| ReceiveError::Security { what: "TLS", problem };
        let tls = config.tls.as_ref().map(tls).transpose().map_err(security)?;
        let (network, cpu, limits) = (network.clone(), cpu.clone(), limits.clone());
        Ok(Self { config, listener, address, room, tls, network, cpu, limits })
    }

    /// Where it listens; the port is known even if the configuration left it open.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts until `shutdown` ends, and for the lead after it, in which whoever asks whether this process is ready
    /// finds out that it is not. Then it drains: nothing new is accepted, requests on open connections are told to come
    /// back, those in flight are finished within the time to drain.
    ///
    /// # Errors
    /// When threads cannot be started, or draining took too long.
    pub async fn run(
        self,
        phase: &PhaseControl,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), ReceiveError> {
        let auth_files = self.room.auth().into_iter().flat_map(Auth::files);
        let files: Vec<Arc<dyn Look>> = self.tls.iter().map(|tls| tls.files()).chain(auth_files).collect();
        let looking = keep_looking(files).map_err(ReceiveError::Signal)?;
        let mut data_plane = DataPlane::start(
            &self.config,
            &self.room,
            self.tls.as_ref(),
            &self.network.sender,
            &self.cpu,
            &self.limits,
            phase.subscribe(),
        )?;
        phase.set(Phase::Serving);
        let leave = async {
            shutdown.await;
            phase.set(Phase::Leaving);
            sleep(self.config.drain_lead).await;
        };
        tokio::select! {
            () = leave => {}
            () = looking => {}
            () = data_plane.accept(&self.listener) => {}
        }
        drop(self.listener);
        phase.set(Phase::Draining);
        let deadline = Instant::now() + self.config.drain_timeout;
        let drained = timeout_at(deadline, self.room.idle()).await;
        let left = self.room.in_flight();
        phase.set(Phase::Closing);
        data_plane.close(deadline).await;
        phase.set(Phase::Ended);
        drained.map_err(|_| ReceiveError::DrainTimeout { left, after: self.config.drain_timeout })
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

//! ADMIN: metrics, status and probes, on a thread and runtime of their own, so that they answer while the data plane is busy.
//!
//! Reads what other rooms show. Changes nothing, except that it tries the upstream while that counts as gone. Refuses to show
//! anything but the probes to those without credentials, if it was told to ask for some.

mod openmetrics;
mod page;
mod process;
mod readiness;
mod routes;
mod status;

pub use readiness::Readiness;

use crate::config::AdminConfig;
use crate::overdue::{Patience, Watch, Watched};
use crate::placement::Keeper;
use crate::receive::Gate;
use crate::reload::{Look, keep_looking};
use crate::telemetry::{LimitHits, Refusals};
use axum::Router;
use axum::body::Body;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use process::Process;
use prometheus::{IntCounter, IntGaugeVec, Opts, Registry};
use status::{Source, Status};
use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, yield_now};
use tokio::time::sleep;
use tower_service::Service;

/// Connections at one time. A new one takes the place of the oldest that is idle, or else of the oldest that has not asked for anything
/// yet, or else of the oldest: whoever opens many must not keep a probe from its answer.
const CONNECTIONS_MAX: usize = 64;
const PATIENCE: Patience = Patience { head: Duration::from_secs(10), idle: Duration::from_secs(120) };
const HEAD_MAX_BYTES: usize = 16 << 10;
/// After an `accept` that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why there is no admin listener.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {error}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// The thread or its runtime cannot be started.
    #[error("cannot start the admin thread: {0}")]
    Thread(#[from] io::Error),
    /// Metrics clash.
    #[error("cannot register metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The file of passwords has become unusable since the configuration was read.
    #[error("passwords of the admin address: {0}")]
    Passwords(String),
}

/// The listener: bound, not yet serving.
#[derive(Debug)]
pub struct Admin {
    listener: StdTcpListener,
    address: SocketAddr,
    registry: Registry,
    readiness: Arc<Readiness>,
    status: Arc<Status>,
    gate: Option<Arc<Gate>>,
    connections_hit: IntCounter,
}

/// The running thread. Ends when dropped.
#[derive(Debug)]
pub struct AdminThread {
    _stop: oneshot::Sender<()>,
}

impl Admin {
    /// Binds the listener, and registers what describes the process.
    ///
    /// # Errors
    /// When the address is taken or metrics clash.
    pub fn bind(
        config: &AdminConfig,
        registry: &Registry,
        limits: &LimitHits,
        readiness: Readiness,
        refusals: Arc<Refusals>,
    ) -> Result<Self, AdminError> {
        let failed = |error| AdminError::Bind { address: config.listen, error };
        let listener = StdTcpListener::bind(config.listen).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let options = Opts::new("promdedup_build_info", "1, labelled with the version.");
        let build_info = IntGaugeVec::new(options, &["version"])?;
        build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        registry.register(Box::new(build_info))?;
        registry.register(Box::new(Process::of_self()))?;
        let status = Arc::new(Status::new(config.mode, registry.clone(), refusals));
        let gate = |path: &std::path::PathBuf| Gate::new(path, registry, limits).map(Arc::new);
        let gate = config.passwords.as_ref().map(gate).transpose().map_err(AdminError::Passwords)?;
        let (registry, readiness) = (registry.clone(), Arc::new(readiness));
        let connections_hit = limits.of("admin_connections");
        Ok(Self { listener, address, registry, readiness, status, gate, connections_hit })
    }

    /// Where it listens; the port is known even if the configuration left it open.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Has the status tell who has which group. `database`: how it is called, without credentials.
    pub fn tell_of_placement(&self, keeper: Arc<Keeper>, database: String) {
        self.status.tell_of(Source { keeper, database });
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(self) -> Result<AdminThread, AdminError> {
        let (stop, stopped) = oneshot::channel();
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name("promdedup-admin".to_owned()).spawn(move || {
            runtime.block_on(async {
                let (readiness, status) = (Arc::clone(&self.readiness), Arc::clone(&self.status));
                let files: Vec<Arc<dyn Look>> = self.gate.iter().map(|gate| gate.file()).collect();
                let looking = async {
                    match keep_looking(files) {
                        Ok(looking) => looking.await,
                        Err(error) => tracing::error!(%error, "cannot listen to SIGHUP"),
                    }
                };
                tokio::select! {
                    _ = stopped => {}
                    () = readiness.probe_while_unready() => {}
                    () = status.remember() => {}
                    () = looking => {}
                    error = self.serve() => tracing::error!(?error, "the admin listener ended"),
                }
            });
            runtime.shutdown_background();
        })?;
        Ok(AdminThread { _stop: stop })
    }

    async fn serve(self) -> io::Result<()> {
        let listener = TcpListener::from_std(self.listener)?;
        let router = routes::router(self.registry, self.readiness, self.status, self.gate);
        let mut guests = Guests { open: VecDeque::new(), hit: self.connections_hit };
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    guests.welcome(stream, router.clone());
                    // Of many that come at once each is heard before the next ones take its place.
                    yield_now().await;
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// The open connections, the oldest first.
struct Guests {
    open: VecDeque<(AbortHandle, Watch)>,
    hit: IntCounter,
}

impl Guests {
    fn welcome(&mut self, stream: TcpStream, router: Router) {
        self.open.retain(|(task, _)| !task.is_finished());
        if self.open.len() >= CONNECTIONS_MAX {
            self.hit.inc();
            let first = |leaves: fn(&Watch) -> bool| self.open.iter().position(|(_, watch)| leaves(watch));
            let leaves = first(Watch::is_idle).or_else(|| first(|watch| !watch.serves())).unwrap_or(0);
            if let Some((task, _)) = self.open.remove(leaves) {
                task.abort();
            }
        }
        let watch = Watch::new();
        let task = tokio::spawn(converse(stream, router, watch.clone()));
        self.open.push_back((task.abort_handle(), watch));
    }
}

/// Serves one connection until it ends or does nothing for too long.
async fn converse(stream: TcpStream, router: Router, watch: Watch) {
    let watching = watch.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (serving, _) = watching.begin();
        let answer = router.clone().call(request.map(Body::new));
        async move {
            let answer = answer.await;
            drop(serving);
            answer
        }
    });
    let mut server = http1::Builder::new();
    // Its own clock of heads runs while a connection is idle, too.
    server.timer(TokioTimer::new()).header_read_timeout(None::<Duration>).max_header_size(HEAD_MAX_BYTES);
    let connection = server.serve_connection(TokioIo::new(Watched::new(stream, watch.clone())), service);
    tokio::select! {
        ended = connection => if let Err(error) = ended {
            tracing::debug!(%error, "an admin connection ended");
        },
        overdue = watch.overdue(PATIENCE) => tracing::debug!(?overdue, "an admin connection was cut"),
    }
}

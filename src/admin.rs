//! ADMIN: metrics, status and probes, on a thread and runtime of their own, so that they answer while the data plane is busy.
//!
//! Reads what other rooms show. Changes nothing, except that it tries the upstream while that counts as gone.

mod openmetrics;
mod page;
mod readiness;
mod routes;
mod status;

pub use readiness::Readiness;

use crate::config::AdminConfig;
use crate::telemetry::Refusals;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus::process_collector::ProcessCollector;
use prometheus::{IntGaugeVec, Opts, Registry};
use status::Status;
use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::sleep;

/// Connections at one time. Those above wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 64;
/// The head of a request must be in by then, idle time included.
const HEAD_TIMEOUT: Duration = Duration::from_secs(120);
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
}

/// The listener: bound, not yet serving.
#[derive(Debug)]
pub struct Admin {
    listener: StdTcpListener,
    address: SocketAddr,
    registry: Registry,
    readiness: Arc<Readiness>,
    status: Arc<Status>,
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
        registry.register(Box::new(ProcessCollector::for_self()))?;
        let status = Arc::new(Status::new(config.mode, registry.clone(), refusals));
        Ok(Self { listener, address, registry: registry.clone(), readiness: Arc::new(readiness), status })
    }

    /// Where it listens; the port is known even if the configuration left it open.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
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
                tokio::select! {
                    _ = stopped => {}
                    () = readiness.probe_while_unready() => {}
                    () = status.remember() => {}
                    error = self.serve() => tracing::error!(?error, "the admin listener ended"),
                }
            });
            runtime.shutdown_background();
        })?;
        Ok(AdminThread { _stop: stop })
    }

    async fn serve(self) -> io::Result<()> {
        let listener = TcpListener::from_std(self.listener)?;
        let router = routes::router(self.registry, self.readiness, self.status);
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return Ok(()) };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let router = TowerToHyperService::new(router.clone());
            tokio::spawn(async move {
                let mut server = http1::Builder::new();
                server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
                if let Err(error) = server.serve_connection(TokioIo::new(stream), router).await {
                    tracing::debug!(%error, "an admin connection ended");
                }
                drop(place);
            });
        }
    }
}

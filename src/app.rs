//! APP: wiring only. Builds the rooms, binds, runs, drains in order.

use crate::admin::{Admin, Readiness};
use crate::config::{Config, SeriesConfig, WindowConfig};
use crate::forward::{Answer, HttpUpstream, Outgoing, Upstream};
use crate::pipeline::{Incoming, Reply};
use crate::receive::{PhaseControl, Receiver, Serve};
use crate::socket::NetworkBytes;
use crate::telemetry::LimitHits;
use anyhow::Context;
use prometheus::Registry;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

/// The proxy: bound to its addresses, not yet serving.
#[derive(Debug)]
pub struct App<S> {
    receiver: Receiver<S>,
    admin: Admin,
    phase: PhaseControl,
    registry: Registry,
}

/// Where the proxy listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// Remote write.
    pub data: SocketAddr,
    /// Metrics and probes.
    pub admin: SocketAddr,
}

/// What the service between receiving and forwarding is made of.
#[derive(Debug)]
pub struct Parts<'a> {
    /// Which labels name what.
    pub series: SeriesConfig,
    /// Bounds and times.
    pub window: WindowConfig,
    /// Where the single stream goes.
    pub upstream: HttpUpstream,
    /// For metrics.
    pub registry: &'a Registry,
    /// For bounds that are hit.
    pub limits: &'a LimitHits,
}

impl App<Relay> {
    /// Builds everything and binds both listeners. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When an address is taken (it is named).
    pub fn build(config: Config) -> anyhow::Result<Self> {
        Self::assemble(config, |parts| Ok(Relay { upstream: parts.upstream }))
    }
}

impl<S: Serve> App<S> {
    /// As `build`, with a service of the caller's making.
    ///
    /// # Errors
    /// When an address is taken (it is named), or the service cannot be made.
    pub fn assemble(
        config: Config,
        service: impl FnOnce(Parts<'_>) -> anyhow::Result<S>,
    ) -> anyhow::Result<Self> {
        let registry = Registry::new();
        let network = NetworkBytes::new(&registry)?;
        let limits = LimitHits::new(&registry)?;
        let upstream = HttpUpstream::new(config.forward, &registry, &network, &limits)?;
        let service = service(Parts {
            series: config.series,
            window: config.window,
            upstream: upstream.clone(),
            registry: &registry,
            limits: &limits,
        })?;
        let phase = PhaseControl::default();
        let readiness = Readiness::new(&config.admin, phase.clone(), upstream);
        let admin = Admin::bind(&config.admin, &registry, readiness).context("admin")?;
        let receiver = Receiver::bind(config.receive, Arc::new(service), &registry, &network, &limits)
            .context("remote write")?;
        Ok(Self { receiver, admin, phase, registry })
    }

    /// Where it listens, ports that the configuration left open included.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        Addresses { data: self.receiver.address(), admin: self.admin.address() }
    }

    /// The metrics of all rooms.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Serves until `shutdown` ends, then drains. Metrics and probes answer to the end.
    ///
    /// # Errors
    /// When a thread cannot be started, or draining took longer than allowed.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        let addresses = self.addresses();
        let admin = self.admin.start()?;
        tracing::info!(data = %addresses.data, admin = %addresses.admin, "listening");
        let ended = self.receiver.run(&self.phase, shutdown).await;
        drop(admin);
        ended?;
        tracing::info!("drained");
        Ok(())
    }
}

/// Sends every body on as it came.
#[derive(Debug)]
pub struct Relay {
    upstream: HttpUpstream,
}

impl Serve for Relay {
    async fn serve(self: Arc<Self>, incoming: Incoming) -> Reply {
        let Incoming { body, tenant, request_id, traceparent, .. } = incoming;
        let answer = self.upstream.send(Outgoing { body, samples: 0, tenant, request_id, traceparent }).await;
        let (status, text) = match answer {
            Answer::Taken => (204, String::new()),
            Answer::Conflict { text } | Answer::Refused { text, .. } => (400, text),
            Answer::TooBig { text } => (413, text),
            Answer::Unavailable { status, text } => (503, format!("upstream answered {status}: {text}")),
            Answer::NoAnswer { error } => (503, format!("upstream: {error}")),
        };
        Reply { status, text, retry_after_s: (status == 503).then_some(1) }
    }
}

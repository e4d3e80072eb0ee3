//! APP: wiring only. Builds the rooms, binds, runs, drains in order.

mod coordination;

use crate::admin::{Admin, Readiness};
use crate::config::{Config, Mode, SeriesConfig, WindowConfig};
use crate::forward::HttpUpstream;
use crate::health::{self, Health};
use crate::overhead::{self, CpuTime};
use crate::peers::HttpPeers;
use crate::pipeline::{Metrics, Pipeline, Protocol, Settings};
use crate::placement::{Keeper, Placement};
use crate::receive::{Phase, PhaseControl, Receiver, Serve};
use crate::reload;
use crate::series::{PlaceLabels, ReplicaNames};
use crate::socket::NetworkBytes;
use crate::telemetry::{LimitHits, Refusals};
use crate::window::{IDLE_TICKS, Window};
use crate::wire::labels::LabelBounds;
use anyhow::Context;
use prometheus::Registry;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::MissedTickBehavior;

/// The proxy: bound to its addresses, not yet serving.
#[derive(Debug)]
pub struct App<S> {
    receiver: Receiver<S>,
    admin: Admin,
    phase: PhaseControl,
    registry: Registry,
    mode: Mode,
    placement: Option<Arc<Keeper>>,
    drain_timeout: Duration,
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
    /// For the CPU time of stages.
    pub cpu: &'a CpuTime,
    /// Is told of what is refused.
    pub refusals: &'a Arc<Refusals>,
    /// For bytes on the wire.
    pub network: &'a NetworkBytes,
}

impl App<Pipeline<HttpUpstream>> {
    /// Builds everything and binds both listeners. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When an address is taken (it is named).
    pub fn build(mut config: Config) -> anyhow::Result<Self> {
        let Some(coordination) = config.coordination.take() else {
            return Self::build_with(config, |pipeline, _, _| Ok(pipeline));
        };
        let peers = coordination::peers(&coordination, &config);
        let mut placement = None;
        let mut app = Self::build_with(config, |pipeline, registry, network| {
            let keeper = coordination::start(&coordination, registry, Arc::clone(pipeline.window()))?;
            let peers = HttpPeers::new(peers, coordination::secret(&coordination), registry, network)?;
            placement = Some(Arc::clone(&keeper));
            Ok(pipeline.with_placement(keeper, Arc::new(peers)))
        })?;
        if let Some(keeper) = &placement {
            app.admin.tell_of_placement(Arc::clone(keeper), coordination.database.to_string());
        }
        app.placement = placement;
        Ok(app)
    }

    /// As `build` of one instance, with a pipeline that `join` has told of others.
    ///
    /// # Errors
    /// When an address is taken (it is named), or `join` fails.
    pub fn build_with(
        config: Config,
        join: impl FnOnce(
            Pipeline<HttpUpstream>,
            &Registry,
            &NetworkBytes,
        ) -> anyhow::Result<Pipeline<HttpUpstream>>,
    ) -> anyhow::Result<Self> {
        let window = Arc::new(Window::new(config.window.series_max));
        tokio::spawn(forget_the_idle(Arc::clone(&window), config.window.idle));
        // Whoever waits for another request's flight waits for one upstream attempt at most.
        let (busy_wait_max, upstream_protocol) = (config.forward.timeout, config.forward.protocol);
        let memory_max = config.receive.in_flight_max_bytes;
        if let Some(alone) = config.receive.alone_above() {
            tracing::warn!(
                "the largest request that PROMDEDUP_BODY_MAX allows takes {alone} bytes, more than PROMDEDUP_IN_FLIGHT_MAX: one like it is served when it is alone, and told to come back otherwise"
            );
        }
        Self::assemble(config, |parts| {
            overhead::register(parts.registry, Arc::clone(&window))?;
            tokio::spawn(Health::register(parts.registry, Arc::clone(&window))?.watch());
            let metrics = Metrics::register(parts.registry, parts.cpu, parts.limits)?
                .telling(Arc::clone(parts.refusals));
            let settings = settings(parts.series, &parts.window, upstream_protocol, busy_wait_max)?;
            let pipeline = Pipeline::new(settings, window, parts.upstream, metrics);
            join(pipeline.with_memory_max(memory_max), parts.registry, parts.network)
        })
    }
}

fn settings(
    series: SeriesConfig,
    window: &WindowConfig,
    upstream_protocol: Protocol,
    busy_wait_max: Duration,
) -> anyhow::Result<Settings> {
    let ms = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    Ok(Settings {
        replica_names: ReplicaNames::new(series.replica_labels)?,
        place_labels: PlaceLabels { group: series.group_labels, target: series.target_labels },
        upstream_protocol,
        label_bounds: LabelBounds {
            labels_max: series.labels_max,
            name_bytes_max: series.label_name_max_bytes,
            value_bytes_max: series.label_value_max_bytes,
        },
        body_bytes_max: window.body_max_bytes,
        future_max_ms: ms(window.future_max),
        out_of_order_window_ms: ms(window.out_of_order_window),
        first_contact_hold_ms: ms(window.first_contact_hold),
        busy_wait_max,
    })
}

/// Walks the window and its groups once a tick, in steps short enough to be noticed by nobody.
async fn forget_the_idle(window: Arc<Window>, idle: Duration) {
    const STEP: u32 = 4096;
    const GROUPS_STEP: u32 = 1024;
    let mut ticks = tokio::time::interval(idle / u32::from(IDLE_TICKS));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        window.advance_tick_if_landed();
        let mut from = window.sweep(0, STEP);
        while from != 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
            from = window.sweep(from, STEP);
        }
        let mut from = window.give_groups_back(0, GROUPS_STEP, health::now_ms());
        while from != 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
            from = window.give_groups_back(from, GROUPS_STEP, health::now_ms());
        }
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
        reload::register(&registry)?;
        let cpu = CpuTime::register(&registry)?;
        let (mode, drain_timeout) = (config.receive.mode, config.receive.drain_timeout);
        let refusals = Arc::default();
        let upstream = HttpUpstream::new(config.forward, &registry, &network, &limits)?;
        let service = service(Parts {
            series: config.series,
            window: config.window,
            upstream: upstream.clone(),
            registry: &registry,
            limits: &limits,
            cpu: &cpu,
            refusals: &refusals,
            network: &network,
        })?;
        let phase = PhaseControl::default();
        let readiness = Readiness::new(&config.admin, phase.clone(), upstream);
        let admin = Admin::bind(&config.admin, &registry, &limits, readiness, refusals).context("admin")?;
        let receiver = Receiver::bind(config.receive, Arc::new(service), &registry, &network, &cpu, &limits)
            .context("remote write")?;
        Ok(Self { receiver, admin, phase, registry, mode, placement: None, drain_timeout })
    }

    /// Who serves which group, if several instances share them out.
    #[must_use]
    pub fn placement(&self) -> Option<Arc<dyn Placement>> {
        self.placement.as_ref().map(|keeper| Arc::clone(keeper) as Arc<dyn Placement>)
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
        let mode = self.mode.name();
        tracing::info!(data = %addresses.data, admin = %addresses.admin, mode, "listening");
        let leaving = self
            .placement
            .map(|keeper| tokio::spawn(coordination::leave(keeper, self.phase.clone(), self.drain_timeout)));
        let ended = self.receiver.run(&self.phase, shutdown).await;
        if let Some(leaving) = leaving {
            match self.phase.now() >= Phase::Draining {
                // It has as long as the requests had.
                true => drop(leaving.await),
                false => leaving.abort(),
            }
        }
        drop(admin);
        ended?;
        tracing::info!("drained");
        Ok(())
    }
}

//! The proxy, or one instance of it: the real routes, admission, pipeline, window and policy, in one life after another.

use crate::history::EPOCH_MS;
use crate::peers::{Member, Seat};
use crate::upstream::{Door, TIMEOUT, Thanos};
use crate::world::World;
use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderName, Request, Response};
use promdedup::config::{AuthConfig, Mode, ReceiveConfig};
use promdedup::overhead::CpuTime;
use promdedup::peers::Secret;
use promdedup::pipeline::{Incoming, Metrics, Pipeline, Protocol, Reply, Settings};
use promdedup::placement::Keeper;
use promdedup::receive::{Phase, PhaseControl, Serve, routes};
use promdedup::series::{PlaceLabels, ReplicaNames};
use promdedup::telemetry::LimitHits;
use promdedup::window::{IDLE_TICKS, Window};
use promdedup::wire::labels::LabelBounds;
use prometheus::Registry;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tower_service::Service;

const DRAIN_MAX: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(crate) struct Proxy {
    world: Arc<World>,
    thanos: Arc<Thanos>,
    /// Among other instances.
    seat: Option<Seat>,
    lives: AtomicU64,
    life: Mutex<Option<Life>>,
    /// The counters of all lives, by name and labels.
    counted: Mutex<BTreeMap<String, u64>>,
}

/// One process.
#[derive(Clone, Debug)]
struct Life {
    router: Router,
    window: Arc<Window>,
    registry: Registry,
    phase: PhaseControl,
    open: Arc<AtomicUsize>,
    dead: Arc<AtomicBool>,
    crashed: Arc<Notify>,
    sweeper: Arc<JoinHandle<()>>,
    begun_ms: i64,
    member: Option<Member>,
}

#[derive(Debug)]
struct Served {
    pipeline: Pipeline<Door>,
    world: Arc<World>,
    open: Arc<AtomicUsize>,
    /// How far its clock is ahead.
    ahead_ms: i64,
}

impl Serve for Served {
    async fn serve(self: Arc<Self>, incoming: Incoming) -> Reply {
        self.open.fetch_add(1, Relaxed);
        let reply = self.pipeline.serve(incoming, EPOCH_MS + self.world.now_ms() + self.ahead_ms).await;
        self.open.fetch_sub(1, Relaxed);
        reply
    }

    fn secret_of_peers(&self) -> Option<Secret> {
        self.pipeline.secret_of_peers()
    }
}

impl Proxy {
    /// Not there yet.
    pub(crate) fn new(world: &Arc<World>, thanos: &Arc<Thanos>, seat: Option<Seat>) -> Self {
        Self {
            world: Arc::clone(world),
            thanos: Arc::clone(thanos),
            seat,
            lives: AtomicU64::new(0),
            life: Mutex::default(),
            counted: Mutex::default(),
        }
    }

    /// A new process, with an empty window.
    pub(crate) fn begin(&self) {
        let plan = self.world.story.proxy;
        let registry = Registry::new();
        let window = Arc::new(Window::new(plan.series_max));
        let (open, dead) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let door = Door { thanos: Arc::clone(&self.thanos), dead: Arc::clone(&dead) };
        let limits = LimitHits::new(&registry).unwrap();
        let metrics = Metrics::register(&registry, &CpuTime::off(), &limits).unwrap();
        let pipeline = Pipeline::new(settings(plan.hold_ms), Arc::clone(&window), door, metrics);
        let (pipeline, member) = match &self.seat {
            None => (pipeline, None),
            Some(seat) => {
                let life = self.lives.fetch_add(1, Relaxed);
                let (pipeline, member) = seat.join(&self.world, life, pipeline, &registry, &dead);
                (pipeline, Some(member))
            }
        };
        let ahead = self.seat.as_ref().zip(self.world.story.fleet.as_ref());
        let ahead_ms = ahead.map_or(0, |(seat, fleet)| fleet.ahead_ms[seat.number]);
        let served = Served { pipeline, world: Arc::clone(&self.world), open: Arc::clone(&open), ahead_ms };
        let phase = PhaseControl::default();
        let router =
            routes(&receive_config(), Arc::new(served), &registry, &limits, phase.subscribe()).unwrap();
        phase.set(Phase::Serving);
        let sweeper = Arc::new(tokio::spawn(sweep(Arc::clone(&window), plan.idle_ms)));
        let crashed = Arc::new(Notify::new());
        let life = Life {
            router,
            window,
            registry,
            phase,
            open,
            dead,
            crashed,
            sweeper,
            begun_ms: self.world.now_ms(),
            member,
        };
        *self.life.lock().unwrap() = Some(life);
    }

    /// SIGKILL, from one moment to the next.
    pub(crate) fn kill(&self) {
        let Some(life) = self.life.lock().unwrap().take() else { return };
        life.dead.store(true, Relaxed);
        life.crashed.notify_waiters();
        life.sweeper.abort();
        life.member.iter().for_each(Member::kill);
        self.count(&life);
    }

    /// SIGTERM: drains, and ends. `leaves`: and leaves its groups to the others, as it should.
    pub(crate) async fn drain(&self, leaves: bool) {
        let Some(life) = self.life() else { return };
        if let (Some(member), Some(fleet)) = (&life.member, &self.world.story.fleet) {
            life.phase.set(Phase::Leaving);
            member.keeper.drain();
            self.world.pause(fleet.lead_ms).await;
            life.phase.set(Phase::Draining);
            if leaves {
                member.keeper.leave(DRAIN_MAX).await;
            }
        }
        life.phase.set(Phase::Draining);
        for _ in 0..DRAIN_MAX.as_millis() / 50 {
            if life.open.load(Relaxed) == 0 {
                break;
            }
            self.world.pause(50).await;
        }
        let this = |now: &Life| Arc::ptr_eq(&now.dead, &life.dead);
        if self.life().as_ref().is_some_and(this) {
            self.kill();
        }
    }

    fn life(&self) -> Option<Life> {
        self.life.lock().unwrap().clone()
    }

    /// Whether it takes connections.
    pub(crate) fn accepts(&self) -> bool {
        self.life().is_some_and(|life| self.seat.is_none() || life.phase.now() < Phase::Draining)
    }

    /// Whoever is its process looks how the database is reached now.
    pub(crate) fn look_for_the_database(&self) {
        self.life().and_then(|life| life.member).iter().for_each(Member::look_for_the_database);
    }

    /// Who has which group, as the process knows it.
    pub(crate) fn keeper(&self) -> Option<Arc<Keeper>> {
        Some(self.life()?.member?.keeper)
    }

    /// A request as a sender, or with more headers another instance, makes it. `None`: the connection is refused or breaks.
    pub(crate) async fn call(
        &self,
        body: Bytes,
        attempt: u32,
        more: &[(&'static str, &'static str)],
    ) -> Option<Response<Body>> {
        let mut life = self.life()?;
        let mut request = Request::post("/api/v1/receive")
            .header("content-encoding", "snappy")
            .header("content-type", "application/x-protobuf")
            .header("x-prometheus-remote-write-version", "0.1.0")
            .header("content-length", body.len());
        if attempt > 0 {
            request = request.header("retry-attempt", attempt);
        }
        for (name, value) in more {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body)).unwrap();
        let response = tokio::select! {
            biased;
            response = life.router.call(request) => response.unwrap(),
            () = life.crashed.notified() => return None,
        };
        Some(response)
    }

    /// Since when there is this process.
    pub(crate) fn begun_ms(&self) -> i64 {
        self.life().map_or(0, |life| life.begun_ms)
    }

    /// Requests in the pipeline, and series in the window with their bound kept.
    pub(crate) fn standing(&self) -> (usize, usize) {
        self.life().map_or((0, 0), |life| (life.open.load(Relaxed), life.window.series()))
    }

    /// All lives' counters: `name{labels}`.
    pub(crate) fn counted(&self) -> BTreeMap<String, u64> {
        if let Some(life) = self.life() {
            self.count(&life);
        }
        self.counted.lock().unwrap().clone()
    }

    fn count(&self, life: &Life) {
        let mut counted = self.counted.lock().unwrap();
        for family in life.registry.gather() {
            for metric in family.get_metric() {
                let labels = metric.get_label().iter().map(|l| format!("{}={}", l.name(), l.value()));
                let name = format!("{}{{{}}}", family.name(), labels.collect::<Vec<_>>().join(","));
                *counted.entry(name).or_default() += metric.get_counter().get_value() as u64;
            }
        }
    }
}

/// As `app` does it.
async fn sweep(window: Arc<Window>, idle_ms: i64) {
    let mut ticks = tokio::time::interval(Duration::from_millis(idle_ms as u64) / u32::from(IDLE_TICKS));
    ticks.tick().await;
    loop {
        ticks.tick().await;
        window.advance_tick_if_landed();
        let mut from = window.sweep(0, 4096);
        while from != 0 {
            from = window.sweep(from, 4096);
        }
    }
}

fn settings(hold_ms: i64) -> Settings {
    Settings {
        replica_names: ReplicaNames::new(["prometheus_replica", "__replica__"]).unwrap(),
        place_labels: PlaceLabels {
            group: vec!["cluster".into(), "prometheus".into()],
            target: vec!["job".into(), "instance".into()],
        },
        upstream_protocol: Protocol::One,
        label_bounds: LabelBounds::default(),
        body_bytes_max: 1 << 25,
        future_max_ms: 600_000,
        out_of_order_window_ms: 0,
        first_contact_hold_ms: hold_ms,
        busy_wait_max: TIMEOUT,
    }
}

fn receive_config() -> ReceiveConfig {
    ReceiveConfig {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        mode: Mode::Dedup,
        tls: None,
        auth: AuthConfig::default(),
        tenant_header: HeaderName::from_static("thanos-tenant"),
        body_max_bytes: 1 << 25,
        in_flight_max_bytes: 1 << 28,
        request_timeout: Duration::from_secs(30),
        connections_max: 1,
        connections_per_address_max: None,
        idle_timeout: Duration::from_secs(30),
        files_reserved: 0,
        drain_lead: Duration::ZERO,
        drain_timeout: Duration::from_secs(30),
        workers: 1,
    }
}

//! `demo`: the whole story on loopback with nothing else installed. Embedded replicas send, the real proxy stands in the middle, an
//! embedded Thanos Receive checks what it gets; one replica is killed and comes back.
//!
//! Owns the story and the verdict. Refuses to know how a proxy is built: it is handed a way to start one ([`run`]).

mod observed;
pub(in crate::command) mod proxy;
mod report;
mod screen;

use crate::stand_in::prometheus::{Fleet, FleetShape, Options as ReplicaOptions, Replica};
use crate::stand_in::thanos::{DEFAULT_TENANT, Options as ThanosOptions, Thanos};
use crate::stand_in::{Bodies, Checker, now_ms};
pub use screen::Screen;

use anyhow::{Context as _, bail, ensure};
use observed::Observed;
use proxy::ProxyView;
use report::{Evidence, Guarantee};
use std::ffi::OsString;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// Most samples that a demo may record, over all replicas: about 2 GiB.
const RECORDED_MAX: u128 = 40_000_000;
/// Most bodies that a demo may record, by their hash.
const BODIES_MAX: usize = 1_000_000;
/// How long the senders may take to settle the rest.
const SETTLE: Duration = Duration::from_secs(15);

/// What the flags say.
#[derive(Debug, Clone)]
pub struct DemoOptions {
    /// How long the replicas run.
    pub duration: Duration,
    /// About how many series each replica scrapes.
    pub series: usize,
    /// How many replicas, at least 2.
    pub replicas: usize,
    /// Scrape and rule interval, at least 100 ms.
    pub interval: Duration,
    /// Only proxy and stand-in, for a real Prometheus.
    pub no_senders: bool,
    /// The proxy is in observe mode, so what is judged is that it passes everything on, and what it says it would save.
    pub observe: bool,
    /// How the names of the proxy's data threads begin: their CPU time is the proxy's.
    pub proxy_threads: String,
}

impl Default for DemoOptions {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(30),
            series: 5_000,
            replicas: 2,
            interval: Duration::from_secs(1),
            no_senders: false,
            observe: false,
            proxy_threads: "promdedup-data".to_owned(),
        }
    }
}

/// Where a proxy listens.
#[derive(Debug, Clone, Copy)]
pub struct ProxyAddresses {
    /// Remote write.
    pub data: SocketAddr,
    /// Metrics.
    pub admin: SocketAddr,
}

/// A proxy that was started.
pub struct RunningProxy {
    /// Where it listens.
    pub addresses: ProxyAddresses,
    /// Awaited once at the end: drains and stops it.
    pub stop: Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>,
}

/// Plays the story and prints it. `start_proxy` is given the upstream URL; its first-contact hold should be off (`0s`), or the
/// demo waits for it. An error if the demo could not run, or if a guarantee broke.
pub async fn run<Start, Started>(
    options: DemoOptions,
    mut screen: Screen,
    start_proxy: Start,
) -> anyhow::Result<()>
where
    Start: FnOnce(String) -> Started,
    Started: Future<Output = anyhow::Result<RunningProxy>>,
{
    check(&options)?;
    let bodies_max = if options.observe { BODIES_MAX } else { 0 };
    let thanos_options =
        ThanosOptions { points_max: RECORDED_MAX as usize, bodies_max, ..ThanosOptions::default() };
    let thanos = Thanos::start_with(thanos_options).await.context("the stand-in for Thanos Receive")?;
    let running = start_proxy(thanos.url()).await.context("the proxy")?;
    let view = ProxyView::new(running.addresses.admin, &options.proxy_threads)?;
    let outcome = if options.no_senders {
        wait_for_a_real_one(&mut screen, &thanos, running.addresses, options.observe).await
    } else {
        play(&options, &mut screen, &thanos, view, running.addresses).await
    };
    running.stop.await.context("stop the proxy")?;
    outcome
}

/// What the demo's proxy is configured with, besides what the user's environment says: loopback, free ports (the usual
/// ones for a Prometheus of the user's), no first-contact hold, and warnings only.
pub(super) fn environment(
    mut given: Vec<(OsString, OsString)>,
    usual_ports: bool,
    observe: bool,
) -> Vec<(OsString, OsString)> {
    if observe {
        given.retain(|(name, _)| name != "PROMDEDUP_MODE");
        given.push(("PROMDEDUP_MODE".into(), "observe".into()));
    }
    let ports = if usual_ports { ["127.0.0.1:19290", "127.0.0.1:19299"] } else { ["127.0.0.1:0"; 2] };
    let own = [
        ("PROMDEDUP_LISTEN", ports[0]),
        ("PROMDEDUP_ADMIN_LISTEN", ports[1]),
        ("PROMDEDUP_FIRST_CONTACT_HOLD", "0s"),
        ("PROMDEDUP_LOG", "warn"),
    ];
    let missing = own.iter().filter(|(name, _)| !given.iter().any(|(have, _)| have == name));
    let missing: Vec<_> = missing.map(|(name, value)| (name.into(), value.into())).collect();
    given.into_iter().chain(missing).collect()
}

/// The same, with the stand-in as upstream.
pub(super) fn with_upstream(environment: &[(OsString, OsString)], url: String) -> Vec<(OsString, OsString)> {
    let others = environment.iter().filter(|(name, _)| name != "PROMDEDUP_UPSTREAM_URL").cloned();
    others.chain([("PROMDEDUP_UPSTREAM_URL".into(), url.into())]).collect()
}

/// Whether a demo can be told so.
pub(super) fn check(options: &DemoOptions) -> anyhow::Result<()> {
    if options.no_senders {
        return Ok(());
    }
    ensure!(options.replicas >= 2, "--replicas {}: at least 2", options.replicas);
    ensure!(options.replicas <= 16, "--replicas {}: at most 16", options.replicas);
    ensure!(options.series >= 10, "--series {}: at least 10", options.series);
    let interval = options.interval;
    ensure!(interval >= Duration::from_millis(100), "--interval {interval:?}: at least 100ms");
    let intervals = options.duration.as_millis() / interval.as_millis();
    ensure!(intervals >= 9, "--duration {:?}: at least 9 intervals of {interval:?}", options.duration);
    let samples = intervals * options.series as u128 * options.replicas as u128;
    ensure!(
        samples <= RECORDED_MAX,
        "{samples} samples would have to be recorded for the verdict: at most {RECORDED_MAX}; take a shorter --duration, fewer --series or a longer --interval"
    );
    Ok(())
}

/// What happens in the course of the demo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Together,
    OneIsDead,
    Reunited,
}

async fn play(
    options: &DemoOptions,
    screen: &mut Screen,
    thanos: &Thanos,
    mut view: ProxyView,
    addresses: ProxyAddresses,
) -> anyhow::Result<()> {
    let fleet = Arc::new(Fleet::new(&FleetShape::of_series(options.series)));
    let url = format!("http://{}/api/v1/receive", addresses.data);
    screen.line(&format!(
        "{} replicas -> promdedup at {} -> stand-in for Thanos Receive at {}: {} targets, {} series, every {:?}, for {:?}",
        options.replicas,
        addresses.data,
        thanos.address(),
        fleet.targets.len(),
        fleet.series.len(),
        options.interval,
        options.duration,
    ));
    screen.line(&format!("status page: http://{}/", addresses.admin));
    let mut replicas = Vec::new();
    for nth in 0..options.replicas {
        let mut sender = ReplicaOptions::new(&format!("prometheus-k8s-{nth}"), &url, options.interval);
        sender.recorded_max = RECORDED_MAX as usize / options.replicas;
        sender.bodies_max = if options.observe { BODIES_MAX } else { 0 };
        replicas.push(Replica::start(&fleet, sender)?);
    }
    let started = Instant::now();
    acts(options, screen, thanos, &mut view, &mut replicas).await?;
    replicas.iter_mut().for_each(Replica::stop_scraping);
    let mut settled = true;
    for replica in &mut replicas {
        settled &= replica.finish(SETTLE).await;
    }
    let interval_ms = i64::try_from(options.interval.as_millis()).unwrap_or(i64::MAX);
    let senders = replicas.iter().map(|replica| (replica.name().to_owned(), replica.stats())).collect();
    let (proxy, violations) = (view.look().await?, thanos.violations());
    if options.observe {
        let [mut sent, mut acknowledged] = [Bodies::default(), Bodies::default()];
        for [its_sent, its_acknowledged] in replicas.iter().map(Replica::bodies) {
            sent.extend(&its_sent);
            acknowledged.extend(&its_acknowledged);
        }
        let arrived = thanos.bodies();
        let observed = Observed { settled, senders, sent, acknowledged, arrived, violations, proxy };
        return conclude(screen, observed.table(), &observed.guarantees());
    }
    let evidence = Evidence {
        elapsed: started.elapsed(),
        interval: options.interval,
        expected_series: fleet.series.len() as u64,
        settled,
        senders,
        findings: Checker::of(interval_ms, thanos, DEFAULT_TENANT, &replicas).findings(),
        violations,
        totals: thanos.totals(),
        proxy,
    };
    conclude(screen, evidence.table(), &evidence.guarantees())
}

/// Prints the verdict, which is an error if a guarantee broke.
fn conclude(screen: &mut Screen, table: Vec<String>, guarantees: &[Guarantee]) -> anyhow::Result<()> {
    screen.end_live();
    for line in table {
        screen.line(&line);
    }
    let broken = guarantees.iter().filter(|guarantee| !guarantee.holds).count();
    if broken > 0 {
        bail!("{broken} of the guarantees broke");
    }
    Ok(())
}

/// Both run; one dies at a third; it comes back at two thirds. A line a second.
async fn acts(
    options: &DemoOptions,
    screen: &mut Screen,
    thanos: &Thanos,
    view: &mut ProxyView,
    replicas: &mut [Replica],
) -> anyhow::Result<()> {
    let started = Instant::now();
    let started_ms = now_ms();
    let ends = [options.duration / 3, options.duration * 2 / 3, options.duration];
    for (act, end) in [Act::Together, Act::OneIsDead, Act::Reunited].into_iter().zip(ends) {
        let victim = &mut replicas[0];
        let title = match act {
            Act::Together => "all replicas run".to_owned(),
            Act::OneIsDead => {
                victim.kill().await;
                format!("{} was killed", victim.name())
            }
            Act::Reunited => {
                victim.restart().await?;
                format!("{} came back, its queue lost", victim.name())
            }
        };
        screen.end_live();
        screen.line(&format!("-- {title}"));
        let second = Duration::from_secs(1);
        let mut ticks = interval_at(Instant::now() + second, second);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let over = tokio::time::sleep_until(started + end);
        tokio::pin!(over);
        loop {
            tokio::select! {
                () = &mut over => break,
                _ = ticks.tick() => {
                    let elapsed_ms = now_ms() - started_ms;
                    screen.live(&report::live(elapsed_ms, options.interval, &view.look().await?, thanos));
                }
            }
        }
    }
    Ok(())
}

async fn wait_for_a_real_one(
    screen: &mut Screen,
    thanos: &Thanos,
    addresses: ProxyAddresses,
    observes: bool,
) -> anyhow::Result<()> {
    for line in report::snippet(addresses, thanos.address()).lines() {
        screen.line(line);
    }
    tokio::signal::ctrl_c().await.context("wait for ctrl-c")?;
    screen.end_live();
    for line in report::without_senders(thanos).lines() {
        screen.line(line);
    }
    let bad = thanos.violations().of_samples();
    ensure!(
        observes || bad == 0,
        "the stand-in got {bad} samples or series that a clean stream would not contain"
    );
    Ok(())
}

//! `load`: replicas that send as a pair of Prometheis would, to any remote-write endpoint, and a sink behind it that checks what comes
//! out. Ends with a table: what a sample costs the target, and whether anything was lost.
//!
//! Owns the course of a run. What it measures it does not share code with: bodies are printed from stencils (`stencil.rs`), the
//! sink has an encoding of its own (`store.rs`).

mod arguments;
mod body;
mod fleet;
pub mod floor;
mod judge;
mod report;
mod schedule;
mod sender;
mod sink;
mod stencil;
mod store;
mod tally;
mod usage;

pub(super) use arguments::{LoadArguments, print};

use crate::stand_in::connection::Connection;
use crate::stand_in::now_ms;
use crate::wire::Protocol;
use anyhow::{Context as _, bail, ensure};
use body::Press;
use fleet::Fleet;
use report::Evidence;
use schedule::{Pace, Schedule, lock};
use sender::{BATCH_SAMPLES, Run, Shard};
use sink::Sink;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use store::Store;
use tally::Tally;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, timeout};
use usage::{Usage, Watched};

/// How the senders' thread is called.
const THREAD: &str = "promdedup-load";
/// A warm-up in which nothing is settled for so much longer than two intervals has failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the senders may take to settle the rest: a timeout and the longest pause.
const SETTLE: Duration = Duration::from_secs(40);
/// How often is looked whether the warm-up is over.
const LOOK: Duration = Duration::from_millis(20);
/// Bodies that the codec floor is measured on, of each replica.
const FLOOR_BODIES: usize = 10;
/// No target takes more than so many samples a second from here: how far sample time may run in a saturated run.
const RATE_MAX: f64 = 4e6;
/// Distances above it are holes: 1.5 intervals, and the jitter of timestamps at both ends (1 % each).
const HOLE: f64 = 1.5 + 0.02;

/// What the flags say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadOptions {
    /// Where to send.
    pub target: String,
    /// Series of each replica.
    pub series: usize,
    /// Replicas of the group.
    pub replicas: usize,
    /// Shards of each replica, each with one request in flight.
    pub shards: usize,
    /// Scrape interval; in a saturated run of sample time.
    pub interval: Duration,
    /// Measured time, after the warm-up.
    pub duration: Duration,
    /// As fast as it goes, instead of by the clock.
    pub saturate: bool,
    /// Version of remote write.
    pub protocol: Protocol,
    /// Where the sink listens, if there is to be one.
    pub sink: Option<SocketAddr>,
    /// The target's process on this machine.
    pub pid: Option<u32>,
    /// The target's metrics.
    pub metrics: Option<String>,
    /// How the names of the target's threads begin, if it is in this process: then their CPU time is the target's.
    pub threads: Option<String>,
}

impl LoadOptions {
    /// The canonical load to this URL: 200,000 series of two replicas every 15 s, for a minute.
    #[must_use]
    pub fn to(target: &str) -> Self {
        Self {
            target: target.to_owned(),
            series: 200_000,
            replicas: 2,
            shards: 4,
            interval: Duration::from_secs(15),
            duration: Duration::from_secs(60),
            saturate: false,
            protocol: Protocol::One,
            sink: None,
            pid: None,
            metrics: None,
            threads: None,
        }
    }
}

/// What a run found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Lines for people.
    pub table: Vec<String>,
    /// One object, on one line.
    pub json: String,
    /// What must not be, in words; empty if all is well.
    pub broken: Vec<String>,
}

/// Whether a run can be told so.
///
/// # Errors
/// Names the flag that cannot.
pub fn check(options: &LoadOptions) -> anyhow::Result<()> {
    let within = |flag: &str, given: usize, least: usize, most: usize| {
        ensure!(given >= least, "--{flag} {given}: at least {least}");
        ensure!(given <= most, "--{flag} {given}: at most {most}");
        Ok(())
    };
    let url = |flag: &str, given: &str| {
        ensure!(given.starts_with("http://"), "--{flag} {given:?}: only http:// is spoken here");
        Connection::to(given).map(drop).with_context(|| format!("--{flag}"))
    };
    url("target", &options.target)?;
    if let Some(metrics) = &options.metrics {
        url("metrics", metrics)?;
    }
    within("series", options.series, 10, 16_000_000)?;
    within("replicas", options.replicas, 1, 16)?;
    within("shards", options.shards, 1, 64)?;
    let interval = options.interval;
    ensure!(interval >= Duration::from_millis(100), "--interval {interval:?}: at least 100ms");
    ensure!(interval <= Duration::from_secs(3_600), "--interval {interval:?}: at most 1h");
    let duration = options.duration;
    ensure!(duration >= Duration::from_millis(500), "--duration {duration:?}: at least 500ms");
    ensure!(duration <= Duration::from_secs(86_400), "--duration {duration:?}: at most 1day");
    Ok(())
}

/// A sink that listens, and the run that it belongs to. Made before the target has to be there.
#[derive(Debug)]
pub struct Load {
    options: LoadOptions,
    sink: Option<Sink>,
}

impl Load {
    /// Checks the options and binds the sink.
    ///
    /// # Errors
    /// When the options are wrong, or the sink's address is taken.
    pub fn bind(options: LoadOptions) -> anyhow::Result<Self> {
        check(&options)?;
        let interval_ms = ms(options.interval);
        #[expect(clippy::cast_possible_truncation, reason = "at most 1.52 hours")]
        let hole_ms = (interval_ms as f64 * HOLE) as i64;
        let start = |listen| Sink::start(listen, Store::new(options.series, hole_ms, 4 * interval_ms));
        let sink = options.sink.map(start).transpose()?;
        Ok(Self { options, sink })
    }

    /// Where the sink listens.
    #[must_use]
    pub fn sink(&self) -> Option<SocketAddr> {
        self.sink.as_ref().map(|sink| sink.address)
    }

    /// Looks at this process for the target's CPU time and memory.
    pub fn watch(&mut self, pid: u32) {
        self.options.pid = Some(pid);
    }

    /// Sends, measures and judges, on a thread of its own so that its CPU time can be told.
    ///
    /// # Errors
    /// When it could not be measured at all: the target took nothing, or cannot be looked at.
    pub fn run(mut self, target: Option<&str>) -> anyhow::Result<Outcome> {
        if let Some(target) = target {
            target.clone_into(&mut self.options.target);
            check(&self.options)?;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name(THREAD.to_owned());
        let running = thread.spawn(move || {
            let outcome = runtime.block_on(play(&self.options, self.sink.as_ref()));
            runtime.shutdown_background();
            outcome
        })?;
        match running.join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// What is counted, at one moment.
struct Moment {
    at: Instant,
    tally: Tally,
    target: Usage,
    generator_cpu_s: Option<f64>,
    sink_cpu_s: Option<f64>,
    bytes_out: Option<u64>,
}

async fn play(options: &LoadOptions, sink: Option<&Sink>) -> anyhow::Result<Outcome> {
    let replicas: Vec<_> = (0..options.replicas).map(|nth| format!("prometheus-k8s-{nth}")).collect();
    let fleet = Fleet::new(options.series)?;
    let floor = floor::measure(&floor_bodies(options, &fleet, &replicas)?)?;
    let shards = options.shards.min(fleet.per_target());
    let mut presses = Vec::new();
    for (replica, name) in replicas.iter().enumerate() {
        for shard in 0..shards {
            presses.push((replica, shard, Press::new(&fleet, options.protocol, name, shard, shards)?));
        }
    }
    let mut watched = Watched::new(options)?;
    let fresh = watched.look().await?;
    // Nothing that takes long comes between the first scrape and the senders.
    let run = Arc::new(run_of(options, fleet, shards));
    let mut shards = JoinSet::new();
    for (replica, shard, press) in presses {
        shards.spawn(Shard::new(&run, &options.target, press, replica, shard)?.run());
    }
    warm_up(options, &run).await?;
    let begun = moment(&run, &mut watched, sink).await?;
    tokio::select! {
        () = tokio::time::sleep(options.duration) => {}
        // Early, with what there is.
        _ = tokio::signal::ctrl_c() => {}
    }
    let ended = moment(&run, &mut watched, sink).await?;
    run.pace.end(now_ms());
    let all = async { while shards.join_next().await.is_some() {} };
    let settled = timeout(SETTLE, all).await.is_ok();
    shards.shutdown().await;
    let findings =
        sink.map(|sink| sink.judged(|store| judge::judge(&run, &replicas, ms(options.interval), store)));
    let since = |pick: fn(&Moment) -> Option<f64>| {
        pick(&ended).zip(pick(&begun)).map(|(after, before)| after - before)
    };
    let whole = lock(&run.tally).clone();
    let evidence = Evidence {
        options,
        measured_s: (ended.at - begun.at).as_secs_f64(),
        tally: ended.tally.since(&begun.tally),
        whole,
        target: [fresh, begun.target, ended.target],
        generator_cpu_s: since(|moment| moment.generator_cpu_s),
        sink_cpu_s: since(|moment| moment.sink_cpu_s),
        generator_bytes: usage::of_process("self").and_then(|usage| usage.resident_bytes),
        floor,
        bytes_out: ended.bytes_out.zip(begun.bytes_out).map(|(after, before)| after - before),
        findings,
        settled,
    };
    Ok(Outcome { table: evidence.table(), json: evidence.json(), broken: evidence.broken() })
}

fn run_of(options: &LoadOptions, fleet: Fleet, shards: usize) -> Run {
    let interval_ms = ms(options.interval);
    let mut start_ms = now_ms();
    if options.saturate {
        // Sample time runs ahead of the clock, so it begins as long ago as it can run.
        let rounds =
            RATE_MAX * options.duration.as_secs_f64() / (options.series * options.replicas) as f64 + 4.0;
        #[expect(clippy::cast_possible_truncation, reason = "saturates, and is bounded next")]
        let back_ms = (rounds * interval_ms as f64) as i64;
        // Not before 1973: the times of a body are all of one length.
        start_ms = (start_ms - back_ms).max(100_000_000_000);
    }
    let schedules: Vec<_> =
        (0..options.replicas).map(|replica| Schedule::new(&fleet, replica, start_ms, interval_ms)).collect();
    let places = options.replicas * shards;
    let pace = match options.saturate {
        true => Pace::of_the_slowest(places, start_ms, interval_ms / 2),
        false => Pace::of_the_clock(),
    };
    Run {
        fleet,
        protocol: options.protocol,
        shards,
        schedules,
        pace,
        real_time: !options.saturate,
        deadline_ms: (interval_ms / 3).min(5_000),
        settled: (0..places).map(|_| AtomicU64::new(0)).collect(),
        tally: Mutex::default(),
        refused: Mutex::default(),
    }
}

/// Full batches of the first shard of each replica, in remote write 1.0 whatever is sent.
fn floor_bodies(options: &LoadOptions, fleet: &Fleet, replicas: &[String]) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut bodies = Vec::new();
    for (number, replica) in replicas.iter().enumerate() {
        let schedule = Schedule::new(fleet, number, now_ms(), ms(options.interval));
        let press = Press::new(fleet, Protocol::One, replica, 0, options.shards.min(fleet.per_target()))?;
        let mut scrapes = (0u64..).map(|nth| schedule.scrape(nth));
        for _ in 0..FLOOR_BODIES {
            let (mut chunks, mut samples) = (Vec::new(), 0);
            while samples < BATCH_SAMPLES && chunks.len() < body::CHUNKS_MAX {
                let Some(chunk) = scrapes.next() else { break };
                samples += press.samples(fleet.form(chunk.target));
                chunks.push(chunk);
            }
            bodies.push(press.print(fleet, &chunks).0);
        }
    }
    Ok(bodies)
}

/// Until every series of every replica was settled once: births and first contacts are not what is measured.
async fn warm_up(options: &LoadOptions, run: &Run) -> anyhow::Result<()> {
    let round = run.schedules.first().map_or(0, Schedule::targets);
    let patience = PATIENCE + if options.saturate { Duration::ZERO } else { options.interval * 2 };
    let (mut settled, mut since) = (0, Instant::now());
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while run.settled.iter().any(|settled| settled.load(Relaxed) < round) {
        looks.tick().await;
        let sum = run.settled.iter().map(|settled| settled.load(Relaxed)).sum::<u64>();
        if sum > settled {
            (settled, since) = (sum, Instant::now());
        }
        if since.elapsed() > patience {
            let trouble = lock(&run.tally).trouble.clone();
            bail!(
                "{} took nothing for {patience:?}; {}",
                options.target,
                trouble.map_or("it never answered".to_owned(), |trouble| format!("last: {trouble}"))
            );
        }
    }
    Ok(())
}

async fn moment(run: &Run, watched: &mut Watched, sink: Option<&Sink>) -> anyhow::Result<Moment> {
    let target = watched.look().await?;
    Ok(Moment {
        at: Instant::now(),
        tally: lock(&run.tally).clone(),
        target,
        generator_cpu_s: usage::this_thread().and_then(|thread| usage::of_thread(&thread)),
        sink_cpu_s: sink.and_then(Sink::cpu_s),
        bytes_out: sink.map(Sink::body_bytes),
    })
}

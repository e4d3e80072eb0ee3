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
mod options;
mod report;
mod schedule;
mod sender;
mod sink;
mod stencil;
mod store;
mod tally;
mod turns;
mod usage;
mod warm;

pub(super) use arguments::{LoadArguments, print};
pub use options::{LoadOptions, check};

use crate::stand_in::now_ms;
use body::{Deal, Press};
use fleet::Fleet;
use report::Evidence;
use schedule::{Pace, Schedule, lock};
use sender::{Run, Seat, Shard};
use sink::Sink;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use store::Store;
use tally::Tally;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use turns::Turns;
use usage::{Usage, Watched};
use warm::{catch_up, warm_up};

/// How the senders' thread is called.
const THREAD: &str = "promdedup-load";
/// How long the senders may take to settle the rest: a timeout and the longest pause.
const SETTLE: Duration = Duration::from_secs(40);
/// Samples that the codec floor is measured on, of each replica.
const FLOOR_SAMPLES: usize = 20_000;
/// Groups may run apart in sample time, when no clock holds them together, by this factor.
const APART_MAX: usize = 10;
/// No target takes more than so many samples a second from here: how far sample time may run in a saturated run.
const RATE_MAX: f64 = 20e6;
/// Most replicas of a group: each of every group has phases of its own.
const REPLICAS_MAX: usize = 16;
/// Distances above it are holes: 1.5 intervals, and the jitter of timestamps at both ends (1 % each).
const HOLE: f64 = 1.5 + 0.02;

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
    pub fn bind(mut options: LoadOptions) -> anyhow::Result<Self> {
        check(&options)?;
        options.series = options.series_of_a_group() * options.groups;
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

    /// Looks there for what it knows of itself.
    pub fn watch_metrics(&mut self, url: &str) {
        self.options.metrics = Some(url.to_owned());
    }

    /// Sends, measures and judges, on a thread of its own so that its CPU time can be told.
    ///
    /// # Errors
    /// When it could not be measured at all: the target took nothing, or cannot be looked at.
    pub fn run(mut self, target: Option<&str>) -> anyhow::Result<Outcome> {
        if let Some(target) = target {
            target.clone_into(&mut self.options.target);
        }
        check(&self.options)?;
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
    let fleet = Fleet::new(options)?;
    let deal = Deal::new(&fleet, options.shards, options.batch / if options.churn > 0 { 2 } else { 1 });
    let floor_bodies = floor_bodies(options, &fleet, deal, &replicas)?;
    let floor = floor::measure(&floor_bodies, options.protocol)?;
    let mut presses = Vec::new();
    for name in &replicas {
        let press = |shard| Press::new(&fleet, options.protocol, name, shard, deal).map(Arc::new);
        presses.push((0..deal.shards).map(press).collect::<Result<Vec<_>, _>>()?);
    }
    let mut watched = Watched::new(options)?;
    let fresh = watched.look().await?;
    // Nothing that takes long comes between the first scrape and the senders.
    let run = Arc::new(run_of(options, fleet, deal, sink));
    let mut shards = JoinSet::new();
    for replica in (0..options.replicas).filter(|replica| Some(*replica) != run.behind) {
        start(options, &run, replica, &presses, &mut shards)?;
    }
    let kept_up = warm_up(options, &run).await?;
    if let Some(replica) = run.behind {
        start(options, &run, replica, &presses, &mut shards)?;
    }
    let begun = moment(&run, &mut watched, sink).await?;
    let mut caught_up = None;
    tokio::select! {
        () = tokio::time::sleep(options.duration) => {}
        // Early, with what there is.
        _ = tokio::signal::ctrl_c() => {}
        () = catch_up(&run, begun.at, &mut caught_up) => {}
    }
    let ended = moment(&run, &mut watched, sink).await?;
    run.paces.iter().for_each(|pace| pace.end(now_ms()));
    let all = async { while shards.join_next().await.is_some() {} };
    let settled = timeout(SETTLE, all).await.is_ok();
    shards.shutdown().await;
    let findings =
        sink.map(|sink| sink.judged(|store| judge::judge(&run, &replicas, ms(options.interval), store)));
    let since = |pick: fn(&Moment) -> Option<f64>| {
        pick(&ended).zip(pick(&begun)).map(|(after, before)| after - before)
    };
    let whole = lock(&run.tally).clone();
    let generator_bytes = usage::of_process("self").and_then(|usage| usage.resident_bytes);
    // Once more: a moment in which the machine did something else as well would make it higher, and the target look cheap.
    let floor = floor.least(&floor::measure(&floor_bodies, options.protocol)?);
    let evidence = Evidence {
        options,
        measured_s: (ended.at - begun.at).as_secs_f64(),
        tally: ended.tally.since(&begun.tally),
        whole,
        target: [fresh, begun.target, ended.target],
        generator_cpu_s: since(|moment| moment.generator_cpu_s),
        sink_cpu_s: since(|moment| moment.sink_cpu_s),
        generator_bytes,
        floor,
        bytes_out: ended.bytes_out.zip(begun.bytes_out).map(|(after, before)| after - before),
        caught_up_s: caught_up,
        findings,
        settled,
        kept_up,
    };
    Ok(Outcome { table: evidence.table(), json: evidence.json(), broken: evidence.broken() })
}

/// All shards of one replica of each group.
fn start(
    options: &LoadOptions,
    run: &Arc<Run>,
    replica: usize,
    presses: &[Vec<Arc<Press>>],
    shards: &mut JoinSet<()>,
) -> anyhow::Result<()> {
    for group in 0..run.fleet.groups() {
        for (shard, press) in presses[replica].iter().enumerate() {
            shards.spawn(Shard::new(run, &options.target, press, Seat { group, replica, shard })?.run());
        }
    }
    Ok(())
}

fn run_of(options: &LoadOptions, fleet: Fleet, deal: Deal, sink: Option<&Sink>) -> Run {
    let interval_ms = ms(options.interval);
    let live_from_ms = now_ms();
    let (mut start_ms, mut live_round) = (live_from_ms, 0);
    if options.saturate {
        // Sample time runs ahead of the clock, so it begins as long ago as it can run.
        let rounds =
            RATE_MAX * options.duration.as_secs_f64() / (options.series * options.replicas) as f64 + 4.0;
        #[expect(clippy::cast_possible_truncation, reason = "saturates, and is bounded next")]
        let back_ms = (rounds * options.groups.min(APART_MAX) as f64 * interval_ms as f64) as i64;
        // Not before 1973: the times of a body are all of one length.
        start_ms = (start_ms - back_ms).max(100_000_000_000);
    }
    let behind = options.backlog.map(|_| options.replicas - 1);
    if behind.is_some() {
        live_round = options.intervals_behind();
        start_ms -= live_round.cast_signed() * interval_ms;
    }
    let seats =
        (0..options.groups).flat_map(|group| (0..options.replicas).map(move |replica| (group, replica)));
    let schedules = seats.map(|(group, replica)| {
        let first_round = if Some(replica) == behind { 0 } else { live_round };
        let number = group * REPLICAS_MAX + replica;
        Schedule::new(&fleet, number, deal.pieces, start_ms, interval_ms).starting_at(first_round)
    });
    let schedules: Vec<_> = schedules.collect();
    let places = options.replicas * deal.shards;
    let pace = || match options.saturate {
        true => Pace::of_the_slowest(places, start_ms, interval_ms / 2),
        false => Pace::of_the_clock(),
    };
    Run {
        protocol: options.protocol,
        replicas: options.replicas,
        deal,
        batch: options.batch,
        tenants: options.tenants,
        paces: (0..options.groups).map(|_| pace()).collect(),
        real_time: !options.saturate,
        interval_ms,
        behind,
        deadline_ms: (interval_ms / 3).min(5_000),
        live_from_ms: if behind.is_some() { live_from_ms } else { i64::MIN },
        settled: (0..options.groups * places).map(|_| AtomicU64::new(0)).collect(),
        taken: sink.map(Sink::taken),
        printing: Turns::default(),
        begun: OnceLock::new(),
        answered: AtomicBool::new(false),
        tally: Mutex::default(),
        refused: Mutex::default(),
        waits: (0..options.groups * places).map(|_| AtomicU64::new(0)).collect(),
        schedules,
        fleet,
    }
}

/// Full batches of the first shard of each replica, as they are sent.
fn floor_bodies(
    options: &LoadOptions,
    fleet: &Fleet,
    deal: Deal,
    replicas: &[String],
) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut bodies = Vec::new();
    for (number, replica) in replicas.iter().enumerate() {
        let schedule = Schedule::new(fleet, number, deal.pieces, now_ms(), ms(options.interval));
        let press = Press::new(fleet, options.protocol, replica, 0, deal)?;
        let mut scrapes = (0u64..).map(|nth| schedule.scrape(nth));
        let mut left = FLOOR_SAMPLES;
        while left > 0 {
            let (mut chunks, mut samples) = (Vec::new(), 0);
            while chunks.len() < body::CHUNKS_MAX && samples + deal.series_of_a_piece() <= options.batch {
                let Some(chunk) = scrapes.next() else { break };
                samples += press.samples(fleet, &chunk);
                chunks.push(chunk);
            }
            left = left.saturating_sub(samples.max(1));
            if samples > 0 {
                bodies.push(press.print(fleet, 0, &chunks).0);
            }
        }
    }
    Ok(bodies)
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

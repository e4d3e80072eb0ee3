//! The story: two replicas send without a pause, the proxy is killed at a moment of chance and starts again, over and over; each time
//! what was acknowledged is held against what upstream has.

use crate::chance::Chance;
use crate::cut::{Cut, Promises, refused_in_vain};
use crate::lives::Lives;
use promdedup::stand_in::prometheus::{Fleet, FleetShape, Options, Replica};
use promdedup::stand_in::thanos::{DEFAULT_TENANT, Fault, Thanos};
use promdedup::stand_in::{Checker, Findings};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Nothing here takes that long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(120);
/// Upstream thinks so long before it stores, so that requests are under way at any moment.
const THINKING: Duration = Duration::from_millis(15);
/// A kill comes at most so long after what it waits for.
const WAIT_MAX_MS: u64 = 20;
/// Widest hole in intervals: what lives have held one after the other may be lost before the next sample.
const HOLE_MAX: f64 = 6.0;
/// A short life ends at the latest with so many requests to upstream; a long one with so many after it has settled.
const REQUESTS_MAX: u64 = 40;

/// How the proxy dies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) kills: u32,
    /// `PROMDEDUP_FIRST_CONTACT_HOLD`.
    pub(crate) first_contact_hold: &'static str,
    /// Of scrapes and rules.
    pub(crate) interval: Duration,
}

impl Plan {
    fn interval_ms(&self) -> i64 {
        i64::try_from(self.interval.as_millis()).expect("some milliseconds")
    }
}

/// How long a life lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    /// So long that the window has learned the intervals of its series.
    Long,
    /// The window may know one sample of a series.
    Short,
}

/// How upstream stands to the requests that it has not answered when the proxy dies. It gives up what it has not stored by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unanswered {
    /// It was just about to store them.
    Open,
    /// It has stored them; only the answers are missing.
    Stored,
    /// It has hung for a while, so there are more of them than may be held.
    Hung,
}

impl Unanswered {
    fn by(chance: &mut Chance) -> Self {
        match chance.below(4) {
            0 | 1 => Self::Open,
            2 => Self::Stored,
            _ => Self::Hung,
        }
    }
}

struct Story {
    plan: Plan,
    chance: Chance,
    thanos: Thanos,
    lives: Lives,
    fleet: Arc<Fleet>,
    replicas: Vec<Replica>,
}

/// All of it; fails if a promise was broken.
pub(crate) async fn tell(plan: Plan) {
    let began = Instant::now();
    let mut story = Story::begin(plan).await;
    let mut seen = Vec::new();
    for nth in 1..=plan.kills {
        let life = if nth % 2 == 1 { Life::Long } else { Life::Short };
        seen.push(story.live_and_die(nth, life).await);
        story.lives.begin();
    }
    let findings = story.end().await;
    let sum = |of: fn(&Promises) -> usize| seen.iter().map(of).sum::<usize>();
    let struck = seen.iter().filter(|promises| promises.open > 0).count();
    println!(
        "seed {}: {} kills in {:.1} s, {struck} of them with requests under way ({} samples); {} samples held, {} acknowledged, {} refused, {} stored, {} conflicts, widest hole {:.2} intervals",
        plan.seed,
        plan.kills,
        began.elapsed().as_secs_f64(),
        sum(|promises| promises.open),
        sum(|promises| promises.held),
        findings.acknowledged,
        findings.sent - findings.acknowledged,
        findings.stored,
        story.thanos.totals().conflicts,
        findings.widest_hole.intervals,
    );
    // Otherwise the moments were not what they are meant to be.
    assert!(2 * struck > seen.len(), "only {struck} kills struck a request");
    assert!(sum(|promises| promises.held) > 0 && sum(|promises| promises.acknowledged) > 0);
}

impl Story {
    async fn begin(plan: Plan) -> Self {
        let thanos = Thanos::start().await.expect("started");
        thanos.delay(THINKING);
        let more = [("PROMDEDUP_FIRST_CONTACT_HOLD", plan.first_contact_hold), ("PROMDEDUP_LOG", "warn")];
        let mut lives = Lives::new(&thanos.url(), &more);
        lives.begin();
        // Many targets, so that there is something to send at any moment of the interval.
        let shape = FleetShape {
            targets: 12,
            series_per_target: 12,
            native_histograms_per_target: 1,
            rules: 8,
            ..FleetShape::default()
        };
        let fleet = Arc::new(Fleet::new(&shape));
        let replica = |name: &str| {
            let options = Options {
                shards: 6,
                max_samples_per_send: 10,
                batch_send_deadline: Duration::from_millis(20),
                max_backoff: Duration::from_millis(60),
                ..Options::new(name, &lives.url(), plan.interval)
            };
            Replica::start(&fleet, options).expect("started")
        };
        // Their phases depend on their names.
        let replicas = ["a", "b"].map(|name| replica(&format!("{name}{}", plan.seed))).into();
        Self { plan, chance: Chance::new(plan.seed), thanos, lives, fleet, replicas }
    }

    /// One life until its violent end, and what of its promises had come true by then.
    async fn live_and_die(&mut self, nth: u32, life: Life) -> Promises {
        let requests = 1 + self.chance.below(REQUESTS_MAX);
        let pause = Duration::from_micros(self.chance.below(1_000 * WAIT_MAX_MS));
        let unanswered = Unanswered::by(&mut self.chance);
        if life == Life::Long {
            self.settle().await;
        }
        self.reach(requests).await;
        if unanswered == Unanswered::Stored {
            self.thanos.inject(Fault::HangAfterStoring);
            let more = 1 + self.chance.below(3);
            self.reach(more).await;
        }
        if unanswered == Unanswered::Hung {
            self.thanos.inject(Fault::Hang);
            // Until whoever acknowledges without an answer has gone too far.
            tokio::time::sleep(self.plan.interval * 11 / 2).await;
        }
        // The moment itself, and not a wait for anything.
        tokio::time::sleep(pause).await;
        self.lives.kill();
        // What was acknowledged is looked at first: what upstream may still store cannot cover it up.
        let sent = self.replicas.iter().map(Replica::sent).collect();
        let stored = self.thanos.stored(DEFAULT_TENANT);
        self.thanos.heal();
        // Two intervals as the window has learned them, which a takeover may make twice as long for a while. A window that has seen only
        // one sample of a series knows none, and what the life before it held is lost.
        let held_max = if life == Life::Long { 4 } else { 5 };
        let promises = Cut { sent, stored, held_max, interval_ms: self.plan.interval_ms() }.promises();
        assert!(
            promises.broken.is_empty(),
            "{:?}, kill {nth} after a {life:?} life, {requests} requests and {pause:?}, {unanswered:?}: {} series with acknowledged samples that nothing stands for:\n{}",
            self.plan,
            promises.broken.len(),
            promises.broken[..promises.broken.len().min(5)].join("\n"),
        );
        promises
    }

    /// Waits until upstream has about three more samples of each series.
    async fn settle(&self) {
        let wanted = self.thanos.totals().samples + 3 * self.fleet.series.len() as u64;
        let settled = self.thanos.wait_until(PATIENCE, |totals| totals.samples >= wanted).await;
        assert!(settled, "upstream has {} samples, not {wanted}", self.thanos.totals().samples);
    }

    /// Waits until upstream has got so many more requests.
    async fn reach(&self, requests: u64) {
        let wanted = self.thanos.totals().requests + requests;
        let reached = self.thanos.wait_until(PATIENCE, |totals| totals.requests >= wanted).await;
        assert!(reached, "upstream got {} requests, not {wanted}", self.thanos.totals().requests);
    }

    /// The last life is a quiet one: everything is delivered, and everything is judged.
    async fn end(&mut self) -> Findings {
        self.settle().await;
        for replica in &mut self.replicas {
            assert!(replica.finish(PATIENCE).await, "{} has its answers", replica.name());
            assert_eq!(replica.stats().log_overflows, 0);
        }
        let checker = Checker::of(self.plan.interval_ms(), &self.thanos, DEFAULT_TENANT, &self.replicas);
        let findings = checker.findings();
        assert_eq!(findings.problems(HOLE_MAX), [] as [&str; 0], "{:?}", self.plan);
        let sent: Vec<_> = self.replicas.iter().map(Replica::sent).collect();
        let lost = refused_in_vain(&sent, &self.thanos.stored(DEFAULT_TENANT), 2 * self.plan.interval_ms());
        assert_eq!(lost, [] as [String; 0], "{:?}", self.plan);
        let seen = self.thanos.violations();
        let clean = (seen.vanished, seen.bad_labels, seen.replica_label, seen.out_of_bounds);
        assert_eq!(clean, (0, 0, 0, 0), "{seen:?}");
        assert_eq!(self.lives.log(), "", "the proxy complains");
        findings
    }
}

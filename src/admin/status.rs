//! The status: what the process does, how much went through, who sends what, and what that saves and costs.
//!
//! One [`View`] for the page and for `/api/v1/status`. Figures a day are those of the last hour, or since the start. Keeps
//! one set of figures every ten seconds for that and for the graphs, and nothing else. Refuses to judge: alerts do.

mod groups;
mod placement;
mod pulse;

#[cfg(test)]
pub(super) use placement::Counted;
pub(super) use placement::{PlacementView, Source};
pub(super) use pulse::Life;

use super::readiness::Readiness;
use crate::config::Mode;
use crate::health;
use crate::overhead::{Figures, Overhead, label, value};
use crate::telemetry::{Refusal, Refusals};
use groups::{Group, Replica, groups};
use prometheus::Registry;
use prometheus::proto::MetricFamily;
use pulse::Pulses;
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How often counters are looked at; less often where that takes long.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// At most this part of the time goes into looking.
const LOOK_SHARE: u32 = 50;
/// How often figures are remembered.
const EVERY: Duration = Duration::from_secs(10);
/// How many of them: an hour's.
const REMEMBERED_MAX: usize = 360;

/// What the status is made of.
#[derive(Debug)]
pub(super) struct Status {
    mode: Mode,
    registry: Registry,
    refusals: Arc<Refusals>,
    /// Set if several instances share the groups out.
    placement: OnceLock<Source>,
    begun: Instant,
    /// The oldest first; never empty.
    remembered: Mutex<VecDeque<(Instant, Figures)>>,
    pulses: Mutex<Pulses>,
}

/// The status at one moment.
#[derive(Debug)]
pub(super) struct View {
    pub(super) mode: Mode,
    pub(super) unready: Option<String>,
    pub(super) uptime: Duration,
    /// Since the start.
    pub(super) figures: Figures,
    /// How long `overhead` was measured.
    pub(super) measured: Duration,
    pub(super) overhead: Overhead,
    pub(super) groups: Vec<GroupView>,
    /// The problems that groups have now.
    pub(super) warnings: Vec<Warning>,
    /// Answers of the upstream by code; `error` for none.
    pub(super) upstream: BTreeMap<String, f64>,
    /// Of all attempts since the start, in seconds.
    pub(super) upstream_mean_s: Option<f64>,
    /// Limits that were hit, and how often.
    pub(super) limits: BTreeMap<String, f64>,
    /// `None`: there are no other instances.
    pub(super) placement: Option<PlacementView>,
    /// What senders were told lately that will not help to send again, the newest first.
    pub(super) refusals: Vec<(Duration, Refusal)>,
    /// How long ago, and the figures then; the oldest first, now last.
    pub(super) history: Vec<(Duration, Figures)>,
}

/// A problem of a group.
#[derive(Debug)]
pub(super) struct Warning {
    pub(super) group: String,
    pub(super) reason: String,
    /// What to do about it.
    pub(super) advice: &'static str,
}

#[derive(Debug)]
pub(super) struct GroupView {
    pub(super) name: String,
    pub(super) replicas: Vec<ReplicaView>,
    pub(super) takeovers: BTreeMap<String, f64>,
    /// How long ago the last one was, and why, if it was since the page was first made.
    pub(super) last_takeover: Option<(Duration, String)>,
    pub(super) moves: f64,
    pub(super) filled: f64,
}

#[derive(Debug)]
pub(super) struct ReplicaView {
    pub(super) name: String,
    pub(super) counted: Replica,
    pub(super) life: Life,
    /// Its part of the group's series that have an owner.
    pub(super) owned_share: f64,
    /// How old its newest sample is, in seconds.
    pub(super) age_s: Option<f64>,
    /// How much older that is than the group's newest, in seconds.
    pub(super) behind_s: Option<f64>,
}

impl Status {
    pub(super) fn new(mode: Mode, registry: Registry, refusals: Arc<Refusals>) -> Self {
        let begun = Instant::now();
        let remembered = Mutex::new(VecDeque::from([(begun, Figures::default())]));
        let placement = OnceLock::new();
        Self { mode, registry, refusals, placement, begun, remembered, pulses: Mutex::default() }
    }

    /// From now on it tells of placement, too. The first one stays.
    pub(super) fn tell_of(&self, placement: Source) {
        let _ = self.placement.set(placement);
    }

    /// Never ends.
    pub(super) async fn remember(&self) {
        let mut next = self.begun + EVERY;
        loop {
            let began = Instant::now();
            let families = self.registry.gather();
            self.pulses().look(&groups(&families), began);
            if began >= next {
                let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
                remembered.push_back((began, Figures::of(&families)));
                if remembered.len() > REMEMBERED_MAX {
                    remembered.pop_front();
                }
                next = (next + EVERY).max(began);
            }
            sleep(LOOK_EVERY.max(began.elapsed() * LOOK_SHARE)).await;
        }
    }

    /// `now_s`: the wall clock, in seconds since 1970.
    pub(super) fn now(&self, readiness: &Readiness, now_s: f64) -> View {
        let families = self.registry.gather();
        let (now, figures) = (Instant::now(), Figures::of(&families));
        let mut history: Vec<_> = {
            let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
            remembered.iter().map(|(at, figures)| (now.saturating_duration_since(*at), *figures)).collect()
        };
        let (measured, earlier) = history.first().copied().unwrap_or_default();
        history.push((Duration::ZERO, figures));
        let groups = groups(&families);
        let pulses = self.pulses();
        View {
            mode: self.mode,
            unready: readiness.now().err().map(|why| why.to_string()),
            uptime: self.begun.elapsed(),
            figures,
            measured,
            overhead: figures.since(&earlier, measured),
            groups: groups.into_iter().map(|(name, group)| view(name, group, &pulses, now, now_s)).collect(),
            warnings: warnings(&families).collect(),
            upstream: by(&families, "promdedup_upstream_requests_total", "code"),
            upstream_mean_s: mean(&families, "promdedup_upstream_duration_seconds"),
            limits: by(&families, "promdedup_limit_hit_total", "limit"),
            placement: self.placement.get().map(|placement| placement.now(&families)),
            refusals: self.refusals.newest_first(now),
            history,
        }
    }

    fn pulses(&self) -> MutexGuard<'_, Pulses> {
        self.pulses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl View {
    /// As `/api/v1/status` has it.
    pub(super) fn json(&self) -> Value {
        let figures = &self.figures;
        let seconds = |of: &Duration| of.as_secs_f64();
        let refusal = |(ago, refusal): &(Duration, Refusal)| {
            json!({
                "seconds_ago": seconds(ago),
                "group": refusal.group,
                "replica": refusal.replica,
                "status": refusal.status,
                "text": refusal.text,
            })
        };
        let mut json = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "mode": self.mode.name(),
            "ready": self.unready.is_none(),
            "unready_because": self.unready,
            "uptime_seconds": seconds(&self.uptime),
            "samples": samples(figures),
            "bytes": bytes(figures),
            "window": {
                "series": figures.window_series,
                "bytes": figures.window_bytes,
                "bytes_per_series": (figures.window_series > 0.0).then(|| figures.window_bytes / figures.window_series),
            },
            "overhead": json(&self.overhead, self.measured),
            "groups": self.groups.iter().map(GroupView::json).collect::<Vec<_>>(),
            "warnings": self.warnings.iter().map(Warning::json).collect::<Vec<_>>(),
            "upstream": { "answers": self.upstream, "mean_seconds": self.upstream_mean_s },
            "limits_hit": self.limits,
            "refusals": self.refusals.iter().map(refusal).collect::<Vec<_>>(),
        });
        if let Some(placement) = &self.placement {
            json["placement"] = placement.json();
        }
        json
    }
}

impl Warning {
    fn json(&self) -> Value {
        json!({ "group": self.group, "reason": self.reason, "advice": self.advice })
    }
}

impl GroupView {
    fn json(&self) -> Value {
        let last = self.last_takeover.as_ref();
        json!({
            "group": self.name,
            "replicas": self.replicas.iter().map(ReplicaView::json).collect::<Vec<_>>(),
            "takeovers": self.takeovers,
            "last_takeover": last.map(|(ago, why)| json!({ "seconds_ago": ago.as_secs_f64(), "reason": why })),
            "target_moves": self.moves,
            "filled": self.filled,
        })
    }
}

impl ReplicaView {
    fn json(&self) -> Value {
        let Replica { received, forwarded, duplicate, refused, rejected, failed, waits, owned, .. } =
            self.counted;
        json!({
            "replica": self.name,
            "owned_series": owned,
            "owned_share": self.owned_share,
            "newest_sample_age_seconds": self.age_s,
            "behind_seconds": self.behind_s,
            "silent_seconds": self.life.silent_for.map(|silent| silent.as_secs_f64()),
            "received_per_second": self.life.received_per_s,
            "duplicates_per_second": self.life.duplicates_per_s,
            "waits": waits,
            "samples": {
                "received": received,
                "forwarded": forwarded,
                "duplicate": duplicate,
                "refused": refused,
                "rejected": rejected,
                "failed": failed,
            },
        })
    }
}

fn view(name: String, group: Group, pulses: &Pulses, now: Instant, now_s: f64) -> GroupView {
    let Group { replicas, takeovers, moves, filled } = group;
    let owned: f64 = replicas.values().map(|replica| replica.owned).sum();
    let newest_s = replicas.values().map(|replica| replica.last_seen_s).fold(0.0, f64::max);
    let replicas = replicas.into_iter().map(|(replica, counted)| {
        let seen_s = (counted.last_seen_s > 0.0).then_some(counted.last_seen_s);
        ReplicaView {
            life: pulses.of(&name, &replica, now),
            owned_share: if owned > 0.0 { counted.owned / owned } else { 0.0 },
            age_s: seen_s.map(|seen_s| now_s - seen_s),
            behind_s: seen_s.map(|seen_s| newest_s - seen_s),
            name: replica,
            counted,
        }
    });
    let replicas = replicas.collect();
    let last_takeover = pulses.last_takeover(&name, now).map(|(ago, why)| (ago, why.to_owned()));
    GroupView { replicas, takeovers, last_takeover, moves, filled, name }
}

/// The values of a family that are not 0, by a label.
fn by(families: &[MetricFamily], name: &str, by: &str) -> BTreeMap<String, f64> {
    let family = families.iter().filter(|family| family.name() == name);
    let metrics = family.flat_map(MetricFamily::get_metric);
    let named = metrics.filter_map(|metric| Some((label(metric, by)?.to_owned(), value(metric))));
    named.filter(|(_, value)| *value > 0.0).collect()
}

/// The mean of a histogram.
fn mean(families: &[MetricFamily], name: &str) -> Option<f64> {
    let histogram =
        families.iter().find(|family| family.name() == name)?.get_metric().first()?.get_histogram();
    let count = histogram.get_sample_count();
    (count > 0).then(|| histogram.get_sample_sum() / count as f64)
}

/// The problems that groups have now. As many as the metric has children, so bounded like it.
fn warnings(families: &[MetricFamily]) -> impl Iterator<Item = Warning> {
    let family = families.iter().filter(|family| family.name() == "promdedup_group_health");
    let there = family.flat_map(MetricFamily::get_metric).filter(|metric| value(metric) > 0.0);
    there.filter_map(|metric| {
        let (group, reason) = (label(metric, "group")?.to_owned(), label(metric, "reason")?.to_owned());
        let advice = health::advice(&reason)?;
        Some(Warning { group, reason, advice })
    })
}

/// Since the start.
fn samples(figures: &Figures) -> Value {
    json!({
        "received": figures.received,
        "forwarded": figures.forwarded,
        "duplicate": figures.duplicate,
        "refused": figures.refused,
        "rejected": figures.rejected,
        "failed": figures.failed,
        "filled": figures.filled,
    })
}

/// Since the start. What was refused, or had to come again, is in `in` and maybe in `out`, but not in `saved`, which therefore is not
/// what is between them.
fn bytes(figures: &Figures) -> Value {
    json!({ "in": figures.compressed_in, "out": figures.compressed_out, "saved": figures.saved_bytes() })
}

fn json(overhead: &Overhead, measured: Duration) -> Value {
    json!({
        "measured_seconds": measured.as_secs_f64(),
        "saved_upstream": {
            "bytes_per_day": overhead.saved_bytes_per_day,
            "samples_per_day": overhead.saved_samples_per_day,
        },
        "duplicates_cost": {
            "bytes_per_day": overhead.duplicate_bytes_per_day,
            "cpu_seconds_per_day": overhead.duplicate_cpu_seconds_per_day,
        },
        "cpu_nanoseconds_per_sample": overhead.cpu_ns_per_sample,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::{IntCounter, IntGaugeVec, Opts};

    #[test]
    fn a_problem_of_a_group_is_a_warning_with_advice() {
        let registry = Registry::new();
        let problems =
            IntGaugeVec::new(Opts::new("promdedup_group_health", "x"), &["group", "reason"]).unwrap();
        registry.register(Box::new(problems.clone())).unwrap();
        problems.with_label_values(&["g", "clock"]).set(1);
        problems.with_label_values(&["g", "one_replica"]).set(0);
        let found: Vec<_> = warnings(&registry.gather()).collect();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((&found[0].group[..], &found[0].reason[..]), ("g", "clock"));
        assert!(found[0].advice.contains("NTP"), "{found:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn figures_a_day_are_those_of_the_last_hour() {
        let registry = Registry::new();
        let received = IntCounter::new("promdedup_duplicate_bytes_total", "x").unwrap();
        registry.register(Box::new(received.clone())).unwrap();
        let status = Arc::new(Status::new(Mode::Dedup, registry, Arc::default()));
        let remembering = Arc::clone(&status);
        tokio::spawn(async move { remembering.remember().await });
        let a_day = || {
            let figures = Figures::of(&status.registry.gather());
            let (since, earlier) = status.remembered.lock().unwrap()[0];
            (
                since.elapsed().as_secs(),
                figures.since(&earlier, since.elapsed()).duplicate_bytes_per_day.round(),
            )
        };
        received.inc_by(1_000);
        sleep(Duration::from_secs(600)).await;
        assert_eq!(a_day(), (600, 144_000.0), "since the start");
        sleep(Duration::from_secs(3_590)).await;
        let (seconds, bytes) = a_day();
        assert!((3_540..=3_600).contains(&seconds) && bytes == 0.0, "{seconds} s, {bytes}");
        assert_eq!(status.remembered.lock().unwrap().len(), REMEMBERED_MAX);
    }
}

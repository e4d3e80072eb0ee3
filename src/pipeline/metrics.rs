//! What the pipeline counts: samples by outcome, bytes by stage, changes of owner, and the window's size.
//!
//! Counted once a request, on children that were looked up once. Labels are bounded: at most 1,000 groups of
//! 8 replicas, what lies beyond is `_other`. Children are there at 0 as soon as their labels are known.

use super::judge::Judged;
use super::request::{Fate, Request};
use super::tally::{BoundsHit, TAKEOVERS, Tallies};
use crate::overhead::{CpuTime, GROUPS_MAX, OTHER, REPLICAS_MAX};
use crate::policy::ReplicaId;
use crate::telemetry::{LimitHits, Refusals};
use crate::window::Window;
use dashmap::DashMap;
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};
use std::ops::Range;
use std::sync::Arc;

/// Why a conflict was no loss.
const BENIGN: [&str; 5] = ["retry", "takeover", "first_contact", "exemplars", "split"];

/// The counters of the pipeline.
#[derive(Debug)]
pub struct Metrics {
    received: IntCounterVec,
    samples: IntCounterVec,
    filled: IntCounterVec,
    takeovers: IntCounterVec,
    target_moves: IntCounterVec,
    waits: IntCounterVec,
    duplicate_bytes: IntCounterVec,
    benign: IntCounterVec,
    compressed_in: IntCounter,
    raw_in: IntCounter,
    raw_out: IntCounter,
    compressed_out: IntCounter,
    unreadable: IntCounter,
    pub(super) flights_hit: IntCounter,
    held_histograms_hit: IntCounter,
    pub(super) body_hit: IntCounter,
    pub(super) request_items_hit: IntCounter,
    pub(super) memory_hit: IntCounter,
    /// Labels, series, groups, replicas.
    bounds_hit: [IntCounter; 4],
    pub(super) cpu: CpuTime,
    pub(super) refusals: Arc<Refusals>,
    children: DashMap<(u32, Option<ReplicaId>), Arc<Children>>,
}

/// The children of one replica.
#[derive(Debug)]
struct Children {
    received: IntCounter,
    forwarded: IntCounter,
    duplicate: IntCounter,
    refused: IntCounter,
    rejected: IntCounter,
    failed: IntCounter,
    filled: IntCounter,
    takeovers: [IntCounter; 4],
    target_moves: IntCounter,
    jump_waits: IntCounter,
    first_contact_waits: IntCounter,
    duplicate_bytes: IntCounter,
}

impl Metrics {
    /// Registers the counters. `cpu` is told what each request has taken.
    pub fn register(
        registry: &Registry,
        cpu: &CpuTime,
        limits: &LimitHits,
    ) -> Result<Self, prometheus::Error> {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        let bytes = counters("promdedup_body_bytes_total", "Bytes of request bodies, by stage.", &["stage"])?;
        let unreadable = IntCounter::new(
            "promdedup_observe_unreadable_total",
            "Requests that observe mode passed on and that deduplication would have answered 400, 413 or 415 as a whole.",
        )?;
        registry.register(Box::new(unreadable.clone()))?;
        Ok(Self {
            received: counters(
                "promdedup_samples_received_total",
                "Samples in valid requests, once per delivery.",
                &["group", "replica"],
            )?,
            samples: counters(
                "promdedup_samples_total",
                "Samples by what became of them; the sum over outcomes is what was received.",
                &["group", "replica", "outcome"],
            )?,
            filled: counters(
                "promdedup_samples_filled_total",
                "Held samples that were sent into a gap of the owner.",
                &["group"],
            )?,
            takeovers: counters(
                "promdedup_takeovers_total",
                "Series that changed their owner, by reason.",
                &["group", "reason"],
            )?,
            target_moves: counters(
                "promdedup_target_moves_total",
                "Targets that changed their owner; 0 in a healthy group.",
                &["group"],
            )?,
            waits: counters(
                "promdedup_waits_total",
                "Requests answered 503 to let older data of another replica pass first.",
                &["group", "replica", "reason"],
            )?,
            duplicate_bytes: counters(
                "promdedup_duplicate_bytes_total",
                "Compressed bytes that carried only duplicates, and were acknowledged: their share of the request's body.",
                &["group", "replica"],
            )?,
            benign: counters(
                "promdedup_benign_conflicts_total",
                "Conflicts (409) of the upstream that were no loss and were answered 204, by reason.",
                &["group", "reason"],
            )?,
            compressed_in: bytes.with_label_values(&["compressed_in"]),
            raw_in: bytes.with_label_values(&["raw_in"]),
            raw_out: bytes.with_label_values(&["raw_out"]),
            compressed_out: bytes.with_label_values(&["compressed_out"]),
            unreadable,
            flights_hit: limits.of("flights"),
            held_histograms_hit: limits.of("held_histograms"),
            body_hit: limits.of("body"),
            request_items_hit: limits.of("request_items"),
            memory_hit: limits.of("decoded"),
            bounds_hit: ["labels", "series", "groups", "replicas"].map(|limit| limits.of(limit)),
            cpu: cpu.clone(),
            refusals: Arc::default(),
            children: DashMap::new(),
        })
    }

    /// The same, telling these of what it refuses.
    #[must_use]
    pub fn telling(self, refusals: Arc<Refusals>) -> Self {
        Self { refusals, ..self }
    }

    pub(super) fn read(&self, compressed: usize, raw: usize) {
        self.compressed_in.inc_by(compressed as u64);
        self.raw_in.inc_by(raw as u64);
    }

    pub(super) fn sent(&self, raw: usize, compressed: usize) {
        self.raw_out.inc_by(raw as u64);
        self.compressed_out.inc_by(compressed as u64);
    }

    /// Counts a request that went on as it came.
    pub(super) fn observed(&self, readable: bool) {
        self.unreadable.inc_by(u64::from(!readable));
    }

    /// Counts a conflict that was no loss, for the group of the first sample aboard, or else of the first exemplar that has none.
    pub(super) fn benign(
        &self,
        request: &mut Request,
        units: &Range<usize>,
        judged: &Judged,
        reason: &str,
        window: &Window,
    ) {
        let aboard = |first: u32, count: u32| {
            request.fates[first as usize..(first + count) as usize].contains(&Fate::Aboard)
        };
        let unit = units.clone().find(|u| aboard(request.units[*u].first, request.units[*u].count));
        let exemplar = || judged.exemplars.iter().map(|u| *u as usize).find(|u| units.contains(u));
        let item = unit.or_else(exemplar).map(|u| request.units[u].item as usize);
        let tally = item.map(|item| request.items[item].tally);
        let group = tally.map_or(Tallies::NO_GROUP, |tally| request.tallies.of(tally).group);
        let (group, _) = names(group, None, window);
        self.benign.with_label_values(&[&group, reason]).inc();
    }

    /// Counts a request at its end.
    pub(super) fn count(&self, request: &Request, compressed: usize, window: &Window) {
        // Metadata that upstream knows is no series' own, and stays here like the duplicates: all have their part of it.
        let raw = request.body.len().saturating_sub(request.metadata_known_bytes).max(1) as u64;
        let BoundsHit { labels, series, groups, replicas } = request.hit;
        for (counter, count) in self.bounds_hit.iter().zip([labels, series, groups, replicas]) {
            counter.inc_by(count);
        }
        for tally in request.tallies.iter() {
            let children = self.children(tally.group, tally.replica, window);
            let counts = [
                (&children.forwarded, tally.forwarded),
                (&children.duplicate, tally.duplicate),
                (&children.refused, tally.refused),
                (&children.rejected, tally.rejected),
                (&children.failed, tally.failed),
                (&children.filled, tally.filled),
                (&children.target_moves, tally.moves),
                (&children.jump_waits, u64::from(tally.waits)),
                (&children.first_contact_waits, u64::from(tally.held_back)),
                (&children.duplicate_bytes, tally.duplicate_bytes * compressed as u64 / raw),
                (&children.received, tally.samples()),
                (&self.held_histograms_hit, tally.unheld),
            ];
            for (counter, count) in counts {
                if count > 0 {
                    counter.inc_by(count);
                }
            }
            for (counter, count) in children.takeovers.iter().zip(tally.takeovers) {
                counter.inc_by(count);
            }
        }
    }

    fn children(&self, group: u32, replica: Option<ReplicaId>, window: &Window) -> Arc<Children> {
        // One set of children for all that have no names of their own, so that this table is bounded, too.
        let group = if group == Tallies::NO_GROUP { group } else { group.min(GROUPS_MAX) };
        let replica = replica.map(|id| ReplicaId(id.0.min(REPLICAS_MAX)));
        if let Some(children) = self.children.get(&(group, replica)) {
            return Arc::clone(&children);
        }
        let (g, r) = names(group, replica, window);
        let (g, r) = (g.as_str(), r.as_str());
        BENIGN.iter().for_each(|reason| drop(self.benign.with_label_values(&[g, reason])));
        let outcome = |outcome| self.samples.with_label_values(&[g, r, outcome]);
        let children = Arc::new(Children {
            received: self.received.with_label_values(&[g, r]),
            forwarded: outcome("forwarded"),
            duplicate: outcome("duplicate"),
            refused: outcome("refused"),
            rejected: outcome("rejected"),
            failed: outcome("failed"),
            filled: self.filled.with_label_values(&[g]),
            takeovers: TAKEOVERS.map(|reason| self.takeovers.with_label_values(&[g, reason])),
            target_moves: self.target_moves.with_label_values(&[g]),
            jump_waits: self.waits.with_label_values(&[g, r, "jump"]),
            first_contact_waits: self.waits.with_label_values(&[g, r, "first_contact"]),
            duplicate_bytes: self.duplicate_bytes.with_label_values(&[g, r]),
        });
        self.children.insert((group, replica), Arc::clone(&children));
        children
    }
}

/// The label values of a group and a replica, bounded.
fn names(group: u32, replica: Option<ReplicaId>, window: &Window) -> (String, String) {
    let known = (group < GROUPS_MAX).then(|| window.groups().group(group)).flatten();
    let Some(known) = known else {
        // No group at all: labels that no series may have.
        let name = if group == Tallies::NO_GROUP && replica.is_none() { "" } else { OTHER };
        return (name.to_owned(), name.to_owned());
    };
    let replica = replica.filter(|id| id.0 < REPLICAS_MAX).and_then(|id| known.replica(id));
    (known.name().to_owned(), replica.map_or_else(|| OTHER.to_owned(), |r| r.name().to_owned()))
}

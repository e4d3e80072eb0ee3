//! Models of the window's atomics: loom tries every order of their steps, and every value that a load may still see.
//!
//! Built only under `--cfg model` (the command is in CONTRIBUTING.md), where `sync.rs` names loom's types. A model runs
//! two or three threads for a few steps each, asserts in each schedule, and says at its end which outcomes the schedules
//! had, so that none passes because nothing met. A thread that would wait for ever is a deadlock to loom, and fails.
//! Refuses threads that run into each other more often than a model's bound of preemptions: a schedule takes at most that
//! many switches away from a thread that could go on (`LOOM_MAX_PREEMPTIONS` overrides it).

mod admission;
mod claims;
mod endings;
mod flights;
mod lookups;
mod owners;
mod reuse;

use super::*;
use crate::policy::{Action, Circumstances, Sample, TimestampMs};
use crate::series::{Place, TenantHash};
use loom::future::block_on;
use loom::thread::{JoinHandle, spawn};
use std::collections::BTreeSet;
// Of the standard library: loom neither sees them nor orders anything by them.
use std::sync::Mutex as Unseen;
use std::sync::atomic::AtomicUsize as Uncounted;

const A: ReplicaId = ReplicaId(0);
const B: ReplicaId = ReplicaId(1);

/// The outcomes that the schedules of a model have had.
#[derive(Clone, Default)]
struct Seen(Arc<Unseen<BTreeSet<String>>>);

impl Seen {
    fn note(&self, outcome: impl Into<String>) {
        self.0.lock().unwrap().insert(outcome.into());
    }
}

/// Runs a model in all schedules of at most so many preemptions, which have to have had all these outcomes and no other.
fn check(preemptions: usize, outcomes: &[&str], model: impl Fn(&Seen) + Send + Sync + 'static) {
    let seen = Seen::default();
    let schedules = Arc::new(Uncounted::new(0));
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(preemptions);
    builder.max_branches = 20_000;
    let bound = builder.preemption_bound;
    let begun = std::time::Instant::now();
    let (noted, counted) = (seen.clone(), Arc::clone(&schedules));
    builder.check(move || {
        counted.fetch_add(1, Relaxed);
        model(&noted);
    });
    let schedules = schedules.load(Relaxed);
    println!("{schedules} schedules with at most {bound:?} preemptions in {:.1?}", begun.elapsed());
    let outcomes: BTreeSet<String> = outcomes.iter().map(|outcome| (*outcome).to_owned()).collect();
    assert_eq!(*seen.0.lock().unwrap(), outcomes, "the outcomes of {schedules} schedules");
}

/// Catches two threads that are in a place for one.
#[derive(Debug, Default)]
struct Alone(std::sync::atomic::AtomicBool);

impl Alone {
    fn enter(&self) {
        assert!(!self.0.swap(true, SeqCst), "two at once");
    }

    fn leave(&self) {
        self.0.store(false, SeqCst);
    }
}

/// A window, and what models need to say in few words.
#[derive(Clone)]
struct Story {
    window: Arc<Window>,
    group: u32,
}

impl Story {
    fn new(series_max: usize) -> Self {
        let window = Arc::new(Window::new(series_max));
        let group = window.meet_group(GroupKey(1), "k8s", TenantHash(0), 0).unwrap().number();
        for (name, replica) in [("a", A), ("b", B)] {
            assert_eq!(window.replica_number(group, name), Some(replica));
        }
        Self { window, group }
    }

    /// A window that has forwarded a sample of A's of series 9 at 0 s.
    fn with_a_series(series_max: usize) -> Self {
        let story = Self::new(series_max);
        let mut flight = story.flight();
        assert!(story.decide(&mut flight, 9, A, 0).forwarded());
        flight.commit();
        story
    }

    fn flight(&self) -> Flight {
        Flight::begin(&self.window, Log::default()).expect("a number for the flight")
    }

    fn find(&self, series: u128) -> u32 {
        self.window.find(SeriesKey(series))
    }

    fn admit(&self, flight: &mut Flight, series: u128, replica: ReplicaId) -> u32 {
        let place = Place {
            group: GroupKey(1),
            group_name: "k8s".into(),
            target: TargetKey(1),
            tenant: TenantHash(0),
            is_up: false,
        };
        match flight.admit(SeriesKey(series), &place, replica, self.group) {
            Admitted::Entry(number) => number,
            Admitted::Full => panic!("full"),
        }
    }

    /// Decides a sample of a series, adding it where it is unknown.
    fn decide(&self, flight: &mut Flight, series: u128, replica: ReplicaId, second: i64) -> Decision {
        let number = match self.find(series) {
            UNKNOWN => self.admit(flight, series, replica),
            number => number,
        };
        self.decide_at(flight, number, series, replica, second)
    }

    fn decide_at(
        &self,
        flight: &mut Flight,
        number: u32,
        series: u128,
        replica: ReplicaId,
        second: i64,
    ) -> Decision {
        let known = Known { number, key: SeriesKey(series), group: self.group, histogram: None };
        let at = TimestampMs(second * 1000);
        let sample = Sample { replica, at, payload: second as u64, stale: false, up: None };
        let circumstances = Circumstances::default();
        flight.decide(known, &sample, circumstances, |_, _| false)
    }

    /// What a window at rest holds of a series: its watermark and held samples in seconds.
    fn rest(&self, series: u128) -> Option<(i64, Vec<i64>)> {
        let number = self.find(series);
        if number == UNKNOWN {
            return None;
        }
        let entry = self.window.table.entry(number);
        assert_eq!(entry.guard().flight(), entry::NOBODY, "still claimed");
        let kept = entry.load().series;
        let held = kept.held.iter().flatten().map(|held| {
            assert_eq!(held.payload as i64 * 1000, held.at.0, "another sample's value");
            held.at.0 / 1000
        });
        Some((kept.watermark.expect("a series at rest was born").0 / 1000, held.collect()))
    }
}

impl Decision {
    fn forwarded(&self) -> bool {
        matches!(self, Self::Decided { verdict, .. } if verdict.action == Action::Forward)
    }
}

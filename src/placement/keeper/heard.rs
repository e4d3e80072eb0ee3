//! What the keeper has heard of the database and of the other instances, for those who look at it.
//!
//! Decides nothing: placement does not depend on it.

use super::Keeper;
use crate::placement::shown::{DatabaseHealth, OtherInstance, Shown};
use crate::placement::store::{Instance, StoreError};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::time::Instant;

#[derive(Debug)]
pub(super) struct Heard(Mutex<Known>);

#[derive(Debug)]
struct Known {
    /// `None`: it was not asked yet.
    up: Option<bool>,
    since: Instant,
    error: Option<String>,
    heartbeat: Option<Instant>,
    load: f64,
    others: Vec<Instance>,
}

impl Heard {
    pub(super) fn new(now: Instant) -> Self {
        let (error, heartbeat, others) = (None, None, Vec::new());
        Self(Mutex::new(Known { up: None, since: now, error, heartbeat, load: 0.0, others }))
    }

    /// The database has answered, or it has not.
    pub(super) fn database(&self, answer: Result<(), &StoreError>, now: Instant) {
        let mut known = self.known();
        let up = answer.is_ok();
        if known.up != Some(up) {
            known.since = now;
        }
        known.up = Some(up);
        known.error = answer.err().map(ToString::to_string);
    }

    /// What this instance's groups bring, whoever hears of it.
    pub(super) fn load(&self, load: f64) {
        self.known().load = load;
    }

    /// A heartbeat was answered.
    pub(super) fn pulse(&self, others: &[Instance], now: Instant) {
        let mut known = self.known();
        known.heartbeat = Some(now);
        known.others = others.to_vec();
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keeper {
    /// Placement as this instance has it now, with at most so many of its groups and of the others.
    #[must_use]
    pub fn shown(&self, groups_max: usize, others_max: usize) -> Shown {
        let now = Instant::now();
        let (groups, groups_left_out, of_others) = self.cache.shown(groups_max, now);
        let known = self.heard.known();
        let age = |at: Instant| now.saturating_duration_since(at);
        let database = DatabaseHealth {
            up: known.up,
            lasting: age(known.since),
            heartbeat: known.heartbeat.map(age),
            error: known.error.clone(),
        };
        let (samples_per_second, mut others) = (known.load, known.others.clone());
        drop(known);
        others.sort_unstable_by(|a, b| (&a.peer.url, &a.peer.id).cmp(&(&b.peer.url, &b.peer.id)));
        let others_left_out = others.len().saturating_sub(others_max);
        let others = others.into_iter().take(others_max).map(|other| OtherInstance {
            groups_known: of_others.get(&other.peer.id).copied().unwrap_or(0),
            hops_failed: self.failed_hops.get(&other.peer.id).map_or(0, |failed| *failed),
            samples_per_second: other.load,
            draining: other.draining,
            peer: other.peer,
        });
        Shown {
            me: self.me.clone(),
            samples_per_second,
            draining: self.is_draining(),
            database,
            others: others.collect(),
            others_left_out,
            groups,
            groups_left_out,
        }
    }
}

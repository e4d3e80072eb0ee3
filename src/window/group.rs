//! HA groups and their replicas by number, and what is counted of them in place.
//!
//! A group is found when one of its series is born, a replica of it once a request. Both tables only grow, up to a
//! bound: beyond it a newcomer is not deduplicated. Refuses to know series.

use super::front::Fronts;
use super::sync::{AtomicI64, DashMap, Mutex, RwLock};
use crate::policy::{ReplicaId, TimestampMs};
use crate::series::GroupKey;
use std::sync::atomic::Ordering::*;
use std::sync::{Arc, PoisonError};

/// Groups of all tenants.
pub const GROUPS_MAX: usize = 1 << 16;
/// Replicas of one group.
pub const REPLICAS_MAX: usize = 255;

/// All groups ever seen.
#[derive(Debug, Default)]
pub struct Groups {
    numbers: DashMap<GroupKey, u32>,
    groups: RwLock<Vec<Arc<Group>>>,
}

/// One HA group of one tenant.
#[derive(Debug)]
pub struct Group {
    name: Box<str>,
    /// When the window saw it for the first time, in ms of the wall clock.
    born_ms: i64,
    replicas: RwLock<Vec<Arc<Replica>>>,
    fronts: Mutex<Fronts>,
}

/// One replica of a group.
#[derive(Debug)]
pub struct Replica {
    name: Box<str>,
    owned: AtomicI64,
    last_seen_ms: AtomicI64,
}

impl Groups {
    /// The group's number, adding it if it is new; `None` at the bound.
    pub(super) fn number(&self, key: GroupKey, name: &str, now_ms: i64) -> Option<u32> {
        if let Some(number) = self.numbers.get(&key) {
            return Some(*number);
        }
        let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
        if groups.len() >= GROUPS_MAX {
            return None;
        }
        Some(*self.numbers.entry(key).or_insert_with(|| {
            groups.push(Arc::new(Group {
                name: name.into(),
                born_ms: now_ms,
                replicas: RwLock::default(),
                fronts: Mutex::default(),
            }));
            groups.len() as u32 - 1
        }))
    }

    /// The group with a number that the window gave.
    pub fn group(&self, number: u32) -> Option<Arc<Group>> {
        self.groups.read().unwrap_or_else(PoisonError::into_inner).get(number as usize).cloned()
    }

    /// All groups, for `/metrics`.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Group>> {
        self.groups.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Group {
    /// The values of the group labels joined by `/`, empty ones left out.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How long the window has known it, in ms.
    #[must_use]
    pub fn age_ms(&self, now_ms: i64) -> i64 {
        now_ms.saturating_sub(self.born_ms)
    }

    /// Notes how far a replica has come: see `front.rs`.
    pub fn note_front(&self, replica: ReplicaId, at: TimestampMs, works: bool, now_ms: i64) {
        self.fronts.lock().unwrap_or_else(PoisonError::into_inner).note(replica, at, works, now_ms);
    }

    /// The oldest time that another replica still sends.
    #[must_use]
    pub fn oldest_other(&self, replica: ReplicaId, now_ms: i64) -> Option<TimestampMs> {
        self.fronts.lock().unwrap_or_else(PoisonError::into_inner).oldest_other(replica, now_ms)
    }

    /// The replica's number, adding it if it is new; `None` at the bound.
    pub(super) fn replica_number(&self, name: &str) -> Option<ReplicaId> {
        let known = |replicas: &[Arc<Replica>]| replicas.iter().position(|r| *r.name == *name);
        if let Some(i) = known(&self.replicas.read().unwrap_or_else(PoisonError::into_inner)) {
            return Some(ReplicaId(i as u8));
        }
        let mut replicas = self.replicas.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(i) = known(&replicas) {
            return Some(ReplicaId(i as u8));
        }
        if replicas.len() >= REPLICAS_MAX {
            return None;
        }
        let (owned, last_seen_ms) = (AtomicI64::new(0), AtomicI64::new(i64::MIN));
        replicas.push(Arc::new(Replica { name: name.into(), owned, last_seen_ms }));
        Some(ReplicaId(replicas.len() as u8 - 1))
    }

    /// The replica with a number that the window gave.
    #[must_use]
    pub fn replica(&self, id: ReplicaId) -> Option<Arc<Replica>> {
        self.replicas.read().unwrap_or_else(PoisonError::into_inner).get(usize::from(id.0)).cloned()
    }

    /// All replicas, for `/metrics`.
    #[must_use]
    pub fn replicas(&self) -> Vec<Arc<Replica>> {
        self.replicas.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn own(&self, id: ReplicaId, series: i64) {
        if let Some(replica) = self.replica(id) {
            replica.owned.fetch_add(series, Relaxed);
        }
    }
}

impl Replica {
    /// The replica label's value.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Series that it owns now.
    #[must_use]
    pub fn owned(&self) -> i64 {
        self.owned.load(Relaxed)
    }

    /// The newest sample time it has shown, in ms.
    #[must_use]
    pub fn last_seen_ms(&self) -> Option<i64> {
        let ms = self.last_seen_ms.load(Relaxed);
        (ms != i64::MIN).then_some(ms)
    }

    /// Notes a sample time.
    pub fn see(&self, ms: i64) {
        self.last_seen_ms.fetch_max(ms, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_and_replicas_keep_their_numbers() {
        let groups = Groups::default();
        assert_eq!(groups.number(GroupKey(5), "e2e/k8s", 0), Some(0));
        assert_eq!(groups.number(GroupKey(6), "x", 0), Some(1));
        assert_eq!(groups.number(GroupKey(5), "e2e/k8s", 0), Some(0));
        let group = groups.group(0).unwrap();
        assert_eq!(group.name(), "e2e/k8s");
        for i in 0..REPLICAS_MAX {
            assert_eq!(group.replica_number(&format!("r{i}")), Some(ReplicaId(i as u8)));
        }
        assert_eq!(group.replica_number("one too many"), None);
        assert_eq!(group.replica_number("r3"), Some(ReplicaId(3)));
    }
}

//! All HA groups by number: who gets a number, and when it is another group's.
//!
//! A tenant may have as many groups as there are numbers left, so one alone gets half of them, who comes then half of the rest, and
//! who has none gets one for as long as there are any. A group that nobody has met for an hour, of which no series is left, gives its number
//! back. Until then a number is pinned by whoever holds the group (a request holds those of its series until its end) and by
//! each series of it: so who reads a number and means the group behind it takes hold of that, and then sees that he still means it.
//! Refuses to know series, and what is known of a group.

use super::group::Group;
use super::sync::{DashMap, RwLock, size};
use super::tenant::Tenants;
use crate::series::{GroupKey, TenantHash};
use std::sync::{Arc, PoisonError};

/// Groups of all tenants.
pub const GROUPS_MAX: usize = 1 << 16;
/// So many groups, the first ones, keep their numbers for good: metrics that are never taken back name them.
pub const GROUPS_KEPT: u32 = size::GROUPS_KEPT;
/// So many groups are taken hold of at a time, to be looked at without a lock.
const STEP: usize = 256;

/// All groups.
#[derive(Debug, Default)]
pub struct Groups {
    /// Changes under the lock of `places` only.
    numbers: DashMap<GroupKey, u32>,
    places: RwLock<Places>,
}

/// Groups by number.
#[derive(Debug, Default)]
struct Places {
    groups: Vec<Option<Arc<Group>>>,
    /// Numbers without a group.
    free: Vec<u32>,
}

impl Places {
    fn left(&self) -> usize {
        GROUPS_MAX - self.groups.len() + self.free.len()
    }

    fn get(&self, number: u32) -> Option<Arc<Group>> {
        self.groups.get(number as usize)?.clone()
    }
}

impl Groups {
    /// The group, adding it if it is new; `None` if its tenant has as many as it may. `now_ms`: the wall clock.
    pub(super) fn meet(
        &self,
        key: GroupKey,
        name: &str,
        tenant: TenantHash,
        tenants: &Tenants,
        now_ms: i64,
    ) -> Option<Arc<Group>> {
        let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = self.numbers.get(&key).map(|number| *number) {
            return places.get(number);
        }
        // Whoever makes groups up without end must not lock others out.
        if !tenants.may_take_group(tenant, places.left()) {
            return None;
        }
        drop(places);
        let mut places = self.places.write().unwrap_or_else(PoisonError::into_inner);
        let known = self.numbers.get(&key).map(|number| *number);
        if let Some(known) = known.and_then(|number| places.get(number)) {
            return Some(known);
        }
        let tenant = tenants.take_group(tenant, places.left())?;
        let number = places.free.pop().unwrap_or(places.groups.len() as u32);
        let group = Arc::new(Group::new(key, number, name, tenant, now_ms));
        if number as usize == places.groups.len() {
            places.groups.push(None);
        }
        places.groups[number as usize] = Some(Arc::clone(&group));
        self.numbers.entry(key).or_insert_with(|| number);
        Some(group)
    }

    /// The group that has the number now, if there is one.
    pub fn group(&self, number: u32) -> Option<Arc<Group>> {
        self.places.read().unwrap_or_else(PoisonError::into_inner).get(number)
    }

    /// The group, if it is known.
    pub(super) fn known(&self, key: GroupKey) -> Option<Arc<Group>> {
        // No number changes hands while this is locked.
        let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
        let number = self.numbers.get(&key).map(|number| *number)?;
        places.get(number)
    }

    /// All groups, in the order of their numbers.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Group>> {
        self.places.read().unwrap_or_else(PoisonError::into_inner).groups.iter().flatten().cloned().collect()
    }

    /// Shows all groups to `look`, in the order of their numbers, without a lock. One that comes or goes meanwhile may be left out.
    pub fn each(&self, mut look: impl FnMut(&Group)) {
        let mut some = Vec::with_capacity(STEP);
        for from in (0..GROUPS_MAX).step_by(STEP) {
            let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
            let Some(rest) = places.groups.get(from..).filter(|rest| !rest.is_empty()) else { return };
            some.extend(rest.iter().take(STEP).flatten().cloned());
            drop(places);
            some.drain(..).for_each(|group: Arc<Group>| look(&group));
        }
    }

    /// Gives back, among `count` numbers from `from` on, those of groups that nobody would miss. Returns the number to go on
    /// from; 0 when all have been looked at.
    #[cfg_attr(model, expect(clippy::unnecessary_min_or_max, reason = "a model keeps none"))]
    pub(super) fn give_back(&self, from: u32, count: u32, tenants: &Tenants, now_ms: i64) -> u32 {
        let mut gone = Vec::new();
        let mut places = self.places.write().unwrap_or_else(PoisonError::into_inner);
        let used = places.groups.len() as u32;
        let end = used.min(from.saturating_add(count));
        for number in from.max(GROUPS_KEPT)..end {
            let place = &mut places.groups[number as usize];
            // Held by this table alone, and that is locked: nobody can take hold of it. So what others did while they held
            // it is seen here, and nobody can give it a series.
            let idle = |group: &mut Arc<Group>| {
                group.is_idle(now_ms) && Arc::get_mut(group).is_some_and(|group| group.is_idle(now_ms))
            };
            let Some(group) = place.take_if(idle) else { continue };
            self.numbers.remove_if(&group.key(), |_, n| *n == number);
            tenants.give_group(group.tenant());
            places.free.push(number);
            gone.push(group);
        }
        drop(places);
        if end == used { 0 } else { end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: i64 = 60 * 60 * 1000;

    struct Known {
        groups: Groups,
        tenants: Tenants,
    }

    impl Default for Known {
        fn default() -> Self {
            Self { groups: Groups::default(), tenants: Tenants::new(0) }
        }
    }

    impl Known {
        fn meet(&self, key: u128, tenant: u128, now_ms: i64) -> Option<Arc<Group>> {
            self.groups.meet(GroupKey(key), "g", TenantHash(tenant), &self.tenants, now_ms)
        }

        fn give_back(&self, now_ms: i64) {
            assert_eq!(self.groups.give_back(0, u32::MAX, &self.tenants, now_ms), 0);
        }

        /// How many groups of its own the tenant gets. Keys of tenants lie apart.
        fn flood(&self, tenant: u128) -> usize {
            (0..GROUPS_MAX).filter(|i| self.meet(tenant << 64 | *i as u128, tenant, 0).is_some()).count()
        }
    }

    #[test]
    fn groups_keep_their_numbers() {
        let known = Known::default();
        let numbers = [5, 6, 5].map(|key| known.meet(key, 0, 0).map(|group| group.number()));
        assert_eq!(numbers, [Some(0), Some(1), Some(0)]);
        assert_eq!(known.groups.group(1).unwrap().key(), GroupKey(6));
        assert!(known.groups.group(2).is_none() && known.groups.known(GroupKey(7)).is_none());
    }

    #[test]
    fn a_tenant_takes_no_more_groups_than_it_leaves_others_and_those_known_go_on() {
        let known = Known::default();
        assert_eq!(known.flood(1), GROUPS_MAX / 2);
        assert_eq!(known.flood(2), GROUPS_MAX / 4);
        assert_eq!(known.flood(3), GROUPS_MAX / 8);
        assert!(known.meet(1 << 64 | 7, 1, 0).is_some(), "it is known");
        assert!(known.meet(1 << 64 | 1 << 20, 1, 0).is_none());
        assert!(
            (4..4_000).all(|tenant| known.meet(tenant << 64, tenant, 0).is_some()),
            "who has none gets one"
        );
        let mut seen = 0;
        known.groups.each(|group| {
            assert_eq!(group.number(), seen);
            seen += 1;
        });
        assert_eq!((seen as usize, known.groups.all().len()), (GROUPS_MAX / 8 * 7 + 3_996, seen as usize));
    }

    #[test]
    fn a_number_that_nobody_misses_is_given_back_and_used_again() {
        let known = Known::default();
        let kept = u128::from(GROUPS_KEPT);
        for key in 0..kept + 4 {
            known.meet(key, key, 0);
        }
        let [with_series, held, met, gone] = [0, 1, 2, 3].map(|i| known.meet(kept + i, 0, 0).unwrap());
        with_series.gain();
        gone.gain();
        gone.lose();
        met.meet(1);
        let number = gone.number();
        drop((met, gone));
        known.give_back(HOUR_MS);
        assert_eq!(known.groups.all().len() as u128, kept + 4, "it may be in doubt still");
        known.give_back(HOUR_MS + 1);
        assert_eq!(known.groups.all().len() as u128, kept + 3);
        assert!(known.groups.group(number).is_none() && known.groups.known(GroupKey(kept + 3)).is_none());
        assert_eq!(known.tenants.known(), kept as usize + 3, "nor is its tenant known");
        assert_eq!(known.meet(9_999, 7, HOUR_MS + 1).unwrap().number(), number);
        // Those with a series and those that somebody holds stay; the others go.
        drop((with_series, held));
        known.give_back(9 * HOUR_MS);
        assert_eq!(known.groups.all().len() as u128, kept + 1, "names in metrics stay");
        assert!(known.groups.known(GroupKey(kept)).is_some());
    }

    #[test]
    fn who_has_left_may_take_as_many_again() {
        let known = Known::default();
        assert_eq!(known.flood(1), GROUPS_MAX / 2);
        known.give_back(HOUR_MS + 1);
        assert_eq!(known.groups.all().len(), GROUPS_KEPT as usize);
        // Those that were kept are among them.
        assert_eq!(known.flood(1), GROUPS_MAX / 2);
        assert_eq!(known.tenants.known(), 1);
    }
}

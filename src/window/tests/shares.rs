//! Fair shares of tenants in a full window.

use super::*;
use proptest::prelude::*;

const SERIES_MAX: usize = 60;

/// A window with tenants of one group each.
struct Shared {
    window: Arc<Window>,
    groups: Vec<u32>,
    born: u128,
}

impl Shared {
    fn new(tenants: usize) -> Self {
        let window = Arc::new(Window::new(SERIES_MAX));
        let group = |tenant: usize| {
            let group = window
                .meet_group(GroupKey(tenant as u128), "g", TenantHash(tenant as u128), 0)
                .unwrap()
                .number();
            assert_eq!(window.replica_number(group, "a"), Some(A));
            group
        };
        let groups = (0..tenants).map(group).collect();
        Self { window, groups, born: 0 }
    }

    /// A series of the tenant that nobody has met: whether the window takes it.
    fn bear(&mut self, tenant: usize) -> bool {
        self.born += 1;
        let (key, group) =
            (SeriesKey(xxhash_rust::xxh3::xxh3_128(&self.born.to_le_bytes())), self.groups[tenant]);
        let place = Place {
            group: GroupKey(tenant as u128),
            group_name: "g".into(),
            target: TargetKey(tenant as u128 * 8 + self.born % 8),
            tenant: TenantHash(tenant as u128),
            is_up: false,
        };
        let mut flight = Flight::begin(&self.window, Log::default()).unwrap();
        let Admitted::Entry(number) = flight.admit(key, &place, A, group) else { return false };
        let sample = Sample { replica: A, at: TimestampMs(1_000), payload: 0, stale: false, up: None };
        let known = Known { number, key, group, histogram: None };
        let decided = flight.decide(known, &sample, Circumstances::default(), |_, _| false);
        assert!(matches!(decided, Decision::Decided { .. }), "{decided:?}");
        flight.commit();
        true
    }

    /// A flight with the next samples of these entries of the first tenant.
    fn go_on(&self, numbers: impl Iterator<Item = u32>) -> Flight {
        let mut flight = Flight::begin(&self.window, Log::default()).unwrap();
        for number in numbers {
            let key = self.window.table.entry(number).key();
            let sample = Sample { replica: A, at: TimestampMs(16_000), payload: 0, stale: false, up: None };
            let known = Known { number, key, group: self.groups[0], histogram: None };
            flight.decide(known, &sample, Circumstances::default(), |_, _| false);
        }
        flight
    }

    fn series(&self) -> Vec<usize> {
        (0..self.groups.len()).map(|tenant| self.window.series_of(TenantHash(tenant as u128))).collect()
    }
}

#[test]
fn a_tenant_alone_may_have_all_of_it() {
    let mut shared = Shared::new(1);
    assert!((0..SERIES_MAX).all(|_| shared.bear(0)));
    assert!(!shared.bear(0));
    assert_eq!((shared.series(), shared.window.evictions(), shared.window.full()), (vec![SERIES_MAX], 0, 1));
}

#[test]
fn who_comes_to_a_full_window_gets_his_share_and_no_more() {
    let mut shared = Shared::new(3);
    assert_eq!((0..2 * SERIES_MAX).filter(|_| shared.bear(0)).count(), SERIES_MAX);
    let taken = (0..SERIES_MAX).filter(|_| shared.bear(1)).count();
    assert_eq!((taken, shared.series()), (30, vec![30, 30, 0]));
    let taken = (0..SERIES_MAX).filter(|_| shared.bear(2)).count();
    assert_eq!((taken, shared.series()), (20, vec![20, 20, 20]));
    assert!(!shared.bear(0), "it has its share");
    assert_eq!((shared.window.series(), shared.window.evictions()), (SERIES_MAX, 50));
    // What has been forgotten is nobody's any more.
    let owned = shared.window.groups().all().iter().map(|group| group.replicas()[0].owned()).sum::<i64>();
    assert_eq!(owned, SERIES_MAX as i64);
}

#[test]
fn what_a_flight_carries_stays() {
    let mut shared = Shared::new(2);
    assert!((0..SERIES_MAX).all(|_| shared.bear(0)));
    let flight = shared.go_on(0..SERIES_MAX as u32);
    assert!(!shared.bear(1), "all of it is in the air");
    flight.commit();
    assert!(shared.bear(1));
}

/// Or a series that is being sent would be forgotten, while those of instances that are gone for long stay.
#[test]
fn the_longest_untouched_makes_room() {
    const OLD: u32 = 20;
    const OLDEST: u32 = 30;
    let mut shared = Shared::new(2);
    assert!((0..SERIES_MAX).all(|_| shared.bear(0)));
    let keys = [OLD, OLDEST].map(|number| shared.window.table.entry(number).key());
    let known = |shared: &Shared| keys.map(|key| shared.window.find(key) != UNKNOWN);
    shared.window.advance_tick();
    shared.go_on((0..SERIES_MAX as u32).filter(|number| *number != OLDEST)).commit();
    shared.window.advance_tick();
    shared.go_on((0..SERIES_MAX as u32).filter(|number| ![OLD, OLDEST].contains(number))).commit();
    assert!(shared.bear(1));
    assert_eq!(known(&shared), [true, false]);
    assert!(shared.bear(1));
    assert_eq!(known(&shared), [false, false]);
}

proptest! {
    /// Whoever is at his share or below loses nothing to others; whoever asks below it is taken in; the bound holds.
    #[test]
    fn nobody_pushes_others_below_their_share(tenants in 1..6_usize, births in prop::collection::vec(0..6_usize, 1..400)) {
        let mut shared = Shared::new(tenants);
        for birth in births {
            let (tenant, before) = (birth % tenants, shared.series());
            let taken = shared.bear(tenant);
            let after = shared.series();
            let present = after.iter().filter(|series| **series > 0).count();
            let share = SERIES_MAX / present;
            prop_assert!(after.iter().sum::<usize>() <= SERIES_MAX);
            prop_assert_eq!(after.iter().sum::<usize>(), shared.window.series());
            prop_assert!(taken || before[tenant] >= share, "{:?} {}", before, tenant);
            for (other, (before, after)) in before.iter().zip(&after).enumerate() {
                prop_assert!(other == tenant || after == before || *after >= share, "{} of {}", after, before);
            }
        }
    }
}

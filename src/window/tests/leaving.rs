//! A group that another instance serves from now on.

use super::*;
use crate::policy::Action;

/// Two groups side by side; the second one's series are those from 100 on.
struct Two {
    story: Story,
    other: u32,
}

impl Two {
    fn new() -> Self {
        let story = Story::new(100);
        let other = story.window.meet_group(GroupKey(2), "other", TenantHash(0), 0).unwrap().number();
        story.window.replica_number(other, "a").unwrap();
        Self { story, other }
    }

    fn deliver_other(&self, series: u128) {
        let mut flight = self.story.flight();
        let place = Place {
            group: GroupKey(2),
            group_name: "other".into(),
            target: TargetKey(2),
            tenant: TenantHash(0),
            is_up: false,
        };
        let Admitted::Entry(number) = flight.admit(SeriesKey(series), &place, A, self.other) else {
            panic!()
        };
        let known = Known { number, key: SeriesKey(series), group: self.other, histogram: None };
        let sample = Sample { replica: A, at: TimestampMs(0), payload: 0, stale: false, up: None };
        flight.decide(known, &sample, Circumstances::default(), |_, _| false);
        flight.commit();
    }

    fn owned_of_other(&self) -> i64 {
        self.story.window.groups().group(self.other).unwrap().replica(A).unwrap().owned()
    }
}

#[test]
fn all_of_a_group_is_forgotten_and_nothing_of_another() {
    let two = Two::new();
    let story = &two.story;
    for (replica, second) in [(A, 0), (B, 6), (B, 21)] {
        let mut flight = story.flight();
        story.try_decide_kind(&mut flight, 9, replica, second, Some(b"histogram"));
        flight.commit();
    }
    for series in 1..=5 {
        story.deliver(series, A, 0);
        two.deliver_other(100 + series);
    }
    let group = story.window.groups().group(story.group).unwrap();
    let seen = Seen { request: 1, newest: TimestampMs(9), unsettled: Some(TimestampMs(9)), works: true };
    group.end_request(A, seen, 20_000);
    group.doubt(TimestampMs(9), 20_000);
    group.replica(A).unwrap().see(9, 20_000);
    assert!(story.window.histograms.bytes() > 0 && group.doubted(TimestampMs(9), 20_000).is_some());
    assert_eq!((story.owned()[0], two.owned_of_other(), story.window.target_count()), (6, 5, 2));

    let mut steps = 0;
    let mut from = 0;
    loop {
        from = story.window.forget_group(GroupKey(1), from, 4);
        steps += 1;
        if from == 0 {
            break;
        }
        assert!(!group.is_forgotten(), "not before its last entry");
    }
    assert_eq!((steps, story.window.series(), story.window.target_count()), (3, 5, 1));
    assert_eq!((story.owned(), two.owned_of_other()), (vec![0, 0], 5));
    assert_eq!((story.window.evictions(), story.window.histograms.bytes()), (0, 0));
    assert_eq!(story.number(3), UNKNOWN);
    assert_ne!(story.number(103), UNKNOWN);
    assert!(group.is_forgotten() && group.doubted(TimestampMs(9), 20_000).is_none());
    let replica = group.replica(A).unwrap();
    assert_eq!((replica.last_seen_ms(), replica.arrived_ms(), replica.take_arrivals()), (None, None, None));
    let others = group.others(B, 9, 20_000);
    assert_eq!((others.oldest, others.refused, others.slowest), (None, None, None));
}

/// A standby's samples are held. They are all there is of a gap once the owner is later than a healthy one comes.
#[test]
fn an_owner_that_is_overdue_is_seen_until_somebody_has_taken_over() {
    let two = Two::new();
    let story = &two.story;
    let overdue = |group| story.window.is_overdue(GroupKey(group), 0, u32::MAX, 0).0;
    for second in [0, 15, 30] {
        story.deliver(9, A, second);
        assert!(!overdue(1));
        story.deliver(9, B, second + 8);
        assert!(!overdue(1), "half an interval above");
    }
    story.deliver(9, B, 30 + 23);
    assert!(overdue(1) && !overdue(2) && !overdue(3), "it is this group's");
    assert_eq!(story.window.is_overdue(GroupKey(1), 0, 1, 0), (true, 0));
    story.deliver(10, A, 0);
    assert_eq!(story.window.is_overdue(GroupKey(1), 0, 1, 0), (true, 1), "by small steps");
    assert_eq!(story.window.is_overdue(GroupKey(1), 1, 1, 0), (false, 0));
    story.deliver(9, B, 30 + 38);
    assert!(!overdue(1), "upstream has all");
}

/// A standby that comes less than half an interval after its owner has shown two samples before it is that far above.
#[test]
fn an_owner_that_does_not_arrive_any_more_is_overdue_before() {
    let story = Story::new(10);
    let group = story.window.groups().group(story.group).unwrap();
    for second in [0, 15, 30] {
        story.deliver(9, A, second);
    }
    group.replica(A).unwrap().see(30_000, 30_000);
    let overdue = |second: i64| story.window.is_overdue(GroupKey(1), 0, u32::MAX, second * 1_000).0;
    assert!(!overdue(49), "nothing is held");
    story.deliver(9, B, 37);
    assert!(!overdue(48) && overdue(49));
    group.replica(A).unwrap().see(45_000, 47_000);
    assert!(!overdue(49), "it is late, and not away");
}

/// Its samples are gone, too. Or a group would be kept for as long as nobody takes the entry.
#[test]
fn a_series_that_is_forgotten_keeps_no_group() {
    let story = Story::new(10);
    for (replica, second) in [(A, 0), (A, 15), (B, 23), (B, 38)] {
        story.deliver(9, replica, second);
    }
    let overdue = || story.window.is_overdue(GroupKey(1), 0, u32::MAX, 0).0;
    assert!(overdue());
    (0..IDLE_TICKS).for_each(|_| story.window.advance_tick());
    story.window.sweep(0, 100);
    assert_eq!((story.window.series(), overdue()), (0, false));
}

/// Or what was a backlog elsewhere would be overtaken here.
#[test]
fn a_group_that_comes_back_is_new() {
    let story = Story::new(10);
    story.deliver(9, A, 0);
    let group = story.window.groups().group(story.group).unwrap();
    assert_eq!(group.age_ms(50_000), 50_000);
    assert_eq!(story.window.forget_group(GroupKey(1), 0, u32::MAX), 0);
    assert!(group.age_ms(60_000) < 0, "it is held for as long as nobody has seen it");
    assert_eq!(
        story.window.meet_group(GroupKey(1), "e2e/k8s", TenantHash(0), 60_000).unwrap().number(),
        story.group,
        "its number stays"
    );
    group.meet(60_000);
    group.meet(61_000);
    assert_eq!(group.age_ms(62_000), 2_000);
    assert!(!group.is_forgotten());
    assert!(story.deliver(9, B, 0), "whoever brings it first");
    assert_eq!(story.owned(), [0, 1]);
}

#[test]
fn what_a_request_has_claimed_stays() {
    let story = Story::new(10);
    story.deliver(8, A, 0);
    story.deliver(9, A, 0);
    let mut flight = story.flight();
    assert_eq!(story.decide(&mut flight, 9, A, 15).action, Action::Forward);
    assert_eq!(story.window.forget_group(GroupKey(1), 0, u32::MAX), 0);
    assert_eq!((story.window.series(), story.number(8)), (1, UNKNOWN));
    flight.commit();
    assert!(!story.deliver(9, A, 15), "it has been committed");
    assert_eq!(story.owned(), [1, 0]);
    assert_eq!(story.window.forget_group(GroupKey(77), 0, u32::MAX), 0, "nobody knows it");
    assert_eq!(story.window.series(), 1);
}

//! The judgement about one group: what a look at it finds, and since when. Refuses to read the clock, and to log.
//!
//! What a look alone cannot tell from a moment's disorder (a replica that restarts, a backlog) counts when some looks in
//! a row have found it.

use super::Reason;
use crate::window::{Arrivals, Count, Group, Replica};
use std::sync::Arc;

/// A replica that has delivered nothing for so long is silent; a group younger than that may still be gathering.
const GRACE_MS: i64 = 5 * 60 * 1000;
/// So many looks in a row find what counts: as long as that.
const LOOKS: u8 = 5;
/// The same problem of the same group is not logged more often.
const LOG_EVERY_MS: i64 = 60 * 60 * 1000;
/// A group of fewer living series is too small for a share.
const SERIES_MIN: u32 = 10;
/// More than this part of the series is not of one replica by chance: targets come and go.
const ALONE_MAX: f64 = 0.1;
/// By how much clocks may differ.
const CLOCK_MS: i64 = 2_000;
/// How long Prometheus keeps a batch that does not get full (`batch_send_deadline`).
const BATCH_MS: i64 = 5_000;
/// Batches of a replica that sends as many requests in a look do get full.
const FULL_REQUESTS: i64 = 60;

type Found = Vec<(Reason, String)>;

/// What is known of a group from the looks before.
#[derive(Debug, Default)]
pub(super) struct State {
    has: [bool; Reason::ALL.len()],
    /// Looks in a row that have found it.
    found: [u8; Reason::ALL.len()],
    logged_ms: [Option<i64>; Reason::ALL.len()],
    /// How far apart the clocks were at the last look.
    gap_ms: i64,
    alone: f64,
}

impl State {
    /// Looks at the group. Returns the problems that it has.
    pub(super) fn look(&mut self, group: &Group, count: Count, now_ms: i64) -> Found {
        let (named, unnamed): (Vec<_>, Vec<_>) =
            group.replicas().into_iter().partition(|replica| !replica.name().is_empty());
        let heard = |replica: &Arc<Replica>| {
            replica.arrived_ms().is_some_and(|at| now_ms.saturating_sub(at) <= GRACE_MS)
        };
        let active: Vec<_> = named
            .iter()
            .filter_map(|replica| replica.take_arrivals().map(|arrivals| (replica.name(), arrivals)))
            .collect();
        let mut found = Found::new();
        let delivering: Vec<_> = named.iter().filter(|replica| heard(replica)).collect();
        if let [only] = delivering[..]
            && group.age_ms(now_ms) >= GRACE_MS
        {
            let what = format!("no replica but {} has delivered for 5 minutes", only.name());
            found.push((Reason::OneReplica, what));
        }
        let differ = self.labels_differ(active.len(), count);
        found.extend(self.lasting(Reason::LabelsDiffer, differ));
        if unnamed.iter().any(heard) {
            let what = "series come without a replica label, and are passed on as they are".to_owned();
            found.push((Reason::NoReplicaLabel, what));
        }
        let apart = self.clocks_differ(&active);
        found.extend(self.lasting(Reason::Clock, apart));
        self.has = Default::default();
        found.iter().for_each(|(reason, _)| self.has[reason.number()] = true);
        found
    }

    /// The problems that it has, by their numbers.
    pub(super) fn has(&self) -> [bool; Reason::ALL.len()] {
        self.has
    }

    /// The part of its series that only one replica has.
    pub(super) fn alone(&self) -> f64 {
        self.alone
    }

    /// Whether a problem is to be logged; it counts as logged then.
    pub(super) fn may_log(&mut self, reason: Reason, now_ms: i64) -> bool {
        let logged_ms = &mut self.logged_ms[reason.number()];
        let may = logged_ms.is_none_or(|at| now_ms.saturating_sub(at) >= LOG_EVERY_MS);
        if may {
            *logged_ms = Some(now_ms);
        }
        may
    }

    /// While a replica is away, all series are of one; so it counts only where two deliver.
    fn labels_differ(&mut self, active: usize, count: Count) -> Option<String> {
        let Count { living, alone } = count;
        self.alone = if active < 2 || living == 0 { 0.0 } else { f64::from(alone) / f64::from(living) };
        (living >= SERIES_MIN && self.alone > ALONE_MAX).then(|| {
            let percent = self.alone * 100.0;
            format!("{percent:.0} % of {living} series come from one replica only, though {active} deliver")
        })
    }

    /// By the shortest time from a sample to its arrival. A backlog makes that long, too, but not for long the same.
    fn clocks_differ(&mut self, active: &[(&str, Arrivals)]) -> Option<String> {
        let first = active.iter().min_by_key(|(_, arrivals)| arrivals.delay_ms)?;
        let last = active.iter().max_by_key(|(_, arrivals)| arrivals.delay_ms)?;
        let (least, most) = (first.1.delay_ms, last.1.delay_ms);
        let full = active.iter().all(|(_, arrivals)| arrivals.requests >= FULL_REQUESTS);
        let allowed = if full { CLOCK_MS } else { CLOCK_MS + BATCH_MS };
        let (apart, ahead) = (most.saturating_sub(least), least < -CLOCK_MS);
        let gap_ms = if ahead { most.max(0).saturating_sub(least) } else { apart };
        let steady = gap_ms.abs_diff(self.gap_ms) <= CLOCK_MS.unsigned_abs();
        self.gap_ms = gap_ms;
        if !steady {
            self.found[Reason::Clock.number()] = 0;
        }
        let seconds = |ms: i64| ms as f64 / 1000.0;
        if ahead {
            let what =
                format!("samples of {} are {:.1} s ahead of this machine's clock", first.0, -seconds(least));
            return Some(what);
        }
        (apart > allowed).then(|| {
            let (first, last) = (first.0, last.0);
            let (least, most) = (seconds(least), seconds(most));
            format!("samples of {last} arrive {most:.1} s after their time, those of {first} {least:.1} s")
        })
    }

    /// What counts only when some looks in a row have found it.
    fn lasting(&mut self, reason: Reason, found: Option<String>) -> Option<(Reason, String)> {
        let looks = &mut self.found[reason.number()];
        *looks = if found.is_some() { looks.saturating_add(1) } else { 0 };
        found.filter(|_| *looks >= LOOKS).map(|what| (reason, what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::{GroupKey, TenantHash};
    use crate::window::Window;

    const MINUTE_MS: i64 = 60_000;

    /// A group that is looked at each minute.
    struct Watched {
        group: Arc<Group>,
        window: Window,
        state: State,
        now_ms: i64,
    }

    impl Watched {
        fn new() -> Self {
            let window = Window::new(10);
            let number = window.meet_group(GroupKey(1), "g", TenantHash(0), 0).unwrap().number();
            let group = window.groups().group(number).unwrap();
            Self { group, window, state: State::default(), now_ms: 0 }
        }

        /// A minute in which each replica sends so many requests, whose newest samples are that old; then a look.
        fn minute(&mut self, replicas: &[(&str, i64, i64)], count: Count) -> Vec<&'static str> {
            for (name, requests, delay_ms) in replicas {
                let id = self.window.replica_number(0, name).unwrap();
                let replica = self.group.replica(id).unwrap();
                for n in 0..*requests {
                    let now_ms = self.now_ms + n;
                    replica.see(now_ms - delay_ms, now_ms);
                }
            }
            self.now_ms += MINUTE_MS;
            let found = self.state.look(&self.group, count, self.now_ms);
            found.into_iter().map(|(reason, _)| reason.name()).collect()
        }

        fn minutes(&mut self, minutes: usize, replicas: &[(&str, i64, i64)], count: Count) -> Vec<String> {
            (0..minutes).map(|_| self.minute(replicas, count).join(",")).collect()
        }
    }

    const NONE: Count = Count { living: 0, alone: 0 };
    const PAIR: [(&str, i64, i64); 2] = [("a", 20, 800), ("b", 20, 3_900)];

    #[test]
    fn a_healthy_pair_has_no_problem() {
        let count = Count { living: 1_000, alone: 40 };
        assert_eq!(Watched::new().minutes(20, &PAIR, count), [""; 20]);
    }

    #[test]
    fn a_second_replica_that_never_comes_is_missed_after_a_grace() {
        let mut watched = Watched::new();
        let alone = [("a", 20, 800)];
        assert_eq!(
            watched.minutes(7, &alone, NONE),
            ["", "", "", "", "one_replica", "one_replica", "one_replica"]
        );
        assert_eq!(watched.minutes(1, &PAIR, NONE), [""], "here it is");
    }

    #[test]
    fn a_second_replica_that_falls_silent_is_missed_after_a_grace() {
        let mut watched = Watched::new();
        watched.minutes(10, &PAIR, NONE);
        let found = watched.minutes(6, &[("a", 20, 800)], NONE);
        assert_eq!(found, ["", "", "", "", "one_replica", "one_replica"]);
        assert_eq!(watched.minutes(7, &[], NONE).last().unwrap(), "", "nobody is there to be alone");
    }

    #[test]
    fn one_of_three_may_be_silent() {
        let mut watched = Watched::new();
        watched.minutes(10, &[("a", 20, 800), ("b", 20, 800), ("c", 20, 800)], NONE);
        assert_eq!(watched.minutes(10, &PAIR, NONE), [""; 10]);
    }

    #[test]
    fn series_that_one_replica_has_are_told_when_that_lasts() {
        let count = |alone| Count { living: 1_000, alone };
        let mut watched = Watched::new();
        assert_eq!(watched.minutes(6, &PAIR, count(101)), ["", "", "", "", "labels_differ", "labels_differ"]);
        assert!((watched.state.alone() - 0.101).abs() < 1e-9);
        assert_eq!(watched.minutes(2, &PAIR, count(100)), ["", ""], "a tenth may be of one");
        assert_eq!(watched.minutes(4, &PAIR, count(900)), [""; 4], "it begins anew");
        // A replica that restarts is away in one look: that is no difference of labels.
        assert_eq!(watched.minutes(1, &[("a", 20, 800)], count(900)), [""]);
        assert_eq!(watched.minutes(4, &PAIR, count(900)), [""; 4]);
        assert_eq!(watched.minutes(1, &PAIR, Count { living: 9, alone: 9 }), [""], "too few");
    }

    #[test]
    fn series_without_a_replica_label_are_told_at_once_and_for_as_long_as_they_come() {
        let mut watched = Watched::new();
        let mixed = [("a", 20, 800), ("b", 20, 900), ("", 1, 90_000)];
        assert_eq!(watched.minutes(2, &mixed, NONE), ["no_replica_label"; 2]);
        let found = watched.minutes(6, &PAIR, NONE);
        assert_eq!((found[0].as_str(), found[5].as_str()), ("no_replica_label", ""));
        // Whoever has none is no replica of others.
        assert_eq!(Watched::new().minutes(6, &[("", 9, 0)], NONE), ["no_replica_label"; 6]);
    }

    #[test]
    fn clocks_that_differ_are_told_when_that_lasts() {
        let busy = |delay| [("a", 60, 100), ("b", 60, delay)];
        let mut watched = Watched::new();
        assert_eq!(watched.minutes(6, &busy(2_100), NONE), [""; 6], "2 s may be");
        assert_eq!(watched.minutes(6, &busy(2_101), NONE), ["", "", "", "", "clock", "clock"]);
        assert_eq!(watched.minutes(1, &busy(90), NONE), [""], "corrected");
    }

    #[test]
    fn batches_that_wait_to_be_full_are_no_clock() {
        let seldom = |delay| [("a", 60, 100), ("b", 59, delay)];
        let mut watched = Watched::new();
        assert_eq!(watched.minutes(6, &seldom(7_100), NONE), [""; 6]);
        assert_eq!(watched.minutes(5, &seldom(7_101), NONE), ["", "", "", "", "clock"]);
    }

    #[test]
    fn a_clock_ahead_of_ours_is_told_whoever_else_there_is() {
        let found = Watched::new().minutes(5, &[("a", 3, -2_001), ("b", 3, -2_001)], NONE);
        assert_eq!(found, ["", "", "", "", "clock"]);
        assert_eq!(Watched::new().minutes(6, &[("a", 3, -2_000), ("b", 3, -2_000)], NONE), [""; 6]);
    }

    #[test]
    fn a_backlog_that_shrinks_is_no_clock() {
        let mut watched = Watched::new();
        for behind in (0..20).rev() {
            let replicas = [("a", 90, 100), ("b", 90, 100 + behind * 30_000)];
            assert_eq!(watched.minute(&replicas, NONE), [""; 0], "{behind}");
        }
    }

    #[test]
    fn each_problem_is_logged_once_an_hour() {
        let mut state = State::default();
        assert!(state.may_log(Reason::Clock, 0));
        assert!(!state.may_log(Reason::Clock, LOG_EVERY_MS - 1));
        assert!(state.may_log(Reason::OneReplica, 1));
        assert!(state.may_log(Reason::Clock, LOG_EVERY_MS));
    }
}

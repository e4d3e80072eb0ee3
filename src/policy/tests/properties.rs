//! Invariants on random schedules: one target, scraped by two or three replicas with a fault now and then.
//!
//! The series of the target are two of its data, one `scrape_*` (written for failed scrapes too) and its `up`.
//! Each series of each replica travels in a shard of its own, so their delays differ. A fault comes every 24
//! intervals, in one replica at a time, so that another is always healthy.

use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};

use super::*;

const DATA: [usize; 2] = [0, 1];
const UP: usize = 3;
const SERIES: usize = 4;
/// Intervals: enough for a fault, its end, and the time to unite again.
const FAULT_EVERY: i64 = 24;
const NEVER: i64 = -(1 << 40);

#[derive(Copy, Clone, Debug)]
enum Fault {
    /// The replica is gone, and comes back with another phase and nothing to catch up with.
    Death { intervals: i64, phase_ms: i64 },
    /// The scrapes fail: `up` 0, and stale markers at the first.
    Unreachable { intervals: i64 },
    /// It scrapes, but nothing arrives; later all of it does at once.
    Partition { intervals: i64 },
    /// One scrape is left out without a trace.
    Skipped,
    /// It is told not to scrape the target any more, and later to scrape it again.
    Removed { intervals: i64 },
}

#[derive(Clone, Debug)]
struct Schedule {
    interval_ms: i64,
    phases_ms: Vec<i64>,
    faults: Vec<(usize, Fault)>,
    delay_max_ms: i64,
    delays_seed: u64,
}

/// One sample on its way.
#[derive(Copy, Clone, Debug)]
struct Arrival {
    arrives_ms: i64,
    replica: usize,
    series: usize,
    at: i64,
    stale: bool,
    up: Option<Up>,
}

/// What came of a schedule.
struct Outcome {
    /// Per series: time and stale marker, in the order of forwarding, fills included.
    forwarded: [Vec<(i64, bool)>; SERIES],
    /// Per series: the times of all samples that are no markers.
    taken: [Vec<i64>; SERIES],
    /// The longest time that the series had different owners, in ms of arrival.
    split_ms: i64,
    takeovers: usize,
    moves: usize,
    /// Stale markers forwarded although another replica had shown a sample at most 1.5 intervals older.
    false_ends: Vec<(usize, i64)>,
}

proptest! {
    // What fails becomes a story of its own, with a name.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_healthy_group_is_left_alone(schedule in schedule(0, 1.0)) {
        let outcome = schedule.run();
        rises_strictly(&outcome);
        prop_assert_eq!((outcome.takeovers, outcome.moves, outcome.split_ms), (0, 0, 0)); // invariant 3
        for series in &outcome.forwarded {
            // Invariant 4: none but the birth, which may be a standby's.
            prop_assert!((0..=1).contains(&(live(series) - schedule.intervals())));
            prop_assert!(schedule.widest(series) <= 1.02);
        }
    }

    #[test]
    fn faults_leave_no_hole(schedule in schedule(8, 0.5)) {
        let outcome = schedule.run();
        rises_strictly(&outcome);
        for (id, series) in outcome.forwarded.iter().enumerate() {
            prop_assert!(schedule.widest(series) <= 1.5, "series {} has a hole", id); // invariant 2
            let density = live(series) as f64 / schedule.intervals() as f64;
            prop_assert!((0.97..=1.07).contains(&density), "series {} has {}", id, density); // invariant 4
        }
        prop_assert_eq!(&outcome.false_ends, &[]); // invariant 6
        prop_assert_eq!(schedule.long_ends(&outcome), &[]);
        prop_assert!(outcome.split_ms <= 3 * schedule.interval_ms + schedule.delay_max_ms); // invariant 7
    }

    #[test]
    fn faults_with_long_delays_leave_no_large_hole(schedule in schedule(8, 1.0)) {
        let outcome = schedule.run();
        rises_strictly(&outcome);
        for series in &outcome.forwarded {
            prop_assert!(schedule.widest(series) <= 2.1); // invariant 2
        }
    }
}

#[test]
fn split_targets_unite_within_two_intervals_nearly_always() {
    let mut runner = TestRunner::deterministic();
    let mut splits = vec![];
    for _ in 0..500 {
        let schedule = schedule(8, 0.5).new_tree(&mut runner).unwrap().current();
        splits.push(schedule.run().split_ms as f64 / schedule.interval_ms as f64);
    }
    splits.sort_by(f64::total_cmp);
    assert!(splits[splits.len() * 99 / 100] <= 2.0, "{splits:?}"); // invariant 7
    assert!(splits[splits.len() / 2] > 0.0, "the schedules do split targets");
}

/// Invariant 1.
fn rises_strictly(outcome: &Outcome) {
    for series in &outcome.forwarded {
        assert!(series.windows(2).all(|pair| pair[0].0 < pair[1].0), "{series:?}");
    }
}

fn live(series: &[(i64, bool)]) -> i64 {
    i64::try_from(series.iter().filter(|&&(_, stale)| !stale).count()).unwrap()
}

fn schedule(faults_max: usize, delay_max_intervals: f64) -> impl Strategy<Value = Schedule> {
    let interval_ms = prop_oneof![Just(1_000), Just(15_000), Just(60_000), 10..1_000_000_i64];
    interval_ms.prop_flat_map(move |interval_ms| {
        let phases_ms = prop::collection::vec(0..interval_ms, 2..=3);
        let faults = prop::collection::vec((0..3_usize, fault(interval_ms)), 0..=faults_max);
        let delay_max_ms = 0..=(delay_max_intervals * interval_ms as f64) as i64;
        (phases_ms, faults, delay_max_ms, any::<u64>()).prop_map(
            move |(phases_ms, mut faults, delay_max_ms, delays_seed)| {
                if phases_ms.len() > 2 {
                    // A target that ends in its owner alone is shared out among the others, series by series,
                    // and nobody owns it: the rules unite it only when the owner is back.
                    faults.retain(|(_, fault)| !matches!(fault, Fault::Removed { .. }));
                }
                Schedule { interval_ms, phases_ms, faults, delay_max_ms, delays_seed }
            },
        )
    })
}

fn fault(interval_ms: i64) -> impl Strategy<Value = Fault> {
    prop_oneof![
        (1..12_i64, 0..interval_ms).prop_map(|(intervals, phase_ms)| Fault::Death { intervals, phase_ms }),
        (1..12_i64).prop_map(|intervals| Fault::Unreachable { intervals }),
        (1..12_i64).prop_map(|intervals| Fault::Partition { intervals }),
        Just(Fault::Skipped),
        (1..12_i64).prop_map(|intervals| Fault::Removed { intervals }),
    ]
}

impl Schedule {
    fn intervals(&self) -> i64 {
        FAULT_EVERY * (i64::try_from(self.faults.len()).unwrap() + 2)
    }

    fn arrivals(&self) -> Vec<Arrival> {
        let mut arrivals = vec![];
        for replica in 0..self.phases_ms.len() {
            self.scrape(replica, &mut arrivals);
        }
        // The samples of one shard arrive in their order, also after a partition.
        arrivals.sort_by_key(|arrival| (arrival.replica, arrival.series, arrival.at));
        for next in 1..arrivals.len() {
            let before = arrivals[next - 1];
            let arrival = &mut arrivals[next];
            if (arrival.replica, arrival.series) == (before.replica, before.series) {
                arrival.arrives_ms = arrival.arrives_ms.max(before.arrives_ms);
            }
        }
        arrivals.sort_by_key(|arrival| arrival.arrives_ms);
        arrivals
    }

    fn scrape(&self, replica: usize, arrivals: &mut Vec<Arrival>) {
        let mut dice = self.delays_seed ^ replica as u64;
        let mut phase_ms = self.phases_ms[replica];
        let mut was_reached = true;
        for tick in 0..self.intervals() {
            let (fault, since) = self.fault_of(replica, tick);
            let (mut reached, mut removed, mut sent_from) = (true, false, NEVER);
            match fault {
                Some(Fault::Death { phase_ms: another, .. }) => {
                    phase_ms = another;
                    continue;
                }
                Some(Fault::Skipped) => continue,
                Some(Fault::Removed { .. }) if since > 0 => continue,
                Some(Fault::Removed { .. }) => removed = true,
                Some(Fault::Unreachable { .. }) => reached = false,
                Some(Fault::Partition { intervals }) => {
                    sent_from = (tick - since + intervals) * self.interval_ms;
                }
                None => {}
            }
            let at = tick * self.interval_ms + phase_ms;
            for series in 0..SERIES {
                let lost = !reached && DATA.contains(&series);
                if lost && !was_reached {
                    continue;
                }
                let up = if reached { Up::One } else { Up::Zero };
                arrivals.push(Arrival {
                    arrives_ms: sent_from.max(at) + self.delay_ms(&mut dice),
                    replica,
                    series,
                    at,
                    stale: lost || removed,
                    up: (series == UP).then_some(up),
                });
            }
            was_reached = reached;
        }
    }

    /// The fault that a replica has at a tick, and how many ticks ago it began.
    fn fault_of(&self, replica: usize, tick: i64) -> (Option<Fault>, i64) {
        let since = tick % FAULT_EVERY;
        let nth = usize::try_from(tick / FAULT_EVERY - 1).ok();
        let fault = nth.and_then(|nth| self.faults.get(nth)).filter(|&&(_, fault)| match fault {
            Fault::Skipped => since == 0,
            Fault::Death { intervals, .. }
            | Fault::Unreachable { intervals }
            | Fault::Partition { intervals }
            | Fault::Removed { intervals } => since < intervals,
        });
        let mine = fault.filter(|(of, _)| of % self.phases_ms.len() == replica);
        (mine.map(|&(_, fault)| fault), since)
    }

    /// The next delay (splitmix64).
    fn delay_ms(&self, dice: &mut u64) -> i64 {
        *dice = dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = (*dice ^ (*dice >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        i64::try_from((z ^ (z >> 31)) % u64::try_from(self.delay_max_ms + 1).unwrap()).unwrap()
    }

    fn run(&self) -> Outcome {
        let mut outcome = Outcome {
            forwarded: Default::default(),
            taken: Default::default(),
            split_ms: 0,
            takeovers: 0,
            moves: 0,
            false_ends: vec![],
        };
        let arrivals = self.arrivals();
        let id = |replica: usize| ReplicaId(u8::try_from(replica).unwrap());
        let mut target = Target::new(id(arrivals[0].replica));
        let mut ups = Ups::default();
        let mut states = [Series::new(target.owner); SERIES];
        let mut shown = [[NEVER; 3]; SERIES];
        let mut split_since = None;
        let circumstances = Circumstances::default();
        for &Arrival { arrives_ms, replica, series, at, stale, up } in &arrivals {
            let sample = Sample { replica: id(replica), at: TimestampMs(at), payload: 7, stale, up };
            let ups = up.is_some().then_some(&mut ups);
            let verdict = decide(&mut states[series], &mut target, ups, &sample, circumstances, |_, _| false);
            let forwarded = &mut outcome.forwarded[series];
            forwarded.extend(verdict.fills.iter().flatten().map(|fill| (fill.at.0, false)));
            if verdict.action == Action::Forward {
                forwarded.push((at, stale));
                let mut others = (0..3).filter(|&by| by != replica).map(|by| shown[series][by]);
                if stale && others.any(|shown| 2 * (at - shown) <= 3 * self.interval_ms) {
                    outcome.false_ends.push((series, at));
                }
            }
            if stale {
                shown[series][replica] = NEVER;
            } else {
                shown[series][replica] = at;
                outcome.taken[series].push(at);
            }
            outcome.takeovers += usize::from(verdict.takeover.is_some());
            outcome.moves += usize::from(verdict.moved);
            if states.iter().all(|state| state.owner == states[0].owner) {
                split_since = None;
            } else {
                let since = *split_since.get_or_insert(arrives_ms);
                outcome.split_ms = outcome.split_ms.max(arrives_ms - since);
            }
        }
        outcome
    }

    /// The widest distance of two neighbours of a series from its second interval on, in intervals.
    fn widest(&self, series: &[(i64, bool)]) -> f64 {
        let live: Vec<i64> = series.iter().filter(|&&(_, stale)| !stale).map(|&(at, _)| at).collect();
        let settled = live.windows(2).skip_while(|pair| pair[1] < live[0] + 2 * self.interval_ms);
        settled.map(|pair| (pair[1] - pair[0]) as f64 / self.interval_ms as f64).fold(0.0, f64::max)
    }

    /// Stale markers forwarded of a series that somebody still had, and not followed by a sample for two intervals.
    fn long_ends(&self, outcome: &Outcome) -> Vec<(usize, i64)> {
        let end = (self.intervals() - 3) * self.interval_ms;
        let mut long_ends = vec![];
        for (id, series) in outcome.forwarded.iter().enumerate() {
            for (nth, &(marked, _)) in series.iter().enumerate().filter(|(_, sample)| sample.1) {
                let lives = outcome.taken[id].iter().any(|at| (1..self.interval_ms).contains(&(at - marked)));
                let next = series.get(nth + 1).map_or(i64::MAX, |next| next.0);
                if lives && marked < end && next > marked + 2 * self.interval_ms {
                    long_ends.push((id, marked));
                }
            }
        }
        long_ends
    }
}

//! When one replica scrapes what, and up to which time samples may go out.
//!
//! Owns the order of scrapes, which follows from numbers alone: a backlog is a place in it, not a queue. Refuses to read clocks.

use super::body::Chunk;
use super::fleet::Fleet;
use super::stencil::mix;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// The scrapes of one replica, numbered in the order of their times. Where what a shard has of a scrape is more than a request may
/// have, each scrape comes in pieces, which are numbered one by one.
#[derive(Debug)]
pub(super) struct Schedule {
    start_ms: i64,
    interval_ms: i64,
    /// Each target with its phase in the interval, in the order of phases.
    order: Vec<(i64, usize)>,
    /// The place of each target in that order.
    places: Vec<usize>,
    pieces: u64,
    /// The first round that is sent.
    first_round: u64,
}

impl Schedule {
    /// From `start_ms` on, each target once an interval at a phase of its own and the replica's. Replicas of all groups have numbers.
    pub(super) fn new(fleet: &Fleet, replica: usize, pieces: usize, start_ms: i64, interval_ms: i64) -> Self {
        let phase = |target: usize| {
            (mix(target as u64, 1 + replica as u64) % interval_ms.unsigned_abs().max(1)).cast_signed()
        };
        let mut order: Vec<_> = (0..fleet.targets()).map(|target| (phase(target), target)).collect();
        order.sort_unstable();
        let mut places = vec![0; order.len()];
        for (place, (_, target)) in order.iter().enumerate() {
            places[*target] = place;
        }
        Self { start_ms, interval_ms, order, places, pieces: pieces.max(1) as u64, first_round: 0 }
    }

    /// Leaves out what is before this round.
    pub(super) fn starting_at(self, first_round: u64) -> Self {
        Self { first_round, ..self }
    }

    /// The number of the first one that is sent.
    pub(super) fn first(&self) -> u64 {
        self.first_round * self.round()
    }

    /// The nth piece.
    pub(super) fn scrape(&self, nth: u64) -> Chunk {
        let (round, rest) = (nth / self.round(), nth % self.round());
        let (phase, target) = self.order[(rest / self.pieces) as usize];
        let at_ms = self.start_ms + round.cast_signed() * self.interval_ms + phase;
        Chunk { target, round, piece: (rest % self.pieces) as usize, at_ms, ended: false }
    }

    /// The time of the nth piece.
    pub(super) fn time_ms(&self, nth: u64) -> i64 {
        self.scrape(nth).at_ms
    }

    /// How many pieces one interval has.
    pub(super) fn round(&self) -> u64 {
        self.order.len() as u64 * self.pieces
    }

    /// Whether a piece is not of the first round that is sent: then there is something before it.
    pub(super) fn goes_on(&self, chunk: &Chunk) -> bool {
        chunk.round > self.first_round
    }

    /// One piece of a target in these rounds, among all before the number `settled`, whose times are within `after_ms..until_ms`, ends
    /// excluded.
    pub(super) fn within(
        &self,
        (target, piece): (usize, usize),
        rounds: &Range<u64>,
        settled: u64,
        after_ms: i64,
        until_ms: i64,
    ) -> impl Iterator<Item = u64> {
        let (place, round) = (self.places[target] as u64 * self.pieces + piece as u64, self.round());
        let ended = (settled + round - 1 - place) / round;
        let first_ms = self.time_ms(place);
        // The first round after one time, and the first at or after the other.
        let from = (after_ms.saturating_sub(first_ms).div_euclid(self.interval_ms) + 1).max(0).unsigned_abs();
        let to = until_ms
            .saturating_sub(first_ms)
            .saturating_add(self.interval_ms - 1)
            .div_euclid(self.interval_ms);
        let from = from.max(self.first_round).max(rounds.start);
        let to = to.max(0).unsigned_abs().min(ended).min(rounds.end);
        (from..to).map(move |nth| nth * round + place)
    }
}

/// Up to when samples may go out, and whether that is all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Horizon {
    pub(super) until_ms: i64,
    pub(super) ended: bool,
}

/// Holds the shards of a group's replicas together when no clock does: none is ahead of the slowest by more than a part of an interval, as if
/// delivery took no longer than that.
#[derive(Debug)]
pub(super) struct Pace {
    horizon: watch::Sender<Horizon>,
    /// The oldest time that each shard has not settled; `None` without a bound.
    unsettled: Option<Mutex<Vec<i64>>>,
    ahead_ms: i64,
}

impl Pace {
    /// The wall clock says what is due.
    pub(super) fn of_the_clock() -> Self {
        let horizon = watch::Sender::new(Horizon { until_ms: i64::MAX, ended: false });
        Self { horizon, unsettled: None, ahead_ms: 0 }
    }

    /// So many shards, all of which begin at `start_ms`, as fast as they can.
    pub(super) fn of_the_slowest(shards: usize, start_ms: i64, ahead_ms: i64) -> Self {
        let horizon = watch::Sender::new(Horizon { until_ms: start_ms + ahead_ms, ended: false });
        Self { horizon, unsettled: Some(Mutex::new(vec![start_ms; shards])), ahead_ms }
    }

    pub(super) fn watch(&self) -> watch::Receiver<Horizon> {
        self.horizon.subscribe()
    }

    /// A shard has nothing older than this to be settled.
    pub(super) fn settled(&self, shard: usize, oldest_ms: i64) {
        let Some(unsettled) = &self.unsettled else { return };
        let mut times = lock(unsettled);
        times[shard] = oldest_ms;
        let until_ms = times.iter().min().map_or(oldest_ms, |oldest| oldest + self.ahead_ms);
        drop(times);
        self.horizon.send_if_modified(|horizon| {
            let further = !horizon.ended && until_ms > horizon.until_ms;
            if further {
                horizon.until_ms = until_ms;
            }
            further
        });
    }

    /// Nothing newer than now, or than what may go out already.
    pub(super) fn end(&self, now_ms: i64) {
        self.horizon.send_modify(|horizon| {
            *horizon = Horizon { until_ms: horizon.until_ms.min(now_ms), ended: true };
        });
    }
}

/// A panic elsewhere leaves numbers that are still worth reading.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_target_once_an_interval_and_replicas_at_other_phases() {
        let fleet = Fleet::of(8_000);
        let schedules = [0, 1].map(|replica| Schedule::new(&fleet, replica, 1, 1_000_000, 15_000));
        for schedule in &schedules {
            let all: Vec<_> = (0..30).map(|nth| schedule.scrape(nth)).collect();
            assert!(all.windows(2).all(|pair| pair[0].at_ms <= pair[1].at_ms));
            for target in 0..10 {
                let times: Vec<_> =
                    all.iter().filter(|one| one.target == target).map(|one| one.at_ms).collect();
                assert_eq!(times.len(), 3);
                assert!(times.windows(2).all(|pair| pair[1] - pair[0] == 15_000));
                assert!((1_000_000..1_015_000).contains(&times[0]));
            }
        }
        assert_ne!(schedules[0].order, schedules[1].order);
    }

    #[test]
    fn scrapes_within_a_time_are_those_of_the_list() {
        let fleet = Fleet::of(4_000);
        for (pieces, first_round, rounds) in
            [(1, 0, 0..u64::MAX), (3, 0, 0..u64::MAX), (3, 1, 0..3), (2, 0, 2..9)]
        {
            let schedule = Schedule::new(&fleet, 0, pieces, 50_000, 1_000).starting_at(first_round);
            let bounds =
                [(0, i64::MAX), (51_300, 53_700), (50_000, 50_001), (60_000, 10), (i64::MIN, 52_000)];
            for (scrapes, (after, until)) in
                [0, 1, 4, 5, 7, 23, 60].into_iter().flat_map(|scrapes| bounds.map(|bound| (scrapes, bound)))
            {
                for (target, piece) in (0..fleet.targets()).flat_map(|t| (0..pieces).map(move |p| (t, p))) {
                    let expect: Vec<_> = (schedule.first()..scrapes)
                        .filter(|&nth| {
                            let one = schedule.scrape(nth);
                            (one.target, one.piece) == (target, piece)
                                && rounds.contains(&one.round)
                                && one.at_ms > after
                                && one.at_ms < until
                        })
                        .collect();
                    let within = schedule.within((target, piece), &rounds, scrapes, after, until);
                    assert_eq!(within.collect::<Vec<_>>(), expect, "{scrapes} {after} {until} {target}");
                }
            }
        }
    }

    #[test]
    fn nobody_runs_away_from_the_slowest() {
        let pace = Pace::of_the_slowest(2, 100, 50);
        let until = || pace.watch().borrow().until_ms;
        pace.settled(0, 140);
        assert_eq!(until(), 150);
        pace.settled(1, 120);
        assert_eq!(until(), 170);
        pace.end(i64::MAX);
        pace.settled(1, 135);
        assert_eq!(*pace.watch().borrow(), Horizon { until_ms: 170, ended: true });
    }
}

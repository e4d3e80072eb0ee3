//! Fronts: how far behind each replica of a group still is, so that nobody's jump overtakes another one's backlog.
//!
//! Upstream takes no sample older than the newest of its series. After an outage a replica that kept its backlog
//! delivers *then*, one that restarted delivers *now*: the second has to wait for the first, or the backlog is lost.
//! The front of a replica is the oldest sample time that its requests of the last 30 s left unsettled, or reached.
//! A few words a replica, noted once a request. Refuses to read the clock: `now_ms` is the wall clock.

use crate::policy::{ReplicaId, TimestampMs};

/// Fronts are made of the requests of this time, in buckets.
const BUCKET_MS: i64 = 5_000;
const BUCKETS: usize = 7;
/// A front that stands still for so long while upstream works holds nobody up any more.
const STILL_MAX_MS: i64 = 5 * 60 * 1000;
/// Nobody waits for a replica that is behind by less.
const BEHIND_MIN_MS: i64 = 60_000;

/// A replica that was refused comes again within its longest backoff; one that does not is gone. In buckets.
const REFUSED_BUCKETS: i64 = 2;

/// What a request shows of its replica.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// The newest sample time in it.
    pub newest: TimestampMs,
    /// The oldest sample time that it has to bring again, if any.
    pub unsettled: Option<TimestampMs>,
    /// Upstream has taken something of it, or had nothing to take.
    pub works: bool,
}

/// The fronts of the replicas of one group.
#[derive(Debug, Default)]
pub(super) struct Fronts {
    fronts: Vec<Front>,
    /// The newest sample time that any replica has shown.
    newest: Option<TimestampMs>,
}

#[derive(Debug)]
struct Front {
    replica: ReplicaId,
    /// The oldest time noted in each bucket of the clock, and which bucket it was.
    buckets: [(i64, i64); BUCKETS],
    /// The front when it last moved.
    stood_at: Option<i64>,
    /// How long it has not moved while upstream worked.
    still_ms: i64,
    noted_ms: i64,
    /// It was refused, and is catching up until its front is here: how far the group had come at the last refusal.
    behind: Option<TimestampMs>,
    /// Requests of it that have no answer yet.
    open: u32,
}

impl Fronts {
    /// A request of a replica begins.
    pub(super) fn begin(&mut self, replica: ReplicaId, now_ms: i64) {
        self.of(replica, now_ms).open += 1;
    }

    /// Notes what came of a request of a replica.
    pub(super) fn note(&mut self, replica: ReplicaId, seen: Seen, now_ms: i64) {
        self.newest = self.newest.max(Some(seen.newest));
        let newest = self.newest;
        let front = self.of(replica, now_ms);
        front.open = front.open.saturating_sub(1);
        if seen.unsettled.is_some() {
            front.behind = newest;
        }
        front.note(seen.unsettled.unwrap_or(seen.newest).0, seen.works, now_ms);
    }

    /// The oldest front of the others: who jumps far beyond it has to [wait](waits).
    pub(super) fn oldest_other(&self, replica: ReplicaId, now_ms: i64) -> Option<TimestampMs> {
        self.others(replica).filter_map(|front| front.at(now_ms, BUCKETS as i64)).min().map(TimestampMs)
    }

    /// The oldest front of those others that were refused a moment ago, and are not yet where the group was then.
    pub(super) fn catching_up(&self, replica: ReplicaId, now_ms: i64) -> Option<TimestampMs> {
        let behind = self.others(replica).filter(|front| front.behind.is_some());
        let alive = |front: &Front| if front.open > 0 { BUCKETS as i64 } else { REFUSED_BUCKETS };
        behind.filter_map(|front| front.at(now_ms, alive(front))).min().map(TimestampMs)
    }

    fn of(&mut self, replica: ReplicaId, now_ms: i64) -> &mut Front {
        let known = self.fronts.iter().position(|front| front.replica == replica);
        let known = known.unwrap_or_else(|| {
            self.fronts.push(Front::new(replica, now_ms));
            self.fronts.len() - 1
        });
        &mut self.fronts[known]
    }

    fn others(&self, replica: ReplicaId) -> impl Iterator<Item = &Front> {
        self.fronts.iter().filter(move |front| front.replica != replica && front.still_ms < STILL_MAX_MS)
    }
}

/// Whether a jump to `to` of a series with that interval (ms, 0 = unknown) overtakes `oldest_other`.
#[must_use]
pub fn waits(oldest_other: Option<TimestampMs>, to: TimestampMs, interval: i64) -> bool {
    oldest_other.is_some_and(|front| front.0 < to.0.saturating_sub((2 * interval).max(BEHIND_MIN_MS)))
}

impl Front {
    fn new(replica: ReplicaId, now_ms: i64) -> Self {
        let buckets = [(i64::MIN, i64::MAX); BUCKETS];
        Self { replica, buckets, stood_at: None, still_ms: 0, noted_ms: now_ms, behind: None, open: 0 }
    }

    fn note(&mut self, at: i64, works: bool, now_ms: i64) {
        let number = now_ms.div_euclid(BUCKET_MS);
        let bucket = &mut self.buckets[number.rem_euclid(BUCKETS as i64) as usize];
        *bucket = if bucket.0 == number { (number, bucket.1.min(at)) } else { (number, at) };
        let front = self.at(now_ms, BUCKETS as i64);
        let caught_up = |goal: TimestampMs| self.at(now_ms, REFUSED_BUCKETS).is_some_and(|at| at >= goal.0);
        if self.behind.is_some_and(caught_up) {
            self.behind = None;
        }
        if front != self.stood_at {
            (self.stood_at, self.still_ms) = (front, 0);
        } else if works {
            self.still_ms += (now_ms - self.noted_ms).max(0);
        }
        self.noted_ms = now_ms;
    }

    /// The oldest time noted in the last buckets.
    fn at(&self, now_ms: i64, buckets: i64) -> Option<i64> {
        let now = now_ms.div_euclid(BUCKET_MS);
        let recent = self.buckets.iter().filter(|(number, _)| (now - buckets + 1..=now).contains(number));
        recent.map(|(_, at)| *at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ReplicaId = ReplicaId(0);
    const B: ReplicaId = ReplicaId(1);
    const T: fn(i64) -> TimestampMs = |seconds| TimestampMs(seconds * 1000);

    fn reached(seconds: i64, works: bool) -> Seen {
        Seen { newest: T(seconds), unsettled: None, works }
    }

    #[test]
    fn a_jump_waits_for_another_ones_backlog_only() {
        let mut fronts = Fronts::default();
        fronts.note(A, reached(0, true), 1_000_000);
        assert_eq!(fronts.oldest_other(A, 1_000_000), None, "nobody waits for itself");
        let oldest = fronts.oldest_other(B, 1_000_000);
        assert_eq!(oldest, Some(T(0)));
        for (to, interval, wait) in [(60, 0, false), (61, 0, true), (61, 15_000, true), (61, 31_000, false)] {
            assert_eq!(waits(oldest, T(to), interval), wait, "to {to} s by {interval} ms");
        }
    }

    #[test]
    fn a_front_is_the_oldest_of_the_last_half_minute() {
        let mut fronts = Fronts::default();
        fronts.note(A, reached(100, true), 0);
        fronts.note(A, reached(500, true), 20_000);
        assert_eq!(fronts.oldest_other(B, 30_000), Some(T(100)));
        assert_eq!(fronts.oldest_other(B, 40_000), Some(T(500)));
        assert_eq!(fronts.oldest_other(B, 60_000), None, "silent for half a minute");
    }

    #[test]
    fn a_front_that_stands_still_counts_no_more_unless_upstream_is_down() {
        for (works, counts) in [(true, false), (false, true)] {
            let mut fronts = Fronts::default();
            for second in 0..=310 {
                fronts.note(A, reached(0, works), second * 1000);
            }
            assert_eq!(fronts.oldest_other(B, 310_000).is_some(), counts, "works: {works}");
            fronts.note(A, reached(5, works), 350_000);
            assert_eq!(fronts.oldest_other(B, 350_000), Some(T(5)), "it moves again");
        }
    }
}

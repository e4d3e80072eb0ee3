//! Doubts: what upstream may hold of a group that nobody here knows of, so that it refuses what this window takes for new.
//!
//! A flight of which upstream has not said what became of it may have been stored; so may one that it answered with 5xx. Owns up
//! to which sample time that is so, and whether what is refused for it is near something that upstream has. Refuses to read the
//! clock: `now_ms` is the wall clock.

use super::sync::AtomicI64;
use crate::policy::TimestampMs;
use std::sync::atomic::Ordering::*;

/// What upstream may hold unknown explains a conflict for so long: it takes nothing older than an hour anyway.
pub(super) const DOUBT_MAX_MS: i64 = 60 * 60 * 1000;

/// What is in doubt of one group.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    /// Of flights without an answer.
    pub(super) unanswered: Doubt,
    /// Of flights that upstream answered with 5xx.
    failed: Doubt,
    /// Of samples of these that left a gap of more than two intervals in their series.
    leapt: Doubt,
}

/// The newest sample time of some flights, and when the last of them was.
#[derive(Debug)]
pub(super) struct Doubt {
    newest_ms: AtomicI64,
    noted_ms: AtomicI64,
}

impl Doubts {
    /// Upstream has answered with 5xx to samples up to that time, and may have stored them all the same. `leaps`: the newest of them
    /// that is more than two intervals above the one before it.
    pub(super) fn fail(&self, newest: TimestampMs, leaps: Option<TimestampMs>, now_ms: i64) {
        self.failed.note(newest, now_ms);
        if let Some(leaps) = leaps {
            self.leapt.note(leaps, now_ms);
        }
    }

    /// Whether what upstream refuses of that time, since it has newer samples, is near one that it has: they are of flights that
    /// it answered with 5xx, and no gap was left above that time.
    pub(super) fn are_near(&self, at: TimestampMs, now_ms: i64) -> bool {
        self.failed.covers(at, now_ms) && !self.leapt.covers(TimestampMs(at.0 + 1), now_ms)
    }

    pub(super) fn forget(&self) {
        [&self.unanswered, &self.failed, &self.leapt].into_iter().for_each(Doubt::forget);
    }
}

impl Default for Doubt {
    fn default() -> Self {
        Self { newest_ms: AtomicI64::new(i64::MIN), noted_ms: AtomicI64::new(i64::MIN) }
    }
}

impl Doubt {
    pub(super) fn note(&self, newest: TimestampMs, now_ms: i64) {
        self.newest_ms.fetch_max(newest.0, Relaxed);
        self.noted_ms.fetch_max(now_ms, Relaxed);
    }

    pub(super) fn covers(&self, at: TimestampMs, now_ms: i64) -> bool {
        at.0 <= self.newest_ms.load(Relaxed)
            && now_ms.saturating_sub(self.noted_ms.load(Relaxed)) <= DOUBT_MAX_MS
    }

    fn forget(&self) {
        self.newest_ms.store(i64::MIN, Relaxed);
        self.noted_ms.store(i64::MIN, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: fn(i64) -> TimestampMs = |seconds| TimestampMs(seconds * 1000);
    const HOUR_MS: i64 = 3_600_000;

    #[test]
    fn what_is_in_doubt_is_so_for_an_hour() {
        let doubt = Doubt::default();
        assert!(!doubt.covers(T(i64::from(i32::MIN)), 0), "nothing yet");
        doubt.note(T(100), 20_000);
        doubt.note(T(90), 10_000);
        for (at, now_ms, covered) in
            [(100, 20_000, true), (90, 0, true), (101, 20_000, false), (100, 20_000 + HOUR_MS, true)]
        {
            assert_eq!(doubt.covers(T(at), now_ms), covered, "{at} s at {now_ms} ms");
        }
        assert!(!doubt.covers(T(100), 20_001 + HOUR_MS));
        doubt.forget();
        assert!(!doubt.covers(T(i64::from(i32::MIN)), 20_000));
    }

    /// Beyond a gap upstream may have nothing near what it refuses.
    #[test]
    fn what_failed_is_near_what_upstream_may_have_unless_it_left_a_gap() {
        let doubts = Doubts::default();
        doubts.fail(T(95), None, 100_000);
        doubts.fail(T(100), Some(T(90)), 100_000);
        let near = [80, 89, 90, 100, 101].map(|at| doubts.are_near(T(at), 100_000));
        assert_eq!(near, [false, false, true, true, false]);
        assert!(doubts.are_near(T(91), 100_000 + HOUR_MS) && !doubts.are_near(T(91), 100_001 + HOUR_MS));
        assert!(!doubts.unanswered.covers(T(80), 100_000), "it has answered");
        doubts.forget();
        assert!(!doubts.are_near(T(91), 100_000));
    }
}

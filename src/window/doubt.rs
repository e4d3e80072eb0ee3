//! A doubt: what upstream may hold of a group that nobody here knows of, so that it refuses what this window takes for new.
//!
//! Owns up to which sample time flights have gone of which upstream has not said what became of them. Refuses to read the clock:
//! `now_ms` is the wall clock.

use super::sync::AtomicI64;
use crate::policy::TimestampMs;
use std::sync::atomic::Ordering::*;

/// What upstream may hold unknown explains a conflict for so long: it takes nothing older than an hour anyway.
pub(super) const DOUBT_MAX_MS: i64 = 60 * 60 * 1000;

/// Why upstream may hold what nobody here knows of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubted {
    /// A flight got no answer.
    Unanswered,
    /// It was among the first that this window saw of the group.
    FirstContact,
}

/// The newest sample time of some flights, and when the last of them was.
#[derive(Debug)]
pub(super) struct Doubt {
    newest_ms: AtomicI64,
    noted_ms: AtomicI64,
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

    pub(super) fn forget(&self) {
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
}

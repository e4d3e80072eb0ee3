//! How the upstream has been doing lately. Judges by times it is given.

use crate::forward::Answer;
use crate::forward::answer::shows_life;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The last attempts in short.
#[derive(Debug, Default)]
pub struct Health {
    state: Mutex<State>,
}

#[derive(Debug, Default, Clone)]
struct State {
    last_attempt: Option<Instant>,
    last_success: Option<Instant>,
    /// The beginning of the first failure after the last success.
    failing_since: Option<Instant>,
    /// What the newest failure was, since then.
    failure: String,
}

impl Health {
    /// When the last attempt ended.
    #[must_use]
    pub fn last_attempt(&self) -> Option<Instant> {
        self.state().last_attempt
    }

    /// When the last success ended (2xx, 400, 409 and 413 are successes: somebody is there and judges).
    #[must_use]
    pub fn last_success(&self) -> Option<Instant> {
        self.state().last_success
    }

    /// For how long nothing has succeeded, if that is for `patience` or longer and there was an attempt in the
    /// last `patience`.
    #[must_use]
    pub fn failing_for(&self, patience: Duration, now: Instant) -> Option<Duration> {
        let state = self.state();
        let tried = now.saturating_duration_since(state.last_attempt?) <= patience;
        let failing = now.saturating_duration_since(state.failing_since?);
        (tried && failing >= patience).then_some(failing)
    }

    /// What the newest failure was; empty when the newest attempt succeeded.
    #[must_use]
    pub fn failure(&self) -> String {
        self.state().failure
    }

    pub(super) fn note(&self, started: Instant, answer: &Answer) {
        let failure = match answer {
            answer if shows_life(answer) => None,
            Answer::NoAnswer { error } | Answer::NotSent { error } => Some(error.clone()),
            Answer::Unavailable { status, text } | Answer::Refused { status, text } => {
                Some(format!("{status}: {text}"))
            }
            Answer::Taken | Answer::Conflict { .. } | Answer::TooBig { .. } => None,
        };
        self.note_at(started, Instant::now(), failure);
    }

    fn note_at(&self, started: Instant, ended: Instant, failure: Option<String>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.last_attempt = Some(ended);
        match failure {
            None => {
                state.last_success = Some(ended);
                state.failing_since = None;
                state.failure.clear();
            }
            Some(failure) => {
                state.failing_since.get_or_insert(started);
                state.failure = failure;
            }
        }
    }

    fn state(&self) -> State {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Attempts as (start, end, success) in seconds; asked at `now` with a patience of 20 s.
    fn failing_for(attempts: &[(u64, u64, bool)], now: u64) -> Option<u64> {
        let zero = Instant::now();
        let at = |second| zero + Duration::from_secs(second);
        let health = Health::default();
        for (start, end, success) in attempts {
            health.note_at(at(*start), at(*end), (!success).then(|| "why".to_owned()));
        }
        health.failing_for(Duration::from_secs(20), at(now)).map(|failing| failing.as_secs())
    }

    #[test]
    fn the_newest_failure_is_told_until_something_succeeds() {
        let health = Health::default();
        let note = |answer| {
            health.note(Instant::now(), &answer);
            health.failure()
        };
        let text = String::from("busy");
        assert_eq!(note(Answer::Unavailable { status: 503, text: text.clone() }), "503: busy");
        assert_eq!(note(Answer::NoAnswer { error: text.clone() }), "busy");
        assert_eq!(note(Answer::Refused { status: 422, text }), "422: busy");
        assert_eq!(note(Answer::Taken), "");
    }

    #[test]
    fn unready_needs_attempts_that_fail_for_long_enough() {
        assert_eq!(failing_for(&[], 100), None, "nobody tried");
        assert_eq!(failing_for(&[(0, 1, true)], 100), None, "idle");
        assert_eq!(failing_for(&[(0, 1, false)], 10), None, "not long enough");
        assert_eq!(failing_for(&[(0, 10, false), (10, 20, false)], 20), Some(20));
        assert_eq!(failing_for(&[(0, 1, true), (5, 6, false), (30, 31, false)], 31), Some(26));
        assert_eq!(failing_for(&[(0, 1, false), (30, 31, false)], 60), None, "no attempt in that time");
        assert_eq!(failing_for(&[(0, 1, false), (30, 31, false), (32, 33, true)], 40), None, "recovered");
        assert_eq!(failing_for(&[(0, 1, true), (100, 101, false)], 102), None, "one failure after a pause");
    }
}

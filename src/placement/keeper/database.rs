//! Whether the database is there, by what came of the statements to it, since when, and why not.
//!
//! Owns that one statement which fails by itself (a lock that takes long, a conflict, a plan gone wrong) is not yet a database that is
//! away: without it groups are served that nobody could be asked about. Refuses to know what was asked.

use crate::placement::shown::DatabaseHealth;
use crate::placement::store::StoreError;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::time::Instant;

/// So many statements in a row that fail make it one that is away. Without a connection the first one does.
const FAILED_MAX: u32 = 2;

#[derive(Debug)]
pub(super) struct Database(Mutex<State>);

#[derive(Debug)]
struct State {
    /// `None`: nothing was asked yet.
    up: Option<bool>,
    since: Instant,
    /// Statements that failed since the last one that did not.
    failed: u32,
    error: Option<String>,
}

impl Database {
    pub(super) fn new(now: Instant) -> Self {
        Self(Mutex::new(State { up: None, since: now, failed: 0, error: None }))
    }

    /// It has answered. Says whether it was away.
    pub(super) fn answered(&self, now: Instant) -> bool {
        let mut state = self.state();
        (state.failed, state.error) = (0, None);
        state.set(true, now) == Some(false)
    }

    /// A statement has failed. Says whether the database is away, and is so since now.
    pub(super) fn failed(&self, error: &StoreError, now: Instant) -> (bool, bool) {
        let mut state = self.state();
        state.failed = state.failed.saturating_add(1);
        state.error = Some(error.to_string());
        let away = matches!(error, StoreError::Unreachable(_)) || state.failed >= FAILED_MAX;
        (away, away && state.set(false, now) != Some(false))
    }

    /// Whether it is worth asking.
    pub(super) fn is_up(&self) -> bool {
        self.state().up != Some(false)
    }

    /// `heartbeat`: when one was answered last.
    pub(super) fn shown(&self, heartbeat: Option<Instant>, now: Instant) -> DatabaseHealth {
        let state = self.state();
        let age = |at: Instant| now.saturating_duration_since(at);
        DatabaseHealth {
            up: state.up,
            lasting: age(state.since),
            heartbeat: heartbeat.map(age),
            error: state.error.clone(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// As it was before.
    fn set(&mut self, up: bool, now: Instant) -> Option<bool> {
        if self.up != Some(up) {
            self.since = now;
        }
        self.up.replace(up)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_statement_that_fails_is_not_a_database_that_is_away() {
        let now = Instant::now();
        let database = Database::new(now);
        assert!(database.is_up(), "it was not asked yet");
        for error in [StoreError::Silent, StoreError::Refused("deadlock".to_owned())] {
            assert_eq!(database.failed(&error, now), (false, false), "{error}");
            assert!(database.is_up() && database.shown(None, now).error.is_some());
            assert!(!database.answered(now), "it was not away");
        }
        assert_eq!(database.failed(&StoreError::Silent, now), (false, false));
        assert_eq!(database.failed(&StoreError::Silent, now), (true, true), "two in a row");
        assert_eq!(database.failed(&StoreError::Silent, now), (true, false), "it is away already");
        assert!(!database.is_up());
        assert!(database.answered(now) && database.is_up());
        let unreachable = StoreError::Unreachable("connection refused".to_owned());
        assert_eq!(database.failed(&unreachable, now), (true, true), "there is no connection");
    }
}

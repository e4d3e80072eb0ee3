//! Which of the other instances live, as far as this one has heard. After the database was away it has heard of none of them
//! meanwhile, so nobody is gone because of that.
//!
//! Owns how long an owner has to be silent to be gone. Refuses to know why the database did not answer.

use crate::placement::store::{EXPIRY, HEARTBEAT_EVERY, Instance};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

#[derive(Debug)]
pub(super) struct Others {
    /// Those that the database has heard of lately, as they were then.
    alive: HashMap<Arc<str>, Instance>,
    /// When a heartbeat of this instance was sent that was answered, or when all began.
    answered: Instant,
    /// There was one.
    heard: bool,
    /// By then everybody who lives has been heard of again.
    all_heard_of: Instant,
    /// Counts as gone until then: who was silent for so long.
    expiry: Duration,
}

impl Others {
    pub(super) fn none(now: Instant) -> Self {
        Self { alive: HashMap::new(), answered: now, heard: false, all_heard_of: now, expiry: EXPIRY }
    }

    /// A heartbeat was answered, with those that live. `now`: when it was sent.
    pub(super) fn heard_of(&mut self, alive: &[Instance], now: Instant) {
        let away = now - self.answered;
        self.alive = alive.iter().map(|other| (Arc::clone(&other.peer.id), other.clone())).collect();
        (self.answered, self.heard) = (now, true);
        if away >= 2 * HEARTBEAT_EVERY {
            // From the heartbeat before the last one that was answered, until all are heard of.
            self.expiry = EXPIRY + away + EXPIRY;
            self.all_heard_of = now + EXPIRY;
        }
    }

    pub(super) fn alive(&self) -> &HashMap<Arc<str>, Instance> {
        &self.alive
    }

    /// When the last heartbeat was sent that was answered, if any was.
    pub(super) fn heartbeat(&self) -> Option<Instant> {
        self.heard.then_some(self.answered)
    }

    /// Whether all that live have been heard of, so that the others are gone.
    pub(super) fn are_all_heard_of(&self, now: Instant) -> bool {
        now >= self.all_heard_of
    }

    /// Whether an owner that the database names lives. As long as not all are heard of, it may name one that is gone.
    pub(super) fn surely_lives(&self, id: &str, now: Instant) -> bool {
        self.are_all_heard_of(now) || self.alive.contains_key(id)
    }

    /// An owner that was not heard of for so long is gone.
    pub(super) fn expiry(&self, now: Instant) -> Duration {
        if self.are_all_heard_of(now) { EXPIRY } else { self.expiry }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::Peer;

    fn living(ids: &[&str]) -> Vec<Instance> {
        let peer = |id: &&str| Peer { id: (*id).into(), url: "http://it".into() };
        ids.iter().map(|id| Instance { peer: peer(id), load: 0.0, draining: false }).collect()
    }

    #[test]
    fn nobody_is_gone_because_the_database_was_away() {
        let (begun, second) = (Instant::now(), Duration::from_secs(1));
        let mut others = Others::none(begun);
        let at = begun + 2 * second;
        others.heard_of(&living(&["a", "b"]), at);
        assert!(others.are_all_heard_of(at) && others.surely_lives("c", at), "as always");
        assert_eq!((others.expiry(at), others.alive().len()), (EXPIRY, 2));
        others.heard_of(&living(&["a"]), begun + 62 * second);
        others.heard_of(&living(&["a"]), begun + 64 * second);
        // One that was heard of a heartbeat earlier, and is the last to come back.
        let back = begun + 62 * second + EXPIRY - second;
        assert!(!others.are_all_heard_of(back) && others.expiry(back) >= back - begun, "{others:?}");
        assert_eq!([others.surely_lives("a", back), others.surely_lives("b", back)], [true, false]);
        let late = back + second;
        assert!(others.are_all_heard_of(late) && others.surely_lives("b", late));
        assert_eq!(others.expiry(late), EXPIRY);
    }
}

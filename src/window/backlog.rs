//! Backlogs: which replicas were refused, live, and are about to bring again what they could not deliver.
//!
//! Fronts (`front.rs`) know how far a replica is, within half a minute, and let a minute pass. That is too coarse for
//! an outage of seconds: whoever takes over a series then, a moment before its owner comes again, splits its target and
//! drops the owner's backlog. So each refused request is remembered until it is settled, or until its sender would have
//! come again. And a replica that was refused stays behind until it is where its group was then.
//! Refuses to read the clock: `now_ms` is the wall clock.

use crate::policy::{ReplicaId, TimestampMs};

/// A sender that was refused comes again within its longest backoff (5 s), or it is gone.
const GONE_AFTER_MS: i64 = 6_000;
/// A request that is being served has ended by then, whatever became of it.
const OPEN_MAX_MS: i64 = 60_000;
/// Refused requests remembered, of one group.
const REFUSED_MAX: usize = 1024;
/// How far apart the newest samples of two replicas may be that have nothing left to deliver.
const ABREAST_MS: i64 = 0;

/// What was refused to the replicas of one group.
#[derive(Debug, Default)]
pub(super) struct Backlogs {
    refused: Vec<Refused>,
    behind: Vec<Behind>,
    /// The newest sample time that any replica has shown.
    newest: Option<TimestampMs>,
}

#[derive(Debug)]
struct Refused {
    replica: ReplicaId,
    request: u64,
    oldest: TimestampMs,
    /// It is being tried again.
    open: bool,
    since_ms: i64,
}

/// A replica that was refused, and how far its group had come then.
#[derive(Debug)]
struct Behind {
    replica: ReplicaId,
    goal: TimestampMs,
}

impl Backlogs {
    /// A request begins. `request` tells it from others, and is the same when it is tried again.
    pub(super) fn begin(&mut self, replica: ReplicaId, request: u64, now_ms: i64) {
        if let Some(refused) = self.refused.iter_mut().find(|r| (r.replica, r.request) == (replica, request))
        {
            (refused.open, refused.since_ms) = (true, now_ms);
        }
    }

    /// A request has ended. `unsettled`: the oldest sample time in it that has to come again.
    pub(super) fn end(
        &mut self,
        replica: ReplicaId,
        request: u64,
        newest: TimestampMs,
        unsettled: Option<TimestampMs>,
        now_ms: i64,
    ) {
        self.newest = self.newest.max(Some(newest));
        self.refused.retain(|r| (r.replica, r.request) != (replica, request) && r.is_live(now_ms));
        if let Some(oldest) = unsettled {
            if self.refused.len() < REFUSED_MAX {
                self.refused.push(Refused { replica, request, oldest, open: false, since_ms: now_ms });
            }
            self.behind.retain(|behind| behind.replica != replica);
            let goal = self.newest.unwrap_or(newest);
            self.behind.push(Behind { replica, goal });
        }
    }

    /// The oldest time that another replica was refused and is about to bring again, of those that count.
    pub(super) fn oldest_refused(
        &self,
        replica: ReplicaId,
        counts: impl Fn(ReplicaId) -> bool,
        now_ms: i64,
    ) -> Option<TimestampMs> {
        let others =
            self.refused.iter().filter(|refused| refused.replica != replica && refused.is_live(now_ms));
        others.filter(|refused| counts(refused.replica)).map(|refused| refused.oldest).min()
    }

    /// The other replicas that are behind.
    pub(super) fn behind(&self, replica: ReplicaId) -> impl Iterator<Item = ReplicaId> {
        self.behind.iter().map(|behind| behind.replica).filter(move |other| *other != replica)
    }

    /// A replica has come so far.
    pub(super) fn reached(&mut self, replica: ReplicaId, front: TimestampMs) {
        self.behind.retain(|behind| behind.replica != replica || behind.goal - front > ABREAST_MS);
    }
}

impl Refused {
    fn is_live(&self, now_ms: i64) -> bool {
        now_ms - self.since_ms <= if self.open { OPEN_MAX_MS } else { GONE_AFTER_MS }
    }
}

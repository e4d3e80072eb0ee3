//! Backlogs: which replicas were refused, live, and are about to bring again what they could not deliver.
//!
//! Fronts (`front.rs`) know how far a replica is, within half a minute, and let a minute pass. That is too coarse for
//! an outage of seconds: whoever takes over a series then, a moment before its owner comes again, splits its target and
//! drops the owner's backlog. So each refused request is remembered until it is settled, or until its sender would have
//! come again. And a replica that was refused stays behind until it is where its group was then.
//! Refuses to read the clock: `now_ms` is the wall clock.

use crate::policy::{ReplicaId, TimestampMs};

/// A sender that was refused comes again within its longest backoff (5 s), or it is gone.
pub(super) const GONE_AFTER_MS: i64 = 6_000;
/// A request that is being served has ended by then, whatever became of it.
const OPEN_MAX_MS: i64 = 60_000;
/// Upstream takes nothing that is older, and a clock that has been set forward must not count for more.
const OUTAGE_MAX_MS: i64 = 60 * 60 * 1000;
/// Refused requests remembered, of one group.
const REFUSED_MAX: usize = 1024;

/// What was refused to the replicas of one group.
#[derive(Debug, Default)]
pub(super) struct Backlogs {
    refused: Vec<Refused>,
    behind: Vec<Behind>,
    /// Replicas whose first request was a retry: they have tried in vain before this window began, and have a backlog
    /// of series that upstream knows and the window does not.
    inherited: Vec<ReplicaId>,
    /// The newest sample time that any replica has shown.
    newest: Option<TimestampMs>,
    /// How far each replica had come, and when that was, in its last request that was not refused.
    paces: Vec<Pace>,
}

/// Where a replica's sample time was by the clock. It goes on as the clock does, whether the replica is heard of or not.
#[derive(Debug)]
struct Pace {
    replica: ReplicaId,
    newest: TimestampMs,
    at_ms: i64,
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

/// A replica that was refused, and how far it has to come: where its group was then, and where it was itself by the clock, since what
/// is queued behind a refused request is as new as that.
#[derive(Debug)]
struct Behind {
    replica: ReplicaId,
    goal: TimestampMs,
}

impl Backlogs {
    /// A request begins. `request` tells it from others, and is the same when it is tried again: then the oldest time in it is
    /// returned that was refused.
    pub(super) fn begin(&mut self, replica: ReplicaId, request: u64, now_ms: i64) -> Option<TimestampMs> {
        let known = self.refused.iter_mut().find(|r| (r.replica, r.request) == (replica, request))?;
        (known.open, known.since_ms) = (true, now_ms);
        Some(known.oldest)
    }

    /// A replica was refused, here or elsewhere. `newest`: the newest sample time that is known of it.
    pub(super) fn fall_behind(&mut self, replica: ReplicaId, newest: Option<TimestampMs>, now_ms: i64) {
        let goal = self.newest.max(newest).max(self.by_the_clock(replica, now_ms));
        let Some(goal) = goal else { return };
        match self.behind.iter_mut().find(|behind| behind.replica == replica) {
            Some(behind) => behind.goal = behind.goal.max(goal),
            None => self.behind.push(Behind { replica, goal }),
        }
    }

    /// A replica comes for the first time, and has tried before.
    pub(super) fn inherit(&mut self, replica: ReplicaId) {
        if !self.has_inherited(replica) {
            self.inherited.push(replica);
        }
    }

    /// Whether a replica is still behind for what was before this window.
    pub(super) fn has_inherited(&self, replica: ReplicaId) -> bool {
        self.inherited.contains(&replica)
    }

    /// A request has ended that has shown nothing: it is not being tried any more.
    pub(super) fn leave(&mut self, replica: ReplicaId, request: u64) {
        self.refused.retain(|r| (r.replica, r.request) != (replica, request));
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
            self.fall_behind(replica, Some(newest), now_ms);
        } else {
            let pace = Pace { replica, newest, at_ms: now_ms };
            match self.paces.iter_mut().find(|pace| pace.replica == replica) {
                Some(known) => *known = pace,
                None => self.paces.push(pace),
            }
        }
    }

    /// Where a replica is in sample time, if it has gone on since it was last taken.
    fn by_the_clock(&self, replica: ReplicaId, now_ms: i64) -> Option<TimestampMs> {
        let pace = self.paces.iter().find(|pace| pace.replica == replica)?;
        let since_ms = now_ms.saturating_sub(pace.at_ms).clamp(0, OUTAGE_MAX_MS);
        Some(TimestampMs(pace.newest.0.saturating_add(since_ms)))
    }

    /// The oldest time that another replica was refused and is about to bring again, of those that count.
    pub(super) fn oldest_refused(
        &self,
        replica: ReplicaId,
        now_ms: i64,
        counts: impl Fn(ReplicaId) -> bool,
    ) -> Option<TimestampMs> {
        let others = self.refused.iter().filter(|refused| refused.replica != replica);
        let live = others.filter(|refused| refused.is_live(now_ms) && counts(refused.replica));
        live.map(|refused| refused.oldest).min()
    }

    /// The other replicas that are behind.
    pub(super) fn behind(&self, replica: ReplicaId) -> impl Iterator<Item = ReplicaId> {
        self.behind.iter().map(|behind| behind.replica).filter(move |other| *other != replica)
    }

    /// A replica has come so far. It has not, as long as it was refused just there.
    pub(super) fn reached(&mut self, replica: ReplicaId, front: TimestampMs) {
        if self.refused.iter().any(|refused| refused.replica == replica && refused.oldest <= front) {
            return;
        }
        self.behind.retain(|behind| behind.replica != replica || behind.goal > front);
        if self.behind.iter().all(|behind| behind.replica != replica) {
            self.inherited.retain(|inherited| *inherited != replica);
        }
    }
}

impl Refused {
    fn is_live(&self, now_ms: i64) -> bool {
        // A clock that has been set back may show less than then.
        (now_ms - self.since_ms).abs() <= if self.open { OPEN_MAX_MS } else { GONE_AFTER_MS }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ReplicaId = ReplicaId(0);
    const B: ReplicaId = ReplicaId(1);
    const C: ReplicaId = ReplicaId(2);
    const T: fn(i64) -> TimestampMs = |seconds| TimestampMs(seconds * 1000);

    fn refuse(backlogs: &mut Backlogs, replica: ReplicaId, request: u64, oldest: i64, now_ms: i64) {
        backlogs.end(replica, request, T(oldest + 5), Some(T(oldest)), now_ms);
    }

    fn oldest_refused(backlogs: &Backlogs, replica: ReplicaId, now_ms: i64) -> Option<TimestampMs> {
        backlogs.oldest_refused(replica, now_ms, |_| true)
    }

    fn behind(backlogs: &Backlogs, replica: ReplicaId) -> Vec<u8> {
        backlogs.behind(replica).map(|other| other.0).collect()
    }

    #[test]
    fn a_refused_request_counts_for_others_until_it_is_settled() {
        let mut backlogs = Backlogs::default();
        refuse(&mut backlogs, A, 1, 30, 0);
        refuse(&mut backlogs, A, 2, 15, 0);
        assert_eq!(oldest_refused(&backlogs, A, 0), None, "nobody waits for itself");
        assert_eq!(oldest_refused(&backlogs, B, 0), Some(T(15)));
        backlogs.end(A, 2, T(20), None, 10);
        assert_eq!(oldest_refused(&backlogs, B, 10), Some(T(30)));
        backlogs.end(B, 1, T(20), None, 20);
        assert_eq!(
            oldest_refused(&backlogs, B, 20),
            Some(T(30)),
            "the same request of another replica is another"
        );
        backlogs.end(A, 1, T(35), None, 30);
        assert_eq!(oldest_refused(&backlogs, B, 30), None);
    }

    #[test]
    fn who_does_not_come_again_is_gone_after_six_seconds_and_who_is_served_is_not() {
        let mut backlogs = Backlogs::default();
        refuse(&mut backlogs, A, 1, 30, 1_000);
        assert_eq!(oldest_refused(&backlogs, B, 7_000), Some(T(30)));
        assert_eq!(oldest_refused(&backlogs, B, 7_001), None);
        // It comes after all, late, and is being served.
        assert_eq!(backlogs.begin(A, 1, 8_000), Some(T(30)), "it was refused here");
        assert_eq!((backlogs.begin(A, 99, 9_000), backlogs.begin(B, 1, 9_000)), (None, None));
        assert_eq!(oldest_refused(&backlogs, B, 68_000), Some(T(30)));
        assert_eq!(oldest_refused(&backlogs, B, 68_001), None, "nothing is served for so long");
        // Refused once more: the six seconds begin anew, and it is there once.
        refuse(&mut backlogs, A, 1, 30, 10_000);
        assert_eq!(backlogs.refused.len(), 1);
        assert_eq!(oldest_refused(&backlogs, B, 16_000), Some(T(30)));
        assert_eq!(oldest_refused(&backlogs, B, 16_001), None);
    }

    /// What is malformed or invalid this time is no backlog, and is nobody else's either.
    #[test]
    fn what_has_shown_nothing_this_time_is_waited_for_no_more() {
        let mut backlogs = Backlogs::default();
        refuse(&mut backlogs, A, 1, 15, 0);
        refuse(&mut backlogs, A, 2, 30, 0);
        refuse(&mut backlogs, B, 1, 45, 0);
        assert_eq!(backlogs.begin(A, 1, 1_000), Some(T(15)));
        backlogs.leave(A, 1);
        assert_eq!(oldest_refused(&backlogs, C, 1_000), Some(T(30)), "its other request");
        assert_eq!(oldest_refused(&backlogs, A, 1_000), Some(T(45)), "the same of another replica");
    }

    #[test]
    fn a_clock_that_is_set_back_keeps_nobody_alive() {
        let mut backlogs = Backlogs::default();
        refuse(&mut backlogs, A, 1, 30, 3_600_000);
        assert_eq!(oldest_refused(&backlogs, B, 3_599_000), Some(T(30)), "it came a moment earlier");
        assert_eq!(oldest_refused(&backlogs, B, 0), None);
        refuse(&mut backlogs, B, 1, 30, 0);
        assert_eq!(backlogs.refused.len(), 1);
    }

    #[test]
    fn what_is_inherited_is_so_until_its_replica_has_caught_up() {
        let mut backlogs = Backlogs::default();
        backlogs.inherit(A);
        backlogs.inherit(A);
        assert_eq!(backlogs.inherited, [A]);
        refuse(&mut backlogs, A, 1, 30, 0);
        backlogs.reached(B, T(100));
        backlogs.reached(A, T(35));
        assert!(backlogs.has_inherited(A) && !backlogs.has_inherited(B));
        backlogs.end(A, 1, T(35), None, 0);
        backlogs.reached(A, T(34));
        assert!(backlogs.has_inherited(A));
        backlogs.reached(A, T(35));
        assert!(!backlogs.has_inherited(A));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_makes_room_when_its_senders_are_gone() {
        let mut backlogs = Backlogs::default();
        for request in 0..2_000 {
            refuse(&mut backlogs, A, request, request as i64, 0);
        }
        assert_eq!((backlogs.refused.len(), backlogs.behind.len()), (1_024, 1));
        refuse(&mut backlogs, B, 1, 7, 6_001);
        assert_eq!((backlogs.refused.len(), backlogs.behind.len()), (1, 2));
    }

    /// Or a sender that has begun with its oldest would count as caught up while it has all the rest.
    #[test]
    fn a_replica_is_behind_until_it_is_where_its_group_was_when_it_was_refused() {
        let mut backlogs = Backlogs::default();
        backlogs.end(B, 1, T(100), None, 0);
        refuse(&mut backlogs, A, 1, 30, 0);
        assert_eq!((behind(&backlogs, B), behind(&backlogs, A)), (vec![0], vec![]));
        backlogs.end(A, 1, T(35), None, 1_000);
        backlogs.reached(A, T(99));
        backlogs.reached(B, T(200));
        assert_eq!(behind(&backlogs, B), [0], "what it was refused is settled, but the group was at 100 s");
        // Refused once more, it has to come where the group is by now.
        backlogs.end(B, 2, T(200), None, 2_000);
        refuse(&mut backlogs, A, 2, 90, 2_000);
        backlogs.reached(A, T(200));
        assert_eq!(behind(&backlogs, C), [0], "it has not brought again what it was refused");
        backlogs.end(A, 2, T(95), None, 3_000);
        backlogs.reached(A, T(199));
        assert_eq!((behind(&backlogs, C), backlogs.behind.len()), (vec![0], 1));
        backlogs.reached(A, T(200));
        assert!(behind(&backlogs, C).is_empty());
        // What another one was refused keeps nobody behind but that one.
        refuse(&mut backlogs, B, 3, 150, 4_000);
        refuse(&mut backlogs, A, 3, 190, 4_000);
        backlogs.end(A, 3, T(195), None, 5_000);
        backlogs.reached(A, T(200));
        assert_eq!(behind(&backlogs, C), [1]);
    }

    /// What is queued behind the refused request is as new as the clock says, though nobody has shown it.
    #[test]
    fn a_replica_is_behind_until_it_is_where_it_was_itself_when_it_was_refused() {
        let mut backlogs = Backlogs::default();
        backlogs.end(A, 1, T(100), None, 101_000);
        backlogs.end(A, 2, T(101), Some(T(101)), 108_000);
        backlogs.end(A, 2, T(101), None, 109_000);
        backlogs.reached(A, TimestampMs(106_999));
        assert_eq!(behind(&backlogs, B), [0]);
        backlogs.reached(A, T(107));
        assert!(behind(&backlogs, B).is_empty());
        // Refused on the way, it has still to come as far as before.
        backlogs.end(A, 3, T(110), Some(T(110)), 150_000);
        backlogs.end(A, 3, T(110), None, 151_000);
        backlogs.end(A, 4, T(111), Some(T(111)), 151_500);
        backlogs.end(A, 4, T(111), None, 152_000);
        backlogs.reached(A, TimestampMs(141_999));
        assert_eq!(behind(&backlogs, B), [0], "at 109 s it was at 101 s");
        backlogs.reached(A, T(142));
        assert!(behind(&backlogs, B).is_empty());
        // A clock that is set back counts for nothing, one that is set forward for an hour.
        for (now_ms, goal) in [(0, T(111)), (1 << 40, T(3_711))] {
            backlogs.end(A, 5, T(111), Some(T(111)), now_ms);
            backlogs.end(A, 5, T(111), None, 152_000);
            backlogs.reached(A, TimestampMs(goal.0 - 1));
            assert_eq!(behind(&backlogs, B), [0], "{now_ms}");
            backlogs.reached(A, goal);
            assert!(behind(&backlogs, B).is_empty(), "{now_ms}");
        }
    }
}

//! How far the replicas of a group have come, and so whom a request of one of them has to wait for.
//!
//! Owns what is asked of fronts and backlogs when a request begins. Refuses to read the clock: `now_ms` is the wall clock.

use super::backlog::{Backlogs, GONE_AFTER_MS};
use super::front::{Fronts, waits};
use crate::policy::{ReplicaId, TimestampMs};

/// How far the replicas of a group have come.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) fronts: Fronts,
    pub(super) backlogs: Backlogs,
    /// When the first sender came again after none of them had come, and for how long that was.
    back: Option<(i64, i64)>,
}

impl Progress {
    pub(super) fn others(&self, replica: ReplicaId, request: u64, now_ms: i64) -> Others {
        let refused = self.backlogs.oldest_refused(replica, now_ms, |other| self.fronts.counts(other));
        let behind = self.backlogs.behind(replica).filter_map(|other| self.fronts.recent(other, now_ms));
        let inherited = self.backlogs.oldest_refused(replica, now_ms, |other| {
            self.fronts.counts(other) && self.backlogs.has_inherited(other)
        });
        // Between two of its requests nothing of it is refused, and still it has the rest to bring.
        let inheriting = self.backlogs.behind(replica).filter(|other| self.backlogs.has_inherited(*other));
        let about_to = inheriting.filter_map(|other| self.fronts.just_now(other, now_ms));
        let inherited = about_to.chain(inherited).min();
        let slowest = behind.chain(refused).chain(self.fronts.stuck(replica, now_ms)).min();
        let oldest = self.fronts.oldest_other(replica, now_ms);
        let delivering = self.fronts.delivering(replica, request, now_ms);
        let back = self.back.filter(|(since_ms, _)| (0..GONE_AFTER_MS).contains(&(now_ms - since_ms)));
        let silent_ms = back.map_or(0, |(_, for_ms)| for_ms);
        Others { oldest, refused, inherited, slowest, delivering, silent_ms }
    }

    pub(super) fn begin(&mut self, replica: ReplicaId, begun: Begun, now_ms: i64) {
        let Begun { request, oldest, newest, retry, several } = begun;
        let unsettled = self.backlogs.begin(replica, request, now_ms);
        if retry && !self.fronts.knows(replica) {
            self.backlogs.inherit(replica);
        }
        // What was refused here comes again, however long that took: nobody was kept from coming.
        if several && unsettled.is_none() {
            self.look_elsewhere(replica, retry, now_ms);
        }
        // What is settled of it is nothing to wait for.
        let [oldest, newest] = [oldest, newest].map(|time| unsettled.unwrap_or(time));
        self.fronts.begin(replica, request, (oldest, newest), now_ms);
    }

    /// Looks whether anybody was kept from coming here, or could not. `tried`: it has tried before, elsewhere.
    fn look_elsewhere(&mut self, replica: ReplicaId, tried: bool, now_ms: i64) {
        // It was not heard of for longer than a sender waits: somebody else has refused it, or the way was cut.
        if tried && self.fronts.silent_ms(replica, now_ms) > GONE_AFTER_MS {
            self.backlogs.fall_behind(replica, None, now_ms);
        }
        let silent_ms = self.fronts.all_silent_ms(now_ms);
        if silent_ms > GONE_AFTER_MS {
            self.back = Some((now_ms, silent_ms));
        }
    }
}

/// How far the other replicas of a group are, when a request begins.
#[derive(Clone, Copy, Debug, Default)]
pub struct Others {
    /// The oldest front: see `front.rs`.
    pub oldest: Option<TimestampMs>,
    /// The oldest time in requests that were refused a moment ago: see `backlog.rs`.
    pub refused: Option<TimestampMs>,
    /// The same of those whose backlog is older than this window.
    pub inherited: Option<TimestampMs>,
    /// How far the slowest is that has not caught up since: not newer than `refused`.
    pub slowest: Option<TimestampMs>,
    /// How far the slowest of them is whose request is being served: see `front.rs`.
    pub delivering: Option<TimestampMs>,
    /// How long no replica of the group came, if the first one came again a moment ago: the others may have a backlog, and be on their
    /// way. Else 0.
    pub silent_ms: i64,
}

impl Others {
    /// Whether a jump to `to` of a series with that interval (ms, 0 = unknown) waits for them: it would overtake what they still
    /// have to deliver, or may, since nobody has been heard of for longer than any of its samples may be apart.
    #[must_use]
    pub fn hold_up(&self, to: TimestampMs, interval: i64) -> bool {
        waits(self.oldest, to, interval) || interval > 0 && self.silent_ms > 2 * interval
    }
}

/// A request of a replica that begins.
#[derive(Debug, Clone, Copy)]
pub struct Begun {
    /// See [`Seen::request`].
    pub request: u64,
    /// Its oldest sample time.
    pub oldest: TimestampMs,
    /// Its newest sample time.
    pub newest: TimestampMs,
    /// Its sender has tried before, or, where there are several instances, has to come again because the group is new here.
    pub retry: bool,
    /// There are other instances, to which its replica may have brought what was refused there.
    pub several: bool,
}

/// What a request has shown of its replica.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Tells the request from others, and is the same when it is tried again.
    pub request: u64,
    /// The newest sample time in it.
    pub newest: TimestampMs,
    /// The oldest sample time in it that has to come again, if any.
    pub unsettled: Option<TimestampMs>,
    /// Upstream has taken something of it, or judged it.
    pub works: bool,
}

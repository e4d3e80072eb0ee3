//! What the arrival of a sample says about its target: who was seen, who can scrape it, who is fenced.
//!
//! Owns the newest `up` of each replica and the life of a fence; decides nothing about the sample itself.

use arrayvec::ArrayVec;

use super::{ReplicaId, Sample, Target, TimestampMs, is_near};

/// Replicas of one target whose `up` is remembered.
const REPLICAS_MAX: usize = 16;

/// The value of an `up` sample.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Up {
    /// The scrape succeeded.
    One,
    /// The scrape failed.
    Zero,
    /// Not a value that a scrape writes.
    Other,
}

/// The newest `up` of each replica of a target: 16 replicas at most, the oldest makes room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ups(ArrayVec<Newest, REPLICAS_MAX>);

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
struct Newest {
    replica: ReplicaId,
    at: TimestampMs,
    up: Up,
}

/// How to take an `up` back that turned out to wait: its place, and what was there.
#[derive(Copy, Clone, Debug)]
pub(super) struct Undo {
    place: usize,
    before: Option<Newest>,
}

/// What the mere arrival of a sample did.
pub(super) struct Arrival {
    /// The target changed its owner.
    pub(super) moved: bool,
    /// The `up` that was noted.
    pub(super) undo: Option<Undo>,
}

impl Ups {
    /// The newest `up` of a replica, if it is remembered.
    #[must_use]
    pub fn newest(&self, replica: ReplicaId) -> Option<(TimestampMs, Up)> {
        self.0.iter().find(|newest| newest.replica == replica).map(|newest| (newest.at, newest.up))
    }

    /// Replicas remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Notes an `up` unless a newer one of its replica is known.
    fn note(&mut self, new: Newest) -> Option<Undo> {
        let known = self.0.iter().position(|newest| newest.replica == new.replica);
        let place = match known {
            Some(place) if new.at < self.0[place].at => return None,
            Some(place) => place,
            None if !self.0.is_full() => {
                self.0.push(new);
                return Some(Undo { place: self.0.len() - 1, before: None });
            }
            None => (0..REPLICAS_MAX).min_by_key(|&place| self.0[place].at)?,
        };
        let before = Some(std::mem::replace(&mut self.0[place], new));
        Some(Undo { place, before })
    }

    /// Takes the last `note` back.
    #[cold]
    pub(super) fn undo(&mut self, undo: Undo) {
        match undo.before {
            Some(before) => self.0[undo.place] = before,
            None => self.0.truncate(undo.place),
        }
    }

    /// The standby whose `up` is 1 and recent, the newest first.
    fn alive_beside(
        &self,
        owner: ReplicaId,
        at: TimestampMs,
        interval: i64,
    ) -> Option<(TimestampMs, ReplicaId)> {
        let alive = self.0.iter().filter(|newest| newest.replica != owner && newest.up == Up::One);
        alive
            .filter(|newest| is_recent(newest.at, at, interval))
            .map(|newest| (newest.at, newest.replica))
            .max()
    }
}

/// Notes what the mere arrival of a sample says of its target. A stale marker says nothing of it: it ends a
/// series, and a replica that stops sends markers for targets that live.
#[inline]
pub(super) fn notice(interval: i64, target: &mut Target, ups: Option<&mut Ups>, sample: &Sample) -> Arrival {
    let Sample { replica, at, stale, up, .. } = *sample;
    let mut arrival = Arrival { moved: false, undo: None };
    if stale {
        return arrival;
    }
    if let (Some(ups), Some(up)) = (ups, up) {
        arrival.undo = ups.note(Newest { replica, at, up });
        if arrival.undo.is_some() {
            arrival.moved = weigh(interval, target, ups, Newest { replica, at, up });
        }
    }
    // The heir has shown something of its own from after the failed scrape: the target is its.
    if target.heir == Some(replica)
        && target.fenced == Some(target.owner)
        && target.since.is_some_and(|since| at > since)
        && up != Some(Up::Zero)
    {
        let fenced = target.fenced;
        arrival.moved = move_target(target, replica, at);
        target.fenced = fenced;
    }
    if replica == target.owner && target.seen.is_none_or(|seen| at > seen) {
        target.seen = Some(at);
    }
    arrival
}

/// Gives the target to a replica that was seen at `seen`, and ends any fence. Returns whether that is news.
pub(super) fn move_target(target: &mut Target, replica: ReplicaId, seen: TimestampMs) -> bool {
    let changed = target.owner != replica;
    *target = Target { seen: Some(seen), ..Target::new(replica) };
    changed
}

/// Lets the fenced replica back.
pub(super) const fn end_fence(target: &mut Target) {
    (target.fenced, target.since, target.heir) = (None, None, None);
}

/// Weighs a replica's newest `up`: begins a fence, ends it, or moves the target at once. Returns whether it moved.
#[cold]
fn weigh(interval: i64, target: &mut Target, ups: &Ups, new: Newest) -> bool {
    let Newest { replica, at, up } = new;
    let mut moved = false;
    if up == Up::Zero && replica == target.owner && target.fenced.is_none() {
        match ups.alive_beside(replica, at, interval) {
            Some((shown, heir)) if shown <= at => {
                (target.fenced, target.since, target.heir) = (Some(replica), Some(at), Some(heir));
            }
            // It has already shown what the fence would wait for.
            Some((shown, heir)) => {
                moved = move_target(target, heir, shown);
                target.fenced = Some(replica);
            }
            None => {}
        }
    } else if up == Up::Zero && target.fenced == Some(replica) && target.owner == replica {
        // The heir has fallen silent before it took over, and no other is worth a longer wait.
        let heir = target.heir.and_then(|heir| ups.newest(heir));
        if interval == 0 || !heir.is_some_and(|(shown, _)| is_recent(shown, at, interval)) {
            end_fence(target);
        }
    }
    // Gone for both: a real outage, and the owner's to tell.
    if up == Up::Zero
        && target.heir == Some(replica)
        && target.fenced == Some(target.owner)
        && target.since.is_some_and(|since| at > since)
    {
        end_fence(target);
    }
    // It can scrape again.
    if up == Up::One && target.fenced == Some(replica) {
        end_fence(target);
    }
    moved
}

/// Whether `shown` is at most one and a half intervals before `at`, or nobody knows.
fn is_recent(shown: TimestampMs, at: TimestampMs, interval: i64) -> bool {
    interval == 0 || is_near(at - shown, interval)
}

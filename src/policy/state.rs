//! The words of the policy: what is known of a series and of a target, what a sample says, what is answered.
//!
//! Plain data that copies: the window packs it into its entries. Holds no rule.

use std::ops::Sub;

use super::Up;

/// A sample time in milliseconds since 1970. [`decide`](super::decide) wants it to fit 48 bits, so that small multiples of a
/// distance cannot overflow: the caller has refused anything else.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimestampMs(pub i64);

/// A distance in milliseconds.
impl Sub for TimestampMs {
    type Output = i64;

    #[inline]
    fn sub(self, earlier: Self) -> i64 {
        self.0 - earlier.0
    }
}

/// A replica of a group, `0..=254`, numbered by the window.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReplicaId(pub u8);

/// A standby's sample that is kept for a gap.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// When it was taken.
    pub at: TimestampMs,
    /// The bits of a float, or a token of the window's for an encoded histogram. Never looked at here.
    pub payload: u64,
}

/// What is known of a series.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Series {
    /// The replica whose samples are forwarded.
    pub owner: ReplicaId,
    /// The newest time forwarded; `None` before birth.
    pub watermark: Option<TimestampMs>,
    /// The learned distance between two samples of one replica in ms; 0 when unknown.
    pub interval: i64,
    /// The owner said that it stops: the next standby may go on at once.
    pub released: bool,
    /// The newest sample forwarded is a stale marker.
    pub stale: bool,
    /// The watermark is a standby's of rule 4: the owner's distance to it is no interval.
    pub born: bool,
    /// The owner's last distance was above 1.5 intervals.
    pub slow: bool,
    /// The owner's last distance was below half an interval.
    pub quick: bool,
    /// The newest time that a standby has shown, duplicates included, and which one it was.
    pub other: Option<(TimestampMs, ReplicaId)>,
    /// Samples above the watermark of one standby: the oldest first, `None` last.
    pub held: [Option<Held>; 2],
    /// Whose `held` is; says nothing while nothing is held.
    pub holder: ReplicaId,
}

impl Series {
    /// A series that nothing is known of but its owner, which is its target's.
    #[must_use]
    pub const fn new(owner: ReplicaId) -> Self {
        Self {
            owner,
            watermark: None,
            interval: 0,
            released: false,
            stale: false,
            born: false,
            slow: false,
            quick: false,
            other: None,
            held: [None; 2],
            holder: owner,
        }
    }
}

/// What is known of a target: all series of one scrape should come from one replica. The newest `up` of each
/// replica is kept beside it, in [`Ups`](super::Ups).
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The replica that unknown series of it start with, and that split series come back to.
    pub owner: ReplicaId,
    /// The newest sample time its owner has shown of it; stale markers do not count.
    pub seen: Option<TimestampMs>,
    /// A replica that cannot scrape it while another can: a standby for all its series.
    pub fenced: Option<ReplicaId>,
    /// When the `up` 0 was that fenced the owner; `None` again once the target has moved.
    pub since: Option<TimestampMs>,
    /// The standby that the target moves to with its next sample after `since`.
    pub heir: Option<ReplicaId>,
}

impl Target {
    /// A target that nothing is known of but its owner, the first replica to deliver it.
    #[must_use]
    pub const fn new(owner: ReplicaId) -> Self {
        Self { owner, seen: None, fenced: None, since: None, heir: None }
    }
}

/// A sample as it arrives.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Who sends it.
    pub replica: ReplicaId,
    /// When it was taken.
    pub at: TimestampMs,
    /// See [`Held::payload`].
    pub payload: u64,
    /// It is a stale marker.
    pub stale: bool,
    /// Its value if its series is an `up`; what it says in a stale marker is ignored.
    pub up: Option<Up>,
}

/// What the sample cannot tell.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Circumstances {
    /// How far below the watermark upstream still takes samples, in ms; 0 = not at all.
    pub out_of_order_window_ms: i64,
    /// The request is a sender's second or later attempt.
    pub retry: bool,
    /// Another unfinished flight carries the series.
    pub busy: bool,
    /// The oldest time that another replica was refused a moment ago, and is about to bring again.
    pub refused: Option<TimestampMs>,
    /// The same, of replicas whose backlog is older than what is known of any series.
    pub inherited: Option<TimestampMs>,
    /// How far the slowest other replica is that was refused and has not caught up since; not newer than `refused`.
    pub slowest: Option<TimestampMs>,
    /// How far the slowest other replica is that is delivering at this moment.
    pub delivering: Option<TimestampMs>,
    /// Another instance may be serving the series as well, so that only some of its samples come by here.
    pub may_be_split: bool,
}

/// Why the owner of a series changed.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Takeover {
    /// The owner sent nothing for more than two intervals.
    Silent,
    /// The owner's stale marker had released the series.
    Released,
    /// A standby's stale marker ends a series that its owner left without one.
    Ended,
    /// The target's owner takes a series of its target back.
    Align,
}

/// What becomes of the sample.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// It goes upstream, the fills before it.
    Forward,
    /// It does not, and may be acknowledged (it may have been kept in [`Series::held`]).
    Duplicate,
    /// The owner's stale marker is withheld, since the series lives in a standby; counted as a duplicate.
    Suppress,
    /// Rule 2: try again when the flight that carries the series has ended.
    Busy,
    /// Rule 3: 503 to the sender.
    Wait,
}

/// What [`decide`](super::decide) says of a sample.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What becomes of the sample.
    pub action: Action,
    /// Samples of a standby that go upstream before it, in its own TimeSeries; `None` last.
    pub fills: [Option<Held>; 2],
    /// Whether, and why, it made its replica the owner of the series.
    pub takeover: Option<Takeover>,
    /// Whether its target changed its owner.
    pub moved: bool,
}

//! What PLACEMENT asks of the database, in plain types.
//!
//! Owns the meaning of each statement, and the times after which an instance counts as gone. Refuses to remember anything: who has
//! which group is in the database, or with the keeper.

use super::{Asking, GroupId, Peer};
use crate::series::GroupKey;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How often an instance says that it lives.
pub const HEARTBEAT_EVERY: Duration = Duration::from_secs(2);
/// An instance not heard of for that long is gone: whoever asks for one of its groups takes it over.
pub const EXPIRY: Duration = Duration::from_secs(8);
/// How long a statement may take, waiting for a connection included.
pub const STATEMENT_MAX: Duration = Duration::from_secs(2);
/// Most groups of one statement that claims.
pub const CLAIMED_AT_ONCE_MAX: usize = 500;

/// Why a statement came to nothing. Its words are for the log, and hold no credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// There is no connection.
    #[error("the database cannot be reached: {0}")]
    Unreachable(String),
    /// There was no answer. What was asked for may have been done.
    #[error("the database did not answer within {STATEMENT_MAX:?}")]
    Silent,
    /// The database refuses it.
    #[error("the database refuses: {0}")]
    Refused(String),
}

/// An answer of the database.
pub type Answer<'a, T> = Asking<'a, Result<T, StoreError>>;

/// An instance that lives.
#[derive(Debug, Clone, PartialEq)]
pub struct Instance {
    /// Who it is.
    pub peer: Peer,
    /// Samples a second of its groups.
    pub load: f64,
    /// It is about to end: it takes no group any more.
    pub draining: bool,
}

/// What an instance learns by saying that it lives.
#[derive(Debug, Clone, PartialEq)]
pub struct Pulse {
    /// The other instances that live.
    pub others: Vec<Instance>,
    /// This one was not heard of for so long, or never, that others may have taken its groups.
    pub lapsed: bool,
}

/// Whose a group is now.
#[derive(Debug, Clone, PartialEq)]
pub struct Claimed {
    /// The group.
    pub key: GroupKey,
    /// Who has it.
    pub owner: Peer,
    /// Rises whenever the group changes hands.
    pub epoch: i64,
    /// Samples a second it had when it was given away last; 0: not known.
    pub load: f64,
    /// The asking instance has it by this statement, and had it not before.
    pub newly: bool,
}

/// A group that changed hands, or has its first owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The group.
    pub key: GroupKey,
    /// Who has it; `None`: nobody, or one that is gone.
    pub owner: Option<Peer>,
    /// See [`Claimed::epoch`].
    pub epoch: i64,
}

/// What the database tells without being asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// A group changed hands. That it is new is not told.
    Changed(Change),
    /// A group was served by an instance that it was not, or no more, given to: what its owner remembers of it is not all that upstream
    /// has, nor is what it holds against its replicas.
    Shared(GroupKey),
    /// An instance ended and left all its groups.
    Left(Arc<str>),
    /// News may have been missed: changes have to be asked for.
    Missed,
}

/// A group that is to be given away.
#[derive(Debug, Clone, PartialEq)]
pub struct Gift {
    /// The group.
    pub key: GroupKey,
    /// As the giver knows it: if it is another one by now, nothing happens.
    pub epoch: i64,
    /// Samples a second.
    pub load: f64,
    /// The new owner, who has to be alive and to stay; `None`: nobody, until somebody asks for it.
    pub to: Option<Peer>,
}

/// What one instance asks of the database. All times are the database's own, each statement happens wholly or not at all, and its
/// answer, or that there is none, is there within [`STATEMENT_MAX`].
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// Says that this instance lives. The first one makes it known.
    fn heartbeat(&self, load: f64, draining: bool) -> Answer<'_, Pulse>;

    /// Takes those groups that have no owner, or one that was not heard of for `expiry`, and says of each whose it is now. At most
    /// [`CLAIMED_AT_ONCE_MAX`], each once. A group that somebody else takes at this very moment may be missing from the answer.
    fn claim<'a>(&'a self, groups: &'a [GroupId], expiry: Duration) -> Answer<'a, Vec<Claimed>>;

    /// Gives a group of this instance away, and says its new epoch; `None`: it was not this one's any more, or the new owner is
    /// gone or about to end.
    fn give<'a>(&'a self, gift: &'a Gift) -> Answer<'a, Option<i64>>;

    /// Leaves all groups and the list of instances. Says how many groups there were.
    fn leave(&self) -> Answer<'_, u64>;

    /// Who has which group: of all of them, or of very many.
    fn owners(&self) -> Answer<'_, Vec<Change>>;

    /// What has changed hands within the last `within`, and which groups are new since then: all, or of each very many.
    fn changes(&self, within: Duration) -> Answer<'_, Vec<Change>>;

    /// Tells whoever has these groups that this instance has served them as well until now. At most [`CLAIMED_AT_ONCE_MAX`].
    fn shared<'a>(&'a self, groups: &'a [GroupKey]) -> Answer<'a, ()>;

    /// Forgets what has long been nobody's.
    fn tidy(&self) -> Answer<'_, ()>;

    /// Waits for news, forever if there are none. Begins with [`News::Missed`] whenever the database can be listened to again.
    fn news(&self) -> Asking<'_, News>;
}

//! Placement at a moment, as one instance has it: in plain types, for people.
//!
//! Bounded, whatever there is. Refuses to hold credentials: instances are named by their advertised addresses, which have none.

use super::Peer;
use std::time::Duration;

/// What one instance knows of who has which group.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    /// It.
    pub me: Peer,
    /// Samples a second of its groups.
    pub samples_per_second: f64,
    /// It takes no group any more, since it is about to end.
    pub draining: bool,
    /// How it gets on with the database.
    pub database: DatabaseHealth,
    /// The other instances, as it heard of them last, by their addresses.
    pub others: Vec<OtherInstance>,
    /// How many there are beyond these.
    pub others_left_out: usize,
    /// Its groups, those that bring the most first.
    pub groups: Vec<OwnedGroup>,
    /// How many there are beyond these.
    pub groups_left_out: usize,
}

/// How an instance gets on with the database.
#[derive(Debug, Clone, PartialEq)]
pub struct DatabaseHealth {
    /// It is there; `None`: nobody has asked it yet. One statement that fails is not yet a database that is away.
    pub up: Option<bool>,
    /// How long that has been so.
    pub lasting: Duration,
    /// How long ago a heartbeat was answered last.
    pub heartbeat: Option<Duration>,
    /// Why the last statement failed, if it did.
    pub error: Option<String>,
}

/// Another instance.
#[derive(Debug, Clone, PartialEq)]
pub struct OtherInstance {
    /// Who it is.
    pub peer: Peer,
    /// Samples a second of its groups, as it has said.
    pub samples_per_second: f64,
    /// It takes no group any more, since it is about to end.
    pub draining: bool,
    /// How many groups are known here to be its. It may have more: what is new is known here after some seconds.
    pub groups_known: usize,
    /// Requests in a row that were to be passed on to it and did not reach it.
    pub hops_failed: u32,
}

/// A group that an instance has.
#[derive(Debug, Clone, PartialEq)]
pub struct OwnedGroup {
    /// Values of the group labels joined by `/`.
    pub name: String,
    /// The tenant header's value.
    pub tenant: String,
    /// Rises whenever the group changes hands; 0: the database has not said.
    pub epoch: i64,
    /// For how long it has been this instance's.
    pub held: Duration,
    /// What it brings, duplicates included.
    pub samples_per_second: f64,
    /// By which right.
    pub holding: Holding,
}

/// By which right an instance has a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holding {
    /// The database has said so.
    Confirmed,
    /// The database could not be asked, or has not answered yet.
    Unconfirmed,
    /// It is being given away.
    Leaving,
}

impl Holding {
    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Unconfirmed => "unconfirmed",
            Self::Leaving => "leaving",
        }
    }
}

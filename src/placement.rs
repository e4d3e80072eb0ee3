//! PLACEMENT: which instance serves which HA group.
//!
//! All replicas of a group have to meet in one instance. With `PROMDEDUP_COORDINATION_URL` several instances share the groups out by a
//! table in PostgreSQL; without it there is no placement, and everything is served where it arrives.
//! Owns who has which group, and since when. Refuses to read requests and to pass them on: the pipeline asks whose a group is, and acts.

pub mod balance;
mod keeper;
mod metrics;
mod postgres;
mod shown;
pub mod store;

pub use keeper::Keeper;
pub use metrics::Metrics;
pub use postgres::{Looked, Postgres, Role, look, role};
pub use shown::{DatabaseHealth, Holding, OtherInstance, OwnedGroup, Shown};

use crate::series::GroupKey;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::Notify;

/// An HA group as all instances name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupId {
    /// Its identity: tenant and the values of the group labels.
    pub key: GroupKey,
    /// The tenant header's value, for people.
    pub tenant: String,
    /// Values of the group labels joined by `/`, for people.
    pub name: String,
}

/// Another instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its identity, new with each start of a process.
    pub id: Arc<str>,
    /// How it is reached: scheme, host and port.
    pub url: Arc<str>,
}

/// Whose a group is.
#[derive(Debug)]
pub enum Whose {
    /// This instance's, for as long as this is kept: a group is given away when nobody keeps it any more.
    Mine(Stay),
    /// Another instance's.
    Theirs(Peer),
    /// Between two instances, for a moment: its senders come again.
    Moving,
}

/// One request's stay of a group at this instance.
#[derive(Debug)]
pub struct Stay(Arc<Stays>);

/// The requests that a group is being served for, and what they brought.
#[derive(Debug, Default)]
pub struct Stays {
    now: AtomicU64,
    samples: AtomicU64,
    /// The database does not confirm that the group is this instance's, or cannot.
    unconfirmed: AtomicBool,
    /// Told when there are none any more.
    none: Notify,
}

/// What this instance remembers of groups. What is asked here may take its time, and is asked on threads that may.
pub trait Memory: Send + Sync {
    /// Whether a group, of which no request is served at the moment, is better kept for now: an owner is overdue, and what a standby
    /// has shown since is nowhere but in this memory.
    fn is_needed(&self, group: GroupKey) -> bool;

    /// Forgets a group: it is not this instance's any more, and its last request here has ended.
    fn forget(&self, group: GroupKey);
}

/// What a future of a [`Placement`] is.
pub type Asking<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Who has which group. Shared by all threads of the data plane.
pub trait Placement: fmt::Debug + Send + Sync + 'static {
    /// Whose a group is, as far as is known here; `None`: it has to be asked for. Neither waits nor allocates.
    fn known(&self, group: GroupKey) -> Option<Whose>;

    /// Claims a group that is nobody's, or learns whose it is. Bounded in time, and never an error: where nobody can be asked, it is
    /// served here.
    fn ask<'a>(&'a self, group: &'a GroupId) -> Asking<'a, Whose>;

    /// A peer has said that a group is not its own: what is known of it here is old.
    fn misdirected(&self, group: GroupKey, peer: &Peer);

    /// A request could not be passed on to a peer, or (`reached`) could.
    fn hopped(&self, peer: &Peer, reached: bool);
}

impl Stays {
    /// Begins the stay of a request.
    #[must_use]
    pub fn begin(self: &Arc<Self>) -> Stay {
        self.now.fetch_add(1, Ordering::AcqRel);
        Stay(Arc::clone(self))
    }

    /// How many requests there are at the moment.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.now.load(Ordering::Acquire)
    }

    /// Waits until there are none. Others may begin meanwhile, unless nobody can have them any more.
    pub async fn ended(&self) {
        loop {
            let none = self.none.notified();
            if self.now() == 0 {
                return;
            }
            none.await;
        }
    }

    /// Whether the database confirms, as far as it can be asked, that the group is this instance's.
    pub fn confirm(&self, confirmed: bool) {
        self.unconfirmed.store(!confirmed, Ordering::Relaxed);
    }

    /// The samples that came since the last call.
    pub fn take_samples(&self) -> u64 {
        self.samples.swap(0, Ordering::Relaxed)
    }
}

impl Stay {
    /// One that nobody else knows of.
    fn alone() -> Self {
        Arc::<Stays>::default().begin()
    }

    /// Whether another instance may be serving the group, too: the database cannot be asked, or has not said whose it is.
    #[must_use]
    pub fn may_be_split(&self) -> bool {
        self.0.unconfirmed.load(Ordering::Relaxed)
    }

    /// Notes how many samples of the group the request brought.
    pub fn brought(&self, samples: u64) {
        self.0.samples.fetch_add(samples, Ordering::Relaxed);
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        if self.0.now.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.none.notify_waiters();
        }
    }
}

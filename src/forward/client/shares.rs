//! Who may have how many of the connections to the upstream.
//!
//! A tenant whose requests hang upstream would sooner or later have all of them, and the others wait behind it. So a tenant
//! gets another one only while it has fewer than [`GREED`] times as many as are free: alone it gets four fifths of them,
//! and however many are greedy, some are left for the next (the dynamic threshold of shared-memory switches: Choudhury and
//! Hahne, 1998). Refuses to know why a connection is kept for long.

use http::HeaderValue;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

const GREED: usize = 4;

/// A tenant as the tenant header names it; `None` is the one without a name.
type Tenant = Option<HeaderValue>;

/// All connections. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Shares {
    max: usize,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    taken: usize,
    /// Of tenants that have any.
    by_tenant: HashMap<Tenant, usize>,
    waiting: VecDeque<(Tenant, oneshot::Sender<Share>)>,
}

/// One connection, given back when dropped.
#[derive(Debug)]
pub(super) struct Share {
    shares: Shares,
    tenant: Tenant,
}

/// There was none within the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoneFree {
    /// How many of them the tenant has.
    pub(super) own: usize,
}

impl Shares {
    pub(super) fn new(max: usize) -> Self {
        Self { max, state: Arc::default() }
    }

    pub(super) fn max(&self) -> usize {
        self.max
    }

    /// A connection at once, if the tenant may have one.
    pub(super) fn take(&self, tenant: &Tenant) -> Option<Share> {
        let mut state = self.state();
        self.may(&state, tenant).then(|| self.give(&mut state, tenant.clone()))
    }

    /// A connection, as soon as the tenant may have one: first come, first served among those that may.
    pub(super) async fn wait(&self, tenant: &Tenant, deadline: Instant) -> Result<Share, NoneFree> {
        let (to, waiter) = oneshot::channel();
        self.state().waiting.push_back((tenant.clone(), to));
        // One may have been given back since it was asked for.
        self.serve();
        match timeout_at(deadline, waiter).await {
            Ok(Ok(share)) => Ok(share),
            Ok(Err(_)) | Err(_) => {
                let mut state = self.state();
                state.waiting.retain(|(_, waiter)| !waiter.is_closed());
                Err(NoneFree { own: state.by_tenant.get(tenant).copied().unwrap_or(0) })
            }
        }
    }

    fn may(&self, state: &State, tenant: &Tenant) -> bool {
        let free = self.max - state.taken;
        state.by_tenant.get(tenant).copied().unwrap_or(0) < GREED * free
    }

    fn give(&self, state: &mut State, tenant: Tenant) -> Share {
        state.taken += 1;
        *state.by_tenant.entry(tenant.clone()).or_default() += 1;
        Share { shares: self.clone(), tenant }
    }

    /// Gives to those who wait what they may have.
    fn serve(&self) {
        loop {
            let mut state = self.state();
            let Some(next) = state.waiting.iter().position(|(tenant, _)| self.may(&state, tenant)) else {
                return;
            };
            let Some((tenant, waiter)) = state.waiting.remove(next) else { return };
            if waiter.is_closed() {
                continue;
            }
            let share = self.give(&mut state, tenant);
            drop(state);
            // Who has gone in the meantime gives it back by dropping it.
            drop(waiter.send(share));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock can panic half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut state = self.shares.state();
        state.taken -= 1;
        if let Some(own) = state.by_tenant.get_mut(&self.tenant) {
            *own -= 1;
            if *own == 0 {
                state.by_tenant.remove(&self.tenant);
            }
        }
        drop(state);
        self.shares.serve();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn tenant(name: &'static str) -> Tenant {
        Some(HeaderValue::from_static(name))
    }

    /// As many as the tenant gets.
    fn all(shares: &Shares, name: &'static str) -> Vec<Share> {
        std::iter::from_fn(|| shares.take(&tenant(name))).collect()
    }

    #[test]
    fn however_many_are_greedy_some_are_left_for_the_next() {
        let shares = Shares::new(128);
        let alone = all(&shares, "a");
        assert_eq!(alone.len(), 103);
        let mut others = Vec::new();
        for name in ["b", "c", "d"] {
            let own = all(&shares, name);
            assert!(!own.is_empty(), "{name} gets none");
            others.extend(own);
        }
        drop((alone, others));
        assert_eq!(shares.state().taken, 0);
        assert!(shares.state().by_tenant.is_empty(), "nobody is remembered for ever");
        let none = Shares::new(1);
        let only = none.take(&None).unwrap();
        assert!(none.take(&tenant("a")).is_none());
        drop(only);
        assert!(none.take(&tenant("a")).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_served_in_turn_and_past_those_who_may_not() {
        let shares = Shares::new(10);
        let greedy = all(&shares, "a");
        assert_eq!(greedy.len(), 8);
        let soon = Instant::now() + Duration::from_secs(10);
        assert_eq!(shares.wait(&tenant("a"), soon).await.unwrap_err(), NoneFree { own: 8 });
        assert!(shares.state().waiting.is_empty(), "who gives up waits no more");
        let mut rest = all(&shares, "b");
        assert_eq!(rest.len(), 2);
        let waits = |name| {
            let shares = shares.clone();
            tokio::spawn(
                async move { shares.wait(&tenant(name), Instant::now() + Duration::from_secs(60)).await },
            )
        };
        let (first, second) = (waits("a"), waits("c"));
        tokio::task::yield_now().await;
        assert!(!first.is_finished() && !second.is_finished());
        rest.pop();
        let second = second.await.unwrap().unwrap();
        assert!(!first.is_finished(), "it has too many already");
        drop((greedy, second));
        first.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn one_given_to_who_has_gone_is_not_lost() {
        let shares = Shares::new(1);
        let only = shares.take(&None).unwrap();
        for _ in 0..3 {
            let waiting = shares.wait(&None, Instant::now() + Duration::from_secs(60));
            assert!(tokio::time::timeout(Duration::from_secs(1), waiting).await.is_err(), "cancelled");
        }
        drop(only);
        assert!(shares.take(&None).is_some());
    }
}

//! Who may have how many of the connections to the upstream.
//!
//! A tenant whose requests hang upstream would sooner or later have all of them, and the others wait behind it. So a tenant
//! gets another one only while it has fewer than [`GREED`] times as many as are free: alone it gets four fifths of them,
//! and however many are greedy, some are left for the next (the dynamic threshold of shared-memory switches: Choudhury and
//! Hahne, 1998). Refuses to know why a connection is kept for long.

use http::HeaderValue;
use std::collections::{BTreeMap, HashMap};
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
    /// Of those that have any, or wait.
    tenants: HashMap<Tenant, Account>,
    /// Who has waited longest of each tenant: those behind cannot have what that one may not.
    first: BTreeMap<u64, Tenant>,
    /// How many have waited so far.
    waited: u64,
}

/// What a tenant has, and who waits for more, by number.
#[derive(Debug, Default)]
struct Account {
    own: usize,
    waiting: BTreeMap<u64, oneshot::Sender<Share>>,
}

/// A place among those who wait, left when dropped.
struct Place<'a> {
    shares: &'a Shares,
    tenant: &'a Tenant,
    number: u64,
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
        let place = Place { shares: self, tenant, number: self.state().queue(tenant, to) };
        // One may have been given back since it was asked for.
        self.serve();
        let given = timeout_at(deadline, waiter).await;
        drop(place);
        match given {
            Ok(Ok(share)) => Ok(share),
            Ok(Err(_)) | Err(_) => Err(NoneFree { own: self.state().own(tenant) }),
        }
    }

    fn may(&self, state: &State, tenant: &Tenant) -> bool {
        state.own(tenant) < GREED * (self.max - state.taken)
    }

    fn give(&self, state: &mut State, tenant: Tenant) -> Share {
        state.taken += 1;
        state.tenants.entry(tenant.clone()).or_default().own += 1;
        Share { shares: self.clone(), tenant }
    }

    /// Gives to those who wait what they may have. While any is free, few tenants have so many that they may not.
    fn serve(&self) {
        loop {
            let mut state = self.state();
            if state.taken == self.max {
                return;
            }
            let next = state.first.iter().find(|(_, tenant)| self.may(&state, tenant));
            let Some((number, tenant)) = next.map(|(number, tenant)| (*number, tenant.clone())) else {
                return;
            };
            let Some(waiter) = state.leave(&tenant, number) else { return };
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

impl State {
    fn own(&self, tenant: &Tenant) -> usize {
        self.tenants.get(tenant).map_or(0, |account| account.own)
    }

    /// Puts somebody behind all others who wait. Returns the number.
    fn queue(&mut self, tenant: &Tenant, waiter: oneshot::Sender<Share>) -> u64 {
        let number = self.waited;
        self.waited += 1;
        let account = self.tenants.entry(tenant.clone()).or_default();
        if account.waiting.is_empty() {
            self.first.insert(number, tenant.clone());
        }
        account.waiting.insert(number, waiter);
        number
    }

    /// Takes one who waits out of those who do, if that has not been done.
    fn leave(&mut self, tenant: &Tenant, number: u64) -> Option<oneshot::Sender<Share>> {
        let account = self.tenants.get_mut(tenant)?;
        let waiter = account.waiting.remove(&number)?;
        if self.first.remove(&number).is_some()
            && let Some(next) = account.waiting.keys().next()
        {
            self.first.insert(*next, tenant.clone());
        }
        self.forget_if_idle(tenant);
        Some(waiter)
    }

    fn forget_if_idle(&mut self, tenant: &Tenant) {
        if self.tenants.get(tenant).is_some_and(|account| account.own == 0 && account.waiting.is_empty()) {
            self.tenants.remove(tenant);
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.shares.state().leave(self.tenant, self.number);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut state = self.shares.state();
        state.taken -= 1;
        if let Some(account) = state.tenants.get_mut(&self.tenant) {
            account.own -= 1;
        }
        state.forget_if_idle(&self.tenant);
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
        assert!(shares.state().tenants.is_empty(), "nobody is remembered for ever");
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
        assert!(shares.state().first.is_empty(), "who gives up waits no more");
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

    /// Whoever comes or goes would cost as much as all who wait otherwise, and thousands may.
    #[tokio::test(start_paused = true)]
    async fn of_those_who_wait_only_the_first_of_each_tenant_is_looked_at() {
        let shares = Shares::new(10);
        let (greedy, rest) = (all(&shares, "a"), all(&shares, "b"));
        let given = Arc::new(Mutex::new(Vec::new()));
        let wait = |name: &'static str, number: u32, deadline: Instant| {
            let (shares, given) = (shares.clone(), Arc::clone(&given));
            tokio::spawn(async move {
                if let Ok(share) = shares.wait(&tenant(name), deadline).await {
                    given.lock().unwrap().push((name, number));
                    drop(share);
                }
            })
        };
        let [soon, late] = [10, 60].map(|s| Instant::now() + Duration::from_secs(s));
        let mut waiting = Vec::new();
        for number in 0..1_000 {
            // Every third gives up before anything is given back, the first of all among them.
            let deadline = if number % 3 == 0 { soon } else { late };
            waiting.extend(["a", "c"].map(|name| wait(name, number, deadline)));
        }
        tokio::task::yield_now().await;
        assert_eq!(shares.state().first.len(), 2);
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(shares.state().first.keys().copied().collect::<Vec<_>>(), [2, 3]);
        drop((greedy, rest));
        for waits in waiting {
            waits.await.unwrap();
        }
        let given = std::mem::take(&mut *given.lock().unwrap());
        for name in ["a", "c"] {
            let of_it: Vec<_> = given.iter().filter(|given| given.0 == name).map(|given| given.1).collect();
            assert_eq!(of_it, (0..1_000).filter(|number| number % 3 != 0).collect::<Vec<_>>(), "{name}");
        }
        assert!(shares.state().tenants.is_empty() && shares.state().first.is_empty());
    }
}

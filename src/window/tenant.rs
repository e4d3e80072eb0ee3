//! Fair shares: how many series each tenant has, and whose go when a full window has to take in somebody's who has few.
//!
//! While there is room, everybody takes what he needs. In a full window the share of a tenant is the bound by the number
//! of tenants: whoever is below it takes the place of a series of one who is above, the longest untouched of some. Nobody
//! at or below his share loses a series to others. Costs births and deaths, never a sample of a known series.
//! Of the numbers of groups nobody may have more than are left: see `groups.rs`.

use super::Window;
use super::sync::{AtomicU32, AtomicUsize, DashMap};
use crate::series::TenantHash;
use std::sync::Arc;
use std::sync::atomic::Ordering::*;

/// So many entries are looked at for one that may go. The next look goes on behind them.
const LOOKS_MAX: u32 = 64;

/// All tenants that have a group. No more than there are groups.
#[derive(Debug)]
pub(super) struct Tenants {
    series_max: usize,
    /// Changes under the lock of groups only.
    known: DashMap<TenantHash, Arc<Tenant>>,
    /// Those that have series now.
    present: AtomicUsize,
    /// Where the next look begins.
    hand: AtomicU32,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Tenant {
    hash: TenantHash,
    series: AtomicUsize,
    groups: AtomicUsize,
}

impl Tenant {
    pub(super) fn new(hash: TenantHash) -> Self {
        Self { hash, series: AtomicUsize::new(0), groups: AtomicUsize::new(0) }
    }
}

impl Tenants {
    pub(super) fn new(series_max: usize) -> Self {
        let (present, hand) = (AtomicUsize::new(0), AtomicU32::new(0));
        Self { series_max, known: DashMap::new(), present, hand }
    }

    /// Whether the tenant has fewer groups than there are numbers left.
    pub(super) fn may_take_group(&self, hash: TenantHash, left: usize) -> bool {
        self.known.get(&hash).map_or(0, |tenant| tenant.groups.load(Relaxed)) < left
    }

    /// The tenant, which has one more group; `None` if it may not. The caller has the lock of groups.
    pub(super) fn take_group(&self, hash: TenantHash, left: usize) -> Option<Arc<Tenant>> {
        if !self.may_take_group(hash, left) {
            return None;
        }
        let known = self.known.get(&hash).map(|tenant| Arc::clone(&tenant));
        let tenant = known.unwrap_or_else(|| Arc::new(Tenant::new(hash)));
        tenant.groups.fetch_add(1, Relaxed);
        self.known.entry(hash).or_insert_with(|| Arc::clone(&tenant));
        Some(tenant)
    }

    /// The tenant has one group fewer, and without any it is not known. The caller has the lock of groups.
    pub(super) fn give_group(&self, tenant: &Tenant) {
        if tenant.groups.fetch_sub(1, Relaxed) == 1 {
            self.known.remove_if(&tenant.hash, |_, _| true);
        }
    }

    #[cfg(test)]
    pub(super) fn known(&self) -> usize {
        self.known.len()
    }

    /// A series of it is remembered.
    pub(super) fn gain(&self, tenant: &Tenant) {
        if tenant.series.fetch_add(1, Relaxed) == 0 {
            self.present.fetch_add(1, Relaxed);
        }
    }

    /// A series of it is forgotten.
    pub(super) fn lose(&self, tenant: &Tenant) {
        if tenant.series.fetch_sub(1, Relaxed) == 1 {
            self.present.fetch_sub(1, Relaxed);
        }
    }

    /// The share of each, with one more if the asking one is not among those that have series.
    fn share(&self, asking: &Tenant) -> usize {
        let newcomer = usize::from(asking.series.load(Relaxed) == 0);
        self.series_max / (self.present.load(Relaxed) + newcomer).max(1)
    }
}

impl Window {
    /// Forgets a series of somebody above his share for one of `tenant`, if that is below it. Whether it did.
    #[cold]
    pub(super) fn make_room(&self, tenant: &Tenant) -> bool {
        let share = self.tenants.share(tenant);
        if tenant.series.load(Relaxed) >= share {
            return false;
        }
        let (used, now) = (self.table.used(), self.tick.load(Relaxed));
        let looks = LOOKS_MAX.min(used);
        let hand = self.tenants.hand.fetch_add(looks, Relaxed);
        let mut found: Option<(u8, u32)> = None;
        for look in 0..looks {
            let number = hand.wrapping_add(look) % used;
            let entry = self.table.entry(number);
            let untouched = now.wrapping_sub(entry.tick());
            if found.is_none_or(|(longest, _)| untouched > longest)
                && entry.is_free_to_claim()
                && self.is_above(number, share)
            {
                found = Some((untouched, number));
            }
        }
        let Some((_, number)) = found else { return false };
        let entry = self.table.entry(number);
        if !entry.claim_for_table() {
            return false;
        }
        // It may have become another's since.
        if !self.is_above(number, share) {
            entry.release();
            return false;
        }
        self.own(entry, entry.owner(), -1);
        self.forget(number);
        self.evictions.fetch_add(1, Relaxed);
        true
    }

    /// Whether the tenant of a series has more than that.
    fn is_above(&self, number: u32, share: usize) -> bool {
        let group = self.groups.group(self.group_of(number));
        group.is_some_and(|group| group.tenant().series.load(Relaxed) > share)
    }

    /// The series of a tenant.
    #[cfg(test)]
    pub(super) fn series_of(&self, tenant: TenantHash) -> usize {
        self.tenants.known.get(&tenant).map_or(0, |tenant| tenant.series.load(Relaxed))
    }
}

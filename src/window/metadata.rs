//! Metadata that upstream has had lately: what a metric is, once for all replicas.
//!
//! Remote write 1.0 sends it in requests of its own, without labels, so no replica owns it: each distinct entry goes
//! upstream once in five minutes. Refuses to keep the texts: a hash tells entries apart.

use crate::series::{TenantHash, keyed_hash};
use dashmap::DashMap;

/// An entry is forwarded again after this time, in ms.
pub(super) const REFRESH_MS: i64 = 5 * 60 * 1000;
/// Entries remembered; at the bound all are forgotten, and forwarded once more.
const ENTRIES_MAX: usize = 200_000;

/// When each entry was forwarded, in ms since the epoch.
#[derive(Debug, Default)]
pub struct Metadata(DashMap<u128, i64>);

impl Metadata {
    /// What an entry (a whole field of the request) is known by.
    #[must_use]
    pub fn key(entry: &[u8], tenant: TenantHash) -> u128 {
        keyed_hash(entry) ^ tenant.0
    }

    /// Whether upstream has not had it within the refresh time.
    #[must_use]
    pub fn is_news(&self, key: u128, now_ms: i64) -> bool {
        self.0.get(&key).is_none_or(|at| now_ms.saturating_sub(*at) >= REFRESH_MS || now_ms < *at)
    }

    /// Notes what upstream has taken.
    pub fn remember(&self, keys: &[u128], now_ms: i64) {
        if self.0.len() + keys.len() > ENTRIES_MAX {
            self.0.clear();
        }
        for key in keys.iter().take(ENTRIES_MAX) {
            self.0.insert(*key, now_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_news_once_per_refresh_and_tenant() {
        let metadata = Metadata::default();
        let key = |entry: &[u8], tenant| Metadata::key(entry, TenantHash::of(tenant));
        let up = key(b"up", "");
        assert!(metadata.is_news(up, 0));
        metadata.remember(&[up], 0);
        assert!(!metadata.is_news(up, 0) && !metadata.is_news(up, 299_999));
        assert!(metadata.is_news(up, 300_000));
        assert!(metadata.is_news(key(b"up", "other"), 1));
        assert!(metadata.is_news(key(b"down", ""), 1));
        assert!(metadata.is_news(up, -1), "a clock that was set back does not silence it");
    }

    /// Entries of which upstream has never had one would share a key, the sooner the fewer bits tell them apart.
    #[test]
    fn all_bits_of_a_key_tell_entries_of_a_tenant_apart() {
        let keys = (0..64).map(|i: u8| Metadata::key(&[i], TenantHash::of("tenant")));
        let (ever, always) = keys.fold((0, u128::MAX), |(ever, always), key| (ever | key, always & key));
        assert_eq!((ever, always), (u128::MAX, 0));
    }

    #[test]
    fn at_the_bound_all_is_forgotten_and_goes_out_once_more() {
        let metadata = Metadata::default();
        let keys: Vec<u128> = (0..ENTRIES_MAX as u128).collect();
        metadata.remember(&keys[..1], 0);
        metadata.remember(&keys[1..], 0);
        assert!(!metadata.is_news(0, 1), "there is room for as many");
        metadata.remember(&[u128::MAX], 0);
        assert!(metadata.is_news(0, 1) && !metadata.is_news(u128::MAX, 1));
        let more: Vec<u128> = (0..=ENTRIES_MAX as u128).collect();
        metadata.remember(&more, 0);
        assert_eq!(metadata.0.len(), ENTRIES_MAX, "never more");
    }
}

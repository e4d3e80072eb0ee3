//! Held histograms: encoded as they came, beside the table, since they do not fit a cache line.
//!
//! An entry keeps a token where a float would have its bits. Bounded; refuses what would exceed the bound.

use dashmap::DashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::*};

/// Bytes of held histograms, of all series together.
pub const HISTOGRAM_BYTES_MAX: usize = 256 << 20;

/// All held histograms by token.
#[derive(Debug, Default)]
pub(super) struct Histograms {
    held: DashMap<u64, Arc<[u8]>>,
    tokens: AtomicU64,
    bytes: AtomicUsize,
}

impl Histograms {
    /// Keeps a histogram message: its token, or `None` at the bound.
    pub(super) fn put(&self, message: &[u8]) -> Option<u64> {
        let cost = message.len() + size_of::<(u64, Arc<[u8]>)>();
        if self.bytes.fetch_add(cost, Relaxed) + cost > HISTOGRAM_BYTES_MAX {
            self.bytes.fetch_sub(cost, Relaxed);
            return None;
        }
        let token = self.tokens.fetch_add(1, Relaxed);
        self.held.insert(token, message.into());
        Some(token)
    }

    pub(super) fn get(&self, token: u64) -> Option<Arc<[u8]>> {
        self.held.get(&token).map(|message| Arc::clone(&message))
    }

    pub(super) fn drop(&self, token: u64) {
        if let Some((_, message)) = self.held.remove(&token) {
            self.bytes.fetch_sub(message.len() + size_of::<(u64, Arc<[u8]>)>(), Relaxed);
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_there_until_dropped_and_bounded() {
        let histograms = Histograms::default();
        let one = histograms.put(b"one").unwrap();
        let two = histograms.put(b"two").unwrap();
        assert_eq!(histograms.get(one).as_deref(), Some(b"one".as_slice()));
        histograms.drop(one);
        assert_eq!(histograms.get(one), None);
        assert_eq!(histograms.get(two).as_deref(), Some(b"two".as_slice()));
        assert_eq!(histograms.put(&vec![0; HISTOGRAM_BYTES_MAX]), None);
        histograms.drop(two);
        assert_eq!(histograms.bytes(), 0);
    }

    /// The bound is of messages and what it takes to keep them.
    #[test]
    fn the_bound_is_met_to_the_byte() {
        let histograms = Histograms::default();
        let message = [7; 1_000];
        histograms.put(&message).unwrap();
        let cost = histograms.bytes();
        assert_eq!(cost, 1_000 + size_of::<(u64, Arc<[u8]>)>());
        histograms.bytes.store(HISTOGRAM_BYTES_MAX - cost, Relaxed);
        let last = histograms.put(&message).unwrap();
        assert_eq!(histograms.bytes(), HISTOGRAM_BYTES_MAX);
        assert_eq!(histograms.put(b""), None);
        histograms.drop(last);
        histograms.bytes.fetch_add(1, Relaxed);
        assert_eq!(histograms.put(&message), None, "a byte too many");
    }
}

//! The memory of requests that have ended, for those to come.
//!
//! Owns how much of it is kept: by its bytes and not by its number, since hundreds of small requests may be under way at once.
//! Refuses to know what a request does with it.

use super::Buffers;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// All that is kept, in bytes.
const BYTES_MAX: usize = 64 << 20;
/// What a larger request has taken is given back to the system, in bytes.
pub(super) const BYTES_MAX_OF_ONE: usize = 8 << 20;

#[derive(Debug, Default)]
pub(super) struct Pool {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    buffers: Vec<Buffers>,
    bytes: usize,
}

impl Pool {
    /// Those that were given back last, which are most likely in the cache still, or new ones.
    pub(super) fn take(&self) -> Buffers {
        let mut kept = self.kept();
        let Some(buffers) = kept.buffers.pop() else { return Buffers::default() };
        kept.bytes -= buffers.kept_bytes();
        buffers
    }

    pub(super) fn give_back(&self, buffers: Buffers) {
        let bytes = buffers.kept_bytes();
        if bytes > BYTES_MAX_OF_ONE {
            return;
        }
        let mut kept = self.kept();
        if kept.bytes + bytes <= BYTES_MAX {
            kept.bytes += bytes;
            kept.buffers.push(buffers);
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Nothing under the lock can panic half-way through a change.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::ReplicaId;
    use crate::series::{GroupKey, Place, SeriesKey, TargetKey, TenantHash};
    use crate::window::{Flight, Log, Window};
    use std::sync::Arc;

    fn of(bytes: usize) -> Buffers {
        let mut buffers = Buffers::default();
        buffers.request.body = Vec::with_capacity(bytes);
        buffers
    }

    #[test]
    fn many_small_ones_are_kept_and_few_large_ones() {
        for (bytes, kept) in [(1 << 10, 5_000), (1 << 20, 64), (8 << 20, 8), ((8 << 20) + 1, 0)] {
            let pool = Pool::default();
            (0..5_000).for_each(|_| pool.give_back(of(bytes)));
            assert_eq!(pool.kept().buffers.len(), kept, "of {bytes} bytes");
            assert!(pool.kept().bytes <= BYTES_MAX);
        }
    }

    /// Or less and less would be kept.
    #[test]
    fn what_is_taken_makes_room() {
        let pool = Pool::default();
        for bytes in [5 << 20, 3 << 20, 1 << 10, 0] {
            (0..100).for_each(|_| pool.give_back(of(bytes)));
            assert!(pool.take().request.body.capacity() >= bytes);
            (0..200).for_each(|_| drop(pool.take()));
            assert_eq!(pool.take().request.body.capacity(), 0);
            assert_eq!(pool.kept().bytes, 0);
        }
    }

    /// What has carried a series.
    fn a_used_log() -> Log {
        let window = Arc::new(Window::new(10));
        let group = window.meet_group(GroupKey(1), "g", TenantHash(0), 0).expect("room").number();
        let (group_name, tenant) = ("g".into(), TenantHash(0));
        let place = Place { group: GroupKey(1), group_name, target: TargetKey(1), tenant, is_up: false };
        let mut flight = Flight::begin(&window, Log::default()).expect("room");
        flight.admit(SeriesKey(7), &place, ReplicaId(0), group);
        flight.commit()
    }

    /// Or a request of many small series, whose body is the least of it, would count for little.
    #[test]
    fn all_that_a_request_has_taken_counts() {
        let mut buffers = Buffers { log: a_used_log(), ..of(300) };
        buffers.request.labels = Vec::with_capacity(1 << 10);
        assert!(buffers.log.kept_bytes() > 0);
        assert_eq!(buffers.kept_bytes(), 300 + (1 << 10) + buffers.log.kept_bytes());
    }
}

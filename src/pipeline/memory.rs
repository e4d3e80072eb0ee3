//! What requests take once they are decoded, beyond their bodies: a body of many small series becomes many times as long.
//!
//! `receive` admits bodies by what they claim, before anybody knows how many series are in them. Here is known what that came to.
//! A request that finds no room is told to come back; one a thread may be beyond the bound for as long as it takes to find out.

use std::sync::atomic::{AtomicUsize, Ordering};

/// As large as the default bound of bodies.
const DEFAULT_MAX_BYTES: usize = 256 << 20;

/// The memory of all decoded requests.
#[derive(Debug)]
pub(super) struct Memory {
    max_bytes: usize,
    taken: AtomicUsize,
}

/// Given back when dropped.
#[derive(Debug)]
pub(super) struct Taken<'a>(&'a Memory, usize);

/// There is no room for so many bytes more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no memory for {wanted} bytes more: {taken} of {max} bytes are taken by what requests hold")]
pub(super) struct Full {
    wanted: usize,
    taken: usize,
    max: usize,
}

impl Default for Memory {
    fn default() -> Self {
        Self::new(DEFAULT_MAX_BYTES)
    }
}

impl Memory {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { max_bytes, taken: AtomicUsize::new(0) }
    }

    pub(super) fn take(&self, bytes: usize) -> Result<Taken<'_>, Full> {
        let fits = |taken: usize| taken.checked_add(bytes).filter(|all| *all <= self.max_bytes);
        match self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits) {
            Ok(_) => Ok(Taken(self, bytes)),
            // Whoever is alone is served, however much it is: nobody else would make room for it.
            Err(0) if self.taken.compare_exchange(0, bytes, Ordering::AcqRel, Ordering::Acquire).is_ok() => {
                Ok(Taken(self, bytes))
            }
            Err(taken) => Err(Full { wanted: bytes, taken, max: self.max_bytes }),
        }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(self.1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_unless_it_is_alone() {
        let memory = Memory::new(100);
        let first = memory.take(60).expect("fits");
        assert_eq!(memory.take(41).expect_err("does not fit"), Full { wanted: 41, taken: 60, max: 100 });
        assert!(memory.take(usize::MAX).is_err(), "no overflow");
        drop(first);
        let alone = memory.take(1_000).expect("alone");
        assert!(memory.take(1).is_err());
        drop(alone);
        assert_eq!(memory.taken.load(Ordering::Acquire), 0);
    }

    /// Or who embeds a pipeline and sets no bound would be told to come again, for nothing.
    #[test]
    fn without_a_bound_of_its_own_many_requests_have_room_beside_each_other() {
        let memory = Memory::default();
        let taken: Vec<_> = (0..100).map_while(|_| memory.take(1 << 20).ok()).collect();
        assert_eq!(taken.len(), 100);
    }
}

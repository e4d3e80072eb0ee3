//! What a thread takes to rewrite bodies of 2.0 as 1.0.
//!
//! Owns that memory: nobody needs it any more when a body has been rewritten, so one is enough for all requests of a thread. Refuses to
//! know where the body comes from.

use super::pool::BYTES_MAX_OF_ONE;
use crate::wire::v2::Rewriter;
use std::cell::RefCell;

thread_local! {
    static TWO: RefCell<Two> = RefCell::default();
}

/// A body of 2.0, and what rewrites it.
#[derive(Debug, Default)]
pub(super) struct Two {
    pub(super) raw: Vec<u8>,
    pub(super) rewriter: Rewriter,
}

/// Lends this thread's.
pub(super) fn with<T>(rewrite: impl FnOnce(&mut Two) -> T) -> T {
    TWO.with_borrow_mut(|two| {
        let rewritten = rewrite(two);
        // Also of a body that only claimed to be long.
        if two.raw.capacity() > BYTES_MAX_OF_ONE {
            two.raw = Vec::new();
        }
        rewritten
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Or each thread would keep for ever what the longest of its bodies took, or take it anew for each of them.
    #[test]
    fn a_thread_keeps_the_memory_of_a_usual_body_and_gives_that_of_a_long_one_back() {
        for (bytes, kept) in [(BYTES_MAX_OF_ONE, BYTES_MAX_OF_ONE), (BYTES_MAX_OF_ONE + 1, 0)] {
            with(|two| two.raw = Vec::with_capacity(bytes));
            assert_eq!(with(|two| two.raw.capacity()), kept);
        }
    }
}

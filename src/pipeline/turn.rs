//! Turns: large requests work one at a time on a thread, in pieces, and everybody else in between.
//!
//! A data-plane thread serves all its connections in turn, so what a request does between two await points holds up all of them.
//! A usual request takes a millisecond. A large one takes many, and many of them at a time would each take theirs between
//! any two steps of a small one. So a large one has its turn while it works, gives it up where it waits for others (a flight, the
//! upstream), and lets small ones go between its pieces. Who has the turn waits for nobody, so turns always end.
//! Refuses to bound how many there are: memory does.

use crate::overhead::{Meter, Stage};
use std::cell::OnceCell;
use std::ops::Range;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A body that says it becomes longer than that is a large one.
const LARGE_BYTES: usize = 1 << 20;
/// Series of a large request that are worked on in one go.
const PIECE: usize = 2_048;

thread_local! {
    static TURN: OnceCell<Arc<Semaphore>> = const { OnceCell::new() };
}

/// The turn of one request.
#[derive(Debug, Default)]
pub(super) struct Turn {
    large: bool,
    has: Option<OwnedSemaphorePermit>,
}

impl Turn {
    /// Of a request whose body says that it becomes so long. What is beyond the bound is refused at once.
    pub(super) fn of(raw_bytes: usize, max_bytes: usize) -> Self {
        Self { large: LARGE_BYTES < raw_bytes && raw_bytes <= max_bytes, has: None }
    }

    /// What is to be worked on, in pieces of which each is done in one go. `one`: it cannot be taken apart.
    pub(super) fn pieces(&self, all: Range<usize>, one: bool) -> impl Iterator<Item = Range<usize>> + use<> {
        let piece = if self.large && !one { PIECE } else { all.len().max(1) };
        all.clone().step_by(piece).map(move |from| from..all.end.min(from + piece))
    }

    /// Between two pieces of a large request others go on. The one before was of that stage.
    pub(super) async fn breathe(&self, meter: &mut Meter, stage: Stage) {
        if self.large {
            meter.end(stage);
            meter.pause();
            tokio::task::yield_now().await;
            meter.resume();
        }
    }

    /// Waits for it, if the request is large and does not have it.
    pub(super) async fn take(&mut self) {
        if self.large && self.has.is_none() {
            let turn = TURN.with(|turn| Arc::clone(turn.get_or_init(|| Arc::new(Semaphore::new(1)))));
            // Nobody closes it.
            self.has = turn.acquire_owned().await.ok();
        }
    }

    pub(super) fn give(&mut self) {
        self.has = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_requests_go_in_pieces() {
        let pieces = |bytes, all| {
            let pieces = Turn::of(bytes, 8 << 20).pieces(all, false);
            pieces.map(|piece| (piece.start, piece.end)).collect::<Vec<_>>()
        };
        assert_eq!(pieces(LARGE_BYTES, 3..10_000), [(3, 10_000)], "not a large one");
        assert_eq!(pieces(9 << 20, 3..10_000), [(3, 10_000)], "it is refused");
        assert_eq!(pieces(LARGE_BYTES + 1, 3..5_000), [(3, 2_051), (2_051, 4_099), (4_099, 5_000)]);
        assert!(pieces(LARGE_BYTES + 1, 3..3).is_empty());
        assert!(pieces(0, 0..0).is_empty());
    }

    #[tokio::test]
    async fn large_requests_have_their_turn_one_after_the_other() {
        let [mut one, mut other, mut small] =
            [LARGE_BYTES + 1, LARGE_BYTES + 1, LARGE_BYTES].map(|bytes| Turn::of(bytes, usize::MAX));
        one.take().await;
        one.take().await;
        small.take().await;
        let waits = tokio::time::timeout(std::time::Duration::ZERO, other.take()).await;
        assert!(waits.is_err());
        one.give();
        other.take().await;
        drop(other);
        one.take().await;
    }
}

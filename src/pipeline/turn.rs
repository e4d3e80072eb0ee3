//! Turns: who works on a thread, and when everybody else goes on.
//!
//! A data-plane thread serves all its connections in turn, so what a request does between two await points holds up all of them.
//!
//! A usual request takes half a millisecond for its body, and two short steps for the rest: its bytes to upstream, and upstream's
//! answer to its sender. Shards of a sender are full at the same moment, and if all bodies went first, the steps of the first request
//! would wait for the body of the last one, once on each way. So one body is begun a round, and before it all steps go that can.
//! Small ones have their place in the same queue, and are not worth a round.
//!
//! A large request takes many milliseconds, and many of them at a time would each take theirs between any two steps of a usual one.
//! So a large one has its turn while it works, gives it up where it waits for others (a flight, the upstream), and lets others go
//! between its pieces, those included that have come meanwhile. Who has the turn waits for nobody but the
//! queue, which always moves on, so turns always end.
//! Refuses to bound how many there are: memory does.

use crate::overhead::{Meter, Stage};
use crate::wire::Protocol;
use std::cell::OnceCell;
use std::ops::Range;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A body that says it becomes no longer than that is a small one: a tenth of a millisecond at most.
const SMALL_BYTES: usize = 32 << 10;
/// A body that says it becomes longer than that is a large one.
const LARGE_BYTES: usize = 1 << 20;
/// A body of 2.0 becomes so much longer as one of 1.0, as a rule.
const TWO_FACTOR: usize = 5;
/// Series of a large request that are worked on in one go.
const PIECE: usize = 2_048;

/// One at a time of a thread.
type One = OnceCell<Arc<Semaphore>>;

thread_local! {
    static TURN: One = const { OnceCell::new() };
    static ROUND: One = const { OnceCell::new() };
}

async fn acquire(one: &'static std::thread::LocalKey<One>) -> Option<OwnedSemaphorePermit> {
    let one = one.with(|one| Arc::clone(one.get_or_init(|| Arc::new(Semaphore::new(1)))));
    // Nobody closes it.
    one.acquire_owned().await.ok()
}

/// In the order of asking; who is not small, in the next round: behind everybody who can go on, those included whom the sockets are
/// about to wake.
async fn queue(small: bool) {
    let next = acquire(&ROUND).await;
    if !small {
        tokio::task::yield_now().await;
    }
    // Whoever asked next is woken behind this one, which works from here to its first wait.
    drop(next);
}

/// The turn of one request.
#[derive(Debug, Default)]
pub(super) struct Turn {
    small: bool,
    large: bool,
    has: Option<OwnedSemaphorePermit>,
}

impl Turn {
    /// Of a request whose body says that it becomes so long. What is beyond the bound is refused at once.
    pub(super) fn of(protocol: Protocol, raw_bytes: usize, max_bytes: usize) -> Self {
        let as_one = match protocol {
            Protocol::One => raw_bytes,
            Protocol::Two => raw_bytes.saturating_mul(TWO_FACTOR),
        };
        let refused = raw_bytes > max_bytes;
        Self { small: as_one <= SMALL_BYTES || refused, large: as_one > LARGE_BYTES && !refused, has: None }
    }

    /// Waits until the request may begin.
    pub(super) async fn begin(&mut self) {
        self.take().await;
        queue(self.small).await;
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
            queue(false).await;
            meter.resume();
        }
    }

    /// Waits for it, if the request is large and does not have it.
    pub(super) async fn take(&mut self) {
        if self.large && self.has.is_none() {
            self.has = acquire(&TURN).await;
        }
    }

    pub(super) fn give(&mut self) {
        self.has = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overhead::CpuTime;
    use std::sync::Mutex;

    #[test]
    fn large_requests_go_in_pieces() {
        let pieces = |bytes, all| {
            let pieces = Turn::of(Protocol::One, bytes, 8 << 20).pieces(all, false);
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
        let [mut one, mut other, mut small] = [LARGE_BYTES + 1, LARGE_BYTES + 1, LARGE_BYTES]
            .map(|bytes| Turn::of(Protocol::One, bytes, usize::MAX));
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

    #[tokio::test(flavor = "current_thread")]
    async fn what_one_began_goes_on_before_the_next_one_begins() {
        let order = |raw_bytes: [usize; 3]| async move {
            let notes = Arc::new(Mutex::new(Vec::new()));
            let tasks = raw_bytes.map(|bytes| {
                let notes = Arc::clone(&notes);
                tokio::spawn(async move {
                    let mut turn = Turn::of(Protocol::One, bytes, usize::MAX);
                    turn.begin().await;
                    notes.lock().unwrap().push("body");
                    // As to upstream's connection, which is a task of its own.
                    let step = tokio::spawn(async move { notes.lock().unwrap().push("step") });
                    step.await.unwrap();
                })
            });
            for task in tasks {
                task.await.unwrap();
            }
            Arc::into_inner(notes).unwrap().into_inner().unwrap()
        };
        let usual = order([SMALL_BYTES + 1, 500_000, LARGE_BYTES]).await;
        assert_eq!(usual, ["body", "step", "body", "step", "body", "step"]);
        // Small ones are not worth a round, and overtake nobody.
        assert_eq!(order([SMALL_BYTES; 3]).await[..3], ["body"; 3]);
        let mixed = order([SMALL_BYTES + 1, SMALL_BYTES, SMALL_BYTES + 1]).await;
        assert_eq!(mixed, ["body", "body", "step", "step", "body", "step"]);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn all_who_have_come_go_before_the_next_piece_of_a_large_one() {
        let notes = Arc::new(Mutex::new(Vec::new()));
        let note = |what: &'static str| notes.lock().unwrap().push(what);
        let mut large = Turn::of(Protocol::One, LARGE_BYTES + 1, usize::MAX);
        large.begin().await;
        note("piece");
        let others = [0; 3].map(|_| {
            let notes = Arc::clone(&notes);
            tokio::spawn(async move {
                Turn::of(Protocol::One, 500_000, usize::MAX).begin().await;
                notes.lock().unwrap().push("body");
            })
        });
        // They come.
        tokio::task::yield_now().await;
        large.breathe(&mut CpuTime::off().meter(), Stage::Decode).await;
        note("piece");
        for other in others {
            other.await.unwrap();
        }
        assert_eq!(*notes.lock().unwrap(), ["piece", "body", "body", "body", "piece"]);
    }

    #[tokio::test]
    async fn whoever_has_begun_is_waited_for_by_nobody() {
        let [mut one, mut other] = [500_000; 2].map(|bytes| Turn::of(Protocol::One, bytes, usize::MAX));
        one.begin().await;
        let begins = tokio::time::timeout(std::time::Duration::from_secs(5), other.begin()).await;
        begins.expect("nobody is in its way");
        drop(one);
    }

    #[test]
    fn what_is_small_or_large_is_told_by_its_length_as_one_of_1_0() {
        let class = |protocol, bytes| {
            let turn = Turn::of(protocol, bytes, 8 << 20);
            (turn.small, turn.large)
        };
        assert_eq!(class(Protocol::One, SMALL_BYTES), (true, false));
        assert_eq!(class(Protocol::Two, SMALL_BYTES), (false, false));
        assert_eq!(class(Protocol::Two, LARGE_BYTES), (false, true));
        assert_eq!(class(Protocol::Two, usize::MAX), (true, false), "it is refused");
    }
}

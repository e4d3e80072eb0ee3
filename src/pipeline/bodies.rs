//! The memory of bodies that are on their way to upstream, for those to come.
//!
//! Owns how much of it a thread keeps. Whoever drops a body last gives its memory back, wherever that is. Refuses to know what is in
//! it.

use crate::wire::snappy::Whole;
use bytes::Bytes;
use std::cell::RefCell;

/// All that a thread keeps, in bytes.
const BYTES_MAX: usize = 4 << 20;
/// What a longer body has taken is given back to the system, in bytes.
const BYTES_MAX_OF_ONE: usize = 1 << 20;

thread_local! {
    static KEPT: RefCell<Kept> = const { RefCell::new(Kept { memory: Vec::new(), bytes: 0 }) };
}

struct Kept {
    memory: Vec<Vec<u8>>,
    bytes: usize,
}

/// A body that is read until it is dropped.
struct Body(Whole);

/// What was given back last, or new memory.
pub(super) fn take() -> Vec<u8> {
    KEPT.with_borrow_mut(|kept| {
        let memory = kept.memory.pop().unwrap_or_default();
        kept.bytes -= memory.capacity();
        memory
    })
}

/// The body, to be sent.
pub(super) fn send(mut whole: Whole) -> Bytes {
    if whole.memory.capacity() > BYTES_MAX_OF_ONE {
        // It does not come back, and may have to wait for a connection.
        whole.memory.shrink_to_fit();
    }
    Bytes::from_owner(Body(whole))
}

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        &self.0.memory[self.0.start..]
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.0.memory);
        let bytes = memory.capacity();
        // At the end of a thread there may be nothing to give it back to.
        let _ = KEPT.try_with(|kept| {
            let Ok(mut kept) = kept.try_borrow_mut() else { return };
            if bytes <= BYTES_MAX_OF_ONE && kept.bytes + bytes <= BYTES_MAX {
                kept.bytes += bytes;
                kept.memory.push(memory);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(bytes: usize) -> Bytes {
        let mut memory = take();
        memory.clear();
        memory.resize(bytes, 7);
        send(Whole { memory, start: 3, raw_bytes: 0 })
    }

    #[test]
    fn memory_comes_back_with_the_last_who_reads_it() {
        let sent = body(1_000);
        let (part, at) = (sent.slice(10..), sent.as_ptr());
        assert_eq!((&sent[..], part.len()), (&[7; 997][..], 987));
        drop(sent);
        assert_eq!(take().capacity(), 0, "it is being read");
        drop(part);
        let memory = take();
        assert_eq!(memory[3..].as_ptr(), at);
        assert_eq!(take().capacity(), 0, "each is there once");
    }

    /// Or one burst, or one long body, would take memory for ever.
    #[test]
    fn what_a_thread_keeps_has_a_bound() {
        drop(body(BYTES_MAX_OF_ONE + 1));
        assert_eq!(take().capacity(), 0);
        drop((0..6).map(|_| body(BYTES_MAX_OF_ONE)).collect::<Vec<_>>());
        // What is taken is not kept: it may come back as often as there are bodies.
        (0..100).for_each(|_| drop(body(BYTES_MAX_OF_ONE)));
        let kept: Vec<_> =
            std::iter::repeat_with(|| take().capacity()).take_while(|bytes| *bytes > 0).collect();
        assert_eq!(kept, [BYTES_MAX_OF_ONE; 4]);
    }
}

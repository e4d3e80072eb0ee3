//! Which entry is looked for after which: a sender brings its series in the same order each time, so the next one is
//! found without a look into the index.
//!
//! Only a hint: whoever follows it looks at the key of what he finds. Refuses to know keys.

use super::CHUNK;
use std::sync::atomic::AtomicI16;
use std::sync::atomic::Ordering::Relaxed;

/// Orders that are kept beside each other.
const WAYS: usize = 2;

/// Of the entries of a chunk: how far from each the next one is, in numbers, each way. 0 = not known.
#[derive(Debug)]
pub(super) struct Order(Box<[[AtomicI16; WAYS]; CHUNK]>);

/// Whose order it is.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::window) struct Way(usize);

impl Way {
    /// That of a sender. Replicas are mostly numbered, at the end of their names, so that two have a way each.
    pub(in crate::window) fn of(sender: &[u8]) -> Self {
        Self(sender.last().map_or(0, |last| usize::from(*last) % WAYS))
    }
}

impl Order {
    /// Bytes that each takes.
    pub(super) const BYTES: usize = CHUNK * size_of::<[AtomicI16; WAYS]>();

    #[expect(clippy::expect_used, reason = "so many are made")]
    pub(super) fn unknown() -> Self {
        let after: Box<[_]> = (0..CHUNK).map(|_| Default::default()).collect();
        Self(after.try_into().expect("one for each entry of a chunk"))
    }

    /// The number that came after `number`, which is in this chunk.
    #[inline]
    pub(super) fn next(&self, number: u32, way: Way) -> Option<u32> {
        match self.after(number, way).load(Relaxed) {
            0 => None,
            far => number.checked_add_signed(far.into()),
        }
    }

    /// Learns that `next` comes after `number`, unless it is too far from it. Whether that was known.
    #[inline]
    pub(super) fn learn(&self, number: u32, next: u32, way: Way) -> bool {
        let Ok(far) = i16::try_from(i64::from(next) - i64::from(number)) else { return false };
        let after = self.after(number, way);
        // Read first: a line that is not written to stays with all who read it.
        let known = after.load(Relaxed) == far;
        if !known {
            after.store(far, Relaxed);
        }
        known
    }

    #[inline]
    fn after(&self, number: u32, way: Way) -> &AtomicI16 {
        &self.0[number as usize % CHUNK][way.0 % WAYS]
    }
}

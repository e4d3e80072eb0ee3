//! Request bodies by their hash: whether what arrived is what was sent, byte for byte.

use std::collections::HashSet;
use xxhash_rust::xxh3::xxh3_64;

/// A bounded set of bodies.
#[derive(Debug, Clone, Default)]
pub struct Bodies {
    max: usize,
    hashes: HashSet<u64>,
    beyond: u64,
}

impl Bodies {
    /// Remembers so many different bodies at most.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { max, ..Self::default() }
    }

    /// Remembers a body.
    pub fn note(&mut self, body: &[u8]) {
        if self.max == 0 {
            return;
        }
        let hash = xxh3_64(body);
        if self.hashes.len() < self.max {
            self.hashes.insert(hash);
        } else {
            self.beyond += u64::from(!self.hashes.contains(&hash));
        }
    }

    /// Adds those of another set.
    pub fn extend(&mut self, other: &Self) {
        self.hashes.extend(&other.hashes);
        self.beyond += other.beyond;
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// Those that found no room, and so cannot be judged.
    #[must_use]
    pub fn beyond(&self) -> u64 {
        self.beyond
    }

    /// How many of these are not among the others.
    #[must_use]
    pub fn missing_in(&self, others: &Self) -> u64 {
        self.hashes.difference(&others.hashes).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_makes_another_body() {
        let mut sent = Bodies::new(2);
        let mut arrived = Bodies::new(2);
        [&b"ab"[..], b"cd", b"ab", b"ef"].iter().for_each(|body| sent.note(body));
        [&b"ab"[..], b"ce"].iter().for_each(|body| arrived.note(body));
        assert_eq!((sent.len(), sent.beyond()), (2, 1), "the third one found no room");
        assert_eq!((sent.missing_in(&arrived), arrived.missing_in(&sent)), (1, 1));
        let mut all = sent.clone();
        all.extend(&arrived);
        assert_eq!((all.len(), arrived.missing_in(&all)), (3, 0));
        let mut none = Bodies::new(0);
        none.note(b"ab");
        assert!(none.is_empty() && none.beyond() == 0);
    }
}

//! The metadata that a 2.0 request has told of already: 1.0 gets each once, and what is kept for 2.0 is spelt out once.
//!
//! Refuses to write it down.

use super::pass::Metadata;
use crate::wire::{Span, equal};
use std::collections::HashSet;
use xxhash_rust::xxh3::xxh3_64;

/// Metadata of a request, by families.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// With a hash of the family.
    all: HashSet<(Metadata, u64)>,
    /// Some of it with the reference of a metric's name: the series of a metric mostly come one after the other.
    lately: Vec<Option<(Metadata, u32)>>,
    /// The same in the words in which it was told.
    words: Vec<Words>,
}

/// Metadata as it stands behind a series, and the reference of the metric's name.
#[derive(Debug, Clone, Copy, Default)]
struct Words {
    field: [u8; Self::BYTES_MAX],
    length: usize,
    name: u32,
    /// What was written of it.
    written: Span,
}

impl Words {
    /// A type and two references: more is not usual.
    const BYTES_MAX: usize = 16;
}

impl Told {
    const LATELY: usize = 1 << 6;

    pub(super) fn forget(&mut self) {
        self.all.clear();
        self.lately.clear();
        self.lately.resize(Self::LATELY, None);
        self.words.clear();
        self.words.resize(Self::LATELY, Words::default());
    }

    /// What was written of the same `field` of the same metric a moment ago; `None` says nothing.
    #[inline]
    pub(super) fn word_for_word(&self, field: &[u8], name: u32) -> Option<Span> {
        let words = &self.words[name as usize % Self::LATELY];
        let same = words.name == name && words.length > 0 && equal(&words.field[..words.length], field);
        same.then_some(words.written)
    }

    /// These are the words in which metadata was told, and what was written of it in the place where it is to be written again.
    pub(super) fn remember_words(&mut self, field: &[u8], name: u32, written: Span) {
        let mut words = Words { length: field.len(), name, written, ..Words::default() };
        if let Some(kept) = words.field.get_mut(..field.len()) {
            kept.copy_from_slice(field);
            self.words[name as usize % Self::LATELY] = words;
        }
    }

    /// `true` if it has been told of the same metric a moment ago; `false` says nothing.
    #[inline]
    pub(super) fn lately(&self, of: &Metadata, name: u32) -> bool {
        self.lately[name as usize % Self::LATELY] == Some((*of, name))
    }

    /// Whether it has been told of the family.
    pub(super) fn knows(&self, of: &Metadata, family: &[u8]) -> bool {
        self.all.contains(&(*of, xxh3_64(family)))
    }

    /// It has been told of now.
    pub(super) fn remember(&mut self, of: &Metadata, name: u32, family: &[u8]) {
        self.lately[name as usize % Self::LATELY] = Some((*of, name));
        self.all.insert((*of, xxh3_64(family)));
    }
}

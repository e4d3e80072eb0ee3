//! The symbols of a 2.0 body: each text once, the empty one first.
//!
//! Owns their numbers. Refuses to know what they are the labels of.

use super::referred::Referred;
use crate::series::keyed_hash;
use crate::wire::fields::{self, Field, LENGTH, VARINT};
use crate::wire::out::Out;
use crate::wire::v2::{HELP, SERIES_METADATA, TYPE, UNIT};
use crate::wire::{Malformed, Span, labels};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Texts of a body of 1.0, as spans into it.
#[derive(Debug, Default)]
pub(super) struct Symbols {
    all: Vec<Span>,
    /// The number of a symbol by the hash of its text.
    numbers: HashMap<u64, u32, BuildHasherDefault<AsIs>>,
    /// Most labels of a request are there many times.
    referred: Referred,
}

impl Symbols {
    /// What comes next is of another body.
    pub(super) fn forget(&mut self) {
        self.all.clear();
        self.all.push(Span::default());
        self.numbers.clear();
        self.referred.forget();
    }

    /// By their numbers.
    pub(super) fn all(&self) -> &[Span] {
        &self.all
    }

    /// Writes the two references of a label, a whole field of `body`.
    #[inline(always)]
    pub(super) fn refer_label(&mut self, body: &[u8], label: Span, out: &mut Out) -> Result<(), Malformed> {
        if self.referred.put(label.of(body), out) { Ok(()) } else { self.refer_new_label(body, label, out) }
    }

    #[inline(never)]
    fn refer_new_label(&mut self, body: &[u8], label: Span, out: &mut Out) -> Result<(), Malformed> {
        let field = fields::read(&body[..label.end as usize], label.start as usize)?;
        let read = labels::read(body, &field)?;
        let before = out.len();
        for text in [read.name, read.value] {
            let number = self.refer(body, text);
            out.put_varint(number.into());
        }
        self.referred.remember(label.of(body), &out.bytes()[before..]);
        Ok(())
    }

    /// Writes metadata, whose texts `v2.rs` has spelt out.
    ///
    /// A 1.0 sender may have something else there, of which nothing is taken.
    #[inline]
    pub(super) fn refer_metadata(&mut self, body: &[u8], metadata: &Field, out: &mut Out) {
        if !self.referred.put(metadata.whole().of(body), out) {
            self.refer_new_metadata(body, metadata, out);
        }
    }

    #[inline(never)]
    fn refer_new_metadata(&mut self, body: &[u8], metadata: &Field, out: &mut Out) {
        let message = &body[..metadata.end()];
        let before = out.len();
        let open = out.open_short(SERIES_METADATA);
        let mut at = metadata.content.start as usize;
        while at < message.len() {
            let Ok(field) = fields::read(message, at) else { return out.truncate(before) };
            at = field.end();
            match (field.number, field.wire_type) {
                (TYPE, VARINT) => out.put(field.whole().of(body)),
                (HELP | UNIT, LENGTH) => {
                    let number = self.refer(body, field.content);
                    out.put(&[(field.number << 3) as u8 | VARINT]);
                    out.put_varint(number.into());
                }
                _ => {}
            }
        }
        out.close(open);
        self.referred.remember(metadata.whole().of(body), &out.bytes()[before..]);
    }

    /// The number of a text.
    fn refer(&mut self, body: &[u8], text: Span) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let next = self.all.len() as u32;
        // With the secret of this process, or a sender could have all of them looked for in one place.
        let hash = keyed_hash(text.of(body)) as u64;
        let number = *self.numbers.entry(hash).or_insert(next);
        if number == next {
            self.all.push(text);
        } else if self.all[number as usize].of(body) != text.of(body) {
            // Two texts of one hash: the second is a symbol as often as it comes.
            self.all.push(text);
            return next;
        }
        number
    }
}

/// Keys that are hashes already.
#[derive(Debug, Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, byte| hash.rotate_left(8) ^ u64::from(*byte));
    }
}

//! A piece of a snappy block that is compressed once and printed many times: labels stay, values and times are filled in where they
//! stand as literals of the compressed bytes.
//!
//! A sender's main cost is to compress, and a load generator that compresses as senders do would be the bottleneck of what it
//! measures. Pieces refer to nothing outside of themselves, so a block is their sizes added up and their bytes one after the
//! other. Owns the format's elements; refuses to know what the bytes mean.

use std::collections::HashMap;
use std::io::Write as _;

/// Longest blank, in bytes.
pub(super) const BLANK_BYTES_MAX: usize = 16;
/// Made-up fillings that are tried until none of them looks like other bytes by accident.
const TRIES_MAX: u64 = 32;

/// Why a stencil could not be cut.
#[derive(Debug, thiserror::Error)]
pub(super) enum StencilError {
    /// The compressor failed or wrote what it cannot read.
    #[error("a template of a body: {0}")]
    Snappy(#[from] snap::Error),
    /// Blanks were always compressed away.
    #[error("a template of {bytes} bytes keeps no room for its blanks")]
    NoRoom {
        /// Length of the template, in bytes.
        bytes: usize,
    },
}

/// Bytes with blanks in them. A field that stands in several places is the same in all of them.
#[derive(Debug, Clone, Default)]
pub(super) struct Draft {
    pub(super) raw: Vec<u8>,
    blanks: Vec<Blank>,
}

#[derive(Debug, Clone, Copy)]
struct Blank {
    at: usize,
    len: u8,
    field: u32,
}

/// A compressed draft.
#[derive(Debug)]
pub(super) struct Stencil {
    packed: Vec<u8>,
    raw_len: usize,
    patches: Vec<Patch>,
}

/// So many bytes of a field, from one of its bytes on, stand there in the compressed bytes.
#[derive(Debug, Clone, Copy)]
struct Patch {
    at: u32,
    field: u32,
    from: u8,
    len: u8,
}

/// What is in a field, from its first byte on.
pub(super) type Filling = [u8; BLANK_BYTES_MAX];

impl Draft {
    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.raw.extend_from_slice(bytes);
    }

    /// Room for a field; at most [`BLANK_BYTES_MAX`] bytes.
    pub(super) fn blank(&mut self, field: u32, len: u8) {
        self.blanks.push(Blank { at: self.raw.len(), len, field });
        self.raw.resize(self.raw.len() + usize::from(len), 0);
    }

    /// Another one behind this one, blanks included.
    pub(super) fn append(&mut self, other: &Self) {
        let shift = self.raw.len();
        self.raw.extend_from_slice(&other.raw);
        self.blanks.extend(other.blanks.iter().map(|blank| Blank { at: blank.at + shift, ..*blank }));
    }

    fn filled(&self, fill: impl Fn(u32) -> Filling) -> Vec<u8> {
        let mut raw = self.raw.clone();
        for blank in &self.blanks {
            let len = usize::from(blank.len);
            raw[blank.at..blank.at + len].copy_from_slice(&fill(blank.field)[..len]);
        }
        raw
    }
}

impl Stencil {
    /// Compresses a draft so that every blank can be filled in later.
    pub(super) fn cut(draft: &Draft) -> Result<Self, StencilError> {
        // Bytes that resemble nothing stay literals where they stand first. One that happens to go on as a copy does gets others.
        let mut seeds: HashMap<u32, u64> = HashMap::new();
        for _ in 0..TRIES_MAX {
            let raw = draft.filled(|field| made_up(seeds.get(&field).copied().unwrap_or(0), field));
            let block = snap::raw::Encoder::new().compress_vec(&raw)?;
            let header = block.iter().take_while(|byte| **byte >= 0x80).count() + 1;
            let packed = block.get(header..).unwrap_or_default().to_vec();
            let patches = patches(&packed, &draft.blanks);
            let copied = copied(&patches, &draft.blanks);
            for field in &copied {
                *seeds.entry(*field).or_default() += 1;
            }
            if !copied.is_empty() {
                continue;
            }
            let stencil = Self { packed, raw_len: raw.len(), patches };
            // Another filling shows whether anything was copied that should not have been.
            let other = |field| made_up(u64::MAX >> 1, field);
            if stencil.unpacked(other)? == draft.filled(other) {
                return Ok(stencil);
            }
            draft.blanks.iter().for_each(|blank| *seeds.entry(blank.field).or_default() += 1);
        }
        Err(StencilError::NoRoom { bytes: draft.raw.len() })
    }

    /// Appends the elements, without a block's header.
    pub(super) fn print(&self, fill: impl Fn(u32) -> Filling, out: &mut Vec<u8>) {
        let base = out.len();
        out.extend_from_slice(&self.packed);
        let out = &mut out[base..];
        let mut last: Option<(u32, Filling)> = None;
        for patch in &self.patches {
            let filling = match last {
                Some((field, filling)) if field == patch.field => filling,
                _ => fill(patch.field),
            };
            last = Some((patch.field, filling));
            let (at, from, len) = (patch.at as usize, usize::from(patch.from), usize::from(patch.len));
            out[at..at + len].copy_from_slice(&filling[from..from + len]);
        }
    }

    /// How many bytes it stands for.
    pub(super) fn raw_len(&self) -> usize {
        self.raw_len
    }

    fn unpacked(&self, fill: impl Fn(u32) -> Filling) -> Result<Vec<u8>, StencilError> {
        let mut block = block(self.raw_len);
        self.print(fill, &mut block);
        Ok(snap::raw::Decoder::new().decompress_vec(&block)?)
    }
}

/// The beginning of a block that decompresses to so many bytes.
pub(super) fn block(raw_len: usize) -> Vec<u8> {
    let mut header = Vec::new();
    put_varint(&mut header, raw_len as u64);
    header
}

pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A number that looks random.
pub(super) fn mix(one: u64, other: u64) -> u64 {
    let mut x =
        one.wrapping_add(other.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_add(0x632b_e59b_d9b4_e019);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn made_up(seed: u64, field: u32) -> Filling {
    let mut filling = Filling::default();
    let mut room = filling.as_mut_slice();
    for half in 0..2 {
        // Two words of 8 bytes fit exactly.
        drop(room.write_all(&mix(seed << 1 | half, u64::from(field)).to_le_bytes()));
    }
    filling
}

/// Where the bytes of blanks are literals.
fn patches(packed: &[u8], blanks: &[Blank]) -> Vec<Patch> {
    let mut patches = Vec::new();
    let mut next = 0;
    let (mut at, mut raw_at) = (0, 0);
    while let Some(element) = element(&packed[at..]) {
        if element.literal {
            let literal = raw_at..raw_at + element.stands_for;
            while blanks.get(next).is_some_and(|blank| blank.at + usize::from(blank.len) <= literal.start) {
                next += 1;
            }
            let inside = blanks[next..].iter().take_while(|blank| blank.at < literal.end);
            patches.extend(inside.filter_map(|blank| {
                let from = blank.at.max(literal.start);
                let to = (blank.at + usize::from(blank.len)).min(literal.end);
                let there = at + element.head + (from - literal.start);
                Some(Patch {
                    at: u32::try_from(there).ok()?,
                    field: blank.field,
                    from: u8::try_from(from - blank.at).ok()?,
                    len: u8::try_from(to.checked_sub(from)?).ok()?,
                })
            }));
        }
        raw_at += element.stands_for;
        at += element.head + if element.literal { element.stands_for } else { 0 };
    }
    patches
}

/// The fields that are no literals where they stand first.
fn copied(patches: &[Patch], blanks: &[Blank]) -> Vec<u32> {
    let mut literal: HashMap<u32, u16> = HashMap::new();
    for patch in patches {
        // Each byte of a field once: the first occurrence begins with its first byte.
        let known = literal.entry(patch.field).or_default();
        if u16::from(patch.from) == *known {
            *known += u16::from(patch.len);
        }
    }
    let whole = |blank: &Blank| literal.get(&blank.field).is_some_and(|known| *known >= u16::from(blank.len));
    let mut copied: Vec<_> = blanks.iter().filter(|blank| !whole(blank)).map(|blank| blank.field).collect();
    copied.dedup();
    copied
}

struct Element {
    /// Bytes before the literal's own, or of the whole copy.
    head: usize,
    stands_for: usize,
    literal: bool,
}

/// The element that these bytes begin with (<https://github.com/google/snappy/blob/main/format_description.txt>).
fn element(bytes: &[u8]) -> Option<Element> {
    let tag = usize::from(*bytes.first()?);
    let copy = |head, stands_for| Some(Element { head, stands_for, literal: false });
    match (tag & 3, tag >> 2) {
        (0, short @ 0..60) => Some(Element { head: 1, stands_for: short + 1, literal: true }),
        (0, long) => {
            let size = long - 59;
            let length =
                bytes.get(1..=size)?.iter().rev().fold(0, |length, byte| length << 8 | usize::from(*byte));
            Some(Element { head: 1 + size, stands_for: length + 1, literal: true })
        }
        (1, rest) => copy(2, (rest & 7) + 4),
        (2, length) => copy(3, length + 1),
        (_, length) => copy(5, length + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filling(text: &str) -> Filling {
        let mut filling = Filling::default();
        filling[..text.len()].copy_from_slice(text.as_bytes());
        filling
    }

    #[test]
    fn prints_what_was_drafted() {
        let mut one = Draft::default();
        one.put(b"a label that repeats itself, and a name: ");
        one.blank(0, 12);
        one.put(b" and a value: ");
        let mut draft = Draft::default();
        for nth in 0..200 {
            draft.append(&one);
            draft.blank(1 + nth, 8);
        }
        let stencil = Stencil::cut(&draft).unwrap();
        assert!(stencil.packed.len() * 3 < draft.raw.len(), "{} bytes", stencil.packed.len());
        // Fillings that resemble each other, and other bytes of the draft: the worst case for copies.
        for name in ["a label that", "zzzzzzzzzzzz"] {
            let fill = |field| if field == 0 { filling(name) } else { filling(&format!("{:08}", field / 3)) };
            let text = String::from_utf8(stencil.unpacked(fill).unwrap()).unwrap();
            assert_eq!(text.matches(&format!("a name: {name} and")).count(), 200);
            for nth in 0..200 {
                assert!(text.contains(&format!("{:08}", (1 + nth) / 3)));
            }
            assert_eq!(text.len(), draft.raw.len());
        }
    }

    #[test]
    fn pieces_make_a_block() {
        let mut draft = Draft::default();
        draft.put(&[7; 300]);
        draft.blank(0, 6);
        let stencil = Stencil::cut(&draft).unwrap();
        let mut out = block(2 * stencil.raw_len());
        stencil.print(|_| filling("first!"), &mut out);
        stencil.print(|_| filling("second"), &mut out);
        let raw = snap::raw::Decoder::new().decompress_vec(&out).unwrap();
        assert_eq!((&raw[300..306], &raw[606..612]), (&b"first!"[..], &b"second"[..]));
    }
}

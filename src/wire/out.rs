//! What a body of another version is written to.
//!
//! Owns the growing of the memory: what was written there before is written over and not cleared first, so that a few
//! bytes more than are meant can be copied at a time. Refuses to know what is written.

use crate::wire::Span;
use crate::wire::fields::{LENGTH, varint_len};

/// More is asked for in steps of so many bytes.
const STEP: usize = 1 << 14;

/// Bytes that are being written.
#[derive(Debug, Default)]
pub(super) struct Out {
    /// More than are written yet, as a rule.
    bytes: Vec<u8>,
    len: usize,
}

/// A message that is being written behind its length.
#[derive(Debug, Clone, Copy)]
pub(super) struct Open {
    /// Where its content begins.
    at: usize,
    /// How many bytes its length has room for.
    room: usize,
}

impl Open {
    /// Where its content begins, as long as it is not [closed](Out::close).
    pub(super) const fn begins(self) -> usize {
        self.at
    }
}

impl Out {
    /// Nothing is written yet; the memory is that of `bytes`.
    pub(super) const fn over(bytes: Vec<u8>) -> Self {
        Self { bytes, len: 0 }
    }

    /// What has been written.
    pub(super) fn into_bytes(mut self) -> Vec<u8> {
        self.bytes.truncate(self.len);
        self.bytes
    }

    /// What has been written.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Takes away what was written behind the first `len` bytes.
    pub(super) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// The room behind what has been written: `least` bytes, or more. Meant are those that are [kept](Self::keep).
    #[inline(always)]
    pub(super) fn room(&mut self, least: usize) -> &mut [u8] {
        if self.bytes.len() - self.len < least {
            self.grow(least);
        }
        &mut self.bytes[self.len..]
    }

    /// The first bytes of the room have been written.
    #[inline(always)]
    pub(super) fn keep(&mut self, bytes: usize) {
        self.len = self.bytes.len().min(self.len + bytes);
    }

    #[cold]
    fn grow(&mut self, least: usize) {
        self.bytes.resize(self.len + least + STEP, 0);
    }

    #[inline]
    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.room(bytes.len())[..bytes.len()].copy_from_slice(bytes);
        self.keep(bytes.len());
    }

    /// Writes once more what has been written there.
    #[inline(never)]
    pub(super) fn put_again(&mut self, written: Span) {
        let written = written.start as usize..written.end as usize;
        self.room(written.len());
        self.bytes.copy_within(written.clone(), self.len);
        self.keep(written.len());
    }

    pub(super) fn put_varint(&mut self, value: u64) {
        let (varint, len) = varint(value);
        self.put(&varint[..len]);
    }

    /// Begins a message that has 128 bytes or more, as a rule: what is in it has to be moved otherwise.
    #[inline]
    pub(super) fn open(&mut self, number: u32) -> Open {
        self.put(&[(number << 3) as u8 | LENGTH, 0, 0]);
        Open { at: self.len, room: 2 }
    }

    /// Begins a message that has less than that, as a rule.
    #[inline]
    pub(super) fn open_short(&mut self, number: u32) -> Open {
        self.put(&[(number << 3) as u8 | LENGTH, 0]);
        Open { at: self.len, room: 1 }
    }

    /// Ends a message. Returns where its content begins by now.
    #[inline]
    pub(super) fn close(&mut self, open: Open) -> usize {
        let length = self.len - open.at;
        match (open.room, length) {
            (2, 0x80..0x4000) => {
                self.bytes[open.at - 2..open.at].copy_from_slice(&[length as u8 | 0x80, (length >> 7) as u8]);
                open.at
            }
            (1, 0..0x80) => {
                self.bytes[open.at - 1] = length as u8;
                open.at
            }
            _ => self.close_unusual(open, length),
        }
    }

    #[inline(never)]
    fn close_unusual(&mut self, open: Open, length: usize) -> usize {
        let (prefix, prefix_len) = varint(length as u64);
        let begins = open.at - open.room + prefix_len;
        self.room(prefix_len);
        self.bytes.copy_within(open.at..self.len, begins);
        self.bytes[open.at - open.room..begins].copy_from_slice(&prefix[..prefix_len]);
        self.len = begins + length;
        begins
    }
}

/// A number in its shortest form, and how many bytes that takes.
pub(super) fn varint(value: u64) -> ([u8; 10], usize) {
    let len = varint_len(value);
    let mut bytes = [0; 10];
    for (nth, byte) in bytes[..len].iter_mut().enumerate() {
        *byte = (value >> (7 * nth)) as u8 & 0x7f | if nth + 1 < len { 0x80 } else { 0 };
    }
    (bytes, len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::fields;

    #[test]
    fn messages_have_their_length_before_them() {
        for length in [0, 1, 0x7f, 0x80, 0x3fff, 0x4000, 0x20_0000] {
            let content: Vec<u8> = (0..length).map(|n| n as u8).collect();
            for short in [true, false] {
                let mut out = Out::over(vec![7; 30]);
                out.put(b"before");
                let open = if short { out.open_short(5) } else { out.open(5) };
                out.put(&content);
                let begins = out.close(open);
                out.put(b"after");
                assert!(out.bytes()[begins..].starts_with(&content), "{length}");
                let written = out.into_bytes();
                let field = fields::read(&written, 6).unwrap();
                assert_eq!((&written[..6], field.number, field.wire_type), (&b"before"[..], 5, LENGTH));
                assert!(field.content.of(&written) == content, "{length}");
                assert_eq!(&written[field.end()..], b"after", "{length}");
            }
        }
    }

    #[test]
    fn a_message_is_moved_also_where_there_is_no_room_left() {
        let mut out = Out::over(vec![7; 3 + 130]);
        let open = out.open_short(5);
        out.put(&[9; 131]);
        assert_eq!(out.room(0).len(), 0, "full");
        assert_eq!(out.close(open), 3);
        assert_eq!(out.into_bytes(), [&[0x2a, 0x83, 1][..], &[9; 131]].concat());
    }

    #[test]
    fn only_what_is_kept_is_written() {
        let mut out = Out::over(vec![7; 3]);
        out.room(10)[..5].copy_from_slice(b"abcde");
        out.keep(2);
        out.put_varint(300);
        out.put(b"xyz");
        out.truncate(5);
        out.truncate(100);
        out.put_again(Span { start: 1, end: 4 });
        assert_eq!(out.len(), 8);
        assert_eq!(out.into_bytes(), b"ab\xac\x02xb\xac\x02");
    }
}

//! Protobuf fields: keys, varints, lengths, over one bounded slice of a body.
//!
//! Owns the encoding rules (<https://protobuf.dev/programming-guides/encoding/>) and nothing of any message. Offsets are
//! absolute: a nested message is read from the body cut off at the message's end. Refuses groups.

use super::{Flaw, Malformed, Span};

/// Wire type of varints.
pub(super) const VARINT: u8 = 0;
/// Wire type of 8-byte numbers.
pub(super) const FIXED64: u8 = 1;
/// Wire type of everything that has a length.
pub(super) const LENGTH: u8 = 2;
const GROUP_START: u8 = 3;
const GROUP_END: u8 = 4;
const FIXED32: u8 = 5;

/// One field of a message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    pub(super) number: u32,
    pub(super) wire_type: u8,
    /// Offset of its key.
    pub(super) start: usize,
    /// What comes after the key (and after the length, if it has one).
    pub(super) content: Span,
}

impl Field {
    pub(super) const fn end(&self) -> usize {
        self.content.end as usize
    }

    /// The whole field, key included.
    pub(super) const fn whole(&self) -> Span {
        Span { start: Span::at(self.start, self.start).start, end: self.content.end }
    }

    /// A known field whose wire type is not its own.
    pub(super) const fn wrong_wire_type(&self) -> Malformed {
        Malformed::new(self.start, Flaw::WireType { field: self.number, given: self.wire_type })
    }

    pub(super) fn varint(&self, message: &[u8]) -> Result<u64, Malformed> {
        varint(message, self.content.start as usize).map(|(value, _)| value)
    }

    pub(super) fn fixed64(&self, message: &[u8]) -> Result<u64, Malformed> {
        fixed64(message, self.content.start as usize)
    }
}

/// Reads the field at `at`; `message` is the body cut off at the message's end.
///
/// Put into the walk's loops as it stands: nearly all their fields have a key of one byte and a length of one or two.
#[inline(always)]
pub(super) fn read_quick(message: &[u8], at: usize) -> Result<Field, Malformed> {
    if let Some(&[key, low, high]) = message.get(at..at + 3)
        && key & 0x87 == LENGTH
        && key >= 8
    {
        let (length, content) = if low < 0x80 {
            (usize::from(low), at + 2)
        } else {
            (usize::from(low & 0x7f) | usize::from(high) << 7, at + 3)
        };
        // A high byte with its own continuation is too long a length for this.
        if (low < 0x80 || high < 0x80) && length <= message.len() - content {
            let content = Span::at(content, content + length);
            return Ok(Field { number: u32::from(key >> 3), wire_type: LENGTH, start: at, content });
        }
    }
    read(message, at)
}

/// As [`read_quick`], where a call costs less than the room.
#[inline(never)]
pub(super) fn read(message: &[u8], start: usize) -> Result<Field, Malformed> {
    let (key, at) = varint(message, start)?;
    let number = match u32::try_from(key) {
        Ok(key) if key >= 8 => key >> 3,
        _ => return Err(Malformed::new(start, Flaw::Key { key })),
    };
    #[allow(clippy::cast_possible_truncation)]
    let wire_type = (key & 7) as u8;
    let (content, end) = match wire_type {
        VARINT => (at, varint(message, at)?.1),
        FIXED64 => (at, at + 8),
        FIXED32 => (at, at + 4),
        LENGTH => {
            let (length, content) = varint(message, at)?;
            let left = message.len() - content;
            match usize::try_from(length) {
                Ok(length) if length <= left => (content, content + length),
                _ => return Err(Malformed::new(at, Flaw::Length { given: length, left })),
            }
        }
        GROUP_START | GROUP_END => return Err(Malformed::new(start, Flaw::Group { field: number })),
        given => return Err(Malformed::new(start, Flaw::WireType { field: number, given })),
    };
    if end > message.len() {
        return Err(Malformed::new(at, Flaw::Truncated));
    }
    Ok(Field { number, wire_type, start, content: Span::at(content, end) })
}

/// The varint at `at`, and the offset behind it.
#[inline]
pub(super) fn varint(message: &[u8], at: usize) -> Result<(u64, usize), Malformed> {
    let mut value = 0;
    let mut shift = 0;
    for (i, &byte) in message[at..].iter().enumerate() {
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            // The tenth byte has room for one bit.
            if i == 9 && byte > 1 {
                break;
            }
            return Ok((value, at + i + 1));
        }
        shift += 7;
        if shift > 63 {
            break;
        }
    }
    Err(Malformed::new(at, if message.len() - at < 10 { Flaw::Truncated } else { Flaw::Varint }))
}

/// The 8 bytes at `at` as a little-endian number.
#[inline]
pub(super) fn fixed64(message: &[u8], at: usize) -> Result<u64, Malformed> {
    match message[at..].first_chunk() {
        Some(bytes) => Ok(u64::from_le_bytes(*bytes)),
        None => Err(Malformed::new(at, Flaw::Truncated)),
    }
}

/// Appends `value` in its shortest form.
#[inline]
#[allow(clippy::cast_possible_truncation)]
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// How many bytes [`put_varint`] appends.
pub(super) const fn varint_len(value: u64) -> usize {
    // 7 bits a byte; 0 takes one byte too.
    ((63 - (value | 1).leading_zeros() as usize) * 9 + 73) / 64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_round_trip() {
        for value in [0, 1, 127, 128, 16_383, 16_384, 1_700_000_000_000, u64::MAX >> 1, u64::MAX] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(out.len(), varint_len(value), "{value}");
            assert_eq!(varint(&out, 0), Ok((value, out.len())));
            let cut = &out[..out.len() - 1];
            assert_eq!(varint(cut, 0).unwrap_err().flaw, Flaw::Truncated, "{value}");
        }
        for shift in 0..64 {
            let value = 1_u64 << shift;
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(out.len(), varint_len(value), "{value}");
        }
    }

    #[test]
    fn overlong_numbers() {
        assert_eq!(varint(&[0x80, 0], 0), Ok((0, 2)), "not the shortest form, but legal");
        assert_eq!(varint(&[0xff; 11], 0).unwrap_err().flaw, Flaw::Varint);
        let mut sixty_five_bits = [0xff; 10];
        sixty_five_bits[9] = 2;
        assert_eq!(varint(&sixty_five_bits, 0).unwrap_err().flaw, Flaw::Varint);
        sixty_five_bits[9] = 1;
        assert_eq!(varint(&sixty_five_bits, 0), Ok((u64::MAX, 10)));
    }

    fn check(message: &[u8], flaw: Flaw) {
        assert_eq!(read(message, 0).unwrap_err().flaw, flaw, "{message:02x?}");
    }

    #[test]
    fn broken_fields() {
        check(&[0x02, 0], Flaw::Key { key: 2 });
        check(&[0x80, 0x80, 0x80, 0x80, 0x10], Flaw::Key { key: 1 << 32 });
        check(&[0x0a, 3, 1, 2], Flaw::Length { given: 3, left: 2 });
        check(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f], Flaw::Length { given: 0xffff_ffff, left: 0 });
        check(&[0x0a], Flaw::Truncated);
        check(&[0x09, 1, 2, 3], Flaw::Truncated);
        check(&[0x0d, 1, 2, 3], Flaw::Truncated);
        check(&[0x0b], Flaw::Group { field: 1 });
        check(&[0x0c], Flaw::Group { field: 1 });
        check(&[0x0e, 0], Flaw::WireType { field: 1, given: 6 });
        check(&[0x0f, 0], Flaw::WireType { field: 1, given: 7 });
    }
}

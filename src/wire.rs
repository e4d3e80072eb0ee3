//! WIRE: bytes in, bytes out.
//!
//! Owns the snappy block format, the borrowed walk over a decompressed remote-write body, and the splicing of the
//! outgoing body from received bytes. Refuses to decide anything, to own text, and to re-encode what it can copy:
//! values, unknown fields, exemplars and histograms leave as they came.
//!
//! Everything here works on offsets into one decompressed body ([`Span`]), so nothing is allocated per sample.

mod equal;
mod fields;
pub mod histogram;
pub mod labels;
mod out;
mod shape;
pub mod snappy;
pub mod splice;
pub mod v1;
pub mod v2;
pub mod v2_out;
pub mod values;

pub use equal::equal;

/// The versions of remote write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// `prometheus.WriteRequest`.
    #[default]
    One,
    /// `io.prometheus.write.v2.Request`.
    Two,
}

/// A range of bytes of the decompressed body: `start..end`.
///
/// Bodies are at most [`BODY_BYTES_MAX`] long, so that a span is 8 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// Offset of the first byte.
    pub start: u32,
    /// Offset behind the last byte.
    pub end: u32,
}

/// The longest decompressed body that the walkers take, in bytes: what a [`Span`] can address.
pub const BODY_BYTES_MAX: usize = u32::MAX as usize;

/// The bits of the value with which Prometheus ends a series (`model/value/value.go`, `StaleNaN`).
///
/// A signalling NaN: it is compared and carried as bits, never as a float.
pub const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;

impl Span {
    /// Length in bytes.
    #[must_use]
    pub const fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    /// True if it covers no byte.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// How many bytes the whole field takes if this is the message in it: its key (of one byte), its length, and this.
    #[must_use]
    pub const fn field_len(self) -> usize {
        1 + fields::varint_len(self.len() as u64) + self.len()
    }

    /// Its bytes in `body`, which must be the body that the span was made for.
    #[must_use]
    pub fn of(self, body: &[u8]) -> &[u8] {
        &body[self.start as usize..self.end as usize]
    }

    /// Of offsets that are known to lie in a body of at most [`BODY_BYTES_MAX`].
    #[allow(clippy::cast_possible_truncation)]
    const fn at(start: usize, end: usize) -> Self {
        Self { start: start as u32, end: end as u32 }
    }
}

/// A body that is no protobuf message of the expected shape: what is wrong, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed {
    /// What is wrong.
    pub flaw: Flaw,
    /// Where: offset into the decompressed body, in bytes.
    pub at: usize,
    /// In which `TimeSeries`, counted from 1; 0 = outside of any.
    pub series: u32,
}

/// What can be wrong with a protobuf message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// The message ends inside a varint or a fixed-width number.
    #[error("message ends inside a number")]
    Truncated,
    /// A varint that does not fit 64 bits.
    #[error("number does not fit 64 bits")]
    Varint,
    /// A field number of 0 or above 2^29 - 1.
    #[error("field key {key} is not valid")]
    Key {
        /// The key as read: field number times 8, plus wire type.
        key: u64,
    },
    /// A length that reaches behind the end of the message around it.
    #[error("length {given} exceeds the {left} bytes that are left")]
    Length {
        /// The length as read.
        given: u64,
        /// How many bytes the enclosing message has left.
        left: usize,
    },
    /// A known field with a wire type that is not its own, or a wire type that does not exist.
    #[error("field {field} has wire type {given}")]
    WireType {
        /// Field number.
        field: u32,
        /// The wire type as read, 0 to 7.
        given: u8,
    },
    /// A group (wire types 3 and 4), which remote write never had.
    #[error("field {field} is a group")]
    Group {
        /// Field number.
        field: u32,
    },
    /// More of something than one request may have: answered 413.
    #[error("request has more than {max} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The bound.
        max: usize,
    },
    /// A field that remote write 2.0 keeps free for the fields of 1.0.
    #[error("field {field} is none of remote write 2.0: is the body one of 1.0?")]
    Reserved {
        /// Field number.
        field: u32,
    },
    /// A request of 1.0 without a field of 1.0, but with the series of 2.0: read on, it would come to nothing and be acknowledged.
    #[error(
        "the body is one of remote write 2.0, and its type says 1.0: expected Content-Type \"application/x-protobuf;proto=io.prometheus.write.v2.Request\""
    )]
    SecondVersion,
    /// The first symbol of a 2.0 request has to be empty.
    #[error("the first symbol is not empty")]
    FirstSymbol,
    /// A reference behind the last symbol.
    #[error("reference {given} leads beyond the {symbols} symbols")]
    Reference {
        /// The reference as read.
        given: u32,
        /// How many symbols there are.
        symbols: usize,
    },
    /// Labels are pairs of references.
    #[error("{given} references are not pairs of names and values")]
    OddReferences {
        /// How many there are.
        given: usize,
    },
    /// The body is longer than a [`Span`] can address.
    #[error("body of {given} bytes exceeds {BODY_BYTES_MAX}")]
    TooLong {
        /// Its length in bytes.
        given: usize,
    },
}

impl std::error::Error for Malformed {}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "malformed protobuf at byte {}", self.at)?;
        if self.series > 0 {
            write!(f, " in series {}", self.series)?;
        }
        write!(f, ": {}", self.flaw)
    }
}

impl Malformed {
    const fn new(at: usize, flaw: Flaw) -> Self {
        Self { flaw, at, series: 0 }
    }

    const fn in_series(mut self, series: u32) -> Self {
        self.series = series;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_says_what_and_where() {
        let malformed = Malformed::new(17, Flaw::Length { given: 300, left: 4 }).in_series(3);
        assert_eq!(
            malformed.to_string(),
            "malformed protobuf at byte 17 in series 3: length 300 exceeds the 4 bytes that are left"
        );
        let outside = Malformed::new(0, Flaw::Group { field: 9 });
        assert_eq!(outside.to_string(), "malformed protobuf at byte 0: field 9 is a group");
    }
}

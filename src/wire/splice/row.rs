//! Series that follow each other in the body: from the replica label of one to that of the next they are copied in one piece.
//!
//! Between two such pieces nothing changes but the length of a message, which is written anew where it was. Refuses series that leave
//! with other labels than they came with.

use super::{Span, TimeSeries, put_head, varint_len};

/// Series that leave whole and without their replica label, one after the other. What is behind the replica label of the last one is
/// still to be appended: see [`Row::end`].
#[derive(Debug, Default)]
pub struct Row {
    left: Span,
}

impl Row {
    /// How much is still to be appended, in bytes.
    #[inline]
    #[must_use]
    pub fn left_bytes(&self) -> usize {
        self.left.len()
    }

    /// Appends what is left of the last series, and this one up to its replica label. The series must be `plain`, and of the body that
    /// the last one was of.
    #[inline]
    pub fn put(&mut self, body: &[u8], series: &TimeSeries, out: &mut Vec<u8>) {
        debug_assert!(series.plain && series.before.start == series.payload.start, "{series:?}");
        // What follows the replica label is one piece.
        let tail = Span { start: series.after.start, end: series.rest.end };
        let length = series.before.len() + tail.len();
        let width = varint_len(length as u64);
        // Only its head lies between, and that is as long as the new one: it would not be shorter, having said more.
        if self.left.end as usize + 1 + width == series.payload.start as usize {
            let piece = Span { start: self.left.start, end: series.before.end };
            out.extend_from_slice(piece.of(body));
            let begins = out.len() - series.before.len();
            put_length(&mut out[begins - width..begins], length);
        } else {
            self.end(body, out);
            put_head(out, length);
            out.extend_from_slice(series.before.of(body));
        }
        self.left = tail;
    }

    /// Appends what is left. To be called before anything else is appended.
    #[inline]
    pub fn end(&mut self, body: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(self.left.of(body));
        self.left = Span::default();
    }
}

/// Writes a number in its shortest form, which is as long as `to`.
#[inline]
#[allow(clippy::cast_possible_truncation)] // seven bits of it
fn put_length(to: &mut [u8], length: usize) {
    if let [low, high] = to {
        (*low, *high) = (length as u8 | 0x80, (length >> 7) as u8);
        return;
    }
    let more = to.len().saturating_sub(1);
    for (nth, byte) in to.iter_mut().enumerate() {
        *byte = (length >> (7 * nth)) as u8 & 0x7f | if nth < more { 0x80 } else { 0 };
    }
}

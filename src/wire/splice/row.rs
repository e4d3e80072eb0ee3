//! Series that follow each other in the body: from the replica label of one to that of the next they are copied in one piece.
//!
//! Between two such pieces nothing changes but the length of a message, which is written anew where it was. Refuses series that leave
//! with other labels than they came with.

use super::{Span, TimeSeries, put_head, varint_len};
use crate::wire::out::varint;

/// What is longer is appended at once, or two long series would have to be held at a time.
const LEFT_BYTES_MAX: usize = 4 << 10;

/// Series that leave whole and without their replica label, one after the other. What is behind the replica label of the last one is
/// still to be appended: see [`Row::end`].
#[derive(Debug, Default)]
pub struct Row {
    left: Span,
}

impl Row {
    /// How much is still to be appended, in bytes: at most 4 KiB.
    #[inline]
    #[must_use]
    pub fn left_bytes(&self) -> usize {
        self.left.len()
    }

    /// Appends what is left of the last series, and this one up to its replica label. The series must be `plain`, and of the body that
    /// the last one was of.
    #[inline(always)]
    pub fn put(&mut self, body: &[u8], series: &TimeSeries, out: &mut Vec<u8>) {
        debug_assert!(series.plain && series.before.start == series.payload.start, "{series:?}");
        // What follows the replica label is one piece.
        let tail = Span { start: series.after.start, end: series.rest.end };
        let length = series.before.len() + tail.len();
        let width = varint_len(length as u64);
        // Its head says no less than the new one and is no shorter, whatever else lies between: so nothing does, its key takes one
        // byte, and its length as many as the new one. So it is for the first series of a body, where nothing is left.
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
        if tail.len() > LEFT_BYTES_MAX {
            self.end(body, out);
        }
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
    to.copy_from_slice(&varint(length as u64).0[..to.len()]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::ReplicaNames;
    use crate::wire::fields::put_varint;
    use crate::wire::v1::Walker;
    use proptest::prelude::*;

    fn label(name: &str, value: &str) -> Vec<u8> {
        let mut label = Vec::new();
        for (key, text) in [(0x0a, name), (0x12, value)] {
            label.push(key);
            put_varint(&mut label, text.len() as u64);
            label.extend_from_slice(text.as_bytes());
        }
        [vec![0x0a, label.len() as u8], label].concat()
    }

    /// A series as a Prometheus sends it. `before`, `after`: lengths of values of labels around the replica label.
    fn series(before: usize, after: Option<usize>, is_replica: bool, exemplar: bool) -> Vec<u8> {
        let value = |len: usize| "v".repeat(len);
        let mut message = label("__name__", "some_metric_name");
        // (Each is at most 100 bytes, so their lengths take one byte.)
        let labels = |letter: char, len: usize| -> Vec<u8> {
            let many = (0..len / 80).flat_map(|nth| label(&format!("{letter}{nth:04}"), &value(80)));
            many.chain(label(&format!("{letter}{letter}"), &value(len % 80))).collect()
        };
        message.extend(labels('b', before));
        if is_replica {
            message.extend(label("prometheus_replica", "prometheus-0"));
        }
        message.extend(after.map_or_else(Vec::new, |len| labels('z', len)));
        let sample = [&[0x12, 16, 0x09][..], &[7; 8], &[0x10, 0xc0, 0x9f, 0xd6, 0xf7, 0xf4, 0x33]].concat();
        message.extend(if exemplar { vec![0x1a, 2, 0x18, 5] } else { sample });
        message
    }

    /// As a field of a body. `padded`: with a length in more bytes than it takes.
    fn field(message: &[u8], padded: bool) -> Vec<u8> {
        let mut head = vec![0x0a];
        put_varint(&mut head, message.len() as u64);
        if padded {
            *head.last_mut().unwrap() |= 0x80;
            head.push(0);
        }
        [head, message.to_vec()].concat()
    }

    fn one() -> impl Strategy<Value = Vec<u8>> {
        // Around 128 and 16,384 bytes a length takes one byte more; a replica label is 36.
        let long = || prop_oneof![4 => 0..80usize, 2 => 80..300usize, 1 => 14_000..15_500usize];
        let (before, after) = (long(), proptest::option::of(long()));
        let rare = |weight| proptest::bool::weighted(weight);
        (before, after, rare(0.9), rare(0.1), rare(0.1), rare(0.1)).prop_map(
            |(before, after, is_replica, exemplar, padded, metadata)| {
                let series = field(&series(before, after, is_replica, exemplar), padded);
                let metadata = if metadata { vec![0x1a, 4, 0x12, 2, b'm', b'n'] } else { Vec::new() };
                [metadata, series].concat()
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_row_is_what_its_series_are_one_by_one(
            all in proptest::collection::vec(one(), 1..12),
            keeps in proptest::collection::vec((proptest::bool::weighted(0.8), proptest::bool::weighted(0.1)), 12),
            again in proptest::option::weighted(0.2, 0..12usize),
        ) {
            let body = all.concat();
            let (mut series, mut samples) = (Vec::new(), Vec::new());
            let names = ReplicaNames::new(["prometheus_replica"]).unwrap();
            Walker::new(&body, &names).all(&mut series, &mut samples).unwrap();
            let mut row = Row::default();
            let (mut out, mut expected) = (b"before".to_vec(), b"before".to_vec());
            // One of them once more at the end: behind the others, and not where it lies.
            let again = again.map_or(&[][..], |nth| &series[nth.min(series.len() - 1)..][..1]);
            for (series, (keep, ends)) in series.iter().chain(again).zip(keeps.iter().cycle()) {
                prop_assert!(series.plain);
                if *keep {
                    row.put(&body, series, &mut out);
                    put_head(&mut expected, series.before.len() + series.after.len() + series.rest.len());
                    let parts = [series.before, series.after, series.rest];
                    parts.iter().for_each(|part| expected.extend_from_slice(part.of(&body)));
                    prop_assert_eq!(out.len() + row.left_bytes(), expected.len());
                    prop_assert!(row.left_bytes() <= LEFT_BYTES_MAX);
                }
                if *ends {
                    row.end(&body, &mut out);
                    prop_assert_eq!(row.left_bytes(), 0);
                }
            }
            row.end(&body, &mut out);
            prop_assert!(out == expected);
        }
    }

    #[test]
    fn a_length_is_written_as_wide_as_it_is() {
        for length in [0, 0x7f, 0x80, 0x3fff, 0x4000, 0x1f_ffff, 0x20_0000] {
            let mut expected = Vec::new();
            put_varint(&mut expected, length as u64);
            let mut written = vec![0xaa; expected.len()];
            put_length(&mut written, length);
            assert_eq!(written, expected, "{length}");
        }
    }
}

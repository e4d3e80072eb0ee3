//! The shapes of the messages that are carried without being decoded: exemplars, metadata, histograms.
//!
//! Owns just enough of them (Prometheus `prompb/types.proto`) to find what upstream could not read: there, one such
//! message would cost the whole batch. Refuses to look at values, and at fields that are not known.

use super::fields::{self, FIXED64, Field, LENGTH, VARINT};
use super::{Flaw, Malformed};

/// The known fields of a message by number.
type Shape = &'static [(u32, Kind)];

enum Kind {
    Varint,
    Fixed64,
    /// Text.
    Bytes,
    Message(Shape),
    /// Repeated, packed or not.
    Varints,
    /// Repeated, packed or not.
    Fixed64s,
}

const LABEL: Shape = &[(1, Kind::Bytes), (2, Kind::Bytes)];
const EXEMPLAR: Shape = &[(1, Kind::Message(LABEL)), (2, Kind::Fixed64), (3, Kind::Varint)];
const METADATA: Shape = &[(1, Kind::Varint), (2, Kind::Bytes), (4, Kind::Bytes), (5, Kind::Bytes)];
const BUCKET_SPAN: Shape = &[(1, Kind::Varint), (2, Kind::Varint)];
const HISTOGRAM: Shape = &[
    (1, Kind::Varint),
    (2, Kind::Fixed64),
    (3, Kind::Fixed64),
    (4, Kind::Varint),
    (5, Kind::Fixed64),
    (6, Kind::Varint),
    (7, Kind::Fixed64),
    (8, Kind::Message(BUCKET_SPAN)),
    (9, Kind::Varints),
    (10, Kind::Fixed64s),
    (11, Kind::Message(BUCKET_SPAN)),
    (12, Kind::Varints),
    (13, Kind::Fixed64s),
    (14, Kind::Varint),
    (15, Kind::Varint),
    (16, Kind::Fixed64s),
];

/// Whether `field` of `message` holds an `Exemplar`.
#[inline(never)]
pub(super) fn exemplar(message: &[u8], field: &Field) -> Result<(), Malformed> {
    check(message, field, EXEMPLAR)
}

/// Whether `field` of `message` holds a `MetricMetadata`.
#[inline(never)]
pub(super) fn metadata(message: &[u8], field: &Field) -> Result<(), Malformed> {
    check(message, field, METADATA)
}

/// Whether `field` of `message` holds a `Histogram`.
#[inline(never)]
pub(super) fn histogram(message: &[u8], field: &Field) -> Result<(), Malformed> {
    check(message, field, HISTOGRAM)
}

fn check(message: &[u8], field: &Field, shape: Shape) -> Result<(), Malformed> {
    let message = &message[..field.end()];
    let mut at = field.content.start as usize;
    while at < message.len() {
        let field = fields::read_quick(message, at)?;
        at = field.end();
        let Some((_, kind)) = shape.iter().find(|(number, _)| *number == field.number) else { continue };
        match (kind, field.wire_type) {
            (Kind::Varint | Kind::Varints, VARINT) => {}
            (Kind::Fixed64 | Kind::Fixed64s, FIXED64) | (Kind::Bytes, LENGTH) => {}
            (Kind::Message(shape), LENGTH) => check(message, &field, shape)?,
            (Kind::Varints, LENGTH) => varints(&message[..at], field.content.start as usize)?,
            (Kind::Fixed64s, LENGTH) if field.content.len().is_multiple_of(8) => {}
            (Kind::Fixed64s, LENGTH) => return Err(Malformed::new(at, Flaw::Truncated)),
            _ => return Err(field.wrong_wire_type()),
        }
    }
    Ok(())
}

fn varints(packed: &[u8], mut at: usize) -> Result<(), Malformed> {
    while at < packed.len() {
        at = fields::varint(packed, at)?.1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto;
    use prost::Message;

    fn judge(shape: Shape, content: &[u8]) -> Result<(), Flaw> {
        let message = [&[0x0a, u8::try_from(content.len()).unwrap()], content].concat();
        let field = fields::read(&message, 0).unwrap();
        check(&message, &field, shape).map_err(|malformed| malformed.flaw)
    }

    #[test]
    fn every_cut_of_a_histogram_is_judged_as_prost_does() {
        let span = || proto::BucketSpan { offset: -1, length: 2 };
        let whole = proto::Histogram {
            sum: 1.5,
            schema: 3,
            zero_threshold: 1e-9,
            negative_spans: vec![span()],
            negative_deltas: vec![1, -300],
            positive_spans: vec![span(), span()],
            positive_deltas: vec![70_000],
            positive_counts: vec![1.0, 2.0],
            timestamp: 1_700_000_000_000,
            ..Default::default()
        }
        .encode_to_vec();
        for end in 0..=whole.len() {
            let cut = &whole[..end];
            let prost = proto::Histogram::decode(cut).is_ok();
            assert_eq!(judge(HISTOGRAM, cut).is_ok(), prost, "{end} of {}", whole.len());
        }
    }

    #[test]
    fn flaws_deep_inside_are_found() {
        assert_eq!(judge(EXEMPLAR, &[0x0a, 2, 0x0a, 9]), Err(Flaw::Length { given: 9, left: 0 }));
        assert_eq!(judge(EXEMPLAR, &[0x10, 1]), Err(Flaw::WireType { field: 2, given: 0 }));
        assert_eq!(judge(METADATA, &[0xff, 0xff]), Err(Flaw::Truncated));
        assert_eq!(judge(METADATA, &[0x12, 1, b'm', 0x78, 1]), Ok(()), "an unknown field");
        assert_eq!(judge(HISTOGRAM, &[0x5a, 1, 0x08]), Err(Flaw::Truncated), "in a span");
        assert_eq!(judge(HISTOGRAM, &[0x4a, 2, 0x01, 0x80]), Err(Flaw::Truncated), "in packed deltas");
        assert_eq!(judge(HISTOGRAM, &[0x52, 4, 0, 0, 0, 0]), Err(Flaw::Truncated), "in packed counts");
        assert_eq!(judge(HISTOGRAM, &[0x48, 2]), Ok(()), "a delta that is not packed");
    }
}

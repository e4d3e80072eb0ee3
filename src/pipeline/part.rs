//! What of a request goes upstream in one body, and how that is taken apart where upstream finds it too big.
//!
//! Refuses to know what is aboard.

use super::request::Request;
use std::ops::Range;

/// Units of a request, and what belongs to none of its series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// Among [`Request::units`].
    pub(super) units: Range<usize>,
    /// Among [`Request::metadata`].
    pub(super) metadata: Range<usize>,
    /// The fields that nobody knows go with it.
    pub(super) unknown: bool,
}

impl Part {
    /// All of a request.
    pub(super) fn whole(request: &Request) -> Self {
        Self {
            units: 0..request.units.len(),
            metadata: 0..request.metadata.len(),
            unknown: !request.unknown.is_empty(),
        }
    }

    /// Smaller parts of it, in the order of sending; none where there are none. First metadata goes apart, so that no sample suffers
    /// from what is no part of it; last what nobody knows is left out. `metadata`: what of its own went; upstream knows the rest.
    pub(super) fn smaller(&self, metadata: &Range<usize>) -> Vec<Self> {
        let Self { units, unknown, .. } = self;
        let none = 0..0;
        let of = |units: Range<usize>, metadata: Range<usize>, unknown| Self { units, metadata, unknown };
        let middle = |range: &Range<usize>| range.start + range.len() / 2;
        match (units.len(), metadata.len()) {
            (0, 1) if *unknown => vec![of(none, metadata.clone(), false)],
            (0, 0 | 1) => Vec::new(),
            (0, _) => {
                let middle = middle(metadata);
                vec![
                    of(none.clone(), metadata.start..middle, *unknown),
                    of(none, middle..metadata.end, false),
                ]
            }
            (_, 1..) => vec![of(units.clone(), none.clone(), *unknown), of(none, metadata.clone(), false)],
            (1, 0) if *unknown => vec![of(units.clone(), none, false)],
            (1, 0) => Vec::new(),
            (_, 0) => {
                let middle = middle(units);
                vec![of(units.start..middle, none.clone(), *unknown), of(middle..units.end, none, false)]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(units: Range<usize>, metadata: Range<usize>, unknown: bool) -> Part {
        Part { units, metadata, unknown }
    }

    #[test]
    fn a_part_becomes_smaller_until_it_is_one_thing() {
        let none = 0..0;
        for (whole, smaller) in [
            (part(2..7, 0..3, true), vec![part(2..7, 0..0, true), part(0..0, 0..3, false)]),
            (part(2..7, 0..0, true), vec![part(2..4, 0..0, true), part(4..7, 0..0, false)]),
            (part(2..3, 0..1, false), vec![part(2..3, 0..0, false), part(0..0, 0..1, false)]),
            (part(2..3, 0..0, true), vec![part(2..3, 0..0, false)]),
            (part(2..3, 0..0, false), vec![]),
            (part(0..0, 1..4, true), vec![part(0..0, 1..2, true), part(0..0, 2..4, false)]),
            (part(0..0, 1..2, true), vec![part(0..0, 1..2, false)]),
            (part(0..0, 1..2, false), vec![]),
            (part(none.clone(), none, true), vec![]),
        ] {
            assert_eq!(whole.smaller(&whole.metadata), smaller, "{whole:?}");
        }
    }

    /// Or the same would go twice.
    #[test]
    fn what_did_not_go_is_not_taken_apart() {
        let whole = part(2..7, 0..9, false);
        assert_eq!(whole.smaller(&(0..0)), [part(2..4, 0..0, false), part(4..7, 0..0, false)]);
        assert_eq!(whole.smaller(&(3..5)), [part(2..7, 0..0, false), part(0..0, 3..5, false)]);
    }

    /// Or upstream would be asked for the same again and again.
    #[test]
    fn it_ends() {
        let mut left = vec![part(0..100, 0..100, true)];
        let mut steps = 0;
        while let Some(next) = left.pop() {
            left.extend(next.smaller(&next.metadata));
            steps += 1;
        }
        assert_eq!(steps, 2 * 100 - 1 + 2 * 100 - 1 + 1 + 1);
    }
}

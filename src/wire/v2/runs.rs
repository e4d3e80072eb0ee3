//! The labels of the series before, as they were written: what the next one has in common with it is copied in one go.
//!
//! The series of a scrape differ in a label or two, and so in a few bytes of their packed references. What comes before
//! and behind these is the same text again. Refuses whatever is not written in the usual way: the pass's own way is
//! slower and says what is wrong.

use super::pass::{self, Pass};
use crate::wire::Span;
use crate::wire::fields;

/// More references than that are not worth comparing.
const PACKED_BYTES_MAX: usize = 1 << 10;
const NO_METRIC: u32 = u32::MAX;

/// Where the labels of the series before begin and end.
#[derive(Debug, Default)]
pub(super) struct Runs {
    /// Its references, packed.
    packed: Span,
    /// Where its labels begin in what is written.
    labels: usize,
    /// The beginning of its first label, and the end of each.
    ends: Vec<End>,
    spare: Vec<End>,
}

#[derive(Debug, Clone, Copy)]
struct End {
    /// Offset in its packed references.
    packed: u32,
    /// Offset in its labels.
    label: u32,
    /// The reference of the metric's name, if the label is that.
    metric: u32,
}

impl Runs {
    /// The next series is the first one of a request.
    pub(super) fn forget(&mut self) {
        (self.packed, self.labels) = (Span::default(), 0);
        self.ends.clear();
        self.ends.push(End { packed: 0, label: 0, metric: NO_METRIC });
    }

    /// Its labels have come to lie there.
    pub(super) fn lie_at(&mut self, labels: usize) {
        self.labels = labels;
    }

    fn metric(&self) -> Option<u32> {
        self.ends.iter().rev().find(|end| end.metric != NO_METRIC).map(|end| end.metric)
    }
}

impl Pass<'_> {
    /// Writes the labels of packed references, and returns the reference of the metric's name. `None`: it cannot be done
    /// this way, and what was written is to be taken away again.
    pub(super) fn labels_by_runs(&mut self, span: Span, runs: &mut Runs) -> Option<Option<u32>> {
        let (packed, before) = (span.of(self.body), runs.packed.of(self.body));
        if packed.len() > PACKED_BYTES_MAX {
            return None;
        }
        let head = common_head(packed, before);
        let tail = common_tail(&packed[head..], &before[head..]);
        // Labels that are read from the same bytes are the same, and end there. The first end is at 0.
        let heads = runs.ends.iter().take_while(|end| end.packed as usize <= head).count();
        let head = *runs.ends.get(heads.checked_sub(1)?)?;
        // The first label of the tail begins where one before it ends, as far from the end here as there.
        let from = before.len() - tail;
        let mut next =
            heads - 1 + runs.ends[heads - 1..].iter().take_while(|end| (end.packed as usize) < from).count();

        runs.spare.clear();
        runs.spare.extend_from_slice(&runs.ends[..heads]);
        let labels = self.out.len();
        self.again(runs.labels, 0, head.label)?;
        let mut at = head.packed as usize;
        let (tail, shift) = loop {
            let end = *runs.ends.get(next)?;
            let here = end.packed as usize + packed.len() - before.len();
            match at.cmp(&here) {
                std::cmp::Ordering::Equal => break (end, self.out.len() - labels),
                // What was read reaches into it.
                std::cmp::Ordering::Greater => next += 1,
                std::cmp::Ordering::Less => at = self.label(packed, at, labels, &mut runs.spare)?,
            }
        };
        let last = runs.ends.last()?.label;
        self.again(runs.labels, tail.label, last)?;
        let moved = |end: &End| End {
            packed: end.packed.wrapping_sub(tail.packed).wrapping_add(at as u32),
            label: end.label.wrapping_sub(tail.label).wrapping_add(shift as u32),
            metric: end.metric,
        };
        runs.spare.extend(runs.ends[next + 1..].iter().map(moved));
        std::mem::swap(&mut runs.ends, &mut runs.spare);
        (runs.packed, runs.labels) = (span, labels);
        Some(runs.metric())
    }

    /// Writes again what has been written, from one offset behind `labels` to another.
    #[inline(always)]
    fn again(&mut self, labels: usize, from: u32, to: u32) -> Option<()> {
        let (from, to) = (labels + from as usize, labels + to as usize);
        if self.out.len() + (to - from) > self.max {
            return None;
        }
        self.out.extend_from_within(from..to);
        Some(())
    }

    /// Writes the label whose references are at `at`, and returns where they end.
    #[inline]
    fn label(&mut self, packed: &[u8], at: usize, labels: usize, ends: &mut Vec<End>) -> Option<usize> {
        let (name, at) = reference(packed, at)?;
        let (value, at) = reference(packed, at)?;
        let names_metric = match self.spelt.put(name, value, self.max, self.out) {
            Some(names_metric) => names_metric,
            None => self.spell(name, value, 0).ok()?,
        };
        let metric = if names_metric { value } else { NO_METRIC };
        ends.push(End { packed: at as u32, label: (self.out.len() - labels) as u32, metric });
        Some(at)
    }
}

#[inline]
fn reference(packed: &[u8], at: usize) -> Option<(u32, usize)> {
    match *packed.get(at..)? {
        [low, ..] if low < 0x80 => Some((u32::from(low), at + 1)),
        [low, high, ..] if high < 0x80 => Some((u32::from(low & 0x7f) | u32::from(high) << 7, at + 2)),
        [] => None,
        _ => fields::varint(packed, at).ok().map(|(given, at)| (pass::reference(given), at)),
    }
}

/// How many bytes two slices have in common at their beginning.
#[inline]
fn common_head(one: &[u8], other: &[u8]) -> usize {
    let mut common = 0;
    while let (Some(a), Some(b)) = (one[common..].first_chunk(), other[common..].first_chunk()) {
        let differ = u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
        if differ != 0 {
            return common + differ.trailing_zeros() as usize / 8;
        }
        common += 8;
    }
    common + one[common..].iter().zip(&other[common..]).take_while(|(a, b)| a == b).count()
}

/// How many bytes two slices have in common at their end.
#[inline]
fn common_tail(mut one: &[u8], mut other: &[u8]) -> usize {
    let mut common = 0;
    while let (Some((rest, a)), Some((other_rest, b))) = (one.split_last_chunk(), other.split_last_chunk()) {
        let differ = u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
        if differ != 0 {
            return common + differ.leading_zeros() as usize / 8;
        }
        common += 8;
        (one, other) = (rest, other_rest);
    }
    common + one.iter().rev().zip(other.iter().rev()).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_slices_have_in_common() {
        let text: Vec<u8> = (0..40).collect();
        for differs in 0..40 {
            let mut other = text.clone();
            other[differs] ^= 0x80;
            assert_eq!(common_head(&text, &other), differs);
            assert_eq!(common_tail(&text, &other), 39 - differs);
        }
        for cut in 0..=40 {
            assert_eq!(common_head(&text, &text[..cut]), cut);
            assert_eq!(common_tail(&text, &text[cut..]), 40 - cut);
        }
    }

    #[test]
    fn references_of_any_length() {
        assert_eq!(reference(&[5, 0x80, 1], 0), Some((5, 1)));
        assert_eq!(reference(&[5, 0x80, 1], 1), Some((128, 3)));
        assert_eq!(reference(&[0x80, 0x80, 1], 0), Some((1 << 14, 3)));
        assert_eq!(reference(&[5], 1), None);
        assert_eq!(reference(&[5, 0x80], 1), None);
    }
}

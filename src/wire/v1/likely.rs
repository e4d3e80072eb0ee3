//! What a series most likely is, seen by its end alone: its labels are not walked over.
//!
//! A sender's series mostly hold one float or one exemplar, and before it labels with the replica label of the series before, as many
//! bytes from the end as in a series lately. If the bytes around that place have the key of a series that is known, then
//! they are the labels of that series, each part whole and in order: so the guess is what a walk would have found. Any
//! other series has to be [confirmed](Walker::confirms). Refuses to judge whether a key is known.

use super::{EXEMPLARS, SAMPLES_MAX, Sample, TimeSeries, Walker, usual_float};
use crate::wire::fields::{self, LENGTH};
use crate::wire::{Malformed, Span, equal, shape};

/// How many different numbers of bytes after the replica label are remembered. Few labels sort after it.
const AFTERS: usize = 6;
/// Bytes of a sample with a value, and of one whose value is zero, key and length included.
const WITH_VALUE: usize = 18;
const ZERO: usize = 9;

/// What the series of a request have in common.
#[derive(Debug, Default)]
pub(super) struct Likely {
    /// The replica label, under the first name, that was met last: the whole field, and its value.
    field: Span,
    value: Span,
    /// The last eight bytes of the field.
    field_ends: [u8; 8],
    /// How many bytes of labels came after it lately.
    afters: [u32; AFTERS],
    /// The place of the one of them to be forgotten next, counted from the second.
    oldest: usize,
    /// How many bytes the last exemplar took that was all its series had; 0 = none met yet.
    exemplar: usize,
}

impl Likely {
    /// Learns from a series of `body` that has been walked over.
    pub(super) fn learn(&mut self, body: &[u8], series: &TimeSeries) {
        if !series.plain || !series.under_first {
            return;
        }
        let field = Span { start: series.before.end, end: series.after.start };
        // A label has eight bytes at least: its key and length, those of its name and value, and a byte of each.
        let Some(field_ends) = field.of(body).last_chunk() else { return };
        (self.field, self.value, self.field_ends) = (field, series.replica, *field_ends);
        let after = series.after.end - series.after.start;
        if !self.afters.contains(&after) {
            // The first is the one that was right last.
            self.afters[1 + self.oldest] = after;
            self.oldest = (self.oldest + 1) % (AFTERS - 1);
        }
        if (series.samples, series.exemplars) == (0, 1) {
            self.exemplar = series.rest.len();
        }
    }

    /// Where the learned replica label begins in these labels, if it is in one of the places where it was lately.
    #[inline(always)]
    fn place(&mut self, labels: &[u8], replica: &[u8]) -> Option<usize> {
        // A place that is none yet is 0 as well, which does no harm.
        let place = |after: u32| {
            let (head, _) = labels.split_at_checked(labels.len().checked_sub(after as usize)?)?;
            // Its end alone tells nearly all places apart.
            if *head.last_chunk()? != self.field_ends {
                return None;
            }
            let start = head.len().checked_sub(replica.len())?;
            equal(&head[start..], replica).then_some(start)
        };
        // The next one will probably be where this one is.
        let (found, start) =
            self.afters.iter().enumerate().find_map(|(i, after)| Some((i, place(*after)?)))?;
        if found > 0 {
            self.afters.swap(0, found);
        }
        Some(start)
    }
}

impl Walker<'_> {
    /// As [`next`](Self::next), written to `found` where it lies (its old content is of no matter). `None` at the end.
    ///
    /// A series that is [`guessed`](TimeSeries::guessed) may only be used if the window knows the key of its
    /// [`parts`](TimeSeries::parts), or if it is [confirmed](Self::confirms).
    #[inline]
    pub fn next_likely(
        &mut self,
        found: &mut TimeSeries,
        samples: &mut Vec<Sample>,
    ) -> Option<Result<(), Malformed>> {
        let payload = match self.seek() {
            Ok(payload) => payload?,
            Err(malformed) => return Some(Err(self.stop(malformed))),
        };
        if self.guess(payload, found, samples) {
            return Some(Ok(()));
        }
        let walked = self.time_series(payload, found, samples);
        if walked.is_ok() {
            self.likely.learn(self.body, found);
        }
        Some(walked.map_err(|malformed| self.stop_inside(malformed)))
    }

    /// Whether a walk over a guessed series finds what was guessed. `samples`: those of the request.
    #[must_use]
    pub fn confirms(&mut self, guessed: &TimeSeries, samples: &[Sample]) -> bool {
        let (mut found, mut own) = (TimeSeries::default(), Vec::new());
        self.time_series(guessed.payload, &mut found, &mut own).is_ok()
            && own == guessed.samples_of(samples)
            && found.replica.of(self.body) == guessed.replica.of(self.body)
            && TimeSeries {
                first_sample: guessed.first_sample,
                replica: guessed.replica,
                guessed: true,
                ..found
            } == *guessed
    }

    #[inline(always)]
    fn guess(&mut self, payload: Span, found: &mut TimeSeries, samples: &mut Vec<Sample>) -> bool {
        let message = payload.of(self.body);
        let replica = self.likely.field.of(self.body);
        if replica.is_empty() || samples.len() >= SAMPLES_MAX {
            return false;
        }
        let usual = match self.label_ends.get(self.series as usize - 1) {
            Some(end) => {
                end.checked_sub(payload.start).and_then(|labels| sample_at(message, labels as usize))
            }
            None => usual_end(message),
        };
        let (labels, sample) = match usual {
            Some(usual) => (usual.labels, Some(usual)),
            None => match self.exemplar(payload) {
                Some(labels) => (labels, None),
                None => return false,
            },
        };
        let Some(start) = self.likely.place(&message[..labels], replica) else { return false };
        let at_body = |offset: usize| payload.start + Span::at(offset, offset).start;
        let (start, end, labels) = (at_body(start), at_body(start + replica.len()), at_body(labels));
        *found = TimeSeries {
            payload,
            before: Span { start: payload.start, end: start },
            after: Span { start: end, end: labels },
            // The same bytes; and whoever has seen that place knows them without a look.
            replica: self.likely.value,
            rest: Span { start: labels, end: payload.end },
            first_sample: Span::at(samples.len(), 0).start,
            samples: u32::from(sample.is_some()),
            exemplars: u32::from(sample.is_none()),
            plain: true,
            under_first: true,
            guessed: true,
        };
        if let Some(Usual { end, at, bits, .. }) = sample {
            let field = Span { start: found.rest.start, end: at_body(end) };
            samples.push(Sample { field, at, bits, histogram: false });
        }
        true
    }

    /// The length of the labels in front of an exemplar at the end of a series.
    #[inline(never)]
    fn exemplar(&self, payload: Span) -> Option<usize> {
        let labels = payload.len().checked_sub(self.likely.exemplar).filter(|_| self.likely.exemplar > 0)?;
        let message = &self.body[..payload.end as usize];
        let field = fields::read_quick(message, payload.start as usize + labels).ok()?;
        let whole = (field.number, field.wire_type, field.end()) == (EXEMPLARS, LENGTH, message.len());
        (whole && shape::exemplar(message, &field).is_ok()).then_some(labels)
    }
}

/// Labels, and a sample behind them.
struct Usual {
    /// Where the labels end, and the sample.
    labels: usize,
    end: usize,
    at: i64,
    bits: u64,
}

/// What ends with a sample.
#[inline(always)]
fn usual_end(message: &[u8]) -> Option<Usual> {
    let labels = message.len().checked_sub(WITH_VALUE)?;
    if message[labels..].starts_with(&[0x12, 0x10]) {
        return usual_float(message, 0x10).map(|(at, bits)| Usual { labels, end: message.len(), at, bits });
    }
    let labels = message.len() - ZERO;
    if message[labels..].starts_with(&[0x12, 0x07]) {
        return usual_float(message, 0x07).map(|(at, bits)| Usual { labels, end: message.len(), at, bits });
    }
    None
}

/// What has a sample there: whatever is behind it, who wrote the labels has written that, too.
#[inline(always)]
fn sample_at(message: &[u8], labels: usize) -> Option<Usual> {
    let [0x12, length @ (0x07 | 0x10), ..] = *message.get(labels..)? else { return None };
    let end = labels + 2 + usize::from(length);
    usual_float(message.get(..end)?, length.into()).map(|(at, bits)| Usual { labels, end, at, bits })
}

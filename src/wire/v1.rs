//! The walk over a remote-write 1.0 body (`prometheus.WriteRequest`).
//!
//! Owns the field numbers of that message (Prometheus `prompb/{remote,types}.proto`) and one pass over its bytes that
//! finds labels, replica label, samples and the ends of everything, or, of most series, only looks at their ends
//! (`likely.rs`). Allocates nothing and decodes no value; of
//! exemplars, metadata and histograms it sees only that they can be read. Does not judge labels (order, repetition,
//! UTF-8): a series whose key is known has been judged before, and
//! [`labels::canonicalize`] judges the others.

mod likely;

use super::fields::{self, FIXED64, Field, LENGTH, VARINT};
use super::labels::{self, Label};
use super::{BODY_BYTES_MAX, Flaw, Malformed, Span, shape};
use crate::series::{self, ReplicaNames};

pub(super) const LABELS: u32 = 1;
pub(super) const SAMPLES: u32 = 2;
pub(super) const EXEMPLARS: u32 = 3;
pub(super) const HISTOGRAMS: u32 = 4;
/// Bounds of one request. Prometheus sends 2,000 items by default, and tens of thousands at most.
const SERIES_MAX: usize = 1 << 18;
const SAMPLES_MAX: usize = 1 << 20;
const METADATA_MAX: usize = 1 << 18;
pub(super) const SERIES_OF_REQUEST: u32 = 1;
const METADATA: u32 = 3;

/// One `TimeSeries` of a body, as spans into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TimeSeries {
    /// The whole message, without its key and length.
    pub payload: Span,
    /// Labels before the replica label; without one, all labels. Meant only if `plain`.
    pub before: Span,
    /// Labels after the replica label; without one, empty. Meant only if `plain`.
    pub after: Span,
    /// The value of the replica label; empty if the series has none, or an empty one. Of a series that is `guessed`, the
    /// same bytes where they were met before.
    pub replica: Span,
    /// Everything after the labels. Meant only if `plain`.
    pub rest: Span,
    /// Index of its first sample in the vector that was handed to [`Walker::next`].
    pub first_sample: u32,
    /// How many samples it has, floats and histograms.
    pub samples: u32,
    /// How many exemplars it has.
    pub exemplars: u32,
    /// All labels come first, each in the shortest encoding, and no replica label is there twice: `before`, `after` and
    /// `rest` say it all.
    pub plain: bool,
    /// The replica label is the one of highest precedence.
    pub under_first: bool,
    /// All this is only likely: see [`Walker::next_likely`].
    pub guessed: bool,
}

/// One sample, float or histogram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// The whole field of the `TimeSeries`, key and length included.
    pub field: Span,
    /// Its time, in milliseconds since the epoch.
    pub at: i64,
    /// The bits of its value; of a histogram those of its sum (in which a stale marker shows, too).
    pub bits: u64,
    /// True for a native histogram.
    pub histogram: bool,
}

/// Walks over a body, series by series.
#[derive(Debug)]
pub struct Walker<'a> {
    body: &'a [u8],
    names: &'a ReplicaNames,
    at: usize,
    series: u32,
    /// Some of the samples met so far are native histograms.
    pub histograms: bool,
    /// The `MetricMetadata` fields met so far, keys included.
    pub metadata: Vec<Span>,
    /// Fields of the request met so far that this program does not know, keys included, neighbours joined.
    pub unknown: Vec<Span>,
    likely: likely::Likely,
    /// Where the labels of each series end, if who wrote the body says so; 0 = he does not.
    label_ends: &'a [u32],
}

impl TimeSeries {
    /// The two parts of the label bytes that [`SeriesKey::of_parts`](series::SeriesKey::of_parts) takes, if the labels
    /// are canonical already; otherwise parts of which no known key can be made. `None` if the series is not `plain`.
    ///
    /// They are slices of the body when the replica label has the first name. Under another name, or without one, they
    /// are put together in `scratch`.
    #[inline]
    pub fn parts<'a>(
        &self,
        body: &'a [u8],
        names: &ReplicaNames,
        scratch: &'a mut Vec<u8>,
    ) -> Option<(&'a [u8], &'a [u8])> {
        match (self.plain, self.under_first) {
            (true, true) => Some((self.before.of(body), self.after.of(body))),
            (true, false) => Some(self.split(body, names, scratch)),
            (false, _) => None,
        }
    }

    #[inline(never)]
    fn split<'a>(
        &self,
        body: &'a [u8],
        names: &ReplicaNames,
        scratch: &'a mut Vec<u8>,
    ) -> (&'a [u8], &'a [u8]) {
        let (before, after) = (self.before.of(body), self.after.of(body));
        let labels = if after.is_empty() {
            before
        } else {
            scratch.clear();
            scratch.extend_from_slice(before);
            scratch.extend_from_slice(after);
            scratch
        };
        labels.split_at(series::split_of(labels, names.first().as_bytes()))
    }

    /// Its samples among those of the request.
    #[must_use]
    pub fn samples_of<'a>(&self, samples: &'a [Sample]) -> &'a [Sample] {
        let first = self.first_sample as usize;
        &samples[first..first + self.samples as usize]
    }
}

impl Sample {
    /// Its message in `body`, without key and length: what [`splice::Step::Histogram`](super::splice::Step) takes.
    #[must_use]
    pub fn message<'a>(&self, body: &'a [u8]) -> &'a [u8] {
        fields::read(&body[..self.field.end as usize], self.field.start as usize)
            .map_or(&[][..], |field| field.content.of(body))
    }
}

/// Refuses what would exceed a bound: a few bytes of a body can stand for a record many times as large.
#[inline(always)]
fn bound(what: &'static str, count: usize, max: usize, field: Span) -> Result<(), Malformed> {
    if count < max { Ok(()) } else { Err(Malformed::new(field.start as usize, Flaw::TooMany { what, max })) }
}

impl<'a> Walker<'a> {
    /// Stands before the first field of `body`.
    #[must_use]
    pub fn new(body: &'a [u8], names: &'a ReplicaNames) -> Self {
        Self {
            body,
            names,
            at: 0,
            series: 0,
            histograms: false,
            metadata: Vec::new(),
            unknown: Vec::new(),
            likely: likely::Likely::default(),
            label_ends: &[],
        }
    }

    /// The same, where [`Rewriter::label_ends`](super::v2::Rewriter::label_ends) is known: only [`Self::next_likely`] looks at it.
    #[must_use]
    pub fn with_label_ends(self, label_ends: &'a [u32]) -> Self {
        Self { label_ends, ..self }
    }

    /// The next series, whose samples are appended to `samples`. Nothing follows an error.
    pub fn next(&mut self, samples: &mut Vec<Sample>) -> Option<Result<TimeSeries, Malformed>> {
        let mut found = TimeSeries::default();
        self.next_exact(&mut found, samples).map(|walked| walked.map(|()| found))
    }

    /// As [`next`](Self::next), written to `found` where it lies (its old content is of no matter).
    #[inline]
    pub fn next_exact(
        &mut self,
        found: &mut TimeSeries,
        samples: &mut Vec<Sample>,
    ) -> Option<Result<(), Malformed>> {
        match self.seek() {
            Ok(payload) => {
                let walked = self.time_series(payload?, found, samples);
                Some(walked.map_err(|malformed| self.stop_inside(malformed)))
            }
            Err(malformed) => Some(Err(self.stop(malformed))),
        }
    }

    /// All series to come, appended to `series`, and their samples to `samples`: as [`next`](Self::next) to the end, but
    /// each is written where it stays.
    pub fn all(&mut self, series: &mut Vec<TimeSeries>, samples: &mut Vec<Sample>) -> Result<(), Malformed> {
        while let Some(payload) = self.seek().map_err(|malformed| self.stop(malformed))? {
            let found = series.push_mut(TimeSeries::default());
            self.time_series(payload, found, samples).map_err(|malformed| self.stop_inside(malformed))?;
        }
        Ok(())
    }

    #[cold]
    fn stop(&mut self, malformed: Malformed) -> Malformed {
        self.at = self.body.len();
        // Nothing follows an error.
        self.unknown.clear();
        malformed
    }

    #[cold]
    fn stop_inside(&mut self, malformed: Malformed) -> Malformed {
        self.stop(malformed).in_series(self.series)
    }

    /// The message of the next series; what comes before it is noted.
    #[inline(always)]
    fn seek(&mut self) -> Result<Option<Span>, Malformed> {
        if self.body.len() > BODY_BYTES_MAX && self.at < self.body.len() {
            return Err(Malformed::new(self.at, Flaw::TooLong { given: self.body.len() }));
        }
        while self.at < self.body.len() {
            let field = fields::read_quick(self.body, self.at)?;
            self.at = field.end();
            match (field.number, field.wire_type) {
                (SERIES_OF_REQUEST, LENGTH) => {
                    bound("series", self.series as usize, SERIES_MAX, field.whole())?;
                    self.series += 1;
                    return Ok(Some(field.content));
                }
                (METADATA, LENGTH) => {
                    bound("metadata entries", self.metadata.len(), METADATA_MAX, field.whole())?;
                    shape::metadata(self.body, &field)?;
                    self.metadata.push(field.whole());
                }
                (SERIES_OF_REQUEST | METADATA, _) => return Err(field.wrong_wire_type()),
                _ => self.carry(field.whole()),
            }
        }
        match self.series == 0 && self.metadata.is_empty() && !self.unknown.is_empty() {
            true => self.refuse_two(),
            false => Ok(None),
        }
    }

    /// Nothing of 1.0 was met: what was may be the series of 2.0, under the type of 1.0.
    #[cold]
    fn refuse_two(&self) -> Result<Option<Span>, Malformed> {
        for unknown in &self.unknown {
            let mut at = unknown.start as usize;
            while at < unknown.end as usize {
                let field = fields::read(&self.body[..unknown.end as usize], at)?;
                if (field.number, field.wire_type) == (super::v2::TIMESERIES, LENGTH) {
                    return Err(Malformed::new(at, Flaw::SecondVersion));
                }
                at = field.end();
            }
        }
        Ok(None)
    }

    fn carry(&mut self, field: Span) {
        match self.unknown.last_mut() {
            Some(last) if last.end == field.start => last.end = field.end,
            _ => self.unknown.push(field),
        }
    }

    /// Fills in `found` where it lies: moved, it would cost as much as five labels.
    #[inline(never)]
    fn time_series(
        &mut self,
        payload: Span,
        found: &mut TimeSeries,
        samples: &mut Vec<Sample>,
    ) -> Result<(), Malformed> {
        let message = &self.body[..payload.end as usize];
        let mut replica = Replica::default();
        let (mut plain, labels_end) = self.leading_labels(message, payload.start as usize, &mut replica)?;

        let first_sample = samples.len();
        let mut exemplars = 0;
        let mut at = labels_end;
        while at < message.len() {
            let field = fields::read_quick(message, at)?;
            at = field.end();
            bound("samples", samples.len(), SAMPLES_MAX, field.whole())?;
            match (field.number, field.wire_type) {
                (SAMPLES, LENGTH) => match usual_float(&message[..at], field.content.len()) {
                    Some((at, bits)) => {
                        samples.push(Sample { field: field.whole(), at, bits, histogram: false });
                    }
                    None => float(message, &field, samples)?,
                },
                (EXEMPLARS, LENGTH) => {
                    shape::exemplar(message, &field)?;
                    exemplars += 1;
                }
                (HISTOGRAMS, LENGTH) => {
                    histogram(message, &field, samples)?;
                    self.histograms = true;
                }
                (LABELS, LENGTH) => {
                    plain = false;
                    replica.consider(&labels::read(self.body, &field)?, self.body, self.names);
                }
                (LABELS..=HISTOGRAMS, _) => return Err(field.wrong_wire_type()),
                _ => {}
            }
        }

        let labels_end = Span::at(labels_end, labels_end).start;
        let (before, after) = if replica.rank.is_none() {
            (Span { start: payload.start, end: labels_end }, Span { start: labels_end, end: labels_end })
        } else {
            let Span { start, end } = replica.field;
            (Span { start: payload.start, end: start }, Span { start: end, end: labels_end.max(end) })
        };
        *found = TimeSeries {
            payload,
            before,
            after,
            replica: replica.value,
            rest: Span { start: labels_end, end: payload.end },
            first_sample: Span::at(first_sample, 0).start,
            samples: Span::at(samples.len() - first_sample, 0).start,
            exemplars,
            plain: plain && !replica.odd,
            under_first: replica.rank == Some(0),
            guessed: false,
        };
        Ok(())
    }

    /// Walks over the labels at the head of a series: are all of them in the shortest encoding, and where do they end?
    #[inline]
    fn leading_labels(
        &self,
        message: &[u8],
        start: usize,
        replica: &mut Replica,
    ) -> Result<(bool, usize), Malformed> {
        let mut plain = true;
        let mut at = start;
        loop {
            let head = ordinary_labels(&message[at..], self.names);
            at = message.len() - head.len();
            if let Some(label) = short_label(head) {
                replica.consider_short(self.body, at, &label, self.names);
                at += label.length;
            } else if head.first() == Some(&0x0a) {
                let field = fields::read(message, at)?;
                let label = labels::read(self.body, &field)?;
                plain &= label.shortest;
                replica.consider(&label, self.body, self.names);
                at = field.end();
            } else {
                return Ok((plain, at));
            }
        }
    }
}

/// What is left at the first label that is not a short one, or is perhaps the replica label.
///
/// The walk spends most of its time here, so this loop is kept apart, where it has the registers for itself.
#[inline(never)]
fn ordinary_labels<'a>(mut head: &'a [u8], names: &ReplicaNames) -> &'a [u8] {
    while let Some(label) = short_label(head)
        && !names.may_have_length(label.name_length)
        && let Some(rest) = head.get(label.length..)
    {
        head = rest;
    }
    head
}

/// The replica label found so far.
#[derive(Default)]
struct Replica {
    /// Precedence of its name; `None` = none found.
    rank: Option<u8>,
    field: Span,
    value: Span,
    /// A configured name is there twice (were one of them cut, the other could pass for a label), or without a value.
    odd: bool,
}

impl Replica {
    #[cold]
    fn consider(&mut self, label: &Label, body: &[u8], names: &ReplicaNames) {
        if !label.value.is_empty()
            && let Some(rank) = names.rank(label.name.of(body))
        {
            self.rival(rank, label.field, label.value);
        }
    }

    #[inline]
    fn consider_short(&mut self, body: &[u8], at: usize, label: &ShortLabel, names: &ReplicaNames) {
        let name = at + 4;
        let value = name + label.name_length + 2;
        let end = at + label.length;
        if let Some(rank) = names.rank(&body[name..name + label.name_length]) {
            if value == end {
                self.odd = true;
            } else {
                self.rival(rank, Span::at(at, end), Span::at(value, end));
            }
        }
    }

    fn rival(&mut self, rank: u8, field: Span, value: Span) {
        match self.rank {
            Some(known) if known == rank => self.odd = true,
            Some(known) if known < rank => {}
            _ => (self.rank, self.field, self.value) = (Some(rank), field, value),
        }
    }
}

/// A label of less than 128 bytes in the shortest encoding.
pub(super) struct ShortLabel {
    /// Of the whole field, key included, in bytes.
    pub(super) length: usize,
    /// Of its name, in bytes.
    pub(super) name_length: usize,
}

/// The short label at the head, if one is there. Names and values may be empty: no known key has such a label.
#[inline(always)]
pub(super) fn short_label(head: &[u8]) -> Option<ShortLabel> {
    let head_bytes = head.first_chunk()?;
    let (content, name_length) = (usize::from(head_bytes[1]), usize::from(head_bytes[3]));
    // The next label is found by the length alone, so the processor need not wait for what is checked here.
    let whole = head.get(..content + 2)?;
    let value_bytes = whole.get(name_length + 4..)?.first_chunk()?;
    // Both keys, and a length of one byte; then the key of the value, and its length as the other two demand.
    let right = (u32::from_le_bytes(*head_bytes) & 0x00ff_80ff == 0x000a_000a)
        & (usize::from(u16::from_le_bytes(*value_bytes))
            == 0x12 | content.wrapping_sub(name_length + 4) << 8);
    right.then_some(ShortLabel { length: content + 2, name_length })
}

/// A sample as it is written in this age, of `length` bytes at the end of `message`: eight bytes of value (or none, for a
/// zero) and six of milliseconds. Whether the value is a zero nobody can predict, so there is no branch on it.
#[inline(always)]
pub(super) fn usual_float(message: &[u8], length: usize) -> Option<(i64, u64)> {
    let window: &[u8; 16] = message.last_chunk()?;
    let &[value_key, v0, v1, v2, v3, v4, v5, v6, v7, key, a, b, c, d, e, f] = window;
    let has_value = (length == 16) & (value_key == 0x09);
    let bits = if has_value { u64::from_le_bytes([v0, v1, v2, v3, v4, v5, v6, v7]) } else { 0 };
    let groups = u64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
    let usual = (has_value | (length == 7)) & (key == 0x10) & (groups & 0x8080_8080_8080 == 0x0080_8080_8080);
    // Six groups of 7 bits to three of 14, and these to one number.
    let pairs = groups & 0x007f_007f_007f | (groups & 0x7f00_7f00_7f00) >> 1;
    let at = pairs & 0x3fff | pairs >> 2 & 0x3fff << 14 | pairs >> 4 & 0x3fff << 28;
    usual.then_some((at.cast_signed(), bits))
}

/// A `Sample`: value = 1, timestamp = 2. What is missing is 0, what is repeated counts the last time.
#[inline(never)]
fn float(message: &[u8], field: &Field, samples: &mut Vec<Sample>) -> Result<(), Malformed> {
    any_sample(message, field, 1, 2).map(|sample| samples.push(sample))
}

/// A `Histogram`: sum = 3, timestamp = 15.
#[inline(never)]
fn histogram(message: &[u8], field: &Field, samples: &mut Vec<Sample>) -> Result<(), Malformed> {
    shape::histogram(message, field)?;
    any_sample(message, field, 3, 15).map(|sample| samples.push(Sample { histogram: true, ..sample }))
}

fn any_sample(message: &[u8], field: &Field, value: u32, timestamp: u32) -> Result<Sample, Malformed> {
    let message = &message[..field.end()];
    let mut sample = Sample { field: field.whole(), at: 0, bits: 0, histogram: false };
    let mut at = field.content.start as usize;
    while at < message.len() {
        let field = fields::read(message, at)?;
        match (field.number, field.wire_type) {
            (number, FIXED64) if number == value => sample.bits = field.fixed64(message)?,
            (number, VARINT) if number == timestamp => sample.at = field.varint(message)?.cast_signed(),
            (number, _) if number == value || number == timestamp => return Err(field.wrong_wire_type()),
            _ => {}
        }
        at = field.end();
    }
    Ok(sample)
}

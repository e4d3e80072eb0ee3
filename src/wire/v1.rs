//! The walk over a remote-write 1.0 body (`prometheus.WriteRequest`).
//!
//! Owns the field numbers of that message (Prometheus `prompb/{remote,types}.proto`) and one pass over its bytes that
//! finds labels, replica label, samples and the ends of everything. Allocates nothing, decodes no value, looks into no
//! exemplar or metadata. Does not judge labels (order, repetition, UTF-8): a series whose key is known has been judged
//! before, and [`labels::canonicalize`](super::labels::canonicalize) judges the others.

use super::fields::{self, FIXED64, Field, LENGTH, VARINT};
use super::labels::{self, Label};
use super::{BODY_BYTES_MAX, Flaw, Malformed, Span};
use crate::series::{self, ReplicaNames};

pub(super) const LABELS: u32 = 1;
pub(super) const SAMPLES: u32 = 2;
pub(super) const EXEMPLARS: u32 = 3;
pub(super) const HISTOGRAMS: u32 = 4;
const TIMESERIES: u32 = 1;
const METADATA: u32 = 3;

/// One `TimeSeries` of a body, as spans into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeSeries {
    /// The whole message, without its key and length.
    pub payload: Span,
    /// Labels before the replica label; without one, all labels. Meant only if `plain`.
    pub before: Span,
    /// Labels after the replica label; without one, empty. Meant only if `plain`.
    pub after: Span,
    /// The value of the replica label; empty if the series has none, or an empty one.
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
    /// The `MetricMetadata` fields met so far, keys included.
    pub metadata: Vec<Span>,
    /// Fields of the request met so far that this program does not know, keys included, neighbours joined.
    pub unknown: Vec<Span>,
}

impl TimeSeries {
    /// The two parts of the label bytes that [`SeriesKey::of_parts`](series::SeriesKey::of_parts) takes, if the labels
    /// are canonical already; otherwise parts of which no known key can be made. `None` if the series is not `plain`.
    ///
    /// They are slices of the body when the replica label has the first name. Under another name, or without one, they
    /// are put together in `scratch`.
    pub fn parts<'a>(
        &self,
        body: &'a [u8],
        names: &ReplicaNames,
        scratch: &'a mut Vec<u8>,
    ) -> Option<(&'a [u8], &'a [u8])> {
        if !self.plain {
            return None;
        }
        let (before, after) = (self.before.of(body), self.after.of(body));
        if self.under_first {
            return Some((before, after));
        }
        let labels = if after.is_empty() {
            before
        } else {
            scratch.clear();
            scratch.extend_from_slice(before);
            scratch.extend_from_slice(after);
            scratch
        };
        Some(labels.split_at(series::split_of(labels, names.first().as_bytes())))
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

impl<'a> Walker<'a> {
    /// Stands before the first field of `body`.
    #[must_use]
    pub const fn new(body: &'a [u8], names: &'a ReplicaNames) -> Self {
        Self { body, names, at: 0, series: 0, metadata: Vec::new(), unknown: Vec::new() }
    }

    /// The next series, whose samples are appended to `samples`. Nothing follows an error.
    #[inline]
    pub fn next(&mut self, samples: &mut Vec<Sample>) -> Option<Result<TimeSeries, Malformed>> {
        match self.step(samples) {
            Ok(series) => series.map(Ok),
            Err(malformed) => {
                self.at = self.body.len();
                Some(Err(malformed))
            }
        }
    }

    fn step(&mut self, samples: &mut Vec<Sample>) -> Result<Option<TimeSeries>, Malformed> {
        if self.body.len() > BODY_BYTES_MAX && self.at < self.body.len() {
            return Err(Malformed::new(self.at, Flaw::TooLong { given: self.body.len() }));
        }
        while self.at < self.body.len() {
            let field = fields::read(self.body, self.at)?;
            self.at = field.end();
            match (field.number, field.wire_type) {
                (TIMESERIES, LENGTH) => {
                    self.series += 1;
                    let series = self.time_series(field.content, samples);
                    return series.map(Some).map_err(|malformed| malformed.in_series(self.series));
                }
                (METADATA, LENGTH) => self.metadata.push(field.whole()),
                (TIMESERIES | METADATA, _) => return Err(field.wrong_wire_type()),
                _ => self.carry(field.whole()),
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

    fn time_series(&self, payload: Span, samples: &mut Vec<Sample>) -> Result<TimeSeries, Malformed> {
        let message = &self.body[..payload.end as usize];
        let mut replica = Replica::default();
        let (mut plain, labels_end) = self.leading_labels(message, payload.start as usize, &mut replica)?;

        let first_sample = samples.len();
        let mut exemplars = 0;
        let mut at = labels_end;
        while at < message.len() {
            let field = fields::read(message, at)?;
            at = field.end();
            match (field.number, field.wire_type) {
                (SAMPLES, LENGTH) => samples.push(float(message, &field)?),
                (EXEMPLARS, LENGTH) => exemplars += 1,
                (HISTOGRAMS, LENGTH) => samples.push(histogram(message, &field)?),
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
        Ok(TimeSeries {
            payload,
            before,
            after,
            replica: replica.value,
            rest: Span { start: labels_end, end: payload.end },
            first_sample: Span::at(first_sample, 0).start,
            samples: Span::at(samples.len() - first_sample, 0).start,
            exemplars,
            plain: plain && !replica.repeated,
            under_first: replica.rank == Some(0),
        })
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
            let head = &message[at..];
            if let Some(label) = short_label(head) {
                let length = label.length;
                if self.names.may_have_length(label.name_length) {
                    replica.consider_short(self.body, at, label, self.names);
                }
                at += length;
                continue;
            }
            if head.first() != Some(&0x0a) {
                return Ok((plain, at));
            }
            let field = fields::read(message, at)?;
            let label = labels::read(self.body, &field)?;
            plain &= label.shortest;
            replica.consider(&label, self.body, self.names);
            at = field.end();
        }
    }
}

/// The replica label found so far.
#[derive(Default)]
struct Replica {
    /// Precedence of its name; `None` = none found.
    rank: Option<u8>,
    field: Span,
    value: Span,
    /// One of the configured names is there twice. Were only one of them cut, the other could pass for a label.
    repeated: bool,
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
    fn consider_short(&mut self, body: &[u8], at: usize, label: ShortLabel, names: &ReplicaNames) {
        let name = at + 4;
        let value = name + label.name_length + 2;
        if let Some(rank) = names.rank(&body[name..name + label.name_length]) {
            let end = at + label.length;
            self.rival(rank, Span::at(at, end), Span::at(value, end));
        }
    }

    fn rival(&mut self, rank: u8, field: Span, value: Span) {
        match self.rank {
            Some(known) if known == rank => self.repeated = true,
            Some(known) if known < rank => {}
            _ => (self.rank, self.field, self.value) = (Some(rank), field, value),
        }
    }
}

/// A label of less than 128 bytes in the shortest encoding.
struct ShortLabel {
    /// Of the whole field, key included, in bytes.
    length: usize,
    /// Of its name, in bytes.
    name_length: usize,
}

/// The short label at the head, if one is there.
#[inline]
fn short_label(head: &[u8]) -> Option<ShortLabel> {
    let &[0x0a, length, 0x0a, name_length, ref tail @ ..] = head else { return None };
    let (length, name_length) = (usize::from(length), usize::from(name_length));
    let &[0x12, value_length] = tail.get(name_length..name_length + 2)? else { return None };
    let value_length = usize::from(value_length);
    let fits = (length < 0x80)
        & (name_length > 0)
        & (value_length > 0)
        & (name_length + value_length + 4 == length)
        & (length + 2 <= head.len());
    fits.then_some(ShortLabel { length: length + 2, name_length })
}

/// A `Sample`: value = 1, timestamp = 2. What is missing is 0, what is repeated counts the last time.
#[inline]
fn float(message: &[u8], field: &Field) -> Result<Sample, Malformed> {
    let message = &message[..field.end()];
    let mut sample = Sample { field: field.whole(), at: 0, bits: 0, histogram: false };
    let mut at = field.content.start as usize;
    while let Some(&key) = message.get(at) {
        match key {
            0x09 => {
                sample.bits = fields::fixed64(message, at + 1)?;
                at += 9;
            }
            0x10 => {
                let (value, end) = fields::varint(message, at + 1)?;
                sample.at = value.cast_signed();
                at = end;
            }
            _ => {
                let field = fields::read(message, at)?;
                odd_number(&mut sample, message, &field, 1, 2)?;
                at = field.end();
            }
        }
    }
    Ok(sample)
}

/// A `Histogram`: sum = 3, timestamp = 15.
fn histogram(message: &[u8], field: &Field) -> Result<Sample, Malformed> {
    let message = &message[..field.end()];
    let mut sample = Sample { field: field.whole(), at: 0, bits: 0, histogram: true };
    let mut at = field.content.start as usize;
    while at < message.len() {
        let field = fields::read(message, at)?;
        odd_number(&mut sample, message, &field, 3, 15)?;
        at = field.end();
    }
    Ok(sample)
}

fn odd_number(
    sample: &mut Sample,
    message: &[u8],
    field: &Field,
    value: u32,
    timestamp: u32,
) -> Result<(), Malformed> {
    match field.wire_type {
        FIXED64 if field.number == value => sample.bits = field.fixed64(message)?,
        VARINT if field.number == timestamp => sample.at = field.varint(message)?.cast_signed(),
        _ if field.number == value || field.number == timestamp => return Err(field.wrong_wire_type()),
        _ => {}
    }
    Ok(())
}

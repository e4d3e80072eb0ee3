//! Remote write 2.0 out (`io.prometheus.write.v2.Request`), composed of an outgoing 1.0 body.
//!
//! Owns the table of symbols: each text once, the empty one first. Takes up what [`v2`](super::v2) kept of a 2.0 sender
//! in the fields that 1.0 leaves free; drops metadata of 1.0, which has no series to go with. Values, times and
//! histograms are copied as they are. Decides nothing.
//!
//! In 2.0 a `TimeSeries` has a sample or a histogram, and never both: what mixes them becomes several, and exemplars that
//! come alone, as Prometheus sends them, go with a series of the same labels, or not at all.

use super::fields::{self, Field, LENGTH, VARINT, put_varint, varint_len};
use super::v1::{EXEMPLARS, HISTOGRAMS, LABELS, SAMPLES};
use super::v2::{
    HELP, HISTOGRAM_START, REFERENCES, SAMPLE_START, SERIES_CREATED, SERIES_EXEMPLARS, SERIES_HISTOGRAMS,
    SERIES_METADATA, SERIES_SAMPLES, SYMBOLS, TIMESERIES, TYPE, UNIT,
};
use super::{Malformed, Span, labels};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// Composes bodies. Holds the memory for it, to be used again.
#[derive(Debug, Default)]
pub struct Composer {
    symbols: Vec<Span>,
    /// The number of a symbol by the hash of its text.
    numbers: HashMap<u64, u32, Hashed>,
    /// A label and its two symbols by the hash of its bytes: most labels of a request are there many times.
    labels: HashMap<u64, (Span, [u32; 2]), Hashed>,
    references: Vec<u32>,
    /// The messages that go, one behind the other, without key and length.
    series: Vec<u8>,
    places: Vec<Place>,
    /// Exemplars that came alone, behind the references of their series.
    alone: Vec<u8>,
    alone_places: Vec<Place>,
    message: Vec<u8>,
    exemplars: Vec<u8>,
    inner: Vec<u8>,
}

/// Where a message is, where the references of its labels end, with which it begins, and how many exemplars it has.
#[derive(Debug, Clone, Copy)]
struct Place {
    start: usize,
    references: usize,
    exemplars: usize,
    end: usize,
}

impl Composer {
    /// Writes a body of 1.0 as one of 2.0 to `out` (cleared first). Without a series nothing is written.
    ///
    /// Returns how many exemplars found no series to go with.
    ///
    /// # Errors
    /// When the body is none of 1.0, which is a mistake of the caller.
    pub fn compose(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<usize, Malformed> {
        out.clear();
        self.symbols.clear();
        self.numbers.clear();
        self.labels.clear();
        self.series.clear();
        self.places.clear();
        self.alone.clear();
        self.alone_places.clear();
        self.symbols.push(Span::default());
        let mut at = 0;
        while at < body.len() {
            let field = fields::read_quick(body, at)?;
            at = field.end();
            if (field.number, field.wire_type) == (SERIES_OF_1, LENGTH) {
                self.time_series(body, &field)?;
            }
        }
        let attached = self.attached();
        let alone: usize = self.alone_places.iter().map(|place| place.exemplars).sum();
        let lost = alone - attached.iter().map(|(_, place)| place.exemplars).sum::<usize>();
        if self.places.is_empty() {
            return Ok(lost);
        }
        for symbol in &self.symbols {
            put_bytes(out, SYMBOLS, symbol.of(body));
        }
        let mut attached = attached.into_iter().peekable();
        for (nth, place) in self.places.iter().enumerate() {
            let own = &self.series[place.start..place.end];
            self.inner.clear();
            while let Some((_, alone)) = attached.next_if(|(to, _)| *to == nth) {
                self.inner.extend_from_slice(&self.alone[alone.references..alone.end]);
            }
            put_head(out, TIMESERIES, own.len() + self.inner.len());
            out.extend_from_slice(own);
            out.extend_from_slice(&self.inner);
        }
        Ok(lost)
    }

    /// Exemplars that came alone, each with the number of the last series of its labels, if there is one.
    fn attached(&self) -> Vec<(usize, Place)> {
        if self.alone_places.is_empty() {
            return Vec::new();
        }
        let labels = |bytes: &[u8], place: &Place| xxh3_128(&bytes[place.start..place.references]);
        let places = self.places.iter().enumerate();
        let last: HashMap<_, _> = places.map(|(nth, place)| (labels(&self.series, place), nth)).collect();
        let alone = self.alone_places.iter();
        let mut attached: Vec<_> =
            alone.filter_map(|place| Some((*last.get(&labels(&self.alone, place))?, *place))).collect();
        attached.sort_by_key(|(to, _)| *to);
        attached
    }

    fn time_series(&mut self, body: &[u8], series: &Field) -> Result<(), Malformed> {
        let message = &body[..series.end()];
        let start = series.content.start as usize;
        self.message.clear();
        self.refer_labels(body, message, start)?;
        put_references(&mut self.message, &self.references);
        let references = self.message.len();
        self.exemplars.clear();
        let mut exemplars = 0;
        let mut holds = None;
        let mut at = start;
        while at < message.len() {
            let field = fields::read_quick(message, at)?;
            at = field.end();
            match (field.number, field.wire_type) {
                (SAMPLES | HISTOGRAMS, LENGTH) => {
                    if holds.is_some_and(|kind| kind != field.number) {
                        keep(&self.message, (references, 0), &mut self.series, &mut self.places);
                        self.message.truncate(references);
                    }
                    holds = Some(field.number);
                    self.sample(body, &field)?;
                }
                (EXEMPLARS, LENGTH) => {
                    exemplars += 1;
                    self.exemplar(body, &field)?;
                }
                (SERIES_METADATA, LENGTH) => self.metadata(body, &field),
                (SERIES_CREATED, VARINT) => self.message.extend_from_slice(field.whole().of(body)),
                _ => {}
            }
        }
        if holds.is_none() {
            self.message.truncate(references);
        }
        self.message.extend_from_slice(&self.exemplars);
        if holds.is_some() {
            keep(&self.message, (references, exemplars), &mut self.series, &mut self.places);
        } else if exemplars > 0 {
            keep(&self.message, (references, exemplars), &mut self.alone, &mut self.alone_places);
        }
        Ok(())
    }

    /// Copies a sample or a histogram.
    ///
    /// A 1.0 sender may have something else where 2.0 has its start, which would cost the whole request: that stays here.
    fn sample(&mut self, body: &[u8], sample: &Field) -> Result<(), Malformed> {
        let (number, start) = match sample.number {
            SAMPLES => (SERIES_SAMPLES, SAMPLE_START),
            _ => (SERIES_HISTOGRAMS, HISTOGRAM_START),
        };
        let content = sample.content.of(body);
        // The usual sample, a value and a time of six bytes, has no start.
        if content.len() == 16 && (content[0], content[9]) == (0x09, 0x10) {
            put_bytes(&mut self.message, number, content);
            return Ok(());
        }
        let message = &body[..sample.end()];
        self.inner.clear();
        let mut at = sample.content.start as usize;
        while at < message.len() {
            let field = fields::read(message, at)?;
            at = field.end();
            if field.number != start || field.wire_type == VARINT {
                self.inner.extend_from_slice(field.whole().of(body));
            }
        }
        put_bytes(&mut self.message, number, &self.inner);
        Ok(())
    }

    /// Gathers the references of the labels of a series or an exemplar.
    fn refer_labels(&mut self, body: &[u8], message: &[u8], start: usize) -> Result<(), Malformed> {
        self.references.clear();
        let mut at = start;
        while at < message.len() {
            let field = fields::read_quick(message, at)?;
            at = field.end();
            if (field.number, field.wire_type) == (LABELS, LENGTH) {
                let bytes = field.content.of(body);
                let hash = xxh3_64(bytes);
                let pair = match self.labels.get(&hash) {
                    Some((known, pair)) if known.of(body) == bytes => *pair,
                    _ => {
                        let label = labels::read(body, &field)?;
                        let pair = [self.refer(body, label.name), self.refer(body, label.value)];
                        self.labels.insert(hash, (field.content, pair));
                        pair
                    }
                };
                self.references.extend(pair);
            }
        }
        Ok(())
    }

    /// The number of a text.
    fn refer(&mut self, body: &[u8], text: Span) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let next = self.symbols.len() as u32;
        let number = *self.numbers.entry(xxh3_64(text.of(body))).or_insert(next);
        if number == next {
            self.symbols.push(text);
        } else if self.symbols[number as usize].of(body) != text.of(body) {
            // Two texts of one hash: the second is a symbol as often as it comes.
            self.symbols.push(text);
            return next;
        }
        number
    }

    fn exemplar(&mut self, body: &[u8], exemplar: &Field) -> Result<(), Malformed> {
        let message = &body[..exemplar.end()];
        let start = exemplar.content.start as usize;
        self.refer_labels(body, message, start)?;
        self.inner.clear();
        put_references(&mut self.inner, &self.references);
        let mut at = start;
        while at < message.len() {
            let field = fields::read(message, at)?;
            at = field.end();
            if field.number != LABELS {
                self.inner.extend_from_slice(field.whole().of(body));
            }
        }
        put_bytes(&mut self.exemplars, SERIES_EXEMPLARS, &self.inner);
        Ok(())
    }

    /// Metadata with its texts spelt out, as `v2.rs` keeps it.
    ///
    /// A 1.0 sender may have something else there, of which nothing is taken.
    fn metadata(&mut self, body: &[u8], metadata: &Field) {
        let message = &body[..metadata.end()];
        self.inner.clear();
        let mut at = metadata.content.start as usize;
        while at < message.len() {
            let Ok(field) = fields::read(message, at) else { return };
            at = field.end();
            match (field.number, field.wire_type) {
                (TYPE, VARINT) => self.inner.extend_from_slice(field.whole().of(body)),
                (HELP | UNIT, LENGTH) => {
                    let number = self.refer(body, field.content);
                    self.inner.push((field.number << 3) as u8 | VARINT);
                    put_varint(&mut self.inner, number.into());
                }
                _ => {}
            }
        }
        put_bytes(&mut self.message, SERIES_METADATA, &self.inner);
    }
}

type Hashed = BuildHasherDefault<AsIs>;

/// Keys that are hashes already.
#[derive(Debug, Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64(bytes);
    }
}

/// Of a `WriteRequest`.
const SERIES_OF_1: u32 = 1;

/// Appends a message to others.
fn keep(message: &[u8], (references, exemplars): (usize, usize), to: &mut Vec<u8>, places: &mut Vec<Place>) {
    let start = to.len();
    to.extend_from_slice(message);
    places.push(Place { start, references: start + references, exemplars, end: to.len() });
}

fn put_head(out: &mut Vec<u8>, number: u32, length: usize) {
    out.push((number << 3) as u8 | LENGTH);
    put_varint(out, length as u64);
}

fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_head(out, number, bytes.len());
    out.extend_from_slice(bytes);
}

fn put_references(out: &mut Vec<u8>, references: &[u32]) {
    if references.is_empty() {
        return;
    }
    out.push((REFERENCES << 3) as u8 | LENGTH);
    put_varint(out, references.iter().map(|reference| varint_len((*reference).into()) as u64).sum());
    references.iter().for_each(|reference| put_varint(out, (*reference).into()));
}

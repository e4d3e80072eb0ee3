//! Remote write 2.0 out (`io.prometheus.write.v2.Request`), composed of an outgoing 1.0 body.
//!
//! Owns the order and the place of everything in that message (its symbols are `symbols.rs`'). Takes up what [`v2`](super::v2)
//! kept of a 2.0 sender in the fields that 1.0 leaves free; drops metadata of 1.0, which has no series to go with. Values,
//! times and histograms are copied as they are. Decides nothing.
//!
//! In 2.0 a `TimeSeries` has a sample or a histogram, and never both: what mixes them becomes several, and exemplars that
//! come alone, as Prometheus sends them, go with a series of the same labels, or not at all.

mod referred;
mod symbols;

use super::fields::{self, Field, LENGTH, VARINT, put_varint};
use super::out::Out;
use super::v1::{EXEMPLARS, HISTOGRAMS, LABELS, SAMPLES, SERIES_OF_REQUEST, short_label, usual_float};
use super::v2::{
    HISTOGRAM_START, REFERENCES, SAMPLE_START, SERIES_CREATED, SERIES_EXEMPLARS, SERIES_HISTOGRAMS,
    SERIES_METADATA, SERIES_SAMPLES, SYMBOLS, TIMESERIES,
};
use super::{Malformed, Span};
use std::collections::HashMap;
use symbols::Symbols;
use xxhash_rust::xxh3::xxh3_128;

/// Composes bodies. Holds the memory for it, to be used again.
#[derive(Debug, Default)]
pub struct Composer {
    symbols: Symbols,
    /// The series that go.
    series: Out,
    places: Vec<Place>,
    /// Exemplars that came alone, behind the references of their series.
    alone: Vec<u8>,
    alone_places: Vec<Place>,
    message: Out,
    /// What the message has not room for: see [`CHANGES_MAX`].
    others: Out,
    exemplars: Out,
}

/// Where a message is, where the references of its labels end, with which it begins, and how many exemplars it has.
#[derive(Debug, Clone, Copy)]
struct Place {
    start: usize,
    references: usize,
    exemplars: usize,
    end: usize,
}

/// So often a series may change from samples to histograms or back before all that follows goes in one message of each kind: labels
/// would be repeated as often as a sender likes.
const CHANGES_MAX: usize = 16;
/// As much as a usual sample takes, key and length included.
const SAMPLE_BYTES: usize = 18;

impl Composer {
    /// Writes a body of 1.0 as one of 2.0 to `out` (cleared first). Without a series nothing is written.
    ///
    /// Returns how many exemplars found no series to go with.
    ///
    /// # Errors
    /// When the body is none of 1.0, which is a mistake of the caller.
    pub fn compose(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<usize, Malformed> {
        out.clear();
        self.symbols.forget();
        self.series.truncate(0);
        self.places.clear();
        self.alone.clear();
        self.alone_places.clear();
        let mut at = 0;
        while at < body.len() {
            let field = fields::read_quick(body, at)?;
            at = field.end();
            if (field.number, field.wire_type) == (SERIES_OF_REQUEST, LENGTH) {
                let before = self.series.len();
                if self.usual_series(body, &field).is_none() {
                    self.series.truncate(before);
                    self.time_series(body, &field)?;
                }
            }
        }
        if !self.places.is_empty() {
            for symbol in self.symbols.all() {
                put_bytes(out, SYMBOLS, symbol.of(body));
            }
        }
        if self.alone_places.is_empty() {
            out.extend_from_slice(self.series.bytes());
            return Ok(0);
        }
        Ok(self.attach(out))
    }

    /// Nothing has been composed with it.
    #[cfg(test)]
    pub(crate) fn is_new(&self) -> bool {
        self.places.capacity() == 0
    }

    /// Writes all series, each with the exemplars that came alone and go with it. Returns how many go with none.
    fn attach(&self, out: &mut Vec<u8>) -> usize {
        let labels = |bytes: &[u8], place: &Place| xxh3_128(&bytes[place.start..place.references]);
        let series = self.series.bytes();
        let places = self.places.iter().enumerate();
        // The last of its labels.
        let last: HashMap<_, _> = places.map(|(nth, place)| (labels(series, place), nth)).collect();
        let alone = self.alone_places.iter();
        let mut attached: Vec<_> =
            alone.filter_map(|place| Some((*last.get(&labels(&self.alone, place))?, *place))).collect();
        attached.sort_by_key(|(to, _)| *to);
        let count =
            |places: &mut dyn Iterator<Item = &Place>| places.map(|place| place.exemplars).sum::<usize>();
        let lost = count(&mut self.alone_places.iter()) - count(&mut attached.iter().map(|(_, place)| place));
        let mut attached = attached.into_iter().peekable();
        let mut exemplars = Vec::new();
        for (nth, place) in self.places.iter().enumerate() {
            let own = &series[place.start..place.end];
            exemplars.clear();
            while let Some((_, alone)) = attached.next_if(|(to, _)| *to == nth) {
                exemplars.extend_from_slice(&self.alone[alone.references..alone.end]);
            }
            put_head(out, TIMESERIES, own.len() + exemplars.len());
            out.extend_from_slice(own);
            out.extend_from_slice(&exemplars);
        }
        lost
    }

    /// Writes a series of short labels, one float of today, and perhaps metadata: nearly all are that. `None`: this one is not, and
    /// what was written of it is to be taken away.
    #[inline]
    fn usual_series(&mut self, body: &[u8], series: &Field) -> Option<()> {
        let Self { symbols, series: out, places, .. } = self;
        let message = &body[..series.end()];
        let labels = series.content.start as usize;
        let open = out.open_short(TIMESERIES);
        let begins = out.len();
        let references = out.open_short(REFERENCES);
        let mut at = labels;
        while let Some(label) = short_label(&message[at..]) {
            symbols.refer_label(body, Span::at(at, at + label.length), out).ok()?;
            at += label.length;
        }
        if at == labels {
            return None;
        }
        out.close(references);
        let references = out.len() - begins;
        let length =
            message.get(at + 1).filter(|length| message[at] == SAMPLE_KEY && matches!(length, 7 | 16))?;
        let sample_end = at + 2 + usize::from(*length);
        usual_float(message.get(..sample_end)?, usize::from(*length))?;
        // Its number is the same in both versions.
        match body[at..].first_chunk::<SAMPLE_BYTES>() {
            Some(more) => {
                *out.room(SAMPLE_BYTES).first_chunk_mut()? = *more;
                out.keep(sample_end - at);
            }
            None => out.put(&body[at..sample_end]),
        }
        if sample_end < message.len() {
            let field = fields::read_quick(message, sample_end).ok()?;
            let is_last = field.end() == message.len();
            if !is_last || (field.number, field.wire_type) != (SERIES_METADATA, LENGTH) {
                return None;
            }
            symbols.refer_metadata(body, &field, out);
        }
        let start = out.close(open);
        places.push(Place { start, references: start + references, exemplars: 0, end: out.len() });
        Some(())
    }

    #[inline(never)]
    fn time_series(&mut self, body: &[u8], series: &Field) -> Result<(), Malformed> {
        let message = &body[..series.end()];
        let start = series.content.start as usize;
        self.message.truncate(0);
        put_references(&mut self.symbols, body, message, start, &mut self.message)?;
        let references = self.message.len();
        self.exemplars.truncate(0);
        self.others.truncate(0);
        let (mut exemplars, mut changes) = (0, 0);
        let mut holds = None;
        let mut at = start;
        while at < message.len() {
            let field = fields::read_quick(message, at)?;
            at = field.end();
            match (field.number, field.wire_type) {
                (SAMPLES | HISTOGRAMS, LENGTH) => {
                    if holds.is_some_and(|kind| kind != field.number) {
                        if changes >= CHANGES_MAX {
                            if self.others.len() == 0 {
                                self.others.put(&self.message.bytes()[..references]);
                            }
                            copy_sample(body, &field, &mut self.others)?;
                            continue;
                        }
                        changes += 1;
                        keep(self.message.bytes(), (references, 0), &mut self.series, &mut self.places);
                        self.message.truncate(references);
                    }
                    holds = Some(field.number);
                    copy_sample(body, &field, &mut self.message)?;
                }
                (EXEMPLARS, LENGTH) => {
                    exemplars += 1;
                    self.exemplar(body, &field)?;
                }
                (SERIES_METADATA, LENGTH) => self.symbols.refer_metadata(body, &field, &mut self.message),
                (SERIES_CREATED, VARINT) => self.message.put(field.whole().of(body)),
                _ => {}
            }
        }
        if holds.is_none() {
            self.message.truncate(references);
        }
        self.message.put(self.exemplars.bytes());
        if self.others.len() > 0 {
            keep(self.others.bytes(), (references, 0), &mut self.series, &mut self.places);
        }
        if holds.is_some() {
            keep(self.message.bytes(), (references, exemplars), &mut self.series, &mut self.places);
        } else if exemplars > 0 {
            let start = self.alone.len();
            self.alone.extend_from_slice(self.message.bytes());
            let end = self.alone.len();
            self.alone_places.push(Place { start, references: start + references, exemplars, end });
        }
        Ok(())
    }

    fn exemplar(&mut self, body: &[u8], exemplar: &Field) -> Result<(), Malformed> {
        let message = &body[..exemplar.end()];
        let start = exemplar.content.start as usize;
        let open = self.exemplars.open_short(SERIES_EXEMPLARS);
        put_references(&mut self.symbols, body, message, start, &mut self.exemplars)?;
        let mut at = start;
        while at < message.len() {
            let field = fields::read(message, at)?;
            at = field.end();
            if field.number != LABELS {
                self.exemplars.put(field.whole().of(body));
            }
        }
        self.exemplars.close(open);
        Ok(())
    }
}

/// Appends a message to those that go.
fn keep(message: &[u8], (references, exemplars): (usize, usize), series: &mut Out, places: &mut Vec<Place>) {
    let open = series.open_short(TIMESERIES);
    series.put(message);
    let start = series.close(open);
    places.push(Place { start, references: start + references, exemplars, end: series.len() });
}

/// Copies a sample or a histogram.
///
/// A 1.0 sender may have something else where 2.0 has its start, which would cost the whole request: that stays here.
fn copy_sample(body: &[u8], sample: &Field, out: &mut Out) -> Result<(), Malformed> {
    let (number, start) = match sample.number {
        SAMPLES => (SERIES_SAMPLES, SAMPLE_START),
        _ => (SERIES_HISTOGRAMS, HISTOGRAM_START),
    };
    let message = &body[..sample.end()];
    let open = out.open_short(number);
    let mut at = sample.content.start as usize;
    while at < message.len() {
        let field = fields::read(message, at)?;
        at = field.end();
        if field.number != start || field.wire_type == VARINT {
            out.put(field.whole().of(body));
        }
    }
    out.close(open);
    Ok(())
}

const SAMPLE_KEY: u8 = (SAMPLES << 3) as u8 | LENGTH;

/// Writes the references of the labels of a series or an exemplar, wherever in it they are; nothing if there are none.
fn put_references(
    symbols: &mut Symbols,
    body: &[u8],
    message: &[u8],
    mut at: usize,
    out: &mut Out,
) -> Result<(), Malformed> {
    let before = out.len();
    let references = out.open_short(REFERENCES);
    let begins = out.len();
    while at < message.len() {
        let field = fields::read_quick(message, at)?;
        at = field.end();
        if (field.number, field.wire_type) == (LABELS, LENGTH) {
            symbols.refer_label(body, field.whole(), out)?;
        }
    }
    if out.len() == begins {
        out.truncate(before);
    } else {
        out.close(references);
    }
    Ok(())
}

fn put_head(out: &mut Vec<u8>, number: u32, length: usize) {
    out.push((number << 3) as u8 | LENGTH);
    put_varint(out, length as u64);
}

fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_head(out, number, bytes.len());
    out.extend_from_slice(bytes);
}

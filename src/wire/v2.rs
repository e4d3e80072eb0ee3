//! Remote write 2.0 in (`io.prometheus.write.v2.Request`), rewritten as 1.0.
//!
//! Owns the field numbers of that message (Prometheus `prompb/io/prometheus/write/v2/types.proto`), the judgement of
//! its references, and one pass that makes a 1.0 body of it, so that a series has the same label bytes, and so the same
//! key, by whichever protocol it came. Values, times and histograms are copied as they are. Does not judge labels, nor
//! look into samples: the walk over the 1.0 body (`v1.rs`) does.
//!
//! What 1.0 has no place for is dropped, or, for an upstream that takes 2.0, kept in fields that 1.0 leaves free:
//! start timestamps (field 3 of a sample, 17 of a histogram), the created timestamp (field 6 of a series), and metadata
//! with its texts spelt out (field 5 of a series). [`v2_out`](super::v2_out) finds them there.

mod spelt;

use super::fields::{self, Field, LENGTH, VARINT, put_varint};
use super::v1::{EXEMPLARS, HISTOGRAMS, LABELS, SAMPLES};
use super::{BODY_BYTES_MAX, Flaw, Malformed, Span};
use crate::series;
use spelt::Spelt;
use std::collections::HashSet;
use xxhash_rust::xxh3::xxh3_64;

pub(super) const SYMBOLS: u32 = 4;
pub(super) const TIMESERIES: u32 = 5;
/// Bounds of one request, as in `v1.rs`. Prometheus sends some thousand symbols with 2,000 series.
const SYMBOLS_MAX: usize = 1 << 20;
const SERIES_MAX: usize = 1 << 18;
/// Of one series or exemplar. A reference of one byte takes four here.
const REFERENCES_MAX: usize = 1 << 17;
/// Of a `TimeSeries`.
pub(super) const REFERENCES: u32 = 1;
pub(super) const SERIES_SAMPLES: u32 = 2;
pub(super) const SERIES_HISTOGRAMS: u32 = 3;
pub(super) const SERIES_EXEMPLARS: u32 = 4;
pub(super) const SERIES_METADATA: u32 = 5;
pub(super) const SERIES_CREATED: u32 = 6;
/// Start timestamps.
pub(super) const SAMPLE_START: u32 = 3;
pub(super) const HISTOGRAM_START: u32 = 17;
/// Of `Metadata`.
pub(super) const TYPE: u32 = 1;
pub(super) const HELP: u32 = 3;
pub(super) const UNIT: u32 = 4;
/// Types whose series have names of their own: `_bucket`, `_sum`, `_count` behind the family's.
const HISTOGRAM_TYPE: u64 = 3;
const GAUGE_HISTOGRAM_TYPE: u64 = 4;
const SUMMARY_TYPE: u64 = 5;

/// What is kept of that for which 1.0 has no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Nothing; metadata becomes that of 1.0. For an upstream that takes 1.0.
    Nothing,
    /// All of it. For an upstream that takes 2.0.
    All,
}

/// Rewrites bodies. Holds the memory for it, to be used again.
#[derive(Debug, Default)]
pub struct Rewriter {
    symbols: Vec<Span>,
    series: Vec<Span>,
    references: Vec<u32>,
    spelt: Spelt,
    /// Metadata that the request has told of already: type, help, unit, and a hash of the family.
    told: HashSet<(u64, u32, u32, u64)>,
}

/// A message that is being written behind its length.
struct Open {
    /// Where its content begins.
    at: usize,
}

/// What a metadata message refers to.
#[derive(Default)]
struct Told {
    kind: u64,
    help: u32,
    unit: u32,
}

impl Rewriter {
    /// Writes `body` as remote write 1.0 to `out` (cleared first), which never gets longer than `max` bytes and a few.
    ///
    /// # Errors
    /// When it is no message of 2.0, or a reference of it leads nowhere. Nothing of it may be used then.
    pub fn rewrite(
        &mut self,
        body: &[u8],
        keep: Keep,
        max: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), Malformed> {
        out.clear();
        self.symbols.clear();
        self.series.clear();
        self.told.clear();
        self.spelt.forget();
        self.seek(body)?;
        out.reserve(body.len().saturating_mul(3).min(max));
        for (nth, payload) in self.series.iter().enumerate() {
            let spelt = &mut self.spelt;
            let mut pass = Pass { body, symbols: &self.symbols, spelt, keep, max, out };
            let number = nth as u32 + 1;
            pass.series(*payload, &mut self.references, &mut self.told)
                .map_err(|malformed| malformed.in_series(number))?;
        }
        Ok(())
    }

    /// Finds all symbols and series. Symbols come first as a rule, but need not.
    fn seek(&mut self, body: &[u8]) -> Result<(), Malformed> {
        if body.len() > BODY_BYTES_MAX {
            return Err(Malformed::new(0, Flaw::TooLong { given: body.len() }));
        }
        let mut at = 0;
        while at < body.len() {
            let field = fields::read_quick(body, at)?;
            at = field.end();
            let (list, what, max) = match (field.number, field.wire_type) {
                (SYMBOLS, LENGTH) => (&mut self.symbols, "symbols", SYMBOLS_MAX),
                (TIMESERIES, LENGTH) => (&mut self.series, "series", SERIES_MAX),
                (SYMBOLS | TIMESERIES, _) => return Err(field.wrong_wire_type()),
                (1..=3, _) => {
                    return Err(Malformed::new(field.start, Flaw::Reserved { field: field.number }));
                }
                _ => continue,
            };
            if list.len() >= max {
                return Err(Malformed::new(field.start, Flaw::TooMany { what, max }));
            }
            list.push(field.content);
        }
        match self.symbols.first() {
            Some(first) if !first.is_empty() => Err(Malformed::new(first.start as usize, Flaw::FirstSymbol)),
            _ => Ok(()),
        }
    }
}

/// The pass over one series.
struct Pass<'a> {
    body: &'a [u8],
    symbols: &'a [Span],
    spelt: &'a mut Spelt,
    keep: Keep,
    max: usize,
    out: &'a mut Vec<u8>,
}

impl<'a> Pass<'a> {
    fn series(
        &mut self,
        payload: Span,
        references: &mut Vec<u32>,
        told: &mut HashSet<(u64, u32, u32, u64)>,
    ) -> Result<(), Malformed> {
        let message = &self.body[..payload.end as usize];
        let start = payload.start as usize;
        collect(message, start, references)?;
        let series = self.open(LABELS);
        let name = self.labels(references, start)?;
        let mut metadata = None;
        let mut at = start;
        while at < message.len() {
            let field = fields::read_quick(message, at)?;
            at = field.end();
            match (field.number, field.wire_type) {
                (REFERENCES, _) => {}
                (SERIES_SAMPLES, LENGTH) => self.copy(message, &field, SAMPLES, SAMPLE_START)?,
                (SERIES_HISTOGRAMS, LENGTH) => self.copy(message, &field, HISTOGRAMS, HISTOGRAM_START)?,
                (SERIES_EXEMPLARS, LENGTH) => self.exemplar(&message[..at], &field, references)?,
                (SERIES_METADATA, LENGTH) => metadata = Some(self.told(&message[..at], &field)?),
                (SERIES_CREATED, VARINT) if self.keep == Keep::All => {
                    self.out.extend_from_slice(field.whole().of(self.body));
                }
                (SERIES_CREATED, VARINT) => {}
                (SERIES_SAMPLES..=SERIES_CREATED, _) => return Err(field.wrong_wire_type()),
                _ => {}
            }
            self.bound(0, field.start)?;
        }
        let metadata = metadata.filter(|of: &Told| (of.kind, of.help, of.unit) != (0, 0, 0));
        if let (Some(of), Keep::All) = (&metadata, self.keep) {
            self.spell_out(of, SERIES_METADATA, None, start)?;
        }
        self.close(series);
        if let (Some(of), Keep::Nothing, Some(name)) = (&metadata, self.keep, name) {
            let family = family(self.symbol(name), of.kind);
            if told.insert((of.kind, of.help, of.unit, xxh3_64(family))) {
                self.spell_out(of, METADATA_OF_1, Some(family), start)?;
            }
        }
        self.bound(0, start)
    }

    /// Writes the labels. Returns the reference of the metric's name.
    fn labels(&mut self, references: &[u32], at: usize) -> Result<Option<u32>, Malformed> {
        if !references.len().is_multiple_of(2) {
            return Err(Malformed::new(at, Flaw::OddReferences { given: references.len() }));
        }
        let mut metric = None;
        for pair in references.chunks_exact(2) {
            let &[name, value] = pair else { continue };
            let names_metric = match self.spelt.put(name, value, self.max, self.out) {
                Some(names_metric) => names_metric,
                None => self.spell(name, value, at)?,
            };
            if names_metric {
                metric = Some(value);
            }
        }
        Ok(metric)
    }

    /// Writes a label that has not been written before, or not lately. Returns whether it names the metric.
    #[cold]
    fn spell(&mut self, name: u32, value: u32, at: usize) -> Result<bool, Malformed> {
        let (name_bytes, value_bytes) = (self.refer(name, at)?, self.refer(value, at)?);
        self.bound(name_bytes.len() + value_bytes.len(), at)?;
        let start = self.out.len();
        series::encode_label(self.out, name_bytes, value_bytes);
        let names_metric = name_bytes == b"__name__";
        self.spelt.remember(name, value, names_metric, &self.out[start..]);
        Ok(names_metric)
    }

    fn refer(&self, reference: u32, at: usize) -> Result<&'a [u8], Malformed> {
        match self.symbols.get(reference as usize) {
            Some(symbol) => Ok(symbol.of(self.body)),
            None => {
                let symbols = self.symbols.len();
                Err(Malformed::new(at, Flaw::Reference { given: reference, symbols }))
            }
        }
    }

    /// Of a reference that has been judged.
    fn symbol(&self, reference: u32) -> &'a [u8] {
        self.symbols.get(reference as usize).map_or(&[][..], |symbol| symbol.of(self.body))
    }

    /// A sample or a histogram: the same in both protocols, but for when it started.
    fn copy(&mut self, message: &[u8], field: &Field, number: u32, start: u32) -> Result<(), Malformed> {
        let content = field.content.of(self.body);
        self.bound(content.len(), field.start)?;
        // The usual sample: a value and a time of six bytes.
        if number == SAMPLES
            && let Ok(usual) = <&[u8; 16]>::try_from(content)
            && (usual[0], usual[9]) == (0x09, 0x10)
        {
            self.out.extend_from_slice(&[(SAMPLES << 3) as u8 | LENGTH, 16]);
            self.out.extend_from_slice(usual);
            return Ok(());
        }
        let open = self.open(number);
        let message = &message[..field.end()];
        let mut at = field.content.start as usize;
        while at < message.len() {
            let inner = fields::read(message, at)?;
            at = inner.end();
            match (inner.number == start, inner.wire_type) {
                (true, VARINT) if self.keep == Keep::Nothing => {}
                (false, _) | (true, VARINT) => self.out.extend_from_slice(inner.whole().of(self.body)),
                // Nobody else judges it: 1.0 does not know this field.
                (true, _) => return Err(inner.wrong_wire_type()),
            }
        }
        self.close(open);
        Ok(())
    }

    fn exemplar(
        &mut self,
        message: &[u8],
        field: &Field,
        references: &mut Vec<u32>,
    ) -> Result<(), Malformed> {
        let start = field.content.start as usize;
        collect(message, start, references)?;
        let open = self.open(EXEMPLARS);
        self.labels(references, field.start)?;
        let mut at = start;
        while at < message.len() {
            let inner = fields::read(message, at)?;
            at = inner.end();
            if inner.number != REFERENCES {
                self.out.extend_from_slice(inner.whole().of(self.body));
            }
        }
        self.close(open);
        Ok(())
    }

    fn told(&self, message: &[u8], field: &Field) -> Result<Told, Malformed> {
        let mut told = Told::default();
        let mut at = field.content.start as usize;
        while at < message.len() {
            let inner = fields::read(message, at)?;
            at = inner.end();
            match (inner.number, inner.wire_type) {
                (TYPE, VARINT) => told.kind = inner.varint(message)?,
                (HELP, VARINT) => told.help = reference(inner.varint(message)?),
                (UNIT, VARINT) => told.unit = reference(inner.varint(message)?),
                (TYPE | HELP | UNIT, _) => return Err(inner.wrong_wire_type()),
                _ => {}
            }
        }
        // Text that is not there is reference 0, also where there are no symbols at all.
        for given in [told.help, told.unit] {
            if given != 0 {
                self.refer(given, field.start)?;
            }
        }
        Ok(told)
    }

    /// Writes metadata with its texts: of 1.0 with its family, or in the place that 2.0 has for it.
    fn spell_out(
        &mut self,
        of: &Told,
        number: u32,
        family: Option<&[u8]>,
        at: usize,
    ) -> Result<(), Malformed> {
        let (help, unit) = (self.symbol(of.help), self.symbol(of.unit));
        self.bound(help.len() + unit.len() + family.map_or(0, <[u8]>::len), at)?;
        let open = self.open(number);
        if of.kind != 0 {
            self.out.push((TYPE << 3) as u8 | VARINT);
            put_varint(self.out, of.kind);
        }
        let texts = match family {
            Some(family) => [(FAMILY_OF_1, family), (HELP_OF_1, help), (UNIT_OF_1, unit)],
            None => [(HELP, help), (UNIT, unit), (UNIT, &[][..])],
        };
        for (number, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
            self.out.push((number << 3) as u8 | LENGTH);
            put_varint(self.out, text.len() as u64);
            self.out.extend_from_slice(text);
        }
        self.close(open);
        Ok(())
    }

    /// Refuses what would grow beyond the bound: a reference of two bytes can stand for a symbol of any length.
    #[inline(always)]
    fn bound(&self, more: usize, at: usize) -> Result<(), Malformed> {
        if self.out.len() + more <= self.max {
            return Ok(());
        }
        let flaw = Flaw::TooMany { what: "bytes as remote write 1.0", max: self.max };
        Err(Malformed::new(at, flaw))
    }

    /// Begins a message. Room is left for a length of two bytes, which nearly all series have.
    fn open(&mut self, number: u32) -> Open {
        self.out.extend_from_slice(&[(number << 3) as u8 | LENGTH, 0, 0]);
        Open { at: self.out.len() }
    }

    fn close(&mut self, open: Open) {
        let length = self.out.len() - open.at;
        match length {
            0..0x80 => {
                self.out[open.at - 2] = length as u8;
                self.out.copy_within(open.at.., open.at - 1);
                self.out.pop();
            }
            0x80..0x4000 => {
                self.out[open.at - 2] = length as u8 | 0x80;
                self.out[open.at - 1] = (length >> 7) as u8;
            }
            _ => {
                let mut long = Vec::with_capacity(5);
                put_varint(&mut long, length as u64);
                self.out.splice(open.at - 2..open.at, long);
            }
        }
    }
}

/// Fields of 1.0: metadata in a request, and texts in metadata.
const METADATA_OF_1: u32 = 3;
const FAMILY_OF_1: u32 = 2;
const HELP_OF_1: u32 = 4;
const UNIT_OF_1: u32 = 5;

/// A reference that does not fit leads nowhere either.
fn reference(given: u64) -> u32 {
    u32::try_from(given).unwrap_or(u32::MAX)
}

/// Gathers the references of a series or an exemplar, packed or not.
fn collect(message: &[u8], start: usize, references: &mut Vec<u32>) -> Result<(), Malformed> {
    references.clear();
    let mut at = start;
    while at < message.len() {
        let field = fields::read_quick(message, at)?;
        at = field.end();
        match (field.number, field.wire_type) {
            (REFERENCES, LENGTH) => {
                let packed = &message[..at];
                let mut each = field.content.start as usize;
                while each < at {
                    let (given, end) = match packed[each] {
                        quick if quick < 0x80 => (u64::from(quick), each + 1),
                        _ => fields::varint(packed, each)?,
                    };
                    push(references, given, each)?;
                    each = end;
                }
            }
            (REFERENCES, VARINT) => push(references, field.varint(message)?, field.start)?,
            (REFERENCES, _) => return Err(field.wrong_wire_type()),
            _ => {}
        }
    }
    Ok(())
}

fn push(references: &mut Vec<u32>, given: u64, at: usize) -> Result<(), Malformed> {
    if references.len() >= REFERENCES_MAX {
        let flaw = Flaw::TooMany { what: "references in a series", max: REFERENCES_MAX };
        return Err(Malformed::new(at, flaw));
    }
    references.push(reference(given));
    Ok(())
}

/// The family of a metric: 1.0 tells of families, and histograms and summaries have several names.
fn family(name: &[u8], kind: u64) -> &[u8] {
    let suffixes: &[&[u8]] = match kind {
        HISTOGRAM_TYPE | GAUGE_HISTOGRAM_TYPE => &[b"_bucket", b"_sum", b"_count"],
        SUMMARY_TYPE => &[b"_sum", b"_count"],
        _ => &[],
    };
    suffixes.iter().find_map(|suffix| name.strip_suffix(*suffix)).unwrap_or(name)
}

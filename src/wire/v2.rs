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

mod runs;
mod spelt;
mod told;

use super::fields::{self, Field, LENGTH, VARINT, put_varint};
use super::v1::{EXEMPLARS, HISTOGRAMS, LABELS, SAMPLES, usual_float};
use super::{BODY_BYTES_MAX, Flaw, Malformed, Span};
use crate::series;
use runs::Runs;
use spelt::Spelt;
use told::Told;

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
const SAMPLE_START: u32 = 3;
const HISTOGRAM_START: u32 = 17;
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
    runs: Runs,
    told: Told,
}

/// A message that is being written behind its length.
struct Open {
    /// Where its content begins.
    at: usize,
}

/// What a metadata message refers to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Metadata {
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
        self.told.forget();
        self.spelt.forget();
        self.runs.forget();
        self.seek(body)?;
        out.reserve(body.len().saturating_mul(3).min(max));
        let Self { symbols, series, references, spelt, runs, told } = self;
        let mut pass = Pass { body, symbols, spelt, keep, max, out };
        for (nth, payload) in series.iter().enumerate() {
            let start = pass.out.len();
            // Whatever is odd about it is found, and said, by the other way.
            if let Ok(Some(labels)) = pass.series_by_runs(*payload, runs, references, told) {
                runs.lie_at(labels);
            } else {
                pass.out.truncate(start);
                runs.forget();
                pass.series(*payload, references, told)
                    .map_err(|malformed| malformed.in_series(nth as u32 + 1))?;
            }
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
    /// A series whose references come first and in one piece. Returns where its labels are. `None`, or an error: it has
    /// to be done by [`Self::series`].
    fn series_by_runs(
        &mut self,
        payload: Span,
        runs: &mut Runs,
        references: &mut Vec<u32>,
        told: &mut Told,
    ) -> Result<Option<usize>, Malformed> {
        let message = &self.body[..payload.end as usize];
        let field = fields::read_quick(message, payload.start as usize)?;
        if (field.number, field.wire_type) != (REFERENCES, LENGTH) {
            return Ok(None);
        }
        let series = self.open(LABELS);
        let Some(name) = self.labels_by_runs(field.content, runs) else { return Ok(None) };
        self.rest(payload, field.end(), series, name, references, told)
    }

    fn series(&mut self, payload: Span, references: &mut Vec<u32>, told: &mut Told) -> Result<(), Malformed> {
        let start = payload.start as usize;
        collect(&self.body[..payload.end as usize], start, references)?;
        let series = self.open(LABELS);
        let name = self.labels(references, start)?;
        self.rest(payload, start, series, name, references, told).map(|_| ())
    }

    /// What a series has besides labels, from `at` on. Returns where its labels are. `None`: there are references behind
    /// those it begins with.
    fn rest(
        &mut self,
        payload: Span,
        mut at: usize,
        series: Open,
        name: Option<u32>,
        references: &mut Vec<u32>,
        told: &mut Told,
    ) -> Result<Option<usize>, Malformed> {
        let message = &self.body[..payload.end as usize];
        let start = payload.start as usize;
        let by_runs = at > start;
        let mut metadata = None;
        while at < message.len() {
            let field = fields::read_quick(message, at)?;
            at = field.end();
            match (field.number, field.wire_type) {
                (REFERENCES, _) if by_runs => return Ok(None),
                (REFERENCES, _) => {}
                (SERIES_SAMPLES, LENGTH) => self.copy(message, &field, SAMPLES, SAMPLE_START)?,
                (SERIES_HISTOGRAMS, LENGTH) => self.copy(message, &field, HISTOGRAMS, HISTOGRAM_START)?,
                (SERIES_EXEMPLARS, LENGTH) => self.exemplar(&message[..at], &field, references)?,
                (SERIES_METADATA, LENGTH) => metadata = Some(self.metadata(&message[..at], &field)?),
                (SERIES_CREATED, VARINT) if self.keep == Keep::All => {
                    self.out.extend_from_slice(field.whole().of(self.body));
                }
                (SERIES_CREATED, VARINT) => {}
                (SERIES_SAMPLES..=SERIES_CREATED, _) => return Err(field.wrong_wire_type()),
                _ => {}
            }
            self.bound(0, field.start)?;
        }
        let metadata = metadata.filter(|of| *of != Metadata::default());
        if let (Some(of), Keep::All) = (&metadata, self.keep) {
            self.spell_out(of, SERIES_METADATA, None, start)?;
        }
        let labels = self.close(series);
        if let (Some(of), Keep::Nothing, Some(name)) = (&metadata, self.keep, name)
            && !told.lately(of, name)
        {
            let family = family(self.symbol(name), of.kind);
            if !told.knows(of, family) {
                self.spell_out(of, METADATA_OF_1, Some(family), start)?;
            }
            told.remember(of, name, family);
        }
        self.bound(0, start)?;
        Ok(Some(labels))
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
        // The usual sample: a value (or none, for a zero) and a time of six bytes.
        if number == SAMPLES
            && let Some((_, usual)) = self.body[..field.end()].split_last_chunk::<18>()
            && usual_float(usual, content.len()).is_some()
        {
            let whole = &usual[16 - content.len()..];
            if whole[..2] == [(SERIES_SAMPLES << 3) as u8 | LENGTH, content.len() as u8] {
                // Its number is the same in both protocols.
                self.out.extend_from_slice(whole);
                return Ok(());
            }
        }
        if self.keep == Keep::All {
            self.out.push((number << 3) as u8 | LENGTH);
            put_varint(self.out, content.len() as u64);
            self.out.extend_from_slice(content);
            return Ok(());
        }
        let open = self.open(number);
        let message = &message[..field.end()];
        let mut at = field.content.start as usize;
        while at < message.len() {
            let inner = fields::read(message, at)?;
            at = inner.end();
            if inner.number != start {
                self.out.extend_from_slice(inner.whole().of(self.body));
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

    fn metadata(&self, message: &[u8], field: &Field) -> Result<Metadata, Malformed> {
        let mut found = Metadata::default();
        let mut at = field.content.start as usize;
        while at < message.len() {
            let inner = fields::read(message, at)?;
            at = inner.end();
            match (inner.number, inner.wire_type) {
                (TYPE, VARINT) => found.kind = inner.varint(message)?,
                (HELP, VARINT) => found.help = reference(inner.varint(message)?),
                (UNIT, VARINT) => found.unit = reference(inner.varint(message)?),
                (TYPE | HELP | UNIT, _) => return Err(inner.wrong_wire_type()),
                _ => {}
            }
        }
        // Text that is not there is reference 0, also where there are no symbols at all.
        for given in [found.help, found.unit] {
            if given != 0 {
                self.refer(given, field.start)?;
            }
        }
        Ok(found)
    }

    /// Writes metadata with its texts: of 1.0 with its family, or in the place that 2.0 has for it.
    fn spell_out(
        &mut self,
        of: &Metadata,
        number: u32,
        family: Option<&[u8]>,
        at: usize,
    ) -> Result<(), Malformed> {
        let (help, unit) = (self.symbol(of.help), self.symbol(of.unit));
        self.bound(help.len() + unit.len() + family.map_or(0, <[u8]>::len) + METADATA_BYTES_MAX, at)?;
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

    /// Ends a message. Returns where its content has come to begin.
    fn close(&mut self, open: Open) -> usize {
        let length = self.out.len() - open.at;
        match length {
            0..0x80 => {
                self.out[open.at - 2] = length as u8;
                self.out.copy_within(open.at.., open.at - 1);
                self.out.pop();
                open.at - 1
            }
            0x80..0x4000 => {
                self.out[open.at - 2] = length as u8 | 0x80;
                self.out[open.at - 1] = (length >> 7) as u8;
                open.at
            }
            _ => {
                let mut long = Vec::with_capacity(5);
                put_varint(&mut long, length as u64);
                let begins = open.at - 2 + long.len();
                self.out.splice(open.at - 2..open.at, long);
                begins
            }
        }
    }
}

/// What metadata takes besides its texts: keys, lengths and a type.
const METADATA_BYTES_MAX: usize = 48;
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

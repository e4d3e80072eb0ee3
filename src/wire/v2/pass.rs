//! One series of 2.0, written as 1.0.
//!
//! Owns the looking up of references, and the place of everything in the message of 1.0. Refuses what leads nowhere, and what
//! would grow beyond the bound. Does not look for symbols and series: that is `v2.rs`'s.

use super::spelt::{Pair, Spelt};
use super::told::Told;
use super::{
    HELP, HISTOGRAM_START, Keep, REFERENCES, SAMPLE_START, SERIES_CREATED, SERIES_EXEMPLARS,
    SERIES_HISTOGRAMS, SERIES_METADATA, SERIES_SAMPLES, TYPE, UNIT,
};
use crate::wire::fields::{self, Field, LENGTH, VARINT};
use crate::wire::out::{Open, Out};
use crate::wire::v1::{EXEMPLARS, HISTOGRAMS, LABELS, SAMPLES};
use crate::wire::{Flaw, Malformed, Span};

/// Of one series or exemplar. A reference of one byte takes four here.
const REFERENCES_MAX: usize = 1 << 17;
/// Types whose series have names of their own: `_bucket`, `_sum`, `_count` behind the family's.
const HISTOGRAM_TYPE: u64 = 3;
const GAUGE_HISTOGRAM_TYPE: u64 = 4;
const SUMMARY_TYPE: u64 = 5;
/// What metadata takes besides its texts: keys, lengths and a type.
const METADATA_BYTES_MAX: usize = 48;
/// Fields of 1.0: metadata in a request, and texts in metadata.
const METADATA_OF_1: u32 = 3;
const FAMILY_OF_1: u32 = 2;
const HELP_OF_1: u32 = 4;
const UNIT_OF_1: u32 = 5;

/// What a metadata message refers to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct Metadata {
    kind: u64,
    help: u32,
    unit: u32,
}

/// The pass over one series.
pub(super) struct Pass<'a> {
    pub(super) body: &'a [u8],
    pub(super) symbols: &'a [Span],
    pub(super) spelt: &'a mut Spelt,
    pub(super) keep: Keep,
    pub(super) max: usize,
    pub(super) out: &'a mut Out,
}

impl<'a> Pass<'a> {
    pub(super) fn series(
        &mut self,
        payload: Span,
        references: &mut Vec<u32>,
        told: &mut Told,
    ) -> Result<(), Malformed> {
        let start = payload.start as usize;
        collect(&self.body[..payload.end as usize], start, references)?;
        let series = self.out.open(LABELS);
        let name = self.labels(references, start)?;
        self.rest(payload, start, series, name, references, told).map(|_| ())
    }

    /// What a series has besides labels, from `at` on. Returns where its content begins by then. `None`: there are references behind
    /// those it begins with.
    pub(super) fn rest(
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
        let labels_are_done = at > start;
        let mut metadata = Metadata::default();
        while at < message.len() {
            let field = fields::read_quick(message, at)?;
            at = field.end();
            match (field.number, field.wire_type) {
                (REFERENCES, _) if labels_are_done => return Ok(None),
                (REFERENCES, _) => {}
                (SERIES_SAMPLES, LENGTH) => self.copy(message, &field, SAMPLES, SAMPLE_START)?,
                (SERIES_HISTOGRAMS, LENGTH) => self.copy(message, &field, HISTOGRAMS, HISTOGRAM_START)?,
                (SERIES_EXEMPLARS, LENGTH) => self.exemplar(&message[..at], &field, references)?,
                (SERIES_METADATA, LENGTH) => self.metadata(&message[..at], &field, &mut metadata)?,
                (SERIES_CREATED, VARINT) if self.keep == Keep::All => {
                    self.out.put(field.whole().of(self.body));
                }
                (SERIES_CREATED, VARINT) => {}
                (SERIES_SAMPLES..=SERIES_CREATED, _) => return Err(field.wrong_wire_type()),
                _ => {}
            }
            self.bound(0, field.start)?;
        }
        let metadata = Some(metadata).filter(|of| *of != Metadata::default());
        if let (Some(of), Keep::All) = (&metadata, self.keep) {
            self.spell_out(of, SERIES_METADATA, None, start)?;
        }
        let begins = self.out.close(series);
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
        Ok(Some(begins))
    }

    /// Writes the labels. Returns the reference of the metric's name.
    fn labels(&mut self, references: &[u32], at: usize) -> Result<Option<u32>, Malformed> {
        if !references.len().is_multiple_of(2) {
            return Err(Malformed::new(at, Flaw::OddReferences { given: references.len() }));
        }
        let mut metric = None;
        for pair in references.chunks_exact(2) {
            let &[name, value] = pair else { continue };
            if self.label(Pair { name, value }, at)? {
                metric = Some(value);
            }
        }
        Ok(metric)
    }

    /// Writes a label. Returns whether it names the metric.
    #[inline(never)]
    pub(super) fn label(&mut self, pair: Pair, at: usize) -> Result<bool, Malformed> {
        self.bound(0, at)?;
        match self.spelt.put(pair, self.out) {
            Some(names_metric) => Ok(names_metric),
            None => self.spell(pair, at),
        }
    }

    /// Writes a label that is not remembered. Returns whether it names the metric.
    fn spell(&mut self, pair: Pair, at: usize) -> Result<bool, Malformed> {
        let (name, value) = (self.refer(pair.name, at)?, self.refer(pair.value, at)?);
        self.bound(name.len() + value.len(), at)?;
        Ok(self.spelt.spell(pair, name, value, self.out))
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
        let open = if number == SAMPLES { self.out.open_short(number) } else { self.out.open(number) };
        let message = &message[..field.end()];
        let mut at = field.content.start as usize;
        while at < message.len() {
            let inner = fields::read(message, at)?;
            at = inner.end();
            match (inner.number == start, inner.wire_type) {
                (true, VARINT) if self.keep == Keep::Nothing => {}
                (false, _) | (true, VARINT) => self.out.put(inner.whole().of(self.body)),
                // Nobody else judges it: 1.0 does not know this field.
                (true, _) => return Err(inner.wrong_wire_type()),
            }
        }
        self.out.close(open);
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
        let open = self.out.open(EXEMPLARS);
        self.labels(references, field.start)?;
        let mut at = start;
        while at < message.len() {
            let inner = fields::read(message, at)?;
            at = inner.end();
            if inner.number != REFERENCES {
                self.out.put(inner.whole().of(self.body));
            }
        }
        self.out.close(open);
        Ok(())
    }

    /// Metadata that is there twice is one, as in any protobuf message: of each field the last counts.
    fn metadata(&self, message: &[u8], field: &Field, found: &mut Metadata) -> Result<(), Malformed> {
        let mut at = field.content.start as usize;
        while at < message.len() {
            let inner = fields::read(message, at)?;
            at = inner.end();
            match (inner.number, inner.wire_type) {
                // An enumeration has 32 bits, whatever is sent.
                (TYPE, VARINT) => found.kind = inner.varint(message)? & u64::from(u32::MAX),
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
        Ok(())
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
        let open = self.out.open(number);
        if of.kind != 0 {
            self.out.put(&[(TYPE << 3) as u8 | VARINT]);
            self.out.put_varint(of.kind);
        }
        let texts = match family {
            Some(family) => [(FAMILY_OF_1, family), (HELP_OF_1, help), (UNIT_OF_1, unit)],
            None => [(HELP, help), (UNIT, unit), (UNIT, &[][..])],
        };
        for (number, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
            self.out.put(&[(number << 3) as u8 | LENGTH]);
            self.out.put_varint(text.len() as u64);
            self.out.put(text);
        }
        self.out.close(open);
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
}

/// A reference that does not fit leads nowhere either.
pub(super) fn reference(given: u64) -> u32 {
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

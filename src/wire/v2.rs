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

mod pass;
mod spelt;
mod told;
mod usual;

use super::fields::{self, LENGTH};
use super::out::Out;
use super::{BODY_BYTES_MAX, Flaw, Malformed, Span};
use pass::Pass;
use spelt::Spelt;
use told::Told;

pub(super) const SYMBOLS: u32 = 4;
pub(super) const TIMESERIES: u32 = 5;
const SYMBOLS_KEY: u8 = (SYMBOLS << 3) as u8 | LENGTH;
/// Bounds of one request, as in `v1.rs`. Prometheus sends some thousand symbols with 2,000 series.
const SYMBOLS_MAX: usize = 1 << 20;
const SERIES_MAX: usize = 1 << 18;
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
    told: Told,
    label_ends: Vec<u32>,
}

impl Rewriter {
    /// Of each series that was written by the last [`Self::rewrite`], in that order, where its labels end; 0 = it has something else
    /// than one usual float and metadata behind them. Empty: nothing is to be gained by that.
    #[must_use]
    pub fn label_ends(&self) -> &[u32] {
        &self.label_ends
    }

    /// Writes `body` as remote write 1.0 to `out`, which never gets longer than `max` bytes and a few labels.
    ///
    /// Hand in the same buffer again without clearing it: only what it has to grow by is written twice.
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
        let mut written = Out::over(std::mem::take(out));
        let rewritten = match self.one_by_one(body, keep, max, &mut written) {
            Some(()) => Ok(()),
            // Whatever is odd about it is found, and said, in this way.
            None => self.in_two_passes(body, keep, max, &mut written),
        };
        *out = written.into_bytes();
        rewritten
    }

    fn begin(&mut self) {
        self.symbols.clear();
        self.series.clear();
        self.told.forget();
        self.label_ends.clear();
    }

    /// A body in which all symbols come before all series, and there is nothing else: each series is written as it is met.
    /// `None`: it is to be done in the other way.
    fn one_by_one(&mut self, body: &[u8], keep: Keep, max: usize, out: &mut Out) -> Option<()> {
        if body.len() > BODY_BYTES_MAX {
            return None;
        }
        self.begin();
        let (mut at, mut count) = (0, 0);
        while body.get(at) == Some(&SYMBOLS_KEY) && self.symbols.len() < SYMBOLS_MAX {
            let symbol = fields::read_quick(body, at).ok()?;
            self.symbols.push(symbol.content);
            at = symbol.end();
        }
        if self.symbols.first().is_some_and(|first| !first.is_empty()) {
            return None;
        }
        self.spelt.forget();
        let Self { symbols, references, spelt, told, label_ends, .. } = self;
        let mut pass = Pass { body, symbols, spelt, keep, max, out };
        while at < body.len() {
            let series = fields::read_quick(body, at).ok()?;
            if (series.number, series.wire_type) != (TIMESERIES, LENGTH) || count >= SERIES_MAX {
                return None;
            }
            (at, count) = (series.end(), count + 1);
            let start = pass.out.len();
            let labels_end = pass.usual_series(series.content, references, told);
            if labels_end.is_none() {
                pass.out.truncate(start);
                pass.series(series.content, references, told).ok()?;
            }
            // What ends with its sample is guessed by that as well.
            if keep == Keep::All {
                label_ends.push(Span::at(labels_end.unwrap_or(0), 0).start);
            }
        }
        Some(())
    }

    fn in_two_passes(&mut self, body: &[u8], keep: Keep, max: usize, out: &mut Out) -> Result<(), Malformed> {
        out.truncate(0);
        self.begin();
        self.seek(body)?;
        self.spelt.forget();
        let Self { symbols, series, references, spelt, told, .. } = self;
        let mut pass = Pass { body, symbols, spelt, keep, max, out };
        for (nth, payload) in series.iter().enumerate() {
            pass.series(*payload, references, told)
                .map_err(|malformed| malformed.in_series(nth as u32 + 1))?;
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

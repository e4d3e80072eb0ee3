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
mod runs;
mod spelt;
mod told;

use super::fields::{self, LENGTH};
use super::{BODY_BYTES_MAX, Flaw, Malformed, Span};
use pass::Pass;
use runs::Runs;
use spelt::Spelt;
use told::Told;

pub(super) const SYMBOLS: u32 = 4;
pub(super) const TIMESERIES: u32 = 5;
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
    runs: Runs,
    told: Told,
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

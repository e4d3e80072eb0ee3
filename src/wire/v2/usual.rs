//! The series that nearly all are: references first, one float of today, and metadata that says nothing new.
//!
//! Owns the shortest way to write such a one as 1.0. What it does not know, it leaves to the pass, which is slower and
//! says what is wrong.

use super::pass::Pass;
use super::spelt;
use super::told::Told;
use super::{Keep, REFERENCES, SERIES_METADATA, SERIES_SAMPLES};
use crate::wire::Span;
use crate::wire::fields::{self, LENGTH};
use crate::wire::v1::{LABELS, usual_float};

/// Metadata in which nothing is said: so Prometheus ends each series.
const NO_METADATA: &[u8] = &[METADATA_KEY, 0];
const METADATA_KEY: u8 = (SERIES_METADATA << 3) as u8 | LENGTH;
const SAMPLE_KEY: u8 = (SERIES_SAMPLES << 3) as u8 | LENGTH;
/// The longest that is usual, key and length included.
const SAMPLE_BYTES: usize = 18;
/// More references than that are not usual.
const PACKED_BYTES_MAX: usize = 1 << 10;

impl Pass<'_> {
    /// Writes a series whose references come first and in one piece. `None`: it has to be done by [`Self::series`], after what was
    /// written has been taken away again.
    ///
    /// Returns where its labels end if behind them is one float of today, and nothing else but metadata; otherwise 0.
    #[inline]
    pub(super) fn usual_series(
        &mut self,
        payload: Span,
        references: &mut Vec<u32>,
        told: &mut Told,
    ) -> Option<usize> {
        let message = &self.body[..payload.end as usize];
        let field = fields::read_quick(message, payload.start as usize).ok()?;
        if (field.number, field.wire_type) != (REFERENCES, LENGTH) || field.content.len() > PACKED_BYTES_MAX {
            return None;
        }
        let series = self.out.open(LABELS);
        let metric = self.usual_labels(field.content)?;
        let labels = self.out.len() - series.begins();
        let (mut at, mut has_float) = (field.end(), false);
        // A zero is shorter than what is copied.
        if let Some(copied) = self.body[at..].first_chunk::<SAMPLE_BYTES>()
            && let [SAMPLE_KEY, length @ (7 | 16), ..] = *copied
            && let Some((sample, metadata)) = message[at..].split_at_checked(usize::from(length) + 2)
            && usual_float(&message[..at + sample.len()], length.into()).is_some()
        {
            // Its number is the same in both protocols.
            *self.out.room(SAMPLE_BYTES).first_chunk_mut()? = *copied;
            self.out.keep(sample.len());
            if self.says_nothing_new(metadata, metric, told) {
                let begins = self.out.close(series);
                return (self.out.len() <= self.max).then_some(begins + labels);
            }
            (at, has_float) = (at + sample.len(), true);
        }
        let before = self.out.len();
        let begins = self.rest(payload, at, series, metric, references, told).ok()??;
        let metadata = &message[at..];
        if !matches!(metadata, [METADATA_KEY, length, ..] if metadata.len() == usize::from(*length) + 2) {
            return Some(0);
        }
        if let Some(metric) = metric {
            match self.keep {
                Keep::Nothing => told.remember_words(metadata, metric, Span::default()),
                Keep::All => {
                    // A series of an unusual length has been moved.
                    let written = begins + (before - series.begins());
                    told.remember_words(metadata, metric, Span::at(written, self.out.len()));
                }
            }
        }
        Some(if has_float { begins + labels } else { 0 })
    }

    /// Whether what comes after the sample is metadata of which nothing is to be written, or what has been written before: then it
    /// is.
    #[inline(always)]
    fn says_nothing_new(&mut self, metadata: &[u8], metric: Option<u32>, told: &Told) -> bool {
        if metadata == NO_METADATA || metadata.is_empty() {
            return true;
        }
        let Some(written) = metric.and_then(|metric| told.word_for_word(metadata, metric)) else {
            return false;
        };
        if self.keep == Keep::All {
            self.out.put_again(written);
        }
        true
    }

    /// Writes the labels of packed references, and returns the reference of the metric's name.
    #[inline]
    fn usual_labels(&mut self, packed: Span) -> Option<Option<u32>> {
        let (mut at, end, mut metric) = (packed.start as usize, packed.end as usize, 0);
        loop {
            at = self.spelt.put_known(self.body, at, end, &mut metric, self.out);
            if at == end {
                return Some(metric.checked_sub(1));
            }
            let (pair, behind) = spelt::pair(&self.body[..end], at)?;
            if self.label(pair, at).ok()? {
                metric = pair.value + 1;
            }
            at = behind;
        }
    }
}

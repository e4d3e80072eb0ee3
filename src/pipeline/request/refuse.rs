//! What is refused of a request without asking the window: invalid labels, times that cannot be, and histograms that are none.
//! The rest of it goes on.

use super::{Fate, Kind, Request};
use crate::window::TIMESTAMP_LIMIT_MS;
use crate::wire::histogram;
use crate::wire::labels::InvalidLabels;

impl Request {
    pub(super) fn refuse_item(&mut self, i: usize, invalid: &InvalidLabels) {
        let item = &mut self.items[i];
        item.kind = Kind::Invalid;
        item.tally = self.tallies.number(None, None);
        self.hit.labels += u64::from(invalid.is_beyond_a_bound());
        let first = item.series.first_sample as usize;
        self.fates[first..first + item.series.samples as usize].fill(Fate::Refused);
        self.refusal.get_or_insert_with(|| format!("series {}: {invalid}", i + 1));
    }

    /// Returns the oldest and the newest of all times, refused ones included. Notes whether times fall.
    pub(super) fn refuse_impossible_times(&mut self, newest_ms: i64, future_max_ms: i64) -> (i64, i64) {
        let possible = |at: i64| -TIMESTAMP_LIMIT_MS < at && at <= newest_ms;
        // Nearly always: no branch for each of them.
        let look = |(oldest, newest, last, falls): (i64, i64, i64, bool), at: i64| {
            (oldest.min(at), newest.max(at), at, falls | (at < last))
        };
        let all = self.samples.iter().map(|sample| sample.at);
        let (oldest, newest, _, falls) = all.fold((i64::MAX, i64::MIN, i64::MIN, false), look);
        self.falls = falls;
        if self.samples.is_empty() || possible(oldest) && possible(newest) {
            return (oldest, newest);
        }
        for (sample, fate) in self.samples.iter().zip(&mut self.fates) {
            if possible(sample.at) || *fate == Fate::Refused {
                continue;
            }
            *fate = Fate::Refused;
            let (at, ahead) = (sample.at, sample.at.saturating_sub(newest_ms - future_max_ms));
            self.refusal.get_or_insert_with(|| match at > newest_ms {
                true => format!(
                    "sample time {at} ms is {ahead} ms in the future, at most {future_max_ms} ms are taken"
                ),
                false => format!("sample time {at} ms is too far in the past to be meant"),
            });
        }
        (oldest, newest)
    }

    /// Upstream would answer 200 and drop one, or refuse the batch for it: nobody would know, or too much would be lost.
    pub(super) fn refuse_invalid_histograms(&mut self) {
        for (i, item) in self.items.iter().enumerate() {
            let first = item.series.first_sample as usize;
            for s in first..first + item.series.samples as usize {
                let sample = &self.samples[s];
                if sample.histogram
                    && self.fates[s] != Fate::Refused
                    && let Err(invalid) = histogram::validate(sample.message(&self.body))
                {
                    self.fates[s] = Fate::Refused;
                    self.refusal.get_or_insert_with(|| format!("series {}: {invalid}", i + 1));
                }
            }
        }
    }
}

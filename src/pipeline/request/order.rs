//! In which order the samples of a request are decided. Refuses to decide any.

use super::{Kind, Request, Unit};

impl Request {
    /// Lists what is decided one after the other: items as they came, unless the times of a series fall. Then each
    /// sample by itself, the oldest first, since Thanos answers 200 and drops one where times fall inside a request.
    pub(super) fn order(&mut self) {
        self.falls = self.samples.windows(2).any(|pair| pair[1].at < pair[0].at) && self.series_falls();
        for (i, item) in self.items.iter().enumerate() {
            let (first, count) = (item.series.first_sample, item.series.samples);
            let unit = |first, count| Unit { item: i as u32, first, count };
            if self.falls && item.kind == Kind::Replicated && count > 0 {
                self.units.extend((first..first + count).map(|s| unit(s, 1)));
            } else {
                self.units.push(unit(first, count));
            }
        }
        if self.falls {
            let samples = &self.samples;
            // What is no sample (an exemplar) comes last: its series has to be there.
            self.units.sort_by_key(|unit| match unit.count {
                0 => i64::MAX,
                _ => samples[unit.first as usize].at,
            });
        }
    }

    /// Whether a series has a sample that is older than one of its before it, in this item or an earlier one.
    fn series_falls(&mut self) -> bool {
        const FREE: (u64, i64) = (0, i64::MIN);
        let slots = (2 * self.items.len()).next_power_of_two();
        self.seen.clear();
        self.seen.resize(slots, FREE);
        for item in &self.items {
            let low = match item.kind {
                Kind::Replicated => item.key.0 as u64 | 1,
                // Nothing is decided by time; its samples are the sender's affair.
                Kind::Single | Kind::Unadmitted | Kind::Invalid | Kind::Waiting => continue,
            };
            let mut slot = low as usize >> 1 & (slots - 1);
            while self.seen[slot] != FREE && self.seen[slot].0 != low {
                slot = (slot + 1) & (slots - 1);
            }
            let newest = &mut self.seen[slot];
            for sample in item.series.samples_of(&self.samples) {
                if newest.0 == low && sample.at < newest.1 {
                    return true;
                }
                *newest = (low, sample.at);
            }
        }
        false
    }
}

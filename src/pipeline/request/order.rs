//! In which order the samples of a request are decided. Refuses to decide any.

use super::{Item, Kind, Request, Unit};

impl Request {
    /// Lists what is decided one after the other: items as they came, unless the times of a series fall. Then each
    /// sample by itself, the oldest first, since Thanos answers 200 and drops one where times fall inside a request.
    pub(super) fn order(&mut self) {
        // Times of different series may fall as they like.
        self.falls = self.falls && self.series_falls();
        let items = (0..).zip(&self.items);
        let whole =
            |(item, of): (u32, &Item)| Unit { item, first: of.series.first_sample, count: of.series.samples };
        if !self.falls {
            self.units.extend(items.map(whole));
        } else {
            for (item, of) in items {
                let Unit { first, count, .. } = whole((item, of));
                if of.kind == Kind::Replicated && count > 0 {
                    self.units.extend((first..first + count).map(|s| Unit { item, first: s, count: 1 }));
                } else {
                    self.units.push(Unit { item, first, count });
                }
            }
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
        for (item, key) in self.items.iter().zip(&self.keys) {
            let low = match item.kind {
                Kind::Replicated => key.0 as u64 | 1,
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

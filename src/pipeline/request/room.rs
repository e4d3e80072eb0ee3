//! What a request takes of memory beyond its body: a body of many small series becomes many times as long.
//!
//! Says how much it is. Refuses to bound it: `memory.rs` does, and `pool.rs`, which keeps its buffers.

use super::{Fate, Item, Request, Unit};
use crate::series::SeriesKey;
use crate::window::Found;
use crate::wire::Span;
use crate::wire::v1::Sample;

impl Request {
    /// What its series and samples take beyond its body.
    pub(in crate::pipeline) fn decoded_bytes(&self) -> usize {
        let per_series = size_of::<Item>() + size_of::<SeriesKey>() + size_of::<Found>() + size_of::<Unit>();
        let per_sample = size_of::<Sample>() + size_of::<Fate>();
        let spans = self.metadata.len() + self.unknown.len();
        self.items.len() * per_series
            + self.samples.len() * per_sample
            + spans * size_of::<Span>()
            + self.label_ends.len() * size_of::<u32>()
            + self.labels.len()
    }

    /// The same, with its body.
    pub(in crate::pipeline) fn bytes(&self) -> usize {
        self.decoded_bytes() + self.body.len()
    }

    /// What its buffers take, whatever is in them.
    pub(in crate::pipeline) fn kept_bytes(&self) -> usize {
        self.body.capacity()
            + self.labels.capacity()
            + self.label_ends.capacity() * size_of::<u32>()
            + self.items.capacity() * size_of::<Item>()
            + self.keys.capacity() * size_of::<SeriesKey>()
            + self.found.capacity() * size_of::<Found>()
            + self.units.capacity() * size_of::<Unit>()
            + self.samples.capacity() * size_of::<Sample>()
            + self.fates.capacity() * size_of::<Fate>()
            + self.seen.capacity() * size_of::<(u64, i64)>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Or requests of many small series would take more than they are admitted for, or less fit than could.
    #[test]
    fn what_it_takes_is_what_its_lists_hold() {
        let sample = Sample { field: Span::default(), at: 0, bits: 0, histogram: false };
        let request = Request {
            items: vec![Item::default(); 3],
            keys: vec![SeriesKey(0); 3],
            found: vec![Found { number: 0, target: 0 }; 3],
            units: vec![Unit { item: 0, first: 0, count: 1 }; 3],
            samples: vec![sample; 11],
            fates: vec![Fate::Pending; 11],
            metadata: vec![Span::default(); 5],
            unknown: vec![Span::default(); 2],
            labels: vec![0; 1_009],
            label_ends: vec![0; 7],
            body: vec![0; 2_003],
            ..Request::default()
        };
        let series = size_of_val(&request.items[..])
            + size_of_val(&request.keys[..])
            + size_of_val(&request.found[..])
            + size_of_val(&request.units[..]);
        let samples = size_of_val(&request.samples[..]) + size_of_val(&request.fates[..]);
        let fields = size_of_val(&request.metadata[..]) + size_of_val(&request.unknown[..]);
        let labels = request.labels.len() + size_of_val(&request.label_ends[..]);
        assert_eq!(request.decoded_bytes(), series + samples + fields + labels);
        assert_eq!(request.bytes(), request.decoded_bytes() + 2_003);
    }

    /// Or a large request would leave its memory with the buffers for ever.
    #[test]
    fn what_it_keeps_is_what_its_lists_have_room_for() {
        assert_eq!(Request::default().kept_bytes(), 0);
        let mut request = Request {
            body: vec![0; 2_003],
            items: Vec::with_capacity(3),
            samples: Vec::with_capacity(5),
            fates: Vec::with_capacity(7),
            units: Vec::with_capacity(11),
            labels: Vec::with_capacity(1_009),
            keys: Vec::with_capacity(13),
            found: Vec::with_capacity(17),
            seen: Vec::with_capacity(19),
            ..Request::default()
        };
        let bytes = 2_003
            + 3 * size_of::<Item>()
            + 5 * size_of::<Sample>()
            + 7 * size_of::<Fate>()
            + 11 * size_of::<Unit>()
            + 1_009
            + 13 * size_of::<SeriesKey>()
            + 17 * size_of::<Found>()
            + 19 * size_of::<(u64, i64)>();
        assert_eq!(request.kept_bytes(), bytes);
        request.body.clear();
        assert_eq!(request.kept_bytes(), bytes);
    }
}

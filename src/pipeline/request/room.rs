//! What a request takes of memory beyond its body: a body of many small series becomes many times as long.
//!
//! Says how much it is. Refuses to bound it: `memory.rs` does, and whoever keeps its buffers.

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
            + self.labels.len()
    }

    /// The same, with its body.
    pub(in crate::pipeline) fn bytes(&self) -> usize {
        self.decoded_bytes() + self.body.len()
    }

    /// Whether the memory of its lists is above `max_bytes`, which is more than a usual request of that length takes.
    pub(in crate::pipeline) fn outgrows(&self, max_bytes: usize) -> bool {
        let items = self.items.capacity() * size_of::<Item>();
        let samples = self.samples.capacity() * size_of::<Sample>();
        items.max(samples).max(self.labels.capacity()) > max_bytes
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
            body: vec![0; 2_003],
            ..Request::default()
        };
        let series = size_of_val(&request.items[..])
            + size_of_val(&request.keys[..])
            + size_of_val(&request.found[..])
            + size_of_val(&request.units[..]);
        let samples = size_of_val(&request.samples[..]) + size_of_val(&request.fates[..]);
        let fields = size_of_val(&request.metadata[..]) + size_of_val(&request.unknown[..]);
        assert_eq!(request.decoded_bytes(), series + samples + fields + request.labels.len());
        assert_eq!(request.bytes(), request.decoded_bytes() + 2_003);
    }

    /// Or one large request would leave its memory with the buffers for ever, or usual ones would give theirs back each time.
    #[test]
    fn one_long_list_is_enough_to_give_the_memory_back() {
        let items = Request { items: Vec::with_capacity(1_000), ..Request::default() };
        let samples = Request { samples: Vec::with_capacity(1_000), ..Request::default() };
        let labels = Request { labels: Vec::with_capacity(1_000), ..Request::default() };
        let longest = [size_of::<Item>(), size_of::<Sample>(), 1].map(|bytes| 1_000 * bytes);
        for (request, bytes) in [items, samples, labels].into_iter().zip(longest) {
            assert_eq!((request.outgrows(bytes - 1), request.outgrows(bytes)), (true, false), "{bytes}");
            assert!(!request.outgrows(bytes + 1), "{bytes}");
        }
        assert!(!Request::default().outgrows(0));
    }
}

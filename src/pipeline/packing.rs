//! The outgoing body while it is written: packed piece by piece, as long as a piece is at hand.
//!
//! Owns the memory for it, which is the thread's and not the request's: who waits for upstream has no use for it, and what is used
//! again at once is still in the cache. Refuses to know what is written.

use super::{Protocol, bodies};
use crate::overhead::{Meter, Stage};
use crate::wire::snappy::Packer;
use crate::wire::v2_out::Composer;
use bytes::Bytes;
use std::cell::Cell;

/// What a longer body has taken is given back to the system.
const RAW_BYTES_MAX: usize = 4 << 20;
/// What a series may become longer by: its key and length, and held samples.
const MARGIN: usize = 256;

thread_local! {
    static TOOLS: Cell<Option<Box<Tools>>> = const { Cell::new(None) };
}

/// A body of which a part has been written.
#[derive(Debug)]
pub(super) struct Packing<'a> {
    tools: Box<Tools>,
    /// What 2.0 is made of has to be there as a whole.
    whole: bool,
    failed: Option<snap::Error>,
    pub(super) meter: &'a mut Meter,
}

#[derive(Debug, Default)]
struct Tools {
    /// What is not packed yet.
    raw: Vec<u8>,
    packer: Packer,
    two: Vec<u8>,
    composer: Composer,
}

/// A body as upstream takes it.
#[derive(Debug)]
pub(super) struct Packed {
    pub(super) body: Bytes,
    /// How long it is unpacked.
    pub(super) raw_bytes: usize,
}

impl<'a> Packing<'a> {
    /// A body that is to leave in that version.
    pub(super) fn begin(upstream: Protocol, meter: &'a mut Meter) -> Self {
        let mut tools = TOOLS.take().unwrap_or_default();
        tools.packer.take(bodies::take);
        Self { tools, whole: upstream == Protocol::Two, failed: None, meter }
    }

    /// Where to write what is about that long, in remote write 1.0.
    #[inline]
    pub(super) fn room(&mut self, bytes: usize) -> &mut Vec<u8> {
        if self.tools.raw.len() + bytes + MARGIN > Packer::PIECE_BYTES && !self.whole {
            self.pack();
        }
        &mut self.tools.raw
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tools.raw.is_empty() && self.tools.packer.raw_bytes() == 0 && self.failed.is_none()
    }

    /// All that was written. `None`: there is nothing in it that 2.0 has a place for.
    pub(super) fn finish(mut self) -> anyhow::Result<Option<Packed>> {
        let Tools { raw, two, composer, .. } = &mut *self.tools;
        if self.whole {
            let lost = composer.compose(raw, two)?;
            if lost > 0 {
                tracing::debug!(
                    exemplars = lost,
                    "2.0 has no place for exemplars without a sample of their series"
                );
            }
            std::mem::swap(raw, two);
        }
        self.pack();
        if let Some(error) = self.failed.take() {
            return Err(error.into());
        }
        if self.is_empty() {
            self.forget();
            return Ok(None);
        }
        let whole = self.tools.packer.finish()?;
        let raw_bytes = whole.raw_bytes;
        self.meter.end(Stage::Compress);
        self.tools.put_away();
        Ok(Some(Packed { body: bodies::send(whole), raw_bytes }))
    }

    /// It does not leave.
    pub(super) fn forget(self) {
        self.tools.put_away();
    }

    #[cold]
    fn pack(&mut self) {
        self.meter.end(Stage::Encode);
        let Tools { raw, packer, .. } = &mut *self.tools;
        if !raw.is_empty()
            && let Err(error) = packer.add(raw)
        {
            self.failed = Some(error);
        }
        raw.clear();
        self.meter.end(Stage::Compress);
    }
}

impl Tools {
    /// For the next body of this thread.
    fn put_away(mut self: Box<Self>) {
        self.packer.clear();
        self.raw.clear();
        self.two.clear();
        if self.raw.capacity().max(self.two.capacity()) > RAW_BYTES_MAX {
            (self.raw, self.two, self.composer) = Default::default();
        }
        TOOLS.set(Some(self));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{Label, Sample, TimeSeries, WriteRequest};
    use crate::wire::snappy;
    use prost::Message as _;

    fn series(nth: usize, labels_bytes: usize) -> Vec<u8> {
        let label = Label { name: "__name__".into(), value: format!("{nth}{}", "x".repeat(labels_bytes)) };
        let samples = vec![Sample { value: nth as f64, timestamp: nth as i64 }];
        let timeseries = vec![TimeSeries { labels: vec![label], samples, ..TimeSeries::default() }];
        WriteRequest { timeseries, ..WriteRequest::default() }.encode_to_vec()
    }

    fn packed(series: &[Vec<u8>], upstream: Protocol) -> Option<Vec<u8>> {
        let mut meter = Meter::default();
        let mut packing = Packing::begin(upstream, &mut meter);
        for series in series {
            packing.room(series.len()).extend_from_slice(series);
        }
        let packed = packing.finish().unwrap()?;
        let mut raw = Vec::new();
        snappy::decompress(&packed.body, usize::MAX, &mut raw).unwrap();
        assert_eq!(packed.raw_bytes, raw.len());
        Some(raw)
    }

    #[test]
    fn a_body_of_many_pieces_is_what_was_written() {
        for (count, labels_bytes) in [(1, 10), (3_000, 200), (3, 2 * Packer::PIECE_BYTES), (700, 10)] {
            let series: Vec<_> = (0..count).map(|nth| series(nth, labels_bytes)).collect();
            assert_eq!(packed(&series, Protocol::One).unwrap(), series.concat(), "{count} of {labels_bytes}");
            let two = crate::proto::v2::Request::decode(&*packed(&series, Protocol::Two).unwrap()).unwrap();
            assert_eq!(two.timeseries.len(), count);
        }
        assert!(packed(&[], Protocol::One).is_none());
        assert!(packed(&[], Protocol::Two).is_none());
    }

    /// Or a long body would be there twice, and nobody else have his turn while all of it is packed.
    #[test]
    fn a_piece_is_packed_as_soon_as_there_may_be_no_room_for_what_comes_next() {
        let mut meter = Meter::default();
        let mut packing = Packing::begin(Protocol::One, &mut meter);
        let piece = Packer::PIECE_BYTES - MARGIN;
        packing.room(piece - 100).extend(vec![7; piece - 100]);
        packing.room(100).extend([7; 100]);
        assert_eq!((packing.tools.raw.len(), packing.tools.packer.raw_bytes()), (piece, 0));
        packing.room(1).push(7);
        assert_eq!((packing.tools.raw.len(), packing.tools.packer.raw_bytes()), (1, piece));
        packing.forget();
    }

    /// Or each thread would keep for ever what the longest of its requests took, or take it anew for each of them.
    #[test]
    fn a_thread_keeps_the_memory_of_a_usual_body_and_gives_that_of_a_long_one_back() {
        for (bytes, kept) in [(4 << 20, true), ((4 << 20) + 1, false)] {
            let mut meter = Meter::default();
            let mut packing = Packing::begin(Protocol::Two, &mut meter);
            (packing.tools.raw, packing.tools.two) = (Vec::with_capacity(bytes), Vec::with_capacity(bytes));
            packing.tools.composer.compose(&series(1, 1), &mut Vec::new()).unwrap();
            packing.forget();
            let tools = Packing::begin(Protocol::Two, &mut meter).tools;
            let capacities = [tools.raw.capacity(), tools.two.capacity()];
            assert_eq!(capacities, if kept { [bytes; 2] } else { [0; 2] });
            assert_eq!(tools.composer.is_new(), !kept);
        }
    }

    /// Or a request that is given up while its body is written would leave with the next one.
    #[test]
    fn what_was_given_up_is_in_no_other_body() {
        let mut meter = Meter::default();
        let mut given_up = Packing::begin(Protocol::One, &mut meter);
        for nth in 0..1_000 {
            let series = series(nth, 200);
            given_up.room(series.len()).extend(series);
        }
        assert!(!given_up.is_empty());
        given_up.forget();
        assert!(Packing::begin(Protocol::One, &mut meter).is_empty());
        assert_eq!(packed(&[series(7, 10)], Protocol::One).unwrap(), series(7, 10));
    }
}

//! Bodies as a Prometheus sends them, printed from stencils: of each form of target and each shard one, compressed once.
//!
//! A chunk is what one shard has of one scrape of one target, or a piece of that. In remote write 1.0 a body is its chunks; in 2.0 the
//! symbols of all forms come first, then the instance of each chunk's target, then the chunks.

mod symbols;

use super::fleet::{Fleet, GROUP_LABEL, INSTANCE_LABEL, REPLICA_LABEL, SeriesShape, group_name};
use super::stencil::{BLANK_BYTES_MAX, Draft, Filling, Stencil, StencilError, block, put_varint};
use crate::wire::Protocol;
use symbols::{Symbols, Table};
use xxhash_rust::xxh3::xxh3_64;

/// Most chunks of one body.
pub(super) const CHUNKS_MAX: usize = 100;
/// The fields of a stencil; beyond these, the value of a series.
const INSTANCE: u32 = 0;
const TIME: u32 = 1;
const REFERENCE: u32 = 2;
const GROUP: u32 = 3;
const VALUE: u32 = 4;
/// Bytes of the `instance` of a target, and of the name of a group.
const INSTANCE_BYTES: u8 = 15;
const GROUP_BYTES: u8 = 11;
/// Bytes of a time in milliseconds, as a varint: from 1971 to 2109.
const TIME_BYTES: u8 = 6;

/// One scrape of one target, or a piece of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) target: usize,
    /// Which scrape of the target.
    pub(super) round: u64,
    pub(super) piece: usize,
    pub(super) at_ms: i64,
    /// The stale markers of the generation before, instead of samples.
    pub(super) ended: bool,
}

/// How the series of a target are dealt out: to shards by their numbers, as in Prometheus, and what a shard has to pieces that fit a
/// request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Deal {
    pub(super) shards: usize,
    pub(super) pieces: usize,
    /// Most series of a piece.
    piece_series: usize,
}

impl Deal {
    pub(super) fn new(fleet: &Fleet, shards: usize, batch: usize) -> Self {
        let shards = shards.clamp(1, fleet.per_target());
        let of_a_shard = fleet.per_target().div_ceil(shards);
        let pieces = of_a_shard.div_ceil(batch.max(1));
        Self { shards, pieces, piece_series: of_a_shard.div_ceil(pieces) }
    }

    pub(super) fn series_of_a_piece(&self) -> usize {
        self.piece_series
    }

    /// Shard and piece of the nth series of a target.
    pub(super) fn place(&self, nth: usize) -> (usize, usize) {
        (nth % self.shards, nth / self.shards / self.piece_series)
    }
}

/// Prints the bodies of one shard of one replica, in any group.
#[derive(Debug)]
pub(super) struct Press {
    /// By form and piece.
    sheets: Vec<Vec<Sheet>>,
    /// The same when the series end; nothing where they do not.
    ends: Vec<Vec<Sheet>>,
    symbols: Option<Symbols>,
}

#[derive(Debug)]
struct Sheet {
    stencil: Stencil,
    /// The series, with their numbers within the target.
    series: Vec<(usize, SeriesShape)>,
}

/// What is filled into a chunk, but times and values.
#[derive(Clone, Copy)]
struct Names {
    instance: Filling,
    group: Filling,
    reference: u64,
}

impl Press {
    pub(super) fn new(
        fleet: &Fleet,
        protocol: Protocol,
        replica: &str,
        shard: usize,
        deal: Deal,
    ) -> Result<Self, StencilError> {
        let mut table = Table::default();
        let forms: Vec<_> = (0..fleet.forms()).map(|form| pieces(fleet.shapes(form), shard, deal)).collect();
        if protocol == Protocol::Two {
            for (_, shape) in forms.iter().flatten().flatten() {
                table.learn(shape, replica);
            }
            table.pad();
        }
        let table = (protocol == Protocol::Two).then_some(table);
        let cut = |series: Vec<(usize, SeriesShape)>| Sheet::cut(series, table.as_ref(), replica);
        let ended = |series: &Vec<(usize, SeriesShape)>| {
            cut(series.iter().map(|(nth, shape)| (*nth, shape.ended())).collect())
        };
        let mut ends = Vec::new();
        if fleet.series_end() {
            for pieces in &forms {
                ends.push(pieces.iter().map(ended).collect::<Result<_, _>>()?);
            }
        }
        let mut sheets = Vec::new();
        for pieces in forms {
            sheets.push(pieces.into_iter().map(cut).collect::<Result<_, _>>()?);
        }
        Ok(Self { sheets, ends, symbols: table.map(|table| table.cut()).transpose()? })
    }

    /// How many samples a chunk has; 0: there is nothing to send.
    pub(super) fn samples(&self, fleet: &Fleet, chunk: &Chunk) -> usize {
        self.sheet(fleet, chunk).map_or(0, |sheet| sheet.series.len())
    }

    fn sheet(&self, fleet: &Fleet, chunk: &Chunk) -> Option<&Sheet> {
        let sheets = if chunk.ended { &self.ends } else { &self.sheets };
        sheets.get(fleet.form(chunk.target))?.get(chunk.piece)
    }

    /// A compressed body of a group with at most [`CHUNKS_MAX`] chunks, and what it decompresses to, in bytes.
    pub(super) fn print(&self, fleet: &Fleet, group: usize, chunks: &[Chunk]) -> (Vec<u8>, usize) {
        let sheets = || chunks.iter().filter_map(|chunk| Some((chunk, self.sheet(fleet, chunk)?)));
        let mut raw_len: usize = sheets().map(|(_, sheet)| sheet.stencil.raw_len()).sum();
        if let Some(symbols) = &self.symbols {
            raw_len += symbols.table.raw_len() + sheets().count() * symbols.instance.raw_len();
        }
        let instance = |chunk: &Chunk| {
            let generation = fleet.generation(group, chunk.target, chunk.round) - u64::from(chunk.ended);
            padded(fleet.instance(chunk.target, generation).as_bytes())
        };
        let group = padded(group_name(group).as_bytes());
        let mut out = block(raw_len);
        out.reserve(raw_len / 4);
        if let Some(symbols) = &self.symbols {
            // The table's only blank is the group.
            symbols.table.print(|_| group, &mut out);
            for (chunk, _) in sheets() {
                let name = instance(chunk);
                symbols.instance.print(|_| name, &mut out);
            }
        }
        let first = self.symbols.as_ref().map_or(0, |symbols| symbols.first);
        for ((chunk, sheet), reference) in sheets().zip(first..) {
            sheet.print(*chunk, Names { instance: instance(chunk), group, reference }, &mut out);
        }
        (out, raw_len)
    }
}

/// What a shard has of a target's series, with their numbers.
fn pieces(shapes: &[SeriesShape], shard: usize, deal: Deal) -> Vec<Vec<(usize, SeriesShape)>> {
    let all: Vec<_> =
        shapes.iter().cloned().enumerate().filter(|(nth, _)| deal.place(*nth).0 == shard).collect();
    all.chunks(deal.piece_series).map(<[_]>::to_vec).collect()
}

impl Sheet {
    /// In 2.0, if there are symbols.
    fn cut(
        series: Vec<(usize, SeriesShape)>,
        table: Option<&Table>,
        replica: &str,
    ) -> Result<Self, StencilError> {
        let mut draft = Draft::default();
        for ((_, shape), value) in series.iter().zip(VALUE..) {
            match table {
                None => put_series(&mut draft, shape, value, replica),
                Some(table) => table.put_series(&mut draft, shape, value, replica),
            }
        }
        Ok(Self { stencil: Stencil::cut(&draft)?, series })
    }

    fn print(&self, chunk: Chunk, names: Names, out: &mut Vec<u8>) {
        let time = varint(chunk.at_ms.cast_unsigned());
        let reference = varint(names.reference);
        self.stencil.print(
            |field| match field {
                INSTANCE => names.instance,
                TIME => time,
                REFERENCE => reference,
                GROUP => names.group,
                value => {
                    let (nth, shape) = &self.series[(value - VALUE) as usize];
                    let value = shape.value(*nth, chunk.target, chunk.round);
                    padded(&value[usize::from(shape.varying.0)..])
                }
            },
            out,
        );
    }
}

/// What of a label is filled in when a body is printed: which field, and how long it is.
fn blank_of(name: &str, value: &str) -> Option<(u32, u8)> {
    match name {
        INSTANCE_LABEL => Some((INSTANCE, INSTANCE_BYTES)),
        GROUP_LABEL if value.is_empty() => Some((GROUP, GROUP_BYTES)),
        _ => None,
    }
}

/// The encoded labels of a series as a receiver should get them, of this instance and group: without a replica label, or with this
/// one.
pub(super) fn labels_hash(
    shape: &SeriesShape,
    [instance, group]: [&str; 2],
    replica: Option<&str>,
    scratch: &mut Vec<u8>,
) -> u64 {
    scratch.clear();
    for (name, value) in with_replica(shape, replica) {
        let value = match blank_of(name, value) {
            Some((INSTANCE, _)) => instance,
            Some(_) => group,
            None => value,
        };
        put_label_head(scratch, name, value.len());
        scratch.extend_from_slice(value.as_bytes());
    }
    xxh3_64(scratch)
}

fn with_replica<'a>(
    shape: &'a SeriesShape,
    replica: Option<&'a str>,
) -> impl Iterator<Item = (&'a str, &'a str)> {
    let before = shape.labels.iter().filter(|(name, _)| name.as_str() < REPLICA_LABEL);
    let after = shape.labels.iter().filter(|(name, _)| name.as_str() > REPLICA_LABEL);
    let own = |(name, value): &'a (String, String)| (name.as_str(), value.as_str());
    before.map(own).chain(replica.map(|replica| (REPLICA_LABEL, replica))).chain(after.map(own))
}

/// One TimeSeries with one sample, in remote write 1.0.
fn put_series(draft: &mut Draft, shape: &SeriesShape, field: u32, replica: &str) {
    let mut inner = Draft::default();
    for (name, value) in with_replica(shape, Some(replica)) {
        let blank = blank_of(name, value);
        put_label_head(&mut inner.raw, name, blank.map_or(value.len(), |(_, len)| usize::from(len)));
        match blank {
            Some((field, len)) => inner.blank(field, len),
            None => inner.put(value.as_bytes()),
        }
    }
    put_sample(&mut inner, shape, field, 0x12);
    put_message(draft, 0x0a, &inner);
}

/// A label up to its value: field 1 of TimeSeries, the name's field 1, the head of the value's field 2.
fn put_label_head(out: &mut Vec<u8>, name: &str, value_len: usize) {
    let mut inner = vec![0x0a];
    put_varint(&mut inner, name.len() as u64);
    inner.extend_from_slice(name.as_bytes());
    inner.push(0x12);
    put_varint(&mut inner, value_len as u64);
    out.push(0x0a);
    put_varint(out, (inner.len() + value_len) as u64);
    out.extend_from_slice(&inner);
}

/// The sample of a series; in both versions it has the value in field 1 and the time in field 2.
fn put_sample(draft: &mut Draft, shape: &SeriesShape, field: u32, tag: u8) {
    let mut inner = Draft::default();
    if f64::from_bits(shape.bits) != 0.0 {
        let bytes = shape.bits.to_le_bytes();
        let (from, len) = (usize::from(shape.varying.0), shape.varying.1);
        inner.put(&[0x09]);
        inner.put(&bytes[..from]);
        if len > 0 {
            inner.blank(field, len);
        }
        inner.put(&bytes[from + usize::from(len)..]);
    }
    inner.put(&[0x10]);
    inner.blank(TIME, TIME_BYTES);
    put_message(draft, tag, &inner);
}

fn put_message(draft: &mut Draft, tag: u8, message: &Draft) {
    draft.put(&[tag]);
    put_varint(&mut draft.raw, message.raw.len() as u64);
    draft.append(message);
}

fn padded(bytes: &[u8]) -> Filling {
    let mut filling = Filling::default();
    let len = bytes.len().min(BLANK_BYTES_MAX);
    filling[..len].copy_from_slice(&bytes[..len]);
    filling
}

fn varint_bytes(value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_varint(&mut bytes, value);
    bytes
}

fn varint(value: u64) -> Filling {
    padded(&varint_bytes(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::load::LoadOptions;
    use crate::proto::{self, v2};
    use prost::Message;

    const AT_MS: i64 = 1_700_000_000_123;

    fn chunks(count: usize) -> Vec<Chunk> {
        (0..count)
            .map(|target| Chunk { target, round: 4, piece: 0, at_ms: AT_MS + target as i64, ended: false })
            .collect()
    }

    fn raw(fleet: &Fleet, protocol: Protocol, shard: usize, shards: usize, count: usize) -> (Vec<u8>, usize) {
        let press =
            Press::new(fleet, protocol, "prometheus-k8s-1", shard, Deal::new(fleet, shards, 2_000)).unwrap();
        let (body, raw_len) = press.print(fleet, 0, &chunks(count));
        let raw = snap::raw::Decoder::new().decompress_vec(&body).unwrap();
        assert_eq!(raw.len(), raw_len);
        (raw, body.len())
    }

    /// What is printed is what prost would write of the series as they were meant.
    #[test]
    fn bodies_of_1_0_are_those_of_prost() {
        let fleet = Fleet::of(3_333);
        for shard in 0..3 {
            let (raw, _) = raw(&fleet, Protocol::One, shard, 3, fleet.targets());
            let mut expect = proto::WriteRequest::default();
            for chunk in chunks(fleet.targets()) {
                for (nth, shape) in
                    fleet.shapes(fleet.form(chunk.target)).iter().enumerate().skip(shard).step_by(3)
                {
                    let value = f64::from_le_bytes(shape.value(nth, chunk.target, 4));
                    let mut labels: Vec<_> = shape
                        .labels
                        .iter()
                        .map(|(name, value)| proto::Label { name: name.clone(), value: value.clone() })
                        .collect();
                    for label in labels.iter_mut().filter(|label| label.name == "instance") {
                        label.value = fleet.instance(chunk.target, 0);
                    }
                    labels.push(proto::Label {
                        name: "prometheus_replica".to_owned(),
                        value: "prometheus-k8s-1".to_owned(),
                    });
                    labels.sort_by(|one, other| one.name.cmp(&other.name));
                    let samples = vec![proto::Sample { value, timestamp: chunk.at_ms }];
                    expect.timeseries.push(proto::TimeSeries { labels, samples, ..Default::default() });
                }
            }
            assert!(raw == expect.encode_to_vec());
        }
    }

    #[test]
    fn bodies_of_2_0_say_the_same_as_those_of_1_0() {
        for series in [60, 3_333] {
            let fleet = Fleet::of(series);
            let (two, _) = raw(&fleet, Protocol::Two, 1, 2, fleet.targets());
            let two = v2::Request::decode(two.as_slice()).unwrap();
            let (one, _) = raw(&fleet, Protocol::One, 1, 2, fleet.targets());
            let one = proto::WriteRequest::decode(one.as_slice()).unwrap();
            assert_eq!(two.symbols[0], "");
            assert_eq!(two.timeseries.len(), one.timeseries.len());
            for (two_of, one_of) in two.timeseries.iter().zip(&one.timeseries) {
                let texts: Vec<_> =
                    two_of.labels_refs.iter().map(|&at| two.symbols[at as usize].as_str()).collect();
                let pairs =
                    one_of.labels.iter().flat_map(|label| [label.name.as_str(), label.value.as_str()]);
                assert_eq!(texts, pairs.collect::<Vec<_>>());
                assert_eq!(two_of.samples[0].value.to_bits(), one_of.samples[0].value.to_bits());
                assert_eq!(two_of.samples[0].timestamp, one_of.samples[0].timestamp);
            }
        }
    }

    /// Of several groups, of targets that have been replaced, piece by piece, and their ends: each says whose it is.
    #[test]
    fn bodies_of_groups_and_generations_name_them() {
        let interval = std::time::Duration::from_secs(15);
        let options =
            LoadOptions { series: 120, groups: 3, batch: 10, churn: 20, interval, ..LoadOptions::to("") };
        let fleet = Fleet::new(&options).unwrap();
        let deal = Deal::new(&fleet, 1, options.batch);
        let round = (1..).find(|round| fleet.generation(2, 1, *round) == 2).unwrap();
        let chunk = Chunk { target: 1, round, piece: 0, at_ms: AT_MS, ended: false };
        let body = |protocol, chunk: Chunk| {
            let press = Press::new(&fleet, protocol, "a", 0, deal).unwrap();
            let (body, raw_len) = press.print(&fleet, 2, &[chunk, Chunk { target: 0, ..chunk }]);
            let raw = snap::raw::Decoder::new().decompress_vec(&body).unwrap();
            assert_eq!(raw.len(), raw_len);
            raw
        };
        for (ended, generation) in [(false, 2), (true, 1)] {
            let one = body(Protocol::One, Chunk { ended, ..chunk });
            let one = proto::WriteRequest::decode(one.as_slice()).unwrap();
            let two = body(Protocol::Two, Chunk { ended, ..chunk });
            let two = v2::Request::decode(two.as_slice()).unwrap();
            assert_eq!((one.timeseries.len(), two.timeseries.len()), (20, 20));
            let symbols = two.symbols;
            for (nth, (one, two)) in one.timeseries.iter().zip(&two.timeseries).enumerate() {
                let of = |name: &str| {
                    one.labels.iter().find(|label| label.name == name).map(|label| label.value.as_str())
                };
                assert_eq!(of("cluster"), Some("group-00002"));
                if nth < 10 {
                    assert_eq!(of("instance"), Some(fleet.instance(1, generation).as_str()));
                }
                let is_end = one.samples[0].value.to_bits() == crate::stand_in::STALE_MARKER_BITS;
                assert_eq!(is_end, ended);
                assert_eq!(one.samples[0].value.to_bits(), two.samples[0].value.to_bits());
                let texts = two.labels_refs.iter().map(|&at| symbols[at as usize].as_str());
                let pairs = one.labels.iter().flat_map(|label| [label.name.as_str(), label.value.as_str()]);
                assert_eq!(texts.collect::<Vec<_>>(), pairs.collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn pieces_are_no_more_than_a_request_and_have_all_series_once() {
        let fleet = Fleet::of(3_333);
        for (shards, batch) in [(1, 10), (3, 100), (4, 2_000), (7, 33)] {
            let deal = Deal::new(&fleet, shards, batch);
            for form in 0..fleet.forms() {
                let mut met = Vec::new();
                for shard in 0..shards {
                    for (piece, series) in pieces(fleet.shapes(form), shard, deal).iter().enumerate() {
                        assert!(series.len() <= batch && piece < deal.pieces);
                        assert!(series.iter().all(|(nth, _)| deal.place(*nth) == (shard, piece)));
                        met.extend(series.iter().map(|(nth, _)| *nth));
                    }
                }
                met.sort_unstable();
                assert_eq!(met, (0..fleet.shapes(form).len()).collect::<Vec<_>>());
            }
        }
    }

    /// The corpus' full batches have 298 bytes raw and 31 compressed an item.
    #[test]
    fn bodies_are_as_long_as_real_ones() {
        let fleet = Fleet::of(200_000);
        let (raw, packed) = raw(&fleet, Protocol::One, 0, 4, 10);
        let samples = 2_000;
        assert!((270..=330).contains(&(raw.len() / samples)), "{} raw", raw.len() / samples);
        assert!((27..=36).contains(&(packed / samples)), "{} compressed", packed / samples);
    }

    #[test]
    fn hashes_are_of_what_is_in_the_body() {
        let fleet = Fleet::of(40);
        let (raw, _) = raw(&fleet, Protocol::One, 0, 1, 1);
        let first = proto::WriteRequest::decode(raw.as_slice()).unwrap().timeseries.remove(0);
        let labels_only = proto::TimeSeries { labels: first.labels, ..Default::default() }.encode_to_vec();
        let hash = labels_hash(
            &fleet.shapes(0)[0],
            [&fleet.instance(0, 0), "none"],
            Some("prometheus-k8s-1"),
            &mut Vec::new(),
        );
        assert_eq!(hash, xxh3_64(&labels_only));
    }
}

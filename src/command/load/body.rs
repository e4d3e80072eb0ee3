//! Bodies as a Prometheus sends them, printed from stencils: of each form of target and each shard one, compressed once.
//!
//! A chunk is what one shard has of one scrape of one target. In remote write 1.0 a body is its chunks; in 2.0 the symbols of all
//! forms come first, then the instance of each chunk's target, then the chunks.

use super::fleet::{Fleet, INSTANCE_LABEL, REPLICA_LABEL, SeriesShape, instance};
use super::stencil::{BLANK_BYTES_MAX, Draft, Filling, Stencil, StencilError, block, put_varint};
use crate::wire::Protocol;
use std::collections::HashMap;
use xxhash_rust::xxh3::xxh3_64;

/// Most chunks of one body.
pub(super) const CHUNKS_MAX: usize = 100;
/// The fields of a stencil; beyond these, the value of a series.
const INSTANCE: u32 = 0;
const TIME: u32 = 1;
const REFERENCE: u32 = 2;
const VALUE: u32 = 3;
/// Bytes of a time in milliseconds, as a varint: from 1971 to 2109.
const TIME_BYTES: u8 = 6;

/// One scrape of one target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) target: usize,
    /// Which scrape of the target.
    pub(super) round: u64,
    pub(super) at_ms: i64,
}

/// Prints the bodies of one shard of one replica.
#[derive(Debug)]
pub(super) struct Press {
    /// By form.
    sheets: Vec<Sheet>,
    symbols: Option<Symbols>,
}

#[derive(Debug)]
struct Sheet {
    stencil: Stencil,
    /// The shard's series, with their numbers within the target.
    series: Vec<(usize, SeriesShape)>,
}

/// The table of 2.0, but for the instances.
#[derive(Debug)]
struct Symbols {
    table: Stencil,
    instance: Stencil,
    /// Reference of the first instance.
    first: u64,
}

impl Press {
    pub(super) fn new(
        fleet: &Fleet,
        protocol: Protocol,
        replica: &str,
        shard: usize,
        shards: usize,
    ) -> Result<Self, StencilError> {
        let mut table = Table::default();
        let forms: Vec<_> = (0..fleet.forms())
            .map(|form| {
                // As in Prometheus, by the number of the series.
                let all = fleet.shapes(form).iter().cloned().enumerate();
                all.skip(shard).step_by(shards.max(1)).collect::<Vec<_>>()
            })
            .collect();
        if protocol == Protocol::Two {
            for (_, shape) in forms.iter().flatten() {
                table.learn(shape, replica);
            }
            table.pad();
        }
        let mut sheets = Vec::new();
        for series in forms {
            let mut draft = Draft::default();
            for ((_, shape), value) in series.iter().zip(VALUE..) {
                match protocol {
                    Protocol::One => put_series(&mut draft, shape, value, replica),
                    Protocol::Two => table.put_series(&mut draft, shape, value, replica),
                }
            }
            sheets.push(Sheet { stencil: Stencil::cut(&draft)?, series });
        }
        let symbols = if protocol == Protocol::Two { Some(table.cut()?) } else { None };
        Ok(Self { sheets, symbols })
    }

    /// How many samples a chunk of this form has; 0: there is nothing to send.
    pub(super) fn samples(&self, form: usize) -> usize {
        self.sheets[form].series.len()
    }

    /// A compressed body of at most [`CHUNKS_MAX`] chunks, and what it decompresses to, in bytes.
    pub(super) fn print(&self, fleet: &Fleet, chunks: &[Chunk]) -> (Vec<u8>, usize) {
        let forms = || chunks.iter().map(|chunk| &self.sheets[fleet.form(chunk.target)]);
        let mut raw_len: usize = forms().map(|sheet| sheet.stencil.raw_len()).sum();
        if let Some(symbols) = &self.symbols {
            raw_len += symbols.table.raw_len() + chunks.len() * symbols.instance.raw_len();
        }
        let mut out = block(raw_len);
        out.reserve(raw_len / 4);
        if let Some(symbols) = &self.symbols {
            symbols.table.print(|_| Filling::default(), &mut out);
            for chunk in chunks {
                let name = padded(instance(chunk.target).as_bytes());
                symbols.instance.print(|_| name, &mut out);
            }
        }
        for ((chunk, sheet), slot) in chunks.iter().zip(forms()).zip(0..) {
            sheet.print(*chunk, self.symbols.as_ref().map_or(0, |symbols| symbols.first + slot), &mut out);
        }
        (out, raw_len)
    }
}

impl Sheet {
    fn print(&self, chunk: Chunk, reference: u64, out: &mut Vec<u8>) {
        let instance = padded(instance(chunk.target).as_bytes());
        let time = varint(chunk.at_ms.cast_unsigned());
        let reference = varint(reference);
        self.stencil.print(
            |field| match field {
                INSTANCE => instance,
                TIME => time,
                REFERENCE => reference,
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

/// The encoded labels of a series as a receiver should get them: without a replica label, or with this one.
pub(super) fn labels_hash(
    shape: &SeriesShape,
    target: usize,
    replica: Option<&str>,
    scratch: &mut Vec<u8>,
) -> u64 {
    scratch.clear();
    let instance = instance(target);
    for (name, value) in with_replica(shape, replica) {
        let value = if name == INSTANCE_LABEL { instance.as_str() } else { value };
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
        let is_instance = name == INSTANCE_LABEL;
        let len = if is_instance { instance(0).len() } else { value.len() };
        put_label_head(&mut inner.raw, name, len);
        match is_instance {
            true => inner.blank(INSTANCE, len as u8),
            false => inner.put(value.as_bytes()),
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

/// The symbols of 2.0: the empty one, those of all series, then the instances.
#[derive(Debug)]
struct Table {
    symbols: Vec<String>,
    numbers: HashMap<String, u64>,
}

impl Default for Table {
    fn default() -> Self {
        Self { symbols: vec![String::new()], numbers: HashMap::new() }
    }
}

impl Table {
    fn learn(&mut self, shape: &SeriesShape, replica: &str) {
        for (name, value) in with_replica(shape, Some(replica)) {
            self.learn_one(name);
            if name != INSTANCE_LABEL {
                self.learn_one(value);
            }
        }
    }

    fn learn_one(&mut self, symbol: &str) {
        if !self.numbers.contains_key(symbol) {
            self.numbers.insert(symbol.to_owned(), self.symbols.len() as u64);
            self.symbols.push(symbol.to_owned());
        }
    }

    /// The references of all instances have to be of one length. Of small targets there may be too few symbols before them.
    fn pad(&mut self) {
        if self.symbols.len() + CHUNKS_MAX > 128 {
            while self.symbols.len() < 128 {
                self.learn_one(&format!("unused-{}", self.symbols.len()));
            }
        }
    }

    fn put_series(&self, draft: &mut Draft, shape: &SeriesShape, field: u32, replica: &str) {
        let reference = |symbol: &str| varint_bytes(self.numbers.get(symbol).copied().unwrap_or(0));
        let mut references = Draft::default();
        for (name, value) in with_replica(shape, Some(replica)) {
            references.put(&reference(name));
            match name == INSTANCE_LABEL {
                true => references.blank(REFERENCE, varint_bytes(self.symbols.len() as u64).len() as u8),
                false => references.put(&reference(value)),
            }
        }
        let mut inner = Draft::default();
        put_message(&mut inner, 0x0a, &references);
        put_sample(&mut inner, shape, field, 0x12);
        // The type, as Prometheus sends it: counters by their names, the rest is a gauge here.
        let name = shape.labels.first().map_or("", |(_, value)| value.as_str());
        let counter = ["_total", "_bucket", "_count", "_sum"].iter().any(|end| name.ends_with(end));
        inner.put(&[0x2a, 2, 0x08, if counter { 1 } else { 2 }]);
        put_message(draft, 0x2a, &inner);
    }

    fn cut(&self) -> Result<Symbols, StencilError> {
        let mut table = Draft::default();
        for symbol in &self.symbols {
            table.put(&[0x22]);
            put_varint(&mut table.raw, symbol.len() as u64);
            table.put(symbol.as_bytes());
        }
        let mut one = Draft::default();
        let len = instance(0).len() as u8;
        one.put(&[0x22, len]);
        one.blank(INSTANCE, len);
        let first = self.symbols.len() as u64;
        Ok(Symbols { table: Stencil::cut(&table)?, instance: Stencil::cut(&one)?, first })
    }
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
    use crate::proto::{self, v2};
    use prost::Message;

    const AT_MS: i64 = 1_700_000_000_123;

    fn chunks(count: usize) -> Vec<Chunk> {
        (0..count).map(|target| Chunk { target, round: 4, at_ms: AT_MS + target as i64 }).collect()
    }

    fn raw(fleet: &Fleet, protocol: Protocol, shard: usize, shards: usize, count: usize) -> (Vec<u8>, usize) {
        let press = Press::new(fleet, protocol, "prometheus-k8s-1", shard, shards).unwrap();
        let (body, raw_len) = press.print(fleet, &chunks(count));
        let raw = snap::raw::Decoder::new().decompress_vec(&body).unwrap();
        assert_eq!(raw.len(), raw_len);
        (raw, body.len())
    }

    /// What is printed is what prost would write of the series as they were meant.
    #[test]
    fn bodies_of_1_0_are_those_of_prost() {
        let fleet = Fleet::new(3_333).unwrap();
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
                        label.value = instance(chunk.target);
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
            let fleet = Fleet::new(series).unwrap();
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

    /// The corpus' full batches have 298 bytes raw and 31 compressed an item.
    #[test]
    fn bodies_are_as_long_as_real_ones() {
        let fleet = Fleet::new(200_000).unwrap();
        let (raw, packed) = raw(&fleet, Protocol::One, 0, 4, 10);
        let samples = 2_000;
        assert!((270..=330).contains(&(raw.len() / samples)), "{} raw", raw.len() / samples);
        assert!((27..=36).contains(&(packed / samples)), "{} compressed", packed / samples);
    }

    #[test]
    fn hashes_are_of_what_is_in_the_body() {
        let fleet = Fleet::new(40).unwrap();
        let (raw, _) = raw(&fleet, Protocol::One, 0, 1, 1);
        let first = proto::WriteRequest::decode(raw.as_slice()).unwrap().timeseries.remove(0);
        let labels_only = proto::TimeSeries { labels: first.labels, ..Default::default() }.encode_to_vec();
        let hash = labels_hash(&fleet.shapes(0)[0], 0, Some("prometheus-k8s-1"), &mut Vec::new());
        assert_eq!(hash, xxh3_64(&labels_only));
    }
}

//! What the sink keeps: of each series when its first and last sample was, how many, and the widest distance between two. 51 to 71
//! bytes a series, so that a million of them are checked beside the proxy that is being measured.
//!
//! It has an encoding of its own, like the other stand-ins, and one rule of the TSDB: a sample that is older than the newest of its
//! series is refused.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use xxhash_rust::xxh3::xxh3_64;

/// Most wide distances that are remembered with both ends; beyond them lost samples are not told from others.
const GAPS_MAX: usize = 1_000_000;

/// A body that is no remote write.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a remote-write body: {0}")]
pub(super) struct Unreadable(pub(super) &'static str);

/// One series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) first_ms: i64,
    pub(super) last_ms: i64,
    /// From its second distance on.
    pub(super) widest_ms: u32,
    pub(super) samples: u32,
    series: u64,
}

/// Two neighbours that are far apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) series: u64,
    pub(super) after_ms: i64,
    pub(super) until_ms: i64,
}

/// Counted over all series.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) samples: u64,
    /// Older than the newest of their series: refused.
    pub(super) out_of_order: u64,
    /// As old as the newest of their series: sent twice.
    pub(super) repeated: u64,
    /// Distances of more than the bound, from the second of a series on.
    pub(super) holes: u64,
    pub(super) unremembered: u64,
}

/// All series by a hash of their encoded labels.
#[derive(Debug)]
pub(super) struct Store {
    /// In the order in which they came first: senders keep to it, and so the next row is mostly that behind the last one.
    rows: Vec<Row>,
    /// Where each is.
    places: HashMap<u64, usize, BuildHasherDefault<AsItIs>>,
    /// Behind the row of the last sample.
    next: usize,
    gaps: Vec<Gap>,
    totals: Totals,
    /// Wider distances are holes.
    hole_ms: i64,
    /// Wider ones may have swallowed samples that were acknowledged.
    gap_ms: i64,
    /// Of a body of 2.0, its symbols and the labels of one series as in 1.0.
    symbols: Vec<(usize, usize)>,
    labels: Vec<u8>,
    /// The samples of a body, each with its series.
    noted: Vec<(u64, i64)>,
}

impl Store {
    pub(super) fn new(series: usize, hole_ms: i64, gap_ms: i64) -> Self {
        // In advance: to grow would stop the answers for as long as it takes.
        let rows = Vec::with_capacity(series);
        let places = HashMap::with_capacity_and_hasher(series, BuildHasherDefault::default());
        let (totals, gaps) = (Totals::default(), Vec::new());
        let (symbols, labels, noted) = (Vec::new(), Vec::new(), Vec::new());
        Self { rows, places, next: 0, gaps, totals, hole_ms, gap_ms, symbols, labels, noted }
    }

    pub(super) fn totals(&self) -> Totals {
        self.totals
    }

    pub(super) fn series(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn row(&self, series: u64) -> Option<Row> {
        self.places.get(&series).map(|&place| self.rows[place])
    }

    pub(super) fn widest_ms(&self) -> u32 {
        self.rows.iter().map(|row| row.widest_ms).max().unwrap_or(0)
    }

    pub(super) fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    /// Stores a decompressed body, or nothing of it. Says how many samples it had, and how many of them were out of order.
    pub(super) fn append(&mut self, raw: &[u8], two: bool) -> Result<(u64, u64), Unreadable> {
        let before = self.totals;
        let mut noted = std::mem::take(&mut self.noted);
        noted.clear();
        let read = if two { self.read_two(raw, &mut noted) } else { read_one(raw, &mut noted) };
        if read.is_ok() {
            noted.iter().for_each(|&(series, at_ms)| self.note(series, at_ms));
        }
        let count = noted.len() as u64;
        self.noted = noted;
        read.map(|()| (count, self.totals.out_of_order - before.out_of_order))
    }

    fn read_two(&mut self, raw: &[u8], noted: &mut Vec<(u64, i64)>) -> Result<(), Unreadable> {
        self.symbols.clear();
        let mut at = 0;
        while let Some(field) = field(raw, &mut at)? {
            match (field.number, field.bytes) {
                (4, Some(bytes)) => self.symbols.push(bytes),
                (5, Some(bytes)) => series_of_two(raw, bytes, &self.symbols, &mut self.labels, noted)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// The place of a series' row, which is made if it is not there.
    fn place_of(&mut self, series: u64, at_ms: i64) -> usize {
        let place = if self.rows.get(self.next).is_some_and(|row| row.series == series) {
            self.next
        } else {
            let end = self.rows.len();
            let place = *self.places.entry(series).or_insert(end);
            if place == end {
                self.rows.push(Row { first_ms: at_ms, last_ms: at_ms, widest_ms: 0, samples: 0, series });
            }
            place
        };
        self.next = place + 1;
        place
    }

    fn note(&mut self, series: u64, at_ms: i64) {
        let place = self.place_of(series, at_ms);
        let row = &mut self.rows[place];
        if row.samples > 0 {
            let apart_ms = at_ms - row.last_ms;
            match apart_ms {
                ..0 => {
                    self.totals.out_of_order += 1;
                    return;
                }
                0 => {
                    self.totals.repeated += 1;
                    return;
                }
                _ => {}
            }
            if row.samples > 1 {
                row.widest_ms = row.widest_ms.max(u32::try_from(apart_ms).unwrap_or(u32::MAX));
                self.totals.holes += u64::from(apart_ms > self.hole_ms);
            }
            if apart_ms > self.gap_ms {
                if self.gaps.len() < GAPS_MAX {
                    self.gaps.push(Gap { series, after_ms: row.last_ms, until_ms: at_ms });
                } else {
                    self.totals.unremembered += 1;
                }
            }
        }
        row.last_ms = at_ms;
        row.samples = row.samples.saturating_add(1);
        self.totals.samples += 1;
    }
}

fn read_one(raw: &[u8], noted: &mut Vec<(u64, i64)>) -> Result<(), Unreadable> {
    let mut at = 0;
    while let Some(field) = field(raw, &mut at)? {
        if let (1, Some((from, to))) = (field.number, field.bytes) {
            series_of_one(&raw[..to], from, noted)?;
        }
    }
    Ok(())
}

fn series_of_one(raw: &[u8], labels: usize, noted: &mut Vec<(u64, i64)>) -> Result<(), Unreadable> {
    let (mut at, mut labels_end) = (labels, labels);
    let mut series = None;
    while let Some(field) = field(raw, &mut at)? {
        match (field.number, field.bytes) {
            (1, Some(_)) if series.is_none() => labels_end = at,
            (1, _) => return Err(Unreadable("labels behind samples")),
            (2, Some((from, to))) => {
                let series = *series.get_or_insert_with(|| xxh3_64(&raw[labels..labels_end]));
                noted.push((series, time_of(&raw[..to], from)?));
            }
            _ => {}
        }
    }
    Ok(())
}

fn series_of_two(
    raw: &[u8],
    (from, to): (usize, usize),
    symbols: &[(usize, usize)],
    labels: &mut Vec<u8>,
    noted: &mut Vec<(u64, i64)>,
) -> Result<(), Unreadable> {
    let raw_of = |reference: u64| {
        let symbol = usize::try_from(reference).ok().and_then(|at| symbols.get(at));
        symbol.map(|&(from, to)| &raw[from..to]).ok_or(Unreadable("a reference beyond the symbols"))
    };
    labels.clear();
    let (mut at, mut series) = (from, None);
    while let Some(field) = field(&raw[..to], &mut at)? {
        match (field.number, field.bytes) {
            (1, Some((mut from, to))) => {
                while from < to {
                    let name = raw_of(varint(&raw[..to], &mut from)?)?;
                    put_label(labels, name, raw_of(varint(&raw[..to], &mut from)?)?);
                }
            }
            (2, Some((from, to))) => {
                let series = *series.get_or_insert_with(|| xxh3_64(labels));
                noted.push((series, time_of(&raw[..to], from)?));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Hashes are spread already.
#[derive(Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64(bytes);
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

struct Field {
    number: u64,
    /// Where its bytes begin and end, if it has a length.
    bytes: Option<(usize, usize)>,
    /// What it holds, if it is a varint.
    value: u64,
}

/// The field at `at`, which is moved behind it.
#[inline(always)]
fn field(raw: &[u8], at: &mut usize) -> Result<Option<Field>, Unreadable> {
    if *at >= raw.len() {
        return Ok(None);
    }
    let key = varint(raw, at)?;
    let mut field = Field { number: key >> 3, bytes: None, value: 0 };
    let skipped = match key & 7 {
        0 => {
            field.value = varint(raw, at)?;
            0
        }
        1 => 8,
        2 => {
            let len = usize::try_from(varint(raw, at)?).map_err(|_| Unreadable("a length"))?;
            field.bytes = Some((*at, at.saturating_add(len)));
            len
        }
        5 => 4,
        _ => return Err(Unreadable("a wire type")),
    };
    *at = at.saturating_add(skipped);
    if *at > raw.len() {
        return Err(Unreadable("a field that is longer than the body"));
    }
    Ok(Some(field))
}

#[inline(always)]
fn varint(raw: &[u8], at: &mut usize) -> Result<u64, Unreadable> {
    match raw.get(*at) {
        Some(&byte) if byte < 0x80 => {
            *at += 1;
            Ok(byte.into())
        }
        _ => long_varint(raw, at),
    }
}

fn long_varint(raw: &[u8], at: &mut usize) -> Result<u64, Unreadable> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *raw.get(*at).ok_or(Unreadable("a varint without an end"))?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Unreadable("a varint of more than ten bytes"))
}

/// The time of a sample: field 2 in both versions.
fn time_of(raw: &[u8], from: usize) -> Result<i64, Unreadable> {
    let (mut at, mut time) = (from, 0);
    while let Some(field) = field(raw, &mut at)? {
        if field.number == 2 && field.bytes.is_none() {
            time = field.value;
        }
    }
    Ok(time.cast_signed())
}

/// A label as a TimeSeries of 1.0 has it.
fn put_label(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    let message = 2 + varint_len(name.len()) + name.len() + varint_len(value.len()) + value.len();
    put_head(out, 0x0a, message);
    put_head(out, 0x0a, name.len());
    out.extend_from_slice(name);
    put_head(out, 0x12, value.len());
    out.extend_from_slice(value);
}

fn put_head(out: &mut Vec<u8>, tag: u8, mut len: usize) {
    out.push(tag);
    while len >= 0x80 {
        out.push((len & 0x7f) as u8 | 0x80);
        len >>= 7;
    }
    out.push(len as u8);
}

fn varint_len(len: usize) -> usize {
    (usize::BITS - (len | 1).leading_zeros()).div_ceil(7) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::load::body::{Chunk, Deal, Press, labels_hash};
    use crate::command::load::fleet::Fleet;
    use crate::stand_in::request::Body;
    use crate::wire::Protocol;

    fn stored(times: &[i64]) -> Store {
        let mut store = Store::new(1, 15_300, 60_000);
        for &at in times {
            store.append(&Body::new().series(&[("__name__", "up")], &[(at, 1.0)]).encoded(), false).unwrap();
        }
        store
    }

    #[test]
    fn distances_are_judged() {
        let check = |times: &[i64], expect: Totals, widest_ms, gaps| {
            let store = stored(times);
            assert_eq!(store.totals(), expect, "{times:?}");
            assert_eq!((store.widest_ms(), store.gaps().len()), (widest_ms, gaps), "{times:?}");
        };
        let totals = |samples| Totals { samples, ..Totals::default() };
        check(&[1_000, 16_000, 31_000], totals(3), 15_000, 0);
        // The first distance says nothing, unless samples could have been lost in it.
        check(&[1_000, 22_000], totals(2), 0, 0);
        check(&[1_000, 62_000], totals(2), 0, 1);
        check(&[1_000, 16_000, 32_000], Totals { holes: 1, ..totals(3) }, 16_000, 0);
        check(&[1_000, 16_000, 16_000, 15_999], Totals { repeated: 1, out_of_order: 1, ..totals(2) }, 0, 0);
    }

    #[test]
    fn a_series_is_the_same_in_both_versions_and_in_the_verdict() {
        let fleet = Fleet::of(1_000);
        let chunks = [Chunk { target: 1, round: 0, piece: 0, at_ms: 1_700_000_000_000, ended: false }];
        for protocol in [Protocol::One, Protocol::Two] {
            let press = Press::new(&fleet, protocol, "a", 0, Deal::new(&fleet, 1, 2_000)).unwrap();
            let (body, _) = press.print(&fleet, 0, &chunks);
            let raw = snap::raw::Decoder::new().decompress_vec(&body).unwrap();
            let mut store = Store::new(1_000, 1, 1);
            let shapes = fleet.shapes(fleet.form(1));
            assert_eq!(store.append(&raw, protocol == Protocol::Two), Ok((shapes.len() as u64, 0)));
            assert_eq!(store.series(), shapes.len());
            let instance = fleet.instance(1, 0);
            let names = [instance.as_str(), ""];
            for shape in shapes {
                let row = store.row(labels_hash(shape, names, Some("a"), &mut Vec::new())).unwrap();
                assert_eq!((row.samples, row.last_ms), (1, chunks[0].at_ms));
                assert_eq!(store.row(labels_hash(shape, names, None, &mut Vec::new())), None);
            }
        }
    }

    #[test]
    fn series_are_told_apart_in_whatever_order_they_come() {
        let mut store = Store::new(3, 15_300, 60_000);
        let rounds: [&[&str]; 3] = [&["a", "b", "c"], &["c", "a", "b"], &["b", "a"]];
        for (round, names) in (1..).zip(rounds) {
            let series =
                |body: Body, name: &&str| body.series(&[("__name__", name)], &[(round * 15_000, 1.0)]);
            let body = names.iter().fold(Body::new(), series);
            assert_eq!(store.append(&body.encoded(), false), Ok((names.len() as u64, 0)));
        }
        // In the order in which they came first.
        let times: Vec<_> = store.rows.iter().map(|row| (row.samples, row.last_ms)).collect();
        assert_eq!(times, [(3, 45_000), (3, 45_000), (2, 30_000)]);
    }

    #[test]
    fn what_is_no_body_is_refused() {
        for raw in [&[0x0a][..], &[0x0a, 5, 1], &[0x0f], &[0x0a, 4, 0x12, 9, 1, 1]] {
            assert!(stored(&[]).append(raw, false).is_err(), "{raw:?}");
        }
        // Also not what could be read before.
        let mut store = stored(&[]);
        let mut raw = Body::new().series(&[("__name__", "up")], &[(1_000, 1.0)]).encoded();
        raw.push(0x0f);
        assert!(store.append(&raw, false).is_err());
        assert_eq!((store.totals(), store.series()), (Totals::default(), 0));
        // A reference beyond the symbols.
        assert!(stored(&[]).append(&[0x2a, 4, 0x0a, 2, 1, 1], true).is_err());
    }
}

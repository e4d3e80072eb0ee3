//! The codec floor: what no proxy of this kind can do without, in nanoseconds a sample, measured on given bodies on this machine.
//!
//! Decompress, walk to the replica label, hash around it, touch one line of memory among many, and, of what is forwarded, copy without
//! the replica label and compress. The walk is the shortest that does it and checks nothing: a slow walk of the proxy's own would
//! raise the floor it is compared with. Of remote write 2.0 it writes the labels that are hashed and forwarded (`two.rs`). Owns no
//! product code but the crates that the product uses.

mod two;

use crate::wire::Protocol;
use std::hint::black_box;
use std::time::Instant;
use xxhash_rust::xxh3::xxh3_128;

/// The best of so many runs counts: the machine does other things, too.
const RUNS: usize = 7;
/// Lines of the table that is touched, 64 bytes each.
const LINES: usize = 1 << 20;
/// How far apart two lines are that are touched one after the other for the same key: odd, so that it is all of them in turn.
const FAR: usize = 0x9_e377;
const REPLICA_LABEL: &[u8] = b"prometheus_replica";

/// Nanoseconds a sample, stage by stage.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Floor {
    /// Of each sample.
    pub decompress_ns: f64,
    /// Of each sample; of 2.0 with writing its labels.
    pub walk_ns: f64,
    /// Of each sample.
    pub hash_ns: f64,
    /// Of each sample.
    pub touch_ns: f64,
    /// Of a forwarded sample.
    pub copy_ns: f64,
    /// Of a forwarded sample.
    pub compress_ns: f64,
}

impl Floor {
    /// Per input sample, when one of so many replicas is forwarded.
    #[must_use]
    pub fn of_replicas(&self, replicas: usize) -> f64 {
        let every = self.decompress_ns + self.walk_ns + self.hash_ns + self.touch_ns;
        every + (self.copy_ns + self.compress_ns) / replicas.max(1) as f64
    }

    /// Of each stage what it took when it took less: of what has been measured twice.
    #[must_use]
    pub fn least(&self, other: &Self) -> Self {
        let Self { decompress_ns, walk_ns, hash_ns, touch_ns, copy_ns, compress_ns } = other;
        Self {
            decompress_ns: self.decompress_ns.min(*decompress_ns),
            walk_ns: self.walk_ns.min(*walk_ns),
            hash_ns: self.hash_ns.min(*hash_ns),
            touch_ns: self.touch_ns.min(*touch_ns),
            copy_ns: self.copy_ns.min(*copy_ns),
            compress_ns: self.compress_ns.min(*compress_ns),
        }
    }
}

/// Bodies that the floor cannot be measured on.
#[derive(Debug, thiserror::Error)]
pub enum NoFloor {
    /// They are no snappy blocks.
    #[error("not a snappy block: {0}")]
    Snappy(#[from] snap::Error),
    /// They are not what a Prometheus sends in that version.
    #[error("body {nth} is no remote write {protocol} of a replica")]
    Body {
        /// Which one.
        nth: usize,
        /// In which version.
        protocol: &'static str,
    },
}

/// Where things are in one series.
#[derive(Clone, Copy)]
struct Cut {
    /// The first label.
    start: usize,
    /// The replica label's field.
    replica: (usize, usize),
    /// Where samples begin.
    labels_end: usize,
    end: usize,
}

#[repr(align(64))]
#[derive(Clone)]
struct Line([u64; 8]);

/// What is decompressed, the same in 1.0, and where things are in that.
type Walked = (Vec<Vec<u8>>, Vec<Vec<u8>>, Vec<Vec<Cut>>);

fn walk_all(bodies: &[Vec<u8>], protocol: Protocol) -> Result<Walked, NoFloor> {
    let (mut unpacked, mut raws, mut cuts) = (Vec::new(), Vec::new(), Vec::new());
    let mut labels = two::Labels::new();
    for (nth, body) in bodies.iter().enumerate() {
        let raw = snap::raw::Decoder::new().decompress_vec(body)?;
        let (mut written, mut series) = (Vec::new(), Vec::new());
        let walked = match protocol {
            Protocol::One => {
                written.clone_from(&raw);
                walk(&raw, &mut series)
            }
            Protocol::Two => labels.write(&raw, &mut written, &mut series),
        };
        let protocol = if protocol == Protocol::Two { "2.0" } else { "1.0" };
        walked.filter(|()| !series.is_empty()).ok_or(NoFloor::Body { nth, protocol })?;
        unpacked.push(raw);
        raws.push(written);
        cuts.push(series);
    }
    Ok((unpacked, raws, cuts))
}

/// Measures on bodies with replica labels, as they travel. What is forwarded leaves as remote write 1.0.
///
/// # Errors
/// When they are something else.
pub fn measure(bodies: &[Vec<u8>], protocol: Protocol) -> Result<Floor, NoFloor> {
    let (unpacked, raws, cuts) = walk_all(bodies, protocol)?;
    let samples = cuts.iter().map(Vec::len).sum::<usize>().max(1);
    let best = |mut stage: Box<dyn FnMut() + '_>| {
        let timed = (0..RUNS).map(|_| {
            let (started, started_ns) = (Instant::now(), thread_cpu_ns());
            stage();
            let elapsed_ns = started.elapsed().as_nanos() as f64;
            let used_ns = started_ns.zip(thread_cpu_ns()).map(|(before, after)| after - before);
            used_ns.filter(|used| *used > 0.0).unwrap_or(elapsed_ns) / samples as f64
        });
        timed.fold(f64::INFINITY, f64::min)
    };
    let longest = unpacked.iter().chain(&raws).map(Vec::len).max().unwrap_or(0);
    let (mut raw, mut found) = (vec![0; longest], Vec::new());
    let decompress_ns = best(Box::new(|| {
        for body in bodies {
            drop(black_box(snap::raw::Decoder::new().decompress(black_box(body), &mut raw)));
        }
    }));
    let (mut labels, mut written) = (two::Labels::new(), Vec::new());
    let walk_ns = best(Box::new(|| {
        for raw in &unpacked {
            found.clear();
            black_box(match protocol {
                Protocol::One => walk(black_box(raw), &mut found),
                Protocol::Two => labels.write(black_box(raw), &mut written, &mut found),
            });
        }
        black_box(&written);
    }));
    let mut keys = Vec::with_capacity(samples);
    let hash_ns = best(Box::new(|| {
        keys.clear();
        for (raw, cuts) in raws.iter().zip(&cuts) {
            keys.extend(black_box(cuts).iter().map(|cut| key(raw, cut)));
        }
    }));
    let mut lines = vec![Line([1; 8]); LINES];
    let mut touched = 0_usize;
    let touch_ns = best(Box::new(|| {
        for key in &keys {
            // Each time another one: the same few would stay near, and it is to be one of many.
            touched += 1;
            let number = (*key as usize).wrapping_add(touched.wrapping_mul(FAR)) % LINES;
            let line = &mut lines[number].0;
            line[0] = line[0].wrapping_add(line[7]);
        }
        black_box(&lines);
    }));
    drop(lines);
    let mut out = Vec::with_capacity(longest);
    let copy_ns = best(Box::new(|| {
        for (raw, cuts) in raws.iter().zip(&cuts) {
            out.clear();
            cuts.iter().for_each(|cut| copy(raw, cut, &mut out));
            black_box(&out);
        }
    }));
    let mut packed = vec![0; snap::raw::max_compress_len(longest)];
    let mut encoder = snap::raw::Encoder::new();
    let outs: Vec<_> = raws.iter().zip(&cuts).map(|(raw, cuts)| copied(raw, cuts)).collect();
    let compress_ns = best(Box::new(|| {
        for out in &outs {
            drop(black_box(encoder.compress(black_box(out), &mut packed)));
        }
    }));
    Ok(Floor { decompress_ns, walk_ns, hash_ns, touch_ns, copy_ns, compress_ns })
}

/// CPU nanoseconds of this thread, as the target's are CPU time; `None` on systems that do not tell.
fn thread_cpu_ns() -> Option<f64> {
    // The kernel brings the number up to date when a thread yields.
    std::thread::yield_now();
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split(' ').next()?.parse().ok()
}

/// Two hashes over contiguous bytes, into one number.
fn key(raw: &[u8], cut: &Cut) -> u128 {
    xxh3_128(&raw[cut.start..cut.replica.0]).rotate_left(1) ^ xxh3_128(&raw[cut.replica.1..cut.labels_end])
}

fn copied(raw: &[u8], cuts: &[Cut]) -> Vec<u8> {
    let mut out = Vec::new();
    cuts.iter().for_each(|cut| copy(raw, cut, &mut out));
    out
}

fn copy(raw: &[u8], cut: &Cut, out: &mut Vec<u8>) {
    out.push(0x0a);
    put_length(out, cut.end - cut.start - (cut.replica.1 - cut.replica.0));
    out.extend_from_slice(&raw[cut.start..cut.replica.0]);
    out.extend_from_slice(&raw[cut.replica.1..cut.end]);
}

fn put_length(out: &mut Vec<u8>, mut len: usize) {
    while len >= 0x80 {
        out.push((len & 0x7f) as u8 | 0x80);
        len >>= 7;
    }
    out.push(len as u8);
}

/// Finds the replica label and the end of each series.
fn walk(raw: &[u8], series: &mut Vec<Cut>) -> Option<()> {
    let mut at = 0;
    while at < raw.len() {
        if raw[at] != 0x0a {
            return None;
        }
        at += 1;
        let len = length(raw, &mut at)?;
        let (start, end) = (at, at + len);
        let mut replica = None;
        while at < end && *raw.get(at)? == 0x0a {
            let label = at;
            at += 1;
            let len = length(raw, &mut at)?;
            let name = at + 1;
            at += len;
            if usize::from(*raw.get(name)?) == REPLICA_LABEL.len()
                && raw.get(name + 1..name + 1 + REPLICA_LABEL.len())? == REPLICA_LABEL
            {
                replica = Some((label, at));
            }
        }
        if end > raw.len() || at > end {
            return None;
        }
        series.push(Cut { start, replica: replica?, labels_end: at, end });
        at = end;
    }
    Some(())
}

#[inline]
fn length(raw: &[u8], at: &mut usize) -> Option<usize> {
    let first = usize::from(*raw.get(*at)?);
    *at += 1;
    if first < 0x80 {
        return Some(first);
    }
    let (mut length, mut shift) = (first & 0x7f, 7);
    loop {
        let byte = usize::from(*raw.get(*at)?);
        *at += 1;
        length |= (byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(length);
        }
        shift += 7;
        if shift > 28 {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{Label, Sample, TimeSeries, WriteRequest, v2};
    use prost::Message;

    const BODY: &[u8] = include_bytes!("../../../tests/corpus/rw1-sequence-02-a.bin");
    const BODY_2: &[u8] = include_bytes!("../../../tests/corpus/rw2-big-a-1.bin");

    #[test]
    fn what_is_copied_is_the_request_without_replica_labels() {
        let raw = snap::raw::Decoder::new().decompress_vec(BODY).unwrap();
        let mut cuts = Vec::new();
        walk(&raw, &mut cuts).unwrap();
        let mut expect = WriteRequest::decode(raw.as_slice()).unwrap();
        for series in &mut expect.timeseries {
            series.labels.retain(|label| label.name != "prometheus_replica");
        }
        assert_eq!(cuts.len(), expect.timeseries.len());
        assert!(copied(&raw, &cuts) == expect.encode_to_vec());
    }

    #[test]
    fn the_least_of_two_is_that_of_each_stage() {
        let of = |[decompress_ns, walk_ns, hash_ns, touch_ns, copy_ns, compress_ns]: [f64; 6]| Floor {
            decompress_ns,
            walk_ns,
            hash_ns,
            touch_ns,
            copy_ns,
            compress_ns,
        };
        let least = of([1.0, 9.0, 3.0, 9.0, 5.0, 9.0]).least(&of([9.0, 2.0, 9.0, 4.0, 9.0, 6.0]));
        assert_eq!(least, of([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
    }

    #[test]
    fn of_2_0_labels_and_samples_are_copied() {
        let (unpacked, raws, cuts) = walk_all(&[BODY_2.to_vec()], Protocol::Two).unwrap();
        let request = v2::Request::decode(unpacked[0].as_slice()).unwrap();
        let expect = request.timeseries.iter().map(|series| {
            let symbols = series
                .labels_refs
                .chunks(2)
                .map(|pair| pair.iter().map(|nth| &request.symbols[*nth as usize]));
            let label = |mut pair: Vec<&String>| Label {
                value: pair.remove(1).clone(),
                name: pair.remove(0).clone(),
            };
            let labels =
                symbols.map(|pair| label(pair.collect())).filter(|label| label.name != "prometheus_replica");
            let samples = series.samples.iter().map(|of| Sample { value: of.value, timestamp: of.timestamp });
            TimeSeries { labels: labels.collect(), samples: samples.collect(), ..TimeSeries::default() }
        });
        let expect = WriteRequest { timeseries: expect.collect(), ..WriteRequest::default() };
        let found = WriteRequest::decode(&*copied(&raws[0], &cuts[0])).unwrap();
        assert_eq!(found.timeseries.len(), 2_000);
        // Some values are no numbers, and so not equal to themselves.
        assert!(found.encode_to_vec() == expect.encode_to_vec());
    }

    #[test]
    fn every_stage_takes_time_and_other_bodies_are_refused() {
        for (body, protocol) in [(BODY, Protocol::One), (BODY_2, Protocol::Two)] {
            let floor = measure(&[body.to_vec()], protocol).unwrap();
            let Floor { decompress_ns, walk_ns, hash_ns, touch_ns, copy_ns, compress_ns } = floor;
            for ns in [decompress_ns, walk_ns, hash_ns, touch_ns, copy_ns, compress_ns] {
                assert!(ns > 0.0 && ns < 1e6, "{floor:?}");
            }
            let pair = decompress_ns + walk_ns + hash_ns + touch_ns + (copy_ns + compress_ns) / 2.0;
            assert!((floor.of_replicas(2) - pair).abs() < 1e-6);
            assert!(matches!(measure(&[vec![9]], protocol), Err(NoFloor::Snappy(_))));
            let metadata = snap::raw::Encoder::new().compress_vec(&[0x1a, 0]).unwrap();
            let refused = measure(&[body.to_vec(), metadata], protocol);
            assert!(matches!(refused, Err(NoFloor::Body { nth: 1, .. })));
        }
    }
}

//! The wire, stage by stage, on real bodies of 2,000 series: nanoseconds per sample are the inverse of the throughput.
//!
//! An element is a sample or an exemplar: each comes in a `TimeSeries` of its own and costs the same here.

#![allow(missing_docs, clippy::expect_used)] // a bench without its corpus has nothing to say

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use promdedup::series::{ReplicaNames, SeriesKey, TenantHash};
use promdedup::wire::labels::{LabelBounds, canonicalize};
use promdedup::wire::snappy;
use promdedup::wire::splice::Row;
use promdedup::wire::v1::{Sample, TimeSeries, Walker};
use promdedup::wire::v2::{Keep, Rewriter};
use promdedup::wire::v2_out::Composer;
use std::hint::black_box;
use std::time::Duration;

const BODIES: [&str; 5] = ["big-a-2", "big-a-3", "big-b-1", "big-b-2", "big-b-3"];
const BODIES_OF_TWO: [&str; 5] = ["big-a-1", "big-a-2", "big-a-3", "big-b-1", "big-b-2"];
const RAW_BYTES_MAX: usize = 32 << 20;

/// One body at every stage of its way.
struct Body {
    packed: Vec<u8>,
    raw: Vec<u8>,
    series: Vec<TimeSeries>,
}

fn bodies(names: &ReplicaNames) -> Vec<Body> {
    let read = |name: &&str| {
        let (packed, raw) = unpacked("rw1", name);
        let (mut series, mut samples) = (Vec::new(), Vec::new());
        walk(&raw, names, &mut series, &mut samples);
        Body { packed, raw, series }
    };
    BODIES.iter().map(read).collect()
}

/// A body of the corpus, packed and unpacked.
fn unpacked(protocol: &str, name: &str) -> (Vec<u8>, Vec<u8>) {
    let path = format!("{}/tests/corpus/{protocol}-{name}.bin", env!("CARGO_MANIFEST_DIR"));
    let packed = std::fs::read(path).expect("corpus");
    let mut raw = Vec::new();
    snappy::decompress(&packed, RAW_BYTES_MAX, &mut raw).expect("a snappy block");
    (packed, raw)
}

fn walk(raw: &[u8], names: &ReplicaNames, series: &mut Vec<TimeSeries>, samples: &mut Vec<Sample>) {
    series.clear();
    samples.clear();
    Walker::new(raw, names).all(series, samples).expect("well formed");
}

fn stages(criterion: &mut Criterion) {
    let names = ReplicaNames::default();
    let bodies = bodies(&names);
    let tenant = TenantHash::of("");
    let elements = bodies.iter().map(|body| body.series.len() as u64).sum();
    let mut group = criterion.benchmark_group("wire");
    group.throughput(Throughput::Elements(elements));
    group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));

    let mut raw = Vec::new();
    group.bench_function("decompress", |bench| {
        bench.iter(|| {
            for body in &bodies {
                snappy::decompress(black_box(&body.packed), RAW_BYTES_MAX, &mut raw).expect("a snappy block");
            }
        });
    });
    let (mut series, mut samples) = (Vec::new(), Vec::new());
    group.bench_function("walk", |bench| {
        bench.iter(|| {
            for body in &bodies {
                walk(black_box(&body.raw), &names, &mut series, &mut samples);
                black_box((&series, &samples));
            }
        });
    });
    let mut scratch = Vec::new();
    group.bench_function("hash", |bench| {
        bench.iter(|| {
            for body in &bodies {
                for series in &body.series {
                    let (before, after) =
                        series.parts(black_box(&body.raw), &names, &mut scratch).expect("plain");
                    black_box(SeriesKey::of_parts(before, after, tenant));
                }
            }
        });
    });
    let mut out = Vec::with_capacity(RAW_BYTES_MAX);
    group.bench_function("splice", |bench| {
        bench.iter(|| {
            for body in &bodies {
                out.clear();
                put_all(black_box(body), &mut out);
                black_box(&out);
            }
        });
    });
    let spliced: Vec<_> = bodies.iter().map(splice_all).collect();
    group.bench_function("compress", |bench| {
        bench.iter(|| {
            for raw in &spliced {
                snappy::compress(black_box(raw), &mut out).expect("below 4 GiB");
            }
        });
    });
    // Only at the birth of a series.
    let (bounds, mut canonical) = (LabelBounds::default(), Vec::new());
    group.bench_function("canonicalize", |bench| {
        bench.iter(|| {
            for body in &bodies {
                for series in &body.series {
                    black_box(
                        canonicalize(&body.raw, series, &names, bounds, &mut canonical).expect("valid"),
                    );
                }
            }
        });
    });
    group.finish();
}

/// The same of remote write 2.0: beside it, what it costs to read and to write in the other version.
fn stages_of_two(criterion: &mut Criterion) {
    let bodies: Vec<(Vec<u8>, Vec<u8>)> = BODIES_OF_TWO.iter().map(|name| unpacked("rw2", name)).collect();
    let mut group = criterion.benchmark_group("wire 2.0");
    let (mut rewriter, mut one) = (Rewriter::default(), Vec::new());
    let (mut series, mut samples) = (Vec::new(), Vec::new());
    let mut elements = 0;
    let mut ones = vec![];
    for (_, raw) in &bodies {
        rewriter.rewrite(raw, Keep::Nothing, RAW_BYTES_MAX, &mut one).expect("well formed");
        walk(&one, &ReplicaNames::default(), &mut series, &mut samples);
        elements += series.len() as u64;
        ones.push(one.clone());
    }
    group.throughput(Throughput::Elements(elements));
    group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    let mut unpacked = Vec::new();
    group.bench_function("decompress", |bench| {
        bench.iter(|| {
            for (packed, _) in &bodies {
                snappy::decompress(black_box(packed), RAW_BYTES_MAX, &mut unpacked).expect("a snappy block");
            }
        });
    });
    group.bench_function("rewrite", |bench| {
        bench.iter(|| {
            for (_, raw) in &bodies {
                rewriter
                    .rewrite(black_box(raw), Keep::Nothing, RAW_BYTES_MAX, &mut one)
                    .expect("well formed");
                black_box(&one);
            }
        });
    });
    let (mut composer, mut two) = (Composer::default(), Vec::new());
    group.bench_function("compose", |bench| {
        bench.iter(|| {
            for one in &ones {
                composer.compose(black_box(one), &mut two).expect("well formed");
                black_box(&two);
            }
        });
    });
    group.finish();
}

fn splice_all(body: &Body) -> Vec<u8> {
    let mut out = Vec::new();
    put_all(body, &mut out);
    out
}

fn put_all(body: &Body, out: &mut Vec<u8>) {
    let mut row = Row::default();
    body.series.iter().for_each(|series| row.put(&body.raw, series, out));
    row.end(&body.raw, out);
}

criterion_group!(benches, stages, stages_of_two);
criterion_main!(benches);

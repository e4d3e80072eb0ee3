//! The whole life of a request without a network: a healthy pair of real bodies, an upstream that takes everything.
//!
//! ns per *input* sample; one of two requests is forwarded, the other holds only duplicates. Beside it the codec floor of
//! the same bodies: unpacking, walking, hashing and finding all of it, copying and packing what is forwarded.
#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use promdedup::forward::{Answer, Outgoing, Passed, Relayed, Upstream};
use promdedup::overhead::CpuTime;
use promdedup::pipeline::{Incoming, Metrics, Pipeline, Protocol, Settings};
use promdedup::proto::WriteRequest;
use promdedup::series::{PlaceLabels, ReplicaNames, SeriesKey, TenantHash};
use promdedup::telemetry::LimitHits;
use promdedup::window::{Found, Window};
use promdedup::wire::labels::LabelBounds;
use promdedup::wire::snappy;
use promdedup::wire::splice::Row;
use promdedup::wire::v1::{Sample, TimeSeries, Walker};
use prometheus::Registry;
use prost::Message;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

struct Taker;

impl Upstream for Taker {
    async fn send(&self, request: Outgoing) -> Answer {
        black_box(request);
        Answer::Taken
    }

    async fn relay(&self, request: Passed) -> Relayed {
        black_box(request);
        Relayed { answer: Answer::Taken, echo: Err("it was not asked".to_owned()) }
    }
}

const BODIES: [&[u8]; 2] =
    [include_bytes!("../tests/corpus/rw1-big-a-2.bin"), include_bytes!("../tests/corpus/rw1-big-b-1.bin")];
const STEP_MS: i64 = 15_000;

/// One body for each step of time: the same series, later samples, from both replicas in turn.
fn scrapes(steps: i64) -> (Vec<Vec<u8>>, u64) {
    let mut bodies = Vec::new();
    let mut samples = 0;
    for step in 0..steps {
        for (i, replica) in ["prometheus-k8s-0", "prometheus-k8s-1"].iter().enumerate() {
            let raw = snap::raw::Decoder::new().decompress_vec(BODIES[0]).unwrap();
            let mut request = WriteRequest::decode(raw.as_slice()).unwrap();
            for ts in &mut request.timeseries {
                let label = ts.labels.iter_mut().find(|l| l.name == "prometheus_replica").unwrap();
                label.value = (*replica).to_owned();
                for sample in &mut ts.samples {
                    sample.timestamp += step * STEP_MS + i as i64 * 6_000;
                }
                for histogram in &mut ts.histograms {
                    histogram.timestamp += step * STEP_MS + i as i64 * 6_000;
                }
                samples += (ts.samples.len() + ts.histograms.len()) as u64;
            }
            bodies.push(snap::raw::Encoder::new().compress_vec(&request.encode_to_vec()).unwrap());
        }
    }
    (bodies, samples)
}

/// The memory of [`codec_floor`].
#[derive(Default)]
struct Floor {
    raw: Vec<u8>,
    series: Vec<TimeSeries>,
    samples: Vec<Sample>,
    keys: Vec<SeriesKey>,
    found: Vec<Found>,
    scratch: Vec<u8>,
    out: Vec<u8>,
    packed: Vec<u8>,
}

/// What no proxy of this kind can do without, of one request.
fn codec_floor(body: &[u8], forwarded: bool, names: &ReplicaNames, window: &Window, floor: &mut Floor) {
    let Floor { raw, series, samples, keys, found, scratch, out, packed } = floor;
    snappy::decompress(body, 32 << 20, raw).unwrap();
    series.clear();
    samples.clear();
    keys.clear();
    let mut walker = Walker::new(raw, names);
    loop {
        let found = series.push_mut(TimeSeries::default());
        let Some(walked) = walker.next_likely(found, samples) else { break };
        walked.unwrap();
        let (before, after) = found.parts(raw, names, scratch).unwrap();
        keys.push(SeriesKey::of_parts(before, after, TenantHash::of("")));
    }
    series.pop();
    window.locate(keys, &[], found);
    if forwarded {
        out.clear();
        out.reserve(raw.len());
        let mut row = Row::default();
        series.iter().for_each(|series| row.put(raw, series, out));
        row.end(raw, out);
        snappy::compress(out, packed).unwrap();
    }
    black_box((found, packed));
}

fn pipeline(settings: &Settings, measured: bool) -> Pipeline<Taker> {
    let registry = Registry::new();
    let cpu = if measured { CpuTime::register(&registry).unwrap() } else { CpuTime::off() };
    let metrics = Metrics::register(&registry, &cpu, &LimitHits::new(&registry).unwrap()).unwrap();
    Pipeline::new(settings.clone(), Arc::new(Window::new(100_000)), Taker, metrics)
}

fn pair(c: &mut Criterion) {
    let settings = Settings {
        replica_names: ReplicaNames::new(["prometheus_replica", "__replica__"]).unwrap(),
        place_labels: PlaceLabels::default(),
        upstream_protocol: Protocol::One,
        label_bounds: LabelBounds::default(),
        body_bytes_max: 32 << 20,
        future_max_ms: i64::MAX / 2,
        out_of_order_window_ms: 0,
        first_contact_hold_ms: 0,
        busy_wait_max: Duration::from_secs(10),
    };
    let (bodies, samples) = scrapes(50);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let mut group = c.benchmark_group("pipeline");
    group.throughput(Throughput::Elements(samples));
    group.sample_size(20);
    // The second one shows what measuring CPU time by stage costs.
    for (name, measured) in [("healthy pair", true), ("healthy pair, CPU time not measured", false)] {
        group.bench_function(name, |b| {
            b.iter_batched(
                || pipeline(&settings, measured),
                |pipeline| {
                    for body in &bodies {
                        let reply = runtime.block_on(pipeline.serve(incoming(body), 0));
                        assert_eq!(reply.status, 204, "{}", reply.text);
                    }
                },
                criterion::BatchSize::LargeInput,
            );
        });
    }
    // A window that knows the series.
    let pipeline = pipeline(&settings, true);
    assert_eq!(runtime.block_on(pipeline.serve(incoming(&bodies[0]), 0)).status, 204);
    let mut floor = Floor::default();
    group.bench_function("codec floor", |b| {
        b.iter(|| {
            for (i, body) in bodies.iter().enumerate() {
                codec_floor(body, i % 2 == 0, &settings.replica_names, pipeline.window(), &mut floor);
            }
        });
    });
    group.finish();
}

fn incoming(body: &[u8]) -> Incoming {
    Incoming {
        protocol: Protocol::One,
        body: body.to_vec().into(),
        tenant: None,
        retry_attempt: 0,
        request_id: None,
        traceparent: None,
        verbatim: None,
        from_peer: false,
    }
}

criterion_group!(benches, pair);
criterion_main!(benches);

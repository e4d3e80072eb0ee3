//! The whole life of a request without a network: a healthy pair of real bodies, an upstream that takes everything.
//!
//! ns per *input* sample; one of two requests is forwarded, the other holds only duplicates.
#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use promdedup::forward::{Answer, Outgoing, Passed, Relayed, Upstream};
use promdedup::overhead::CpuTime;
use promdedup::pipeline::{Incoming, Metrics, Pipeline, Protocol, Settings};
use promdedup::proto::WriteRequest;
use promdedup::series::{PlaceLabels, ReplicaNames};
use promdedup::telemetry::LimitHits;
use promdedup::window::Window;
use promdedup::wire::labels::LabelBounds;
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
                        let incoming = Incoming {
                            protocol: Protocol::One,
                            body: body.clone().into(),
                            tenant: None,
                            retry_attempt: 0,
                            request_id: None,
                            traceparent: None,
                            verbatim: None,
                        };
                        let reply = runtime.block_on(pipeline.serve(incoming, 0));
                        assert_eq!(reply.status, 204, "{}", reply.text);
                    }
                },
                criterion::BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, pair);
criterion_main!(benches);

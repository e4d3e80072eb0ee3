//! The stages that are counted: each a function of its own, which the compiler must not dissolve.
//!
//! Owns the bodies they work on: real ones for the wire, and a healthy pair's, in both protocols, for the window and the
//! pipeline. All that depends on chance or on time is made beforehand.

use promdedup::forward::{Answer, Outgoing, Passed, Relayed, Upstream};
use promdedup::overhead::CpuTime;
use promdedup::peers::{Hop, Hopped, Peers, Said, Secret};
use promdedup::pipeline::{Incoming, Metrics, Pipeline, Protocol, Settings};
use promdedup::placement::{Asking, GroupId, Peer, Placement, Stays, Whose};
use promdedup::proto::{WriteRequest, v2 as proto2};
use promdedup::series::{GroupKey, PlaceLabels, ReplicaNames, SeriesKey, TenantHash};
use promdedup::telemetry::LimitHits;
use promdedup::window::Window;
use promdedup::wire::labels::LabelBounds;
use promdedup::wire::snappy;
use promdedup::wire::splice::Row;
use promdedup::wire::v1::{Sample, TimeSeries, Walker};
use promdedup::wire::v2::{Keep, Rewriter};
use promdedup::wire::v2_out::Composer;
use prometheus::Registry;
use prost::Message;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

const ONE: [&[u8]; 2] = [
    include_bytes!("../../tests/corpus/rw1-big-a-2.bin"),
    include_bytes!("../../tests/corpus/rw1-big-b-1.bin"),
];
const TWO: &[u8] = include_bytes!("../../tests/corpus/rw2-big-a-1.bin");
const STEP_MS: i64 = 15_000;
/// Scrapes that are counted, after as many that make the series known.
const SCRAPES: i64 = 3;
const RAW_BYTES_MAX: usize = 32 << 20;

struct Taker;

impl Upstream for Taker {
    async fn send(&self, request: Outgoing) -> Answer {
        black_box(request);
        Answer::Taken
    }

    async fn relay(&self, _: Passed) -> Relayed {
        Relayed { answer: Answer::Taken, echo: Err("it was not asked".to_owned()) }
    }
}

/// Everything is this instance's, or everything is another's.
#[derive(Debug)]
struct Seat(Option<Peer>, Arc<Stays>);

impl Placement for Seat {
    fn known(&self, _: GroupKey) -> Option<Whose> {
        let theirs = self.0.clone().map(Whose::Theirs);
        Some(theirs.unwrap_or_else(|| Whose::Mine(self.1.begin())))
    }

    fn ask<'a>(&'a self, _: &'a GroupId) -> Asking<'a, Whose> {
        Box::pin(async { Whose::Moving })
    }

    fn misdirected(&self, _: GroupKey, _: &Peer) {}

    fn hopped(&self, _: &Peer, _: bool) {}
}

#[derive(Debug)]
struct Sink;

impl Peers for Sink {
    fn pass<'a>(&'a self, _: &'a Peer, hop: Hop) -> Asking<'a, Hopped> {
        black_box(hop);
        let said = Said { status: 204, text: String::new(), retry_after_s: None, written: [0; 3] };
        Box::pin(async { Hopped::Answered(said) })
    }

    fn secret(&self) -> Secret {
        Secret::new(|| None)
    }
}

/// All stages, and the samples that each went through.
pub(super) fn run() -> Vec<(&'static str, usize)> {
    let mut counts = wire();
    counts.extend(of_two());
    counts.extend(pipeline(Protocol::One, ["pipeline_owner", "pipeline_duplicate"]));
    counts.extend(pipeline(Protocol::Two, ["pipeline_of_two_owner", "pipeline_of_two_duplicate"]));
    counts.extend(placed());
    counts
}

/// With other instances beside it.
fn placed() -> Vec<(&'static str, usize)> {
    let runtime = runtime();
    let with = |peer| {
        let seat = Seat(peer, Arc::default());
        new_pipeline().with_placement(Arc::new(seat), Arc::new(Sink))
    };
    let mine = with(None);
    let theirs = with(Some(Peer { id: "other".into(), url: "http://other".into() }));
    let mut counted = 0;
    for step in 0..2 * SCRAPES {
        let (owner, samples) = scrape(Protocol::One, step, 0);
        if step < SCRAPES {
            serve(&runtime, &mine, Protocol::One, owner.clone());
            serve(&runtime, &theirs, Protocol::One, owner);
        } else {
            count_placed_here(&runtime, &mine, owner.clone());
            count_passed_on(&runtime, &theirs, owner);
            counted += samples;
        }
    }
    ["placed_here", "passed_on"].map(|stage| (stage, counted)).to_vec()
}

fn wire() -> Vec<(&'static str, usize)> {
    let names = ReplicaNames::default();
    let (mut raw, mut series, mut samples) = (Vec::new(), Vec::new(), Vec::new());
    let (mut keys, mut out, mut packed) = (Vec::new(), Vec::new(), Vec::new());
    let mut walked = 0;
    for body in ONE {
        count_decompress(body, &mut raw);
        count_walk_exactly(&raw, &names, &mut series, &mut samples);
        count_walk(&raw, &names, &mut series, &mut samples);
        walked += series.len();
        count_hash(&raw, &names, &series, &mut keys);
        out.clear();
        out.reserve(raw.len());
        count_splice(&raw, &series, &mut out);
        count_compress(&out, &mut packed);
    }
    ["decompress", "walk", "walk_exactly", "hash", "splice", "compress"].map(|stage| (stage, walked)).to_vec()
}

fn of_two() -> Vec<(&'static str, usize)> {
    let names = ReplicaNames::default();
    let (mut raw, mut one, mut series, mut samples) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut rewriter = Rewriter::default();
    count_decompress_of_two(TWO, &mut raw);
    // As for every request but a thread's first.
    rewriter.rewrite(&raw, Keep::Nothing, RAW_BYTES_MAX, &mut one).unwrap();
    count_rewrite_of_two(&mut rewriter, &raw, &mut one);
    count_walk_of_two(&one, &names, &mut series, &mut samples);
    // For an upstream of 2.0, what the rewriter keeps goes out again.
    let (mut composer, mut two) = (Composer::default(), Vec::new());
    rewriter.rewrite(&raw, Keep::All, RAW_BYTES_MAX, &mut one).unwrap();
    composer.compose(&one, &mut two).unwrap();
    count_compose_of_two(&mut composer, &one, &mut two);
    ["decompress_of_two", "rewrite_of_two", "walk_of_two", "compose_of_two"]
        .map(|stage| (stage, series.len()))
        .to_vec()
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

fn new_pipeline() -> Pipeline<Taker> {
    let settings = Settings {
        replica_names: ReplicaNames::default(),
        place_labels: PlaceLabels::default(),
        upstream_protocol: Protocol::One,
        label_bounds: LabelBounds::default(),
        body_bytes_max: RAW_BYTES_MAX,
        future_max_ms: i64::MAX / 2,
        out_of_order_window_ms: 0,
        first_contact_hold_ms: 0,
        busy_wait_max: Duration::from_secs(10),
    };
    let registry = Registry::new();
    let metrics = Metrics::register(&registry, &CpuTime::off(), &LimitHits::new(&registry).unwrap()).unwrap();
    Pipeline::new(settings, Arc::new(Window::new(100_000)), Taker, metrics)
}

fn pipeline(protocol: Protocol, stages: [&'static str; 2]) -> Vec<(&'static str, usize)> {
    let (runtime, pipeline) = (runtime(), new_pipeline());
    let mut counted = 0;
    for step in 0..2 * SCRAPES {
        let (owner, samples) = scrape(protocol, step, 0);
        let (standby, _) = scrape(protocol, step, 1);
        match (step < SCRAPES, protocol) {
            (true, _) => [owner, standby].map(|body| serve(&runtime, &pipeline, protocol, body)).map(drop),
            (false, Protocol::One) => {
                count_pipeline_owner(&runtime, &pipeline, owner);
                count_pipeline_duplicate(&runtime, &pipeline, standby);
                counted += samples;
                [(), ()]
            }
            (false, Protocol::Two) => {
                count_pipeline_of_two_owner(&runtime, &pipeline, owner);
                count_pipeline_of_two_duplicate(&runtime, &pipeline, standby);
                counted += samples;
                [(), ()]
            }
        };
    }
    stages.map(|stage| (stage, counted)).to_vec()
}

/// One replica's body of one scrape, and how many samples it has.
fn scrape(protocol: Protocol, step: i64, replica: usize) -> (Vec<u8>, usize) {
    let later = step * STEP_MS + replica as i64 * 6_000;
    let name = ["prometheus-k8s-0", "prometheus-k8s-1"][replica];
    let unpack = |body| snap::raw::Decoder::new().decompress_vec(body).unwrap();
    let pack = |raw: &[u8]| snap::raw::Encoder::new().compress_vec(raw).unwrap();
    let mut samples = 0;
    match protocol {
        Protocol::One => {
            let mut request = WriteRequest::decode(unpack(ONE[0]).as_slice()).unwrap();
            for ts in &mut request.timeseries {
                let label = ts.labels.iter_mut().find(|label| label.name == "prometheus_replica").unwrap();
                label.value = name.to_owned();
                ts.samples.iter_mut().for_each(|sample| sample.timestamp += later);
                ts.histograms.iter_mut().for_each(|histogram| histogram.timestamp += later);
                samples += ts.samples.len() + ts.histograms.len();
            }
            (pack(&request.encode_to_vec()), samples)
        }
        Protocol::Two => {
            let mut request = proto2::Request::decode(unpack(TWO).as_slice()).unwrap();
            request.symbols.iter_mut().filter(|symbol| *symbol == "prometheus-k8s-0").for_each(|symbol| {
                name.clone_into(symbol);
            });
            for ts in &mut request.timeseries {
                ts.samples.iter_mut().for_each(|sample| sample.timestamp += later);
                ts.histograms.iter_mut().for_each(|histogram| histogram.timestamp += later);
                samples += ts.samples.len() + ts.histograms.len();
            }
            (pack(&request.encode_to_vec()), samples)
        }
    }
}

type Runtime = tokio::runtime::Runtime;

fn serve(runtime: &Runtime, pipeline: &Pipeline<Taker>, protocol: Protocol, body: Vec<u8>) {
    let incoming = Incoming {
        protocol,
        body: body.into(),
        tenant: None,
        retry_attempt: 0,
        request_id: None,
        traceparent: None,
        verbatim: None,
        from_peer: false,
    };
    let reply = runtime.block_on(pipeline.serve(incoming, 0));
    assert_eq!(reply.status, 204, "{}", reply.text);
}

#[inline(never)]
fn count_pipeline_owner(runtime: &Runtime, pipeline: &Pipeline<Taker>, body: Vec<u8>) {
    serve(runtime, pipeline, Protocol::One, body);
}

#[inline(never)]
fn count_pipeline_duplicate(runtime: &Runtime, pipeline: &Pipeline<Taker>, body: Vec<u8>) {
    serve(runtime, pipeline, Protocol::One, body);
    black_box(());
}

#[inline(never)]
fn count_pipeline_of_two_owner(runtime: &Runtime, pipeline: &Pipeline<Taker>, body: Vec<u8>) {
    serve(runtime, pipeline, Protocol::Two, body);
}

#[inline(never)]
fn count_pipeline_of_two_duplicate(runtime: &Runtime, pipeline: &Pipeline<Taker>, body: Vec<u8>) {
    serve(runtime, pipeline, Protocol::Two, body);
    black_box(());
}

#[inline(never)]
fn count_placed_here(runtime: &Runtime, pipeline: &Pipeline<Taker>, body: Vec<u8>) {
    serve(runtime, pipeline, Protocol::One, body);
    black_box(1);
}

#[inline(never)]
fn count_passed_on(runtime: &Runtime, pipeline: &Pipeline<Taker>, body: Vec<u8>) {
    serve(runtime, pipeline, Protocol::One, body);
    black_box(2);
}

#[inline(never)]
fn count_decompress(body: &[u8], raw: &mut Vec<u8>) {
    snappy::decompress(body, RAW_BYTES_MAX, raw).unwrap();
}

#[inline(never)]
fn count_walk(raw: &[u8], names: &ReplicaNames, series: &mut Vec<TimeSeries>, samples: &mut Vec<Sample>) {
    series.clear();
    samples.clear();
    let mut walker = Walker::new(raw, names);
    while let Some(walked) = walker.next_likely(series.push_mut(TimeSeries::default()), samples) {
        walked.unwrap();
    }
    series.pop();
}

#[inline(never)]
fn count_walk_exactly(
    raw: &[u8],
    names: &ReplicaNames,
    series: &mut Vec<TimeSeries>,
    samples: &mut Vec<Sample>,
) {
    series.clear();
    samples.clear();
    Walker::new(raw, names).all(series, samples).unwrap();
}

#[inline(never)]
fn count_hash(raw: &[u8], names: &ReplicaNames, series: &[TimeSeries], keys: &mut Vec<SeriesKey>) {
    keys.clear();
    let tenant = TenantHash::of("");
    let mut scratch = Vec::new();
    for series in series {
        let (before, after) = series.parts(raw, names, &mut scratch).unwrap();
        keys.push(SeriesKey::of_parts(before, after, tenant));
    }
}

#[inline(never)]
fn count_splice(raw: &[u8], series: &[TimeSeries], out: &mut Vec<u8>) {
    let mut row = Row::default();
    series.iter().for_each(|series| row.put(raw, series, out));
    row.end(raw, out);
}

#[inline(never)]
fn count_compress(raw: &[u8], packed: &mut Vec<u8>) {
    snappy::compress(raw, packed).unwrap();
}

#[inline(never)]
fn count_decompress_of_two(body: &[u8], raw: &mut Vec<u8>) {
    snappy::decompress(body, RAW_BYTES_MAX, raw).unwrap();
    black_box(&raw);
}

#[inline(never)]
fn count_rewrite_of_two(rewriter: &mut Rewriter, raw: &[u8], one: &mut Vec<u8>) {
    rewriter.rewrite(raw, Keep::Nothing, RAW_BYTES_MAX, one).unwrap();
}

#[inline(never)]
fn count_compose_of_two(composer: &mut Composer, one: &[u8], two: &mut Vec<u8>) {
    composer.compose(one, two).unwrap();
}

#[inline(never)]
fn count_walk_of_two(
    one: &[u8],
    names: &ReplicaNames,
    series: &mut Vec<TimeSeries>,
    samples: &mut Vec<Sample>,
) {
    series.clear();
    samples.clear();
    Walker::new(one, names).all(series, samples).unwrap();
    black_box(&series);
}

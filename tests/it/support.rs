//! What the tests of the pipeline need: bodies in few words, and a pipeline in front of an upstream that answers as it is told.

mod fake;

pub(crate) use fake::{Fake, Gate, sent};

use http::HeaderMap;
use promdedup::health::Health;
use promdedup::overhead::{CpuTime, ThreadTime};
use promdedup::pipeline::{Incoming, Metrics, Pipeline, Protocol, Reply, Settings, Verbatim};
use promdedup::proto::{self, v2};
use promdedup::series::{PlaceLabels, ReplicaNames};
use promdedup::telemetry::{LimitHits, Refusals};
use promdedup::window::Window;
use promdedup::wire::labels::LabelBounds;
use prost::Message;
use std::sync::Arc;
use std::time::Duration;

/// The wall clock stands at an hour after the epoch: sample times in the tests are small.
pub(crate) const NOW_MS: i64 = 3_600_000;
/// The bits of a stale marker.
pub(crate) const STALE: u64 = 0x7ff0_0000_0000_0002;

/// One `TimeSeries` to be sent. A sample's value is its time in seconds, unless it is said.
#[derive(Clone, Default)]
pub(crate) struct Ts(proto::TimeSeries);

impl Ts {
    pub(crate) fn new(name: &str) -> Self {
        let metric = if name.is_empty() { vec![] } else { vec![("__name__", name)] };
        Self::raw(&metric).label("cluster", "e2e").label("job", "j").label("prometheus", "mon/k8s")
    }

    pub(crate) fn raw(labels: &[(&str, &str)]) -> Self {
        labels.iter().fold(Self::default(), |ts, (name, value)| ts.label(name, value))
    }

    pub(crate) fn replica(self, replica: &str) -> Self {
        self.label("prometheus_replica", replica)
    }

    pub(crate) fn label(mut self, name: &str, value: &str) -> Self {
        self.0.labels.push(proto::Label { name: name.into(), value: value.into() });
        self
    }

    pub(crate) fn at(self, seconds: i64) -> Self {
        self.bits_at((seconds as f64).to_bits(), seconds)
    }

    pub(crate) fn bits_at(mut self, bits: u64, seconds: i64) -> Self {
        self.0.samples.push(proto::Sample { value: f64::from_bits(bits), timestamp: seconds * 1000 });
        self
    }

    pub(crate) fn value_at(self, value: f64, seconds: i64) -> Self {
        self.bits_at(value.to_bits(), seconds)
    }

    pub(crate) fn stale_at(self, seconds: i64) -> Self {
        self.bits_at(STALE, seconds)
    }

    /// A native histogram whose count and sum are its time in seconds; all of it is in the zero bucket.
    pub(crate) fn histogram_at(mut self, seconds: i64) -> Self {
        self.0.histograms.push(proto::Histogram {
            count: Some(proto::histogram::Count::CountInt(seconds.unsigned_abs())),
            sum: seconds as f64,
            zero_count: Some(proto::histogram::ZeroCount::ZeroCountInt(seconds.unsigned_abs())),
            timestamp: seconds * 1000,
            ..Default::default()
        });
        self
    }

    pub(crate) fn histogram(mut self, histogram: proto::Histogram) -> Self {
        self.0.histograms.push(histogram);
        self
    }

    pub(crate) fn no_sample(mut self) -> Self {
        self.0.samples.clear();
        self
    }

    pub(crate) fn exemplar(mut self) -> Self {
        let labels = vec![proto::Label { name: "trace_id".into(), value: "1".into() }];
        self.0.exemplars.push(proto::Exemplar { labels, value: 1.0, timestamp: 1 });
        self
    }
}

/// An uncompressed request with that many metadata entries.
pub(crate) fn body(series: &[Ts], metadata: usize) -> Vec<u8> {
    let metadata = (0..metadata)
        .map(|i| proto::MetricMetadata { metric_family_name: format!("f{i}"), ..Default::default() })
        .collect();
    let timeseries = series.iter().map(|ts| ts.0.clone()).collect();
    proto::WriteRequest { timeseries, metadata }.encode_to_vec()
}

/// The same series in remote write 2.0.
pub(crate) fn two(series: &[Ts]) -> v2::Request {
    let mut request = v2::Request { symbols: vec![String::new()], timeseries: vec![] };
    for Ts(ts) in series {
        let mut references = |labels: &[proto::Label]| {
            let texts = labels.iter().flat_map(|label| [&label.name, &label.value]);
            texts.map(|text| refer(&mut request.symbols, text)).collect::<Vec<_>>()
        };
        let sample =
            |s: &proto::Sample| v2::Sample { value: s.value, timestamp: s.timestamp, start_timestamp: 7 };
        let ts = v2::TimeSeries {
            labels_refs: references(&ts.labels),
            samples: ts.samples.iter().map(sample).collect(),
            // Their fields have the same numbers.
            histograms: ts.histograms.iter().map(|h| Message::decode(&*h.encode_to_vec()).unwrap()).collect(),
            exemplars: ts
                .exemplars
                .iter()
                .map(|exemplar| v2::Exemplar {
                    labels_refs: references(&exemplar.labels),
                    value: exemplar.value,
                    timestamp: exemplar.timestamp,
                })
                .collect(),
            ..v2::TimeSeries::default()
        };
        request.timeseries.push(ts);
    }
    request
}

/// The reference of a text, which is added if it is new.
pub(crate) fn refer(symbols: &mut Vec<String>, text: &str) -> u32 {
    let known = symbols.iter().position(|symbol| symbol == text);
    known.unwrap_or_else(|| {
        symbols.push(text.to_owned());
        symbols.len() - 1
    }) as u32
}

/// A pipeline in front of a fake, with its metrics.
#[derive(Clone)]
pub(crate) struct Ask {
    pub(crate) pipeline: Arc<Pipeline<Fake>>,
    observes: bool,
    registry: prometheus::Registry,
    cpu: CpuTime,
    refusals: Arc<Refusals>,
}

/// What a test may want otherwise.
pub(crate) struct Wishes {
    pub(crate) series_max: usize,
    pub(crate) label_bounds: LabelBounds,
    pub(crate) out_of_order_window_ms: i64,
    pub(crate) first_contact_hold_ms: i64,
    pub(crate) busy_wait_max: Duration,
    pub(crate) upstream_protocol: Protocol,
    pub(crate) observes: bool,
    pub(crate) memory_max: Option<usize>,
    pub(crate) body_bytes_max: usize,
}

pub(crate) fn pipeline() -> (Ask, Fake) {
    Ask::with(|_| {})
}

impl Ask {
    pub(crate) fn with(wish: impl FnOnce(&mut Wishes)) -> (Self, Fake) {
        let mut wishes = Wishes {
            series_max: 1000,
            label_bounds: LabelBounds::default(),
            out_of_order_window_ms: 0,
            first_contact_hold_ms: 0,
            busy_wait_max: Duration::from_secs(5),
            upstream_protocol: Protocol::One,
            observes: false,
            memory_max: None,
            body_bytes_max: 1 << 20,
        };
        wish(&mut wishes);
        let settings = Settings {
            replica_names: ReplicaNames::new(["prometheus_replica", "__replica__"]).unwrap(),
            place_labels: PlaceLabels::default(),
            upstream_protocol: wishes.upstream_protocol,
            label_bounds: wishes.label_bounds,
            body_bytes_max: wishes.body_bytes_max,
            future_max_ms: 600_000,
            out_of_order_window_ms: wishes.out_of_order_window_ms,
            first_contact_hold_ms: wishes.first_contact_hold_ms,
            busy_wait_max: wishes.busy_wait_max,
        };
        let (fake, registry) = (Fake::default(), prometheus::Registry::new());
        let limits = LimitHits::new(&registry).unwrap();
        let cpu = CpuTime::register(&registry).unwrap();
        let metrics = Metrics::register(&registry, &cpu, &limits).unwrap();
        let refusals = Arc::<Refusals>::default();
        let metrics = metrics.telling(Arc::clone(&refusals));
        let window = Arc::new(Window::new(wishes.series_max));
        let pipeline = Pipeline::new(settings, window, fake.clone(), metrics);
        let pipeline = Arc::new(match wishes.memory_max {
            Some(bytes) => pipeline.with_memory_max(bytes),
            None => pipeline,
        });
        (Self { pipeline, observes: wishes.observes, registry, cpu, refusals }, fake)
    }

    /// What is told of what was refused, the newest first: status, group and replica.
    pub(crate) fn refused(&self) -> Vec<(u16, String, String)> {
        let kept = self.refusals.newest_first(tokio::time::Instant::now());
        kept.into_iter().map(|(_, refusal)| (refusal.status, refusal.group, refusal.replica)).collect()
    }

    pub(crate) async fn ask(&self, series: &[Ts]) -> Reply {
        self.retry(series, 0).await
    }

    pub(crate) async fn owned(self, series: Vec<Ts>) -> Reply {
        self.ask(&series).await
    }

    pub(crate) async fn retry(&self, series: &[Ts], retry_attempt: u32) -> Reply {
        self.incoming(Protocol::One, pack(&body(series, 0)), retry_attempt, None, NOW_MS).await
    }

    pub(crate) async fn tenant(&self, tenant: &str, series: &[Ts]) -> Reply {
        self.incoming(Protocol::One, pack(&body(series, 0)), 0, Some(tenant), NOW_MS).await
    }

    pub(crate) async fn raw(&self, body: &[u8]) -> Reply {
        self.packed(pack(body)).await
    }

    pub(crate) async fn packed(&self, packed: Vec<u8>) -> Reply {
        self.incoming(Protocol::One, packed, 0, None, NOW_MS).await
    }

    /// Asks at a time of the wall clock, in seconds after the usual one.
    pub(crate) async fn later(&self, seconds: i64, series: &[Ts]) -> Reply {
        self.incoming(Protocol::One, pack(&body(series, 0)), 0, None, NOW_MS + seconds * 1000).await
    }

    /// Asks in remote write 2.0.
    pub(crate) async fn two(&self, request: &v2::Request) -> Reply {
        self.incoming(Protocol::Two, pack(&request.encode_to_vec()), 0, None, NOW_MS).await
    }

    pub(crate) async fn incoming(
        &self,
        protocol: Protocol,
        packed: Vec<u8>,
        retry_attempt: u32,
        tenant: Option<&str>,
        now_ms: i64,
    ) -> Reply {
        let tenant = tenant.map(|t| t.parse().unwrap());
        let incoming = Incoming {
            protocol,
            body: packed.into(),
            tenant,
            retry_attempt,
            request_id: None,
            traceparent: None,
            verbatim: self.observes.then(|| Verbatim { headers: HeaderMap::new(), unsupported: false }),
            from_peer: false,
        };
        self.pipeline.serve(incoming, now_ms).await
    }

    /// All counts of `promdedup_samples_total` above 0: replica, outcome, count.
    pub(crate) fn samples(&self) -> Vec<(String, String, u64)> {
        let mut counts: Vec<_> = self
            .family("promdedup_samples_total")
            .map(|(labels, n)| (label(&labels, "replica"), label(&labels, "outcome"), n))
            .filter(|(_, _, n)| *n > 0)
            .collect();
        counts.sort();
        counts
    }

    pub(crate) fn outcome(&self, outcome: &str) -> u64 {
        self.metric("promdedup_samples_total", &[("outcome", outcome)])
    }

    /// The sum of a counter over the children with these labels.
    pub(crate) fn metric(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let wanted = |have: &[(String, String)]| labels.iter().all(|(n, v)| label(have, n) == *v);
        self.family(name).filter(|(have, _)| wanted(have)).map(|(_, n)| n).sum()
    }

    /// The health of its groups.
    pub(crate) fn health(&self) -> Arc<Health> {
        Health::register(&self.registry, Arc::clone(self.pipeline.window())).unwrap()
    }

    /// A gauge with all these labels.
    pub(crate) fn gauge(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let family = self.registry.gather().into_iter().find(|f| f.name() == name)?;
        let wanted = |metric: &&prometheus::proto::Metric| {
            metric.get_label().iter().all(|label| labels.contains(&(label.name(), label.value())))
        };
        family.get_metric().iter().find(wanted).map(|metric| metric.get_gauge().get_value())
    }

    /// From now on all that the calling thread does is the data plane's.
    pub(crate) fn is_the_data_plane(&self) -> ThreadTime {
        self.cpu.join()
    }

    /// CPU seconds of a stage, of one share.
    pub(crate) fn cpu_s(&self, stage: &str, share: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|f| f.name() == "promdedup_cpu_seconds_total").unwrap();
        let wanted = [("stage", stage), ("share", share)];
        let metrics = family.get_metric().iter().filter(|metric| {
            metric.get_label().iter().all(|label| wanted.contains(&(label.name(), label.value())))
        });
        metrics.map(|metric| metric.get_counter().get_value()).sum()
    }

    fn family(&self, name: &str) -> impl Iterator<Item = (Vec<(String, String)>, u64)> {
        let family = self.registry.gather().into_iter().find(|f| f.name() == name);
        family.into_iter().flat_map(|f| f.get_metric().to_vec()).map(|metric| {
            let labels = metric.get_label().iter().map(|l| (l.name().into(), l.value().into())).collect();
            (labels, metric.get_counter().get_value() as u64)
        })
    }
}

fn label(labels: &[(String, String)], name: &str) -> String {
    labels.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()).unwrap_or_default()
}

pub(crate) fn pack(body: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(body).unwrap()
}

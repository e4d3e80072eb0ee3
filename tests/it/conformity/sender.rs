//! The proxy as a sender: headers and bodies as an upstream of either version gets them.

use super::bodies::{ALL, CUSTOM, Series, Speaks, TYPE_1, TYPE_2, body, histogram, now};
use super::outgoing::{Sent, judge, sent, twos};
use super::rows::{Proxy, headers, written};
use crate::peer::{Heard, Line, Peer};
use crate::support::STALE;
use promdedup::proto::v2;
use promdedup::proto::v2::metadata::MetricType::Counter;
use std::collections::BTreeSet;
use std::path::Path;

const BOTH: [Speaks; 2] = [Speaks::One, Speaks::Two];

struct Stage {
    peer: Peer,
    _proxy: Proxy,
    line: Line,
    upstream: Speaks,
}

impl Stage {
    async fn start(upstream: Speaks) -> Self {
        let peer = Peer::start(200, "").await;
        if upstream == Speaks::Two {
            peer.says_what_it_has_written();
        }
        let version = if upstream == Speaks::One { "1.0" } else { "2.0" };
        let more = [("PROMDEDUP_UPSTREAM_PROTOCOL", version), ("PROMDEDUP_UPSTREAM_HEADERS", "X-Zone: a")];
        let proxy = Proxy::start(&peer.url(), &more);
        let line = proxy.line().await;
        Self { peer, _proxy: proxy, line, upstream }
    }

    async fn post(&mut self, headers: &str, body: &[u8]) -> Heard {
        self.line.post("/api/v1/receive", headers, body).await;
        self.line.hear().await
    }

    /// Sends series that have to be taken.
    async fn take(&mut self, speaks: Speaks, series: &[Series]) {
        let heard = self.post(&headers(speaks), &body(speaks, series)).await;
        assert_eq!(heard.status, 204, "{heard:?}");
    }

    /// What upstream has got so far, after a look at the rules.
    fn sent(&self) -> Vec<Sent> {
        let all = sent(&self.peer, self.upstream);
        judge(&all);
        all
    }
}

/// Whatever the sender said of itself, and whichever version it spoke.
#[tokio::test]
async fn headers_are_those_of_the_protocol_and_nobody_elses() {
    for upstream in BOTH {
        for speaks in BOTH {
            let mut stage = Stage::start(upstream).await;
            let own = "user-agent: Other/1\r\nauthorization: Bearer x\r\nthanos-replica: 1\r\nx-zone: b\r\n\
                       retry-attempt: 3\r\nx-custom: y\r\ncookie: z\r\n";
            let head = format!("{}{own}", headers(speaks));
            let heard = stage.post(&head, &body(speaks, &[Series::new("m").value(1.0)])).await;
            assert_eq!(heard.status, 204);
            let (headers, _) = stage.peer.requests().pop().expect("a request");
            let (kind, version) = if upstream == Speaks::One { (TYPE_1, "0.1.0") } else { (TYPE_2, "2.0.0") };
            for (name, value) in [
                ("content-encoding", "snappy"),
                ("content-type", kind),
                ("x-prometheus-remote-write-version", version),
                ("user-agent", concat!("promdedup/", env!("CARGO_PKG_VERSION"))),
                ("x-zone", "a"),
            ] {
                let all: Vec<_> = headers.get_all(name).iter().collect();
                assert_eq!(all, [value], "{name} of {speaks:?} to {upstream:?}");
            }
            for name in ["authorization", "thanos-replica", "retry-attempt", "x-custom", "cookie"] {
                assert!(!headers.contains_key(name), "{name}");
            }
        }
    }
}

/// Bodies that Prometheus has sent, of both replicas, in both protocols.
#[tokio::test]
async fn real_bodies_leave_by_the_rules() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let files = std::fs::read_dir(folder).expect("a folder").map(|file| file.expect("a file").path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "bin")).collect();
    files.sort();
    assert!(files.len() > 40);
    for upstream in BOTH {
        let mut stage = Stage::start(upstream).await;
        for path in &files {
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            let speaks = if name.starts_with("rw1") { Speaks::One } else { Speaks::Two };
            // Each beginning of a name is a story of its own, and so a tenant.
            let head = format!("{}thanos-tenant: {}\r\n", headers(speaks), &name[..7]);
            let heard = stage.post(&head, &std::fs::read(path).expect("bytes")).await;
            assert_eq!(heard.status, 204, "{name}: {heard:?}");
        }
        assert!(sent(&stage.peer, upstream).len() > 1000);
        for series in sent(&stage.peer, upstream) {
            judge(&[series]);
        }
    }
}

#[tokio::test]
async fn labels_leave_sorted_unique_and_without_the_replicas() {
    let shapes = || {
        [
            Series::of(&[("__name__", "m"), ("Zed", "1"), ("zone", "z"), ("a", "2"), ("empty", "")]),
            Series::of(&[("__name__", "m"), ("a.b", "1"), ("a_b", "2"), ("é", "3")]),
            Series::of(&[("__name__", "m"), ("prometheus", "k8s"), ("prometheus_replicas", "no")]),
        ]
        .map(|series| series.value(1.0))
    };
    for upstream in BOTH {
        for speaks in BOTH {
            for replica in [None, Some("a")] {
                let mut stage = Stage::start(upstream).await;
                stage.take(speaks, &shapes().map(|series| series.by(replica))).await;
                let labels: Vec<_> = stage.sent().into_iter().map(|series| series.labels).collect();
                let expected = shapes().map(|series| {
                    let mut labels = series.labels;
                    labels.retain(|(_, value)| !value.is_empty());
                    labels.sort();
                    labels
                });
                assert_eq!(labels, expected);
            }
        }
    }
}

/// A float, and a time in milliseconds, as they came: NaNs, and the one that ends a series, bit for bit.
#[tokio::test]
async fn values_and_times_leave_as_they_came() {
    let bits = [
        STALE,
        0x7ff8_0000_0000_0001,
        0x7ff0_0000_0000_0001,
        0xffff_ffff_ffff_ffff,
        f64::INFINITY.to_bits(),
        1,
        0.1_f64.to_bits(),
    ];
    for upstream in BOTH {
        for speaks in BOTH {
            let mut stage = Stage::start(upstream).await;
            let mut expected = Vec::new();
            for (nth, bits) in bits.into_iter().enumerate() {
                let series = Series::new("m").label("nth", &nth.to_string());
                let series = series.by(Some("a")).value(f64::from_bits(bits));
                stage.take(speaks, &[series]).await;
                expected.push(vec![(now(), bits, 0)]);
            }
            let samples: Vec<_> = stage.sent().into_iter().map(|series| series.samples).collect();
            assert_eq!(samples, expected);
        }
    }
}

/// Where a series ends, which only its sender knows, its end is told: once.
#[tokio::test]
async fn a_stale_marker_ends_a_series_once() {
    for upstream in BOTH {
        let mut stage = Stage::start(upstream).await;
        for (replica, seconds) in [("a", -30), ("b", -25), ("a", -15), ("b", -10)] {
            stage.take(Speaks::Two, &[Series::new("m").by(Some(replica)).value_at(1.0, seconds)]).await;
        }
        for (replica, seconds) in [("a", 0), ("b", 5)] {
            let marker = Series::new("m").value_at(f64::from_bits(STALE), seconds);
            stage.take(Speaks::Two, &[marker.by(Some(replica))]).await;
        }
        let all: Vec<_> = stage.sent().into_iter().flat_map(|series| series.samples).collect();
        let markers: Vec<_> = all.iter().filter(|(_, bits, _)| *bits == STALE).collect();
        assert_eq!(markers.len(), 1, "{all:?}");
        assert_eq!(all.last(), Some(markers[0]), "nothing follows it");
    }
}

#[tokio::test]
async fn a_series_leaves_in_the_order_of_its_times() {
    for upstream in BOTH {
        let mut stage = Stage::start(upstream).await;
        let series = |replica, at: &[i64]| {
            at.iter().fold(Series::new("m").by(Some(replica)), |series, at| series.value_at(1.0, *at))
        };
        // Falling in a series, over series of one request, over requests, and of the other replica.
        stage.take(Speaks::One, &[series("a", &[-90, -105])]).await;
        stage.take(Speaks::Two, &[series("a", &[-60]), series("a", &[-75])]).await;
        stage.take(Speaks::One, &[series("b", &[-85, -70, -55])]).await;
        stage.take(Speaks::One, &[series("a", &[-75]), series("a", &[-45])]).await;
        let times: Vec<_> =
            stage.sent().into_iter().flat_map(|series| series.samples).map(|(at, ..)| at - now()).collect();
        assert_eq!(times, [-105, -90, -75, -60, -45].map(|seconds: i64| seconds * 1000));
    }
}

/// Each text once, the empty one first, whatever table the sender had.
#[tokio::test]
async fn symbols_are_each_there_once() {
    let mut stage = Stage::start(Speaks::Two).await;
    let twins = ["job", "m"].map(|name| {
        Series::new(name)
            .label("job", "m")
            .label("m", "job")
            .value(1.0)
            .exemplar(&[("job", "m"), ("empty", "")], 1.0)
            .told(Counter, "job", "m")
    });
    stage.take(Speaks::Two, &twins).await;
    stage.take(Speaks::One, &twins.map(|series| series.label("z", "z").by(Some("a")))).await;
    let all = stage.sent();
    assert_eq!(all.len(), 4);
    let symbols: Vec<BTreeSet<String>> =
        twos(&stage.peer).into_iter().map(|request| request.symbols.into_iter().collect()).collect();
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(symbols[0], texts(&["", "__name__", "job", "m", "empty"]));
    assert_eq!(symbols[1], texts(&["", "__name__", "job", "m", "empty", "z"]));
}

/// What a sender of 2.0 says of its samples reaches an upstream of 2.0; one of 1.0 gets what 1.0 has a place for.
#[tokio::test]
async fn histograms_exemplars_and_starts_travel() {
    let trace = [("trace_id", "1"), ("span_id", "2")];
    let all = || {
        [
            Series::new("c").value(1.0).exemplar(&trace, 0.5).started(-60),
            Series::new("h").histogram(histogram(1.0, ALL)).exemplar(&trace, 1.0).started(-60),
            Series::new("n").histogram(histogram(f64::from_bits(STALE), CUSTOM)),
        ]
        .map(|series| series.by(Some("a")))
    };
    for upstream in BOTH {
        for speaks in BOTH {
            let mut stage = Stage::start(upstream).await;
            stage.take(speaks, &all()).await;
            let got = stage.sent();
            let starts = upstream == Speaks::Two && speaks == Speaks::Two;
            for (got, given) in got.iter().zip(all()) {
                let start = |at: i64| if starts { at } else { 0 };
                let samples: Vec<_> = given
                    .samples
                    .iter()
                    .map(|s| (s.timestamp, s.value.to_bits(), start(s.start_timestamp)))
                    .collect();
                assert_eq!(got.samples, samples);
                // Compared as bytes: a NaN equals nothing.
                let encoded = |h: &v2::Histogram| prost::Message::encode_to_vec(h);
                let histograms: Vec<_> = given
                    .histograms
                    .iter()
                    .map(|h| {
                        encoded(&v2::Histogram { start_timestamp: start(h.start_timestamp), ..h.clone() })
                    })
                    .collect();
                assert_eq!(got.histograms.iter().map(encoded).collect::<Vec<_>>(), histograms);
                let mut exemplars = given.exemplars;
                exemplars.iter_mut().for_each(|(labels, ..)| labels.sort());
                let mut have: Vec<_> = got.exemplars.clone();
                have.iter_mut().for_each(|(labels, ..)| labels.sort());
                let exemplars: Vec<_> =
                    exemplars.into_iter().map(|(labels, value, at)| (labels, value.to_bits(), at)).collect();
                assert_eq!(have, exemplars);
            }
            assert_eq!(got.len(), 3);
        }
    }
}

/// A series of histograms ends with a float, which leaves as a histogram beside one: in 2.0 the two are never in one
/// `TimeSeries`.
#[tokio::test]
async fn floats_and_histograms_are_never_in_one_series_of_2() {
    let mut stage = Stage::start(Speaks::Two).await;
    let hist =
        |replica, seconds| Series::new("h").by(Some(replica)).histogram_at(histogram(1.0, ALL), seconds);
    for (replica, seconds) in [("a", -90), ("b", -85), ("a", -75), ("b", -70), ("b", -55)] {
        stage.take(Speaks::Two, &[hist(replica, seconds)]).await;
    }
    // The owner is gone; the other one ends the series, and what is held of it goes first.
    let marker = Series::new("h").by(Some("b")).value_at(f64::from_bits(STALE), -40);
    stage.take(Speaks::Two, &[marker]).await;
    // A sender of 1.0 may mix them.
    let mixed = Series::new("mixed").by(Some("a")).histogram_at(histogram(1.0, ALL), -10).value_at(1.0, 0);
    stage.take(Speaks::One, &[mixed]).await;
    let all = stage.sent();
    for series in &all {
        assert!(series.samples.is_empty() || series.histograms.is_empty(), "{series:?}");
    }
    let histograms: Vec<_> = all.iter().flat_map(|series| &series.histograms).collect();
    let markers = histograms.iter().filter(|histogram| histogram.sum.to_bits() == STALE).count();
    let floats = all.iter().map(|series| series.samples.len()).sum::<usize>();
    assert_eq!((histograms.len(), markers, floats), (5, 1, 1), "{all:?}");
}

/// Exemplars and metadata of Prometheus come alone; in 2.0 each `TimeSeries` has a sample or a histogram.
#[tokio::test]
async fn each_series_of_2_has_a_sample_or_a_histogram() {
    let trace = [("trace_id", "1")];
    for (speaks, replica) in [(Speaks::One, None), (Speaks::One, Some("a")), (Speaks::Two, Some("a"))] {
        let mut stage = Stage::start(Speaks::Two).await;
        let m = Series::new("m").by(replica);
        let alone = m.clone().exemplar(&trace, 1.0);
        stage.take(speaks, &[m.clone().value(1.0), alone.clone(), m.told(Counter, "Help.", "")]).await;
        // Nothing of the series is with it.
        let heard = stage.post(&headers(speaks), &body(speaks, &[alone])).await;
        assert_eq!(heard.status, 204);
        let count = (speaks == Speaks::Two).then_some(1);
        assert_eq!(written(&heard)[2], count);
        let all = stage.sent();
        for series in &all {
            assert!(!series.samples.is_empty() || !series.histograms.is_empty(), "{series:?}");
        }
        assert_eq!(
            all.iter().map(|series| series.exemplars.len()).sum::<usize>(),
            1,
            "the first is attached"
        );
    }
}

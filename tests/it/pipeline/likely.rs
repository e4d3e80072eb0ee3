//! Most series are guessed by their ends: what comes of that must be what comes of walking over them.

use crate::support::{Ask, Fake, pack, sent};
use promdedup::pipeline::{Incoming, Protocol, Reply};
use promdedup::proto::{Label, Sample, TimeSeries, WriteRequest};
use prost::Message as _;

const TIME_MS: i64 = 1_700_000_000_000;

fn label(name: &str, value: &str) -> Label {
    Label { name: name.into(), value: value.into() }
}

fn usual(name: &str, later_ms: i64) -> TimeSeries {
    TimeSeries {
        labels: vec![label("__name__", name), label("prometheus_replica", "a"), label("zone", "z")],
        samples: vec![Sample { value: 1.0, timestamp: TIME_MS + later_ms }],
        ..TimeSeries::default()
    }
}

async fn serve(ask: &Ask, raw: &[u8], now_ms: i64) -> Reply {
    let incoming = Incoming {
        protocol: Protocol::One,
        body: pack(raw).into(),
        tenant: None,
        retry_attempt: 0,
        request_id: None,
        traceparent: None,
        verbatim: None,
        from_peer: false,
    };
    ask.pipeline.serve(incoming, now_ms).await
}

/// A field of the request or of a series that has a length.
fn put(out: &mut Vec<u8>, key: u8, content: &[u8]) {
    out.push(key);
    prost::encoding::encode_varint(content.len() as u64, out);
    out.extend_from_slice(content);
}

/// The same request, each sample with its time before its value: that looks like nothing that is guessed.
fn unusual(request: &WriteRequest) -> Vec<u8> {
    let mut out = Vec::new();
    for ts in &request.timeseries {
        let mut message = TimeSeries { samples: vec![], exemplars: vec![], ..ts.clone() }.encode_to_vec();
        for sample in &ts.samples {
            let mut content = vec![0x10];
            prost::encoding::encode_varint(sample.timestamp as u64, &mut content);
            content.push(0x09);
            content.extend_from_slice(&sample.value.to_bits().to_le_bytes());
            put(&mut message, 0x12, &content);
        }
        for exemplar in &ts.exemplars {
            // An unknown field of its own makes it longer than the one before.
            let mut content = exemplar.encode_to_vec();
            content.resize(content.len() + 2 * (out.len() % 7 + 1), 0x78);
            put(&mut message, 0x1a, &content);
        }
        put(&mut out, 0x0a, &message);
    }
    for metadata in &request.metadata {
        put(&mut out, 0x1a, &metadata.encode_to_vec());
    }
    out
}

/// What upstream got, encoded as prost does: a stale marker is not equal to itself.
fn received(fake: &Fake) -> Vec<Vec<u8>> {
    let encode = |body: Vec<u8>| WriteRequest::decode(body.as_slice()).unwrap().encode_to_vec();
    fake.bodies().into_iter().map(encode).collect()
}

#[tokio::test]
async fn what_is_guessed_goes_on_as_what_is_walked_over() {
    let usual = Ask::with(|wishes| wishes.series_max = 10_000);
    let odd = Ask::with(|wishes| wishes.series_max = 10_000);
    let mut files: Vec<_> = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus"))
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("rw1-sequence"))
        .collect();
    files.sort();
    assert_eq!(files.len(), 12);
    // Once more: then all series are known.
    for file in files.iter().chain(&files) {
        let body = snap::raw::Decoder::new().decompress_vec(&std::fs::read(file).unwrap()).unwrap();
        let mut request = WriteRequest::decode(body.as_slice()).unwrap();
        // Nothing is guessed of them.
        request.timeseries.retain(|ts| ts.histograms.is_empty());
        let mut replies = Vec::new();
        for (ask, body) in [(&usual.0, request.encode_to_vec()), (&odd.0, unusual(&request))] {
            replies.push(serve(ask, &body, i64::MAX / 2).await);
        }
        assert_eq!(replies[0], replies[1], "{}", file.display());
        assert_eq!(replies[0].status, 204);
    }
    let (usual_bodies, odd_bodies) = (received(&usual.1), received(&odd.1));
    assert!(usual_bodies.len() >= 6, "{} requests", usual_bodies.len());
    assert!(usual_bodies == odd_bodies, "what upstream got differs");
    assert_eq!(usual.0.samples(), odd.0.samples());
}

/// A field that nobody knows, with bytes in it that look like the end of a series: it has no labels at all.
#[tokio::test]
async fn what_only_looks_like_a_series_is_none() {
    let (ask, fake) = crate::support::pipeline();
    for scrape in 0..2 {
        let [a, b] = ["a", "b"].map(|name| usual(name, scrape * 15_000).encode_to_vec());
        let mut odd = Vec::new();
        put(&mut odd, 0x4a, &usual("c", scrape * 15_000).encode_to_vec());
        let mut body = Vec::new();
        [&a, &odd, &b].iter().for_each(|message| put(&mut body, 0x0a, message));
        let reply = serve(&ask, &body, TIME_MS).await;
        assert_eq!(
            (reply.status, reply.text.as_str()),
            (400, "0 of 2 samples refused, the rest delivered: series 2: series has no labels")
        );
    }
    let seconds = TIME_MS / 1000;
    let line = |name, later: i64| format!("{name}{{zone=z}} {}=1", seconds + later);
    assert_eq!(sent(&fake), [line("a", 0), line("b", 0), line("a", 15), line("b", 15)]);
}

/// An error is that of the walk, with its place, whatever has been guessed before it.
#[tokio::test]
async fn errors_are_those_of_the_walk() {
    let (ask, fake) = crate::support::pipeline();
    let whole =
        WriteRequest { timeseries: ["a", "b", "c"].map(|name| usual(name, 0)).to_vec(), metadata: vec![] };
    assert_eq!(serve(&ask, &whole.encode_to_vec(), TIME_MS).await.status, 204);
    let mut body = whole.encode_to_vec();
    // The key of the first label of `b`, which is guessed; and behind all, a series that nobody guesses.
    let second = body.len() / 3 + 2;
    assert_eq!(body[second], 0x0a);
    body[second] = 0x0b;
    body.extend_from_slice(&[0x0a, 2, 0x0b, 0]);
    let reply = serve(&ask, &body, TIME_MS).await;
    assert_eq!(reply.status, 400, "{reply:?}");
    assert!(reply.text.contains("in series 2: field 1 is a group"), "{}", reply.text);
    assert_eq!(fake.requests(), 1);
}

//! Requests as such: type, encoding, version, bodies that are none, and what each answer has to say.

use super::bodies::{Series, Speaks, TYPE_1, TYPE_2, body, now, one, two};
use super::rows::{Proxy, headers, says_why, written};
use crate::peer::{Heard, Line, Peer};
use crate::support::{STALE, pack};
use promdedup::stand_in::Point;
use promdedup::stand_in::thanos::{Fault, Thanos};
use prost::Message;

fn up() -> Series {
    Series::of(&[("__name__", "up"), ("job", "testjob")]).value(1.0)
}

struct Stage {
    thanos: Thanos,
    _proxy: Proxy,
    line: Line,
}

impl Stage {
    async fn start() -> Self {
        let thanos = Thanos::start().await.expect("a stand-in");
        let proxy = Proxy::start(&thanos.url(), &[]);
        let line = proxy.line().await;
        Self { thanos, _proxy: proxy, line }
    }

    async fn post(&mut self, headers: &str, body: &[u8]) -> Heard {
        self.line.post("/api/v1/receive", headers, body).await;
        let heard = self.line.hear().await;
        says_why(&heard);
        heard
    }
}

const NONE: [Option<u64>; 3] = [None; 3];
const ZEROS: [Option<u64>; 3] = [Some(0); 3];

#[tokio::test]
async fn other_types_are_refused_with_415() {
    let mut stage = Stage::start().await;
    for kind in [
        "application/json",
        "image/png",
        "text/plain",
        "application/x-protobuf;proto=io.prometheus.write.v3.Request",
        "application/x-protobuf;proto=prometheus.writerequest",
    ] {
        // Who says that he speaks 2.0 is told what was written, also where the type says nothing of it.
        for (speaks, version, counts) in [(Speaks::One, "0.1.0", NONE), (Speaks::Two, "2.0.0", ZEROS)] {
            let head = format!(
                "content-type: {kind}\r\ncontent-encoding: snappy\r\nx-prometheus-remote-write-version: {version}\r\n"
            );
            let heard = stage.post(&head, &body(speaks, &[up()])).await;
            assert_eq!((heard.status, written(&heard)), (415, counts), "{kind} {version}");
        }
    }
    assert_eq!(stage.thanos.totals().requests, 0);
}

#[tokio::test]
async fn other_encodings_are_refused_with_415() {
    let mut stage = Stage::start().await;
    for encoding in ["gzip", "deflate", "zstd", "x-snappy-framed"] {
        for (speaks, kind, counts) in [(Speaks::One, TYPE_1, NONE), (Speaks::Two, TYPE_2, ZEROS)] {
            let head = format!("content-type: {kind}\r\ncontent-encoding: {encoding}\r\n");
            let heard = stage.post(&head, &body(speaks, &[up()])).await;
            assert_eq!((heard.status, written(&heard)), (415, counts), "{encoding} {kind}");
        }
    }
    assert_eq!(stage.thanos.totals().requests, 0);
}

/// Read as what its type says it would come to nothing, and be acknowledged.
#[tokio::test]
async fn a_body_of_two_under_the_type_of_one_is_refused() {
    let mut stage = Stage::start().await;
    let heard = stage.post(&headers(Speaks::One), &body(Speaks::Two, &[up()])).await;
    assert_eq!((heard.status, written(&heard)), (400, NONE), "{heard:?}");
    assert!(heard.text.contains("remote write 2.0"), "{heard:?}");
    let head = headers(Speaks::One).replace("0.1.0", "2.0.0");
    let heard = stage.post(&head, &body(Speaks::Two, &[up()])).await;
    assert_eq!((heard.status, written(&heard)), (400, ZEROS), "{heard:?}");
    assert_eq!(stage.thanos.totals().requests, 0);
}

/// Also where it is not the pipeline that answers, 2.0 is told, and 1.0 is not.
#[tokio::test]
async fn another_path_or_method_writes_nothing_and_says_so() {
    let mut stage = Stage::start().await;
    for (speaks, counts) in [(Speaks::One, NONE), (Speaks::Two, ZEROS)] {
        let line = &mut stage.line;
        line.post("/api/v1/other", &headers(speaks), &body(speaks, &[up()])).await;
        let heard = line.hear().await;
        says_why(&heard);
        assert_eq!((heard.status, written(&heard)), (404, counts), "{heard:?}");
        let heard = line.get("/api/v1/receive", &headers(speaks)).await;
        says_why(&heard);
        assert_eq!((heard.status, written(&heard)), (405, counts), "{heard:?}");
    }
    assert_eq!(stage.thanos.totals().requests, 0);
}

/// The frame format of snappy, with one block that is not compressed.
fn framed(raw: &[u8]) -> Vec<u8> {
    let length = (raw.len() as u32 + 4).to_le_bytes();
    [b"\xff\x06\x00\x00sNaPpY\x01", &length[..3], &[0; 4], raw].concat()
}

#[tokio::test]
async fn bodies_that_are_none_are_refused_with_400() {
    let mut stage = Stage::start().await;
    for (speaks, counts) in [(Speaks::One, NONE), (Speaks::Two, ZEROS)] {
        let fine = body(speaks, &[up()]);
        let raw = match speaks {
            Speaks::One => one(&[up()]).encode_to_vec(),
            Speaks::Two => two(&[up()]).encode_to_vec(),
        };
        let with_first = |byte| [&[byte], &fine[1..]].concat();
        for (what, body) in [
            ("another length", with_first(b'0')),
            ("no length", with_first(0xff)),
            ("cut off", fine[..fine.len() - 1].to_vec()),
            ("nothing", vec![]),
            ("not compressed", raw.clone()),
            ("framed", framed(&raw)),
            ("no protobuf", pack(b"up{job=\"testjob\"} 1\n")),
            ("protobuf that is cut off", pack(&raw[..raw.len() - 1])),
        ] {
            let heard = stage.post(&headers(speaks), &body).await;
            assert_eq!((heard.status, written(&heard)), (400, counts), "{what} {speaks:?}: {heard:?}");
        }
    }
    assert_eq!(stage.thanos.totals().requests, 0);
}

#[tokio::test]
async fn symbols_that_are_not_there_are_refused_with_400() {
    let mut stage = Stage::start().await;
    let fine = two(&[up().exemplar(&[("trace_id", "1")], 1.0), Series::new("other").value(1.0)]);
    type Change = fn(&mut promdedup::proto::v2::Request);
    let changes: [(&str, Change); 5] = [
        ("a label beyond the symbols", |request| request.timeseries[1].labels_refs[1] = 99),
        ("an odd number", |request| request.timeseries[1].labels_refs.truncate(1)),
        ("an exemplar's beyond the symbols", |request| {
            request.timeseries[0].exemplars[0].labels_refs[0] = 99;
        }),
        ("no symbols", |request| request.symbols.clear()),
        ("the first is a text", |request| request.symbols[0] = "x".to_owned()),
    ];
    for (what, change) in changes {
        let mut request = fine.clone();
        change(&mut request);
        let heard = stage.post(&headers(Speaks::Two), &pack(&request.encode_to_vec())).await;
        assert_eq!((heard.status, written(&heard)), (400, ZEROS), "{what}: {heard:?}");
    }
    assert_eq!(stage.thanos.totals().samples, 0);
}

/// Of 1.0 senders, old ones included, no version needs to be known; and they are not told what is written.
#[tokio::test]
async fn the_type_alone_says_which_version_a_body_is_of() {
    let mut stage = Stage::start().await;
    let written_1 = "application/x-protobuf;proto=prometheus.WriteRequest";
    let spaced = "application/x-protobuf; proto=\"io.prometheus.write.v2.Request\"";
    for (nth, (kind, version, speaks)) in [
        (Some(TYPE_1), Some("0.1.0"), Speaks::One),
        (Some(TYPE_1), None, Speaks::One),
        (Some(TYPE_1), Some("2.0.0"), Speaks::One),
        (Some(TYPE_1), Some("1.9.9"), Speaks::One),
        (Some(written_1), Some("0.1.0"), Speaks::One),
        (None, None, Speaks::One),
        (Some(TYPE_2), Some("2.0.0"), Speaks::Two),
        (Some(TYPE_2), None, Speaks::Two),
        (Some(TYPE_2), Some("0.1.0"), Speaks::Two),
        (Some(TYPE_2), Some("2.9.0"), Speaks::Two),
        (Some(spaced), Some("2.0.0"), Speaks::Two),
    ]
    .into_iter()
    .enumerate()
    {
        let kind = kind.map(|kind| format!("content-type: {kind}\r\n")).unwrap_or_default();
        let version = version.map(|version| format!("x-prometheus-remote-write-version: {version}\r\n"));
        let head = format!(
            "{kind}content-encoding: snappy\r\n{}thanos-tenant: {nth}\r\n",
            version.unwrap_or_default()
        );
        let heard = stage.post(&head, &body(speaks, &[up()])).await;
        let counts = if speaks == Speaks::One { NONE } else { [Some(1), Some(0), Some(0)] };
        assert_eq!((heard.status, written(&heard)), (204, counts), "{head}");
        assert_eq!(stage.thanos.stored(&nth.to_string()).len(), 1, "{head}");
    }
}

/// A newer minor version may have fields that nobody here knows.
#[tokio::test]
async fn unknown_fields_are_ignored() {
    let mut stage = Stage::start().await;
    // Number 200, of each wire type.
    let unknown = [&b"\xc0\x0c\x01"[..], b"\xc1\x0c12345678", b"\xc2\x0c\x03abc", b"\xc5\x0c1234"].concat();
    let name = b"\x0a\x08__name__\x12\x02up";
    let inside = |message: &[u8]| [message, &unknown].concat();
    let field = |key: u8, content: &[u8]| [&[key, content.len() as u8], content].concat();
    let mut time = vec![0x10];
    let mut left = now() as u64;
    while left >= 0x80 {
        time.push(left as u8 | 0x80);
        left >>= 7;
    }
    time.push(left as u8);
    let sample = inside(&[&[0x09], 1_f64.to_le_bytes().as_slice(), &time].concat());
    let one = [field(0x0a, &inside(name)), field(0x12, &sample), unknown.clone()].concat();
    let one = [field(0x0a, &one), unknown.clone()].concat();
    let two = [field(0x0a, &[1, 2]), field(0x12, &sample), unknown.clone()].concat();
    let symbols = [field(0x22, b""), field(0x22, b"__name__"), field(0x22, b"up")].concat();
    let two = [symbols, field(0x2a, &two), unknown.clone()].concat();
    for (speaks, raw, counts) in [(Speaks::One, one, NONE), (Speaks::Two, two, [Some(1), Some(0), Some(0)])] {
        let head = format!("{}thanos-tenant: {speaks:?}\r\n", headers(speaks));
        let heard = stage.post(&head, &pack(&raw)).await;
        assert_eq!((heard.status, written(&heard)), (204, counts), "{heard:?}");
        let stored = stage.thanos.samples_of_tenant(&format!("{speaks:?}"), &[("__name__", "up")]);
        assert_eq!(stored, [Point::float(now(), 1.0)], "{speaks:?}");
    }
}

#[tokio::test]
async fn only_post_is_a_write() {
    let mut stage = Stage::start().await;
    let heard = stage.line.get("/api/v1/receive", "").await;
    assert_eq!(heard.status, 405);
    assert!(heard.has("allow: post"), "{heard:?}");
    says_why(&heard);
}

/// What can be taken later is no fault of the data: 5xx, with zeros, and nothing of it is remembered as written.
#[tokio::test]
async fn what_can_be_taken_later_is_answered_with_5xx() {
    for speaks in [Speaks::One, Speaks::Two] {
        let mut stage = Stage::start().await;
        let body = body(speaks, &[up().by(Some("a")).exemplar(&[("trace_id", "1")], 1.0)]);
        stage.thanos.inject(Fault::status(503));
        let failed = if speaks == Speaks::One { NONE } else { ZEROS };
        for _ in 0..2 {
            let heard = stage.post(&headers(speaks), &body).await;
            assert_eq!((heard.status, written(&heard)), (503, failed), "{heard:?}");
            assert!(heard.has("retry-after: 1"), "{heard:?}");
        }
        stage.thanos.heal();
        let taken = if speaks == Speaks::One { NONE } else { [Some(1), Some(0), Some(1)] };
        // Again and again: it stays taken, and is stored once.
        for _ in 0..2 {
            let heard = stage.post(&headers(speaks), &body).await;
            assert_eq!((heard.status, written(&heard)), (204, taken), "{heard:?}");
        }
        let stored = stage.thanos.samples_of(&[("__name__", "up"), ("job", "testjob")]);
        assert_eq!(stored, [Point::float(now(), 1.0)]);
        assert_eq!(stage.thanos.violations().of_samples(), 0);
    }
}

/// What can never be taken is 4xx, also if upstream says so: 400 in both protocols, whatever it called it.
#[tokio::test]
async fn what_can_never_be_taken_is_answered_with_400() {
    for (status, speaks) in [(400, Speaks::One), (409, Speaks::Two), (422, Speaks::Two)] {
        let peer = Peer::start(status, "add 1 samples: out of order sample").await;
        let proxy = Proxy::start(&peer.url(), &[]);
        let mut line = proxy.line().await;
        line.post("/api/v1/receive", &headers(speaks), &body(speaks, &[up()])).await;
        let heard = line.hear().await;
        let counts = if speaks == Speaks::One { NONE } else { ZEROS };
        assert_eq!((heard.status, written(&heard)), (400, counts), "{heard:?}");
        assert!(heard.text.contains("out of order sample"), "{heard:?}");
        says_why(&heard);
    }
}

/// A whole request can be bad in one sample: the rest is taken, and counted.
#[tokio::test]
async fn samples_of_the_future_are_refused_and_the_rest_is_not() {
    let mut stage = Stage::start().await;
    let series = |name: &str| Series::new(name).by(Some("a"));
    let all = [
        series("now").value(1.0).exemplar(&[("trace_id", "1")], 1.0),
        series("future").value_at(1.0, 3600),
        series("stale").value(f64::from_bits(STALE)),
    ];
    let heard = stage.post(&headers(Speaks::Two), &body(Speaks::Two, &all)).await;
    assert_eq!((heard.status, written(&heard)), (400, [Some(2), Some(0), Some(1)]), "{heard:?}");
    assert!(heard.text.contains("1 of 3 samples refused"), "{heard:?}");
    assert_eq!(stage.thanos.samples_of(&[("__name__", "stale")]), [Point::stale(now())]);
    assert_eq!(stage.thanos.totals().samples, 2);
}

//! Hostile bytes on the senders' port: what is no request is refused, what is one too many or too big costs little, and nothing is
//! acknowledged that upstream has not got.

mod bytes;

use crate::peer::{Line, Peer, soon};
use crate::tls::Proxy;
use promdedup::stand_in::request::{Body, compress};

const PATH: &str = "/api/v1/receive";

/// One sample, of a series without a replica label: it goes upstream, whatever went before.
fn sample(at_ms: i64) -> Vec<u8> {
    Body::new().series(&[("__name__", "m")], &[(at_ms, 1.0)]).compressed().to_vec()
}

/// A request of which nothing but the framing and the body is said.
fn request(framing: &str, body: &[u8]) -> Vec<u8> {
    [format!("POST {PATH} HTTP/1.1\r\nhost: x\r\n{framing}\r\n").as_bytes(), body].concat()
}

fn chunked(body: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", body.len()).as_bytes(), body, b"\r\n0\r\n\r\n"].concat()
}

/// The statuses of all answers until the connection is closed, as it is after a last request, if not before.
async fn statuses(proxy: &Proxy, bytes: &[u8]) -> Vec<u16> {
    let mut line = Line::open(proxy.at.data).await;
    line.try_say(bytes).await;
    line.try_say(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    all_of(&line.rest().await)
}

fn all_of(answers: &[u8]) -> Vec<u16> {
    let answers = String::from_utf8_lossy(answers);
    let codes = answers.match_indices("HTTP/1.1 ").map(|(at, found)| &answers[at + found.len()..]);
    codes.map(|code| code[..3].parse().expect("a status")).collect()
}

/// Where does one request end and the next one begin? Whoever stands in front must not be led to another answer than ours.
#[tokio::test]
async fn requests_of_which_the_end_is_in_doubt_are_refused() {
    let peer = Peer::start(200, "").await;
    let proxy = Proxy::start(&peer.url(), &[]);
    let body = sample(1);
    let length = |length: &str| format!("content-length: {length}\r\n");
    let good = body.len().to_string();
    let next = request(&length(&good), &body);
    let odd = |coding: &str| request(&format!("transfer-encoding: {coding}\r\n"), &chunked(&body));
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("two lengths", request(&(length("1") + &length(&good)), &body)),
        ("two lengths in one", request(&length(&format!("{good}, 1")), &body)),
        ("a signed length", request(&length(&format!("+{good}")), &body)),
        ("a negative length", request(&length("-1"), &body)),
        ("a length in hexadecimal", request(&length("0x10"), &body)),
        ("a length beyond 64 bits", request(&length("99999999999999999999999"), &body)),
        ("another coding", odd("gzip")),
        ("another coding before", odd("gzip, chunked")),
        ("another coding after", odd("chunked, gzip")),
        ("chunked twice", odd("chunked, chunked")),
        ("chunked in two lines", odd("chunked\r\ntransfer-encoding: chunked")),
        ("almost chunked", odd("xchunked")),
        ("chunked in quotes", odd("\"chunked\"")),
        ("chunked and a control character", odd("chunked\x0b")),
        ("a folded line", request(&format!("x-folded: a\r\n b\r\n{}", length(&good)), &body)),
        ("a space before the colon", request(&format!("content-length : {good}\r\n"), &body)),
        ("a zero byte", request(&format!("x-zero: a\0b\r\n{}", length(&good)), &body)),
        ("no colon", request(&format!("x-none\r\n{}", length(&good)), &body)),
        ("a chunk size beyond 64 bits", request("transfer-encoding: chunked\r\n", b"fffffffffffffffff\r\n")),
        ("a chunk size that is none", request("transfer-encoding: chunked\r\n", b"-1\r\n")),
        ("HTTP/1.0 in chunks", {
            let text = request("transfer-encoding: chunked\r\n", &chunked(&body));
            String::from_utf8_lossy(&text).replace("HTTP/1.1", "HTTP/1.0").into_bytes()
        }),
    ];
    for (what, bytes) in cases {
        // The request behind it is never looked at.
        let heard = statuses(&proxy, &[bytes, next.clone()].concat()).await;
        assert!(matches!(heard[..], [] | [400]), "{what}: {heard:?}");
        assert!(peer.requests().is_empty(), "{what}: something was delivered");
    }
    // Both, in either order: by RFC 9112, 6.1, the chunks count, and the connection ends with that request.
    for framing in [
        "content-length: 3\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 3\r\n",
    ] {
        let before = peer.requests().len();
        let heard = statuses(&proxy, &[request(framing, &chunked(&body)), next.clone()].concat()).await;
        assert_eq!(heard, [204], "{framing}");
        assert_eq!(peer.requests().len() - before, 1);
    }
}

/// The memory that a body claims is judged before it is taken; a claim that does not hold delivers nothing.
#[tokio::test]
async fn bombs_and_lies_about_length_cost_nothing_and_deliver_nothing() {
    let peer = Peer::start(200, "").await;
    let proxy = Proxy::start(&peer.url(), &[]);
    let claim = |length: u64| {
        let mut claim = Vec::new();
        let mut left = length;
        while left >= 0x80 {
            claim.push(left as u8 | 0x80);
            left >>= 7;
        }
        claim.push(left as u8);
        claim
    };
    let true_body = sample(1);
    let raw = snap::raw::Decoder::new().decompress_vec(&true_body).expect("ours");
    let lies = |length: u64| [claim(length), true_body[1..].to_vec()].concat();
    let zeros = compress(&vec![0; 40 << 20]).to_vec();
    for (what, body, status) in [
        ("a bomb above the bound", zeros, 413),
        ("a claim of 4 GiB", lies(u64::from(u32::MAX)), 413),
        ("a claim beyond 32 bits", lies(1 << 40), 400),
        ("a claim that never ends", vec![0xff; 100], 400),
        ("a claim of 30 MiB by nothing", claim(30 << 20), 400),
        ("a byte more than there is", lies(raw.len() as u64 + 1), 400),
        ("a byte less than there is", lies(raw.len() as u64 - 1), 400),
        ("no block at all", b"hello".to_vec(), 400),
        ("nothing", vec![], 400),
        ("a varint without an end", compress(&[&[0x0a][..], &[0xff; 20]].concat()).to_vec(), 400),
        ("a length beyond the end", compress(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0x7f]).to_vec(), 400),
        ("a key of ten bytes", compress(&[0xff; 9]).to_vec(), 400),
        ("a group", compress(&[0x0b, 0x0c]).to_vec(), 400),
    ] {
        let heard = statuses(&proxy, &request(&format!("content-length: {}\r\n", body.len()), &body)).await;
        assert_eq!(heard[0], status, "{what}");
    }
    assert!(peer.requests().is_empty());
    let metrics = proxy.metrics().await;
    let hit = "promdedup_limit_hit_total{limit=\"body\"} 2";
    assert!(metrics.lines().any(|line| line == hit), "{metrics}");
    assert!(metrics.lines().any(|line| line == "promdedup_in_flight_bytes 0"));
}

/// Of a body that says at its beginning that it becomes too large no more is kept than that, and its sender sees why.
#[tokio::test]
async fn a_long_body_that_claims_too_much_takes_no_memory_while_it_arrives() {
    let peer = Peer::start(200, "").await;
    let proxy = Proxy::start(&peer.url(), &[]);
    let claim = [0x80, 0x80, 0x80, 0x80, 4]; // 1 GiB
    let body = [&claim[..], &vec![0; 200_000]].concat();
    let (begun, rest) = body.split_at(100_000);
    for (framing, rest) in [
        (format!("content-length: {}\r\n", body.len()), rest.to_vec()),
        ("transfer-encoding: chunked\r\n".to_owned(), [rest, b"\r\n0\r\n\r\n"].concat()),
    ] {
        let mut line = Line::open(proxy.at.data).await;
        let chunk = if framing.starts_with("tr") { format!("{:x}\r\n", body.len()) } else { String::new() };
        line.say([&request(&framing, chunk.as_bytes())[..], begun].concat()).await;
        // Of what is on its way nothing is left but the first bytes.
        proxy.comes_to_show("promdedup_in_flight_bytes 10").await;
        line.say(&rest).await;
        let heard = line.hear().await;
        assert_eq!(heard.status, 413, "{heard:?}");
        assert!(heard.text.contains("1073741824"), "{heard:?}");
        // The connection goes on.
        let body = sample(1);
        line.say(request(&format!("content-length: {}\r\n", body.len()), &body)).await;
        assert_eq!(line.hear().await.status, 204);
    }
    proxy.comes_to_show("promdedup_limit_hit_total{limit=\"body\"} 2").await;
    proxy.comes_to_show("promdedup_in_flight_bytes 0").await;
}

#[tokio::test]
async fn more_series_than_a_request_may_have_are_refused_as_a_whole() {
    let peer = Peer::start(200, "").await;
    let proxy = Proxy::start(&peer.url(), &[]);
    let empty_series = [0x0a, 0].repeat((1 << 18) + 1);
    let body = compress(&empty_series);
    let heard = statuses(&proxy, &request(&format!("content-length: {}\r\n", body.len()), &body)).await;
    assert_eq!(heard[0], 413);
    proxy.comes_to_show("promdedup_limit_hit_total{limit=\"request_items\"} 1").await;
    assert!(peer.requests().is_empty());
}

/// Each bound of labels, groups and replicas is hit, counted, and fills no table without end: metrics stay as many as they are.
#[tokio::test]
async fn floods_of_labels_groups_and_replicas_end_in_other() {
    let peer = Peer::start(200, "").await;
    let proxy = Proxy::start(&peer.url(), &[("PROMDEDUP_LABELS_MAX", "16")]);
    let post = async |body: Body| {
        let mut line = Line::open(proxy.at.data).await;
        line.post(PATH, "", &body.compressed()).await;
        line.hear().await
    };
    let flood = |groups: std::ops::Range<u32>, replicas: u32| {
        groups.fold(Body::new(), |body, group| {
            (0..replicas).fold(body, |body, replica| {
                let (group, replica) = (format!("g{group}"), format!("r{replica}"));
                let labels = [
                    ("__name__", "m"),
                    ("cluster", group.as_str()),
                    ("prometheus_replica", replica.as_str()),
                ];
                body.series(&labels, &[(1, 1.0)])
            })
        })
    };
    assert_eq!(post(flood(0..1_100, 1)).await.status, 204);
    assert_eq!(post(flood(0..1, 300)).await.status, 204);
    let many: Vec<_> = (0..17).map(|i| format!("l{i:02}")).collect();
    let labels: Vec<_> = many.iter().map(|name| (name.as_str(), "x")).chain([("__name__", "m")]).collect();
    assert_eq!(post(Body::new().series(&labels, &[(1, 1.0)])).await.status, 400);
    let metrics = proxy.metrics().await;
    let of = |start: &str| metrics.lines().filter(|line| line.starts_with(start)).count();
    // 1,000 groups, of which one has 8 replicas with names and one name for the rest; further groups; and labels that are none.
    assert_eq!(of("promdedup_samples_received_total{"), 1_000 + 7 + 1 + 1 + 1);
    assert_eq!(of("promdedup_samples_received_total{group=\"_other\""), 1);
    for (limit, times) in [("labels", 1), ("replicas", 300 - 255), ("groups", 0), ("series", 0)] {
        let hit = format!("promdedup_limit_hit_total{{limit=\"{limit}\"}} {times}");
        assert!(metrics.lines().any(|line| line == hit), "{hit}: {metrics}");
    }
}

/// Beyond the bounds of the window nothing is deduplicated, nothing is lost, and it shows.
#[tokio::test]
async fn a_flood_of_tenants_and_series_passes_and_is_counted() {
    let peer = Peer::start(200, "").await;
    let proxy = Proxy::start(&peer.url(), &[("PROMDEDUP_WINDOW_SERIES_MAX", "10")]);
    for tenant in 0..30 {
        let labels = [("__name__", "m"), ("prometheus_replica", "a")];
        let body = Body::new().series(&labels, &[(1, 1.0)]).compressed();
        let mut line = Line::open(proxy.at.data).await;
        line.post(PATH, &format!("thanos-tenant: t{tenant}\r\n"), &body).await;
        assert_eq!(line.hear().await.status, 204);
    }
    soon(async { while peer.requests().len() < 30 {} }).await;
    proxy.comes_to_show("promdedup_limit_hit_total{limit=\"series\"} 20").await;
    proxy.comes_to_show("promdedup_window_series 10").await;
}

//! Any bytes on the socket of a real listener: requests in every framing, cut, joined, and bent at chance. Whatever they are, what is
//! answered 2xx is upstream, nothing panics, and whoever comes next is served.

use super::{all_of, chunked, request, sample};
use crate::peer::{Line, Peer, soon};
use crate::tls::Proxy;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// In some seconds. More: `PROPTEST_CASES=2000 cargo test --test it hostile::bytes`.
const CASES: u32 = 8;
/// How many there are if nobody says.
const BY_DEFAULT: u32 = 256;
/// Connections in a case, most of which wait until they are cut off.
const AT_A_TIME: usize = 50;

/// A piece of what goes over the wire.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let body = (0_i64..1_000_000).prop_map(sample);
    let framing = prop_oneof![
        Just("transfer-encoding: chunked\r\n".to_owned()),
        Just("content-length: 5\r\ntransfer-encoding: chunked\r\n".to_owned()),
        Just("transfer-encoding: gzip, chunked\r\n".to_owned()),
        Just("expect: 100-continue\r\ntransfer-encoding: chunked\r\n".to_owned()),
        "(x-[a-z]{0,9}: [ -~]{0,40}\r\n){0,3}content-length: [0-9]{1,3}\r\n",
        "[ -~\r\n\t]{0,200}",
    ];
    prop_oneof![
        4 => body.clone().prop_map(|body| request(&format!("content-length: {}\r\n", body.len()), &body)),
        2 => body.clone().prop_map(|body| request("transfer-encoding: chunked\r\n", &chunked(&body))),
        2 => (framing, body).prop_map(|(framing, body)| request(&framing, &chunked(&body))),
        1 => Just(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
        1 => Just(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n".to_vec()),
        1 => Just(b"\x16\x03\x01\x02\x00\x01\x00".to_vec()),
        1 => "[0-9a-fA-F]{1,18}(;[a-z=]{0,9})?\r\n".prop_map(String::into_bytes),
        2 => prop::collection::vec(any::<u8>(), 0..300),
    ]
}

/// Some pieces, a few bytes of which are others, and perhaps not to the end.
fn wire() -> impl Strategy<Value = Vec<u8>> {
    let bends = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4);
    let bends = prop_oneof![2 => Just(Vec::new()), 1 => bends];
    let cut = prop::option::weighted(0.3, any::<prop::sample::Index>());
    (prop::collection::vec(piece(), 1..5), bends, cut).prop_map(|(pieces, bends, cut)| {
        let mut bytes = pieces.concat();
        for (at, byte) in bends {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        }
        if let Some(cut) = cut
            && !bytes.is_empty()
        {
            bytes.truncate(cut.index(bytes.len()));
        }
        bytes
    })
}

/// What an empty remote write is answered with is no promise of anything.
fn empties(bytes: &[u8]) -> usize {
    bytes.windows(5).filter(|five| five == b"\r\n\r\n\0").count()
        + bytes.windows(3).filter(|three| three == b"\r\n\0").count()
}

/// All at one time, each on a connection of its own.
async fn holds(proxy: &Proxy, peer: &Peer, wires: &[Vec<u8>]) -> Result<(), TestCaseError> {
    let before = peer.requests().len();
    let mut conversations = JoinSet::new();
    for bytes in wires {
        let (address, bytes) = (proxy.at.data, bytes.clone());
        conversations.spawn(async move {
            let mut line = Line::open(address).await;
            line.try_say(bytes).await;
            // Read as a request, unless the end of the bytes is not that of one.
            line.try_say(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
            all_of(&line.rest().await)
        });
    }
    let answers = conversations.join_all().await;
    let of = |status| answers.iter().flatten().filter(|given| **given == status).count();
    let delivered = peer.requests().len() - before;
    let empties: usize = wires.iter().map(|bytes| empties(bytes)).sum();
    prop_assert!(
        of(204) <= delivered + empties,
        "{} answers of 204, {} requests upstream",
        of(204),
        delivered
    );
    prop_assert_eq!(of(500), 0);
    let mut next = Line::open(proxy.at.data).await;
    next.post("/api/v1/receive", "", &sample(1)).await;
    prop_assert_eq!(next.hear().await.status, 204, "whoever comes next");
    Ok(())
}

#[test]
fn nothing_is_acknowledged_that_is_not_upstream_whatever_the_bytes() {
    let runtime = Runtime::new().expect("a runtime");
    let (peer, proxy) = runtime.block_on(async {
        let peer = Peer::start(200, "").await;
        // Of requests that do not come to their end, it does not wait long for that.
        let more = [("PROMDEDUP_REQUEST_TIMEOUT", "500ms"), ("PROMDEDUP_IDLE_TIMEOUT", "1s")];
        let proxy = Proxy::start(&peer.url(), &more);
        (peer, proxy)
    });
    let mut config = Config { failure_persistence: None, max_shrink_iters: 100, ..Config::default() };
    if config.cases == BY_DEFAULT {
        config.cases = CASES;
    }
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let wires = prop::collection::vec(wire(), AT_A_TIME);
    let found = runner.run(&wires, |wires| runtime.block_on(holds(&proxy, &peer, &wires)));
    if let Err(found) = found {
        panic!("{found}");
    }
    let metrics = runtime.block_on(async { soon(proxy.metrics()).await });
    for nothing in ["promdedup_in_flight_requests 0", "promdedup_in_flight_bytes 0"] {
        assert!(metrics.lines().any(|line| line == nothing), "{metrics}");
    }
    assert!(metrics.lines().all(|line| !line.contains("code=\"500\"") || line.ends_with(" 0")), "{metrics}");
    assert!(peer.requests().len() > 2 * AT_A_TIME, "most of what was tried would be no test");
}

//! The proxy as a sender: what it makes of an upstream's answers. It tries once; trying again is its own sender's affair.

use super::bodies::{Series, Speaks, body, now};
use super::outgoing::sent;
use super::rows::{Proxy, headers, says_why, written};
use crate::peer::{Heard, Peer, soon};
use promdedup::stand_in::Point;
use promdedup::stand_in::thanos::{Fault, Thanos};
use tokio::net::TcpListener;

const BOTH: [(Speaks, &str); 2] = [(Speaks::One, "1.0"), (Speaks::Two, "2.0")];

fn proxy(url: &str, version: &str) -> Proxy {
    Proxy::start(url, &[("PROMDEDUP_UPSTREAM_PROTOCOL", version), ("PROMDEDUP_UPSTREAM_TIMEOUT", "2s")])
}

async fn post(proxy: &Proxy, speaks: Speaks, series: &[Series]) -> Heard {
    let mut line = proxy.line().await;
    line.post("/api/v1/receive", &headers(speaks), &body(speaks, series)).await;
    let heard = line.hear().await;
    says_why(&heard);
    heard
}

fn m(seconds: i64) -> Series {
    Series::new("m").value_at(1.0, seconds)
}

/// 2xx is success, what judges the data is final, all else is to be tried again; and never does the proxy try again itself.
#[tokio::test]
async fn an_answer_is_passed_on_by_what_it_means() {
    let rows = [
        (200, 204),
        (202, 204),
        (204, 204),
        (301, 503),
        (302, 503),
        (307, 503),
        (400, 400),
        (401, 503),
        (403, 503),
        (404, 503),
        (405, 503),
        (408, 503),
        (409, 400),
        (413, 413),
        (415, 503),
        (422, 400),
        (429, 503),
        (500, 503),
        (502, 503),
        (503, 503),
        (504, 503),
        (599, 503),
    ];
    for (upstream, version) in BOTH {
        let peer = Peer::start(200, "").await;
        peer.says_what_it_has_written();
        let proxy = proxy(&peer.url(), version);
        for (nth, (status, expected)) in rows.into_iter().enumerate() {
            peer.answers(status, if status == 204 { "" } else { "why" });
            let before = peer.requests().len();
            let series = m(0).label("nth", &nth.to_string());
            let heard = post(&proxy, upstream, &[series]).await;
            assert_eq!(heard.status, expected, "{status}: {heard:?}");
            assert_eq!(peer.requests().len(), before + 1, "{status}: tried once");
            assert_eq!(heard.has("retry-after: 1"), expected == 503, "{status}: {heard:?}");
            assert!(expected == 204 || heard.text.contains("why"), "{status}: {heard:?}");
            if upstream == Speaks::Two {
                let samples = u64::from(expected == 204);
                assert_eq!(written(&heard), [samples, 0, 0].map(Some), "{status}");
            }
        }
    }
}

#[tokio::test]
async fn the_text_of_a_success_is_ignored() {
    for (upstream, version) in BOTH {
        let peer = Peer::start(200, "").await;
        peer.says_what_it_has_written();
        let proxy = proxy(&peer.url(), version);
        for (nth, text) in
            ["ok", "{\"status\":\"error\"}", "\u{0}", &"x".repeat(1 << 20)].into_iter().enumerate()
        {
            peer.answers(200, text);
            let heard = post(&proxy, upstream, &[m(0).label("nth", &nth.to_string())]).await;
            assert_eq!((heard.status, heard.text.as_str()), (204, ""));
        }
    }
}

/// One of 1.0 that is sent 2.0 finds nothing in it, and says that all is well.
#[tokio::test]
async fn a_success_that_says_nothing_is_none_where_2_is_spoken() {
    let peer = Peer::start(200, "").await;
    let proxy = proxy(&peer.url(), "2.0");
    let series = [m(0).by(Some("a"))];
    for _ in 0..2 {
        let heard = post(&proxy, Speaks::Two, &series).await;
        assert_eq!((heard.status, written(&heard)), (503, [Some(0); 3]), "{heard:?}");
        assert!(heard.text.contains("PROMDEDUP_UPSTREAM_PROTOCOL=1.0"), "{heard:?}");
    }
    assert_eq!(peer.requests().len(), 2, "nothing of it counts as sent");
    peer.says_what_it_has_written();
    assert_eq!(post(&proxy, Speaks::Two, &series).await.status, 204);
    // And the stand-in for Thanos is one of 1.0.
    let thanos = Thanos::start().await.expect("a stand-in");
    let proxy = self::proxy(&thanos.url(), "2.0");
    assert_eq!(post(&proxy, Speaks::One, &series).await.status, 503);
    assert_eq!(thanos.totals().samples, 0);
}

/// And one that says that it has written nothing is taken at its word: the data is still to be delivered.
#[tokio::test]
async fn a_success_that_has_written_nothing_commits_nothing_where_2_is_spoken() {
    let peer = Peer::start(204, "").await;
    peer.says_written(&[("Samples", "0"), ("Histograms", "0"), ("Exemplars", "0")]);
    let proxy = proxy(&peer.url(), "2.0");
    let series = [m(0).by(Some("a"))];
    for tries in 1..=2 {
        let heard = post(&proxy, Speaks::Two, &series).await;
        assert_eq!((heard.status, written(&heard)), (503, [Some(0); 3]), "{heard:?}");
        assert!(heard.text.contains("none of 1 samples") && heard.has("retry-after: 1"), "{heard:?}");
        assert_eq!(peer.requests().len(), tries, "nothing of it counts as sent");
    }
    peer.says_what_it_has_written();
    assert_eq!(post(&proxy, Speaks::Two, &series).await.status, 204);
    assert_eq!(post(&proxy, Speaks::Two, &series).await.status, 204);
    assert_eq!(peer.requests().len(), 3, "what is written does not go again");
}

/// Whose answer counts does not depend on headers that 1.0 does not ask for.
#[tokio::test]
async fn an_upstream_of_1_need_not_say_what_it_has_written() {
    let peer = Peer::start(200, "").await;
    let proxy = proxy(&peer.url(), "1.0");
    let heard = post(&proxy, Speaks::Two, &[m(0), m(0).label("a", "b")]).await;
    assert_eq!((heard.status, written(&heard)), (204, [Some(2), Some(0), Some(0)]));
}

/// The sender's pace is the pace: each try of it makes one upstream, and when that is taken it is stored once, in order.
#[tokio::test]
async fn each_try_of_the_sender_makes_one_upstream() {
    for (upstream, version) in BOTH {
        let peer = Peer::start(503, "not ready").await;
        peer.says_what_it_has_written();
        let proxy = proxy(&peer.url(), version);
        let series = [m(-15).by(Some("a")), m(0).by(Some("a"))];
        for tries in 1..=5 {
            let heard = post(&proxy, Speaks::One, &series).await;
            assert!(heard.status == 503 && heard.has("retry-after: 1"), "{heard:?}");
            assert_eq!(peer.requests().len(), tries);
        }
        peer.answers(200, "");
        for _ in 0..3 {
            assert_eq!(post(&proxy, Speaks::One, &series).await.status, 204);
        }
        assert_eq!(peer.requests().len(), 6, "what is taken does not go again");
        // All tries were of the same bytes.
        let bodies: Vec<_> = peer.requests().into_iter().map(|(_, body)| body).collect();
        assert!(bodies.windows(2).all(|pair| pair[0] == pair[1]));
        assert_eq!(sent(&peer, upstream).len(), 12);
    }
}

/// Only what is known not to have arrived is stored by the next try; what may have is no loss when upstream says 409.
#[tokio::test]
async fn an_answer_that_is_lost_loses_nothing() {
    for (fault, why) in [
        (Fault::ResetBeforeStoring, "before"),
        (Fault::ResetAfterStoring, "after"),
        (Fault::AnswerAfterStoring { status: 500, text: "late".to_owned() }, "an error after"),
    ] {
        let thanos = Thanos::start().await.expect("a stand-in");
        let proxy = proxy(&thanos.url(), "1.0");
        let series = [m(-15).by(Some("a")), m(0).by(Some("a"))];
        thanos.inject_next(1, fault);
        assert_eq!(post(&proxy, Speaks::Two, &series).await.status, 503, "{why}");
        let heard = post(&proxy, Speaks::Two, &series).await;
        assert_eq!((heard.status, written(&heard)), (204, [Some(2), Some(0), Some(0)]), "{why}: {heard:?}");
        let stored = thanos.samples_of(&[("__name__", "m")]);
        assert_eq!(stored, [Point::float(now() - 15_000, 1.0), Point::float(now(), 1.0)], "{why}");
    }
}

/// Nobody there, nobody who answers, and a name that there is not: all of them the moment's.
#[tokio::test]
async fn no_answer_is_to_be_tried_again() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let gone = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let of = |listener: &TcpListener| format!("http://{}/", listener.local_addr().expect("address"));
    let urls = [of(&silent), of(&gone), "http://promdedup.invalid:1/".to_owned()];
    drop(gone);
    for url in urls {
        for (_, version) in BOTH {
            let more = [("PROMDEDUP_UPSTREAM_PROTOCOL", version), ("PROMDEDUP_UPSTREAM_TIMEOUT", "300ms")];
            let proxy = Proxy::start(&url, &more);
            let heard = soon(post(&proxy, Speaks::Two, &[m(0)])).await;
            assert_eq!((heard.status, written(&heard)), (503, [Some(0); 3]), "{url}: {heard:?}");
            assert!(heard.has("retry-after: 1"), "{heard:?}");
        }
    }
}

/// 413 of a batch is no verdict on its parts: they go again, each once; what is too big alone is told so.
#[tokio::test]
async fn a_batch_that_is_too_big_goes_in_pieces() {
    let thanos = Thanos::start().await.expect("a stand-in");
    let limits = promdedup::stand_in::thanos::Limits { series_max: Some(1), ..Default::default() };
    thanos.limit(limits);
    let proxy = proxy(&thanos.url(), "1.0");
    let series: Vec<_> = (0..4).map(|nth| m(0).label("nth", &format!("{nth}")).by(Some("a"))).collect();
    let heard = post(&proxy, Speaks::Two, &series).await;
    assert_eq!((heard.status, written(&heard)), (204, [Some(4), Some(0), Some(0)]), "{heard:?}");
    assert_eq!(thanos.totals().samples, 4);
    assert_eq!(thanos.violations().of_samples(), 0);
}

//! The stand-in for Thanos Receive: what it answers and what it stores.

use http::{HeaderMap, Method};
use promdedup::proto;
use promdedup::stand_in::connection::{Connection, NoAnswer, Reply};
use promdedup::stand_in::request::{Body, compress, histogram, histogram_point};
use promdedup::stand_in::thanos::{BOUND_MS, Fault, Limits, Options, Thanos};
use promdedup::stand_in::{Point, STALE_MARKER_BITS};
use std::time::Duration;

const A: &[(&str, &str)] = &[("__name__", "a"), ("job", "x")];
const B: &[(&str, &str)] = &[("__name__", "b")];
const T: i64 = 1_700_000_000_000;

async fn post(thanos: &Thanos, body: Body) -> Result<Reply, NoAnswer> {
    Connection::to(&thanos.url())?.post(&HeaderMap::new(), body.compressed()).await
}

/// Sends bodies one after the other; the last one's status and text, and all of series A that is stored then.
async fn check(bodies: Vec<Body>, status: u16, text: &str, stored: &[(i64, f64)]) {
    check_with(Options::default(), bodies, status, text, stored).await;
}

async fn check_with(options: Options, bodies: Vec<Body>, status: u16, text: &str, stored: &[(i64, f64)]) {
    let thanos = Thanos::start_with(options).await.unwrap();
    let mut last = None;
    for body in bodies {
        last = Some(post(&thanos, body).await.unwrap());
    }
    let last = last.unwrap();
    assert_eq!((last.status, last.text.as_str()), (status, text));
    let expect: Vec<Point> = stored.iter().map(|&(at, value)| Point::float(at, value)).collect();
    assert_eq!(thanos.samples_of(A), expect);
}

fn a(samples: &[(i64, f64)]) -> Body {
    Body::new().series(A, samples)
}

#[tokio::test]
async fn samples_follow_the_rules_of_the_tsdb() {
    check(vec![a(&[(T, 1.0)])], 200, "", &[(T, 1.0)]).await;
    check(vec![a(&[(T, 1.0), (T + 1, 2.0)])], 200, "", &[(T, 1.0), (T + 1, 2.0)]).await;
    check(vec![a(&[(T, 1.0)]), a(&[(T, 1.0)])], 200, "", &[(T, 1.0)]).await;
    check(
        vec![a(&[(T, 1.0)]), a(&[(T, 2.0)])],
        409,
        "add 1 samples: duplicate sample for timestamp",
        &[(T, 1.0)],
    )
    .await;
    check(vec![a(&[(T, 0.0)]), a(&[(T, -0.0)])], 200, "", &[(T, 0.0)]).await;
    check(vec![a(&[(T, 1.0)]), a(&[(T - 1, 1.0)])], 409, "add 1 samples: out of order sample", &[(T, 1.0)])
        .await;
    check(
        vec![a(&[(T, 1.0), (T + 1, 2.0)]), a(&[(T, 1.0), (T + 1, 2.0)])],
        409,
        "add 1 samples: out of order sample",
        &[(T, 1.0), (T + 1, 2.0)],
    )
    .await;
    // The valid rest is stored.
    check(
        vec![a(&[(T, 1.0)]), a(&[(T - 5, 9.0), (T, 9.0), (T + 5, 5.0)])],
        409,
        "2 errors: add 1 samples: out of order sample; add 1 samples: duplicate sample for timestamp",
        &[(T, 1.0), (T + 5, 5.0)],
    )
    .await;
}

#[tokio::test]
async fn falling_or_equal_times_inside_one_request_vanish_with_200() {
    for second in [T, T - 1] {
        let thanos = Thanos::start().await.unwrap();
        let reply = post(&thanos, a(&[(T, 1.0), (second, 2.0)])).await.unwrap();
        assert_eq!(reply.status, 200);
        assert_eq!(thanos.samples_of(A), [Point::float(T, 1.0)]);
        assert_eq!(thanos.violations().vanished, 1);
        assert_eq!(thanos.violations().of_samples(), 1);
    }
}

#[tokio::test]
async fn an_hour_below_the_newest_of_the_tenant_is_out_of_bounds() {
    let newest = || Body::new().series(B, &[(T, 1.0)]);
    check(vec![newest(), a(&[(T - BOUND_MS, 1.0)])], 200, "", &[(T - BOUND_MS, 1.0)]).await;
    check(vec![newest(), a(&[(T - BOUND_MS - 1, 1.0)])], 409, "add 1 samples: out of bounds", &[]).await;
}

#[tokio::test]
async fn an_out_of_order_window_lets_late_samples_in() {
    let window = |ms| Options { out_of_order_window_ms: ms, ..Options::default() };
    let first = || a(&[(T, 1.0)]);
    check_with(window(100), vec![first(), a(&[(T - 100, 2.0)])], 200, "", &[(T, 1.0), (T - 100, 2.0)]).await;
    check_with(
        window(100),
        vec![first(), a(&[(T - 101, 2.0)])],
        409,
        "add 1 samples: too old sample",
        &[(T, 1.0)],
    )
    .await;
    // A taken timestamp inside the window: no error, nothing stored.
    check_with(
        window(100),
        vec![first(), a(&[(T - 50, 2.0)]), a(&[(T - 50, 3.0)])],
        200,
        "",
        &[(T, 1.0), (T - 50, 2.0)],
    )
    .await;
}

#[tokio::test]
async fn bad_labels_lose_their_series_alone() {
    let empty = "add 1 series: label set contains a label with empty name or value";
    let cases: [(&[(&str, &str)], &str); 6] = [
        (&[], empty),
        (&[("__name__", "")], empty),
        (&[("", "x")], empty),
        (&[("b", "1"), ("a", "2")], "add 1 series: out of order labels"),
        (&[("a", "1"), ("a", "2")], "add 1 series: duplicate labels"),
        (&[("__name__", "x"), ("Zed", "2")], "add 1 series: out of order labels"),
    ];
    for (labels, text) in cases {
        let body = Body::new().series(labels, &[(T, 1.0)]).series(A, &[(T, 1.0)]);
        check(vec![body], 409, text, &[(T, 1.0)]).await;
    }
    let thanos = Thanos::start().await.unwrap();
    assert_eq!(
        post(&thanos, Body::new().series(&[("no_name", "1")], &[(T, 1.0)])).await.unwrap().status,
        200
    );
}

#[tokio::test]
async fn floats_histograms_and_stale_markers_are_one_series() {
    let thanos = Thanos::start().await.unwrap();
    let send = async |body| post(&thanos, body).await.unwrap().status;
    assert_eq!(send(Body::new().histograms(A, &[(T, 4)])).await, 200);
    assert_eq!(send(Body::new().histograms(A, &[(T, 4)])).await, 200);
    assert_eq!(send(Body::new().histograms(A, &[(T, 5)])).await, 409);
    assert_eq!(send(a(&[(T, 1.0)])).await, 409);
    assert_eq!(send(Body::new().stale(A, T + 1)).await, 200);
    assert_eq!(send(a(&[(T + 1, 1.0)])).await, 409);
    let expect = [histogram_point(&histogram(T, 4)), Point::stale(T + 1)];
    assert_eq!(thanos.samples_of(A), expect);
    assert_eq!(thanos.samples_of(A)[1].bits, STALE_MARKER_BITS);
    assert_eq!(thanos.violations().duplicate_timestamp, 3);
    assert_eq!(thanos.violations().duplicate_identical, 1);
}

#[tokio::test]
async fn exemplars_keep_an_order_of_their_own() {
    let thanos = Thanos::start().await.unwrap();
    let send = async |body| {
        let reply = post(&thanos, body).await.unwrap();
        (reply.status, reply.text)
    };
    let ok = (200, String::new());
    assert_eq!(send(Body::new().exemplars(A, &[(T, 1.0)])).await, ok, "an unknown series: dropped");
    assert_eq!(thanos.exemplars_of(A), 0);
    assert_eq!(send(a(&[(T, 1.0)]).exemplars(A, &[(T, 1.0)])).await, ok);
    assert_eq!(send(Body::new().exemplars(A, &[(T, 1.0)])).await, ok, "the newest again");
    let late = Body::new().exemplars(A, &[(T - 2, 1.0), (T - 1, 1.0)]).series(A, &[(T + 1, 2.0)]);
    assert_eq!(send(late).await, (409, "add 2 exemplars: out of order exemplar".to_owned()));
    assert_eq!(thanos.samples_of(A).len(), 2, "its samples are stored");
    assert_eq!(thanos.exemplars_of(A), 1);
    assert_eq!(thanos.violations().exemplars_out_of_order, 2);
    assert_eq!(thanos.violations().of_samples(), 0);
}

#[tokio::test]
async fn what_cannot_be_decoded_is_400() {
    let thanos = Thanos::start().await.unwrap();
    let mut connection = Connection::to(&thanos.url()).unwrap();
    let none = HeaderMap::new();
    for body in [b"no snappy".as_slice().into(), compress(b"\x0a\xff")] {
        assert_eq!(connection.post(&none, body).await.unwrap().status, 400);
    }
    assert_eq!(connection.get().await.unwrap().status, 405);
    let mut elsewhere = Connection::to(&thanos.url().replace("receive", "write")).unwrap();
    assert_eq!(elsewhere.exchange(Method::POST, &none, bytes::Bytes::new()).await.unwrap().status, 404);
    // Metadata alone, and an empty message, are well.
    assert_eq!(post(&thanos, Body::new().metadata("a", "help")).await.unwrap().status, 200);
    assert_eq!(thanos.totals().samples, 0);
}

#[tokio::test]
async fn tenants_are_apart_and_headers_remembered() {
    let thanos = Thanos::start().await.unwrap();
    let mut connection = Connection::to(&thanos.url()).unwrap();
    let mut headers = HeaderMap::new();
    for (tenant, status) in [("one", 200), ("two", 200), ("a/b", 400), ("..", 400)] {
        headers.insert("thanos-tenant", tenant.parse().unwrap());
        let body = a(&[(T, 1.0)]).compressed();
        assert_eq!(connection.post(&headers, body).await.unwrap().status, status, "{tenant}");
    }
    assert_eq!(thanos.tenants(), ["one", "two"]);
    assert_eq!(thanos.samples_of_tenant("one", A).len(), 1);
    assert_eq!(thanos.samples_of(A), []);
    let recent = thanos.recent();
    assert_eq!(recent.len(), 4);
    assert_eq!(recent[1].headers["thanos-tenant"], "two");
    assert_eq!((recent[1].series, recent[1].samples, recent[1].status), (1, 1, Some(200)));
    headers.remove("thanos-tenant");
    headers.insert("thanos-replica", "7".parse().unwrap());
    assert_eq!(connection.post(&headers, a(&[(T, 1.0)]).compressed()).await.unwrap().status, 400);
    assert_eq!(thanos.violations().replica_header, 1);
}

#[tokio::test]
async fn replica_labels_are_noticed() {
    let thanos = Thanos::start().await.unwrap();
    let labels = [("__name__", "a"), ("prometheus_replica", "r0")];
    assert_eq!(post(&thanos, Body::new().series(&labels, &[(T, 1.0)])).await.unwrap().status, 200);
    assert_eq!(thanos.violations().replica_label, 1);
}

#[tokio::test]
async fn faults_come_and_go() {
    let thanos = Thanos::start().await.unwrap();
    let send = async |at| post(&thanos, a(&[(at, 1.0)])).await.map(|reply| reply.status);
    thanos.inject_next(2, Fault::status(503));
    assert_eq!(send(T).await.unwrap(), 503);
    assert_eq!(send(T).await.unwrap(), 503);
    assert_eq!(thanos.totals().samples, 0);
    assert_eq!(send(T).await.unwrap(), 200);
    thanos.inject(Fault::ResetBeforeStoring);
    assert!(matches!(send(T + 1).await, Err(NoAnswer::Broken { .. })));
    assert_eq!(thanos.totals().samples, 1);
    thanos.inject(Fault::ResetAfterStoring);
    assert!(matches!(send(T + 2).await, Err(NoAnswer::Broken { .. })));
    assert_eq!(thanos.totals().samples, 2);
    thanos.inject(Fault::AnswerAfterStoring { status: 500, text: "x".to_owned() });
    assert_eq!(send(T + 3).await.unwrap(), 500);
    assert_eq!(thanos.totals().samples, 3);
    thanos.heal();
    assert_eq!(send(T + 3).await.unwrap(), 200);
    let answer = Fault::Answer { status: 503, text: "later".to_owned(), retry_after_s: Some(7) };
    thanos.inject_next(1, answer);
    let reply = post(&thanos, a(&[(T + 4, 1.0)])).await.unwrap();
    assert_eq!((reply.retry_after_s(), reply.text.as_str()), (Some(7), "later"));
    thanos.limit(Limits { samples_max: Some(1), ..Limits::default() });
    assert_eq!(post(&thanos, a(&[(T + 5, 1.0), (T + 6, 1.0)])).await.unwrap().status, 413);
    thanos.limit(Limits { body_bytes_max: Some(3), ..Limits::default() });
    assert_eq!(send(T + 5).await.unwrap(), 413);
}

#[tokio::test]
async fn what_hangs_goes_on_when_healed() {
    let thanos = Thanos::start().await.unwrap();
    thanos.inject(Fault::Hang);
    let body = a(&[(T, 1.0)]).compressed();
    let url = thanos.url();
    let waiting = tokio::spawn(async move {
        Connection::to(&url).unwrap().post(&HeaderMap::new(), body).await.unwrap().status
    });
    assert!(thanos.wait_until(Duration::from_secs(5), |totals| totals.requests == 1).await);
    assert_eq!(thanos.totals().samples, 0);
    assert_eq!(thanos.recent()[0].status, None);
    thanos.heal();
    assert_eq!(waiting.await.unwrap(), 200);
    assert_eq!(thanos.totals().samples, 1);
}

#[tokio::test]
async fn it_goes_down_and_comes_back_with_what_it_had() {
    let thanos = Thanos::start().await.unwrap();
    assert_eq!(post(&thanos, a(&[(T, 1.0)])).await.unwrap().status, 200);
    thanos.go_down().await;
    assert!(matches!(post(&thanos, a(&[(T, 1.0)])).await, Err(NoAnswer::Connect { .. })));
    thanos.come_back().await.unwrap();
    assert_eq!(post(&thanos, a(&[(T - 1, 1.0)])).await.unwrap().status, 409);
}

#[tokio::test]
async fn its_memory_is_bounded() {
    let options = Options { series_max: 1, points_max: 2, recent_max: 1, ..Options::default() };
    let thanos = Thanos::start_with(options).await.unwrap();
    assert_eq!(post(&thanos, a(&[(T, 1.0), (T + 1, 1.0), (T + 2, 1.0)])).await.unwrap().status, 200);
    assert_eq!(post(&thanos, Body::new().series(B, &[(T, 1.0)])).await.unwrap().status, 429);
    assert_eq!(thanos.samples_of(A).len(), 2);
    assert_eq!((thanos.totals().samples, thanos.totals().unrecorded), (3, 1));
    assert_eq!(thanos.recent().len(), 1);
    // The rules hold on, recorded or not.
    assert_eq!(post(&thanos, a(&[(T + 1, 1.0)])).await.unwrap().status, 409);
}

#[tokio::test]
async fn unknown_kinds_of_series_are_no_trouble() {
    let thanos = Thanos::start().await.unwrap();
    let empty = proto::TimeSeries::default();
    assert_eq!(post(&thanos, Body::new().raw(empty)).await.unwrap().status, 409);
    assert_eq!(post(&thanos, Body::new()).await.unwrap().status, 200);
}

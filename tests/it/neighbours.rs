//! Nobody's trouble is a neighbour's: one tenant's slow upstream, and one stuck sender, cost the others nothing.

use crate::peer::{Line, soon};
use crate::serving::Serving;
use axum::Router;
use axum::extract::Request;
use promdedup::stand_in::request::Body;
use std::future::pending;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

const PATH: &str = "/api/v1/receive";
const TYPE: &str = "content-type: application/x-protobuf\r\ncontent-encoding: snappy\r\n";
/// Connections to the upstream, of which the slow tenant would have all.
const CONNECTIONS: &str = "10";
const REQUESTS: usize = 200;

/// An upstream that never answers for one tenant, and says when it is asked to.
async fn upstream() -> (String, mpsc::Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}{PATH}", listener.local_addr().unwrap());
    let (asked, asks) = mpsc::channel(1_000);
    let router = Router::new().fallback(move |request: Request| {
        let asked = asked.clone();
        async move {
            if request.headers().get("thanos-tenant").is_some_and(|tenant| tenant == "slow") {
                asked.send(()).await.unwrap();
                pending::<()>().await;
            }
        }
    });
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, asks)
}

fn one_sample(series: usize, at_ms: i64) -> Vec<u8> {
    let series = series.to_string();
    let labels = [("__name__", "m"), ("cluster", "c"), ("prometheus_replica", "a"), ("series", &series)];
    Body::new().series(&labels, &[(at_ms, 1.0)]).compressed().to_vec()
}

fn of(tenant: &str) -> String {
    format!("{TYPE}thanos-tenant: {tenant}\r\n")
}

/// The 99th percentile of how long a tenant waits for its answers, one request after the other.
async fn p99(line: &mut Line, first: usize) -> Duration {
    let now = promdedup::stand_in::now_ms();
    let mut took = Vec::new();
    for series in first..first + REQUESTS {
        let begun = Instant::now();
        line.post(PATH, &of("quick"), &one_sample(series, now)).await;
        let heard = line.hear().await;
        assert_eq!(heard.status, 204, "{}", heard.text);
        took.push(begun.elapsed());
    }
    took.sort();
    took[REQUESTS * 99 / 100]
}

#[tokio::test]
async fn a_tenant_that_hangs_and_a_stuck_sender_delay_nobody_else() {
    let (url, mut asks) = upstream().await;
    let more = [
        ("PROMDEDUP_UPSTREAM_URL", url.as_str()),
        ("PROMDEDUP_UPSTREAM_CONNECTIONS_MAX", CONNECTIONS),
        ("PROMDEDUP_UPSTREAM_TIMEOUT", "20s"),
        ("PROMDEDUP_REQUEST_TIMEOUT", "20s"),
        ("PROMDEDUP_FIRST_CONTACT_HOLD", "0s"),
        ("PROMDEDUP_WORKERS", "1"),
    ];
    let serving = Serving::start(&more).await;
    let mut quick = Line::open(serving.address).await;
    let alone = p99(&mut quick, 0).await;

    let mut hanging = Vec::new();
    for series in 0..40 {
        let mut line = Line::open(serving.address).await;
        line.post(PATH, &of("slow"), &one_sample(series, promdedup::stand_in::now_ms())).await;
        hanging.push(line);
    }
    // It has what it gets of the connections, and the rest of its requests wait for one.
    for _ in 0..8 {
        soon(asks.recv()).await.unwrap();
    }
    let mut stuck = Line::open(serving.address).await;
    let half = one_sample(0, 0);
    stuck
        .say(format!(
            "POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n{}\r\n",
            2 * half.len(),
            of("quick")
        ))
        .await;
    stuck.say(&half).await;

    let beside = p99(&mut quick, REQUESTS).await;
    println!("p99 alone {alone:?}, beside {} requests that hang {beside:?}", hanging.len());
    // A busy machine is slow at times; whoever waits for the slow tenant waits for 20 s.
    assert!(beside <= 2 * alone.max(Duration::from_millis(50)), "p99 alone {alone:?}, beside {beside:?}");
}

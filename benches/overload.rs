//! Overload: more senders than the proxy has room and time for. It is to go on accepting what it can, and refuse the rest with 503.
//!
//! First the peak of four senders as fast as they can, then 1, 2, 5 and 10 times as many of them, each at a quarter of that peak.
//! The proxy is the binary, with one data-plane thread and little memory for requests; senders and upstream are this process. What is
//! acknowledged is held against what upstream has. Prints a table; see BENCHMARKING.md.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a bench")]

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::StatusCode;
use bytes::Bytes;
use http::HeaderMap;
use promdedup::proto::TimeSeries;
use promdedup::stand_in::Labels;
use promdedup::stand_in::connection::Connection;
use promdedup::stand_in::now_ms;
use promdedup::stand_in::request::{compress, label_block, put_sample};
use prost::Message;
use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use tokio::runtime;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};

/// Senders of the peak.
const SENDERS: usize = 4;
/// A full batch of Prometheus.
const SAMPLES: usize = 2_000;
const STEPS: [usize; 4] = [1, 2, 5, 10];
/// Room for some thirty of these requests: less than there are senders in the last step.
const IN_FLIGHT_MAX: &str = "6MiB";
const RSS_MAX_MIB: u64 = 128;
const ADMIN_MAX: Duration = Duration::from_millis(100);
/// What is accepted under overload, of what is at the peak. The senders take their part of the machine, too.
const ACCEPTED_LEAST: f64 = 0.7;

/// A request that was acknowledged, or that upstream has: its sender, and its time.
type Sent = (usize, i64);

fn main() {
    let test = std::env::args().any(|argument| argument == "--test");
    let lasts = Duration::from_millis(if test { 300 } else { 8_000 });
    let got: Arc<Mutex<Vec<Bytes>>> = Arc::default();
    let upstream = upstream(Arc::clone(&got));
    let proxy = Proxy::start(&upstream);
    let mut senders: Vec<Sender> = Vec::new();
    let peak = run(&proxy, &mut senders, SENDERS, None, lasts, &got);
    println!("peak of {SENDERS} senders: {:.0} samples/s\n", peak.accepted);
    println!(
        "| offered, of the peak | samples/s offered | accepted | refused (503), requests/s | p99 of accepted, ms | most memory, MiB | admin, slowest, ms | lost |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let mut broken = Vec::new();
    for times in STEPS {
        let rate = peak.accepted / SENDERS as f64;
        let step = run(&proxy, &mut senders, SENDERS * times, Some(rate), lasts, &got);
        println!(
            "| {times} x | {:.0} | {:.0} | {:.0} | {:.0} | {} | {:.1} | {} |",
            peak.accepted * times as f64,
            step.accepted,
            step.refused,
            step.p99.as_secs_f64() * 1e3,
            step.rss_mib,
            step.admin.as_secs_f64() * 1e3,
            step.lost
        );
        let bounds = [
            (step.lost > 0 || step.errors > 0, "something was lost, or answered neither 204 nor 503"),
            (!test && step.accepted < ACCEPTED_LEAST * peak.accepted, "less was accepted than at the peak"),
            (!test && step.rss_mib > RSS_MAX_MIB, "it took more memory than it may"),
            (!test && step.admin > ADMIN_MAX, "the admin listener took too long"),
        ];
        broken.extend(bounds.iter().filter(|(bad, _)| *bad).map(|(_, what)| format!("{times} x: {what}")));
    }
    assert_eq!(broken, Vec::<String>::new());
}

/// What came of a step.
struct Step {
    /// Samples acknowledged a second.
    accepted: f64,
    /// Requests refused a second.
    refused: f64,
    errors: u64,
    p99: Duration,
    rss_mib: u64,
    admin: Duration,
    lost: usize,
}

/// So many senders at a time for a while, each at that rate, or as fast as it can.
fn run(
    proxy: &Proxy,
    senders: &mut Vec<Sender>,
    wanted: usize,
    rate: Option<f64>,
    lasts: Duration,
    got: &Mutex<Vec<Bytes>>,
) -> Step {
    while senders.len() < wanted {
        senders.push(Sender::new(senders.len()));
    }
    got.lock().unwrap().clear();
    let (admin, stop) = (proxy.admin.clone(), Arc::new(AtomicU64::new(0)));
    let stopped = Arc::clone(&stop);
    let probing = thread::spawn(move || slowest(&admin, &stopped));
    let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let period = rate.map(|rate| Duration::from_secs_f64(SAMPLES as f64 / rate));
    let tally = runtime.block_on(async {
        let end = tokio::time::Instant::now() + lasts;
        let mut sending = JoinSet::new();
        for sender in senders.drain(..) {
            let url = proxy.url.clone();
            sending.spawn(async move { sender.send(&url, period, end).await });
        }
        let mut all = Tally::default();
        while let Some(sent) = sending.join_next().await {
            let (sender, tally) = sent.unwrap();
            senders.push(sender);
            all.acknowledged.extend(tally.acknowledged);
            all.took.extend(tally.took);
            all.refused += tally.refused;
            all.errors += tally.errors;
        }
        all
    });
    stop.store(1, Relaxed);
    senders.sort_by_key(|sender| sender.number);
    let stored: HashSet<Sent> = got.lock().unwrap().iter().map(|body| identity(body)).collect();
    let mut took = tally.took;
    took.sort_unstable();
    Step {
        accepted: (tally.acknowledged.len() * SAMPLES) as f64 / lasts.as_secs_f64(),
        refused: tally.refused as f64 / lasts.as_secs_f64(),
        errors: tally.errors,
        p99: took.get(took.len() * 99 / 100).copied().unwrap_or_default(),
        rss_mib: proxy.resident_mib(),
        admin: probing.join().unwrap(),
        lost: tally.acknowledged.iter().filter(|sent| !stored.contains(sent)).count(),
    }
}

/// Who sent a body, and of which time it is: as its first series says, since all of a request goes at one time.
fn identity(body: &[u8]) -> Sent {
    let raw = snap::raw::Decoder::new().decompress_vec(body).unwrap();
    let first = raw.split_at(2);
    // A key, and a length of one or two bytes.
    let (length, rest) = match first.0[1] {
        length @ 0..0x80 => (usize::from(length), first.1),
        low => (usize::from(low & 0x7f) | usize::from(first.1[0]) << 7, &first.1[1..]),
    };
    let series = TimeSeries::decode(&rest[..length]).unwrap();
    let sender = series.labels.iter().find(|label| label.name == "instance").unwrap();
    (sender.value.parse().unwrap(), series.samples[0].timestamp)
}

#[derive(Default)]
struct Tally {
    acknowledged: Vec<Sent>,
    took: Vec<Duration>,
    refused: u64,
    errors: u64,
}

/// One replica of a group of its own, with one request at a time.
struct Sender {
    number: usize,
    blocks: Vec<Vec<u8>>,
    at_ms: i64,
}

impl Sender {
    fn new(number: usize) -> Self {
        let block = |series: usize| {
            label_block(&Labels::new([
                ("__name__".to_owned(), format!("container_memory_working_set_bytes_{series}")),
                ("cluster".to_owned(), format!("cluster-{number}")),
                ("instance".to_owned(), number.to_string()),
                ("job".to_owned(), "overload".to_owned()),
                ("prometheus_replica".to_owned(), "prometheus-k8s-0".to_owned()),
            ]))
        };
        Self { number, blocks: (0..SAMPLES).map(block).collect(), at_ms: now_ms() - 1_000_000_000 }
    }

    fn body(&self) -> Bytes {
        let mut raw = Vec::with_capacity(SAMPLES * 200);
        for (series, block) in self.blocks.iter().enumerate() {
            put_sample(&mut raw, block, self.at_ms, (series as f64 + self.at_ms as f64).to_bits());
        }
        compress(&raw)
    }

    /// As the queue of a Prometheus: what was refused is sent again, before anything else.
    async fn send(mut self, url: &str, period: Option<Duration>, end: tokio::time::Instant) -> (Self, Tally) {
        let (mut connection, mut tally) = (Connection::to(url).unwrap(), Tally::default());
        let headers = HeaderMap::new();
        // Not all at one moment.
        let mut due = tokio::time::Instant::now() + period.unwrap_or_default() * self.number as u32 / 40;
        loop {
            sleep_until(due).await;
            due = period.map_or(due, |period| due + period);
            self.at_ms += 1_000;
            let body = self.body();
            loop {
                if tokio::time::Instant::now() >= end {
                    return (self, tally);
                }
                let began = Instant::now();
                match connection.post(&headers, body.clone()).await.map(|reply| reply.status) {
                    Ok(204) => {
                        tally.took.push(began.elapsed());
                        tally.acknowledged.push((self.number, self.at_ms));
                        break;
                    }
                    Ok(503) => {
                        tally.refused += 1;
                        sleep(Duration::from_secs(1)).await; // as `Retry-After` says
                    }
                    _ => {
                        tally.errors += 1;
                        break;
                    }
                }
            }
        }
    }
}

/// The longest that the admin listener took for an answer.
fn slowest(admin: &str, stop: &AtomicU64) -> Duration {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut slowest = Duration::ZERO;
    runtime.block_on(async {
        let pages = ["/-/healthy", "/-/ready", "/metrics"].map(|page| format!("{admin}{page}"));
        while stop.load(Relaxed) == 0 {
            for page in &pages {
                let began = Instant::now();
                let reply = Connection::to(page).unwrap().get().await.unwrap();
                assert_eq!(reply.status, 200, "{page}");
                slowest = slowest.max(began.elapsed());
            }
            sleep(Duration::from_millis(20)).await;
        }
    });
    slowest
}

/// Takes everything at once, on a thread of its own. Where it listens.
fn upstream(got: Arc<Mutex<Vec<Bytes>>>) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}/api/v1/receive", listener.local_addr().unwrap());
    thread::spawn(move || {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let router = Router::new().fallback(async move |request: Request<Body>| {
                let body = to_bytes(request.into_body(), usize::MAX).await.unwrap();
                // A probe of the proxy's own holds nothing.
                if body.len() > 1 {
                    got.lock().unwrap().push(body);
                }
                StatusCode::OK
            });
            axum::serve(listener, router).await.unwrap();
        });
    });
    url
}

/// The binary. Killed when dropped.
struct Proxy {
    child: Child,
    url: String,
    admin: String,
}

impl Proxy {
    fn start(upstream: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_promdedup"))
            .env_clear()
            .env("PROMDEDUP_UPSTREAM_URL", upstream)
            .env("PROMDEDUP_LISTEN", "127.0.0.1:0")
            .env("PROMDEDUP_ADMIN_LISTEN", "127.0.0.1:0")
            .env("PROMDEDUP_FIRST_CONTACT_HOLD", "0s")
            .env("PROMDEDUP_BODY_MAX", "1MiB")
            .env("PROMDEDUP_IN_FLIGHT_MAX", IN_FLIGHT_MAX)
            .env("PROMDEDUP_WORKERS", "1")
            .env("PROMDEDUP_LOG_FORMAT", "json")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        log.read_line(&mut line).unwrap();
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        let at = |name: &str| format!("http://{}", line[name].as_str().unwrap());
        thread::spawn(move || log.lines().for_each(|line| eprintln_of(&line.unwrap())));
        Self { url: at("data") + "/api/v1/receive", admin: at("admin"), child }
    }

    /// The most it has had so far.
    fn resident_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        most.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    }
}

/// What the proxy logs is to be seen.
#[allow(clippy::print_stderr, reason = "a bench")]
fn eprintln_of(line: &str) {
    eprintln!("{line}");
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

//! Scrape targets on loopback: counters, gauges, histograms with exemplars, odd labels and odd values, series that come and go, and a
//! switch that turns a target off for one replica or for all.
//!
//! No two scrapes get the same values, so a sample tells which replica it is of.

use crate::native;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{Response, StatusCode, header};
use promdedup::stand_in::now_ms;
use std::fmt::Write as _;
use std::future::pending;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// What a target shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// OpenMetrics with a histogram, exemplars and every kind of label value.
    Shop,
    /// Counters and gauges in the text format.
    Node,
    /// Series that live for some seconds.
    Pods,
    /// Native histograms.
    Native,
}

/// For whom a target is off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Off {
    Nobody,
    /// It answers 503 to one replica.
    Only(String),
    /// One replica gets no answer at all and gives up, as if its packets were lost.
    Unreachable(String),
}

/// One target. Dropping it closes its port.
pub(crate) struct Target {
    pub(crate) job: &'static str,
    pub(crate) interval_s: u32,
    pub(crate) address: SocketAddr,
    off: Arc<Mutex<Off>>,
    server: JoinHandle<()>,
}

impl Drop for Target {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Target {
    pub(crate) async fn start(job: &'static str, kind: Kind, interval_s: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("an address");
        let off = Arc::new(Mutex::new(Off::Nobody));
        let (began, at_door) = (Instant::now(), Arc::clone(&off));
        let router = Router::new().fallback(async move |request: Request| {
            let off = at_door.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let asks = request.uri().query().unwrap_or_default();
            let is_off = match off {
                Off::Nobody => false,
                Off::Only(replica) => asks == format!("replica={replica}"),
                Off::Unreachable(replica) if asks == format!("replica={replica}") => pending().await,
                Off::Unreachable(_) => false,
            };
            answer(kind, is_off, began.elapsed().as_secs_f64())
        });
        let server = tokio::spawn(async move { drop(axum::serve(listener, router).await) });
        Self { job, interval_s, address, off, server }
    }

    pub(crate) fn switch(&self, off: Off) {
        *self.off.lock().unwrap_or_else(PoisonError::into_inner) = off;
    }
}

fn answer(kind: Kind, is_off: bool, age_s: f64) -> Response<Body> {
    let (status, page) = match (is_off, kind) {
        (true, _) => (StatusCode::SERVICE_UNAVAILABLE, Body::empty()),
        (_, Kind::Shop) => (StatusCode::OK, shop(age_s).into()),
        (_, Kind::Node) => (StatusCode::OK, node(age_s).into()),
        (_, Kind::Pods) => (StatusCode::OK, pods(age_s).into()),
        (_, Kind::Native) => (StatusCode::OK, native::page(age_s).into()),
    };
    let format = match kind {
        Kind::Shop => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        Kind::Native => native::FORMAT,
        _ => "text/plain; version=0.0.4; charset=utf-8",
    };
    let response = Response::builder().status(status).header(header::CONTENT_TYPE, format);
    response.body(page).expect("a response")
}

/// As the text formats escape a label value.
fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n")
}

/// Values of labels that ask something of whoever takes series apart.
fn odd_values() -> Vec<String> {
    let long = "long ".repeat(60);
    ["/", " ", "a b ", "a\"b", "a\\b", "a\nb", "ü€😀", "{x=\"1\",}", "\u{0}\u{7f}", "-1", long.as_str()]
        .map(str::to_owned)
        .to_vec()
}

fn shop(age_s: f64) -> String {
    let mut text = String::from("# TYPE shop_requests counter\n# HELP shop_requests Requests.\n");
    for (nth, value) in odd_values().iter().enumerate() {
        // Names that sort before `__name__`, around the replica label, and after all.
        let count = age_s * (nth as f64 + 1.1);
        let value = escaped(value);
        let _ = writeln!(
            text,
            "shop_requests_total{{Path=\"{value}\",prometheus_q=\"{nth}\",prometheus_s=\"{value}\",z=\"\"}} {count}"
        );
    }
    text.push_str("# TYPE shop_odd gauge\n");
    let near_zero = f64::from_bits(1 + (age_s * 1e3) as u64);
    for (what, value) in [
        ("nan", "NaN".to_owned()),
        ("inf", "+Inf".to_owned()),
        ("minus_inf", "-Inf".to_owned()),
        ("minus_zero", "-0".to_owned()),
        ("near_zero", format!("{near_zero:e}")),
        ("huge", format!("{:e}", f64::MAX / (1.0 + age_s))),
    ] {
        let _ = writeln!(text, "shop_odd{{what=\"{what}\"}} {value}");
    }
    text.push_str("# TYPE shop_latency_seconds histogram\n");
    for method in ["GET", "PUT"] {
        histogram(&mut text, method, age_s);
    }
    text.push_str("# EOF\n");
    text
}

fn histogram(text: &mut String, method: &str, age_s: f64) {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds of a test")]
    let all = (age_s * 1e3) as u64;
    let at_s = now_ms() as f64 / 1e3;
    let bounds = ["0.005", "0.05", "0.5", "1.0", "10.0", "+Inf"];
    for (nth, le) in bounds.iter().enumerate() {
        let count = all * (nth as u64 + 1) / bounds.len() as u64;
        let _ = write!(text, "shop_latency_seconds_bucket{{method=\"{method}\",le=\"{le}\"}} {count}");
        if nth == 2 {
            let _ = write!(text, " # {{trace_id=\"{all:016x}\"}} 0.25 {at_s}");
        }
        text.push('\n');
    }
    let _ = writeln!(text, "shop_latency_seconds_count{{method=\"{method}\"}} {all}");
    let _ = writeln!(text, "shop_latency_seconds_sum{{method=\"{method}\"}} {}", age_s * 17.3);
}

fn node(age_s: f64) -> String {
    let mut text =
        String::from("# HELP node_cpu_seconds_total Seconds.\n# TYPE node_cpu_seconds_total counter\n");
    for (nth, mode) in ["idle", "user", "system", "iowait"].iter().enumerate() {
        for cpu in 0..4 {
            let seconds = age_s / (1.3 + f64::from(cpu)) * (nth as f64 + 0.7);
            let _ = writeln!(text, "node_cpu_seconds_total{{cpu=\"{cpu}\",mode=\"{mode}\"}} {seconds}");
        }
    }
    text.push_str("# TYPE node_load gauge\n");
    for nth in 0..8 {
        let load = (age_s * f64::from(nth + 1)).sin();
        let _ = writeln!(text, "node_load{{minutes=\"{nth}\"}} {load}");
    }
    text
}

/// Two generations live at any time, each for 16 seconds.
fn pods(age_s: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds of a test")]
    let newest = (age_s / 8.0) as u64 + 1;
    let mut text = String::from("# TYPE pod_memory_bytes gauge\n");
    for generation in newest - 1..=newest {
        for container in ["app", "side car"] {
            let _ = writeln!(
                text,
                "pod_memory_bytes{{pod=\"web-{generation}\",container=\"{container}\"}} {}",
                age_s * 1e6
            );
        }
    }
    text
}

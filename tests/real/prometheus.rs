//! Debian's `prometheus` as a child process: configured, started, killed, started again on its data, and asked what it has.

use crate::process::{PATIENCE, Process, eventually, page};
use crate::proxy::Metrics;
use crate::verdict::Series;
use promdedup::stand_in::{Labels, Point};
use serde_json::Value;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::Command;
use tempfile::TempDir;

const MISSING: &str = "`prometheus` is not on PATH; on Debian: apt-get install --no-install-recommends prometheus (2.42 or newer)";
/// The bits of a NaN that Prometheus scraped (`value.NormalNaN` in its sources); its API says only that it is one.
const NORMAL_NAN_BITS: u64 = 0x7ff8_0000_0000_0001;

/// One Prometheus and its data. Dropping it kills it and removes them.
pub(crate) struct Prometheus {
    name: String,
    more: &'static [&'static str],
    starts: u32,
    address: SocketAddr,
    // Before the folder, so that its log can still be shown when it is dropped.
    process: Process,
    folder: TempDir,
}

impl Prometheus {
    /// Starts one with this configuration and waits until it is ready.
    pub(crate) async fn start(name: &str, configuration: &str, more: &'static [&'static str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("prometheus.yml"), configuration).expect("written");
        let (process, address) = launch(name, &folder, 1, more).await;
        Self { name: name.to_owned(), more, folder, starts: 1, process, address }
    }

    /// SIGKILL: no marker is written, nothing is flushed, what was to be sent is lost.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// SIGSTOP: it stands still in the middle of whatever it does, and so do its connections.
    pub(crate) fn freeze(&mut self) {
        self.process.signal("STOP");
    }

    /// SIGCONT.
    pub(crate) fn thaw(&mut self) {
        self.process.signal("CONT");
    }

    /// Starts it again on its data, on another port.
    pub(crate) async fn restart(&mut self) {
        self.starts += 1;
        (self.process, self.address) = launch(&self.name, &self.folder, self.starts, self.more).await;
    }

    /// SIGTERM: what is to be sent is sent.
    pub(crate) async fn terminate(&mut self) {
        self.process.terminate().await;
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) async fn metrics(&self) -> Metrics {
        Metrics::of(&self.url("/metrics")).await
    }

    /// All samples of the last five minutes but stale markers, as it stored them.
    pub(crate) async fn samples(&self) -> Series {
        self.matrix(r#"{__name__=~".+"}[5m]"#).await
    }

    /// Samples by a range selector.
    pub(crate) async fn matrix(&self, query: &str) -> Series {
        let result = self.ask(query).await;
        let all = result.as_array().expect("a matrix");
        all.iter().map(|one| (labels(&one["metric"]), points(one))).collect()
    }

    async fn ask(&self, query: &str) -> Value {
        let url = self.url(&format!("/api/v1/query?query={}", encoded(query)));
        let text = page(&url).await.unwrap_or_else(|| panic!("{} does not answer {query}", self.name));
        let mut answer: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(answer["status"], "success", "{text}");
        answer["data"]["result"].take()
    }
}

async fn launch(name: &str, folder: &TempDir, nth: u32, more: &[&str]) -> (Process, SocketAddr) {
    let path = |file: &str| folder.path().join(file).display().to_string();
    let mut command = Command::new("prometheus");
    command
        .arg(format!("--config.file={}", path("prometheus.yml")))
        .arg(format!("--storage.tsdb.path={}", path("data")))
        .arg("--web.listen-address=127.0.0.1:0")
        .args(more);
    let log = folder.path().join(format!("log-{nth}"));
    let mut process = Process::start(name, &mut command, log, MISSING);
    let address = process.address("Listening on", "address=").await;
    eventually(&format!("{name} is ready"), PATIENCE, async || {
        process.assert_alive();
        page(&format!("http://{address}/-/ready")).await
    })
    .await;
    (process, address)
}

fn labels(metric: &Value) -> Labels {
    let pairs = metric.as_object().expect("labels").iter();
    Labels::new(pairs.map(|(name, value)| (name.as_str(), value.as_str().expect("a string"))))
}

/// The samples of a series. Of a native histogram the API does not tell all: here it is one, at that time.
fn points(series: &Value) -> Vec<Point> {
    #[expect(clippy::cast_possible_truncation, reason = "milliseconds of this century")]
    let at_ms = |pair: &Value| (pair[0].as_f64().expect("seconds") * 1e3).round() as i64;
    let float = |pair: &Value| match pair[1].as_str().expect("a string") {
        "NaN" => Point { at_ms: at_ms(pair), bits: NORMAL_NAN_BITS, histogram: false },
        value => Point::float(at_ms(pair), value.parse().expect("a float")),
    };
    let histogram = |pair: &Value| Point { at_ms: at_ms(pair), bits: 0, histogram: true };
    let all = |kind: &str| series[kind].as_array().map_or(&[][..], Vec::as_slice).iter();
    let mut points: Vec<Point> = all("values").map(float).chain(all("histograms").map(histogram)).collect();
    assert!(!points.is_empty(), "a series without samples: {series}");
    points.sort_by_key(|point| point.at_ms);
    points
}

/// Percent encoding of all but letters and digits.
fn encoded(query: &str) -> String {
    let mut text = String::new();
    for byte in query.bytes() {
        if byte.is_ascii_alphanumeric() {
            text.push(char::from(byte));
        } else {
            write!(text, "%{byte:02X}").expect("a string takes all");
        }
    }
    text
}

//! Makes a sender of remote write 2.0 of a Prometheus that speaks 1.0: what it sends is said in 2.0 on the way, with the metadata that it
//! has told of before, and what it is answered is passed back. Keeps nothing, and judges what the proxy says is written.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response};
use promdedup::proto::{Label, WriteRequest, v2};
use promdedup::stand_in::connection::Connection;
use prost::Message as _;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

const WRITTEN: [&str; 3] = ["samples", "histograms", "exemplars"];

/// One interpreter. Dropping it closes its port.
pub(crate) struct Interpreter {
    pub(crate) url: String,
    heard: Arc<Mutex<Heard>>,
    server: JoinHandle<()>,
}

/// What it has heard so far.
#[derive(Default)]
struct Heard {
    /// Type, help and unit by family.
    metadata: HashMap<String, (i32, String, String)>,
    delivered: u64,
    problems: Vec<String>,
}

impl Drop for Interpreter {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Interpreter {
    /// Stands between a replica and the proxy.
    pub(crate) async fn start(proxy_url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let url = format!("http://{}/api/v1/write", listener.local_addr().expect("an address"));
        let heard = Arc::<Mutex<Heard>>::default();
        let (at_door, proxy_url) = (Arc::clone(&heard), proxy_url.to_owned());
        let router =
            Router::new().fallback(move |request| pass(Arc::clone(&at_door), proxy_url.clone(), request));
        let server = tokio::spawn(async move { drop(axum::serve(listener, router).await) });
        Self { url, heard, server }
    }

    /// What was wrong with the answers, and whether there were any.
    pub(crate) fn problems(&self) -> Vec<String> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let silent =
            (heard.delivered < 10).then(|| format!("{} requests of 2.0 were delivered", heard.delivered));
        heard.problems.iter().cloned().chain(silent).collect()
    }
}

async fn pass(heard: Arc<Mutex<Heard>>, proxy_url: String, request: Request) -> Response<Body> {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.expect("a body");
    let raw = snap::raw::Decoder::new().decompress_vec(&body).expect("snappy");
    let request = WriteRequest::decode(raw.as_slice()).expect("remote write 1.0");
    let said = heard.lock().unwrap_or_else(PoisonError::into_inner).say(request);
    let Some(said) = said else { return answer(204, None) };
    let mut headers = HeaderMap::from_iter([
        (CONTENT_ENCODING, HeaderValue::from_static("snappy")),
        (
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-protobuf;proto=io.prometheus.write.v2.Request"),
        ),
        (HeaderName::from_static("x-prometheus-remote-write-version"), HeaderValue::from_static("2.0.0")),
    ]);
    let again = HeaderName::from_static("retry-attempt");
    if let Some(attempt) = head.headers.get(&again) {
        headers.insert(again, attempt.clone());
    }
    let packed = snap::raw::Encoder::new().compress_vec(&said.encode_to_vec()).expect("packed");
    let mut proxy = Connection::to(&proxy_url).expect("a URL");
    // Without an answer the replica has to come again, as it would have without an interpreter.
    let Ok(reply) = proxy.post(&headers, packed.into()).await else { return answer(502, None) };
    let written = WRITTEN.map(|what| {
        let name = format!("x-prometheus-remote-write-{what}-written");
        reply.headers.get(name).and_then(|count| count.to_str().ok()?.parse::<usize>().ok())
    });
    let sent = match reply.status {
        204 => counts(&said).map(Some),
        503 => [Some(0); 3],
        _ => written,
    };
    let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
    heard.delivered += u64::from(reply.status == 204);
    if written != sent {
        heard.problems.push(format!("{}: {written:?} instead of {sent:?} are written", reply.status));
    }
    answer(reply.status, reply.retry_after_s())
}

fn counts(request: &v2::Request) -> [usize; 3] {
    let of =
        |series: &v2::TimeSeries| [series.samples.len(), series.histograms.len(), series.exemplars.len()];
    request.timeseries.iter().map(of).fold([0; 3], |all, own| [0, 1, 2].map(|nth| all[nth] + own[nth]))
}

fn answer(status: u16, retry_after_s: Option<u64>) -> Response<Body> {
    let mut response = Response::builder().status(status);
    if let Some(seconds) = retry_after_s {
        response = response.header(RETRY_AFTER, seconds);
    }
    response.body(Body::empty()).expect("a response")
}

impl Heard {
    /// The request in 2.0. `None`: it had no series, and what it told of families is remembered.
    fn say(&mut self, request: WriteRequest) -> Option<v2::Request> {
        for of in request.metadata {
            self.metadata.insert(of.metric_family_name, (of.r#type, of.help, of.unit));
        }
        if request.timeseries.is_empty() {
            return None;
        }
        let mut symbols =
            Symbols { texts: vec![String::new()], numbers: HashMap::from([(String::new(), 0)]) };
        let mut timeseries = vec![];
        for series in request.timeseries {
            let name = series.labels.iter().find(|label| label.name == "__name__");
            let family = name.and_then(|label| self.metadata.get(&label.value));
            let metadata = family.map(|(kind, help, unit)| v2::Metadata {
                r#type: *kind,
                help_ref: symbols.refer(help),
                unit_ref: symbols.refer(unit),
            });
            timeseries.push(v2::TimeSeries {
                labels_refs: symbols.labels(&series.labels),
                samples: series
                    .samples
                    .iter()
                    .map(|sample| v2::Sample {
                        value: sample.value,
                        timestamp: sample.timestamp,
                        start_timestamp: 0,
                    })
                    .collect(),
                // Their fields have the same numbers.
                histograms: series
                    .histograms
                    .iter()
                    .map(|histogram| v2::Histogram::decode(&*histogram.encode_to_vec()).expect("a histogram"))
                    .collect(),
                exemplars: series
                    .exemplars
                    .iter()
                    .map(|exemplar| v2::Exemplar {
                        labels_refs: symbols.labels(&exemplar.labels),
                        value: exemplar.value,
                        timestamp: exemplar.timestamp,
                    })
                    .collect(),
                metadata,
                created_timestamp: 0,
            });
        }
        Some(v2::Request { symbols: symbols.texts, timeseries })
    }
}

struct Symbols {
    texts: Vec<String>,
    numbers: HashMap<String, u32>,
}

impl Symbols {
    fn refer(&mut self, text: &str) -> u32 {
        let next = self.texts.len() as u32;
        let number = *self.numbers.entry(text.to_owned()).or_insert(next);
        if number == next {
            self.texts.push(text.to_owned());
        }
        number
    }

    fn labels(&mut self, labels: &[Label]) -> Vec<u32> {
        labels.iter().flat_map(|label| [self.refer(&label.name), self.refer(&label.value)]).collect()
    }
}

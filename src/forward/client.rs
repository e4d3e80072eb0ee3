//! The client of the upstream: one attempt over pooled keep-alive connections, always bounded in time.

mod authorization;
mod connector;
mod health;
mod metrics;
mod shares;

pub use health::Health;

use super::{Answer, Echo, Outgoing, Passed, Relayed, Upstream, answer, end_to_end};
use crate::config::{ForwardConfig, Protocol};
use crate::socket::NetworkBytes;
use crate::telemetry::LimitHits;
use authorization::Authorization;
use bytes::{Bytes, BytesMut};
use connector::Connector;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use metrics::Metrics;
use prometheus::{IntCounter, Registry};
use shares::{NoneFree, Share, Shares};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Says of a receiver that it speaks 2.0.
const SAMPLES_WRITTEN: &str = "x-prometheus-remote-write-samples-written";
/// How often an upstream is complained of that discards everything, in seconds.
const TELL_AGAIN_S: u64 = 60;
const DISCARDS: &str = "it answered 2xx without X-Prometheus-Remote-Write-Samples-Written: it does not take remote write \
    2.0 and has discarded everything; set PROMDEDUP_UPSTREAM_PROTOCOL=1.0";
/// So much of an answer's text is kept.
const TEXT_MAX_BYTES: usize = 4 << 10;
/// So much more is read and thrown away, so that the connection can be used again; beyond it the connection goes.
const DRAIN_MAX_BYTES: usize = 64 << 10;
/// So much of an answer is passed back as it came.
const ECHO_MAX_BYTES: usize = 64 << 10;
/// An idle connection is closed before load balancers (60 s and more, as a rule) close it under a request.
const IDLE_MAX: Duration = Duration::from_secs(50);

/// Why there can be no client of the upstream.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// Metrics clash.
    #[error("cannot register metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// A file for TLS has become unusable since the configuration was read, or the address has no name for TLS.
    #[error("TLS towards the upstream: {0}")]
    Tls(String),
}

/// The real upstream. Cheap to clone. Each thread that sends has a pool of connections of its own, so that a
/// connection is driven by the thread that uses it.
#[derive(Debug, Clone)]
pub struct HttpUpstream {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    pools: Vec<Client<Connector, Full<Bytes>>>,
    url: Uri,
    protocol: Protocol,
    timeout: Duration,
    connections: Shares,
    connections_hit: IntCounter,
    /// Those of a request of our own making.
    headers: HeaderMap,
    /// Those that the operator adds to every request.
    added: HeaderMap,
    tenant_header: HeaderName,
    authorization: Option<Authorization>,
    metrics: Metrics,
    health: Health,
    begun: Instant,
    /// Until when it need not be said again that the upstream discards everything, in seconds since `begun`.
    discards_told_s: AtomicU64,
}

impl HttpUpstream {
    /// Makes the client; contacts nobody yet.
    ///
    /// # Errors
    /// When the registry has its metrics already, or a file for TLS is of no use.
    pub fn new(
        config: ForwardConfig,
        registry: &Registry,
        network: &NetworkBytes,
        limits: &LimitHits,
    ) -> Result<Self, ForwardError> {
        let connector = Connector::new(&config, &network.upstream).map_err(ForwardError::Tls)?;
        let pools = (0..config.pools.max(1)).map(|_| pool(&config, connector.clone())).collect();
        let mut headers = fixed_headers(config.protocol);
        let added = HeaderMap::from_iter(config.headers);
        headers.extend(added.clone());
        let shared = Shared {
            pools,
            url: config.url,
            protocol: config.protocol,
            timeout: config.timeout,
            connections: Shares::new(config.connections_max),
            connections_hit: limits.of("upstream_connections"),
            headers,
            added,
            tenant_header: config.tenant_header,
            authorization: config.credentials.map(Authorization::new),
            metrics: Metrics::new(registry)?,
            health: Health::default(),
            begun: Instant::now(),
            discards_told_s: AtomicU64::new(0),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// How the upstream has been doing, for readiness.
    #[must_use]
    pub fn health(&self) -> &Health {
        &self.shared.health
    }

    /// An attempt with an empty remote write, which Thanos Receive and Prometheus answer 2xx.
    pub async fn probe(&self) -> Answer {
        // One byte: the snappy block that says "nothing follows".
        let body = Bytes::from_static(&[0]);
        self.send(Outgoing { body, samples: 0, tenant: None, request_id: None, traceparent: None }).await
    }
}

impl Upstream for HttpUpstream {
    async fn send(&self, request: Outgoing) -> Answer {
        let shared = &self.shared;
        let (answer, _) = shared.speak(shared.request(request), shared.protocol, TEXT_MAX_BYTES).await;
        answer
    }

    async fn relay(&self, request: Passed) -> Relayed {
        let protocol = request.protocol;
        let request = self.shared.passed(request);
        let (answer, echo) = self.shared.speak(request, protocol, ECHO_MAX_BYTES).await;
        Relayed { answer, echo }
    }
}

/// An answer as it came.
struct Answered {
    status: u16,
    headers: HeaderMap,
    /// Its beginning.
    body: Bytes,
    /// There was more of it.
    cut: bool,
}

impl Shared {
    /// One attempt: what came of it, and in which words. `kept_max_bytes`: so much of them.
    async fn speak(
        &self,
        request: Request<Full<Bytes>>,
        protocol: Protocol,
        kept_max_bytes: usize,
    ) -> (Answer, Result<Echo, String>) {
        let started = Instant::now();
        let (answer, echo) = match self.attempt(request, started + self.timeout, kept_max_bytes).await {
            Ok(answered) => {
                self.metrics.answered(answered.status, started.elapsed());
                (self.judge(&answered, protocol), Ok(answered.into()))
            }
            Err(error) => {
                self.metrics.not_answered(started.elapsed());
                (Answer::NoAnswer { error: error.clone() }, Err(error))
            }
        };
        self.health.note(started.into_std(), &answer);
        (answer, echo)
    }

    async fn attempt(
        &self,
        request: Request<Full<Bytes>>,
        deadline: Instant,
        kept_max_bytes: usize,
    ) -> Result<Answered, String> {
        let tenant = request.headers().get(&self.tenant_header).cloned();
        // Who has waited for most of the time would only begin what it cannot end, and keep the connection from others.
        let _share = self.share(&tenant, deadline - self.timeout / 2).await?;
        let pool = &self.pools[pool_of_this_thread() % self.pools.len()];
        let response = match timeout_at(deadline, pool.request(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(chain(&error)),
            Err(_) => return Err(format!("no answer within {}", spelt(self.timeout))),
        };
        let (head, body) = response.into_parts();
        // The status is the answer; a body that breaks off or never ends does not change it.
        let (body, cut) = beginning(body, deadline, kept_max_bytes).await;
        Ok(Answered { status: head.status.as_u16(), headers: head.headers, body, cut })
    }

    /// What an answer means. A receiver of 2.0 always says what it has written; one of 1.0 finds nothing in a body of
    /// 2.0, and says that all is well.
    fn judge(&self, answered: &Answered, protocol: Protocol) -> Answer {
        let status = answered.status;
        let says_written = answered.headers.contains_key(SAMPLES_WRITTEN);
        if protocol == Protocol::One || says_written || !(200..300).contains(&status) {
            return answer::judge(status, answered.text());
        }
        let now_s = self.begun.elapsed().as_secs();
        let told_s = self.discards_told_s.load(Ordering::Relaxed);
        if now_s >= told_s
            && self.discards_told_s.fetch_max(now_s + TELL_AGAIN_S, Ordering::Relaxed) == told_s
        {
            tracing::error!(status, url = %self.url, "{DISCARDS}");
        }
        Answer::Unavailable { status, text: DISCARDS.to_owned() }
    }

    async fn share(&self, tenant: &Option<HeaderValue>, deadline: Instant) -> Result<Share, String> {
        if let Some(share) = self.connections.take(tenant) {
            return Ok(share);
        }
        self.connections_hit.inc();
        self.connections.wait(tenant, deadline).await.map_err(|NoneFree { own }| {
            let (max, timeout) = (self.connections.max(), spelt(self.timeout / 2));
            format!(
                "no connection to the upstream was free within {timeout}: of {max} (PROMDEDUP_UPSTREAM_CONNECTIONS_MAX) this \
                 tenant has {own}"
            )
        })
    }

    fn request(&self, outgoing: Outgoing) -> Request<Full<Bytes>> {
        let mut headers = self.headers.clone();
        let passed_on = [
            (&self.tenant_header, outgoing.tenant),
            (&HeaderName::from_static("x-request-id"), outgoing.request_id),
            (&HeaderName::from_static("traceparent"), outgoing.traceparent),
        ];
        for (name, value) in passed_on {
            if let Some(value) = value {
                headers.insert(name, value);
            }
        }
        self.post(headers, outgoing.body)
    }

    /// A request as it came: what the sender says of its body is true of this one, too.
    fn passed(&self, passed: Passed) -> Request<Full<Bytes>> {
        let mut headers = passed.headers;
        headers.extend(self.added.clone());
        self.post(headers, passed.body)
    }

    fn post(&self, mut headers: HeaderMap, body: Bytes) -> Request<Full<Bytes>> {
        if let Some(authorization) = &self.authorization
            && let Some(value) = authorization.current()
        {
            headers.insert(AUTHORIZATION, value);
        }
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.url.clone();
        *request.headers_mut() = headers;
        request
    }
}

/// What remote write asks of a sender (specification 1.0, "Protocol"; 2.0, "Required Headers").
fn fixed_headers(protocol: Protocol) -> HeaderMap {
    let (kind, version) = match protocol {
        Protocol::One => ("application/x-protobuf", "0.1.0"),
        Protocol::Two => ("application/x-protobuf;proto=io.prometheus.write.v2.Request", "2.0.0"),
    };
    const AGENT: &str = concat!("promdedup/", env!("CARGO_PKG_VERSION"));
    HeaderMap::from_iter([
        (CONTENT_ENCODING, HeaderValue::from_static("snappy")),
        (CONTENT_TYPE, HeaderValue::from_static(kind)),
        (HeaderName::from_static("x-prometheus-remote-write-version"), HeaderValue::from_static(version)),
        (USER_AGENT, HeaderValue::from_static(AGENT)),
    ])
}

fn pool(config: &ForwardConfig, connector: Connector) -> Client<Connector, Full<Bytes>> {
    let mut builder = Client::builder(TokioExecutor::new());
    // A request that met a connection closed while idle, and of which nothing was written, goes to another one;
    // once written, it ends without an answer: the upstream may have stored it.
    builder.retry_canceled_requests(true);
    builder.pool_idle_timeout(IDLE_MAX).pool_timer(TokioTimer::new());
    builder.pool_max_idle_per_host(config.connections_max);
    builder.build(connector)
}

/// A number of the calling thread, given out in order of first use.
fn pool_of_this_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static MINE: Cell<Option<usize>> = const { Cell::new(None) };
    }
    MINE.with(|mine| {
        let number = mine.get().unwrap_or_else(|| NEXT.fetch_add(1, Ordering::Relaxed));
        mine.set(Some(number));
        number
    })
}

impl Answered {
    /// The beginning of its text.
    fn text(&self) -> String {
        let kept = &self.body[..self.body.len().min(TEXT_MAX_BYTES)];
        let mut text = String::from_utf8_lossy(kept).trim().to_owned();
        if self.cut || kept.len() < self.body.len() {
            text.push(answer::CUT_OFF);
        }
        text
    }
}

impl From<Answered> for Echo {
    fn from(answered: Answered) -> Self {
        let Answered { status, headers, body, .. } = answered;
        Self { status, headers: end_to_end(&headers), body }
    }
}

/// The beginning of an answer's body, and whether there was more of it.
async fn beginning(mut body: Incoming, deadline: Instant, max_bytes: usize) -> (Bytes, bool) {
    let mut kept = BytesMut::new();
    let mut dropped = 0;
    while let Ok(Some(Ok(frame))) = timeout_at(deadline, body.frame()).await {
        let Ok(data) = frame.into_data() else { continue };
        let room = max_bytes.saturating_sub(kept.len()).min(data.len());
        kept.extend_from_slice(&data[..room]);
        dropped += data.len() - room;
        if dropped > DRAIN_MAX_BYTES {
            break;
        }
    }
    (kept.freeze(), dropped > 0)
}

/// An error with its causes, which is where hyper's errors say what happened.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn spelt(duration: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(duration)
}

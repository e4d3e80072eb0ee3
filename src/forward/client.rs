//! The client of the upstream: one attempt over pooled keep-alive connections, always bounded in time.

mod authorization;
mod connector;
mod health;
mod metrics;
mod pools;
mod shares;

pub(crate) use connector::{Connector, Way};
pub use health::Health;
pub(crate) use pools::{Answered, Pools};

use super::{Answer, Echo, Outgoing, Passed, Relayed, Upstream, WRITTEN, answer, end_to_end};
use crate::config::{ForwardConfig, Protocol};
use crate::socket::NetworkBytes;
use crate::telemetry::LimitHits;
use authorization::Authorization;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use http_body_util::Full;
use metrics::Metrics;
use pools::{Silence, TEXT_MAX_BYTES};
use prometheus::{IntCounter, Registry};
use shares::{NoneFree, Share, Shares};
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// How often an upstream is complained of that discards what it is sent, in seconds.
const TELL_AGAIN_S: u64 = 60;
const DISCARDS_RELAYED: &str = "it answered 2xx without a count in X-Prometheus-Remote-Write-Samples-Written to remote write 2.0 that was \
    passed on as it came: if it does not take 2.0, it has discarded that; have the senders send 1.0. Counted is what would have become of \
    it as 1.0, by PROMDEDUP_UPSTREAM_PROTOCOL";
/// So much of an answer is passed back as it came.
const ECHO_MAX_BYTES: usize = 64 << 10;

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
    pools: Pools,
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
    /// Until when it need not be said again that the upstream discards what it is sent, in seconds since `begun`.
    discards_told_s: AtomicU64,
}

/// What an answer is held against.
#[derive(Debug, Clone, Copy)]
struct Sent {
    protocol: Protocol,
    samples: u64,
    /// As it came: its protocol is its sender's choice.
    relayed: bool,
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
        let secure = config.url.scheme_str() == Some("https");
        if secure {
            connector::server_name(&config.url).map_err(ForwardError::Tls)?;
        }
        let way = Way {
            what: "TLS files for the upstream",
            tls: secure.then_some(&config.tls),
            server_name: None,
            timeout: config.timeout,
            unconfirmed_max: None,
            traffic: &network.upstream,
        };
        let connector = Connector::new(way).map_err(ForwardError::Tls)?;
        let pools = Pools::new(config.pools, &connector, config.connections_max);
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
        let sent = Sent { protocol: shared.protocol, samples: request.samples, relayed: false };
        let (answer, _) = shared.speak(shared.request(request), sent, TEXT_MAX_BYTES).await;
        answer
    }

    async fn relay(&self, request: Passed) -> Relayed {
        // How many samples it has nobody knows yet: it goes on as it came.
        let sent = Sent { protocol: request.protocol, samples: 0, relayed: true };
        let request = self.shared.passed(request);
        let (answer, echo) = self.shared.speak(request, sent, ECHO_MAX_BYTES).await;
        Relayed { answer, echo }
    }
}

impl Shared {
    /// One attempt: what came of it, and in which words. `kept_max_bytes`: so much of them.
    async fn speak(
        &self,
        request: Request<Full<Bytes>>,
        sent: Sent,
        kept_max_bytes: usize,
    ) -> (Answer, Result<Echo, String>) {
        let started = Instant::now();
        let (answer, echo) = match self.attempt(request, started + self.timeout, kept_max_bytes).await {
            Ok(answered) => {
                self.metrics.answered(answered.status, started.elapsed());
                (self.judge(&answered, sent), Ok(answered.into()))
            }
            Err(silence) => {
                self.metrics.not_answered(started.elapsed());
                let unsent = matches!(silence, Silence::Unsent(_));
                let error = silence.told(self.timeout);
                let answer = match unsent {
                    true => Answer::NotSent { error: error.clone() },
                    false => Answer::NoAnswer { error: error.clone() },
                };
                (answer, Err(error))
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
    ) -> Result<Answered, Silence> {
        let tenant = request.headers().get(&self.tenant_header).cloned();
        // Who has waited for most of the time would only begin what it cannot end, and keep the connection from others.
        let _share = self.share(&tenant, deadline - self.timeout / 2).await.map_err(Silence::Unsent)?;
        self.pools.exchange(request, deadline, kept_max_bytes).await
    }

    /// What an answer means. A receiver of 2.0 always says what it has written.
    fn judge(&self, answered: &Answered, sent: Sent) -> Answer {
        let status = answered.status;
        if sent.protocol == Protocol::One || !(200..300).contains(&status) {
            return answer::judge(status, answered.text());
        }
        let Err(untaken) = answer::judge_written(written(&answered.headers), sent.samples) else {
            return Answer::Taken;
        };
        // Deduplication would have sent it 1.0. What that would have come to is measured, and what upstream has made of 2.0 is told.
        if sent.relayed && self.protocol == Protocol::One {
            self.tell_of_discards(status, &DISCARDS_RELAYED);
            return Answer::Taken;
        }
        self.tell_of_discards(status, &untaken);
        Answer::Unavailable { status, text: untaken.to_string() }
    }

    /// Complains of an upstream that discards what it is sent, not too often.
    fn tell_of_discards(&self, status: u16, what: &dyn Display) {
        let now_s = self.begun.elapsed().as_secs();
        let told_s = self.discards_told_s.load(Ordering::Relaxed);
        if now_s >= told_s
            && self.discards_told_s.fetch_max(now_s + TELL_AGAIN_S, Ordering::Relaxed) == told_s
        {
            tracing::error!(status, url = %self.url, "{what}");
        }
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

/// What the headers of an answer say is written. What is no number says nothing.
fn written(headers: &HeaderMap) -> [Option<u64>; 3] {
    WRITTEN.map(|name| headers.get(name)?.to_str().ok()?.trim().parse().ok())
}

impl From<Answered> for Echo {
    fn from(answered: Answered) -> Self {
        let Answered { status, headers, body, .. } = answered;
        Self { status, headers: end_to_end(&headers), body }
    }
}

fn spelt(duration: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(duration)
}

//! The client of other instances: one attempt over pooled keep-alive connections, always bounded in time.

use super::metrics::Metrics;
use super::{Hop, Hopped, MISDIRECTED, PEER_HEADER, Peers, Said, Secret};
use crate::config::ClientTls;
use crate::forward::{Answered, Connector, ForwardError, Pools, WRITTEN, Way};
use crate::placement::{Asking, Peer};
use crate::socket::NetworkBytes;
use crate::wire::Protocol;
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use http_body_util::Full;
use prometheus::Registry;
use rustls::pki_types::ServerName;
use std::time::Duration;
use tokio::time::Instant;

const PATH: &str = "/api/v1/receive";
/// So much of an answer's text is kept: what an instance says is one sentence and upstream's text in it.
const TEXT_MAX_BYTES: usize = 8 << 10;
/// An instance that is there takes a connection at once; one whose machine has gone does not even refuse it.
const CONNECT_MAX: Duration = Duration::from_secs(2);

/// The system of an instance that is there confirms what arrives at once, however long the answer takes; one that has stopped reading
/// for as long, with more than its buffers hold under way, counts as not reached as well (`tcp(7)`, `TCP_USER_TIMEOUT`). While a request is on its way to
/// one that is not reached, its sender brings nothing else, and what another replica brings elsewhere may overtake that.
const UNCONFIRMED_MAX: Duration = Duration::from_secs(5);

/// How other instances are reached.
#[derive(Debug, Clone)]
pub struct PeersConfig {
    /// Bound of one hop: above that of an attempt at the upstream, so that the other instance says what was wrong with it.
    pub timeout: Duration,
    /// How TLS is spoken to those whose address is `https://`; `None`: to none.
    pub tls: Option<ClientTls>,
    /// What their certificates have to name; `None`: the host of each one's address.
    pub server_name: Option<ServerName<'static>>,
    /// Header that carries the tenant.
    pub tenant_header: HeaderName,
    /// Idle connections kept to an instance, by each thread.
    pub connections_max: usize,
    /// How many pools of connections, one a thread that sends.
    pub pools: usize,
}

/// The real other instances.
#[derive(Debug)]
pub struct HttpPeers {
    pools: Pools,
    timeout: Duration,
    tenant_header: HeaderName,
    secret: Secret,
    metrics: Metrics,
}

impl HttpPeers {
    /// Makes the client; contacts nobody yet.
    ///
    /// # Errors
    /// When the registry has its metrics already, or a file for TLS is of no use.
    pub fn new(
        config: PeersConfig,
        secret: Secret,
        registry: &Registry,
        network: &NetworkBytes,
    ) -> Result<Self, ForwardError> {
        let metrics = Metrics::new(registry, network)?;
        let way = Way {
            what: "TLS files for other instances",
            tls: config.tls.as_ref(),
            server_name: config.server_name,
            timeout: CONNECT_MAX.min(config.timeout),
            unconfirmed_max: Some(UNCONFIRMED_MAX),
            traffic: &metrics.traffic,
        };
        let connector = Connector::new(way).map_err(ForwardError::Tls)?;
        let pools = Pools::new(config.pools, &connector, config.connections_max);
        Ok(Self { pools, timeout: config.timeout, tenant_header: config.tenant_header, secret, metrics })
    }

    async fn attempt(&self, peer: &Peer, hop: Hop) -> Result<Answered, String> {
        let request = self.request(peer, hop)?;
        let exchange = self.pools.exchange(request, Instant::now() + self.timeout, TEXT_MAX_BYTES);
        exchange.await.map_err(|silence| silence.told(self.timeout))
    }

    fn request(&self, peer: &Peer, hop: Hop) -> Result<Request<Full<Bytes>>, String> {
        let url = format!("{}{PATH}", peer.url.trim_end_matches('/'));
        let url: Uri = url.parse().map_err(|error| format!("{url} is no address: {error}"))?;
        let Some(secret) = self.secret.current() else {
            return Err("there is no secret between instances".to_owned());
        };
        let name = HeaderName::from_static;
        let mut headers = fixed_headers(hop.protocol);
        headers.insert(name(PEER_HEADER), secret.sent());
        let carried = [
            (self.tenant_header.clone(), hop.tenant),
            (name("x-request-id"), hop.request_id),
            (name("traceparent"), hop.traceparent),
            (name("retry-attempt"), (hop.retry_attempt > 0).then(|| hop.retry_attempt.into())),
        ];
        headers.extend(carried.into_iter().filter_map(|(name, value)| Some((name, value?))));
        let mut request = Request::new(Full::new(hop.body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = url;
        *request.headers_mut() = headers;
        Ok(request)
    }
}

impl Peers for HttpPeers {
    fn pass<'a>(&'a self, peer: &'a Peer, hop: Hop) -> Asking<'a, Hopped> {
        Box::pin(async move {
            let started = Instant::now();
            let hopped = match self.attempt(peer, hop).await {
                Ok(answered) => judge(&answered),
                Err(error) => Hopped::Unreached { error },
            };
            self.metrics.count(&hopped, started.elapsed());
            hopped
        })
    }

    fn secret(&self) -> Secret {
        self.secret.clone()
    }
}

fn fixed_headers(protocol: Protocol) -> HeaderMap {
    let kind = match protocol {
        Protocol::One => "application/x-protobuf",
        Protocol::Two => "application/x-protobuf;proto=io.prometheus.write.v2.Request",
    };
    const AGENT: &str = concat!("promdedup/", env!("CARGO_PKG_VERSION"));
    HeaderMap::from_iter([
        (CONTENT_ENCODING, HeaderValue::from_static("snappy")),
        (CONTENT_TYPE, HeaderValue::from_static(kind)),
        (USER_AGENT, HeaderValue::from_static(AGENT)),
    ])
}

/// What an answer means. An instance always says what it has written: whoever answers 204 without that is none, and has thrown
/// away what it was sent.
fn judge(answered: &Answered) -> Hopped {
    let number = |name: &HeaderName| answered.headers.get(name)?.to_str().ok()?.parse::<u64>().ok();
    let written = WRITTEN.map(|name| number(&HeaderName::from_static(name)));
    match (answered.status, written) {
        (MISDIRECTED, _) => Hopped::Misdirected,
        (status @ (204 | 400 | 413), [Some(samples), Some(histograms), Some(exemplars)]) => {
            let written = [samples, histograms, exemplars];
            Hopped::Answered(Said { status, text: answered.text(), retry_after_s: None, written })
        }
        (503, _) => {
            let retry_after_s = number(&RETRY_AFTER).and_then(|seconds| u32::try_from(seconds).ok());
            Hopped::Answered(Said { status: 503, text: answered.text(), retry_after_s, written: [0; 3] })
        }
        (status, _) => Hopped::Refused { status, text: answered.text() },
    }
}

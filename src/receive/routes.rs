//! Routes: from a request's headers to its answer.

use super::Serve;
use super::admission::{Admission, Admitted};
use super::auth::{Auth, FromPeer, PeerDoor};
use super::headers::{self, Protocol, Unsupported};
use super::metrics::Metrics;
use super::phase::Phase;
use super::refused::{Refused, sentence};
use crate::config::{Mode, ReceiveConfig, compressed_max_bytes};
use crate::forward::{Echo, WRITTEN};
use crate::pipeline::{self, Incoming, Reply, Verbatim, Written};
use crate::telemetry::LimitHits;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderName, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::BodyExt;
use prometheus::IntCounter;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// The ways in. All the same: the first is Thanos Receive's, the second Prometheus', the third Cortex' and Mimir's.
pub(super) const PATHS: [&str; 3] = ["/api/v1/receive", "/api/v1/write", "/api/v1/push"];
/// A first allocation is not larger, whatever the sender claims; memory follows what really arrives.
const FIRST_ALLOCATION_MAX_BYTES: usize = 1 << 20;
/// Of a longer body that says it becomes too large only what says so is kept.
const KEPT_MAX_BYTES: usize = 64 << 10;
/// Where a block says how long it becomes: a varint.
const CLAIM_MAX_BYTES: usize = 10;
/// A 2.0 body is rewritten as 1.0, which says every label again: that takes five times the memory as a rule.
const REWRITTEN_FACTOR: usize = 8;

/// What all requests share.
#[derive(Debug)]
pub(super) struct Room<S> {
    service: Arc<S>,
    mode: Mode,
    tenant_header: HeaderName,
    raw_max_bytes: usize,
    compressed_max_bytes: usize,
    request_timeout: Duration,
    metrics: Metrics,
    admission: Admission,
    auth: Option<Auth>,
    peers: Option<PeerDoor>,
    body_hit: IntCounter,
    slow_hit: IntCounter,
}

impl<S: Serve> Room<S> {
    pub(super) fn new(
        config: &ReceiveConfig,
        service: Arc<S>,
        metrics: Metrics,
        admission: Admission,
        (auth, peers): (Option<Auth>, Option<PeerDoor>),
        limits: &LimitHits,
    ) -> Self {
        Self {
            service,
            mode: config.mode,
            tenant_header: config.tenant_header.clone(),
            raw_max_bytes: config.body_max_bytes,
            compressed_max_bytes: compressed_max_bytes(config.body_max_bytes),
            request_timeout: config.request_timeout,
            metrics,
            admission,
            auth,
            peers,
            body_hit: limits.of("body"),
            slow_hit: limits.of("request_timeout"),
        }
    }

    pub(super) fn auth(&self) -> Option<&Auth> {
        self.auth.as_ref()
    }

    pub(super) fn in_flight(&self) -> u64 {
        self.admission.requests()
    }

    /// Ends when no request is in flight.
    pub(super) async fn idle(&self) {
        self.admission.idle().await;
    }

    /// The life of a request in this room.
    async fn accept(
        &self,
        request: Request,
        version: Result<pipeline::Protocol, Unsupported>,
        draining: bool,
    ) -> Result<Reply, Refused> {
        let (head, mut body) = request.into_parts();
        let unsupported = version.is_err();
        let deadline = Instant::now() + self.request_timeout;
        let (protocol, admitted) = match self.admit(&head.headers, version, draining) {
            Ok(admitted) => admitted,
            Err(refused) => return Err(self.discard(body, deadline, refused).await),
        };
        let arrived = match timeout_at(deadline, self.read(&mut body, protocol, admitted)).await {
            Ok(Ok(arrived)) => arrived,
            Ok(Err(refused)) => return Err(self.discard(body, deadline, refused).await),
            Err(_) => {
                self.slow_hit.inc();
                return Err(Refused::TooSlow { after: self.request_timeout });
            }
        };
        let (bytes, admitted) = arrived;
        let mut incoming = self.incoming(&head.headers, protocol, bytes);
        incoming.from_peer = head.extensions.get::<FromPeer>().is_some();
        if self.mode == Mode::Observe {
            let headers = headers::passed_on(&head.headers, &self.tenant_header);
            incoming.verbatim = Some(Verbatim { headers, unsupported });
        }
        let service = Arc::clone(&self.service);
        let life = tokio::spawn(async move {
            let reply = service.serve(incoming).await;
            drop(admitted); // memory counts as taken for as long as the request lives, sender or not
            reply
        });
        match life.await {
            Ok(reply) => Ok(reply),
            Err(error) => {
                tracing::error!(%error, "a request ended in a panic");
                Err(Refused::Panicked)
            }
        }
    }

    /// Everything that can be said before the body is read.
    fn admit(
        &self,
        headers: &HeaderMap,
        version: Result<pipeline::Protocol, Unsupported>,
        draining: bool,
    ) -> Result<(pipeline::Protocol, Admitted), Refused> {
        if draining {
            return Err(Refused::Draining);
        }
        if let Some(given) = headers::odd_coding(headers) {
            return Err(Refused::Coding { given });
        }
        if self.mode == Mode::Dedup
            && let Some(count) = headers::several(headers, &self.tenant_header)
        {
            return Err(Refused::Tenants { name: self.tenant_header.clone(), count });
        }
        let version = match (version, self.mode) {
            // It goes on as it came, and whether it is what it should be is for upstream to say.
            (Err(_), Mode::Observe) => pipeline::Protocol::One,
            (version, _) => version?,
        };
        let length = content_length(headers);
        if let Some(given) = length
            && given > self.compressed_max_bytes as u64
        {
            return Err(self.too_big(given));
        }
        Ok((version, self.admission.admit(length.unwrap_or(0) as usize)?))
    }

    /// Reads the body, whose reservation grows when its length was not said. The memory that its decompressed
    /// form will take is reserved too, before anybody decompresses it. Of a long one that says it becomes too large nothing but that is
    /// kept, which is enough to refuse it; the rest is read so that the sender gets to see the answer.
    async fn read(
        &self,
        body: &mut Body,
        protocol: pipeline::Protocol,
        mut admitted: Admitted,
    ) -> Result<(Bytes, Admitted), Refused> {
        let said = admitted.bytes();
        let mut first = Bytes::new();
        let mut joined = BytesMut::new();
        let (mut arrived, mut is_refused) = (0, false);
        while let Some(frame) = body.frame().await {
            let frame =
                frame.map_err(|error| Refused::BrokeOff { after: arrived, error: error.to_string() })?;
            let Ok(data) = frame.into_data() else { continue };
            arrived += data.len();
            if arrived > self.compressed_max_bytes {
                return Err(self.too_big(arrived as u64));
            }
            if is_refused {
                continue;
            }
            if arrived > admitted.bytes() {
                let missing = arrived - admitted.bytes();
                admitted.grow(missing)?;
            }
            if arrived == data.len() {
                first = data; // most bodies of small senders come in one piece, and need no copy
            } else {
                if joined.is_empty() {
                    joined.reserve(said.clamp(arrived, FIRST_ALLOCATION_MAX_BYTES.max(arrived)));
                    joined.extend_from_slice(&first);
                    first = Bytes::new();
                }
                joined.extend_from_slice(&data);
            }
            let begun = if joined.is_empty() { &first[..] } else { &joined[..] };
            if said.max(arrived) > KEPT_MAX_BYTES && self.claims_too_much(begun) {
                is_refused = true;
                first = Bytes::copy_from_slice(&begun[..begun.len().min(CLAIM_MAX_BYTES)]);
                joined = BytesMut::new();
                admitted.shrink_to(first.len());
            }
        }
        let bytes = if joined.is_empty() { first } else { joined.freeze() };
        let raw = snap::raw::decompress_len(&bytes).unwrap_or(0);
        if raw <= self.raw_max_bytes {
            let rewritten = match protocol {
                pipeline::Protocol::One => 0,
                pipeline::Protocol::Two => raw.saturating_mul(REWRITTEN_FACTOR).min(self.raw_max_bytes),
            };
            admitted.grow(raw + rewritten)?; // a larger claim is refused by the pipeline, and takes no memory
        }
        Ok((bytes, admitted))
    }

    /// Whether a body that begins so says that it becomes larger than any that is looked into.
    fn claims_too_much(&self, begun: &[u8]) -> bool {
        // Observed, it goes on as it came.
        self.mode != Mode::Observe
            && match snap::raw::decompress_len(begun) {
                Ok(claim) => claim > self.raw_max_bytes,
                // More than the format has numbers for, or no number.
                Err(error) => matches!(error, snap::Error::TooBig { .. }),
            }
    }

    /// Reads on without keeping anything, so that the sender gets to see the answer and not a broken pipe.
    /// Bodies that are too big or broken, or end who knows where, are left alone.
    async fn discard(&self, mut body: Body, deadline: Instant, refused: Refused) -> Refused {
        if matches!(refused, Refused::Coding { .. } | Refused::TooBig { .. } | Refused::BrokeOff { .. }) {
            return refused;
        }
        let rest = async {
            let mut bytes = 0;
            while let Some(Ok(frame)) = body.frame().await {
                bytes += frame.data_ref().map_or(0, Bytes::len);
                if bytes > self.compressed_max_bytes {
                    break; // too big on top of it: hyper closes the connection
                }
            }
        };
        // When time is over the answer goes out all the same, and hyper closes the connection.
        let _ = timeout_at(deadline, rest).await;
        refused
    }

    fn too_big(&self, given: u64) -> Refused {
        self.body_hit.inc();
        Refused::TooBig { given, max: self.compressed_max_bytes }
    }

    fn incoming(&self, headers: &HeaderMap, protocol: pipeline::Protocol, body: Bytes) -> Incoming {
        let value = |name: &HeaderName| headers.get(name).filter(|value| !value.is_empty()).cloned();
        let retries = headers.get("retry-attempt").and_then(|value| value.to_str().ok()?.trim().parse().ok());
        Incoming {
            protocol,
            body,
            tenant: value(&self.tenant_header),
            retry_attempt: retries.unwrap_or(0),
            request_id: value(&HeaderName::from_static("x-request-id")),
            traceparent: value(&HeaderName::from_static("traceparent")),
            verbatim: None,
            from_peer: false,
        }
    }

    fn count(&self, started: Instant, protocol: Protocol, response: &Response) {
        self.metrics.answered(protocol, response.status().as_u16(), started.elapsed());
    }
}

/// Of an answer whose sender is to come by way of another instance: HTTP/2 has no header for that.
#[derive(Debug, Clone)]
pub(super) struct Elsewhere;

/// What a route is given.
struct Door<S> {
    room: Arc<Room<S>>,
    phase: watch::Receiver<Phase>,
}

impl<S> Clone for Door<S> {
    fn clone(&self) -> Self {
        Self { room: Arc::clone(&self.room), phase: self.phase.clone() }
    }
}

impl<S> Door<S> {
    fn draining(&self) -> bool {
        *self.phase.borrow() >= Phase::Draining
    }
}

pub(super) fn router<S: Serve>(room: Arc<Room<S>>, phase: watch::Receiver<Phase>) -> Router {
    let writes = || post(write::<S>).fallback(wrong_method::<S>);
    let routes = PATHS.iter().fold(Router::new(), |router, path| router.route(path, writes()));
    let (guarded, door) = (room.auth.is_some() || room.peers.is_some(), Door { room, phase });
    let routes = routes.fallback(wrong_path::<S>).with_state(door.clone());
    if guarded { routes.layer(from_fn_with_state(door, let_in::<S>)) } else { routes }
}

/// Turns strangers away, whatever they ask for. Nothing of their bodies is read. Other instances are no strangers.
async fn let_in<S: Serve>(State(door): State<Door<S>>, mut request: Request, next: Next) -> Response {
    let (started, room) = (Instant::now(), &door.room);
    let from_peer = room.peers.as_ref().map_or(Ok(false), |peers| peers.admit(request.headers_mut()));
    let admitted = match (from_peer, &room.auth) {
        (Ok(true), _) => {
            request.extensions_mut().insert(FromPeer);
            Ok(())
        }
        (Ok(false), Some(auth)) => auth.admit(request.headers_mut()).await,
        (Ok(false), None) => Ok(()),
        (Err(denied), _) => Err(denied),
    };
    let Err(denied) = admitted else { return next.run(request).await };
    let protocol = Protocol::from(&headers::check(request.headers()));
    let two = headers::speaks_two(protocol, request.headers());
    tracing::debug!(status = denied.status().as_u16(), %denied, "request refused");
    let mut response = Refused::from(denied).response();
    if response.status() == StatusCode::UNAUTHORIZED
        && let Some(auth) = &room.auth
    {
        auth.challenge(response.headers_mut());
    }
    if two {
        tell(Written::default(), response.headers_mut());
    }
    room.count(started, protocol, &response);
    response
}

async fn write<S: Serve>(State(door): State<Door<S>>, request: Request) -> Response {
    let started = Instant::now();
    let room = &door.room;
    let version = headers::check(request.headers());
    let protocol = Protocol::from(&version);
    let two = headers::speaks_two(protocol, request.headers());
    let from_peer = request.extensions().get::<FromPeer>().is_some();
    let (mut response, written) = match room.accept(request, version, door.draining()).await {
        // It says itself what is written, if it does.
        Ok(Reply { echo: Some(echo), .. }) => (echoed(*echo), None),
        Ok(reply) => {
            // Of 1.0 they would be believed, too (Prometheus 2.54 and later), and mean something else. Another instance knows.
            let told = protocol == Protocol::Two || from_peer || two && reply.status >= 400;
            let written = told.then_some(reply.written);
            (answered(reply), written)
        }
        Err(refused) => {
            tracing::debug!(status = refused.status().as_u16(), %refused, "request refused");
            (refused.response(), (two || from_peer).then(Written::default))
        }
    };
    if let Some(written) = written {
        tell(written, response.headers_mut());
    }
    room.count(started, protocol, &response);
    response
}

async fn wrong_method<S: Serve>(State(door): State<Door<S>>, request: Request) -> Response {
    refuse(&door, request, Refused::Method).await
}

async fn wrong_path<S: Serve>(State(door): State<Door<S>>, request: Request) -> Response {
    refuse(&door, request, Refused::Path).await
}

async fn refuse<S: Serve>(door: &Door<S>, request: Request, refused: Refused) -> Response {
    let started = Instant::now();
    let deadline = started + door.room.request_timeout;
    let protocol = Protocol::from(&headers::check(request.headers()));
    let two = headers::speaks_two(protocol, request.headers());
    let refused = door.room.discard(request.into_body(), deadline, refused).await;
    let mut response = refused.response();
    if two {
        tell(Written::default(), response.headers_mut());
    }
    // What is asked for here is none of remote write, whatever its headers say.
    door.room.count(started, Protocol::Other, &response);
    response
}

/// The headers that remote write 2.0 asks for on every answer, failures included.
fn tell(written: Written, headers: &mut HeaderMap) {
    let Written { samples, histograms, exemplars } = written;
    for (name, count) in WRITTEN.into_iter().zip([samples, histograms, exemplars]) {
        headers.insert(HeaderName::from_static(name), count.into());
    }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Upstream's answer as it is.
fn echoed(echo: Echo) -> Response {
    let mut response = Response::new(Body::from(echo.body));
    *response.status_mut() = StatusCode::from_u16(echo.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    *response.headers_mut() = echo.headers;
    response
}

fn answered(reply: Reply) -> Response {
    let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = match status {
        StatusCode::NO_CONTENT => status.into_response(),
        _ => sentence(status, reply.text),
    };
    if let Some(seconds) = reply.retry_after_s {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    if reply.elsewhere {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        response.extensions_mut().insert(Elsewhere);
    }
    response
}

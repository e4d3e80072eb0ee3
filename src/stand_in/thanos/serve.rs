//! The HTTP side of the stand-in: connections, faults, decoding, status codes.

use super::fault::{Fault, Limits};
use super::{DEFAULT_TENANT, SeenRequest, Shared, TENANT_HEADER, lock};
use crate::proto;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use prost::Message;
use std::future::poll_fn;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Most connections at once; the next waits in the kernel's queue.
const CONNECTIONS_MAX: usize = 1_024;
/// Most bytes of a body, compressed or not: far above what a sender makes.
const BODY_BYTES_MAX: usize = 256 << 20;

/// No answer is given and the connection is reset.
#[derive(Debug, thiserror::Error)]
#[error("connection reset on demand")]
struct Reset;

struct Answer {
    status: u16,
    text: String,
    retry_after_s: Option<u32>,
}

impl Answer {
    fn new(status: u16, text: impl Into<String>) -> Self {
        Self { status, text: text.into(), retry_after_s: None }
    }
}

/// Serves until it is cancelled; its connections end with it.
pub(super) async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        if connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
        // An error of accept is of one connection, or of the moment.
        if let Ok((stream, _)) = listener.accept().await {
            connections.spawn(converse(stream, Arc::clone(&shared)));
        }
    }
}

async fn converse(stream: TcpStream, shared: Arc<Shared>) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        Box::pin(async move { respond(request, &shared).await })
    });
    let mut connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let outcome = poll_fn(|context| connection.poll_without_shutdown(context)).await;
    let stream = connection.into_parts().io.into_inner();
    if outcome.is_err_and(|error| error.is_user()) {
        // If the option cannot be set, the connection is closed instead of reset: no answer either way.
        drop(stream.set_zero_linger());
    }
}

async fn respond(request: Request<Incoming>, shared: &Shared) -> Result<Response<Full<Bytes>>, Reset> {
    let answer = receive(request, shared).await?;
    let mut response = Response::new(Full::new(Bytes::from(answer.text)));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Some(seconds) = answer.retry_after_s {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    Ok(response)
}

async fn receive(request: Request<Incoming>, shared: &Shared) -> Result<Answer, Reset> {
    if request.uri().path() != "/api/v1/receive" {
        return Ok(Answer::new(404, "404 page not found"));
    }
    if request.method() != Method::POST {
        return Ok(Answer::new(405, "Method Not Allowed"));
    }
    let (head, body) = request.into_parts();
    let body = match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return Ok(Answer::new(500, format!("read body: {error}"))),
    };
    lock(&shared.bodies).note(&body);
    let nth = shared.note(&head.headers, body.len());
    let answer = with_faults(&head.headers, &body, shared, nth).await?;
    shared.amend(nth, |seen| seen.status = Some(answer.status));
    Ok(answer)
}

/// One request through the faults that are switched on; a request that hung goes through them again when it is let go.
async fn with_faults(headers: &HeaderMap, body: &Bytes, shared: &Shared, nth: u64) -> Result<Answer, Reset> {
    let mut changes = shared.faults.subscribe();
    loop {
        let (mut fault, mut delay, mut limits) = (None, Default::default(), Limits::default());
        // Before the look at the faults: a change right after it must not be missed.
        changes.mark_unchanged();
        shared.faults.send_if_modified(|faults| {
            fault = faults.take();
            delay = faults.delay;
            limits = faults.limits;
            false
        });
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        match fault {
            None => return Ok(shared.store(headers, body, limits, nth)),
            Some(Fault::Answer { status, text, retry_after_s }) => {
                return Ok(Answer { status, text, retry_after_s });
            }
            Some(Fault::AnswerAfterStoring { status, text }) => {
                shared.store(headers, body, limits, nth);
                return Ok(Answer::new(status, text));
            }
            Some(Fault::ResetBeforeStoring) => return Err(Reset),
            Some(Fault::ResetAfterStoring) => {
                shared.store(headers, body, limits, nth);
                return Err(Reset);
            }
            Some(Fault::Hang) => drop(changes.changed().await),
            Some(Fault::HangAfterStoring) => {
                let answer = shared.store(headers, body, limits, nth);
                drop(changes.changed().await);
                return Ok(answer);
            }
        }
    }
}

impl Shared {
    /// Remembers a request that was read; its number finds it again.
    fn note(&self, headers: &HeaderMap, body_bytes: usize) -> u64 {
        let mut nth = 0;
        self.totals.send_modify(|totals| {
            nth = totals.requests;
            totals.requests += 1;
            totals.body_bytes += body_bytes as u64;
        });
        let mut recent = lock(&self.recent);
        if recent.len() >= self.recent_max {
            recent.pop_front();
        }
        if self.recent_max > 0 {
            let seen =
                SeenRequest { headers: headers.clone(), body_bytes, series: 0, samples: 0, status: None };
            recent.push_back((nth, seen));
        }
        nth
    }

    fn amend(&self, nth: u64, change: impl FnOnce(&mut SeenRequest)) {
        if let Some((_, seen)) = lock(&self.recent).iter_mut().rev().find(|(have, _)| *have == nth) {
            change(seen);
        }
    }

    fn store(&self, headers: &HeaderMap, body: &Bytes, limits: Limits, nth: u64) -> Answer {
        match self.try_store(headers, body, limits, nth) {
            Ok(answer) | Err(answer) => answer,
        }
    }

    fn try_store(
        &self,
        headers: &HeaderMap,
        body: &Bytes,
        limits: Limits,
        nth: u64,
    ) -> Result<Answer, Answer> {
        let tenant = tenant_of(headers)?;
        if let Some(replica) = headers.get("THANOS-REPLICA") {
            lock(&self.tsdb).violations.replica_header += 1;
            let replica = replica.to_str().ok().and_then(|text| text.parse::<u64>().ok());
            if replica.is_none_or(|replica| replica > 1) {
                return Err(Answer::new(400, "replica count exceeds replication factor"));
            }
        }
        let request = decode(body, limits)?;
        let samples = request.timeseries.iter().map(|one| one.samples.len() + one.histograms.len()).sum();
        self.amend(nth, |seen| {
            seen.series = request.timeseries.len();
            seen.samples = samples;
        });
        let mut tsdb = lock(&self.tsdb);
        let outcome = tsdb.append(&tenant, &request);
        let (stored, exemplars, series, unrecorded) =
            (tsdb.samples, tsdb.exemplars, tsdb.series_count() as u64, tsdb.unrecorded);
        drop(tsdb);
        let answer = match outcome.map(|conflicts| conflicts.text()) {
            Ok(None) => Answer::new(200, ""),
            Ok(Some(text)) => Answer::new(409, text),
            Err(too_many) => Answer::new(429, too_many.to_string()),
        };
        self.totals.send_modify(|totals| {
            totals.samples = stored.max(totals.samples);
            totals.exemplars = exemplars.max(totals.exemplars);
            totals.series = series.max(totals.series);
            totals.unrecorded = unrecorded.max(totals.unrecorded);
            totals.conflicts += u64::from(answer.status == 409);
        });
        Ok(answer)
    }
}

fn tenant_of(headers: &HeaderMap) -> Result<String, Answer> {
    let Some(value) = headers.get(TENANT_HEADER) else { return Ok(DEFAULT_TENANT.to_owned()) };
    match value.to_str() {
        Ok("") => Ok(DEFAULT_TENANT.to_owned()),
        Ok(tenant) if !tenant.contains('/') && tenant != "." && tenant != ".." => Ok(tenant.to_owned()),
        _ => Err(Answer::new(400, "tenant id is not valid")),
    }
}

fn decode(body: &[u8], limits: Limits) -> Result<proto::WriteRequest, Answer> {
    let too_big = |given: usize, what: &str| Answer::new(413, format!("{given} {what} are above the limit"));
    let bytes_max = limits.body_bytes_max.unwrap_or(usize::MAX);
    if body.len() > bytes_max {
        return Err(too_big(body.len(), "bytes"));
    }
    let length = snap::raw::decompress_len(body)
        .map_err(|error| Answer::new(400, format!("snappy decode error: {error}")))?;
    if length > bytes_max.min(BODY_BYTES_MAX) {
        return Err(too_big(length, "decoded bytes"));
    }
    let raw = snap::raw::Decoder::new()
        .decompress_vec(body)
        .map_err(|error| Answer::new(400, format!("snappy decode error: {error}")))?;
    let request = proto::WriteRequest::decode(raw.as_slice())
        .map_err(|error| Answer::new(400, format!("unmarshal protobuf: {error}")))?;
    let samples: usize = request.timeseries.iter().map(|one| one.samples.len()).sum();
    if request.timeseries.len() > limits.series_max.unwrap_or(usize::MAX) {
        return Err(too_big(request.timeseries.len(), "series"));
    }
    if samples > limits.samples_max.unwrap_or(usize::MAX) {
        return Err(too_big(samples, "samples"));
    }
    Ok(request)
}

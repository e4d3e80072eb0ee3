//! Pools of connections, one a thread that sends, and one exchange over them: a request out, an answer back, in bounded time.
//!
//! Knows nothing of what an answer means.

use super::super::answer;
use super::connector::Connector;
use super::spelt;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// So much of an answer's text is kept.
pub(crate) const TEXT_MAX_BYTES: usize = 4 << 10;
/// So much more is read and thrown away, so that the connection can be used again; beyond it the connection goes.
const DRAIN_MAX_BYTES: usize = 64 << 10;
/// An idle connection is closed before load balancers (60 s and more, as a rule) close it under a request.
const IDLE_MAX: Duration = Duration::from_secs(50);

/// A connection is driven by the thread that uses it.
#[derive(Debug)]
pub(crate) struct Pools(Vec<Client<Connector, Full<Bytes>>>);

/// An answer as it came.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// Its beginning.
    pub(crate) body: Bytes,
    /// There was more of it.
    cut: bool,
}

/// Why there was no answer.
#[derive(Debug)]
pub(crate) enum Silence {
    /// No connection came about.
    Unsent(String),
    TooLong,
    Broken(String),
}

impl Pools {
    /// `threads` of them, each keeping `idle_max` connections to a host.
    pub(crate) fn new(threads: usize, connector: &Connector, idle_max: usize) -> Self {
        Self((0..threads.max(1)).map(|_| pool(connector.clone(), idle_max)).collect())
    }

    /// Sends a request and hears the answer, of whose body so much is kept.
    pub(crate) async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
        deadline: Instant,
        kept_max_bytes: usize,
    ) -> Result<Answered, Silence> {
        let pool = &self.0[pool_of_this_thread() % self.0.len()];
        let response = match timeout_at(deadline, pool.request(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) if error.is_connect() => return Err(Silence::Unsent(chain(&error))),
            Ok(Err(error)) => return Err(Silence::Broken(chain(&error))),
            Err(_) => return Err(Silence::TooLong),
        };
        let (head, body) = response.into_parts();
        // The status is the answer; a body that breaks off or never ends does not change it.
        let (body, cut) = beginning(body, deadline, kept_max_bytes).await;
        Ok(Answered { status: head.status.as_u16(), headers: head.headers, body, cut })
    }
}

impl Silence {
    /// For people. `timeout`: how long an answer was waited for.
    pub(crate) fn told(self, timeout: Duration) -> String {
        match self {
            Self::TooLong => format!("no answer within {}", spelt(timeout)),
            Self::Unsent(error) | Self::Broken(error) => error,
        }
    }
}

impl Answered {
    /// The beginning of its text.
    pub(crate) fn text(&self) -> String {
        let kept = &self.body[..self.body.len().min(TEXT_MAX_BYTES)];
        let mut text = String::from_utf8_lossy(kept).trim().to_owned();
        if self.cut || kept.len() < self.body.len() {
            text.push(answer::CUT_OFF);
        }
        text
    }
}

fn pool(connector: Connector, idle_max: usize) -> Client<Connector, Full<Bytes>> {
    let mut builder = Client::builder(TokioExecutor::new());
    // A request that met a connection closed while idle, and of which nothing was written, goes to another one;
    // once written, it ends without an answer: the other side may have taken it.
    builder.retry_canceled_requests(true);
    builder.pool_idle_timeout(IDLE_MAX).pool_timer(TokioTimer::new());
    builder.pool_max_idle_per_host(idle_max);
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

/// The beginning of an answer's body, and whether there was more of it.
async fn beginning(mut body: Incoming, deadline: Instant, max_bytes: usize) -> (Bytes, bool) {
    let mut kept = BytesMut::new();
    let mut dropped = 0;
    let whole = loop {
        let frame = match timeout_at(deadline, body.frame()).await {
            Ok(None) => break true,
            Ok(Some(Ok(frame))) => frame,
            // What is missing may be what it is about.
            Ok(Some(Err(_))) | Err(_) => break false,
        };
        let Ok(data) = frame.into_data() else { continue };
        let room = max_bytes.saturating_sub(kept.len()).min(data.len());
        kept.extend_from_slice(&data[..room]);
        dropped += data.len() - room;
        if dropped > DRAIN_MAX_BYTES {
            break false;
        }
    };
    (kept.freeze(), !whole || dropped > 0)
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

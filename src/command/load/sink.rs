//! The sink: a remote-write receiver on a thread of its own that checks what it gets and keeps almost nothing of it.
//!
//! It answers as Thanos Receive does where that matters to a sender: 200, 400 for what cannot be read, 409 when samples were out of
//! order (the rest was stored), and to 2.0 with how much was written.

use super::schedule::lock;
use super::store::Store;
use super::turns::Turns;
use super::usage;
use anyhow::Context as _;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// How its thread is called.
const THREAD: &str = "promdedup-sink";
/// Most bytes of a body, compressed or not: far above what a sender makes.
const BODY_BYTES_MAX: usize = 64 << 20;
/// Most connections at once; the next waits in the kernel's queue.
const CONNECTIONS_MAX: usize = 8_192;

/// Most requests whose time is kept for their senders.
const TIMES_MAX: usize = 1 << 16;

/// How long the sink took for each request that names itself (`X-Request-ID`), from the end of its body to its answer, until its sender
/// asks.
#[derive(Debug, Default)]
pub(super) struct TimesTaken(Mutex<HashMap<u64, Duration>>);

impl TimesTaken {
    /// A request may come in parts, one after the other, whose times add up.
    fn add(&self, request: u64, took: Duration) {
        let mut times = lock(&self.0);
        // Of those whose senders have given up nobody asks.
        if times.len() >= TIMES_MAX {
            times.clear();
        }
        *times.entry(request).or_default() += took;
    }

    /// Takes it out; `None`: nothing of the request has come.
    pub(super) fn claim(&self, request: u64) -> Option<Duration> {
        lock(&self.0).remove(&request)
    }
}

/// A running sink. Dropping it closes its port and all connections.
#[derive(Debug)]
pub(super) struct Sink {
    pub(super) address: SocketAddr,
    shared: Arc<Shared>,
    _stop: oneshot::Sender<()>,
}

#[derive(Debug)]
struct Shared {
    store: Mutex<(Store, Vec<u8>)>,
    /// Bodies are checked one by one, so that the next one's time begins when it comes.
    checking: Turns,
    body_bytes: AtomicU64,
    taken: Arc<TimesTaken>,
    thread: OnceLock<Option<PathBuf>>,
}

impl Sink {
    /// Binds and serves.
    pub(super) fn start(listen: SocketAddr, store: Store) -> anyhow::Result<Self> {
        let listener = StdTcpListener::bind(listen).with_context(|| format!("--sink {listen}"))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let store = Mutex::new((store, Vec::new()));
        let (body_bytes, taken, thread) = (AtomicU64::new(0), Arc::default(), OnceLock::new());
        let shared = Arc::new(Shared { store, checking: Turns::default(), body_bytes, taken, thread });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = Arc::clone(&shared);
        std::thread::Builder::new().name(THREAD.to_owned()).spawn(move || {
            serving.thread.get_or_init(usage::this_thread);
            runtime.block_on(async move {
                tokio::select! {
                    _ = stopped => {} // dropped: the sink is gone
                    () = accept(listener, serving) => {}
                }
            });
        })?;
        Ok(Self { address, shared, _stop: stop })
    }

    /// Compressed bytes of all bodies.
    pub(super) fn body_bytes(&self) -> u64 {
        self.shared.body_bytes.load(Relaxed)
    }

    /// Where its senders find how long it took.
    pub(super) fn taken(&self) -> Arc<TimesTaken> {
        Arc::clone(&self.shared.taken)
    }

    /// CPU seconds of its thread.
    pub(super) fn cpu_s(&self) -> Option<f64> {
        usage::of_thread(self.shared.thread.get()?.as_deref()?)
    }

    /// What was stored, while nothing more can be.
    pub(super) fn judged<T>(&self, judge: impl FnOnce(&Store) -> T) -> T {
        judge(&lock(&self.shared.store).0)
    }
}

async fn accept(listener: StdTcpListener, shared: Arc<Shared>) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        if connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
        // An error of accept is of one connection, or of the moment.
        let Ok((stream, _)) = listener.accept().await else { continue };
        if stream.set_nodelay(true).is_err() {
            continue;
        }
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let service = service_fn(move |request| respond(request, Arc::clone(&shared)));
            // What goes wrong on a connection is its client's to see.
            drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

async fn respond(
    request: Request<Incoming>,
    shared: Arc<Shared>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, BODY_BYTES_MAX).collect().await;
    let begun = Instant::now();
    let (status, text, written) = match body {
        Ok(body) => {
            let body = body.to_bytes();
            let _turn = shared.checking.next().await;
            shared.take(&head.headers, &body)
        }
        Err(error) => (500, format!("read body: {error}"), 0),
    };
    let id = head.headers.get("x-request-id").and_then(|id| id.to_str().ok()?.parse().ok());
    if let Some(id) = id {
        shared.taken.add(id, begun.elapsed());
    }
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (what, count) in [("samples", written), ("histograms", 0), ("exemplars", 0)] {
        if let Ok(name) = http::HeaderName::try_from(format!("x-prometheus-remote-write-{what}-written")) {
            response.headers_mut().insert(name, count.into());
        }
    }
    Ok(response)
}

impl Shared {
    /// Status, text, and samples that were written.
    fn take(&self, headers: &HeaderMap, body: &[u8]) -> (u16, String, u64) {
        self.body_bytes.fetch_add(body.len() as u64, Relaxed);
        let kind = headers.get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let mut guard = lock(&self.store);
        let (store, raw) = &mut *guard;
        let length = match snap::raw::decompress_len(body) {
            Ok(length) if length <= BODY_BYTES_MAX => length,
            Ok(length) => return (413, format!("{length} bytes are above the limit"), 0),
            Err(error) => return (400, format!("snappy decode error: {error}"), 0),
        };
        if raw.len() < length {
            raw.resize(length, 0);
        }
        if let Err(error) = snap::raw::Decoder::new().decompress(body, raw) {
            return (400, format!("snappy decode error: {error}"), 0);
        }
        match store.append(&raw[..length], kind.contains("io.prometheus.write.v2.Request")) {
            Ok((count, 0)) => (200, String::new(), count),
            Ok((count, refused)) => {
                (409, format!("add {refused} samples: out of order sample"), count.saturating_sub(refused))
            }
            Err(error) => (400, error.to_string(), 0),
        }
    }
}

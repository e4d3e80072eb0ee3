//! One connection of a sender, to its end: TLS if that is asked for, then HTTP/1.1 or HTTP/2.
//!
//! Owns what is bounded of a connection as a whole: heads, streams, and its time, which `overdue.rs` measures.

use super::phase::Phase;
use super::routes::Elsewhere;
use super::threads::reached;
use super::tls::Tls;

use crate::config::ReceiveConfig;
use crate::overdue::{Overdue, Patience, Watch, Watched};
use crate::socket::Counted;
use crate::telemetry::LimitHits;
use axum::Router;
use axum::body::Body;
use axum::response::Response;
use http::HeaderValue;
use http::header::CONNECTION;
use http_body_util::BodyExt;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prometheus::IntCounter;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tower_service::Service;

/// All headers of a request, its first line included. A JSON web token with many roles has some kilobytes.
const HEAD_MAX_BYTES: usize = 32 << 10;
/// A peer of HTTP/2 that has gone without a word is found out by pings.
const PING_EVERY: Duration = Duration::from_secs(60);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Requests at a time on one connection of HTTP/2: Prometheus before 2.44 has up to 200 shards.
const STREAMS_MAX: u32 = 200;
/// What a connection that is to end for being idle is given for it. Its peer may not read what it was answered.
const END_MAX: Duration = Duration::from_secs(60);

/// What all connections share.
#[derive(Debug, Clone)]
pub(super) struct Connections {
    tls: Option<Arc<Tls>>,
    patience: Patience,
    head_hit: IntCounter,
    head_timeout_hit: IntCounter,
    idle_timeout_hit: IntCounter,
    streams_hit: IntCounter,
}

type Phases = watch::Receiver<Phase>;

impl Connections {
    pub(super) fn new(config: &ReceiveConfig, tls: Option<&Arc<Tls>>, limits: &LimitHits) -> Self {
        Self {
            tls: tls.cloned(),
            patience: Patience { head: config.request_timeout, idle: config.idle_timeout },
            head_hit: limits.of("head"),
            head_timeout_hit: limits.of("head_timeout"),
            idle_timeout_hit: limits.of("idle_timeout"),
            streams_hit: limits.of("streams"),
        }
    }

    /// Serves one to its end. While draining it stays open, so that its sender is told 503 and not cut off; when
    /// everything is finished it is closed in order.
    pub(super) async fn serve(self, stream: Counted, router: Router, mut phase: Phases) {
        let Some(tls) = &self.tls else { return self.serve_http1(stream, router, phase).await };
        let accepted = tokio::select! {
            accepted = tls.accept(stream) => accepted,
            () = reached(&mut phase, Phase::Closing) => None,
        };
        let Some(stream) = accepted else { return };
        match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => self.serve_http2(stream, router, phase).await,
            _ => self.serve_http1(stream, router, phase).await,
        }
    }

    async fn serve_http1<I>(&self, stream: I, router: Router, phase: Phases)
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        let watch = Watch::new();
        let mut server = http1::Builder::new();
        // Who has said all he has to say may still listen.
        server.half_close(true);
        // Its own clock of heads runs while a connection is idle, too: that is what the watch is for.
        server.timer(TokioTimer::new()).header_read_timeout(None::<Duration>).max_header_size(HEAD_MAX_BYTES);
        let (watching, leaving) = (watch.clone(), phase.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let (serving, _) = watching.begin();
            let (answer, leaving) = (router.clone().call(request.map(Body::new)), leaving.clone());
            async move {
                let mut response: Response = answer.await?;
                drop(serving);
                if *leaving.borrow() >= Phase::Leaving {
                    // Whoever comes again is to come by way of whoever shares the load out.
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(response)
            }
        });
        let connection = server.serve_connection(TokioIo::new(Watched::new(stream, watch.clone())), service);
        let end = |connection: Pin<&mut http1::Connection<_, _>>| connection.graceful_shutdown();
        self.attend(connection, end, &watch, phase, Phase::Closing, &Notify::new()).await;
    }

    async fn serve_http2<I>(&self, stream: I, router: Router, phase: Phases)
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        let watch = Watch::new();
        let mut server = http2::Builder::new(TokioExecutor::new());
        server.timer(TokioTimer::new()).max_concurrent_streams(STREAMS_MAX);
        server.keep_alive_interval(PING_EVERY).keep_alive_timeout(PING_TIMEOUT);
        server.max_header_list_size(HEAD_MAX_BYTES as u32);
        let (watching, hit) = (watch.clone(), self.streams_hit.clone());
        let elsewhere = Arc::new(Notify::new());
        let sent_away = Arc::clone(&elsewhere);
        let service = service_fn(move |request: Request<Incoming>| {
            let (serving, streams) = watching.begin();
            if streams == STREAMS_MAX as usize {
                hit.inc(); // the next one has to wait for an answer to one of these
            }
            let (answer, sent_away) = (router.clone().call(request.map(Body::new)), Arc::clone(&sent_away));
            async move {
                let mut response: Response = answer.await?;
                drop(serving);
                response.headers_mut().remove(CONNECTION);
                if response.extensions().get::<Elsewhere>().is_some() {
                    // Said to the connection, as soon as the answer has been.
                    let said = NotifyOnDrop(sent_away);
                    response = response.map(|body| {
                        Body::new(body.map_frame(move |frame| {
                            let _kept = &said;
                            frame
                        }))
                    });
                }
                Ok::<_, Infallible>(response)
            }
        });
        // Heads come compressed and in frames, between pings: of them only the first one's time is watched.
        let stream = TokioIo::new(stream);
        let connection = server.serve_connection(stream, service);
        // One that was there before is told to go elsewhere at once; what it has under way is finished.
        let closing = if *phase.borrow() < Phase::Leaving { Phase::Leaving } else { Phase::Closing };
        let end = |connection: Pin<&mut http2::Connection<_, _, _>>| connection.graceful_shutdown();
        self.attend(connection, end, &watch, phase, closing, &elsewhere).await;
    }

    /// Lets a connection go on until it ends, or is to end, or takes too long. `elsewhere`: its sender is to come by way of another one.
    async fn attend<C: Future<Output = hyper::Result<()>>>(
        &self,
        connection: C,
        end: impl Fn(Pin<&mut C>),
        watch: &Watch,
        mut phase: Phases,
        closing: Phase,
        elsewhere: &Notify,
    ) {
        let mut connection = std::pin::pin!(connection);
        let ended = loop {
            tokio::select! {
                ended = connection.as_mut() => break ended,
                () = reached(&mut phase, closing) => {
                    end(connection.as_mut());
                    break connection.await;
                }
                // And goes on within its bounds: it may not read the answer.
                () = elsewhere.notified() => end(connection.as_mut()),
                overdue = watch.overdue(self.patience) => {
                    if overdue == Overdue::Head {
                        self.head_timeout_hit.inc();
                        return tracing::debug!("a connection was cut: no head of a request in time");
                    }
                    self.idle_timeout_hit.inc();
                    end(connection.as_mut());
                    // It may have a request just now, which is served; an idle one ends at once.
                    break timeout(END_MAX, connection).await.unwrap_or(Ok(()));
                }
            }
        };
        if let Err(error) = ended {
            if error.is_parse_too_large() {
                self.head_hit.inc();
            }
            tracing::debug!(%error, "a connection ended");
        }
    }
}

/// Notifies when it is dropped.
struct NotifyOnDrop(Arc<Notify>);

impl Drop for NotifyOnDrop {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

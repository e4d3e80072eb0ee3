//! One connection of a sender, to its end: TLS if that is asked for, then HTTP/1.1 or HTTP/2.

use super::phase::Phase;
use super::threads::reached;
use super::tls::Tls;
use crate::socket::Counted;
use axum::Router;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

/// The head of a request must be in by then. hyper counts the idle time before it too, hence not shorter: idle
/// senders should not have to connect anew between two scrapes.
const HEAD_TIMEOUT: Duration = Duration::from_secs(300);
/// A peer of HTTP/2 that has gone without a word is found out by pings.
const PING_EVERY: Duration = Duration::from_secs(60);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Requests at a time on one connection of HTTP/2: Prometheus before 2.44 has up to 200 shards.
const STREAMS_MAX: u32 = 200;

/// Serves it to its end. While draining it stays open, so that its sender is told 503 and not cut off; when everything
/// is finished it is closed in order.
pub(super) async fn serve(
    stream: Counted,
    tls: Option<Arc<Tls>>,
    router: Router,
    mut phase: watch::Receiver<Phase>,
) {
    let Some(tls) = tls else { return serve_http1(stream, router, phase).await };
    let accepted = tokio::select! {
        accepted = tls.accept(stream) => accepted,
        () = reached(&mut phase, Phase::Closing) => None,
    };
    let Some(stream) = accepted else { return };
    match stream.get_ref().1.alpn_protocol() {
        Some(b"h2") => serve_http2(stream, router, phase).await,
        _ => serve_http1(stream, router, phase).await,
    }
}

async fn serve_http1<I: AsyncRead + AsyncWrite + Unpin>(
    stream: I,
    router: Router,
    mut phase: watch::Receiver<Phase>,
) {
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    let connection = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = reached(&mut phase, Phase::Closing) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    told(ended);
}

async fn serve_http2<I: AsyncRead + AsyncWrite + Unpin>(
    stream: I,
    router: Router,
    mut phase: watch::Receiver<Phase>,
) {
    let mut server = http2::Builder::new(TokioExecutor::new());
    server.timer(TokioTimer::new()).max_concurrent_streams(STREAMS_MAX);
    server.keep_alive_interval(PING_EVERY).keep_alive_timeout(PING_TIMEOUT);
    let connection = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = reached(&mut phase, Phase::Closing) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    told(ended);
}

fn told(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}

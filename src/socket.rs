//! SOCKET: counts the bytes that a connection carries, headers included, and says when the certificate that is shown on it
//! ends. Looks at no byte.

use hyper_util::client::legacy::connect::{Connected, Connection};
use prometheus::{GaugeVec, IntCounter, IntCounterVec, Opts, Registry};
use std::io::{IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::SystemTime;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// `promdedup_network_bytes_total`, resolved for both sides.
#[derive(Debug, Clone)]
pub struct NetworkBytes {
    /// Connections that senders opened.
    pub sender: Traffic,
    /// Connections to the upstream.
    pub upstream: Traffic,
    expiry: GaugeVec,
}

/// The counters of one side.
#[derive(Debug, Clone)]
pub struct Traffic {
    side: &'static str,
    received: IntCounter,
    sent: IntCounter,
    expiry: GaugeVec,
}

impl NetworkBytes {
    /// Registers the counters.
    ///
    /// # Errors
    /// When the registry has that name already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let options = Opts::new("promdedup_network_bytes_total", "Bytes on the wire, headers included.");
        let family = IntCounterVec::new(options, &["side", "direction"])?;
        registry.register(Box::new(family.clone()))?;
        let options = Opts::new(
            "promdedup_tls_certificate_expiry_timestamp_seconds",
            "When the certificate ends that is shown to senders, to the upstream, or to other instances.",
        );
        let expiry = GaugeVec::new(options, &["side"])?;
        registry.register(Box::new(expiry.clone()))?;
        let traffic = |side| Traffic {
            side,
            expiry: expiry.clone(),
            received: family.with_label_values(&[side, "received"]),
            sent: family.with_label_values(&[side, "sent"]),
        };
        Ok(Self { sender: traffic("sender"), upstream: traffic("upstream"), expiry: expiry.clone() })
    }

    /// A side of its own, whose bytes are counted elsewhere.
    pub(crate) fn also(&self, side: &'static str, received: IntCounter, sent: IntCounter) -> Traffic {
        Traffic { side, received, sent, expiry: self.expiry.clone() }
    }
}

impl Traffic {
    /// Notes when the certificate ends that is shown on this side, from now on.
    pub fn certificate_ends(&self, end: SystemTime) {
        let seconds = end.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        self.expiry.with_label_values(&[self.side]).set(seconds);
    }
}

/// A connection whose bytes are counted.
#[derive(Debug)]
pub struct Counted {
    stream: TcpStream,
    traffic: Traffic,
}

impl Counted {
    /// Counts `stream` into `traffic`.
    #[must_use]
    pub fn new(stream: TcpStream, traffic: Traffic) -> Self {
        Self { stream, traffic }
    }

    #[cfg(test)]
    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    fn sent(&self, bytes: Result<usize>) -> Poll<Result<usize>> {
        if let Ok(bytes) = &bytes {
            self.traffic.sent.inc_by(*bytes as u64);
        }
        Poll::Ready(bytes)
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        self.traffic.received.inc_by((buffer.filled().len() - before) as u64);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes));
        self.sent(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, slices));
        self.sent(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Connection for Counted {
    fn connected(&self) -> Connected {
        self.stream.connected()
    }
}

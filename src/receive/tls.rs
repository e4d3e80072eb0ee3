//! TLS of the senders' connections: the handshake, within a bound of time and on the connection's own thread and task,
//! so that a slow one holds up nobody.
//!
//! Owns which certificate is shown, as of now. Looks at nothing that is sent.

use super::auth::Failures;
use crate::config::ServerTls;
use crate::reload::{Look, Reloaded};
use crate::socket::{Counted, Traffic};
use crate::telemetry::LimitHits;
use prometheus::IntCounter;
use rustls::ServerConfig;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

#[derive(Debug)]
pub(super) struct Tls {
    config: Arc<Reloaded<ServerConfig>>,
    handshake_timeout: Duration,
    failures: Failures,
    hit: IntCounter,
}

impl Tls {
    pub(super) fn new(
        files: &ServerTls,
        handshake_timeout: Duration,
        failures: Failures,
        traffic: &Traffic,
        limits: &LimitHits,
    ) -> Result<Self, String> {
        let (read, traffic) = (files.clone(), traffic.clone());
        let make = move || {
            let made = read.read().map_err(|fault| fault.to_string())?;
            read.identity.ends().into_iter().for_each(|end| traffic.certificate_ends(end));
            Ok(made)
        };
        let config = Arc::new(Reloaded::new("TLS certificate and key of the listener", files.paths(), make)?);
        Ok(Self { config, handshake_timeout, failures, hit: limits.of("handshake_timeout") })
    }

    /// To be looked at from time to time.
    pub(super) fn files(&self) -> Arc<dyn Look> {
        Arc::clone(&self.config) as Arc<dyn Look>
    }

    /// None: the connection is of no use. Strangers make such ones all the time, so that is no reason to complain.
    pub(super) async fn accept(&self, stream: Counted) -> Option<TlsStream<Counted>> {
        let acceptor = TlsAcceptor::from(self.config.current());
        match timeout(self.handshake_timeout, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => Some(stream),
            Ok(Err(error)) => {
                if blames_the_certificate(&error) {
                    self.failures.certificate();
                }
                tracing::debug!(%error, "a TLS handshake failed");
                None
            }
            Err(_) => {
                self.hit.inc();
                tracing::debug!("a TLS handshake took too long");
                None
            }
        }
    }
}

/// Whether a client was turned away for what it showed, or did not show.
fn blames_the_certificate(error: &io::Error) -> bool {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    matches!(cause, Some(rustls::Error::NoCertificatesPresented | rustls::Error::InvalidCertificate(_)))
}

//! Opens connections, to the upstream or to other instances: bytes counted, TLS where the address is `https://`. Sends nothing.

use crate::config::ClientTls;
use crate::reload::Reloaded;
use crate::socket::{Counted, Traffic};
use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::error::Error;
use std::io::{IoSlice, Result as IoResult};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower_service::Service;

/// A connection on which nothing goes is looked after so often.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Cheap to clone: each pool has one.
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    http: HttpConnector,
    tls: Option<Arc<Tls>>,
    traffic: Traffic,
}

/// How connections are to be opened.
#[derive(Debug)]
pub(crate) struct Way<'a> {
    /// What the files for TLS are called in the log and in metrics.
    pub(crate) what: &'static str,
    /// `None`: no address is `https://`.
    pub(crate) tls: Option<&'a ClientTls>,
    /// What certificates have to name; `None`: the host of the address.
    pub(crate) server_name: Option<ServerName<'static>>,
    /// Of connecting, and of a handshake.
    pub(crate) timeout: Duration,
    /// A peer that confirms nothing for so long is not reached any more: neither what was sent to it, nor, where nothing was, that it
    /// is there. `None`: as the system has it, which is a quarter of an hour.
    pub(crate) unconfirmed_max: Option<Duration>,
    /// Where their bytes are counted.
    pub(crate) traffic: &'a Traffic,
}

#[derive(Debug)]
struct Tls {
    config: Reloaded<ClientConfig>,
    server_name: Option<ServerName<'static>>,
    handshake_timeout: Duration,
}

impl Connector {
    /// Reads the files for TLS, if there is to be any.
    pub(crate) fn new(way: Way<'_>) -> Result<Self, String> {
        let mut http = HttpConnector::new();
        http.set_nodelay(true);
        http.set_connect_timeout(Some(way.timeout));
        http.set_keepalive(Some(way.unconfirmed_max.unwrap_or(KEEPALIVE)));
        http.set_keepalive_interval(way.unconfirmed_max.map(|_| Duration::from_secs(1)));
        #[cfg(target_os = "linux")]
        http.set_tcp_user_timeout(way.unconfirmed_max);
        http.enforce_http(false);
        let tls = way.tls.map(|files| Tls::new(files, &way).map(Arc::new)).transpose()?;
        Ok(Self { http, tls, traffic: way.traffic.clone() })
    }
}

/// The name that the certificate of an address has to be for.
pub(super) fn server_name(url: &Uri) -> Result<ServerName<'static>, String> {
    let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    ServerName::try_from(host.to_owned()).map_err(|error| format!("{host}: {error}"))
}

impl Tls {
    fn new(files: &ClientTls, way: &Way<'_>) -> Result<Self, String> {
        let (paths, files, traffic) = (files.paths(), files.clone(), way.traffic.clone());
        let make = move || {
            let made = files.read().map_err(|fault| fault.to_string())?;
            let end = files.identity.as_ref().and_then(|identity| identity.ends().ok());
            end.into_iter().for_each(|end| traffic.certificate_ends(end));
            Ok(made)
        };
        let config = Reloaded::new(way.what, paths, make)?;
        Ok(Self { config, server_name: way.server_name.clone(), handshake_timeout: way.timeout })
    }

    async fn connect(
        &self,
        url: &Uri,
        stream: Counted,
    ) -> Result<TlsStream<Counted>, Box<dyn Error + Send + Sync>> {
        let connector = TlsConnector::from(self.config.fresh());
        let name = self.server_name.clone().map_or_else(|| server_name(url), Ok)?;
        let connecting = connector.connect(name, stream);
        match timeout(self.handshake_timeout, connecting).await {
            Ok(connected) => Ok(connected?),
            Err(_) => Err("the TLS handshake took too long".into()),
        }
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.http.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        let secure = url.scheme_str() == Some("https");
        let connecting = self.http.call(url.clone());
        let (tls, traffic) = (self.tls.clone(), self.traffic.clone());
        Box::pin(async move {
            let stream = Counted::new(connecting.await?.into_inner(), traffic);
            Ok(TokioIo::new(match tls {
                _ if !secure => Stream::Plain(stream),
                Some(tls) => Stream::Tls(Box::new(tls.connect(&url, stream).await?)),
                None => return Err("TLS has not been set up for this address".into()),
            }))
        })
    }
}

/// A connection. What is counted is what is on the wire.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(Counted),
    Tls(Box<TlsStream<Counted>>),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        match self {
            Self::Plain(stream) => stream.connected(),
            Self::Tls(stream) => stream.get_ref().0.connected(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<IoResult<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<IoResult<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<IoResult<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<IoResult<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<IoResult<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::socket::NetworkBytes;
    use prometheus::Registry;
    use rustix::net::sockopt::{tcp_keepidle, tcp_user_timeout};
    use tokio::net::TcpListener;

    /// Or a request to an instance that was cut off a moment ago would be waited for as long as one whose upstream is slow.
    #[tokio::test]
    async fn a_connection_ends_soon_on_which_nothing_is_confirmed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: Uri = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let network = NetworkBytes::new(&Registry::new()).unwrap();
        let five = Duration::from_secs(5);
        for (unconfirmed_max, user_timeout_ms, idle) in [(Some(five), 5_000, five), (None, 0, KEEPALIVE)] {
            let way = Way {
                what: "nothing",
                tls: None,
                server_name: None,
                timeout: five,
                unconfirmed_max,
                traffic: &network.upstream,
            };
            let Stream::Plain(stream) =
                Connector::new(way).unwrap().call(url.clone()).await.unwrap().into_inner()
            else {
                panic!("it is not secured");
            };
            assert_eq!(tcp_user_timeout(stream.stream()).unwrap(), user_timeout_ms);
            assert_eq!(tcp_keepidle(stream.stream()).unwrap(), idle);
        }
    }
}

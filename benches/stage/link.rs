//! One keep-alive connection of a sender, made when it is needed, over TLS if that is the way.

use bytes::Bytes;
use http::{HeaderMap, Request, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const PATH: &str = "/api/v1/receive";

/// How to get there.
#[derive(Clone)]
pub(crate) struct Way {
    pub(crate) to: SocketAddr,
    pub(crate) tls: Option<Arc<rustls::ClientConfig>>,
}

pub(crate) struct Link {
    way: Way,
    open: Option<SendRequest<Full<Bytes>>>,
}

impl Link {
    pub(crate) fn new(way: &Way) -> Self {
        Self { way: way.clone(), open: None }
    }

    /// Posts a body. The status, or why there is none.
    pub(crate) async fn post(&mut self, headers: &HeaderMap, body: Bytes) -> Result<u16, String> {
        let mut request = Request::post(PATH).body(Full::new(body)).unwrap();
        request.headers_mut().extend(headers.clone());
        request.headers_mut().insert(header::HOST, self.way.to.to_string().parse().unwrap());
        let mut open = match self.open.take() {
            Some(open) if !open.is_closed() => open,
            _ => self.connect().await?,
        };
        open.ready().await.map_err(|error| error.to_string())?;
        let answer = open.send_request(request).await.map_err(|error| error.to_string())?;
        let status = answer.status().as_u16();
        answer.into_body().collect().await.map_err(|error| error.to_string())?;
        self.open = Some(open);
        Ok(status)
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, String> {
        let stream = TcpStream::connect(self.way.to).await.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let Some(tls) = &self.way.tls else {
            let (open, driver) = handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
            tokio::spawn(driver);
            return Ok(open);
        };
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await;
        let stream = TokioIo::new(stream.map_err(|error| error.to_string())?);
        let (open, driver) = handshake(stream).await.map_err(|error| error.to_string())?;
        tokio::spawn(driver);
        Ok(open)
    }
}

//! Asks an issuer for its keys: the discovery document, then the key set that it names. Bounded in time and size, and
//! follows no redirects.

use super::token::Keys;
use crate::config::ClientTls;
use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, HOST};
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::Value;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// Both documents. Senders wait for it, and Prometheus gives up after 30 s.
const TIMEOUT: Duration = Duration::from_secs(5);
const DOCUMENT_MAX_BYTES: usize = 1 << 20;
const WELL_KNOWN: &str = "/.well-known/openid-configuration";

type Failed = Box<dyn Error + Send + Sync>;

#[derive(Debug)]
pub(super) struct Fetcher {
    discovery: Uri,
    tls: Arc<ClientConfig>,
}

impl Fetcher {
    pub(super) fn new(issuer: &Uri) -> Result<Self, String> {
        let discovery = format!("{}{WELL_KNOWN}", issuer.to_string().trim_end_matches('/'));
        let discovery = discovery.parse().map_err(|error| format!("{discovery}: {error}"))?;
        let tls = ClientTls::default().read().map_err(|fault| fault.to_string())?;
        Ok(Self { discovery, tls: Arc::new(tls) })
    }

    pub(super) async fn keys(&self, issuer_name: &str) -> Result<Keys, String> {
        match timeout(TIMEOUT, self.both(issuer_name)).await {
            Ok(fetched) => fetched.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no answer within {TIMEOUT:?}")),
        }
    }

    async fn both(&self, issuer_name: &str) -> Result<Keys, Failed> {
        let document = self.get(&self.discovery).await?;
        let text = |name: &str| document.get(name).and_then(Value::as_str).unwrap_or_default();
        if text("issuer") != issuer_name {
            return Err(format!("{} is the document of another issuer", self.discovery).into());
        }
        let place: Uri = text("jwks_uri").parse()?;
        if self.discovery.scheme_str() == Some("https") && place.scheme_str() != Some("https") {
            return Err(format!("{} names keys at {place}, which is not https://", self.discovery).into());
        }
        let keys = Keys::parse(&self.get(&place).await?);
        keys.ok_or_else(|| format!("{place} holds no key set").into())
    }

    async fn get(&self, url: &Uri) -> Result<Value, Failed> {
        let host = url.host().ok_or("an address without a host")?.trim_matches(['[', ']']);
        let secure = url.scheme_str() == Some("https");
        let port = url.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let stream = TcpStream::connect((host, port)).await?;
        if !secure {
            return answer(stream, url).await;
        }
        let name = ServerName::try_from(host.to_owned())?;
        let stream = TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await?;
        answer(stream, url).await
    }
}

async fn answer<I>(stream: I, url: &Uri) -> Result<Value, Failed>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut send, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the answer, or with the sender half, which is dropped at the end of this function.
    tokio::spawn(connection);
    let authority = url.authority().map_or("", http::uri::Authority::as_str);
    let path = url.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let request = Request::get(path)
        .header(HOST, authority)
        .header(ACCEPT, "application/json")
        .body(Empty::<Bytes>::new())?;
    let response = send.send_request(request).await?;
    if !response.status().is_success() {
        return Err(format!("{url} answered {}", response.status().as_u16()).into());
    }
    let (mut body, mut content) = (response.into_body(), BytesMut::new());
    while let Some(frame) = body.frame().await {
        content.extend_from_slice(frame?.data_ref().map_or(&[][..], |data| data));
        if content.len() > DOCUMENT_MAX_BYTES {
            return Err(format!("{url} holds more than {DOCUMENT_MAX_BYTES} bytes").into());
        }
    }
    Ok(serde_json::from_slice(&content)?)
}

//! FETCH: one JSON document over HTTP or TLS, for what is asked for seldom. Bounded in size, and follows no redirects.
//!
//! Refuses to retry and to bound the time: whoever asks knows how long that may take.

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
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const DOCUMENT_MAX_BYTES: usize = 4 << 20;

/// Why there is no document.
pub(crate) type Failed = Box<dyn Error + Send + Sync>;

/// The document at an `http://` or `https://` address.
pub(crate) async fn json(url: &Uri, tls: &Arc<ClientConfig>) -> Result<Value, Failed> {
    let host = url.host().ok_or("an address without a host")?.trim_matches(['[', ']']);
    let secure = url.scheme_str() == Some("https");
    let port = url.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let stream = TcpStream::connect((host, port)).await?;
    if !secure {
        return answer(stream, url).await;
    }
    let name = ServerName::try_from(host.to_owned())?;
    let stream = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await?;
    answer(stream, url).await
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

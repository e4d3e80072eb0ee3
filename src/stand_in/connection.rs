//! One keep-alive HTTP/1.1 connection to a loopback server, as a shard of a sender or a reader of metrics uses it.
//!
//! Refuses to retry: the caller has rules for that. Headers go out in the spelling of Go's client.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// Longest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    /// The URL has no host, or is none at all.
    #[error("cannot use the URL {url:?}")]
    BadUrl {
        /// As given.
        url: String,
    },
    /// No connection.
    #[error("cannot connect to {authority}: {error}")]
    Connect {
        /// Host and port.
        authority: String,
        /// Of the operating system.
        error: std::io::Error,
    },
    /// The request could not be made.
    #[error("not a request: {0}")]
    Request(#[from] http::Error),
    /// The connection broke before the answer was complete.
    #[error("connection to {authority} broke: {error}")]
    Broken {
        /// Host and port.
        authority: String,
        /// Of the HTTP client.
        error: String,
    },
}

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// All headers.
    pub headers: HeaderMap,
    /// The body.
    pub text: String,
}

impl Reply {
    /// `Retry-After` in seconds, if it was given as a number.
    #[must_use]
    pub fn retry_after_s(&self) -> Option<u64> {
        self.headers.get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()
    }
}

/// One connection, made when it is needed and made anew when it broke. Dropping it closes it at once.
#[derive(Debug)]
pub struct Connection {
    authority: String,
    path: String,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    /// To `http://host:port/path`; nothing is connected yet.
    pub fn to(url: &str) -> Result<Self, NoAnswer> {
        let bad = || NoAnswer::BadUrl { url: url.to_owned() };
        let uri: Uri = url.parse().map_err(|_| bad())?;
        let host = uri.host().ok_or_else(bad)?;
        let authority = format!("{host}:{}", uri.port_u16().unwrap_or(80));
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { authority, path, open: None })
    }

    /// Posts a body and reads the answer. Cancelling it closes the connection.
    pub async fn post(&mut self, headers: &HeaderMap, body: Bytes) -> Result<Reply, NoAnswer> {
        self.exchange(Method::POST, headers, body).await
    }

    /// Gets the path of the URL.
    pub async fn get(&mut self) -> Result<Reply, NoAnswer> {
        self.exchange(Method::GET, &HeaderMap::new(), Bytes::new()).await
    }

    /// Any request.
    pub async fn exchange(
        &mut self,
        method: Method,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Reply, NoAnswer> {
        let mut request = Request::builder().method(method).uri(self.path.as_str());
        if let Some(all) = request.headers_mut() {
            if let Ok(host) = self.authority.parse() {
                all.insert(header::HOST, host);
            }
            all.extend(headers.clone());
        }
        let request = request.body(Full::new(body))?;
        // Taken out for the time of the exchange: if that is cancelled or fails, the connection goes with it.
        let mut open = match self.open.take() {
            Some(open) if !open.sender.is_closed() => open,
            _ => self.connect().await?,
        };
        let reply = exchange(&mut open.sender, request)
            .await
            .map_err(|error| NoAnswer::Broken { authority: self.authority.clone(), error })?;
        self.open = Some(open);
        Ok(reply)
    }

    async fn connect(&self) -> Result<Open, NoAnswer> {
        let refused = |error| NoAnswer::Connect { authority: self.authority.clone(), error };
        let stream = TcpStream::connect(&self.authority).await.map_err(refused)?;
        stream.set_nodelay(true).map_err(refused)?;
        let (sender, driver) = Builder::new()
            .title_case_headers(true)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| refused(std::io::Error::other(error)))?;
        // What goes wrong on the connection is reported by the exchange that runs on it.
        let driver = tokio::spawn(async move { drop(driver.await) });
        Ok(Open { sender, driver })
    }
}

async fn exchange(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<Reply, String> {
    sender.ready().await.map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
    Ok(Reply { status: head.status.as_u16(), headers: head.headers, text })
}

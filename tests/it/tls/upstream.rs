//! TLS towards the upstream, against a server of the tests' own.

use super::authority::{Authority, Files, Pair};
use crate::peer::{config, soon};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use promdedup::forward::{Answer, HttpUpstream};
use promdedup::socket::NetworkBytes;
use promdedup::telemetry::LimitHits;
use prometheus::Registry;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const CA: &str = "PROMDEDUP_UPSTREAM_TLS_CA_FILE";

/// Who the client has shown itself to be, request by request.
type Shown = Arc<Mutex<Vec<Option<Vec<u8>>>>>;

/// An upstream that speaks TLS, and asks for certificates if `clients` says who signs them. Its port.
async fn upstream(pair: &Pair, clients: Option<&Authority>) -> (u16, Shown) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("versions");
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots
                .add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).expect("PEM"))
                .expect("a root");
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
        }
    };
    let chain = vec![CertificateDer::from_pem_slice(pair.certificate.as_bytes()).expect("PEM")];
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("PEM");
    let acceptor = TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).expect("a pair")));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let port = listener.local_addr().expect("an address").port();
    let shown = Shown::default();
    let at_door = Arc::clone(&shown);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, shown) = (acceptor.clone(), Arc::clone(&at_door));
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let client = stream.get_ref().1.peer_certificates().map(|chain| chain[0].to_vec());
                let answer = service_fn(move |request: Request<Incoming>| {
                    shown.lock().expect("a lock").push(client.clone());
                    async move {
                        request.into_body().collect().await.expect("a body");
                        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
                    }
                });
                drop(http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await);
            });
        }
    });
    (port, shown)
}

async fn probe(port: u16, host: &str, more: &[(&str, &str)]) -> Answer {
    let url = format!("https://{host}:{port}/api/v1/receive");
    let registry = Registry::new();
    let network = NetworkBytes::new(&registry).expect("metrics");
    let limits = LimitHits::new(&registry).expect("metrics");
    let config = config(&url, more).forward;
    soon(HttpUpstream::new(config, &registry, &network, &limits).expect("a client").probe()).await
}

fn failed(answer: Answer, word: &str) {
    let Answer::NotSent { error } = answer else { panic!("{answer:?}") };
    assert!(error.contains(word), "{word:?} is not in: {error}");
}

#[tokio::test]
async fn the_upstreams_certificate_is_checked() {
    let (authority, other, files) = (Authority::new(), Authority::new(), Files::new());
    let (port, shown) = upstream(&authority.signs("localhost"), None).await;
    let ours = files.put("ca.crt", &authority.pem);
    let others = files.put("other.crt", &other.pem);
    let (ours, others) = ([(CA, &ours[..])], [(CA, &others[..])]);
    assert_eq!(probe(port, "localhost", &ours).await, Answer::Taken);
    failed(probe(port, "localhost", &others).await, "invalid peer certificate");
    failed(probe(port, "localhost", &[]).await, "UnknownIssuer");
    failed(probe(port, "127.0.0.1", &ours).await, "not valid for name");
    assert_eq!(*shown.lock().expect("a lock"), [None]);
}

#[tokio::test]
async fn an_upstream_that_asks_is_shown_a_certificate() {
    let (authority, files) = (Authority::new(), Files::new());
    let (port, shown) = upstream(&authority.signs("localhost"), Some(&authority)).await;
    let pair = authority.signs("promdedup");
    let trusts = [(CA, &files.put("ca.crt", &authority.pem)[..])];
    let shows = [
        ("PROMDEDUP_UPSTREAM_TLS_CERT_FILE", &files.put("tls.crt", &pair.certificate)[..]),
        ("PROMDEDUP_UPSTREAM_TLS_KEY_FILE", &files.put("tls.key", &pair.key)[..]),
    ];
    assert!(matches!(probe(port, "localhost", &trusts).await, Answer::NoAnswer { .. }));
    assert_eq!(probe(port, "localhost", &[&trusts[..], &shows].concat()).await, Answer::Taken);
    let certificate = CertificateDer::from_pem_slice(pair.certificate.as_bytes()).expect("PEM");
    assert_eq!(*shown.lock().expect("a lock"), [Some(certificate.to_vec())]);
}

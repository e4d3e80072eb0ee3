//! Tokens of an OpenID provider, against one of the tests' own.

use super::{counts_of, post, status};
use crate::command::ran;
use crate::peer::{Peer, soon};
use crate::tls::Proxy;
use crate::tls::authority::{Authority, Files, Pair};
use axum::Router;
use axum::routing::get;
use axum::serve::Listener;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use promdedup::config::Config;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
    RsaPublicKeyComponents,
};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Made for these tests, and used nowhere else: `ring` signs with RSA but makes no keys.
const RSA_KEY: &str = include_str!("rsa.pem");

enum Signer {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl Signer {
    fn rsa() -> Self {
        let key = PrivatePkcs8KeyDer::from_pem_slice(RSA_KEY.as_bytes()).expect("PEM");
        Self::Rsa(RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()).expect("a key"))
    }

    fn p256() -> Self {
        let (kind, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let key = EcdsaKeyPair::generate_pkcs8(kind, &random).expect("a key");
        Self::P256(EcdsaKeyPair::from_pkcs8(kind, key.as_ref(), &random).expect("a key"))
    }

    fn ed25519() -> Self {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
        Self::Ed25519(Ed25519KeyPair::from_pkcs8(key.as_ref()).expect("a key"))
    }

    fn algorithm(&self) -> &'static str {
        match self {
            Self::Rsa(_) => "RS256",
            Self::P256(_) => "ES256",
            Self::Ed25519(_) => "EdDSA",
        }
    }

    fn public(&self, id: &str) -> Value {
        match self {
            Self::Rsa(key) => {
                let RsaPublicKeyComponents::<Vec<u8>> { n, e } = key.public().into();
                json!({"kty": "RSA", "kid": id, "use": "sig", "n": coded(n), "e": coded(e)})
            }
            Self::P256(key) => {
                let (x, y) = key.public_key().as_ref()[1..].split_at(32);
                json!({"kty": "EC", "crv": "P-256", "kid": id, "x": coded(x), "y": coded(y)})
            }
            Self::Ed25519(key) => {
                json!({"kty": "OKP", "crv": "Ed25519", "kid": id, "x": coded(key.public_key())})
            }
        }
    }

    fn sign(&self, text: &[u8]) -> Vec<u8> {
        match self {
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text, &mut signature).expect("signed");
                signature
            }
            Self::P256(key) => key.sign(&SystemRandom::new(), text).expect("signed").as_ref().to_vec(),
            Self::Ed25519(key) => key.sign(text).as_ref().to_vec(),
        }
    }

    /// A token with that header and these claims.
    fn token(&self, header: &Value, claims: &Value) -> String {
        let text = format!("{}.{}", coded(header.to_string()), coded(claims.to_string()));
        format!("{text}.{}", coded(self.sign(text.as_bytes())))
    }

    fn header(&self, id: &str) -> Value {
        json!({"alg": self.algorithm(), "typ": "JWT", "kid": id})
    }
}

fn coded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Connections that have passed the handshake.
struct OverTls {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for OverTls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = self.listener.accept().await.expect("accepted");
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// An OpenID provider. It is gone when `serving` is aborted.
struct Issuer {
    url: String,
    keys: Arc<Mutex<(Vec<Value>, usize)>>,
    serving: JoinHandle<()>,
}

impl Issuer {
    async fn start(keys: Vec<Value>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let url = format!("http://{}/realms/x", listener.local_addr().expect("an address"));
        Self::serve(listener, url, keys)
    }

    /// The same at `https://localhost`.
    async fn start_over_tls(keys: Vec<Value>, pair: &Pair) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let url = format!("https://localhost:{}/realms/x", listener.local_addr().expect("an address").port());
        let chain = vec![CertificateDer::from_pem_slice(pair.certificate.as_bytes()).expect("PEM")];
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("PEM");
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a pair");
        Self::serve(OverTls { listener, acceptor: TlsAcceptor::from(Arc::new(config)) }, url, keys)
    }

    fn serve<L: Listener<Addr = SocketAddr>>(listener: L, url: String, keys: Vec<Value>) -> Self {
        let keys = Arc::new(Mutex::new((keys, 0)));
        let (document, at_door) =
            (json!({"issuer": url, "jwks_uri": format!("{url}/certs")}), Arc::clone(&keys));
        let certs = move || async move {
            let mut state = at_door.lock().expect("a lock");
            state.1 += 1;
            json!({"keys": state.0}).to_string()
        };
        let router = Router::new()
            .route(
                "/realms/x/.well-known/openid-configuration",
                get(move || async move { document.to_string() }),
            )
            .route("/realms/x/certs", get(certs));
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.expect("served") });
        Self { url, keys, serving }
    }

    fn has(&self, keys: Vec<Value>) {
        self.keys.lock().expect("a lock").0 = keys;
    }

    fn fetched(&self) -> usize {
        self.keys.lock().expect("a lock").1
    }

    /// What a good token says; it ends in that many seconds.
    #[expect(clippy::disallowed_methods, reason = "a token ends at a time of the wall clock")]
    fn claims(&self, seconds: i64) -> Value {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a time").as_secs() as i64;
        json!({"iss": self.url, "aud": ["other", "promdedup"], "exp": now + seconds, "nbf": now - 5, "org": "team-a"})
    }

    fn variables(&self) -> Vec<(&str, &str)> {
        vec![("PROMDEDUP_AUTH_OIDC_ISSUER", &self.url), ("PROMDEDUP_AUTH_OIDC_AUDIENCE", "promdedup")]
    }
}

fn with(mut claims: Value, name: &str, value: Value) -> Value {
    claims[name] = value;
    claims
}

fn bearer(token: &str) -> String {
    super::bearer(token)
}

#[tokio::test]
async fn tokens_are_proven_by_the_issuers_keys() {
    let (rsa, p256, ed25519, other) = (Signer::rsa(), Signer::p256(), Signer::ed25519(), Signer::p256());
    let keys = vec![
        rsa.public("r"),
        p256.public("p"),
        ed25519.public("e"),
        json!({"kty": "oct", "kid": "o", "k": "c2VjcmV0"}),
    ];
    let issuer = Issuer::start(keys).await;
    let proxy = Proxy::start("http://127.0.0.1:1/", &issuer.variables());
    let good = issuer.claims(60);
    for (signer, id) in [(&rsa, "r"), (&p256, "p"), (&ed25519, "e")] {
        let token = signer.token(&signer.header(id), &good);
        assert_eq!(status(&proxy, &bearer(&token)).await, 204, "{id}");
    }
    let no_id = p256.token(&json!({"alg": "ES256"}), &with(good.clone(), "aud", json!("promdedup")));
    assert_eq!(status(&proxy, &bearer(&no_id)).await, 204, "any of them may have signed it");
    assert_eq!(issuer.fetched(), 1);
    let token = p256.token(&p256.header("p"), &good);
    let (signed, signature) = token.rsplit_once('.').expect("three parts");
    let crit = json!({"alg": "ES256", "kid": "p", "crit": ["exp"]});
    let hidden = json!({"alg": "HS256", "kid": "p"});
    let mut claimless = good.clone();
    claimless.as_object_mut().expect("an object").remove("exp");
    let wrong = [
        other.token(&p256.header("p"), &good),
        rsa.token(&json!({"alg": "RS256", "kid": "p"}), &good),
        rsa.token(&json!({"alg": "ES256", "kid": "r"}), &good),
        p256.token(&crit, &good),
        p256.token(&hidden, &good),
        format!("{}.{}.", coded(json!({"alg": "none"}).to_string()), coded(good.to_string())),
        format!(
            "{}.{}.{signature}",
            coded(json!({"alg": "none", "kid": "p"}).to_string()),
            coded(good.to_string())
        ),
        format!("{signed}."),
        format!("{signed}x.{signature}"),
        signed.to_owned(),
        format!("{token}.{token}"),
        p256.token(&p256.header("p"), &with(good.clone(), "iss", json!("http://elsewhere/"))),
        p256.token(
            &json!({"alg": "ES256", "kid": "unknown"}),
            &with(good.clone(), "iss", json!("http://elsewhere/")),
        ),
        p256.token(&p256.header("p"), &with(good.clone(), "aud", json!("other"))),
        p256.token(&p256.header("p"), &claimless),
    ];
    for token in &wrong {
        assert_eq!(status(&proxy, &bearer(token)).await, 401, "{token}");
    }
    let now = good["exp"].as_i64().expect("a time") - 60;
    for (claim, seconds, expected) in
        [("exp", -20, 204), ("exp", -40, 401), ("nbf", 20, 204), ("nbf", 40, 401)]
    {
        let token = p256.token(&p256.header("p"), &with(good.clone(), claim, json!(now + seconds)));
        assert_eq!(status(&proxy, &bearer(&token)).await, expected, "{claim} {seconds}");
    }
    assert_eq!(issuer.fetched(), 1, "nobody made us ask again");
    let metrics = proxy.metrics().await;
    let found = counts_of(&metrics, &["wrong", "expired", "missing", "unavailable"]);
    assert_eq!(found, [wrong.len() as u64, 2, 0, 0]);
}

#[tokio::test]
async fn keys_change_and_issuers_go_away() {
    let (old, new, unknown) = (Signer::p256(), Signer::ed25519(), Signer::p256());
    let issuer = Issuer::start(vec![old.public("old")]).await;
    let proxy = Proxy::start("http://127.0.0.1:1/", &issuer.variables());
    let claims = issuer.claims(60);
    let (old_token, new_token) =
        (old.token(&old.header("old"), &claims), new.token(&new.header("new"), &claims));
    assert_eq!(status(&proxy, &bearer(&old_token)).await, 204);
    issuer.has(vec![new.public("new")]);
    let heard = post(&proxy, &bearer(&new_token), &[0]).await;
    assert_eq!(heard.status, 503, "asked a moment ago: nobody can tell yet");
    assert!(heard.has("retry-after: 1"), "{heard:?}");
    soon(async { while status(&proxy, &bearer(&new_token)).await != 204 {} }).await;
    assert_eq!(issuer.fetched(), 2, "however often it was asked for");
    assert_eq!(status(&proxy, &bearer(&old_token)).await, 503, "the issuer has it no more");
    issuer.serving.abort();
    assert_eq!(status(&proxy, &bearer(&new_token)).await, 204, "known keys stay good");
    let token = unknown.token(&unknown.header("unknown"), &claims);
    assert_eq!(status(&proxy, &bearer(&token)).await, 503);
    assert!(counts_of(&proxy.metrics().await, &["unavailable"])[0] >= 3);
}

#[tokio::test]
async fn an_issuer_that_is_away_from_the_start_is_waited_for() {
    let signer = Signer::p256();
    let issuer = Issuer::start(vec![signer.public("p")]).await;
    issuer.serving.abort();
    let proxy = Proxy::start("http://127.0.0.1:1/", &issuer.variables());
    let heard = post(&proxy, &bearer(&signer.token(&signer.header("p"), &issuer.claims(60))), &[0]).await;
    assert_eq!(heard.status, 503);
    assert!(heard.has("retry-after: 1"), "{heard:?}");
}

#[tokio::test]
async fn the_claim_says_which_tenant_it_is() {
    let signer = Signer::p256();
    let issuer = Issuer::start(vec![signer.public("p")]).await;
    let peer = Peer::start(200, "").await;
    let more = [issuer.variables(), vec![("PROMDEDUP_AUTH_OIDC_TENANT_CLAIM", "org")]].concat();
    let proxy = Proxy::start(&peer.url(), &more);
    let token = |claims: &Value| bearer(&signer.token(&signer.header("p"), claims));
    let claims = issuer.claims(60);
    assert_eq!(post(&proxy, &token(&claims), &super::minimal()).await.status, 204);
    assert_eq!(peer.requests()[0].0.get("thanos-tenant").expect("a tenant"), "team-a");
    let other = token(&claims) + "thanos-tenant: team-b\r\n";
    assert_eq!(post(&proxy, &other, &super::minimal()).await.status, 403);
    for bad in [json!(null), json!(7), json!(""), json!(["team-a"]), json!("a\nb")] {
        assert_eq!(status(&proxy, &token(&with(claims.clone(), "org", bad.clone()))).await, 401, "{bad}");
    }
}

#[tokio::test]
async fn an_issuer_may_have_authorities_of_its_own() {
    let (authority, files, signer) = (Authority::new(), Files::new(), Signer::p256());
    let issuer = Issuer::start_over_tls(vec![signer.public("p")], &authority.signs("localhost")).await;
    let ca = files.put("ca.crt", Authority::new().pem);
    let more = [issuer.variables(), vec![("PROMDEDUP_AUTH_OIDC_CA_FILE", &ca)]].concat();
    let token = bearer(&signer.token(&signer.header("p"), &issuer.claims(60)));
    let proxy = Proxy::start("http://127.0.0.1:1/", &more);
    assert_eq!(status(&proxy, &token).await, 503, "somebody else has signed its certificate");
    // The file is read again when it has changed, and the issuer is asked again after a while.
    files.put("ca.crt", &authority.pem);
    soon(async { while status(&proxy, &token).await != 204 {} }).await;
    let public = Proxy::start("http://127.0.0.1:1/", &issuer.variables());
    assert_eq!(status(&public, &token).await, 503, "no public authority has");
}

#[test]
fn the_issuers_authorities_are_read_at_the_start() {
    let (files, url) = (Files::new(), ("PROMDEDUP_UPSTREAM_URL", "http://thanos:19291/"));
    let (good, bad) = (files.put("good", Authority::new().pem), files.put("bad", "x"));
    let of = |issuer, ca| {
        let audience = ("PROMDEDUP_AUTH_OIDC_AUDIENCE", "promdedup");
        let ca = ("PROMDEDUP_AUTH_OIDC_CA_FILE", ca);
        Config::from_pairs([url, ("PROMDEDUP_AUTH_OIDC_ISSUER", issuer), audience, ca])
    };
    assert!(of("https://sso/", &good[..]).is_ok());
    for (issuer, ca, words) in
        [("https://sso/", &bad, "no certificate"), ("http://sso/", &good, "is not https://")]
    {
        let error = of(issuer, ca).expect_err(words);
        assert_eq!(
            (error.mistakes.len(), &error.mistakes[0].variable[..]),
            (1, "PROMDEDUP_AUTH_OIDC_CA_FILE")
        );
        assert!(error.to_string().contains(words), "{error}");
    }
    let error = Config::from_pairs([url, ("PROMDEDUP_AUTH_OIDC_CA_FILE", &good)]).expect_err("no issuer");
    assert!(error.to_string().contains("PROMDEDUP_AUTH_OIDC_ISSUER is not https://"), "{error}");
}

#[test]
fn issuer_and_audience_belong_together() {
    let refused = |more: &[(&str, &str)], variable: &str| {
        let url = ("PROMDEDUP_UPSTREAM_URL", "http://thanos:19291/");
        let error = Config::from_pairs([url].into_iter().chain(more.iter().copied())).expect_err(variable);
        assert_eq!(error.mistakes.len(), 1, "{error}");
        assert_eq!(error.mistakes[0].variable, variable, "{error}");
    };
    let issuer = ("PROMDEDUP_AUTH_OIDC_ISSUER", "https://sso.example.com/realms/x");
    refused(&[issuer], "PROMDEDUP_AUTH_OIDC_ISSUER");
    let pairs = [("PROMDEDUP_UPSTREAM_URL", "http://thanos:19291/"), ("PROMDEDUP_AUTH_OIDC_ISSUER", "nope")];
    let error = Config::from_pairs(pairs).expect_err("it is no address, and alone");
    assert_eq!(error.mistakes.len(), 2, "{error}");
    refused(&[("PROMDEDUP_AUTH_OIDC_AUDIENCE", "promdedup")], "PROMDEDUP_AUTH_OIDC_AUDIENCE");
    refused(&[("PROMDEDUP_AUTH_OIDC_TENANT_CLAIM", "org")], "PROMDEDUP_AUTH_OIDC_TENANT_CLAIM");
    let audience = ("PROMDEDUP_AUTH_OIDC_AUDIENCE", "promdedup");
    for bad in ["sso.example.com", "ftp://sso.example.com/", "https://sso.example.com/?x=y"] {
        refused(&[("PROMDEDUP_AUTH_OIDC_ISSUER", bad), audience], "PROMDEDUP_AUTH_OIDC_ISSUER");
    }
}

#[tokio::test]
async fn check_asks_the_issuer() {
    let issuer = Issuer::start(vec![Signer::p256().public("p")]).await;
    let peer = Peer::start(200, "").await;
    let check = async || {
        let (url, issuer) = (peer.url(), issuer.url.clone());
        let ran = spawn_blocking(move || {
            let variables = [
                ("PROMDEDUP_UPSTREAM_URL", &url[..]),
                ("PROMDEDUP_AUTH_OIDC_ISSUER", &issuer),
                ("PROMDEDUP_AUTH_OIDC_AUDIENCE", "promdedup"),
            ];
            ran(&["check"], &variables)
        });
        soon(ran).await.expect("no panic")
    };
    let (code, stdout, _) = check().await;
    assert_eq!(code, Some(0), "{stdout}");
    assert!(stdout.contains(&format!("OpenID provider {}: ok, 1 key(s)", issuer.url)), "{stdout}");
    issuer.serving.abort();
    let (code, stdout, _) = check().await;
    assert_eq!(code, Some(1), "{stdout}");
    assert!(stdout.contains("realms/x: failed, "), "{stdout}");
}

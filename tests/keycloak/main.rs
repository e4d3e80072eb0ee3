//! The proxy behind a real Keycloak: who may write, as which tenant, and what happens when its keys change or it is gone.
//!
//! `tests/keycloak/get`, then `cargo test --features keycloak --test keycloak`. Needs Java 17 or newer, and Debian's `prometheus`.
//! One story, since Keycloak takes half a minute and more to start.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test says what it sees, and fails"
)]

#[allow(dead_code, reason = "what the stories with real Prometheis need")]
#[path = "../real/process.rs"]
mod process;
mod server;

use http::header::{AUTHORIZATION, CONTENT_ENCODING, HeaderMap};
use http::{HeaderName, HeaderValue};
use process::{PATIENCE, Process, eventually};
use promdedup::app::{Addresses, App};
use promdedup::config::Config;
use promdedup::stand_in::connection::{Connection, Reply};
use promdedup::stand_in::request::Body;
use promdedup::stand_in::{now_ms, thanos::Thanos};
use serde_json::json;
use server::{Keycloak, SECRETS};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// The issuer is not asked for unknown keys more often.
const ASK_EVERY: Duration = Duration::from_secs(10);
/// A token is taken for so long after its end.
const LEEWAY: Duration = Duration::from_secs(30);

/// A running proxy. Ends when dropped.
struct Proxy {
    at: Addresses,
    _stop: oneshot::Sender<()>,
}

impl Proxy {
    fn start(upstream: &str, issuer: &str) -> Self {
        let config = Config::from_pairs([
            ("PROMDEDUP_UPSTREAM_URL", upstream),
            ("PROMDEDUP_LISTEN", "127.0.0.1:0"),
            ("PROMDEDUP_ADMIN_LISTEN", "127.0.0.1:0"),
            ("PROMDEDUP_FIRST_CONTACT_HOLD", "0s"),
            ("PROMDEDUP_AUTH_OIDC_ISSUER", issuer),
            ("PROMDEDUP_AUTH_OIDC_AUDIENCE", "promdedup"),
            ("PROMDEDUP_AUTH_OIDC_TENANT_CLAIM", "tenant"),
        ]);
        let app = App::build(config.expect("a configuration")).expect("built");
        let at = app.addresses();
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(app.run(async { drop(stopped.await) }));
        Self { at, _stop: stop }
    }

    fn url(&self) -> String {
        format!("http://{}/api/v1/receive", self.at.data)
    }

    /// Writes a sample with a token, and perhaps the name of a tenant.
    async fn write(&self, token: &str, tenant: Option<&str>) -> Reply {
        let labels = [("__name__", "m"), ("prometheus", "p"), ("prometheus_replica", "a")];
        let body = Body::new().series(&labels, &[(now_ms(), 1.0)]).compressed();
        let value = |text: &str| HeaderValue::from_str(text).expect("a value");
        let mut headers = HeaderMap::from_iter([(CONTENT_ENCODING, value("snappy"))]);
        headers.insert(AUTHORIZATION, value(&format!("Bearer {token}")));
        if let Some(tenant) = tenant {
            headers.insert(HeaderName::from_static("thanos-tenant"), value(tenant));
        }
        let mut connection = Connection::to(&self.url()).expect("a URL");
        let asked = tokio::time::timeout(PATIENCE, connection.post(&headers, body)).await;
        asked.expect("in time").expect("an answer")
    }

    async fn status(&self, token: &str) -> u16 {
        self.write(token, None).await.status
    }

    /// A token of an unknown key: until it can be proven its sender is told to come back, and nothing else.
    async fn comes_to_take(&self, token: &str) {
        eventually("the new key is known", 2 * ASK_EVERY, async || {
            let reply = self.write(token, None).await;
            match reply.status {
                204 => Some(()),
                _ => {
                    assert_eq!((reply.status, reply.retry_after_s()), (503, Some(1)), "{}", reply.text);
                    None
                }
            }
        })
        .await;
    }
}

/// A Prometheus that writes with `oauth2`.
async fn prometheus(proxy: &Proxy, keycloak: &Keycloak, folder: &TempDir) -> Process {
    let (tenant, secret) = SECRETS[1];
    let configuration = format!(
        "global:
  scrape_interval: 1s
  external_labels: {{prometheus: monitoring/k8s, prometheus_replica: k8s-0}}
scrape_configs:
- job_name: proxy
  static_configs: [{{targets: ['{}']}}]
remote_write:
- url: {}
  oauth2:
    client_id: prometheus-{tenant}
    client_secret: {secret}
    token_url: {}
  queue_config: {{batch_send_deadline: 1s}}
",
        proxy.at.admin,
        proxy.url(),
        keycloak.token_url()
    );
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("prometheus.yml"), configuration).expect("written");
    let mut command = Command::new("prometheus");
    command
        .arg(format!("--config.file={}", path("prometheus.yml").display()))
        .arg(format!("--storage.tsdb.path={}", path("data").display()))
        .arg("--web.listen-address=127.0.0.1:0");
    let missing =
        "`prometheus` is not on PATH; on Debian: apt-get install --no-install-recommends prometheus";
    Process::start("prometheus", &mut command, path("log"), missing)
}

/// Whether a tenant has a series of that name.
fn has(thanos: &Thanos, tenant: &str, name: &str) -> bool {
    let named = |labels: &promdedup::stand_in::Labels| labels.iter().any(|label| label == ("__name__", name));
    thanos.stored(tenant).keys().any(named)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_of_a_real_keycloak() {
    let thanos = Thanos::start().await.expect("started");
    let mut keycloak = Keycloak::start().await;
    let proxy = Proxy::start(&thanos.url(), &keycloak.issuer());
    let short = json!({"defaultClientScopes": ["promdedup"], "attributes": {"access.token.lifespan": "1"},
        "protocolMappers": [{"name": "tenant", "protocol": "openid-connect", "protocolMapper": "oidc-hardcoded-claim-mapper",
            "config": {"claim.name": "tenant", "claim.value": "team-c", "jsonType.label": "String", "access.token.claim": "true"}}]});
    keycloak.add_client("short", short).await;
    keycloak.add_client("elsewhere", json!({})).await;

    // Two tenants, each as itself only.
    let (a, b) = (keycloak.token_of_tenant(0).await, keycloak.token_of_tenant(1).await);
    assert_eq!(proxy.status(&a).await, 204);
    assert!(has(&thanos, "team-a", "m") && !has(&thanos, "team-b", "m"), "{:?}", thanos.tenants());
    assert_eq!(proxy.status(&b).await, 204);
    assert_eq!(thanos.tenants(), ["team-a", "team-b"]);
    assert_eq!(proxy.write(&a, Some("team-a")).await.status, 204);
    assert_eq!(proxy.write(&a, Some("team-b")).await.status, 403);

    // A client of the same realm whose tokens are for somebody else; a token that was tampered with.
    let elsewhere = keycloak.token("elsewhere", "elsewhere").await;
    assert_eq!(proxy.status(&elsewhere).await, 401, "another audience");
    let (signed, _) = a.rsplit_once('.').expect("three parts");
    let (_, signature) = b.rsplit_once('.').expect("three parts");
    assert_eq!(proxy.status(&format!("{signed}.{signature}")).await, 401);

    // While it is fresh, and until the leeway is over.
    let expiring = keycloak.token("short", "short").await;
    let made = Instant::now();
    assert_eq!(proxy.status(&expiring).await, 204);

    // The real Prometheus gets its tokens by itself.
    let folder = tempfile::tempdir().expect("a folder");
    let mut prometheus = prometheus(&proxy, &keycloak, &folder).await;
    eventually("what Prometheus scrapes arrives", PATIENCE, async || {
        prometheus.assert_alive();
        has(&thanos, "team-b", "up").then_some(())
    })
    .await;
    drop(prometheus);

    // A new key, which is asked for; the old one is still published.
    keycloak.rotate(200).await;
    let second = keycloak.token_of_tenant(0).await;
    proxy.comes_to_take(&second).await;
    assert_eq!(proxy.status(&a).await, 204, "the old key is good as well");

    eventually("the token has ended", LEEWAY + PATIENCE, async || {
        (proxy.status(&expiring).await == 401).then_some(())
    })
    .await;
    assert!(made.elapsed() >= LEEWAY, "not before its leeway is over");

    // Keycloak is gone: what is known goes on, and what cannot be known is not refused for good.
    keycloak.rotate(300).await;
    let third = keycloak.token_of_tenant(0).await;
    keycloak.kill();
    let gone = Instant::now();
    while gone.elapsed() < ASK_EVERY + Duration::from_secs(2) {
        for known in [&a, &b, &second] {
            assert_eq!(proxy.status(known).await, 204);
        }
        let reply = proxy.write(&third, None).await;
        assert_eq!((reply.status, reply.retry_after_s()), (503, Some(1)), "{}", reply.text);
    }
    assert_eq!(proxy.status(&expiring).await, 401, "what is proven wrong stays wrong");
}

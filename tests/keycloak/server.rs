//! A Keycloak as a child process, with the realm of `deploy/keycloak`, and what an administrator does with it.

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap};
use http::{HeaderValue, Method};
use promdedup::stand_in::connection::{Connection, Reply};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const ADMIN: &str = "admin";
/// Of which nobody else knows, and which end with the test.
pub(crate) const SECRETS: [(&str, &str); 2] = [("team-a", "secret-of-a"), ("team-b", "secret-of-b")];
/// Half a minute, unless the machine has much else to do.
const START_MAX: Duration = Duration::from_secs(420);

/// A running Keycloak. Dropping it kills it.
pub(crate) struct Keycloak {
    child: Child,
    pub(crate) url: String,
    log: PathBuf,
}

impl Keycloak {
    /// Starts it with an empty database, and waits until the realm is there.
    pub(crate) async fn start() -> Self {
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        let server = package.join("target/keycloak/server");
        assert!(server.join("bin/kc.sh").exists(), "there is no Keycloak: run tests/keycloak/get first");
        let data = server.join("data");
        if data.exists() {
            fs::remove_dir_all(&data).expect("removed");
        }
        fs::create_dir_all(data.join("import")).expect("a folder");
        fs::copy(package.join("deploy/keycloak/realm.json"), data.join("import/realm.json")).expect("copied");
        // Given back at once. Nobody but this test asks for ports in that moment.
        let free = TcpListener::bind("127.0.0.1:0").expect("bound").local_addr().expect("an address");
        let log = data.join("log.txt");
        let (out, err) =
            (File::create(&log).expect("a log"), File::options().append(true).open(&log).expect("a log"));
        // `timeout` is there for a test that is killed itself: nobody would end the server then.
        let mut command = Command::new("timeout");
        command
            .args(["--kill-after=5", "900"])
            .arg(server.join("bin/kc.sh"))
            .args(["start", "--optimized", "--import-realm", "--http-enabled=true", "--http-host=127.0.0.1"])
            .arg("--hostname-strict=false")
            .arg(format!("--http-port={}", free.port()))
            .env("JAVA_OPTS_KC_HEAP", "-Xms64m -Xmx512m")
            // It lives for a minute or two: there is nothing to win by compiling well.
            .env("JAVA_OPTS_APPEND", "-XX:TieredStopAtLevel=1")
            .env("KC_BOOTSTRAP_ADMIN_USERNAME", ADMIN)
            .env("KC_BOOTSTRAP_ADMIN_PASSWORD", ADMIN)
            .env("PROMETHEUS_TEAM_A_SECRET", SECRETS[0].1)
            .env("PROMETHEUS_TEAM_B_SECRET", SECRETS[1].1)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .process_group(0);
        let child = command.spawn().expect("started");
        let mut keycloak = Self { child, url: format!("http://{free}"), log };
        let document = format!("{}/.well-known/openid-configuration", keycloak.issuer());
        crate::process::eventually("Keycloak is there", START_MAX, async || {
            if let Ok(Some(status)) = keycloak.child.try_wait() {
                panic!("Keycloak ended with {status}");
            }
            ask(Method::GET, &document, None, String::new(), "").await.filter(|reply| reply.status == 200)
        })
        .await;
        keycloak
    }

    /// As its tokens spell it.
    pub(crate) fn issuer(&self) -> String {
        format!("{}/realms/monitoring", self.url)
    }

    pub(crate) fn token_url(&self) -> String {
        format!("{}/protocol/openid-connect/token", self.issuer())
    }

    /// A token of a client of the realm (client credentials).
    pub(crate) async fn token(&self, client: &str, secret: &str) -> String {
        let form = format!("grant_type=client_credentials&client_id={client}&client_secret={secret}");
        token_of(&self.token_url(), form).await
    }

    /// A token of the client of a tenant in `deploy/keycloak`.
    pub(crate) async fn token_of_tenant(&self, nth: usize) -> String {
        let (tenant, secret) = SECRETS[nth];
        self.token(&format!("prometheus-{tenant}"), secret).await
    }

    /// Adds a client of the realm, whose secret is its name.
    pub(crate) async fn add_client(&self, name: &str, more: Value) {
        let mut client = json!({
            "clientId": name, "secret": name, "serviceAccountsEnabled": true, "defaultClientScopes": []
        });
        client.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        self.administer("clients", client).await;
    }

    /// From now on tokens are signed with a new key. The old one stays good.
    pub(crate) async fn rotate(&self, priority: u32) {
        let config = json!({"priority": [priority.to_string()], "enabled": ["true"], "active": ["true"], "algorithm": ["RS256"]});
        let key = json!({
            "name": format!("key-{priority}"), "providerId": "rsa-generated",
            "providerType": "org.keycloak.keys.KeyProvider", "config": config,
        });
        self.administer("components", key).await;
    }

    async fn administer(&self, what: &str, body: Value) {
        let form = format!("grant_type=password&client_id=admin-cli&username={ADMIN}&password={ADMIN}");
        let place = format!("{}/realms/master/protocol/openid-connect/token", self.url);
        let token = token_of(&place, form).await;
        let url = format!("{}/admin/realms/monitoring/{what}", self.url);
        let reply = ask(Method::POST, &url, Some(&token), body.to_string(), "application/json").await;
        let reply = reply.expect("an answer");
        assert_eq!(reply.status, 201, "{what}: {}", reply.text);
    }

    /// SIGKILL, to it and all that it started.
    pub(crate) fn kill(&mut self) {
        let group = format!("-{}", self.child.id());
        drop(Command::new("kill").args(["-s", "KILL", "--", &group]).status());
        drop(self.child.wait());
    }
}

impl Drop for Keycloak {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.kill();
        }
        if std::thread::panicking() {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            eprintln!(
                "--- end of the log of Keycloak:\n{}",
                lines[lines.len().saturating_sub(25)..].join("\n")
            );
        }
    }
}

async fn token_of(url: &str, form: String) -> String {
    let reply =
        ask(Method::POST, url, None, form, "application/x-www-form-urlencoded").await.expect("an answer");
    assert_eq!(reply.status, 200, "{}", reply.text);
    let answer: Value = serde_json::from_str(&reply.text).expect("JSON");
    answer["access_token"].as_str().expect("a token").to_owned()
}

async fn ask(method: Method, url: &str, token: Option<&str>, body: String, kind: &str) -> Option<Reply> {
    let mut headers = HeaderMap::new();
    if let Some(token) = token {
        headers.insert(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {token}")).expect("a value"));
    }
    if !kind.is_empty() {
        headers.insert(CONTENT_TYPE, HeaderValue::from_str(kind).expect("a value"));
    }
    let mut connection = Connection::to(url).expect("a URL");
    let asked = connection.exchange(method, &headers, Bytes::from(body));
    tokio::time::timeout(crate::process::PATIENCE, asked).await.ok()?.ok()
}

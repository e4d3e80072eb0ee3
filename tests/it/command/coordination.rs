//! `check` and several instances: the secret between them, and the address by which they reach this one. What it says of the database
//! is the business of `tests/postgres`.

use super::ran;
use crate::peer::{Peer, config, soon};
use crate::tls::authority::{Authority, Files};
use axum::Router;
use promdedup::app::App;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

const PASSWORD: &str = "s3cret-0f-the-database";
const TOKEN: &str = "s3cret-between-instances";

fn several(url: &str, token: &str) -> Vec<(&'static str, String)> {
    vec![
        ("PROMDEDUP_COORDINATION_URL", format!("postgres://promdedup:{PASSWORD}@127.0.0.1:1/groups")),
        ("PROMDEDUP_ADVERTISE_URL", url.to_owned()),
        ("PROMDEDUP_PEER_TOKEN_FILE", token.to_owned()),
    ]
}

/// What it says of several instances: of the secret, the database, and the advertised address.
async fn check(environment: Vec<(&'static str, String)>) -> Vec<String> {
    let upstream = Peer::start(200, "").await;
    let ran = spawn_blocking(move || {
        let url = upstream.url();
        let mut all = vec![("PROMDEDUP_UPSTREAM_URL", url.as_str())];
        all.extend(environment.iter().map(|(name, value)| (*name, value.as_str())));
        ran(&["check"], &all)
    });
    let (code, stdout, stderr) = soon(ran).await.expect("no panic");
    assert_eq!(code, Some(1), "there is no database: {stdout}");
    for secret in [PASSWORD, TOKEN] {
        assert!(!format!("{stdout}{stderr}").contains(secret), "{stdout}{stderr}");
    }
    let words = ["secret between instances", "coordination database", "advertised address"];
    let of_instances = |line: &&str| words.iter().any(|words| line.starts_with(words));
    stdout.lines().filter(of_instances).map(str::to_owned).collect()
}

/// The last line, which is that of the advertised address.
async fn advertised(url: &str, token: &str) -> String {
    check(several(url, token)).await.pop().expect("a line")
}

#[tokio::test]
async fn the_secret_the_database_and_the_address_have_lines() {
    let files = Files::new();
    let token = files.put("token", format!("{TOKEN}\nanother-{TOKEN}\n"));
    let nobody = TcpListener::bind("127.0.0.1:0").await.expect("bound").local_addr().expect("an address");
    let lines = check(several(&format!("http://{nobody}"), &token)).await;
    let [secret, database, warning, address] = &lines[..] else { panic!("{lines:#?}") };
    assert_eq!(*secret, format!("secret between instances {token}: ok, 2 token(s)"));
    assert!(database.starts_with("coordination database 127.0.0.1:1/groups: failed, "), "{database}");
    assert!(warning.contains(": warning, a loopback address"), "{warning}");
    assert_eq!(
        *address,
        format!(
            "advertised address http://{nobody}: ok, nobody listens there, which is right while this instance does not run"
        )
    );
}

#[tokio::test]
async fn of_several_hosts_each_has_a_line() {
    let files = Files::new();
    let token = files.put("token", TOKEN);
    let mut environment = several("http://127.0.0.1:1", &token);
    environment[0].1 = format!("postgres://promdedup:{PASSWORD}@127.0.0.1:1,127.0.0.1:2/groups");
    let upstream = Peer::start(200, "").await.url();
    environment.push(("PROMDEDUP_UPSTREAM_URL", upstream));
    let ran = spawn_blocking(move || {
        ran(&["check"], &environment.iter().map(|(name, value)| (*name, value.as_str())).collect::<Vec<_>>())
    });
    let (_, stdout, _) = soon(ran).await.expect("no panic");
    assert!(stdout.contains("warning, several hosts, and no target_session_attrs=read-write"), "{stdout}");
    for host in ["its host 127.0.0.1:1/groups: warning, ", "its host 127.0.0.1:2/groups: warning, "] {
        assert!(stdout.lines().any(|line| line.starts_with(host)), "{host}: {stdout}");
    }
    assert!(!stdout.contains(PASSWORD), "{stdout}");
}

#[tokio::test]
async fn an_address_that_leads_nowhere_or_to_somebody_else_fails() {
    let files = Files::new();
    let token = files.put("token", TOKEN);
    let line = advertised("http://nobody.invalid:19290", &token).await;
    assert!(line.contains(": failed, its host ") && line.contains("resolved"), "{line}");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let other = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, Router::new()).await.expect("served") });
    let line = advertised(&format!("http://{other}"), &token).await;
    assert!(
        line.contains(": failed, what answers there is no instance that shares groups out: 404"),
        "{line}"
    );
    let line = advertised(&format!("https://{other}"), &token).await;
    assert!(line.contains(": failed, ") && !line.contains(": 404"), "it speaks no TLS: {line}");
}

#[tokio::test]
async fn an_instance_that_runs_there_has_to_take_the_secret() {
    let files = Files::new();
    let (token, wrong) = (files.put("token", TOKEN), files.put("wrong", "another-one-of-theirs"));
    let upstream = Peer::start(200, "").await;
    let given = several("http://10.0.0.7:19290", &token);
    let given: Vec<_> = given.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let app = App::build(config(&upstream.url(), &given)).expect("built");
    let url = format!("http://{}", app.addresses().data);
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(app.run(async { drop(stopped.await) }));
    let line = advertised(&url, &token).await;
    assert!(line.ends_with(": ok, an instance answers there, and takes the secret"), "{line}");
    let line = advertised(&url, &wrong).await;
    assert!(line.ends_with(": failed, whoever answers there does not take the secret: 401"), "{line}");
    drop(stop);
    running.await.expect("no panic").expect("drained");
}

#[tokio::test]
async fn an_address_without_tls_of_an_instance_with_it_is_warned_of() {
    let files = Files::new();
    let token = files.put("token", TOKEN);
    let pair = Authority::new().signs("localhost");
    let (certificate, key) = (files.put("crt", pair.certificate), files.put("key", pair.key));
    let mut environment = several("http://127.0.0.1:1", &token);
    environment.extend([("PROMDEDUP_TLS_CERT_FILE", certificate), ("PROMDEDUP_TLS_KEY_FILE", key)]);
    let lines = check(environment).await;
    assert!(
        lines.iter().any(|line| line.contains(": warning, http://, and this instance speaks TLS")),
        "{lines:#?}"
    );
}

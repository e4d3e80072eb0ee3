//! Several instances of the real program behind a real nginx, and placement by a real PostgreSQL, which is started for it: the rules
//! that the stand-in keeps, migrations and claims of many at once, news, TLS, and a database that goes away and comes back.
//! `cargo test --features postgres --test postgres`.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test says what it sees, and fails"
)]

mod binary;
mod nginx;
#[path = "../real/process.rs"]
mod process;
mod relay;
#[path = "../placement/rules.rs"]
mod rules;
mod server;
mod several;

use promdedup::config::{Config, Database};
use promdedup::placement::store::{EXPIRY, News, Store, StoreError};
use promdedup::placement::{
    GroupId, Keeper, Memory, Metrics, Peer, Placement, Postgres, Role, Whose, look, role,
};
use promdedup::series::GroupKey;
use prometheus::Registry;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rules::{World, group, peer};
use server::{PASSWORD, Server};
use std::collections::HashSet;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;
use tempfile::NamedTempFile;
use tokio::time::{Instant, sleep};

const PATIENCE: Duration = Duration::from_secs(30);

/// As the configuration has it.
fn database(url: &str, more: &[(&str, &str)]) -> Database {
    let mut token = NamedTempFile::new().expect("a file");
    token.write_all(b"a-secret-of-instances").expect("written");
    let path = token.path().to_str().expect("a path");
    let pairs = [
        ("PROMDEDUP_UPSTREAM_URL", "http://127.0.0.1:1/"),
        ("PROMDEDUP_COORDINATION_URL", url),
        ("PROMDEDUP_ADVERTISE_URL", "http://127.0.0.1:19290"),
        ("PROMDEDUP_PEER_TOKEN_FILE", path),
    ];
    let config = Config::from_pairs(pairs.into_iter().chain(more.iter().copied())).expect("valid");
    config.coordination.expect("given").database
}

fn store(url: &str, name: &str) -> Postgres {
    Postgres::start(&database(url, &[]), peer(name))
}

async fn eventually(what: &str, mut look: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !look().await {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// A database of the server. Time passes by making all that is in it older.
struct Real<'a> {
    server: &'a Server,
    name: &'static str,
}

impl<'a> Real<'a> {
    async fn new(server: &'a Server, name: &'static str) -> Self {
        server.database(name).await;
        Self { server, name }
    }
}

impl World for Real<'_> {
    fn store(&self, me: &Peer) -> Arc<dyn Store> {
        Arc::new(Postgres::start(&database(&self.server.url(self.name), &[]), me.clone()))
    }

    async fn pass(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let older = format!(
            "UPDATE promdedup_instances SET heartbeat = heartbeat - make_interval(secs => {seconds});
             UPDATE promdedup_groups SET since = since - make_interval(secs => {seconds})"
        );
        self.server.ask(self.name, &older).await;
    }
}

#[tokio::test]
async fn postgresql_keeps_the_rules() {
    let server = Server::start().await;
    rules::heartbeats(&Real::new(&server, "heartbeats").await).await;
    rules::claims(&Real::new(&server, "claims").await).await;
    rules::takeovers(&Real::new(&server, "takeovers").await).await;
    rules::gifts(&Real::new(&server, "gifts").await).await;
    rules::leaving(&Real::new(&server, "leaving").await).await;
    rules::changes(&Real::new(&server, "changes").await).await;
    rules::news(&Real::new(&server, "news").await).await;
    rules::tidying(&Real::new(&server, "tidying").await).await;
}

#[tokio::test]
async fn many_that_start_and_claim_at_once_agree() {
    let server = Server::start().await;
    let url = server.database("race").await;
    let stores: Vec<_> = (0..8).map(|number| Arc::new(store(&url, &format!("i{number}")))).collect();
    let groups: Vec<_> = (0..50).map(group).collect();
    let mut racing = Vec::new();
    for (place, store) in stores.iter().enumerate() {
        let (store, mut groups) = (Arc::clone(store), groups.clone());
        // Each in another order.
        groups.rotate_left(place * 6);
        if place % 2 == 1 {
            groups.reverse();
        }
        racing.push(tokio::spawn(async move {
            store.heartbeat(0.0, false).await.expect("the tables are there, whoever made them");
            // A race that takes longer than a heartbeat lives is no other race.
            let beating = Arc::clone(&store);
            let beats = tokio::spawn(async move {
                loop {
                    sleep(Duration::from_secs(2)).await;
                    beating.heartbeat(0.0, false).await.expect("answered");
                }
            });
            let mut told = Vec::new();
            // One at a time, and all at once.
            for some in groups.chunks(if place < 4 { 1 } else { 50 }) {
                let mut left = some.to_vec();
                while !left.is_empty() {
                    let claimed = store.claim(&left, EXPIRY).await.expect("answered");
                    left.retain(|group| claimed.iter().all(|claimed| claimed.key != group.key));
                    told.extend(claimed);
                }
            }
            (told, beats)
        }));
    }
    let mut told = Vec::new();
    let mut beating = Vec::new();
    for each in racing {
        let (of_one, beats) = each.await.expect("no panic");
        told.extend(of_one);
        beating.push(beats);
    }
    beating.iter().for_each(tokio::task::JoinHandle::abort);
    assert_eq!(told.len(), 8 * 50);
    for number in 0..50 {
        let of = || told.iter().filter(|claimed| claimed.key == GroupKey(number));
        let owners: HashSet<_> = of().map(|claimed| Arc::clone(&claimed.owner.id)).collect();
        assert_eq!(owners.len(), 1, "group {number}: {owners:?}");
        assert_eq!(of().filter(|claimed| claimed.newly).count(), 1, "group {number} was taken once");
        assert!(of().all(|claimed| claimed.epoch == 1));
    }
}

#[tokio::test]
async fn news_come_at_once() {
    let server = Server::start().await;
    let url = server.database("news").await;
    let (a, b) = (store(&url, "a"), store(&url, "b"));
    for each in [&a, &b] {
        each.heartbeat(0.0, false).await.expect("answered");
    }
    assert_eq!(b.news().await, News::Missed);
    a.claim(&[group(1)], EXPIRY).await.expect("answered");
    let asked = Instant::now();
    a.leave().await.expect("answered");
    assert_eq!(b.news().await, News::Left(peer("a").id));
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
}

/// A memory of nothing.
struct Nothing;

impl Memory for Nothing {
    fn is_needed(&self, _: GroupKey) -> bool {
        false
    }

    fn forget(&self, _: GroupKey) {}
}

/// A keeper with the real database.
async fn keeper(url: &str, name: &str) -> (Arc<Keeper>, Registry) {
    let registry = Registry::new();
    let metrics = Metrics::register(&registry).expect("registered");
    let keeper = Keeper::new(peer(name), Arc::new(store(url, name)), metrics, 1, Arc::new(Nothing));
    tokio::spawn(Arc::clone(&keeper).run());
    (keeper, registry)
}

fn metric(registry: &Registry, name: &str) -> f64 {
    let family = registry.gather().into_iter().find(|family| family.name() == name).expect("there");
    let metric = &family.get_metric()[0];
    metric.get_counter().get_value() + metric.get_gauge().get_value()
}

#[tokio::test]
async fn a_database_that_dies_is_missed_by_nobody_and_comes_back() {
    let mut server = Server::start().await;
    let url = server.database("away").await;
    let ((a, registry), (b, _)) = (keeper(&url, "a").await, keeper(&url, "b").await);
    assert!(matches!(a.ask(&group(1)).await, Whose::Mine(_)));
    assert!(matches!(b.ask(&group(1)).await, Whose::Theirs(owner) if owner == peer("a")));
    server.kill();
    let up = async || metric(&registry, "promdedup_placement_database_up") > 0.0;
    eventually("it is noticed", async || !up().await).await;
    assert!(matches!(a.known(GroupKey(1)), Some(Whose::Mine(_))));
    assert!(matches!(b.known(GroupKey(1)), Some(Whose::Theirs(_))));
    for each in [&a, &b] {
        assert!(matches!(each.ask(&group(2)).await, Whose::Mine(_)), "served where it comes");
    }
    server.go().await;
    eventually("one of the two has it", async || {
        let mine = |keeper: &Keeper| matches!(keeper.known(GroupKey(2)), Some(Whose::Mine(_)));
        up().await && mine(&a) != mine(&b)
    })
    .await;
    assert!(matches!(a.known(GroupKey(1)), Some(Whose::Mine(_))), "that one is where it was");
    a.leave(Duration::from_secs(1)).await;
    eventually("b hears that a has left", async || matches!(b.ask(&group(1)).await, Whose::Mine(_))).await;
}

#[tokio::test]
async fn a_database_that_hangs_holds_nobody_up() {
    let server = Server::start().await;
    let url = server.database("hang").await;
    let (a, registry) = keeper(&url, "a").await;
    assert!(matches!(a.ask(&group(1)).await, Whose::Mine(_)));
    server.stop();
    let asked = Instant::now();
    assert!(matches!(a.ask(&group(2)).await, Whose::Mine(_)));
    assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
    let asked = Instant::now();
    assert!(matches!(a.known(GroupKey(1)), Some(Whose::Mine(_))));
    assert!(asked.elapsed() < Duration::from_millis(100), "what is known does not wait");
    server.go_on();
    eventually("it answers again", async || metric(&registry, "promdedup_placement_database_up") > 0.0).await;
}

/// A statement that others are in the way of costs its own answer at most: neither the connection, nor what is queued behind it.
#[tokio::test]
async fn a_claim_that_waits_for_a_lock_holds_up_no_heartbeat_and_one_in_conflict_is_asked_again() {
    let server = Server::start().await;
    let url = server.database("locked").await;
    let (a, b) = (store(&url, "a"), store(&url, "b"));
    for each in [&a, &b] {
        each.heartbeat(0.0, false).await.expect("answered");
    }
    a.claim(&[group(1)], EXPIRY).await.expect("answered");
    a.leave().await.expect("answered");
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.expect("connected");
    let driven = tokio::spawn(connection);
    client.batch_execute("BEGIN; SELECT FROM promdedup_groups FOR UPDATE").await.expect("locked");
    let (one, two) = ([group(1)], [group(2)]);
    let (claimed, beat) = tokio::join!(b.claim(&one, EXPIRY), async {
        sleep(Duration::from_millis(100)).await;
        b.heartbeat(0.0, false).await
    });
    let told = claimed.expect_err("somebody has it locked").to_string();
    assert!(told.contains("57014"), "{told}");
    beat.expect("it was only queued");
    client.batch_execute("ROLLBACK").await.expect("unlocked");
    assert!(b.claim(&one, EXPIRY).await.expect("answered")[0].newly);
    // A sequence counts although its statement is undone.
    let conflict = "CREATE SEQUENCE tries;
        CREATE FUNCTION conflict() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF nextval('tries') % 2 = 1 THEN RAISE EXCEPTION 'two at once' USING ERRCODE = '40001'; END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER conflict BEFORE INSERT ON promdedup_groups FOR EACH ROW EXECUTE FUNCTION conflict()";
    client.batch_execute(conflict).await.expect("made");
    assert!(b.claim(&two, EXPIRY).await.expect("asked once more")[0].newly);
    driven.abort();
}

#[tokio::test]
async fn of_several_hosts_the_one_that_can_be_written_to_is_used() {
    let server = Server::start().await;
    server.database("several").await;
    server.database("frozen").await;
    server.ask("postgres", "ALTER DATABASE frozen SET default_transaction_read_only = on").await;
    let nobody =
        std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("a port").port();
    let url = format!(
        "postgres://promdedup:{PASSWORD}@127.0.0.1:{nobody},127.0.0.1:{}/several?target_session_attrs=read-write",
        server.port
    );
    let several = store(&url, "a");
    several.heartbeat(0.0, false).await.expect("the second host answers");
    let frozen = format!("{}?target_session_attrs=read-write", server.url("frozen"));
    assert!(store(&frozen, "a").heartbeat(0.0, false).await.is_err(), "there is none to write to");
    let told = look(&database(&server.url("frozen"), &[])).await.expect_err("read-only");
    assert!(told.contains("read-only") && told.contains("target_session_attrs"), "{told}");
    assert_eq!(role(&database(&server.url("frozen"), &[])).await, Ok(Role::ReadOnly));
    let hosts = database(&url, &[]).hosts();
    assert!(role(&hosts[0]).await.expect_err("nobody").contains("cannot be reached"));
    assert_eq!(role(&hosts[1]).await, Ok(Role::Primary), "with user and password of all");
}

/// What a database of another encoding does not have characters for, cannot be claimed.
#[tokio::test]
async fn another_encoding_is_warned_of_for_a_reason() {
    let server = Server::start().await;
    server.ask("postgres", "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0").await;
    let url = server.url("latin");
    let told = look(&database(&url, &[])).await.expect("it could be used");
    let [warning] = &told.warnings[..] else { panic!("{told:?}") };
    assert!(warning.contains("its encoding is LATIN1") && warning.contains("ENCODING 'UTF8'"), "{warning}");
    let store = store(&url, "a");
    store.heartbeat(0.0, false).await.expect("answered");
    store.claim(&[group(1)], EXPIRY).await.expect("it has these");
    let far = GroupId { name: "\u{6771}\u{4eac}".to_owned(), ..group(2) };
    let refused = store
        .claim(&[far, group(3)], EXPIRY)
        .await
        .expect_err("it has not these, and the other one goes with them");
    assert!(matches!(&refused, StoreError::Refused(text) if text.contains("LATIN1")), "{refused}");
}

#[tokio::test]
async fn its_certificate_is_verified_where_that_is_asked_for() {
    let mut server = Server::start().await;
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    server.show(&cert.pem(), &signing_key.serialize_pem());
    server.kill();
    server.go().await;
    server.database("tls").await;
    let mut authority = NamedTempFile::new().expect("a file");
    authority.write_all(cert.pem().as_bytes()).expect("written");
    let own = [("PROMDEDUP_COORDINATION_CA_FILE", authority.path().to_str().expect("a path"))];
    let named = |host: &str, query: &str| {
        format!("postgres://promdedup:{PASSWORD}@{host}:{}/tls{query}", server.port)
    };
    let works = async |url: &str, more: &[(&str, &str)]| {
        let store = Postgres::start(&database(url, more), peer("a"));
        store.heartbeat(0.0, false).await.map(|_| ())
    };
    works(&named("localhost", "?sslmode=verify-full"), &own).await.expect("signed, and of that name");
    works(&named("localhost", ""), &own).await.expect("the same");
    let refused = |answer: Result<(), StoreError>| {
        let told = answer.expect_err("not verified").to_string();
        assert!(told.contains("certificate") && !told.contains(PASSWORD), "{told}");
    };
    refused(works(&named("127.0.0.1", "?sslmode=require"), &own).await);
    refused(works(&named("localhost", "?sslmode=require"), &[]).await);
    works(&named("localhost", ""), &[]).await.expect("preferred, which promises nothing");
    works(&named("localhost", "?sslmode=disable"), &[]).await.expect("in clear text");
}

#[tokio::test]
async fn check_says_what_there_is() {
    let server = Server::start().await;
    let url = server.database("looked_at").await;
    let told = look(&database(&url, &[])).await.expect("well");
    assert!(told.found.starts_with("PostgreSQL ") && told.found.contains("no tables yet"), "{told:?}");
    store(&url, "a").heartbeat(0.0, false).await.expect("answered");
    let told = look(&database(&url, &[])).await.expect("well");
    assert!(told.found.contains("tables of version 1, 1 instance(s) alive"), "{told:?}");
    assert_eq!(told.warnings, Vec::<String>::new());
    server
        .ask(
            "looked_at",
            "CREATE USER guest PASSWORD 'guest-0f-the-t3st'; REVOKE CREATE ON SCHEMA public FROM PUBLIC",
        )
        .await;
    let guest =
        |database: &str| format!("postgres://guest:guest-0f-the-t3st@127.0.0.1:{}/{database}", server.port);
    let told = look(&database(&guest("looked_at"), &[])).await.expect_err("may not");
    assert!(told.contains("may not"), "{told}");
    let told = look(&database(&guest("postgres"), &[])).await.expect_err("may not create them");
    assert!(told.contains("may not create"), "{told}");
    let wrong = url.replace(PASSWORD, "wr0ng-0f-the-t3st");
    let told = look(&database(&wrong, &[])).await.expect_err("wrong password");
    assert!(told.contains("password authentication failed") && !told.contains("wr0ng"), "{told}");
}

//! Who has which group, as the status and the page tell it; and what they never tell.

use super::{Running, start};
use crate::peer::{Line, Peer, soon};
use crate::support::{Ts, body, pack};
use crate::tls::authority::Files;
use serde_json::Value;
use std::collections::BTreeSet;

const PASSWORD: &str = "s3cret-0f-the-database";
const TOKEN: &str = "s3cret-between-instances";

impl Running {
    async fn page(&self, path: &str) -> String {
        let heard = Line::open(self.at.admin).await.get(path, "").await;
        assert_eq!(heard.status, 200, "{path}");
        heard.text
    }

    async fn status(&self) -> Value {
        serde_json::from_str(&self.page("/api/v1/status").await).expect("JSON")
    }
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

/// One of several instances, whose database is not there.
async fn one_of_several(url: &str, files: &Files) -> Running {
    let token = files.put("token", format!("{TOKEN}\n"));
    // Nobody listens there.
    let database = format!("postgres://promdedup:{PASSWORD}@127.0.0.1:1/groups?password={PASSWORD}");
    let more = [
        ("PROMDEDUP_COORDINATION_URL", database.as_str()),
        ("PROMDEDUP_ADVERTISE_URL", "http://10.0.0.7:19290"),
        ("PROMDEDUP_PEER_TOKEN_FILE", &token),
        ("PROMDEDUP_FIRST_CONTACT_HOLD", "0s"),
    ];
    start(url, &more).await
}

async fn write(running: &Running, headers: &str, cluster: &str) -> u16 {
    let series = Ts::raw(&[("__name__", "m"), ("cluster", cluster), ("job", "j")]).replica("a").at(1);
    let mut line = Line::open(running.at.data).await;
    let headers = format!(
        "content-type: application/x-protobuf\r\ncontent-encoding: snappy\r\nthanos-tenant: acme\r\n{headers}"
    );
    line.post("/api/v1/receive", &headers, &pack(&body(&[series], 0))).await;
    line.hear().await.status
}

#[tokio::test]
async fn the_status_tells_who_has_which_group() {
    let (peer, files) = (Peer::start(200, "").await, Files::new());
    let running = one_of_several(&peer.url(), &files).await;
    soon(async { while running.status().await["placement"]["database"]["up"] != false {} }).await;
    assert_eq!(write(&running, "", "<i>one").await, 204, "served without the database");
    assert_eq!(write(&running, &format!("promdedup-peer: {TOKEN}\r\n"), "two").await, 204);
    let status = running.status().await;
    let placement = &status["placement"];
    let expected = [
        "changes",
        "database",
        "groups",
        "groups_left_out",
        "hops",
        "instance",
        "other_instances",
        "other_instances_left_out",
    ];
    assert_eq!(keys(placement), BTreeSet::from(expected));
    assert_eq!(placement["instance"]["url"], "http://10.0.0.7:19290");
    assert_eq!(placement["instance"]["id"].as_str().expect("a text").len(), 16);
    let database = &placement["database"];
    assert_eq!(database["name"], "127.0.0.1:1/groups");
    assert_eq!((&database["up"], &database["heartbeat_age_seconds"]), (&Value::Bool(false), &Value::Null));
    assert!(database["up_or_down_seconds"].as_f64().is_some_and(|seconds| seconds >= 0.0), "{database}");
    assert!(
        database["error"].as_str().is_some_and(|error| error.contains("cannot be reached")),
        "{database}"
    );
    assert!(database["statement_errors"].as_f64() >= Some(1.0), "{database}");
    let groups = placement["groups"].as_array().expect("a list");
    let names: BTreeSet<_> = groups.iter().map(|group| group["group"].as_str().expect("a name")).collect();
    assert_eq!(names, BTreeSet::from(["<i>one", "two"]));
    let expected = ["epoch", "group", "held_seconds", "holding", "samples_per_second", "tenant"];
    for group in groups {
        assert_eq!(keys(group), BTreeSet::from(expected));
        assert_eq!((&group["tenant"], &group["holding"]), (&"acme".into(), &"unconfirmed".into()), "{group}");
        assert_eq!(group["epoch"], 0, "nobody has said one");
    }
    assert_eq!(placement["hops"]["received"].as_f64(), Some(1.0));
    let page = running.page("/").await;
    for words in
        ["Several instances", "http://10.0.0.7:19290", "&lt;i&gt;one", "has not answered for", "unconfirmed"]
    {
        assert!(page.contains(words), "{words} is not in {page}");
    }
    assert!(!page.contains("<i>one"), "it is escaped");
}

#[tokio::test]
async fn no_secret_of_several_instances_is_shown() {
    let (peer, files) = (Peer::start(200, "").await, Files::new());
    let running = one_of_several(&peer.url(), &files).await;
    soon(async { while running.status().await["placement"]["database"]["error"].is_null() {} }).await;
    for path in ["/", "/api/v1/status", "/metrics"] {
        let text = running.page(path).await;
        assert!(text.contains("database"), "{path} tells of it");
        for secret in [PASSWORD, TOKEN, "s3cret", "promdedup:"] {
            assert!(!text.contains(secret), "{secret} is in {path}");
        }
    }
}

#[tokio::test]
async fn one_instance_tells_of_no_placement() {
    let peer = Peer::start(200, "").await;
    let running = start(&peer.url(), &[]).await;
    let status = running.status().await;
    let expected = [
        "bytes",
        "groups",
        "limits_hit",
        "mode",
        "overhead",
        "ready",
        "refusals",
        "samples",
        "unready_because",
        "upstream",
        "uptime_seconds",
        "version",
        "warnings",
        "window",
    ];
    assert_eq!(keys(&status), BTreeSet::from(expected));
    assert!(!running.page("/").await.contains("Several instances"));
    assert!(!running.page("/metrics").await.contains("promdedup_placement"));
}

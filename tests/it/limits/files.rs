//! File descriptors: connections of senders must not use up what the admin listener and the upstream need.

use super::hit;
use crate::command::promdedup;
use crate::peer::{Line, Peer, soon};
use crate::serving::Serving;
use std::process::Command;

/// The binary with a hard bound of that many open files.
fn bounded(files: u32, environment: &[(&str, &str)]) -> Command {
    let binary = promdedup(&[], environment).get_program().to_owned();
    let mut command = Command::new("sh");
    command.env_clear().envs(environment.iter().copied());
    let script = format!("ulimit -S -n {} && ulimit -H -n {files} && exec \"$0\" serve", files / 2);
    command.arg("-c").arg(script).arg(binary);
    command
}

#[tokio::test]
async fn file_descriptors_are_left_for_the_admin_listener_and_the_upstream() {
    let peer = Peer::start(200, "").await;
    let url = peer.url();
    let more = [("PROMDEDUP_UPSTREAM_URL", url.as_str()), ("PROMDEDUP_WORKERS", "1")];
    let mut serving = Serving::start_as(|environment| bounded(400, environment), &more).await;
    // 400, less 128 for the upstream and 192 for the rest; the soft bound was raised.
    serving.logs("WARN", "file descriptors allow fewer connections").await;
    assert_eq!(serving.log.last().expect("a line")["connections_max"], 80);
    let mut lines = Vec::new();
    for _ in 0..500 {
        lines.push(Line::open(serving.address).await);
    }
    let mut open = Vec::new();
    for mut line in lines {
        line.try_say("POST /api/v1/receive HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n\0").await;
        if line.hears().await.is_some_and(|heard| heard.status == 204) {
            open.push(line);
        }
    }
    assert_eq!(open.len(), 80, "as many as there are places");
    let metrics = soon(async { Line::open(serving.admin).await.get("/metrics", "").await }).await.text;
    assert!(metrics.lines().any(|line| line == hit("connections", 420)), "{metrics}");
    // Whoever is in is served to the upstream and back.
    let body = promdedup::stand_in::request::Body::new().series(&[("__name__", "m")], &[(1, 1.0)]);
    open[0].post("/api/v1/receive", "content-encoding: snappy\r\n", &body.compressed()).await;
    assert_eq!(open[0].hear().await.status, 204);
    crate::command::terminate(&serving.child);
    soon(serving.ended()).await;
    assert!(!serving.log.iter().any(|line| line["message"] == "cannot accept a connection"));
}

//! A flood of log lines of one kind is a few lines.

use crate::peer::{Line, soon};
use crate::serving::Serving;
use crate::tls::authority::Files;
use std::process::Command;

#[tokio::test]
async fn many_lines_of_one_kind_are_a_few_and_counted() {
    let files = Files::new();
    let tokens = files.put("tokens", "t0ken\n");
    let mut serving = Serving::start(&[
        ("PROMDEDUP_UPSTREAM_URL", "http://127.0.0.1:1/"),
        ("PROMDEDUP_AUTH_BEARER_FILE", &tokens),
    ])
    .await;
    // Before that, the signal would end it.
    soon(async { while Line::open(serving.admin).await.get("/-/ready", "").await.status != 200 {} }).await;
    // Each has its file read again, and says so.
    let pid = serving.child.id().to_string();
    let left_out = async |metrics: String| {
        let name = "promdedup_limit_hit_total{limit=\"log_lines\"} ";
        metrics.lines().find_map(|line| line.strip_prefix(name)?.parse::<u64>().ok()).expect("a count")
    };
    soon(async {
        loop {
            assert!(Command::new("kill").args(["-HUP", &pid]).status().expect("kill").success());
            let metrics = Line::open(serving.admin).await.get("/metrics", "").await.text;
            if left_out(metrics).await >= 3 {
                return;
            }
        }
    })
    .await;
    crate::command::terminate(&serving.child);
    soon(serving.ended()).await;
    let written = serving.log.iter().filter(|line| line["message"] == "read again").count();
    assert!((1..=20).contains(&written), "{written} lines of one kind: {:?}", serving.log);
    assert!(serving.log.iter().any(|line| line["message"] == "drained"), "others are written");
}

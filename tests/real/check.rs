//! `check` beside real Prometheis: what they say of their configuration is understood.

use crate::prometheus::Prometheus;
use promdedup::stand_in::thanos::Thanos;
use std::process::Command;
use tokio::task::spawn_blocking;

fn configuration(replica: &str, zone: &str) -> String {
    format!(
        "global:
  external_labels: {{prometheus: monitoring/k8s, prometheus_replica: {replica}, shard: '007', zone: {zone}}}
remote_write:
- url: http://127.0.0.1:1/api/v1/receive
  write_relabel_configs:
  - {{regex: prometheus_re.+, action: labeldrop}}
"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_understands_the_configuration_of_a_real_prometheus() {
    let thanos = Thanos::start().await.expect("started");
    let a = Prometheus::start("a", &configuration("k8s-0", "x"), &[]).await;
    let b = Prometheus::start("b", &configuration("k8s-1", "y"), &[]).await;
    let (upstream, urls) = (thanos.url(), format!("{},{}", a.url(""), b.url("")));
    let mut command = Command::new(env!("CARGO_BIN_EXE_promdedup"));
    command.args(["check", "--prometheus-url", &urls]).env_clear().env("PROMDEDUP_UPSTREAM_URL", upstream);
    let output = spawn_blocking(move || command.output()).await.expect("no panic").expect("runs");
    let stdout = String::from_utf8(output.stdout).expect("UTF-8");
    for words in [
        r#"ok, external labels {prometheus="monitoring/k8s", prometheus_replica="k8s-0", shard="007", zone="x"}"#,
        r#"warning, its labeldrop "prometheus_re.+" takes the replica label prometheus_replica away"#,
        r#"group "monitoring/k8s": warning, external labels differ in zone:"#,
        "ok, took an empty remote write",
    ] {
        assert!(stdout.contains(words), "{words} is not in:\n{stdout}");
    }
    // Its defaults are none of them odd.
    assert_eq!(stdout.matches(": warning, ").count(), 3, "{stdout}");
    assert_eq!(output.status.code(), Some(0), "{stdout}");
}

//! A rolling restart: two instances behind a real nginx, two groups of real replicas, and one instance after the other ends and starts
//! again. The senders are to lose nothing, and to see no failure that they do not get over by themselves.

use crate::nginx::{GROUP_HEADER, Nginx};
use crate::process::{PATIENCE, eventually};
use crate::prometheus::Prometheus;
use crate::proxy::Proxy;
use crate::sheet::Senders;
use crate::targets::{Kind, Target};
use crate::upstream::Upstream;
use crate::verdict::{Evidence, Series};
use promdedup::stand_in::{Labels, now_ms};
use std::fmt::Write as _;
use std::time::Instant;

const INTERVAL_MS: i64 = 2_000;
const GROUPS: [&str; 2] = ["monitoring/main", "monitoring/edge"];
const REPLICAS: [&str; 2] = ["a", "b"];
/// A group changes its instance four times, and each time the new one knows nothing of it: two intervals may have been held by the
/// one before, and a sender that was told to come again pauses up to 5 s.
const HOLE_MAX: f64 = 6.0;
/// Of an instance, longer than nginx takes an instance that was away for gone, so that both are in use again.
const INTERVALS_BETWEEN: i64 = 6;

struct Stage {
    replicas: Vec<(&'static str, Prometheus)>,
    upstream: Upstream,
    target: Target,
    began: Instant,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_behind_nginx_are_restarted_one_after_the_other() {
    let upstream = Upstream::thanos().await;
    // As behind any load balancer: it is to have looked elsewhere before the listener goes.
    const LEAD: &[(&str, &str)] = &[("PROMDEDUP_DRAIN_LEAD", "1s")];
    let mut proxies = [Proxy::start(&upstream.url(), LEAD).await, Proxy::start(&upstream.url(), LEAD).await];
    let nginx = Nginx::before(proxies.each_ref().map(Proxy::address)).await;
    let target = Target::start("node", Kind::Node, 2).await;
    let mut replicas = Vec::new();
    for group in GROUPS {
        for replica in REPLICAS {
            let configuration = configuration(group, replica, &target, &nginx.url());
            replicas.push((group, Prometheus::start(replica, &configuration, &[]).await));
        }
    }
    let mut stage = Stage { replicas, upstream, target, began: Instant::now() };
    stage.settle(3).await;
    let received = [proxies[0].received().await, proxies[1].received().await];
    stage.say(&format!("all deliver, {received:?} samples through the two instances"));
    for number in [0, 1] {
        proxies[number].terminate().await;
        stage.say(&format!("instance {number} has ended"));
        stage.settle(2).await;
        proxies[number].restart().await;
        stage.say(&format!("instance {number} is back"));
        stage.settle(INTERVALS_BETWEEN).await;
    }
    stage.judge(&proxies, &nginx).await;
}

impl Stage {
    /// Waits until upstream has of both groups what is scraped so many intervals from now.
    async fn settle(&self, intervals: i64) {
        let wanted_ms = now_ms() + intervals * INTERVAL_MS;
        let instance = self.target.address.to_string();
        for group in GROUPS {
            let probe = Labels::new([
                ("__name__", "node_load"),
                ("minutes", "0"),
                ("job", "node"),
                ("instance", &instance),
                ("prometheus", group),
            ]);
            let arrived = async || self.upstream.newest_ms(&probe).await.filter(|at_ms| *at_ms >= wanted_ms);
            eventually("the stream goes on", PATIENCE, arrived).await;
        }
    }

    fn say(&self, what: &str) {
        println!("{:>6.1} s, a rolling restart: {what}", self.began.elapsed().as_secs_f64());
    }

    async fn judge(&mut self, proxies: &[Proxy], nginx: &Nginx) {
        let mut senders = Senders::default();
        for (_, replica) in &self.replicas {
            eventually("everything is delivered", 2 * PATIENCE, async || {
                let pending = replica.metrics().await.sum("prometheus_remote_storage_samples_pending", &[]);
                (pending == 0.0).then_some(())
            })
            .await;
        }
        self.settle(2).await;
        let looked_ms = now_ms();
        let stored = self.upstream.stored().await;
        let mut own = Vec::new();
        for (group, replica) in &self.replicas {
            own.push(as_sent(replica.samples().await, group));
            senders = senders.and(Senders::of(replica).await);
        }
        // A new instance may take a target over in pieces.
        let split_ms = vec![0..=i64::MAX];
        let evidence = Evidence { stored, own, split_ms, hole_max: HOLE_MAX, looked_ms };
        let findings = evidence.findings(|_| INTERVAL_MS);
        let retried = senders.retried();
        self.say(&format!(
            "{} series, {} samples judged, {:.2} for each expected one, {retried} sent again, widest hole {:.2} intervals",
            findings.series,
            findings.samples,
            findings.density(),
            findings.widest_hole.intervals
        ));
        let mut problems = findings.problems;
        // An instance that has just met a group knows of no interval yet, and may forward some samples of both replicas.
        problems.retain(|problem| !problem.starts_with("density"));
        problems.extend(senders.problems());
        problems.extend(proxies.iter().flat_map(Proxy::complaints));
        assert!(problems.is_empty(), "{problems:#?}\nnginx: {}", nginx.log());
    }
}

/// What a replica stored, as it sends it, but for the replica label.
fn as_sent(own: Series, group: &str) -> Series {
    own.into_iter().map(|(labels, points)| (labels.with("prometheus", group), points)).collect()
}

fn configuration(group: &str, replica: &str, target: &Target, write_url: &str) -> String {
    let mut text = String::new();
    let _ = write!(
        text,
        r#"
global:
  scrape_interval: 2s
  scrape_timeout: 1s
  external_labels: {{prometheus: {group}, prometheus_replica: {replica}}}
remote_write:
  - url: {write_url}
    headers: {{{GROUP_HEADER}: {group}}}
    queue_config: {{batch_send_deadline: 500ms, min_shards: 2, max_shards: 4, max_samples_per_send: 200, capacity: 2000}}
scrape_configs:
  - job_name: node
    params: {{replica: [{replica}]}}
    static_configs: [{{targets: ["{}"]}}]
"#,
        target.address
    );
    text
}

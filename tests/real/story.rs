//! The story: two replicas, a healthy time, a target that only one of them reaches, a target that is gone, a replica that is killed
//! and comes back; then what arrived is judged and the figures are printed.

use crate::process::{PATIENCE, eventually};
use crate::prometheus::Prometheus;
use crate::proxy::{Metrics, Proxy};
use crate::targets::{Kind, Off, Target};
use crate::upstream::Upstream;
use crate::verdict::{Evidence, Findings, Series};
use promdedup::stand_in::{Labels, Point, now_ms};
use std::fmt::Write as _;
use std::time::Instant;
use tempfile::TempDir;

/// Scrape and evaluation interval of all but the slow target.
const INTERVAL_MS: i64 = 2_000;
const SLOW_INTERVAL_MS: i64 = 4_000;
const CLUSTER: (&str, &str) = ("cluster", "eu-1");
const GROUP: (&str, &str) = ("prometheus", "monitoring/main");
const NAMES: [&str; 2] = ["a", "b"];

/// Rules that both replicas evaluate at the same moments, over different samples. The first has neither job nor instance.
const RULES: &str = r#"
groups:
  - name: shop
    rules:
      - record: shop:requests:rate10s
        expr: sum(rate(shop_requests_total[10s]))
      - record: instance:shop_latency_seconds:p90
        expr: histogram_quantile(0.9, sum by (le, instance, job) (rate(shop_latency_seconds_bucket[10s])))
  - name: up
    rules:
      - record: job:up:sum
        expr: sum by (job) (up)
      - alert: Down
        expr: up == 0
        labels: {severity: page}
"#;

pub(crate) struct Story {
    replicas: Vec<Prometheus>,
    proxy: Proxy,
    upstream: Upstream,
    targets: Vec<Target>,
    began: Instant,
    /// Counters of the replicas' senders from before the kill.
    before_kill: Vec<Senders>,
    /// From when on a target has to come from one replica.
    united_ms: i64,
    _rules: TempDir,
}

/// What the senders of a replica counted in one life.
#[derive(Debug, Clone, Copy, Default)]
struct Senders {
    sent: f64,
    retried: f64,
    lost: f64,
}

impl Story {
    /// Starts everything. `more`: further environment of the proxy.
    pub(crate) async fn begin(upstream: Upstream, more: &[(&str, &str)]) -> Self {
        let began = Instant::now();
        let proxy = Proxy::start(&upstream.url(), more).await;
        let targets = vec![
            Target::start("shop", Kind::Shop, 2).await,
            Target::start("shop", Kind::Shop, 2).await,
            Target::start("node", Kind::Node, 2).await,
            Target::start("pods", Kind::Pods, 2).await,
            Target::start("slow", Kind::Node, 4).await,
            Target::start("switch", Kind::Shop, 2).await,
        ];
        // One file for both: the moment of evaluation depends on its name.
        let rules = tempfile::tempdir().expect("a folder");
        let path = rules.path().join("rules.yml");
        std::fs::write(&path, RULES).expect("written");
        let path = path.display().to_string();
        let configurations = NAMES.map(|name| configuration(name, &path, &targets, &proxy.url()));
        const EXEMPLARS: &[&str] = &["--enable-feature=exemplar-storage"];
        let (a, b) = tokio::join!(
            Prometheus::start(NAMES[0], &configurations[0], EXEMPLARS),
            Prometheus::start(NAMES[1], &configurations[1], EXEMPLARS),
        );
        let replicas = vec![a, b];
        Self {
            replicas,
            proxy,
            upstream,
            targets,
            began,
            before_kill: Vec::new(),
            united_ms: 0,
            _rules: rules,
        }
    }

    /// All of it; fails if a promise was broken.
    pub(crate) async fn tell(mut self) {
        let mut problems = self.be_healthy().await;
        problems.extend(self.lose_a_target_in_one_replica().await);
        self.lose_a_replica().await;
        self.settle(2).await;

        let mut findings = self.evidence().await.findings(interval_ms);
        problems.append(&mut findings.problems);
        let senders = self.senders().await;
        for replica in &mut self.replicas {
            replica.terminate().await;
        }
        let metrics = self.proxy.metrics().await;
        problems.extend(self.identities(&metrics).await);
        problems.extend(self.upstream.complaints().await);
        if senders.lost > 0.0 {
            problems.push(format!("{} items failed or dropped by the senders", senders.lost));
        }
        self.proxy.terminate().await;
        println!("{}", self.figures(&findings, &metrics, senders).await);
        if !problems.is_empty() {
            let complaints = self.proxy.complaints();
            panic!("into {}:\n{}\nproxy: {complaints:#?}", self.upstream.name(), problems.join("\n"));
        }
    }

    /// Nothing changes its owner but series that end.
    async fn be_healthy(&mut self) -> Vec<String> {
        for name in NAMES {
            eventually("both replicas deliver", PATIENCE, async || {
                (self.received(name).await > 0.0).then_some(())
            })
            .await;
        }
        let probe = self.probe("node");
        eventually("the first sample arrives", PATIENCE, async || self.upstream.newest_ms(&probe).await)
            .await;
        // What was held back, or waited for its sender to try again, has arrived by then, and targets that were split are not.
        self.settle(3).await;
        self.united_ms = now_ms();
        let before = self.changes().await;
        self.say(&format!("both deliver, {before} changes of owners to begin with"));
        self.settle(3).await;
        let changes = self.changes().await - before;
        if changes == 0.0 { Vec::new() } else { vec![format!("healthy, but {changes} changes of owners")] }
    }

    /// The owner of a target does not reach it any more, the other does.
    async fn lose_a_target_in_one_replica(&mut self) -> Vec<String> {
        let owner = self.owner_of(&self.probe("switch")).await;
        let moves = self.moves().await;
        self.target("switch").switch(Off::Only(NAMES[owner].to_owned()));
        self.settle(3).await;
        self.target("switch").switch(Off::Nobody);
        self.settle(1).await;
        let moved = self.moves().await - moves;
        self.say(&format!("a target was gone for its owner {}, {moved} targets moved", NAMES[owner]));
        if moved > 0.0 { Vec::new() } else { vec!["a target stays with a replica that lost it".to_owned()] }
    }

    /// The owner of most is killed; the other takes over; the killed one returns to its data.
    async fn lose_a_replica(&mut self) {
        let owner = self.owner().await;
        let moves = self.moves().await;
        self.before_kill.push(Senders::of(&self.replicas[owner].metrics().await));
        self.replicas[owner].kill();
        self.say(&format!("{} was killed", NAMES[owner]));
        let took_over = async || (self.moves().await > moves).then_some(());
        eventually("the other replica takes over", PATIENCE, took_over).await;
        // Longer than two of the slow target's intervals.
        self.settle(3).await;
        let received = self.received(NAMES[owner]).await;
        self.replicas[owner].restart().await;
        let delivers = async || (self.received(NAMES[owner]).await > received).then_some(());
        eventually("the killed replica delivers again", PATIENCE, delivers).await;
        self.say(&format!("{} delivers again", NAMES[owner]));
    }

    fn say(&self, what: &str) {
        println!("{:>6.1} s, {}: {what}", self.began.elapsed().as_secs_f64(), self.upstream.name());
    }

    /// Waits until upstream has what is scraped so many intervals from now.
    async fn settle(&self, intervals: u32) {
        let wanted_ms = now_ms() + i64::from(intervals) * INTERVAL_MS;
        let probe = self.probe("node");
        let arrived = async || self.upstream.newest_ms(&probe).await.filter(|at_ms| *at_ms >= wanted_ms);
        eventually("the stream goes on", PATIENCE, arrived).await;
    }

    fn target(&self, job: &str) -> &Target {
        self.targets.iter().find(|target| target.job == job).expect("a target")
    }

    /// A series of a target, as it is upstream.
    fn probe(&self, job: &str) -> Labels {
        let target = self.target(job);
        let instance = target.address.to_string();
        let own = if job == "node" {
            [("__name__", "node_load"), ("minutes", "0")]
        } else {
            [("__name__", "shop_odd"), ("what", "huge")]
        };
        Labels::new(own.into_iter().chain([("job", job), ("instance", instance.as_str()), CLUSTER, GROUP]))
    }

    async fn received(&self, replica: &str) -> f64 {
        self.proxy.metrics().await.sum("promdedup_samples_received_total", &[("replica", replica)])
    }

    async fn moves(&self) -> f64 {
        self.proxy.metrics().await.sum("promdedup_target_moves_total", &[])
    }

    /// Targets that moved, and series that changed hands though they have not ended.
    async fn changes(&self) -> f64 {
        let metrics = self.proxy.metrics().await;
        let of = |reason| metrics.sum("promdedup_takeovers_total", &[("reason", reason)]);
        of("silent") + of("align") + metrics.sum("promdedup_target_moves_total", &[])
    }

    /// The replica that owns most series.
    async fn owner(&self) -> usize {
        let metrics = self.proxy.metrics().await;
        let owned = NAMES.map(|name| metrics.sum("promdedup_owned_series", &[("replica", name)]));
        usize::from(owned[1] > owned[0])
    }

    /// The replica whose sample of a series arrived last.
    async fn owner_of(&self, series: &Labels) -> usize {
        eventually("a sample arrives that a replica has", PATIENCE, async || {
            let newest_ms = self.upstream.newest_ms(series).await?;
            for (nth, replica) in self.replicas.iter().enumerate() {
                let own = as_sent(replica.samples().await);
                if own.get(series).is_some_and(|own| own.iter().any(|point| point.at_ms == newest_ms)) {
                    return Some(nth);
                }
            }
            None
        })
        .await
    }

    async fn evidence(&self) -> Evidence {
        let looked_ms = now_ms();
        let stored = self.upstream.stored().await;
        let mut own = Vec::new();
        for replica in &self.replicas {
            own.push(as_sent(replica.samples().await));
        }
        Evidence { stored, own, united_ms: self.united_ms, looked_ms }
    }

    /// All lives of all senders.
    async fn senders(&self) -> Senders {
        let mut all = self.before_kill.clone();
        for replica in &self.replicas {
            all.push(Senders::of(&replica.metrics().await));
        }
        all.iter().fold(Senders::default(), |sum, one| Senders {
            sent: sum.sent + one.sent,
            retried: sum.retried + one.retried,
            lost: sum.lost + one.lost,
        })
    }

    /// What the proxy says of itself when all is delivered.
    async fn identities(&self, metrics: &Metrics) -> Vec<String> {
        let received = metrics.sum("promdedup_samples_received_total", &[]);
        let outcomes = metrics.sum("promdedup_samples_total", &[]);
        let sent = outcome(metrics, "forwarded") + metrics.sum("promdedup_samples_filled_total", &[]);
        let stored = self.upstream.samples().await;
        let takeovers = metrics.sum("promdedup_takeovers_total", &[]);
        let moves = metrics.sum("promdedup_target_moves_total", &[]);
        let complaints = self.proxy.complaints();
        [
            (received > 0.0 && received == outcomes, format!("{received} received, {outcomes} outcomes")),
            (sent == stored, format!("{sent} forwarded or filled in, {stored} stored")),
            (outcome(metrics, "rejected") == 0.0, format!("{} rejected", outcome(metrics, "rejected"))),
            (outcome(metrics, "refused") == 0.0, format!("{} refused", outcome(metrics, "refused"))),
            (takeovers > 0.0 && moves > 0.0, format!("{takeovers} takeovers, {moves} moves")),
            (complaints.is_empty(), format!("the proxy complains: {complaints:#?}")),
        ]
        .into_iter()
        .filter_map(|(holds, text)| (!holds).then_some(text))
        .collect()
    }

    async fn figures(&self, findings: &Findings, metrics: &Metrics, senders: Senders) -> String {
        let whole = |name: &str, labels: &[(&str, &str)]| metrics.sum(name, labels);
        let bytes = |side, direction| {
            whole("promdedup_network_bytes_total", &[("side", side), ("direction", direction)])
        };
        let (taken, given) = (bytes("sender", "received"), bytes("upstream", "sent"));
        let body = |stage| whole("promdedup_body_bytes_total", &[("stage", stage)]);
        let hole = &findings.widest_hole;
        let by_reason = ["silent", "released", "ended", "align"]
            .map(|reason| format!("{} {reason}", whole("promdedup_takeovers_total", &[("reason", reason)])));
        let rows = [
            ("seconds", format!("{:.1}", self.began.elapsed().as_secs_f64())),
            ("samples in", format!("{}", whole("promdedup_samples_received_total", &[]))),
            ("  forwarded", format!("{}", outcome(metrics, "forwarded"))),
            ("  duplicates", format!("{}", outcome(metrics, "duplicate"))),
            ("  failed, then retried", format!("{}", outcome(metrics, "failed"))),
            ("filled in", format!("{}", whole("promdedup_samples_filled_total", &[]))),
            ("series, samples judged", format!("{}, {}", findings.series, findings.samples)),
            ("  for each expected one", format!("{:.3}", findings.density())),
            ("  of one replica", format!("{}", findings.of_one_replica)),
            ("stale markers stored", format!("{}", findings.stale_markers)),
            ("exemplars stored", format!("{}", self.upstream.exemplars().await)),
            ("widest hole, intervals", format!("{:.3} in {}", hole.intervals, hole.series)),
            ("takeovers of series", by_reason.join(", ")),
            ("targets that moved", format!("{}", whole("promdedup_target_moves_total", &[]))),
            (
                "waits, benign conflicts",
                format!(
                    "{}, {}",
                    whole("promdedup_waits_total", &[]),
                    whole("promdedup_benign_conflicts_total", &[])
                ),
            ),
            (
                "histograms whole, torn",
                format!("{}, {}", findings.whole_histograms, findings.torn_histograms),
            ),
            ("samples sent, retried", format!("{}, {}", senders.sent, senders.retried)),
            ("bytes in, out", format!("{taken}, {given} ({:.1} % saved)", 100.0 * (1.0 - given / taken))),
            ("  bodies", format!("{}, {}", body("compressed_in"), body("compressed_out"))),
        ];
        let mut table = format!("\ninto {}\n", self.upstream.name());
        for (name, value) in rows {
            let _ = writeln!(table, "  {name:<26} {value}");
        }
        table
    }
}

impl Senders {
    fn of(metrics: &Metrics) -> Self {
        let sum = |name: &str| metrics.sum(&format!("prometheus_remote_storage_{name}_total"), &[]);
        let lost =
            ["samples_failed", "samples_dropped", "exemplars_failed", "exemplars_dropped", "metadata_failed"];
        Self {
            sent: sum("samples"),
            retried: sum("samples_retried"),
            lost: lost.iter().map(|name| sum(name)).sum(),
        }
    }
}

fn outcome(metrics: &Metrics, outcome: &str) -> f64 {
    metrics.sum("promdedup_samples_total", &[("outcome", outcome)])
}

fn interval_ms(series: &Labels) -> i64 {
    let is_slow = series.get("job") == Some("slow") && series.get("__name__") != Some("job:up:sum");
    if is_slow { SLOW_INTERVAL_MS } else { INTERVAL_MS }
}

/// What a replica stored, as it sends it, but for the replica label.
fn as_sent(own: Series) -> Series {
    // A value that equals zero is left out of the message, whatever its sign.
    let sent =
        |point: Point| if point.bits == (-0.0f64).to_bits() { Point { bits: 0, ..point } } else { point };
    own.into_iter()
        .map(|(labels, points)| {
            let labels = labels.with(CLUSTER.0, CLUSTER.1).with(GROUP.0, GROUP.1);
            (labels, points.into_iter().map(sent).collect())
        })
        .collect()
}

fn configuration(replica: &str, rules: &str, targets: &[Target], write_url: &str) -> String {
    let mut text = format!(
        r#"
global:
  scrape_interval: 2s
  scrape_timeout: 1s
  evaluation_interval: 2s
  external_labels: {{{}: {}, {}: {}, prometheus_replica: {replica}}}
rule_files: ["{rules}"]
remote_write:
  - url: {write_url}
    send_exemplars: true
    metadata_config: {{send_interval: 5s}}
    queue_config: {{batch_send_deadline: 500ms, min_shards: 3, max_shards: 6, max_samples_per_send: 200, capacity: 2000}}
scrape_configs:
"#,
        CLUSTER.0, CLUSTER.1, GROUP.0, GROUP.1
    );
    let mut jobs: Vec<&str> = targets.iter().map(|target| target.job).collect();
    jobs.dedup();
    for job in jobs {
        let of_job: Vec<&Target> = targets.iter().filter(|target| target.job == job).collect();
        let addresses: Vec<String> = of_job.iter().map(|target| format!("\"{}\"", target.address)).collect();
        let _ = writeln!(
            text,
            "  - job_name: {job}\n    scrape_interval: {}s\n    params: {{replica: [{replica}]}}\n    static_configs: [{{targets: [{}]}}]",
            of_job[0].interval_s,
            addresses.join(", ")
        );
    }
    text
}

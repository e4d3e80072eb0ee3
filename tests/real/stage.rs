//! The stage: replicas, proxy, upstream and targets, what can be seen of them while a story is told, and the verdict at its end.

use crate::interpreter::Interpreter;
use crate::process::{PATIENCE, eventually};
use crate::prometheus::Prometheus;
use crate::proxy::{Metrics, Proxy};
use crate::sheet::{Senders, figures, outcome};
use crate::targets::{Kind, Target};
use crate::upstream::Upstream;
use crate::verdict::{Evidence, Series};
use promdedup::stand_in::{Labels, Point, now_ms};
use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::time::Instant;
use tempfile::TempDir;

/// Scrape and evaluation interval of all but the slow target.
pub(crate) const INTERVAL_MS: i64 = 2_000;
const SLOW_INTERVAL_MS: i64 = 4_000;
const CLUSTER: (&str, &str) = ("cluster", "eu-1");
const GROUP: (&str, &str) = ("prometheus", "monitoring/main");
const NAMES: [&str; 3] = ["a", "b", "c"];

/// Rules that all replicas evaluate at the same moments, over different samples. The first has neither job nor instance.
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

/// Who plays, and what is promised.
pub(crate) struct Cast<'a> {
    /// Which story it is, for those who read along.
    pub(crate) title: &'static str,
    pub(crate) upstream: Upstream,
    pub(crate) replicas: usize,
    /// Further environment of the proxy.
    pub(crate) environment: &'a [(&'a str, &'a str)],
    /// Widest hole that is promised, in intervals.
    pub(crate) hole_max: f64,
    /// The second replica speaks remote write 2.0.
    pub(crate) mixed: bool,
}

pub(crate) struct Stage {
    title: &'static str,
    hole_max: f64,
    pub(crate) replicas: Vec<Prometheus>,
    pub(crate) proxy: Proxy,
    pub(crate) upstream: Upstream,
    targets: Vec<Target>,
    began: Instant,
    /// Counters of senders that have been killed since.
    past: Senders,
    interpreter: Option<Interpreter>,
    /// The proxy was restarted: what it counted before is gone.
    proxy_is_new: bool,
    /// When a target need not come from one replica.
    split_ms: Vec<RangeInclusive<i64>>,
    /// What has been found so far.
    problems: Vec<String>,
    _rules: TempDir,
}

impl Stage {
    /// Starts everything.
    pub(crate) async fn set(cast: Cast<'_>) -> Self {
        let began = Instant::now();
        let proxy = Proxy::start(&cast.upstream.url(), cast.environment).await;
        let mut targets = vec![
            Target::start("shop", Kind::Shop, 2).await,
            Target::start("shop", Kind::Shop, 2).await,
            Target::start("node", Kind::Node, 2).await,
            Target::start("pods", Kind::Pods, 2).await,
            Target::start("slow", Kind::Node, 4).await,
            Target::start("switch", Kind::Shop, 2).await,
        ];
        if cast.mixed {
            targets.push(Target::start("native", Kind::Native, 2).await);
        }
        // One file for all: the moment of evaluation depends on its name.
        let rules = tempfile::tempdir().expect("a folder");
        let path = rules.path().join("rules.yml");
        std::fs::write(&path, RULES).expect("written");
        let path = path.display().to_string();
        const FEATURES: &[&str] = &["--enable-feature=exemplar-storage,native-histograms"];
        let interpreter = match cast.mixed {
            true => Some(Interpreter::start(&proxy.url()).await),
            false => None,
        };
        let mut replicas = Vec::new();
        for name in &NAMES[..cast.replicas] {
            let interpreted = interpreter.as_ref().filter(|_| *name == NAMES[1]);
            let url = interpreted.map_or_else(|| proxy.url(), |interpreter| interpreter.url.clone());
            let configuration = configuration(name, &path, &targets, &url);
            replicas.push(Prometheus::start(name, &configuration, FEATURES).await);
        }
        Self {
            title: cast.title,
            hole_max: cast.hole_max,
            replicas,
            proxy,
            upstream: cast.upstream,
            targets,
            began,
            past: Senders::default(),
            interpreter,
            proxy_is_new: false,
            split_ms: Vec::new(),
            problems: Vec::new(),
            _rules: rules,
        }
    }

    /// The end: everything is delivered and judged; fails if a promise was broken.
    pub(crate) async fn judge(mut self) {
        self.deliver().await;
        let evidence = self.evidence().await;
        let native = evidence.stored.values().flatten().filter(|point| point.histogram).count();
        self.expect(
            (native > 0) == self.interpreter.is_some(),
            &format!("{native} native histograms stored"),
        );
        let mut findings = evidence.findings(interval_ms);
        self.problems.append(&mut findings.problems);
        let mut senders = self.past;
        for replica in &self.replicas {
            senders = senders.and(Senders::of(replica).await);
        }
        self.problems.extend(senders.problems());
        self.problems.extend(self.interpreter.iter().flat_map(Interpreter::problems));
        for replica in &mut self.replicas {
            replica.terminate().await;
        }
        let metrics = self.proxy.metrics().await;
        let identities = self.identities(&metrics).await;
        self.problems.extend(identities);
        self.problems.extend(self.upstream.complaints(self.proxy_is_new).await);
        self.proxy.terminate().await;
        let lasted = self.began.elapsed();
        println!("\n{}, {}", self.title, figures(&self.upstream, &findings, &metrics, senders, lasted).await);
        if !self.problems.is_empty() {
            let complaints = self.proxy.complaints();
            panic!(
                "{}, into {}:\n{}\nproxy: {complaints:#?}",
                self.title,
                self.upstream.name(),
                self.problems.join("\n")
            );
        }
    }

    /// Waits until targets are united again, of which some were not from that time on.
    pub(crate) async fn unite(&mut self, from_ms: i64) {
        self.settle(3).await;
        self.split_ms.push(from_ms..=now_ms());
    }

    /// What happens next has to be so.
    pub(crate) fn expect(&mut self, holds: bool, what: &str) {
        if !holds {
            self.problems.push(what.to_owned());
        }
    }

    /// SIGKILL of a replica.
    pub(crate) async fn kill(&mut self, replica: usize) {
        self.past = self.past.and(Senders::of(&self.replicas[replica]).await);
        self.replicas[replica].kill();
        self.say(&format!("{} was killed", NAMES[replica]));
    }

    /// Starts a replica that was killed on its data, and waits until it delivers.
    pub(crate) async fn revive(&mut self, replica: usize) {
        let received = self.received(replica).await;
        self.replicas[replica].restart().await;
        self.wait_for_more(replica, received).await;
        self.say(&format!("{} delivers again", NAMES[replica]));
    }

    /// Waits until the proxy has received more of a replica than so much.
    pub(crate) async fn wait_for_more(&self, replica: usize, received: f64) {
        let delivers = async || (self.received(replica).await > received).then_some(());
        eventually("a replica delivers", PATIENCE, delivers).await;
    }

    /// Starts a proxy that has ended, and waits until all replicas deliver.
    pub(crate) async fn restart_proxy(&mut self) {
        self.proxy.restart().await;
        self.proxy_is_new = true;
        for replica in 0..self.replicas.len() {
            self.wait_for_more(replica, 0.0).await;
        }
    }

    /// Waits until no replica has a backlog: each has sent what it had a moment ago.
    pub(crate) async fn deliver(&self) {
        for replica in &self.replicas {
            eventually("everything is delivered", 2 * PATIENCE, async || {
                let pending = replica.metrics().await.sum("prometheus_remote_storage_samples_pending", &[]);
                (pending == 0.0).then_some(())
            })
            .await;
        }
        self.settle(2).await;
    }

    pub(crate) fn say(&self, what: &str) {
        println!(
            "{:>6.1} s, {}, into {}: {what}",
            self.began.elapsed().as_secs_f64(),
            self.title,
            self.upstream.name()
        );
    }

    /// Waits until upstream has what is scraped so many intervals from now.
    pub(crate) async fn settle(&self, intervals: u32) {
        let wanted_ms = now_ms() + i64::from(intervals) * INTERVAL_MS;
        let probe = self.probe("node");
        let arrived = async || self.upstream.newest_ms(&probe).await.filter(|at_ms| *at_ms >= wanted_ms);
        eventually("the stream goes on", PATIENCE, arrived).await;
    }

    pub(crate) fn target(&self, job: &str) -> &Target {
        self.targets.iter().find(|target| target.job == job).expect("a target")
    }

    /// A series of a target, as it is upstream.
    pub(crate) fn probe(&self, job: &str) -> Labels {
        let target = self.target(job);
        let instance = target.address.to_string();
        let own = if job == "node" {
            [("__name__", "node_load"), ("minutes", "0")]
        } else {
            [("__name__", "shop_odd"), ("what", "huge")]
        };
        Labels::new(own.into_iter().chain([("job", job), ("instance", instance.as_str()), CLUSTER, GROUP]))
    }

    /// What the proxy has received of a replica, in its present life.
    pub(crate) async fn received(&self, replica: usize) -> f64 {
        let metrics = self.proxy.metrics().await;
        metrics.sum("promdedup_samples_received_total", &[("replica", NAMES[replica])])
    }

    pub(crate) async fn moves(&self) -> f64 {
        self.proxy.metrics().await.sum("promdedup_target_moves_total", &[])
    }

    /// Targets that moved, and series that changed hands though they have not ended.
    pub(crate) async fn changes(&self) -> f64 {
        let metrics = self.proxy.metrics().await;
        let of = |reason| metrics.sum("promdedup_takeovers_total", &[("reason", reason)]);
        of("silent") + of("align") + metrics.sum("promdedup_target_moves_total", &[])
    }

    /// The replica that owns most series.
    pub(crate) async fn owner(&self) -> usize {
        let metrics = self.proxy.metrics().await;
        let owned = |nth: &usize| metrics.sum("promdedup_owned_series", &[("replica", NAMES[*nth])]);
        let all = 0..self.replicas.len();
        all.max_by(|a, b| owned(a).total_cmp(&owned(b))).expect("a replica")
    }

    /// The replica whose sample of a series arrived last.
    pub(crate) async fn owner_of(&self, series: &Labels) -> usize {
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
        Evidence { stored, own, split_ms: self.split_ms.clone(), hole_max: self.hole_max, looked_ms }
    }

    /// What the proxy says of itself when all is delivered.
    async fn identities(&self, metrics: &Metrics) -> Vec<String> {
        let received = metrics.sum("promdedup_samples_received_total", &[]);
        let outcomes = metrics.sum("promdedup_samples_total", &[]);
        let sent = outcome(metrics, "forwarded") + metrics.sum("promdedup_samples_filled_total", &[]);
        let stored = self.upstream.samples().await;
        let complaints = self.proxy.complaints();
        [
            (received > 0.0 && received == outcomes, format!("{received} received, {outcomes} outcomes")),
            (self.proxy_is_new || sent == stored, format!("{sent} forwarded or filled in, {stored} stored")),
            (outcome(metrics, "rejected") == 0.0, format!("{} rejected", outcome(metrics, "rejected"))),
            (outcome(metrics, "refused") == 0.0, format!("{} refused", outcome(metrics, "refused"))),
            (complaints.is_empty(), format!("the proxy complains: {complaints:#?}")),
        ]
        .into_iter()
        .filter_map(|(holds, text)| (!holds).then_some(text))
        .collect()
    }
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
    send_native_histograms: true
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

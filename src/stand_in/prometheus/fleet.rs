//! What the replicas scrape: targets, their series with realistic labels, and the value of each series at a time.
//!
//! Pure: values are a function of series, time and (for what a replica measures itself) replica, so two replicas that scrape one target
//! at different phases see one and the same world.

use crate::stand_in::Labels;
use std::ops::Range;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Upper bounds of the buckets of every classic histogram.
const BOUNDS: [&str; 11] =
    ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1.0", "2.5", "5.0", "+Inf"];
/// Series that a scraper adds to each target itself; `up` is the first.
const OWN: [&str; 5] = [
    "up",
    "scrape_duration_seconds",
    "scrape_samples_scraped",
    "scrape_samples_post_metric_relabeling",
    "scrape_series_added",
];

/// How much there is to scrape.
#[derive(Debug, Clone)]
pub struct FleetShape {
    /// External label `cluster`.
    pub cluster: String,
    /// External label `prometheus`.
    pub prometheus: String,
    /// How many targets.
    pub targets: usize,
    /// Series of each, the five of the scraper itself included (never fewer).
    pub series_per_target: usize,
    /// Of these, how many are native histograms.
    pub native_histograms_per_target: usize,
    /// Series of recording rules: equal timestamps on all replicas, different values.
    pub rules: usize,
    /// Whether histogram buckets have exemplars now and then.
    pub exemplars: bool,
}

impl FleetShape {
    /// About so many series altogether, in targets of up to 500.
    #[must_use]
    pub fn of_series(series: usize) -> Self {
        let rules = (series / 50).clamp(2, 100);
        let scraped = series.saturating_sub(rules).max(OWN.len());
        let targets = scraped.div_ceil(500).max((scraped / 50).min(4)).max(1);
        Self { targets, series_per_target: scraped / targets, rules, ..Self::default() }
    }
}

impl Default for FleetShape {
    fn default() -> Self {
        Self {
            cluster: "demo".to_owned(),
            prometheus: "monitoring/k8s".to_owned(),
            targets: 4,
            series_per_target: 50,
            native_histograms_per_target: 0,
            rules: 4,
            exemplars: true,
        }
    }
}

/// One thing that is scraped.
#[derive(Debug, Clone)]
pub struct TargetShape {
    /// Label `job`.
    pub job: String,
    /// Label `instance`.
    pub instance: String,
    /// Its series, as numbers of [`Fleet::series`]; the first five are the scraper's own, `up` first.
    pub series: Range<usize>,
}

impl TargetShape {
    /// The scraper's own series of this target.
    pub(super) fn own(&self) -> Range<usize> {
        self.series.start..self.series.start + OWN.len()
    }

    /// What the target itself exposes.
    pub(super) fn exposed(&self) -> Range<usize> {
        self.series.start + OWN.len()..self.series.end
    }
}

/// One series, without a replica label.
#[derive(Debug, Clone)]
pub struct SeriesShape {
    /// Its labels, external ones included.
    pub labels: Labels,
    pub(super) kind: Kind,
    seed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Up,
    ScrapeDuration,
    ScrapeCount(u32),
    Constant,
    Gauge,
    Counter,
    Bucket(u8),
    NativeHistogram,
    Rule,
}

/// Everything that is scraped and evaluated, the same for all replicas of a group.
#[derive(Debug)]
pub struct Fleet {
    /// The targets.
    pub targets: Vec<TargetShape>,
    /// All series: those of the targets in order, then the rules.
    pub series: Vec<SeriesShape>,
    /// The series of recording rules.
    pub rules: Range<usize>,
    pub(super) exemplars: bool,
}

impl Fleet {
    /// Builds it; the same shape gives the same fleet.
    #[must_use]
    pub fn new(shape: &FleetShape) -> Self {
        let mut series = Vec::new();
        let mut targets = Vec::new();
        for nth in 0..shape.targets {
            let start = series.len();
            let context = Context::of_target(shape, nth);
            context.push_own(&mut series, shape.series_per_target);
            context.push_exposed(&mut series, shape, start);
            targets.push(TargetShape {
                job: context.job.to_owned(),
                instance: context.instance,
                series: start..series.len(),
            });
        }
        let rules = series.len()..series.len() + shape.rules;
        for nth in 0..shape.rules {
            let labels = Labels::new([
                ("__name__", format!("namespace:http_requests:rate{}m", 1 + nth / 20)),
                ("cluster", shape.cluster.clone()),
                ("namespace", format!("team-{:02}", nth % 20)),
                ("prometheus", shape.prometheus.clone()),
            ]);
            series.push(SeriesShape::new(labels, Kind::Rule));
        }
        Self { targets, series, rules, exemplars: shape.exemplars }
    }
}

impl SeriesShape {
    fn new(labels: Labels, kind: Kind) -> Self {
        let seed = xxh3_64_with_seed(labels.to_string().as_bytes(), 0);
        Self { labels, kind, seed }
    }

    /// The value at a time, as one replica sees it.
    pub(super) fn value(&self, at_ms: i64, replica_seed: u64) -> f64 {
        let seconds = at_ms.rem_euclid(100_000_000_000) as f64 / 1_000.0;
        let noise = |seed: u64| (mix(seed, at_ms) >> 40) as f64 / f64::from(1 << 24);
        let rate = (self.seed % 64) as f64 / 4.0;
        match self.kind {
            Kind::Up => 1.0,
            Kind::ScrapeDuration => 0.002 + 0.003 * noise(self.seed ^ replica_seed),
            Kind::ScrapeCount(count) => f64::from(count),
            Kind::Constant => (self.seed % 3) as f64,
            Kind::Gauge => (noise(self.seed) * 10_000.0).round() / 100.0,
            Kind::Counter => (seconds * rate).floor(),
            Kind::Bucket(nth) => (seconds * 2.0 * f64::from(nth + 1)).floor(),
            Kind::NativeHistogram => (seconds * 2.0).floor(),
            // Both replicas evaluate at one and the same time, over samples that differ.
            Kind::Rule => rate + noise(self.seed ^ replica_seed),
        }
    }

    /// The exemplar that a scrape at this time finds new since the scrape before: (milliseconds, value).
    pub(super) fn exemplar(&self, at_ms: i64, interval_ms: i64) -> Option<(i64, f64)> {
        if !matches!(self.kind, Kind::Bucket(_)) || !self.seed.is_multiple_of(3) {
            return None;
        }
        let every_ms = 3 * interval_ms.max(1);
        let shift = (self.seed % every_ms.unsigned_abs()).cast_signed();
        let made_ms = (at_ms - shift).div_euclid(every_ms) * every_ms + shift;
        (at_ms - made_ms < interval_ms).then(|| (made_ms, (mix(self.seed, made_ms) % 1_000) as f64 / 1_000.0))
    }
}

/// What all series of a target have in common.
struct Context<'a> {
    shape: &'a FleetShape,
    job: &'static str,
    instance: String,
    common: Vec<(&'static str, String)>,
}

impl<'a> Context<'a> {
    fn of_target(shape: &'a FleetShape, nth: usize) -> Self {
        let job = ["checkout", "cart", "catalog", "node-exporter"][nth % 4];
        let instance = format!("10.42.{}.{}:9100", nth / 250, nth % 250 + 2);
        let common = vec![
            ("cluster", shape.cluster.clone()),
            ("container", job.to_owned()),
            ("endpoint", "http-metrics".to_owned()),
            ("instance", instance.clone()),
            ("job", job.to_owned()),
            ("namespace", format!("team-{:02}", nth % 20)),
            ("node", format!("ip-10-0-{}-{}.eu-central-1.compute.internal", nth / 250, nth % 250)),
            ("pod", format!("{job}-{:08x}-{:05x}", nth * 2_654_435 + 77, nth * 7_919 % 99_991)),
            ("prometheus", shape.prometheus.clone()),
            ("service", job.to_owned()),
        ];
        Self { shape, job, instance, common }
    }

    fn series(&self, name: &str, kind: Kind, more: &[(&str, &str)]) -> SeriesShape {
        let common = self.common.iter().map(|(name, value)| (*name, value.as_str()));
        SeriesShape::new(Labels::new(common.chain([("__name__", name)]).chain(more.iter().copied())), kind)
    }

    fn push_own(&self, series: &mut Vec<SeriesShape>, of_target: usize) {
        let count = u32::try_from(of_target.saturating_sub(OWN.len())).unwrap_or(u32::MAX);
        for name in OWN {
            let kind = match name {
                "up" => Kind::Up,
                "scrape_duration_seconds" => Kind::ScrapeDuration,
                "scrape_series_added" => Kind::ScrapeCount(0),
                _ => Kind::ScrapeCount(count),
            };
            series.push(self.series(name, kind, &[]));
        }
    }

    /// Handlers one after the other, each with counters, gauges and a histogram, until the target has enough series.
    fn push_exposed(&self, series: &mut Vec<SeriesShape>, shape: &FleetShape, start: usize) {
        for nth in 0..shape.native_histograms_per_target {
            let handler = format!("/api/v1/native/{nth}");
            let more = [("handler", handler.as_str()), ("method", "GET")];
            series.push(self.series("rpc_duration_seconds", Kind::NativeHistogram, &more));
        }
        for nth in 0.. {
            let handler =
                format!("/api/v{}/{}", 1 + nth % 3, ["orders", "items", "users", "search"][nth % 4]);
            let shard = format!("{nth:03}");
            let more = [("handler", handler.as_str()), ("method", "GET"), ("shard", shard.as_str())];
            for one in self.family(&more) {
                if series.len() - start >= self.shape.series_per_target.max(OWN.len()) {
                    return;
                }
                series.push(one);
            }
        }
    }

    fn family(&self, more: &[(&str, &str)]) -> Vec<SeriesShape> {
        let with = |name: &str, value: &'static str| {
            let mut all = more.to_vec();
            all.push((if name == "le" { "le" } else { "code" }, value));
            all
        };
        let mut all = vec![
            self.series("http_requests_total", Kind::Counter, &with("code", "200")),
            self.series("http_requests_total", Kind::Counter, &with("code", "404")),
            self.series("http_requests_total", Kind::Counter, &with("code", "500")),
            self.series("http_requests_in_flight", Kind::Gauge, more),
            self.series("http_handler_info", Kind::Constant, more),
        ];
        for (nth, bound) in (0u8..).zip(BOUNDS) {
            all.push(self.series(
                "http_request_duration_seconds_bucket",
                Kind::Bucket(nth),
                &with("le", bound),
            ));
        }
        all.push(self.series("http_request_duration_seconds_sum", Kind::Gauge, more));
        all.push(self.series("http_request_duration_seconds_count", Kind::Counter, more));
        all
    }
}

/// A number that looks random and depends on both.
pub(super) fn mix(seed: u64, at_ms: i64) -> u64 {
    xxh3_64_with_seed(&at_ms.to_le_bytes(), seed)
}

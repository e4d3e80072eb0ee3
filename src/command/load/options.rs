//! What a run of `load` can be told, and which of it makes sense. Pure.

use super::REPLICAS_MAX;
use crate::stand_in::connection::Connection;
use crate::wire::Protocol;
use anyhow::{Context as _, ensure};
use std::net::SocketAddr;
use std::time::Duration;

/// What the flags say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadOptions {
    /// Where to send.
    pub target: String,
    /// Series of each replica, over all groups; a run has the next multiple of `groups`.
    pub series: usize,
    /// HA groups that the series are spread over. With more than one, `cluster` names the group.
    pub groups: usize,
    /// Tenants that the groups are spread over; one is sent without a tenant header.
    pub tenants: usize,
    /// Replicas of each group.
    pub replicas: usize,
    /// Shards of each replica, each with one request in flight.
    pub shards: usize,
    /// Most samples of a request.
    pub batch: usize,
    /// Labels of each series, the replica label included; `None`: those of the corpus.
    pub labels: Option<usize>,
    /// Series that end and are replaced by new ones, in percent of all a minute (of sample time, if saturated).
    pub churn: u32,
    /// The last replica of each group begins so far behind, when the others are live.
    pub backlog: Option<Duration>,
    /// Scrape interval; in a saturated run of sample time.
    pub interval: Duration,
    /// Measured time, after the warm-up.
    pub duration: Duration,
    /// As fast as it goes, instead of by the clock.
    pub saturate: bool,
    /// Version of remote write.
    pub protocol: Protocol,
    /// Where the sink listens, if there is to be one.
    pub sink: Option<SocketAddr>,
    /// The target's process on this machine.
    pub pid: Option<u32>,
    /// The target's metrics.
    pub metrics: Option<String>,
    /// How the names of the target's threads begin, if it is in this process: then their CPU time is the target's.
    pub threads: Option<String>,
}

impl LoadOptions {
    /// The canonical load to this URL: 200,000 series of two replicas every 15 s, for a minute.
    #[must_use]
    pub fn to(target: &str) -> Self {
        Self {
            target: target.to_owned(),
            series: 200_000,
            groups: 1,
            tenants: 1,
            replicas: 2,
            shards: 4,
            batch: 2_000,
            labels: None,
            churn: 0,
            backlog: None,
            interval: Duration::from_secs(15),
            duration: Duration::from_secs(60),
            saturate: false,
            protocol: Protocol::One,
            sink: None,
            pid: None,
            metrics: None,
            threads: None,
        }
    }

    /// Series of one group in one replica.
    #[must_use]
    pub fn series_of_a_group(&self) -> usize {
        self.series.div_ceil(self.groups.max(1))
    }

    /// How long a series lives, in milliseconds of sample time; `None`: for ever.
    #[must_use]
    pub fn life_ms(&self) -> Option<u64> {
        (self.churn > 0).then(|| 6_000_000 / u64::from(self.churn))
    }

    /// Intervals that the last replica of each group is behind when it begins.
    #[must_use]
    pub fn intervals_behind(&self) -> u64 {
        let interval_ms = self.interval.as_millis().max(1);
        let behind = self.backlog.map_or(0, |backlog| backlog.as_millis().div_ceil(interval_ms));
        u64::try_from(behind).unwrap_or(u64::MAX)
    }
}

/// Most connections of a run: what a proxy of two threads takes (4,096 each).
const CONNECTIONS_MAX: usize = 8_000;
/// Fewest series of a group in one replica: of each target there are some that Prometheus adds itself.
const SERIES_OF_A_GROUP_MIN: usize = 10;
/// Fewest scrapes of a series that ends.
const SCRAPES_MIN: u64 = 4;

/// Whether a run can be told so.
///
/// # Errors
/// Names the flag that cannot.
pub fn check(options: &LoadOptions) -> anyhow::Result<()> {
    let within = |flag: &str, given: usize, least: usize, most: usize| {
        ensure!(given >= least, "--{flag} {given}: at least {least}");
        ensure!(given <= most, "--{flag} {given}: at most {most}");
        Ok(())
    };
    let url = |flag: &str, given: &str| {
        ensure!(given.starts_with("http://"), "--{flag} {given:?}: only http:// is spoken here");
        Connection::to(given).map(drop).with_context(|| format!("--{flag}"))
    };
    url("target", &options.target)?;
    if let Some(metrics) = &options.metrics {
        url("metrics", metrics)?;
    }
    within("series", options.series, 10, 16_000_000)?;
    within("groups", options.groups, 1, 10_000)?;
    ensure!(
        options.series >= SERIES_OF_A_GROUP_MIN * options.groups,
        "--groups {}: {} series are fewer than {SERIES_OF_A_GROUP_MIN} a group",
        options.groups,
        options.series
    );
    within("tenants", options.tenants, 1, 10_000)?;
    ensure!(
        options.tenants <= options.groups,
        "--tenants {}: a tenant has whole groups, and there are {} (--groups)",
        options.tenants,
        options.groups
    );
    within("replicas", options.replicas, 1, REPLICAS_MAX)?;
    within("shards", options.shards, 1, 64)?;
    let connections = options.groups * options.replicas * options.shards;
    ensure!(
        connections <= CONNECTIONS_MAX,
        "--groups, --replicas and --shards make {connections} connections: at most {CONNECTIONS_MAX}"
    );
    within("batch", options.batch, 10, 10_000)?;
    if let Some(labels) = options.labels {
        within("labels", labels, 5, 40)?;
    }
    let interval = options.interval;
    ensure!(interval >= Duration::from_millis(100), "--interval {interval:?}: at least 100ms");
    ensure!(interval <= Duration::from_secs(3_600), "--interval {interval:?}: at most 1h");
    let duration = options.duration;
    ensure!(duration >= Duration::from_millis(500), "--duration {duration:?}: at least 500ms");
    ensure!(duration <= Duration::from_secs(86_400), "--duration {duration:?}: at most 1day");
    check_history(options)
}

/// What is said of series' lives and of replicas that are behind.
fn check_history(options: &LoadOptions) -> anyhow::Result<()> {
    let (churn, interval) = (options.churn, options.interval);
    ensure!(churn <= 100, "--churn {churn}: at most 100 % a minute");
    if let Some(life_ms) = options.life_ms() {
        let scrapes = u128::from(life_ms) / interval.as_millis().max(1);
        ensure!(
            scrapes >= u128::from(SCRAPES_MIN),
            "--churn {churn}: a series would live for {scrapes} intervals of {interval:?}, at least {SCRAPES_MIN}"
        );
    }
    let Some(backlog) = options.backlog else { return Ok(()) };
    ensure!(!options.saturate, "--backlog {backlog:?}: goes by the clock, so not with --saturate");
    ensure!(
        options.replicas >= 2,
        "--backlog {backlog:?}: takes another replica that is live, so --replicas 2"
    );
    ensure!(backlog >= interval, "--backlog {backlog:?}: at least an interval ({interval:?})");
    ensure!(backlog <= Duration::from_secs(86_400), "--backlog {backlog:?}: at most 1day");
    Ok(())
}

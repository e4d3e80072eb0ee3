//! Joins what replicas sent, what was acknowledged to them, and what the receiver stored, into a verdict. Pure.
//!
//! Judges only the data: violations that the receiver saw are its own count ([`super::thanos::Violations`]).

use super::prometheus::{Replica, Sent};
use super::thanos::Thanos;
use super::{Labels, Point};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Collects both sides; [`Checker::findings`] judges.
#[derive(Debug)]
pub struct Checker {
    interval_ms: i64,
    replica_labels: Vec<String>,
    stored: BTreeMap<Labels, Vec<Point>>,
    sent: HashMap<Labels, Vec<Vec<Sent>>>,
    unrecorded: u64,
}

/// The widest hole of all series.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Hole {
    /// Its width in intervals.
    pub intervals: f64,
    /// The series, printed; empty if there is no pair of neighbours at all.
    pub series: String,
    /// The sample before it, in milliseconds since the epoch.
    pub after_ms: i64,
    /// The sample after it.
    pub until_ms: i64,
}

/// What was found. All counts but the first five are 0 in a clean run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Findings {
    /// Series stored.
    pub series: u64,
    /// Samples stored.
    pub stored: u64,
    /// Samples one replica alone would have had between the first and the last stored one of each series.
    pub expected: u64,
    /// Samples sent by all replicas, each once however often it was retried.
    pub sent: u64,
    /// Samples acknowledged to all replicas.
    pub acknowledged: u64,
    /// The widest hole: between neighbouring samples of a series from its second interval on, without what follows a stale marker;
    /// time in which every replica was silent for more than an interval is not counted.
    pub widest_hole: Hole,
    /// Stored samples that are not newer than the one before.
    pub not_rising: u64,
    /// Stored series with a replica label.
    pub replica_labels: u64,
    /// Stored samples that no replica sent with these bits at this time.
    pub invented: u64,
    /// Acknowledged samples without a stored sample of their series within two intervals.
    pub lost: u64,
    /// Series of which something was acknowledged and nothing stored.
    pub series_missing: u64,
    /// Samples that one of the records had no room for; above 0 there is no verdict.
    pub unrecorded: u64,
    /// One example for each kind of trouble found.
    pub examples: Vec<String>,
}

impl Findings {
    /// Everything that is wrong, in words; empty if nothing is. `hole_max` in intervals.
    #[must_use]
    pub fn problems(&self, hole_max: f64) -> Vec<String> {
        let hole = &self.widest_hole;
        let mut problems = Vec::new();
        if hole.intervals > hole_max {
            problems.push(format!(
                "hole of {:.3} intervals (at most {hole_max}) in {} between {} and {}",
                hole.intervals, hole.series, hole.after_ms, hole.until_ms
            ));
        }
        for (count, what) in [
            (self.not_rising, "stored samples do not rise"),
            (self.replica_labels, "stored series have a replica label"),
            (self.invented, "stored samples were sent by no replica"),
            (self.lost, "acknowledged samples are lost"),
            (self.series_missing, "acknowledged series are missing"),
            (self.unrecorded, "samples were not recorded, so there is no verdict"),
        ] {
            if count > 0 {
                problems.push(format!("{count} {what}"));
            }
        }
        if !problems.is_empty() {
            problems.extend(self.examples.iter().cloned());
        }
        problems
    }
}

impl Checker {
    /// For series of this interval.
    #[must_use]
    pub fn new(interval_ms: i64) -> Self {
        Self {
            interval_ms: interval_ms.max(1),
            replica_labels: vec!["prometheus_replica".to_owned(), "__replica__".to_owned()],
            stored: BTreeMap::new(),
            sent: HashMap::new(),
            unrecorded: 0,
        }
    }

    /// Everything of one tenant, after the replicas have settled.
    #[must_use]
    pub fn of(interval_ms: i64, thanos: &Thanos, tenant: &str, replicas: &[Replica]) -> Self {
        let mut checker = Self::new(interval_ms).stored(thanos.stored(tenant));
        checker.unrecorded = thanos.totals().unrecorded;
        for replica in replicas {
            checker.unrecorded += replica.stats().unrecorded;
            checker = checker.sent(replica.sent());
        }
        checker
    }

    /// What the receiver stored, each series in the order of arrival.
    #[must_use]
    pub fn stored(mut self, stored: BTreeMap<Labels, Vec<Point>>) -> Self {
        self.stored = stored;
        self
    }

    /// What one replica sent, by labels without the replica label.
    #[must_use]
    pub fn sent(mut self, sent: HashMap<Labels, Vec<Sent>>) -> Self {
        for (labels, points) in sent {
            self.sent.entry(labels).or_default().push(points);
        }
        self
    }

    /// Judges.
    #[must_use]
    pub fn findings(&self) -> Findings {
        let mut findings = Findings { unrecorded: self.unrecorded, ..Findings::default() };
        let nobody = Vec::new();
        for (labels, stored) in &self.stored {
            findings.series += 1;
            findings.stored += stored.len() as u64;
            if let (Some(first), Some(last)) = (stored.first(), stored.last()) {
                let span_ms = (last.at_ms - first.at_ms).max(0) + self.interval_ms / 2;
                findings.expected += 1 + span_ms.unsigned_abs() / self.interval_ms.unsigned_abs();
            }
            if self.replica_labels.iter().any(|name| labels.get(name).is_some()) {
                findings.replica_labels += 1;
                findings.example(findings.replica_labels, || format!("{labels} has a replica label"));
            }
            let sent = self.sent.get(labels).unwrap_or(&nobody);
            self.judge_stored(labels, stored, sent, &mut findings);
        }
        for (labels, sent) in &self.sent {
            let stored = self.stored.get(labels).map_or(&[] as &[Point], Vec::as_slice);
            self.judge_sent(labels, stored, sent, &mut findings);
        }
        findings
    }

    fn judge_stored(&self, labels: &Labels, stored: &[Point], sent: &[Vec<Sent>], findings: &mut Findings) {
        let known: HashSet<Point> = sent.iter().flatten().map(|sent| sent.point).collect();
        for point in stored {
            if !known.contains(point) {
                findings.invented += 1;
                findings.example(findings.invented, || format!("{labels} has {point:?}, which nobody sent"));
            }
        }
        for pair in stored.windows(2) {
            if pair[1].at_ms <= pair[0].at_ms {
                findings.not_rising += 1;
                findings.example(findings.not_rising, || {
                    format!("{labels} has {} after {}", pair[1].at_ms, pair[0].at_ms)
                });
            }
        }
        let mut scraped: Vec<i64> = sent
            .iter()
            .flatten()
            .filter(|sent| !sent.point.is_stale_marker())
            .map(|sent| sent.point.at_ms)
            .collect();
        scraped.sort_unstable();
        for (after, until) in neighbours(stored) {
            let silence_ms = (longest_silence_ms(&scraped, after, until) - self.interval_ms).max(0);
            let intervals = (until - after - silence_ms) as f64 / self.interval_ms as f64;
            if intervals > findings.widest_hole.intervals {
                let series = labels.to_string();
                findings.widest_hole = Hole { intervals, series, after_ms: after, until_ms: until };
            }
        }
    }

    fn judge_sent(&self, labels: &Labels, stored: &[Point], sent: &[Vec<Sent>], findings: &mut Findings) {
        let mut times: Vec<i64> = stored.iter().map(|point| point.at_ms).collect();
        times.sort_unstable();
        let mut acknowledged = 0u64;
        for sent in sent.iter().flatten() {
            findings.sent += 1;
            if !sent.acknowledged {
                continue;
            }
            acknowledged += 1;
            let at_ms = sent.point.at_ms;
            let next = times.partition_point(|&time| time < at_ms - 2 * self.interval_ms);
            if times.get(next).is_none_or(|&time| time > at_ms + 2 * self.interval_ms) {
                findings.lost += 1;
                findings
                    .example(findings.lost, || format!("{labels} lost its acknowledged sample at {at_ms}"));
            }
        }
        findings.acknowledged += acknowledged;
        if acknowledged > 0 && stored.is_empty() {
            findings.series_missing += 1;
        }
    }
}

impl Findings {
    fn example(&mut self, nth: u64, text: impl FnOnce() -> String) {
        if nth == 1 {
            self.examples.push(text());
        }
    }
}

/// Neighbouring samples that count for holes: not the first pair, and none that begins with a stale marker.
fn neighbours(stored: &[Point]) -> impl Iterator<Item = (i64, i64)> {
    let pairs = stored.windows(2).skip(1).filter(|pair| !pair[0].is_stale_marker());
    pairs.map(|pair| (pair[0].at_ms, pair[1].at_ms))
}

/// See [`Thanos::widest_hole_ms`].
pub(super) fn widest_distance_ms(stored: &[Point]) -> i64 {
    neighbours(stored).map(|(after, until)| until - after).max().unwrap_or(0)
}

/// The longest time between `after` and `until` in which nothing was scraped.
fn longest_silence_ms(scraped: &[i64], after: i64, until: i64) -> i64 {
    let from = scraped.partition_point(|&time| time <= after);
    let to = scraped.partition_point(|&time| time < until).max(from);
    let mut last = after;
    let mut longest = 0;
    for &time in scraped[from..to].iter().chain([&until]) {
        longest = longest.max(time - last);
        last = time;
    }
    longest
}

//! What arrived against what each replica has of its own. Pure.

use promdedup::stand_in::{Labels, Point};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::{Range, RangeInclusive};

/// Samples by series, each series in the order of arrival (or of time).
pub(crate) type Series = BTreeMap<Labels, Vec<Point>>;

/// Widest hole, in intervals, of an alert about a target that one replica has lost. Only that replica has it, and as a standby of the
/// target: what is held comes late, and what is held at the end does not come.
const HOLE_MAX_OF_ALERTS: f64 = 5.0;
/// Widest hole, in intervals, before the end of a series of three replicas whose owner died: the standby that is held ends first, and a
/// third still lives then, so neither its marker nor what was held goes out; the third's marker does, an interval later.
const HOLE_MAX_OF_AN_END: f64 = 3.0;
/// Of timestamps at both ends of a hole, in intervals: 1 % each.
const JITTER: f64 = 0.02;
/// Samples stored for each that one replica alone would have had: two streams mixed would have up to twice as many. A change of owner
/// may add one sample of a series or cost one, and a run has a few of them in about 25 intervals.
const DENSITY: RangeInclusive<f64> = 0.93..=1.1;
/// Labels that must not arrive.
const REPLICA_LABELS: [&str; 2] = ["prometheus_replica", "__replica__"];

/// Everything the verdict rests on.
pub(crate) struct Evidence {
    /// What arrived.
    pub(crate) stored: Series,
    /// What each replica has, with the external labels but without the replica label; no stale markers.
    pub(crate) own: Vec<Series>,
    /// When the parts of a histogram need not come from one scrape: targets were not united.
    pub(crate) split_ms: Vec<RangeInclusive<i64>>,
    /// Widest hole that is promised, in intervals.
    pub(crate) hole_max: f64,
    /// When `stored` was looked at. What replicas had shortly before may still have been on its way.
    pub(crate) looked_ms: i64,
}

/// The widest distance between neighbours of one series.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Hole {
    pub(crate) intervals: f64,
    pub(crate) series: String,
    pub(crate) after_ms: i64,
    pub(crate) until_ms: i64,
    /// What each replica has in it.
    pub(crate) own_ms: Vec<Vec<i64>>,
}

/// What was found; `problems` is empty if all promises held.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) series: usize,
    pub(crate) samples: usize,
    /// Samples of the replica that has most of them.
    pub(crate) of_one_replica: usize,
    pub(crate) stale_markers: usize,
    /// Samples that one replica alone would have had of all series, between the first and the last stored.
    expected: f64,
    pub(crate) widest_hole: Hole,
    /// Times at which a histogram is not whole.
    pub(crate) torn_histograms: usize,
    /// Times of all histograms.
    pub(crate) whole_histograms: usize,
    pub(crate) problems: Vec<String>,
    counts: BTreeMap<&'static str, usize>,
}

impl Evidence {
    /// Judges. `interval_ms` of each series.
    pub(crate) fn findings(&self, interval_ms: impl Fn(&Labels) -> i64) -> Findings {
        let mut findings = Findings {
            of_one_replica: self.own.iter().map(|own| own.values().map(Vec::len).sum()).max().unwrap_or(0),
            ..Findings::default()
        };
        for (series, stored) in &self.stored {
            findings.series += 1;
            findings.samples += stored.len();
            if REPLICA_LABELS.iter().any(|name| series.get(name).is_some()) {
                findings.problem("series with a replica label", || series.to_string());
            }
            self.judge_stored(series, stored, interval_ms(series), &mut findings);
        }
        let all: BTreeSet<&Labels> = self.own.iter().flat_map(BTreeMap::keys).collect();
        for series in all {
            self.judge_own(series, interval_ms(series), &mut findings);
        }
        self.judge_histograms(&mut findings);
        // A change of owner may cut through a scrape, on at most three of them each time; but not more than a fifth of all.
        if findings.torn_histograms * 5 > findings.whole_histograms {
            findings.problems.push(format!("{} histograms are torn", findings.torn_histograms));
        }
        if !DENSITY.contains(&findings.density()) {
            findings.problems.push(format!("density {:.3}, not in {DENSITY:?}", findings.density()));
        }
        let counts = std::mem::take(&mut findings.counts);
        findings.problems.extend(counts.iter().map(|(what, count)| format!("{count} {what}")));
        findings
    }

    fn judge_stored(&self, series: &Labels, stored: &[Point], interval_ms: i64, findings: &mut Findings) {
        let sent: Vec<&Point> = self.own.iter().filter_map(|own| own.get(series)).flatten().collect();
        let known: HashSet<&Point> = sent.iter().copied().collect();
        let mut scraped: Vec<i64> = sent.iter().map(|point| point.at_ms).collect();
        scraped.sort_unstable();
        for point in stored {
            if point.is_stale_marker() {
                findings.stale_markers += 1;
                if self.lives_through(series, point.at_ms, interval_ms) {
                    findings.problem("stale markers of a series that lives", || {
                        format!("{series} at {}", point.at_ms)
                    });
                }
            } else if !known.contains(point) {
                findings.problem("samples that no replica has", || format!("{series} {point:?}"));
            }
        }
        for pair in stored.windows(2) {
            if pair[1].at_ms <= pair[0].at_ms {
                findings.problem("timestamps that do not rise", || {
                    format!("{series}: {} after {}", pair[1].at_ms, pair[0].at_ms)
                });
            }
        }
        let is_alert = series.get("alertname").is_some();
        let mut expected = 1.0;
        for (nth, pair) in stored.windows(2).enumerate() {
            let (after_ms, until_ms) = (pair[0].at_ms, pair[1].at_ms);
            // When nobody scraped it for longer than an interval, there was nothing to forward.
            let silence_ms = (longest_silence_ms(&scraped, after_ms, until_ms) - interval_ms).max(0);
            let intervals = (until_ms - after_ms - silence_ms) as f64 / interval_ms as f64;
            expected += intervals;
            if nth == 0 || pair[0].is_stale_marker() {
                continue;
            }
            let hole_max = self.hole_max_before(&pair[1], is_alert);
            if intervals <= findings.widest_hole.intervals.min(hole_max) {
                continue;
            }
            let own_ms = self.own.iter().map(|own| inside(own, series, after_ms..until_ms)).collect();
            let hole = Hole { intervals, series: series.to_string(), after_ms, until_ms, own_ms };
            if intervals > hole_max + JITTER {
                findings.problem("holes", || format!("{hole:?}"));
            }
            if intervals > findings.widest_hole.intervals && !is_alert {
                findings.widest_hole = hole;
            }
        }
        findings.expected += expected;
    }

    fn hole_max_before(&self, next: &Point, is_alert: bool) -> f64 {
        if is_alert {
            self.hole_max.max(HOLE_MAX_OF_ALERTS)
        } else if next.is_stale_marker() && self.own.len() > 2 {
            self.hole_max.max(HOLE_MAX_OF_AN_END)
        } else {
            self.hole_max
        }
    }

    /// Whether one of the replicas has the series without a break at that time.
    fn lives_through(&self, series: &Labels, at_ms: i64, interval_ms: i64) -> bool {
        self.own.iter().filter_map(|own| own.get(series)).any(|points| {
            let next = points.partition_point(|point| point.at_ms <= at_ms);
            let (Some(before), Some(after)) = (next.checked_sub(1).map(|nth| &points[nth]), points.get(next))
            else {
                return false;
            };
            2 * (after.at_ms - before.at_ms) <= 3 * interval_ms
        })
    }

    /// Everything a replica has is stored, or something at most two intervals away from it.
    fn judge_own(&self, series: &Labels, interval_ms: i64, findings: &mut Findings) {
        // A look takes a while, and so does a batch.
        let settled_ms = self.looked_ms - 1_500;
        let stored = self.stored.get(series).map_or(&[] as &[Point], Vec::as_slice);
        let mut times: Vec<i64> = stored.iter().map(|point| point.at_ms).collect();
        times.sort_unstable();
        for point in self.own.iter().filter_map(|own| own.get(series)).flatten() {
            let next = times.partition_point(|&at| at < point.at_ms - 2 * interval_ms);
            let near = times.get(next).is_some_and(|&at| at <= point.at_ms + 2 * interval_ms);
            if !near && point.at_ms < settled_ms {
                findings.problem("samples lost", || format!("{series} {point:?}"));
            }
        }
    }

    /// The parts of a histogram come from one scrape.
    fn judge_histograms(&self, findings: &mut Findings) {
        let mut histograms: BTreeMap<Labels, Vec<&[Point]>> = BTreeMap::new();
        for (series, stored) in &self.stored {
            if series.get("le").is_some() {
                histograms.entry(series.without("le")).or_default().push(stored);
            }
        }
        for buckets in histograms.values() {
            let mut parts: BTreeMap<i64, usize> = BTreeMap::new();
            let united = |point: &&Point| self.split_ms.iter().all(|split| !split.contains(&point.at_ms));
            for point in buckets.iter().copied().flatten().filter(united) {
                *parts.entry(point.at_ms).or_default() += 1;
            }
            let torn = parts.values().filter(|count| **count != buckets.len()).count();
            findings.torn_histograms += torn;
            findings.whole_histograms += parts.len() - torn;
        }
    }
}

impl Findings {
    /// Samples stored for each that one replica alone would have had.
    pub(crate) fn density(&self) -> f64 {
        if self.expected == 0.0 { 1.0 } else { self.samples as f64 / self.expected }
    }

    /// Counts a problem, and keeps the first few of each kind.
    fn problem(&mut self, what: &'static str, example: impl FnOnce() -> String) {
        let count = self.counts.entry(what).or_default();
        *count += 1;
        if *count <= 3 {
            self.problems.push(format!("{what}: {}", example()));
        }
    }
}

/// When a replica has samples of a series in a time.
fn inside(own: &Series, series: &Labels, time_ms: Range<i64>) -> Vec<i64> {
    let points = own.get(series).into_iter().flatten();
    points.map(|point| point.at_ms).filter(|at_ms| time_ms.contains(at_ms)).collect()
}

/// The longest time between `after` and `until` in which nothing was scraped.
fn longest_silence_ms(scraped: &[i64], after_ms: i64, until_ms: i64) -> i64 {
    let from = scraped.partition_point(|&at| at <= after_ms);
    let to = scraped.partition_point(|&at| at < until_ms).max(from);
    let mut last_ms = after_ms;
    let mut longest_ms = 0;
    for &at_ms in scraped[from..to].iter().chain([&until_ms]) {
        longest_ms = longest_ms.max(at_ms - last_ms);
        last_ms = at_ms;
    }
    longest_ms
}

/// The judge sees what it is there for.
#[cfg(test)]
mod tests {
    use super::{Evidence, Series};
    use promdedup::stand_in::{Labels, Point};

    fn series(samples: &[i64]) -> Series {
        let points = samples.iter().map(|&at| Point::float(at, at as f64)).collect();
        Series::from([(Labels::new([("__name__", "up")]), points)])
    }

    fn check(stored: Series, own: &[i64], expect: &[&str]) {
        check_group(stored, own, 1, expect);
    }

    fn check_group(stored: Series, own: &[i64], replicas: usize, expect: &[&str]) {
        let looked_ms = own.last().copied().unwrap_or(0) + 2_000;
        let evidence = Evidence {
            stored,
            own: vec![series(own); replicas],
            split_ms: Vec::new(),
            hole_max: 1.5,
            looked_ms,
        };
        let problems = evidence.findings(|_| 1_000).problems;
        assert_eq!(problems.is_empty(), expect.is_empty(), "{problems:?}");
        for what in expect {
            assert!(problems.iter().any(|problem| problem.starts_with(what)), "{what}: {problems:?}");
        }
    }

    #[test]
    fn sees_what_is_wrong() {
        let own: [i64; 20] = std::array::from_fn(|nth| nth as i64 * 1_000);
        check(series(&own), &own, &[]);
        let without = |nth: usize| [&own[..nth], &own[nth + 1..]].concat();
        check(series(&without(1)), &own, &[]); // before its second interval
        check(series(&without(2)), &own, &["holes"]);
        check(series(&[0, 1_000, 2_000]), &own, &["samples lost"]);
        check(Series::new(), &own, &["samples lost"]);
        check(series(&[0, 1_000, 1_000, 2_000, 3_000, 4_000]), &own, &["timestamps"]);
        check(series(&[0, 1_000, 2_000, 3_500, 4_500]), &own, &["samples that no replica has"]);
        check(series(&own.map(|at| at / 2)), &own.map(|at| at / 2), &["density"]);
        // Nobody had anything in between.
        check(series(&[0, 1_000, 9_000]), &[0, 1_000, 9_000], &[]);
        // The end of a series whose owner died.
        let ended = |last: usize| {
            let mut stored = series(&own[..=last]);
            stored.values_mut().for_each(|points| points.push(Point::stale(20_500)));
            stored
        };
        check_group(ended(18), &own, 3, &[]);
        check_group(ended(18), &own, 2, &["holes"]);
        check_group(ended(16), &own, 3, &["holes"]);
        let labelled = |(labels, points): (Labels, _)| (labels.with("prometheus_replica", "a"), points);
        check(
            series(&own).into_iter().map(labelled).collect(),
            &own,
            &["series with", "samples that", "samples lost"],
        );
        let mut early_end = series(&own[..3]);
        early_end.values_mut().for_each(|points| points.push(Point::stale(2_500)));
        check(early_end, &own, &["stale markers", "samples lost"]);
    }
}

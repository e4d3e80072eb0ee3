//! The verdict: what was acknowledged, by the senders' places in their schedules, against what the sink has. Pure.

use super::body::labels_hash;
use super::schedule::lock;
use super::sender::{Refused, Run};
use super::store::{Gap, Row, Store};
use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;

/// What was found; all counts but the first two should be 0.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Findings {
    pub(super) series: u64,
    pub(super) samples: u64,
    /// In intervals, from the second distance of each series on.
    pub(super) widest_hole: f64,
    /// Distances above 1.5 intervals, likewise.
    pub(super) holes: u64,
    pub(super) out_of_order: u64,
    /// Samples at the newest time of their series: sent twice.
    pub(super) repeated: u64,
    /// Acknowledged samples without a stored one of their series within two intervals.
    pub(super) lost: u64,
    /// Series of which something was acknowledged and nothing stored.
    pub(super) series_missing: u64,
    /// Series stored with their replica label: nothing was deduplicated.
    pub(super) replica_labels: u64,
}

/// One series on its way through the verdict.
struct Case<'a> {
    run: &'a Run,
    refused: &'a [Refused],
    gaps: &'a HashMap<u64, Vec<Gap>>,
    target: usize,
    shard: usize,
    tolerance_ms: i64,
}

/// Judges when nothing is on its way any more. `replicas` are the values of the replica label.
pub(super) fn judge(run: &Run, replicas: &[String], interval_ms: i64, store: &Store) -> Findings {
    let totals = store.totals();
    let mut findings = Findings {
        series: store.series() as u64,
        samples: totals.samples,
        widest_hole: f64::from(store.widest_ms()) / interval_ms.max(1) as f64,
        holes: totals.holes,
        out_of_order: totals.out_of_order,
        repeated: totals.repeated,
        ..Findings::default()
    };
    let mut gaps: HashMap<u64, Vec<Gap>> = HashMap::new();
    for gap in store.gaps() {
        gaps.entry(gap.series).or_default().push(*gap);
    }
    let refused = lock(&run.refused).clone();
    let mut scratch = Vec::new();
    for target in 0..run.fleet.targets() {
        for (nth, shape) in run.fleet.shapes(run.fleet.form(target)).iter().enumerate() {
            let shard = nth % run.shards;
            let case =
                Case { run, refused: &refused, gaps: &gaps, target, shard, tolerance_ms: 2 * interval_ms };
            let mut rows = |replica: Option<&str>| {
                let series = labels_hash(shape, target, replica, &mut scratch);
                store.row(series).map(|row| (series, row))
            };
            let merged = rows(None);
            let (mut found, lost_before) = (merged.is_some(), findings.lost);
            for (number, replica) in replicas.iter().enumerate() {
                let mut lost = case.lost(number, merged);
                // A receiver that does not know the replica label keeps it.
                if lost > 0
                    && let Some(own) = rows(Some(replica))
                {
                    found = true;
                    findings.replica_labels += 1;
                    lost = lost.min(case.lost(number, Some(own)));
                }
                findings.lost += lost;
            }
            findings.series_missing += u64::from(!found && findings.lost > lost_before);
        }
    }
    findings
}

impl Case<'_> {
    /// Acknowledged samples of one replica that are too far from everything in the row.
    fn lost(&self, replica: usize, row: Option<(u64, Row)>) -> u64 {
        let Some((series, row)) = row else { return self.acknowledged(replica, i64::MIN, i64::MAX) };
        let gaps = self.gaps.get(&series).map_or(&[][..], Vec::as_slice);
        self.acknowledged(replica, i64::MIN, row.first_ms - self.tolerance_ms)
            + self.acknowledged(replica, row.last_ms + self.tolerance_ms, i64::MAX)
            + gaps
                .iter()
                .map(|gap| {
                    let (after, until) = (gap.after_ms + self.tolerance_ms, gap.until_ms - self.tolerance_ms);
                    self.acknowledged(replica, after, until)
                })
                .sum::<u64>()
    }

    fn acknowledged(&self, replica: usize, after_ms: i64, until_ms: i64) -> u64 {
        let place = replica * self.run.shards + self.shard;
        let settled = self.run.settled[place].load(Relaxed);
        let scrapes = self.run.schedules[replica].within(self.target, settled, after_ms, until_ms);
        let was_refused = |nth: u64| {
            self.refused
                .iter()
                .any(|refused| refused.place == place && (refused.from..refused.to).contains(&nth))
        };
        scrapes.filter(|nth| !was_refused(*nth)).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::load::body::Press;
    use crate::command::load::fleet::Fleet;
    use crate::command::load::schedule::{Pace, Schedule};
    use crate::wire::Protocol;
    use std::sync::Mutex;
    use std::sync::atomic::AtomicU64;

    const INTERVAL_MS: i64 = 1_000;
    const SHARDS: usize = 2;

    /// A run of two replicas in which everything of the first `rounds` intervals was acknowledged, and the sink of it.
    fn case(rounds: u64, stored: impl Fn(usize, usize, u64) -> bool) -> (Run, Store) {
        let fleet = Fleet::new(60).unwrap();
        let schedules: Vec<_> =
            (0..2).map(|replica| Schedule::new(&fleet, replica, 1_700_000_000_000, INTERVAL_MS)).collect();
        let mut store = Store::new(60, INTERVAL_MS * 3 / 2, 4 * INTERVAL_MS);
        let scrapes = rounds * fleet.targets() as u64;
        // Of replica 0 only, without its label: what a proxy would have made of both.
        for shard in 0..SHARDS {
            let press = Press::new(&fleet, Protocol::One, "", shard, SHARDS).unwrap();
            for nth in (0..scrapes).filter(|nth| stored(shard, schedules[0].scrape(*nth).target, *nth)) {
                let (body, _) = press.print(&fleet, &[schedules[0].scrape(nth)]);
                let raw = snap::raw::Decoder::new().decompress_vec(&body).unwrap();
                let mut request =
                    <crate::proto::WriteRequest as prost::Message>::decode(raw.as_slice()).unwrap();
                for series in &mut request.timeseries {
                    series.labels.retain(|label| label.name != "prometheus_replica");
                }
                store.append(&prost::Message::encode_to_vec(&request), false).unwrap();
            }
        }
        let run = Run {
            fleet,
            protocol: Protocol::One,
            shards: SHARDS,
            schedules,
            pace: Pace::of_the_clock(),
            real_time: true,
            deadline_ms: 0,
            settled: (0..2 * SHARDS).map(|_| AtomicU64::new(scrapes)).collect(),
            tally: Mutex::default(),
            refused: Mutex::default(),
        };
        (run, store)
    }

    fn findings(run: &Run, store: &Store) -> Findings {
        judge(run, &["a".to_owned(), "b".to_owned()], INTERVAL_MS, store)
    }

    #[test]
    fn nothing_is_lost_when_one_replica_is_stored() {
        let (run, store) = case(10, |_, _, _| true);
        let found = findings(&run, &store);
        assert_eq!((found.series, found.samples, found.lost, found.holes), (60, 600, 0, 0));
        assert!((found.widest_hole - 1.0).abs() < 1e-9);
    }

    #[test]
    fn what_was_acknowledged_and_is_not_there_is_lost() {
        // One shard of one target: nothing at all, from a time on, and for a time.
        let series =
            |run: &Run| run.fleet.shapes(run.fleet.form(1)).iter().skip(1).step_by(SHARDS).count() as u64;
        let targets = 4;
        let (run, store) = case(10, |shard, target, _| (shard, target) != (1, 1));
        let found = findings(&run, &store);
        assert_eq!((found.lost, found.series_missing), (20 * series(&run), series(&run)));
        let (run, store) = case(10, |shard, target, nth| (shard, target) != (1, 1) || nth < 5 * targets);
        let found = findings(&run, &store);
        // Two intervals of the five without a sample are tolerated; the replicas have other phases.
        assert!((5 * series(&run)..=6 * series(&run)).contains(&found.lost), "{found:?}");
        let (run, store) = case(20, |shard, target, nth| {
            (shard, target) != (1, 1) || !(5 * targets..15 * targets).contains(&nth)
        });
        let found = findings(&run, &store);
        assert_eq!(found.holes, series(&run));
        assert!((13 * series(&run)..=15 * series(&run)).contains(&found.lost), "{found:?}");
        assert!((found.widest_hole - 11.0).abs() < 1e-9, "{found:?}");
        // Had the senders been told, it would be no loss.
        for replica in 0..2 {
            let place = replica * SHARDS + 1;
            lock(&run.refused).push(Refused { place, from: 4 * targets, to: 16 * targets });
        }
        assert_eq!(findings(&run, &store).lost, 0);
    }

    #[test]
    fn a_receiver_that_keeps_replica_labels_loses_nothing_by_it() {
        let (run, mut store) = case(3, |_, _, _| false);
        for (replica, name) in ["a", "b"].iter().enumerate() {
            for shard in 0..SHARDS {
                let press = Press::new(&run.fleet, Protocol::One, name, shard, SHARDS).unwrap();
                for nth in 0..3 * run.fleet.targets() as u64 {
                    let (body, _) = press.print(&run.fleet, &[run.schedules[replica].scrape(nth)]);
                    let raw = snap::raw::Decoder::new().decompress_vec(&body).unwrap();
                    store.append(&raw, false).unwrap();
                }
            }
        }
        let found = findings(&run, &store);
        assert_eq!((found.lost, found.replica_labels, found.series_missing), (0, 120, 0));
    }
}

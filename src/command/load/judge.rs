//! The verdict: what was acknowledged, by the senders' places in their schedules, against what the sink has. Pure.

use super::body::labels_hash;
use super::fleet::group_name;
use super::schedule::lock;
use super::sender::{Refused, Run, Seat};
use super::store::{Gap, Row, Store};
use std::collections::HashMap;
use std::ops::Range;
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

/// The series of one generation of a target on their way through the verdict.
struct Case<'a> {
    run: &'a Run,
    refused: &'a [Refused],
    gaps: &'a HashMap<u64, Vec<Gap>>,
    group: usize,
    target: usize,
    /// In which it was scraped as what it is.
    rounds: Range<u64>,
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
    let fleet = &run.fleet;
    for group in 0..fleet.groups() {
        for target in 0..fleet.targets() {
            for generation in 0..=last_generation(run, group, target) {
                let case = Case {
                    run,
                    refused: &refused,
                    gaps: &gaps,
                    group,
                    target,
                    rounds: fleet.rounds(group, target, generation),
                    tolerance_ms: 2 * interval_ms,
                };
                case.judge(generation, replicas, store, &mut findings, &mut scratch);
            }
        }
    }
    findings
}

/// The newest one of which anything can have been sent.
fn last_generation(run: &Run, group: usize, target: usize) -> u64 {
    let rounds = (0..run.replicas).map(|replica| {
        let settled = (0..run.deal.shards).map(|shard| run.place(Seat { group, replica, shard }));
        let settled = settled.map(|place| run.settled[place].load(Relaxed)).max().unwrap_or(0);
        settled / run.schedule(group, replica).round()
    });
    run.fleet.generation(group, target, rounds.max().unwrap_or(0))
}

impl Case<'_> {
    /// All series of a target.
    fn judge(
        &self,
        generation: u64,
        replicas: &[String],
        store: &Store,
        findings: &mut Findings,
        scratch: &mut Vec<u8>,
    ) {
        let fleet = &self.run.fleet;
        let names = [fleet.instance(self.target, generation), group_name(self.group)];
        for (nth, shape) in fleet.shapes(fleet.form(self.target)).iter().enumerate() {
            let dealt = self.run.deal.place(nth);
            let mut rows = |replica: Option<&str>| {
                let series = labels_hash(shape, [&names[0], &names[1]], replica, scratch);
                store.row(series).map(|row| (series, row))
            };
            let merged = rows(None);
            let (mut found, lost_before) = (merged.is_some(), findings.lost);
            for (number, replica) in replicas.iter().enumerate() {
                let mut lost = self.lost(number, dealt, merged);
                // A receiver that does not know the replica label keeps it.
                if lost > 0
                    && let Some(own) = rows(Some(replica))
                {
                    found = true;
                    findings.replica_labels += 1;
                    lost = lost.min(self.lost(number, dealt, Some(own)));
                }
                findings.lost += lost;
            }
            findings.series_missing += u64::from(!found && findings.lost > lost_before);
        }
    }

    /// Acknowledged samples of one replica that are too far from everything in the row.
    fn lost(&self, replica: usize, dealt: (usize, usize), row: Option<(u64, Row)>) -> u64 {
        // A target that takes nothing older than it has may take a backlog for what is there already.
        let first_ms = if Some(replica) == self.run.behind { self.run.live_from_ms } else { i64::MIN };
        let acknowledged =
            |after_ms: i64, until_ms| self.acknowledged(replica, dealt, after_ms.max(first_ms), until_ms);
        let Some((series, row)) = row else { return acknowledged(i64::MIN, i64::MAX) };
        let gaps = self.gaps.get(&series).map_or(&[][..], Vec::as_slice);
        acknowledged(i64::MIN, row.first_ms - self.tolerance_ms)
            + acknowledged(row.last_ms + self.tolerance_ms, i64::MAX)
            + gaps
                .iter()
                .map(|gap| acknowledged(gap.after_ms + self.tolerance_ms, gap.until_ms - self.tolerance_ms))
                .sum::<u64>()
    }

    fn acknowledged(
        &self,
        replica: usize,
        (shard, piece): (usize, usize),
        after_ms: i64,
        until_ms: i64,
    ) -> u64 {
        let place = self.run.place(Seat { group: self.group, replica, shard });
        let settled = self.run.settled[place].load(Relaxed);
        let schedule = self.run.schedule(self.group, replica);
        let scrapes = schedule.within((self.target, piece), &self.rounds, settled, after_ms, until_ms);
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
    use crate::command::load::LoadOptions;
    use crate::command::load::body::{Deal, Press};
    use crate::command::load::fleet::Fleet;
    use crate::command::load::schedule::Schedule;
    use crate::command::load::turns::Turns;
    use crate::wire::Protocol;
    use std::sync::atomic::{AtomicBool, AtomicU64};
    use std::sync::{Mutex, OnceLock};
    use std::time::Duration;

    const INTERVAL_MS: i64 = 1_000;
    const SHARDS: usize = 2;

    /// A run of two replicas in which everything of the first `rounds` intervals was acknowledged, and the sink of it. What is stored is
    /// told by group, shard, target and scrape.
    fn case_of(
        options: &LoadOptions,
        rounds: u64,
        stored: impl Fn(usize, usize, usize, u64) -> bool,
    ) -> (Run, Store) {
        let fleet = Fleet::new(options).unwrap();
        let deal = Deal::new(&fleet, SHARDS, options.batch);
        let schedule = |number| Schedule::new(&fleet, number, deal.pieces, 1_700_000_000_000, INTERVAL_MS);
        let schedules: Vec<_> = (0..2 * options.groups).map(schedule).collect();
        let mut store = Store::new(60, INTERVAL_MS * 3 / 2, 4 * INTERVAL_MS);
        let scrapes = rounds * schedules[0].round();
        // Of replica 0 only, without its label: what a proxy would have made of both.
        for (group, shard) in (0..options.groups).flat_map(|group| [0, 1].map(|shard| (group, shard))) {
            let press = Press::new(&fleet, Protocol::One, "", shard, deal).unwrap();
            let schedule = &schedules[2 * group];
            for nth in (0..scrapes).filter(|nth| stored(group, shard, schedule.scrape(*nth).target, *nth)) {
                let (body, _) = press.print(&fleet, group, &[schedule.scrape(nth)]);
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
            protocol: Protocol::One,
            replicas: 2,
            deal,
            batch: options.batch,
            tenants: 1,
            schedules,
            paces: Vec::new(),
            real_time: true,
            interval_ms: INTERVAL_MS,
            behind: None,
            deadline_ms: 0,
            live_from_ms: i64::MIN,
            settled: (0..2 * SHARDS * options.groups).map(|_| AtomicU64::new(scrapes)).collect(),
            taken: None,
            printing: Turns::default(),
            begun: OnceLock::default(),
            answered: AtomicBool::new(true),
            tally: Mutex::default(),
            refused: Mutex::default(),
            waits: Vec::new(),
            fleet,
        };
        (run, store)
    }

    fn case(rounds: u64, stored: impl Fn(usize, usize, u64) -> bool) -> (Run, Store) {
        let options = LoadOptions { series: 60, ..LoadOptions::to("") };
        case_of(&options, rounds, |_, shard, target, nth| stored(shard, target, nth))
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

    /// Two groups, series that end, and scrapes in pieces: whose, of which generation, and which piece.
    #[test]
    fn what_is_lost_of_one_group_is_seen_among_several() {
        let interval = Duration::from_millis(INTERVAL_MS.unsigned_abs());
        let options =
            LoadOptions { series: 160, groups: 2, batch: 10, churn: 100, interval, ..LoadOptions::to("") };
        let (run, store) = case_of(&options, 100, |_, _, _, _| true);
        let found = findings(&run, &store);
        assert_eq!((found.lost, found.holes, found.samples), (0, 0, 16_000));
        assert!((300..=480).contains(&found.series), "a life is 60 rounds: {found:?}");
        // A shard's 10 series of a target of 20 are one piece; from round 50 on nothing of one of them is stored.
        let round = run.schedules[0].round();
        let (run, store) = case_of(&options, 100, |group, shard, target, nth| {
            (group, shard, target) != (1, 1, 2) || nth < 50 * round
        });
        let found = findings(&run, &store);
        assert!((470..=2 * 500).contains(&found.lost), "{found:?}");
        assert!(found.lost > 900, "{found:?}");
    }

    #[test]
    fn what_is_older_than_the_run_is_no_loss_of_a_replica_that_is_behind() {
        let (mut run, store) = case(10, |_, _, nth| nth >= 5 * 4);
        assert!(findings(&run, &store).lost > 0);
        let options = LoadOptions { series: 60, ..LoadOptions::to("") };
        run.behind = Some(1);
        run.live_from_ms = 1_700_000_000_000 + 5 * INTERVAL_MS;
        let fleet = Fleet::new(&options).unwrap();
        run.schedules[0] = Schedule::new(&fleet, 0, 1, 1_700_000_000_000, INTERVAL_MS).starting_at(5);
        assert_eq!(findings(&run, &store).lost, 0);
        // But of the others it is.
        run.behind = None;
        assert!(findings(&run, &store).lost > 0);
    }

    #[test]
    fn a_receiver_that_keeps_replica_labels_loses_nothing_by_it() {
        let (run, mut store) = case(3, |_, _, _| false);
        for (replica, name) in ["a", "b"].iter().enumerate() {
            for shard in 0..SHARDS {
                let press = Press::new(&run.fleet, Protocol::One, name, shard, run.deal).unwrap();
                for nth in 0..3 * run.fleet.targets() as u64 {
                    let (body, _) = press.print(&run.fleet, 0, &[run.schedules[replica].scrape(nth)]);
                    let raw = snap::raw::Decoder::new().decompress_vec(&body).unwrap();
                    store.append(&raw, false).unwrap();
                }
            }
        }
        let found = findings(&run, &store);
        assert_eq!((found.lost, found.replica_labels, found.series_missing), (0, 120, 0));
    }
}

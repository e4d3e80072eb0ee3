//! The figures of many schedules of several instances, in one table.

use crate::checker::Verdict;
use crate::fleets::Class;
use crate::story::Story;
use std::collections::BTreeMap;
use std::fmt::Write;

/// The widest hole, in intervals: two that a standby has shown and only the instance that died held, and one to the next sample.
pub(crate) const HOLE_MAX: f64 = 3.05;

#[derive(Debug, Default)]
pub(crate) struct Fleets {
    rows: BTreeMap<(Class, usize), Row>,
    problems: Vec<(u64, String)>,
    /// Seeds whose senders dropped batches in a split.
    refused: Vec<(u64, String)>,
}

#[derive(Debug, Default)]
struct Row {
    holes: Vec<f64>,
    settled_ms: Vec<i64>,
    stored: usize,
    moves: usize,
    split_ms: i64,
    split: usize,
    dropped: usize,
    conflicts: u64,
    repeated: u64,
    broken: usize,
}

impl Fleets {
    pub(crate) fn add(&mut self, story: &Story, verdict: &Verdict) {
        let instances = story.fleet.as_ref().map_or(1, |fleet| fleet.ahead_ms.len());
        let row = self.rows.entry((Class::of(story.seed), instances)).or_default();
        let fleet = &verdict.fleet;
        row.holes.push(verdict.hole.width);
        row.settled_ms.push(fleet.settled_ms);
        row.stored += verdict.stored;
        row.moves += fleet.moves;
        row.split_ms += fleet.split_ms;
        row.split += usize::from(fleet.split_ms > 0);
        row.dropped += fleet.dropped_in_split;
        row.conflicts += fleet.conflicts;
        row.repeated += fleet.repeated;
        let faults: Vec<String> = story.faults.iter().map(|fault| fault.what.name()).collect();
        let faults = faults.join(", ");
        if fleet.dropped_in_split > 0 {
            let what = format!("{} batches, {} ({faults})", fleet.dropped_in_split, fleet.first_dropped);
            self.refused.push((story.seed, what));
        }
        let mut broken: Vec<String> =
            verdict.broken.iter().map(|broken| format!("{}: {}", broken.promise, broken.what)).collect();
        if verdict.hole.width > HOLE_MAX {
            broken.push(format!(
                "a hole of {:.2} intervals in series {} at {}",
                verdict.hole.width, verdict.hole.series, verdict.hole.at_ms
            ));
        }
        row.broken += usize::from(!broken.is_empty());
        self.problems.extend(broken.into_iter().map(|what| (story.seed, format!("{what} ({faults})"))));
    }

    pub(crate) fn merge(&mut self, other: Self) {
        for (key, more) in other.rows {
            let row = self.rows.entry(key).or_default();
            row.holes.extend(more.holes);
            row.settled_ms.extend(more.settled_ms);
            row.stored += more.stored;
            row.moves += more.moves;
            row.split_ms += more.split_ms;
            row.split += more.split;
            row.dropped += more.dropped;
            row.conflicts += more.conflicts;
            row.repeated += more.repeated;
            row.broken += more.broken;
        }
        self.refused.extend(other.refused);
        self.refused.sort();
        self.problems.extend(other.problems);
        self.problems.sort();
    }

    /// What was refused for good while two instances served a group, or soon after.
    pub(crate) fn refused(&self) -> impl Iterator<Item = String> {
        self.refused.iter().map(|(seed, what)| format!("seed {seed}: {what}"))
    }

    /// The first seed of which something is.
    pub(crate) fn worst(&self) -> Option<u64> {
        self.problems.first().map(|(seed, _)| *seed)
    }

    /// What is worse than it may be.
    pub(crate) fn problems(&self) -> Vec<String> {
        self.problems.iter().map(|(seed, what)| format!("seed {seed}: {what}")).collect()
    }

    pub(crate) fn print(&mut self) -> String {
        let mut text = String::from(
            "| schedules | instances | how many | samples stored | widest hole: p99 / max | settled, s: p99 / max | groups \
             that changed hands | schedules with a split | split, group-minutes | batches refused in splits | conflicts \
             upstream | sent twice | broken promises |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
        );
        for ((class, instances), row) in &mut self.rows {
            row.holes.sort_by(f64::total_cmp);
            row.settled_ms.sort_unstable();
            let count = row.holes.len();
            let place = |percent: usize| (count * percent / 100).min(count - 1);
            let _ = writeln!(
                text,
                "| {class:?} | {instances} | {count} | {} | {:.2} / {:.2} | {:.1} / {:.1} | {} | {} | {:.1} | {} | {} | {} | {} |",
                row.stored,
                row.holes[place(99)],
                row.holes[place(100)],
                row.settled_ms[place(99)] as f64 / 1e3,
                row.settled_ms[place(100)] as f64 / 1e3,
                row.moves,
                row.split,
                row.split_ms as f64 / 60e3,
                row.dropped,
                row.conflicts,
                row.repeated,
                row.broken,
            );
        }
        text
    }
}

//! The figures of many schedules, in one table.

use crate::checker::{Hole, Verdict};
use crate::make::Class;
use crate::story::Story;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::RangeInclusive;

/// Splits last at most so long, in intervals: with two replicas, and with more, where two standbys may take over at once.
const SPLIT_MAX: [f64; 2] = [3.05, 5.05];
/// While senders catch up with what upstream or the proxy made them keep, holes are at most so wide, in intervals.
const HOLE_MAX_AFTER_OUTAGES: f64 = 4.5;
const CLOCK: &str = "a wrong clock";
const OUTAGE: &str = "upstream or the proxy was away, or refused";
/// Of a younger series nobody may have learned the interval yet, in intervals.
const YOUNG: f64 = 3.0;
/// Longest split of a target that is promised after a fault, in intervals.
const SPLIT_PROMISED: f64 = 3.05;

/// What every schedule of a row has in common: its kind, how many replicas, and how long deliveries take, in tenths of
/// the shortest interval.
type Row = (Class, usize, i64);

#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: BTreeMap<Row, Figures>,
    /// Seeds with a hole that is wider than promised.
    pub(crate) above: Vec<Above>,
    /// Seeds with another density than promised: the seed, the density, and why.
    pub(crate) uneven: Vec<(u64, f64, String)>,
    /// Seeds with a split that is longer than promised: the seed, how long, of which target, since when, and why.
    pub(crate) split: Vec<(u64, f64, String)>,
    /// Seeds that broke a promise.
    pub(crate) broken: Vec<(u64, String)>,
}

/// A story with a hole that is wider than promised.
#[derive(Debug)]
pub(crate) struct Above {
    pub(crate) seed: u64,
    pub(crate) hole: Hole,
    pub(crate) cause: &'static str,
    /// Its class and faults.
    pub(crate) what: String,
}

#[derive(Debug, Default)]
struct Figures {
    holes: Vec<f64>,
    splits: Vec<f64>,
    densities: Vec<f64>,
    false_ends: usize,
    changes_of_owner: u64,
    broken: usize,
    stored: usize,
}

/// The widest hole that the policy allows, in intervals: 1.5, and 2.1 where deliveries take up to a whole interval.
pub(crate) fn hole_max(story: &Story) -> f64 {
    if delay_tenths(story) > 5 { 2.1 } else { 1.5 }
}

/// The density that is promised.
fn density_of(class: Class) -> RangeInclusive<f64> {
    if class == Class::Healthy { 0.999..=1.02 } else { 0.97..=1.07 }
}

fn cause(class: Class, story: &Story, hole: &Hole) -> &'static str {
    match class {
        Class::Clock => CLOCK,
        _ if story.has_outage() => OUTAGE,
        _ if hole.age < YOUNG => "a young series",
        _ => "replicas and targets alone",
    }
}

fn delay_tenths(story: &Story) -> i64 {
    (10 * story.link.delay_max_ms()).div_euclid(story.shortest_interval_ms()) + 1
}

impl Table {
    pub(crate) fn add(&mut self, class: Class, story: &Story, verdict: &Verdict) {
        let row = self.rows.entry((class, story.replicas.len(), delay_tenths(story))).or_default();
        row.holes.push(verdict.hole.width);
        row.splits.push(verdict.split.0);
        row.densities.push(verdict.density);
        row.false_ends += verdict.false_ends;
        row.changes_of_owner += verdict.changes_of_owner;
        row.broken += usize::from(!verdict.broken.is_empty());
        row.stored += verdict.stored;
        let kinds: Vec<String> = story.faults.iter().map(|fault| fault.what.name()).collect();
        let why = format!("{class:?} of {}: {}", story.replicas.len(), kinds.join(", "));
        if verdict.hole.width > hole_max(story) {
            let (hole, cause) = (verdict.hole, cause(class, story, &verdict.hole));
            self.above.push(Above { seed: story.seed, hole, cause, what: why.clone() });
        }
        if !density_of(class).contains(&verdict.density) && class != Class::Clock {
            self.uneven.push((story.seed, verdict.density, why.clone()));
        }
        let (split, target, since_ms) = verdict.split;
        if split > SPLIT_PROMISED {
            self.split.push((story.seed, split, format!("target {target} from {since_ms} ms on, {why}")));
        }
        if let Some(first) = verdict.broken.first() {
            self.broken.push((story.seed, format!("{}: {}", first.promise, first.what)));
        }
    }

    pub(crate) fn merge(&mut self, other: Self) {
        for (key, figures) in other.rows {
            let row = self.rows.entry(key).or_default();
            row.holes.extend(figures.holes);
            row.splits.extend(figures.splits);
            row.densities.extend(figures.densities);
            row.false_ends += figures.false_ends;
            row.changes_of_owner += figures.changes_of_owner;
            row.broken += figures.broken;
            row.stored += figures.stored;
        }
        self.above.extend(other.above);
        self.uneven.extend(other.uneven);
        self.split.extend(other.split);
        self.broken.extend(other.broken);
    }

    /// Everything that is worse than it may be, in words.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = vec![];
        problems
            .extend(self.broken.iter().map(|(seed, what)| format!("seed {seed} broke a promise: {what}")));
        for Above { seed, hole, cause, what } in &self.above {
            // A wrong clock leaves a hole as wide as it jumps. All other holes come from catching up.
            let catches_up = *cause == OUTAGE && hole.width <= HOLE_MAX_AFTER_OUTAGES;
            if !catches_up && *cause != CLOCK {
                problems.push(format!("seed {seed} has a hole of {:.2} intervals: {what}", hole.width));
            }
        }
        let uneven = self.uneven.iter();
        problems
            .extend(uneven.map(|(seed, density, _)| format!("seed {seed} has a density of {density:.3}")));
        for ((class, replicas, _), row) in &self.rows {
            let split_max = SPLIT_MAX[usize::from(*replicas > 2)];
            let split = |split: &&f64| **split > split_max && *class != Class::Clock;
            problems.extend(
                row.splits.iter().find(split).map(|split| format!("{class:?}: split for {split} intervals")),
            );
            if *class == Class::Healthy && row.changes_of_owner > 0 {
                problems.push(format!("{} changes of owner in healthy groups", row.changes_of_owner));
            }
        }
        problems
    }

    pub(crate) fn print(&mut self) -> String {
        let mut text = String::from(
            "| schedules | replicas | delay, intervals | how many | samples stored | widest hole: p99 / max | density: \
             p1 - p99 (min - max) | split after faults: p99 / max | owner changes of healthy groups | false ends | \
             broken promises |\n|---|---|---|---|---|---|---|---|---|---|---|\n",
        );
        for ((class, replicas, delay), row) in &mut self.rows {
            for figures in [&mut row.holes, &mut row.splits, &mut row.densities] {
                figures.sort_by(f64::total_cmp);
            }
            let at = |figures: &[f64], percent: usize| {
                figures[(figures.len() * percent / 100).min(figures.len() - 1)]
            };
            let (holes, splits, densities) = (&row.holes, &row.splits, &row.densities);
            let changes = match class {
                Class::Healthy => row.changes_of_owner.to_string(),
                _ => "-".into(),
            };
            let _ = writeln!(
                text,
                "| {class:?} | {replicas} | {:.1} | {} | {} | {:.2} / {:.2} | {:.3} - {:.3} ({:.3} - {:.3}) | {:.2} / {:.2} \
                 | {changes} | {} | {} |",
                *delay as f64 / 10.0,
                holes.len(),
                row.stored,
                at(holes, 99),
                at(holes, 100),
                at(densities, 1),
                at(densities, 99),
                at(densities, 0),
                at(densities, 100),
                at(splits, 99),
                at(splits, 100),
                row.false_ends,
                row.broken,
            );
        }
        text
    }
}

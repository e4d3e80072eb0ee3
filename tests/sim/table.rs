//! The figures of many schedules, in one table.

use crate::checker::Verdict;
use crate::make::Class;
use crate::story::Story;
use std::collections::BTreeMap;
use std::fmt::Write;

/// What every schedule of a row has in common: its kind, how many replicas, and how long deliveries take, in tenths of
/// the shortest interval.
type Row = (Class, usize, i64);

#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: BTreeMap<Row, Figures>,
    /// Seeds above the figures, with what was wrong most recently and how wide the hole was.
    pub(crate) above: Vec<(u64, f64, String)>,
    /// Seeds that broke a promise.
    pub(crate) broken: Vec<(u64, String)>,
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

fn delay_tenths(story: &Story) -> i64 {
    (10 * story.link.delay_max_ms()).div_euclid(story.shortest_interval_ms()) + 1
}

impl Table {
    pub(crate) fn add(&mut self, class: Class, story: &Story, verdict: &Verdict) {
        let row = self.rows.entry((class, story.replicas.len(), delay_tenths(story))).or_default();
        row.holes.push(verdict.hole.0);
        row.splits.push(verdict.split.0);
        row.densities.push(verdict.density);
        row.false_ends += verdict.false_ends;
        row.changes_of_owner += verdict.changes_of_owner;
        row.broken += usize::from(!verdict.broken.is_empty());
        row.stored += verdict.stored;
        if verdict.hole.0 > hole_max(story) {
            let kinds: Vec<String> = story.faults.iter().map(|fault| fault.what.name()).collect();
            self.above.push((story.seed, verdict.hole.0, format!("{class:?}: {}", kinds.join(", "))));
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
        self.broken.extend(other.broken);
    }

    pub(crate) fn schedules(&self) -> usize {
        self.rows.values().map(|row| row.holes.len()).sum()
    }

    /// The least and the greatest density.
    pub(crate) fn densities(&self, of: impl Fn(Class) -> bool) -> (f64, f64) {
        let rows = self.rows.iter().filter(|((class, ..), _)| of(*class));
        let all = rows.flat_map(|(_, row)| &row.densities);
        all.fold((f64::MAX, 0.0), |(least, most), density| (least.min(*density), most.max(*density)))
    }

    pub(crate) fn longest_split(&self) -> f64 {
        self.rows.values().flat_map(|row| &row.splits).copied().fold(0.0, f64::max)
    }

    pub(crate) fn holes_of(&self, of: Class) -> f64 {
        let rows = self.rows.iter().filter(|((class, ..), _)| *class == of);
        rows.flat_map(|(_, row)| &row.holes).copied().fold(0.0, f64::max)
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

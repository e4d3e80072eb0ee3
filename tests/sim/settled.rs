//! Who served which group, held against the faults of the story: one instance at a time, and all agree soon after.

use crate::checker::{FleetFigures, Verdict};
use crate::front::Served;
use crate::history::Dropped;
use crate::run::Played;
use crate::story::{Fault, Mishap, Story, TargetPlan, What};

/// When the last fault is over, all agree within this time: a heartbeat's expiry, a beat, and a poll for news that got lost.
pub(crate) const SETTLED_MAX_MS: i64 = 30_000;
/// So long a group may be on its way from one instance to another while nothing is wrong.
const MOVED_MAX_MS: i64 = 15_000;
/// A group that an instance leaves, as it ends, is somebody else's within this time: senders that were refused come again after a
/// second, or bring the next scrape, and whoever has it hears of it at once. An expired heartbeat takes longer.
const LEFT_MAX_MS: i64 = 5_000;
/// Longer intervals than this one say nothing about that: nobody asks for the group.
const ASKED_FOR_MS: i64 = 2_000;
/// What two instances sent upstream for one group is felt for so long when one of them has stopped.
const FELT_MS: i64 = 60_000;

impl Served {
    /// Whether two instances served the group at a time, or lately.
    pub(crate) fn is_split(&self, at_ms: i64) -> bool {
        self.splits().any(|(from_ms, until_ms)| (from_ms..until_ms.saturating_add(FELT_MS)).contains(&at_ms))
    }

    fn splits(&self) -> impl Iterator<Item = (i64, i64)> {
        spans(&self.by, |by| u32::count_ones(by) > 1)
    }

    fn disagreements(&self) -> impl Iterator<Item = (i64, i64)> {
        spans(&self.disagree, |disagree| disagree)
    }
}

/// From when until when it was so.
fn spans<T: Copy>(changes: &[(i64, T)], is_so: impl Fn(T) -> bool) -> impl Iterator<Item = (i64, i64)> {
    changes.iter().enumerate().filter(move |(_, (_, what))| is_so(*what)).map(|(nth, (from_ms, _))| {
        (*from_ms, changes.get(nth + 1).map_or(i64::MAX, |(until_ms, _)| *until_ms))
    })
}

/// Whether a batch was refused while two instances served a group of it, or soon after.
pub(crate) fn is_of_a_split(played: &Played, dropped: &Dropped) -> bool {
    let is_split = |group: &usize| played.served.get(*group).is_some_and(|s| s.is_split(dropped.at_ms));
    dropped.groups.iter().any(is_split)
}

/// Judges what one instance alone has not.
pub(crate) fn judge(played: &Played, verdict: &mut Verdict) {
    let story = &played.world.story;
    if story.fleet.is_none() {
        return;
    }
    let calm_ms = story.faults.iter().map(|fault| fault.at_ms + fault.for_ms).max().unwrap_or(0);
    let mut figures = FleetFigures::default();
    for (group, served) in played.served.iter().enumerate() {
        figures.split_ms +=
            served.splits().map(|(from_ms, until_ms)| until_ms.min(story.span_ms) - from_ms).sum::<i64>();
        figures.moves += served.by.windows(2).filter(|pair| pair[1].1 != 0 && pair[0].1 != pair[1].1).count();
        for (from_ms, until_ms) in served.disagreements().filter(|(_, until_ms)| *until_ms > calm_ms) {
            let since_ms = from_ms.max(calm_ms);
            let for_ms = until_ms.saturating_sub(since_ms);
            let (promise, most_ms) = match from_ms <= calm_ms {
                true => ("placement settles", SETTLED_MAX_MS),
                false => ("instances agree", MOVED_MAX_MS),
            };
            if from_ms <= calm_ms {
                figures.settled_ms = figures.settled_ms.max(for_ms);
            }
            if for_ms > most_ms {
                let what = format!("group {group}: {for_ms} ms from {since_ms} on, calm at {calm_ms}");
                verdict.broke(promise, None, what);
            }
        }
        if served.by.is_empty() {
            verdict.broke("each group is served", None, format!("group {group}"));
        }
        for (instance, from_ms, for_ms) in left(story, group, served) {
            let what = format!("group {group} of i{instance} was nobody's for {for_ms} ms from {from_ms} on");
            verdict.broke("who ends leaves its groups", None, what);
        }
    }
    if played.orphans > 0 {
        verdict.broke("each group's owner lives", None, format!("{} groups", played.orphans));
    }
    let history = played.world.history();
    let mut dropped = history.dropped.iter().filter(|dropped| is_of_a_split(played, dropped));
    if let Some(first) = dropped.next() {
        figures.dropped_in_split = 1 + dropped.count();
        figures.first_dropped = format!("series {} at {}: {}", first.series, first.at_ms, first.what);
    }
    let seen = played.thanos.tsdb().violations;
    figures.conflicts = seen.out_of_order + seen.duplicate_timestamp;
    figures.repeated = seen.duplicate_identical;
    verdict.fleet = figures;
}

/// Instances that were asked to end while nothing else was wrong, and left a group to nobody: which, since when, and for how long.
fn left(story: &Story, group: usize, served: &Served) -> Vec<(usize, i64, i64)> {
    let asked_for = story
        .targets
        .iter()
        .any(|target| target.group == group && target.life.0 == 0 && target.interval_ms(0) <= ASKED_FOR_MS);
    // A sender that waits for another group brings nothing of this one.
    let mixes = |one: &TargetPlan| {
        story.targets.iter().any(|other| other.team == one.team && other.group != one.group)
    };
    let asked_for = asked_for && !story.targets.iter().any(mixes);
    let ends = story.faults.iter().filter_map(|fault| match fault.what {
        What::Fleet(Mishap::Ends { instance } | Mishap::Quits { instance }) if asked_for => {
            Some((instance, fault))
        }
        _ => None,
    });
    let is_alone = |this: &Fault| {
        let reach_ms =
            |fault: &Fault| (fault.at_ms - SETTLED_MAX_MS, fault.at_ms + fault.for_ms + SETTLED_MAX_MS);
        let (from_ms, until_ms) = reach_ms(this);
        let others = story.faults.iter().filter(|other| other.at_ms != this.at_ms || other.what != this.what);
        others
            .map(|other| (other.at_ms, other.at_ms + other.for_ms))
            .all(|(begin, end)| end < from_ms || begin > until_ms)
    };
    let gone = ends.filter(|(_, fault)| is_alone(fault)).filter_map(|(instance, fault)| {
        let has = |by: u32| by >> instance & 1 == 1;
        let first = served.by.iter().rposition(|(at_ms, _)| *at_ms <= fault.at_ms)?;
        let lasts = served.by[first..].windows(2).find(|pair| has(pair[0].1) && !has(pair[1].1))?;
        let from_ms = lasts[1].0;
        let over = served.by.iter().find(|(at_ms, by)| *at_ms >= from_ms && *by != 0);
        let for_ms = over.map_or(story.span_ms, |(at_ms, _)| *at_ms) - from_ms;
        (has(served.by[first].1) && from_ms <= fault.at_ms + fault.for_ms && for_ms > LEFT_MAX_MS)
            .then_some((instance, from_ms, for_ms))
    });
    gone.collect()
}

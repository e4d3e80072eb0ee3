//! Stories by seed.

use crate::dice::Dice;
use crate::story::{Fault, Kind, Link, ProxyPlan, ReplicaPlan, SeriesPlan, Sick, Story, TargetPlan, What};

const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;
/// The interval of most targets, and so the measure of how often something goes wrong.
const USUAL_MS: i64 = 15 * SECOND;
/// Intervals between the end of one fault and the next.
const QUIET: i64 = 20;

/// What kind of story a seed tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// Nothing is wrong. Series are born and end.
    Healthy,
    /// One fault at a time.
    OneFault,
    /// Two at a time, of which one is upstream's or the proxy's, or both are one replica's.
    TwoFaults,
    /// Upstream is away for most of an hour, and perhaps a replica restarts meanwhile.
    LongOutage,
    /// The window has room for a part of the series.
    Full,
    /// A clock is off, or jumps.
    Clock,
    /// Targets change their interval.
    Intervals,
}

impl Class {
    pub(crate) fn of(seed: u64) -> Self {
        match seed % 100 {
            0..=14 => Self::Healthy,
            15..=59 => Self::OneFault,
            60..=82 => Self::TwoFaults,
            83..=85 => Self::LongOutage,
            86..=88 => Self::Full,
            89..=94 => Self::Clock,
            _ => Self::Intervals,
        }
    }
}

/// The story of a seed.
pub(crate) fn story(seed: u64) -> Story {
    let class = Class::of(seed);
    let mut dice = Dice::new(seed, 0);
    let dice = &mut dice;
    let replicas = if dice.percent(65) { 2 } else { 3 };
    let quick = class != Class::LongOutage && dice.percent(40);
    let span_ms = match (class, quick) {
        (Class::LongOutage, _) => 100 * MINUTE,
        (_, true) => dice.of(8 * MINUTE..=14 * MINUTE),
        (_, false) => dice.of(25 * MINUTE..=45 * MINUTE),
    };
    let shortest_ms = if quick { SECOND } else { USUAL_MS };
    let delay_ms = dice.pick(&[shortest_ms / 10, shortest_ms / 2, shortest_ms]);
    let targets = targets(dice, replicas, quick, span_ms, class);
    let series: usize = targets.iter().map(|target| target.series.len() + 2).sum();
    let link = Link {
        flush_ms: delay_ms / 4,
        way_ms: delay_ms / 8,
        store_ms: delay_ms / 4,
        batch: dice.pick(&[5, 30, 200]).max(batch_for(&targets, delay_ms)),
    };
    let mut story = Story {
        seed,
        span_ms,
        replicas: (0..replicas)
            .map(|_| ReplicaPlan { team: 0, shards: dice.pick(&[1, 2, 4]), clock: vec![] })
            .collect(),
        link,
        proxy: ProxyPlan {
            series_max: if class == Class::Full { series * 6 / 10 } else { 10_000 },
            idle_ms: dice.pick(&[12 * MINUTE, 60 * MINUTE]),
            hold_ms: 6 * SECOND,
        },
        targets,
        fleet: None,
        faults: vec![],
    };
    match class {
        Class::Healthy => {}
        Class::OneFault | Class::Intervals | Class::Full => one_at_a_time(dice, &mut story),
        Class::TwoFaults => two_at_a_time(dice, &mut story),
        Class::LongOutage => long_outage(dice, &mut story),
        Class::Clock => wrong_clock(dice, &mut story),
    }
    story
}

/// The smallest batch with which even one shard keeps up with three times of what there is.
fn batch_for(targets: &[TargetPlan], delay_ms: i64) -> usize {
    let rates = targets.iter().map(|target| (target.series.len() + 2) as f64 / target.interval_ms(0) as f64);
    (3.0 * rates.sum::<f64>() * delay_ms as f64).ceil() as usize
}

fn targets(dice: &mut Dice, replicas: usize, quick: bool, span_ms: i64, class: Class) -> Vec<TargetPlan> {
    let mut targets = vec![];
    let mut add = |dice: &mut Dice, interval_ms: i64, kind: Kind| {
        let common = dice.of(0..=interval_ms - 1);
        let phases = (0..replicas).map(|_| match kind {
            Kind::Rules => common,
            Kind::Scraped => dice.of(0..=interval_ms - 1),
        });
        let phases_ms = phases.collect();
        let life = match interval_ms {
            SECOND => (MINUTE, 5 * MINUTE),
            USUAL_MS if kind == Kind::Scraped && dice.percent(20) => some_time(dice, span_ms, 20 * USUAL_MS),
            _ => (0, i64::MAX),
        };
        let count = if interval_ms == SECOND { 2 } else { dice.of(1..=4) };
        let series = (0..count).map(|_| some_series(dice, replicas, span_ms, interval_ms)).collect();
        let mut intervals_ms = vec![(0, interval_ms)];
        if class == Class::Intervals && interval_ms == USUAL_MS && dice.percent(30) {
            let (from, until) = some_time(dice, span_ms, 20 * USUAL_MS);
            intervals_ms.extend([(from, 2 * USUAL_MS), (until, USUAL_MS)]);
        }
        let jitter_ms = if dice.percent(10) { interval_ms / 50 } else { 0 };
        targets.push(TargetPlan {
            team: 0,
            group: 0,
            intervals_ms,
            phases_ms,
            jitter_ms,
            kind,
            life,
            series,
        });
    };
    if quick {
        add(dice, SECOND, Kind::Scraped);
        add(dice, SECOND, Kind::Scraped);
    }
    (0..12).for_each(|_| add(dice, USUAL_MS, Kind::Scraped));
    (0..4).for_each(|_| add(dice, MINUTE, Kind::Scraped));
    (0..2).for_each(|_| add(dice, 5 * MINUTE, Kind::Scraped));
    add(dice, USUAL_MS, Kind::Rules);
    add(dice, MINUTE, Kind::Rules);
    targets
}

/// A part of the span that is not too short.
fn some_time(dice: &mut Dice, span_ms: i64, at_least_ms: i64) -> (i64, i64) {
    let from = dice.of(0..=(span_ms - at_least_ms).max(0));
    (from, dice.of(from + at_least_ms..=span_ms.max(from + at_least_ms)))
}

fn some_series(dice: &mut Dice, replicas: usize, span_ms: i64, interval_ms: i64) -> SeriesPlan {
    match dice.of(0..=99) {
        0..=9 => {
            let (from, until) = some_time(dice, span_ms, 10 * interval_ms);
            SeriesPlan::Life(from, until)
        }
        10..=13 => SeriesPlan::Rare(10),
        14..=16 => SeriesPlan::Only(dice.below(replicas)),
        _ => SeriesPlan::Steady,
    }
}

fn one_at_a_time(dice: &mut Dice, story: &mut Story) {
    let most = story.span_ms / (QUIET * USUAL_MS * 2);
    let count = dice.of(1..=most.max(1));
    let mut at_ms = first_fault_ms(dice, story);
    for _ in 0..count {
        let what = any_fault(dice, story);
        let Some(fault) = fault(dice, story, what, at_ms) else { return };
        story.faults.push(fault);
        at_ms = fault.at_ms + fault.for_ms + dice.of(QUIET * USUAL_MS..=2 * QUIET * USUAL_MS);
    }
}

fn two_at_a_time(dice: &mut Dice, story: &mut Story) {
    let mut at_ms = first_fault_ms(dice, story);
    for _ in 0..3 {
        let first = replica_fault(dice, story);
        let second = if dice.percent(70) {
            central_fault(dice)
        } else {
            // With the same replica, or with three replicas also another one: one is always well.
            let mut second = replica_fault(dice, story);
            while story.replicas.len() == 2 && second.replica() != first.replica() {
                second = replica_fault(dice, story);
            }
            second
        };
        let Some(first) = fault(dice, story, first, at_ms) else { return };
        let offset_ms = dice.of(0..=first.for_ms);
        let Some(second) = fault(dice, story, second, at_ms + offset_ms) else { return };
        story.faults.extend([first, second]);
        let end_ms = (first.at_ms + first.for_ms).max(second.at_ms + second.for_ms);
        at_ms = end_ms + dice.of(QUIET * USUAL_MS..=2 * QUIET * USUAL_MS);
    }
}

fn long_outage(dice: &mut Dice, story: &mut Story) {
    let what = What::Upstream(dice.pick(&[
        Sick::Answers(503),
        Sick::Hangs { stores: false },
        Sick::Resets { stores: false },
    ]));
    let at_ms = dice.of(10 * MINUTE..=15 * MINUTE);
    let for_ms = dice.of(40 * MINUTE..=55 * MINUTE);
    story.faults.push(Fault { at_ms, for_ms, what });
    if dice.percent(70) {
        let replica = dice.below(story.replicas.len());
        let what = What::Death { replica, moved: dice.percent(50) };
        let at_ms = at_ms + dice.of(0..=for_ms);
        story.faults.push(Fault { at_ms, for_ms: dice.of(5 * SECOND..=2 * MINUTE), what });
    }
}

fn wrong_clock(dice: &mut Dice, story: &mut Story) {
    let replica = dice.below(story.replicas.len());
    let ahead = dice.pick(&[3 * SECOND, 40 * SECOND, -3 * SECOND, -40 * SECOND]);
    let clock = &mut story.replicas[replica].clock;
    if dice.percent(50) {
        clock.push((0, ahead));
    } else {
        let (from, until) = some_time(dice, story.span_ms - 5 * MINUTE, 2 * MINUTE);
        clock.extend([(from, ahead), (until, 0)]);
    }
}

/// In the life of the quick targets, if there are any.
fn first_fault_ms(dice: &mut Dice, story: &Story) -> i64 {
    match story.shortest_interval_ms() {
        SECOND => dice.of(MINUTE + 30 * SECOND..=4 * MINUTE),
        _ => dice.of(4 * MINUTE..=8 * MINUTE),
    }
}

fn any_fault(dice: &mut Dice, story: &Story) -> What {
    if dice.percent(65) { replica_fault(dice, story) } else { central_fault(dice) }
}

fn replica_fault(dice: &mut Dice, story: &Story) -> What {
    let replica = dice.below(story.replicas.len());
    let mut targets = 0;
    for _ in 0..dice.of(1..=6) {
        targets |= 1 << dice.below(story.targets.len());
    }
    match dice.below(9) {
        0 | 1 => What::Death { replica, moved: dice.percent(50) },
        2 => What::Frozen { replica },
        3 => What::Partition { replica },
        4 => What::Slow { replica, delay_ms: dice.pick(&[SECOND, USUAL_MS, MINUTE]) * dice.of(10..=25) / 10 },
        5 => dice.pick(&[What::Flaky { replica }, What::Reshard { replica, shards: 3 }]),
        6 => What::Skipped { replica, targets },
        7 => What::Unreachable { replica, targets },
        _ => What::Removed { replica, targets },
    }
}

fn central_fault(dice: &mut Dice) -> What {
    match dice.below(9) {
        0 => What::Upstream(Sick::Answers(dice.pick(&[503, 500, 429, 401]))),
        1 => What::Upstream(Sick::StoresAndAnswers(dice.pick(&[503, 500]))),
        2 => What::Upstream(Sick::Hangs { stores: dice.percent(50) }),
        3 => What::Upstream(Sick::Resets { stores: dice.percent(50) }),
        4 => What::Upstream(Sick::TakesAtMost(dice.pick(&[1, 4, 20]))),
        5 => What::Upstream(Sick::Moody),
        6 => What::Upstream(Sick::StoresAndAnswers(409)),
        7 => What::ProxyTerm,
        _ => What::ProxyCrash,
    }
}

/// `None`: there is no time left for it.
fn fault(dice: &mut Dice, story: &Story, what: What, at_ms: i64) -> Option<Fault> {
    let quick = story.shortest_interval_ms() == SECOND;
    let for_ms = match what {
        What::Skipped { .. } => USUAL_MS,
        What::Removed { .. } => dice.of(3 * USUAL_MS..=12 * USUAL_MS),
        What::Reshard { .. } => SECOND,
        What::ProxyTerm | What::ProxyCrash => dice.of(100..=20 * SECOND),
        _ if !quick && dice.percent(20) => dice.of(3 * MINUTE..=12 * MINUTE),
        _ if quick && dice.percent(50) => dice.of(SECOND..=12 * SECOND),
        _ => dice.of(USUAL_MS..=12 * USUAL_MS),
    };
    (at_ms + for_ms < story.span_ms - 3 * MINUTE).then_some(Fault { at_ms, for_ms, what })
}

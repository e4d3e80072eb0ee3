//! Stories of several instances, by seed.

use crate::dice::Dice;
use crate::story::{
    Fault, FleetPlan, Kind, Link, Mishap, ProxyPlan, ReplicaPlan, SeriesPlan, Sick, Story, TargetPlan, What,
};
use promdedup::stand_in::coordination::Reach;

const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;
/// Between the end of one fault and the next: placement has come to rest, and groups may be given away again.
const QUIET_MS: i64 = 90 * SECOND;

/// What kind of story a seed tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// Nothing is wrong: groups are only given away.
    Healthy,
    /// One fault at a time.
    OneFault,
    /// Two at a time.
    TwoFaults,
    /// One after the other, before placement has come to rest: instances that end, start, and are not reached, and a database that is away.
    Restless,
}

impl Class {
    pub(crate) fn of(seed: u64) -> Self {
        match seed % 10 {
            0 => Self::Healthy,
            1..=4 => Self::OneFault,
            5..=7 => Self::TwoFaults,
            _ => Self::Restless,
        }
    }
}

/// Whether two HA groups have their replicas in common, so that requests mix them. By a digit of its own, so that the other stories
/// stay as they are.
pub(crate) const fn mixes(seed: u64) -> bool {
    (seed / 10) % 8 == 3
}

/// Whether the database loses its last seconds, and not all that it has. The same for the same reason.
const fn falls_back(at_ms: i64) -> bool {
    at_ms % 4 < 2
}

/// The story of a seed.
pub(crate) fn story(seed: u64) -> Story {
    let mut dice = Dice::new(seed, 2);
    let dice = &mut dice;
    let instances = dice.below(3) + 2;
    let groups = dice.below(6) + 3;
    let each = if dice.percent(75) { 2 } else { 3 };
    let interval_ms = dice.pick(&[2 * SECOND, 15 * SECOND]);
    let span_ms = dice.of(10 * MINUTE..=16 * MINUTE);
    let delay_ms = interval_ms / dice.pick(&[10, 2]);
    let mut replicas = vec![];
    let mut targets = vec![];
    let team_of = |group| if mixes(seed) { group / 2 } else { group };
    for team in 0..=team_of(groups - 1) {
        replicas.extend((0..each).map(|_| ReplicaPlan {
            team,
            shards: dice.pick(&[1, 2, 4]),
            clock: vec![],
        }));
    }
    for group in 0..groups {
        // Each group brings another load.
        for nth in 0..=group % 4 {
            let target = target(dice, group, nth, replicas.len(), interval_ms);
            targets.push(TargetPlan { team: team_of(group), ..target });
        }
    }
    let offsets = [0, 0, 500, -500, 2 * SECOND, 5 * SECOND, -5 * SECOND];
    let mut story = Story {
        seed,
        span_ms,
        replicas,
        targets,
        link: Link {
            flush_ms: delay_ms / 4,
            way_ms: delay_ms / 8,
            store_ms: delay_ms / 4,
            batch: dice.pick(&[5, 30, 200]),
        },
        proxy: ProxyPlan { series_max: 10_000, idle_ms: 60 * MINUTE, hold_ms: 6 * SECOND },
        fleet: Some(FleetPlan {
            ahead_ms: (0..instances).map(|_| dice.pick(&offsets)).collect(),
            database_ms: dice.pick(&[2, 20, 300]),
            hop_ms: dice.pick(&[1, 20]),
            by_chance: dice.percent(50),
            lead_ms: dice.pick(&[0, SECOND, 5 * SECOND]),
        }),
        faults: vec![],
    };
    let quiet_ms =
        if Class::of(seed) == Class::Restless { (SECOND, 40 * SECOND) } else { (QUIET_MS, 2 * QUIET_MS) };
    let mut at_ms = dice.of(MINUTE..=2 * MINUTE);
    while Class::of(seed) != Class::Healthy {
        let first = fault(dice, &story, instances, at_ms);
        let second = (Class::of(seed) == Class::TwoFaults).then(|| {
            let at_ms = at_ms + dice.of(0..=first.for_ms);
            fault(dice, &story, instances, at_ms)
        });
        // An instance can die once at a time.
        let second = second.filter(|second| {
            strikes(&second.what).is_none() || strikes(&second.what) != strikes(&first.what)
        });
        let end_ms = [Some(first), second].iter().flatten().map(|fault| fault.at_ms + fault.for_ms).max();
        at_ms = end_ms.unwrap_or(0) + dice.of(quiet_ms.0..=quiet_ms.1);
        if end_ms.unwrap_or(0) > span_ms - QUIET_MS {
            break;
        }
        story.faults.push(first);
        story.faults.extend(second);
    }
    story
}

fn target(dice: &mut Dice, group: usize, nth: usize, replicas: usize, interval_ms: i64) -> TargetPlan {
    TargetPlan {
        team: group,
        group,
        intervals_ms: vec![(0, interval_ms)],
        phases_ms: (0..replicas).map(|_| dice.of(0..=interval_ms - 1)).collect(),
        jitter_ms: if dice.percent(10) { interval_ms / 50 } else { 0 },
        kind: Kind::Scraped,
        life: (0, i64::MAX),
        series: vec![SeriesPlan::Steady; 1 + (group + nth) % 3],
    }
}

/// The process that a fault ends, or whose place in the world it changes.
fn strikes(what: &What) -> Option<usize> {
    match *what {
        What::Fleet(Mishap::Crash { instance } | Mishap::Ends { instance } | Mishap::Comes { instance }) => {
            Some(instance)
        }
        _ => None,
    }
}

fn fault(dice: &mut Dice, story: &Story, instances: usize, at_ms: i64) -> Fault {
    let instance = dice.below(instances);
    let reach = dice.pick(&[Reach::Refused, Reach::Silent, Reach::Unanswered]);
    let kind = match Class::of(story.seed) {
        Class::Restless => dice.pick(&[0, 0, 2, 2, 5, 5, 9, 9]),
        _ => dice.below(13),
    };
    let (what, longest_ms) = match kind {
        0 | 1 => (Mishap::Crash { instance }, 30 * SECOND),
        2 | 3 => (Mishap::Ends { instance }, 40 * SECOND),
        4 if !story.comes_later(instance) && story.faults.is_empty() && instance > 0 => {
            (Mishap::Comes { instance }, SECOND)
        }
        4 | 5 => (Mishap::DatabaseAway { reach }, MINUTE),
        6 => (Mishap::NoDatabase { instance, reach }, MINUTE),
        7 => (Mishap::DatabaseSlow { more_ms: dice.pick(&[500, 1_200, 3_000]) }, MINUTE),
        8 if falls_back(at_ms) => (Mishap::DatabaseFallsBack, 20 * SECOND),
        8 => (Mishap::DatabaseForgets, SECOND),
        9 if dice.percent(50) => (Mishap::Unreached { instance, hangs: dice.percent(50) }, MINUTE),
        9 => {
            let other = (instance + 1 + dice.below(instances - 1)) % instances;
            (Mishap::Apart { one: instance, other, hangs: dice.percent(50) }, MINUTE)
        }
        10 | 11 => {
            let sick = dice.pick(&[
                Sick::Answers(503),
                Sick::Hangs { stores: true },
                Sick::Resets { stores: true },
                Sick::Moody,
            ]);
            return Fault { at_ms, for_ms: dice.of(SECOND..=MINUTE), what: What::Upstream(sick) };
        }
        _ => {
            let replica = dice.below(story.replicas.len());
            let what = What::Death { replica, moved: dice.percent(50) };
            return Fault { at_ms, for_ms: dice.of(SECOND..=MINUTE), what };
        }
    };
    Fault { at_ms, for_ms: dice.of(SECOND..=longest_ms.max(SECOND)), what: What::Fleet(what) }
}

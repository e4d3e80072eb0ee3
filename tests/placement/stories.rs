//! What happens to a fleet, told as rows of a table.

use super::fleet::{Fleet, STEP_S};

/// No move for so many steps: it is at rest.
const REST_STEPS: u64 = 90;
const STEPS_MAX: u64 = 3600 / STEP_S;

/// What became of a fleet.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) what: &'static str,
    /// The heaviest load by the mean, before anybody moved anything, and at rest.
    pub(crate) before: f64,
    pub(crate) balance: f64,
    /// Groups that changed hands without need: nobody had gone.
    pub(crate) moves: u64,
    pub(crate) moved_twice: u64,
    pub(crate) claims: u64,
    pub(crate) settled_s: u64,
    pub(crate) statements_a_second: f64,
    pub(crate) statements_at_rest: f64,
}

/// Until it is at rest.
fn rest(what: &'static str, fleet: &mut Fleet) -> Told {
    let (mut last_move, mut moves) = (fleet.steps(), fleet.moves);
    let mut before = None;
    while (fleet.steps() < last_move + REST_STEPS || !fleet.is_whole()) && fleet.steps() < STEPS_MAX {
        fleet.step();
        if before.is_none() && fleet.is_whole() {
            before = Some(fleet.balance());
        }
        if fleet.moves > moves || !fleet.is_whole() {
            (last_move, moves) = (fleet.steps(), fleet.moves);
        }
    }
    fleet.check();
    let settled_s = last_move * STEP_S;
    let at_rest = fleet.statements_at_rest();
    Told {
        what,
        before: before.unwrap_or(f64::NAN),
        balance: fleet.balance(),
        moves: fleet.moves,
        moved_twice: fleet.moved_twice,
        claims: fleet.claims,
        settled_s,
        statements_a_second: at_rest + (fleet.claims + fleet.moves) as f64 / settled_s.max(STEP_S) as f64,
        statements_at_rest: at_rest,
    }
}

/// All stories, of a fleet of that size.
pub(crate) fn all(instances: usize, groups: usize, seed: u64) -> Vec<Told> {
    let mut told = Vec::new();
    let begin = || {
        let mut fleet = Fleet::new(instances, groups, seed);
        let told = rest("from nothing", &mut fleet);
        fleet.begin();
        (fleet, told)
    };
    told.push(begin().1);

    let (mut fleet, _) = begin();
    fleet.add(instances.div_ceil(10));
    told.push(rest("10 % more instances", &mut fleet));

    let (mut fleet, _) = begin();
    fleet.add(instances);
    told.push(rest("twice as many instances", &mut fleet));

    let (mut fleet, _) = begin();
    let gone: Vec<usize> = fleet.alive().into_iter().step_by(10).collect();
    fleet.kill(&gone);
    told.push(rest("10 % killed at once", &mut fleet));

    let (mut fleet, _) = begin();
    let gone: Vec<usize> = fleet.alive().into_iter().take(instances / 3).collect();
    fleet.kill(&gone);
    told.push(rest("a rack with a third killed", &mut fleet));

    // A tenth at a time, a minute between, as a rolling update does: each that ends is replaced by one that has just come.
    let (mut fleet, _) = begin();
    let all = fleet.alive();
    for tenth in all.chunks(instances.div_ceil(10)) {
        fleet.terminate(tenth);
        fleet.add(tenth.len());
        (0..60 / STEP_S).for_each(|_| fleet.step());
    }
    told.push(rest("rolling restart, a tenth a minute", &mut fleet));
    told
}

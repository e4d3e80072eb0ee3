//! Schedules of faults around the real routes, admission, pipeline, window and policy, in simulated time.
//!
//! Replicas that behave as Prometheus' scrape loops and queue manager do, an upstream with the rules of the TSDB, a
//! network between them, and a checker that holds what is stored against what was sent and acknowledged. A seed is a
//! story: `cargo run --release --example simulate -- --seed N` tells it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails with a panic")]

mod checker;
mod database;
mod dice;
mod fleets;
mod front;
mod history;
mod make;
mod many;
mod peers;
mod proxy;
mod queue;
mod replica;
mod run;
mod scenes;
mod settled;
mod shorten;
mod story;
mod table;
mod tally;
mod upstream;
mod world;

use checker::judge;
use run::play;
use story::{Fault, Mishap, Sick, What};

#[test]
fn five_hundred_schedules_keep_all_promises() {
    let mut table = many::all(0..500, |_| {});
    println!("{}", table.print());
    let problems = table.problems();
    if let Some((seed, _)) = table.broken.first() {
        let story = make::story(*seed);
        let promise = judge(&play(&story, None)).broken[0].promise;
        panic!("{problems:#?}\n{}", shorten::told(&story, promise));
    }
    assert!(problems.is_empty(), "{problems:#?}");
}

/// What went wrong in each is told in CONTRIBUTING.md.
#[test]
fn schedules_that_once_broke_a_promise_keep_it() {
    const HEALTHY: u64 = 3001;
    for seed in [HEALTHY, 9570, 12562, 7280] {
        let (_, verdict) = many::one(seed);
        assert!(verdict.broken.is_empty(), "seed {seed}: {:#?}", verdict.broken);
        assert!(seed != HEALTHY || verdict.waits == 0, "{} waits in a healthy group", verdict.waits);
    }
}

/// Each kind of story, with two, three or four instances.
#[test]
fn schedules_of_several_instances_keep_all_promises() {
    let mut table = many::fleets(0..24, |_| {});
    println!("{}", table.print());
    table.refused().for_each(|refused| println!("refused for good in a split: {refused}"));
    let problems = table.problems();
    if let Some(seed) = table.worst() {
        let story = fleets::story(seed);
        let told =
            judge(&play(&story, None)).broken.first().map(|first| shorten::told(&story, first.promise));
        panic!("{problems:#?}\n{}", told.unwrap_or_default());
    }
}

#[test]
fn a_seed_tells_the_same_story_each_time() {
    let one = [17, 62, 96].map(|seed| (seed, make::story(seed)));
    let several = [12, 17].map(|seed| (seed, fleets::story(seed)));
    for (seed, story) in one.into_iter().chain(several) {
        let told = || {
            let played = play(&story, Some(3));
            let lines = played.world.history().lines.clone();
            (lines, judge(&played).stored)
        };
        let first = told();
        assert!(first.0.len() > 50, "something is told");
        assert_eq!(first, told(), "seed {seed}");
    }
}

/// The checker is no ornament: an upstream that forgets what it has acknowledged is found out.
#[test]
fn a_lie_is_found_out() {
    let mut story = make::story(15);
    story.faults = vec![Fault { at_ms: 120_000, for_ms: 90_000, what: What::Upstream(Sick::Lies) }];
    let verdict = judge(&play(&story, None));
    let promises: Vec<&str> = verdict.broken.iter().map(|broken| broken.promise).collect();
    assert!(promises.contains(&"acknowledged only what upstream has"), "{promises:?}");
    assert!(promises.contains(&"nothing acknowledged is lost"), "{promises:?}");
    assert!(verdict.hole.width > 3.0, "a hole of {} intervals", verdict.hole.width);
    let told = shorten::told(&story, "nothing acknowledged is lost");
    assert!(told.contains("Upstream(Lies)"), "the fault is in the shortest story: {told}");
    assert!(told.matches("9223372036854775807, 9223372036854775807").count() >= 15, "and little else");
}

/// Nor where there are several instances: one that takes a hop for delivered although it did not arrive, be it all of a request or a
/// part of one that mixes groups.
#[test]
fn a_hop_that_came_to_nothing_and_counts_as_delivered_is_found_out() {
    for seed in [10, 30] {
        let mut story = a_healthy_fleet(seed);
        assert_eq!(fleets::mixes(seed), story.replicas.len() < 2 * story.groups(), "{story}");
        let instances = story.fleet.as_ref().map_or(0, |fleet| fleet.ahead_ms.len());
        let lies =
            |instance| Fault { at_ms: 120_000, for_ms: 60_000, what: What::Fleet(Mishap::Lies { instance }) };
        story.faults = (0..instances).map(lies).collect();
        let promises = broken_by(&story);
        assert!(promises.contains(&"acknowledged only what upstream has"), "{seed}: {promises:?}");
        assert!(promises.contains(&"nothing acknowledged is lost"), "{seed}: {promises:?}");
    }
}

/// Nothing is lost by it: its groups are taken over when its heartbeat has expired.
#[test]
fn an_instance_that_ends_without_leaving_its_groups_is_found_out() {
    let mut story = a_healthy_fleet(10);
    let end = |mishap| vec![Fault { at_ms: 120_000, for_ms: 40_000, what: What::Fleet(mishap) }];
    story.faults = end(Mishap::Ends { instance: 0 });
    assert_eq!(broken_by(&story), [""; 0]);
    story.faults = end(Mishap::Quits { instance: 0 });
    assert!(broken_by(&story).contains(&"who ends leaves its groups"), "{story}");
}

/// Another server has the database's place, and knows nothing of the last seconds, in which groups changed hands. Their owners then
/// have higher epochs than it, and heed none of its news.
#[test]
fn a_database_that_falls_back_leaves_no_lasting_split() {
    for seed in [10, 30, 40] {
        let mut story = a_healthy_fleet(seed);
        let fault = |at_ms, for_ms, mishap| Fault { at_ms, for_ms, what: What::Fleet(mishap) };
        story.faults = vec![
            fault(120_000, 20_000, Mishap::DatabaseFallsBack),
            fault(125_000, 20_000, Mishap::Ends { instance: 0 }),
        ];
        assert_eq!(broken_by(&story), [""; 0], "{story}");
    }
}

/// Two faults at a time: a batch that hung on its way to an instance that was not reached, or was sent back because its group had
/// just moved, came after the newer samples of a replica that had restarted (225, 297, 365, 607). And a process that starts while the
/// database is away splits groups: what was held reached farther and farther (106, 156, 375).
#[test]
fn stories_that_once_broke_a_promise_break_none() {
    for seed in [106, 156, 225, 297, 365, 375, 607] {
        let verdict = judge(&play(&fleets::story(seed), None));
        assert!(verdict.broken.is_empty(), "{seed}: {:?}", verdict.broken);
        assert!(verdict.hole.width <= tally::HOLE_MAX, "{seed}: a hole of {:?}", verdict.hole);
    }
}

fn a_healthy_fleet(seed: u64) -> story::Story {
    let story = fleets::story(seed);
    let instances = story.fleet.as_ref().map_or(0, |fleet| fleet.ahead_ms.len());
    assert!(instances >= 2 && story.faults.is_empty(), "a healthy story: {story}");
    story
}

fn broken_by(story: &story::Story) -> Vec<&'static str> {
    judge(&play(story, None)).broken.iter().map(|broken| broken.promise).collect()
}

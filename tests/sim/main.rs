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
use story::{Fault, Sick, What};

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

#[test]
fn a_seed_tells_the_same_story_each_time() {
    for seed in [17, 62, 96] {
        let told = || {
            let played = play(&make::story(seed), Some(3));
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
    assert!(verdict.hole.0 > 3.0, "a hole of {} intervals", verdict.hole.0);
    let told = shorten::told(&story, "nothing acknowledged is lost");
    assert!(told.contains("Upstream(Lies)"), "the fault is in the shortest story: {told}");
    assert!(told.matches("9223372036854775807, 9223372036854775807").count() >= 15, "and little else");
}

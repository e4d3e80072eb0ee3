//! Schedules of faults around the real routes, admission, pipeline, window and policy, in simulated time.
//!
//! Replicas that behave as Prometheus' scrape loops and queue manager do, an upstream with the rules of the TSDB, a
//! network between them, and a checker that holds what is stored against what was sent and acknowledged. A seed is a
//! story: `cargo run --release --example simulate -- --seed N` tells it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails with a panic")]

mod checker;
mod dice;
mod history;
mod make;
mod many;
mod proxy;
mod queue;
mod replica;
mod run;
mod scenes;
mod shorten;
mod story;
mod table;
mod upstream;
mod world;

use checker::judge;
use make::Class;
use run::play;
use story::{Fault, Sick, What};

/// Splits last at most so long after a fault, in intervals.
const SPLIT_MAX: f64 = 3.05;
/// While senders catch up with what upstream or the proxy made them keep, holes are at most so wide.
const HOLE_MAX_AFTER_OUTAGES: f64 = 4.05;

#[test]
fn five_hundred_schedules_keep_all_promises() {
    let mut table = many::all(0..500, |_| {});
    println!("{}", table.print());
    if let Some((seed, what)) = table.broken.first() {
        let promise = what.split(':').next().unwrap();
        let promise =
            judge(&play(&make::story(*seed), None)).broken.into_iter().find(|b| b.promise == promise);
        let story =
            promise.map(|broken| shorten::told(&make::story(*seed), broken.promise)).unwrap_or_default();
        panic!("{} schedules broke a promise: {:?}\n{story}", table.broken.len(), table.broken);
    }
    assert_eq!(table.schedules(), 500);
    for (seed, hole, what) in &table.above {
        let story = make::story(*seed);
        // A wrong clock leaves a hole as wide as it jumps. All other holes come from catching up.
        let catches_up = story.has_outage() && *hole <= HOLE_MAX_AFTER_OUTAGES;
        assert!(
            catches_up || Class::of(*seed) == Class::Clock,
            "seed {seed}: a hole of {hole} intervals: {what}"
        );
    }
    let (least, most) = table.densities(|class| class != Class::Clock);
    assert!(least >= 0.97 && most <= 1.07, "density {least} to {most}");
    let (least, most) = table.densities(|class| class == Class::Healthy);
    assert!(least >= 0.999 && most <= 1.02, "density {least} to {most} in healthy groups");
    assert!(table.longest_split() <= SPLIT_MAX, "a target was split for {} intervals", table.longest_split());
    assert!(table.holes_of(Class::Healthy) <= 1.7, "{} in healthy groups", table.holes_of(Class::Healthy));
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

//! The proxy between real parts: replicas of Debian's `prometheus` send, something goes wrong, and what arrives is judged against what
//! each replica has stored of its own.
//!
//! `cargo test --features real --test real -- --test-threads=6 --nocapture` tells them side by side and prints the figures. Without
//! `prometheus` and `nginx` on PATH the tests fail.
//!
//! ```text
//!  targets ──> prometheus a ──┐                    ┌─> the stand-in for Thanos Receive
//!         └──> prometheus b ──┴─> promdedup serve ─┴─> or a third prometheus that receives
//! ```

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test says what it sees, and fails"
)]

mod check;
mod ingress;
mod interpreter;
mod native;
mod process;
mod prometheus;
mod proxy;
mod sheet;
mod stage;
mod story;
mod targets;
mod upstream;
mod verdict;

use stage::{Cast, Stage};
use targets::Off;
use upstream::Upstream;

/// Of a stream through a proxy that lives: with deliveries that take less than half an interval.
const HOLE_MAX: f64 = 1.5;
/// With deliveries that are late by an interval and more, as after an outage: a replica's sender pauses up to 5 s between attempts.
const HOLE_MAX_OF_LATE_DELIVERY: f64 = 2.1;
/// Of three replicas, one of which may take over and not be the next.
const HOLE_MAX_OF_THREE: f64 = 2.0;
/// When the proxy ended: two intervals of a standby that it held, and one to the next sample.
const HOLE_MAX_OF_A_NEW_PROXY: f64 = 3.0;
const NO_HOLD: &[(&str, &str)] = &[("PROMDEDUP_FIRST_CONTACT_HOLD", "0s")];

/// What the proxy is made for. Groups that it meets for the first time are held back, as in production.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_dies_into_the_stand_in_for_thanos() {
    let upstream = Upstream::thanos().await;
    let title = "a replica dies";
    let cast = Cast { title, upstream, replicas: 2, environment: &[], hole_max: HOLE_MAX, mixed: false };
    let mut stage = Stage::set(cast).await;
    stage.be_healthy().await;
    stage.lose_a_target_in_its_owner(Off::Only).await;
    stage.lose_a_replica().await;
    stage.judge().await;
}

/// An upstream that nobody of this project wrote. It refuses a request as a whole, with 400, for one sample that is out of order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_dies_into_a_real_prometheus() {
    let upstream = Upstream::prometheus().await;
    let title = "a replica dies";
    let cast = Cast { title, upstream, replicas: 2, environment: NO_HOLD, hole_max: HOLE_MAX, mixed: false };
    let mut stage = Stage::set(cast).await;
    stage.be_healthy().await;
    stage.lose_a_target_in_its_owner(Off::Only).await;
    stage.lose_a_replica().await;
    stage.judge().await;
}

/// Prometheis are upgraded one by one: one replica speaks remote write 2.0.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_of_both_protocols() {
    let upstream = Upstream::thanos().await;
    let title = "replicas of both protocols";
    let cast = Cast { title, upstream, replicas: 2, environment: NO_HOLD, hole_max: HOLE_MAX, mixed: true };
    let mut stage = Stage::set(cast).await;
    stage.be_healthy().await;
    stage.lose_a_target_in_its_owner(Off::Only).await;
    stage.lose_a_replica().await;
    stage.judge().await;
}

/// SIGSTOP and SIGCONT, and a target that one replica cannot reach.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_stands_still_and_goes_on() {
    let upstream = Upstream::thanos().await;
    let title = "a replica stands still";
    let cast = Cast { title, upstream, replicas: 2, environment: NO_HOLD, hole_max: HOLE_MAX, mixed: false };
    let mut stage = Stage::set(cast).await;
    stage.be_healthy().await;
    stage.lose_a_target_in_a_standby(Off::Unreachable).await;
    stage.freeze_a_replica().await;
    stage.lose_a_target_in_its_owner(Off::Unreachable).await;
    stage.judge().await;
}

/// Refused connections, then 503, a minute in all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upstream_is_away_for_a_minute() {
    let upstream = Upstream::thanos().await;
    let title = "upstream is away";
    let cast = Cast {
        title,
        upstream,
        replicas: 2,
        environment: &[],
        hole_max: HOLE_MAX_OF_LATE_DELIVERY,
        mixed: false,
    };
    let mut stage = Stage::set(cast).await;
    stage.be_healthy().await;
    stage.lose_upstream().await;
    stage.judge().await;
}

/// SIGTERM, then SIGKILL; both times it comes back on its port with an empty window.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_proxy_ends_and_is_killed() {
    let upstream = Upstream::thanos().await;
    let title = "the proxy ends";
    let cast = Cast {
        title,
        upstream,
        replicas: 2,
        environment: &[],
        hole_max: HOLE_MAX_OF_A_NEW_PROXY,
        mixed: false,
    };
    let mut stage = Stage::set(cast).await;
    stage.be_healthy().await;
    stage.restart_the_proxy().await;
    stage.kill_the_proxy().await;
    stage.judge().await;
}

/// One of three is killed and comes back, another stands still.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_replicas() {
    let upstream = Upstream::thanos().await;
    let title = "three replicas";
    let cast = Cast {
        title,
        upstream,
        replicas: 3,
        environment: NO_HOLD,
        hole_max: HOLE_MAX_OF_THREE,
        mixed: false,
    };
    let mut stage = Stage::set(cast).await;
    stage.be_healthy().await;
    stage.lose_a_replica().await;
    stage.freeze_a_replica().await;
    stage.lose_a_target_in_its_owner(Off::Only).await;
    stage.judge().await;
}

//! What was acknowledged is upstream, whatever the moment of a `kill -9`: the real binary dies again and again under load, at moments
//! that a seed chooses, and comes back on its port with an empty window.
//!
//! ```text
//!  stand_in::Replica ──┐                             ┌─> stand_in::Thanos
//!  stand_in::Replica ──┴─> promdedup serve, SIGKILL ─┘
//!        │ acknowledged until the kill                  │ stored until the kill
//!        └──────────────────────> cut <─────────────────┘
//! ```
//!
//! A binary of its own, so that other tests do not take the processor from what is timed here. Refuses to judge holes closely: what was
//! only held may be lost with the proxy.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test says what it sees, and fails"
)]

mod chance;
mod cut;
mod lives;
mod story;

use std::time::Duration;
use story::{Plan, tell};
use tokio::task::JoinSet;

/// Nothing waits at first contact, so each life is busy from its first request on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_survives_fifty_kills() {
    let interval = Duration::from_millis(500);
    all((1..=5).map(|seed| Plan { seed, kills: 10, first_contact_hold: "0s", interval })).await;
}

/// As in production, but for a shorter time. A sender that is held back pauses for a second, as it is told to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_survives_kills_around_the_first_contact() {
    let interval = Duration::from_secs(1);
    all((6..=8).map(|seed| Plan { seed, kills: 4, first_contact_hold: "300ms", interval })).await;
}

/// Tells them side by side; they wait more than they work.
async fn all(plans: impl Iterator<Item = Plan>) {
    let mut stories: JoinSet<()> = plans.map(tell).collect();
    while let Some(story) = stories.join_next().await {
        if let Err(failed) = story {
            std::panic::resume_unwind(failed.into_panic());
        }
    }
}

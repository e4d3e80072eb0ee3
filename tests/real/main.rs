//! The proxy between real parts: two replicas of Debian's `prometheus` send, one of them dies and comes back, and what arrives is
//! judged against what each replica has stored of its own.
//!
//! `cargo test --features real --test real -- --nocapture` also prints the figures. Without `prometheus` on PATH the tests fail.
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

mod process;
mod prometheus;
mod proxy;
mod story;
mod targets;
mod upstream;
mod verdict;

use story::Story;
use upstream::Upstream;

/// What the proxy is made for. Groups that it meets for the first time are held back, as in production.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn into_the_stand_in_for_thanos() {
    Story::begin(Upstream::thanos().await, &[]).await.tell().await;
}

/// An upstream that nobody of this project wrote. It refuses a request as a whole, with 400, for one sample that is out of order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn into_a_real_prometheus() {
    let no_hold = [("PROMDEDUP_FIRST_CONTACT_HOLD", "0s")];
    Story::begin(Upstream::prometheus().await, &no_hold).await.tell().await;
}

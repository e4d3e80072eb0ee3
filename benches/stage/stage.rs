//! What benches of the whole binary share: the binary as a process of its own, an upstream that keeps what it is sent, and steady
//! senders that know what they were acknowledged.
//!
//! Senders and upstream are this process. Judges nothing: each bench knows what it expects.
#![allow(dead_code, unused_imports, reason = "each bench takes what it needs of it")]

mod link;
mod proxy;
mod sender;
mod upstream;

pub(crate) use link::{Link, Way};
pub(crate) use proxy::{Proxy, Usage};
pub(crate) use sender::{Pace, Sender, Tally, identity};
pub(crate) use upstream::Upstream;

use promdedup::stand_in::connection::Connection;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::runtime;
use tokio::time::sleep;

/// What somebody who probes saw.
#[derive(Default)]
pub(crate) struct Probed {
    /// The longest that an answer took.
    pub(crate) slowest: Duration,
    /// Connections that broke before there was one.
    pub(crate) unanswered: u64,
}

/// Asks the admin listener for all there is, on a new connection each time, until told to stop.
pub(crate) fn probe(admin: &str, stop: &AtomicBool) -> Probed {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut probed = Probed::default();
    runtime.block_on(async {
        let pages = ["/-/healthy", "/-/ready", "/metrics"].map(|page| format!("{admin}{page}"));
        while !stop.load(Relaxed) {
            for page in &pages {
                let began = Instant::now();
                match Connection::to(page).unwrap().get().await {
                    Ok(reply) => {
                        assert_eq!(reply.status, 200, "{page}");
                        probed.slowest = probed.slowest.max(began.elapsed());
                    }
                    Err(_) => probed.unanswered += 1,
                }
            }
            sleep(Duration::from_millis(20)).await;
        }
    });
    probed
}

/// The hundredth part of these takes longer.
pub(crate) fn p99(took: &mut [Duration]) -> Duration {
    took.sort_unstable();
    took.get(took.len() * 99 / 100).copied().unwrap_or_default()
}

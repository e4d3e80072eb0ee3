//! STAND-INS: what the proxy stands between, embedded and on loopback: replicas that send as Prometheus does, a receiver that answers
//! as Thanos Receive does, and a checker that joins what was sent, acknowledged and stored.
//!
//! They speak real HTTP/1.1 and remote write 1.0, so that the demo and the tests put the real proxy between them. Nothing here
//! shares code with the proxy's own decoding and encoding: a mistake of one would otherwise be a mistake of both, and go unseen.
//!
//! ```text
//!  prometheus::Replica ──┐                         ┌─> thanos::Thanos (rules of the TSDB, faults on demand)
//!  prometheus::Replica ──┴─> (the proxy) ──────────┘
//!        │ sent, acknowledged                          │ stored, refused
//!        └───────────────> checker::Checker <──────────┘
//! ```

use std::time::{SystemTime, UNIX_EPOCH};

pub mod bodies;
pub mod checker;
pub mod connection;
pub mod coordination;
pub mod labels;
pub mod prometheus;
pub mod request;
pub mod thanos;

pub use bodies::Bodies;
pub use checker::{Checker, Findings};
pub use labels::Labels;

/// The bits of the NaN by which Prometheus says that a series ended (`value.StaleNaN` in its sources).
pub const STALE_MARKER_BITS: u64 = 0x7ff0_0000_0000_0002;

/// One sample, by its bits: NaNs are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Point {
    /// Milliseconds since the epoch.
    pub at_ms: i64,
    /// Of a float its bits; of a native histogram a hash of the message without its timestamp.
    pub bits: u64,
    /// Whether it is a native histogram.
    pub histogram: bool,
}

impl Point {
    /// A float sample.
    #[must_use]
    pub fn float(at_ms: i64, value: f64) -> Self {
        Self { at_ms, bits: value.to_bits(), histogram: false }
    }

    /// A stale marker; always a float, also for a series of native histograms.
    #[must_use]
    pub fn stale(at_ms: i64) -> Self {
        Self { at_ms, bits: STALE_MARKER_BITS, histogram: false }
    }

    /// Whether this says that the series ended.
    #[must_use]
    pub fn is_stale_marker(&self) -> bool {
        !self.histogram && self.bits == STALE_MARKER_BITS
    }
}

/// The wall clock in milliseconds since the epoch, as a scraper or a receiver would read it.
#[expect(
    clippy::disallowed_methods,
    reason = "stand-ins play whole processes, which have a clock of their own"
)]
#[must_use]
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

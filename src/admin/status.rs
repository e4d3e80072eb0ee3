//! The status as JSON: what the process does, how much went through, and what that saves and costs.
//!
//! Figures a day are those of the last hour, or since the start. Keeps one set of figures a minute for that, and nothing
//! else. Refuses to judge: alerts do.

use super::readiness::Readiness;
use crate::config::Mode;
use crate::overhead::{Figures, Overhead};
use prometheus::Registry;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// How often figures are remembered.
const EVERY: Duration = Duration::from_secs(60);
/// How many of them: an hour's.
const REMEMBERED_MAX: usize = 60;

/// What the status is made of.
#[derive(Debug)]
pub(super) struct Status {
    mode: Mode,
    registry: Registry,
    begun: Instant,
    /// The oldest first; never empty.
    remembered: Mutex<VecDeque<(Instant, Figures)>>,
}

impl Status {
    pub(super) fn new(mode: Mode, registry: Registry) -> Self {
        let begun = Instant::now();
        let remembered = Mutex::new(VecDeque::from([(begun, Figures::default())]));
        Self { mode, registry, begun, remembered }
    }

    /// Never ends.
    pub(super) async fn remember(&self) {
        let mut ticks = interval_at(self.begun + EVERY, EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let now = ticks.tick().await;
            let figures = Figures::of(&self.registry.gather());
            let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
            remembered.push_back((now, figures));
            if remembered.len() > REMEMBERED_MAX {
                remembered.pop_front();
            }
        }
    }

    pub(super) fn now(&self, readiness: &Readiness) -> Value {
        let figures = Figures::of(&self.registry.gather());
        let unready = readiness.now().err().map(|why| why.to_string());
        let (since, earlier) = {
            let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
            remembered.front().copied().unwrap_or((self.begun, Figures::default()))
        };
        let measured = since.elapsed();
        let overhead = figures.since(&earlier, measured);
        let mut status = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "mode": self.mode.name(),
            "ready": unready.is_none(),
            "unready_because": unready,
            "uptime_seconds": self.begun.elapsed().as_secs_f64(),
            "samples": samples(&figures),
            "window": {
                "series": figures.window_series,
                "bytes": figures.window_bytes,
                "bytes_per_series": (figures.window_series > 0.0).then(|| figures.window_bytes / figures.window_series),
            },
        });
        status["overhead"] = json(&overhead, measured);
        status
    }
}

/// Since the start.
fn samples(figures: &Figures) -> Value {
    json!({
        "received": figures.received,
        "forwarded": figures.forwarded,
        "duplicate": figures.duplicate,
        "refused": figures.refused,
        "rejected": figures.rejected,
        "failed": figures.failed,
        "filled": figures.filled,
    })
}

fn json(overhead: &Overhead, measured: Duration) -> Value {
    json!({
        "measured_seconds": measured.as_secs_f64(),
        "saved_upstream": {
            "bytes_per_day": overhead.saved_bytes_per_day,
            "samples_per_day": overhead.saved_samples_per_day,
        },
        "duplicates_cost": {
            "bytes_per_day": overhead.duplicate_bytes_per_day,
            "cpu_seconds_per_day": overhead.duplicate_cpu_seconds_per_day,
        },
        "cpu_nanoseconds_per_sample": overhead.cpu_ns_per_sample,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::IntCounter;

    #[tokio::test(start_paused = true)]
    async fn figures_a_day_are_those_of_the_last_hour() {
        let registry = Registry::new();
        let received = IntCounter::new("promdedup_duplicate_bytes_total", "x").unwrap();
        registry.register(Box::new(received.clone())).unwrap();
        let status = std::sync::Arc::new(Status::new(Mode::Dedup, registry));
        let remembering = std::sync::Arc::clone(&status);
        tokio::spawn(async move { remembering.remember().await });
        let a_day = || {
            let figures = Figures::of(&status.registry.gather());
            let (since, earlier) = status.remembered.lock().unwrap()[0];
            (
                since.elapsed().as_secs(),
                figures.since(&earlier, since.elapsed()).duplicate_bytes_per_day.round(),
            )
        };
        received.inc_by(1_000);
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert_eq!(a_day(), (600, 144_000.0), "since the start");
        tokio::time::sleep(Duration::from_secs(3_590)).await;
        let (seconds, bytes) = a_day();
        assert!((3_540..=3_600).contains(&seconds) && bytes == 0.0, "{seconds} s, {bytes}");
        assert_eq!(status.remembered.lock().unwrap().len(), REMEMBERED_MAX);
    }
}

//! The metrics of attempts at the upstream.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts, Registry, exponential_buckets};
use std::time::Duration;

/// Answers that are common enough to have their counter at hand.
const COMMON: &[u16] = &[200, 204, 400, 401, 403, 404, 409, 413, 422, 429, 500, 502, 503, 504];

#[derive(Debug)]
pub(super) struct Metrics {
    requests: IntCounterVec,
    common: Vec<(u16, IntCounter)>,
    no_answer: IntCounter,
    duration: Histogram,
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let options = Opts::new(
            "promdedup_upstream_requests_total",
            "Attempts at the upstream by status; error: no answer.",
        );
        let requests = IntCounterVec::new(options, &["code"])?;
        let options =
            HistogramOpts::new("promdedup_upstream_duration_seconds", "Time of an attempt at the upstream.")
                .buckets(exponential_buckets(0.001, 2.0, 15)?);
        let duration = Histogram::with_opts(options)?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(duration.clone()))?;
        let common =
            COMMON.iter().map(|status| (*status, requests.with_label_values(&[&status.to_string()])));
        Ok(Self {
            common: common.collect(),
            no_answer: requests.with_label_values(&["error"]),
            requests,
            duration,
        })
    }

    /// Bounded: a status has three digits.
    pub(super) fn answered(&self, status: u16, took: Duration) {
        match self.common.iter().find(|(common, _)| *common == status) {
            Some((_, counter)) => counter.inc(),
            None => self.requests.with_label_values(&[&status.to_string()]).inc(),
        }
        self.duration.observe(took.as_secs_f64());
    }

    pub(super) fn not_answered(&self, took: Duration) {
        self.no_answer.inc();
        self.duration.observe(took.as_secs_f64());
    }
}

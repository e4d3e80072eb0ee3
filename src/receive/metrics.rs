//! The metrics of requests as senders see them, resolved once.

use super::headers::Protocol;
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, exponential_buckets,
};
use std::time::Duration;

/// Every code this room answers with.
const CODES: [u16; 12] = [204, 400, 401, 403, 404, 405, 408, 413, 415, 421, 500, 503];

#[derive(Debug)]
pub(super) struct Metrics {
    family: IntCounterVec,
    requests: [[IntCounter; CODES.len()]; 3],
    duration: Histogram,
    pub(super) in_flight_requests: IntGauge,
    pub(super) in_flight_bytes: IntGauge,
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let options = Opts::new("promdedup_requests_total", "Answered requests of senders.");
        let family = IntCounterVec::new(options, &["protocol", "code"])?;
        let options = HistogramOpts::new(
            "promdedup_request_duration_seconds",
            "Time from the headers of a request to its answer.",
        );
        let duration = Histogram::with_opts(options.buckets(exponential_buckets(0.001, 2.0, 15)?))?;
        let in_flight_requests =
            IntGauge::new("promdedup_in_flight_requests", "Requests admitted and not yet answered.")?;
        let in_flight_bytes =
            IntGauge::new("promdedup_in_flight_bytes", "Memory reserved for requests being served.")?;
        registry.register(Box::new(family.clone()))?;
        registry.register(Box::new(duration.clone()))?;
        registry.register(Box::new(in_flight_requests.clone()))?;
        registry.register(Box::new(in_flight_bytes.clone()))?;
        let requests = [Protocol::One, Protocol::Two, Protocol::Other]
            .map(|protocol| CODES.map(|code| family.with_label_values(&[name(protocol), &code.to_string()])));
        Ok(Self { family, requests, duration, in_flight_requests, in_flight_bytes })
    }

    pub(super) fn answered(&self, protocol: Protocol, code: u16, took: Duration) {
        match CODES.iter().position(|known| *known == code) {
            Some(place) => self.requests[protocol as usize][place].inc(),
            None => self.family.with_label_values(&[name(protocol), &code.to_string()]).inc(),
        }
        self.duration.observe(took.as_secs_f64());
    }
}

fn name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::One => "1.0",
        Protocol::Two => "2.0",
        Protocol::Other => "other",
    }
}

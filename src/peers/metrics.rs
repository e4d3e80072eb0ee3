//! The metrics of hops, as the instance sees them that passes requests on.

use super::Hopped;
use crate::socket::{NetworkBytes, Traffic};
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts, Registry, exponential_buckets};
use std::time::Duration;

#[derive(Debug)]
pub(super) struct Metrics {
    answered: IntCounter,
    misdirected: IntCounter,
    refused: IntCounter,
    unreached: IntCounter,
    duration: Histogram,
    pub(super) traffic: Traffic,
}

impl Metrics {
    pub(super) fn new(registry: &Registry, network: &NetworkBytes) -> prometheus::Result<Self> {
        let options = Opts::new(
            "promdedup_hops_total",
            "Requests, or parts of them, that were passed on to another instance, by what came of it.",
        );
        let hops = IntCounterVec::new(options, &["result"])?;
        registry.register(Box::new(hops.clone()))?;
        let options =
            Opts::new("promdedup_hop_bytes_total", "Bytes on the wire to other instances and back.");
        let bytes = IntCounterVec::new(options, &["direction"])?;
        registry.register(Box::new(bytes.clone()))?;
        let options = HistogramOpts::new("promdedup_hop_duration_seconds", "Time of a hop.");
        let duration = Histogram::with_opts(options.buckets(exponential_buckets(0.001, 2.0, 15)?))?;
        registry.register(Box::new(duration.clone()))?;
        let of = |result: &str| hops.with_label_values(&[result]);
        let [received, sent] = ["received", "sent"].map(|direction| bytes.with_label_values(&[direction]));
        Ok(Self {
            answered: of("answered"),
            misdirected: of("misdirected"),
            refused: of("refused"),
            unreached: of("unreached"),
            duration,
            traffic: network.also("peer", received, sent),
        })
    }

    pub(super) fn count(&self, hopped: &Hopped, took: Duration) {
        match hopped {
            Hopped::Answered(_) => self.answered.inc(),
            Hopped::Misdirected => self.misdirected.inc(),
            Hopped::Refused { .. } => self.refused.inc(),
            Hopped::Unreached { .. } => self.unreached.inc(),
        }
        self.duration.observe(took.as_secs_f64());
    }
}

//! What comes in at the pipeline's door and what goes out, and what the configuration tells it. Types alone.

use super::observe::Verbatim;
use crate::forward::Echo;
use crate::series::{PlaceLabels, ReplicaNames};
use crate::wire::Protocol;
use crate::wire::labels::LabelBounds;
use bytes::Bytes;
use http::HeaderValue;
use std::time::Duration;

/// What a request brought that is delivered, duplicates included: what remote write 2.0 calls written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Written {
    /// Float samples.
    pub samples: u64,
    /// Histogram samples.
    pub histograms: u64,
    /// Exemplars.
    pub exemplars: u64,
}

/// One remote-write request as it arrived, headers checked, body still compressed.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// What the body is.
    pub protocol: Protocol,
    /// Snappy block.
    pub body: Bytes,
    /// The tenant header's value.
    pub tenant: Option<HeaderValue>,
    /// `Retry-Attempt`, 0 if absent.
    pub retry_attempt: u32,
    /// `X-Request-ID`.
    pub request_id: Option<HeaderValue>,
    /// `traceparent`.
    pub traceparent: Option<HeaderValue>,
    /// In observe mode: it goes to upstream as it came, whatever is found in it.
    pub verbatim: Option<Verbatim>,
    /// Another instance has passed it on: it goes no further.
    pub from_peer: bool,
}

/// The answer to the sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// 204, 400, 413 or 503 (500 for a bug of ours); to another instance also 421.
    pub status: u16,
    /// One sentence; empty with 204.
    pub text: String,
    /// `Retry-After`, in seconds.
    pub retry_after_s: Option<u32>,
    /// What is delivered of it; nothing of a request that has to be sent again.
    pub written: Written,
    /// Whoever asks again had better ask another instance: the connection ends, so that a load balancer deals the next one.
    pub elsewhere: bool,
    /// In observe mode: upstream's answer, which is the sender's as it is.
    pub echo: Option<Box<Echo>>,
}

/// What the pipeline is told by the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Names of the replica label.
    pub replica_names: ReplicaNames,
    /// Names of the group and target labels.
    pub place_labels: PlaceLabels,
    /// What upstream takes.
    pub upstream_protocol: Protocol,
    /// Bounds of the labels of a series.
    pub label_bounds: LabelBounds,
    /// Bound of a decompressed body, in bytes; of one of 2.0 also when it is rewritten as 1.0.
    pub body_bytes_max: usize,
    /// How far ahead of the clock a sample may be, in ms.
    pub future_max_ms: i64,
    /// How far below the watermark upstream takes samples, in ms; 0 = not at all.
    pub out_of_order_window_ms: i64,
    /// How long a group that the window has just met is held back, in ms; 0 = no waiting for backlogs at all.
    pub first_contact_hold_ms: i64,
    /// How long a request waits for flights of others before it is answered 503.
    pub busy_wait_max: Duration,
}

impl Reply {
    pub(super) fn new(status: u16, text: String) -> Self {
        let retry_after_s = (status == 503).then_some(1);
        Self { status, text, retry_after_s, written: Written::default(), elsewhere: false, echo: None }
    }
}

//! FORWARD: one upstream attempt, and what its answer means.
//!
//! Owns the door to the upstream. Refuses to retry: the sender does that, so nothing is queued here.

pub mod answer;
pub mod client;

pub use client::{Health, HttpUpstream};

use bytes::Bytes;
use http::HeaderValue;
use std::future::Future;

/// One request for the upstream: a snappy-compressed body of the version that it takes, and what is passed on of the sender's headers.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// The compressed body.
    pub body: Bytes,
    /// How many samples it holds.
    pub samples: u64,
    /// The tenant header's value, if the sender had one.
    pub tenant: Option<HeaderValue>,
    /// `X-Request-ID`.
    pub request_id: Option<HeaderValue>,
    /// `traceparent`.
    pub traceparent: Option<HeaderValue>,
}

/// What the upstream said of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// 2xx: stored.
    Taken,
    /// 409: some of it conflicts with what is stored; the valid rest was stored (Thanos Receive).
    Conflict {
        /// The upstream's text, bounded.
        text: String,
    },
    /// 400 or 422: refused for good.
    Refused {
        /// The status.
        status: u16,
        /// The upstream's text, bounded.
        text: String,
    },
    /// 413: the batch is too big for the upstream.
    TooBig {
        /// The upstream's text, bounded.
        text: String,
    },
    /// Any other answer: the operator's or the moment's fault, not the data's.
    Unavailable {
        /// The status.
        status: u16,
        /// The upstream's text, bounded.
        text: String,
    },
    /// Timeout, refused or reset connection: whether it was stored is unknown.
    NoAnswer {
        /// What happened.
        error: String,
    },
}

/// The place where the single stream goes.
pub trait Upstream: Send + Sync + 'static {
    /// Makes one attempt; always ends (by a timeout at the latest).
    fn send(&self, request: Outgoing) -> impl Future<Output = Answer> + Send;
}

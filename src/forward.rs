//! FORWARD: one upstream attempt, and what its answer means.
//!
//! Owns the door to the upstream. Refuses to retry: the sender does that, so nothing is queued here.

pub mod answer;
pub mod client;
mod headers;

pub(crate) use client::{Answered, Connector, Pools, Way};
pub use client::{ForwardError, Health, HttpUpstream};
pub use headers::{WRITTEN, end_to_end};

use crate::config::Protocol;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
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

/// A request that is passed on as it came.
#[derive(Debug, Clone)]
pub struct Passed {
    /// The body, byte for byte.
    pub body: Bytes,
    /// What the sender's headers say beyond the connection, without those that are never passed on.
    pub headers: HeaderMap,
    /// What the body is.
    pub protocol: Protocol,
}

/// An answer of the upstream that is passed back as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Echo {
    /// The status.
    pub status: u16,
    /// What its headers say beyond the connection.
    pub headers: HeaderMap,
    /// The body, bounded.
    pub body: Bytes,
}

/// What the upstream said to a request that was passed on as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relayed {
    /// What that means.
    pub answer: Answer,
    /// Its words, or why there was no answer.
    pub echo: Result<Echo, String>,
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
    /// Timeout or reset connection: whether it was stored is unknown.
    NoAnswer {
        /// What happened.
        error: String,
    },
    /// There was no connection to send it by: it is not stored.
    NotSent {
        /// What happened.
        error: String,
    },
}

/// The place where the single stream goes.
pub trait Upstream: Send + Sync + 'static {
    /// Makes one attempt; always ends (by a timeout at the latest).
    fn send(&self, request: Outgoing) -> impl Future<Output = Answer> + Send;

    /// Passes a request on as it came, in one attempt that always ends.
    fn relay(&self, request: Passed) -> impl Future<Output = Relayed> + Send;
}

//! PIPELINE: the life of one request.

use bytes::Bytes;
use http::HeaderValue;

/// One remote-write request as it arrived, headers checked, body still compressed.
#[derive(Debug, Clone)]
pub struct Incoming {
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
}

/// The answer to the sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// 204, 400, 413 or 503 (500 for a bug of ours).
    pub status: u16,
    /// One sentence; empty with 204.
    pub text: String,
    /// `Retry-After`, in seconds.
    pub retry_after_s: Option<u32>,
}

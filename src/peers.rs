//! PEERS: passes requests on to the instances that serve their groups.
//!
//! Owns one hop: what goes over, with which proof of who we are, and what came of it. Refuses to know whose a group is
//! (`placement` does), to route, and to try again: the sender does.

mod client;
mod metrics;

pub use client::{HttpPeers, PeersConfig};

use crate::config::PeerSecrets;
use crate::placement::{Asking, Peer};
use crate::wire::Protocol;
use bytes::Bytes;
use http::HeaderValue;
use std::fmt;
use std::sync::Arc;

/// Header with the secret that instances share. On a request it says: this comes from another instance.
pub const PEER_HEADER: &str = "promdedup-peer";
/// Status of a request that came by a hop and is not for this instance (Misdirected Request, RFC 9110).
pub const MISDIRECTED: u16 = 421;

/// The secret that instances share, as it is now. Shown to nobody.
#[derive(Clone)]
pub struct Secret(Arc<dyn Fn() -> Option<Arc<PeerSecrets>> + Send + Sync>);

/// A request, or a part of one, that goes to another instance.
#[derive(Debug, Clone)]
pub struct Hop {
    /// Snappy block.
    pub body: Bytes,
    /// What it is.
    pub protocol: Protocol,
    /// The tenant that was authenticated.
    pub tenant: Option<HeaderValue>,
    /// `Retry-Attempt`, 0 if absent.
    pub retry_attempt: u32,
    /// `X-Request-ID`.
    pub request_id: Option<HeaderValue>,
    /// `traceparent`.
    pub traceparent: Option<HeaderValue>,
}

/// What came of a hop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hopped {
    /// The sender's answer: 204, 400, 413 or 503.
    Answered(Said),
    /// The group is not that instance's.
    Misdirected,
    /// Any other answer: instances are set up in ways that do not fit.
    Refused {
        /// The status.
        status: u16,
        /// Its text, bounded.
        text: String,
    },
    /// There was no answer. Whether it was served is not known.
    Unreached {
        /// What happened.
        error: String,
    },
}

/// What an instance says of what it was passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// 204, 400, 413 or 503.
    pub status: u16,
    /// One sentence; empty with 204.
    pub text: String,
    /// `Retry-After`, in seconds.
    pub retry_after_s: Option<u32>,
    /// Samples, histograms and exemplars that are delivered.
    pub written: [u64; 3],
}

/// The way to other instances.
pub trait Peers: fmt::Debug + Send + Sync + 'static {
    /// Makes one attempt; always ends (by a timeout at the latest).
    fn pass<'a>(&'a self, peer: &'a Peer, hop: Hop) -> Asking<'a, Hopped>;

    /// What requests of other instances have to bring.
    fn secret(&self) -> Secret;
}

impl Secret {
    /// Of whatever knows it: read again when it changes, absent while there is none.
    pub fn new(current: impl Fn() -> Option<Arc<PeerSecrets>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(current))
    }

    /// As it is now.
    #[must_use]
    pub fn current(&self) -> Option<Arc<PeerSecrets>> {
        (self.0)()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

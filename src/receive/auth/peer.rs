//! Other instances, which show the secret that all of them share. What they bring has been admitted at their door, tenant included.
//!
//! Without a secret here the header means nothing; with one, whoever shows another is turned away.

use super::{Denied, Failures};
use crate::peers::{PEER_HEADER, Secret};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use prometheus::{IntCounter, Registry};

/// The door of the other instances.
#[derive(Debug)]
pub(in crate::receive) struct PeerDoor {
    secret: Secret,
    failures: Failures,
    received: IntCounter,
}

/// Marks a request that has come through it. A sender cannot: it is no header.
#[derive(Debug, Clone, Copy)]
pub(in crate::receive) struct FromPeer;

impl PeerDoor {
    pub(in crate::receive) fn new(
        secret: Secret,
        failures: &Failures,
        registry: &Registry,
    ) -> prometheus::Result<Self> {
        let received = IntCounter::new(
            "promdedup_hops_received_total",
            "Requests, or parts of them, that other instances have passed on to this one.",
        )?;
        registry.register(Box::new(received.clone()))?;
        Ok(Self { secret, failures: failures.clone(), received })
    }

    /// Whether a request with these headers is another instance's. The secret is taken out of them.
    pub(in crate::receive) fn admit(&self, headers: &mut HeaderMap) -> Result<bool, Denied> {
        let mut given = headers.get_all(PEER_HEADER).iter();
        let (Some(shown), more) = (given.next(), given.next()) else { return Ok(false) };
        let ours = self.secret.current();
        let right = more.is_none() && ours.is_some_and(|ours| ours.takes(shown.as_bytes()));
        headers.remove(PEER_HEADER);
        if !right {
            self.failures.count(Denied::Peer);
            return Err(Denied::Peer);
        }
        // Whatever came with it is none of the other instance's.
        headers.remove(AUTHORIZATION);
        self.received.inc();
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PeerSecrets;
    use http::HeaderValue;
    use http::header::HeaderName;
    use std::sync::Arc;

    fn check(secret: Option<&'static str>, shown: &[&'static str], expect: Result<bool, Denied>) {
        let secret = secret.map(|text| Arc::new(PeerSecrets::of(text).expect("a secret")));
        let secret = Secret::new(move || secret.clone());
        let registry = Registry::new();
        let failures = Failures::new(&registry).expect("metrics");
        let door = PeerDoor::new(secret, &failures, &registry).expect("metrics");
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer x"));
        for value in shown {
            headers.append(HeaderName::from_static(PEER_HEADER), HeaderValue::from_static(value));
        }
        let admitted = door.admit(&mut headers);
        assert_eq!(admitted, expect, "{shown:?}");
        assert!(!headers.contains_key(PEER_HEADER), "{shown:?}");
        assert_eq!(headers.contains_key(AUTHORIZATION), admitted != Ok(true), "{shown:?}");
        assert_eq!(failures.peer.get(), u64::from(expect.is_err()), "{shown:?}");
        assert_eq!(door.received.get(), u64::from(expect == Ok(true)), "{shown:?}");
    }

    #[test]
    fn only_a_secret_of_ours_opens() {
        const ONE: &str = "0123456789abcdef";
        check(Some(ONE), &[ONE], Ok(true));
        check(Some("fedcba9876543210\n0123456789abcdef"), &[ONE], Ok(true));
        check(Some(ONE), &[], Ok(false));
        for wrong in [&["0123456789abcde"][..], &["0123456789abcdef0"], &[""], &[ONE, ONE], &[ONE, "x"]] {
            check(Some(ONE), wrong, Err(Denied::Peer));
        }
        check(None, &[], Ok(false));
        check(None, &[ONE], Err(Denied::Peer));
    }
}

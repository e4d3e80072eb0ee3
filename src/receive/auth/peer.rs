//! Other instances, which show the secret that all of them share. What they bring has been admitted at their door, tenant included.
//!
//! Without a secret here the header means nothing; with one, whoever shows another is turned away.

use super::prints::Printer;
use super::{Denied, Failures};
use crate::peers::{PEER_HEADER, Secret};
use http::HeaderMap;
use http::header::AUTHORIZATION;

/// The door of the other instances.
#[derive(Debug)]
pub(in crate::receive) struct PeerDoor {
    secret: Secret,
    printer: Printer,
    failures: Failures,
}

/// Marks a request that has come through it. A sender cannot: it is no header.
#[derive(Debug, Clone, Copy)]
pub(in crate::receive) struct FromPeer;

impl PeerDoor {
    pub(in crate::receive) fn new(secret: Secret, failures: &Failures) -> Result<Self, String> {
        Ok(Self { secret, printer: Printer::new()?, failures: failures.clone() })
    }

    /// Whether a request with these headers is another instance's. The secret is taken out of them.
    pub(in crate::receive) fn admit(&self, headers: &mut HeaderMap) -> Result<bool, Denied> {
        let mut given = headers.get_all(PEER_HEADER).iter();
        let (Some(shown), more) = (given.next(), given.next()) else { return Ok(false) };
        // A print takes as long for any guess, and nobody can tell which print it will have.
        let print = |value: &[u8]| self.printer.print(value);
        let ours = self.secret.current().map(|secret| print(secret.as_bytes()));
        let right = more.is_none() && ours.is_some_and(|ours| ours == print(shown.as_bytes()));
        headers.remove(PEER_HEADER);
        if !right {
            self.failures.count(Denied::Peer);
            return Err(Denied::Peer);
        }
        // Whatever came with it is none of the other instance's.
        headers.remove(AUTHORIZATION);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use http::header::HeaderName;
    use prometheus::Registry;

    fn check(secret: Option<&'static str>, shown: &[&'static str], expect: Result<bool, Denied>) {
        let secret = Secret::new(move || secret.map(HeaderValue::from_static));
        let failures = Failures::new(&Registry::new()).expect("metrics");
        let door = PeerDoor::new(secret, &failures).expect("a door");
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
    }

    #[test]
    fn only_the_one_secret_opens() {
        check(Some("s3cret"), &["s3cret"], Ok(true));
        check(Some("s3cret"), &[], Ok(false));
        for wrong in [&["s3cre"][..], &["s3cret1"], &[""], &["s3cret", "s3cret"], &["s3cret", "x"]] {
            check(Some("s3cret"), wrong, Err(Denied::Peer));
        }
        check(None, &[], Ok(false));
        check(None, &["s3cret"], Err(Denied::Peer));
        check(Some(""), &[""], Err(Denied::Peer));
    }
}

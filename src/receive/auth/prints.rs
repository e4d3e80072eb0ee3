//! Prints: what is remembered and compared in place of credentials.
//!
//! A print is an HMAC under a key that this process has made up. Credentials cannot be had back from it, and nobody can
//! learn from the time that a comparison of prints takes, since nobody can tell which print a guess will have.

use ring::hmac;
use ring::rand::SystemRandom;
use std::fmt;

/// Stands for credentials.
pub(super) type Print = [u8; 32];

#[derive(Clone)]
pub(super) struct Printer(hmac::Key);

impl fmt::Debug for Printer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Printer")
    }
}

impl Printer {
    pub(super) fn new() -> Result<Self, String> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        key.map(Self).map_err(|_| "the system has no random numbers".to_owned())
    }

    pub(super) fn print(&self, credentials: &[u8]) -> Print {
        let mut print = [0; 32];
        print.copy_from_slice(hmac::sign(&self.0, credentials).as_ref());
        print
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_tell_credentials_apart_and_mean_nothing_elsewhere() {
        let (one, other) = (Printer::new().expect("random"), Printer::new().expect("random"));
        assert_eq!(one.print(b"a:b"), one.print(b"a:b"));
        assert_ne!(one.print(b"a:b"), one.print(b"a:c"));
        assert_ne!(one.print(b"a:b"), other.print(b"a:b"));
        assert_eq!(format!("{one:?}"), "Printer");
    }
}

//! The gate for those who have a user and a password and nothing else: the admin listener's. Its bounds are its own, so that
//! nobody there holds up a sender, nor the other way round.

use super::basic::{Basic, CHALLENGE};
use super::prints::Printer;
use super::{Denied, parts};
use crate::reload::Look;
use crate::telemetry::LimitHits;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, StatusCode};
use prometheus::{IntCounter, Registry};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Passwords that are checked at one time. They are remembered, so that a scrape costs none.
const AT_A_TIME: usize = 1;
/// How long somebody waits for that.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// Lets in who has a user and a password of the file.
#[derive(Debug)]
pub(crate) struct Gate {
    basic: Basic,
    failures: IntCounter,
}

impl Gate {
    /// Reads the file.
    pub(crate) fn new(path: &Path, registry: &Registry, limits: &LimitHits) -> Result<Self, String> {
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let failures = counter(
            "promdedup_admin_auth_failures_total",
            "Requests on the admin address without valid credentials.",
        )
        .map_err(|error| error.to_string())?;
        let checks = counter(
            "promdedup_admin_auth_password_checks_total",
            "Passwords for the admin address checked against a bcrypt hash; the results are remembered for a while.",
        )
        .map_err(|error| error.to_string())?;
        let hit = limits.of("admin_password_checks");
        let basic = Basic::new(path, Printer::new()?, checks, hit, AT_A_TIME, WAIT_MAX)?;
        Ok(Self { basic, failures })
    }

    /// To be looked at from time to time.
    pub(crate) fn file(&self) -> Arc<dyn Look> {
        self.basic.file()
    }

    /// Whether a request with these headers may go on.
    pub(crate) async fn admit(&self, headers: &HeaderMap) -> Result<(), Denied> {
        let mut given = headers.get_all(AUTHORIZATION).iter();
        let credentials = match (given.next(), given.next()) {
            (None, _) => Err(Denied::Missing),
            (Some(value), None) => parts(value).ok_or(Denied::Wrong),
            (Some(_), Some(_)) => Err(Denied::Wrong),
        };
        let admitted = match credentials {
            Ok((scheme, coded)) if scheme.eq_ignore_ascii_case(b"basic") => self.basic.check(coded).await,
            Ok(_) => Err(Denied::Wrong),
            Err(denied) => Err(denied),
        };
        admitted.inspect_err(|_| self.failures.inc())
    }

    /// The headers that go with a denial.
    pub(crate) fn challenge(denied: Denied, headers: &mut HeaderMap) {
        if denied.status() == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, CHALLENGE);
        }
    }
}

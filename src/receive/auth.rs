//! AUTHENTICATION of senders: who may write, and as which tenant. Decided before anything of a body is read.
//!
//! Owns the answer to strangers, and what is counted of them. Refuses to show credentials anywhere: not in logs, errors,
//! metrics or debug output. Of several ways in, any one that matches grants.

mod basic;
mod bearer;
mod gate;
mod oidc;
mod peer;
mod prints;

use crate::config::{AuthConfig, OidcConfig, ReceiveConfig};
use crate::reload::Look;
use crate::telemetry::LimitHits;
use basic::Basic;
use bearer::Bearer;
pub(crate) use gate::Gate;
use http::header::{AUTHORIZATION, HeaderName, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode};
use oidc::Oidc;
pub(super) use peer::{FromPeer, PeerDoor};
use prints::Printer;
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};
use std::sync::Arc;

/// Why somebody is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denied {
    #[error("no credentials: set basic_auth or authorization in the sender's remote_write")]
    Missing,
    #[error("the credentials are not valid here")]
    Wrong,
    #[error("the token has ended, or is not good yet")]
    Expired,
    #[error("the keys of the OpenID provider cannot be had at the moment")]
    Unavailable,
    #[error("the token is for another tenant than the tenant header names")]
    Tenant,
    #[error("too many passwords to be checked at a time")]
    Busy,
    #[error("the secret between instances is another one here")]
    Peer,
}

impl Denied {
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::Missing | Self::Wrong | Self::Expired | Self::Peer => StatusCode::UNAUTHORIZED,
            Self::Tenant => StatusCode::FORBIDDEN,
            Self::Busy | Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// `promdedup_auth_failures_total`, resolved.
#[derive(Debug, Clone)]
pub(super) struct Failures {
    missing: IntCounter,
    wrong: IntCounter,
    expired: IntCounter,
    unavailable: IntCounter,
    tenant: IntCounter,
    busy: IntCounter,
    certificate: IntCounter,
    peer: IntCounter,
}

impl Failures {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let options =
            Opts::new("promdedup_auth_failures_total", "Requests and connections of senders turned away.");
        let family = IntCounterVec::new(options, &["reason"])?;
        registry.register(Box::new(family.clone()))?;
        let of = |reason: &str| family.with_label_values(&[reason]);
        Ok(Self {
            missing: of("missing"),
            wrong: of("wrong"),
            expired: of("expired"),
            unavailable: of("unavailable"),
            tenant: of("tenant"),
            busy: of("busy"),
            certificate: of("certificate"),
            peer: of("peer"),
        })
    }

    /// A handshake that failed for the client's certificate, or for want of one.
    pub(super) fn certificate(&self) {
        self.certificate.inc();
    }

    fn count(&self, denied: Denied) {
        match denied {
            Denied::Missing => self.missing.inc(),
            Denied::Wrong => self.wrong.inc(),
            Denied::Expired => self.expired.inc(),
            Denied::Unavailable => self.unavailable.inc(),
            Denied::Tenant => self.tenant.inc(),
            Denied::Busy => self.busy.inc(),
            Denied::Peer => self.peer.inc(),
        }
    }
}

/// What credentials are good for: any tenant, or this one.
type Granted = Option<HeaderValue>;

#[derive(Debug)]
pub(super) struct Auth {
    tenant_header: HeaderName,
    basic: Option<Basic>,
    bearer: Option<Bearer>,
    oidc: Option<Oidc>,
    failures: Failures,
}

impl Auth {
    /// None: everybody may write.
    pub(super) fn new(
        config: &ReceiveConfig,
        failures: &Failures,
        registry: &Registry,
        limits: &LimitHits,
    ) -> Result<Option<Self>, String> {
        let AuthConfig { passwords, tokens, oidc } = &config.auth;
        let printer = Printer::new()?;
        let checks = IntCounter::new(
            "promdedup_auth_password_checks_total",
            "Passwords checked against a bcrypt hash; the results are remembered for a while.",
        )
        .and_then(|checks| registry.register(Box::new(checks.clone())).map(|()| checks))
        .map_err(|error| error.to_string())?;
        // Half of the threads that serve, so that a flood of passwords leaves room for what is known already.
        let at_a_time = (config.workers / 2).max(1);
        let basic = |path| {
            let hit = limits.of("password_checks");
            Basic::new(path, printer.clone(), checks, hit, at_a_time, config.request_timeout)
        };
        let basic = passwords.as_deref().map(basic).transpose()?;
        let bearer = tokens.as_deref().map(|path| Bearer::new(path, printer)).transpose()?;
        let oidc = oidc.clone().map(Oidc::new).transpose()?;
        if basic.is_none() && bearer.is_none() && oidc.is_none() {
            return Ok(None);
        }
        let tenant_header = config.tenant_header.clone();
        Ok(Some(Self { tenant_header, basic, bearer, oidc, failures: failures.clone() }))
    }

    /// To be looked at from time to time.
    pub(super) fn files(&self) -> impl Iterator<Item = Arc<dyn Look>> {
        self.basic.iter().map(Basic::file).chain(self.bearer.iter().map(Bearer::file))
    }

    /// Whether a request with these headers may go on. The tenant that its credentials are for is set in them.
    pub(super) async fn admit(&self, headers: &mut HeaderMap) -> Result<(), Denied> {
        let granted = self.check(headers).await;
        headers.remove(AUTHORIZATION); // nobody needs it any more
        match granted {
            Ok(Some(tenant)) => drop(headers.insert(self.tenant_header.clone(), tenant)),
            Ok(None) => {}
            Err(denied) => {
                self.failures.count(denied);
                return Err(denied);
            }
        }
        Ok(())
    }

    async fn check(&self, headers: &HeaderMap) -> Result<Granted, Denied> {
        let mut given = headers.get_all(AUTHORIZATION).iter();
        let (scheme, credentials) = match (given.next(), given.next()) {
            (None, _) => return Err(Denied::Missing),
            (Some(value), None) => parts(value).ok_or(Denied::Wrong)?,
            (Some(_), Some(_)) => return Err(Denied::Wrong),
        };
        let granted = match &self.basic {
            Some(basic) if scheme.eq_ignore_ascii_case(b"basic") => {
                basic.check(credentials).await.map(|()| None)?
            }
            _ if scheme.eq_ignore_ascii_case(b"bearer") => self.token(credentials).await?,
            _ => return Err(Denied::Wrong),
        };
        let named = headers.get(&self.tenant_header).filter(|tenant| !tenant.is_empty());
        match (&granted, named) {
            (Some(granted), Some(named)) if granted != named => Err(Denied::Tenant),
            _ => Ok(granted),
        }
    }

    /// One of the file's, or one of the OpenID provider's.
    async fn token(&self, token: &[u8]) -> Result<Granted, Denied> {
        let listed = self.bearer.as_ref().ok_or(Denied::Wrong).and_then(|bearer| bearer.check(token));
        match (listed, &self.oidc) {
            (Err(_), Some(oidc)) => oidc.check(token).await,
            (listed, _) => listed,
        }
    }

    /// Says how to do better: the headers that RFC 9110 asks for beside a 401.
    pub(super) fn challenge(&self, headers: &mut HeaderMap) {
        if self.basic.is_some() {
            headers.append(WWW_AUTHENTICATE, basic::CHALLENGE);
        }
        if self.bearer.is_some() || self.oidc.is_some() {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"promdedup\""));
        }
    }
}

/// Asks an OpenID provider for its keys, and says how many there are.
pub(super) async fn ask_issuer(config: &OidcConfig) -> Result<usize, String> {
    Oidc::new(config.clone())?.count_keys().await
}

/// Scheme and credentials of an `Authorization`.
fn parts(value: &HeaderValue) -> Option<(&[u8], &[u8])> {
    let bytes = value.as_bytes();
    let end = bytes.iter().position(|byte| *byte == b' ')?;
    Some((&bytes[..end], bytes[end..].trim_ascii()))
}

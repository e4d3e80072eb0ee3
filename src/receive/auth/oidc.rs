//! JSON web tokens of an OpenID provider such as Keycloak: whose they are, for whom, and until when.
//!
//! Owns the keys of the issuer, as far as they are known. They stay good while the issuer is away. A key is used with the
//! algorithm of its own kind only, whatever a token says; there is none that a sender could make up a signature for.

mod fetch;
mod token;

use super::{Denied, Granted};
use crate::config::OidcConfig;
use arc_swap::ArcSwap;
use fetch::Fetcher;
use http::HeaderValue;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use token::{Claims, Keys, Token};
use tokio::sync::Mutex;

/// The issuer is not asked more often, however many tokens name keys that nobody knows.
const ASK_EVERY: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Oidc {
    config: OidcConfig,
    fetcher: Fetcher,
    keys: ArcSwap<Keys>,
    asked: Mutex<Option<Instant>>,
}

impl Oidc {
    pub(super) fn new(config: OidcConfig) -> Result<Self, String> {
        let fetcher = Fetcher::new(&config.issuer, &config.tls)?;
        Ok(Self { config, fetcher, keys: ArcSwap::default(), asked: Mutex::default() })
    }

    /// Takes what follows `Bearer` in the header.
    pub(super) async fn check(&self, text: &[u8]) -> Result<Granted, Denied> {
        let token = Token::parse(text).ok_or(Denied::Wrong)?;
        // Not proven yet, but whoever says that he is from elsewhere need not be looked into.
        if token.claims.issuer != self.config.issuer_name {
            return Err(Denied::Wrong);
        }
        let verified = match self.keys.load().verify(&token) {
            Some(verified) => verified,
            None => self.ask_for(&token).await?,
        };
        if !verified {
            return Err(Denied::Wrong);
        }
        self.judge(&token.claims, now_s())
    }

    /// The token's key is unknown: asks the issuer, unless that was done just now. By then nobody can tell whether the
    /// token is good, so its sender is told to come back.
    async fn ask_for(&self, token: &Token<'_>) -> Result<bool, Denied> {
        let mut asked = self.asked.lock().await;
        // Others may have asked while this one waited.
        if let Some(verified) = self.keys.load().verify(token) {
            return Ok(verified);
        }
        if asked.is_some_and(|asked| asked.elapsed() < ASK_EVERY) {
            return Err(Denied::Unavailable);
        }
        let fetched = self.fetch().await;
        *asked = Some(Instant::now());
        match fetched {
            Ok(keys) => {
                tracing::info!(keys = keys.len(), "keys of the OpenID provider fetched");
                self.keys.store(keys.into());
                Ok(self.keys.load().verify(token).unwrap_or(false))
            }
            Err(problem) => {
                tracing::warn!(
                    problem,
                    "keys of the OpenID provider cannot be fetched: those known stay good"
                );
                Err(Denied::Unavailable)
            }
        }
    }

    /// How many keys the issuer has now.
    pub(super) async fn count_keys(&self) -> Result<usize, String> {
        self.fetch().await.map(|keys| keys.len())
    }

    async fn fetch(&self) -> Result<Keys, String> {
        self.fetcher.keys(&self.config.issuer_name).await
    }

    fn judge(&self, claims: &Claims, now_s: f64) -> Result<Granted, Denied> {
        const LEEWAY_S: f64 = 30.0;
        if !claims.audience.contains(&self.config.audience) {
            return Err(Denied::Wrong);
        }
        if claims.expires_s + LEEWAY_S <= now_s || claims.not_before_s > now_s + LEEWAY_S {
            return Err(Denied::Expired);
        }
        let Some(claim) = &self.config.tenant_claim else { return Ok(None) };
        let tenant = claims.text(claim).filter(|tenant| !tenant.is_empty()).ok_or(Denied::Wrong)?;
        HeaderValue::from_str(tenant).map(Some).map_err(|_| Denied::Wrong)
    }
}

#[expect(clippy::disallowed_methods, reason = "a token ends at a time of the wall clock")]
fn now_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

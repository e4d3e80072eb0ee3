//! Asks an issuer for its keys: the discovery document, then the key set that it names. Bounded in time.
//!
//! Owns which authorities its certificate is checked against, as of now.

use super::token::Keys;
use crate::config::ClientTls;
use crate::fetch::{self, Failed};
use crate::reload::Reloaded;
use http::Uri;
use rustls::ClientConfig;
use serde_json::Value;
use std::time::Duration;
use tokio::time::timeout;

/// Both documents. Senders wait for it, and Prometheus gives up after 30 s.
const TIMEOUT: Duration = Duration::from_secs(5);
const WELL_KNOWN: &str = "/.well-known/openid-configuration";

#[derive(Debug)]
pub(super) struct Fetcher {
    discovery: Uri,
    tls: Reloaded<ClientConfig>,
}

impl Fetcher {
    pub(super) fn new(issuer: &Uri, files: &ClientTls) -> Result<Self, String> {
        let discovery = format!("{}{WELL_KNOWN}", issuer.to_string().trim_end_matches('/'));
        let discovery = discovery.parse().map_err(|error| format!("{discovery}: {error}"))?;
        let (paths, read) = (files.paths(), files.clone());
        let make = move || read.read().map_err(|fault| fault.to_string());
        let tls = Reloaded::new("authorities of the OpenID provider", paths, make)?;
        Ok(Self { discovery, tls })
    }

    pub(super) async fn keys(&self, issuer_name: &str) -> Result<Keys, String> {
        match timeout(TIMEOUT, self.both(issuer_name)).await {
            Ok(fetched) => fetched.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no answer within {TIMEOUT:?}")),
        }
    }

    async fn both(&self, issuer_name: &str) -> Result<Keys, Failed> {
        let tls = self.tls.fresh();
        let document = fetch::json(&self.discovery, &tls).await?;
        let text = |name: &str| document.get(name).and_then(Value::as_str).unwrap_or_default();
        if text("issuer") != issuer_name {
            return Err(format!("{} is the document of another issuer", self.discovery).into());
        }
        let place: Uri = text("jwks_uri").parse()?;
        if self.discovery.scheme_str() == Some("https") && place.scheme_str() != Some("https") {
            return Err(format!("{} names keys at {place}, which is not https://", self.discovery).into());
        }
        let keys = Keys::parse(&fetch::json(&place, &tls).await?);
        keys.ok_or_else(|| format!("{place} holds no key set").into())
    }
}

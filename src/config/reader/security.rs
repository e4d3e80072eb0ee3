//! The reader's part for TLS and credentials. Their files must be usable at the start; later they may fail without
//! ending the process.

use super::Reader;
use crate::config::{
    AuthConfig, ClientTls, Credentials, Identity, OidcConfig, Part, Passwords, Scheme, ServerTls, TlsFault,
    Tokens,
};
use crate::config::{values, variables as var};
use http::Uri;
use std::path::PathBuf;

impl Reader {
    pub(super) fn server_tls(&mut self) -> Option<ServerTls> {
        let usable = self.tls_files(var::TLS_CERT_FILE, var::TLS_KEY_FILE, var::TLS_CLIENT_CA_FILE);
        let identity = self.identity(var::TLS_CERT_FILE, var::TLS_KEY_FILE);
        let client_authorities = self.path(var::TLS_CLIENT_CA_FILE);
        if client_authorities.is_some() && self.path(var::TLS_CERT_FILE).is_none() {
            let problem = format!("there is no TLS to ask for certificates: no {}", var::TLS_CERT_FILE);
            let way_out = format!("set {} and {}, or leave it out", var::TLS_CERT_FILE, var::TLS_KEY_FILE);
            self.mistake(var::TLS_CLIENT_CA_FILE, problem, Some(way_out));
        }
        let tls = ServerTls { identity: identity?, client_authorities };
        if usable && let Err(fault) = tls.read() {
            self.fault(&fault, var::TLS_CERT_FILE, var::TLS_KEY_FILE, var::TLS_CLIENT_CA_FILE);
        }
        Some(tls)
    }

    pub(super) fn client_tls(&mut self, url: Option<&Uri>) -> ClientTls {
        let (certificate, key) = (var::UPSTREAM_TLS_CERT_FILE, var::UPSTREAM_TLS_KEY_FILE);
        let usable = self.tls_files(certificate, key, var::UPSTREAM_TLS_CA_FILE);
        let identity = self.identity(certificate, key);
        let tls = ClientTls { authorities: self.path(var::UPSTREAM_TLS_CA_FILE), identity };
        if usable
            && !tls.is_default()
            && let Err(fault) = tls.read()
        {
            self.fault(&fault, certificate, key, var::UPSTREAM_TLS_CA_FILE);
        }
        let plain = url.is_some_and(|url| url.scheme_str() == Some("http"));
        for name in [var::UPSTREAM_TLS_CA_FILE, certificate, key] {
            if plain && self.path(name).is_some() {
                let problem = format!("{} is not https://", var::UPSTREAM_URL);
                self.mistake(name, problem, Some("correct the address, or leave it out".to_owned()));
            }
        }
        tls
    }

    pub(super) fn auth(&mut self) -> AuthConfig {
        let auth = AuthConfig {
            passwords: self.passwords(var::AUTH_BASIC_FILE),
            tokens: self.path(var::AUTH_BEARER_FILE),
            oidc: self.oidc(),
        };
        if let Some(error) = auth.tokens.as_deref().and_then(|path| Tokens::read(path).err()) {
            self.mistake(var::AUTH_BEARER_FILE, format!("the file {error}"), None);
        }
        auth
    }

    /// A file of users and passwords that can be read.
    pub(super) fn passwords(&mut self, name: &'static str) -> Option<PathBuf> {
        let path = self.path(name)?;
        if let Err(error) = Passwords::read(&path) {
            self.mistake(name, format!("the file {error}"), None);
        }
        Some(path)
    }

    /// An issuer alone would take whatever it has made for anybody else.
    fn oidc(&mut self) -> Option<OidcConfig> {
        let (issuer, audience) = (var::AUTH_OIDC_ISSUER, var::AUTH_OIDC_AUDIENCE);
        let (issuer_name, for_whom) = (self.text(issuer), self.text(audience));
        let tenant_claim = self.text(var::AUTH_OIDC_TENANT_CLAIM);
        if issuer_name.is_none() && tenant_claim.is_some() {
            let (problem, way_out) =
                (format!("{issuer} is not given"), format!("set {issuer}, or leave it out"));
            self.mistake(var::AUTH_OIDC_TENANT_CLAIM, problem, Some(way_out));
        }
        let tls = self.issuer_tls(issuer_name.as_deref());
        match (&issuer_name, &for_whom) {
            (Some(_), None) => self.alone(issuer, audience),
            (None, Some(_)) => self.alone(audience, issuer),
            _ => {}
        }
        let issuer_name = issuer_name?;
        let address = self.read(issuer, values::issuer);
        let (address, audience) = (address?, for_whom?);
        Some(OidcConfig { issuer: address, issuer_name, audience, tenant_claim, tls })
    }

    /// Who signs the issuer's certificate.
    fn issuer_tls(&mut self, issuer: Option<&str>) -> ClientTls {
        let ca = var::AUTH_OIDC_CA_FILE;
        let tls = ClientTls { authorities: self.path(ca), identity: None };
        if tls.is_default() {
            return tls;
        }
        if let Err(fault) = tls.read() {
            self.mistake(ca, fault.to_string(), None);
        }
        if issuer.is_none_or(|issuer| issuer.starts_with("http://")) {
            let problem = format!("{} is not https://", var::AUTH_OIDC_ISSUER);
            self.mistake(ca, problem, Some("correct the address, or leave it out".to_owned()));
        }
        tls
    }

    pub(super) fn credentials(&mut self, name: &'static str, scheme: Scheme) -> Option<Credentials> {
        let credentials = Credentials { scheme, path: self.path(name)? };
        if let Err(error) = credentials.read() {
            self.mistake(name, format!("the file {error}"), None);
        }
        Some(credentials)
    }

    /// A certificate and its key: both or neither.
    fn identity(&mut self, certificate: &'static str, key: &'static str) -> Option<Identity> {
        match (self.path(certificate), self.path(key)) {
            (Some(certificate), Some(key)) => return Some(Identity { certificate, key }),
            (Some(_), None) => self.alone(certificate, key),
            (None, Some(_)) => self.alone(key, certificate),
            (None, None) => {}
        }
        None
    }

    /// Whether each of the files that are given is of use by itself; whether they are together is another question.
    fn tls_files(&mut self, certificate: &'static str, key: &'static str, ca: &'static str) -> bool {
        let mut usable = true;
        for (name, part) in [(certificate, Part::Certificate), (key, Part::Key), (ca, Part::Authorities)] {
            if let Some(fault) = self.path(name).and_then(|path| part.check(&path).err()) {
                self.mistake(name, fault.to_string(), None);
                usable = false;
            }
        }
        usable
    }

    fn alone(&mut self, given: &'static str, missing: &'static str) {
        self.mistake(given, format!("{missing} is not given"), Some("set both or neither".to_owned()));
    }

    fn fault(&mut self, fault: &TlsFault, certificate: &'static str, key: &'static str, ca: &'static str) {
        let name = match fault.part {
            Part::Certificate => certificate,
            Part::Key => key,
            Part::Authorities => ca,
        };
        self.mistake(name, fault.to_string(), None);
    }

    pub(super) fn text(&self, name: &'static str) -> Option<String> {
        self.given.get(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    pub(super) fn path(&self, name: &'static str) -> Option<PathBuf> {
        self.given.get(name).filter(|path| !path.is_empty()).map(PathBuf::from)
    }
}

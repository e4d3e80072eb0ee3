//! TLS material: which files there are, what they must hold, and what rustls is told to do with it.
//!
//! Owns versions (1.2 and 1.3) and protocols (ALPN). Opens no connection, and does not watch the files.

mod validity;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig, version};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// A bundle of all public authorities has about 250 KiB.
const FILE_MAX_BYTES: u64 = 4 << 20;

/// A certificate chain and its private key, in PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The chain, the end's certificate first.
    pub certificate: PathBuf,
    /// The key: PKCS#8, PKCS#1 or SEC1, not encrypted.
    pub key: PathBuf,
}

/// How TLS is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerTls {
    /// Who we are.
    pub identity: Identity,
    /// Who signs the certificates that clients have to show; `None`: they need none.
    pub client_authorities: Option<PathBuf>,
}

/// How TLS is spoken to the upstream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// Who signs the upstream's certificate; `None`: the public authorities that Mozilla trusts.
    pub authorities: Option<PathBuf>,
    /// Who we are, if the upstream asks.
    pub identity: Option<Identity>,
}

/// Which file is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The certificate chain.
    Certificate,
    /// The private key.
    Key,
    /// The authorities that sign the other side's certificate.
    Authorities,
}

/// A file that is of no use.
#[derive(Debug, thiserror::Error)]
#[error("the file {problem}")]
pub struct TlsFault {
    /// Which one.
    pub part: Part,
    /// Why.
    pub problem: TlsProblem,
}

/// Why a file is of no use. Never holds any of its content.
#[derive(Debug, thiserror::Error)]
pub enum TlsProblem {
    /// It cannot be read.
    #[error("cannot be read ({0})")]
    Unreadable(#[from] io::Error),
    /// It is larger than such files are.
    #[error("holds more than {max} bytes")]
    TooBig {
        /// The bound, bytes.
        max: u64,
    },
    /// There is no certificate in it.
    #[error("holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)")]
    NoCertificate,
    /// There is no key in it.
    #[error("holds no private key in PEM form (PKCS#8, PKCS#1 or SEC1, without a passphrase)")]
    NoKey,
    /// PEM or DER is broken.
    #[error("is broken ({0})")]
    Broken(String),
    /// Key and certificate are not a pair.
    #[error("holds a key that does not belong to the certificate in {certificate:?}")]
    NotAPair {
        /// The certificate's file.
        certificate: PathBuf,
    },
}

impl Part {
    /// Whether a file is of use as this part, whatever the others are.
    ///
    /// # Errors
    /// When it is not.
    pub fn check(self, path: &Path) -> Result<(), TlsFault> {
        let checked = match self {
            Self::Certificate => certificates(path).map(drop),
            Self::Key => key(path).map(drop),
            Self::Authorities => return authorities(path).map(drop),
        };
        checked.map_err(|problem| problem.of(self))
    }
}

impl TlsProblem {
    fn of(self, part: Part) -> TlsFault {
        TlsFault { part, problem: self }
    }
}

impl Identity {
    fn read(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsFault> {
        let chain = certificates(&self.certificate).map_err(|problem| problem.of(Part::Certificate))?;
        let key = key(&self.key).map_err(|problem| problem.of(Part::Key))?;
        Ok((chain, key))
    }

    /// What rustls says of a pair that it does not take.
    fn fault(&self, error: rustls::Error) -> TlsFault {
        match error {
            rustls::Error::InconsistentKeys(_) => {
                TlsProblem::NotAPair { certificate: self.certificate.clone() }.of(Part::Key)
            }
            rustls::Error::InvalidCertificate(error) => {
                TlsProblem::Broken(format!("{error:?}")).of(Part::Certificate)
            }
            error => TlsProblem::Broken(error.to_string()).of(Part::Key),
        }
    }

    /// When the certificate ends.
    ///
    /// # Errors
    /// When there is none that says so.
    pub fn ends(&self) -> Result<SystemTime, TlsProblem> {
        let chain = certificates(&self.certificate)?;
        let end = chain.first().and_then(|certificate| validity::not_after(certificate));
        end.ok_or_else(|| TlsProblem::Broken("it does not say when it ends".to_owned()))
    }
}

impl ServerTls {
    /// The files, to be watched.
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        let pair = [&self.identity.certificate, &self.identity.key];
        pair.into_iter().chain(&self.client_authorities).cloned().collect()
    }

    /// Reads the files. HTTP/2 is preferred, HTTP/1.1 taken.
    ///
    /// # Errors
    /// When a file is of no use.
    pub fn read(&self) -> Result<ServerConfig, TlsFault> {
        let provider = provider();
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(VERSIONS)
            .map_err(|error| TlsProblem::Broken(error.to_string()).of(Part::Certificate))?;
        let builder = match &self.client_authorities {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let roots = Arc::new(authorities(path)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
                let verifier =
                    verifier.map_err(|error| TlsProblem::Broken(error.to_string()).of(Part::Authorities))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let (chain, key) = self.identity.read()?;
        let mut config = builder.with_single_cert(chain, key).map_err(|error| self.identity.fault(error))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

impl ClientTls {
    /// Whether anything was asked for.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The files, to be watched.
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        let pair = self.identity.iter().flat_map(|identity| [&identity.certificate, &identity.key]);
        self.authorities.iter().chain(pair).cloned().collect()
    }

    /// Reads the files.
    ///
    /// # Errors
    /// When a file is of no use.
    pub fn read(&self) -> Result<ClientConfig, TlsFault> {
        let roots = match &self.authorities {
            Some(path) => authorities(path)?,
            None => RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() },
        };
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(VERSIONS)
            .map_err(|error| TlsProblem::Broken(error.to_string()).of(Part::Authorities))?
            .with_root_certificates(roots);
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let (chain, key) = identity.read()?;
                builder.with_client_auth_cert(chain, key).map_err(|error| identity.fault(error))?
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// The newer one is preferred.
const VERSIONS: &[&rustls::SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn authorities(path: &Path) -> Result<RootCertStore, TlsFault> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path).map_err(|problem| problem.of(Part::Authorities))? {
        store
            .add(certificate)
            .map_err(|error| TlsProblem::Broken(error.to_string()).of(Part::Authorities))?;
    }
    Ok(store)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsProblem> {
    let text = content(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if found.is_empty() => Err(TlsProblem::NoCertificate),
        Ok(found) => Ok(found),
        Err(_) => Err(TlsProblem::Broken("not PEM".to_owned())),
    }
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsProblem> {
    match PrivateKeyDer::from_pem_slice(&content(path)?) {
        Ok(key) => Ok(key),
        Err(pem::Error::NoItemsFound) => Err(TlsProblem::NoKey),
        // Its text may hold parts of the file.
        Err(_) => Err(TlsProblem::Broken("not PEM".to_owned())),
    }
}

fn content(path: &Path) -> Result<Vec<u8>, TlsProblem> {
    let mut content = Vec::new();
    File::open(path)?.take(FILE_MAX_BYTES + 1).read_to_end(&mut content)?;
    if content.len() as u64 > FILE_MAX_BYTES {
        return Err(TlsProblem::TooBig { max: FILE_MAX_BYTES });
    }
    Ok(content)
}

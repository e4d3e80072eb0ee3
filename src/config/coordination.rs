//! How several instances find each other: the database, this instance's address, and the secret between them.
//!
//! Owns what may be shown of the database's address: never the password. Connects to nobody.

use super::ClientTls;
use crate::reload::{Look, Reloaded};
use http::HeaderValue;
use ring::hmac;
use ring::rand::SystemRandom;
use rustls::pki_types::ServerName;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

/// What PLACEMENT needs, if several instances share the groups out.
#[derive(Debug, Clone)]
pub struct CoordinationConfig {
    /// Where the table of groups is.
    pub database: Database,
    /// How the other instances reach this one: scheme, host and port, nothing behind.
    pub advertise_url: String,
    /// The secret between instances.
    pub peer_token: PeerToken,
    /// How TLS is spoken to those whose address is `https://`.
    pub peer_tls: ClientTls,
    /// What their certificates have to name; `None`: the host of each one's address.
    pub peer_server_name: Option<ServerName<'static>>,
}

/// A PostgreSQL database and how it is reached. Shows no password, whatever way it is printed.
#[derive(Clone)]
pub struct Database {
    /// Hosts, user, password, and whatever else the address says.
    pub connection: tokio_postgres::Config,
    /// Who signs its certificate.
    pub tls: ClientTls,
    /// Its certificate has to be a valid one for its name. Not so for `sslmode=prefer` without authorities of one's own: who can
    /// alter what is sent can have it sent in clear text as well.
    pub verified: bool,
}

/// Why an address of a database is refused. Holds no part of it.
pub(super) type Problem = String;

impl Database {
    /// Takes an address apart.
    pub(super) fn parse(url: &str, tls: ClientTls) -> Result<Self, Problem> {
        let url = url.trim();
        if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err("it does not begin with postgres://".to_owned());
        }
        let (place, query) = url.split_once('?').unwrap_or((url, ""));
        let mut kept = Vec::new();
        let mut sure = false;
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            match parameter.split_once('=').unwrap_or((parameter, "")) {
                // Who asks for any of these gets the strictest.
                ("sslmode", "require" | "verify-ca" | "verify-full") => sure = true,
                ("sslrootcert", _) => {
                    return Err("sslrootcert is given by PROMDEDUP_COORDINATION_CA_FILE here".to_owned());
                }
                _ => kept.push(parameter),
            }
        }
        let connection = format!("{place}?{}", kept.join("&")).parse::<tokio_postgres::Config>();
        // Its texts name options, never their values, but who knows what stands where an option should.
        let mut connection = connection.map_err(|_| {
            "not an address of a PostgreSQL, or one with an option that is not known".to_owned()
        })?;
        if connection.get_hosts().is_empty() {
            return Err("the host is missing".to_owned());
        }
        // The rest of a password that was cut at its own `@` would be taken for a host, and shown.
        let cut = |host: &Host| matches!(host, Host::Tcp(host) if host.contains('@'));
        if connection.get_hosts().iter().any(cut) {
            return Err("there is more than one @: within user and password it is written %40".to_owned());
        }
        if sure {
            connection.ssl_mode(SslMode::Require);
        }
        if connection.get_ssl_mode() == SslMode::Disable && tls.authorities.is_some() {
            return Err("sslmode=disable, but there is PROMDEDUP_COORDINATION_CA_FILE".to_owned());
        }
        let verified = connection.get_ssl_mode() == SslMode::Require || tls.authorities.is_some();
        Ok(Self { connection, tls, verified })
    }

    /// Each of its hosts alone, whatever it is to be for; the user, the password and TLS are those of all.
    #[must_use]
    pub fn hosts(&self) -> Vec<Self> {
        let all = &self.connection;
        let (ports, addresses) = (all.get_ports(), all.get_hostaddrs());
        let alone = |(place, host): (usize, &Host)| {
            let mut one = tokio_postgres::Config::new();
            match host {
                Host::Tcp(host) => one.host(host),
                Host::Unix(path) => one.host_path(path),
            };
            if let Some(port) = ports.get(place).or(ports.first()) {
                one.port(*port);
            }
            if let Some(address) = addresses.get(place) {
                one.hostaddr(*address);
            }
            if let Some(user) = all.get_user() {
                one.user(user);
            }
            if let Some(name) = all.get_dbname() {
                one.dbname(name);
            }
            if let Some(options) = all.get_options() {
                one.options(options);
            }
            if let Some(password) = all.get_password() {
                one.password(password);
            }
            if let Some(timeout) = all.get_connect_timeout() {
                one.connect_timeout(*timeout);
            }
            one.ssl_mode(all.get_ssl_mode()).ssl_negotiation(all.get_ssl_negotiation());
            one.channel_binding(all.get_channel_binding());
            Self { connection: one, tls: self.tls.clone(), verified: self.verified }
        };
        all.get_hosts().iter().enumerate().map(alone).collect()
    }

    /// Whether only a host that can be written to will do.
    #[must_use]
    pub fn wants_primary(&self) -> bool {
        self.connection.get_target_session_attrs() == TargetSessionAttrs::ReadWrite
    }
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports = self.connection.get_ports();
        for (place, host) in self.connection.get_hosts().iter().enumerate() {
            let port = ports.get(place).or(ports.first()).copied().unwrap_or(5432);
            let comma = if place == 0 { "" } else { "," };
            match host {
                Host::Tcp(host) => write!(f, "{comma}{host}:{port}")?,
                Host::Unix(path) => write!(f, "{comma}{}", path.display())?,
            }
        }
        write!(f, "/{}", self.connection.get_dbname().or(self.connection.get_user()).unwrap_or_default())
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Database({self})")
    }
}

/// So much of an address of a database as may be shown, right or wrong.
pub(super) fn shown(url: &str) -> String {
    let place = url.split_once('?').map_or(url, |(place, _)| place);
    let hidden = if place.len() < url.len() { "?***" } else { "" };
    match place.split_once("://") {
        // What stands before the last `@` may be a password, also one with an `@` in it.
        Some((scheme, rest)) => match rest.rsplit_once('@') {
            Some((_, host)) => format!("{scheme}://***@{host}{hidden}"),
            None => format!("{scheme}://***{hidden}"),
        },
        None => "***".to_owned(),
    }
}

/// The shortest token that is taken, in bytes.
pub const PEER_TOKEN_MIN_BYTES: usize = 16;
/// Two are enough while one takes the other's place.
const TOKENS_MAX: usize = 8;
const FILE_MAX_BYTES: u64 = 64 << 10;

/// Why a file of the secret between instances is of no use. Never holds any of its content.
#[derive(Debug, thiserror::Error)]
pub enum PeerTokenError {
    /// It cannot be read.
    #[error("cannot be read ({0})")]
    Unreadable(#[from] io::Error),
    /// It is larger than a few tokens are.
    #[error("holds more than {FILE_MAX_BYTES} bytes, or more than {TOKENS_MAX} tokens")]
    TooBig,
    /// It holds nothing.
    #[error("is empty")]
    Empty,
    /// A token that can be guessed.
    #[error("holds a token of {given} characters in line {line}; at least {PEER_TOKEN_MIN_BYTES} are needed")]
    TooShort {
        /// Its line, from 1.
        line: usize,
        /// Its length.
        given: usize,
    },
    /// It holds characters that a header must not, or blanks.
    #[error("holds a blank or a character that a header must not hold in line {line}")]
    BadCharacter {
        /// The line, from 1.
        line: usize,
    },
    /// There is no key to compare by.
    #[error("is of no use: the system has no random numbers")]
    NoRandom,
}

/// The secret between instances, read again when its file changes.
#[derive(Debug, Clone)]
pub struct PeerToken {
    path: PathBuf,
    secrets: Arc<Reloaded<PeerSecrets>>,
}

/// What the file holds: one token a line. The first is sent, each is taken, so that a new one can take an old one's place in one
/// instance after the other.
pub struct PeerSecrets {
    sent: HeaderValue,
    key: hmac::Key,
    taken: Vec<hmac::Tag>,
}

impl fmt::Debug for PeerSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PeerSecrets")
    }
}

impl PeerToken {
    /// Reads the file for the first time.
    ///
    /// # Errors
    /// When it is of no use.
    pub fn open(path: &Path) -> Result<Self, String> {
        let file = path.to_owned();
        let make = move || PeerSecrets::read(&file).map_err(|error| format!("the file {error}"));
        let secrets = Reloaded::new("secret between instances", vec![path.to_owned()], make)?;
        Ok(Self { path: path.to_owned(), secrets: Arc::new(secrets) })
    }

    /// As of the last look.
    #[must_use]
    pub fn current(&self) -> Arc<PeerSecrets> {
        self.secrets.current()
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// To be looked at by [`crate::reload::keep_looking`].
    #[must_use]
    pub fn file(&self) -> Arc<dyn Look> {
        Arc::clone(&self.secrets) as Arc<dyn Look>
    }
}

impl PeerSecrets {
    fn read(path: &PathBuf) -> Result<Self, PeerTokenError> {
        let mut text = String::new();
        let read = File::open(path)?.take(FILE_MAX_BYTES + 1).read_to_string(&mut text)?;
        if read as u64 > FILE_MAX_BYTES {
            return Err(PeerTokenError::TooBig);
        }
        Self::of(&text)
    }

    /// Of the content of the file.
    ///
    /// # Errors
    /// When that holds no token, or one that is too short.
    pub fn of(text: &str) -> Result<Self, PeerTokenError> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        let key = key.map_err(|_| PeerTokenError::NoRandom)?;
        let (mut sent, mut taken) = (None, Vec::new());
        let lines = text.lines().map(str::trim).enumerate().map(|(at, token)| (at + 1, token));
        for (line, token) in lines.filter(|(_, token)| !token.is_empty()) {
            if token.len() < PEER_TOKEN_MIN_BYTES {
                return Err(PeerTokenError::TooShort { line, given: token.len() });
            }
            if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(PeerTokenError::BadCharacter { line });
            }
            if taken.len() == TOKENS_MAX {
                return Err(PeerTokenError::TooBig);
            }
            let mut value =
                HeaderValue::try_from(token).map_err(|_| PeerTokenError::BadCharacter { line })?;
            value.set_sensitive(true);
            sent = sent.or(Some(value));
            taken.push(hmac::sign(&key, token.as_bytes()));
        }
        Ok(Self { sent: sent.ok_or(PeerTokenError::Empty)?, key, taken })
    }

    /// The token for a request to another instance, alone: no scheme before it.
    #[must_use]
    pub fn sent(&self) -> HeaderValue {
        self.sent.clone()
    }

    /// How many tokens are taken.
    #[must_use]
    pub fn count(&self) -> usize {
        self.taken.len()
    }

    /// Whether another instance's token is one of ours. Takes equally long wherever it differs.
    #[must_use]
    pub fn takes(&self, given: &[u8]) -> bool {
        self.taken
            .iter()
            .fold(false, |taken, tag| hmac::verify(&self.key, given, tag.as_ref()).is_ok() | taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(url: &str) -> Result<Database, Problem> {
        Database::parse(url, ClientTls::default())
    }

    #[test]
    fn addresses_of_databases() {
        let of = |url| database(url).map(|database| (database.to_string(), database.verified));
        assert_eq!(of("postgres://u:p@db/x"), Ok(("db:5432/x".to_owned(), false)));
        let several = "postgresql://u@a:1,b:2/x?target_session_attrs=read-write&sslmode=verify-full";
        assert_eq!(of(several), Ok(("a:1,b:2/x".to_owned(), true)));
        assert_eq!(of("postgres://u@db/?sslmode=require"), Ok(("db:5432/u".to_owned(), true)));
        for bad in ["", "db", "mysql://db/x", "postgres://", "postgres://db/x?banana=1", "postgres://db:x/x"]
        {
            assert!(database(bad).is_err(), "{bad:?}");
        }
        assert!(
            database("postgres://db/x?sslrootcert=/x").expect_err("refused").contains("COORDINATION_CA_FILE")
        );
        let own = ClientTls { authorities: Some("/ca".into()), identity: None };
        assert!(Database::parse("postgres://db/x", own.clone()).expect("taken").verified);
        assert!(Database::parse("postgres://db/x?sslmode=disable", own).is_err());
    }

    #[test]
    fn hosts_of_databases_one_by_one() {
        let all = database(
            "postgresql://u:p@a:1,b:2/x?target_session_attrs=read-write&sslmode=require&options=-c%20x%3Dy",
        )
        .expect("taken");
        assert!(all.wants_primary());
        let hosts = all.hosts();
        assert_eq!(hosts.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a:1/x", "b:2/x"]);
        for host in hosts {
            let connection = &host.connection;
            assert!(!host.wants_primary() && host.verified, "whatever it is to be for");
            assert_eq!((connection.get_user(), connection.get_password()), (Some("u"), Some(&b"p"[..])));
            assert_eq!(
                (connection.get_ssl_mode(), connection.get_options()),
                (SslMode::Require, Some("-c x=y"))
            );
        }
        assert!(!database("postgres://a,b/x").expect("taken").wants_primary());
    }

    #[test]
    fn passwords_of_databases_are_not_shown() {
        for url in [
            "postgres://u:s3cret@db/x",
            "postgres://u:s3@cret@db/x",
            "postgres://db/x?user=u&password=s3cret",
            "postgres://u:s3cret",
            "host=db password=s3cret",
            "s3cret",
        ] {
            assert!(!shown(url).contains("cret"), "{}", shown(url));
            if let Ok(database) = database(url) {
                assert!(
                    !format!("{database} {database:?} {:?}", database.connection).contains("cret"),
                    "{url}"
                );
            }
        }
        assert_eq!(shown("postgres://u:p@db:1/x?password=s"), "postgres://***@db:1/x?***");
    }

    #[test]
    fn tokens_between_instances() {
        let (old, new) = ("0123456789abcdef", "fedcba9876543210x");
        let secrets = PeerSecrets::of(&format!("\n {new}\n{old}\n")).expect("valid");
        assert_eq!(secrets.sent(), new);
        assert_eq!(secrets.count(), 2);
        assert!(secrets.takes(old.as_bytes()) && secrets.takes(new.as_bytes()));
        for wrong in ["", "0123456789abcdeF", "0123456789abcde", "0123456789abcdef0"] {
            assert!(!secrets.takes(wrong.as_bytes()), "{wrong}");
        }
        assert_eq!(format!("{secrets:?} {:?}", secrets.sent()), "PeerSecrets Sensitive");
        let refused = |text: &str| PeerSecrets::of(text).expect_err("refused").to_string();
        assert_eq!(refused(" \n"), "is empty");
        assert!(refused("0123456789abcde").contains("15 characters in line 1"));
        assert!(refused("0123456789abcdef\n0123456789 abcdef").contains("in line 2"));
    }
}

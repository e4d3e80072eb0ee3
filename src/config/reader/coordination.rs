//! The reader's part for several instances: the database, this instance's address, and the secret between them.

use super::Reader;
use crate::config::coordination::{CoordinationConfig, Database, PeerToken};
use crate::config::{ClientTls, Identity, Mode, values, variables as var};

impl Reader {
    /// `None` as well when something is wrong, which is noted.
    pub(super) fn coordination(&mut self) -> Option<CoordinationConfig> {
        let Some(url) = self.text(var::COORDINATION_URL) else {
            for name in [
                var::COORDINATION_CA_FILE,
                var::ADVERTISE_URL,
                var::PEER_TOKEN_FILE,
                var::PEER_CA_FILE,
                var::PEER_TLS_SERVER_NAME,
            ] {
                if self.given.contains_key(name) {
                    let problem =
                        format!("{} is not given, so there are no other instances", var::COORDINATION_URL);
                    let way_out = format!("set {}, or leave it out", var::COORDINATION_URL);
                    self.mistake(name, problem, Some(way_out));
                }
            }
            return None;
        };
        if self.once(var::MODE, values::mode) == Some(Mode::Observe) {
            let problem =
                format!("{} is observe, which decides nothing: there is nothing to share out", var::MODE);
            self.mistake(var::COORDINATION_URL, problem, Some("leave it out, or observe no more".to_owned()));
        }
        let tls = ClientTls { authorities: self.path(var::COORDINATION_CA_FILE), identity: None };
        self.authorities(var::COORDINATION_CA_FILE, &tls);
        let peer_tls = ClientTls {
            authorities: self.path(var::PEER_CA_FILE),
            // Shown to instances that ask their clients for a certificate, which senders have to show, too.
            identity: self
                .path(var::TLS_CERT_FILE)
                .zip(self.path(var::TLS_KEY_FILE))
                .map(|(certificate, key)| Identity { certificate, key }),
        };
        self.authorities(var::PEER_CA_FILE, &ClientTls { identity: None, ..peer_tls.clone() });
        let database = match Database::parse(&url, tls) {
            Ok(database) => Some(database),
            Err(problem) => {
                self.mistake(var::COORDINATION_URL, problem, None);
                None
            }
        };
        let advertise_url = self.needed(var::ADVERTISE_URL, values::advertise_url);
        let peer_server_name = self
            .text(var::PEER_TLS_SERVER_NAME)
            .and_then(|_| self.read(var::PEER_TLS_SERVER_NAME, values::server_name));
        let peer_token = self.needed(var::PEER_TOKEN_FILE, |path| PeerToken::open(path.as_ref()));
        Some(CoordinationConfig {
            database: database?,
            advertise_url: advertise_url?,
            peer_token: peer_token?,
            peer_tls,
            peer_server_name,
        })
    }

    fn authorities(&mut self, name: &'static str, tls: &ClientTls) {
        if !tls.is_default()
            && let Err(fault) = tls.read()
        {
            self.mistake(name, fault.to_string(), None);
        }
    }

    /// What has to be given since there is a database.
    fn needed<T>(
        &mut self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, values::Wrong>,
    ) -> Option<T> {
        if self.text(name).is_none() {
            let problem = format!("it is required, since {} is given", var::COORDINATION_URL);
            self.mistake(name, problem, Some("set it, or its flag".to_owned()));
            return None;
        }
        self.read(name, parse)
    }
}

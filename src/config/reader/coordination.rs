//! The reader's part for several instances: the database, this instance's address, and the secret between them.

use super::Reader;
use crate::config::coordination::{CoordinationConfig, Database, PeerToken};
use crate::config::{ClientTls, values, variables as var};

impl Reader {
    /// `None` as well when something is wrong, which is noted.
    pub(super) fn coordination(&mut self) -> Option<CoordinationConfig> {
        let Some(url) = self.text(var::COORDINATION_URL) else {
            for name in [var::COORDINATION_CA_FILE, var::ADVERTISE_URL, var::PEER_TOKEN_FILE] {
                if self.given.contains_key(name) {
                    let problem =
                        format!("{} is not given, so there are no other instances", var::COORDINATION_URL);
                    let way_out = format!("set {}, or leave it out", var::COORDINATION_URL);
                    self.mistake(name, problem, Some(way_out));
                }
            }
            return None;
        };
        let tls = ClientTls { authorities: self.path(var::COORDINATION_CA_FILE), identity: None };
        if !tls.is_default()
            && let Err(fault) = tls.read()
        {
            self.mistake(var::COORDINATION_CA_FILE, fault.to_string(), None);
        }
        let database = match Database::parse(&url, tls) {
            Ok(database) => Some(database),
            Err(problem) => {
                self.mistake(var::COORDINATION_URL, problem, None);
                None
            }
        };
        let advertise_url = self.needed(var::ADVERTISE_URL, values::advertise_url);
        let peer_token = self.needed(var::PEER_TOKEN_FILE, |path| PeerToken::open(path.as_ref()));
        Some(CoordinationConfig {
            database: database?,
            advertise_url: advertise_url?,
            peer_token: peer_token?,
        })
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

//! Several instances: could they share groups out by this database, know each other by this secret, and reach this one?
//!
//! The database is only read. At the address that is advertised this shows the secret, as other instances will.

use super::Line;
use crate::config::{Config, CoordinationConfig};
use crate::peers::{Hop, Hopped, HttpPeers, Peers, PeersConfig, Secret};
use crate::placement::{self, Peer, Role};
use crate::socket::NetworkBytes;
use crate::wire::Protocol;
use bytes::Bytes;
use http::Uri;
use prometheus::Registry;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

const CONNECT_MAX: Duration = Duration::from_secs(2);
const HOP_MAX: Duration = Duration::from_secs(10);
/// Nothing, as snappy packs it: an empty request.
const EMPTY: &[u8] = &[0];

/// Nothing, if there are no other instances.
pub(super) async fn look(config: &Config) -> Vec<Line> {
    let Some(coordination) = &config.coordination else { return Vec::new() };
    let token = coordination.peer_token.path().display();
    let tokens = coordination.peer_token.current().count();
    let mut lines =
        vec![Line::well(format!("secret between instances {token}"), format!("{tokens} token(s)"))];
    lines.extend(database(coordination).await);
    lines.extend(advertised(coordination, config).await);
    lines
}

/// Whether the database can be used by instances to share groups out; of several hosts, which one it is now.
async fn database(config: &CoordinationConfig) -> Vec<Line> {
    let database = &config.database;
    let what = format!("coordination database {database}");
    let mut lines = match placement::look(database).await {
        Ok(looked) => {
            let warnings = looked.warnings.into_iter().map(|warning| Line::warning(&what, warning));
            std::iter::once(Line::well(&what, looked.found)).chain(warnings).collect()
        }
        Err(error) => vec![Line::failure(&what, error)],
    };
    let hosts = database.hosts();
    if hosts.len() < 2 {
        return lines;
    }
    if !database.wants_primary() {
        let text = "several hosts, and no target_session_attrs=read-write: after a failover it may stay with one that is read-only";
        lines.push(Line::warning(&what, text));
    }
    let mut primaries = 0;
    for host in hosts {
        let what = format!("its host {host}");
        lines.push(match placement::role(&host).await {
            Ok(role) => {
                primaries += usize::from(role == Role::Primary);
                Line::well(what, named(role))
            }
            Err(error) => Line::warning(what, error),
        });
    }
    if primaries > 1 {
        let text = format!(
            "{primaries} of its hosts take writes: unless all lead to one server, instances that do not use the same serve the same groups"
        );
        lines.push(Line::warning(what, text));
    }
    lines
}

fn named(role: Role) -> &'static str {
    match role {
        Role::Primary => "the primary, or leads to it",
        Role::Standby => "a standby",
        Role::ReadOnly => "read-only",
    }
}

/// What other instances will find at the address that this one tells them.
async fn advertised(coordination: &CoordinationConfig, config: &Config) -> Vec<Line> {
    let url = &coordination.advertise_url;
    let what = format!("advertised address {url}");
    let Ok(uri) = url.parse::<Uri>() else { return vec![Line::failure(what, "not an address")] };
    let (host, port) = (uri.host().unwrap_or_default().trim_matches(['[', ']']), uri.port_u16().unwrap_or(0));
    let mut lines = Vec::new();
    if uri.scheme_str() == Some("http") && config.receive.tls.is_some() {
        lines.push(Line::warning(
            &what,
            "http://, and this instance speaks TLS where senders write: https:// it would be",
        ));
    }
    let places: Vec<SocketAddr> = match timeout(CONNECT_MAX, lookup_host((host, port))).await {
        Ok(Ok(places)) => places.collect(),
        Ok(Err(error)) => return vec![Line::failure(what, format!("its host cannot be resolved: {error}"))],
        Err(_) => {
            return vec![Line::failure(what, format!("its host is not resolved within {CONNECT_MAX:?}"))];
        }
    };
    let local = |address: IpAddr| address.to_canonical().is_loopback();
    if places.iter().any(|place| local(place.ip())) {
        lines.push(Line::warning(
            &what,
            "a loopback address: instances on other machines would reach themselves",
        ));
    }
    lines.push(reached(what, &places, coordination, config).await);
    lines
}

async fn reached(
    what: String,
    places: &[SocketAddr],
    coordination: &CoordinationConfig,
    config: &Config,
) -> Line {
    match timeout(CONNECT_MAX, TcpStream::connect(places)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => {
            return Line::well(what, "nobody listens there, which is right while this instance does not run");
        }
        Ok(Err(error)) => return Line::warning(what, format!("not reached from here: {error}")),
        Err(_) => return Line::warning(what, format!("not reached from here within {CONNECT_MAX:?}")),
    }
    match hop(coordination, config).await {
        Ok(Hopped::Answered(_) | Hopped::Misdirected) => {
            Line::well(what, "an instance answers there, and takes the secret")
        }
        Ok(Hopped::Refused { status: 401, .. }) => {
            Line::failure(what, "whoever answers there does not take the secret: 401")
        }
        Ok(Hopped::Refused { status, .. }) => {
            Line::failure(what, format!("what answers there is no instance that shares groups out: {status}"))
        }
        Ok(Hopped::Unreached { error }) => Line::failure(what, error),
        Err(error) => Line::failure(what, error),
    }
}

/// An empty request, as another instance would pass one on.
async fn hop(coordination: &CoordinationConfig, config: &Config) -> Result<Hopped, String> {
    let settings = PeersConfig {
        timeout: HOP_MAX,
        tls: Some(coordination.peer_tls.clone()),
        server_name: coordination.peer_server_name.clone(),
        tenant_header: config.receive.tenant_header.clone(),
        connections_max: 1,
        pools: 1,
    };
    let registry = Registry::new();
    let network = NetworkBytes::new(&registry).map_err(|error| error.to_string())?;
    let token = coordination.peer_token.clone();
    let secret = Secret::new(move || Some(token.current()));
    let peers = HttpPeers::new(settings, secret, &registry, &network).map_err(|error| error.to_string())?;
    let peer = Peer { id: "check".into(), url: coordination.advertise_url.as_str().into() };
    let body = Bytes::from_static(EMPTY);
    let (tenant, request_id, traceparent) = (None, None, None);
    let hop = Hop { body, protocol: Protocol::One, tenant, retry_attempt: 0, request_id, traceparent };
    Ok(peers.pass(&peer, hop).await)
}

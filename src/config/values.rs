//! Values: text into types, one function a form. Knows no variable names.

use super::{LogFormat, Mode};
use crate::series::ReplicaNames;
use crate::wire::Protocol;
use http::{HeaderName, HeaderValue, Uri};
use rustls::pki_types::ServerName;
use std::net::SocketAddr;
use std::time::Duration;

/// What is wrong with a value, as the middle of a sentence.
pub(super) type Wrong = String;

/// `250ms`, `15s`, `1h 30m`: a number alone says nothing about its unit.
pub(super) fn duration(text: &str) -> Result<Duration, Wrong> {
    let text = text.trim();
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    if !text.ends_with(|last: char| last.is_ascii_alphabetic()) {
        return Err("the unit is missing".to_owned());
    }
    if text.contains(|each: char| each.is_ascii_uppercase()) {
        return Err("units are written in lower case".to_owned());
    }
    humantime::parse_duration(text).map_err(|error| format!("not a duration ({error})"))
}

/// `512KiB`, `32MiB`.
pub(super) fn size_bytes(text: &str) -> Result<usize, Wrong> {
    let text = text.trim();
    if !text.ends_with(|last: char| last.is_ascii_alphabetic()) {
        return Err(if text.is_empty() { "it is empty" } else { "the unit is missing" }.to_owned());
    }
    let size = text.parse::<bytesize::ByteSize>().map_err(|_| "not a size".to_owned())?;
    usize::try_from(size.as_u64()).map_err(|_| "more than this machine can address".to_owned())
}

/// An unsigned number within bounds.
pub(super) fn number(text: &str, least: usize, most: usize) -> Result<usize, Wrong> {
    let number: usize = text.trim().parse().map_err(|_| "not a whole number".to_owned())?;
    if number < least {
        return Err(format!("below {least}"));
    }
    if number > most {
        return Err(format!("above {most}"));
    }
    Ok(number)
}

/// A version of remote write.
pub(super) fn protocol(text: &str) -> Result<Protocol, Wrong> {
    match text.trim() {
        "1.0" => Ok(Protocol::One),
        "2.0" => Ok(Protocol::Two),
        _ => Err("not a version of remote write".to_owned()),
    }
}

/// `dedup` or `observe`.
pub(super) fn mode(text: &str) -> Result<Mode, Wrong> {
    match text.trim() {
        "dedup" => Ok(Mode::Dedup),
        "observe" => Ok(Mode::Observe),
        _ => Err("no such mode".to_owned()),
    }
}

/// An address to listen on. Host names are refused: what they resolve to may change.
pub(super) fn address(text: &str) -> Result<SocketAddr, Wrong> {
    text.trim().parse().map_err(|_| "not an IP address with a port".to_owned())
}

/// `a,b,c`, at least one, none twice, blanks around them ignored.
fn list(text: &str) -> Result<Vec<&str>, Wrong> {
    let items: Vec<&str> = text.split(',').map(str::trim).collect();
    if items == [""] {
        return Err("the list is empty".to_owned());
    }
    if items.contains(&"") {
        return Err("an element of the list is empty".to_owned());
    }
    Ok(items)
}

/// A list of label names as Prometheus writes them (`[a-zA-Z_][a-zA-Z0-9_]*`), the metric name excluded.
pub(super) fn labels(text: &str) -> Result<Vec<String>, Wrong> {
    let mut names: Vec<String> = Vec::new();
    for name in list(text)? {
        let valid = !name.starts_with(|first: char| first.is_ascii_digit())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !valid {
            return Err(format!("{name:?} is not a label name"));
        }
        if name == "__name__" {
            return Err("__name__ is the name of the metric".to_owned());
        }
        if names.iter().any(|known| known == name) {
            return Err(format!("{name} is there twice"));
        }
        names.push(name.to_owned());
    }
    Ok(names)
}

/// The same, of labels that tell replicas apart, each of which is looked for in each series.
pub(super) fn replica_labels(text: &str) -> Result<Vec<String>, Wrong> {
    let names = labels(text)?;
    ReplicaNames::new(names.iter().map(String::as_str)).map_err(|bad| bad.to_string())?;
    Ok(names)
}

/// The name of a header that is free to carry a tenant.
pub(super) fn tenant_header(text: &str) -> Result<HeaderName, Wrong> {
    header_name(text)
}

/// `Name: value` pairs, separated by commas.
pub(super) fn headers(text: &str) -> Result<Vec<(HeaderName, HeaderValue)>, Wrong> {
    let mut headers: Vec<(HeaderName, HeaderValue)> = Vec::new();
    for (place, pair) in list(text)?.into_iter().enumerate() {
        let place = place + 1;
        let (name, value) = pair.split_once(':').ok_or_else(|| format!("pair {place} has no colon"))?;
        let name = header_name(name)?;
        let value = HeaderValue::from_str(value.trim())
            .map_err(|_| format!("the value of {name} holds a character that headers must not hold"))?;
        if headers.iter().any(|(known, _)| *known == name) {
            return Err(format!("{name} is there twice"));
        }
        headers.push((name, value));
    }
    Ok(headers)
}

fn header_name(text: &str) -> Result<HeaderName, Wrong> {
    let text = text.trim();
    let name =
        HeaderName::from_bytes(text.as_bytes()).map_err(|_| format!("{text:?} is not a header name"))?;
    match name.as_str() {
        "authorization" => {
            Err("authorization comes from PROMDEDUP_UPSTREAM_BASIC_FILE or PROMDEDUP_UPSTREAM_BEARER_FILE"
                .to_owned())
        }
        reserved if is_reserved(reserved) => Err(format!("{reserved} is reserved")),
        _ => Ok(name),
    }
}

/// Headers that the connection, the protocol or the proxy itself decides.
fn is_reserved(name: &str) -> bool {
    const NAMES: &[&str] = &[
        "accept-encoding",
        "connection",
        "expect",
        "host",
        "keep-alive",
        "te",
        "thanos-replica", // would make Thanos take the request for an already replicated one
        "traceparent",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
        "x-request-id",
    ];
    const PREFIXES: &[&str] = &["content-", "proxy-", "x-prometheus-remote-"];
    NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// An absolute `http://` or `https://` address without user or password.
pub(super) fn upstream_url(text: &str) -> Result<Uri, Wrong> {
    let url: Uri = text.trim().parse().map_err(|error| format!("not an address ({error})"))?;
    match url.scheme_str() {
        Some("http" | "https") => {}
        Some(scheme) => return Err(format!("{scheme}:// is not spoken here")),
        None => return Err("the scheme is missing".to_owned()),
    }
    if url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("user and password belong into PROMDEDUP_UPSTREAM_BASIC_FILE".to_owned());
    }
    if url.host().is_none_or(str::is_empty) {
        return Err("the host is missing".to_owned());
    }
    // One that is none is none to `Uri`, too, and the scheme's would be connected to.
    let authority = url.authority().map_or("", |authority| authority.as_str());
    match authority.rsplit_once(':').map(|(_, port)| (port, port.parse())) {
        Some((port, _)) if port.ends_with(']') => {}
        Some((_, Ok(1..=u16::MAX))) | None => {}
        Some((_, Ok(0))) => return Err("port 0 cannot be reached".to_owned()),
        Some((port, Err(_))) => return Err(format!("port {port:?} is none from 1 to 65535")),
    }
    Ok(url)
}

/// Scheme, host and port by which other instances reach this one, without a slash at the end.
pub(super) fn advertise_url(text: &str) -> Result<String, Wrong> {
    if text.contains('@') {
        return Err("user and password have no place in it".to_owned());
    }
    let url = upstream_url(text)?;
    let (scheme, host) = (url.scheme_str().unwrap_or("http"), url.host().unwrap_or_default());
    let Some(port) = url.port_u16() else { return Err("the port is missing".to_owned()) };
    if url.path_and_query().is_some_and(|path| path.as_str() != "/") {
        return Err("it has a path, and all instances have the same".to_owned());
    }
    // Whoever puts an address in that he does not know beforehand, as Kubernetes a pod's, needs brackets for one of IPv6.
    let host = match host.trim_matches(['[', ']']) {
        bare if bare.parse::<std::net::Ipv4Addr>().is_ok() => bare,
        _ => host,
    };
    let nowhere =
        host.trim_matches(['[', ']']).parse().is_ok_and(|address: std::net::IpAddr| address.is_unspecified());
    if nowhere {
        return Err("an address to listen on, which nobody can connect to".to_owned());
    }
    Ok(format!("{scheme}://{host}:{port}"))
}

/// What a certificate names.
pub(super) fn server_name(text: &str) -> Result<ServerName<'static>, Wrong> {
    ServerName::try_from(text.to_owned()).map_err(|_| "neither a name of DNS nor an IP address".to_owned())
}

/// The address of an OpenID provider.
pub(super) fn issuer(text: &str) -> Result<Uri, Wrong> {
    if text.contains('@') {
        return Err("user and password have no place in it".to_owned());
    }
    let url = upstream_url(text)?;
    if url.query().is_some() {
        return Err("an issuer's address has no query".to_owned());
    }
    Ok(url)
}

/// A filter of log lines.
pub(super) fn log_filter(text: &str) -> Result<String, Wrong> {
    const LEVELS: &[&str] = &["off", "error", "warn", "info", "debug", "trace"];
    // A bare word that is no level would be taken for a target and silence everything else: a typo, most likely.
    for directive in list(text)? {
        let bare = !directive.contains(['=', '[', ':']);
        if bare && !LEVELS.contains(&directive.to_ascii_lowercase().as_str()) {
            return Err(format!("{directive:?} is not a level"));
        }
    }
    tracing_subscriber::EnvFilter::try_new(text).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

/// `text` or `json`.
pub(super) fn log_format(text: &str) -> Result<LogFormat, Wrong> {
    match text.trim() {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("no such format".to_owned()),
    }
}

/// Blots out what may be secret in a value that is about to be shown.
pub(super) fn shown(name: &str, value: &str) -> String {
    if name == super::variables::COORDINATION_URL {
        return super::coordination::shown(value);
    }
    const SECRET: &[&str] = &["PASS", "SECRET", "TOKEN", "KEY", "AUTH", "HEADER"];
    let path = name.ends_with("_FILE");
    let issuer = name.starts_with("PROMDEDUP_AUTH_OIDC_");
    if !path
        && !issuer
        && name != super::variables::TENANT_HEADER
        && SECRET.iter().any(|word| name.contains(word))
    {
        return "***".to_owned();
    }
    if let Some((before, host)) = value.rsplit_once('@')
        && (before.contains("://") || name.ends_with("_URL") || name.ends_with("_ISSUER"))
    {
        let scheme = before.split_once("://").map_or(String::new(), |(scheme, _)| format!("{scheme}://"));
        return format!("{scheme}***@{host}");
    }
    value.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        let ms = |text| duration(text).map(|duration| duration.as_millis());
        assert_eq!(ms("250ms"), Ok(250));
        assert_eq!(ms("15s"), Ok(15_000));
        assert_eq!(ms("2m"), Ok(120_000));
        assert_eq!(ms("1h30m"), Ok(5_400_000));
        assert_eq!(ms("0s"), Ok(0));
        assert_eq!(ms("0"), Err("the unit is missing".to_owned()));
        assert_eq!(ms("15"), Err("the unit is missing".to_owned()));
        assert_eq!(ms(""), Err("it is empty".to_owned()));
        assert_eq!(ms("10M"), Err("units are written in lower case".to_owned()), "a month, to humantime");
        assert!(ms("-1s").is_err());
        assert!(ms("soons").is_err());
    }

    #[test]
    fn sizes_need_a_unit() {
        assert_eq!(size_bytes("32MiB"), Ok(32 << 20));
        assert_eq!(size_bytes("1KiB"), Ok(1024));
        assert_eq!(size_bytes("5B"), Ok(5));
        assert_eq!(size_bytes("32"), Err("the unit is missing".to_owned()));
        assert!(size_bytes("MiB").is_err());
        assert!(size_bytes("-1MiB").is_err());
    }

    #[test]
    fn label_lists() {
        assert_eq!(labels("a, b_2"), Ok(vec!["a".to_owned(), "b_2".to_owned()]));
        for bad in ["", ",", "a,", "2a", "a-b", "__name__", "a,b,a", "naïve"] {
            assert!(labels(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn reserved_headers_are_refused() {
        assert_eq!(headers("X-Zone: a,x-rack:7").map(|all| all.len()), Ok(2));
        for bad in [
            "X-Zone",
            "X Zone: a",
            "X-A: 1,X-a: 2",
            "Authorization: Bearer x",
            "Content-Type: text/plain",
            "THANOS-REPLICA: 1",
            "Host: a",
            "X-Prometheus-Remote-Write-Version: 2.0.0",
            "X-A: \u{7f}",
        ] {
            assert!(headers(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn upstream_urls() {
        assert!(upstream_url("http://thanos:19291/api/v1/receive").is_ok());
        assert!(upstream_url("http://[::1]:19291/api/v1/receive?x=y").is_ok());
        assert!(upstream_url("https://thanos.example.com/api/v1/receive").is_ok());
        for bad in
            ["", "thanos:19291", "/api/v1/receive", "ftp://a/", "http://u:p@a/", "http://", "http://a:0/"]
        {
            assert!(upstream_url(bad).is_err(), "{bad:?}");
        }
        for port in ["99999", "65536", ""] {
            let said = upstream_url(&format!("http://[::1]:{port}/x")).unwrap_err();
            assert_eq!(said, format!("port {port:?} is none from 1 to 65535"));
        }
        for good in ["http://a/x", "http://[::1]/x", "http://a:1/x", "https://[::1]:65535"] {
            assert!(upstream_url(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn advertised_addresses() {
        assert_eq!(advertise_url("http://10.0.0.7:19290/"), Ok("http://10.0.0.7:19290".to_owned()));
        assert_eq!(advertise_url(" https://[fd00::7]:443"), Ok("https://[fd00::7]:443".to_owned()));
        assert_eq!(advertise_url("http://[10.0.0.7]:19290"), Ok("http://10.0.0.7:19290".to_owned()));
        let without_port = advertise_url("http://promdedup-0.promdedup");
        assert_eq!(without_port, Err("the port is missing".to_owned()));
        for bad in [
            "",
            "10.0.0.7:19290",
            "http://0.0.0.0:1",
            "http://[0.0.0.0]:1",
            "http://[::]:1",
            "http://a:1/x",
            "http://u:p@a:1",
        ] {
            assert!(advertise_url(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn log_filters() {
        assert!(log_filter("info").is_ok());
        assert!(log_filter("warn,promdedup=debug").is_ok());
        for bad in ["", "infoo", "promdedup=loud", "info,,debug"] {
            assert!(log_filter(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(shown("PROMDEDUP_UPSTREAM_URL", "http://u:p@a/"), "http://***@a/");
        for name in ["PROMDEDUP_UPSTREAM_URL", "PROMDEDUP_ADVERTISE_URL", "PROMDEDUP_AUTH_OIDC_ISSUER"] {
            assert_eq!(shown(name, "u:p@a:1/"), "***@a:1/", "{name}");
        }
        assert_eq!(shown("PROMDEDUP_UPSTREAM_BASIC_FILE", "/etc/a@b"), "/etc/a@b");
        assert_eq!(shown("PROMDEDUP_UPSTREAM_HEADERS", "X-Key: s3cret"), "***");
        assert_eq!(shown("PROMDEDUP_UPSTREAM_HEADERS", "X-Key: s3cret, X-Ref: http://u:p@h/"), "***");
        assert_eq!(shown("PROMDEDUP_PEER_TOKEN", "s3cret"), "***");
        assert_eq!(shown("PROMDEDUP_PEER_TOKEN_FILE", "/etc/token"), "/etc/token");
        assert_eq!(shown("PROMDEDUP_TENANT_HEADER", "a b"), "a b");
        assert_eq!(shown("PROMDEDUP_AUTH_OIDC_ISSUER", "https://sso/"), "https://sso/");
        assert_eq!(shown("PROMDEDUP_AUTH_TOKEN", "s3cret"), "***");
    }
}

//! Content headers: remote write 1.0, 2.0, or neither. Pure.

use crate::forward;
use crate::peers::PEER_HEADER;
use crate::pipeline;
use http::HeaderMap;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, TRANSFER_ENCODING};
use std::borrow::Cow;

/// Protocols as the metric names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// Remote write 1.0.
    One,
    /// Remote write 2.0.
    Two,
    /// Something else.
    Other,
}

/// Why the headers do not promise a body that can be read; the answer is 415.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unsupported {
    #[error("message {given:?} is not remote write: expected proto={MESSAGE_1} or proto={MESSAGE_2}")]
    Message { given: String },
    #[error("Content-Type {given:?} is not supported: expected application/x-protobuf")]
    Type { given: String },
    #[error("Content-Encoding {given:?} is not supported: expected snappy")]
    Encoding { given: String, of: Protocol },
}

impl From<pipeline::Protocol> for Protocol {
    fn from(version: pipeline::Protocol) -> Self {
        match version {
            pipeline::Protocol::One => Self::One,
            pipeline::Protocol::Two => Self::Two,
        }
    }
}

impl From<&Result<pipeline::Protocol, Unsupported>> for Protocol {
    fn from(checked: &Result<pipeline::Protocol, Unsupported>) -> Self {
        match checked {
            Ok(version) => (*version).into(),
            Err(Unsupported::Message { .. } | Unsupported::Type { .. }) => Self::Other,
            Err(Unsupported::Encoding { of, .. }) => *of,
        }
    }
}

const MESSAGE_1: &str = "prometheus.WriteRequest";
const MESSAGE_2: &str = "io.prometheus.write.v2.Request";
const VERSION: &str = "x-prometheus-remote-write-version";
/// Not more than this of a header is repeated to the sender.
const SHOWN_MAX_CHARS: usize = 100;

/// Checks type and encoding as the specification of remote write 2.0 asks of receivers: an absent or empty type
/// is a 1.0 body, an absent encoding is snappy. The type alone says which version the body is of, whatever
/// `X-Prometheus-Remote-Write-Version` says.
pub(super) fn check(headers: &HeaderMap) -> Result<pipeline::Protocol, Unsupported> {
    let content_type = text(headers, &CONTENT_TYPE);
    let mut parts = content_type.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default();
    if !media.is_empty() && !media.eq_ignore_ascii_case("application/x-protobuf") {
        return Err(Unsupported::Type { given: shown(&content_type) });
    }
    let mut version = pipeline::Protocol::One;
    for parameter in parts {
        let Some((name, value)) = parameter.split_once('=') else { continue };
        if !name.trim().eq_ignore_ascii_case("proto") {
            continue;
        }
        match value.trim().trim_matches('"') {
            MESSAGE_1 => version = pipeline::Protocol::One,
            MESSAGE_2 => version = pipeline::Protocol::Two,
            other => return Err(Unsupported::Message { given: shown(other) }),
        }
    }
    // Said twice, it is encoded twice.
    let mut encodings = headers.get_all(CONTENT_ENCODING).iter();
    let encoding = match (encodings.next(), encodings.next()) {
        (Some(first), Some(_)) => format!("{}, ...", String::from_utf8_lossy(first.as_bytes())).into(),
        _ => text(headers, &CONTENT_ENCODING),
    };
    let encoding = encoding.trim();
    if !encoding.is_empty() && !encoding.eq_ignore_ascii_case("snappy") {
        return Err(Unsupported::Encoding { given: shown(encoding), of: version.into() });
    }
    Ok(version)
}

/// Whether the sender speaks remote write 2.0, whatever its body is: it reads how much was written from every answer.
pub(super) fn speaks_two(protocol: Protocol, headers: &HeaderMap) -> bool {
    protocol == Protocol::Two
        || headers.get(VERSION).is_some_and(|version| version.as_bytes().starts_with(b"2."))
}

/// How many values a header has, if they are not all the same: which of them is meant?
pub(super) fn several(headers: &HeaderMap, name: &HeaderName) -> Option<usize> {
    let first = headers.get(name)?;
    let values = headers.get_all(name);
    values.iter().any(|value| value != first).then(|| values.iter().count())
}

/// The transfer codings of a body, if they are anything but `chunked`: hyper takes off that one, and whoever stands in front may
/// see another end of the body than we do.
pub(super) fn odd_coding(headers: &HeaderMap) -> Option<String> {
    let mut given = headers.get_all(TRANSFER_ENCODING).iter();
    match (given.next(), given.next()) {
        (None, _) => None,
        (Some(one), None) if one.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") => None,
        (Some(first), _) => Some(shown(&String::from_utf8_lossy(first.as_bytes()))),
    }
}

/// What is passed on of a sender's headers when its request goes on as it came: all but those of the connection, and those
/// that are never passed on. The tenant is what `headers` say, whatever the sender says of his connection: it may be that of his token.
pub(super) fn passed_on(headers: &HeaderMap, tenant_header: &HeaderName) -> HeaderMap {
    let mut passed_on = forward::end_to_end(headers);
    let name = HeaderName::from_static;
    // (Thanos' own name of a tenant counts there where the header that it is set to is not there.)
    for never in [AUTHORIZATION, name("thanos-replica"), name("thanos-tenant"), name(PEER_HEADER)] {
        if never != *tenant_header {
            passed_on.remove(never);
        }
    }
    if let Some(tenant) = headers.get(tenant_header) {
        passed_on.insert(tenant_header, tenant.clone());
    }
    passed_on
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Cow<'a, str> {
    headers.get(name).map_or(Cow::Borrowed(""), |value| String::from_utf8_lossy(value.as_bytes()))
}

fn shown(given: &str) -> String {
    given.chars().take(SHOWN_MAX_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::Protocol::{One, Two};
    use http::HeaderValue;

    fn with(content_type: &str, encoding: &str) -> Result<pipeline::Protocol, Unsupported> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_str(content_type).expect("value"));
        headers.insert(CONTENT_ENCODING, HeaderValue::from_str(encoding).expect("value"));
        check(&headers)
    }

    #[test]
    fn the_type_says_which_version_it_is() {
        assert_eq!(check(&HeaderMap::new()), Ok(One));
        for (kind, version) in [
            ("", One),
            ("application/x-protobuf", One),
            ("Application/X-Protobuf", One),
            ("application/x-protobuf;proto=prometheus.WriteRequest", One),
            ("application/x-protobuf; proto=\"prometheus.WriteRequest\"; charset=x", One),
            ("application/x-protobuf; charset", One),
            ("application/x-protobuf;proto=io.prometheus.write.v2.Request", Two),
            ("application/x-protobuf; charset=x; Proto=\"io.prometheus.write.v2.Request\"", Two),
        ] {
            for encoding in ["snappy", "", "Snappy"] {
                assert_eq!(with(kind, encoding), Ok(version), "{kind}");
            }
        }
    }

    #[test]
    fn who_speaks_two_is_told_by_the_type_or_by_the_version() {
        let two = "application/x-protobuf;proto=io.prometheus.write.v2.Request";
        for (kind, version, speaks) in [
            (two, None, true),
            (two, Some("0.1.0"), true),
            ("application/json", Some("2.0.0"), true),
            ("application/x-protobuf;proto=a.B", Some("2.1.0"), true),
            ("application/x-protobuf", Some("0.1.0"), false),
            ("application/x-protobuf", Some("1.0"), false),
            ("application/json", None, false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            version.map(|version| headers.insert(VERSION, HeaderValue::from_static(version)));
            assert_eq!(speaks_two(Protocol::from(&check(&headers)), &headers), speaks, "{kind} {version:?}");
        }
    }

    /// Or a sender could take off the tenant of his token, and write as another one.
    #[test]
    fn the_tenant_is_not_the_connections() {
        for (tenant_header, tenants) in [("thanos-tenant", [Some("a"), None]), ("x-scope", [None, Some("b")])]
        {
            let mut headers = HeaderMap::new();
            for (name, value) in [
                ("thanos-tenant", "a"),
                ("x-scope", "b"),
                ("authorization", "Bearer secret"),
                ("connection", "thanos-tenant, x-scope"),
            ] {
                headers.insert(name, HeaderValue::from_static(value));
            }
            let passed_on = passed_on(&headers, &HeaderName::from_static(tenant_header));
            let of = |name| passed_on.get(name).map(|value| value.to_str().expect("text"));
            assert_eq!([of("thanos-tenant"), of("x-scope")], tenants);
            assert_eq!(of("authorization"), None);
        }
    }

    #[test]
    fn what_is_encoded_twice_is_not_supported() {
        let mut headers = HeaderMap::new();
        for _ in 0..2 {
            headers.append(CONTENT_ENCODING, HeaderValue::from_static("snappy"));
        }
        let given = "snappy, ...".to_owned();
        assert_eq!(check(&headers), Err(Unsupported::Encoding { given, of: Protocol::One }));
        assert_eq!(several(&headers, &CONTENT_ENCODING), None, "the same");
        assert_eq!(several(&headers, &CONTENT_TYPE), None);
        headers.append(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        assert_eq!(several(&headers, &CONTENT_ENCODING), Some(3));
    }

    #[test]
    fn other_bodies() {
        let other = "application/x-protobuf;proto=a.B";
        assert_eq!(with(other, "snappy"), Err(Unsupported::Message { given: "a.B".to_owned() }));
        for kind in ["application/json", "text/plain", "image/png", "application/x-protobuf2"] {
            assert_eq!(with(kind, "snappy"), Err(Unsupported::Type { given: kind.to_owned() }));
        }
        let two = "application/x-protobuf;proto=io.prometheus.write.v2.Request";
        for encoding in ["gzip", "deflate", "identity", "zstd", "snappy, gzip"] {
            for (kind, of) in [("application/x-protobuf", Protocol::One), (two, Protocol::Two)] {
                let refused = Unsupported::Encoding { given: encoding.to_owned(), of };
                let checked = with(kind, encoding);
                assert_eq!(Protocol::from(&checked), of);
                assert_eq!(checked, Err(refused));
            }
        }
    }
}

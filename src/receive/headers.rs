//! Content headers: remote write 1.0 or not. Pure.

use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName};
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
    #[error(
        "this version takes remote write 1.0 (proto=prometheus.WriteRequest) only, not 2.0 (proto={MESSAGE_2})"
    )]
    ProtocolTwo,
    #[error("message {given:?} is not remote write: expected proto={MESSAGE_1}")]
    Message { given: String },
    #[error("Content-Type {given:?} is not supported: expected application/x-protobuf")]
    Type { given: String },
    #[error("Content-Encoding {given:?} is not supported: expected snappy")]
    Encoding { given: String },
}

impl Unsupported {
    pub(super) fn protocol(&self) -> Protocol {
        match self {
            Self::ProtocolTwo => Protocol::Two,
            Self::Message { .. } | Self::Type { .. } => Protocol::Other,
            Self::Encoding { .. } => Protocol::One,
        }
    }
}

const MESSAGE_1: &str = "prometheus.WriteRequest";
const MESSAGE_2: &str = "io.prometheus.write.v2.Request";
/// Not more than this of a header is repeated to the sender.
const SHOWN_MAX_CHARS: usize = 100;

/// Checks type and encoding as the specification of remote write 2.0 asks of receivers: an absent or empty type
/// is a 1.0 body, an absent encoding is snappy.
pub(super) fn check(headers: &HeaderMap) -> Result<(), Unsupported> {
    let content_type = text(headers, &CONTENT_TYPE);
    let mut parts = content_type.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default();
    if !media.is_empty() && !media.eq_ignore_ascii_case("application/x-protobuf") {
        return Err(Unsupported::Type { given: shown(&content_type) });
    }
    for parameter in parts {
        let Some((name, value)) = parameter.split_once('=') else { continue };
        if !name.trim().eq_ignore_ascii_case("proto") {
            continue;
        }
        match value.trim().trim_matches('"') {
            MESSAGE_1 => {}
            MESSAGE_2 => return Err(Unsupported::ProtocolTwo),
            other => return Err(Unsupported::Message { given: shown(other) }),
        }
    }
    let encoding = text(headers, &CONTENT_ENCODING);
    let encoding = encoding.trim();
    if !encoding.is_empty() && !encoding.eq_ignore_ascii_case("snappy") {
        return Err(Unsupported::Encoding { given: shown(encoding) });
    }
    Ok(())
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
    use http::HeaderValue;

    fn with(content_type: &str, encoding: &str) -> Result<(), Unsupported> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_str(content_type).expect("value"));
        headers.insert(CONTENT_ENCODING, HeaderValue::from_str(encoding).expect("value"));
        check(&headers)
    }

    #[test]
    fn bodies_of_remote_write_1() {
        assert_eq!(check(&HeaderMap::new()), Ok(()));
        for kind in [
            "",
            "application/x-protobuf",
            "Application/X-Protobuf",
            "application/x-protobuf;proto=prometheus.WriteRequest",
            "application/x-protobuf; proto=\"prometheus.WriteRequest\"; charset=x",
            "application/x-protobuf; charset",
        ] {
            assert_eq!(with(kind, "snappy"), Ok(()), "{kind}");
            assert_eq!(with(kind, ""), Ok(()), "{kind}");
            assert_eq!(with(kind, "Snappy"), Ok(()), "{kind}");
        }
    }

    #[test]
    fn other_bodies() {
        let two = "application/x-protobuf;proto=io.prometheus.write.v2.Request";
        assert_eq!(with(two, "snappy"), Err(Unsupported::ProtocolTwo));
        let other = "application/x-protobuf;proto=a.B";
        assert_eq!(with(other, "snappy"), Err(Unsupported::Message { given: "a.B".to_owned() }));
        for kind in ["application/json", "text/plain", "image/png", "application/x-protobuf2"] {
            assert_eq!(with(kind, "snappy"), Err(Unsupported::Type { given: kind.to_owned() }));
        }
        for encoding in ["gzip", "deflate", "identity", "zstd", "snappy, gzip"] {
            let refused = Err(Unsupported::Encoding { given: encoding.to_owned() });
            assert_eq!(with("application/x-protobuf", encoding), refused);
        }
    }
}

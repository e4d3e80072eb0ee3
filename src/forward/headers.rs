//! Which headers belong to a message, and which to the connection it came over. Pure.

use http::HeaderMap;
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE,
};

/// Those of the connection (RFC 9110, 7.6.1), and those that whoever writes the message sets anew: its length and host.
const OF_THE_CONNECTION: [HeaderName; 10] = [
    CONNECTION,
    CONTENT_LENGTH,
    EXPECT,
    HOST,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];
const ALSO_OF_THE_CONNECTION: [&str; 2] = ["keep-alive", "proxy-connection"];

/// With which a receiver of 2.0 says how many samples, histograms and exemplars it has written.
pub const WRITTEN: [&str; 3] = [
    "x-prometheus-remote-write-samples-written",
    "x-prometheus-remote-write-histograms-written",
    "x-prometheus-remote-write-exemplars-written",
];

/// What is left of headers behind the connection they came over.
#[must_use]
pub fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let mut left = headers.clone();
    for value in headers.get_all(CONNECTION) {
        // What cannot be read names nothing.
        for name in value.to_str().unwrap_or_default().split(',') {
            left.remove(name.trim());
        }
    }
    OF_THE_CONNECTION.iter().for_each(|name| drop(left.remove(name)));
    ALSO_OF_THE_CONNECTION.iter().for_each(|name| drop(left.remove(*name)));
    left
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn what_belongs_to_the_connection_goes_no_further() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Hop"),
            ("connection", "x-also"),
            ("x-hop", "1"),
            ("x-also", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authorization", "Basic x"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("expect", "100-continue"),
            ("host", "x"),
            ("content-length", "4"),
            ("content-type", "application/x-protobuf"),
            ("x-twice", "1"),
            ("x-twice", "2"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let left = end_to_end(&headers);
        let names: Vec<_> =
            left.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(names, [("content-type", "application/x-protobuf"), ("x-twice", "1"), ("x-twice", "2")]);
    }
}

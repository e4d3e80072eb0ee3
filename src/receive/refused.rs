//! Refusals: why a request gets no further than the listener, and the answer to that.
//!
//! Refuses to know what becomes of the rest of its body.

use super::admission::Full;
use super::auth::Denied;
use super::headers::Unsupported;
use super::routes::PATHS;
use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderName, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use std::time::Duration;

const RETRY_AFTER_S: u32 = 1;

/// Why a request gets no further than this room.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("no such path: remote write goes to {}", PATHS[0])]
    Path,
    #[error("only POST is allowed here")]
    Method,
    #[error(transparent)]
    Stranger(#[from] Denied),
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    #[error("Transfer-Encoding {given:?} is not supported: expected chunked")]
    Coding { given: String },
    #[error("{name} names {count} tenants: expected one")]
    Tenants { name: HeaderName, count: usize },
    #[error("the body has {given} bytes or more, at most {max} are taken")]
    TooBig { given: u64, max: usize },
    #[error("the body took longer than {} to arrive", humantime::format_duration(*.after))]
    TooSlow { after: Duration },
    #[error("the body broke off after {after} bytes: {error}")]
    BrokeOff { after: usize, error: String },
    #[error(transparent)]
    Full(#[from] Full),
    #[error("shutting down")]
    Draining,
    #[error("internal error, see the log of promdedup")]
    Panicked,
}

impl Refused {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Path => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Stranger(denied) => denied.status(),
            Self::Unsupported(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooBig { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::Coding { .. } | Self::Tenants { .. } | Self::BrokeOff { .. } => StatusCode::BAD_REQUEST,
            Self::Full(_) | Self::Draining => StatusCode::SERVICE_UNAVAILABLE,
            Self::Panicked => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Whether what is left of the body is not read, so that the connection cannot go on.
    fn closes(&self) -> bool {
        matches!(
            self,
            Self::Stranger(_)
                | Self::Coding { .. }
                | Self::TooBig { .. }
                | Self::TooSlow { .. }
                | Self::BrokeOff { .. }
                | Self::Draining
        )
    }

    pub(super) fn response(&self) -> Response {
        let mut response = sentence(self.status(), self.to_string());
        let headers = response.headers_mut();
        match self {
            Self::Method => drop(headers.insert(ALLOW, HeaderValue::from_static("POST"))),
            Self::Full(_) | Self::Draining | Self::Stranger(Denied::Busy | Denied::Unavailable) => {
                drop(headers.insert(RETRY_AFTER, RETRY_AFTER_S.into()))
            }
            _ => {}
        }
        if self.closes() {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// An answer for people, of one line.
pub(super) fn sentence(status: StatusCode, mut text: String) -> Response {
    if !text.ends_with('\n') {
        text.push('\n');
    }
    (status, [(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"))], text).into_response()
}

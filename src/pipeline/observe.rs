//! Observe mode: a request goes to upstream as it came, and upstream's answer back; what deduplication would have done is found
//! out when that answer is known.
//!
//! Owns what is different then; the rest is the life of any request, with an answer that is there already: it decides,
//! makes the outgoing body (and throws it away), commits or rolls back, and counts. Refuses to hold anything up.

use super::{Incoming, Pipeline, Reply, Written};
use crate::forward::{Passed, Relayed, Upstream};
use http::HeaderMap;

/// What is passed on of a request besides its body.
#[derive(Debug, Clone)]
pub struct Verbatim {
    /// The headers that go on.
    pub headers: HeaderMap,
    /// They announce something else than remote write, so there is nothing to look into.
    pub unsupported: bool,
}

impl<U: Upstream> Pipeline<U> {
    pub(super) async fn relay(&self, incoming: &Incoming, verbatim: &Verbatim) -> Relayed {
        let passed = Passed {
            body: incoming.body.clone(),
            headers: verbatim.headers.clone(),
            protocol: incoming.protocol,
        };
        self.upstream.relay(passed).await
    }
}

impl From<Relayed> for Reply {
    /// Only where upstream has said nothing there is something to say.
    fn from(relayed: Relayed) -> Self {
        match relayed.echo {
            Ok(echo) => Self {
                status: echo.status,
                text: String::new(),
                retry_after_s: None,
                written: Written::default(),
                elsewhere: false,
                echo: Some(Box::new(echo)),
            },
            Err(error) => Self::new(503, format!("upstream did not answer: {error}")),
        }
    }
}

//! Readiness: whether traffic should come here.

use crate::config::AdminConfig;
use crate::forward::HttpUpstream;
use crate::receive::{Phase, PhaseControl};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// How often the upstream is tried while it counts as gone, at most.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// What readiness hangs on.
#[derive(Debug)]
pub struct Readiness {
    phase: PhaseControl,
    upstream: HttpUpstream,
    patience: Duration,
}

/// Why traffic should go elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unready {
    #[error("the remote-write listener is not open yet")]
    Starting,
    #[error("draining")]
    Draining,
    #[error("no attempt at the upstream has succeeded for {}: {why}", humantime::format_duration(*.failing))]
    Upstream { failing: Duration, why: String },
}

impl Readiness {
    /// Follows the data plane's phase and the upstream's health.
    #[must_use]
    pub fn new(config: &AdminConfig, phase: PhaseControl, upstream: HttpUpstream) -> Self {
        Self { phase, upstream, patience: config.upstream_timeout * 2 }
    }

    pub(super) fn now(&self) -> Result<(), Unready> {
        match self.phase.now() {
            Phase::Starting => return Err(Unready::Starting),
            Phase::Leaving | Phase::Draining | Phase::Closing | Phase::Ended => {
                return Err(Unready::Draining);
            }
            Phase::Serving => {}
        }
        match self.upstream.health().failing_for(self.patience, Instant::now()) {
            Some(failing) => Err(Unready::Upstream {
                failing: Duration::from_secs(failing.as_secs()),
                why: self.upstream.health().failure(),
            }),
            None => Ok(()),
        }
    }

    /// An unready process gets no traffic, so it would never see the upstream come back: hence it tries by itself.
    /// Never ends.
    pub(super) async fn probe_while_unready(&self) {
        let pause = PROBE_EVERY.min(self.patience / 4).max(Duration::from_millis(10));
        loop {
            sleep(pause).await;
            if matches!(self.now(), Err(Unready::Upstream { .. })) {
                let answer = self.upstream.probe().await;
                tracing::debug!(?answer, "tried the upstream");
            }
        }
    }
}

//! The phases of the data plane's life, which only go forward. Readiness and connections follow them.

use tokio::sync::watch;

/// Where the data plane is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Not accepting yet.
    Starting,
    /// Accepting and serving.
    Serving,
    /// Asked to end: still accepting and serving, but no longer ready, so that load goes elsewhere.
    Leaving,
    /// Accepting nothing, finishing what is in flight, answering 503 to the rest.
    Draining,
    /// Closing connections.
    Closing,
    /// Over: what is still open is cut.
    Ended,
}

/// Sets the phase, and shows it to whoever subscribes.
#[derive(Debug, Clone)]
pub struct PhaseControl(watch::Sender<Phase>);

impl Default for PhaseControl {
    fn default() -> Self {
        Self(watch::Sender::new(Phase::Starting))
    }
}

impl PhaseControl {
    /// The phase now.
    #[must_use]
    pub fn now(&self) -> Phase {
        *self.0.borrow()
    }

    /// Follows the phase.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Phase> {
        self.0.subscribe()
    }

    /// Goes forward to `phase`; going back is ignored.
    pub fn set(&self, phase: Phase) {
        self.0.send_if_modified(|now| {
            let forward = phase > *now;
            *now = phase.max(*now);
            forward
        });
    }
}

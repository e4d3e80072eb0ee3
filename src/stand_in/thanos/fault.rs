//! Faults that a test or a person can switch on while the stand-in runs.

use std::time::Duration;

/// What happens to a request instead of being stored and answered with 200.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Answered so; nothing is stored. A 409 or 500 of a receiver that did store something is [`Fault::AnswerAfterStoring`].
    Answer {
        /// Status code.
        status: u16,
        /// Body.
        text: String,
        /// `Retry-After`, if any (Thanos never sends it).
        retry_after_s: Option<u32>,
    },
    /// Stored, and then answered so.
    AnswerAfterStoring {
        /// Status code.
        status: u16,
        /// Body.
        text: String,
    },
    /// The connection is reset; nothing is stored.
    ResetBeforeStoring,
    /// Stored, and then the connection is reset: the sender cannot know.
    ResetAfterStoring,
    /// No answer until the fault is healed or replaced; then the request goes on as if it had just come. If the client gives up before,
    /// nothing is stored.
    Hang,
    /// Stored, and then no answer until the fault is healed or replaced.
    HangAfterStoring,
}

impl Fault {
    /// An answer with this status and nothing stored.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self::Answer { status, text: format!("injected {status}"), retry_after_s: None }
    }
}

/// Limits of Thanos' `write.*.request`, answered 413; they hold besides any fault.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the compressed or of the decoded body.
    pub body_bytes_max: Option<usize>,
    /// TimeSeries of one request.
    pub series_max: Option<usize>,
    /// Float samples of one request.
    pub samples_max: Option<usize>,
}

/// What is switched on now.
#[derive(Debug, Clone, Default)]
pub(super) struct Faults {
    pub(super) fault: Option<Fault>,
    /// For so many more requests; `None`: until healed.
    pub(super) remaining: Option<u32>,
    pub(super) delay: Duration,
    pub(super) limits: Limits,
}

impl Faults {
    /// The fault for the request that just came.
    pub(super) fn take(&mut self) -> Option<Fault> {
        let fault = self.fault.clone()?;
        if let Some(remaining) = &mut self.remaining {
            *remaining = remaining.saturating_sub(1);
            if *remaining == 0 {
                self.fault = None;
                self.remaining = None;
            }
        }
        Some(fault)
    }
}

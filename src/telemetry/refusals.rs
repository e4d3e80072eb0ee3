//! What senders were told lately that it will not help to send again: for whoever looks at the status.
//!
//! A few of them, cut to a line each. Refuses to keep what a sender is to try again (503): that is no refusal.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

const KEPT_MAX: usize = 20;
const TEXT_MAX_BYTES: usize = 300;

/// What a sender was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The group of the first series of the request, if it could be read so far.
    pub group: String,
    /// The replica of it.
    pub replica: String,
    /// The status code.
    pub status: u16,
    /// The answer, or its beginning.
    pub text: String,
}

/// The last of them.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<VecDeque<(Instant, Refusal)>>);

impl Refusals {
    /// Remembers one; the oldest makes room.
    pub fn note(&self, mut refusal: Refusal) {
        let end = refusal.text.floor_char_boundary(TEXT_MAX_BYTES);
        refusal.text.truncate(end);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT_MAX {
            kept.pop_front();
        }
        kept.push_back((Instant::now(), refusal));
    }

    /// How long ago each was.
    #[must_use]
    pub fn newest_first(&self, now: Instant) -> Vec<(Duration, Refusal)> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().rev().map(|(at, refusal)| (now.saturating_duration_since(*at), refusal.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_last_few_are_kept_and_each_is_short() {
        let refusals = Refusals::default();
        for status in 400..450 {
            let text = "é".repeat(1_000);
            refusals.note(Refusal { group: "g".into(), replica: "a".into(), status, text });
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let kept = refusals.newest_first(Instant::now());
        let told: Vec<_> = kept.iter().map(|(ago, refusal)| (ago.as_secs(), refusal.status)).collect();
        assert_eq!(told, (1..=20).map(|ago| (ago, 450 - ago as u16)).collect::<Vec<_>>());
        assert!(kept.iter().all(|(_, refusal)| refusal.text.len() == 300));
    }
}

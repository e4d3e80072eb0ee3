//! The throttle of the log: many lines of one kind in a short time are a few lines, and one that says how many were left out.
//!
//! A kind is a place in the source. Lines below INFO are left alone: who asks for these wants all of them.

use super::LINES_LEFT_OUT;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tracing::callsite::Identifier;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Lines of one kind within [`WITHIN`].
const LINES_MAX: u32 = 10;
const WITHIN: Duration = Duration::from_secs(10);

/// To be put before the layer that writes. As many kinds as there are places in the source that log.
#[derive(Debug, Default)]
pub(super) struct Throttle(Mutex<HashMap<Identifier, Kind>>);

#[derive(Debug)]
struct Kind {
    since: Instant,
    lines: u32,
    left_out: u64,
}

/// What becomes of a line.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Written,
    /// After so many of its kind that were not.
    WrittenAfter(u64),
    LeftOut,
}

impl Throttle {
    fn judge(&self, kind: Identifier, now: Instant) -> Verdict {
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = match kinds.entry(kind) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(Kind { since: now, lines: 0, left_out: 0 }),
        };
        let mut left_out = 0;
        if now.saturating_duration_since(known.since) >= WITHIN {
            left_out = known.left_out;
            *known = Kind { since: now, lines: 0, left_out: 0 };
        }
        if known.lines == LINES_MAX {
            known.left_out += 1;
            return Verdict::LeftOut;
        }
        known.lines += 1;
        if left_out == 0 { Verdict::Written } else { Verdict::WrittenAfter(left_out) }
    }
}

impl<S: Subscriber> Layer<S> for Throttle {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let line = event.metadata();
        if *line.level() > Level::INFO {
            return true;
        }
        match self.judge(line.callsite(), Instant::now()) {
            Verdict::Written => {}
            Verdict::LeftOut => {
                LINES_LEFT_OUT.get().inspect(|counter| counter.inc());
                return false;
            }
            // It comes here, too, but at most as often as this: its own kind is left out first.
            Verdict::WrittenAfter(lines) => tracing::warn!(
                lines,
                of = line.target(),
                line = line.line(),
                "log lines were left out: there were many of one kind"
            ),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tracing_subscriber::layer::SubscriberExt;

    /// Counts the lines that get through.
    #[derive(Clone, Default)]
    struct Written(Arc<AtomicUsize>);

    impl<S: Subscriber> Layer<S> for Written {
        fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_flood_of_one_kind_is_a_few_lines_and_others_are_not_touched() {
        let written = Written::default();
        let log = tracing_subscriber::registry().with(Throttle::default()).with(written.clone());
        tracing::subscriber::with_default(log, || {
            (0..1_000).for_each(|_| tracing::warn!("a flood"));
            assert_eq!(written.0.load(Ordering::Relaxed), LINES_MAX as usize);
            tracing::warn!("another kind");
            (0..1_000).for_each(|_| tracing::debug!("asked for"));
        });
        assert_eq!(written.0.load(Ordering::Relaxed), LINES_MAX as usize + 1 + 1_000);
    }

    #[test]
    fn a_kind_is_heard_again_later_and_says_what_was_missed() {
        let (throttle, start) = (Throttle::default(), Instant::now());
        let kind = || {
            // Any place will do.
            static HERE: tracing::callsite::DefaultCallsite = tracing::callsite::DefaultCallsite::new(&META);
            static META: tracing::Metadata<'static> = tracing::Metadata::new(
                "a line",
                "here",
                Level::WARN,
                None,
                None,
                None,
                tracing::field::FieldSet::new(&[], Identifier(&HERE)),
                tracing::metadata::Kind::EVENT,
            );
            Identifier(&HERE)
        };
        for _ in 0..LINES_MAX {
            assert_eq!(throttle.judge(kind(), start), Verdict::Written);
        }
        for _ in 0..3 {
            assert_eq!(throttle.judge(kind(), start + WITHIN / 2), Verdict::LeftOut);
        }
        assert_eq!(throttle.judge(kind(), start + WITHIN), Verdict::WrittenAfter(3));
        assert_eq!(throttle.judge(kind(), start + WITHIN), Verdict::Written);
        assert_eq!(throttle.judge(kind(), start + 3 * WITHIN), Verdict::Written, "nothing was missed");
    }
}

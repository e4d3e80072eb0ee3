//! HEALTH of groups: the mistakes of a setup that make deduplication do nothing, or do it badly, and that nobody notices.
//!
//! Looks once a minute at what the window knows of each group, and says what it finds as metrics, in the log, and to the
//! status. Refuses to change a decision, and to cost a sample anything: it counts beside the data's way.

mod metrics;
mod reason;
mod state;

pub use reason::{Reason, advice};

use crate::series::GroupKey;
use crate::window::{Census, Group, Window};
use metrics::HealthGauges;
use prometheus::Registry;
use state::State;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::{MissedTickBehavior, interval, sleep};

/// How often groups are looked at.
pub const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Entries that are counted in one go.
const STEP: u32 = 4096;
/// Lines of one look. What finds no place in the log has one in the metrics, and in the log of the next look.
const LINES_MAX: usize = 10;

/// What is known of each group's health.
#[derive(Debug)]
pub struct Health {
    window: Arc<Window>,
    /// By the group's number: whose it was at the last look, and what is known of that.
    states: Mutex<Vec<(GroupKey, State)>>,
}

impl Health {
    /// Knows nothing yet, and registers its metrics.
    ///
    /// # Errors
    /// When one is registered already.
    pub fn register(registry: &Registry, window: Arc<Window>) -> Result<Arc<Self>, prometheus::Error> {
        let health = Arc::new(Self { window, states: Mutex::default() });
        registry.register(Box::new(HealthGauges::new(Arc::clone(&health))?))?;
        Ok(health)
    }

    /// Looks at all groups, again and again. Never ends.
    pub async fn watch(self: Arc<Self>) {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        loop {
            ticks.tick().await;
            let mut census = Census::default();
            let mut from = self.window.count(0, STEP, &mut census);
            while from != 0 {
                sleep(Duration::from_millis(1)).await;
                from = self.window.count(from, STEP, &mut census);
            }
            self.judge(&census, now_ms());
        }
    }

    /// Looks at all groups at once. `now_ms`: the wall clock, to be [`LOOK_EVERY`] later each time.
    pub fn look(&self, now_ms: i64) {
        let mut census = Census::default();
        self.window.count(0, u32::MAX, &mut census);
        self.judge(&census, now_ms);
    }

    fn judge(&self, census: &Census, now_ms: i64) {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lines = LINES_MAX;
        self.window.groups().each(|group| {
            let number = group.number() as usize;
            if states.len() <= number {
                states.resize_with(number + 1, || (group.key(), State::default()));
            }
            let (whose, state) = &mut states[number];
            // A number may have become another's.
            if *whose != group.key() {
                (*whose, *state) = (group.key(), State::default());
            }
            let found = state.look(group, census.of(group.number()), now_ms);
            for (reason, what) in &found {
                if lines > 0 && state.may_log(*reason, now_ms) {
                    lines -= 1;
                    let (group, problem) = (group.name(), reason.name());
                    tracing::warn!(group, problem, advice = reason.advice(), "{what}");
                }
            }
        });
    }

    /// Shows each group to `show`: which problems it has, and what part of its series only one replica has.
    fn each(&self, mut show: impl FnMut(&Group, [bool; Reason::ALL.len()], f64)) {
        let states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        self.window.groups().each(|group| {
            let state = states.get(group.number() as usize).filter(|(whose, _)| *whose == group.key());
            let (has, alone) = state.map_or_else(Default::default, |(_, state)| (state.has(), state.alone()));
            show(group, has, alone);
        });
    }
}

/// The wall clock in ms since the epoch.
#[expect(
    clippy::disallowed_methods,
    reason = "when replicas and groups were last heard of is told by the wall clock"
)]
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

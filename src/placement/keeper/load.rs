//! How much a group brings: samples a second, as a mean that forgets.

use std::time::Duration;

/// What was longer ago than this counts for little.
const MEMORY_S: f64 = 30.0;
/// Whoever had the group before has measured it: so much of that is believed.
const BELIEVED_S: f64 = MEMORY_S / 2.0;

#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    per_second: f64,
    /// How long it has been measured for, up to the memory.
    measured_s: f64,
}

impl Load {
    /// As somebody else has measured it; 0: nobody has.
    pub(super) fn of(per_second: f64) -> Self {
        let measured_s = if per_second > 0.0 { BELIEVED_S } else { 0.0 };
        Self { per_second, measured_s }
    }

    pub(super) fn measured(&mut self, samples: u64, within: Duration) {
        let within_s = within.as_secs_f64();
        if within_s <= 0.0 {
            return;
        }
        // The plain mean at first, so that a group which has just come counts for what it brings.
        self.measured_s = (self.measured_s + within_s).min(MEMORY_S.max(within_s));
        let here = samples as f64 / within_s;
        self.per_second += (here - self.per_second) * within_s / self.measured_s;
    }

    pub(super) fn per_second(self) -> f64 {
        self.per_second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_secs(2);

    #[test]
    fn it_is_a_mean_that_forgets() {
        let mut load = Load::of(0.0);
        load.measured(200, TICK);
        assert!((load.per_second() - 100.0).abs() < 1e-9, "the first measurement counts in full");
        load.measured(0, TICK);
        assert!((load.per_second() - 50.0).abs() < 1e-9);
        for _ in 0..150 {
            load.measured(20, TICK);
        }
        assert!((load.per_second() - 10.0).abs() < 0.1, "{load:?}");
        load.measured(5, Duration::ZERO);
        assert!((load.per_second() - 10.0).abs() < 0.1, "no time, no measurement");
    }

    #[test]
    fn what_the_one_before_measured_is_believed_for_a_while() {
        let mut load = Load::of(1000.0);
        load.measured(0, TICK);
        assert!(load.per_second() > 800.0, "{load:?}");
    }
}

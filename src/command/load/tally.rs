//! What the senders count: samples, bytes, and how long acknowledgements took.

use std::time::Duration;

/// Steps of a power of two: a latency is known to within 3 %.
const STEPS: u64 = 32;
/// Microseconds up to 2^32, beyond any timeout.
const CELLS: usize = 32 * STEPS as usize;

/// Counted since the start; two of them apart give the time between.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    /// Attempts.
    pub(super) requests: u64,
    /// Attempts that were repeated.
    pub(super) retries: u64,
    /// Samples answered with 2xx.
    pub(super) acknowledged: u64,
    /// Samples dropped for another answer.
    pub(super) refused: u64,
    /// Compressed, of all attempts.
    pub(super) body_bytes: u64,
    /// The same decompressed.
    pub(super) raw_bytes: u64,
    /// Samples of them that are older than the run: only a backlog has them.
    pub(super) replayed: u64,
    /// Of attempts that were acknowledged, but for those of a replica that is behind.
    pub(super) latency: Latency,
    /// The same without what the sink took of it.
    pub(super) added: Latency,
    /// Of how many of them something came to the sink.
    pub(super) traced: u64,
    /// Of attempts of a replica that is behind.
    pub(super) late: Latency,
    /// The last answer that was none of success.
    pub(super) trouble: Option<String>,
}

impl Tally {
    /// What was counted since `before`; the trouble is the last one.
    pub(super) fn since(&self, before: &Self) -> Self {
        Self {
            requests: self.requests - before.requests,
            retries: self.retries - before.retries,
            acknowledged: self.acknowledged - before.acknowledged,
            refused: self.refused - before.refused,
            body_bytes: self.body_bytes - before.body_bytes,
            raw_bytes: self.raw_bytes - before.raw_bytes,
            replayed: self.replayed - before.replayed,
            latency: self.latency.since(&before.latency),
            added: self.added.since(&before.added),
            traced: self.traced - before.traced,
            late: self.late.since(&before.late),
            trouble: self.trouble.clone(),
        }
    }
}

/// A histogram with cells that grow with the value.
#[derive(Debug, Clone)]
pub(super) struct Latency(Vec<u64>);

impl Default for Latency {
    fn default() -> Self {
        Self(vec![0; CELLS])
    }
}

impl Latency {
    pub(super) fn note(&mut self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let cell = cell(us).min(CELLS - 1);
        self.0[cell] += 1;
    }

    /// The value that this share of all is at or below, in milliseconds (the upper end of its cell); `None` of nothing.
    pub(super) fn quantile_ms(&self, share: f64) -> Option<f64> {
        let all: u64 = self.0.iter().sum();
        let mut left = ((all as f64 * share).ceil() as u64).max(1);
        for (cell, count) in self.0.iter().enumerate() {
            if *count >= left {
                return Some(upper_us(cell) as f64 / 1e3);
            }
            left -= count;
        }
        None
    }

    fn since(&self, before: &Self) -> Self {
        Self(self.0.iter().zip(&before.0).map(|(now, then)| now - then).collect())
    }
}

fn cell(us: u64) -> usize {
    if us < STEPS {
        return us as usize;
    }
    let shift = us.ilog2() - STEPS.ilog2();
    (u64::from(shift) * STEPS + (us >> shift)) as usize
}

fn upper_us(cell: usize) -> u64 {
    let cell = cell as u64;
    if cell < 2 * STEPS {
        return cell;
    }
    let shift = cell / STEPS - 1;
    ((cell - shift * STEPS + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_narrow_and_in_order() {
        let mut last = 0;
        for us in (0..100_000).chain([1 << 20, 1 << 30, (1 << 31) + 5]) {
            let cell = cell(us);
            assert!(cell >= last && cell < CELLS, "{us}");
            last = cell;
            let upper = upper_us(cell);
            assert!(upper >= us && upper - us <= us / STEPS, "{us} {upper}");
        }
    }

    #[test]
    fn quantiles_are_those_of_what_was_noted() {
        let mut latency = Latency::default();
        assert_eq!(latency.quantile_ms(0.5), None);
        for ms in 1..=100 {
            latency.note(Duration::from_millis(ms));
        }
        let check = |share, ms: f64| {
            let have = latency.quantile_ms(share).unwrap();
            assert!((ms..=ms * 1.04).contains(&have), "{share}: {have}");
        };
        check(0.5, 50.0);
        check(0.99, 99.0);
        check(1.0, 100.0);
        let before = latency.clone();
        latency.note(Duration::from_secs(7));
        assert!(latency.since(&before).quantile_ms(0.5).unwrap() >= 7_000.0);
    }
}

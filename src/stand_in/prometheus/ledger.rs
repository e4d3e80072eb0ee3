//! What one replica sent and what of it was acknowledged: the sender's side of the truth a checker judges by.

use crate::stand_in::Point;

/// One sample that left the replica at least once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// The sample.
    pub point: Point,
    /// Whether a request that carried it was answered with 2xx.
    pub acknowledged: bool,
}

/// All samples sent, by the number of their series; bounded.
#[derive(Debug)]
pub(super) struct Ledger {
    series: Vec<Vec<Sent>>,
    recorded: usize,
    recorded_max: usize,
    pub(super) unrecorded: u64,
}

impl Ledger {
    pub(super) fn new(series: usize, recorded_max: usize) -> Self {
        Self { series: vec![Vec::new(); series], recorded: 0, recorded_max, unrecorded: 0 }
    }

    pub(super) fn sent(&mut self, series: usize, point: Point) {
        if self.recorded >= self.recorded_max {
            self.unrecorded += 1;
            return;
        }
        self.recorded += 1;
        self.series[series].push(Sent { point, acknowledged: false });
    }

    pub(super) fn acknowledged(&mut self, series: usize, point: Point) {
        // Near the end: a series is in one request at a time.
        if let Some(sent) = self.series[series].iter_mut().rev().find(|sent| sent.point == point) {
            sent.acknowledged = true;
        }
    }

    pub(super) fn series(&self) -> &[Vec<Sent>] {
        &self.series
    }
}

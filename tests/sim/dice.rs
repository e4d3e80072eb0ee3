//! Chance that repeats: the same seed gives the same rolls everywhere.

use std::ops::RangeInclusive;

/// splitmix64.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64, what_for: u64) -> Self {
        let mut dice =
            Self(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ what_for.wrapping_mul(0x9e6c_63d0_876a_68ee));
        dice.roll();
        dice
    }

    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number of the range, both ends included.
    pub(crate) fn of(&mut self, range: RangeInclusive<i64>) -> i64 {
        let width = (range.end() - range.start()).unsigned_abs() + 1;
        range.start() + (self.roll() % width).cast_signed()
    }

    /// An index below `count`.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        (self.roll() % count.max(1) as u64) as usize
    }

    pub(crate) fn percent(&mut self, chance: i64) -> bool {
        self.of(0..=99) < chance
    }

    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

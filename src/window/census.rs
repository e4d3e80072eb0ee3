//! The census: how many of a group's living series more than one replica has shown. Counted by walking the table beside the
//! data's way, so that no sample pays for it.
//!
//! Looks at entries without claiming them: a count may be off by what is decided in that moment. Refuses to change anything.

use super::Window;
use std::sync::atomic::Ordering::Relaxed;

/// A series is living if it was touched in the last so many ticks.
const LIVING_TICKS: u8 = 3;

/// Counts by group, of one walk over the table.
#[derive(Debug, Clone, Default)]
pub struct Census(Vec<Count>);

/// The living series of a group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Those that have lived long enough for each replica to show them.
    pub living: u32,
    /// Those among them that only one replica has shown.
    pub alone: u32,
}

impl Census {
    /// Of the group with that number.
    #[must_use]
    pub fn of(&self, group: u32) -> Count {
        self.0.get(group as usize).copied().unwrap_or_default()
    }

    fn add(&mut self, group: u32, alone: bool) {
        if self.0.len() <= group as usize {
            self.0.resize(group as usize + 1, Count::default());
        }
        let count = &mut self.0[group as usize];
        count.living += 1;
        count.alone += u32::from(alone);
    }
}

impl Window {
    /// Counts `count` entries from number `from` on. Returns the number to go on from; 0 when the table has been walked
    /// to its end.
    pub fn count(&self, from: u32, count: u32, census: &mut Census) -> u32 {
        let used = self.table.used();
        let end = used.min(from.saturating_add(count));
        let now = self.tick.load(Relaxed);
        for number in from..end {
            let Some(glance) = self.table.entry(number).glance() else { continue };
            if now.wrapping_sub(glance.tick) < LIVING_TICKS {
                census.add(self.targets.slot(glance.target).group(), glance.alone);
            }
        }
        if end == used { 0 } else { end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_kept_by_group() {
        let mut census = Census::default();
        for (group, alone) in [(3, true), (0, false), (3, false), (3, true)] {
            census.add(group, alone);
        }
        assert_eq!(census.of(3), Count { living: 3, alone: 2 });
        assert_eq!(census.of(0), Count { living: 1, alone: 0 });
        assert_eq!((census.of(1), census.of(70_000)), (Count::default(), Count::default()));
    }
}

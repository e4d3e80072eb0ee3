//! A group that leaves: another instance serves it from now on, so nothing of it may be known here when it comes back.
//!
//! Works in steps as [`Window::sweep`] does, with the same claims, so there is nothing new between threads: an entry is
//! looked at without a claim, claimed for the table as an idle one is, looked at again, and forgotten or given back.
//! Refuses to take what a request has claimed.

use super::{Replica, Window};
use crate::series::GroupKey;
use std::sync::Arc;

/// A standby has shown so many tenths of an interval above what upstream has: its owner is later than deliveries are, so it is away, and
/// has not been silent for long enough to be taken over from.
const OVERDUE_TENTHS: i64 = 15;
/// Or it is held above that at all, and nothing of its owner has arrived for so many tenths of an interval.
const SILENT_TENTHS: i64 = 12;

impl Window {
    /// Whether, among `count` entries from number `from` on, an owner of a series of the group is overdue, so that samples which are held
    /// are all that upstream will get of a gap; and the number to go on from, 0 when the table has been walked to its end. Exact while
    /// no request of the group is served. `now_ms`: the wall clock.
    #[must_use]
    pub fn is_overdue(&self, group: GroupKey, from: u32, count: u32, now_ms: i64) -> (bool, u32) {
        // Held, so that its number stays its own.
        let Some(group) = self.groups.known(group) else { return (false, 0) };
        let used = self.table.used();
        let end = used.min(from.saturating_add(count));
        let silent_ms = |replica: Arc<Replica>| {
            replica.arrived_ms().map_or(0, |arrived_ms| now_ms.saturating_sub(arrived_ms))
        };
        // By number. (That of an entry of another group is of no matter: it is asked last whose an entry is.)
        let silent_ms: Vec<_> = group.replicas().into_iter().map(silent_ms).collect();
        let overdue = (from..end).any(|entry| {
            let series = self.table.entry(entry);
            let (interval, held_above) = (series.interval(), series.held_above());
            let is_late = || {
                held_above * 10 > interval * OVERDUE_TENTHS
                    || silent_ms.get(usize::from(series.owner().0)).copied().unwrap_or(0).saturating_mul(10)
                        > interval * SILENT_TENTHS
            };
            interval > 0
                && held_above > 0
                && is_late()
                && series.is_free_to_claim()
                && self.group_of(entry) == group.number()
        });
        (overdue, if end < used { end } else { 0 })
    }

    /// Forgets, among `count` entries from number `from` on, those of the group. Returns the number to go on from; 0 when the
    /// table has been walked to its end: then fronts, backlogs and doubts of the group are forgotten, too, and the group is
    /// new again. The caller sees to it that no request of the group is served meanwhile; what one has claimed all the same
    /// stays.
    pub fn forget_group(&self, group: GroupKey, from: u32, count: u32) -> u32 {
        // Held, so that its number stays its own.
        let Some(group) = self.groups.known(group) else { return 0 };
        let used = self.table.used();
        let end = used.min(from.saturating_add(count));
        for entry in from..end {
            self.forget_entry_of(group.number(), entry);
        }
        if end < used {
            return end;
        }
        group.forget();
        0
    }

    fn forget_entry_of(&self, group: u32, number: u32) {
        let entry = self.table.entry(number);
        // A free entry is the table's, and what it says of a target is of no matter.
        let is_of_it = || self.group_of(number) == group;
        if !entry.is_free_to_claim() || !is_of_it() || !entry.claim_for_table() {
            return;
        }
        // It may have become another's since.
        if is_of_it() {
            self.own(entry, entry.owner(), -1);
            self.forget(number);
        } else {
            entry.release();
        }
    }
}

//! A conflict with what upstream has unknown to the window: what a flight brought that got no answer, a process before this one, or
//! another instance.
//!
//! For as long as two instances serve one group, upstream may have newer samples of a series than the window here, and refuses what
//! this one sends. Owns when that is as good as a duplicate. Refuses to ask who serves the group: whoever is cut off from the
//! database is the last to know.

use super::Pipeline;
use super::judge::{Bench, Judged};
use super::request::{Fate, Kind, Request};
use crate::forward::{Answer, answer};
use crate::window::{Doubted, UNKNOWN, Window};
use std::ops::Range;

/// Samples at most so many intervals old are as good as stored when upstream has a newer one: that is no farther away.
const NEAR_INTERVALS: i64 = 2;

impl<U> Pipeline<U> {
    /// Why a conflict of these units loses nothing although nobody repeats anything, if so: the label `reason`. Upstream has to blame their
    /// order alone, so of each series that it refused a sample of it has one at that time or a newer one.
    ///
    /// Either that may be what it has unknown of their groups; or another instance was first, and what it has sent is not farther above
    /// the sample than the sample is old. What is older may be a backlog, of which upstream has nothing near: its sender is told.
    pub(super) fn explained(
        &self,
        answer: &Answer,
        request: &mut Request,
        units: &Range<usize>,
        judged: &Judged,
        bench: &Bench<'_>,
    ) -> Option<&'static str> {
        let Answer::Conflict { text } = answer else { return None };
        if !answer::names_only_the_order(text) {
            return None;
        }
        match bench.doubted(request, units, judged) {
            Some(Doubted::Unanswered) => Some("retry"),
            Some(Doubted::FirstContact) => Some("first_contact"),
            None => {
                let now_ms = bench.later_ms();
                let another = self.peering.is_some() && are_fresh(&self.window, request, units, now_ms);
                another.then_some("split")
            }
        }
    }
}

/// Whether all samples of these units that are on their way are of series whose interval is known, and at most two of these old.
fn are_fresh(window: &Window, request: &Request, units: &Range<usize>, now_ms: i64) -> bool {
    request.units[units.clone()].iter().all(|unit| {
        let item = &request.items[unit.item as usize];
        let mut aboard = (unit.first as usize..(unit.first + unit.count) as usize)
            .filter(|s| request.fates[*s] == Fate::Aboard)
            .map(|s| request.samples[s].at);
        let Some(oldest) = aboard.next().map(|first| aboard.fold(first, i64::min)) else { return true };
        // What goes as it came is nobody's duplicate.
        let number = request.found[unit.item as usize].number;
        let known = matches!(item.kind, Kind::Replicated) && number != UNKNOWN;
        known && now_ms.saturating_sub(oldest) <= NEAR_INTERVALS * window.interval_of(number)
    })
}

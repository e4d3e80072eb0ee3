//! What the window does for a flight: keeping or taking back what was reserved, and what goes with a series.

use super::super::Window;
use super::super::entry::Entry;
use super::{Log, Reserved};
use crate::policy::{Held, ReplicaId, Series};

impl Window {
    #[inline]
    pub(super) fn keep(&self, reserved: &Reserved, entry: &Entry) {
        if reserved.created {
            if entry.guard().watermark().is_none() {
                // Made for a sample that had to wait: nothing is known of it.
                return self.forget(reserved.number);
            }
            self.own(entry, entry.owner(), 1);
        } else if reserved.image.owner() != entry.owner() {
            self.own(entry, reserved.image.owner(), -1);
            self.own(entry, entry.owner(), 1);
        }
        entry.commit();
    }

    pub(super) fn restore(&self, reserved: &Reserved, entry: &Entry, answered: bool) {
        if reserved.created {
            return self.forget(reserved.number);
        }
        let image = if answered { reserved.image } else { reserved.image.unanswered() };
        entry.restore(&image);
    }

    /// Lets go histograms that are no longer held, with the flight where one may bring them back.
    #[cold]
    pub(super) fn let_go(&self, held: &[Option<Held>; 2], log: Option<&mut Log>) {
        let tokens = held.iter().flatten().map(|held| held.payload);
        match log {
            Some(log) => log.freed.extend(tokens),
            None => tokens.for_each(|token| self.histograms.drop(token)),
        }
    }

    /// After a decision about a series whose held samples are histograms: keeps the one that is new there beside the
    /// table, and lets go those that are gone from there, with the flight where one may bring them back. `false`: no
    /// room, so it is not held.
    #[cold]
    pub(super) fn hold_histograms(
        &self,
        series: &mut Series,
        before: [Option<Held>; 2],
        message: Option<&[u8]>,
        mut log: Option<&mut Log>,
    ) -> bool {
        let mut room = true;
        let known = |at| before.iter().flatten().any(|held| held.at == at);
        for slot in &mut series.held {
            let (Some(held), Some(message)) = (slot.as_mut(), message) else { continue };
            if known(held.at) {
                continue;
            }
            match self.histograms.put(message) {
                Some(token) => {
                    held.payload = token;
                    log.iter_mut().for_each(|log| log.added.push(token));
                }
                None => {
                    *slot = None;
                    room = false;
                }
            }
        }
        for gone in before.iter().flatten().filter(|held| !series.held.contains(&Some(**held))) {
            match log.as_deref_mut() {
                Some(log) => log.freed.push(gone.payload),
                None => self.histograms.drop(gone.payload),
            }
        }
        room
    }

    /// Removes an entry that the caller has claimed.
    pub(in crate::window) fn forget(&self, number: u32) {
        let entry = self.table.entry(number);
        let target = entry.target();
        // Held until its target has been left: then the number may become another's.
        let group = self.groups.group(self.targets.slot(target).group());
        let unpacked = entry.load();
        if unpacked.marks.holds_histograms {
            unpacked.series.held.iter().flatten().for_each(|held| self.histograms.drop(held.payload));
        }
        self.table.remove(number);
        self.targets.leave(target);
        if let Some(group) = group {
            self.tenants.lose(group.tenant());
            group.lose();
        }
    }

    pub(in crate::window) fn own(&self, entry: &Entry, owner: ReplicaId, series: i64) {
        if let Some(group) = self.groups.group(self.targets.slot(entry.target()).group()) {
            group.own(owner, series);
        }
    }
}

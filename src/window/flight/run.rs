//! Deciding many floats in a row, as a healthy group brings them: what was looked up for one serves the next.
//!
//! Refuses all that is not plainly the owner's next sample or what a standby shows beside it (see `entry/steady.rs`):
//! that is [`Flight::decide`]'s.

use super::super::entry::steady::{Float, Step};
use super::super::slot::Slots;
use super::super::{Window, table, target};
use super::{Flight, Known, Log, Reserved, leans_on};
use crate::policy::{ReplicaId, TimestampMs};
use crate::window::FlightId;
use std::sync::atomic::Ordering::Relaxed;

/// Some samples of a request that are decided one after the other.
#[derive(Debug)]
pub struct Run<'a> {
    entries: table::Near<'a>,
    targets: target::Near<'a>,
    slots: &'a Slots,
    tick: u8,
    slot: u16,
    log: &'a mut Log,
    open: &'a mut u32,
    forwards: &'a mut bool,
}

/// What became of a float in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steady {
    /// It is the owner's, and reserved.
    Forward,
    /// It is a standby's.
    Duplicate,
    /// As [`Decision::Leans`](super::Decision::Leans).
    Leans(FlightId),
    /// Nothing has changed: [`Flight::decide`] has to look at it.
    Unclear,
}

impl Flight {
    /// Decides floats from now on that are no stale markers.
    pub fn run(&mut self) -> Run<'_> {
        let Self { window, id, log, open, forwards, .. } = self;
        let Window { table, targets, slots, tick, .. } = &**window;
        Run {
            entries: table.near(),
            targets: targets.near(),
            slots,
            // A run is over long before it changes twice.
            tick: tick.load(Relaxed),
            slot: id.slot,
            log,
            open,
            forwards,
        }
    }
}

impl Run<'_> {
    /// As [`Window::follows`].
    #[inline(always)]
    pub fn follows(&mut self, number: u32, replica: ReplicaId) -> bool {
        let entry = self.entries.entry(number);
        self.targets.slot(entry.target()).follows(entry, replica)
    }

    /// Decides a float that is no stale marker. `late_ms`: how late a sample may be that upstream takes.
    #[inline(always)]
    pub fn decide(
        &mut self,
        known: &Known<'_>,
        replica: ReplicaId,
        at: TimestampMs,
        bits: u64,
        late_ms: i64,
    ) -> Steady {
        let entry = self.entries.entry(known.number);
        if let Err(guard) = entry.claim(self.slot) {
            // (Not on this flight itself, which has not departed yet.)
            return leans_on(self.slots, entry, guard, known.key, at, late_ms)
                .map_or(Steady::Unclear, Steady::Leans);
        }
        *self.open = known.number;
        let number = entry.target();
        let target = self.targets.slot(number);
        let step = match target.owner_unfenced() {
            Some(owner) if entry.is(known.key) && target.group() == known.group => entry
                .step(&Float { replica, at, bits }, owner, self.tick, self.slot)
                .map(|step| (step, owner)),
            _ => None,
        };
        let undo = match step {
            Some((_, owner)) if replica == owner => target.see_owner(at),
            _ => None,
        };
        let steady = match step {
            Some((Step::Forward(image), _)) => {
                self.log.series.push(Reserved { number: known.number, created: false, image });
                if let Some(undo) = undo {
                    self.log.moves.push((number, undo));
                }
                *self.forwards = true;
                Steady::Forward
            }
            Some((Step::Duplicate, _)) => {
                entry.release();
                Steady::Duplicate
            }
            None => {
                entry.release();
                Steady::Unclear
            }
        };
        *self.open = super::NONE;
        steady
    }
}

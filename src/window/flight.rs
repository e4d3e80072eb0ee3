//! A flight: what one request has reserved, until upstream's answer commits it or rolls it back.
//!
//! Deciding a sample claims its series; what goes upstream stays claimed, with an image of how the series was, until
//! the flight settles. So a series is in one flight at a time, and a rollback restores what is committed, never less.
//! Dropping a flight rolls it back: a panic or a forgotten branch leaves no reservation behind.
//! Refuses to talk to upstream and to wait; it says whom to wait for.

mod reserved;
mod run;

use super::Window;
use super::entry::{Entry, Guard, Image, Marks, NOBODY, TABLE, Unpacked};
use super::slot::{FlightId, Slots};
use super::table::{Added, NONE};
use super::target;
use crate::policy::{self, Action, Circumstances, ReplicaId, Sample, Series, TimestampMs, Up, Verdict};
use crate::series::{Place, SeriesKey};
pub use run::{Run, Steady};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// A request's reservations. Settle it with [`Flight::commit`] or [`Flight::roll_back`].
#[derive(Debug)]
pub struct Flight {
    window: Arc<Window>,
    pub(super) id: FlightId,
    log: Log,
    /// An entry that is claimed and not in the log: only while a sample is decided, or after a panic in that.
    open: u32,
    /// A series of it was in a flight before that ended without an answer.
    repeats: bool,
    takes_over: bool,
    creates: bool,
    /// Something of it goes upstream.
    forwards: bool,
    settled: bool,
}

/// The memory of a flight, to be used again.
#[derive(Debug, Default)]
pub struct Log {
    series: Vec<Reserved>,
    moves: Vec<(u32, target::Undo)>,
    /// Held histograms that are no longer needed once this commits.
    freed: Vec<u64>,
    /// Held histograms that were never needed if it does not.
    added: Vec<u64>,
}

impl Log {
    /// What it takes, whatever is in it, in bytes.
    #[must_use]
    pub fn kept_bytes(&self) -> usize {
        self.series.capacity() * size_of::<Reserved>()
            + self.moves.capacity() * size_of::<(u32, target::Undo)>()
    }
}

#[derive(Debug, Clone, Copy)]
struct Reserved {
    number: u32,
    created: bool,
    image: Image,
}

/// What became of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The policy has spoken.
    Decided {
        /// What it said.
        verdict: Verdict,
        /// The fills are histograms: see [`Window::histogram`].
        histograms: bool,
        /// The flight has reserved the series: what was decided, holding included, is undone if it does not land.
        reserved: bool,
    },
    /// It is to be held, and there is no room for another histogram.
    Unheld,
    /// Rule 1, on a watermark that another flight has only reserved and is sending: a duplicate if that ends well.
    Leans(FlightId),
    /// Rule 2: another flight carries the series. Wait for its end and decide again.
    Busy(FlightId),
    /// The window has forgotten the series meanwhile: find it anew.
    Gone,
}

/// How a series that the window does not know was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admitted {
    /// It has an entry now (its own, or one that another request has just made).
    Entry(u32),
    /// A bound is reached: series, groups, or replicas of the group.
    Full,
}

/// A series as the caller knows it, and what its sample is.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// Its entry.
    pub number: u32,
    /// Its key.
    pub key: SeriesKey,
    /// Its group, which the sample's replica is numbered in.
    pub group: u32,
    /// The message of a sample that is a histogram.
    pub histogram: Option<&'a [u8]>,
}

impl Flight {
    /// A flight that has reserved nothing; `None` if as many as may are in the air.
    #[must_use]
    pub fn begin(window: &Arc<Window>, log: Log) -> Option<Self> {
        let id = window.slots.begin()?;
        let window = Arc::clone(window);
        Some(Self {
            window,
            id,
            log,
            open: NONE,
            repeats: false,
            takes_over: false,
            creates: false,
            forwards: false,
            settled: false,
        })
    }

    /// Whether upstream may already hold what a flight before it carried.
    #[must_use]
    pub fn repeats(&self) -> bool {
        self.repeats
    }

    /// Whether a series of it changed hands.
    #[must_use]
    pub fn takes_over(&self) -> bool {
        self.takes_over
    }

    /// Whether the window saw a series of it for the first time.
    #[must_use]
    pub fn creates(&self) -> bool {
        self.creates
    }

    /// Whether it has reserved the series. `number`: the entry that it had a moment ago. It may have been forgotten since, its entry be
    /// another's, and it have been born again elsewhere.
    #[must_use]
    pub fn has_claimed(&self, number: u32, key: SeriesKey) -> bool {
        let table = &self.window.table;
        let number = if number != NONE && table.entry(number).is(key) { number } else { table.find(key) };
        number != NONE && table.entry(number).guard().flight() == self.id.slot
    }

    /// Makes an entry for an unknown series, claimed by this flight.
    pub fn admit(&mut self, key: SeriesKey, place: &Place, replica: ReplicaId, group: u32) -> Admitted {
        let window = &*self.window;
        // Held until the end: its number may not become another's before the series is counted.
        let Some(known) = window.groups.group(group).filter(|known| known.key() == place.group) else {
            window.full.fetch_add(1, Relaxed);
            return Admitted::Full;
        };
        let target = window.targets.join(place.target, group, replica);
        let owner = window.targets.slot(target).snapshot().target.owner;
        let marks = Marks { is_up: place.is_up, ..Marks::default() };
        let make = || Unpacked { series: Series::new(owner), target, marks };
        let add = || window.table.add(key, window.tick.load(Relaxed), self.id.slot, make);
        let mut added = add();
        if added == Added::Full && window.make_room(known.tenant()) {
            added = add();
        }
        match added {
            Added::New(number) => {
                window.tenants.gain(known.tenant());
                known.gain();
                self.log.series.push(Reserved { number, created: true, image: Image::default() });
                self.creates = true;
                Admitted::Entry(number)
            }
            Added::Known(number) => {
                window.targets.leave(target);
                Admitted::Entry(number)
            }
            Added::Full => {
                window.targets.leave(target);
                window.full.fetch_add(1, Relaxed);
                Admitted::Full
            }
        }
    }

    /// Decides a sample. What is forwarded stays reserved.
    #[inline]
    pub fn decide(
        &mut self,
        known: Known<'_>,
        sample: &Sample,
        circumstances: Circumstances,
        waits: impl Fn(TimestampMs, i64) -> bool + Copy,
    ) -> Decision {
        let window = &*self.window;
        let entry = window.table.entry(known.number);
        let mine = entry.guard().flight() == self.id.slot;
        if !mine
            && let Err(refused) =
                self.claim(entry, known.key, sample.at, circumstances.out_of_order_window_ms)
        {
            return refused;
        }
        if !mine {
            self.open = known.number;
        }
        let mut unpacked = entry.load();
        let target = window.targets.slot(unpacked.target);
        if !entry.is(known.key) || target.group() != known.group {
            if !mine {
                entry.release();
                self.open = NONE;
            }
            return Decision::Gone;
        }
        let before = (unpacked.series.held, unpacked.marks);
        let changes_kind = !sample.stale && before.1.holds_histograms != known.histogram.is_some();
        if changes_kind {
            // Held samples are of the kind that came last.
            unpacked.series.held = [None; 2];
            unpacked.marks.holds_histograms = !before.1.holds_histograms;
        }
        let histograms = unpacked.marks.holds_histograms;
        let held_before = unpacked.series.held;
        let (verdict, undo) = if unpacked.marks.is_up && !sample.stale {
            decide_up(&mut unpacked.series, target, sample, circumstances, waits)
        } else {
            decide_with(&mut unpacked.series, target, sample, circumstances, waits)
        };
        let forwards = verdict.action == Action::Forward;
        let waits = verdict.action == Action::Wait;
        if changes_kind && waits {
            // A sample that waits has shown nothing.
            (unpacked.series.held, unpacked.marks) = before;
        }
        if forwards {
            if !mine {
                // Nothing has been stored yet: this is how the series was.
                let image = entry.image();
                self.log.series.push(Reserved { number: known.number, created: false, image });
            }
            self.forwards = true;
            self.repeats |= unpacked.marks.unanswered;
            self.takes_over |= verdict.takeover.is_some();
        }
        let settles = forwards || mine;
        if let Some(undo) = undo
            && settles
        {
            self.log.moves.push((unpacked.target, undo));
        }
        if changes_kind && before.1.holds_histograms && !waits {
            window.let_go(&before.0, settles.then_some(&mut self.log));
        }
        let mut room = true;
        if histograms && !waits {
            let log = settles.then_some(&mut self.log);
            room = window.hold_histograms(&mut unpacked.series, held_before, known.histogram, log);
        }
        let keeps = if settles { self.id.slot } else { NOBODY };
        entry.store(&unpacked, window.tick.load(Relaxed), keeps);
        self.open = NONE;
        if room { Decision::Decided { verdict, histograms, reserved: settles } } else { Decision::Unheld }
    }

    /// Everything is decided and it is going to be sent: from now on duplicates may lean on it.
    pub fn depart(&self) {
        self.window.slots.depart(self.id);
    }

    /// Upstream has it (or has refused it for good): the new watermarks stand. Gives the memory back.
    pub fn commit(mut self) -> Log {
        // What has sent nothing has not landed.
        if self.forwards {
            self.window.note_landed();
        }
        self.settle(true, true)
    }

    /// Upstream does not have it, or has not said (`answered` false): everything is as it was before.
    pub fn roll_back(mut self, answered: bool) -> Log {
        self.settle(false, answered)
    }

    fn claim(&self, entry: &Entry, key: SeriesKey, at: TimestampMs, late_ms: i64) -> Result<(), Decision> {
        loop {
            let Err(guard) = entry.claim(self.id.slot) else { return Ok(()) };
            match guard.flight() {
                // Somebody claimed and released it between our two looks: one of us made progress, try again.
                NOBODY => {}
                TABLE => return Err(Decision::Gone),
                slot => {
                    let slots = &self.window.slots;
                    if let Some(other) = leans_on(slots, entry, guard, key, at, late_ms) {
                        return Err(Decision::Leans(other));
                    }
                    let other = slots.current(slot);
                    if entry.guard() == guard {
                        return Err(Decision::Busy(other));
                    }
                }
            }
        }
    }

    fn settle(&mut self, well: bool, answered: bool) -> Log {
        let mut log = std::mem::take(&mut self.log);
        let window = &*self.window;
        let mut entries = window.table.near();
        for reserved in &log.series {
            let entry = entries.entry(reserved.number);
            if well { window.keep(reserved, entry) } else { window.restore(reserved, entry, answered) }
        }
        if !well {
            target::undo_all(&window.targets, &log.moves);
        }
        let garbage = if well { &log.freed } else { &log.added };
        garbage.iter().for_each(|token| window.histograms.drop(*token));
        log.freed.clear();
        log.added.clear();
        self.settled = true;
        window.slots.end(self.id, well);
        log.series.clear();
        log.moves.clear();
        log
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if !self.settled {
            if self.open != NONE && !self.log.series.iter().any(|reserved| reserved.number == self.open) {
                self.window.table.entry(self.open).release();
            }
            self.settle(false, false);
        }
    }
}

/// The flight that has reserved the watermark of an entry and is sending it, if a sample of that series is a duplicate once it has
/// landed. `guard`: the entry's, claimed.
#[inline]
fn leans_on(
    slots: &Slots,
    entry: &Entry,
    guard: Guard,
    key: SeriesKey,
    at: TimestampMs,
    late_ms: i64,
) -> Option<FlightId> {
    let slot = guard.flight();
    // Where upstream takes late samples, one below the watermark may be more than a duplicate.
    let below = guard.watermark().is_some_and(|watermark| at <= watermark);
    if slot == NOBODY || slot == TABLE || !below || late_ms != 0 {
        return None;
    }
    let other = slots.current(slot);
    // One that has not left may still give up in favour of a third, which is no failure.
    let sent = slots.has_departed(slot);
    // Only if nothing has moved is it surely the flight that reserved this watermark; nor may another one have come back to it under
    // the same number.
    (sent && entry.is(key) && entry.guard() == guard && slots.current(slot) == other).then_some(other)
}

/// Decides against the target as it is, again if somebody changes its owner or fence in the same moment.
#[inline]
fn decide_with(
    series: &mut Series,
    slot: &target::TargetSlot,
    sample: &Sample,
    circumstances: Circumstances,
    waits: impl Fn(TimestampMs, i64) -> bool + Copy,
) -> (Verdict, Option<target::Undo>) {
    let before = *series;
    loop {
        let snapshot = slot.snapshot();
        let mut target = snapshot.target;
        let verdict = policy::decide(series, &mut target, None, sample, circumstances, waits);
        if let Some(undo) = slot.keep(&snapshot, &target) {
            return (verdict, undo);
        }
        *series = before;
    }
}

/// An `up` sample, once a scrape of a target: under the target's lock.
#[cold]
fn decide_up(
    series: &mut Series,
    slot: &target::TargetSlot,
    sample: &Sample,
    circumstances: Circumstances,
    waits: impl Fn(TimestampMs, i64) -> bool + Copy,
) -> (Verdict, Option<target::Undo>) {
    let sample = &Sample { up: Some(up(sample.payload)), ..*sample };
    let mut ups = slot.ups();
    let ups = ups.get_or_insert_default();
    let snapshot = slot.snapshot();
    let mut target = snapshot.target;
    let verdict = policy::decide(series, &mut target, Some(ups), sample, circumstances, waits);
    let undo = slot.keep_locked(&snapshot, &target);
    debug_assert!(undo.is_some(), "a locked target does not change");
    (verdict, undo.flatten())
}

fn up(bits: u64) -> Up {
    match f64::from_bits(bits) {
        1.0 => Up::One,
        0.0 => Up::Zero,
        _ => Up::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Or the memory of one large flight would stay with the requests to come for ever.
    #[test]
    fn what_a_log_keeps_is_what_its_lists_have_room_for() {
        assert_eq!(Log::default().kept_bytes(), 0);
        let log = Log { series: Vec::with_capacity(3), moves: Vec::with_capacity(5), ..Log::default() };
        let bytes = 3 * size_of::<Reserved>() + 5 * size_of::<(u32, target::Undo)>();
        assert_eq!(log.kept_bytes(), bytes);
    }
}

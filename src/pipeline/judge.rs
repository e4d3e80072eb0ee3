//! Decides the samples of a request, or of a part of it, and fills a flight with what is to be forwarded.
//!
//! Owns the meeting of request and window: admitting new series, and what to do about those that another flight
//! carries. Refuses to wait: it says whom for.

use super::Settings;
use super::request::{Fate, Item, Kind, Request, Unit};
use super::tally::{Tallies, Tally, takeover_number};
use crate::forward::Answer;
use crate::policy::{Action, Circumstances, Held, Sample, TimestampMs, Verdict};
use crate::series::{SeriesKey, TenantHash};
use crate::window::{
    Admitted, Decision, Doubted, Flight, FlightId, Known, Others, Seen, Steady, UNKNOWN, Window,
};
use crate::wire::STALE_NAN_BITS;
use arrayvec::ArrayVec;
use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

/// How often a series that vanishes between being found and being claimed is looked for.
const LOOKS_MAX: usize = 8;

/// What deciding a part came to.
#[derive(Debug, Default)]
pub(super) struct Judged {
    /// See [`crate::policy::Circumstances::may_be_split`].
    pub(super) may_be_split: bool,
    /// Samples of a standby to be sent before a sample of the request.
    pub(super) fills: Vec<Fill>,
    /// Something may be aboard: in a request of duplicates nothing is to be looked for.
    pub(super) boards: bool,
    /// Flights whose reservations duplicates of this request lean on, and those duplicates.
    pub(super) leans: Vec<(FlightId, u32, u32)>,
    /// Series of which a sample has to wait: so do those after it, or they would be decided over a gap.
    pub(super) waits: HashSet<SeriesKey>,
    /// Flights that carry series which this part would forward or hold samples of: decide again after their end.
    pub(super) busy: Vec<FlightId>,
    /// Changes of owners, to be counted when upstream has what made them.
    pub(super) changes: Vec<Change>,
    /// Units that go although they hold no sample: exemplars that follow their owner.
    pub(super) exemplars: Vec<u32>,
    /// Samples that are duplicates of what this flight has reserved, or held above it: if it does not land, nobody has
    /// them, so they are to be decided again.
    pub(super) tentative: Vec<u32>,
}

/// A change of owner that counts when upstream has the sample that made it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Change {
    pub(super) tally: u16,
    /// By [`takeover_number`].
    pub(super) takeover: Option<usize>,
    /// The target moved, too.
    pub(super) moved: bool,
}

/// Held samples that go before a sample.
#[derive(Debug, Clone)]
pub(super) struct Fill {
    /// The number of the sample.
    pub(super) before: u32,
    pub(super) tally: u16,
    pub(super) samples: ArrayVec<Filled, 2>,
}

/// A sample that was held.
#[derive(Debug, Clone)]
pub(super) enum Filled {
    Float { at: i64, bits: u64 },
    Histogram(Arc<[u8]>),
}

/// What is the same for all samples of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bench<'a> {
    pub(super) settings: &'a Settings,
    pub(super) window: &'a Window,
    pub(super) tenant: TenantHash,
    pub(super) retry: bool,
    /// There are other instances.
    pub(super) several: bool,
    /// The wall clock.
    pub(super) now_ms: i64,
    /// When that was, by the clock of waits.
    pub(super) begun: tokio::time::Instant,
    /// In observe mode: upstream's answer to the request as it came, so there is nothing to wait for.
    pub(super) observed: Option<&'a Answer>,
}

impl Judged {
    /// Nothing of the request before is left; its memory is.
    pub(super) fn forget(&mut self) {
        self.leans.clear();
        self.waits.clear();
        self.clear();
    }

    fn clear(&mut self) {
        // What was decided for good in an earlier round stays.
        let Self { may_be_split: _, fills, boards, leans: _, waits: _, busy, changes, exemplars, tentative } =
            self;
        *boards = false;
        fills.clear();
        busy.clear();
        changes.clear();
        exemplars.clear();
        tentative.clear();
    }
}

impl Bench<'_> {
    /// Decides the pending samples of `units`. What is to be forwarded is [`Fate::Aboard`] afterwards, unless
    /// `judged.busy` names somebody: then the flight must be rolled back and the part decided again.
    pub(super) fn judge(
        &self,
        request: &mut Request,
        units: Range<usize>,
        flight: &mut Flight,
        judged: &mut Judged,
    ) {
        judged.clear();
        let (mut u, end) = (units.start, units.end);
        loop {
            u = self.steady(request, u..end, flight, judged);
            if u == end {
                return;
            }
            self.unit(request, u, flight, judged);
            u += 1;
        }
    }

    /// Whatever a unit holds.
    fn unit(&self, request: &mut Request, u: usize, flight: &mut Flight, judged: &mut Judged) {
        let unit = request.units[u];
        match request.items[unit.item as usize].kind {
            Kind::Invalid | Kind::Waiting => {}
            Kind::Single | Kind::Unadmitted => board_all(request, unit, judged, u),
            Kind::Replicated if unit.count == 0 => self.follow(request, judged, u),
            Kind::Replicated => {
                for s in unit.first..unit.first + unit.count {
                    if request.fates[s as usize] == Fate::Pending {
                        self.sample(request, unit, s, flight, judged);
                    }
                }
            }
        }
    }

    /// Decides floats of known series for as long as they are what a healthy group brings, which is nearly always, in few words.
    /// Returns the first unit that has something else, or the end.
    fn steady(
        &self,
        request: &mut Request,
        units: Range<usize>,
        flight: &mut Flight,
        judged: &mut Judged,
    ) -> usize {
        if !judged.waits.is_empty() {
            return units.start;
        }
        let Request { units: all, items, keys, found, samples, fates, tallies, .. } = request;
        let late_ms = self.settings.out_of_order_window_ms;
        let mut run = flight.run();
        for u in units.clone() {
            let unit = all[u];
            let i = unit.item as usize;
            let (item, number) = (&mut items[i], found[i].number);
            if item.kind != Kind::Replicated || number == UNKNOWN {
                return u;
            }
            if unit.count == 0 && item.series.exemplars > 0 {
                let goes = run.follows(number, item.replica);
                note_exemplars(item, u, goes, tallies, judged);
            }
            let known = Known { number, key: keys[i], group: item.group, histogram: None };
            for s in unit.first..unit.first + unit.count {
                let (received, fate) = (&samples[s as usize], &mut fates[s as usize]);
                if *fate != Fate::Pending {
                    continue;
                }
                if received.histogram || received.bits == STALE_NAN_BITS {
                    return u;
                }
                let at = TimestampMs(received.at);
                match run.decide(&known, item.replica, at, received.bits, late_ms) {
                    Steady::Forward => {
                        *fate = Fate::Aboard;
                        judged.boards = true;
                    }
                    Steady::Duplicate => *fate = Fate::Duplicate,
                    Steady::Leans(on) => {
                        *fate = Fate::Duplicate;
                        judged.leans.push((on, unit.item, s));
                    }
                    Steady::Unclear => return u,
                }
            }
        }
        units.end
    }

    /// Decides one more time a duplicate that leaned on a flight which has ended well: its replica is alive.
    pub(super) fn note(&self, request: &mut Request, item: u32, s: u32, flight: &mut Flight) {
        let unit = Unit { item, first: s, count: 1 };
        if request.found[item as usize].number != UNKNOWN {
            self.sample(request, unit, s, flight, &mut Judged::default());
        }
    }

    /// The wall clock by now.
    pub(super) fn later_ms(&self) -> i64 {
        self.now_ms.saturating_add(i64::try_from(self.begun.elapsed().as_millis()).unwrap_or(i64::MAX))
    }

    /// These units come again: said before anybody goes on who waits for them.
    pub(super) fn refuse(&self, request: &Request, units: &Range<usize>) {
        for (tally, oldest, newest) in aboard(request, units) {
            let group = self.window.groups().group(tally.group);
            if let (Some(replica), Some(group)) = (tally.replica, group)
                // What has no replica is nobody's backlog, and nobody would say when it is settled.
                && group.replica(replica).is_some_and(|replica| !replica.name().is_empty())
            {
                let seen = Seen { request: request.identity, newest, unsettled: Some(oldest), works: false };
                group.refuse_request(replica, seen, self.later_ms());
            }
        }
    }

    /// Upstream has not said whether it took these units: whoever comes next may be in conflict with them, also with
    /// series that the window forgets now.
    pub(super) fn doubt(&self, request: &Request, units: &Range<usize>) {
        for (tally, _, newest) in aboard(request, units) {
            if let Some(group) = self.window.groups().group(tally.group) {
                group.doubt(newest, self.now_ms);
            }
        }
    }

    /// Why upstream may have taken, without saying so or from a process before this one, what explains a conflict with one of these units,
    /// or with what fills their gaps; `None` where it may not.
    pub(super) fn doubted(
        &self,
        request: &mut Request,
        units: &Range<usize>,
        judged: &Judged,
    ) -> Option<Doubted> {
        let doubted = |group, at| self.window.groups().group(group)?.doubted(at, self.now_ms);
        let fill = |fill: &Fill| match fill.samples.first() {
            Some(Filled::Float { at, .. }) => doubted(request.tallies.of(fill.tally).group, TimestampMs(*at)),
            // Its time is within the message; that of the sample after it is at hand, and later.
            Some(Filled::Histogram(_)) | None => None,
        };
        let filled = judged.fills.iter().find_map(fill);
        filled.or_else(|| aboard(request, units).find_map(|(tally, oldest, _)| doubted(tally.group, oldest)))
    }

    /// Whatever a sample comes to.
    #[inline(never)]
    fn sample(&self, request: &mut Request, unit: Unit, s: u32, flight: &mut Flight, judged: &mut Judged) {
        let i = unit.item as usize;
        if !judged.waits.is_empty() && judged.waits.contains(&request.keys[i]) {
            request.fates[s as usize] = Fate::Failed;
            return;
        }
        for _ in 0..LOOKS_MAX {
            // One of its samples before has found the window full: so does this one.
            let kept_out = request.items[i].kind == Kind::Unadmitted;
            if kept_out || request.found[i].number == UNKNOWN && !self.admit(request, i, flight) {
                request.fates[s as usize] = Fate::Aboard;
                judged.boards = true;
                return;
            }
            let item = &request.items[i];
            let received = &request.samples[s as usize];
            let sample = Sample {
                replica: item.replica,
                at: TimestampMs(received.at),
                payload: received.bits,
                stale: received.bits == STALE_NAN_BITS,
                up: None,
            };
            let known = Known {
                number: request.found[i].number,
                key: request.keys[i],
                group: item.group,
                histogram: received.histogram.then(|| received.message(&request.body)),
            };
            let tally = request.tallies.of(item.tally);
            let (others, split) = (tally.others, judged.may_be_split);
            match self.decide(known, &sample, others, split, flight, &mut tally.waits) {
                Decision::Decided { verdict, histograms, reserved } => {
                    let tally = item.tally;
                    if verdict.action == Action::Wait {
                        judged.waits.insert(request.keys[i]);
                    }
                    if let Some(fill) = self.fill(tally, s, &verdict, histograms) {
                        judged.fills.push(fill);
                    }
                    return settle(request, tally, s, &verdict, reserved, judged);
                }
                Decision::Unheld => {
                    request.tallies.of(item.tally).unheld += 1;
                    break;
                }
                Decision::Leans(on) => {
                    request.fates[s as usize] = Fate::Duplicate;
                    return judged.leans.push((on, unit.item, s));
                }
                Decision::Busy(on) => {
                    if !judged.busy.contains(&on) {
                        judged.busy.push(on);
                    }
                    return;
                }
                Decision::Gone => {
                    let number = self.window.find(known.key);
                    request.found[i].number = number;
                    // The flight that bore it has failed, and what leans on that has to go first: without room for the series
                    // nobody would see to it.
                    if number == UNKNOWN && judged.leans.iter().any(|(_, item, _)| *item == unit.item) {
                        break;
                    }
                }
            }
        }
        // No room to hold it, or it comes and goes faster than we can look, or while we do: let the sender bring it once more.
        judged.waits.insert(request.keys[i]);
        request.fates[s as usize] = Fate::Failed;
    }

    /// What the window says. A sample that would wait, but has gone to upstream already, is decided as if it had:
    /// `has_waited` says so. In one place, so that it is not a call for every sample.
    #[inline(always)]
    fn decide(
        &self,
        known: Known<'_>,
        sample: &Sample,
        others: Others,
        may_be_split: bool,
        flight: &mut Flight,
        has_waited: &mut bool,
    ) -> Decision {
        let mut circumstances = Circumstances {
            out_of_order_window_ms: self.settings.out_of_order_window_ms,
            retry: self.retry,
            busy: false,
            refused: others.refused,
            inherited: others.inherited,
            slowest: others.slowest,
            delivering: others.delivering,
            may_be_split,
        };
        let mut patient = false;
        loop {
            let decision = flight.decide(known, sample, circumstances, |to, interval| {
                !patient && others.hold_up(to, interval)
            });
            let waits =
                matches!(&decision, Decision::Decided { verdict, .. } if verdict.action == Action::Wait);
            if !waits || patient || self.observed.is_none() {
                return decision;
            }
            let Circumstances { out_of_order_window_ms, retry, busy, .. } = circumstances;
            circumstances = Circumstances { out_of_order_window_ms, retry, busy, ..Circumstances::default() };
            (patient, *has_waited) = (true, true);
        }
    }

    fn fill(&self, tally: u16, s: u32, verdict: &Verdict, histograms: bool) -> Option<Fill> {
        let filled = |held: &Held| match histograms {
            true => self.window.histogram(held.payload).map(Filled::Histogram),
            false => Some(Filled::Float { at: held.at.0, bits: held.payload }),
        };
        verdict.fills[0]?;
        let samples = verdict.fills.iter().flatten().filter_map(filled).collect();
        Some(Fill { before: s, tally, samples })
    }

    /// Makes an entry for a series; `false` when there is no room, and the item goes as it came.
    fn admit(&self, request: &mut Request, i: usize, flight: &mut Flight) -> bool {
        let item = request.items[i];
        let admitted = request
            .place(i, self.settings, self.tenant)
            .map_or(Admitted::Full, |place| flight.admit(request.keys[i], &place, item.replica, item.group));
        match admitted {
            Admitted::Entry(number) => request.found[i].number = number,
            Admitted::Full => {
                request.items[i].kind = Kind::Unadmitted;
                request.hit.series += 1;
            }
        }
        admitted != Admitted::Full
    }

    /// An exemplar in a `TimeSeries` of its own goes with its series' owner, or its target's.
    fn follow(&self, request: &mut Request, judged: &mut Judged, u: usize) {
        let i = request.units[u].item as usize;
        let item = request.items[i];
        if item.series.exemplars == 0 {
            return;
        }
        if request.found[i].number == UNKNOWN {
            // A sample before it may have made it known.
            request.found[i].number = self.window.find(request.keys[i]);
        }
        let goes = match request.found[i].number {
            // As its samples do, which find no room.
            UNKNOWN if self.window.is_full() => {
                request.items[i].kind = Kind::Unadmitted;
                true
            }
            UNKNOWN => request
                .place(i, self.settings, self.tenant)
                .is_none_or(|place| self.window.follows_target(place.target, item.replica)),
            number => self.window.follows(number, item.replica),
        };
        note_exemplars(&mut request.items[i], u, goes, &mut request.tallies, judged);
    }
}

/// Exemplars without a sample go, or do not.
#[inline(always)]
fn note_exemplars(item: &mut Item, u: usize, goes: bool, tallies: &mut Tallies, judged: &mut Judged) {
    item.dropped = !goes;
    if goes {
        judged.exemplars.push(u as u32);
    } else {
        tallies.of(item.tally).drops_exemplars = true;
    }
}

/// The oldest and the newest time of the samples of some units that are on their way, by tally. One pass, however many
/// groups a request has.
fn aboard<'a>(
    request: &'a Request,
    units: &Range<usize>,
) -> impl Iterator<Item = (&'a Tally, TimestampMs, TimestampMs)> + 'a {
    let mut times: Vec<Option<(i64, i64)>> = Vec::new();
    for unit in &request.units[units.clone()] {
        let tally = usize::from(request.items[unit.item as usize].tally);
        times.resize(times.len().max(tally + 1), None);
        for s in unit.first as usize..(unit.first + unit.count) as usize {
            if request.fates[s] == Fate::Aboard {
                let at = request.samples[s].at;
                let (oldest, newest) = times[tally].unwrap_or((at, at));
                times[tally] = Some((oldest.min(at), newest.max(at)));
            }
        }
    }
    let by_tally = request.tallies.iter().zip(times);
    by_tally.filter_map(|(tally, times)| {
        times.map(|(oldest, newest)| (tally, TimestampMs(oldest), TimestampMs(newest)))
    })
}

fn board_all(request: &mut Request, unit: Unit, judged: &mut Judged, u: usize) {
    for fate in &mut request.fates[unit.first as usize..(unit.first + unit.count) as usize] {
        if *fate == Fate::Pending {
            *fate = Fate::Aboard;
            judged.boards = true;
        }
    }
    if unit.count == 0 {
        judged.exemplars.push(u as u32);
    }
}

fn settle(request: &mut Request, tally: u16, s: u32, verdict: &Verdict, reserved: bool, judged: &mut Judged) {
    let fate = match verdict.action {
        Action::Forward => {
            judged.boards = true;
            Fate::Aboard
        }
        Action::Duplicate | Action::Suppress => Fate::Duplicate,
        Action::Wait => {
            request.tallies.of(tally).waits = true;
            Fate::Failed
        }
        // The window says so itself, before the policy is asked.
        Action::Busy => Fate::Pending,
    };
    request.fates[s as usize] = fate;
    if reserved && fate == Fate::Duplicate {
        judged.tentative.push(s);
    }
    if !reserved {
        request.tallies.of(tally).moves += u64::from(verdict.moved);
    } else if verdict.takeover.is_some() || verdict.moved {
        let takeover = verdict.takeover.map(takeover_number);
        judged.changes.push(Change { tally, takeover, moved: verdict.moved });
    }
}

#[cfg(test)]
mod tests;

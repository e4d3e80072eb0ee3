//! The flight of a part of a request: what of it goes upstream is decided, packed, sent, and settled by upstream's answer.
//!
//! Owns that nothing stays reserved when a part has ended, and that nobody is waited for while something is. Refuses to take parts
//! apart: it says when upstream wants that.

use super::batch::Load;
use super::judge::{Bench, Judged};
use super::packing::{Packed, Packing};
use super::part::Part;
use super::request::{Fate, Request};
use super::verdict::Outcome;
use super::{Buffers, Incoming, Pipeline, Protocol, verdict};
use crate::forward::{Answer, Outgoing, Upstream};
use crate::overhead::Stage;
use crate::window::{Flight, Metadata, Window};
use crate::wire::splice;
use bytes::Bytes;
use std::collections::HashSet;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How often a part is decided anew because flights of others carry its series.
const ROUNDS_MAX: u32 = 64;
/// From this round on they do not all come at once.
const ROUNDS_TOGETHER_MAX: u32 = 4;

/// What a part of the request came to.
pub(super) enum Landing {
    Settled,
    /// Upstream wants it in smaller pieces: these, in this order.
    Split(Vec<Part>),
    /// It has to come again, as a whole.
    Failed,
}

impl<U: Upstream> Pipeline<U> {
    /// One part of a request: decided, sent, settled.
    pub(super) async fn fly(
        &self,
        buffers: &mut Buffers,
        part: &Part,
        incoming: &Incoming,
        bench: &Bench<'_>,
        outcome: &mut Outcome,
    ) -> Landing {
        let units = &part.units;
        buffers.turn.take().await;
        if units.len() < buffers.request.units.len() {
            // A flight with it, or with a part before it, has ended since the others were looked at.
            buffers.request.look_again(bench);
        }
        let Some(flight) = self.board(buffers, units, bench, outcome).await else {
            buffers.request.replace_fate(units, Fate::Pending, Fate::Failed);
            return Landing::Failed;
        };
        let Buffers { request, judged, meter, turn, .. } = buffers;
        let mut packing = Packing::begin(self.settings.upstream_protocol, meter);
        let mut samples = 0;
        let mut load = Load::new(request, units.clone(), judged);
        if load.is_any() {
            for piece in turn.pieces(units.clone(), load.is_one()) {
                samples += load.put(piece, &mut packing);
                turn.breathe(packing.meter, Stage::Encode).await;
            }
        }
        let (news, told) = self.append_metadata(request, &part.metadata, bench, &mut packing);
        if packing.is_empty() {
            packing.forget();
            buffers.log = flight.commit();
            buffers.meter.end(Stage::Window);
            return Landing::Settled;
        }
        if part.unknown {
            request.unknown.iter().for_each(|f| splice::field(&request.body, *f, packing.room(f.len())));
        }
        let packed = match packing.finish() {
            Ok(Some(packed)) => packed,
            Ok(None) => {
                buffers.log = flight.commit();
                return Landing::Settled;
            }
            Err(error) => {
                buffers.log = flight.roll_back(true);
                outcome.unavailable(format!("the outgoing body could not be packed: {error}"));
                buffers.request.replace_fate(units, Fate::Aboard, Fate::Failed);
                return Landing::Failed;
            }
        };
        let Packed { body, raw_bytes } = packed;
        self.metrics.sent(raw_bytes, body.len());
        let answer = match bench.observed {
            Some(answer) => answer.clone(),
            None => {
                buffers.sent_bytes += body.len() as u64;
                buffers.rest();
                let answer = self.upstream.send(outgoing(body, samples, incoming)).await;
                // Without the turn: what is reserved is waited for.
                buffers.meter.resume();
                answer
            }
        };
        if matches!(answer, Answer::Taken) {
            // Also if all of it was of series without room: those that have it may be gone.
            self.window.note_landed();
            self.window.metadata().remember(&news, bench.now_ms);
        }
        let too_big = matches!(&answer, Answer::TooBig { .. }) && bench.observed.is_none();
        let smaller = if too_big { part.smaller(&told) } else { Vec::new() };
        let landing = match smaller.is_empty() {
            true => self.land(buffers, units, flight, &answer, bench, outcome),
            false => take_apart(buffers, units, flight, smaller),
        };
        buffers.meter.end(Stage::Window);
        landing
    }

    /// Appends the metadata that upstream has not had lately, each once. Returns what it is to be remembered by, and from where to where
    /// there was some.
    fn append_metadata(
        &self,
        request: &mut Request,
        metadata: &Range<usize>,
        bench: &Bench<'_>,
        out: &mut Packing<'_>,
    ) -> (Vec<u128>, Range<usize>) {
        if self.settings.upstream_protocol == Protocol::Two {
            return (Vec::new(), 0..0); // which has no place for it
        }
        let (mut news, mut told, mut known_bytes) = (HashSet::new(), 0..0, 0);
        for m in metadata.clone() {
            let field = request.metadata[m];
            let key = Metadata::key(field.of(&request.body), bench.tenant);
            if self.window.metadata().is_news(key, bench.now_ms) && news.insert(key) {
                splice::field(&request.body, field, out.room(field.len()));
                told = if told.is_empty() { m } else { told.start }..m + 1;
            } else {
                known_bytes += field.len();
            }
        }
        // (Where it is taken apart, what is known then has been counted.)
        if *metadata == (0..request.metadata.len()) {
            request.metadata_known_bytes = known_bytes;
        }
        (news.into_iter().collect(), told)
    }

    /// Decides a part until no other flight is in its way. `None`: that took too long.
    async fn board(
        &self,
        buffers: &mut Buffers,
        units: &Range<usize>,
        bench: &Bench<'_>,
        outcome: &mut Outcome,
    ) -> Option<Flight> {
        let mut deadline = tokio::time::Instant::now() + self.settings.busy_wait_max;
        let leant = buffers.judged.leans.len();
        for round in 0..ROUNDS_MAX {
            let Some(mut flight) = Flight::begin(&self.window, std::mem::take(&mut buffers.log)) else {
                self.metrics.flights_hit.inc();
                outcome.unavailable("too many requests are in flight".to_owned());
                return None;
            };
            // In one go, also of a large request: nobody may change what is decided in between.
            bench.judge(&mut buffers.request, units.clone(), &mut flight, &mut buffers.judged);
            overtake_none(&self.window, &buffers.request, &mut buffers.judged, leant, &flight);
            if buffers.judged.busy.is_empty() {
                flight.depart();
                buffers.meter.end(Stage::Window);
                return Some(flight);
            }
            // Nothing may be reserved while we wait, or two requests could wait for each other.
            buffers.log = flight.roll_back(true);
            buffers.request.decide_again(units, &buffers.judged);
            // What leant on one of them may have to go first: if it failed, whatever goes beyond would leave a gap.
            for (_, _, s) in buffers.judged.leans.drain(leant..) {
                buffers.request.fates[s as usize] = Fate::Pending;
            }
            buffers.meter.end(Stage::Window);
            buffers.rest();
            for on in &buffers.judged.busy {
                if tokio::time::timeout_at(deadline, self.window.ended(*on)).await.is_err() {
                    outcome.busy();
                    return None;
                }
            }
            if round >= ROUNDS_TOGETHER_MAX {
                // Two that want each other's series give way at the same moment, and again: now one comes later.
                tokio::time::sleep(Duration::from_millis(late_ms(&self.late))).await;
            }
            let waited = tokio::time::Instant::now();
            buffers.go_on().await;
            // For the turn, which is nobody's fault who is in the way.
            deadline += waited.elapsed();
            buffers.request.look_again(bench);
        }
        outcome.busy();
        None
    }

    /// Settles a flight by upstream's answer.
    fn land(
        &self,
        buffers: &mut Buffers,
        units: &Range<usize>,
        flight: Flight,
        answer: &Answer,
        bench: &Bench<'_>,
        outcome: &mut Outcome,
    ) -> Landing {
        let request = &mut buffers.request;
        let benign = verdict::benign(answer, &flight, bench.retry)
            .or_else(|| self.explained(answer, request, units, &buffers.judged, bench));
        let fate = match answer {
            Answer::Taken => Fate::Forwarded,
            Answer::Conflict { .. } if benign.is_some() => Fate::Forwarded,
            Answer::Conflict { .. } | Answer::Refused { .. } | Answer::TooBig { .. } => Fate::Rejected,
            Answer::Unavailable { .. } | Answer::NoAnswer { .. } | Answer::NotSent { .. } => Fate::Failed,
        };
        if fate == Fate::Failed {
            let answered = !matches!(answer, Answer::NoAnswer { .. });
            if !answered {
                bench.doubt(request, units);
            }
            if self.settings.first_contact_hold_ms > 0 {
                bench.refuse(request, units);
            }
            buffers.log = flight.roll_back(answered);
        } else {
            buffers.log = flight.commit();
            request.count_changes(&buffers.judged);
        }
        if let Some(reason) = benign {
            self.metrics.benign(request, units, &buffers.judged, reason, &self.window);
        }
        if fate == Fate::Rejected {
            request.reject_exemplars(&buffers.judged);
        }
        outcome.note(answer, benign.is_some());
        request.replace_fate(units, Fate::Aboard, fate);
        if fate == Fate::Failed { Landing::Failed } else { Landing::Settled }
    }

    /// Waits for the flights whose reservations duplicates lean on. If one fails, so does the duplicate.
    pub(super) async fn lean(&self, buffers: &mut Buffers, bench: &Bench<'_>, outcome: &mut Outcome) {
        let leans = std::mem::take(&mut buffers.judged.leans);
        if leans.is_empty() {
            return;
        }
        buffers.rest();
        let mut touched = false;
        for (on, _, s) in &leans {
            let well = self.window.ended(*on).await;
            buffers.request.fates[*s as usize] = if well { Fate::Pending } else { Fate::Failed };
            touched |= well;
            if !well {
                outcome.leaned();
            }
        }
        if !touched {
            return;
        }
        buffers.meter.resume();
        // They are duplicates of what is upstream now. Deciding them once more notes that their replica is alive.
        if let Some(mut flight) = Flight::begin(&self.window, std::mem::take(&mut buffers.log)) {
            for (_, item, s) in &leans {
                if buffers.request.fates[*s as usize] != Fate::Failed {
                    bench.note(&mut buffers.request, *item, *s, &mut flight);
                }
            }
            buffers.log = flight.roll_back(true);
        }
        buffers.meter.end(Stage::Window);
        for (_, _, s) in &leans {
            let fate = &mut buffers.request.fates[*s as usize];
            if *fate != Fate::Failed {
                *fate = Fate::Duplicate;
            }
        }
    }
}

/// Nothing of these units has gone: they are decided anew, in smaller parts.
fn take_apart(buffers: &mut Buffers, units: &Range<usize>, flight: Flight, smaller: Vec<Part>) -> Landing {
    buffers.log = flight.roll_back(true);
    buffers.request.decide_again(units, &buffers.judged);
    Landing::Split(smaller)
}

/// A duplicate leans on a flight which carries its series. If that has let the series go since, and this one has claimed it for a
/// newer sample, then the one that leans may have to go first: it is as if that flight were in the way. `leant`: how many lean that are of
/// parts before, which are not decided again, so what is newer of their series has to come again.
fn overtake_none(window: &Window, request: &Request, judged: &mut Judged, leant: usize, flight: &Flight) {
    for (nth, (on, item, _)) in judged.leans.iter().enumerate() {
        let (number, key) = (request.found[*item as usize].number, request.keys[*item as usize]);
        if flight.has_claimed(number, key) && !window.has_ended_well(*on) {
            judged.busy.push(*on);
            if nth < leant {
                judged.waits.insert(key);
            }
        }
    }
}

/// How much later one of two comes. `turns`: how often somebody did.
fn late_ms(turns: &AtomicU64) -> u64 {
    turns.fetch_add(1, Ordering::Relaxed) % 4
}

fn outgoing(body: Bytes, samples: u64, incoming: &Incoming) -> Outgoing {
    Outgoing {
        body,
        samples,
        tenant: incoming.tenant.clone(),
        request_id: incoming.request_id.clone(),
        traceparent: incoming.traceparent.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::request::Item;
    use super::*;
    use crate::policy::{Action, Circumstances, ReplicaId, Sample, TimestampMs};
    use crate::series::{GroupKey, Place, SeriesKey, TargetKey, TenantHash};
    use crate::window::{Admitted, Decision, Found, Known, Log, UNKNOWN};
    use std::sync::Arc;

    const A: ReplicaId = ReplicaId(0);
    const KEY: SeriesKey = SeriesKey(7);

    /// A window with one group.
    fn a_group() -> (Arc<Window>, Place, u32) {
        let window = Arc::new(Window::new(10));
        let group = window.meet_group(GroupKey(1), "g", TenantHash(0), 0).expect("room").number();
        assert_eq!(window.replica_number(group, "a"), Some(A));
        let (group_name, tenant) = ("g".into(), TenantHash(0));
        let place = Place { group: GroupKey(1), group_name, target: TargetKey(1), tenant, is_up: false };
        (window, place, group)
    }

    /// A window with one series that a flight carries up to 15 s, and its entry.
    fn a_series_in_flight() -> (Arc<Window>, Flight, u32) {
        let (window, place, group) = a_group();
        let mut flight = Flight::begin(&window, Log::default()).expect("room");
        let Admitted::Entry(number) = flight.admit(KEY, &place, A, group) else { panic!("no room") };
        forward(&mut flight, number, 0);
        flight.commit();
        let mut flight = Flight::begin(&window, Log::default()).expect("room");
        forward(&mut flight, number, 15);
        flight.depart();
        (window, flight, number)
    }

    fn decide(flight: &mut Flight, number: u32, second: i64) -> Decision {
        let at = TimestampMs(second * 1000);
        let sample = Sample { replica: A, at, payload: 0, stale: false, up: None };
        let known = Known { number, key: KEY, group: 0, histogram: None };
        flight.decide(known, &sample, Circumstances::default(), |_, _| false)
    }

    fn forward(flight: &mut Flight, number: u32, second: i64) {
        let Decision::Decided { verdict, .. } = decide(flight, number, second) else { panic!("in flight") };
        assert_eq!(verdict.action, Action::Forward);
    }

    /// Or what is acknowledged for a flight that failed would be lost: upstream takes nothing older than what has overtaken it.
    #[test]
    fn who_leans_on_a_flight_that_has_failed_is_not_overtaken() {
        for (well, claims, part_before) in
            [(false, true, false), (false, true, true), (true, true, false), (false, false, false)]
        {
            let (window, carries, number) = a_series_in_flight();
            let mut flight = Flight::begin(&window, Log::default()).expect("room");
            let Decision::Leans(on) = decide(&mut flight, number, 15) else { panic!("it is a duplicate") };
            // It ends between the decision about this sample and that about the next one.
            _ = if well { carries.commit() } else { carries.roll_back(true) };
            if claims {
                forward(&mut flight, number, 30);
            }
            let mut request = Request::default();
            request.items.push(Item::default());
            request.keys.push(KEY);
            request.found.push(Found { number, target: 0 });
            let mut judged = Judged { leans: vec![(on, 0, 0)], ..Judged::default() };
            overtake_none(&window, &request, &mut judged, usize::from(part_before), &flight);
            let overtakes = claims && !well;
            assert_eq!(judged.busy, if overtakes { vec![on] } else { vec![] }, "{well} {claims}");
            assert_eq!(
                judged.waits.contains(&KEY),
                overtakes && part_before,
                "{well} {claims} {part_before}"
            );
        }
    }

    /// The flight that bore the series has failed, so its entry is anyone's: the series may be born again beside it.
    #[test]
    fn a_series_that_was_born_again_is_told_by_its_key_and_not_by_its_place() {
        for (overtakes, other_has_place) in [(true, true), (true, false), (false, true), (false, false)] {
            let (window, place, group) = a_group();
            let mut carries = Flight::begin(&window, Log::default()).expect("room");
            let Admitted::Entry(number) = carries.admit(KEY, &place, A, group) else { panic!("no room") };
            forward(&mut carries, number, 15);
            carries.depart();
            let mut flight = Flight::begin(&window, Log::default()).expect("room");
            let Decision::Leans(on) = decide(&mut flight, number, 15) else { panic!("it is a duplicate") };
            carries.roll_back(true);
            let mut other = Flight::begin(&window, Log::default()).expect("room");
            let newcomer = if other_has_place { &mut other } else { &mut flight };
            let admitted = newcomer.admit(SeriesKey(8), &place, A, group);
            assert_eq!(admitted, Admitted::Entry(number), "another series has its place");
            if overtakes {
                let Admitted::Entry(anew) = flight.admit(KEY, &place, A, group) else { panic!("no room") };
                forward(&mut flight, anew, 30);
            }
            // Who has looked for it in between has found none.
            for number in [number, UNKNOWN] {
                let mut request = Request::default();
                request.items.push(Item::default());
                request.keys.push(KEY);
                request.found.push(Found { number, target: 0 });
                let mut judged = Judged { leans: vec![(on, 0, 0)], ..Judged::default() };
                overtake_none(&window, &request, &mut judged, 1, &flight);
                let busy = if overtakes { vec![on] } else { vec![] };
                assert_eq!(judged.busy, busy, "{overtakes} {other_has_place} {number}");
                assert_eq!(judged.waits.contains(&KEY), overtakes);
            }
        }
    }

    #[test]
    fn who_gives_way_comes_a_moment_later_however_often_that_was() {
        let turns = AtomicU64::new(1_000_000);
        assert_eq!([0; 6].map(|_| late_ms(&turns)), [0, 1, 2, 3, 0, 1]);
    }
}

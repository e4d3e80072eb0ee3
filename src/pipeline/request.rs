//! One request, decoded and identified: what it holds, who sent it, and which series the window knows.
//!
//! Owns the buffers of a request, to be used again for the next one. Refuses to decide about samples other than those
//! that no window is needed for: invalid labels, times that cannot be, and histograms that are none.

mod around;
mod order;
mod refuse;
mod room;

use super::Settings;
use super::judge::{Bench, Judged};
use super::tally::{BoundsHit, Tallies};
use crate::overhead::{Meter, Stage};
use crate::policy::ReplicaId;
use crate::series::{Place, SeriesKey, TenantHash};
use crate::window::{Found, UNKNOWN, Window};
use crate::wire::labels::{Canonical, canonicalize};
use crate::wire::splice::Labels;
use crate::wire::v1::{Sample, TimeSeries, Walker};
use crate::wire::{Malformed, Span, equal};
use std::ops::Range;

/// A decoded request, and the memory for it.
#[derive(Debug, Default)]
pub(super) struct Request {
    /// The decompressed body.
    pub(super) body: Vec<u8>,
    /// Where the labels of its series end, if that is known.
    pub(super) label_ends: Vec<u32>,
    /// One for each `TimeSeries`, in the sender's order.
    pub(super) items: Vec<Item>,
    /// The key of each item; that of a series which is not HA without meaning.
    pub(super) keys: Vec<SeriesKey>,
    /// Where each item is in the window.
    pub(super) found: Vec<Found>,
    /// The samples of all items.
    pub(super) samples: Vec<Sample>,
    /// What becomes of each sample.
    pub(super) fates: Vec<Fate>,
    /// What is decided at a time, in the order of deciding and of sending.
    pub(super) units: Vec<Unit>,
    /// The times of a series fall: each sample of a replica is a unit of its own, the oldest first.
    pub(super) falls: bool,
    /// Metadata, as whole fields.
    pub(super) metadata: Vec<Span>,
    /// Bytes of that which upstream has had already, so that it does not leave.
    pub(super) metadata_known_bytes: usize,
    /// Top-level fields that nobody knows, as whole fields.
    pub(super) unknown: Vec<Span>,
    /// Rewritten labels.
    pub(super) labels: Vec<u8>,
    /// Who sent how much.
    pub(super) tallies: Tallies,
    /// Which bounds it came to.
    pub(super) hit: BoundsHit,
    /// Something of it belongs to a group that is new to the window: all of it is to be sent again.
    pub(super) held_back: bool,
    /// Why samples were refused: the first reason.
    pub(super) refusal: Option<String>,
    /// Tells it from other requests; the same in a retry.
    pub(super) identity: u64,
    /// Some of its samples are native histograms.
    pub(super) histograms: bool,
    /// The wall clock.
    now_ms: i64,
    scratch: Vec<u8>,
    seen: Vec<(u64, i64)>,
}

/// One `TimeSeries`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item {
    pub(super) series: TimeSeries,
    /// Its labels among [`Request::labels`], where it does not leave with those it came with; empty where it does.
    pub(super) rewritten: Span,
    pub(super) group: u32,
    pub(super) tally: u16,
    pub(super) replica: ReplicaId,
    pub(super) kind: Kind,
    /// Upstream has refused its exemplars, which came without a sample.
    pub(super) rejected: bool,
    /// Its exemplars, which came without a sample, are dropped: their series is another replica's.
    pub(super) dropped: bool,
}

/// How an item is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A series of an HA replica.
    Replicated,
    /// No replica label: not HA, forwarded untouched.
    Single,
    /// A bound of the window is reached: forwarded as it came, replica label included.
    Unadmitted,
    /// Its labels are none that a series may have.
    Invalid,
    /// Its group has just been met: nothing of it is decided yet.
    Waiting,
}

/// What becomes of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Fate {
    Pending,
    /// In the flight that is being filled.
    Aboard,
    Forwarded,
    Rejected,
    /// Upstream did not take it, or it has to wait: the sender tries again.
    Failed,
    Duplicate,
    Refused,
}

impl Fate {
    /// All of them, each at its number.
    pub(super) const ALL: [Self; 7] = [
        Self::Pending,
        Self::Aboard,
        Self::Forwarded,
        Self::Rejected,
        Self::Failed,
        Self::Duplicate,
        Self::Refused,
    ];

    /// How many of `fates` are this one.
    pub(super) fn count(self, fates: &[Self]) -> u64 {
        // As many at a time as a byte can count, of whole registers: many are compared in one instruction.
        let some = |fates: &[Self]| fates.iter().map(|fate| u8::from(*fate == self)).sum::<u8>();
        fates.chunks(128).map(|fates| u64::from(some(fates))).sum()
    }
}

/// Some samples of an item that are decided and sent one after the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unit {
    pub(super) item: u32,
    pub(super) first: u32,
    pub(super) count: u32,
}

impl Default for Item {
    fn default() -> Self {
        Self {
            series: TimeSeries::default(),
            rewritten: Span::default(),
            group: 0,
            tally: 0,
            replica: ReplicaId(0),
            kind: Kind::Replicated,
            rejected: false,
            dropped: false,
        }
    }
}

impl Item {
    pub(super) fn labels<'a>(&self, rewritten: &'a [u8]) -> Labels<'a> {
        match self.kind {
            Kind::Unadmitted => Labels::Received,
            _ if self.rewritten.is_empty() => Labels::Cut,
            _ => Labels::Rewritten(self.rewritten.of(rewritten)),
        }
    }
}

impl Request {
    /// Finds all series of the body that has been decompressed into `self.body`, and their entries. Changes nothing in the window but
    /// where it looks for series first.
    pub(super) fn find(&mut self, bench: &Bench<'_>, meter: &mut Meter) -> Result<(), Malformed> {
        let Bench { settings, window, tenant, .. } = *bench;
        let guessed = self.identify::<true>(settings, tenant, window, meter);
        // A guess that fails, and an error behind guesses, say nothing.
        if !matches!(guessed, Ok(true)) {
            self.identify::<false>(settings, tenant, window, meter)?;
        }
        Ok(())
    }

    /// Introduces some of the items that have been [found](Self::find) to the window. All of them, one after the other, and
    /// then [`Self::introduced`] is everything but the window's part of the decision.
    pub(super) fn introduce_some(&mut self, items: Range<usize>, bench: &Bench<'_>) {
        let Bench { settings, window, tenant, now_ms, .. } = *bench;
        self.now_ms = now_ms;
        self.fates.resize(self.samples.len(), Fate::Pending);
        let mut last = Last::default();
        let Range { start: mut i, end } = items;
        while i < end {
            let alike = last.of_those_alike(&mut self.items[i..end], &self.found[i..end]);
            if alike == 0 {
                let known = self.found[i].number != UNKNOWN && self.know(i, window, &mut last);
                if !known {
                    self.introduce(i, settings, tenant, window);
                }
            }
            i += alike.max(1);
        }
    }

    /// All items have been introduced.
    pub(super) fn introduced(&mut self, bench: &Bench<'_>) {
        let Bench { settings, now_ms, .. } = *bench;
        self.now_ms = now_ms;
        let newest_max_ms = now_ms.saturating_add(settings.future_max_ms);
        let times_ms = self.refuse_impossible_times(newest_max_ms, settings.future_max_ms);
        if self.histograms {
            self.refuse_invalid_histograms();
        }
        if settings.first_contact_hold_ms > 0 {
            self.look_around(times_ms, bench);
        }
        self.order();
    }

    /// The place of a series that is to be admitted to the window.
    pub(super) fn place(&mut self, item: usize, settings: &Settings, tenant: TenantHash) -> Option<Place> {
        let series = &self.items[item].series;
        canonicalize(&self.body, series, &settings.replica_names, settings.label_bounds, &mut self.scratch)
            .ok()?;
        Some(Place::of(&self.scratch, &settings.place_labels, tenant))
    }

    /// Turns one fate into another, for the samples of some units.
    pub(super) fn replace_fate(&mut self, units: &Range<usize>, from: Fate, to: Fate) {
        let replace = |fates: &mut [Fate]| {
            for fate in fates {
                *fate = if *fate == from { to } else { *fate };
            }
        };
        let samples = |unit: &Unit| unit.first as usize..(unit.first + unit.count) as usize;
        let units = &self.units[units.clone()];
        match units {
            // As they came: all in a row.
            [first, .., last] if !self.falls => {
                replace(&mut self.fates[samples(first).start..samples(last).end])
            }
            _ => units.iter().for_each(|unit| replace(&mut self.fates[samples(unit)])),
        }
    }

    /// How many samples have each of these fates.
    pub(super) fn count<const N: usize>(&self, of: [Fate; N]) -> [u64; N] {
        of.map(|fate| fate.count(&self.fates))
    }

    /// Makes pending again what a flight of these units, which has been rolled back, had decided.
    pub(super) fn decide_again(&mut self, units: &Range<usize>, judged: &Judged) {
        self.replace_fate(units, Fate::Aboard, Fate::Pending);
        for s in &judged.tentative {
            self.fates[*s as usize] = Fate::Pending;
        }
    }

    /// Notes that upstream has refused the exemplars that came without a sample.
    pub(super) fn reject_exemplars(&mut self, judged: &Judged) {
        for u in &judged.exemplars {
            self.items[self.units[*u as usize].item as usize].rejected = true;
        }
    }

    /// Counts what the samples aboard have changed, now that upstream has answered for them.
    pub(super) fn count_changes(&mut self, judged: &Judged) {
        for change in &judged.changes {
            let tally = self.tallies.of(change.tally);
            tally.moves += u64::from(change.moved);
            if let Some(takeover) = change.takeover {
                tally.takeovers[takeover] += 1;
            }
        }
        for fill in &judged.fills {
            self.tallies.of(fill.tally).filled += fill.samples.len() as u64;
        }
    }

    /// Nothing of the request before is left; its memory is.
    pub(super) fn clear(&mut self) {
        self.items.clear();
        self.samples.clear();
        self.fates.clear();
        self.units.clear();
        self.labels.clear();
        self.tallies.clear();
        self.metadata_known_bytes = 0;
        self.hit = BoundsHit::default();
        self.keys.clear();
        self.found.clear();
        self.refusal = None;
        self.held_back = false;
    }

    /// Finds all series, their samples and their entries. Whether all that was guessed of them holds.
    fn identify<const LIKELY: bool>(
        &mut self,
        settings: &Settings,
        tenant: TenantHash,
        window: &Window,
        meter: &mut Meter,
    ) -> Result<bool, Malformed> {
        self.clear();
        let walked = self.walk::<LIKELY>(settings, tenant, window);
        meter.end(Stage::Decode);
        walked?;
        let Self { body, items, found, samples, .. } = self;
        let mut walker = Walker::new(body, &settings.replica_names);
        for (item, found) in items.iter().zip(found) {
            if found.number == UNKNOWN && item.series.guessed && !walker.confirms(&item.series, samples) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn walk<const LIKELY: bool>(
        &mut self,
        settings: &Settings,
        tenant: TenantHash,
        window: &Window,
    ) -> Result<(), Malformed> {
        let names = &settings.replica_names;
        let mut walker = Walker::new(&self.body, names).with_label_ends(&self.label_ends);
        let mut finder = None;
        loop {
            // Written where it stays: moved, it would cost as much as some labels.
            let item = self.items.push_mut(Item::default());
            let walked = match LIKELY {
                true => walker.next_likely(&mut item.series, &mut self.samples),
                false => walker.next_exact(&mut item.series, &mut self.samples),
            };
            match walked {
                Some(walked) => walked?,
                None => break,
            }
            self.keys.push(match item.series.parts(&self.body, names, &mut self.scratch) {
                Some((before, after)) if !item.series.replica.is_empty() => {
                    SeriesKey::of_parts(before, after, tenant)
                }
                _ => SeriesKey(0),
            });
            // Each at once: its entry comes near while the next one is walked over.
            finder
                .get_or_insert_with(|| window.finder(item.series.replica.of(&self.body)))
                .next(&self.keys, &mut self.found);
        }
        if let Some(mut finder) = finder {
            finder.finish(&self.keys, &mut self.found);
        }
        self.items.pop();
        self.histograms = walker.histograms;
        (self.metadata, self.unknown) = (walker.metadata, walker.unknown);
        Ok(())
    }

    /// A series that the window knows: its labels have been judged at its birth, only its replica is to be named.
    fn know(&mut self, i: usize, window: &Window, last: &mut Last) -> bool {
        let item = &mut self.items[i];
        let Found { number, target } = self.found[i];
        let (span, body) = (item.series.replica, &self.body);
        // Mostly it has been read where the last one was.
        let changes = span != last.replica && !equal(last.replica.of(body), span.of(body));
        if !changes {
            last.replica = span;
        }
        if changes || last.target != target {
            if changes || last.group != window.group_of_target(target) {
                let name = std::str::from_utf8(span.of(body)).ok();
                let Some(held) = window.hold_group_of(number, self.keys[i]) else { return false };
                let Some(id) = name.and_then(|name| held.replica_number(name)) else { return false };
                let tally = self.tallies.number(Some(&held), Some(id));
                *last = Last { group: held.number(), replica: item.series.replica, id, tally, target };
            }
            last.target = target;
        }
        (item.group, item.replica, item.tally) = (last.group, last.id, last.tally);
        true
    }

    /// A series that the window does not know, or not by the labels as they came.
    fn introduce(&mut self, i: usize, settings: &Settings, tenant: TenantHash, window: &Window) {
        let series = self.items[i].series;
        let names = &settings.replica_names;
        match canonicalize(&self.body, &series, names, settings.label_bounds, &mut self.scratch) {
            Ok(canonical) => self.place_item(i, canonical, settings, tenant, window),
            Err(invalid) => self.refuse_item(i, &invalid),
        }
    }

    fn place_item(
        &mut self,
        i: usize,
        canonical: Canonical,
        settings: &Settings,
        tenant: TenantHash,
        window: &Window,
    ) {
        let Canonical { verbatim, replica, split } = canonical;
        let place = Place::of(&self.scratch, &settings.place_labels, tenant);
        let group = window.meet_group(place.group, &place.group_name, tenant, self.now_ms);
        let name = replica.map_or(&[][..], |span| span.of(&self.body));
        // Judged to be UTF-8 by `canonicalize`.
        let name = std::str::from_utf8(name).unwrap_or_default();
        let id = group.as_ref().and_then(|group| group.replica_number(name));
        let item = &mut self.items[i];
        if !verbatim {
            let start = self.labels.len() as u32;
            self.labels.extend_from_slice(&self.scratch);
            item.rewritten = Span { start, end: self.labels.len() as u32 };
        }
        if let Some(replica) = replica {
            item.series.replica = replica;
            self.keys[i] = SeriesKey::of_canonical(&self.scratch, split, tenant);
            self.found[i].number = window.find(self.keys[i]);
        }
        item.tally = self.tallies.number(group.as_ref(), id);
        item.kind = match (replica, &group, id) {
            (None, ..) => Kind::Single,
            (Some(_), Some(group), Some(id)) => {
                (item.group, item.replica) = (group.number(), id);
                Kind::Replicated
            }
            _ => {
                window.note_full();
                let hit = if group.is_none() { &mut self.hit.groups } else { &mut self.hit.replicas };
                *hit += 1;
                Kind::Unadmitted
            }
        };
    }

    /// Learns once more how far the other replicas of each group are: others may have been refused in the meantime.
    pub(super) fn look_again(&mut self, bench: &Bench<'_>) {
        if bench.settings.first_contact_hold_ms == 0 {
            return;
        }
        let now_ms = bench.later_ms();
        for tally in self.tallies.iter_mut() {
            let Some(group) = bench.window.groups().group(tally.group) else { continue };
            if let Some(replica) = tally.replica {
                tally.others = group.others(replica, self.identity, now_ms);
            }
        }
    }
}

/// What the item before was found to be; the next one mostly is, too.
#[derive(Debug, Clone, Copy)]
struct Last {
    target: u32,
    group: u32,
    replica: Span,
    id: ReplicaId,
    tally: u16,
}

impl Last {
    /// Says of items what was found of the one before them, for as long as they are of its target and its replica. Returns how many
    /// these are.
    fn of_those_alike(&self, items: &mut [Item], found: &[Found]) -> usize {
        for (n, (item, found)) in items.iter_mut().zip(found).enumerate() {
            let alike = found.target == self.target && item.series.replica == self.replica;
            if found.number == UNKNOWN || !alike {
                return n;
            }
            (item.group, item.replica, item.tally) = (self.group, self.id, self.tally);
        }
        items.len()
    }
}

impl Default for Last {
    fn default() -> Self {
        Self { target: u32::MAX, group: u32::MAX, replica: Span::default(), id: ReplicaId(0), tally: 0 }
    }
}

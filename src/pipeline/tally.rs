//! What one request brought, by group and replica, to be counted once at its end.
//!
//! Refuses to know metrics: see `metrics.rs`.

use super::request::{Fate, Item, Request};
use crate::policy::{ReplicaId, Takeover};
use crate::window::{Group, Others};
use crate::wire::v1::Sample;
use std::collections::HashMap;
use std::sync::Arc;

/// The tallies of a request. Mostly one.
#[derive(Debug, Default)]
pub(super) struct Tallies {
    tallies: Vec<Tally>,
    numbers: HashMap<(u32, Option<ReplicaId>), u16>,
    /// The groups that these numbers mean, one for each tally that has one: they stay theirs for as long as the request lives.
    held: Vec<Arc<Group>>,
    /// The request that has begun in these groups and not ended: see [`Group::begin_request`].
    begun: Option<u64>,
}

/// How often a request came to a bound that the rest of it does not suffer from.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct BoundsHit {
    /// Series refused for the number or the length of their labels.
    pub(super) labels: u64,
    /// Series that found no room in the window.
    pub(super) series: u64,
    /// Series whose group found none.
    pub(super) groups: u64,
    /// Series whose replica found none.
    pub(super) replicas: u64,
}

/// The share of one replica in a request.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    /// Its group, or [`Tallies::NO_GROUP`].
    pub(super) group: u32,
    /// Its number there; `None` where there is none (no group, or no room).
    pub(super) replica: Option<ReplicaId>,
    pub(super) forwarded: u64,
    pub(super) duplicate: u64,
    pub(super) refused: u64,
    pub(super) rejected: u64,
    pub(super) failed: u64,
    pub(super) filled: u64,
    /// By [`takeover_number`].
    pub(super) takeovers: [u64; 4],
    pub(super) moves: u64,
    /// Raw bytes of the series that held nothing but duplicates, and of exemplars that were dropped with theirs.
    pub(super) duplicate_bytes: u64,
    /// There may be such exemplars.
    pub(super) drops_exemplars: bool,
    pub(super) newest_ms: Option<i64>,
    /// Histograms that found no room to be held.
    pub(super) unheld: u64,
    /// A sample of it had to wait for older data of another replica.
    pub(super) waits: bool,
    /// The window has just met its group: its backlogs are to be known before anything moves.
    pub(super) first_contact: bool,
    /// Something of it is held back for that.
    pub(super) held_back: bool,
    /// How far the other replicas of its group are.
    pub(super) others: Others,
    /// The oldest sample time that has to be sent again.
    pub(super) unsettled_ms: Option<i64>,
}

impl Tallies {
    /// The group of what has none: invalid labels, or no room for another group.
    pub(super) const NO_GROUP: u32 = u32::MAX;

    pub(super) fn clear(&mut self) {
        self.let_go();
        self.tallies.clear();
        self.numbers.clear();
    }

    /// The request begins in its groups.
    pub(super) fn begin(&mut self, request: u64) {
        self.begun = Some(request);
    }

    /// The groups know of its end.
    pub(super) fn end(&mut self) {
        self.begun = None;
    }

    /// The request has ended. If its groups do not know of that, it has shown them nothing.
    pub(super) fn let_go(&mut self) {
        if let Some(request) = self.begun.take() {
            let of_groups = self.tallies.iter().filter(|tally| tally.group != Self::NO_GROUP);
            for (tally, group) in of_groups.zip(&self.held) {
                if let Some(replica) = tally.replica {
                    group.leave_request(replica, request);
                }
            }
        }
        self.held.clear();
    }

    /// The number of a tally, made if need be. The group is held from now on; `None`: there is none.
    pub(super) fn number(&mut self, held: Option<&Arc<Group>>, replica: Option<ReplicaId>) -> u16 {
        let group = held.map_or(Self::NO_GROUP, |group| group.number());
        *self.numbers.entry((group, replica)).or_insert_with(|| {
            self.held.extend(held.cloned());
            // A request with more groups than can be numbered adds the rest up in the last tally.
            if self.tallies.len() <= usize::from(u16::MAX) {
                self.tallies.push(Tally { group, replica, ..Tally::default() });
            }
            (self.tallies.len() - 1) as u16
        })
    }

    pub(super) fn of(&mut self, number: u16) -> &mut Tally {
        &mut self.tallies[usize::from(number)]
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Tally> {
        self.tallies.iter_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Tally> {
        self.tallies.iter()
    }
}

impl Drop for Tallies {
    /// In a panic, or with a task that is ended: or others would wait for it until it is surely over, which takes a minute.
    fn drop(&mut self) {
        self.let_go();
    }
}

pub(super) const TAKEOVERS: [&str; 4] = ["silent", "released", "ended", "align"];

/// Its place in [`TAKEOVERS`].
pub(super) fn takeover_number(takeover: Takeover) -> usize {
    match takeover {
        Takeover::Silent => 0,
        Takeover::Released => 1,
        Takeover::Ended => 2,
        Takeover::Align => 3,
    }
}

/// Adds the fates of all samples up in the request's tallies. A duplicate inside a 503 is sent again: it failed.
pub(super) fn add_up(request: &mut Request, again: bool) {
    let Request { items, samples, fates, tallies, .. } = request;
    if let [one] = &mut tallies.tallies[..] {
        return one.add(&Sums::of(items, samples, fates, one.drops_exemplars), again);
    }
    for items in items.chunk_by(|item, next| item.tally == next.tally) {
        let [first, ..] = items else { continue };
        let count: u32 = items.iter().map(|item| item.series.samples).sum();
        let own = first.series.first_sample as usize..(first.series.first_sample + count) as usize;
        let tally = tallies.of(first.tally);
        tally.add(&Sums::of(items, &samples[own.clone()], &fates[own], tally.drops_exemplars), again);
    }
}

/// What became of the samples of some items.
#[derive(Debug, Default)]
struct Sums {
    /// How many of each fate.
    fates: [u64; 7],
    /// As in [`Tally`].
    duplicate_bytes: u64,
    newest_ms: Option<i64>,
    unsettled_ms: Option<i64>,
}

impl Sums {
    /// Of some items, and of their samples in a row. `drops_exemplars`: some of them may be exemplars that are dropped.
    fn of(items: &[Item], samples: &[Sample], fates: &[Fate], drops_exemplars: bool) -> Self {
        let bytes = |item: &Item| item.series.payload.field_len() as u64;
        let mut sums = Self::default();
        // Nearly always all have the same one of two.
        for fate in [Fate::Duplicate, Fate::Forwarded] {
            if all_are(fates, fate) {
                sums.fates[fate as usize] = fates.len() as u64;
                sums.newest_ms = samples.iter().map(|sample| sample.at).max();
                let duplicates = fate == Fate::Duplicate;
                if duplicates || drops_exemplars {
                    let counts = |item: &&Item| item.dropped || duplicates && item.series.samples > 0;
                    sums.duplicate_bytes = items.iter().filter(counts).map(bytes).sum();
                }
                return sums;
            }
        }
        sums.fates = Fate::ALL.map(|fate| fate.count(fates));
        let all = || samples.iter().zip(fates);
        // What is refused has no time that counts.
        let counted = |(sample, fate): (&Sample, &Fate)| match fate {
            Fate::Refused => i64::MIN,
            _ => sample.at,
        };
        let unsettled = |(sample, fate): (&Sample, &Fate)| match fate {
            Fate::Failed | Fate::Pending | Fate::Aboard => sample.at,
            _ => i64::MAX,
        };
        sums.newest_ms =
            all().map(counted).max().filter(|_| sums.of_fate(Fate::Refused) < fates.len() as u64);
        if sums.unsettled() > 0 {
            sums.unsettled_ms = all().map(unsettled).min();
        }
        if sums.of_fate(Fate::Duplicate) > 0 || drops_exemplars {
            let mut first = 0;
            for item in items {
                let count = item.series.samples as usize;
                // Nearly all have one or none, in no order that could be foreseen: without a branch.
                let duplicates = match fates.get(first..first + count.max(1)) {
                    Some(own) if count <= 1 => (count == 1) & (own[0] == Fate::Duplicate),
                    Some(own) => all_are(own, Fate::Duplicate),
                    None => false, // exemplars, behind the last sample
                };
                first += count;
                sums.duplicate_bytes += u64::from(item.dropped | duplicates) * bytes(item);
            }
        }
        sums
    }

    fn of_fate(&self, fate: Fate) -> u64 {
        self.fates[fate as usize]
    }

    /// How many come again.
    fn unsettled(&self) -> u64 {
        [Fate::Failed, Fate::Pending, Fate::Aboard].map(|fate| self.of_fate(fate)).iter().sum()
    }
}

/// (Without a branch for each of them.)
fn all_are(fates: &[Fate], fate: Fate) -> bool {
    fates.iter().fold(0, |other, own| other | (*own as u8 ^ fate as u8)) == 0
}

impl Tally {
    /// `again`: the request is answered 503, so duplicates come again.
    fn add(&mut self, sums: &Sums, again: bool) {
        self.forwarded += sums.of_fate(Fate::Forwarded);
        self.rejected += sums.of_fate(Fate::Rejected);
        self.refused += sums.of_fate(Fate::Refused);
        self.failed += sums.unsettled();
        if again {
            self.failed += sums.of_fate(Fate::Duplicate);
        } else {
            self.duplicate += sums.of_fate(Fate::Duplicate);
            self.duplicate_bytes += sums.duplicate_bytes;
        }
        self.newest_ms = self.newest_ms.max(sums.newest_ms);
        if let Some(oldest) = sums.unsettled_ms {
            self.unsettled_ms = Some(self.unsettled_ms.map_or(oldest, |known| known.min(oldest)));
        }
    }

    /// All samples of it, whatever became of them.
    pub(super) fn samples(&self) -> u64 {
        self.forwarded + self.duplicate + self.refused + self.rejected + self.failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Span;
    use crate::wire::v1::TimeSeries;

    /// What is pending or aboard at the end was never answered for: it comes again.
    #[test]
    fn each_fate_counts_once() {
        let times = [
            (Fate::Pending, 1),
            (Fate::Aboard, 2),
            (Fate::Forwarded, 4),
            (Fate::Rejected, 8),
            (Fate::Failed, 16),
            (Fate::Duplicate, 32),
            (Fate::Refused, 64),
        ];
        let fates: Vec<_> = times.iter().flat_map(|(fate, times)| vec![*fate; *times]).collect();
        let samples = vec![Sample { field: Span::default(), at: 0, bits: 0, histogram: false }; fates.len()];
        let sums = Sums { duplicate_bytes: 9, ..Sums::of(&[], &samples, &fates, false) };
        for (again, failed, duplicate, duplicate_bytes) in [(false, 19, 32, 9), (true, 51, 0, 0)] {
            let mut tally = Tally::default();
            tally.add(&sums, again);
            assert_eq!(
                (tally.failed, tally.duplicate, tally.duplicate_bytes),
                (failed, duplicate, duplicate_bytes)
            );
            assert_eq!((tally.forwarded, tally.rejected, tally.refused), (4, 8, 64));
            assert_eq!(tally.samples(), 127);
        }
    }

    /// A series whose samples are not all duplicates is sent, and one without samples (an exemplar) counts if it is dropped.
    #[test]
    fn bytes_are_those_of_series_that_held_nothing_but_duplicates() {
        // So long with its key and its length, which takes two bytes from 128 on.
        let item = |first_sample: u32, samples: u32, bytes: u32| Item {
            series: TimeSeries {
                payload: Span { start: 0, end: bytes - if bytes > 129 { 3 } else { 2 } },
                first_sample,
                samples,
                ..TimeSeries::default()
            },
            ..Item::default()
        };
        let items = [item(0, 1, 2), item(1, 0, 10), item(1, 2, 100), item(3, 1, 1_000)];
        let sample = |at| Sample { field: Span::default(), at, bits: 0, histogram: false };
        let samples = [4, 9, 3, 5].map(sample);
        let (duplicate, forwarded) = (Fate::Duplicate, Fate::Forwarded);
        for (fates, bytes) in [
            ([duplicate; 4], 1_102),
            ([duplicate, duplicate, forwarded, duplicate], 1_002),
            ([forwarded, duplicate, duplicate, forwarded], 100),
            ([forwarded; 4], 0),
            ([duplicate, Fate::Refused, duplicate, duplicate], 1_002),
        ] {
            for dropped in [false, true] {
                let mut items = items;
                items[1].dropped = dropped;
                let sums = Sums::of(&items, &samples, &fates, dropped);
                let exemplar = if dropped { 10 } else { 0 };
                assert_eq!(sums.duplicate_bytes, bytes + exemplar, "{fates:?}");
            }
            let sums = Sums::of(&items, &samples, &fates, false);
            let newest = if fates[1] == Fate::Refused { 5 } else { 9 };
            assert_eq!((sums.newest_ms, sums.unsettled_ms), (Some(newest), None), "{fates:?}");
            assert_eq!(sums.fates.iter().sum::<u64>(), 4);
        }
    }
}

//! Writes the outgoing body: what is aboard, spliced from the received bytes in the sender's order.
//!
//! Refuses to decide what is aboard, and to pack it.

use super::judge::{Fill, Filled, Judged};
use super::packing::Packing;
use super::request::{Fate, Item, Kind, Request, Unit};
use crate::wire::STALE_NAN_BITS;
use crate::wire::splice::{self, Labels, Row, Step};
use std::collections::{HashMap, HashSet};
use std::iter::Peekable;
use std::ops::Range;
use std::slice::Iter;

/// The stale markers aboard that are floats and follow a histogram of their series.
///
/// A TSDB commits the floats of a request before its histograms: the marker would be there first, and the histograms be
/// dropped without a word. So such a marker leaves as a histogram, which is what the TSDB makes of it anyway once it has
/// a histogram of the series (Prometheus `tsdb/head_append.go`, `headAppender.Append`).
fn markers_after_histograms(request: &Request, units: Range<usize>, judged: &Judged) -> HashSet<u32> {
    let filled = |fill: &&Fill| matches!(fill.samples.first(), Some(Filled::Histogram(_)));
    let filled: HashSet<u32> = judged.fills.iter().filter(filled).map(|fill| fill.before).collect();
    let mut markers = HashSet::new();
    if !judged.boards || !request.histograms && filled.is_empty() {
        return markers;
    }
    let mut carried = HashSet::new();
    for unit in &request.units[units] {
        let (item, key) = (&request.items[unit.item as usize], request.keys[unit.item as usize]);
        for s in unit.first..unit.first + unit.count {
            let sample = &request.samples[s as usize];
            if item.kind != Kind::Replicated || request.fates[s as usize] != Fate::Aboard {
                continue;
            }
            if sample.histogram || filled.contains(&s) {
                carried.insert(key);
            }
            if !sample.histogram && sample.bits == STALE_NAN_BITS && carried.contains(&key) {
                markers.insert(s);
            }
        }
    }
    markers
}

/// What goes aboard of a part of a request.
pub(super) struct Load<'a> {
    request: &'a Request,
    judged: &'a Judged,
    fills: Peekable<Iter<'a, Fill>>,
    exemplars: Peekable<Iter<'a, u32>>,
    markers: HashSet<u32>,
    /// No sample leaves in another form than it came in, and none goes before it.
    is_plain: bool,
    /// Series that leave as they came, but for their replica label. Nothing of them is left to be appended between two calls.
    row: Row,
}

impl<'a> Load<'a> {
    pub(super) fn new(request: &'a Request, part: Range<usize>, judged: &'a Judged) -> Self {
        let markers = markers_after_histograms(request, part, judged);
        let is_plain = markers.is_empty() && judged.fills.is_empty();
        let (fills, exemplars) = (judged.fills.iter().peekable(), judged.exemplars.iter().peekable());
        Self { request, judged, fills, exemplars, markers, is_plain, row: Row::default() }
    }

    /// Whether there may be something.
    pub(super) fn is_any(&self) -> bool {
        self.judged.boards || !self.judged.exemplars.is_empty()
    }

    /// Whether it has to be written in one go.
    pub(super) fn is_one(&self) -> bool {
        self.request.falls
    }

    /// Writes those of the next units that have something aboard. Returns how many samples that is.
    pub(super) fn put(&mut self, units: Range<usize>, out: &mut Packing<'_>) -> u64 {
        let samples = if self.request.falls { self.sorted(units, out) } else { self.in_order(units, out) };
        self.end_row(out);
        samples
    }

    fn in_order(&mut self, units: Range<usize>, out: &mut Packing<'_>) -> u64 {
        let mut samples = 0;
        for u in units {
            let unit = self.request.units[u];
            if unit.count > 0 {
                samples += self.unit(unit, out);
            } else if self.exemplars.next_if(|e| **e as usize == u).is_some() {
                self.whole(unit, out);
            }
        }
        samples
    }

    /// The same where the times of a series fall: all of its samples in one `TimeSeries`, in the order of their times,
    /// so that neither labels are repeated nor a payload is looked through for each of them.
    fn sorted(&mut self, units: Range<usize>, out: &mut Packing<'_>) -> u64 {
        let request = self.request;
        let mut samples = 0;
        let mut places = HashMap::new();
        let mut sorted: Vec<(Vec<u32>, Vec<Step<'a>>)> = Vec::new();
        for unit in request.units[units.clone()].iter().filter(|unit| unit.count > 0) {
            let item = &request.items[unit.item as usize];
            if item.kind == Kind::Single {
                samples += self.unit(*unit, out);
                continue;
            }
            let steps = self.steps(*unit);
            if steps.is_empty() {
                continue;
            }
            samples += steps.len() as u64;
            // What found no room leaves with its replica label, so each item of it is a series of its own.
            let replicated = item.kind == Kind::Replicated;
            let series = if replicated { request.keys[unit.item as usize].0 } else { u128::from(unit.item) };
            let place = *places.entry((replicated, series)).or_insert_with(|| {
                sorted.push(Default::default());
                sorted.len() - 1
            });
            let (items, all) = &mut sorted[place];
            if items.last() != Some(&unit.item) {
                items.push(unit.item);
            }
            all.extend(steps);
        }
        for (items, steps) in sorted {
            self.put_sorted(items, &steps, out);
        }
        for u in self.judged.exemplars.iter().filter(|u| units.contains(&(**u as usize))) {
            self.whole(request.units[*u as usize], out);
        }
        samples
    }

    /// Writes what is aboard of an item. Returns how many samples that is.
    #[inline]
    fn unit(&mut self, unit: Unit, out: &mut Packing<'_>) -> u64 {
        let request = self.request;
        // Nearly always.
        if self.is_plain && unit.count == 1 {
            let aboard = request.fates[unit.first as usize] == Fate::Aboard;
            if aboard {
                self.whole(unit, out);
            }
            return u64::from(aboard);
        }
        let own = unit.first..unit.first + unit.count;
        let fates = &request.fates[own.start as usize..own.end as usize];
        let filled = self.fills.peek().is_some_and(|fill| own.contains(&fill.before));
        let marked = !self.markers.is_empty() && own.clone().any(|s| self.markers.contains(&s));
        if !filled && !marked && fates.iter().all(|fate| *fate == Fate::Aboard) {
            self.whole(unit, out);
            return u64::from(unit.count);
        }
        if !fates.contains(&Fate::Aboard) {
            return 0;
        }
        let item = &request.items[unit.item as usize];
        let steps = self.steps(unit);
        self.edited(item, &steps, out);
        steps.len() as u64
    }

    /// The samples of a unit that go, with the held ones before them.
    fn steps(&mut self, unit: Unit) -> Vec<Step<'a>> {
        let mut steps = Vec::new();
        for s in unit.first..unit.first + unit.count {
            if let Some(fill) = self.fills.next_if(|fill| fill.before == s) {
                steps.extend(fill.samples.iter().map(|filled| match filled {
                    Filled::Float { at, bits } => Step::Float { at: *at, bits: *bits },
                    Filled::Histogram(message) => Step::Histogram(message),
                }));
            }
            if self.request.fates[s as usize] == Fate::Aboard {
                let sample = self.request.samples[s as usize];
                let marker = self.markers.contains(&s);
                steps.push(if marker { Step::HistogramMarker { at: sample.at } } else { Step::Keep(sample) });
            }
        }
        steps
    }

    /// The samples go with the first item; of the others what is no sample goes behind them.
    fn put_sorted(&mut self, mut items: Vec<u32>, steps: &[Step<'_>], out: &mut Packing<'_>) {
        let request = self.request;
        let first = items.first().copied();
        items.sort_unstable();
        items.dedup();
        let samples = first.map(|item| (item, steps));
        let others = items.into_iter().filter(|item| Some(*item) != first).map(|item| (item, [].as_slice()));
        for (number, steps) in samples.into_iter().chain(others) {
            let item = &request.items[number as usize];
            if !steps.is_empty() || item.series.exemplars > 0 {
                self.edited(item, steps, out);
            }
        }
    }

    fn edited(&mut self, item: &Item, steps: &[Step<'_>], out: &mut Packing<'_>) {
        self.end_row(out);
        let request = self.request;
        let out = out.room(item.series.payload.len());
        splice::edited(&request.body, &item.series, item.labels(&request.labels), steps, true, out);
    }

    #[inline]
    fn whole(&mut self, unit: Unit, out: &mut Packing<'_>) {
        let request = self.request;
        let item = &request.items[unit.item as usize];
        match item.labels(&request.labels) {
            Labels::Cut => {
                let out = out.room(self.row.left_bytes() + item.series.payload.len());
                self.row.put(&request.body, &item.series, out);
            }
            labels => {
                self.end_row(out);
                let out = out.room(item.series.payload.len());
                splice::whole(&request.body, &item.series, labels, out);
            }
        }
    }

    fn end_row(&mut self, out: &mut Packing<'_>) {
        let out = out.room(self.row.left_bytes());
        self.row.end(&self.request.body, out);
    }
}

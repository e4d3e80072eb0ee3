//! Makes the outgoing body: what is aboard, spliced from the received bytes in the sender's order.
//!
//! Refuses to decide what is aboard.

use super::judge::{Fill, Filled, Judged};
use super::request::{Fate, Kind, Request, Unit};
use crate::wire::splice::{self, Step};
use std::collections::HashMap;
use std::iter::Peekable;
use std::ops::Range;

/// Writes the units that have something aboard to `out` (cleared first). Returns how many samples it holds.
pub(super) fn assemble(request: &Request, units: Range<usize>, judged: &Judged, out: &mut Vec<u8>) -> u64 {
    out.clear();
    out.reserve(request.body.len() + 64);
    let mut fills = judged.fills.iter().peekable();
    if request.falls {
        return assemble_sorted(request, units, judged, &mut fills, out);
    }
    let mut samples = 0;
    let mut exemplars = judged.exemplars.iter().peekable();
    for u in units {
        let unit = request.units[u];
        if unit.count > 0 {
            samples += put(request, unit, &mut fills, out);
        } else if exemplars.next_if(|e| **e as usize == u).is_some() {
            put_whole(request, unit, out);
        }
    }
    samples
}

/// The same where the times of a series fall: all of its samples in one `TimeSeries`, in the order of their times, so
/// that neither labels are repeated nor a payload is looked through for each of them.
fn assemble_sorted<'a>(
    request: &Request,
    units: Range<usize>,
    judged: &Judged,
    fills: &mut Peekable<impl Iterator<Item = &'a Fill>>,
    out: &mut Vec<u8>,
) -> u64 {
    let mut samples = 0;
    let mut places = HashMap::new();
    let mut sorted: Vec<(Vec<u32>, Vec<Step<'a>>)> = Vec::new();
    for unit in request.units[units.clone()].iter().filter(|unit| unit.count > 0) {
        let item = &request.items[unit.item as usize];
        if item.kind == Kind::Single {
            samples += put(request, *unit, fills, out);
            continue;
        }
        let steps = steps(request, *unit, fills);
        if steps.is_empty() {
            continue;
        }
        samples += steps.len() as u64;
        // What found no room leaves with its replica label, so each item of it is a series of its own.
        let series = if item.kind == Kind::Replicated { item.key.0 } else { u128::from(unit.item) };
        let place = *places.entry((item.kind == Kind::Replicated, series)).or_insert_with(|| {
            sorted.push(Default::default());
            sorted.len() - 1
        });
        let (items, all) = &mut sorted[place];
        if items.last() != Some(&unit.item) {
            items.push(unit.item);
        }
        all.extend(steps);
    }
    for (mut items, steps) in sorted {
        let first = items.first().copied();
        items.sort_unstable();
        items.dedup();
        // The samples go with the first item; of the others what is no sample goes behind them.
        let samples = first.map(|item| (item, steps.as_slice()));
        let others = items.into_iter().filter(|item| Some(*item) != first).map(|item| (item, [].as_slice()));
        for (number, steps) in samples.into_iter().chain(others) {
            let item = &request.items[number as usize];
            if !steps.is_empty() || item.series.exemplars > 0 {
                splice::edited(&request.body, &item.series, item.labels(&request.labels), steps, true, out);
            }
        }
    }
    for u in judged.exemplars.iter().filter(|u| units.contains(&(**u as usize))) {
        put_whole(request, request.units[*u as usize], out);
    }
    samples
}

fn put_whole(request: &Request, unit: Unit, out: &mut Vec<u8>) {
    let item = &request.items[unit.item as usize];
    splice::whole(&request.body, &item.series, item.labels(&request.labels), out);
}

/// Writes what is aboard of an item. Returns how many samples that is.
fn put<'a>(
    request: &Request,
    unit: Unit,
    fills: &mut Peekable<impl Iterator<Item = &'a Fill>>,
    out: &mut Vec<u8>,
) -> u64 {
    let own = unit.first..unit.first + unit.count;
    let fates = &request.fates[own.start as usize..own.end as usize];
    let filled = fills.peek().is_some_and(|fill| own.contains(&fill.before));
    if !filled && fates.iter().all(|fate| *fate == Fate::Aboard) {
        put_whole(request, unit, out);
        return u64::from(unit.count);
    }
    if !fates.contains(&Fate::Aboard) {
        return 0;
    }
    let item = &request.items[unit.item as usize];
    let steps = steps(request, unit, fills);
    splice::edited(&request.body, &item.series, item.labels(&request.labels), &steps, true, out);
    steps.len() as u64
}

/// The samples of a unit that go, with the held ones before them.
fn steps<'a>(
    request: &Request,
    unit: Unit,
    fills: &mut Peekable<impl Iterator<Item = &'a Fill>>,
) -> Vec<Step<'a>> {
    let mut steps = Vec::new();
    for s in unit.first..unit.first + unit.count {
        if let Some(fill) = fills.next_if(|fill| fill.before == s) {
            steps.extend(fill.samples.iter().map(|filled| match filled {
                Filled::Float { at, bits } => Step::Float { at: *at, bits: *bits },
                Filled::Histogram(message) => Step::Histogram(message),
            }));
        }
        if request.fates[s as usize] == Fate::Aboard {
            steps.push(Step::Keep(request.samples[s as usize]));
        }
    }
    steps
}

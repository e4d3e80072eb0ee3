//! Makes the outgoing body: what is aboard, spliced from the received bytes in the sender's order.
//!
//! Refuses to decide what is aboard.

use super::judge::{Fill, Filled, Judged};
use super::request::{Fate, Request, Unit};
use crate::wire::splice::{self, Step};
use std::ops::Range;

/// Writes the units that have something aboard to `out` (cleared first). Returns how many samples it holds.
pub(super) fn assemble(request: &Request, units: Range<usize>, judged: &Judged, out: &mut Vec<u8>) -> u64 {
    out.clear();
    out.reserve(request.body.len() + 64);
    let mut samples = 0;
    let mut fills = judged.fills.iter().peekable();
    let mut exemplars = judged.exemplars.iter().peekable();
    for u in units {
        let unit = request.units[u];
        let item = &request.items[unit.item as usize];
        let labels = item.labels(&request.labels);
        if unit.count == 0 {
            if exemplars.next_if(|e| **e as usize == u).is_some() {
                splice::whole(&request.body, &item.series, labels, out);
            }
            continue;
        }
        let own = unit.first..unit.first + unit.count;
        let fates = &request.fates[own.start as usize..own.end as usize];
        let aboard = fates.iter().filter(|fate| **fate == Fate::Aboard).count();
        if aboard == 0 {
            continue;
        }
        samples += aboard as u64;
        let filled = fills.peek().is_some_and(|fill| own.contains(&fill.before));
        if aboard == fates.len() && unit.count == item.series.samples && !filled {
            splice::whole(&request.body, &item.series, labels, out);
            continue;
        }
        let steps = steps(request, unit, &mut fills, &mut samples);
        splice::edited(&request.body, &item.series, labels, &steps, unit.last, out);
    }
    samples
}

/// The samples of a unit that go, with the held ones before them.
fn steps<'a>(
    request: &Request,
    unit: Unit,
    fills: &mut std::iter::Peekable<impl Iterator<Item = &'a Fill>>,
    samples: &mut u64,
) -> Vec<Step<'a>> {
    let mut steps = Vec::with_capacity(unit.count as usize + 2);
    for s in unit.first..unit.first + unit.count {
        if let Some(fill) = fills.next_if(|fill| fill.before == s) {
            steps.extend(fill.samples.iter().map(|filled| match filled {
                Filled::Float { at, bits } => Step::Float { at: *at, bits: *bits },
                Filled::Histogram(message) => Step::Histogram(message),
            }));
            *samples += fill.samples.len() as u64;
        }
        if request.fates[s as usize] == Fate::Aboard {
            steps.push(Step::Keep(request.samples[s as usize]));
        }
    }
    steps
}

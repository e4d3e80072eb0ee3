//! Finds the series of a request one after the other, while its body is walked over.
//!
//! As long as they come as they did the last time, each is where the one before says, and its key is all that is looked at; the
//! others are looked for in the index, many at once if there are many. Refuses to learn an order from who comes in another one each
//! time.

use super::{CHUNK, Chunk, Found, NONE, Table, View, Way, find, segment_of, touch};
use crate::series::SeriesKey;

/// So many series are touched before the first of them is looked for: more than the machine has loads under way, and
/// few enough to be near still.
const TOUCHED: usize = 64;

/// What finds the series of a request.
#[derive(Debug)]
pub struct Finder<'a> {
    table: &'a Table,
    view: View,
    way: Way,
    /// The last that was found, or [`NONE`], and its chunk.
    last: u32,
    chunk: Option<&'a Chunk>,
    /// So many are looked for in the index at once.
    at_once: usize,
}

impl<'a> Finder<'a> {
    /// `way`: of whom they come, since each sender has an order of its own.
    pub(super) fn new(table: &'a Table, view: View, way: Way) -> Self {
        Self { table, view, way, last: NONE, chunk: None, at_once: 1 }
    }

    /// Finds the last of `keys`, or leaves it for later. `keys`: all so far; `found`: as many of them as have been looked for.
    #[inline(always)]
    pub fn next(&mut self, keys: &[SeriesKey], found: &mut Vec<Found>) {
        debug_assert!(found.len() < keys.len(), "one key at a time");
        let left = keys.len() - found.len();
        if left == 1
            && let Some(key) = keys.last()
            && let Some(next) = self.follow(*key)
        {
            found.push(next);
        } else if left >= self.at_once {
            self.look_up(keys, found);
        }
    }

    /// Finds what was left for later.
    pub fn finish(&mut self, keys: &[SeriesKey], found: &mut Vec<Found>) {
        if found.len() < keys.len() {
            self.look_up(keys, found);
        }
    }

    /// The series, if it comes after the last one as it did the last time.
    #[inline(always)]
    pub(super) fn follow(&mut self, key: SeriesKey) -> Option<Found> {
        let chunk = self.chunk?;
        let next = chunk.order.next(self.last, self.way)?;
        let near = next as usize / CHUNK == self.last as usize / CHUNK;
        let chunk = if near { chunk } else { self.table.chunk(next)? };
        let entry = &chunk.entries[next as usize % CHUNK];
        if !entry.is(key) {
            return None;
        }
        // Where one comes in its place the next ones probably do.
        (self.last, self.chunk, self.at_once) = (next, Some(chunk), 1);
        Some(Found { number: next, target: entry.target() })
    }

    /// Looks up in the index those of `keys` that are not in `found`. Short loops of independent loads, so that the machine has many
    /// cache misses under way at once. Learns their order.
    #[inline(never)]
    fn look_up(&mut self, keys: &[SeriesKey], found: &mut Vec<Found>) {
        let first = found.len();
        let keys = &keys[first..];
        touch(&self.view, keys);
        let (table, view) = (self.table, &self.view);
        let index = |key: SeriesKey| &view.0[segment_of(key)];
        found.extend(keys.iter().map(|key| Found { number: find(index(*key), *key), target: 0 }));
        let mut foreseen = 0;
        for (key, found) in keys.iter().zip(&mut found[first..]) {
            if found.number != NONE && !table.entry(found.number).is(*key) {
                found.number = table.confirm(index(*key), *key);
            }
            if found.number != NONE {
                found.target = table.entry(found.number).target();
                if let Some(chunk) = table.chunk(self.last) {
                    foreseen += usize::from(chunk.order.learn(self.last, found.number, self.way));
                }
            }
            self.last = found.number;
        }
        self.chunk = table.chunk(self.last);
        // Nothing is gained by following who comes in another order each time.
        self.at_once = if 2 * foreseen >= keys.len() { 1 } else { (2 * self.at_once).min(TOUCHED) };
    }
}

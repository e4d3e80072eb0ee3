//! The table: which entry is a series', with lock-free lookups.
//!
//! Entries live in chunks that never move, so an entry's number stays good for as long as it is claimed. Beside them
//! 256 segments of an open-addressing index map a key to that number. Finding a known series takes atomic loads only.
//! Adding, removing and growing (one segment at a time, so no pause is longer than copying one) take the segment's lock.
//! A reader may hold an index that has been replaced: it then misses what is new, and notices by the key what is gone;
//! both send it to the lock. Refuses to look into an entry beyond its key.

mod finder;
mod order;

use super::entry::{Entry, NOBODY, TABLE, Unpacked};
use super::sync::size::{ENTRIES as CHUNK, INDEX_MIN, SEGMENTS};
use super::sync::{ArcSwap, AtomicU64, AtomicUsize, Mutex, MutexGuard, OnceLock};
use crate::series::SeriesKey;
pub use finder::Finder;
use order::Order;
pub(super) use order::Way;
use std::sync::atomic::Ordering::*;
use std::sync::{Arc, PoisonError};

/// An index slot that never was used; the chain of a lookup ends here.
const EMPTY: u64 = 0;
/// An index slot whose series is gone; the chain goes on.
const GONE: u64 = u64::MAX;

/// No entry.
pub(super) const NONE: u32 = u32::MAX;

type Index = Arc<[AtomicU64]>;

/// Where a series is: its entry, and the target it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The number of its entry, or [`UNKNOWN`](super::UNKNOWN).
    pub number: u32,
    /// The number of its target; of an unknown series without meaning.
    pub target: u32,
}

/// One request's view of the index: taken once, good for all its lookups.
#[derive(Debug, Clone)]
pub(super) struct View(Arc<Vec<Index>>);

#[derive(Debug)]
pub(super) struct Table {
    chunks: Box<[OnceLock<Chunk>]>,
    free: Mutex<FreeList>,
    live: AtomicUsize,
    series_max: usize,
    directory: ArcSwap<Vec<Index>>,
    /// Index slots of a segment that are not `EMPTY`.
    segments: Box<[Mutex<usize>]>,
    publish: Mutex<()>,
}

/// Some entries, and which of them follow which.
#[derive(Debug)]
struct Chunk {
    entries: Box<[Entry; CHUNK]>,
    order: Order,
}

/// Entries that mostly lie beside each other: the chunk of the last one is at hand.
#[derive(Debug)]
pub(super) struct Near<'a> {
    table: &'a Table,
    number: usize,
    entries: &'a [Entry],
}

#[derive(Debug, Default)]
struct FreeList {
    returned: Vec<u32>,
    /// Entries from here on were never used.
    fresh: u32,
}

/// How adding a series went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Added {
    /// The new entry, claimed by the flight that added it.
    New(u32),
    /// Somebody else has added it meanwhile.
    Known(u32),
    /// The bound is reached.
    Full,
}

impl Table {
    /// A table of at most `series_max` series. Allocates little until they come.
    pub(super) fn new(series_max: usize) -> Self {
        let index = || (0..INDEX_MIN).map(|_| AtomicU64::new(EMPTY)).collect::<Index>();
        Self {
            chunks: (0..series_max.div_ceil(CHUNK)).map(|_| OnceLock::new()).collect(),
            free: Mutex::default(),
            live: AtomicUsize::new(0),
            series_max,
            directory: ArcSwap::from_pointee((0..SEGMENTS).map(|_| index()).collect()),
            segments: (0..SEGMENTS).map(|_| Mutex::new(0)).collect(),
            publish: Mutex::new(()),
        }
    }

    pub(super) fn live(&self) -> usize {
        self.live.load(Relaxed)
    }

    pub(super) fn series_max(&self) -> usize {
        self.series_max
    }

    /// Bytes allocated for entries and index.
    pub(super) fn bytes(&self) -> usize {
        let chunks = self.chunks.iter().filter(|c| c.get().is_some()).count();
        let index: usize = self.directory.load().iter().map(|i| i.len() * 8).sum();
        chunks * (CHUNK * size_of::<Entry>() + Order::BYTES) + index
    }

    pub(super) fn view(&self) -> View {
        View(self.directory.load_full())
    }

    /// The numbers of entries ever used; sweeping visits them all.
    pub(super) fn used(&self) -> u32 {
        lock(&self.free).fresh
    }

    #[inline]
    pub(super) fn entry(&self, number: u32) -> &Entry {
        let number = number as usize;
        &self.entries(number / CHUNK)[number % CHUNK]
    }

    #[inline]
    #[expect(clippy::expect_used, reason = "a number is only handed out once its chunk exists")]
    fn entries(&self, chunk: usize) -> &[Entry; CHUNK] {
        &self.chunks[chunk].get().expect("the chunk of a numbered entry").entries
    }

    /// To look at entries one after the other.
    pub(super) fn near(&self) -> Near<'_> {
        Near { table: self, number: usize::MAX, entries: &[] }
    }

    /// Finds the series of a request. `way`: of whom they come.
    pub(super) fn finder(&self, way: Way) -> Finder<'_> {
        Finder::new(self, self.view(), way)
    }

    /// Looks up many series by an index that may have been replaced.
    pub(super) fn locate(&self, view: &View, keys: &[SeriesKey], way: Way, found: &mut Vec<Found>) {
        found.clear();
        found.reserve(keys.len());
        let mut finder = Finder::new(self, view.clone(), way);
        (1..=keys.len()).for_each(|so_far| finder.next(&keys[..so_far], found));
        finder.finish(keys, found);
    }

    /// The chunk of a number that may be none.
    #[inline]
    fn chunk(&self, number: u32) -> Option<&Chunk> {
        self.chunks.get(number as usize / CHUNK)?.get()
    }

    /// The entry of one series, or [`NONE`].
    pub(super) fn find(&self, key: SeriesKey) -> u32 {
        self.confirm(&self.directory.load()[segment_of(key)], key)
    }

    /// The entry of a series, adding it with `make` if it is new. `make` is only called then, under the segment's lock.
    pub(super) fn add(
        &self,
        key: SeriesKey,
        tick: u8,
        flight: u16,
        make: impl FnOnce() -> Unpacked,
    ) -> Added {
        let segment = segment_of(key);
        let mut filled = lock(&self.segments[segment]);
        let index = Arc::clone(&self.directory.load()[segment]);
        match self.confirm(&index, key) {
            NONE => {}
            number => return Added::Known(number),
        }
        let Some(number) = self.take() else { return Added::Full };
        self.entry(number).occupy(key, &make(), tick, flight);
        let index = self.room(segment, index, &mut filled);
        insert(&index, key, number, &mut filled);
        Added::New(number)
    }

    /// Forgets a series whose entry the caller has claimed.
    pub(super) fn remove(&self, number: u32) {
        let entry = self.entry(number);
        let key = entry.key();
        let segment = segment_of(key);
        let filled = lock(&self.segments[segment]);
        let index = Arc::clone(&self.directory.load()[segment]);
        let slot = probe(&index, key).find(|slot| index[*slot].load(Relaxed) == tagged(key, number));
        debug_assert!(slot.is_some(), "entry {number} is not in its index");
        if let Some(slot) = slot {
            index[slot].store(GONE, Release);
        }
        entry.vacate();
        drop(filled);
        lock(&self.free).returned.push(number);
        self.live.fetch_sub(1, Relaxed);
    }

    /// A free entry's number, with its chunk allocated; `None` at the bound.
    fn take(&self) -> Option<u32> {
        let mut free = lock(&self.free);
        if self.live.load(Relaxed) >= self.series_max {
            return None;
        }
        let number = match free.returned.pop() {
            Some(number) => number,
            None => {
                let number = free.fresh;
                self.chunks[number as usize / CHUNK].get_or_init(Chunk::free);
                free.fresh += 1;
                number
            }
        };
        self.live.fetch_add(1, Relaxed);
        Some(number)
    }

    /// The segment's index with room for one more: at most three quarters full, else it is made anew and published.
    fn room(&self, segment: usize, index: Index, filled: &mut MutexGuard<'_, usize>) -> Index {
        if 4 * (**filled + 1) <= 3 * index.len() {
            return index;
        }
        let alive: Vec<_> = index
            .iter()
            .map(|slot| slot.load(Relaxed))
            .filter(|slot| ![EMPTY, GONE].contains(slot))
            .collect();
        // By half, so that an index is never less than half full once it has grown.
        let len = if 2 * (alive.len() + 1) <= index.len() { index.len() } else { index.len() * 3 / 2 };
        let grown: Index = (0..len).map(|_| AtomicU64::new(EMPTY)).collect();
        **filled = 0;
        for slot in alive {
            let number = number_of(slot);
            insert(&grown, self.entry(number).key(), number, filled);
        }
        let published = lock(&self.publish);
        let mut directory = self.directory.load().as_ref().clone();
        directory[segment] = Arc::clone(&grown);
        self.directory.store(Arc::new(directory));
        drop(published);
        grown
    }

    /// Follows the whole chain of a key, comparing keys and not only tags.
    fn confirm(&self, index: &Index, key: SeriesKey) -> u32 {
        for slot in probe(index, key) {
            let word = index[slot].load(Acquire);
            if word == EMPTY {
                break;
            }
            if word != GONE && tag_of(word) == tag(key) && self.entry(number_of(word)).is(key) {
                return number_of(word);
            }
        }
        NONE
    }
}

impl<'a> Near<'a> {
    #[inline(always)]
    pub(super) fn entry(&mut self, number: u32) -> &'a Entry {
        let number = number as usize;
        if number / CHUNK != self.number {
            (self.number, self.entries) = (number / CHUNK, self.table.entries(number / CHUNK));
        }
        &self.entries[number % CHUNK]
    }
}

impl Chunk {
    #[expect(clippy::expect_used, reason = "so many are made")]
    fn free() -> Self {
        let entries: Box<[Entry]> = (0..CHUNK).map(|_| Entry::free()).collect();
        Self { entries: entries.try_into().expect("a chunk of entries"), order: Order::unknown() }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing under these locks can panic half-way through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn segment_of(key: SeriesKey) -> usize {
    (key.0 >> 120) as usize & (SEGMENTS - 1)
}

fn tag(key: SeriesKey) -> u32 {
    (key.0 >> 64) as u32
}

fn tagged(key: SeriesKey, number: u32) -> u64 {
    u64::from(tag(key)) << 32 | u64::from(number + 1)
}

fn tag_of(word: u64) -> u32 {
    (word >> 32) as u32
}

fn number_of(word: u64) -> u32 {
    word as u32 - 1
}

/// The slots of a key's chain, each once.
fn probe(index: &Index, key: SeriesKey) -> impl Iterator<Item = usize> + use<> {
    let (start, len) = (first_slot(index, key), index.len());
    (start..len).chain(0..start)
}

/// Where a key's chain begins.
#[inline]
fn first_slot(index: &Index, key: SeriesKey) -> usize {
    // The upper half of a product spreads 32 bits of the key over any length, not only over powers of two.
    ((u64::from(key.0 as u32) * index.len() as u64) >> 32) as usize
}

/// Brings the index slots of some series near. What is read is looked at by nobody, so no branch has to wait for one
/// slot before the next one is asked for: looking at them afterwards takes a third of the time in a large table.
#[inline(always)]
fn touch(view: &View, keys: &[SeriesKey]) {
    if cfg!(model) {
        return; // nothing but more orders of steps to try
    }
    let mut any = 0;
    for key in keys {
        let index = &view.0[segment_of(*key)];
        any |= index[first_slot(index, *key)].load(Relaxed);
    }
    std::hint::black_box(any);
}

/// The first entry whose tag is the key's: nearly always the right one, which the caller checks.
#[inline]
fn find(index: &Index, key: SeriesKey) -> u32 {
    for slot in probe(index, key) {
        let word = index[slot].load(Acquire);
        if word == EMPTY {
            break;
        }
        if word != GONE && tag_of(word) == tag(key) {
            return number_of(word);
        }
    }
    NONE
}

fn insert(index: &Index, key: SeriesKey, number: u32, filled: &mut usize) {
    let empty = probe(index, key).find(|slot| index[*slot].load(Relaxed) == EMPTY);
    debug_assert!(empty.is_some(), "an index at most three quarters full has room");
    if let Some(slot) = empty {
        index[slot].store(tagged(key, number), Release);
        *filled += 1;
    }
}

impl Entry {
    /// Whether it is a series', and nobody has claimed it.
    pub(super) fn is_free_to_claim(&self) -> bool {
        self.guard().flight() == NOBODY
    }

    /// Claims an entry that nobody has, for the table itself.
    pub(super) fn claim_for_table(&self) -> bool {
        self.is_free_to_claim() && self.claim(TABLE).is_ok()
    }
}

#[cfg(test)]
mod tests;

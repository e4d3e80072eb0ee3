//! One series in one cache line: eight atomic words, and the packing of [`Series`] into them.
//!
//! | word | holds |
//! |---|---|
//! | 0, 1 | key |
//! | 2 | *guard*: watermark (48 bits, signed) and the flight that has claimed the series (16 bits, 0 = nobody) |
//! | 3 | interval (24), tick of the last touch (8), target (32) |
//! | 4 | owner, holder, other's replica, flags (8 each), other's time relative to the watermark (32, signed) |
//! | 5 | times of the held samples relative to the watermark (2 x 32, 0 = none) |
//! | 6, 7 | payloads of the held samples |
//!
//! Whoever wins the compare-and-swap of the guard from flight 0 to its own flight is the only writer of the other
//! words until it stores the guard back. A loser never spins: it is told whose flight it is.
//! Refuses to decide anything.

pub(super) mod steady;

use super::sync::AtomicU64;
use crate::policy::{Held, INTERVAL_MAX_MS, ReplicaId, Series, TimestampMs};
use crate::series::SeriesKey;
use std::sync::atomic::Ordering::*;

/// Timestamps beyond ±2^46 ms (about the years ±2200) do not fit the packing and are refused before they get here.
pub const TIMESTAMP_LIMIT_MS: i64 = 1 << 46;

/// The flight number of nobody.
pub(super) const NOBODY: u16 = 0;
/// The flight number of the table itself, while an entry is free or about to be.
pub(super) const TABLE: u16 = u16::MAX;

/// Each half of the key of an entry that is no series'. Not 0, which stands for series that have no key.
const NO_KEY: u64 = u64::MAX;
const NO_REPLICA: u8 = u8::MAX;
const NO_WATERMARK: i64 = -(1 << 47);
/// The tick in word 3.
const TICK: u64 = 0xff << 32;
const INTERVAL_MAX: u64 = INTERVAL_MAX_MS as u64;

/// Flags of an entry that the policy does not know of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks {
    /// The previous flight of the series ended without an answer, so upstream may hold what it carried.
    pub(super) unanswered: bool,
    /// The series is `up`.
    pub(super) is_up: bool,
    /// The payloads of the held samples are tokens of histograms.
    pub(super) holds_histograms: bool,
}

/// Everything of an entry but its key and guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unpacked {
    pub(super) series: Series,
    pub(super) target: u32,
    pub(super) marks: Marks,
}

/// What the census sees of a living series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Glance {
    pub(super) tick: u8,
    pub(super) target: u32,
    /// No replica but its owner has shown it.
    pub(super) alone: bool,
}

/// The words 2..8 as they were: what a rollback puts back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Image([u64; 6]);

impl Image {
    /// The owner then.
    pub(super) fn owner(&self) -> ReplicaId {
        ReplicaId(self.0[2] as u8)
    }

    /// The same, but marked: the flight since got no answer.
    pub(super) fn unanswered(mut self) -> Self {
        self.0[2] |= u64::from(Flags::UNANSWERED) << 24;
        self
    }
}

/// Who has claimed an entry, and its watermark (possibly only reserved).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Guard(pub(super) u64);

impl Guard {
    fn new(watermark: Option<TimestampMs>, flight: u16) -> Self {
        let watermark = watermark.map_or(NO_WATERMARK, |t| t.0);
        debug_assert!(watermark << 16 >> 16 == watermark, "{watermark} does not fit 48 bits");
        Self(((watermark as u64) << 16) | u64::from(flight))
    }

    pub(super) fn flight(self) -> u16 {
        self.0 as u16
    }

    pub(super) fn watermark(self) -> Option<TimestampMs> {
        let watermark = (self.0 as i64) >> 16;
        (watermark != NO_WATERMARK).then_some(TimestampMs(watermark))
    }

    fn claimed_by(self, flight: u16) -> Self {
        Self(self.0 & !0xffff | u64::from(flight))
    }
}

/// One series of the window.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Entry {
    words: [AtomicU64; 8],
}

// (Loom's atomics are larger.)
#[cfg(not(model))]
const _: () = assert!(size_of::<Entry>() == 64, "an entry is one cache line");

impl Entry {
    /// An entry that belongs to the table and to no series.
    pub(super) fn free() -> Self {
        let entry = Self { words: Default::default() };
        entry.vacate();
        entry
    }

    /// Whether it is the entry of that series. Acquires what was written when it became that.
    #[inline]
    pub(super) fn is(&self, key: SeriesKey) -> bool {
        self.words[0].load(Acquire) == key.0 as u64 && self.words[1].load(Acquire) == (key.0 >> 64) as u64
    }

    pub(super) fn key(&self) -> SeriesKey {
        SeriesKey(u128::from(self.words[0].load(Relaxed)) | u128::from(self.words[1].load(Relaxed)) << 64)
    }

    /// The target, readable without a claim (a stale value is noticed when the claim checks the key).
    #[inline]
    pub(super) fn target(&self) -> u32 {
        self.words[3].load(Relaxed) as u32
    }

    #[inline]
    pub(super) fn owner(&self) -> ReplicaId {
        ReplicaId(self.words[4].load(Relaxed) as u8)
    }

    /// As a flight that has claimed the entry may have reserved it.
    pub(super) fn interval(&self) -> i64 {
        (self.words[3].load(Relaxed) >> 40) as i64
    }

    /// How far the newest held sample is above the watermark, in ms; 0: nothing is held.
    pub(super) fn held_above(&self) -> i64 {
        let times = self.words[5].load(Relaxed);
        i64::from((times as u32).max((times >> 32) as u32))
    }

    pub(super) fn tick(&self) -> u8 {
        (self.words[3].load(Relaxed) >> 32) as u8
    }

    #[inline]
    pub(super) fn guard(&self) -> Guard {
        Guard(self.words[2].load(Acquire))
    }

    /// Claims the entry, or says who has it. Acquires what the previous claimant wrote.
    #[inline]
    pub(super) fn claim(&self, flight: u16) -> Result<(), Guard> {
        let free = self.guard();
        if free.flight() != NOBODY {
            return Err(free);
        }
        match self.words[2].compare_exchange(free.0, free.claimed_by(flight).0, AcqRel, Acquire) {
            Ok(_) => Ok(()),
            // Somebody was faster. Losing to one that is gone again already means that there is nobody to wait for:
            // the caller sees flight 0 and tries once more.
            Err(now) => Err(Guard(now)),
        }
    }

    /// The words 2..8. Only for the claimant; the guard is kept without the claim.
    #[inline]
    pub(super) fn image(&self) -> Image {
        Image(std::array::from_fn(|i| {
            let word = self.words[i + 2].load(Relaxed);
            if i == 0 { Guard(word).claimed_by(NOBODY).0 } else { word }
        }))
    }

    /// Puts back what [`Self::image`] took, and ends the claim.
    pub(super) fn restore(&self, image: &Image) {
        // Its last touch was that of the flight, which failed: the series is no less alive.
        let touched = self.words[3].load(Relaxed) & TICK;
        for (i, word) in image.0.iter().enumerate().skip(1) {
            let word = if i == 1 { word & !TICK | touched } else { *word };
            self.words[i + 2].store(word, Relaxed);
        }
        self.words[2].store(image.0[0], Release);
    }

    /// Ends the claim, keeping what was stored; the last flight got its answer.
    #[inline]
    pub(super) fn commit(&self) {
        let meta = self.words[4].load(Relaxed);
        let answered = meta & !(u64::from(Flags::UNANSWERED) << 24);
        if answered != meta {
            self.words[4].store(answered, Relaxed);
        }
        self.release();
    }

    /// Ends the claim, keeping what was stored.
    #[inline]
    pub(super) fn release(&self) {
        self.words[2].store(Guard(self.words[2].load(Relaxed)).claimed_by(NOBODY).0, Release);
    }

    /// Makes a free entry that of a series, claimed by `flight`. Only for the table.
    pub(super) fn occupy(&self, key: SeriesKey, unpacked: &Unpacked, tick: u8, flight: u16) {
        self.store(unpacked, tick, flight);
        // Last: who finds the key without the index may read the rest. Both, since one half may be that of the series before.
        self.words[0].store(key.0 as u64, Release);
        self.words[1].store((key.0 >> 64) as u64, Release);
    }

    /// Makes a claimed entry that of the table again.
    pub(super) fn vacate(&self) {
        self.words[0].store(NO_KEY, Relaxed);
        self.words[1].store(NO_KEY, Relaxed);
        self.words[2].store(Guard::new(None, TABLE).0, Release);
    }

    /// A look at an entry that nobody claims, without claiming it. `None`: it belongs to no series, to one that is about to
    /// end or has not lived for an interval yet, or somebody is at it.
    pub(super) fn glance(&self) -> Option<Glance> {
        let guard = self.guard();
        let (timing, meta) = (self.words[3].load(Relaxed), self.words[4].load(Relaxed));
        let flags = Flags((meta >> 24) as u8);
        let lives = timing >> 40 != 0 && !flags.has(Flags::RELEASED) && !flags.has(Flags::STALE);
        let alone = (meta >> 16) as u8 == NO_REPLICA;
        (guard.flight() == NOBODY && lives).then_some(Glance {
            tick: (timing >> 32) as u8,
            target: timing as u32,
            alone,
        })
    }

    /// What the entry holds. Only for the claimant.
    #[inline]
    pub(super) fn load(&self) -> Unpacked {
        let w = |i: usize| self.words[i].load(Relaxed);
        let watermark = Guard(w(2)).watermark();
        let base = watermark.map_or(0, |t| t.0);
        let (meta, times) = (w(4), w(5));
        let flags = Flags((meta >> 24) as u8);
        let other = (meta >> 16) as u8;
        let held = |delta: u32, word: usize| {
            (delta != 0).then(|| Held { at: TimestampMs(base + i64::from(delta)), payload: w(word) })
        };
        Unpacked {
            series: Series {
                owner: ReplicaId(meta as u8),
                watermark,
                interval: (w(3) >> 40) as i64,
                released: flags.has(Flags::RELEASED),
                stale: flags.has(Flags::STALE),
                born: flags.has(Flags::BORN),
                slow: flags.has(Flags::SLOW),
                quick: flags.has(Flags::QUICK),
                other: (other != NO_REPLICA)
                    .then(|| (TimestampMs(base + i64::from((meta >> 32) as i32)), ReplicaId(other))),
                held: [held(times as u32, 6), held((times >> 32) as u32, 7)],
                holder: ReplicaId((meta >> 8) as u8),
            },
            target: w(3) as u32,
            marks: Marks {
                unanswered: flags.has(Flags::UNANSWERED),
                is_up: flags.has(Flags::UP),
                holds_histograms: flags.has(Flags::HISTOGRAMS),
            },
        }
    }

    /// Stores all but the key, and leaves the claim with `flight` (0 ends it). Only for the claimant.
    #[inline]
    pub(super) fn store(&self, unpacked: &Unpacked, tick: u8, flight: u16) {
        let Unpacked { series: s, target, marks } = unpacked;
        let base = s.watermark.map_or(0, |t| t.0);
        let interval = (s.interval.max(0) as u64).min(INTERVAL_MAX);
        let mut flags = Flags(0);
        flags.set(Flags::RELEASED, s.released);
        flags.set(Flags::STALE, s.stale);
        flags.set(Flags::BORN, s.born);
        flags.set(Flags::SLOW, s.slow);
        flags.set(Flags::QUICK, s.quick);
        flags.set(Flags::UNANSWERED, marks.unanswered);
        flags.set(Flags::UP, marks.is_up);
        flags.set(Flags::HISTOGRAMS, marks.holds_histograms);
        let (other, at) = s.other.map_or((NO_REPLICA, 0), |(t, q)| {
            (q.0, (t.0 - base).clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32)
        });
        let mut times = 0;
        for (i, held) in s.held.iter().enumerate() {
            let Some(held) = held else { continue };
            // Always above the watermark, and at most two of the longest intervals.
            let delta = (held.at.0 - base).clamp(0, i64::from(u32::MAX)) as u64;
            times |= delta << (32 * i);
            self.words[6 + i].store(held.payload, Relaxed);
        }
        self.words[3].store(interval << 40 | u64::from(tick) << 32 | u64::from(*target), Relaxed);
        self.words[4].store(
            u64::from(at as u32) << 32
                | u64::from(flags.0) << 24
                | u64::from(other) << 16
                | u64::from(s.holder.0) << 8
                | u64::from(s.owner.0),
            Relaxed,
        );
        self.words[5].store(times, Relaxed);
        self.words[2].store(Guard::new(s.watermark, flight).0, Release);
    }
}

#[derive(Clone, Copy)]
struct Flags(u8);

impl Flags {
    const RELEASED: u8 = 1;
    const STALE: u8 = 2;
    const BORN: u8 = 4;
    const SLOW: u8 = 8;
    const QUICK: u8 = 16;
    const UNANSWERED: u8 = 32;
    const UP: u8 = 64;
    const HISTOGRAMS: u8 = 128;

    fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }

    fn set(&mut self, bit: u8, on: bool) {
        self.0 |= if on { bit } else { 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_series() -> impl Strategy<Value = Series> {
        let time = -TIMESTAMP_LIMIT_MS..TIMESTAMP_LIMIT_MS;
        let near = -2_000_000_000i64..2_000_000_000;
        let held = (1i64..4_000_000_000, any::<u64>());
        (
            (any::<u8>(), proptest::option::of(time), 0i64..1 << 24, any::<[bool; 5]>()),
            proptest::option::of((near, 0u8..255)),
            (proptest::collection::vec(held, 0..=2), 0u8..255),
        )
            .prop_map(|((owner, watermark, interval, f), other, (held, holder))| {
                let base = watermark.unwrap_or(0);
                let mut held: Vec<_> = held
                    .into_iter()
                    .map(|(d, payload)| Held { at: TimestampMs(base + d), payload })
                    .collect();
                held.sort_by_key(|h| h.at.0);
                Series {
                    owner: ReplicaId(owner),
                    watermark: watermark.map(TimestampMs),
                    interval,
                    released: f[0],
                    stale: f[1],
                    born: f[2],
                    slow: f[3],
                    quick: f[4],
                    other: other.map(|(d, q)| (TimestampMs(base + d), ReplicaId(q))),
                    held: [held.first().copied(), held.get(1).copied()],
                    holder: ReplicaId(holder),
                }
            })
    }

    proptest! {
        #[test]
        fn what_is_stored_is_loaded(series in any_series(), target: u32, marks: [bool; 3], tick: u8, flight in 1u16..100) {
            let entry = Entry::free();
            let marks = Marks { unanswered: marks[0], is_up: marks[1], holds_histograms: marks[2] };
            let unpacked = Unpacked { series, target, marks };
            entry.occupy(SeriesKey(7 << 64 | 9), &unpacked, tick, flight);
            prop_assert_eq!(entry.load(), unpacked);
            prop_assert_eq!((entry.tick(), entry.target(), entry.owner()), (tick, target, series.owner));
            prop_assert_eq!((entry.guard().flight(), entry.guard().watermark()), (flight, series.watermark));
            let image = entry.image();
            entry.commit();
            prop_assert_eq!(entry.guard().flight(), NOBODY);
            prop_assert!(!entry.load().marks.unanswered);
            entry.claim(3).unwrap();
            prop_assert_eq!(entry.claim(4).unwrap_err().flight(), 3);
            entry.restore(&image);
            prop_assert_eq!(entry.load(), unpacked);
        }
    }

    #[test]
    fn a_far_other_saturates_instead_of_wrapping() {
        let series = Series {
            watermark: Some(TimestampMs(0)),
            interval: i64::MAX,
            other: Some((TimestampMs(-1 << 40), ReplicaId(1))),
            ..Series::new(ReplicaId(0))
        };
        let entry = Entry::free();
        let unpacked = Unpacked { series, target: 0, marks: Marks::default() };
        entry.occupy(SeriesKey(1), &unpacked, 0, NOBODY);
        let back = entry.load().series;
        assert_eq!(back.other, Some((TimestampMs(i64::from(i32::MIN)), ReplicaId(1))));
        assert_eq!(back.interval, (1 << 24) - 1);
    }
}

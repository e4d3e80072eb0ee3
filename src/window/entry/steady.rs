//! What a healthy group brings nearly always, decided on the packed words of an entry: the owner's next sample, and what
//! its standbys show beside it.
//!
//! The rules are the policy's (1, 7 and 11, for a series and a target that nothing is the matter with). It answers `None`
//! to all that is not plainly one of these, having changed nothing: the policy is to be asked. The test below holds the
//! two equal, word by word. Refuses stale markers, histograms and `up`, and to end the claim.

use super::{Entry, Guard, INTERVAL_MAX, Image, NO_REPLICA, NO_WATERMARK, TICK};
use crate::policy::{self, ReplicaId, TimestampMs};
use std::sync::atomic::Ordering::*;

/// A float that is no stale marker.
#[derive(Clone, Copy, Debug)]
pub(in crate::window) struct Float {
    pub(in crate::window) replica: ReplicaId,
    pub(in crate::window) at: TimestampMs,
    pub(in crate::window) bits: u64,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::window) enum Step {
    /// Rule 7. What a rollback puts back.
    Forward(Image),
    /// Rules 1 and 11.
    Duplicate,
}

impl Entry {
    /// Decides a float of a claimed entry whose target has that owner, and no fence. Stores what it has decided, all but the
    /// guard of a [`Step::Duplicate`], which has not changed.
    #[inline(always)]
    pub(in crate::window) fn step(
        &self,
        float: &Float,
        target_owner: ReplicaId,
        tick: u8,
        flight: u16,
    ) -> Option<Step> {
        let word = |i: usize| self.words[i].load(Relaxed);
        let (guard, learned, meta) = (word(2), word(3), word(4));
        let watermark = guard as i64 >> 16;
        let interval = (learned >> 40) as i64;
        if watermark == NO_WATERMARK || interval == 0 || (meta >> 24) as u8 != 0 {
            return None;
        }
        let distance = float.at.0 - watermark;
        let learned = learned & !TICK | u64::from(tick) << 32;
        if ReplicaId(meta as u8) != float.replica {
            return self.beside(float, target_owner, distance, interval, learned, meta);
        }
        // 7 owner
        let usual = interval <= 2 * distance && 2 * distance <= 3 * interval;
        if !usual || float.replica != target_owner {
            return None;
        }
        let times = word(5);
        let (first, second) = (times & u64::from(u32::MAX), times >> 32);
        let passed = distance as u64;
        let image = self.image();
        let held = match (first > passed, second > passed) {
            (false, false) => 0,
            (false, true) => {
                self.words[6].store(word(7), Relaxed);
                second - passed
            }
            (true, _) => (second.saturating_sub(passed)) << 32 | (first - passed),
        };
        // (Where nobody else has shown it, a time without meaning.)
        let other = ((meta >> 32) as i32).saturating_sub(distance as i32);
        let meta = u64::from(other as u32) << 32 | meta & u64::from(u32::MAX);
        let interval = passed.min(INTERVAL_MAX);
        self.words[3].store(interval << 40 | learned & ((1 << 40) - 1), Relaxed);
        self.words[4].store(meta, Relaxed);
        self.words[5].store(held, Relaxed);
        self.words[2].store(Guard::new(Some(float.at), flight).0, Release);
        Some(Step::Forward(image))
    }

    /// A standby's: rule 1 or 11.
    #[inline(always)]
    fn beside(
        &self,
        float: &Float,
        target_owner: ReplicaId,
        distance: i64,
        interval: i64,
        learned: u64,
        meta: u64,
    ) -> Option<Step> {
        let late = distance <= 0;
        if !late && (float.replica == target_owner || distance > 2 * interval) {
            return None;
        }
        let mut meta = meta;
        let shown_by = ReplicaId((meta >> 16) as u8);
        let since = distance - i64::from((meta >> 32) as i32);
        let newer = if shown_by == float.replica {
            since > 0
        } else {
            shown_by.0 == NO_REPLICA
                || policy::overwrites(since, shown_by, float.replica, target_owner, late, interval)
        };
        if newer {
            let shown = distance.max(i64::from(i32::MIN)) as i32;
            meta = u64::from(shown as u32) << 32 | meta & 0xff00_ffff | u64::from(float.replica.0) << 16;
        }
        if !late {
            meta = self.hold(float, distance, interval, meta)?;
        }
        self.words[3].store(learned, Relaxed);
        self.words[4].store(meta, Relaxed);
        Some(Step::Duplicate)
    }

    /// Rule 11. Returns the word with the holder.
    #[inline(always)]
    fn hold(&self, float: &Float, distance: i64, interval: i64, meta: u64) -> Option<u64> {
        let times = self.words[5].load(Relaxed);
        let (first, second) = (times as u32, (times >> 32) as u32);
        let new = distance as u64;
        if first == 0 {
            self.words[5].store(new, Relaxed);
            self.words[6].store(float.bits, Relaxed);
            return Some(meta & !0xff00 | u64::from(float.replica.0) << 8);
        }
        let last = if second == 0 { first } else { second };
        let apart = distance - i64::from(last);
        if (meta >> 8) as u8 != float.replica.0 {
            // It steps in where the holder is gone.
            return (2 * apart <= 3 * interval).then_some(meta);
        }
        if 4 * apart >= 3 * interval {
            if second != 0 {
                self.words[6].store(self.words[7].load(Relaxed), Relaxed);
            }
            self.words[5].store(u64::from(last) | new << 32, Relaxed);
            self.words[7].store(float.bits, Relaxed);
        }
        Some(meta)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Marks, NOBODY, Unpacked};
    use super::*;
    use crate::policy::{Action, Circumstances, Held, Sample, Series, Target};
    use crate::series::SeriesKey;
    use proptest::prelude::*;

    const TICK_NOW: u8 = 77;
    const FLIGHT: u16 = 5;

    fn entry_of(series: Series) -> Entry {
        let entry = Entry::free();
        entry.occupy(
            SeriesKey(1),
            &Unpacked { series, target: 9, marks: Marks::default() },
            TICK_NOW,
            FLIGHT,
        );
        entry
    }

    fn words(entry: &Entry) -> [u64; 8] {
        std::array::from_fn(|i| entry.words[i].load(Relaxed))
    }

    /// Distances from the watermark that rules tell apart, in parts of an interval, and some that they do not.
    fn distance(interval: i64) -> impl Strategy<Value = i64> {
        let edge = (-16i64..=16, -1i64..=1).prop_map(move |(quarters, off)| quarters * interval / 4 + off);
        // Where nearly all lie: up to two intervals above.
        let usual = (1i64..=4, -1i64..=1).prop_map(move |(halves, off)| halves * interval / 2 + off);
        prop_oneof![2 => edge, 2 => usual, 1 => -5_000_000_000i64..5_000_000_000]
    }

    prop_compose! {
        fn series()(interval in prop_oneof![Just(0i64), Just(15_000), Just(1_000), Just((1 << 24) - 1), 1i64..100, 1i64..4])(
            interval in Just(interval),
            watermark in proptest::option::weighted(0.95, -1_000i64..1 << 45),
            [owner, other, holder] in [0u8..3, 0u8..3, 0u8..3],
            flags in proptest::option::weighted(0.2, any::<[bool; 5]>()),
            shown in proptest::option::of(distance(interval)),
            held in proptest::collection::vec((distance(interval), any::<u64>()), 0..=2),
        ) -> Series {
            let base = watermark.unwrap_or(0);
            let flags = flags.unwrap_or_default();
            let mut held: Vec<_> = held.into_iter().filter(|(at, _)| *at > 0).collect();
            held.sort_by_key(|(at, _)| *at);
            held.dedup_by_key(|(at, _)| *at);
            let held = |i: usize| held.get(i).map(|(at, payload)| Held { at: TimestampMs(base + at), payload: *payload });
            Series {
                owner: ReplicaId(owner),
                watermark: watermark.map(TimestampMs),
                interval,
                released: flags[0],
                stale: flags[1],
                born: flags[2],
                slow: flags[3],
                quick: flags[4],
                other: shown.map(|shown| (TimestampMs(base + shown), ReplicaId(other))),
                held: [held(0), held(1)],
                holder: ReplicaId(holder),
            }
        }
    }

    fn circumstances() -> impl Strategy<Value = (Circumstances, bool)> {
        let times = || proptest::option::of((-100i64..1 << 45).prop_map(TimestampMs));
        let others = (times(), times(), times(), times());
        (any::<[bool; 3]>(), 0i64..2, others).prop_map(
            |([retry, may_be_split, waits], late, (refused, inherited, slowest, delivering))| {
                let circumstances = Circumstances {
                    out_of_order_window_ms: late * 100_000,
                    retry,
                    busy: false,
                    refused,
                    inherited,
                    slowest,
                    delivering,
                    may_be_split,
                };
                (circumstances, waits)
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn it_decides_what_the_policy_does(
            (series, at) in series().prop_flat_map(|series| {
                let base = series.watermark.map_or(0, |watermark| watermark.0);
                (Just(series), distance(if series.interval == 0 { 10 } else { series.interval }).prop_map(move |distance| TimestampMs(base + distance)))
            }),
            [replica, target_owner] in [0u8..3, 0u8..3].prop_map(|numbers| numbers.map(ReplicaId)),
            seen in proptest::option::of(0i64..1 << 45),
            bits: u64,
            (circumstances, waits) in circumstances(),
        ) {
            let entry = entry_of(series);
            let before = words(&entry);
            // What is packed is all that either of them knows.
            let Unpacked { mut series, .. } = entry.load();
            let step = entry.step(&Float { replica, at, bits }, target_owner, TICK_NOW, FLIGHT);
            let Some(step) = step else {
                prop_assert_eq!(words(&entry), before, "what it does not decide it does not touch");
                return Ok(());
            };
            let mut target = Target { seen: seen.map(TimestampMs), ..Target::new(target_owner) };
            let sample = Sample { replica, at, payload: bits, stale: false, up: None };
            let verdict = policy::decide(&mut series, &mut target, None, &sample, circumstances, |_, _| waits);
            prop_assert_eq!(verdict.fills, [None; 2]);
            prop_assert_eq!((verdict.takeover, verdict.moved), (None, false));
            prop_assert_eq!((target.owner, target.fenced, target.heir), (target_owner, None, None));
            match step {
                Step::Forward(image) => {
                    prop_assert_eq!(verdict.action, Action::Forward);
                    let old = entry_of(Series::new(ReplicaId(0)));
                    old.restore(&image);
                    prop_assert_eq!(&words(&old)[3..], &before[3..]);
                    prop_assert_eq!((old.guard().watermark(), old.guard().flight()), (Guard(before[2]).watermark(), NOBODY));
                }
                Step::Duplicate => prop_assert_eq!(verdict.action, Action::Duplicate),
            }
            let decided = entry.load();
            let expected = entry_of(series).load();
            prop_assert_eq!((decided, entry.tick(), entry.guard().flight()), (expected, TICK_NOW, FLIGHT));
        }
    }

    /// Nothing that a healthy pair brings is left to the slow way once its interval is known, whoever is ahead.
    #[test]
    fn it_decides_all_of_a_healthy_pair() {
        let [owner, standby] = [ReplicaId(0), ReplicaId(1)];
        for phase in [-7_000, -1, 0, 1, 7_000] {
            let start = Series { watermark: Some(TimestampMs(0)), interval: 15_000, ..Series::new(owner) };
            let entry = entry_of(start);
            for scrape in 1..100 {
                for (replica, at) in [(owner, 15_000 * scrape), (standby, 15_000 * scrape + phase)] {
                    let float = Float { replica, at: TimestampMs(at), bits: 7 };
                    let step = entry.step(&float, owner, TICK_NOW, FLIGHT).unwrap();
                    assert_eq!(matches!(step, Step::Forward(_)), replica == owner);
                }
            }
        }
    }
}

//! Owners of targets: who speaks for one scrape target, kept while a series of it is known.
//!
//! What decides nearly every sample (owner, fence, newest time seen) is three atomic words in one cache line, read
//! without a lock. What changes seldom (a move, a fence, an `up`) is changed under the target's own lock, and found by
//! a sharded map (`dashmap`) when a series is born. Refuses to decide anything.

use super::entry::Entry;
use super::sync::size::TARGETS as CHUNK;
use super::sync::{AtomicI64, AtomicU32, AtomicU64, DashMap, Mutex, MutexGuard, OnceLock};
use crate::policy::{ReplicaId, Target, TimestampMs, Ups};
use crate::series::TargetKey;
use std::collections::HashMap;
use std::sync::PoisonError;
use std::sync::atomic::Ordering::*;

const NO_TIME: i64 = i64::MIN;
const NO_REPLICA: u8 = u8::MAX;

/// The targets of all series in the window.
#[derive(Debug)]
pub(super) struct Targets {
    chunks: Box<[OnceLock<Box<[TargetSlot; CHUNK]>>]>,
    numbers: DashMap<TargetKey, u32>,
    free: Mutex<(Vec<u32>, u32)>,
}

/// One target.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct TargetSlot {
    /// Owner, fenced, heir (8 bits each), and a version that every change of them raises.
    word: AtomicU64,
    since: AtomicI64,
    seen: AtomicI64,
    group: AtomicU32,
    /// Series of the window that belong to it.
    series: AtomicU32,
    key: Mutex<TargetKey>,
    ups: Mutex<Option<Box<Ups>>>,
}

/// Targets of samples in a row, which mostly have the same: the last one is at hand.
#[derive(Debug)]
pub(super) struct Near<'a> {
    targets: &'a Targets,
    last: Option<(u32, &'a TargetSlot)>,
}

/// A target as a decision finds it, and the version that tells whether it still is so.
#[derive(Debug, Clone, Copy)]
pub(super) struct Snapshot {
    pub(super) target: Target,
    word: u64,
}

/// What undoes a change of owner or fence, or of the newest time seen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Undo {
    before: Snapshot,
    pub(super) after: u64,
    seen: i64,
}

/// Undoes the changes of one flight, given in the order in which they were made.
pub(super) fn undo_all(targets: &Targets, changes: &[(u32, Undo)]) {
    // A target that changed twice: what the first change made has a new word once the second is undone.
    let mut words = HashMap::new();
    for (number, undo) in changes.iter().rev() {
        let since = *words.get(&(*number, undo.after)).unwrap_or(&undo.after);
        if let Some(word) = targets.slot(*number).undo(undo, since) {
            words.insert((*number, undo.before.word), word);
        }
    }
}

impl Targets {
    /// Room for as many targets as there may be series, and for those of newcomers that join before they learn that there is no
    /// room for them, or while the last series of another target leaves.
    pub(super) fn new(series_max: usize) -> Self {
        Self {
            chunks: (0..=series_max.div_ceil(CHUNK)).map(|_| OnceLock::new()).collect(),
            numbers: DashMap::new(),
            free: Mutex::default(),
        }
    }

    #[inline]
    #[expect(clippy::expect_used, reason = "a number is only handed out once its chunk exists")]
    pub(super) fn slot(&self, number: u32) -> &TargetSlot {
        let number = number as usize;
        &self.chunks[number / CHUNK].get().expect("the chunk of a numbered target")[number % CHUNK]
    }

    /// To look at targets one after the other.
    pub(super) fn near(&self) -> Near<'_> {
        Near { targets: self, last: None }
    }

    /// The target's number, with one more series counted; an unknown one is owned by `first`.
    pub(super) fn join(&self, key: TargetKey, group: u32, first: ReplicaId) -> u32 {
        let number = self.numbers.entry(key).or_insert_with(|| {
            let number = self.take();
            self.slot(number).occupy(key, group, first);
            number
        });
        // Counted while the map's shard is locked, where `leave` looks before it forgets.
        self.slot(*number).series.fetch_add(1, AcqRel);
        *number
    }

    /// One series fewer; a target without any is forgotten.
    pub(super) fn leave(&self, number: u32) {
        let slot = self.slot(number);
        if slot.series.fetch_sub(1, AcqRel) != 1 {
            return;
        }
        let key = *lock(&slot.key);
        let gone = self.numbers.remove_if(&key, |_, n| *n == number && slot.series.load(Acquire) == 0);
        if gone.is_some() {
            lock(&self.free).0.push(number);
        }
    }

    /// The owner of a target that is known.
    pub(super) fn owner(&self, key: TargetKey) -> Option<(ReplicaId, Option<ReplicaId>)> {
        let number = *self.numbers.get(&key)?;
        let target = self.slot(number).snapshot().target;
        Some((target.owner, target.fenced))
    }

    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.chunks.iter().filter(|c| c.get().is_some()).count() * CHUNK * size_of::<TargetSlot>()
    }

    fn take(&self) -> u32 {
        let mut free = lock(&self.free);
        free.0.pop().unwrap_or_else(|| {
            let number = free.1;
            self.chunks[number as usize / CHUNK].get_or_init(free_chunk);
            free.1 += 1;
            number
        })
    }
}

impl<'a> Near<'a> {
    #[inline(always)]
    pub(super) fn slot(&mut self, number: u32) -> &'a TargetSlot {
        match self.last {
            Some((last, slot)) if last == number => slot,
            _ => self.last.insert((number, self.targets.slot(number))).1,
        }
    }
}

#[expect(clippy::expect_used, reason = "so many are made")]
fn free_chunk() -> Box<[TargetSlot; CHUNK]> {
    let slots: Box<[TargetSlot]> = (0..CHUNK).map(|_| TargetSlot::free()).collect();
    slots.try_into().expect("a chunk of targets")
}

impl TargetSlot {
    fn free() -> Self {
        Self {
            word: AtomicU64::new(0),
            since: AtomicI64::new(NO_TIME),
            seen: AtomicI64::new(NO_TIME),
            group: AtomicU32::new(0),
            series: AtomicU32::new(0),
            key: Mutex::new(TargetKey(0)),
            ups: Mutex::new(None),
        }
    }

    fn occupy(&self, key: TargetKey, group: u32, owner: ReplicaId) {
        *lock(&self.key) = key;
        *lock(&self.ups) = None;
        self.group.store(group, Relaxed);
        self.seen.store(NO_TIME, Relaxed);
        self.since.store(NO_TIME, Relaxed);
        let version = self.word.load(Relaxed) >> 24;
        self.word.store(pack(&Target::new(owner), version + 1), Release);
    }

    pub(super) fn group(&self) -> u32 {
        self.group.load(Relaxed)
    }

    #[inline]
    pub(super) fn snapshot(&self) -> Snapshot {
        let word = self.word.load(Acquire);
        let replica = |byte: u8| (byte != NO_REPLICA).then_some(ReplicaId(byte));
        let target = Target {
            owner: ReplicaId(word as u8),
            fenced: replica((word >> 8) as u8),
            heir: replica((word >> 16) as u8),
            since: time(self.since.load(Relaxed)),
            seen: time(self.seen.load(Relaxed)),
        };
        Snapshot { target, word }
    }

    /// Its owner, if nobody is fenced and nobody is about to take it over.
    #[inline]
    pub(super) fn owner_unfenced(&self) -> Option<ReplicaId> {
        let word = self.word.load(Acquire);
        (word >> 8 & 0xffff == u64::from(NO_REPLICA) * 0x101).then_some(ReplicaId(word as u8))
    }

    /// Whether what belongs to a series of it, without being a sample, goes with this replica's stream.
    #[inline]
    pub(super) fn follows(&self, series: &Entry, replica: ReplicaId) -> bool {
        series.owner() == replica && self.snapshot().target.fenced != Some(replica)
    }

    /// Its owner has shown a sample of that time.
    #[inline]
    pub(super) fn see_owner(&self, at: TimestampMs) -> Option<Undo> {
        if self.seen.load(Relaxed) >= at.0 {
            return None;
        }
        let before = self.snapshot();
        self.see(&before, Some(at))
    }

    /// The `up`s of the target, locked. While they are, nobody else changes its owner or fence.
    pub(super) fn ups(&self) -> MutexGuard<'_, Option<Box<Ups>>> {
        lock(&self.ups)
    }

    /// Keeps what a decision made of a snapshot. `None`: somebody else changed the target since, decide again.
    #[inline]
    pub(super) fn keep(&self, before: &Snapshot, after: &Target) -> Option<Option<Undo>> {
        if speaks(&before.target) == speaks(after) {
            return Some(self.see(before, after.seen));
        }
        let _alone = lock(&self.ups);
        self.keep_locked(before, after)
    }

    /// As [`Self::keep`], for a caller that holds [`Self::ups`].
    pub(super) fn keep_locked(&self, before: &Snapshot, after: &Target) -> Option<Option<Undo>> {
        if self.word.load(Acquire) != before.word {
            return None;
        }
        if speaks(&before.target) == speaks(after) {
            return Some(self.see(before, after.seen));
        }
        self.since.store(after.since.map_or(NO_TIME, |t| t.0), Relaxed);
        let seen = after.seen.map_or(NO_TIME, |t| t.0);
        if after.owner == before.target.owner {
            self.seen.fetch_max(seen, Relaxed);
        } else {
            self.seen.store(seen, Relaxed);
        }
        let word = pack(after, (before.word >> 24) + 1);
        self.word.store(word, Release);
        Some(Some(Undo { before: *before, after: word, seen }))
    }

    /// Takes a change back, unless somebody has changed the target since it had the word `since`: that of the change, or
    /// what came back when a later one was undone. Returns the word that what was before has now.
    pub(super) fn undo(&self, undo: &Undo, since: u64) -> Option<u64> {
        let _alone = lock(&self.ups);
        if self.word.load(Acquire) != since {
            return None;
        }
        let before = &undo.before.target;
        if undo.after == undo.before.word {
            // What its owner has shown since then stands.
            let seen = before.seen.map_or(NO_TIME, |t| t.0);
            let _ = self.seen.compare_exchange(undo.seen, seen, Relaxed, Relaxed);
            return Some(since);
        }
        self.since.store(before.since.map_or(NO_TIME, |t| t.0), Relaxed);
        self.seen.store(before.seen.map_or(NO_TIME, |t| t.0), Relaxed);
        let word = pack(before, (since >> 24) + 1);
        self.word.store(word, Release);
        Some(word)
    }

    /// Raises the newest time seen. Only who raises it has something to undo.
    #[inline]
    fn see(&self, before: &Snapshot, after: Option<TimestampMs>) -> Option<Undo> {
        let seen = after.filter(|_| after != before.target.seen)?.0;
        let raised = self.seen.fetch_max(seen, Relaxed) < seen;
        raised.then_some(Undo { before: *before, after: before.word, seen })
    }
}

/// What of a target is more than a newer time.
fn speaks(target: &Target) -> (ReplicaId, Option<ReplicaId>, Option<TimestampMs>, Option<ReplicaId>) {
    (target.owner, target.fenced, target.since, target.heir)
}

fn pack(target: &Target, version: u64) -> u64 {
    let replica = |r: Option<ReplicaId>| u64::from(r.map_or(NO_REPLICA, |r| r.0));
    version << 24 | replica(target.heir) << 16 | replica(target.fenced) << 8 | u64::from(target.owner.0)
}

fn time(ms: i64) -> Option<TimestampMs> {
    (ms != NO_TIME).then_some(TimestampMs(ms))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing under these locks can panic half-way through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ReplicaId = ReplicaId(0);
    const B: ReplicaId = ReplicaId(1);

    #[test]
    fn a_target_lives_as_long_as_a_series_of_it() {
        let targets = Targets::new(10);
        let one = targets.join(TargetKey(1), 7, A);
        assert_eq!(targets.join(TargetKey(1), 7, B), one);
        assert_eq!((targets.slot(one).group(), targets.owner(TargetKey(1))), (7, Some((A, None))));
        targets.leave(one);
        assert_eq!(targets.len(), 1);
        targets.leave(one);
        assert_eq!((targets.len(), targets.owner(TargetKey(1))), (0, None));
        assert_eq!(targets.join(TargetKey(1), 7, B), one);
        assert_eq!(targets.owner(TargetKey(1)), Some((B, None)));
    }

    #[test]
    fn who_looks_from_one_target_to_the_next_sees_each() {
        let targets = Targets::new(10);
        for (key, group) in [(1, 7), (2, 8)] {
            targets.join(TargetKey(key), group, A);
        }
        let mut near = targets.near();
        assert_eq!([0, 0, 1, 0, 1, 1].map(|number| near.slot(number).group()), [7, 7, 8, 7, 8, 8]);
    }

    #[test]
    fn targets_are_told_apart_and_their_memory_is_known() {
        let targets = Targets::new(10_000);
        assert_eq!(targets.bytes(), 0, "none before they come");
        let first = |i: u32| if i.is_multiple_of(3) { A } else { B };
        for i in 0..5_000 {
            assert_eq!(targets.join(TargetKey(u128::from(i)), 0, first(i)), i);
        }
        let each = targets.bytes() / 5_000;
        assert!((size_of::<TargetSlot>()..2 * size_of::<TargetSlot>()).contains(&each), "{each} bytes each");
        assert_eq!(targets.len(), 5_000);
        for i in 0..5_000 {
            assert_eq!(targets.owner(TargetKey(u128::from(i))), Some((first(i), None)), "target {i}");
        }
    }

    /// Numbers are used again, and changes come back to what was: a version tells each of them apart.
    #[test]
    fn what_was_decided_for_a_target_as_it_was_is_not_kept_for_what_it_is() {
        let targets = Targets::new(1);
        let mut old: Vec<Snapshot> = Vec::new();
        // What was decided for any state before this one is not kept.
        let mut look = |slot: &TargetSlot| {
            let now = slot.snapshot();
            for before in &old {
                assert!(slot.keep(before, &Target { fenced: Some(ReplicaId(9)), ..now.target }).is_none());
            }
            old.push(now);
            now
        };
        for key in 1..=4 {
            let number = targets.join(TargetKey(key), 0, A);
            let slot = targets.slot(number);
            let to =
                |before: &Snapshot, owner| slot.keep(before, &Target { owner, ..before.target }).unwrap();
            for _ in 0..3 {
                let undo = to(&look(slot), B).unwrap();
                look(slot);
                slot.undo(&undo, undo.after);
                to(&look(slot), B);
                to(&look(slot), A);
            }
            look(slot);
            targets.leave(number);
        }
    }

    /// A fence may come with an older sample than the owner has shown meanwhile, a new owner with its own time.
    #[test]
    fn a_fence_takes_no_time_back_and_a_new_owner_brings_its_own() {
        let targets = Targets::new(1);
        let slot = targets.slot(targets.join(TargetKey(1), 0, A));
        let seen = |target: Target, ms| Target { seen: Some(TimestampMs(ms)), ..target };
        let before = slot.snapshot();
        slot.keep(&before, &seen(before.target, 30)).unwrap();
        slot.keep(&before, &Target { fenced: Some(A), ..seen(before.target, 20) }).unwrap();
        assert_eq!(slot.snapshot().target.seen, Some(TimestampMs(30)));
        let fenced = slot.snapshot();
        slot.keep(&fenced, &Target { owner: B, ..seen(fenced.target, 25) }).unwrap();
        assert_eq!(slot.snapshot().target.seen, Some(TimestampMs(25)));
    }

    #[test]
    fn a_fence_is_kept_as_it_is() {
        let targets = Targets::new(1);
        let slot = targets.slot(targets.join(TargetKey(1), 0, A));
        let times = [None, Some(TimestampMs(-7)), Some(TimestampMs(15_000))];
        let replicas = [None, Some(A), Some(B), Some(ReplicaId(254))];
        for (since, fenced) in times.into_iter().flat_map(|since| replicas.map(|fenced| (since, fenced))) {
            let before = slot.snapshot();
            let fence = Target { since, fenced, heir: fenced.map(|_| B), seen: before.target.seen, owner: A };
            let undo = slot.keep(&before, &fence).unwrap();
            assert_eq!(slot.snapshot().target, fence);
            if let Some(undo) = undo {
                slot.undo(&undo, undo.after);
                assert_eq!(slot.snapshot().target, before.target);
                slot.keep(&slot.snapshot(), &fence).unwrap();
            }
        }
    }

    #[test]
    fn a_change_is_kept_once_and_undone_unless_overtaken() {
        let targets = Targets::new(1);
        let slot = targets.slot(targets.join(TargetKey(1), 0, A));
        let before = slot.snapshot();
        let to = |owner| Target { owner, seen: Some(TimestampMs(9)), ..before.target };
        let undo = slot.keep(&before, &to(B)).unwrap().unwrap();
        assert!(slot.keep(&before, &to(B)).is_none(), "the snapshot is old");
        slot.undo(&undo, undo.after);
        assert_eq!(slot.snapshot().target, before.target);
        let now = slot.snapshot();
        let undo = slot.keep(&now, &to(B)).unwrap().unwrap();
        let later = slot.snapshot();
        slot.keep(&later, &Target { fenced: Some(A), ..later.target }).unwrap();
        slot.undo(&undo, undo.after);
        assert_eq!(slot.snapshot().target.owner, B, "somebody changed it since");
    }

    #[test]
    fn all_changes_of_a_flight_are_undone_or_none_that_others_built_on() {
        let targets = Targets::new(1);
        let number = targets.join(TargetKey(1), 0, A);
        let slot = targets.slot(number);
        let first = slot.snapshot();
        let change = |owner, ms| {
            let before = slot.snapshot();
            let to = Target { owner, seen: Some(TimestampMs(ms)), ..before.target };
            (number, slot.keep(&before, &to).unwrap().unwrap())
        };
        let changes = [(A, 5), (B, 10), (B, 20), (ReplicaId(2), 30), (ReplicaId(2), 40)];
        undo_all(&targets, &changes.map(|(owner, ms)| change(owner, ms)));
        assert_eq!(slot.snapshot().target, first.target);
        let changes = changes.map(|(owner, ms)| change(owner, ms));
        change(B, 50);
        undo_all(&targets, &changes);
        let now = slot.snapshot().target;
        assert_eq!((now.owner, now.seen), (B, Some(TimestampMs(50))), "somebody changed it since");
    }

    #[test]
    fn the_newest_time_seen_never_falls() {
        let targets = Targets::new(1);
        let slot = targets.slot(targets.join(TargetKey(1), 0, A));
        let old = slot.snapshot();
        let seen = |ms| Target { seen: Some(TimestampMs(ms)), ..old.target };
        let undo = slot.keep(&old, &seen(20)).unwrap().unwrap();
        assert!(slot.keep(&old, &seen(10)).unwrap().is_none());
        assert!(slot.keep(&old, &seen(20)).unwrap().is_none(), "who has not raised it has nothing to undo");
        assert_eq!(slot.snapshot().target.seen, Some(TimestampMs(20)));
        slot.undo(&undo, undo.after);
        assert_eq!(slot.snapshot().target.seen, None, "what was shown in vain was not shown");
        let undo = slot.keep(&old, &seen(20)).unwrap().unwrap();
        slot.keep(&slot.snapshot(), &seen(30)).unwrap().unwrap();
        slot.undo(&undo, undo.after);
        assert_eq!(slot.snapshot().target.seen, Some(TimestampMs(30)), "somebody has seen more since");
    }
}

//! The labels that a 2.0 request has had, as they are spelt in 1.0.
//!
//! Owns their bytes for one request, in bounded memory, and the loop that copies them: most of the time that a body of 2.0
//! takes is spent there. Refuses to look a reference up: that is the pass's.

use super::pass;
use crate::series;
use crate::wire::fields;
use crate::wire::out::{self, Out};

/// Labels in the encoding of 1.0, by their references: the series of a request have most of their labels in common, and
/// a copy costs less than spelling a label out. Takes no memory before it is used.
#[derive(Debug, Default)]
pub(super) struct Spelt {
    /// [`PLACES`] of them, or none yet.
    places: Vec<Place>,
    /// As many: what of a label is longer than that.
    tails: Vec<[u8; TAIL_BYTES]>,
    taken: usize,
    /// What is remembered in another round is of another request.
    round: u32,
    /// Labels that are longer than a place.
    long: Vec<u8>,
}

/// The references of a label.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) name: u32,
    pub(super) value: u32,
}

const PLACES: usize = 1 << 12;
/// In so many places in a row a label may be.
const PROBES: usize = 8;
/// Of a place, for a label: most are shorter. As much is copied without a look at how long it is.
const HEAD_BYTES: usize = 50;
const TAIL_BYTES: usize = 64;
/// Longer labels have no place.
const TEXT_BYTES: usize = HEAD_BYTES + TAIL_BYTES;
/// So many bytes of references are looked at together, and as many more as are read at a time.
const WINDOW: usize = 64 + 4;

/// A label, and all that is to be known of it, if it is short: one cache line.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy)]
struct Place {
    /// The round, and below it the key.
    tag: u64,
    /// The reference of its value and one, if it names the metric.
    metric: u32,
    length: u16,
    /// A label, or where it begins among the long ones.
    head: [u8; HEAD_BYTES],
}

impl Pair {
    /// Both references as they are packed, if that takes four bytes at most. No key is another one's beginning.
    fn key(self) -> Option<u32> {
        let (name, name_len) = out::varint(self.name.into());
        let (value, value_len) = out::varint(self.value.into());
        let mut packed = [0; 4];
        packed.get_mut(..name_len)?.copy_from_slice(&name[..name_len]);
        packed.get_mut(name_len..name_len + value_len)?.copy_from_slice(&value[..value_len]);
        Some(u32::from_le_bytes(packed))
    }
}

impl Spelt {
    /// For the labels of nearly every series.
    const ROOM: usize = 1 << 12;
    const LONG_BYTES_MAX: usize = 1 << 20;

    /// The next labels are those of another request.
    pub(super) fn forget(&mut self) {
        self.taken = 0;
        self.long.clear();
        // There may have been a label of any length.
        self.long.shrink_to(Self::LONG_BYTES_MAX * 2);
        self.round = self.round.wrapping_add(1);
        if self.places.is_empty() || self.round == 0 {
            let free = Place { tag: 0, metric: 0, length: 0, head: [0; HEAD_BYTES] };
            self.places.clear();
            self.places.resize(PLACES, free);
            self.tails.resize(PLACES, [0; TAIL_BYTES]);
            self.round = 1;
        }
    }

    const fn tag(&self, key: u32) -> u64 {
        (self.round as u64) << 32 | key as u64
    }

    /// Writes a label that is remembered, if there is one. Returns whether it names the metric.
    pub(super) fn put(&self, pair: Pair, out: &mut Out) -> Option<bool> {
        let key = pair.key()?;
        let tag = self.tag(key);
        // It would be in the first place that is free.
        let is_last =
            |nth: &usize| self.places.get(*nth).is_none_or(|of| of.tag == tag || !self.is_taken(of));
        let nth = near(key).find(is_last)?;
        let place = self.places.get(nth).filter(|of| of.tag == tag)?;
        let length = usize::from(place.length);
        match length.checked_sub(HEAD_BYTES) {
            None => out.put(&place.head[..length]),
            Some(more @ 0..=TAIL_BYTES) => {
                out.put(&place.head);
                out.put(&self.tails[nth][..more]);
            }
            Some(_) => {
                let start = u32::from_le_bytes(*place.head.first_chunk()?) as usize;
                out.put(&self.long[start..start + length]);
            }
        }
        Some(place.metric != 0)
    }

    /// Writes the labels whose references are in `body` between `at` and `end`, as far as they are remembered, none is long and
    /// there is room. Returns where it stopped. If one of them names the metric, `metric` becomes the reference of its value
    /// and one.
    ///
    /// Kept apart, where the loop has the registers for itself, and free of calls.
    #[inline(never)]
    pub(super) fn put_known(
        &self,
        body: &[u8],
        mut at: usize,
        end: usize,
        metric: &mut u32,
        out: &mut Out,
    ) -> usize {
        let (Some(places), Some(tails)) =
            (self.places.first_chunk::<PLACES>(), self.tails.first_chunk::<PLACES>())
        else {
            return at;
        };
        let Some(window) = body.get(at..).and_then(<[u8]>::first_chunk::<WINDOW>) else { return at };
        let mut ends = ends_of_numbers(window, end - at);
        let (mut room, tags) = (out.room(Self::ROOM), self.tag(0));
        let (behind, mut named) = (room.len(), *metric);
        // Where a label's references end follows from the bits alone, so nobody has to wait for those of the one before.
        let mut start = 0;
        'labels: while ends & ends.wrapping_sub(1) != 0 {
            let values = ends & (ends - 1);
            let next = values.trailing_zeros() as usize + 1;
            let Some(key) = key(window, start, next) else { break };
            let tag = tags | u64::from(key);
            let mut nth = first(key);
            let mut probes = PROBES;
            while places[nth].tag != tag {
                probes -= 1;
                if probes == 0 || !self.is_taken(&places[nth]) {
                    break 'labels;
                }
                nth = (nth + 1) % PLACES;
            }
            let place = &places[nth];
            let length = usize::from(place.length);
            let Some(text) = room.first_chunk_mut::<TEXT_BYTES>() else { break };
            text[..HEAD_BYTES].copy_from_slice(&place.head);
            if length > HEAD_BYTES {
                if length > TEXT_BYTES {
                    break;
                }
                text[HEAD_BYTES..].copy_from_slice(&tails[nth]);
            }
            room = &mut room[length..];
            (start, ends) = (next, values & (values - 1));
            named = if place.metric != 0 { place.metric } else { named };
        }
        at += start;
        let written = behind - room.len();
        out.keep(written);
        *metric = named;
        at
    }

    /// Spells a label out, and remembers it. Returns whether it names the metric.
    pub(super) fn spell(&mut self, pair: Pair, name: &[u8], value: &[u8], out: &mut Out) -> bool {
        if self.taken >= PLACES / 4 * 3 || self.long.len() > Self::LONG_BYTES_MAX {
            self.forget();
        }
        let names_metric = name == b"__name__";
        let start = self.long.len();
        series::encode_label(&mut self.long, name, value);
        let label = &self.long[start..];
        out.put(label);
        let (mut head, mut tail) = ([0; HEAD_BYTES], [0; TAIL_BYTES]);
        let is_long = label.len() > TEXT_BYTES;
        if is_long {
            head[..4].copy_from_slice(&(start as u32).to_le_bytes());
        } else {
            let (first, more) = label.split_at(label.len().min(HEAD_BYTES));
            head[..first.len()].copy_from_slice(first);
            tail[..more.len()].copy_from_slice(more);
        }
        let free = pair.key().and_then(|key| Some((key, self.free(key)?)));
        let remembered = match (free, u16::try_from(label.len())) {
            (Some((key, nth)), Ok(length)) => {
                let metric = if names_metric { pair.value + 1 } else { 0 };
                self.places[nth] = Place { tag: self.tag(key), metric, length, head };
                self.tails[nth] = tail;
                self.taken += 1;
                true
            }
            _ => false,
        };
        if !(remembered && is_long) {
            self.long.truncate(start);
        }
        names_metric
    }

    /// A place for a label that has none.
    fn free(&self, key: u32) -> Option<usize> {
        near(key).find(|nth| !self.is_taken(&self.places[*nth]))
    }

    /// Whether it has a label of this request.
    #[inline(always)]
    const fn is_taken(&self, place: &Place) -> bool {
        place.tag >> 32 == self.round as u64
    }
}

/// Where a label is looked for first.
#[inline(always)]
const fn first(key: u32) -> usize {
    (key.wrapping_mul(0x9e37_79b1) >> (u32::BITS - PLACES.ilog2())) as usize
}

/// All places where a label may be.
fn near(key: u32) -> impl Iterator<Item = usize> {
    (0..PROBES).map(move |nth| (first(key) + nth) % PLACES)
}

/// Which of the first `bytes` end a number: of such a byte, the high bit is not set.
#[inline(always)]
fn ends_of_numbers(window: &[u8; WINDOW], bytes: usize) -> u64 {
    const HIGH_BITS: u64 = 0x8080_8080_8080_8080;
    /// Gathers the lowest bits of eight bytes in the highest byte.
    const GATHER: u64 = 0x0102_0408_1020_4080;
    let (words, _) = window.as_chunks::<8>();
    let mut ends = 0;
    for (nth, word) in words.iter().take(8).enumerate().take(bytes.div_ceil(8)) {
        let low = (!u64::from_le_bytes(*word) & HIGH_BITS) >> 7;
        ends |= low.wrapping_mul(GATHER) >> 56 << (8 * nth);
    }
    if bytes < 64 { ends & !(u64::MAX << bytes) } else { ends }
}

/// The key of a label whose references are between `start` and `end`.
#[inline(always)]
fn key(window: &[u8; WINDOW], start: usize, end: usize) -> Option<u32> {
    let packed = u32::from_le_bytes(*window.get(start..)?.first_chunk()?);
    let behind = 32_usize.checked_sub(8 * (end - start))?;
    Some(packed & u32::MAX >> behind)
}

/// The two references at the head of `packed` behind `at`, and where they end. `None`: there are none.
pub(super) fn pair(packed: &[u8], at: usize) -> Option<(Pair, usize)> {
    let read = |at| {
        packed.get(at)?;
        fields::varint(packed, at).ok().map(|(given, end)| (pass::reference(given), end))
    };
    let (name, at) = read(at)?;
    let (value, at) = read(at)?;
    Some((Pair { name, value }, at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::fields::put_varint;

    fn packed(pairs: &[Pair]) -> Vec<u8> {
        let mut packed = Vec::new();
        for pair in pairs {
            put_varint(&mut packed, pair.name.into());
            put_varint(&mut packed, pair.value.into());
        }
        packed
    }

    const fn pair_of(name: u32, value: u32) -> Pair {
        Pair { name, value }
    }

    /// What is written of these labels, how many bytes of their references that took, and which value is the metric's name.
    fn known(spelt: &Spelt, pairs: &[Pair]) -> (Vec<u8>, usize, Option<u32>) {
        let (mut out, mut metric) = (Out::over(vec![9; 3]), 0);
        let packed = packed(pairs);
        let body = [&packed[..], &[1; WINDOW]].concat();
        let mut at = 0;
        loop {
            let next = spelt.put_known(&body, at, packed.len(), &mut metric, &mut out);
            if next == at {
                break;
            }
            at = next;
        }
        (out.into_bytes(), at, metric.checked_sub(1))
    }

    fn spell(spelt: &mut Spelt, pair: Pair, name: &[u8], value: &[u8]) -> (Vec<u8>, bool) {
        let mut out = Out::over(vec![]);
        let names_metric = spelt.spell(pair, name, value, &mut out);
        (out.into_bytes(), names_metric)
    }

    fn encoded(name: &[u8], value: &[u8]) -> Vec<u8> {
        let mut label = Vec::new();
        series::encode_label(&mut label, name, value);
        label
    }

    #[test]
    fn labels_come_back_as_they_were_spelt_and_no_others() {
        let mut spelt = Spelt::default();
        spelt.forget();
        // So many that some have the place of another one; and some are longer than a place.
        let count = 1_200;
        let pair = |n: u32| pair_of(n % 5, n / 5 * 7);
        let value = |n: u32| n.to_string().repeat(1 + n as usize * 37 % 50).into_bytes();
        for n in 0..count {
            assert_eq!(known(&spelt, &[pair(n)]), (vec![], 0, None));
            let name = if n == 7 { &b"__name__"[..] } else { b"n" };
            assert_eq!(spelt.put(pair(n), &mut Out::over(vec![])), None);
            assert_eq!(spell(&mut spelt, pair(n), name, &value(n)), (encoded(name, &value(n)), n == 7));
        }
        let elsewhere =
            |n: &u32| spelt.places[first(pair(*n).key().unwrap())].tag != spelt.tag(pair(*n).key().unwrap());
        assert!((0..count).filter(elsewhere).count() > 10);
        let unknown = pair_of(0, 9_999);
        let short: Vec<u32> =
            (0..count).filter(|n| *n != 7 && encoded(b"n", &value(*n)).len() <= TEXT_BYTES).collect();
        for two in short.windows(2) {
            let expect = [encoded(b"n", &value(two[0])), encoded(b"n", &value(two[1]))].concat();
            let pairs = [pair(two[0]), pair(two[1]), unknown];
            assert_eq!(known(&spelt, &pairs), (expect, packed(&pairs[..2]).len(), None), "{two:?}");
        }
        assert!(short.len() > 50);
        for n in (0..count).filter(|n| *n != 7) {
            let mut out = Out::over(vec![]);
            assert_eq!((spelt.put(pair(n), &mut out), spelt.put(unknown, &mut out)), (Some(false), None));
            assert_eq!(out.into_bytes(), encoded(b"n", &value(n)));
        }
        assert_eq!(known(&spelt, &[pair(short[0]), pair(7), pair(short[1])]).2, Some(pair(7).value));
        assert_eq!(spelt.put(pair(7), &mut Out::over(vec![])), Some(true));
        spelt.forget();
        assert_eq!(known(&spelt, &[pair(3)]).1, 0, "it was of another request");
    }

    #[test]
    fn a_label_of_no_name_and_no_value_is_one_like_others() {
        let mut spelt = Spelt::default();
        spelt.forget();
        assert_eq!(known(&spelt, &[Pair::default()]).1, 0);
        spell(&mut spelt, Pair::default(), b"", b"");
        assert_eq!(known(&spelt, &[Pair::default()]), (encoded(b"", b""), 2, None));
    }

    #[test]
    fn no_more_is_written_than_there_is_room_for() {
        let mut spelt = Spelt::default();
        spelt.forget();
        let length = spell(&mut spelt, pair_of(1, 2), b"name", &[b'v'; 100]).0.len();
        let (body, mut out, mut metric) = ([1, 2].repeat(2 * WINDOW), Out::over(vec![]), 0);
        let mut at = 0;
        for _ in 0..4 {
            at = spelt.put_known(&body, at, 192, &mut metric, &mut out);
        }
        assert_eq!((at, out.len()), (192, 96 * length), "as many bytes as are looked at together, each time");
        // At the end of the body, it is left to others.
        assert_eq!(
            spelt.put_known(&body, body.len() - WINDOW + 1, body.len(), &mut metric, &mut out),
            body.len() - WINDOW + 1
        );
    }

    #[test]
    fn rounds_begin_anew_and_remember_nothing() {
        let mut spelt = Spelt::default();
        spelt.forget();
        let first = spelt.round;
        spell(&mut spelt, pair_of(3, 4), b"name", b"value");
        spelt.round = u32::MAX - 1;
        for _ in 0..4 {
            spelt.forget();
            assert_eq!(known(&spelt, &[pair_of(3, 4)]).1, 0, "round {}", spelt.round);
            assert_eq!(known(&spelt, &[pair_of(1, 2)]).1, 0);
            spell(&mut spelt, pair_of(1, 2), b"name", b"value");
            assert_eq!(known(&spelt, &[pair_of(1, 2)]).1, 2);
        }
        assert!(spelt.round > first && spelt.round < 9, "it has come round");
    }

    #[test]
    fn memory_is_bounded() {
        let mut spelt = Spelt::default();
        spelt.forget();
        for n in 0..100_000 {
            let pair = pair_of(n >> 13, n & 0x1fff);
            spell(&mut spelt, pair, b"name", &[b'v'; 100]);
        }
        assert!(spelt.taken < PLACES);
        assert!(spelt.long.capacity() <= 4 * Spelt::LONG_BYTES_MAX, "{}", spelt.long.capacity());
        // Too long to be remembered, and not kept.
        let (long, value) = (pair_of(2, 1), vec![b'v'; 16 << 20]);
        assert!(spell(&mut spelt, long, b"n", &value).0 == encoded(b"n", &value));
        assert_eq!(known(&spelt, &[long]).1, 0);
        spelt.forget();
        assert!(spelt.long.capacity() <= 4 * Spelt::LONG_BYTES_MAX, "{}", spelt.long.capacity());
    }

    fn encoded_len(number: u32) -> usize {
        fields::varint_len(number.into())
    }

    #[test]
    fn references_of_any_length() {
        let numbers = [0, 1, 127, 128, 300, 16_383, 16_384, 1 << 21, u32::MAX];
        for (name, value) in numbers.iter().flat_map(|name| numbers.map(|value| (*name, value))) {
            for more in [&[][..], &[0x80, 0x01], &[5]] {
                let (wanted, packed) = (pair_of(name, value), packed(&[pair_of(name, value)]));
                let end = 1 + packed.len();
                let body = [&[0xff], &packed[..], more, &[0x12, 16]].concat();
                assert_eq!(pair(&body, 1), Some((wanted, end)), "{body:?}");
                let window = *[&body[..], &[0; WINDOW]].concat().first_chunk().unwrap();
                assert_eq!(key(&window, 1, end), wanted.key(), "{body:?}");
                let ends = ends_of_numbers(&window, end) >> 1;
                let ends_of_both = 1 << (packed.len() - 1) | 1 << (encoded_len(name) - 1);
                assert_eq!(ends, ends_of_both, "{body:?}");
                for cut in 1..end {
                    assert_eq!(pair(&body[..cut], 1), None, "{body:?}, {cut}");
                }
            }
        }
        // Not the shortest form, but legal; and more than a reference may be.
        assert_eq!(pair(&[0x81, 0, 0x82, 0x80, 0], 0), Some((pair_of(1, 2), 5)));
        assert_eq!(pair(&[0xff, 0xff, 0xff, 0xff, 0x7f, 1], 0), Some((pair_of(u32::MAX, 1), 6)));
    }
}

//! What a body of 1.0 has said before, and with which references 2.0 says it.
//!
//! Owns a bounded table of pieces of the body, by their bytes: labels, and metadata. Refuses to give references: that is the
//! composer's.

use crate::wire::equal;
use crate::wire::out::Out;

/// Pieces of a body and what they have become. Takes no memory before it is used.
#[derive(Debug, Default)]
pub(super) struct Referred {
    /// [`PLACES`] of them, or none yet.
    places: Vec<Place>,
    /// What is remembered in another round is of another body.
    round: u32,
}

const PLACES: usize = 1 << 11;
/// In so many places in a row a piece may be.
const PROBES: usize = 4;
/// Longer pieces are not remembered, nor shorter ones.
const TEXT_BYTES: usize = 106;
const TEXT_BYTES_MIN: usize = 8;
/// Two references, or metadata, take less.
const WRITTEN_BYTES: usize = 16;

/// A piece, and all that is to be known of it: in one cache line, if it is short.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy)]
struct Place {
    round: u32,
    length: u8,
    written_length: u8,
    written: [u8; WRITTEN_BYTES],
    text: [u8; TEXT_BYTES],
}

const FREE: Place =
    Place { round: 0, length: 0, written_length: 0, written: [0; WRITTEN_BYTES], text: [0; TEXT_BYTES] };

impl Referred {
    /// The next pieces are those of another body.
    pub(super) fn forget(&mut self) {
        self.round = self.round.wrapping_add(1);
        if self.places.is_empty() || self.round == 0 {
            self.places.clear();
            self.places.resize(PLACES, FREE);
            self.round = 1;
        }
    }

    /// Writes what the piece became before. `false`: it is not remembered.
    #[inline(always)]
    pub(super) fn put(&self, piece: &[u8], out: &mut Out) -> bool {
        let Some(first) = first(piece) else { return false };
        for nth in first..first + PROBES {
            let Some(place) = self.places.get(nth % PLACES) else { return false };
            if place.round != self.round {
                return false;
            }
            if let Some(text) = place.text.get(..usize::from(place.length))
                && equal(text, piece)
                && let Some(room) = out.room(WRITTEN_BYTES).first_chunk_mut()
            {
                *room = place.written;
                out.keep(place.written_length.into());
                return true;
            }
        }
        false
    }

    /// That is what the piece has become.
    pub(super) fn remember(&mut self, piece: &[u8], written: &[u8]) {
        let (Some(first), Some(room)) = (first(piece), FREE.written.get(..written.len())) else { return };
        let free = (first..first + PROBES).map(|nth| nth % PLACES);
        let Some(nth) = free.into_iter().find(|nth| self.places[*nth].round != self.round) else { return };
        let mut place =
            Place { round: self.round, length: piece.len() as u8, written_length: room.len() as u8, ..FREE };
        place.written[..written.len()].copy_from_slice(written);
        place.text[..piece.len()].copy_from_slice(piece);
        self.places[nth] = place;
    }
}

/// Where a piece is looked for first. `None`: it is of no length that is remembered.
#[inline(always)]
fn first(piece: &[u8]) -> Option<usize> {
    if piece.len() > TEXT_BYTES {
        return None;
    }
    // Pieces of one kind begin alike, and differ in their ends most of all.
    let word = |bytes: &[u8; TEXT_BYTES_MIN]| u64::from_le_bytes(*bytes);
    let (head, tail) = (word(piece.first_chunk()?), word(piece.last_chunk()?));
    let before = piece.len().checked_sub(16).and_then(|at| piece[at..].first_chunk()).map_or(0, word);
    let mixed = (head ^ tail.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ before.wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
    let mixed = mixed ^ mixed >> 29;
    Some((mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - PLACES.ilog2())) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(referred: &Referred, piece: &[u8]) -> Option<Vec<u8>> {
        let mut out = Out::over(vec![7; 3]);
        let is_known = referred.put(piece, &mut out);
        assert!(is_known || out.len() == 0);
        is_known.then(|| out.into_bytes())
    }

    #[test]
    fn pieces_come_back_as_what_they_became_and_no_others() {
        let mut referred = Referred::default();
        assert_eq!(put(&referred, b"not even begun"), None);
        referred.forget();
        let piece = |n: usize| {
            let text = format!("{n:08}{}", "x".repeat(n % 100));
            // Of some, only the beginning tells one from another.
            if n.is_multiple_of(3) {
                format!("{text}{}", "the same at the end").into_bytes()
            } else {
                text.into_bytes()
            }
        };
        let written = |n: usize| vec![n as u8; n % (WRITTEN_BYTES + 1)];
        let mut kept = 0;
        for n in 0..1_000 {
            assert_eq!(put(&referred, &piece(n)), None);
            referred.remember(&piece(n), &written(n));
            kept += usize::from(put(&referred, &piece(n)).is_some());
        }
        assert!((850..1_000).contains(&kept), "{kept}: those that are too long are not");
        for n in 0..1_000 {
            let found = put(&referred, &piece(n));
            assert!(found.is_none_or(|found| found == written(n)), "{n}");
        }
        referred.forget();
        assert!((0..1_000).all(|n| put(&referred, &piece(n)).is_none()), "they were of another body");
    }

    #[test]
    fn what_is_of_another_length_or_has_become_too_long_is_not_remembered() {
        let mut referred = Referred::default();
        referred.forget();
        for (piece, written, kept) in
            [(7, 3, false), (8, 16, true), (106, 0, true), (107, 3, false), (50, 17, false)]
        {
            let (piece, written) = (vec![b'p'; piece], vec![b'w'; written]);
            referred.remember(&piece, &written);
            assert_eq!(put(&referred, &piece), kept.then_some(written), "{}", piece.len());
        }
    }

    #[test]
    fn rounds_begin_anew_and_remember_nothing() {
        let mut referred = Referred::default();
        referred.forget();
        let first = referred.round;
        referred.remember(b"a label of the first", b"12");
        referred.round = u32::MAX - 1;
        for _ in 0..4 {
            referred.forget();
            assert_eq!(put(&referred, b"a label of the first"), None, "round {}", referred.round);
            assert_eq!(put(&referred, b"a label of the body"), None);
            referred.remember(b"a label of the body", b"12");
            assert_eq!(put(&referred, b"a label of the body").unwrap(), b"12");
        }
        assert!(referred.round > first && referred.round < 9, "it has come round");
    }

    /// Or a sender could have every label compared with all others.
    #[test]
    fn pieces_of_one_place_are_few() {
        let mut referred = Referred::default();
        referred.forget();
        let alike: Vec<_> = (0..100).map(|n| format!("the head{n:03}the same at the end")).collect();
        alike.iter().for_each(|piece| referred.remember(piece.as_bytes(), b"12"));
        assert_eq!(alike.iter().filter(|piece| put(&referred, piece.as_bytes()).is_some()).count(), PROBES);
    }
}

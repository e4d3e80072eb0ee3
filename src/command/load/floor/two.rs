//! The labels of remote write 2.0, written out as 1.0 has them: what there is to be hashed and to be forwarded.
//!
//! A short way that checks nothing, as the walk over 1.0. Refuses bodies that no Prometheus sends.

use super::{Cut, REPLICA_LABEL, length, put_length};

const SYMBOL: u8 = 0x22;
const SERIES: u8 = 0x2a;
const REFERENCES: u8 = 0x0a;
const SAMPLE: u8 = 0x12;
/// As much of a label is copied at a time.
const CHUNK: usize = 64;
/// The longest message of a series is shorter: its length takes two bytes.
const SERIES_BYTES_MAX: usize = 0x3fff;
/// Of the table of labels; a label that has the place of another one is spelt out again.
const PLACES: usize = 1 << 14;

/// The labels of a request, by their references.
#[derive(Debug)]
pub(super) struct Labels {
    symbols: Vec<(usize, usize)>,
    places: Vec<Place>,
    /// Of which body the places are: to clear them would cost more than to look.
    body: u32,
    text: Vec<u8>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Place {
    body: u32,
    references: (u32, u32),
    start: u32,
    len: u32,
    is_replica: bool,
}

impl Labels {
    pub(super) fn new() -> Self {
        Self { symbols: Vec::new(), places: vec![Place::default(); PLACES], body: 0, text: Vec::new() }
    }

    /// Writes all series of a body, and where they are. `out` is written over from its start, and grown.
    pub(super) fn write(&mut self, raw: &[u8], out: &mut Vec<u8>, series: &mut Vec<Cut>) -> Option<()> {
        self.symbols.clear();
        self.body += 1;
        self.text.clear();
        let mut at = 0;
        while raw.get(at) == Some(&SYMBOL) {
            at += 1;
            let len = length(raw, &mut at)?;
            self.symbols.push((at, at + len));
            at += len;
        }
        let mut written = 0;
        while at < raw.len() {
            if raw[at] != SERIES {
                return None;
            }
            at += 1;
            let len = length(raw, &mut at)?;
            let end = at + len;
            let cut = self.series(raw.get(..end)?, at, out, written)?;
            written = cut.end;
            series.push(cut);
            at = end;
        }
        out.truncate(written);
        Some(())
    }

    /// The series of `message` from `at` on, written behind the first `written` bytes.
    fn series(&mut self, message: &[u8], mut at: usize, out: &mut Vec<u8>, written: usize) -> Option<Cut> {
        if *message.get(at)? != REFERENCES {
            return None;
        }
        at += 1;
        let packed = length(message, &mut at)?;
        let references_end = at + packed;
        let start = written + 3;
        if out.len() < start + SERIES_BYTES_MAX + CHUNK {
            out.resize(start + 4 * SERIES_BYTES_MAX, 0);
        }
        let (mut to, mut replica) = (start, None);
        while at < references_end {
            let references = (length(message, &mut at)? as u32, length(message, &mut at)? as u32);
            let nth = (references.0.wrapping_mul(0x9e5) ^ references.1) as usize % PLACES;
            if (self.places[nth].body, self.places[nth].references) != (self.body, references) {
                self.places[nth] = self.spell(message, references)?;
            }
            let Place { start, len, is_replica, .. } = self.places[nth];
            let (start, len) = (start as usize, len as usize);
            for chunk in (0..len).step_by(CHUNK) {
                let text: &[u8; CHUNK] = self.text.get(start + chunk..)?.first_chunk()?;
                *out.get_mut(to + chunk..)?.first_chunk_mut()? = *text;
            }
            if is_replica {
                replica = Some((to, to + len));
            }
            to += len;
        }
        let labels_end = to;
        while at < message.len() && message[at] == SAMPLE {
            let sample = at;
            at += 1;
            at += length(message, &mut at)?;
            out.get_mut(to..to + (at - sample))?.copy_from_slice(message.get(sample..at)?);
            to += at - sample;
        }
        let len = to - start;
        if len > SERIES_BYTES_MAX {
            return None;
        }
        out[written] = 0x0a;
        out[written + 1..start].copy_from_slice(&[(len & 0x7f) as u8 | 0x80, (len >> 7) as u8]);
        Some(Cut { start, replica: replica?, labels_end, end: to })
    }

    #[cold]
    fn spell(&mut self, raw: &[u8], references: (u32, u32)) -> Option<Place> {
        let symbol = |nth: u32| self.symbols.get(nth as usize).and_then(|(start, end)| raw.get(*start..*end));
        let (name, value) = (symbol(references.0)?, symbol(references.1)?);
        let mut pair = Vec::new();
        for (key, text) in [(0x0a, name), (0x12, value)] {
            pair.push(key);
            put_length(&mut pair, text.len());
            pair.extend_from_slice(text);
        }
        let start = self.text.len();
        self.text.push(0x0a);
        put_length(&mut self.text, pair.len());
        self.text.extend_from_slice(&pair);
        let len = self.text.len() - start;
        // Whole chunks are copied.
        self.text.resize(start + len.next_multiple_of(CHUNK), 0);
        let is_replica = name == REPLICA_LABEL;
        Some(Place { body: self.body, references, start: start as u32, len: len as u32, is_replica })
    }
}

//! The labels that a 2.0 request has had lately, as they are spelt in 1.0.
//!
//! Owns their bytes for one request, in bounded memory. Refuses to look a reference up: that is the pass's.

/// Labels in the encoding of 1.0, by their references: the series of a request have most of their labels in common, and
/// a copy of known length costs less than spelling a label out. Takes no memory before it is used.
#[derive(Debug, Default)]
pub(super) struct Spelt {
    places: Vec<Place>,
    bytes: Vec<u8>,
    /// What was remembered in another round is of another request.
    round: u32,
}

#[derive(Debug, Clone, Copy, Default)]
struct Place {
    name: u32,
    value: u32,
    start: u32,
    length: u32,
    round: u32,
    names_metric: bool,
}

impl Spelt {
    const PLACES: usize = 1 << 12;
    /// Longer ones are rare, and spelt out each time.
    const LABEL_BYTES_MAX: usize = 64;
    const BYTES_MAX: usize = 1 << 20;

    pub(super) fn forget(&mut self) {
        self.bytes.clear();
        self.bytes.resize(Self::LABEL_BYTES_MAX, 0);
        self.round = self.round.wrapping_add(1);
        if self.places.is_empty() || self.round == 0 {
            self.places.clear();
            self.places.resize(Self::PLACES, Place::default());
            self.round = 1;
        }
    }

    fn place(name: u32, value: u32) -> usize {
        (name.wrapping_mul(0x9e37_79b1) ^ value.wrapping_mul(0x85eb_ca6b)) as usize >> 20
    }

    /// Writes a label that is remembered, if there is room for it below `max`. Returns whether it names the metric.
    #[inline(always)]
    pub(super) fn put(&self, name: u32, value: u32, max: usize, out: &mut Vec<u8>) -> Option<bool> {
        let place = &self.places[Self::place(name, value)];
        if (place.name, place.value, place.round) != (name, value, self.round) {
            return None;
        }
        let label = self.bytes.get(place.start as usize..)?.first_chunk::<{ Self::LABEL_BYTES_MAX }>()?;
        let end = out.len() + place.length as usize;
        if end > max {
            return None;
        }
        // As much as is the longest, which takes no loop, and the rest of it away again.
        out.extend_from_slice(label);
        out.truncate(end);
        Some(place.names_metric)
    }

    pub(super) fn remember(&mut self, name: u32, value: u32, names_metric: bool, label: &[u8]) {
        if label.len() > Self::LABEL_BYTES_MAX {
            return;
        }
        if self.bytes.len() > Self::BYTES_MAX {
            self.forget();
        }
        let start = self.bytes.len() - Self::LABEL_BYTES_MAX;
        self.bytes.truncate(start);
        self.bytes.extend_from_slice(label);
        self.bytes.resize(start + label.len() + Self::LABEL_BYTES_MAX, 0);
        let (start, length, round) = (start as u32, label.len() as u32, self.round);
        self.places[Self::place(name, value)] = Place { name, value, start, length, round, names_metric };
    }
}

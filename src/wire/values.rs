//! The values of a few labels of a series, wherever they are in it.
//!
//! For whoever has to know where a series belongs before anything else is known of it. Refuses to judge the other labels.

use super::fields::{self, LENGTH};
use super::v1::{LABELS, SERIES_OF_REQUEST, short_label};
use super::{Malformed, Span, labels};

/// The labels that are looked for.
#[derive(Debug, Clone)]
pub struct Wanted {
    names: Vec<String>,
    /// Bit `len % 64` is set for each name of that length. Most labels are told apart by it alone.
    lengths: u64,
}

/// A wanted label that is there twice, with values: no series may have that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repeated;

impl Wanted {
    /// Labels of these names.
    #[must_use]
    pub fn new(names: Vec<String>) -> Self {
        let lengths = names.iter().fold(0, |bits, name| bits | 1 << (name.len() % 64));
        Self { names, lengths }
    }

    /// How many they are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// True if nothing is wanted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Writes the values that a series (its message, without key and length) has of the wanted labels to `found`, in their order;
    /// empty where it has none. An empty value means an absent label.
    ///
    /// # Errors
    /// When the message cannot be read.
    pub fn find(
        &self,
        body: &[u8],
        payload: Span,
        found: &mut Vec<Span>,
    ) -> Result<Result<(), Repeated>, Malformed> {
        found.clear();
        found.resize(self.names.len(), Span::default());
        let message = &body[..payload.end as usize];
        let mut at = payload.start as usize;
        while at < message.len() {
            if let Some(label) = short_label(&message[at..]) {
                let name = at + 4;
                let value = name + label.name_length + 2;
                let end = at + label.length;
                if self.lengths >> (label.name_length % 64) & 1 != 0
                    && value < end
                    && !self.note(&body[name..name + label.name_length], Span::at(value, end), found)
                {
                    return Ok(Err(Repeated));
                }
                at = end;
                continue;
            }
            let field = fields::read_quick(message, at)?;
            at = field.end();
            if (field.number, field.wire_type) == (LABELS, LENGTH) {
                let label = labels::read(body, &field)?;
                if !label.value.is_empty() && !self.note(label.name.of(body), label.value, found) {
                    return Ok(Err(Repeated));
                }
            }
        }
        Ok(Ok(()))
    }

    /// Whether it is the first of that name, or none that is wanted.
    fn note(&self, name: &[u8], value: Span, found: &mut [Span]) -> bool {
        let Some(place) = self.names.iter().position(|wanted| wanted.as_bytes() == name) else { return true };
        let first = found[place].is_empty();
        found[place] = value;
        first
    }
}

/// The series of a body of 1.0, as their messages. Nothing follows an error.
pub fn payloads(body: &[u8]) -> impl Iterator<Item = Result<Span, Malformed>> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < body.len() {
            match fields::read_quick(body, at) {
                Ok(field) => {
                    at = field.end();
                    if (field.number, field.wire_type) == (SERIES_OF_REQUEST, LENGTH) {
                        return Some(Ok(field.content));
                    }
                }
                Err(malformed) => {
                    at = body.len();
                    return Some(Err(malformed));
                }
            }
        }
        None
    })
}

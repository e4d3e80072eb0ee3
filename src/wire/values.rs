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

#[cfg(test)]
mod tests {
    use super::super::fields::put_varint;
    use super::super::labels::{LabelBounds, canonicalize};
    use super::super::v1::Walker;
    use super::*;
    use crate::series::{GroupKey, Place, PlaceLabels, ReplicaNames, TenantHash, encode_label};
    use proptest::prelude::*;

    /// A label in an encoding that is not the shortest: with an unknown field behind.
    fn put_odd(out: &mut Vec<u8>, name: &str, value: &str) {
        let mut message = Vec::new();
        for (key, text) in [(0x0a, name), (0x12, value)] {
            message.push(key);
            put_varint(&mut message, text.len() as u64);
            message.extend_from_slice(text.as_bytes());
        }
        message.extend_from_slice(&[0x18, 1]);
        out.push(0x0a);
        put_varint(out, message.len() as u64);
        out.extend_from_slice(&message);
    }

    /// Labels in any order and encoding, some with samples between them.
    fn body(labels: &[(String, String, u8)]) -> Vec<u8> {
        let mut series = Vec::new();
        for (name, value, how) in labels {
            match how % 3 {
                0 => encode_label(&mut series, name.as_bytes(), value.as_bytes()),
                1 => put_odd(&mut series, name, value),
                _ => {
                    series.extend_from_slice(&[0x12, 2, 0x10, 7]);
                    encode_label(&mut series, name.as_bytes(), value.as_bytes());
                }
            }
        }
        let mut body = vec![0x0a];
        put_varint(&mut body, series.len() as u64);
        [body, series].concat()
    }

    fn label() -> impl Strategy<Value = (String, String, u8)> {
        let name = prop_oneof![
            4 => Just("cluster"), 4 => Just("prometheus"), 4 => Just("__name__"), 2 => Just("prometheus_replica"),
            1 => Just("__replica__"), 2 => Just("clusters"), 2 => Just("job"), 1 => Just("")
        ];
        let value = prop_oneof![4 => "[ab]{0,2}", 1 => "a{126,140}"];
        (name.prop_map(str::to_owned), value, any::<u8>())
    }

    proptest! {
        /// Or a group would be asked for at one instance, and served at another.
        #[test]
        fn the_group_is_that_of_the_series_place(labels in proptest::collection::vec(label(), 0..8)) {
            let (body, names, places) = (body(&labels), ReplicaNames::default(), PlaceLabels::default());
            let (bounds, tenant) = (LabelBounds::default(), TenantHash::of("t"));
            let series = Walker::new(&body, &names).next(&mut Vec::new()).unwrap().unwrap();
            let payload = payloads(&body).next().unwrap().unwrap();
            prop_assert_eq!(payload, series.payload);
            let mut found = Vec::new();
            let verdict = Wanted::new(places.group.clone()).find(&body, payload, &mut found).unwrap();
            let mut canonical = Vec::new();
            if canonicalize(&body, &series, &names, bounds, &mut canonical).is_ok() {
                prop_assert_eq!(verdict, Ok(()));
                let values = found.iter().map(|value| value.of(&body));
                let key = GroupKey::of(values, tenant, &mut Vec::new());
                prop_assert_eq!(key, Place::of(&canonical, &places, tenant).group);
            }
            let named = |wanted: &str| labels.iter().filter(|(n, v, _)| n == wanted && !v.is_empty()).count();
            prop_assert_eq!(verdict.is_err(), named("cluster") > 1 || named("prometheus") > 1);
        }

        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let wanted = Wanted::new(vec!["a".to_owned()]);
            for payload in payloads(&bytes).map_while(Result::ok) {
                let _ = wanted.find(&bytes, payload, &mut Vec::new());
            }
        }
    }

    #[test]
    fn all_series_are_there_and_nothing_else() {
        let one = body(&[("a".to_owned(), "b".to_owned(), 0)]);
        let mut two = one.clone();
        two.extend_from_slice(&[0x1a, 1, 0]);
        two.extend_from_slice(&one);
        two.extend_from_slice(&[0x08, 1]);
        let all: Vec<_> = payloads(&two).map(Result::unwrap).collect();
        assert_eq!(all, [Span::at(2, one.len()), Span::at(one.len() + 5, 2 * one.len() + 3)]);
        two.push(0x0a);
        assert_eq!(payloads(&two).filter(Result::is_err).count(), 1);
    }
}

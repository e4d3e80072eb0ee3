//! The names of groups and replicas that are kept and shown: of one that is longer than names are, its beginning and a hash.
//!
//! A label value may be a quarter of a MiB long, and what is named by it is remembered for an hour and shown in two dozen metrics. Refuses
//! to be an identity of groups: that is [`GroupKey`](super::GroupKey).

use super::strong_hash;
use std::borrow::Cow;

/// A longer name is shortened, in bytes.
pub const NAME_BYTES_MAX: usize = 256;
/// What is kept of its beginning, in bytes at most: the rest is for a hash and what separates the two.
const BEGINNING_BYTES_MAX: usize = NAME_BYTES_MAX - 32 - "…".len();

/// A name of at most [`NAME_BYTES_MAX`] bytes, which no other name becomes, and no shorter one is by accident.
#[must_use]
#[inline]
pub fn short_name(name: &str) -> Cow<'_, str> {
    if name.len() <= NAME_BYTES_MAX { Cow::Borrowed(name) } else { Cow::Owned(shortened(name)) }
}

#[cold]
fn shortened(name: &str) -> String {
    let beginning = &name[..name.floor_char_boundary(BEGINNING_BYTES_MAX)];
    format!("{beginning}…{:032x}", strong_hash(name.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_too_long_is_shortened() {
        let longest = "ä".repeat(NAME_BYTES_MAX / 2);
        assert_eq!(short_name(&longest), longest);
        let [one, other] = ["a", "b"].map(|end| longest.clone() + end);
        for name in [&one, &other] {
            let short = short_name(name);
            assert!(short.len() <= NAME_BYTES_MAX && short.starts_with(&"ä".repeat(110)), "{short}");
        }
        assert_ne!(short_name(&one), short_name(&other), "they differ where they were cut");
    }
}

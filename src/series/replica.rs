//! The configured replica label names.
//!
//! Owns their order of precedence and the quick test of the walk: is this label perhaps the replica label? Refuses
//! lists that cannot mean anything.

/// How many replica label names are taken.
pub const REPLICA_NAMES_MAX: usize = 8;

/// Replica label names in order of precedence: the first one that a series has (with a value) is its replica label,
/// the others are labels like any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaNames {
    names: Vec<String>,
    /// Bit `len % 64` is set for each name of that length. Most labels are told apart by it alone.
    lengths: u64,
}

/// A list of replica label names that cannot be meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadReplicaNames {
    /// No name at all.
    #[error("at least one replica label name is needed")]
    None,
    /// More than [`REPLICA_NAMES_MAX`].
    #[error("{given} replica label names given, at most {REPLICA_NAMES_MAX} are taken")]
    TooMany {
        /// How many.
        given: usize,
    },
    /// One that cannot be a replica label: empty, or `__name__`.
    #[error("{name:?} cannot be a replica label name")]
    Unusable {
        /// The name.
        name: String,
    },
    /// One that is there twice.
    #[error("replica label name {name:?} given twice")]
    Repeated {
        /// The name.
        name: String,
    },
}

impl ReplicaNames {
    /// Of names in order of precedence.
    pub fn new<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Result<Self, BadReplicaNames> {
        let names: Vec<String> = names.into_iter().map(Into::into).collect();
        if names.is_empty() {
            return Err(BadReplicaNames::None);
        }
        if names.len() > REPLICA_NAMES_MAX {
            return Err(BadReplicaNames::TooMany { given: names.len() });
        }
        for (i, name) in names.iter().enumerate() {
            if name.is_empty() || name == "__name__" {
                return Err(BadReplicaNames::Unusable { name: name.clone() });
            }
            if names[..i].contains(name) {
                return Err(BadReplicaNames::Repeated { name: name.clone() });
            }
        }
        let lengths = names.iter().fold(0, |bits, name| bits | 1_u64 << (name.len() % 64));
        Ok(Self { names, lengths })
    }

    /// The name of highest precedence; where it sorts, canonical bytes are split.
    #[must_use]
    pub fn first(&self) -> &str {
        // `new` refuses an empty list.
        self.names.first().map_or("", String::as_str)
    }

    /// All of them, in order of precedence.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// False for most lengths that no name has, at the cost of a shift.
    #[must_use]
    #[inline]
    pub const fn may_have_length(&self, length: usize) -> bool {
        self.lengths >> (length % 64) & 1 == 1
    }

    /// The precedence of `name`, 0 the highest; `None` if it is an ordinary label.
    #[must_use]
    #[allow(clippy::cast_possible_truncation)] // at most `REPLICA_NAMES_MAX`
    pub fn rank(&self, name: &[u8]) -> Option<u8> {
        self.names.iter().position(|known| known.as_bytes() == name).map(|rank| rank as u8)
    }
}

impl Default for ReplicaNames {
    /// What the Prometheus Operator and most hand-made setups use.
    fn default() -> Self {
        let names = vec!["prometheus_replica".to_owned(), "__replica__".to_owned()];
        let lengths = 1 << 18 | 1 << 11;
        Self { names, lengths }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_is_what_new_makes() {
        assert_eq!(
            ReplicaNames::default(),
            ReplicaNames::new(["prometheus_replica", "__replica__"]).unwrap()
        );
    }

    #[test]
    fn ranks() {
        let long = "x".repeat(64 + 3);
        let names = ReplicaNames::new(["abc", "de", &long]).unwrap();
        assert_eq!(names.rank(b"abc"), Some(0));
        assert_eq!(names.rank(b"de"), Some(1));
        assert_eq!(names.rank(long.as_bytes()), Some(2));
        assert_eq!(names.rank(b"abd"), None);
        assert!(names.may_have_length(3) && names.may_have_length(2) && names.may_have_length(67));
        assert!(!names.may_have_length(4));
        assert_eq!(names.first(), "abc");
    }

    #[test]
    fn lists_that_mean_nothing() {
        let check = |names: &[&str]| ReplicaNames::new(names.iter().copied()).unwrap_err();
        assert_eq!(check(&[]), BadReplicaNames::None);
        assert_eq!(check(&["a", ""]), BadReplicaNames::Unusable { name: String::new() });
        assert_eq!(check(&["__name__"]), BadReplicaNames::Unusable { name: "__name__".into() });
        assert_eq!(check(&["a", "b", "a"]), BadReplicaNames::Repeated { name: "a".into() });
        let nine = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
        assert_eq!(check(&nine), BadReplicaNames::TooMany { given: 9 });
    }
}

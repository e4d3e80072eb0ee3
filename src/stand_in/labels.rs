//! The labels of a series as the stand-ins name it: sorted, printable, comparable.
//!
//! Owns no rule of validity: a receiver judges labels as they arrive, before it makes one of these.

use crate::proto;
use std::fmt;
use std::sync::Arc;

/// Labels sorted bytewise by name; cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Labels(Arc<[(String, String)]>);

impl Labels {
    /// From pairs in any order.
    pub fn new<N: Into<String>, V: Into<String>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let mut pairs: Vec<_> = pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        pairs.sort();
        Self(pairs.into())
    }

    /// The value of a label.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str())
    }

    /// The same labels and one more (or another value of one).
    #[must_use]
    pub fn with(&self, name: &str, value: &str) -> Self {
        let others = self.0.iter().filter(|(have, _)| have != name).cloned();
        Self::new(others.chain([(name.to_owned(), value.to_owned())]))
    }

    /// The same labels but one.
    #[must_use]
    pub fn without(&self, name: &str) -> Self {
        Self::new(self.0.iter().filter(|(have, _)| have != name).cloned())
    }

    /// Name and value of each label, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl From<&[proto::Label]> for Labels {
    fn from(labels: &[proto::Label]) -> Self {
        Self::new(labels.iter().map(|label| (label.name.as_str(), label.value.as_str())))
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{{", self.get("__name__").unwrap_or_default())?;
        for (nth, (name, value)) in self.iter().filter(|(name, _)| *name != "__name__").enumerate() {
            write!(f, "{}{name}={value:?}", if nth == 0 { "" } else { "," })?;
        }
        write!(f, "}}")
    }
}

#[cfg(test)]
mod tests {
    use super::Labels;

    #[test]
    fn prints_as_a_selector() {
        let labels = Labels::new([("job", "node"), ("__name__", "up"), ("A", "\"")]);
        assert_eq!(labels.to_string(), r#"up{A="\"",job="node"}"#);
        assert_eq!(labels.with("job", "app").without("A").to_string(), r#"up{job="app"}"#);
    }
}

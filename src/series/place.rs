//! Where a series belongs: its HA group and its target.
//!
//! Owns the reading of the group and target labels. Works once per series, at its birth, so it may allocate.

use super::{GroupKey, TargetKey, TenantHash, keyed_hash, labels, short_name, strong_hash};

/// Names of the labels that tell groups and targets apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlaceLabels {
    /// Labels whose values name an HA group.
    pub group: Vec<String>,
    /// Labels whose values, with those of the group, name a target.
    pub target: Vec<String>,
}

/// The group and the target of a series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its HA group.
    pub group: GroupKey,
    /// Values of the group labels joined by `/`, empty ones left out, [shortened](short_name): for people, not an identity.
    pub group_name: String,
    /// Its target.
    pub target: TargetKey,
    /// Whose series it is.
    pub tenant: TenantHash,
    /// True for the series `up`, with which Prometheus says whether a scrape succeeded.
    pub is_up: bool,
}

impl Default for PlaceLabels {
    fn default() -> Self {
        Self {
            group: vec!["cluster".to_owned(), "prometheus".to_owned()],
            target: vec!["job".to_owned(), "instance".to_owned()],
        }
    }
}

impl Place {
    /// Of canonical label bytes. A label that is absent counts as one with an empty value.
    #[must_use]
    pub fn of(canonical: &[u8], names: &PlaceLabels, tenant: TenantHash) -> Self {
        let value_of = |wanted: &String| {
            labels(canonical).find(|(name, _)| *name == wanted.as_bytes()).map_or(&[][..], |(_, value)| value)
        };
        let mut delimited = Vec::new();
        let mut group_name = String::new();
        let group = GroupKey::of(names.group.iter().map(value_of), tenant, &mut delimited);
        for name in &names.group {
            let value = value_of(name);
            if !value.is_empty() {
                if !group_name.is_empty() {
                    group_name.push('/');
                }
                group_name.push_str(&String::from_utf8_lossy(value));
            }
        }
        let group_name = short_name(&group_name).into_owned();
        for name in &names.target {
            put_value(&mut delimited, value_of(name));
        }
        delimited.push(b't');
        let target = TargetKey(keyed_hash(&delimited));
        let is_up = labels(canonical).any(|(name, value)| name == b"__name__" && value == b"up");
        Self { group, group_name, target, tenant, is_up }
    }
}

impl GroupKey {
    /// Of the values of the group labels, in the order in which these are configured; empty where there is none. What is hashed is
    /// left in `delimited`.
    pub fn of<'a>(
        values: impl Iterator<Item = &'a [u8]>,
        tenant: TenantHash,
        delimited: &mut Vec<u8>,
    ) -> Self {
        delimited.clear();
        values.for_each(|value| put_value(delimited, value));
        // The tenant goes in as bytes, not by a mix as in the key of a series: nothing is gained here by hashing less.
        delimited.extend_from_slice(&tenant.0.to_le_bytes());
        Self(strong_hash(delimited))
    }
}

fn put_value(out: &mut Vec<u8>, value: &[u8]) {
    out.extend_from_slice(&(value.len() as u64).to_le_bytes());
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::encode_label;

    fn place(pairs: &[(&str, &str)], tenant: &str) -> Place {
        let mut canonical = Vec::new();
        for (name, value) in pairs {
            encode_label(&mut canonical, name.as_bytes(), value.as_bytes());
        }
        Place::of(&canonical, &PlaceLabels::default(), TenantHash::of(tenant))
    }

    #[test]
    fn a_scraped_series() {
        let up = [
            ("__name__", "up"),
            ("cluster", "e2e"),
            ("instance", "h:1"),
            ("job", "n"),
            ("prometheus", "m/k8s"),
        ];
        let found = place(&up, "");
        assert_eq!(found.group_name, "e2e/m/k8s");
        assert!(found.is_up);
        let mut load = up;
        load[0].1 = "node_load1";
        let other = place(&load, "");
        assert!(!other.is_up);
        assert_eq!((other.group, other.target), (found.group, found.target));
    }

    #[test]
    fn absent_labels_are_left_out() {
        assert_eq!(place(&[("__name__", "x")], "").group_name, "");
        assert_eq!(place(&[("__name__", "x"), ("prometheus", "p")], "").group_name, "p");
    }

    #[test]
    fn values_are_delimited() {
        let one = place(&[("cluster", "ab"), ("prometheus", "c")], "");
        let other = place(&[("cluster", "a"), ("prometheus", "bc")], "");
        assert_ne!(one.group, other.group);
        let joined = place(&[("cluster", "a/b")], "");
        let split = place(&[("cluster", "a"), ("prometheus", "b")], "");
        assert_eq!(joined.group_name, split.group_name);
        assert_ne!(joined.group, split.group);
        let job = place(&[("job", "a")], "");
        let instance = place(&[("instance", "a")], "");
        assert_ne!(job.target, instance.target);
        assert_eq!(job.group, instance.group);
    }

    #[test]
    fn tenants_are_worlds_apart() {
        let one = place(&[("cluster", "a")], "");
        let other = place(&[("cluster", "a")], "other");
        assert_eq!(one.group_name, other.group_name);
        assert_ne!(one.group, other.group);
        assert_ne!(one.target, other.target);
    }
}

//! Groups and replicas as the metrics show them. Pure.

use crate::overhead::{label, value};
use prometheus::proto::{Metric, MetricFamily};
use std::collections::BTreeMap;

/// What is counted of a group. Numbers are since the start.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Group {
    /// By the replica label; the empty name is that of series without one.
    pub(crate) replicas: BTreeMap<String, Replica>,
    /// By reason; those that there were.
    pub(crate) takeovers: BTreeMap<String, f64>,
    pub(crate) moves: f64,
    pub(crate) filled: f64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Replica {
    pub(crate) received: f64,
    pub(crate) forwarded: f64,
    pub(crate) duplicate: f64,
    pub(crate) refused: f64,
    pub(crate) rejected: f64,
    pub(crate) failed: f64,
    pub(crate) waits: f64,
    pub(crate) owned: f64,
    /// Its newest sample time, in seconds since 1970; 0 = none.
    pub(crate) last_seen_s: f64,
}

/// All groups by their names.
pub(crate) fn groups(families: &[MetricFamily]) -> BTreeMap<String, Group> {
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for family in families {
        for metric in family.get_metric() {
            if let Some(name) = label(metric, "group") {
                note(groups.entry(name.to_owned()).or_default(), family.name(), metric);
            }
        }
    }
    groups.retain(|_, group| !group.replicas.is_empty());
    groups
}

fn note(group: &mut Group, family: &str, metric: &Metric) {
    let value = value(metric);
    let reason = label(metric, "reason").unwrap_or_default();
    match family {
        "promdedup_takeovers_total" if value > 0.0 => {
            *group.takeovers.entry(reason.to_owned()).or_default() += value;
        }
        "promdedup_target_moves_total" => group.moves += value,
        "promdedup_samples_filled_total" => group.filled += value,
        _ => {}
    }
    let Some(name) = label(metric, "replica") else { return };
    let mut replica =
        |of: fn(&mut Replica) -> &mut f64| *of(group.replicas.entry(name.to_owned()).or_default()) += value;
    match (family, label(metric, "outcome").unwrap_or_default()) {
        ("promdedup_samples_received_total", _) => replica(|r| &mut r.received),
        ("promdedup_samples_total", "forwarded") => replica(|r| &mut r.forwarded),
        ("promdedup_samples_total", "duplicate") => replica(|r| &mut r.duplicate),
        ("promdedup_samples_total", "refused") => replica(|r| &mut r.refused),
        ("promdedup_samples_total", "rejected") => replica(|r| &mut r.rejected),
        ("promdedup_samples_total", "failed") => replica(|r| &mut r.failed),
        ("promdedup_waits_total", _) => replica(|r| &mut r.waits),
        ("promdedup_owned_series", _) => replica(|r| &mut r.owned),
        ("promdedup_replica_last_seen_timestamp_seconds", _) => replica(|r| &mut r.last_seen_s),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::{IntGaugeVec, Opts, Registry};

    #[test]
    fn what_belongs_to_a_replica_is_told_of_it() {
        let registry = Registry::new();
        let set = |name: &str, labels: &[&str], children: &[(&[&str], i64)]| {
            let family = IntGaugeVec::new(Opts::new(name, "x"), labels).unwrap();
            children.iter().for_each(|(values, value)| family.with_label_values(values).set(*value));
            registry.register(Box::new(family)).unwrap();
        };
        set(
            "promdedup_samples_received_total",
            &["group", "replica"],
            &[(&["g", "a"], 30), (&["g", "b"], 20), (&["h", ""], 1)],
        );
        let outcomes: &[(&[&str], i64)] = &[
            (&["g", "a", "forwarded"], 29),
            (&["g", "a", "refused"], 1),
            (&["g", "b", "duplicate"], 18),
            (&["g", "b", "rejected"], 1),
            (&["g", "b", "failed"], 1),
        ];
        set("promdedup_samples_total", &["group", "replica", "outcome"], outcomes);
        set(
            "promdedup_waits_total",
            &["group", "replica", "reason"],
            &[(&["g", "b", "jump"], 2), (&["g", "b", "first_contact"], 3)],
        );
        set("promdedup_owned_series", &["group", "replica"], &[(&["g", "a"], 7)]);
        set(
            "promdedup_takeovers_total",
            &["group", "reason"],
            &[(&["g", "silent"], 4), (&["g", "align"], 0)],
        );
        set("promdedup_target_moves_total", &["group"], &[(&["g"], 5)]);
        set("promdedup_samples_filled_total", &["group"], &[(&["g"], 6), (&["nobody's"], 6)]);
        let groups = groups(&registry.gather());
        assert_eq!(groups.keys().collect::<Vec<_>>(), ["g", "h"]);
        let a = Replica { received: 30.0, forwarded: 29.0, refused: 1.0, owned: 7.0, ..Replica::default() };
        let b = Replica {
            received: 20.0,
            duplicate: 18.0,
            rejected: 1.0,
            failed: 1.0,
            waits: 5.0,
            ..Replica::default()
        };
        let replicas = BTreeMap::from([("a".to_owned(), a), ("b".to_owned(), b)]);
        let takeovers = BTreeMap::from([("silent".to_owned(), 4.0)]);
        assert_eq!(groups["g"], Group { replicas, takeovers, moves: 5.0, filled: 6.0 });
    }
}

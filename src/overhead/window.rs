//! What is remembered, and for whom, as seen by `/metrics`.
//!
//! Reads the window when it is asked and keeps nothing. Labels are bounded like the pipeline's. Refuses to change anything.

use super::names::{OTHER, is_named};
use crate::window::Window;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, IntCounter, IntGauge, IntGaugeVec, Opts, Registry};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

/// The gauges of the window.
struct WindowGauges {
    window: Arc<Window>,
    owned: IntGaugeVec,
    last_seen: GaugeVec,
    series: IntGauge,
    series_max: IntGauge,
    bytes: IntGauge,
    evictions: IntCounter,
    full: IntCounter,
    /// One scrape at a time, or two would add the same difference to a counter.
    scrape: Mutex<()>,
}

/// Registers the metrics of the window.
///
/// # Errors
/// When one is registered already.
pub fn register(registry: &Registry, window: Arc<Window>) -> Result<(), prometheus::Error> {
    let replica = ["group", "replica"];
    let owned = Opts::new("promdedup_owned_series", "Series that a replica owns now.");
    let last_seen = Opts::new(
        "promdedup_replica_last_seen_timestamp_seconds",
        "Newest sample time that a replica has shown.",
    );
    registry.register(Box::new(WindowGauges {
        window,
        owned: IntGaugeVec::new(owned, &replica)?,
        last_seen: GaugeVec::new(last_seen, &replica)?,
        series: IntGauge::new("promdedup_window_series", "Series that are remembered.")?,
        series_max: IntGauge::new("promdedup_window_series_max", "Most series that are remembered.")?,
        bytes: IntGauge::new("promdedup_window_bytes", "Bytes allocated for what is remembered.")?,
        evictions: IntCounter::new("promdedup_window_evictions_total", "Series forgotten for being idle, or for those of another tenant in a full window.")?,
        full: IntCounter::new(
            "promdedup_window_full_total",
            "Times that a series found no room (series, groups or replicas) and went on with its replica label.",
        )?,
        scrape: Mutex::new(()),
    }))
}

impl Collector for WindowGauges {
    fn desc(&self) -> Vec<&Desc> {
        let Self { owned, last_seen, series, series_max, bytes, evictions, full, .. } = self;
        let parts: [&dyn Collector; 7] = [owned, last_seen, series, series_max, bytes, evictions, full];
        parts.into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let _one = self.scrape.lock().unwrap_or_else(PoisonError::into_inner);
        self.read_groups();
        self.series.set(self.window.series() as i64);
        self.series_max.set(self.window.series_max() as i64);
        self.bytes.set(self.window.bytes() as i64);
        self.evictions.inc_by(self.window.evictions().saturating_sub(self.evictions.get()));
        self.full.inc_by(self.window.full().saturating_sub(self.full.get()));
        let Self { owned, last_seen, series, series_max, bytes, evictions, full, .. } = self;
        let parts: [&dyn Collector; 7] = [owned, last_seen, series, series_max, bytes, evictions, full];
        parts.into_iter().flat_map(Collector::collect).collect()
    }
}

impl WindowGauges {
    /// Equal names (groups of several tenants, or all beyond the bound) add up; of times the newest counts.
    fn read_groups(&self) {
        let mut met = HashMap::new();
        let mut gone = HashSet::new();
        // Those beyond the bound may be many: they are put together first.
        let mut others = None;
        self.window.groups().each(|group| {
            group.each_replica(|r, replica| {
                // What has no replica label is owned by nobody.
                if replica.name().is_empty() {
                    return;
                }
                let named = is_named(group.number(), 0);
                let labels = match is_named(group.number(), r.0) {
                    true => [group.name(), replica.name()],
                    // As the pipeline counts what it brings.
                    false => [if named { group.name() } else { OTHER }, OTHER],
                };
                // Another instance has it now, and shows what there is of it.
                if group.is_forgotten() {
                    gone.insert(labels.map(str::to_owned));
                    return;
                }
                let shown: &mut Shown = match named {
                    true => met.entry(labels.map(str::to_owned)).or_default(),
                    false => others.get_or_insert_default(),
                };
                shown.owned += replica.owned();
                shown.seen_ms = shown.seen_ms.max(replica.last_seen_ms());
            });
        });
        met.extend(others.map(|others| ([OTHER, OTHER].map(str::to_owned), others)));
        for (labels, Shown { owned, seen_ms }) in &met {
            self.owned.with_label_values(labels).set(*owned);
            // Of whom everything was refused there is no time.
            match seen_ms {
                Some(ms) => self.last_seen.with_label_values(labels).set(*ms as f64 / 1000.0),
                None => drop(self.last_seen.remove_label_values(labels)),
            }
        }
        for labels in gone.iter().filter(|labels| !met.contains_key(*labels)) {
            // Those that have never been shown are not there.
            let _ = self.owned.remove_label_values(labels);
            let _ = self.last_seen.remove_label_values(labels);
        }
    }
}

/// What is shown of the replicas of one name.
#[derive(Debug, Default)]
struct Shown {
    owned: i64,
    seen_ms: Option<i64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::{GroupKey, TenantHash};
    use prometheus::proto::{LabelPair, Metric};

    #[test]
    fn groups_of_one_name_add_up_and_are_read_anew_each_time() {
        let window = Arc::new(Window::new(10));
        let registry = Registry::new();
        register(&registry, Arc::clone(&window)).unwrap();
        for (key, seen) in [(1, 5_000), (2, 7_500)] {
            let number = window.meet_group(GroupKey(key), "e2e/k8s", TenantHash(0), 0).unwrap().number();
            let id = window.replica_number(number, "a").unwrap();
            window.groups().group(number).unwrap().replica(id).unwrap().see(seen, seen);
        }
        for _ in 0..2 {
            let families = registry.gather();
            let family = |name| families.iter().find(|f| f.name() == name).unwrap().get_metric();
            let seen = family("promdedup_replica_last_seen_timestamp_seconds");
            assert_eq!(seen.len(), 1);
            assert_eq!(seen[0].get_gauge().get_value(), 7.5);
            assert_eq!(family("promdedup_window_series_max")[0].get_gauge().get_value(), 10.0);
            assert_eq!(family("promdedup_owned_series")[0].get_gauge().get_value(), 0.0);
        }
    }

    /// All of it was refused, or it has been forgotten since. 0 would be a time, and old.
    #[test]
    fn a_replica_that_has_shown_no_time_has_none() {
        let window = Arc::new(Window::new(10));
        let registry = Registry::new();
        register(&registry, Arc::clone(&window)).unwrap();
        let group = window.meet_group(GroupKey(1), "g", TenantHash(0), 0).unwrap();
        let id = window.replica_number(group.number(), "a").unwrap();
        let there = |name: &str| registry.gather().iter().any(|family| family.name() == name);
        for seen in [false, true, false] {
            if seen {
                group.replica(id).unwrap().see(5_000, 5_000);
            } else {
                window.forget_group(GroupKey(1), 0, 10);
                group.meet(0);
            }
            assert!(there("promdedup_owned_series"), "{seen}");
            assert_eq!(there("promdedup_replica_last_seen_timestamp_seconds"), seen);
        }
    }

    /// Of a group that has a name the replicas that have none are its own: what they bring is counted under that, too.
    #[test]
    fn replicas_beyond_the_bound_of_names_add_up_within_their_group() {
        let window = Arc::new(Window::new(10));
        let registry = Registry::new();
        register(&registry, Arc::clone(&window)).unwrap();
        for (key, group) in [(1, "g"), (2, "h")] {
            let number = window.meet_group(GroupKey(key), group, TenantHash(0), 0).unwrap().number();
            for replica in 0..10 {
                let id = window.replica_number(number, &format!("r{replica}")).unwrap();
                window.groups().group(number).unwrap().replica(id).unwrap().see(replica * 1_000, 0);
            }
        }
        let families = registry.gather();
        let names = ["_other", "r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7"];
        let expected: Vec<_> = ["g", "h"].iter().flat_map(|g| names.map(|r| vec![*g, r])).collect();
        for name in ["promdedup_owned_series", "promdedup_replica_last_seen_timestamp_seconds"] {
            let family = families.iter().find(|family| family.name() == name).unwrap().get_metric();
            let labels = |metric| Metric::get_label(metric).iter().map(LabelPair::value).collect();
            let shown: Vec<Vec<_>> = family.iter().map(labels).collect();
            assert_eq!(shown, expected, "{name}");
        }
        let seen = families.iter().find(|family| family.name().contains("last_seen")).unwrap().get_metric();
        assert_eq!(seen[0].get_gauge().get_value(), 9.0, "the newest of them");
    }

    /// Beyond the bound of names there is one for all the rest.
    #[test]
    fn groups_beyond_the_bound_of_names_add_up_as_one() {
        let window = Arc::new(Window::new(10));
        let registry = Registry::new();
        register(&registry, Arc::clone(&window)).unwrap();
        for group in 0..1_010_i64 {
            let number = window
                .meet_group(GroupKey(group as u128), &format!("g{group}"), TenantHash(0), 0)
                .unwrap()
                .number();
            let id = window.replica_number(number, "a").unwrap();
            window.groups().group(number).unwrap().replica(id).unwrap().see(group * 1_000, 0);
        }
        for _ in 0..2 {
            let families = registry.gather();
            let other = |name: &str| {
                let family = families.iter().find(|family| family.name() == name).unwrap().get_metric();
                assert_eq!(family.len(), 1_001);
                let is_other =
                    |metric: &&Metric| metric.get_label().iter().all(|label| label.value() == OTHER);
                family.iter().find(is_other).unwrap().get_gauge().get_value()
            };
            assert_eq!(other("promdedup_owned_series"), 0.0);
            assert_eq!(other("promdedup_replica_last_seen_timestamp_seconds"), 1_009.0);
        }
    }
}

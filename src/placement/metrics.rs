//! What is counted of PLACEMENT. Per instance, without labels: groups are named by other rooms' metrics.

use prometheus::{Gauge, IntCounter, IntGauge, Registry};

/// Resolved counters.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub(super) groups: IntGauge,
    pub(super) unconfirmed: IntGauge,
    pub(super) load: Gauge,
    pub(super) instances: IntGauge,
    pub(super) database_up: IntGauge,
    pub(super) claims: IntCounter,
    pub(super) given: IntCounter,
    pub(super) lost: IntCounter,
    pub(super) statements: IntCounter,
    pub(super) statement_errors: IntCounter,
}

impl Metrics {
    /// Registers them.
    ///
    /// # Errors
    /// When one is registered already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone())).map(|()| counter)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone())).map(|()| gauge)
        };
        let load = Gauge::new(
            "promdedup_placement_load_samples_per_second",
            "Samples a second of this instance's groups, duplicates included: what it is balanced by.",
        )?;
        registry.register(Box::new(load.clone()))?;
        Ok(Self {
            groups: gauge("promdedup_placement_groups", "HA groups that are this instance's.")?,
            unconfirmed: gauge(
                "promdedup_placement_unconfirmed_groups",
                "Of these, those that are served here without the coordination database having said so.",
            )?,
            load,
            instances: gauge(
                "promdedup_placement_instances",
                "Instances that share the groups out and are alive, this one included, as it last heard.",
            )?,
            database_up: gauge(
                "promdedup_placement_database_up",
                "1 while the coordination database answers; 0: placement stays as it is.",
            )?,
            claims: counter(
                "promdedup_placement_claims_total",
                "Groups that were nobody's and became this instance's.",
            )?,
            given: counter(
                "promdedup_placement_given_total",
                "Groups that this instance gave to another one.",
            )?,
            lost: counter(
                "promdedup_placement_lost_total",
                "Groups that turned out to be another instance's while this one served them.",
            )?,
            statements: counter(
                "promdedup_placement_statements_total",
                "Statements to the coordination database.",
            )?,
            statement_errors: counter(
                "promdedup_placement_statement_errors_total",
                "Statements to the coordination database that came to nothing.",
            )?,
        })
    }
}

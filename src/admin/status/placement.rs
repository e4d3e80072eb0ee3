//! Who has which group, as the status tells it: what the keeper shows, and what is counted of it.
//!
//! The database is named by host, port and name; whatever else its address says stays out. So do the secret between instances and
//! whatever would be needed to join them.

use super::by;
use crate::overhead::value;
use crate::placement::{DatabaseHealth, Keeper, OtherInstance, OwnedGroup, Shown};
use prometheus::proto::MetricFamily;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most groups and instances that the JSON has. The page has fewer.
const GROUPS_MAX: usize = 1_000;
const INSTANCES_MAX: usize = 1_000;

/// Where it is read.
#[derive(Debug)]
pub(in crate::admin) struct Source {
    pub(in crate::admin) keeper: Arc<Keeper>,
    /// How the database is called. Holds no credentials.
    pub(in crate::admin) database: String,
}

/// Placement at one moment.
#[derive(Debug)]
pub(in crate::admin) struct PlacementView {
    pub(in crate::admin) shown: Shown,
    pub(in crate::admin) database: String,
    pub(in crate::admin) counted: Counted,
}

/// Since the start.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::admin) struct Counted {
    pub(in crate::admin) claims: f64,
    pub(in crate::admin) given: f64,
    pub(in crate::admin) lost: f64,
    pub(in crate::admin) statements: f64,
    pub(in crate::admin) statement_errors: f64,
    /// By what came of them; those that there were.
    pub(in crate::admin) hops_sent: BTreeMap<String, f64>,
    pub(in crate::admin) hops_received: f64,
}

impl Source {
    pub(super) fn now(&self, families: &[MetricFamily]) -> PlacementView {
        let shown = self.keeper.shown(GROUPS_MAX, INSTANCES_MAX);
        PlacementView { shown, database: self.database.clone(), counted: Counted::of(families) }
    }
}

impl Counted {
    fn of(families: &[MetricFamily]) -> Self {
        let one = |name: &str| {
            let family = families.iter().find(|family| family.name() == name);
            family.and_then(|family| family.get_metric().first()).map_or(0.0, value)
        };
        Self {
            claims: one("promdedup_placement_claims_total"),
            given: one("promdedup_placement_given_total"),
            lost: one("promdedup_placement_lost_total"),
            statements: one("promdedup_placement_statements_total"),
            statement_errors: one("promdedup_placement_statement_errors_total"),
            hops_sent: by(families, "promdedup_hops_total", "result"),
            hops_received: one("promdedup_hops_received_total"),
        }
    }
}

impl PlacementView {
    pub(super) fn json(&self) -> Value {
        let Self { shown, database, counted } = self;
        json!({
            "instance": {
                "id": &*shown.me.id,
                "url": &*shown.me.url,
                "samples_per_second": shown.samples_per_second,
                "draining": shown.draining,
            },
            "database": health(database, &shown.database, counted),
            "other_instances": shown.others.iter().map(other).collect::<Vec<_>>(),
            "other_instances_left_out": shown.others_left_out,
            "groups": shown.groups.iter().map(owned).collect::<Vec<_>>(),
            "groups_left_out": shown.groups_left_out,
            "changes": { "claimed": counted.claims, "given": counted.given, "lost": counted.lost },
            "hops": { "sent": counted.hops_sent, "received": counted.hops_received },
        })
    }
}

fn health(name: &str, health: &DatabaseHealth, counted: &Counted) -> Value {
    json!({
        "name": name,
        "up": health.up,
        "up_or_down_seconds": health.lasting.as_secs_f64(),
        "heartbeat_age_seconds": health.heartbeat.map(|age| age.as_secs_f64()),
        "error": health.error,
        "statements": counted.statements,
        "statement_errors": counted.statement_errors,
    })
}

fn other(other: &OtherInstance) -> Value {
    json!({
        "id": &*other.peer.id,
        "url": &*other.peer.url,
        "samples_per_second": other.samples_per_second,
        "draining": other.draining,
        "groups_known_here": other.groups_known,
        "hops_failed_in_a_row": other.hops_failed,
    })
}

fn owned(group: &OwnedGroup) -> Value {
    json!({
        "group": group.name,
        "tenant": group.tenant,
        "epoch": group.epoch,
        "held_seconds": group.held.as_secs_f64(),
        "samples_per_second": group.samples_per_second,
        "holding": group.holding.name(),
    })
}

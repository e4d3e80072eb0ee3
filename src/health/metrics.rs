//! The health of groups as `/metrics` shows it. Labels are bounded like the pipeline's. Keeps nothing: it reads what the
//! last look has found.

use super::{Health, Reason};
use crate::overhead::{OTHER, is_named};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, IntGaugeVec, Opts};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

pub(super) struct HealthGauges {
    health: Arc<Health>,
    problems: IntGaugeVec,
    alone: GaugeVec,
    /// One scrape at a time, or one would see what the other has reset.
    scrape: Mutex<()>,
}

impl HealthGauges {
    pub(super) fn new(health: Arc<Health>) -> Result<Self, prometheus::Error> {
        let problems = Opts::new(
            "promdedup_group_health",
            "1 while a group has the problem: one_replica, labels_differ, no_replica_label, clock.",
        );
        let alone = Opts::new(
            "promdedup_group_lone_series_ratio",
            "Part of the living series of a group that only one of its replicas has.",
        );
        Ok(Self {
            health,
            problems: IntGaugeVec::new(problems, &["group", "reason"])?,
            alone: GaugeVec::new(alone, &["group"])?,
            scrape: Mutex::new(()),
        })
    }

    /// Of equal names (groups of several tenants, or all beyond the bound) the worst counts.
    fn read(&self) {
        let mut met = HashSet::new();
        // Those beyond the bound may be many: they are put together before any gauge is looked for.
        let mut others: Option<([bool; Reason::ALL.len()], f64)> = None;
        self.health.each(|group, has, alone| {
            if is_named(group.number(), 0) {
                return self.show(&mut met, group.name(), has, alone);
            }
            let (have, most) = others.get_or_insert_default();
            have.iter_mut().zip(has).for_each(|(have, has)| *have |= has);
            *most = most.max(alone);
        });
        if let Some((have, most)) = others {
            self.show(&mut met, OTHER, have, most);
        }
    }

    fn show(&self, met: &mut HashSet<String>, name: &str, has: [bool; Reason::ALL.len()], alone: f64) {
        let first = met.insert(name.to_owned());
        for (reason, has) in Reason::ALL.into_iter().zip(has) {
            let gauge = self.problems.with_label_values(&[name, reason.name()]);
            let before = if first { 0 } else { gauge.get() };
            gauge.set(before.max(i64::from(has)));
        }
        let gauge = self.alone.with_label_values(&[name]);
        let before = if first { 0.0 } else { gauge.get() };
        gauge.set(alone.max(before));
    }
}

impl Collector for HealthGauges {
    fn desc(&self) -> Vec<&Desc> {
        self.problems.desc().into_iter().chain(self.alone.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let _one = self.scrape.lock().unwrap_or_else(PoisonError::into_inner);
        self.read();
        self.problems.collect().into_iter().chain(self.alone.collect()).collect()
    }
}

//! The verdict of the demo in observe mode: everything arrived as it was sent, and the figures of what deduplication would have
//! done are those of the story. Pure.

use super::proxy::Glance;
use super::report::{Guarantee, cpu, dropped, lines, none, whole};
use crate::command::grouped;
use crate::stand_in::Bodies;
use crate::stand_in::prometheus::Stats;
use crate::stand_in::thanos::Violations;

/// How far the share of duplicates may be from that of the story, whose acts begin and end within an interval.
const SHARE_TOLERANCE: f64 = 0.1;
/// Likewise of bytes: batches differ.
const BYTES_TOLERANCE: f64 = 0.15;

/// Everything the verdict rests on.
pub(super) struct Observed {
    /// Whether every sender got an answer for all it had.
    pub(super) settled: bool,
    pub(super) senders: Vec<(String, Stats)>,
    /// Bodies of all senders.
    pub(super) sent: Bodies,
    pub(super) acknowledged: Bodies,
    pub(super) arrived: Bodies,
    pub(super) violations: Violations,
    pub(super) proxy: Glance,
}

impl Observed {
    pub(super) fn guarantees(&self) -> Vec<Guarantee> {
        let proxy = &self.proxy;
        let outcomes = proxy.forwarded + proxy.duplicates + proxy.refused + proxy.rejected + proxy.failed;
        let unrecorded = self.sent.beyond() + self.acknowledged.beyond() + self.arrived.beyond();
        let expected = self.share_of_the_story();
        let duplicates = proxy.duplicates / proxy.received.max(1.0);
        let saved = saved(proxy);
        vec![
            Guarantee {
                promise: "bodies that arrived byte for byte (all)",
                measured: format!(
                    "{} of {}",
                    grouped(self.arrived.len() as u64),
                    grouped(self.sent.len() as u64)
                ),
                holds: !self.arrived.is_empty() && self.acknowledged.missing_in(&self.arrived) == 0,
            },
            none("bodies that arrived and nobody sent", self.arrived.missing_in(&self.sent)),
            none("bodies beyond what is recorded", unrecorded),
            none("samples refused to a sender", dropped(&self.senders)),
            Guarantee {
                promise: "replica labels upstream (all)",
                measured: grouped(self.violations.replica_label),
                holds: self.violations.replica_label > 0,
            },
            Guarantee {
                promise: "every sample has one outcome",
                measured: format!("{} of {}", whole(outcomes), whole(proxy.received)),
                holds: outcomes == proxy.received && proxy.received > 0.0,
            },
            Guarantee {
                promise: "would-be duplicates, share of samples",
                measured: format!("{duplicates:.3} (story: {expected:.3})"),
                holds: (duplicates - expected).abs() <= SHARE_TOLERANCE,
            },
            Guarantee {
                promise: "would-be savings, share of bytes",
                measured: format!("{saved:.3} (story: {expected:.3})"),
                holds: (saved - expected).abs() <= BYTES_TOLERANCE,
            },
            Guarantee {
                promise: "every sender has its answers",
                measured: if self.settled { "yes" } else { "no" }.to_owned(),
                holds: self.settled,
            },
        ]
    }

    /// All replicas bring the same; one of them is away for a third of the time, and one of them would do.
    fn share_of_the_story(&self) -> f64 {
        let replicas = self.senders.len() as f64;
        1.0 - 1.0 / (replicas - 1.0 / 3.0)
    }

    pub(super) fn table(&self) -> Vec<String> {
        let proxy = &self.proxy;
        let rows = [
            ("samples in", whole(proxy.received)),
            (
                "  would be forwarded",
                format!("{} (and {} filled in)", whole(proxy.forwarded), whole(proxy.filled)),
            ),
            ("  would be dropped as duplicates", whole(proxy.duplicates)),
            ("bytes in", whole(proxy.bytes_in)),
            ("bytes out", format!("{} (everything, as it came)", whole(proxy.bytes_out))),
            ("bodies", whole(proxy.bodies_in)),
            ("  would be", format!("{} ({:.1} % saved)", whole(proxy.bodies_out), 100.0 * saved(proxy))),
            ("CPU seconds", cpu(proxy)),
            ("takeovers of series", whole(proxy.takeovers)),
            ("targets that moved", whole(proxy.target_moves)),
            ("waits", whole(proxy.waits)),
        ];
        lines(&rows, &self.senders, &self.guarantees())
    }
}

fn saved(proxy: &Glance) -> f64 {
    1.0 - proxy.bodies_out / proxy.bodies_in.max(1.0)
}

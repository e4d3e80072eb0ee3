//! What a story has measured: what the senders and the proxy counted of it, as a table.

use crate::prometheus::Prometheus;
use crate::proxy::Metrics;
use crate::upstream::Upstream;
use crate::verdict::Findings;
use std::fmt::Write as _;
use std::time::Duration;

/// What the senders of a replica counted in one life.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Senders {
    sent: f64,
    retried: f64,
    /// Answered with something that is not tried again.
    failed: f64,
    /// Given up before they were sent: by relabelling, by age, or because the series of a sample is not known any more.
    dropped: f64,
}

impl Senders {
    pub(crate) async fn of(replica: &Prometheus) -> Self {
        let metrics = replica.metrics().await;
        let sum = |what: &str, ending: &str| {
            metrics.sum(&format!("prometheus_remote_storage_{what}{ending}_total"), &[])
        };
        let all = |ending| ["samples", "exemplars", "metadata"].map(|what| sum(what, ending)).iter().sum();
        Self {
            sent: sum("samples", ""),
            retried: sum("samples", "_retried"),
            failed: all("_failed"),
            dropped: all("_dropped"),
        }
    }

    /// With those of another life, or of another replica.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            sent: self.sent + other.sent,
            retried: self.retried + other.retried,
            failed: self.failed + other.failed,
            dropped: self.dropped + other.dropped,
        }
    }

    pub(crate) fn problems(&self) -> Vec<String> {
        let Self { failed, dropped, .. } = self;
        if failed + dropped == 0.0 {
            return Vec::new();
        }
        vec![format!("{failed} items failed and {dropped} dropped by the senders")]
    }
}

pub(crate) fn outcome(metrics: &Metrics, outcome: &str) -> f64 {
    metrics.sum("promdedup_samples_total", &[("outcome", outcome)])
}

/// The table. `metrics` of the proxy's last life.
pub(crate) async fn figures(
    upstream: &Upstream,
    findings: &Findings,
    metrics: &Metrics,
    senders: Senders,
    lasted: Duration,
) -> String {
    let whole = |name: &str, labels: &[(&str, &str)]| metrics.sum(name, labels);
    let bytes =
        |side, direction| whole("promdedup_network_bytes_total", &[("side", side), ("direction", direction)]);
    let (taken, given) = (bytes("sender", "received"), bytes("upstream", "sent"));
    let body = |stage| whole("promdedup_body_bytes_total", &[("stage", stage)]);
    let hole = &findings.widest_hole;
    let by_reason = ["silent", "released", "ended", "align"]
        .map(|reason| format!("{} {reason}", whole("promdedup_takeovers_total", &[("reason", reason)])));
    let rows = [
        ("seconds", format!("{:.1}", lasted.as_secs_f64())),
        ("samples in", format!("{}", whole("promdedup_samples_received_total", &[]))),
        ("  forwarded", format!("{}", outcome(metrics, "forwarded"))),
        ("  duplicates", format!("{}", outcome(metrics, "duplicate"))),
        ("  failed, then retried", format!("{}", outcome(metrics, "failed"))),
        ("filled in", format!("{}", whole("promdedup_samples_filled_total", &[]))),
        ("series, samples judged", format!("{}, {}", findings.series, findings.samples)),
        ("  for each expected one", format!("{:.3}", findings.density())),
        ("  of one replica", format!("{}", findings.of_one_replica)),
        ("stale markers stored", format!("{}", findings.stale_markers)),
        ("exemplars stored", format!("{}", upstream.exemplars().await)),
        ("widest hole, intervals", format!("{:.3} in {}", hole.intervals, hole.series)),
        ("takeovers of series", by_reason.join(", ")),
        ("targets that moved", format!("{}", whole("promdedup_target_moves_total", &[]))),
        (
            "waits, benign conflicts",
            format!(
                "{}, {}",
                whole("promdedup_waits_total", &[]),
                whole("promdedup_benign_conflicts_total", &[])
            ),
        ),
        ("histograms whole, torn", format!("{}, {}", findings.whole_histograms, findings.torn_histograms)),
        ("samples sent, retried", format!("{}, {}", senders.sent, senders.retried)),
        ("bytes in, out", format!("{taken}, {given} ({:.1} % saved)", 100.0 * (1.0 - given / taken))),
        ("  bodies", format!("{}, {}", body("compressed_in"), body("compressed_out"))),
    ];
    let mut table = format!("into {}\n", upstream.name());
    for (name, value) in rows {
        let _ = writeln!(table, "  {name:<26} {value}");
    }
    table
}

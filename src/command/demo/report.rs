//! What the demo says: the live line, the final table, the verdict of each guarantee. Pure.

use super::ProxyAddresses;
use super::proxy::Glance;
use crate::command::grouped;
use crate::stand_in::Findings;
use crate::stand_in::prometheus::Stats;
use crate::stand_in::thanos::{Thanos, Totals, Violations};
use std::net::SocketAddr;
use std::time::Duration;

/// Widest hole that is promised, in intervals, and the jitter of Prometheus' timestamps at both ends of it (1 % each).
pub(super) const HOLE_MAX: f64 = 1.5 + 0.02;
/// Faults in the story: a death and a return.
const FAULTS: f64 = 2.0;

/// Everything the verdict rests on.
pub(super) struct Evidence {
    pub(super) elapsed: Duration,
    pub(super) interval: Duration,
    pub(super) expected_series: u64,
    /// Whether every sender got an answer for all it had.
    pub(super) settled: bool,
    pub(super) senders: Vec<(String, Stats)>,
    pub(super) findings: Findings,
    pub(super) violations: Violations,
    pub(super) totals: Totals,
    pub(super) proxy: Glance,
}

/// One promise and whether it held.
#[derive(Debug)]
pub(super) struct Guarantee {
    pub(super) promise: &'static str,
    pub(super) measured: String,
    pub(super) holds: bool,
}

impl Evidence {
    pub(super) fn guarantees(&self) -> Vec<Guarantee> {
        let (found, seen, proxy) = (&self.findings, &self.violations, &self.proxy);
        let outcomes = proxy.forwarded + proxy.duplicates + proxy.refused + proxy.rejected + proxy.failed;
        let (density, density_range) = self.density();
        vec![
            Guarantee {
                promise: "widest hole, intervals (at most 1.5)",
                measured: format!("{:.2}", found.widest_hole.intervals),
                holds: found.widest_hole.intervals > 0.0 && found.widest_hole.intervals <= HOLE_MAX,
            },
            none("samples out of order", seen.out_of_order + seen.out_of_bounds + seen.too_old),
            none("duplicate timestamps", seen.duplicate_timestamp + seen.vanished + found.not_rising),
            none(
                "replica labels downstream",
                seen.replica_label + found.replica_labels + seen.replica_header,
            ),
            none("series with bad labels", seen.bad_labels),
            none("stored samples that nobody sent", found.invented),
            none("acknowledged samples lost", found.lost),
            none("samples refused to a sender", dropped(&self.senders)),
            Guarantee {
                promise: "series stored (all)",
                measured: format!("{} of {}", grouped(found.series), grouped(self.expected_series)),
                holds: found.series == self.expected_series && found.series_missing == 0,
            },
            Guarantee {
                promise: "samples stored / expected of one replica",
                measured: format!("{density:.3}"),
                holds: density_range.contains(&density),
            },
            Guarantee {
                promise: "every sample has one outcome",
                measured: format!("{} of {}", whole(outcomes), whole(proxy.received)),
                holds: outcomes == proxy.received && proxy.received > 0.0,
            },
            Guarantee {
                promise: "forwarded + filled = stored",
                measured: format!(
                    "{} of {}",
                    whole(proxy.forwarded + proxy.filled),
                    grouped(self.totals.samples)
                ),
                holds: proxy.forwarded + proxy.filled == self.totals.samples as f64,
            },
            Guarantee {
                promise: "every sender has its answers",
                measured: if self.settled { "yes" } else { "no" }.to_owned(),
                holds: self.settled && found.unrecorded == 0,
            },
        ]
    }

    /// Stored samples per expected one; a fault may cost half a sample of a series or add one.
    fn density(&self) -> (f64, std::ops::RangeInclusive<f64>) {
        let density = self.findings.stored as f64 / self.findings.expected.max(1) as f64;
        let faults = FAULTS * self.interval.as_secs_f64() / self.elapsed.as_secs_f64().max(1e-3);
        (density, 0.99 - faults / 2.0..=1.02 + faults)
    }

    pub(super) fn table(&self) -> Vec<String> {
        let proxy = &self.proxy;
        let saved = 100.0 * (1.0 - proxy.bytes_out / proxy.bytes_in.max(1.0));
        let rows = [
            ("samples in", whole(proxy.received)),
            ("  forwarded", format!("{} (and {} filled in)", whole(proxy.forwarded), whole(proxy.filled))),
            ("  duplicates", whole(proxy.duplicates)),
            ("  failed, then retried", whole(proxy.failed)),
            ("bytes in", whole(proxy.bytes_in)),
            ("bytes out", format!("{} ({saved:.1} % saved)", whole(proxy.bytes_out))),
            ("CPU seconds", cpu(proxy)),
            ("takeovers of series", whole(proxy.takeovers)),
            ("targets that moved", whole(proxy.target_moves)),
            ("benign conflicts, waits", format!("{}, {}", whole(proxy.benign_conflicts), whole(proxy.waits))),
            ("exemplars stored", grouped(self.totals.exemplars)),
        ];
        let mut lines = lines(&rows, &self.senders, &self.guarantees());
        lines.extend(self.findings.problems(HOLE_MAX).into_iter().map(|problem| format!("  ! {problem}")));
        lines
    }
}

/// The rows of a summary, the senders' lines, the verdict of each guarantee.
pub(super) fn lines(
    rows: &[(&str, String)],
    senders: &[(String, Stats)],
    guarantees: &[Guarantee],
) -> Vec<String> {
    let mut lines = vec![String::new()];
    lines.extend(rows.iter().map(|(name, value)| format!("{name:<42} {value}")));
    for (name, stats) in senders {
        lines.push(format!(
            "{name:<42} {} requests, {} retried, {} samples acknowledged",
            grouped(stats.requests),
            grouped(stats.retries),
            grouped(stats.acknowledged_samples)
        ));
    }
    lines.push(String::new());
    lines.extend(guarantees.iter().map(|one| {
        let verdict = if one.holds { "ok" } else { "BROKEN" };
        format!("{:<42} {:>24}  {verdict}", one.promise, one.measured)
    }));
    lines
}

pub(super) fn cpu(proxy: &Glance) -> String {
    match (proxy.cpu_s, proxy.process_cpu_s) {
        (Some(cpu), _) => format!(
            "{cpu:.2} (proxy's data threads, {:.2} us a sample; whole demo with senders and stand-in {:.2})",
            cpu * 1e6 / proxy.received.max(1.0),
            proxy.process_cpu_s.unwrap_or(0.0)
        ),
        (None, Some(all)) => format!("{all:.2} (whole demo, senders and stand-in included)"),
        (None, None) => "unknown on this system".to_owned(),
    }
}

/// How many samples of a sender were refused for good, or never sent.
pub(super) fn dropped(senders: &[(String, Stats)]) -> u64 {
    senders.iter().map(|(_, stats)| stats.dropped_items + stats.log_overflows).sum()
}

pub(super) fn live(elapsed_ms: i64, interval: Duration, proxy: &Glance, thanos: &Thanos) -> String {
    let hole = thanos.widest_hole_ms() as f64 / interval.as_millis().max(1) as f64;
    format!(
        "{:>4} s  in {}  forwarded {}  duplicates {}  filled {}  moves {}  widest hole {hole:.2}  conflicts {}",
        elapsed_ms / 1_000,
        whole(proxy.received),
        whole(proxy.forwarded),
        whole(proxy.duplicates),
        whole(proxy.filled),
        whole(proxy.target_moves),
        grouped(thanos.totals().conflicts),
    )
}

/// What to put into a real Prometheus.
pub(super) fn snippet(addresses: ProxyAddresses, thanos: SocketAddr) -> String {
    format!(
        "promdedup listens at {data}, its metrics are at http://{admin}/metrics, the stand-in for Thanos Receive is at {thanos}.\n\
         Put this into each Prometheus of a pair, with another prometheus_replica in each:\n\
         \n\
         global:\n\
         \x20 external_labels:\n\
         \x20   cluster: demo\n\
         \x20   prometheus: monitoring/k8s\n\
         \x20   prometheus_replica: prometheus-k8s-0\n\
         remote_write:\n\
         \x20 - url: http://{data}/api/v1/receive\n\
         \n\
         ctrl-c ends and shows what arrived.",
        data = addresses.data,
        admin = addresses.admin,
    )
}

/// What arrived of a real Prometheus.
pub(super) fn without_senders(thanos: &Thanos) -> String {
    let (totals, seen) = (thanos.totals(), thanos.violations());
    format!(
        "requests {}, series {}, samples {}, exemplars {}, body bytes {}\n\
         out of order {}, duplicate timestamps {}, sent twice {}, vanished {}, replica labels {}, bad labels {}",
        grouped(totals.requests),
        grouped(totals.series),
        grouped(totals.samples),
        grouped(totals.exemplars),
        grouped(totals.body_bytes),
        grouped(seen.out_of_order + seen.out_of_bounds + seen.too_old),
        grouped(seen.duplicate_timestamp),
        grouped(seen.duplicate_identical),
        grouped(seen.vanished),
        grouped(seen.replica_label),
        grouped(seen.bad_labels),
    )
}

/// Something that must not have happened.
pub(super) fn none(promise: &'static str, count: u64) -> Guarantee {
    Guarantee { promise, measured: grouped(count), holds: count == 0 }
}

/// A counter as the metrics have it.
pub(super) fn whole(count: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    let count = count.round() as u64;
    grouped(count)
}

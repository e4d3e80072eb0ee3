//! What an operator asks for, derived of the metrics: what is saved, and what the second replica costs. Pure.

use prometheus::proto::{LabelPair, Metric, MetricFamily};
use std::time::Duration;

const DAY_S: f64 = 86_400.0;

/// Counters at one moment, summed over groups and replicas.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Figures {
    /// Samples received.
    pub received: f64,
    /// Samples by outcome.
    pub forwarded: f64,
    /// Acknowledged, and not sent.
    pub duplicate: f64,
    /// Refused for what they are.
    pub refused: f64,
    /// Refused by upstream for good.
    pub rejected: f64,
    /// To be sent again.
    pub failed: f64,
    /// Held samples that were sent into a gap.
    pub filled: f64,
    /// Compressed bytes of bodies that arrived, those that were refused or have to come again included.
    pub compressed_in: f64,
    /// Compressed bytes of bodies for upstream, those that it did not take included.
    pub compressed_out: f64,
    /// Compressed bytes that carried only duplicates, and were acknowledged.
    pub duplicate_bytes: f64,
    /// CPU seconds of the data plane.
    pub cpu_s: f64,
    /// Those of them that went to duplicates.
    pub duplicate_cpu_s: f64,
    /// Series remembered, now.
    pub window_series: f64,
    /// Bytes for what is remembered, now.
    pub window_bytes: f64,
}

/// What deduplication saves and costs, over some time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Overhead {
    /// Compressed bytes that upstream need not receive: see [`Figures::saved_bytes`].
    pub saved_bytes_per_day: f64,
    /// Samples that it need not store.
    pub saved_samples_per_day: f64,
    /// Compressed bytes that arrived here for nothing but duplicates.
    pub duplicate_bytes_per_day: f64,
    /// CPU seconds that they took here.
    pub duplicate_cpu_seconds_per_day: f64,
    /// CPU time of a sample received; `None`: none was.
    pub cpu_ns_per_sample: Option<f64>,
}

impl Figures {
    /// Reads what a registry has gathered.
    #[must_use]
    pub fn of(families: &[MetricFamily]) -> Self {
        let sum = |name: &str, labels: &[(&str, &str)]| {
            let family = families.iter().find(|family| family.name() == name);
            let metrics = family.into_iter().flat_map(MetricFamily::get_metric);
            metrics.filter(|metric| has(metric, labels)).map(value).sum::<f64>()
        };
        let outcome = |outcome| sum("promdedup_samples_total", &[("outcome", outcome)]);
        let bytes = |stage| sum("promdedup_body_bytes_total", &[("stage", stage)]);
        Self {
            received: sum("promdedup_samples_received_total", &[]),
            forwarded: outcome("forwarded"),
            duplicate: outcome("duplicate"),
            refused: outcome("refused"),
            rejected: outcome("rejected"),
            failed: outcome("failed"),
            filled: sum("promdedup_samples_filled_total", &[]),
            compressed_in: bytes("compressed_in"),
            compressed_out: bytes("compressed_out"),
            duplicate_bytes: sum("promdedup_duplicate_bytes_total", &[]),
            cpu_s: sum("promdedup_cpu_seconds_total", &[]),
            duplicate_cpu_s: sum("promdedup_cpu_seconds_total", &[("share", "duplicate")]),
            window_series: sum("promdedup_window_series", &[]),
            window_bytes: sum("promdedup_window_bytes", &[]),
        }
    }

    /// Compressed bytes that upstream need not receive, as they arrived here: those of duplicates that were acknowledged. What arrived
    /// less what left would be another figure: what is refused, or has to come again, does not leave, and nothing is saved by that.
    #[must_use]
    pub const fn saved_bytes(&self) -> f64 {
        self.duplicate_bytes
    }

    /// What came of it since `earlier`, so long ago.
    #[must_use]
    pub fn since(&self, earlier: &Self, elapsed: Duration) -> Overhead {
        let days = elapsed.as_secs_f64().max(1e-3) / DAY_S;
        let more = |figure: fn(&Self) -> f64| figure(self) - figure(earlier);
        let received = more(|f| f.received);
        Overhead {
            saved_bytes_per_day: more(Self::saved_bytes) / days,
            saved_samples_per_day: more(|f| f.duplicate - f.filled) / days,
            duplicate_bytes_per_day: more(|f| f.duplicate_bytes) / days,
            duplicate_cpu_seconds_per_day: more(|f| f.duplicate_cpu_s) / days,
            cpu_ns_per_sample: (received > 0.0).then(|| more(|f| f.cpu_s) * 1e9 / received),
        }
    }
}

fn has(metric: &Metric, labels: &[(&str, &str)]) -> bool {
    labels.iter().all(|(name, value)| label(metric, name) == Some(*value))
}

/// The value of a metric's label.
pub(crate) fn label<'a>(metric: &'a Metric, name: &str) -> Option<&'a str> {
    metric.get_label().iter().find(|label| label.name() == name).map(LabelPair::value)
}

/// That of a counter or a gauge: the other one is 0.
pub(crate) fn value(metric: &Metric) -> f64 {
    metric.get_counter().get_value() + metric.get_gauge().get_value()
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::{CounterVec, IntCounterVec, IntGauge, Opts, Registry};

    fn counted(registry: &Registry, name: &str, labels: &[&str], children: &[(&[&str], u64)]) {
        let family = IntCounterVec::new(Opts::new(name, "x"), labels).unwrap();
        children.iter().for_each(|(values, count)| family.with_label_values(values).inc_by(*count));
        registry.register(Box::new(family)).unwrap();
    }

    #[test]
    fn a_days_savings_and_costs_of_ten_minutes() {
        let registry = Registry::new();
        counted(
            &registry,
            "promdedup_samples_received_total",
            &["replica"],
            &[(&["a"], 3_000), (&["b"], 3_000)],
        );
        let outcomes: [(&[&str], u64); 3] =
            [(&["a", "forwarded"], 3_000), (&["b", "duplicate"], 2_900), (&["b", "forwarded"], 100)];
        counted(&registry, "promdedup_samples_total", &["replica", "outcome"], &outcomes);
        counted(&registry, "promdedup_samples_filled_total", &["group"], &[(&["g"], 20)]);
        let stages: [(&[&str], u64); 3] =
            [(&["compressed_in"], 6_000), (&["raw_in"], 60_000), (&["compressed_out"], 3_500)];
        counted(&registry, "promdedup_body_bytes_total", &["stage"], &stages);
        counted(&registry, "promdedup_duplicate_bytes_total", &["replica"], &[(&["b"], 2_000)]);
        let cpu =
            CounterVec::new(Opts::new("promdedup_cpu_seconds_total", "x"), &["stage", "share"]).unwrap();
        for (stage, share, seconds) in
            [("decode", "duplicate", 0.25), ("other", "duplicate", 0.25), ("other", "forwarded", 1.0)]
        {
            cpu.with_label_values(&[stage, share]).inc_by(seconds);
        }
        registry.register(Box::new(cpu)).unwrap();
        let series = IntGauge::new("promdedup_window_series", "x").unwrap();
        series.set(42);
        registry.register(Box::new(series)).unwrap();
        let figures = Figures::of(&registry.gather());
        assert_eq!((figures.forwarded, figures.window_series, figures.failed), (3_100.0, 42.0, 0.0));
        let ten_minutes = Duration::from_secs(600);
        let expected = Overhead {
            saved_bytes_per_day: 2_000.0 * 144.0,
            saved_samples_per_day: 2_880.0 * 144.0,
            duplicate_bytes_per_day: 2_000.0 * 144.0,
            duplicate_cpu_seconds_per_day: 0.5 * 144.0,
            cpu_ns_per_sample: Some(250_000.0),
        };
        assert_eq!(figures.since(&Figures::default(), ten_minutes), expected);
        let idle = figures.since(&figures, ten_minutes);
        assert_eq!((idle.saved_bytes_per_day, idle.cpu_ns_per_sample), (0.0, None));
    }
}

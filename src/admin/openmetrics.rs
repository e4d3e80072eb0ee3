//! OpenMetrics 1.0 text over the families of a registry. Pure.

use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};
use std::fmt::Write;

pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whether an `Accept` header asks for OpenMetrics at least as much as for the older text.
pub(super) fn is_preferred(accept: &str) -> bool {
    let weight = |wanted: &str| {
        let offers = accept.split(',').filter_map(|offer| {
            let mut parts = offer.split(';').map(str::trim);
            parts.next().filter(|media| media.eq_ignore_ascii_case(wanted))?;
            let q = parts.find_map(|parameter| parameter.strip_prefix("q=")).unwrap_or("1");
            q.trim().parse::<f64>().ok()
        });
        offers.fold(0.0, f64::max)
    };
    let open = weight("application/openmetrics-text");
    open > 0.0 && open >= weight("text/plain")
}

/// The whole exposition, `# EOF` included.
pub(super) fn encode(families: &[MetricFamily]) -> String {
    let mut out = String::new();
    for family in families {
        // Writing to a string does not fail.
        let _ = write_family(&mut out, family);
    }
    out.push_str("# EOF\n");
    out
}

fn write_family(out: &mut String, family: &MetricFamily) -> std::fmt::Result {
    let full = family.name();
    // A counter's family is named without the suffix of its sample, and a counter without it is none.
    let (name, kind) = match (family.get_field_type(), full.strip_suffix("_total")) {
        (MetricType::COUNTER, Some(name)) => (name, "counter"),
        (MetricType::COUNTER, None) | (MetricType::UNTYPED, _) => (full, "unknown"),
        (MetricType::GAUGE, _) => (full, "gauge"),
        (MetricType::HISTOGRAM, _) => (full, "histogram"),
        (MetricType::SUMMARY, _) => (full, "summary"),
    };
    writeln!(out, "# TYPE {name} {kind}")?;
    if !family.help().is_empty() {
        writeln!(out, "# HELP {name} {}", escaped(family.help()))?;
    }
    for metric in family.get_metric() {
        let labels = metric.get_label();
        match family.get_field_type() {
            MetricType::COUNTER => sample(out, full, labels, None, metric.get_counter().get_value())?,
            MetricType::GAUGE => sample(out, full, labels, None, metric.get_gauge().get_value())?,
            MetricType::UNTYPED => {} // no collector of the registry makes one
            MetricType::HISTOGRAM => histogram(out, full, metric)?,
            MetricType::SUMMARY => summary(out, full, metric)?,
        }
    }
    Ok(())
}

fn histogram(out: &mut String, name: &str, metric: &Metric) -> std::fmt::Result {
    let histogram = metric.get_histogram();
    let labels = metric.get_label();
    let bucket = format!("{name}_bucket");
    for each in histogram.get_bucket().iter().filter(|bucket| bucket.upper_bound().is_finite()) {
        let bound = number(each.upper_bound());
        sample(out, &bucket, labels, Some(("le", &bound)), each.cumulative_count() as f64)?;
    }
    let count = histogram.get_sample_count() as f64;
    sample(out, &bucket, labels, Some(("le", "+Inf")), count)?;
    sample(out, &format!("{name}_count"), labels, None, count)?;
    sample(out, &format!("{name}_sum"), labels, None, histogram.get_sample_sum())
}

fn summary(out: &mut String, name: &str, metric: &Metric) -> std::fmt::Result {
    let summary = metric.get_summary();
    let labels = metric.get_label();
    for each in summary.get_quantile() {
        let quantile = number(each.quantile());
        sample(out, name, labels, Some(("quantile", &quantile)), each.value())?;
    }
    sample(out, &format!("{name}_count"), labels, None, summary.sample_count() as f64)?;
    sample(out, &format!("{name}_sum"), labels, None, summary.sample_sum())
}

fn sample(
    out: &mut String,
    name: &str,
    labels: &[LabelPair],
    extra: Option<(&str, &str)>,
    value: f64,
) -> std::fmt::Result {
    out.push_str(name);
    let pairs = labels.iter().map(|label| (label.name(), label.value())).chain(extra);
    let mut separator = '{';
    for (name, value) in pairs {
        write!(out, "{separator}{name}=\"{}\"", escaped(value))?;
        separator = ',';
    }
    if separator == ',' {
        out.push('}');
    }
    writeln!(out, " {}", number(value))
}

/// A whole number keeps its `.0`, so that the bounds of buckets are spelt in one way only.
fn number(value: f64) -> String {
    match value {
        _ if value.is_nan() => "NaN".to_owned(),
        _ if value == f64::INFINITY => "+Inf".to_owned(),
        _ if value == f64::NEG_INFINITY => "-Inf".to_owned(),
        _ => format!("{value:?}"),
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry};

    #[test]
    fn the_whole_exposition() {
        let registry = Registry::new();
        let counter =
            IntCounterVec::new(Opts::new("a_requests_total", "With \"quotes\"\nand \\."), &["code"]);
        let counter = counter.expect("counter");
        counter.with_label_values(&["2\"0\\0\n"]).inc_by(3);
        let gauge = IntGauge::new("b_bytes", "Bytes.").expect("gauge");
        gauge.set(-5);
        let options = HistogramOpts::new("c_seconds", "Time.").buckets(vec![0.5, 1.0]);
        let histogram = HistogramVec::new(options, &["x"]).expect("histogram");
        histogram.with_label_values(&["y"]).observe(0.75);
        histogram.with_label_values(&["y"]).observe(7.0);
        registry.register(Box::new(counter)).expect("registered");
        registry.register(Box::new(gauge)).expect("registered");
        registry.register(Box::new(histogram)).expect("registered");
        let expected = "\
# TYPE a_requests counter
# HELP a_requests With \\\"quotes\\\"\\nand \\\\.
a_requests_total{code=\"2\\\"0\\\\0\\n\"} 3.0
# TYPE b_bytes gauge
# HELP b_bytes Bytes.
b_bytes -5.0
# TYPE c_seconds histogram
# HELP c_seconds Time.
c_seconds_bucket{x=\"y\",le=\"0.5\"} 0.0
c_seconds_bucket{x=\"y\",le=\"1.0\"} 1.0
c_seconds_bucket{x=\"y\",le=\"+Inf\"} 2.0
c_seconds_count{x=\"y\"} 2.0
c_seconds_sum{x=\"y\"} 7.75
# EOF
";
        assert_eq!(encode(&registry.gather()), expected);
    }

    #[test]
    fn what_prometheus_asks_for() {
        let prometheus_2 = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert!(is_preferred(prometheus_2));
        assert!(is_preferred("text/plain;q=0.3, application/openmetrics-text; version=1.0.0; q=0.5"));
        assert!(is_preferred("application/openmetrics-text"));
        assert!(!is_preferred(""));
        assert!(!is_preferred("*/*"));
        assert!(!is_preferred("text/plain"));
        assert!(!is_preferred("application/openmetrics-text;q=0"));
        assert!(!is_preferred("application/openmetrics-text;q=0.2,text/plain"));
    }
}

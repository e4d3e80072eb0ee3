//! What a run says: one list of rows, as a table for people and as an object for programs. Pure.

use super::LoadOptions;
use super::floor::Floor;
use super::judge::Findings;
use super::tally::{Latency, Tally};
use super::usage::Usage;
use crate::command::grouped;
use crate::wire::Protocol;
use std::fmt::Write as _;

/// A thread that is busy for more of its time than this holds up what it drives.
const BUSY_MAX: f64 = 0.9;

/// Everything that was measured.
#[derive(Debug)]
pub(super) struct Evidence<'a> {
    pub(super) options: &'a LoadOptions,
    pub(super) measured_s: f64,
    /// Of the measured time.
    pub(super) tally: Tally,
    /// Of the whole run.
    pub(super) whole: Tally,
    /// The target before the first sample, at the beginning and at the end of the measured time.
    pub(super) target: [Usage; 3],
    /// CPU seconds of the senders and of the sink in the measured time.
    pub(super) generator_cpu_s: Option<f64>,
    pub(super) sink_cpu_s: Option<f64>,
    pub(super) generator_bytes: Option<f64>,
    pub(super) floor: Floor,
    /// Compressed bytes that the sink got in the measured time.
    pub(super) bytes_out: Option<u64>,
    /// When the replica that began with a backlog was as far as the others.
    pub(super) caught_up_s: Option<f64>,
    pub(super) findings: Option<Findings>,
    /// Whether every sender got an answer for all it had.
    pub(super) settled: bool,
    /// Whether no sender was behind the clock when the measured time began.
    pub(super) kept_up: bool,
}

/// How a value is shown.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Count(u64),
    /// With so many digits behind the point.
    Number(f64, usize),
    Text(String),
    Flag(bool),
    /// Not measured.
    Nothing,
}

/// One line of the table, and one member of the object.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) key: &'static str,
    pub(super) title: &'static str,
    pub(super) value: Value,
}

fn row(key: &'static str, title: &'static str, value: Value) -> Row {
    Row { key, title, value }
}

fn number(value: Option<f64>, digits: usize) -> Value {
    value.filter(|value| value.is_finite()).map_or(Value::Nothing, |value| Value::Number(value, digits))
}

fn count(value: Option<u64>) -> Value {
    value.map_or(Value::Nothing, Value::Count)
}

impl Evidence<'_> {
    /// In the order they are shown.
    pub(super) fn rows(&self) -> Vec<Row> {
        let mut rows = self.rows_of_the_load();
        rows.extend(self.rows_of_latency());
        rows.extend(self.rows_of_cost());
        rows.extend(self.rows_of_the_sink());
        rows.push(row(
            "verdict",
            "verdict",
            Value::Text(if self.broken().is_empty() { "ok" } else { "broken" }.to_owned()),
        ));
        rows
    }

    fn rows_of_the_load(&self) -> Vec<Row> {
        let (options, tally) = (self.options, &self.tally);
        let mode = if options.saturate { "saturated" } else { "real time" };
        let protocol = if options.protocol == Protocol::Two { "2.0" } else { "1.0" };
        let per_sample = |bytes: u64| number(self.per_sample(bytes as f64), 1);
        let labels = options
            .labels
            .map_or(Value::Text("of the corpus".to_owned()), |labels| Value::Count(labels as u64));
        let backlog_s = options.backlog.unwrap_or_default().as_secs_f64();
        let answered = tally.requests.saturating_sub(tally.retries) as f64;
        let per_request = (tally.acknowledged + tally.refused) as f64 / answered;
        vec![
            row("target", "target", Value::Text(options.target.clone())),
            row("mode", "mode", Value::Text(mode.to_owned())),
            row("protocol", "remote write", Value::Text(protocol.to_owned())),
            row("series", "series of each replica", Value::Count(options.series as u64)),
            row("groups", "HA groups", Value::Count(options.groups as u64)),
            row("tenants", "tenants", Value::Count(options.tenants as u64)),
            row("replicas", "replicas", Value::Count(options.replicas as u64)),
            row("shards", "shards of each replica", Value::Count(options.shards as u64)),
            row("labels", "labels of a series", labels),
            row(
                "churn_percent_per_minute",
                "series that end, % a minute",
                Value::Count(options.churn.into()),
            ),
            row("backlog_seconds", "backlog of the last replica, s", Value::Number(backlog_s, 1)),
            row("batch", "most samples of a request", Value::Count(options.batch as u64)),
            row("interval_seconds", "scrape interval, s", Value::Number(options.interval.as_secs_f64(), 3)),
            row("measured_seconds", "measured, s", Value::Number(self.measured_s, 1)),
            row("samples", "input samples acknowledged", Value::Count(tally.acknowledged)),
            row("samples_per_second", "input samples/s", number(self.rate(), 0)),
            row("samples_refused", "samples refused for good", Value::Count(self.whole.refused)),
            row("requests", "requests", Value::Count(tally.requests)),
            row("samples_per_request", "  samples of each", number(Some(per_request), 0)),
            row("requests_retried", "requests to be repeated", Value::Count(tally.retries)),
            row("raw_bytes_per_sample", "bytes a sample, raw", per_sample(tally.raw_bytes)),
            row("packed_bytes_per_sample", "bytes a sample, compressed", per_sample(tally.body_bytes)),
        ]
    }

    fn rows_of_cost(&self) -> Vec<Row> {
        let floor = self.floor.of_replicas(self.options.replicas);
        let [fresh, _, last] = self.target;
        let grown = last.resident_bytes.zip(fresh.resident_bytes).map(|(last, fresh)| last - fresh);
        let own_count = last.window_bytes.zip(last.window_series).map(|(bytes, series)| bytes / series);
        let bytes_in = self.tally.body_bytes;
        let saved = self.bytes_out.map(|out| 100.0 * (1.0 - out as f64 / bytes_in as f64));
        vec![
            row("cpu_ns_per_sample", "CPU ns per input sample", number(self.cpu_ns(), 0)),
            row("codec_floor_ns_per_sample", "codec floor, ns", Value::Number(floor, 0)),
            row("cpu_to_floor", "CPU / floor", number(self.cpu_ns().map(|ns| ns / floor), 2)),
            row("bytes_in", "bytes in, compressed", Value::Count(bytes_in)),
            row("bytes_out", "bytes out, compressed", count(self.bytes_out)),
            row("bytes_saved_percent", "bytes saved, %", number(saved, 1)),
            row("rss_bytes", "resident bytes", number(last.resident_bytes, 0)),
            row(
                "rss_bytes_per_series",
                "  grown, bytes per series",
                number(grown.map(|grown| grown / self.options.series as f64), 1),
            ),
            row("window_bytes_per_series", "  by its own count, bytes per series", number(own_count, 1)),
            row("generator_cpu_ns_per_sample", "load's own CPU ns, senders", number(self.generator_ns(), 0)),
            row(
                "sink_cpu_ns_per_sample",
                "load's own CPU ns, sink",
                number(self.sink_cpu_s.and_then(|s| self.per_sample(s * 1e9)), 0),
            ),
            row("generator_rss_bytes", "load's own resident bytes", number(self.generator_bytes, 0)),
            row(
                "generator_is_bottleneck",
                "load is the bottleneck",
                Value::Flag(self.bottleneck().is_some()),
            ),
        ]
    }

    /// Of a replica that is behind only in the last two rows.
    ///
    /// *Added* is, of each request by itself, the time to its acknowledgement less the time that the sink had what came of it, from the
    /// end of the body to its answer. It is an upper bound of what the target adds: in it are both ways over loopback, the body that the
    /// sink's thread was just checking when one came, the one that the senders' thread was just printing when the answer came, and, of
    /// duplicates that lean on another request, what upstream takes for that one. Where several instances pass parts of a request to each
    /// other, the sink may have two of them at a time, and both are taken off. A target that does not pass `X-Request-ID` on has none.
    /// Where the target's metrics have both times, the mean of the one less the mean of the other is what it knows itself of the same,
    /// without the ways; quantiles of two distributions have no such difference.
    fn rows_of_latency(&self) -> Vec<Row> {
        let tally = &self.tally;
        let ms = |latency: &Latency, share| number(latency.quantile_ms(share), 2);
        let added = |share| if self.untraced() { Value::Nothing } else { ms(&tally.added, share) };
        vec![
            row("ack_p50_ms", "ack latency p50, ms", ms(&tally.latency, 0.5)),
            row("ack_p99_ms", "ack latency p99, ms", ms(&tally.latency, 0.99)),
            row("ack_max_ms", "ack latency max, ms", ms(&tally.latency, 1.0)),
            row("added_p50_ms", "  added by the target p50, ms", added(0.5)),
            row("added_p99_ms", "  added by the target p99, ms", added(0.99)),
            row("added_mean_by_metrics_ms", "  by its own count, mean, ms", number(self.added_mean_ms(), 2)),
            row("backlog_ack_p99_ms", "ack latency p99 of the backlog, ms", ms(&tally.late, 0.99)),
            row("backlog_caught_up_seconds", "backlog caught up after, s", number(self.caught_up_s, 1)),
        ]
    }

    /// Whether the sink got something, and never heard for which request.
    fn untraced(&self) -> bool {
        self.tally.traced == 0 && self.bytes_out.is_some_and(|bytes| bytes > 0)
    }

    fn added_mean_ms(&self) -> Option<f64> {
        let [_, before, after] = &self.target;
        let requests = after.requests? - before.requests?;
        let own_s = (after.requests_s? - before.requests_s?) - (after.upstream_s? - before.upstream_s?);
        Some(own_s * 1e3 / requests)
    }

    fn rows_of_the_sink(&self) -> Vec<Row> {
        let found = self.findings;
        let of = |pick: fn(&Findings) -> u64| count(found.as_ref().map(pick));
        // Of the whole run, warm-up and end included.
        let one_replica =
            (self.whole.acknowledged - self.whole.replayed) as f64 / self.options.replicas as f64;
        let density = found.map(|found| found.samples as f64 / one_replica);
        vec![
            row("series_stored", "series stored", of(|found| found.series)),
            row("samples_stored", "samples stored", of(|found| found.samples)),
            row("density", "  per sample of one replica", number(density, 3)),
            row(
                "widest_hole_intervals",
                "widest hole, intervals",
                number(found.map(|found| found.widest_hole), 2),
            ),
            row("holes", "holes above 1.5 intervals", of(|found| found.holes)),
            row("out_of_order", "out of order", of(|found| found.out_of_order)),
            row("repeated", "stored twice at one time", of(|found| found.repeated)),
            row("lost", "lost (acknowledged, not stored)", of(|found| found.lost)),
            row("series_missing", "series missing", of(|found| found.series_missing)),
            row("replica_labels", "series with a replica label", of(|found| found.replica_labels)),
        ]
    }

    fn rate(&self) -> Option<f64> {
        Some(self.tally.acknowledged as f64 / self.measured_s)
    }

    fn per_sample(&self, whole: f64) -> Option<f64> {
        (self.tally.acknowledged > 0).then(|| whole / self.tally.acknowledged as f64)
    }

    fn cpu_ns(&self) -> Option<f64> {
        let [_, before, after] = self.target;
        self.per_sample((after.cpu_s? - before.cpu_s?) * 1e9)
    }

    fn generator_ns(&self) -> Option<f64> {
        self.per_sample(self.generator_cpu_s? * 1e9)
    }

    /// Why the load generator says more about itself than about its target.
    fn bottleneck(&self) -> Option<String> {
        if let (Some(own), Some(target)) = (self.generator_ns(), self.cpu_ns())
            && own > target
        {
            return Some(format!("its senders take {own:.0} ns a sample, the target {target:.0}"));
        }
        let busy = [("senders", self.generator_cpu_s), ("sink", self.sink_cpu_s)].into_iter().find_map(
            |(who, cpu_s)| Some((who, cpu_s? / self.measured_s)).filter(|(_, busy)| *busy > BUSY_MAX),
        );
        busy.map(|(who, busy)| {
            format!("the thread of its {who} was busy for {:.0} % of the time", busy * 100.0)
        })
    }

    /// What must not be, in words.
    pub(super) fn broken(&self) -> Vec<String> {
        let found = self.findings.unwrap_or_default();
        let mut broken: Vec<_> = [
            (found.lost, "acknowledged samples are lost"),
            (found.out_of_order, "samples came out of order"),
            (self.whole.refused, "samples were refused for good"),
        ]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{} {what}", grouped(count)))
        .collect();
        if self.tally.acknowledged == 0 {
            broken.push("nothing was acknowledged".to_owned());
        }
        if !self.settled {
            broken.push("not every request had an answer in the end".to_owned());
        }
        broken
    }

    /// What should be known about the figures.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some(why) = self.bottleneck() {
            notes.push(format!("the load generator is the bottleneck: {why}"));
        }
        if self.options.pid.is_none() && self.target[2].cpu_s.is_some_and(|cpu_s| cpu_s.fract() == 0.0) {
            notes.push("the target's metrics have CPU time in whole seconds; --pid is more exact".to_owned());
        }
        if self.untraced() {
            notes.push(
                "the target passes no X-Request-ID on: what it adds is not told from the sink's time"
                    .to_owned(),
            );
        }
        if !self.kept_up {
            notes.push(
                "senders were still behind the clock when the measured time began: more is sent than the target takes"
                    .to_owned(),
            );
        }
        if self.options.backlog.is_some() && self.caught_up_s.is_none() {
            notes.push("the backlog was not caught up in the measured time".to_owned());
        }
        if let Some(trouble) = &self.whole.trouble {
            notes.push(format!("last answer but success, warm-up included: {trouble}"));
        }
        notes
    }

    /// Lines for people.
    pub(super) fn table(&self) -> Vec<String> {
        let mut lines: Vec<_> =
            self.rows().into_iter().map(|row| format!("{:<38} {}", row.title, row.value.shown())).collect();
        lines.extend(self.broken().into_iter().map(|broken| format!("! {broken}")));
        lines.extend(self.notes().into_iter().map(|note| format!("  {note}")));
        lines
    }

    /// One object, on one line.
    pub(super) fn json(&self) -> String {
        let mut json = String::from("{");
        for row in self.rows() {
            let _ = write!(json, "{}:{},", quoted(row.key), row.value.json());
        }
        let list = |texts: Vec<String>| texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(",");
        let _ = write!(json, "\"broken\":[{}],\"notes\":[{}]}}", list(self.broken()), list(self.notes()));
        json
    }
}

impl Value {
    fn shown(&self) -> String {
        match self {
            Self::Count(count) => grouped(*count),
            Self::Number(number, 0) if *number >= 0.0 => grouped(number.round() as u64),
            Self::Number(number, digits) => format!("{number:.digits$}"),
            Self::Text(text) => text.clone(),
            Self::Flag(flag) => if *flag { "yes" } else { "no" }.to_owned(),
            Self::Nothing => "not measured".to_owned(),
        }
    }

    fn json(&self) -> String {
        match self {
            Self::Count(count) => count.to_string(),
            Self::Number(number, digits) => format!("{number:.digits$}"),
            Self::Text(text) => quoted(text),
            Self::Flag(flag) => flag.to_string(),
            Self::Nothing => "null".to_owned(),
        }
    }
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if u32::from(c) < 0x20 => drop(write!(quoted, "\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const FLOOR: Floor = Floor {
        decompress_ns: 40.0,
        walk_ns: 30.0,
        hash_ns: 20.0,
        touch_ns: 10.0,
        copy_ns: 20.0,
        compress_ns: 80.0,
    };

    fn evidence(options: &LoadOptions) -> Evidence<'_> {
        let mut tally =
            Tally { requests: 500, acknowledged: 1_000_000, body_bytes: 31_000_000, ..Tally::default() };
        tally.latency.note(Duration::from_millis(3));
        tally.added.note(Duration::from_millis(1));
        tally.traced = 1;
        let usage = |cpu_s, mib: f64| Usage {
            cpu_s: Some(cpu_s),
            resident_bytes: Some(mib * 1e6),
            requests: Some(cpu_s * 1e3),
            requests_s: Some(cpu_s * 10.0),
            upstream_s: Some(cpu_s * 8.0),
            ..Usage::default()
        };
        Evidence {
            options,
            measured_s: 10.0,
            whole: tally.clone(),
            tally,
            target: [usage(0.1, 10.0), usage(0.25, 20.0), usage(0.55, 30.0)],
            generator_cpu_s: Some(0.1),
            sink_cpu_s: None,
            generator_bytes: Some(5e6),
            floor: FLOOR,
            bytes_out: Some(15_500_000),
            caught_up_s: None,
            findings: Some(Findings { series: 200_000, samples: 500_000, ..Findings::default() }),
            settled: true,
            kept_up: true,
        }
    }

    fn value(evidence: &Evidence<'_>, key: &str) -> String {
        evidence.rows().iter().find(|row| row.key == key).map(|row| row.value.json()).unwrap()
    }

    #[test]
    fn the_figures_follow_from_what_was_measured() {
        let options = LoadOptions::to("http://127.0.0.1:1/");
        let evidence = evidence(&options);
        for (key, expect) in [
            ("samples_per_second", "100000"),
            ("cpu_ns_per_sample", "300"),
            ("codec_floor_ns_per_sample", "150"),
            ("cpu_to_floor", "2.00"),
            ("bytes_saved_percent", "50.0"),
            ("packed_bytes_per_sample", "31.0"),
            ("rss_bytes_per_series", "100.0"),
            ("generator_cpu_ns_per_sample", "100"),
            ("sink_cpu_ns_per_sample", "null"),
            ("generator_is_bottleneck", "false"),
            ("samples_per_request", "2000"),
            ("added_p99_ms", "1.01"),
            ("added_mean_by_metrics_ms", "2.00"),
            ("backlog_ack_p99_ms", "null"),
            ("density", "1.000"),
            ("verdict", "\"ok\""),
        ] {
            assert_eq!(value(&evidence, key), expect, "{key}");
        }
        assert_eq!(evidence.notes(), Vec::<String>::new());
    }

    #[test]
    fn a_generator_that_costs_more_says_so() {
        let options = LoadOptions::to("http://127.0.0.1:1/");
        let mut evidence = evidence(&options);
        evidence.generator_cpu_s = Some(0.31);
        assert_eq!(value(&evidence, "generator_is_bottleneck"), "true");
        assert!(
            evidence.notes()[0].contains("senders take 310 ns a sample, the target 300"),
            "{:?}",
            evidence.notes()
        );
        evidence.generator_cpu_s = Some(0.2);
        evidence.sink_cpu_s = Some(9.5);
        assert!(evidence.notes()[0].contains("its sink was busy for 95 %"), "{:?}", evidence.notes());
    }

    #[test]
    fn what_is_not_known_of_latency_is_not_told() {
        let options =
            LoadOptions { backlog: Some(Duration::from_secs(600)), ..LoadOptions::to("http://127.0.0.1:1/") };
        let mut evidence = evidence(&options);
        evidence.tally.traced = 0;
        evidence.target[0].requests = None;
        evidence.target[2].upstream_s = None;
        assert_eq!(value(&evidence, "added_p99_ms"), "null");
        assert_eq!(value(&evidence, "added_mean_by_metrics_ms"), "null");
        assert_eq!(evidence.notes().len(), 2, "{:?}", evidence.notes());
        evidence.kept_up = false;
        assert_eq!(evidence.notes().len(), 3, "{:?}", evidence.notes());
        // Half of it is a backlog, so that one replica has a quarter.
        evidence.whole.replayed = 500_000;
        assert_eq!(value(&evidence, "density"), "2.000");
    }

    #[test]
    fn what_must_not_be_is_named() {
        let options = LoadOptions::to("http://127.0.0.1:1/");
        let mut evidence = evidence(&options);
        evidence.findings = Some(Findings { lost: 1_234, out_of_order: 2, ..Findings::default() });
        evidence.whole.refused = 3;
        evidence.tally.acknowledged = 0;
        evidence.settled = false;
        assert_eq!(evidence.broken().len(), 5, "{:?}", evidence.broken());
        assert_eq!(evidence.broken()[0], "1,234 acknowledged samples are lost");
        assert_eq!(value(&evidence, "verdict"), "\"broken\"");
        let json: serde_json::Value = serde_json::from_str(&evidence.json()).unwrap();
        assert_eq!(json["broken"].as_array().unwrap().len(), 5);
        assert_eq!(json["cpu_ns_per_sample"], serde_json::Value::Null);
    }

    #[test]
    fn texts_are_quoted() {
        let text = "a \"b\"\\ \n\u{1}ü";
        assert_eq!(serde_json::from_str::<String>(&quoted(text)).unwrap(), text);
    }
}

//! How cost grows: `promdedup load` against the real binary, one option changed at a time, and a table of it. See BENCHMARKING.md.
//!
//! Each row has a proxy of its own, as a child process with one data thread, so that memory is counted from its start. Senders and
//! sink are in this process. `-- --runs N` takes the best of N runs of each row, `-- WORD` only rows whose option has that word.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, reason = "a bench")]

use promdedup::command::load::{Load, LoadOptions};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A row that costs more than linear growth explains, by this factor, is marked: runs differ by about as much.
const MARGIN: f64 = 1.25;
/// Bytes that a series takes here and in the proxy, above what was ever seen, and what everything else takes.
const SERIES_BYTES: usize = 400;
const OTHER_BYTES: usize = 300 << 20;

/// One option, what it is changed to, and what cost per sample may do as it grows.
struct Dimension {
    name: &'static str,
    growth: Growth,
    values: &'static [usize],
    set: fn(&mut LoadOptions, usize),
}

/// What linear growth of the whole means for the cost of one sample.
#[derive(Clone, Copy)]
enum Growth {
    /// There are more samples, of the same cost.
    Same,
    /// Each sample has so much more to it.
    Linear,
    /// What is added to the first row grows linearly.
    Added,
}

const DIMENSIONS: [Dimension; 6] = [
    Dimension {
        name: "series",
        growth: Growth::Same,
        values: &[10_000, 100_000, 1_000_000, 4_000_000],
        set: |options, series| options.series = series,
    },
    Dimension {
        name: "groups",
        growth: Growth::Same,
        values: &[1, 10, 100, 1_000],
        // Requests of the same size, whatever a group has. All groups send at once, so more would wait for longer than a timeout.
        set: |options, groups| {
            (options.groups, options.series, options.shards, options.batch) = (groups, 200_000, 1, 100);
        },
    },
    Dimension {
        name: "replicas",
        growth: Growth::Same,
        values: &[1, 2, 3, 4],
        set: |options, replicas| options.replicas = replicas,
    },
    Dimension {
        name: "batch",
        growth: Growth::Same,
        values: &[10, 100, 1_000, 10_000],
        set: |options, batch| options.batch = batch,
    },
    Dimension {
        name: "labels",
        growth: Growth::Linear,
        values: &[5, 10, 20, 40],
        set: |options, labels| options.labels = Some(labels),
    },
    Dimension {
        name: "churn, %/min",
        growth: Growth::Added,
        values: &[0, 5, 20],
        set: |options, churn| options.churn = u32::try_from(churn).unwrap(),
    },
];

/// What is in a row.
struct Row {
    value: usize,
    cpu_ns: f64,
    to_floor: f64,
    /// Resident in the proxy, above what it had when it began.
    bytes: f64,
}

struct Runs {
    test: bool,
    runs: usize,
    only: Option<String>,
    broken: Vec<String>,
}

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let test = arguments.iter().any(|argument| argument == "--test");
    let at = arguments.iter().position(|argument| argument == "--runs");
    let runs = at.map_or(1, |at| arguments[at + 1].parse().unwrap());
    let only = arguments
        .iter()
        .enumerate()
        .find(|(nth, argument)| !argument.starts_with("--") && at.is_none_or(|at| at + 1 != *nth));
    let mut all = Runs { test, runs, only: only.map(|(_, word)| word.clone()), broken: Vec::new() };
    println!(
        "| option | | samples a request | input samples/s | CPU ns a sample | codec floor | CPU / floor | resident, bytes a series | ack p99, ms | added p99, ms | |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    let mut lines = Vec::new();
    if test {
        // Enough to see that it works: everything at once, and the clock.
        all.row("everything", 4, &|options| {
            (options.series, options.groups, options.replicas) = (2_000, 4, 3);
            (options.batch, options.labels, options.churn) = (100, Some(20), 20);
        });
    }
    for dimension in DIMENSIONS.iter().filter(|_| !test) {
        let rows: Vec<_> = dimension
            .values
            .iter()
            .filter_map(|value| all.row(dimension.name, *value, &|options| (dimension.set)(options, *value)))
            .collect();
        lines.extend(growth(dimension, &rows));
    }
    all.row("by the clock, interval ms", if test { 500 } else { 1_000 }, &|options| {
        options.saturate = false;
        options.interval = Duration::from_millis(if test { 500 } else { 1_000 });
    });
    println!();
    lines.iter().for_each(|line| println!("- {line}"));
    assert_eq!(all.broken, Vec::<String>::new());
}

impl Runs {
    /// Runs and prints a row; `None` of what is not asked for, or does not fit.
    fn row(&mut self, name: &str, value: usize, set: &dyn Fn(&mut LoadOptions)) -> Option<Row> {
        if self.only.as_ref().is_some_and(|word| !name.contains(word.as_str())) {
            return None;
        }
        let mut options = LoadOptions { saturate: true, shards: 2, ..LoadOptions::to("http://127.0.0.1:1/") };
        (options.series, options.duration) = match self.test {
            true => (2_000, Duration::from_millis(500)),
            false => (100_000, Duration::from_secs(4)),
        };
        options.sink = Some(([127, 0, 0, 1], 0).into());
        set(&mut options);
        let (need, have) = (OTHER_BYTES + options.series * SERIES_BYTES, available_bytes());
        if have.is_some_and(|have| have < need) {
            let mib = |bytes: usize| bytes >> 20;
            println!(
                "| {name} | {value} | skipped: needs {} MiB, there are {} | | | | | | | | |",
                mib(need),
                mib(have.unwrap_or(0))
            );
            return None;
        }
        let results = (0..self.runs.max(1)).map(|_| measured(options.clone()));
        let best = results.min_by(|(one, _), (other, _)| {
            number(one, "cpu_to_floor").total_cmp(&number(other, "cpu_to_floor"))
        });
        let (object, broken) = best.unwrap();
        self.broken.extend(broken.iter().map(|what| format!("{name} {value}: {what}")));
        let note = match &object["generator_is_bottleneck"] {
            Value::Bool(true) => "the load generator was the bottleneck",
            _ => "",
        };
        let shown = |key: &str, digits: usize| format!("{:.digits$}", number(&object, key));
        println!(
            "| {name} | {value} | {} | {} | {} | {} | {} | {} | {} | {} | {note} |",
            shown("samples_per_request", 0),
            shown("samples_per_second", 0),
            shown("cpu_ns_per_sample", 0),
            shown("codec_floor_ns_per_sample", 0),
            shown("cpu_to_floor", 2),
            shown("rss_bytes_per_series", 1),
            shown("ack_p99_ms", 1),
            shown("added_p99_ms", 1),
        );
        Some(Row {
            value,
            cpu_ns: number(&object, "cpu_ns_per_sample"),
            to_floor: number(&object, "cpu_to_floor"),
            bytes: number(&object, "rss_bytes_per_series") * number(&object, "series"),
        })
    }
}

fn measured(options: LoadOptions) -> (Value, Vec<String>) {
    let mut load = Load::bind(options).unwrap();
    let upstream = format!("http://{}/api/v1/receive", load.sink().unwrap());
    let mut proxy = Proxy::start(&upstream);
    load.watch(proxy.child.id());
    let outcome = load.run(Some(&proxy.url)).unwrap();
    proxy.child.kill().unwrap();
    (serde_json::from_str(&outcome.json).unwrap(), outcome.broken)
}

/// Not measured is not a number.
fn number(object: &Value, key: &str) -> f64 {
    object[key].as_f64().unwrap_or(f64::NAN)
}

/// How cost went from row to row, with a mark where it grew worse than linearly.
fn growth(dimension: &Dimension, rows: &[Row]) -> Vec<String> {
    let mut lines = Vec::new();
    let Some(first) = rows.first() else { return lines };
    for pair in rows.windows(2) {
        let [before, row] = pair else { continue };
        let step = row.value as f64 / before.value.max(1) as f64;
        let linear_ns = match dimension.growth {
            Growth::Same => before.cpu_ns,
            Growth::Linear => before.cpu_ns * step,
            Growth::Added if before.value == first.value => f64::INFINITY,
            Growth::Added => first.cpu_ns + (before.cpu_ns - first.cpu_ns).max(0.0) * step,
        };
        let mut marks = Vec::new();
        // Beside the floor of its own run as well, since the machine is not as fast in each.
        let beside_floor = row.to_floor > before.to_floor * MARGIN;
        if row.cpu_ns > linear_ns * MARGIN && beside_floor {
            marks.push(format!("CPU time **worse than linear**: {linear_ns:.0} ns would be"));
        }
        let grown = row.bytes / before.bytes;
        if before.value > 0 && grown > step * MARGIN {
            marks.push("memory **worse than linear**".to_owned());
        }
        let marks = if marks.is_empty() { "not worse than linear".to_owned() } else { marks.join("; ") };
        lines.push(format!(
            "{} {} to {}: CPU a sample x {:.2}, CPU / floor x {:.2}, memory x {grown:.2}: {marks}",
            dimension.name,
            before.value,
            row.value,
            row.cpu_ns / before.cpu_ns,
            row.to_floor / before.to_floor,
        ));
    }
    lines
}

/// The real binary; killed when it is dropped.
struct Proxy {
    child: Child,
    url: String,
}

impl Proxy {
    fn start(upstream: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_promdedup"));
        command.env_clear().envs([
            ("PROMDEDUP_UPSTREAM_URL", upstream),
            ("PROMDEDUP_LISTEN", "127.0.0.1:0"),
            ("PROMDEDUP_ADMIN_LISTEN", "127.0.0.1:0"),
            ("PROMDEDUP_LOG_FORMAT", "json"),
            ("PROMDEDUP_FIRST_CONTACT_HOLD", "0s"),
            ("PROMDEDUP_WORKERS", "1"),
        ]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        log.read_line(&mut line).unwrap();
        let line: Value = serde_json::from_str(&line).unwrap();
        let url = format!("http://{}/api/v1/receive", line["data"].as_str().unwrap());
        // Read on, so that it never waits for its log to be read.
        std::thread::spawn(move || log.read_to_string(&mut String::new()));
        Self { child, url }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may be gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn available_bytes() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kib = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?.trim().strip_suffix(" kB")?;
    Some(kib.parse::<usize>().ok()? << 10)
}

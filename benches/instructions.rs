//! How many instructions each stage takes for a sample, counted by valgrind: the same on a busy machine as on an idle one.
//!
//! `cargo bench --bench instructions` prints them beside the figures of `benches/instructions.json`; `-- --check` fails
//! where one is more than 5 % above its figure, `-- --save` writes them down anew. Needs Debian's package `valgrind`.
//! Counts say nothing of memory that is far away: that is what the other benches are for.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, clippy::panic, reason = "a bench")]

#[path = "instructions/stages.rs"]
mod stages;

use serde_json::{Map, Value};
use std::collections::HashMap;
use std::process::Command;

/// Worse by more than this part is a failure.
const TOLERANCE: f64 = 0.05;
const FIGURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.json");
/// The stages of a healthy pair's codec floor: how often each is gone through for two input samples.
const FLOOR: [(&str, f64); 5] =
    [("decompress", 2.0), ("walk", 2.0), ("hash", 2.0), ("splice", 1.0), ("compress", 1.0)];
const WHOLE: [&str; 2] = ["pipeline_owner", "pipeline_duplicate"];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let given = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if given("--stages") || given("--test") {
        // Counted from outside, or only to see that they work.
        for (stage, samples) in stages::run() {
            println!("samples {stage} {samples}");
        }
        return;
    }
    let mut counted = count();
    let floor = FLOOR.iter().map(|(stage, times)| counted[*stage] * times).sum::<f64>() / 2.0;
    let whole = WHOLE.iter().map(|stage| counted[*stage]).sum::<f64>() / 2.0;
    counted.insert("codec_floor".to_owned(), floor);
    counted.insert("whole_pipeline".to_owned(), whole);
    let known: Map<String, Value> =
        std::fs::read_to_string(FIGURES).map(|text| serde_json::from_str(&text).unwrap()).unwrap_or_default();
    let worse = report(&counted, &known);
    println!("the whole pipeline is {:.2} times the codec floor", whole / floor);
    if given("--save") {
        let sorted: Map<String, Value> =
            counted.iter().map(|(stage, count)| (stage.clone(), Value::from(count.round() as u64))).collect();
        let text = serde_json::to_string_pretty(&Value::Object(sorted)).unwrap();
        std::fs::write(FIGURES, text + "\n").unwrap();
    } else if given("--check") && !worse.is_empty() {
        panic!(
            "more than 5 % above benches/instructions.json: {worse:?} (if that is meant: -- --save, and say why)"
        );
    }
}

/// Prints all counts. Returns the stages that are worse than they may be.
fn report(counted: &HashMap<String, f64>, known: &Map<String, Value>) -> Vec<String> {
    let mut stages: Vec<_> = counted.iter().collect();
    stages.sort_by_key(|(stage, _)| stage.as_str());
    let mut worse = Vec::new();
    println!("{:24} | instructions a sample | written down | change", "stage");
    for (stage, count) in stages {
        let Some(before) = known.get(stage).and_then(Value::as_f64) else {
            println!("{stage:24} | {count:21.0} | {:>12} |", "-");
            worse.push(stage.clone());
            continue;
        };
        let change = count / before - 1.0;
        println!("{stage:24} | {count:21.0} | {before:12.0} | {:+.1} %", change * 100.0);
        if change > TOLERANCE {
            worse.push(stage.clone());
        } else if change < -TOLERANCE {
            println!("  better: write it down with `cargo bench --bench instructions -- --save`");
        }
    }
    worse
}

/// Runs the stages under callgrind. Returns the instructions of each for one sample, calls out of the program included.
fn count() -> HashMap<String, f64> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("callgrind");
    let run = Command::new("valgrind")
        .arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(std::env::current_exe().unwrap())
        .arg("--stages")
        .output();
    let run = run.unwrap_or_else(|error| panic!("valgrind (Debian's package of that name): {error}"));
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let instructions = inclusive(&std::fs::read_to_string(&file).unwrap());
    let samples = String::from_utf8(run.stdout).unwrap();
    let samples = samples.lines().filter_map(|line| line.strip_prefix("samples ")?.split_once(' '));
    samples
        .map(|(stage, samples)| {
            let counted = *instructions.get(stage).unwrap_or_else(|| panic!("{stage} was not counted"));
            (stage.to_owned(), counted as f64 / samples.parse::<f64>().unwrap())
        })
        .collect()
}

/// The instructions of each function of `stages`, with all that it calls, of a file in callgrind's format
/// (<https://valgrind.org/docs/manual/cl-format.html>): each call is two lines behind the name of who is called.
fn inclusive(profile: &str) -> HashMap<String, u64> {
    let mut names: HashMap<&str, &str> = HashMap::new();
    let mut counts = HashMap::new();
    let mut called = "";
    let mut lines = profile.lines();
    while let Some(line) = lines.next() {
        // A name is told once, with a number that stands for it from then on.
        if let Some(given) = line.strip_prefix("cfn=").or_else(|| line.strip_prefix("fn=")) {
            let (number, name) = given.split_once(' ').unwrap_or((given, ""));
            if !name.is_empty() {
                names.insert(number, name);
            }
            called = names[number];
        } else if line.starts_with("calls=") {
            let cost = lines.next().unwrap().rsplit(' ').next().unwrap();
            if let Some((_, stage)) = called.split_once("::stages::count_") {
                // What the compiler puts behind a name (a hash, a number) is none of it.
                let stage = stage.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
                *counts.entry(stage.to_owned()).or_insert(0) += cost.parse::<u64>().unwrap();
            }
        }
    }
    counts
}

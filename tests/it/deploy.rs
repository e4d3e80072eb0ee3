//! What `deploy/` says of the product, held to the code: variables in the chart, metrics in rules and dashboard, and that each alert
//! can be looked up. What the chart renders to is the business of `deploy/helm/test/run`.

use crate::tidy::{metrics_there, root};
use promdedup::config::{Config, VARIABLES, Variable};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn parsed(path: &str) -> Value {
    serde_json::from_str(&text(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Names of metrics of ours, those of recording rules (with colons) left out.
fn metrics_named(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
    words.filter(|word| word.starts_with("promdedup_")).map(|word| word.trim_end_matches(':')).collect()
}

/// Recording rules and what is not ours (a name without `promdedup_` in front) do not count.
fn unknown_metrics(text: &str) -> Vec<&str> {
    let there = metrics_there();
    let known = |name: &str| {
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        there.contains(name) || family.is_some_and(|family| there.contains(family))
    };
    metrics_named(text).into_iter().filter(|name| !known(name)).collect()
}

#[test]
fn unknown_metrics_are_found() {
    let check = |text, expect: &[&str]| assert_eq!(unknown_metrics(text), expect, "{text}");
    check("rate(promdedup_samples_total[5m])", &[]);
    check("promdedup_upstream_duration_seconds_bucket{le=\"1\"}", &[]);
    check("group:promdedup_anything:rate5m + up", &[]);
    check("sum(promdedup_sample_total) / promdedup_x", &["promdedup_sample_total", "promdedup_x"]);
}

#[test]
fn rules_and_their_tests_name_the_metrics_there_are() {
    for path in ["deploy/prometheus/rules.yml", "deploy/prometheus/rules_test.yml"] {
        let text = text(path);
        assert!(metrics_named(&text).len() > 8, "{path}");
        // The link to the runbook has the project's name in it, the rest are metrics.
        assert_eq!(unknown_metrics(&text), Vec::<&str>::new(), "{path}");
    }
}

/// The queries of a dashboard, panels of collapsed rows included, and of its variables.
fn queries(dashboard: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let mut left = vec![dashboard];
    while let Some(value) = left.pop() {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("expr").and_then(Value::as_str).map(str::to_owned));
                found.extend(fields.get("query").and_then(Value::as_str).map(str::to_owned));
                left.extend(fields.values());
            }
            Value::Array(values) => left.extend(values),
            _ => {}
        }
    }
    found
}

#[test]
fn the_dashboard_names_the_metrics_there_are_and_shows_most_of_them() {
    let queries = queries(&parsed("deploy/grafana/promdedup.json")).join("\n");
    assert_eq!(unknown_metrics(&queries), Vec::<&str>::new());
    let shown: BTreeSet<&str> = metrics_named(&queries)
        .into_iter()
        .map(|name| name.strip_suffix("_bucket").unwrap_or(name))
        .collect();
    let hidden: Vec<_> = metrics_there().into_iter().filter(|name| !shown.contains(name.as_str())).collect();
    assert_eq!(hidden, Vec::<String>::new(), "metrics that no panel shows");
}

/// A recording rule that the dashboard or an alert asks for exists, under that very name.
#[test]
fn recorded_names_are_recorded() {
    let rules = text("deploy/prometheus/rules.yml");
    let recorded: BTreeSet<&str> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- record: ")).collect();
    assert!(recorded.len() > 2, "{recorded:?}");
    let dashboard = queries(&parsed("deploy/grafana/promdedup.json")).join("\n");
    for text in [&rules, &dashboard] {
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
        for name in words.filter(|word| word.contains(":promdedup_")) {
            assert!(recorded.contains(name), "{name} is recorded by no rule");
        }
    }
}

#[test]
fn every_alert_says_what_it_means_and_is_tested_and_in_the_runbook() {
    let (rules, tests) = (text("deploy/prometheus/rules.yml"), text("deploy/prometheus/rules_test.yml"));
    let runbook = text("docs/runbook.md");
    let mut alerts = 0;
    for rule in rules.split("- alert: ").skip(1) {
        let name = rule.lines().next().expect("a name");
        for key in ["summary: ", "description: ", "severity: "] {
            assert!(rule.contains(key), "{name} has no {key}");
        }
        let anchor = format!("docs/runbook.md#{}", name.to_ascii_lowercase());
        assert!(rule.lines().any(|line| line.contains("runbook_url: ") && line.ends_with(&anchor)), "{name}");
        assert!(
            runbook.lines().any(|line| line.trim_start_matches('#').trim() == name && line.starts_with('#')),
            "{name} is not in the runbook"
        );
        let fires = format!("alertname: {name}\n        exp_alerts:");
        assert!(tests.contains(&fires), "no test sees {name} fire");
        alerts += 1;
    }
    assert!(alerts > 10, "{alerts}");
}

/// What the schema of the chart's values has to say of a variable.
fn described(variable: &Variable) -> String {
    let mut text = format!("{}. Form: {}.", variable.meaning.trim_end_matches('.'), variable.form);
    if !variable.default.is_empty() {
        text.push_str(&format!(" Default: {}", variable.default));
    }
    text
}

/// `--help` is made of the same list (`command::help_names_every_variable`).
#[test]
fn the_values_of_the_chart_are_the_variables_there_are() {
    let schema = parsed("deploy/helm/promdedup/values.schema.json");
    let mut told: Vec<(String, String)> = Vec::new();
    for part in ["config", "files"] {
        let part = &schema["properties"][part];
        assert_eq!(part["additionalProperties"], json!(false));
        let names = part["properties"].as_object().expect("properties").iter();
        let text = |value: &Value| value["description"].as_str().unwrap_or_default().to_owned();
        told.extend(names.map(|(name, value)| (name.clone(), text(value))));
    }
    told.sort();
    let mut there: Vec<_> =
        VARIABLES.iter().map(|variable| (variable.name.to_owned(), described(variable))).collect();
    there.sort();
    assert_eq!(told, there);
    let files = schema["properties"]["files"]["properties"].as_object().expect("properties");
    for variable in VARIABLES {
        assert_eq!(files.contains_key(variable.name), variable.name.ends_with("_FILE"), "{}", variable.name);
    }
    let config = schema["properties"]["config"]["properties"].as_object().expect("properties");
    let in_secrets = &schema["properties"]["configFromSecrets"]["propertyNames"]["enum"];
    let mut in_secrets: Vec<&str> =
        in_secrets.as_array().expect("names").iter().filter_map(Value::as_str).collect();
    in_secrets.sort_unstable();
    assert_eq!(in_secrets, config.keys().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>());
}

/// Every file below a folder, but for tests that misspell on purpose.
fn files_below(folder: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut left = vec![root().join(folder)];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(fs::read_dir(&path).expect("a folder").map(|entry| entry.expect("an entry").path()));
        } else {
            found.push((path.display().to_string(), fs::read_to_string(&path).expect("text")));
        }
    }
    found.retain(|(path, _)| !path.contains("/deploy/helm/test/"));
    found
}

#[test]
fn all_of_deploy_names_the_variables_there_are() {
    let mut seen = 0;
    for (path, text) in files_below("deploy") {
        let words = text.split(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'));
        // `PROMDEDUP_` alone, or at the start of a pattern such as PROMDEDUP_TLS_*.
        for name in words.filter(|word| word.starts_with("PROMDEDUP_") && !word.ends_with('_')) {
            let known = Variable::named(name).is_some();
            assert!(known, "{path} names {name}");
            seen += 1;
        }
    }
    assert!(seen > 100, "{seen}");
}

#[test]
fn chart_and_image_have_the_version_of_the_product() {
    let version = env!("CARGO_PKG_VERSION");
    let chart = text("deploy/helm/promdedup/Chart.yaml");
    for line in [format!("version: {version}"), format!("appVersion: {version}")] {
        assert!(chart.lines().any(|each| each == line), "no {line:?} in Chart.yaml");
    }
    assert!(text("deploy/Dockerfile").contains(&format!("ARG VERSION={version}\n")));
}

/// The example of the environment, its comments taken away, is a configuration but for files that are not here.
#[test]
fn the_environment_of_the_unit_is_a_configuration() {
    let text = text("deploy/systemd/promdedup.env");
    let pairs = text.lines().filter_map(|line| line.trim_start_matches('#').split_once('='));
    let pairs: Vec<_> =
        pairs.filter(|(name, _)| name.starts_with("PROMDEDUP_") && !name.ends_with("_FILE")).collect();
    assert!(pairs.len() > 3, "{pairs:?}");
    Config::from_pairs(pairs).expect("a configuration");
}

//! What a Prometheus says of its configuration, as far as it concerns who receives from it. Pure.

use std::collections::BTreeMap;
use std::time::Duration;
use yaml_rust2::{Yaml, YamlLoader};

/// What matters of a configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sender {
    pub(super) external_labels: BTreeMap<String, String>,
    pub(super) remotes: Vec<Remote>,
}

/// One section of `remote_write`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Remote {
    pub(super) url: String,
    pub(super) samples_max: Option<i64>,
    pub(super) backoff_max: Option<Duration>,
    /// Zero: none are dropped for their age.
    pub(super) age_limit: Option<Duration>,
    /// The expressions by which labels are dropped or kept before sending, with the action.
    pub(super) label_filters: Vec<(String, String)>,
}

impl Sender {
    /// Reads it, or says why that cannot be.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let documents = YamlLoader::load_from_str(text).map_err(|error| error.to_string())?;
        let document = documents.first().ok_or("the configuration is empty")?;
        let labels = document["global"]["external_labels"].as_hash();
        let labels = labels.into_iter().flatten();
        let external_labels = labels.filter_map(|(name, value)| Some((scalar(name)?, scalar(value)?)));
        let remotes = document["remote_write"].as_vec().into_iter().flatten();
        Ok(Self { external_labels: external_labels.collect(), remotes: remotes.map(Remote::of).collect() })
    }
}

impl Remote {
    fn of(section: &Yaml) -> Self {
        let queue = &section["queue_config"];
        let duration = |value: &Yaml| humantime::parse_duration(value.as_str()?).ok();
        let filters = section["write_relabel_configs"].as_vec().into_iter().flatten();
        let filters = filters.filter_map(|rule| {
            let action =
                rule["action"].as_str().filter(|action| matches!(*action, "labeldrop" | "labelkeep"))?;
            Some((action.to_owned(), rule["regex"].as_str()?.to_owned()))
        });
        Self {
            url: section["url"].as_str().unwrap_or_default().to_owned(),
            samples_max: queue["max_samples_per_send"].as_i64(),
            backoff_max: duration(&queue["max_backoff"]),
            age_limit: duration(&queue["sample_age_limit"]),
            label_filters: filters.collect(),
        }
    }
}

/// A label's value may look like a number, which YAML takes for one.
fn scalar(value: &Yaml) -> Option<String> {
    match value {
        Yaml::String(text) | Yaml::Real(text) => Some(text.clone()),
        Yaml::Integer(number) => Some(number.to_string()),
        Yaml::Boolean(truth) => Some(truth.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Prometheus 3 prints it.
    const CONFIGURATION: &str = "\
global:
  scrape_interval: 15s
  external_labels:
    cluster: \"007\"
    prometheus: monitoring/k8s
    prometheus_replica: 'prometheus-k8s-0'
remote_write:
- url: http://user:<secret>@promdedup:19290/api/v1/receive
  remote_timeout: 30s
  write_relabel_configs:
  - regex: prometheus_.*
    action: labeldrop
  - source_labels: [job]
    regex: x
    action: drop
  queue_config:
    capacity: 10000
    max_samples_per_send: 2000
    batch_send_deadline: 5s
    min_backoff: 30ms
    max_backoff: 1m30s
    sample_age_limit: 0s
- url: http://elsewhere/
";

    #[test]
    fn what_matters_is_found() {
        let sender = Sender::parse(CONFIGURATION).unwrap();
        let labels: Vec<_> = sender.external_labels.iter().map(|(n, v)| format!("{n}={v}")).collect();
        assert_eq!(
            labels,
            ["cluster=007", "prometheus=monitoring/k8s", "prometheus_replica=prometheus-k8s-0"]
        );
        let [ours, other] = &sender.remotes[..] else { panic!("{sender:?}") };
        assert_eq!(ours.url, "http://user:<secret>@promdedup:19290/api/v1/receive");
        assert_eq!((ours.samples_max, ours.age_limit), (Some(2000), Some(Duration::ZERO)));
        assert_eq!(ours.backoff_max, Some(Duration::from_secs(90)));
        assert_eq!(ours.label_filters, [("labeldrop".to_owned(), "prometheus_.*".to_owned())]);
        assert_eq!(other, &Remote { url: "http://elsewhere/".to_owned(), ..Remote::default() });
    }

    #[test]
    fn what_is_none_is_said() {
        assert_eq!(Sender::parse("").unwrap_err(), "the configuration is empty");
        assert!(Sender::parse("a: [").is_err());
        assert_eq!(Sender::parse("global: 7").unwrap(), Sender::default());
    }
}

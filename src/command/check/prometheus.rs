//! The replicas' own configuration, read from their API: do they fit each other, and this proxy?
//!
//! Asks and compares. What a configuration does not say (which targets are found, whether data arrives) is the affair of
//! `promdedup_group_health`.

use super::Line;
use super::yaml::{Remote, Sender};
use crate::config::{ClientTls, Config};
use crate::fetch;
use http::Uri;
use regex::Regex;
use rustls::ClientConfig;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

const TIMEOUT: Duration = Duration::from_secs(10);
/// Where we listen, whatever the host is called.
const PATHS: [&str; 3] = ["/api/v1/receive", "/api/v1/write", "/api/v1/push"];
/// What a sample takes in a body, decompressed: about as much as labels have.
const SAMPLE_BYTES: i64 = 400;
/// An outage that Prometheus outlives otherwise.
const AGE_LIMIT_MIN: Duration = Duration::from_secs(2 * 60 * 60);

/// Asks all of them, one after the other, and compares them.
pub(super) async fn look(urls: &[String], config: &Config) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut senders = Vec::new();
    if urls.is_empty() {
        return lines;
    }
    let tls = match ClientTls::default().read() {
        Ok(tls) => Arc::new(tls),
        Err(fault) => return vec![Line::failure("Prometheus", fault.to_string())],
    };
    for url in urls {
        let what = format!("Prometheus {url}");
        match ask(url, &tls).await {
            Ok(sender) => {
                let labels: Vec<_> =
                    sender.external_labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
                lines.push(Line::well(&what, format!("external labels {{{}}}", labels.join(", "))));
                lines.extend(alone(&what, &sender, config));
                senders.push((url.as_str(), sender));
            }
            Err(problem) => lines.push(Line::failure(what, problem)),
        }
    }
    lines.extend(together(&senders, config));
    lines
}

async fn ask(url: &str, tls: &Arc<ClientConfig>) -> Result<Sender, String> {
    let place = format!("{}/api/v1/status/config", url.trim_end_matches('/'));
    let place: Uri = place.parse().map_err(|error| format!("not an address ({error})"))?;
    if !matches!(place.scheme_str(), Some("http" | "https")) {
        return Err("not an http:// or https:// address".to_owned());
    }
    let document = match timeout(TIMEOUT, fetch::json(&place, tls)).await {
        Ok(document) => document.map_err(|error| error.to_string())?,
        Err(_) => return Err(format!("no answer within {TIMEOUT:?}")),
    };
    let text = document["data"]["yaml"].as_str().ok_or("its answer holds no configuration")?;
    Sender::parse(text)
}

/// What one configuration says by itself.
fn alone(what: &str, sender: &Sender, config: &Config) -> Vec<Line> {
    let mut warnings = Vec::new();
    let series = &config.series;
    let has = |name: &&String| sender.external_labels.get(*name).is_some_and(|value| !value.is_empty());
    let replica_label = series.replica_labels.iter().find(has);
    if replica_label.is_none() {
        let names = series.replica_labels.join(", ");
        warnings.push(format!(
            "no external label is a replica label ({names}): its series would be forwarded untouched"
        ));
    }
    if !series.group_labels.iter().any(|name| has(&name)) {
        let names = series.group_labels.join(", ");
        warnings.push(format!("no external label names its group ({names}): all such senders are one group"));
    }
    let ours = sender.remotes.iter().filter(|remote| is_ours(&remote.url));
    let ours: Vec<_> = ours.collect();
    if ours.is_empty() {
        let paths = PATHS.join(", ");
        warnings.push(format!(
            "no remote_write goes to a path of ours ({paths}): is it this proxy that it writes to?"
        ));
    }
    for remote in ours {
        warnings.extend(settings(remote, replica_label, config));
    }
    warnings.into_iter().map(|text| Line::warning(what, text)).collect()
}

fn is_ours(url: &str) -> bool {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    PATHS.iter().any(|ours| path.ends_with(ours))
}

/// What is odd about a section of `remote_write`.
fn settings(remote: &Remote, replica_label: Option<&String>, config: &Config) -> Vec<String> {
    let mut odd = Vec::new();
    let name = replica_label.map_or("", String::as_str);
    for (action, regex) in remote.label_filters.iter().filter(|_| !name.is_empty()) {
        // Prometheus' expressions are those of RE2, and match as a whole.
        let matches = Regex::new(&format!("^(?s:{regex})$")).is_ok_and(|regex| regex.is_match(name));
        if matches == (action == "labeldrop") {
            odd.push(format!("its {action} {regex:?} takes the replica label {name} away before sending"));
        }
    }
    let hold = config.window.first_contact_hold;
    if let Some(backoff) = remote.backoff_max.filter(|backoff| !hold.is_zero() && *backoff >= hold) {
        odd.push(format!(
            "max_backoff is {}: raise PROMDEDUP_FIRST_CONTACT_HOLD ({}) above it, or a backlog is overlooked after a restart",
            humantime::format_duration(backoff),
            humantime::format_duration(hold),
        ));
    }
    if let Some(limit) = remote.age_limit.filter(|limit| !limit.is_zero() && *limit < AGE_LIMIT_MIN) {
        odd.push(format!(
            "sample_age_limit is {}: an outage that is longer loses samples that Prometheus could still send",
            humantime::format_duration(limit),
        ));
    }
    match remote.samples_max {
        Some(samples) if samples.saturating_mul(SAMPLE_BYTES) > config.receive.body_max_bytes as i64 => {
            odd.push(format!(
                "max_samples_per_send is {samples}: such bodies may be larger than PROMDEDUP_BODY_MAX, and are then dropped (413)"
            ));
        }
        Some(samples) if samples < 500 => odd.push(format!(
            "max_samples_per_send is {samples}: each request costs, here and upstream; 2000 is Prometheus' default"
        )),
        _ => {}
    }
    odd
}

/// What shows only beside each other.
fn together(senders: &[(&str, Sender)], config: &Config) -> Vec<Line> {
    let series = &config.series;
    let value =
        |sender: &Sender, name: &String| sender.external_labels.get(name).cloned().unwrap_or_default();
    let replica = |sender: &Sender| {
        series.replica_labels.iter().map(|name| value(sender, name)).find(|value| !value.is_empty())
    };
    let mut groups: BTreeMap<String, Vec<(&str, &Sender)>> = BTreeMap::new();
    for (url, sender) in senders {
        let names = series.group_labels.iter().map(|name| value(sender, name));
        let name = names.filter(|value| !value.is_empty()).collect::<Vec<_>>().join("/");
        groups.entry(name).or_default().push((url, sender));
    }
    let mut lines = Vec::new();
    for (name, members) in &groups {
        let what = format!("group {name:?}");
        let mut replicas = BTreeSet::new();
        for (url, sender) in members {
            let Some(replica) = replica(sender) else { continue };
            if !replicas.insert(replica.clone()) {
                lines.push(Line::warning(
                    &what,
                    format!(
                        "{url} is called {replica:?} as another one is: each replica needs a value of its own"
                    ),
                ));
            }
        }
        let differ = differences(members, &series.replica_labels);
        if !differ.is_empty() {
            let differ = differ.join(", ");
            lines.push(Line::warning(&what, format!("external labels differ in {differ}: no series of one replica is one of another's, so nothing is deduplicated")));
        }
        match replicas.len() {
            0 => {}
            1 if members.len() == 1 => lines.push(Line::warning(
                &what,
                "one replica only: name the others with --prometheus-url, too; if there are some, their group labels differ",
            )),
            count if differ.is_empty() && count == members.len() => {
                lines.push(Line::well(&what, format!("{count} replicas, which differ in the replica label only")));
            }
            _ => {}
        }
    }
    lines
}

/// Names of the labels that not all members have with one value.
fn differences(members: &[(&str, &Sender)], replica_labels: &[String]) -> Vec<String> {
    let names: BTreeSet<_> = members.iter().flat_map(|(_, sender)| sender.external_labels.keys()).collect();
    let differs = |name: &&&String| {
        let mut values = members.iter().map(|(_, sender)| sender.external_labels.get(**name));
        let first = values.next();
        values.any(|value| Some(value) != first)
    };
    let others = names.iter().filter(|name| !replica_labels.contains(name));
    others.filter(differs).map(|name| (**name).clone()).collect()
}

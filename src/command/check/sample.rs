//! A remote-write body as a replica sends it: which version it is, whose series it has, and what is wrong with them.
//!
//! Reads it as the pipeline would, and decides nothing.

use super::Line;
use crate::config::Config;
use crate::series::{Place, PlaceLabels, ReplicaNames, TenantHash, labels};
use crate::wire::labels::{LabelBounds, canonicalize};
use crate::wire::snappy;
use crate::wire::v1::Walker;
use crate::wire::v2::{Keep, Rewriter};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Names of replica labels that others use.
const LIKELY: [&str; 6] =
    ["prometheus_replica", "__replica__", "replica", "ha_replica", "_replica_", "receive_replica"];
/// Groups and replicas that are told one by one.
const TOLD_MAX: usize = 20;

/// What a body holds.
#[derive(Debug, Default)]
struct Found {
    series: usize,
    samples: usize,
    /// Entries of metadata, of 1.0.
    metadata: usize,
    /// By group and replica; an empty replica is none.
    replicas: BTreeMap<(String, String), Share>,
    /// The first reason why a series would be refused, and how many there are.
    invalid: Option<String>,
    refused: usize,
}

/// The series of a replica.
#[derive(Debug, Default)]
struct Share {
    series: usize,
    /// Those without a replica label that have the label which [`LIKELY`] names at that place.
    likely: [usize; LIKELY.len()],
}

/// Looks into a file.
pub(super) fn look(path: &Path, config: &Config) -> Vec<Line> {
    let what = format!("sample body {}", path.display());
    match read(path, config) {
        Ok((version, found)) => lines(&what, version, &found, config),
        Err(problem) => vec![Line::failure(what, problem)],
    }
}

fn read(path: &Path, config: &Config) -> Result<(&'static str, Found), String> {
    let max = config.receive.body_max_bytes;
    let mut packed = Vec::new();
    let read = File::open(path).and_then(|file| file.take(max as u64 + 1).read_to_end(&mut packed));
    read.map_err(|error| format!("the file cannot be read ({error})"))?;
    let mut raw = Vec::new();
    snappy::decompress(&packed, max, &mut raw).map_err(|unpack| unpack.to_string())?;
    let names = ReplicaNames::new(config.series.replica_labels.clone()).map_err(|bad| bad.to_string())?;
    // A body of one version has nothing that the other one knows.
    match walk(&raw, &names, config) {
        Ok(found) if found.series + found.metadata > 0 => return Ok(("1.0", found)),
        _ => {}
    }
    let mut rewritten = Vec::new();
    Rewriter::default()
        .rewrite(&raw, Keep::Nothing, max, &mut rewritten)
        .map_err(|malformed| format!("neither remote write 1.0 nor 2.0 ({malformed})"))?;
    Ok(("2.0", walk(&rewritten, &names, config)?))
}

fn walk(body: &[u8], names: &ReplicaNames, config: &Config) -> Result<Found, String> {
    let series_config = &config.series;
    let places = PlaceLabels {
        group: series_config.group_labels.clone(),
        target: series_config.target_labels.clone(),
    };
    let bounds = LabelBounds {
        labels_max: series_config.labels_max,
        name_bytes_max: series_config.label_name_max_bytes,
        value_bytes_max: series_config.label_value_max_bytes,
    };
    let (mut found, mut samples, mut canonical) = (Found::default(), Vec::new(), Vec::new());
    let mut walker = Walker::new(body, names);
    while let Some(series) = walker.next(&mut samples) {
        let series = series.map_err(|malformed| malformed.to_string())?;
        found.series += 1;
        let labelled = match canonicalize(body, &series, names, bounds, &mut canonical) {
            Ok(labelled) => labelled,
            Err(invalid) => {
                found.refused += 1;
                found.invalid.get_or_insert_with(|| format!("series {}: {invalid}", found.series));
                continue;
            }
        };
        let group = Place::of(&canonical, &places, TenantHash::of("")).group_name;
        let replica = labelled.replica.map_or(&[][..], |span| span.of(body));
        let name = String::from_utf8_lossy(replica).into_owned();
        let share = found.replicas.entry((group, name)).or_default();
        share.series += 1;
        for (likely, count) in LIKELY.iter().zip(&mut share.likely).filter(|_| replica.is_empty()) {
            *count += usize::from(labels(&canonical).any(|(name, _)| name == likely.as_bytes()));
        }
    }
    (found.samples, found.metadata) = (samples.len(), walker.metadata.len());
    Ok(found)
}

fn lines(what: &str, version: &str, found: &Found, config: &Config) -> Vec<Line> {
    let Found { series, samples, metadata, .. } = found;
    let metadata = if *metadata > 0 { format!(", {metadata} entries of metadata") } else { String::new() };
    let held = format!("remote write {version}, {series} series, {samples} samples{metadata}");
    let mut lines = vec![Line::well(what, held)];
    if *series == 0 {
        lines.push(Line::warning(what, "there is no series in it, so it says nothing of replicas"));
    }
    if let Some(first) = &found.invalid {
        let refused = found.refused;
        lines.push(Line::warning(what, format!("{refused} of {series} series would be refused: {first}")));
    }
    let (names, group_labels) =
        (config.series.replica_labels.join(", "), config.series.group_labels.join(", "));
    for ((group, replica), share) in found.replicas.iter().take(TOLD_MAX) {
        let count = share.series;
        if replica.is_empty() {
            let likely = LIKELY.iter().zip(share.likely).find(|(_, there)| *there == count);
            let advice = likely.map_or_else(
                || "set one of them as an external label, to another value on each replica".to_owned(),
                |(name, _)| {
                    format!("they have {name}: name it in PROMDEDUP_REPLICA_LABELS if that is the one")
                },
            );
            let text = format!(
                "{count} series of the group {group:?} have no replica label ({names}), so they are forwarded untouched: {advice}"
            );
            lines.push(Line::warning(what, text));
        } else {
            lines.push(Line::well(
                what,
                format!("{count} series of the group {group:?}, replica {replica:?}"),
            ));
        }
        if group.is_empty() {
            let text = format!(
                "{count} series have none of the labels {group_labels}: all such senders are one group"
            );
            lines.push(Line::warning(what, text));
        }
    }
    let rest = found.replicas.len().saturating_sub(TOLD_MAX);
    if rest > 0 {
        lines.push(Line::warning(
            what,
            format!("{rest} more replicas: is the replica label one of the targets'?"),
        ));
    }
    lines
}

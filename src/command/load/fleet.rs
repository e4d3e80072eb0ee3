//! What is scraped: targets with the series of real ones, told by numbers. Nothing is stored per target or series.
//!
//! The series are those of two targets of the corpus (`tests/corpus`), as one scrape each brought them: their labels in their order,
//! and their values. Each invented target has the series of one of these two, and an `instance` of its own. Groups have equal targets,
//! told apart by `cluster`. Where series end, those of a target end together, and its successor has another `instance`: a generation.

use super::LoadOptions;
use super::stencil::mix;
use crate::proto;
use crate::stand_in::STALE_MARKER_BITS;
use anyhow::{Context as _, ensure};
use prost::Message;
use std::collections::HashMap;
use std::ops::Range;

/// One scrape of one target each.
const SCRAPES: [&[u8]; 2] = [
    include_bytes!("../../../tests/corpus/rw1-sequence-02-a.bin"),
    include_bytes!("../../../tests/corpus/rw1-sequence-03-a.bin"),
];
/// Most series of a target, about as many as the targets of the corpus have. A multiple of usual numbers of shards, so that batches get
/// full.
pub(super) const SERIES_PER_TARGET: usize = 800;
/// The label by which replicas differ.
pub(super) const REPLICA_LABEL: &str = "prometheus_replica";
/// The label by which targets differ.
pub(super) const INSTANCE_LABEL: &str = "instance";
/// The label by which groups differ, if there are several.
pub(super) const GROUP_LABEL: &str = "cluster";
/// Labels that a series keeps if it may have fewer than it has, the most important one first.
const KEPT: [&str; 5] = ["__name__", INSTANCE_LABEL, "job", GROUP_LABEL, "prometheus"];
/// Series that a Prometheus adds to each target itself. They are in the corpus, but not in one body with the others.
const OWN: [(&str, f64); 5] = [
    ("up", 1.0),
    ("scrape_duration_seconds", 0.012_345_678_9),
    ("scrape_samples_scraped", 795.0),
    ("scrape_samples_post_metric_relabeling", 795.0),
    ("scrape_series_added", 0.0),
];

/// One series of a target, without replica label; its instance is an empty text, and so is its group if there are several.
#[derive(Debug, Clone)]
pub(super) struct SeriesShape {
    /// Sorted by name.
    pub(super) labels: Vec<(String, String)>,
    /// The value as it was scraped.
    pub(super) bits: u64,
    /// Which of its bytes (little-endian) change from scrape to scrape: from here on, so many.
    pub(super) varying: (u8, u8),
}

/// The targets of each group.
#[derive(Debug)]
pub(super) struct Fleet {
    kinds: Vec<Vec<SeriesShape>>,
    targets: usize,
    series: usize,
    per_target: usize,
    groups: usize,
    churn: Option<Churn>,
}

/// How long targets live, and how often they are scraped meanwhile.
#[derive(Debug, Clone, Copy)]
struct Churn {
    life_ms: u64,
    interval_ms: u64,
}

impl Fleet {
    /// Of each group at least one target, at least four if there are enough series.
    pub(super) fn new(options: &LoadOptions) -> anyhow::Result<Self> {
        let series = options.series_of_a_group();
        let per_target = (series / 4).clamp(OWN.len() + 1, SERIES_PER_TARGET).min(series.max(1));
        let mut kinds: Vec<_> = SCRAPES.iter().map(|body| kind(body)).collect::<Result<_, _>>()?;
        for kind in &mut kinds {
            ensure!(kind.len() >= SERIES_PER_TARGET, "a target of the corpus has {} series", kind.len());
            for (nth, shape) in kind.iter_mut().enumerate() {
                if let Some(labels) = options.labels {
                    shape.have(nth, labels.saturating_sub(1));
                }
                let group = shape.labels.iter_mut().filter(|(name, _)| name == GROUP_LABEL);
                group.filter(|_| options.groups > 1).for_each(|(_, value)| value.clear());
            }
        }
        let interval_ms = u64::try_from(options.interval.as_millis()).unwrap_or(u64::MAX);
        let churn = options.life_ms().map(|life_ms| Churn { life_ms, interval_ms });
        let targets = series.div_ceil(per_target);
        Ok(Self { kinds, targets, series, per_target, groups: options.groups, churn })
    }

    /// Of one group that has so many series.
    #[cfg(test)]
    pub(super) fn of(series: usize) -> Self {
        Self::new(&LoadOptions { series, ..LoadOptions::to("") }).unwrap()
    }

    pub(super) fn groups(&self) -> usize {
        self.groups
    }

    /// Whether they are replaced by others.
    pub(super) fn series_end(&self) -> bool {
        self.churn.is_some()
    }

    pub(super) fn targets(&self) -> usize {
        self.targets
    }

    pub(super) fn per_target(&self) -> usize {
        self.per_target
    }

    /// Targets come in so many forms, told by numbers from 0.
    pub(super) fn forms(&self) -> usize {
        self.kinds.len() + 1
    }

    /// The form of a target: one of the kinds, or the last one, which has what is left over.
    pub(super) fn form(&self, target: usize) -> usize {
        if target + 1 == self.targets { self.kinds.len() } else { target % self.kinds.len() }
    }

    /// The series of a form.
    pub(super) fn shapes(&self, form: usize) -> &[SeriesShape] {
        let (kind, len) = if form == self.kinds.len() {
            ((self.targets - 1) % self.kinds.len(), self.series - (self.targets - 1) * self.per_target)
        } else {
            (form, self.per_target)
        };
        &self.kinds[kind][..len]
    }
}

impl Fleet {
    /// How often a target has been replaced when it is scraped for the `round`-th time.
    pub(super) fn generation(&self, group: usize, target: usize, round: u64) -> u64 {
        let Some(Churn { life_ms, interval_ms }) = self.churn else { return 0 };
        (round * interval_ms + age_ms(group, target, life_ms)) / life_ms
    }

    /// The rounds in which a generation of a target is scraped.
    pub(super) fn rounds(&self, group: usize, target: usize, generation: u64) -> Range<u64> {
        let Some(Churn { life_ms, interval_ms }) = self.churn else { return 0..u64::MAX };
        let born = |generation: u64| {
            (generation * life_ms).saturating_sub(age_ms(group, target, life_ms)).div_ceil(interval_ms)
        };
        born(generation)..born(generation + 1)
    }

    /// The `instance` of a generation of a target: always as long.
    pub(super) fn instance(&self, target: usize, generation: u64) -> String {
        match self.churn {
            None => format!("node{target:06}:9100"),
            Some(_) => format!("pod{target:05}-{:06}", generation % 1_000_000),
        }
    }
}

/// How old a target is when time begins: they do not all end at once.
fn age_ms(group: usize, target: usize, life_ms: u64) -> u64 {
    mix(target as u64, 0x0c4u64 + group as u64) % life_ms
}

/// The label value of a group: always as long.
pub(super) fn group_name(group: usize) -> String {
    format!("group-{group:05}")
}

impl SeriesShape {
    /// Gives it so many labels. What it loses may have told it from others, so its name does from then on.
    fn have(&mut self, nth: usize, labels: usize) {
        let rank = |name: &str| KEPT.iter().position(|kept| *kept == name).unwrap_or(KEPT.len());
        self.labels.sort_by(|(one, _), (other, _)| (rank(one), one).cmp(&(rank(other), other)));
        let lost = self.labels.split_off(labels.min(self.labels.len()));
        if lost.iter().any(|(name, _)| rank(name) == KEPT.len()) {
            self.labels.iter_mut().take(1).for_each(|(_, name)| *name = format!("{name}_{nth:03}"));
        }
        for more in self.labels.len()..labels {
            self.labels.push((format!("meta_label_{more:02}"), format!("the-value-of-label-{more:02}")));
        }
        self.labels.sort();
    }

    /// The same series when it ends.
    pub(super) fn ended(&self) -> Self {
        Self { labels: self.labels.clone(), bits: STALE_MARKER_BITS, varying: (0, 0) }
    }

    /// The value's bytes at a scrape (the `round`-th of its target). Bytes that change are counted up, as a counter's would be: among
    /// positive numbers, more in the bits is more.
    pub(super) fn value(&self, nth: usize, target: usize, round: u64) -> [u8; 8] {
        let (from, len) = self.varying;
        if len == 0 {
            return self.bits.to_le_bytes();
        }
        let step = 1 + mix(nth as u64, 7) % 9;
        let moved = mix(target as u64, nth as u64).wrapping_add(round.wrapping_mul(step));
        let mask = (u64::MAX >> (64 - 8 * u32::from(len))) << (8 * u32::from(from));
        ((self.bits & !mask) | ((moved << (8 * u32::from(from))) & mask)).to_le_bytes()
    }
}

fn kind(body: &[u8]) -> anyhow::Result<Vec<SeriesShape>> {
    let raw = snap::raw::Decoder::new().decompress_vec(body).context("a body of the corpus")?;
    let request = proto::WriteRequest::decode(raw.as_slice()).context("a body of the corpus")?;
    let instance_of = |series: &proto::TimeSeries| {
        series.labels.iter().find(|label| label.name == INSTANCE_LABEL).map(|label| label.value.clone())
    };
    // A body has a few series of others as well.
    let mut counts: HashMap<String, usize> = HashMap::new();
    for instance in request.timeseries.iter().filter_map(instance_of) {
        *counts.entry(instance).or_default() += 1;
    }
    let instance = counts.into_iter().max_by_key(|(_, count)| *count).map(|(instance, _)| instance);
    let mut shapes = Vec::new();
    let mut last_bits = None;
    for series in &request.timeseries {
        let Some(sample) = series.samples.first().filter(|_| instance_of(series) == instance) else {
            continue;
        };
        let labels: Vec<_> = series
            .labels
            .iter()
            .filter(|label| label.name != REPLICA_LABEL)
            .map(|label| {
                let value = if label.name == INSTANCE_LABEL { "" } else { label.value.as_str() };
                (label.name.clone(), value.to_owned())
            })
            .collect();
        let bits = sample.value.to_bits();
        // Neighbours of equal value are mostly buckets in which nothing happened; they stay equal.
        let varying = if last_bits == Some(bits) { (0, 0) } else { varying(sample.value) };
        last_bits = Some(bits);
        shapes.push(SeriesShape { labels, bits, varying });
    }
    // The series of the Prometheus itself: its labels of the target are those that all of them have.
    let of_target = ["cluster", INSTANCE_LABEL, "job", "prometheus"];
    let first = shapes.first().context("an empty body of the corpus")?.labels.clone();
    let common = first.into_iter().filter(|(name, _)| of_target.contains(&name.as_str())).collect::<Vec<_>>();
    let mut all: Vec<_> = OWN
        .iter()
        .map(|(name, value)| SeriesShape {
            labels: [("__name__".to_owned(), (*name).to_owned())].into_iter().chain(common.clone()).collect(),
            bits: value.to_bits(),
            varying: if value.fract() == 0.0 { (0, 0) } else { varying(*value) },
        })
        .collect();
    shapes.retain(|shape| !OWN.iter().any(|(name, _)| shape.labels[0].1 == *name));
    all.append(&mut shapes);
    all.truncate(SERIES_PER_TARGET);
    Ok(all)
}

/// From the lowest byte that is not zero to the highest one below the exponent: what counting would change. Nothing of zeros, of
/// what is no number, and of states (0 and 1).
fn varying(value: f64) -> (u8, u8) {
    if !value.is_finite() || value == 0.0 || value == 1.0 {
        return (0, 0);
    }
    let lowest = (value.to_bits().trailing_zeros() / 8).min(5);
    #[expect(clippy::cast_possible_truncation, reason = "at most 6")]
    let (from, len) = (lowest as u8, (6 - lowest) as u8);
    (from, len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::time::Duration;

    #[test]
    fn a_fleet_has_the_series_that_were_asked_for() {
        for (series, targets) in [(10, 2), (1_000, 4), (3_200, 4), (200_000, 250), (200_001, 251)] {
            let fleet = Fleet::of(series);
            assert_eq!(fleet.targets(), targets, "{series}");
            let sum: usize = (0..targets).map(|target| fleet.shapes(fleet.form(target)).len()).sum();
            assert_eq!(sum, series);
        }
    }

    #[test]
    fn the_series_of_a_target_are_told_apart_and_sorted() {
        let fleet = Fleet::of(10_000);
        for form in 0..fleet.forms() {
            let shapes = fleet.shapes(form);
            assert!(shapes[0].labels.contains(&("__name__".to_owned(), "up".to_owned())));
            let distinct: HashSet<_> = shapes.iter().map(|shape| &shape.labels).collect();
            assert_eq!(distinct.len(), shapes.len());
            for shape in shapes {
                assert!(shape.labels.windows(2).all(|pair| pair[0].0 < pair[1].0), "{shape:?}");
                assert!(shape.labels.iter().any(|(name, _)| name == INSTANCE_LABEL), "{shape:?}");
            }
        }
    }

    #[test]
    fn series_have_as_many_labels_as_they_were_given() {
        for labels in [5, 6, 10, 40] {
            let options = LoadOptions { labels: Some(labels), groups: 2, ..LoadOptions::to("") };
            let fleet = Fleet::new(&options).unwrap();
            for form in 0..fleet.forms() {
                let shapes = fleet.shapes(form);
                let distinct: HashSet<_> = shapes.iter().map(|shape| &shape.labels).collect();
                assert_eq!(distinct.len(), shapes.len(), "{labels}");
                for shape in shapes {
                    assert_eq!(shape.labels.len() + 1, labels, "{shape:?}");
                    assert!(shape.labels.windows(2).all(|pair| pair[0].0 < pair[1].0), "{shape:?}");
                    for name in [INSTANCE_LABEL, GROUP_LABEL] {
                        assert!(shape.labels.contains(&(name.to_owned(), String::new())), "{shape:?}");
                    }
                }
                assert!(shapes[0].labels.contains(&("__name__".to_owned(), "up".to_owned())));
            }
        }
    }

    #[test]
    fn targets_are_replaced_one_by_one_and_each_generation_has_its_rounds() {
        let options = LoadOptions { churn: 20, interval: Duration::from_secs(15), ..LoadOptions::to("") };
        let fleet = Fleet::new(&options).unwrap();
        // A fifth a minute: twenty rounds each.
        let replaced = |round| {
            let ends = |target: &usize| {
                fleet.generation(0, *target, round) != fleet.generation(0, *target, round + 1)
            };
            (0..fleet.targets()).filter(ends).count()
        };
        let counts: Vec<_> = (0..20).map(replaced).collect();
        assert_eq!(counts.iter().sum::<usize>(), fleet.targets());
        assert!(counts.iter().all(|count| *count < 40), "{counts:?}");
        for target in 0..50 {
            let mut next = 0;
            for generation in 0..5 {
                let rounds = fleet.rounds(3, target, generation);
                assert_eq!(rounds.start, next);
                assert!(rounds.clone().all(|round| fleet.generation(3, target, round) == generation));
                next = rounds.end;
            }
            assert_ne!(fleet.generation(3, target, next), 4);
            assert_eq!(fleet.instance(target, 7).len(), Fleet::of(800).instance(target, 0).len());
        }
    }

    #[test]
    fn counters_count_and_stay_numbers() {
        let fleet = Fleet::of(SERIES_PER_TARGET);
        let shapes = fleet.shapes(0);
        let moving = shapes.iter().filter(|shape| shape.varying.1 > 0).count();
        assert!(moving * 2 > shapes.len(), "{moving} move");
        for (nth, shape) in shapes.iter().enumerate() {
            let at = |round| f64::from_le_bytes(shape.value(nth, 3, round));
            assert_eq!(at(5).is_finite(), f64::from_bits(shape.bits).is_finite(), "{shape:?}");
            let moves = at(5).to_bits() != at(6).to_bits();
            assert_eq!(moves, shape.varying.1 > 0, "{shape:?}");
        }
    }
}

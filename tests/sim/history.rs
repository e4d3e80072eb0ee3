//! What was sent, what arrived, what was acknowledged, and a log of it all for whoever wants to read a story.

use crate::story::{Kind, SeriesPlan, Story, TargetPlan};
use promdedup::stand_in::Labels;
use promdedup::stand_in::request::label_block;
use std::collections::HashMap;

/// The story's beginning, in ms since the epoch.
pub(crate) const EPOCH_MS: i64 = 1_700_000_000_000;
pub(crate) const NEVER: i64 = i64::MAX;

#[derive(Debug)]
pub(crate) struct History {
    pub(crate) series: Vec<SeriesHistory>,
    by_labels: HashMap<Labels, usize>,
    /// Batches that senders threw away, as upstream or the proxy told them to.
    pub(crate) dropped: Vec<Dropped>,
    /// Broken promises that only show at the moment they are broken.
    pub(crate) broken: Vec<String>,
    /// The series whose story is told, if any.
    pub(crate) told: Option<usize>,
    pub(crate) lines: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct SeriesHistory {
    pub(crate) labels: Labels,
    pub(crate) target: usize,
    pub(crate) group: usize,
    pub(crate) plan: SeriesPlan,
    /// The label fields, replica label included, as each replica sends them.
    pub(crate) blocks: Vec<Vec<u8>>,
    /// By replica, in the order of scraping.
    pub(crate) sent: Vec<Vec<Sent>>,
}

impl SeriesHistory {
    /// The oldest sample that was brought after the last pause of so long in which none was.
    pub(crate) fn anew_ms(&self, pause_ms: i64) -> Option<i64> {
        let brought = self.sent.iter().flatten().filter(|sent| sent.arrived_ms != NEVER);
        let mut brought: Vec<(i64, i64)> = brought.map(|sent| (sent.arrived_ms, sent.at_ms)).collect();
        brought.sort_unstable();
        let last = brought.windows(2).rposition(|pair| pair[1].0 - pair[0].0 >= pause_ms)?;
        brought[last + 1..].iter().map(|(_, at_ms)| *at_ms).min()
    }
}

/// A batch that a sender threw away.
#[derive(Clone, Debug)]
pub(crate) struct Dropped {
    pub(crate) at_ms: i64,
    /// The first series in it.
    pub(crate) series: usize,
    /// Those of all of it.
    pub(crate) groups: Vec<usize>,
    pub(crate) what: String,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    /// Its own time, with the replica's clock.
    pub(crate) at_ms: i64,
    pub(crate) bits: u64,
    /// When the proxy had it first.
    pub(crate) arrived_ms: i64,
    /// When its sender saw it acknowledged.
    pub(crate) acked_ms: i64,
}

/// The group label that all groups have in common, and the one that tells them apart.
pub(crate) const CLUSTER: &str = "c";

pub(crate) fn prometheus_of(group: usize) -> String {
    if group == 0 { "m/k".to_owned() } else { format!("m/k-{group}") }
}

impl Sent {
    pub(crate) fn is_stale_marker(&self) -> bool {
        self.bits == promdedup::stand_in::STALE_MARKER_BITS
    }
}

impl History {
    pub(crate) fn of(story: &Story) -> Self {
        let mut history = Self {
            series: vec![],
            by_labels: HashMap::new(),
            dropped: vec![],
            broken: vec![],
            told: None,
            lines: vec![],
        };
        for (number, target) in story.targets.iter().enumerate() {
            let names = (0..target.series.len()).map(|nth| (format!("data_{nth}"), target.series[nth]));
            let own = ["scrape_duration_seconds", "up"].map(|name| (name.to_owned(), SeriesPlan::Steady));
            let own = own.into_iter().filter(|_| target.kind == Kind::Scraped);
            for (name, plan) in names.chain(own) {
                history.add(number, &name, plan, target, story.replicas.len());
            }
        }
        history
    }

    fn add(&mut self, target: usize, name: &str, plan: SeriesPlan, of: &TargetPlan, replicas: usize) {
        let kind = of.kind;
        let prometheus = prometheus_of(of.group);
        let name = if kind == Kind::Rules { format!("rule{target}:{name}") } else { name.to_owned() };
        let mut labels = Labels::new([
            ("__name__", name.as_str()),
            ("cluster", CLUSTER),
            ("prometheus", prometheus.as_str()),
        ]);
        if kind == Kind::Scraped {
            labels = labels.with("instance", &format!("i{target}")).with("job", "j");
        }
        let sender = |replica| label_block(&labels.with("prometheus_replica", &format!("r{replica}")));
        self.by_labels.insert(labels.clone(), self.series.len());
        self.series.push(SeriesHistory {
            target,
            group: of.group,
            plan,
            blocks: (0..replicas).map(sender).collect(),
            sent: vec![vec![]; replicas],
            labels,
        });
    }

    /// The number of a series by the labels that upstream knows it by, and the replica label if it kept it.
    pub(crate) fn number_of(&self, labels: &Labels) -> Option<(usize, bool)> {
        let kept = labels.get("prometheus_replica").is_some();
        self.by_labels.get(&labels.without("prometheus_replica")).map(|number| (*number, kept))
    }

    /// A line of a series' story.
    pub(crate) fn tell(&mut self, series: usize, now_ms: i64, line: impl FnOnce() -> String) {
        if self.told == Some(series) {
            self.lines.push(format!("{:>10.3} {}", now_ms as f64 / 1e3, line()));
        }
    }

    /// A line of the story of each series of a group.
    pub(crate) fn tell_group(&mut self, group: usize, now_ms: i64, line: impl FnOnce() -> String) {
        if self.told.is_some_and(|told| self.series[told].group == group) {
            self.tell_all(now_ms, line);
        }
    }

    /// A line of everybody's story.
    pub(crate) fn tell_all(&mut self, now_ms: i64, line: impl FnOnce() -> String) {
        if self.told.is_some() {
            self.lines.push(format!("{:>10.3} {}", now_ms as f64 / 1e3, line()));
        }
    }
}

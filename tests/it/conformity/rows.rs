//! The stage of the receiver's cases, and what is looked at after each row.
//!
//! A row is sent in both protocols, without a replica label and by two replicas one after the other: whatever the way, the
//! answer is the same, and it is stored once.

use super::bodies::{Series, Speaks, TYPE_1, TYPE_2, body};
use crate::peer::{Heard, Line, config};
use promdedup::app::{Addresses, App};
use promdedup::stand_in::thanos::Thanos;
use promdedup::stand_in::{Labels, Point};
use std::collections::BTreeMap;
use tokio::sync::oneshot;

/// A running proxy.
pub(super) struct Proxy {
    pub(super) at: Addresses,
    /// Dropping it ends the proxy.
    _stop: oneshot::Sender<()>,
}

impl Proxy {
    pub(super) fn start(url: &str, more: &[(&str, &str)]) -> Self {
        let app = App::build(config(url, &[more, &[("PROMDEDUP_FIRST_CONTACT_HOLD", "0s")]].concat()));
        let app = app.expect("built");
        let at = app.addresses();
        let (stop, stopped) = oneshot::channel();
        tokio::spawn(app.run(async { drop(stopped.await) }));
        Self { at, _stop: stop }
    }

    pub(super) async fn line(&self) -> Line {
        Line::open(self.at.data).await
    }
}

/// Headers of a request, as a sender of that version says them.
pub(super) fn headers(speaks: Speaks) -> String {
    let (kind, version) = match speaks {
        Speaks::One => (TYPE_1, "0.1.0"),
        Speaks::Two => (TYPE_2, "2.0.0"),
    };
    format!(
        "content-type: {kind}\r\ncontent-encoding: snappy\r\nx-prometheus-remote-write-version: {version}\r\n"
    )
}

/// What the answer says is written: samples, histograms, exemplars.
pub(super) fn written(heard: &Heard) -> [Option<u64>; 3] {
    ["samples", "histograms", "exemplars"].map(|what| {
        let header = format!("x-prometheus-remote-write-{what}-written: ");
        let mut values = heard.head.lines().filter_map(|line| line.strip_prefix(&header));
        let value = values.next().map(|value| value.parse().expect("a whole number"));
        assert_eq!(values.next(), None, "said twice: {}", heard.head);
        value
    })
}

/// A refusal is told in one sentence; success says nothing.
pub(super) fn says_why(heard: &Heard) {
    match heard.status {
        200..=299 => assert_eq!(heard.text, ""),
        _ => {
            assert!(heard.has("content-type: text/plain; charset=utf-8"), "{heard:?}");
            assert_eq!(heard.text.trim_end().lines().count(), 1, "{heard:?}");
        }
    }
}

/// A case: a request of these series, the bad ones first and last.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) good: Vec<Series>,
    pub(super) bad: Vec<Series>,
}

/// All of it is taken.
pub(super) fn good(name: &str, series: impl IntoIterator<Item = Series>) -> Row {
    Row { name: name.to_owned(), good: series.into_iter().collect(), bad: vec![] }
}

/// All of it is refused.
pub(super) fn bad(name: &str, series: impl IntoIterator<Item = Series>) -> Row {
    Row { name: name.to_owned(), good: vec![], bad: series.into_iter().collect() }
}

impl Row {
    pub(super) fn beside(mut self, bad: impl IntoIterator<Item = Series>) -> Self {
        self.bad.extend(bad);
        self
    }

    fn series(&self, replica: Option<&str>) -> Vec<Series> {
        let (first, last) = self.bad.split_at(self.bad.len() / 2);
        [first, &self.good, last].concat().iter().map(|series| series.by(replica)).collect()
    }

    fn counts(&self) -> [u64; 3] {
        let sum = |of: fn(&Series) -> usize| self.good.iter().map(of).sum::<usize>() as u64;
        [sum(|s| s.samples.len()), sum(|s| s.histograms.len()), sum(|s| s.exemplars.len())]
    }

    fn stored(&self) -> BTreeMap<Labels, Vec<Point>> {
        let mut stored = BTreeMap::new();
        for series in self.good.iter().filter(|series| !series.points().is_empty()) {
            let all: &mut Vec<Point> = stored.entry(series.stored_labels()).or_default();
            all.extend(series.points());
        }
        stored
    }

    /// Thanos takes no exemplar of a series that it does not know.
    fn exemplars(&self) -> u64 {
        let known = self.stored();
        let taken = self.good.iter().filter(|series| known.contains_key(&series.stored_labels()));
        taken.map(|series| series.exemplars.len() as u64).sum()
    }
}

/// Sends each row in every way, and looks at what is answered and at what is stored.
pub(super) async fn check(rows: impl IntoIterator<Item = Row>) {
    let thanos = Thanos::start().await.expect("a stand-in");
    let proxy = Proxy::start(&thanos.url(), &[]);
    let mut line = proxy.line().await;
    for (nth, row) in rows.into_iter().enumerate() {
        for speaks in [Speaks::One, Speaks::Two] {
            for replicas in [&[None][..], &[Some("a"), Some("b")]] {
                let tenant = format!("{nth}-{speaks:?}-{}", replicas.len());
                let before = thanos.totals().exemplars;
                for replica in replicas {
                    let why = format!("{} of {replica:?} in {speaks:?}", row.name);
                    let body = body(speaks, &row.series(*replica));
                    let head = format!("{}thanos-tenant: {tenant}\r\n", headers(speaks));
                    line.post("/api/v1/receive", &head, &body).await;
                    let heard = line.hear().await;
                    let status = if row.bad.is_empty() { 204 } else { 400 };
                    assert_eq!(heard.status, status, "{why}: {heard:?}");
                    let counts = match speaks {
                        Speaks::One => [None; 3],
                        Speaks::Two => row.counts().map(Some),
                    };
                    assert_eq!(written(&heard), counts, "{why}: {heard:?}");
                    says_why(&heard);
                    assert_eq!(thanos.stored(&tenant), row.stored(), "{why}");
                    assert_eq!(thanos.totals().exemplars - before, row.exemplars(), "{why}");
                }
            }
        }
    }
    assert_eq!(thanos.violations().of_samples(), 0, "{:?}", thanos.violations());
}

//! The upstream of a pipeline under test: it remembers what it got, and answers as it is told.

use super::STALE;
use http::HeaderMap;
use promdedup::forward::{Answer, Echo, Outgoing, Passed, Relayed, Upstream};
use promdedup::proto::{self, v2};
use prost::Message;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use tokio::sync::Semaphore;

/// An upstream that remembers, and answers as it is told; [`Answer::Taken`] otherwise.
#[derive(Clone, Default, Debug)]
pub(crate) struct Fake(Arc<Mutex<State>>);

#[derive(Default, Debug)]
struct State {
    requests: Vec<(Option<String>, proto::WriteRequest)>,
    stored: Vec<String>,
    metadata_stored: usize,
    bodies: Vec<Vec<u8>>,
    relayed: Vec<Vec<u8>>,
    next: VecDeque<Answer>,
    gates: VecDeque<Gate>,
    series_max: Option<usize>,
    entries_max: Option<usize>,
    too_big: Option<String>,
    panics: bool,
}

/// Holds one answer back.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    taken: Arc<Semaphore>,
    open: Arc<Semaphore>,
    answer: Answer,
}

impl Gate {
    /// Waits until the request is there.
    pub(crate) async fn taken(&self) {
        self.taken.acquire().await.unwrap().forget();
    }

    pub(crate) fn open(&self) {
        self.open.add_permits(1);
    }
}

impl Fake {
    pub(crate) fn next(&self, answers: impl IntoIterator<Item = Answer>) {
        self.0.lock().unwrap().next.extend(answers);
    }

    pub(crate) fn hold(&self, answer: Answer) -> Gate {
        let none = || Arc::new(Semaphore::new(0));
        let gate = Gate { taken: none(), open: none(), answer };
        self.0.lock().unwrap().gates.push_back(gate.clone());
        gate
    }

    /// Forgets gates that no request has come to.
    pub(crate) fn hold_no_more(&self) {
        self.0.lock().unwrap().gates.clear();
    }

    pub(crate) fn series_max(&self, max: usize) {
        self.0.lock().unwrap().series_max = Some(max);
    }

    /// A request of more series and metadata entries than that is too big.
    pub(crate) fn entries_max(&self, max: usize) {
        self.0.lock().unwrap().entries_max = Some(max);
    }

    /// A request with a series of that name is too big.
    pub(crate) fn too_big(&self, name: &str) {
        self.0.lock().unwrap().too_big = Some(name.to_owned());
    }

    pub(crate) fn panic_once(&self) {
        self.0.lock().unwrap().panics = true;
    }

    pub(crate) fn requests(&self) -> usize {
        self.0.lock().unwrap().requests.len()
    }

    pub(crate) fn stored(&self) -> Vec<String> {
        self.0.lock().unwrap().stored.clone()
    }

    /// The metadata of all requests.
    pub(crate) fn metadata(&self) -> Vec<proto::MetricMetadata> {
        self.0.lock().unwrap().requests.iter().flat_map(|(_, request)| request.metadata.clone()).collect()
    }

    pub(crate) fn metadata_stored(&self) -> usize {
        self.0.lock().unwrap().metadata_stored
    }

    /// What was passed on as it came.
    pub(crate) fn relayed(&self) -> Vec<Vec<u8>> {
        self.0.lock().unwrap().relayed.clone()
    }

    /// The decompressed bodies of all requests.
    pub(crate) fn bodies(&self) -> Vec<Vec<u8>> {
        self.0.lock().unwrap().bodies.clone()
    }

    pub(crate) fn tenants(&self) -> Vec<Option<String>> {
        self.0.lock().unwrap().requests.iter().map(|(tenant, _)| tenant.clone()).collect()
    }

    /// Label names of the newest series, without the shared ones.
    pub(crate) fn label_names(&self) -> Vec<String> {
        let state = self.0.lock().unwrap();
        let last = state.requests.last().unwrap().1.timeseries.last().unwrap().clone();
        last.labels.into_iter().map(|l| l.name).collect()
    }
}

impl Upstream for Fake {
    async fn send(&self, request: Outgoing) -> Answer {
        let raw = snap::raw::Decoder::new().decompress_vec(&request.body).unwrap();
        let decoded = proto::WriteRequest::decode(raw.as_slice()).unwrap();
        let one = decoded.timeseries.iter().map(|t| t.samples.len() + t.histograms.len());
        // A body of one version holds nothing of the other.
        let two = v2::Request::decode(raw.as_slice()).unwrap_or_default();
        let two = two.timeseries.iter().map(|t| t.samples.len() + t.histograms.len());
        assert_eq!(one.chain(two).sum::<usize>() as u64, request.samples);
        let tenant = request.tenant.map(|t| t.to_str().unwrap().to_owned());
        let (gate, answer) = {
            let mut state = self.0.lock().unwrap();
            if std::mem::take(&mut state.panics) {
                drop(state);
                panic!("a bug on the way");
            }
            let gate = state.gates.pop_front();
            let answer = match &gate {
                Some(gate) => gate.answer.clone(),
                None => state.answer(&decoded),
            };
            state.bodies.push(raw);
            state.requests.push((tenant, decoded.clone()));
            (gate, answer)
        };
        if let Some(gate) = gate {
            gate.taken.add_permits(1);
            gate.open.acquire().await.unwrap().forget();
        }
        if answer == Answer::Taken {
            let mut state = self.0.lock().unwrap();
            state.stored.extend(lines(&decoded));
            state.metadata_stored += decoded.metadata.len();
        }
        answer
    }

    async fn relay(&self, request: Passed) -> Relayed {
        let mut state = self.0.lock().unwrap();
        state.relayed.push(request.body.to_vec());
        let answer = state.next.pop_front().unwrap_or(Answer::Taken);
        let status = match &answer {
            Answer::Taken => Ok(200),
            Answer::Conflict { .. } => Ok(409),
            Answer::TooBig { .. } => Ok(413),
            Answer::Refused { status, .. } | Answer::Unavailable { status, .. } => Ok(*status),
            Answer::NoAnswer { error } | Answer::NotSent { error } => Err(error.clone()),
        };
        let echo = |status| Echo { status, headers: HeaderMap::new(), body: "as it is".into() };
        Relayed { answer, echo: status.map(echo) }
    }
}

impl State {
    fn answer(&mut self, request: &proto::WriteRequest) -> Answer {
        let series = &request.timeseries;
        let named = |name: &String| series.iter().any(|ts| ts.labels.iter().any(|l| l.value == *name));
        match self.series_max.is_some_and(|max| series.len() > max)
            || self.entries_max.is_some_and(|max| series.len() + request.metadata.len() > max)
            || self.too_big.as_ref().is_some_and(named)
        {
            true => Answer::TooBig { text: "too many series".into() },
            false => self.next.pop_front().unwrap_or(Answer::Taken),
        }
    }
}

/// What upstream got, a line a series: `name{labels} times`, `!` behind a stale marker, `=` and the value behind a time
/// that is not its own (and with `up`), `h` behind a histogram, `e` for an exemplar. The labels that all tests share are
/// left out.
pub(crate) fn sent(fake: &Fake) -> Vec<String> {
    fake.0.lock().unwrap().requests.iter().flat_map(|(_, request)| lines(request)).collect()
}

fn lines(request: &proto::WriteRequest) -> Vec<String> {
    request.timeseries.iter().map(line).collect()
}

fn line(ts: &proto::TimeSeries) -> String {
    let name = ts.labels.iter().find(|l| l.name == "__name__").map_or("", |l| &l.value);
    let shared = ["__name__", "cluster", "job", "prometheus"];
    let labels: Vec<_> = ts
        .labels
        .iter()
        .filter(|l| !shared.contains(&l.name.as_str()))
        .map(|l| format!("{}={}", l.name, l.value))
        .collect();
    let mut line = format!("{name}{{{}}}", labels.join(","));
    for sample in &ts.samples {
        let seconds = sample.timestamp / 1000;
        line += &format!(" {seconds}");
        if sample.value.to_bits() == STALE {
            line += "!";
        } else if sample.value != seconds as f64 || name.starts_with("up") {
            line += &format!("={}", sample.value);
        }
    }
    for histogram in &ts.histograms {
        let seconds = histogram.timestamp / 1000;
        if histogram.sum.to_bits() == STALE {
            line += &format!(" {seconds}h!");
            continue;
        }
        let count = proto::histogram::Count::CountInt(seconds.unsigned_abs());
        assert_eq!((&histogram.count, histogram.sum), (&Some(count), seconds as f64), "not its own");
        line += &format!(" {seconds}h");
    }
    line + &" e".repeat(ts.exemplars.len())
}

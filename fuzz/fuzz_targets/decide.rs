//! Bodies in, window and policy, bodies out, for any story of replicas: what upstream gets is held against what was sent.
//!
//! By series, times rise strictly over all that upstream has answered for; nothing is in two requests at a time; nothing is there
//! that was not sent, nor a replica label; what is acknowledged is upstream, or a duplicate of what is.
#![no_main]

use fuzz::Set;
use fuzz::story::{Story, Told, in_one};
use libfuzzer_sys::fuzz_target;
use promdedup::forward::{Answer, Outgoing, Passed, Relayed, Upstream};
use promdedup::overhead::CpuTime;
use promdedup::pipeline::{Incoming, Metrics, Pipeline, Protocol, Reply, Settings};
use promdedup::proto::{TimeSeries, WriteRequest, v2};
use promdedup::series::{PlaceLabels, ReplicaNames};
use promdedup::telemetry::LimitHits;
use promdedup::window::Window;
use promdedup::wire::STALE_NAN_BITS;
use promdedup::wire::labels::LabelBounds;
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

fuzz_target!(|bytes: &[u8]| {
    let story = Story::of(bytes);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(tell(&story));
});

async fn tell(story: &Story) {
    let store = Store {
        two: story.two_upstream,
        narrow: story.narrow,
        answers: story.requests.iter().map(|told| told.answer.clone()).collect(),
        state: Arc::default(),
    };
    let settings = Settings {
        replica_names: ReplicaNames::default(),
        place_labels: PlaceLabels::default(),
        upstream_protocol: protocol(story.two_upstream),
        label_bounds: LabelBounds::default(),
        body_bytes_max: 1 << 20,
        future_max_ms: 600_000,
        out_of_order_window_ms: 0,
        first_contact_hold_ms: if story.first_contact { 6000 } else { 0 },
        busy_wait_max: Duration::from_secs(10),
    };
    let window = Arc::new(Window::new(if story.narrow { 3 } else { 1000 }));
    let registry = prometheus::Registry::new();
    let limits = LimitHits::new(&registry).expect("its own registry");
    let metrics = Metrics::register(&registry, &CpuTime::off(), &limits).expect("its own registry");
    let pipeline = Pipeline::new(settings, window, store.clone(), metrics);
    let mut rest = story.requests.iter().enumerate().peekable();
    while let Some((nth, told)) = rest.next() {
        match rest.next_if(|_| told.together) {
            None => one(&pipeline, &store, nth, told).await,
            Some((other_nth, other)) => {
                tokio::join!(one(&pipeline, &store, nth, told), one(&pipeline, &store, other_nth, other));
            }
        }
    }
    assert!(store.state.lock().expect("no panic before").in_flight.is_empty());
}

fn protocol(two: bool) -> Protocol {
    if two { Protocol::Two } else { Protocol::One }
}

/// Serves a request, and judges the answer.
async fn one(pipeline: &Pipeline<Store>, store: &Store, nth: usize, told: &Told) {
    let read = match told.two {
        false => WriteRequest::decode(told.body.as_slice()).ok(),
        true => v2::Request::decode(told.body.as_slice()).ok().and_then(|request| in_one(&request)),
    };
    // What prost cannot read is the affair of the other targets.
    let Some(read) = read else { return };
    store.state.lock().expect("no panic before").receive(&read);
    let incoming = Incoming {
        protocol: protocol(told.two),
        body: fuzz::packed(&told.body).into(),
        tenant: None,
        retry_attempt: told.retry.into(),
        request_id: Some((nth as u64).into()),
        traceparent: None,
        verbatim: None,
        from_peer: false,
    };
    let reply = pipeline.serve(incoming, told.now_ms).await;
    judge(&reply, told, &read, &store.state.lock().expect("no panic before"), store.narrow);
}

fn judge(reply: &Reply, told: &Told, read: &WriteRequest, state: &State, narrow: bool) {
    assert!(matches!(reply.status, 204 | 400 | 413 | 503), "{reply:?}");
    assert_eq!(reply.retry_after_s.is_some(), reply.status == 503, "{reply:?}");
    assert_eq!(reply.text.is_empty(), reply.status == 204, "{reply:?}");
    let sum = |count: fn(&TimeSeries) -> usize| read.timeseries.iter().map(count).sum::<usize>() as u64;
    let received = [sum(|of| of.samples.len()), sum(|of| of.histograms.len()), sum(|of| of.exemplars.len())];
    let written = [reply.written.samples, reply.written.histograms, reply.written.exemplars];
    match (told.two, reply.status) {
        (true, 204) => assert_eq!(written, received, "{reply:?}"),
        (true, 400 | 413) => assert!(written.iter().zip(received).all(|(written, most)| *written <= most)),
        _ => assert_eq!(written, [0; 3], "{reply:?}"),
    }
    if reply.status != 204 || narrow {
        return;
    }
    for series in &read.timeseries {
        let (set, replica) = fuzz::identity(&series.labels).expect("a series of which all is well");
        for (at, bits, _) in samples(series) {
            let newest = state.answered.get(&set).map(|times| times.newest);
            assert!(newest.is_some(), "acknowledged, but nothing of {set:?} is upstream");
            // Without replicas there are no duplicates; and nobody holds a sample for longer than two intervals, of which none
            // is longer than the story.
            let sent = state.answered.get(&set).is_some_and(|times| times.all.contains(&(at, bits)));
            assert!(replica.is_some() || sent, "acknowledged, but {at} of {set:?} is not upstream");
        }
    }
}

/// An upstream that answers as the story says, and looks at what it gets.
#[derive(Clone)]
struct Store {
    two: bool,
    narrow: bool,
    answers: Vec<Answer>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Who has sent what: time, bits of the value, histogram or not.
    received: BTreeMap<Set, BTreeSet<(i64, u64, bool)>>,
    /// Series that also came without a replica label: nothing is promised of the order of their times.
    single: BTreeSet<Set>,
    in_flight: BTreeSet<Set>,
    answered: BTreeMap<Set, Times>,
}

#[derive(Default)]
struct Times {
    newest: i64,
    all: BTreeSet<(i64, u64)>,
}

impl State {
    fn receive(&mut self, read: &WriteRequest) {
        for series in &read.timeseries {
            let Some((set, replica)) = fuzz::identity(&series.labels) else { continue };
            if replica.is_none() {
                self.single.insert(set.clone());
            }
            self.received.entry(set).or_default().extend(samples(series));
        }
    }

    /// The series of a request, each of which was sent with all of its samples, in the order of their times.
    fn depart(&mut self, request: &WriteRequest) -> BTreeMap<Set, Vec<(i64, u64)>> {
        let mut all = BTreeMap::<Set, Vec<(i64, u64)>>::new();
        for series in &request.timeseries {
            let set: Set = series.labels.iter().map(|l| (l.name.clone(), l.value.clone())).collect();
            assert!(series.labels.is_sorted_by(|one, other| one.name < other.name), "{series:?}");
            assert!(series.labels.iter().all(|label| !label.value.is_empty()), "{series:?}");
            let received = self.received.get(&set).unwrap_or_else(|| panic!("nobody has sent {set:?}"));
            for (at, bits, histogram) in samples(series) {
                // A stale marker may leave as a histogram (`pipeline/batch.rs`).
                let sent = received.contains(&(at, bits, histogram))
                    || histogram && bits == STALE_NAN_BITS && received.contains(&(at, bits, false));
                assert!(sent, "nobody has sent {bits:x} at {at} of {set:?}, histogram: {histogram}");
            }
            let mut times: Vec<_> = samples(series).into_iter().map(|(at, bits, _)| (at, bits)).collect();
            if !self.single.contains(&set) {
                assert!(
                    series.samples.is_sorted_by(|one, other| one.timestamp < other.timestamp),
                    "{series:?}"
                );
                assert!(
                    series.histograms.is_sorted_by(|one, other| one.timestamp < other.timestamp),
                    "{series:?}"
                );
                times.sort_unstable();
            }
            all.entry(set).or_default().extend(times);
        }
        for (set, times) in all.iter().filter(|(set, _)| !self.single.contains(*set)) {
            if let Some(first) = times.first() {
                assert!(times.is_sorted_by(|one, other| one.0 < other.0), "{times:?} of {set:?}");
                let newest = self.answered.get(set).map(|times| times.newest);
                assert!(newest < Some(first.0), "{first:?} of {set:?} comes after {newest:?}");
                assert!(self.in_flight.insert(set.clone()), "{set:?} is in two requests");
            }
        }
        all
    }

    fn land(&mut self, all: BTreeMap<Set, Vec<(i64, u64)>>, answered: bool) {
        for (set, times) in all {
            self.in_flight.remove(&set);
            if answered && let Some(newest) = times.iter().map(|(at, _)| *at).max() {
                let known = self.answered.entry(set).or_insert_with(|| Times { newest, ..Times::default() });
                known.newest = known.newest.max(newest);
                known.all.extend(times);
            }
        }
    }
}

impl Upstream for Store {
    async fn send(&self, request: Outgoing) -> Answer {
        let raw = fuzz::unpacked(&request.body).expect("a snappy block");
        let read = match self.two {
            false => WriteRequest::decode(raw.as_slice()).expect("a body of 1.0"),
            true => in_one(&v2::Request::decode(raw.as_slice()).expect("a body of 2.0")).expect("references"),
        };
        assert_eq!(
            read.timeseries.iter().map(|series| samples(series).len() as u64).sum::<u64>(),
            request.samples
        );
        let nth = request.request_id.and_then(|id| id.to_str().ok()?.parse::<usize>().ok()).expect("its own");
        let answer = match &self.answers[nth] {
            Answer::TooBig { .. } if read.timeseries.len() < 2 => Answer::Taken,
            answer => answer.clone(),
        };
        // What finds no room leaves with its replica label, whoever else has the series.
        let all = if self.narrow { BTreeMap::new() } else { self.state().depart(&read) };
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        let answered = matches!(answer, Answer::Taken | Answer::Refused { .. } | Answer::Conflict { .. });
        self.state().land(all, answered);
        answer
    }

    async fn relay(&self, _: Passed) -> Relayed {
        unreachable!("nothing is observed")
    }
}

impl Store {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no panic before")
    }
}

/// Time, bits of the value or of the sum, histogram or not.
fn samples(series: &TimeSeries) -> Vec<(i64, u64, bool)> {
    let floats = series.samples.iter().map(|of| (of.timestamp, bits(of.value), false));
    let histograms = series.histograms.iter().map(|of| (of.timestamp, bits(of.sum), true));
    floats.chain(histograms).collect()
}

fn bits(value: f64) -> u64 {
    value.to_bits()
}

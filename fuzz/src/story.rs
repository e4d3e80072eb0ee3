//! A story read from bytes: requests of some replicas, one after the other or two at a time, and upstream's answers to them.
//!
//! Any bytes are one. Most of them name series and times in few bytes, so that replicas meet; a record may also hold a whole body.

use promdedup::forward::Answer;
use promdedup::proto::{self, WriteRequest, v2};
use prost::Message;
use std::collections::HashMap;

/// The clock at the beginning of a story: shortly after the bodies of `tests/corpus` were recorded.
pub const BEGIN_MS: i64 = 1_790_000_000_000;
/// Requests of a story.
const REQUESTS_MAX: usize = 24;
/// The record holds a body as it is.
const WHOLE: u8 = 0xff;
const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;

/// Settings and requests.
#[derive(Debug)]
pub struct Story {
    /// Upstream speaks 2.0.
    pub two_upstream: bool,
    /// New groups are held back at first.
    pub first_contact: bool,
    /// There is room for a few series only.
    pub narrow: bool,
    /// What comes, in order.
    pub requests: Vec<Told>,
}

/// One request.
#[derive(Debug)]
pub struct Told {
    /// It is of remote write 2.0.
    pub two: bool,
    /// `Retry-Attempt` is above 0.
    pub retry: bool,
    /// The next one comes before this one is answered.
    pub together: bool,
    /// The clock.
    pub now_ms: i64,
    /// What upstream says to what is sent of it.
    pub answer: Answer,
    /// Not packed.
    pub body: Vec<u8>,
}

/// The story of one body that two replicas send, if it was real.
#[must_use]
pub fn of_body(body: &[u8], two: bool) -> Vec<u8> {
    let mut story = vec![0];
    if let Ok(length) = u16::try_from(body.len()) {
        for retry in [0, 8] {
            story.extend([u8::from(two) << 2 | retry, 0, WHOLE]);
            story.extend(length.to_le_bytes());
            story.extend_from_slice(body);
        }
    }
    story
}

impl Story {
    /// Of any bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut bytes = bytes.iter().copied();
        let settings = bytes.next().unwrap_or_default();
        let mut now_ms = BEGIN_MS;
        let mut requests = Vec::new();
        while requests.len() < REQUESTS_MAX
            && let Some(head) = bytes.next()
        {
            now_ms += i64::from(bytes.next().unwrap_or_default()) * 200;
            let two = head & 4 != 0;
            let body = match bytes.next().unwrap_or_default() {
                WHOLE => {
                    let length = u16::from_le_bytes([0; 2].map(|_| bytes.next().unwrap_or_default()));
                    bytes.by_ref().take(length.into()).collect()
                }
                count => {
                    let items = (0..count % 8).map(|_| item(head, now_ms, &mut bytes)).collect();
                    let request = WriteRequest { timeseries: items, metadata: vec![] };
                    if two { in_two(&request).encode_to_vec() } else { request.encode_to_vec() }
                }
            };
            let (retry, together) = (head & 8 != 0, head & 16 != 0);
            requests.push(Told { two, retry, together, now_ms, answer: answer(head >> 5), body });
        }
        let [two_upstream, first_contact, narrow] = [1, 2, 4].map(|bit| settings & bit != 0);
        Self { two_upstream, first_contact, narrow, requests }
    }
}

fn answer(number: u8) -> Answer {
    let text = String::new();
    match number {
        0..=2 => Answer::Taken,
        3 => Answer::Unavailable { status: 503, text },
        4 => Answer::NoAnswer { error: text },
        5 => Answer::Refused { status: 400, text },
        6 => Answer::Conflict { text },
        _ => Answer::TooBig { text },
    }
}

/// A series in three bytes: which one, when, and with what.
fn item(head: u8, now_ms: i64, bytes: &mut impl Iterator<Item = u8>) -> proto::TimeSeries {
    let [which, when, what] = [0; 3].map(|_| bytes.next().unwrap_or_default());
    let mut labels = Vec::new();
    let mut label = |name: &str, value: &str| labels.push((name.to_owned(), value.to_owned()));
    label("__name__", ["up", "m", "n", "h"][usize::from(which & 3)]);
    label("cluster", "c");
    label("instance", if which & 4 != 0 { "i:1" } else { "i:2" });
    label("job", "j");
    if let Some(replica) = [Some("a"), Some("b"), Some("c"), None][usize::from(head & 3)] {
        label("prometheus_replica", replica);
    }
    if which & 8 != 0 {
        label("__replica__", "x");
    }
    if which & 0x30 == 0x10 {
        label("job", "again");
    }
    if which & 0x40 != 0 {
        labels.sort();
    }
    let labels = labels.into_iter().map(|(name, value)| proto::Label { name, value }).collect();
    let mut series = proto::TimeSeries { labels, ..proto::TimeSeries::default() };
    let first = now_ms + i64::from(when.cast_signed()) * 1000;
    let step = [15_000, 1000, 0, -15_000][usize::from(what >> 2 & 3)];
    for nth in 0..i64::from(what & 3) {
        let timestamp = first + nth * step;
        let value = match what >> 4 & 3 {
            0 => 0.0,
            1 => 1.0,
            2 => f64::from_bits(STALE_NAN_BITS),
            _ => timestamp as f64,
        };
        if which & 3 == 3 && nth == 0 {
            let count = Some(proto::histogram::Count::CountInt(0));
            series.histograms.push(proto::Histogram { count, sum: value, timestamp, ..Default::default() });
        } else {
            series.samples.push(proto::Sample { value, timestamp });
        }
    }
    if what & 0x40 != 0 {
        let labels = vec![proto::Label { name: "trace_id".into(), value: "t".into() }];
        series.exemplars.push(proto::Exemplar { labels, value: 1.0, timestamp: first });
    }
    series
}

/// The same series in 2.0.
#[must_use]
pub fn in_two(request: &WriteRequest) -> v2::Request {
    let mut symbols = vec![String::new()];
    let mut known = HashMap::from([(String::new(), 0)]);
    let mut refer = |labels: &[proto::Label]| -> Vec<u32> {
        let texts = labels.iter().flat_map(|label| [&label.name, &label.value]);
        let refer = |text: &String| {
            *known.entry(text.clone()).or_insert_with(|| {
                symbols.push(text.clone());
                symbols.len() as u32 - 1
            })
        };
        texts.map(refer).collect()
    };
    let mut timeseries = Vec::new();
    for series in &request.timeseries {
        let sample = |of: &proto::Sample| v2::Sample {
            value: of.value,
            timestamp: of.timestamp,
            start_timestamp: of.timestamp & 1,
        };
        timeseries.push(v2::TimeSeries {
            labels_refs: refer(&series.labels),
            samples: series.samples.iter().map(sample).collect(),
            // Their fields have the same numbers.
            histograms: series.histograms.iter().filter_map(|of| again(&of.encode_to_vec())).collect(),
            exemplars: series
                .exemplars
                .iter()
                .map(|of| v2::Exemplar {
                    labels_refs: refer(&of.labels),
                    value: of.value,
                    timestamp: of.timestamp,
                })
                .collect(),
            ..v2::TimeSeries::default()
        });
    }
    v2::Request { symbols, timeseries }
}

/// A request of 2.0 in the messages of 1.0; `None` if a reference leads nowhere.
#[must_use]
pub fn in_one(request: &v2::Request) -> Option<WriteRequest> {
    let labels = |references: &[u32]| {
        let text = |reference: &u32| request.symbols.get(*reference as usize).cloned();
        let pairs = references.chunks_exact(2);
        let pairs = pairs.map(|pair| Some(proto::Label { name: text(&pair[0])?, value: text(&pair[1])? }));
        pairs.collect::<Option<Vec<_>>>().filter(|_| references.len().is_multiple_of(2))
    };
    let mut timeseries = Vec::new();
    for series in &request.timeseries {
        let sample = |of: &v2::Sample| proto::Sample { value: of.value, timestamp: of.timestamp };
        let mut exemplars = Vec::new();
        for of in &series.exemplars {
            let labels = labels(&of.labels_refs)?;
            exemplars.push(proto::Exemplar { labels, value: of.value, timestamp: of.timestamp });
        }
        timeseries.push(proto::TimeSeries {
            labels: labels(&series.labels_refs)?,
            samples: series.samples.iter().map(sample).collect(),
            histograms: series.histograms.iter().filter_map(|of| again(&of.encode_to_vec())).collect(),
            exemplars,
        });
    }
    Some(WriteRequest { timeseries, metadata: vec![] })
}

fn again<M: Message + Default>(message: &[u8]) -> Option<M> {
    M::decode(message).ok()
}

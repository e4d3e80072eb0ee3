//! A sender that keeps its pace: one replica of a group of its own, with one request at a time. What was refused is sent again before
//! anything else, as the queue of a Prometheus does it.

use super::{Link, Way};
use bytes::Bytes;
use http::HeaderMap;
use promdedup::proto::TimeSeries;
use promdedup::stand_in::Labels;
use promdedup::stand_in::now_ms;
use promdedup::stand_in::request::{compress, label_block, put_sample};
use prost::Message;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

/// As `Retry-After` says.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// After a connection that broke: a Prometheus' shortest.
const BACKOFF: Duration = Duration::from_millis(30);
const JOB: &str = "steady";

/// A request that was acknowledged, or that upstream has: its sender, and its time.
pub(crate) type Sent = (usize, i64);

/// How fast, and until when.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    /// None: as fast as it is answered.
    pub(crate) period: Option<Duration>,
    /// Nothing new begins after that.
    pub(crate) end: Instant,
    /// What was refused is sent again until then.
    pub(crate) given_up: Instant,
}

#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) acknowledged: Vec<Sent>,
    /// Of each try that was acknowledged.
    pub(crate) took: Vec<Duration>,
    /// The longest from the first try to the acknowledgement.
    pub(crate) slowest: Duration,
    pub(crate) refused: u64,
    /// Answers that are neither 204 nor 503.
    pub(crate) errors: Vec<u16>,
    /// Connections that broke; their requests are sent again.
    pub(crate) broken: u64,
    /// Requests that were refused to the end.
    pub(crate) left: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: Self) {
        self.acknowledged.extend(other.acknowledged);
        self.took.extend(other.took);
        self.slowest = self.slowest.max(other.slowest);
        self.refused += other.refused;
        self.errors.extend(other.errors);
        self.broken += other.broken;
        self.left += other.left;
    }
}

pub(crate) struct Sender {
    pub(crate) number: usize,
    blocks: Vec<Vec<u8>>,
    headers: HeaderMap,
    at_ms: i64,
}

impl Sender {
    /// One of so many series.
    pub(crate) fn new(number: usize, series: usize, headers: HeaderMap) -> Self {
        let block = |series: usize| {
            label_block(&Labels::new([
                ("__name__".to_owned(), format!("container_memory_working_set_bytes_{series}")),
                ("cluster".to_owned(), format!("cluster-{number}")),
                ("instance".to_owned(), number.to_string()),
                ("job".to_owned(), JOB.to_owned()),
                ("prometheus_replica".to_owned(), "prometheus-k8s-0".to_owned()),
            ]))
        };
        let blocks = (0..series).map(block).collect();
        Self { number, blocks, headers, at_ms: now_ms() - 1_000_000_000 }
    }

    fn body(&self) -> Bytes {
        let mut raw = Vec::with_capacity(self.blocks.len() * 200);
        for (series, block) in self.blocks.iter().enumerate() {
            put_sample(&mut raw, block, self.at_ms, (series as f64 + self.at_ms as f64).to_bits());
        }
        compress(&raw)
    }

    pub(crate) async fn send(mut self, way: Way, pace: Pace) -> (Self, Tally) {
        let (mut link, mut tally) = (Link::new(&way), Tally::default());
        // Not all at one moment.
        let mut due = Instant::now() + pace.period.unwrap_or_default() * self.number as u32 / 40;
        loop {
            sleep_until(due).await;
            due = pace.period.map_or(due, |period| due + period);
            if Instant::now() >= pace.end {
                return (self, tally);
            }
            self.at_ms += 1_000;
            self.deliver(&mut link, pace, &mut tally).await;
        }
    }

    /// One request, for as long as it takes.
    async fn deliver(&self, link: &mut Link, pace: Pace, tally: &mut Tally) {
        let (body, first) = (self.body(), Instant::now());
        loop {
            let began = Instant::now();
            if began >= pace.given_up {
                tally.left += 1;
                return;
            }
            match link.post(&self.headers, body.clone()).await {
                Ok(204) => {
                    tally.took.push(began.elapsed());
                    tally.slowest = tally.slowest.max(first.elapsed());
                    tally.acknowledged.push((self.number, self.at_ms));
                    return;
                }
                Ok(503) => {
                    tally.refused += 1;
                    sleep(RETRY_AFTER).await;
                }
                Ok(status) => return tally.errors.push(status),
                Err(_) => {
                    tally.broken += 1;
                    sleep(BACKOFF).await;
                }
            }
        }
    }
}

/// Who sent a body, and of which time it is: as its first series says, since all of a request goes at one time. None: somebody else.
pub(crate) fn identity(body: &[u8]) -> Option<Sent> {
    let raw = snap::raw::Decoder::new().decompress_vec(body).unwrap();
    // A key, and a length.
    let mut rest = raw.get(1..)?;
    let length = prost::decode_length_delimiter(&mut rest).ok()?;
    let series = TimeSeries::decode(rest.get(..length)?).ok()?;
    let of = |name: &str| series.labels.iter().find(|label| label.name == name).map(|label| &label.value);
    if of("job")? != JOB {
        return None;
    }
    Some((of("instance")?.parse().ok()?, series.samples[0].timestamp))
}

//! The upstream: a receiver with the rules of the TSDB behind a network, and whatever is wrong with it.

use crate::history::EPOCH_MS;
use crate::story::Sick;
use crate::world::World;
use promdedup::forward::{Answer, Outgoing, Passed, Relayed, Upstream, answer};
use promdedup::proto;
use promdedup::stand_in::thanos::{Rules, Tsdb};
use prost::Message;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// The proxy's patience with one attempt.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);
const TENANT: &str = "t";

#[derive(Debug)]
pub(crate) struct Thanos {
    world: Arc<World>,
    tsdb: Mutex<Tsdb>,
    /// By series of the history: its number in the TSDB.
    records: Mutex<Records>,
}

#[derive(Debug, Default)]
struct Records {
    known: usize,
    by_series: Vec<Option<usize>>,
    with_replica: Vec<(usize, usize)>,
}

/// The door of one life of the proxy.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) thanos: Arc<Thanos>,
    /// The proxy's process is no more: what it does from now on has no effect.
    pub(crate) dead: Arc<AtomicBool>,
}

impl Thanos {
    pub(crate) fn new(world: Arc<World>) -> Self {
        let rules = Rules {
            replica_labels: vec!["prometheus_replica".into()],
            out_of_order_window_ms: 0,
            exemplars: true,
            series_max: usize::MAX,
            points_max: usize::MAX,
        };
        let series = world.history().series.len();
        let records = Records { known: 0, by_series: vec![None; series], with_replica: vec![] };
        Self { world, tsdb: Mutex::new(Tsdb::new(rules)), records: Mutex::new(records) }
    }

    pub(crate) fn tsdb(&self) -> MutexGuard<'_, Tsdb> {
        self.tsdb.lock().unwrap()
    }

    /// What is stored of a series, by time and bits.
    pub(crate) fn stored(&self, series: usize) -> Vec<(i64, u64)> {
        let tsdb = self.tsdb();
        let Some(record) = self.records.lock().unwrap().by_series[series] else { return vec![] };
        tsdb.records(TENANT)[record].points.iter().map(|point| (point.at_ms - EPOCH_MS, point.bits)).collect()
    }

    /// The newest stored sample of a series, under whatever labels.
    pub(crate) fn newest_ms(&self, series: usize) -> Option<i64> {
        let tsdb = self.tsdb();
        let records = self.records.lock().unwrap();
        let kept = records.with_replica.iter().filter(|(of, _)| *of == series).map(|(_, record)| *record);
        let all = kept.chain(records.by_series[series]);
        all.filter_map(|record| Some(tsdb.records(TENANT)[record].points.last()?.at_ms - EPOCH_MS)).max()
    }

    /// Samples of a series stored that are not older than a time.
    pub(crate) fn stored_since(&self, series: usize, since_ms: i64) -> usize {
        let tsdb = self.tsdb();
        let Some(record) = self.records.lock().unwrap().by_series[series] else { return 0 };
        let points = &tsdb.records(TENANT)[record].points;
        points.iter().rev().take_while(|point| point.at_ms - EPOCH_MS >= since_ms).take(4).count()
    }

    /// How many series kept their replica label.
    pub(crate) fn with_replica(&self) -> usize {
        self.records.lock().unwrap().with_replica.len()
    }

    /// Stores, and says what a healthy receiver says.
    fn store(&self, request: &proto::WriteRequest) -> Answer {
        let conflicts = self.tsdb().append(TENANT, request).expect("no limit");
        self.tell(request);
        self.note_new_records();
        match conflicts.text() {
            None => answer::judge(200, String::new()),
            Some(text) => answer::judge(409, text),
        }
    }

    fn note_new_records(&self) {
        let tsdb = self.tsdb();
        let mut records = self.records.lock().unwrap();
        let history = self.world.history();
        for (number, record) in tsdb.records(TENANT).iter().enumerate().skip(records.known) {
            let (series, kept) = history.number_of(&record.labels).expect("nobody sent such a series");
            match kept {
                true => records.with_replica.push((series, number)),
                false => records.by_series[series] = Some(number),
            }
        }
        records.known = tsdb.records(TENANT).len();
    }

    fn tell(&self, request: &proto::WriteRequest) {
        let mut history = self.world.history();
        let Some(told) = history.told else { return };
        let now_ms = self.world.now_ms();
        for series in &request.timeseries {
            let labels = promdedup::stand_in::Labels::from(series.labels.as_slice());
            if history.number_of(&labels).is_some_and(|(number, _)| number == told) {
                let times: Vec<String> = series.samples.iter().map(printed).collect();
                history.tell(told, now_ms, || format!("                upstream gets {}", times.join(" ")));
            }
        }
    }
}

fn printed(sample: &proto::Sample) -> String {
    let stale = sample.value.to_bits() == promdedup::stand_in::STALE_MARKER_BITS;
    format!("{:.3}{}", (sample.timestamp - EPOCH_MS) as f64 / 1e3, if stale { "!" } else { "" })
}

impl Door {
    /// The end of a process: nothing it waits for comes any more.
    async fn unless_dead(&self) {
        if self.dead.load(Relaxed) {
            std::future::pending::<()>().await;
        }
    }

    async fn attempt(&self, outgoing: Outgoing) -> Answer {
        let world = &self.thanos.world;
        let raw = snap::raw::Decoder::new().decompress_vec(&outgoing.body).expect("the proxy packs well");
        let request = proto::WriteRequest::decode(raw.as_slice()).expect("the proxy encodes well");
        let (there_ms, back_ms, sick, arrives) = {
            let mut state = world.state();
            let half = world.story.link.store_ms / 2;
            let ways = (state.dice.of(0..=half), state.dice.of(0..=half));
            let sick = state.sick.map(|sick| sick.this_time(&mut state.dice)).unwrap_or_default();
            (ways.0, ways.1, sick, state.dice.percent(50))
        };
        world.pause(there_ms).await;
        if self.dead.load(Relaxed) && !arrives {
            self.unless_dead().await;
        }
        let reply = match sick {
            Some(Sick::Lies) => answer::judge(200, String::new()),
            Some(Sick::Answers(status)) => answer::judge(status, "upstream is not well".into()),
            Some(Sick::StoresAndAnswers(status)) => {
                self.thanos.store(&request);
                answer::judge(status, "upstream is not well".into())
            }
            Some(Sick::Hangs { stores }) => {
                if stores {
                    self.thanos.store(&request);
                }
                std::future::pending().await
            }
            Some(Sick::Resets { stores }) => {
                if stores {
                    self.thanos.store(&request);
                }
                Answer::NoAnswer { error: "connection reset".into() }
            }
            Some(Sick::TakesAtMost(series)) if request.timeseries.len() > series => {
                answer::judge(413, "too many series".into())
            }
            Some(Sick::TakesAtMost(_) | Sick::Moody) | None => self.thanos.store(&request),
        };
        world.pause(back_ms).await;
        reply
    }
}

impl Sick {
    fn this_time(self, dice: &mut crate::dice::Dice) -> Option<Self> {
        let moods = [
            None,
            None,
            Some(Self::Answers(503)),
            Some(Self::Answers(500)),
            Some(Self::Answers(429)),
            Some(Self::StoresAndAnswers(500)),
            Some(Self::Hangs { stores: false }),
            Some(Self::Hangs { stores: true }),
            Some(Self::Resets { stores: false }),
            Some(Self::Resets { stores: true }),
            Some(Self::TakesAtMost(3)),
        ];
        if self == Self::Moody { dice.pick(&moods) } else { Some(self) }
    }
}

impl Upstream for Door {
    async fn send(&self, outgoing: Outgoing) -> Answer {
        self.unless_dead().await;
        let attempt = tokio::time::timeout(TIMEOUT, self.attempt(outgoing)).await;
        self.unless_dead().await;
        attempt.unwrap_or_else(|_| Answer::NoAnswer { error: "no answer in time".into() })
    }

    async fn relay(&self, _: Passed) -> Relayed {
        unreachable!("no story is of observe mode")
    }
}

//! What a request of known series allocates: nothing in wire, series and window, and little in the pipeline around them.
//!
//! A program of its own, since it counts the allocations of a whole process. It has the only `unsafe` of the project
//! besides its dependencies': an allocator can be written in no other way. It hands every call on to the system's, and
//! counts; what it is asked for and what it returns it does not touch.
#![allow(unsafe_code, clippy::unwrap_used, clippy::panic, reason = "see above")]

use promdedup::forward::{Answer, Outgoing, Passed, Relayed, Upstream};
use promdedup::overhead::CpuTime;
use promdedup::peers::{Hop, Hopped, Peers, Secret};
use promdedup::pipeline::{Incoming, Metrics, Pipeline, Protocol, Settings};
use promdedup::placement::{Asking, GroupId, Peer, Placement, Stays, Whose};
use promdedup::policy::{Action, Circumstances, ReplicaId, TimestampMs};
use promdedup::proto::{TimeSeries, WriteRequest};
use promdedup::series::{GroupKey, Place, PlaceLabels, ReplicaNames, SeriesKey, TargetKey, TenantHash};
use promdedup::telemetry::LimitHits;
use promdedup::window::{Admitted, Decision, FLIGHTS_MAX, Flight, Found, Known, Log, UNKNOWN, Window};
use promdedup::wire::labels::LabelBounds;
use promdedup::wire::snappy;
use promdedup::wire::splice::Row;
use promdedup::wire::v1::{self, Walker};
use prometheus::Registry;
use prost::Message as _;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

thread_local! {
    /// Allocations of this thread: tests run side by side.
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every method hands its arguments on as they are to the system's allocator, which keeps the promises of the
// trait. Counting allocates nothing (a cell of the thread that is made before anything runs) and cannot unwind.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the promises of `alloc`, and they are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count();
        // SAFETY: `ptr` came from `System` by one of these methods, with that layout; the rest as above.
        unsafe { System.realloc(ptr, layout, new_size) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: `ptr` came from `System` by one of these methods, with that layout.
        unsafe { System.dealloc(ptr, layout) }
    }
}

fn count() {
    // A thread that ends has no cell any more, and nothing to be counted for.
    let _ = COUNT.try_with(|count| count.set(count.get() + 1));
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations<T>(work: impl FnOnce() -> T) -> (u64, T) {
    let before = COUNT.get();
    let done = work();
    (COUNT.get() - before, done)
}

fn labels(ts: &TimeSeries) -> Vec<String> {
    ts.labels.iter().map(|label| format!("{}={}", label.name, label.value)).collect()
}

/// A real body, one replica's, with its samples that much later.
fn scrape(replica: &str, later_ms: i64) -> (Vec<u8>, usize) {
    let body = include_bytes!("corpus/rw1-big-a-2.bin");
    let mut request =
        WriteRequest::decode(snap::raw::Decoder::new().decompress_vec(body).unwrap().as_slice()).unwrap();
    // What is held of a histogram is kept beside the table, in memory of its own; and the series of an exemplar without a
    // sample in this body is none that is known.
    let known: HashSet<_> =
        request.timeseries.iter().filter(|ts| !ts.samples.is_empty()).map(labels).collect();
    request.timeseries.retain(|ts| known.contains(&labels(ts)));
    for ts in &mut request.timeseries {
        let label = ts.labels.iter_mut().find(|label| label.name == "prometheus_replica").unwrap();
        label.value = replica.to_owned();
        ts.samples.iter_mut().for_each(|sample| sample.timestamp += later_ms);
    }
    let series = request.timeseries.len();
    (snap::raw::Encoder::new().compress_vec(&request.encode_to_vec()).unwrap(), series)
}

/// Each number of a flight takes memory to be waited on when it is used for the first time: so all are used once.
fn use_all_flights(window: &Arc<Window>) {
    for _ in 0..FLIGHTS_MAX {
        Flight::begin(window, Log::default()).unwrap().commit();
    }
}

/// The memory of a request, as the pipeline has it.
#[derive(Default)]
struct Memory {
    raw: Vec<u8>,
    series: Vec<v1::TimeSeries>,
    samples: Vec<v1::Sample>,
    keys: Vec<SeriesKey>,
    found: Vec<Found>,
    scratch: Vec<u8>,
    out: Vec<u8>,
    packed: Vec<u8>,
    log: Option<Log>,
}

const CIRCUMSTANCES: Circumstances = Circumstances {
    out_of_order_window_ms: 0,
    retry: false,
    busy: false,
    refused: None,
    inherited: None,
    slowest: None,
    delivering: None,
    may_be_split: false,
};

impl Memory {
    fn read(&mut self, body: &[u8], names: &ReplicaNames, window: &Window) {
        snappy::decompress(body, 32 << 20, &mut self.raw).unwrap();
        self.series.clear();
        self.samples.clear();
        self.keys.clear();
        let mut walker = Walker::new(&self.raw, names);
        loop {
            let found = self.series.push_mut(v1::TimeSeries::default());
            let Some(walked) = walker.next_likely(found, &mut self.samples) else { break };
            walked.unwrap();
            let (before, after) = found.parts(&self.raw, names, &mut self.scratch).unwrap();
            self.keys.push(SeriesKey::of_parts(before, after, TenantHash::of("")));
        }
        self.series.pop();
        window.locate(&self.keys, &[], &mut self.found);
    }

    /// Decides all samples for one replica, and makes the outgoing body. Returns how many series are in it.
    fn decide(&mut self, window: &Arc<Window>, group: u32, replica: ReplicaId) -> usize {
        let mut flight = Flight::begin(window, self.log.take().unwrap_or_default()).unwrap();
        let mut forwarded = 0;
        let mut row = Row::default();
        self.out.clear();
        for (i, series) in self.series.iter().enumerate() {
            for sample in series.samples_of(&self.samples) {
                if self.found[i].number == UNKNOWN {
                    let place = Place {
                        group: GroupKey(1),
                        group_name: String::new(),
                        target: TargetKey(i as u128 / 200),
                        tenant: TenantHash::of(""),
                        is_up: false,
                    };
                    match flight.admit(self.keys[i], &place, replica, group) {
                        Admitted::Entry(number) => self.found[i].number = number,
                        Admitted::Full => panic!("full"),
                    }
                }
                let (number, key) = (self.found[i].number, self.keys[i]);
                let known = Known { number, key, group, histogram: None };
                let sample = promdedup::policy::Sample {
                    replica,
                    at: TimestampMs(sample.at),
                    payload: sample.bits,
                    stale: false,
                    up: None,
                };
                match flight.decide(known, &sample, CIRCUMSTANCES, |_, _| false) {
                    Decision::Decided { verdict, .. } if verdict.action == Action::Forward => {
                        forwarded += 1;
                        row.put(&self.raw, series, &mut self.out);
                    }
                    _ => {}
                }
            }
        }
        row.end(&self.raw, &mut self.out);
        snappy::compress(&self.out, &mut self.packed).unwrap();
        self.log = Some(flight.commit());
        forwarded
    }
}

#[test]
fn wire_series_and_window_allocate_nothing_for_known_series() {
    let (names, window) = (ReplicaNames::default(), Arc::new(Window::new(10_000)));
    let group = window.meet_group(GroupKey(1), "g", TenantHash(0), 0).unwrap().number();
    use_all_flights(&window);
    let mut memory = Memory::default();
    for step in 0..6 {
        for (replica, phase) in [("prometheus-k8s-0", 0), ("prometheus-k8s-1", 6_000)] {
            let id = window.replica_number(group, replica).unwrap();
            let (body, series) = scrape(replica, step * 15_000 + phase);
            let (count, forwarded) = allocations(|| {
                memory.read(&body, &names, &window);
                memory.decide(&window, group, id)
            });
            assert_eq!(memory.series.len(), series);
            assert_eq!(forwarded > 0, replica == "prometheus-k8s-0", "step {step}");
            // The first scrapes make series, and the memory for requests.
            assert!(step < 3 || count == 0, "step {step}, {replica}: {count} allocations");
        }
    }
}

struct Taker;

impl Upstream for Taker {
    async fn send(&self, _: Outgoing) -> Answer {
        Answer::Taken
    }

    async fn relay(&self, _: Passed) -> Relayed {
        Relayed { answer: Answer::Taken, echo: Err("it was not asked".to_owned()) }
    }
}

/// For a request that goes upstream: what tells who still reads the outgoing body. The memory of the body itself is used again.
const FORWARDED: u64 = 1;
const DUPLICATES: u64 = 0;

/// Everything is this instance's.
#[derive(Debug, Default)]
struct Mine(Arc<Stays>);

impl Placement for Mine {
    fn known(&self, _: GroupKey) -> Option<Whose> {
        Some(Whose::Mine(self.0.begin()))
    }

    fn ask<'a>(&'a self, _: &'a GroupId) -> Asking<'a, Whose> {
        Box::pin(async { Whose::Moving })
    }

    fn misdirected(&self, _: GroupKey, _: &Peer) {}

    fn hopped(&self, _: &Peer, _: bool) {}
}

impl Peers for Mine {
    fn pass<'a>(&'a self, _: &'a Peer, _: Hop) -> Asking<'a, Hopped> {
        Box::pin(async { Hopped::Misdirected })
    }

    fn secret(&self) -> Secret {
        Secret::new(|| None)
    }
}

#[test]
fn the_pipeline_allocates_one_handle_for_what_it_forwards() {
    one_handle_for_what_is_forwarded(|pipeline| pipeline);
}

#[test]
fn no_more_is_allocated_where_there_are_other_instances() {
    let mine = Arc::new(Mine::default());
    let stays = Arc::clone(&mine.0);
    one_handle_for_what_is_forwarded(|pipeline| pipeline.with_placement(mine.clone(), mine));
    assert_eq!(stays.now(), 0);
    assert!(stays.take_samples() > 1_000);
}

fn one_handle_for_what_is_forwarded(with: impl FnOnce(Pipeline<Taker>) -> Pipeline<Taker>) {
    let settings = Settings {
        replica_names: ReplicaNames::default(),
        place_labels: PlaceLabels::default(),
        upstream_protocol: Protocol::One,
        label_bounds: LabelBounds::default(),
        body_bytes_max: 32 << 20,
        future_max_ms: i64::MAX / 2,
        out_of_order_window_ms: 0,
        first_contact_hold_ms: 0,
        busy_wait_max: Duration::from_secs(10),
    };
    let registry = Registry::new();
    let metrics = Metrics::register(&registry, &CpuTime::off(), &LimitHits::new(&registry).unwrap()).unwrap();
    let window = Arc::new(Window::new(10_000));
    use_all_flights(&window);
    let pipeline = with(Pipeline::new(settings, window, Taker, metrics));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    for step in 0..6 {
        for (replica, phase, most) in
            [("prometheus-k8s-0", 0, FORWARDED), ("prometheus-k8s-1", 6_000, DUPLICATES)]
        {
            let incoming = Incoming {
                protocol: Protocol::One,
                body: scrape(replica, step * 15_000 + phase).0.into(),
                tenant: None,
                retry_attempt: 0,
                request_id: None,
                traceparent: None,
                verbatim: None,
                from_peer: false,
            };
            // The runtime would put a future of this size into memory of its own.
            let request = Box::pin(pipeline.serve(incoming, 0));
            let (count, reply) = runtime.block_on(async {
                // The runtime's list of those who let others go first, which a thread makes once, and this for each request.
                tokio::task::yield_now().await;
                let before = COUNT.get();
                let reply = request.await;
                (COUNT.get() - before, reply)
            });
            assert_eq!(reply.status, 204, "{}", reply.text);
            assert!(step < 3 || count <= most, "step {step}, {replica}: {count} allocations");
        }
    }
}

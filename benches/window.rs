//! The window alone, with policy: batches of 2,000 samples of known series, scattered over a table of a million.
//!
//! ns per sample. Prints first what a series costs in memory, as the system sees it, how long the slowest admission of one
//! takes while the table grows, and what a second thread is worth: `cargo bench --bench window`.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, clippy::panic, reason = "a bench")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use promdedup::policy::{Action, Circumstances, ReplicaId, Sample, TimestampMs};
use promdedup::series::{GroupKey, Place, SeriesKey, TargetKey, TenantHash};
use promdedup::window::{Decision, Flight, Found, Known, Log, Steady, Window};
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};
use xxhash_rust::xxh3::xxh3_128;

const BATCH: usize = 2_000;
/// As many series as a target of node_exporter or cAdvisor has.
const SERIES_PER_TARGET: u64 = 800;
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

fn key(series: u64) -> SeriesKey {
    SeriesKey(xxh3_128(&series.to_le_bytes()))
}

struct Filled {
    window: Arc<Window>,
    group: u32,
    keys: Vec<SeriesKey>,
    log: Option<Log>,
}

/// A window that knows that many series, all owned by replica 0.
fn fill(series: u64) -> Filled {
    fill_timed(series).0
}

/// As [`fill`]; also the longest times that admitting one series took, the longest first.
fn fill_timed(series: u64) -> (Filled, [Duration; 5]) {
    let mut slowest = [Duration::ZERO; 5];
    let window = Arc::new(Window::new(series as usize));
    let group = window.meet_group(GroupKey(1), "bench/k8s", TenantHash(0), 0).unwrap().number();
    let mut filled =
        Filled { window, group, keys: (0..series).map(key).collect(), log: Some(Log::default()) };
    for first in (0..series).step_by(BATCH) {
        let mut flight = Flight::begin(&filled.window, filled.log.take().unwrap()).unwrap();
        for i in first..(first + BATCH as u64).min(series) {
            let place = Place {
                group: GroupKey(1),
                group_name: String::new(),
                target: TargetKey(u128::from(i / SERIES_PER_TARGET)),
                tenant: TenantHash::of(""),
                is_up: false,
            };
            let begun = Instant::now();
            let admitted = flight.admit(filled.keys[i as usize], &place, ReplicaId(0), group);
            let took = begun.elapsed();
            if let Some(nth) = slowest.iter().position(|slow| *slow < took) {
                slowest[nth..].rotate_right(1);
                slowest[nth] = took;
            }
            let number = match admitted {
                promdedup::window::Admitted::Entry(number) => number,
                promdedup::window::Admitted::Full => panic!("full at {i}"),
            };
            let known = Known { number, key: filled.keys[i as usize], group, histogram: None };
            flight.decide(known, &sample(0, 0), CIRCUMSTANCES, |_, _| false);
        }
        filled.log = Some(flight.commit());
    }
    (filled, slowest)
}

fn sample(replica: u8, ms: i64) -> Sample {
    Sample { replica: ReplicaId(replica), at: TimestampMs(ms), payload: ms as u64, stale: false, up: None }
}

impl Filled {
    /// One request of known series: found, decided, settled.
    fn batch(&mut self, keys: &[SeriesKey], found: &mut Vec<Found>, replica: u8, ms: i64) -> usize {
        self.window.locate(keys, &[replica], found);
        let mut flight = Flight::begin(&self.window, self.log.take().unwrap()).unwrap();
        let (mut forwarded, mut decided) = (0, 0);
        while decided < keys.len() {
            // As the pipeline does: nearly all of a healthy group is decided in few words.
            let mut run = flight.run();
            for (key, found) in keys[decided..].iter().zip(&found[decided..]) {
                let known = Known { number: found.number, key: *key, group: self.group, histogram: None };
                match run.decide(&known, ReplicaId(replica), TimestampMs(ms), ms as u64, 0) {
                    Steady::Forward => forwarded += 1,
                    Steady::Duplicate => {}
                    Steady::Leans(_) | Steady::Unclear => break,
                }
                decided += 1;
            }
            if decided == keys.len() {
                break;
            }
            let (key, number) = (keys[decided], found[decided].number);
            let known = Known { number, key, group: self.group, histogram: None };
            match flight.decide(known, &sample(replica, ms), CIRCUMSTANCES, |_, _| false) {
                Decision::Decided { verdict, .. } => {
                    forwarded += usize::from(verdict.action == Action::Forward);
                }
                other => panic!("{other:?}"),
            }
            decided += 1;
        }
        self.log = Some(flight.commit());
        forwarded
    }
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

fn memory() {
    println!("series     | bytes a series, resident | by its own count | slowest admissions");
    for series in [100_000, 250_000, 1_000_000, 2_500_000, 4_000_000] {
        let before = resident_bytes();
        let (filled, slowest) = fill_timed(series);
        let keys = filled.keys.len() * size_of::<SeriesKey>();
        let resident = (resident_bytes() - before - keys) as f64 / series as f64;
        let counted = filled.window.bytes() as f64 / series as f64;
        println!("{series:10} | {resident:24.1} | {counted:16.1} | {slowest:.1?}");
    }
}

/// What one thread and two get done with series of one group, as owner and as standby: each its own half of them.
fn threads() {
    const ROUNDS: usize = 7;
    let filled = fill(200_000);
    let mut ms = 15_000;
    let mut rate = |threads: usize| {
        ms += 15_000;
        let share = filled.keys.len() / 2;
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for keys in filled.keys.chunks(share).take(threads) {
                let Filled { window, group, .. } = &filled;
                scope.spawn(move || {
                    let (window, group) = (Arc::clone(window), *group);
                    let mut own = Filled { window, group, keys: Vec::new(), log: Some(Log::default()) };
                    let mut found = Vec::new();
                    for replica in [0, 1] {
                        for batch in keys.chunks(BATCH) {
                            own.batch(batch, &mut found, replica, ms + i64::from(replica) * 6_000);
                        }
                    }
                });
            }
        });
        (threads * 2 * share) as f64 / begun.elapsed().as_secs_f64()
    };
    let best = |rates: Vec<f64>| rates.into_iter().fold(0.0, f64::max);
    let one = best((0..ROUNDS).map(|_| rate(1)).collect());
    let two = best((0..ROUNDS).map(|_| rate(2)).collect());
    println!("one thread {:.1} M samples/s, two {:.1} M: {:.2} times", one / 1e6, two / 1e6, two / one);
}

fn known_series(c: &mut Criterion) {
    // In test mode it only has to work.
    if !std::env::args().any(|argument| argument == "--test") {
        memory();
        threads();
    }
    let mut group = c.benchmark_group("window");
    group.throughput(Throughput::Elements(BATCH as u64));
    for (name, replica, series) in [
        ("owner, forwarded, 1 M series", 0, 1_000_000),
        ("standby, duplicate, 1 M series", 1, 1_000_000),
        ("owner, forwarded, 10 k series", 0, 10_000),
    ] {
        let mut filled = fill(series);
        let keys = filled.keys.clone();
        let (mut found, mut ms, mut at) = (Vec::new(), 15_000, 0);
        // Or a standby's samples would be those of series that have no interval yet.
        for batch in keys.chunks(BATCH) {
            filled.batch(batch, &mut found, 0, ms);
        }
        ms += if replica == 0 { 15_000 } else { 6_000 };
        group.bench_function(name, |b| {
            b.iter(|| {
                let forwarded = filled.batch(&keys[at..at + BATCH], &mut found, replica, ms);
                assert_eq!(forwarded, if replica == 0 { BATCH } else { 0 });
                at = (at + BATCH) % keys.len();
                if at == 0 && replica == 0 {
                    ms += 15_000;
                }
                black_box(forwarded)
            });
        });
    }
    group.bench_function("located, 1 M series", |b| {
        let filled = fill(1_000_000);
        let (mut found, mut at) = (Vec::new(), 0);
        b.iter(|| {
            filled.window.locate(&filled.keys[at..at + BATCH], &[], &mut found);
            at = (at + BATCH) % filled.keys.len();
            black_box(found.last().copied())
        });
    });
    group.finish();
}

criterion_group!(benches, known_series);
criterion_main!(benches);

//! `promdedup_cpu_seconds_total`: what the data plane's threads spend on which stage, and for whose samples.
//!
//! A request's [`Meter`] reads the CPU clock of its thread where a stretch without an await point begins and ends, and the wall
//! clock, which costs a twentieth of that, at the borders of stages between; the stretch's CPU time is split by the latter. It is
//! added up once at the end. Each data-plane thread says how much CPU time it has used in all, once a request and once a
//! second; what of that no stage claims is `other`: HTTP, sockets, the runtime, counting.
//! Refuses to look at other threads than those that joined.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, CounterVec, Opts, Registry};
use rustix::time::{ClockId, clock_gettime};
use std::cell::RefCell;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What a request's CPU time goes to. What remains is `other`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Unpacking the body.
    Decompress,
    /// Walking it, hashing labels, finding series; rewriting 2.0.
    Decode,
    /// Deciding, settling.
    Window,
    /// Making the outgoing body.
    Encode,
    /// Packing it.
    Compress,
}

const STAGES: [&str; 6] = ["decompress", "decode", "window", "encode", "compress", "other"];
/// The place of `other` in [`STAGES`].
const OTHER: usize = 5;
const SHARES: [&str; 2] = ["forwarded", "duplicate"];

/// Nanoseconds by stage and share.
type Times = [[u64; 2]; STAGES.len()];

/// The CPU time of the data plane. Cheap to clone.
#[derive(Debug, Clone)]
pub struct CpuTime {
    /// `None`: no clock is read.
    shared: Option<Arc<Shared>>,
}

#[derive(Debug)]
struct Shared {
    stages: [[AtomicU64; 2]; OTHER],
    /// Bytes moved for each share: what `other` is split by.
    moved: [AtomicU64; 2],
    threads: Mutex<Vec<Arc<AtomicU64>>>,
    family: CounterVec,
    counters: [[Counter; 2]; STAGES.len()],
    shown: Mutex<Shown>,
}

/// What scrapes have shown so far.
#[derive(Debug, Default)]
struct Shown {
    times: Times,
    moved: [u64; 2],
}

/// What a request held, to split its time by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shares {
    /// All its samples.
    pub samples: u64,
    /// Those that were duplicates.
    pub duplicates: u64,
    /// Bytes that arrived for all of them.
    pub received_bytes: u64,
    /// Bytes that left for those that are no duplicates; for all of them if the request was `relayed`.
    pub sent_bytes: u64,
    /// It was sent on as it came.
    pub relayed: bool,
}

/// The clock of one request.
#[derive(Debug, Default)]
pub struct Meter {
    on: bool,
    /// CPU time of the thread at the beginning of this stretch, or at the end of the last one.
    at_ns: u64,
    /// The last border in this stretch; `None` between two.
    border: Option<Instant>,
    /// The wall clock's share of each stage in this stretch.
    stretch_ns: [u64; OTHER],
    stages_ns: [u64; OTHER],
}

/// A thread's part of the data plane.
#[derive(Debug)]
pub struct ThreadTime {
    used_ns: Option<Arc<AtomicU64>>,
}

thread_local! {
    static MINE: RefCell<Option<Arc<AtomicU64>>> = const { RefCell::new(None) };
}

/// CPU time of the calling thread.
fn thread_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

impl CpuTime {
    /// Registers the metric, all of its children at 0.
    ///
    /// # Errors
    /// When the registry has that name already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let options = Opts::new(
            "promdedup_cpu_seconds_total",
            "CPU time of the data plane's threads by stage. share: what it was spent for, by the outcomes of each \
             request's samples; encode and compress are for what is forwarded, other is split by bytes received and sent.",
        );
        let family = CounterVec::new(options, &["stage", "share"])?;
        let counters = STAGES.map(|stage| SHARES.map(|share| family.with_label_values(&[stage, share])));
        let shared = Shared {
            stages: Default::default(),
            moved: Default::default(),
            threads: Mutex::default(),
            family,
            counters,
            shown: Mutex::default(),
        };
        let time = Self { shared: Some(Arc::new(shared)) };
        registry.register(Box::new(time.clone()))?;
        Ok(time)
    }

    /// Measures nothing, to see what measuring costs.
    #[must_use]
    pub fn off() -> Self {
        Self { shared: None }
    }

    /// The calling thread belongs to the data plane from now on.
    #[must_use]
    pub fn join(&self) -> ThreadTime {
        let used_ns = self.shared.as_ref().map(|shared| {
            let used_ns = Arc::new(AtomicU64::new(0));
            lock(&shared.threads).push(Arc::clone(&used_ns));
            used_ns
        });
        MINE.set(used_ns.clone());
        ThreadTime { used_ns }
    }

    /// A clock for a request that begins now, on this thread.
    #[must_use]
    pub fn meter(&self) -> Meter {
        let mut meter = Meter { on: self.shared.is_some(), ..Meter::default() };
        meter.resume();
        meter
    }

    /// Adds a request up.
    pub fn add(&self, meter: &mut Meter, shares: Shares) {
        let Some(shared) = &self.shared else { return };
        meter.pause();
        for (stage, ns) in meter.stages_ns.into_iter().enumerate() {
            // Nothing of a duplicate leaves, so nobody's share of these two is a duplicate's.
            let only_forwarded = stage >= Stage::Encode as usize;
            let duplicate = if only_forwarded { 0 } else { shares.of_duplicates(ns) };
            shared.stages[stage][0].fetch_add(ns - duplicate, Relaxed);
            shared.stages[stage][1].fetch_add(duplicate, Relaxed);
        }
        let moved = shares.moved();
        shared.moved[0].fetch_add(moved[0], Relaxed);
        shared.moved[1].fetch_add(moved[1], Relaxed);
        MINE.with_borrow(|mine| {
            if let Some(used_ns) = mine {
                used_ns.fetch_max(meter.at_ns, Relaxed);
            }
        });
    }
}

impl Meter {
    /// A stretch without an await point begins here.
    pub fn resume(&mut self) {
        if self.on {
            self.at_ns = thread_ns();
            self.border = Some(Instant::now());
            self.stretch_ns = [0; OTHER];
        }
    }

    /// A stage ends here, and the next one may begin.
    pub fn end(&mut self, stage: Stage) {
        if let Some(border) = &mut self.border {
            let now = Instant::now();
            self.stretch_ns[stage as usize] += now.duration_since(*border).as_nanos() as u64;
            *border = now;
        }
    }

    /// The stretch ends here. Without this it is no stage's.
    pub fn pause(&mut self) {
        let Some(border) = self.border.take() else { return };
        let used_ns = thread_ns().saturating_sub(self.at_ns);
        self.at_ns += used_ns;
        // What came after the last border is no stage's.
        let all_ns = self.stretch_ns.iter().sum::<u64>() + border.elapsed().as_nanos() as u64;
        for (stage, wall_ns) in self.stages_ns.iter_mut().zip(self.stretch_ns) {
            *stage += portion(used_ns, wall_ns, all_ns);
        }
    }
}

impl ThreadTime {
    /// Says how much this thread has used by now. Only for the thread that joined.
    pub fn publish(&self) {
        if let Some(used_ns) = &self.used_ns {
            used_ns.fetch_max(thread_ns(), Relaxed);
        }
    }
}

impl Shares {
    fn of_duplicates(&self, all: u64) -> u64 {
        portion(all, self.duplicates, self.samples)
    }

    fn moved(&self) -> [u64; 2] {
        let shared = self.received_bytes + if self.relayed { self.sent_bytes } else { 0 };
        let duplicate = self.of_duplicates(shared);
        [self.received_bytes + self.sent_bytes - duplicate, duplicate]
    }
}

/// `part / whole` of `all`; nothing of a whole that is nothing.
fn portion(all: u64, part: u64, whole: u64) -> u64 {
    u64::try_from(u128::from(all) * u128::from(part) / u128::from(whole.max(1))).unwrap_or(all)
}

impl Collector for CpuTime {
    fn desc(&self) -> Vec<&Desc> {
        self.shared.as_ref().map(|shared| shared.family.desc()).unwrap_or_default()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Some(shared) = &self.shared else { return Vec::new() };
        shared.show();
        shared.family.collect()
    }
}

impl Shared {
    /// Brings the counters up to date.
    fn show(&self) {
        let mut shown = lock(&self.shown);
        // Before the stages, which may only grow meanwhile: what is claimed by a stage must not be `other` as well.
        let used: u64 = lock(&self.threads).iter().map(|used_ns| used_ns.load(Relaxed)).sum();
        let load = |counters: &[AtomicU64; 2]| counters.each_ref().map(|counter| counter.load(Relaxed));
        let mut times = Times::default();
        for (time, counters) in times.iter_mut().zip(&self.stages) {
            *time = load(counters);
        }
        let claimed: u64 = times.iter().flatten().sum();
        let moved = load(&self.moved);
        times[OTHER] = shown.other(used.saturating_sub(claimed), moved);
        for ((counters, time), before) in self.counters.iter().zip(times).zip(shown.times) {
            for ((counter, ns), before) in counters.iter().zip(time).zip(before) {
                counter.inc_by(ns.saturating_sub(before) as f64 / 1e9);
            }
        }
        *shown = Shown { times, moved };
    }
}

impl Shown {
    /// `other` by share, when it comes to `other_ns` by now: what has been added since is split by the bytes moved since.
    fn other(&self, other_ns: u64, moved: [u64; 2]) -> [u64; 2] {
        let [forwarded, duplicate] = self.times[OTHER];
        let more = other_ns.saturating_sub(forwarded + duplicate);
        let [f, d] = [0, 1].map(|share| moved[share].saturating_sub(self.moved[share]));
        let of_duplicates = portion(more, d, f + d);
        [forwarded + more - of_duplicates, duplicate + of_duplicates]
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spent(registry: &Registry, stage: &str, share: &str) -> u64 {
        let families = registry.gather();
        let wanted = [("stage", stage), ("share", share)];
        let metrics = families[0].get_metric().iter().filter(|metric| {
            wanted.iter().all(|(name, value)| {
                metric.get_label().iter().any(|label| (label.name(), label.value()) == (*name, *value))
            })
        });
        metrics.map(|metric| (metric.get_counter().get_value() * 1e9).round() as u64).sum()
    }

    const SHARES_OF_A_PAIR: Shares =
        Shares { samples: 4, duplicates: 3, received_bytes: 80, sent_bytes: 20, relayed: false };

    #[test]
    fn a_request_is_split_by_its_outcomes_and_what_remains_by_bytes() {
        let registry = Registry::new();
        let time = CpuTime::register(&registry).unwrap();
        for share in SHARES {
            assert!(STAGES.iter().all(|stage| spent(&registry, stage, share) == 0), "there from the start");
        }
        let mut meter =
            Meter { on: true, at_ns: 5_000, stages_ns: [400, 0, 800, 100, 200], ..Meter::default() };
        let thread = time.join();
        time.add(&mut meter, SHARES_OF_A_PAIR);
        for (stage, forwarded, duplicate) in [
            ("decompress", 100, 300),
            ("decode", 0, 0),
            ("window", 200, 600),
            ("encode", 100, 0),
            ("compress", 200, 0),
            // 3,500 are left; 60 of 100 bytes arrived for duplicates.
            ("other", 1_400, 2_100),
        ] {
            for (share, expected) in SHARES.into_iter().zip([forwarded, duplicate]) {
                assert_eq!(spent(&registry, stage, share), expected, "{stage} {share}");
            }
        }
        // Nothing is shown twice, and what nobody moved a byte for is nobody's duplicate.
        thread.used_ns.as_ref().unwrap().store(6_000, Relaxed);
        for _ in 0..2 {
            assert_eq!(spent(&registry, "other", "forwarded"), 2_400);
            assert_eq!(spent(&registry, "other", "duplicate"), 2_100);
        }
    }

    /// A request that waits for upstream has used time that is no stage's yet: what was taken for `other` is not counted again.
    #[test]
    fn a_stage_that_is_claimed_late_is_not_counted_twice() {
        let registry = Registry::new();
        let time = CpuTime::register(&registry).unwrap();
        let thread = time.join();
        let used = |ns| thread.used_ns.as_ref().unwrap().store(ns, Relaxed);
        used(1_000);
        assert_eq!(spent(&registry, "other", "forwarded"), 1_000);
        let mut meter = Meter { on: true, at_ns: 1_500, stages_ns: [700, 0, 0, 0, 0], ..Meter::default() };
        time.add(&mut meter, Shares::default());
        assert_eq!(spent(&registry, "other", "forwarded"), 1_000);
        used(2_000);
        assert_eq!(spent(&registry, "other", "forwarded"), 1_300);
        assert_eq!(spent(&registry, "decompress", "forwarded"), 700);
    }

    #[test]
    fn what_is_relayed_leaves_for_duplicates_as_well() {
        assert_eq!(SHARES_OF_A_PAIR.moved(), [40, 60]);
        assert_eq!(Shares { relayed: true, ..SHARES_OF_A_PAIR }.moved(), [25, 75]);
        assert_eq!(Shares { received_bytes: 7, ..Shares::default() }.moved(), [7, 0]);
    }

    #[test]
    fn a_meter_reads_the_clock_of_its_thread() {
        let work = || {
            let begun = thread_ns();
            while thread_ns() < begun + 2_000_000 {}
        };
        let time = CpuTime::register(&Registry::new()).unwrap();
        let mut meter = time.meter();
        work();
        meter.end(Stage::Decode);
        meter.pause();
        work();
        meter.resume();
        meter.end(Stage::Window);
        work();
        meter.pause();
        let [decode, window] = [Stage::Decode, Stage::Window].map(|stage| meter.stages_ns[stage as usize]);
        assert!(decode >= 1_000_000, "{meter:?}");
        assert!(
            window < 1_000_000,
            "what comes before `resume` and after the last border is no stage's: {meter:?}"
        );
        assert!(meter.at_ns >= 6_000_000, "{meter:?}");
        let mut off = CpuTime::off().meter();
        work();
        off.end(Stage::Decode);
        assert_eq!((off.at_ns, off.stages_ns), (0, [0; OTHER]));
    }
}

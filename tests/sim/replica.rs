//! A Prometheus: scrape loops, the log, and the life of its process. Its queue is `queue.rs`.

use crate::dice::Dice;
use crate::front::Front;
use crate::history::{NEVER, Sent};
use crate::queue::{self, Item, Queue};
use crate::story::{Kind, SeriesPlan, TargetPlan};
use crate::world::World;
use promdedup::stand_in::STALE_MARKER_BITS;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Mutex};
use tokio::task::JoinHandle;

#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) number: usize,
    pub(crate) world: Arc<World>,
    pub(crate) front: Arc<Front>,
    pub(crate) queue: Mutex<Queue>,
    /// The tasks of its process.
    tasks: Mutex<Vec<JoinHandle<()>>>,
    lives: Mutex<u64>,
    /// Moved by some restarts: then it scrapes at other times.
    moved_ms: Mutex<i64>,
    values: Mutex<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Job {
    Scrape(usize),
    /// The series of a target that is scraped no more end, at the time of the scrape that did not happen.
    Bury(usize, i64),
}

/// What a scrape loop remembers of its target: which series the last scrape had.
#[derive(Debug, Default)]
struct Loop {
    had: Vec<bool>,
    had_own: bool,
    removed: bool,
}

impl Replica {
    pub(crate) fn new(number: usize, world: &Arc<World>, front: &Arc<Front>) -> Arc<Self> {
        Arc::new(Self {
            number,
            world: Arc::clone(world),
            front: Arc::clone(front),
            queue: Mutex::default(),
            tasks: Mutex::default(),
            lives: Mutex::default(),
            moved_ms: Mutex::default(),
            values: Mutex::default(),
        })
    }

    /// A process begins, with an empty queue. `moved`: it scrapes at other times than before.
    pub(crate) fn begin(self: &Arc<Self>, moved: bool) {
        let life = {
            let mut lives = self.lives.lock().unwrap();
            *lives += 1;
            *lives
        };
        if moved {
            *self.moved_ms.lock().unwrap() = self.dice(life).of(0..=1_000_000);
        }
        let shards = self.world.story.replicas[self.number].shards;
        *self.queue.lock().unwrap() = Queue::new(shards, life);
        let mut tasks = self.tasks.lock().unwrap();
        tasks.push(tokio::spawn(Arc::clone(self).scrape()));
        tasks.extend((0..shards).map(|shard| tokio::spawn(queue::run(Arc::clone(self), shard, life))));
    }

    /// SIGKILL.
    pub(crate) fn kill(&self) {
        self.tasks.lock().unwrap().drain(..).for_each(|task| task.abort());
        *self.queue.lock().unwrap() = Queue::default();
    }

    /// Another number of shards, once the old ones are done; what they do not get rid of in a minute is dropped.
    pub(crate) async fn reshard(self: &Arc<Self>, shards: usize) {
        let epoch = self.queue.lock().unwrap().close();
        for _ in 0..600 {
            self.world.pause(100).await;
            if self.queue.lock().unwrap().shards_are_empty() {
                break;
            }
        }
        let mut queue = self.queue.lock().unwrap();
        if queue.epoch != epoch {
            return; // it was killed meanwhile
        }
        queue.reopen(shards, epoch + 1000);
        let mut tasks = self.tasks.lock().unwrap();
        tasks
            .extend((0..shards).map(|shard| tokio::spawn(queue::run(Arc::clone(self), shard, epoch + 1000))));
        queue.pump(self.number);
    }

    pub(crate) fn dice(&self, what_for: u64) -> Dice {
        Dice::new(self.world.story.seed, 1_000 + self.number as u64 * 7_919 + what_for)
    }

    async fn scrape(self: Arc<Self>) {
        let story = &self.world.story;
        let mut dice = self.dice(77);
        let mut loops: Vec<Loop> = story.targets.iter().map(|_| Loop::default()).collect();
        let mut due = BinaryHeap::new();
        let team = story.replicas[self.number].team;
        for (target, plan) in story.targets.iter().enumerate().filter(|(_, plan)| plan.team == team) {
            due.push(Reverse((self.next(plan, self.world.now_ms()), Job::Scrape(target))));
        }
        while let Some(Reverse((due_ms, job))) = due.pop() {
            if due_ms > story.span_ms {
                return;
            }
            self.world.until(due_ms).await;
            self.world.thawed(self.number).await;
            match job {
                Job::Scrape(target) => {
                    let plan = &story.targets[target];
                    let jitter_ms = dice.of(0..=plan.jitter_ms);
                    let removed = self.world.state().removed[self.number] >> target & 1 == 1;
                    if !removed {
                        loops[target].removed = false;
                        self.visit(target, self.wakes(plan, due_ms) + jitter_ms, &mut loops[target]);
                    } else if !loops[target].removed {
                        loops[target].removed = true;
                        // Prometheus waits a good interval: the target may only have moved to another loop.
                        let later_ms = due_ms + plan.interval_ms(due_ms) * 11 / 10;
                        due.push(Reverse((later_ms, Job::Bury(target, due_ms))));
                    }
                    // What was slept through is skipped.
                    let next_ms = self.next(plan, self.world.now_ms().max(due_ms));
                    due.push(Reverse((next_ms, Job::Scrape(target))));
                }
                Job::Bury(target, at_ms) if loops[target].removed => {
                    self.end_all(target, at_ms, &mut loops[target]);
                }
                Job::Bury(..) => {}
            }
            self.queue.lock().unwrap().pump(self.number);
        }
    }

    /// When a scrape that was due takes place. A process that stood still for longer than an interval goes on with the
    /// newest round of its rules, and scrapes at once, in between.
    fn wakes(&self, plan: &TargetPlan, due_ms: i64) -> i64 {
        let now_ms = self.world.now_ms();
        let interval_ms = plan.interval_ms(now_ms);
        let late_ms = now_ms - due_ms;
        match plan.kind {
            Kind::Scraped if late_ms > 0 => now_ms,
            Kind::Scraped => due_ms,
            Kind::Rules => due_ms + late_ms.div_euclid(interval_ms).max(0) * interval_ms,
        }
    }

    /// When a target is due next after a time.
    fn next(&self, plan: &TargetPlan, after_ms: i64) -> i64 {
        let shift_ms = if plan.kind == Kind::Rules { 0 } else { *self.moved_ms.lock().unwrap() };
        let due = |interval: i64, after_ms: i64| {
            let phase_ms = (plan.phases_ms[self.number] + shift_ms).rem_euclid(interval);
            (after_ms - phase_ms).div_euclid(interval) * interval + phase_ms + interval
        };
        let now = plan.intervals_ms.iter().rposition(|(since, _)| *since <= after_ms).unwrap_or(0);
        let next_ms = due(plan.intervals_ms[now].1, after_ms);
        match plan.intervals_ms.get(now + 1) {
            Some((since, interval)) if next_ms > *since => due(*interval, *since),
            _ => next_ms,
        }
    }

    fn visit(&self, target: usize, at_ms: i64, seen: &mut Loop) {
        let story = &self.world.story;
        let plan = &story.targets[target];
        let (skipped, unreachable) = {
            let state = self.world.state();
            (state.skipped[self.number] >> target & 1 == 1, state.unreachable[self.number] >> target & 1 == 1)
        };
        if skipped {
            return;
        }
        if !(plan.life.0..plan.life.1).contains(&at_ms) {
            if at_ms >= plan.life.1 {
                self.end_all(target, at_ms, seen);
            }
            return;
        }
        seen.had.resize(plan.series.len(), false);
        let interval_ms = plan.interval_ms(at_ms);
        let first = self.first_of(target);
        for (nth, series) in plan.series.iter().enumerate() {
            let has = !unreachable && self.has(*series, at_ms, interval_ms);
            if has {
                self.put(first + nth, at_ms, self.value());
            } else if seen.had[nth] {
                self.put(first + nth, at_ms, STALE_MARKER_BITS);
            }
            seen.had[nth] = has;
        }
        if plan.kind == Kind::Scraped {
            let own = first + plan.series.len();
            self.put(own, at_ms, self.value());
            self.put(own + 1, at_ms, if unreachable { 0.0_f64 } else { 1.0 }.to_bits());
            seen.had_own = true;
        }
    }

    fn end_all(&self, target: usize, at_ms: i64, seen: &mut Loop) {
        let first = self.first_of(target);
        for nth in 0..seen.had.len() {
            if std::mem::take(&mut seen.had[nth]) {
                self.put(first + nth, at_ms, STALE_MARKER_BITS);
            }
        }
        if std::mem::take(&mut seen.had_own) {
            let own = first + seen.had.len();
            self.put(own, at_ms, STALE_MARKER_BITS);
            self.put(own + 1, at_ms, STALE_MARKER_BITS);
        }
    }

    fn has(&self, series: SeriesPlan, at_ms: i64, interval_ms: i64) -> bool {
        match series {
            SeriesPlan::Steady => true,
            SeriesPlan::Life(from, until) => (from..until).contains(&at_ms),
            SeriesPlan::Rare(every) => at_ms.div_euclid(interval_ms) % every == 0,
            SeriesPlan::Only(replica) => replica == self.number,
        }
    }

    fn first_of(&self, target: usize) -> usize {
        let own = |kind| if kind == Kind::Scraped { 2 } else { 0 };
        let before = &self.world.story.targets[..target];
        before.iter().map(|target| target.series.len() + own(target.kind)).sum()
    }

    /// No two samples of the world have the same value.
    fn value(&self) -> u64 {
        let mut values = self.values.lock().unwrap();
        *values += 1;
        ((self.number as u64 * 1_000_000_000 + *values) as f64 + 2.0).to_bits()
    }

    /// Into the log, with the time of the replica's own clock.
    fn put(&self, series: usize, at_ms: i64, bits: u64) {
        let clock = &self.world.story.replicas[self.number].clock;
        let ahead = clock.iter().rev().find(|(since, _)| *since <= at_ms).map_or(0, |(_, ahead)| *ahead);
        let sent = Sent { at_ms: at_ms + ahead, bits, arrived_ms: NEVER, acked_ms: NEVER };
        let mut history = self.world.history();
        let of_mine = &mut history.series[series].sent[self.number];
        if of_mine.last().is_some_and(|last| last.at_ms >= sent.at_ms) {
            return; // its own TSDB takes nothing older: the clock has jumped back
        }
        of_mine.push(sent);
        let entry = of_mine.len() - 1;
        let now_ms = self.world.now_ms();
        history.tell(series, now_ms, || {
            let stale = if sent.is_stale_marker() { "!" } else { "" };
            format!("r{} scrapes {:.3}{stale}", self.number, sent.at_ms as f64 / 1e3)
        });
        drop(history);
        let item = Item { series: series as u32, entry: entry as u32, at_ms: sent.at_ms, bits };
        self.queue.lock().unwrap().log.push_back(item);
    }
}

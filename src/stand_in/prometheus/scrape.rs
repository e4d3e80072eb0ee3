//! The scrape loops, rule evaluation and the log between them and the queue.
//!
//! Times are nominal: a scrape carries the time it was due, as Prometheus aligns its timestamps; what the machine is late shows as
//! delivery delay. The log (WAL) holds one entry a scrape, so that a long outage of the receiver costs almost nothing.

use super::ReplicaShared;
use super::fleet::mix;
use super::queue::{Item, What};
use crate::stand_in::now_ms;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::mpsc;

/// Whether and how a target answers one replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// It is scraped.
    Found,
    /// It is known and does not answer: `up` is 0, its own series go stale.
    Unreachable,
    /// Service discovery no longer has it: all its series go stale, in order.
    Lost,
}

/// One entry of the log.
#[derive(Debug, Clone, Copy)]
pub(super) enum Event {
    Scrape { target: usize, at_ms: i64 },
    Failure { target: usize, at_ms: i64, first: bool },
    Gone { target: usize, at_ms: i64 },
    Rules { at_ms: i64 },
    RulesStale { at_ms: i64 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Job {
    Scrape(usize),
    /// A lost target's markers, stamped with the time of the scrape that did not happen.
    Bury(usize, i64),
    Rules,
}

/// What a scrape loop remembers of its target.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    has_series: bool,
    failing: bool,
    burying: bool,
}

/// Scrapes and evaluates until it is cancelled.
pub(super) async fn run(shared: Arc<ReplicaShared>, log: mpsc::Sender<Event>, restarted: bool) {
    let interval_ms = shared.interval_ms();
    let start_ms = now_ms();
    let mut due: BinaryHeap<Reverse<(i64, Job)>> = BinaryHeap::new();
    for target in 0..shared.fleet.targets.len() {
        let first_ms = next_after(start_ms, interval_ms, shared.phase_ms(target));
        due.push(Reverse((first_ms, Job::Scrape(target))));
    }
    if !shared.fleet.rules.is_empty() {
        // The phase of a rule group depends on the group alone, so all replicas evaluate at the same times.
        let phase = (mix(0x5eed, 0) % interval_ms.unsigned_abs()).cast_signed();
        due.push(Reverse((next_after(start_ms, interval_ms, phase), Job::Rules)));
    }
    let mut seen = vec![Seen::default(); shared.fleet.targets.len()];
    let mut rules_are_new = restarted;
    while let Some(Reverse((due_ms, job))) = due.pop() {
        let now = now_ms();
        if due_ms > now {
            tokio::time::sleep(Duration::from_millis((due_ms - now).unsigned_abs())).await;
        }
        let put = |event| {
            if log.try_send(event).is_err() {
                shared.stats.log_overflows.fetch_add(1, Relaxed);
            }
        };
        match job {
            Job::Rules => {
                put(if rules_are_new {
                    Event::RulesStale { at_ms: due_ms }
                } else {
                    Event::Rules { at_ms: due_ms }
                });
                rules_are_new = false;
            }
            Job::Scrape(target) => {
                let reach = shared.reach(target);
                if let Some(event) = scrape(&mut seen[target], target, due_ms, reach) {
                    put(event);
                }
                if reach == Reach::Lost && seen[target].has_series && !seen[target].burying {
                    // Prometheus waits a good interval: the target may only have moved to another scrape loop.
                    seen[target].burying = true;
                    due.push(Reverse((due_ms + interval_ms * 11 / 10, Job::Bury(target, due_ms))));
                }
            }
            Job::Bury(target, at_ms) => {
                if shared.reach(target) == Reach::Lost {
                    put(Event::Gone { target, at_ms });
                    seen[target].has_series = false;
                }
                seen[target].burying = false;
            }
        }
        if !matches!(job, Job::Bury(..)) {
            // A tick that was missed altogether is skipped, as a ticker does.
            let late = (now_ms() - due_ms).max(0) / interval_ms;
            due.push(Reverse((due_ms + interval_ms * (late + 1), job)));
        }
    }
}

fn scrape(seen: &mut Seen, target: usize, at_ms: i64, reach: Reach) -> Option<Event> {
    match reach {
        Reach::Found => {
            *seen = Seen { has_series: true, failing: false, burying: seen.burying };
            Some(Event::Scrape { target, at_ms })
        }
        Reach::Unreachable => {
            let first = !seen.failing && seen.has_series;
            *seen = Seen { has_series: true, failing: true, burying: seen.burying };
            Some(Event::Failure { target, at_ms, first })
        }
        Reach::Lost => None,
    }
}

/// Expands the log into samples and hands them to the shards; a full shard holds up all of them.
pub(super) async fn watch(
    shared: Arc<ReplicaShared>,
    mut log: mpsc::Receiver<Event>,
    shards: Vec<mpsc::Sender<Item>>,
    epoch: u64,
) {
    // References of series differ between replicas and after a restart, and so does the shard of a series.
    let shard_of =
        |series: usize| (mix(shared.seed ^ epoch, series as i64) % shards.len().max(1) as u64) as usize;
    let mut items = Vec::new();
    while let Some(event) = log.recv().await {
        items.clear();
        expand(&shared, event, &mut items);
        for &item in &items {
            // Closed only when the replica is being killed.
            if shards[shard_of(item.series)].send(item).await.is_err() {
                return;
            }
        }
    }
}

fn expand(shared: &ReplicaShared, event: Event, items: &mut Vec<Item>) {
    let fleet = &shared.fleet;
    match event {
        Event::Scrape { target, at_ms } => {
            let target = &fleet.targets[target];
            // A scrape's own series come last, after what the target exposed.
            let order = target.exposed().chain(target.own());
            items.extend(order.map(|series| Item::sample(shared, series, at_ms, None)));
            if fleet.exemplars {
                items.extend(target.exposed().filter_map(|series| {
                    let (at_ms, value) = fleet.series[series].exemplar(at_ms, shared.interval_ms())?;
                    Some(Item { series, at_ms, what: What::Exemplar(value.to_bits()) })
                }));
            }
        }
        Event::Failure { target, at_ms, first } => {
            let target = &fleet.targets[target];
            if first {
                items.extend(target.exposed().map(|series| Item::stale(series, at_ms)));
            }
            items.extend(target.own().map(|series| Item::sample(shared, series, at_ms, Some(0.0))));
        }
        Event::Gone { target, at_ms } => {
            items.extend(fleet.targets[target].series.clone().map(|series| Item::stale(series, at_ms)));
        }
        Event::Rules { at_ms } => {
            items.extend(fleet.rules.clone().map(|series| Item::sample(shared, series, at_ms, None)));
        }
        Event::RulesStale { at_ms } => {
            items.extend(fleet.rules.clone().map(|series| Item::stale(series, at_ms)));
        }
    }
}

/// The first time after `now` that is `phase` after a multiple of the interval.
fn next_after(now: i64, interval_ms: i64, phase: i64) -> i64 {
    (now - phase).div_euclid(interval_ms) * interval_ms + phase + interval_ms
}

#[cfg(test)]
mod tests {
    use super::next_after;

    #[test]
    fn scrapes_are_due_at_their_phase() {
        assert_eq!(next_after(1_000, 500, 20), 1_020);
        assert_eq!(next_after(1_020, 500, 20), 1_520);
        assert_eq!(next_after(1_019, 500, 20), 1_020);
    }
}

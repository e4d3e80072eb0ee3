//! The queue manager of remote write: a log, shards with one request in flight each, and retries of the same bytes.
//!
//! Facts are of Prometheus 3.14 `storage/remote/queue_manager.go` and `client.go`: a full shard holds up all of them;
//! 5xx and broken connections are tried again for ever, after 30 ms to 5 s or what `Retry-After` says; any other answer
//! above 2xx drops the batch.

use crate::dice::Dice;
use crate::front::Heard;
use crate::history::{Dropped, EPOCH_MS};
use crate::replica::Replica;
use promdedup::stand_in::request::{compress, put_sample};
use promdedup::window::IDLE_TICKS;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

const REMOTE_TIMEOUT: Duration = Duration::from_secs(30);
const BACKOFF_MS: (i64, i64) = (30, 5_000);

/// One sample on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Item {
    pub(crate) series: u32,
    /// Its place in the history of its series and replica.
    pub(crate) entry: u32,
    pub(crate) at_ms: i64,
    pub(crate) bits: u64,
}

/// What a replica has not delivered yet.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// The end of the log that no shard has taken yet.
    pub(crate) log: VecDeque<Item>,
    shards: Vec<Shard>,
    /// Series go to other shards in each.
    pub(crate) epoch: u64,
    closed: bool,
}

#[derive(Debug, Default)]
struct Shard {
    items: VecDeque<Item>,
    in_flight: usize,
    more: Arc<Notify>,
}

/// What became of an attempt.
enum Outcome {
    Acknowledged,
    Refused(u16, String),
    Again { after_ms: Option<i64> },
}

impl Queue {
    pub(crate) fn new(shards: usize, epoch: u64) -> Self {
        let shards = (0..shards).map(|_| Shard::default()).collect();
        Self { log: VecDeque::new(), shards, epoch, closed: false }
    }

    /// Moves samples from the log to the shards, in order, as far as there is room.
    pub(crate) fn pump(&mut self, replica: usize) {
        const CAPACITY: usize = 500;
        if self.closed || self.shards.is_empty() {
            return;
        }
        while let Some(item) = self.log.front() {
            let mixed = (u64::from(item.series) + 1)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ self.epoch.wrapping_mul(0x1234_5677) ^ replica as u64);
            let of = (mixed >> 33) as usize % self.shards.len();
            let shard = &mut self.shards[of];
            if shard.items.len() >= CAPACITY {
                return;
            }
            shard.items.push_back(*item);
            shard.more.notify_one();
            self.log.pop_front();
        }
    }

    pub(crate) fn shards_are_empty(&self) -> bool {
        self.shards.iter().all(|shard| shard.items.is_empty() && shard.in_flight == 0)
    }

    /// Samples that are not delivered.
    pub(crate) fn len(&self) -> usize {
        self.log.len() + self.shards.iter().map(|shard| shard.items.len() + shard.in_flight).sum::<usize>()
    }

    /// Gives the shards nothing any more.
    pub(crate) fn close(&mut self) -> u64 {
        self.closed = true;
        self.epoch
    }

    pub(crate) fn reopen(&mut self, shards: usize, epoch: u64) {
        let log = std::mem::take(&mut self.log);
        *self = Self::new(shards, epoch);
        self.log = log;
    }
}

/// The next thing for a shard to do.
enum Next {
    Send(Vec<Item>),
    /// Until there is more, or the batch has waited for long enough.
    Wait(Arc<Notify>, Option<Instant>),
    End,
}

/// The life of a shard, which ends with its epoch.
pub(crate) async fn run(replica: Arc<Replica>, shard: usize, epoch: u64) {
    let mut dice = replica.dice(100 + shard as u64 + epoch * 31);
    let mut deadline = None;
    loop {
        match next(&replica, shard, epoch, deadline, &mut dice) {
            Next::End => return,
            Next::Wait(more, until) => {
                deadline = until;
                match until {
                    None => more.notified().await,
                    Some(until) => drop(tokio::time::timeout_at(until, more.notified()).await),
                }
            }
            Next::Send(batch) => {
                deadline = None;
                send(&replica, &batch, &mut dice).await;
                if let Some(this) = replica.queue.lock().unwrap().shard(shard, epoch) {
                    this.in_flight = 0;
                }
            }
        }
    }
}

fn next(replica: &Replica, shard: usize, epoch: u64, deadline: Option<Instant>, dice: &mut Dice) -> Next {
    let link = &replica.world.story.link;
    let mut queue = replica.queue.lock().unwrap();
    let Some(this) = queue.shard(shard, epoch) else { return Next::End };
    let is_due = deadline.is_some_and(|deadline| Instant::now() >= deadline);
    if this.items.len() >= link.batch || is_due && !this.items.is_empty() {
        let count = this.items.len().min(link.batch);
        let batch: Vec<Item> = this.items.drain(..count).collect();
        this.in_flight = batch.len();
        queue.pump(replica.number);
        return Next::Send(batch);
    }
    let roll = || Instant::now() + Duration::from_millis(dice.of(0..=link.flush_ms).unsigned_abs());
    let deadline = if this.items.is_empty() { None } else { Some(deadline.unwrap_or_else(roll)) };
    Next::Wait(Arc::clone(&this.more), deadline)
}

impl Queue {
    fn shard(&mut self, shard: usize, epoch: u64) -> Option<&mut Shard> {
        if self.epoch == epoch { self.shards.get_mut(shard) } else { None }
    }
}

/// One batch, until it is settled.
async fn send(replica: &Arc<Replica>, batch: &[Item], dice: &mut Dice) {
    let world = &replica.world;
    let mut raw = Vec::new();
    {
        let history = world.history();
        for item in batch {
            let block = &history.series[item.series as usize].blocks[replica.number];
            put_sample(&mut raw, block, EPOCH_MS + item.at_ms, item.bits);
        }
    }
    let body = compress(&raw);
    let mut backoff_ms = BACKOFF_MS.0;
    for attempt in 0.. {
        world.thawed(replica.number).await;
        let exchange = exchange(replica, batch, body.clone(), attempt, dice);
        let heard = tokio::time::timeout(REMOTE_TIMEOUT, exchange).await.ok().flatten();
        world.thawed(replica.number).await;
        let outcome = match heard {
            Some(Heard { status: 200..300, .. }) => Outcome::Acknowledged,
            Some(Heard { status: 500.., after_ms, .. }) => Outcome::Again { after_ms },
            None => Outcome::Again { after_ms: None },
            Some(Heard { status, text, .. }) => Outcome::Refused(status, text),
        };
        match outcome {
            Outcome::Acknowledged => return acknowledged(replica, batch),
            Outcome::Refused(status, text) => {
                let what = format!(
                    "r{} drops {} samples at attempt {attempt} for a {status}: {text}",
                    replica.number,
                    batch.len()
                );
                return dropped(replica, batch, what);
            }
            Outcome::Again { after_ms } => {
                let pause_ms = after_ms.unwrap_or(backoff_ms);
                world.pause(pause_ms).await;
                backoff_ms = (pause_ms * 2).min(BACKOFF_MS.1);
            }
        }
    }
}

/// One attempt, over the link as it is.
async fn exchange(
    replica: &Arc<Replica>,
    batch: &[Item],
    body: bytes::Bytes,
    attempt: u32,
    dice: &mut Dice,
) -> Option<Heard> {
    let world = &replica.world;
    let link = || world.state().links[replica.number];
    let way_ms = world.story.link.way_ms;
    world.pause(dice.of(0..=way_ms) + link().delay_ms).await;
    if link().cut {
        std::future::pending::<()>().await;
    }
    if link().flaky && dice.percent(25) {
        return None;
    }
    arrived(replica, batch, attempt);
    let heard = replica.front.call(body, attempt).await;
    told(replica, batch, heard.as_ref());
    world.pause(dice.of(0..=way_ms) + link().delay_ms).await;
    if link().cut {
        std::future::pending::<()>().await;
    }
    if link().flaky && dice.percent(25) {
        return None;
    }
    heard
}

fn arrived(replica: &Replica, batch: &[Item], attempt: u32) {
    let now_ms = replica.world.now_ms();
    let mut history = replica.world.history();
    for item in batch {
        let (series, entry) = (item.series as usize, item.entry as usize);
        let sent = &mut history.series[series].sent[replica.number][entry];
        sent.arrived_ms = sent.arrived_ms.min(now_ms);
        history.tell(series, now_ms, || {
            let at = item.at_ms as f64 / 1e3;
            format!("        r{} brings {at:.3}, attempt {attempt}", replica.number)
        });
    }
}

fn told(replica: &Replica, batch: &[Item], heard: Option<&Heard>) {
    let mut history = replica.world.history();
    let Some(told) = history.told else { return };
    for item in batch.iter().filter(|item| item.series as usize == told) {
        history.tell(told, replica.world.now_ms(), || {
            let at = item.at_ms as f64 / 1e3;
            match heard {
                Some(Heard { status, text, by, .. }) => {
                    format!("        r{} is answered {status} by i{by} for {at:.3} {text}", replica.number)
                }
                None => format!("        r{} is not answered for {at:.3}", replica.number),
            }
        });
    }
}

fn dropped(replica: &Replica, batch: &[Item], what: String) {
    let at_ms = replica.world.now_ms();
    let series = batch.first().map_or(0, |item| item.series as usize);
    let mut history = replica.world.history();
    let mut groups: Vec<usize> =
        batch.iter().map(|item| history.series[item.series as usize].group).collect();
    groups.dedup();
    history.dropped.push(Dropped { at_ms, series, groups, what });
}

fn acknowledged(replica: &Replica, batch: &[Item]) {
    let world = &replica.world;
    let now_ms = world.now_ms();
    for item in batch {
        let series = item.series as usize;
        let mut history = world.history();
        let of_series = &mut history.series[series];
        let sent = &mut of_series.sent[replica.number];
        sent[item.entry as usize].acked_ms = now_ms;
        let before = item.entry.checked_sub(1).map(|before| sent[before as usize].at_ms);
        let (target, plan) = (of_series.target, of_series.plan);
        drop(history);
        if item.bits == promdedup::stand_in::STALE_MARKER_BITS {
            continue;
        }
        // What an acknowledgement means, held against the upstream at this moment.
        let (young, newest_ms) = replica.front.newest_upstream_ms(series);
        let is_far = |young: bool| {
            // Two intervals as the window knows them: a takeover for silence makes them up to twice as long (rule 9).
            let mut reach_ms = world.story.two_intervals_ms(target, plan, item.at_ms) * 2;
            if young && let Some(before) = before {
                // Nobody has shown its interval yet: the distance of the sender's last two samples stands for it. While
                // senders catch up, its owner may be far behind (ARCHITECTURE.md names this limit).
                let behind_ms = if world.story.has_outage() {
                    newest_ms.map_or(0, |newest| item.at_ms - newest)
                } else {
                    0
                };
                reach_ms = reach_ms.max(2 * (item.at_ms - before)).max(behind_ms);
            }
            newest_ms.is_none_or(|newest_ms| newest_ms < item.at_ms - reach_ms)
        };
        if is_far(young) && is_far(young || is_young_again(replica, series)) {
            let line = format!(
                "series {series}: r{} was acknowledged {} at {now_ms}, upstream has {newest_ms:?}",
                replica.number, item.at_ms
            );
            world.history().broken.push(line);
        }
    }
}

/// Whether the window may have forgotten the series, since nobody had brought it for so long, and knows little of it again.
fn is_young_again(replica: &Replica, series: usize) -> bool {
    let idle_ms = replica.world.story.proxy.idle_ms;
    let anew_ms = replica.world.history().series[series].anew_ms(idle_ms - idle_ms / i64::from(IDLE_TICKS));
    anew_ms.is_some_and(|anew_ms| replica.front.is_young(series, anew_ms))
}

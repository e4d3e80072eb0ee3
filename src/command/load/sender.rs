//! One shard of one replica: takes what is due, in order, and sends it until it is settled, as Prometheus' queue manager does.
//!
//! One request in flight, the same bytes again after 5xx and errors of the network, with a backoff that doubles and that `Retry-After`
//! replaces once; other answers drop the batch. What is due and not sent yet is a place in the schedule.

use super::body::{CHUNKS_MAX, Chunk, Deal, Press};
use super::fleet::Fleet;
use super::schedule::{Horizon, Pace, Schedule, lock};
use super::sink::TimesTaken;
use super::tally::Tally;
use super::turns::Turns;
use crate::stand_in::connection::{Connection, Reply};
use crate::stand_in::now_ms;
use crate::wire::Protocol;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// First and longest pause before a retry (`min_backoff`, `max_backoff`).
const BACKOFF: [Duration; 2] = [Duration::from_millis(30), Duration::from_secs(5)];
/// A request without an answer is given up and sent again (`remote_timeout`).
const TIMEOUT: Duration = Duration::from_secs(30);
/// Most refused batches that are remembered for the verdict.
const REFUSED_MAX: usize = 10_000;

/// What all shards of a run have in common.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) fleet: Fleet,
    pub(super) protocol: Protocol,
    pub(super) replicas: usize,
    pub(super) deal: Deal,
    /// Samples of a full batch (`max_samples_per_send`).
    pub(super) batch: usize,
    pub(super) tenants: usize,
    /// By group and replica.
    pub(super) schedules: Vec<Schedule>,
    /// By group.
    pub(super) paces: Vec<Pace>,
    /// Whether samples are due by the wall clock.
    pub(super) real_time: bool,
    pub(super) interval_ms: i64,
    /// The replica that begins with a backlog.
    pub(super) behind: Option<usize>,
    /// A batch that is not full goes out after this time (`batch_send_deadline`).
    pub(super) deadline_ms: i64,
    /// What is older than this was over when the run began: only a replica with a backlog has it.
    pub(super) live_from_ms: i64,
    /// By group, replica and shard: pieces of scrapes that are settled.
    pub(super) settled: Vec<AtomicU64>,
    /// Likewise: how often it began or ceased to have nothing to send that is due. Odd: it has nothing now.
    pub(super) waits: Vec<AtomicU64>,
    /// How long the sink took for what came of each request, if there is one.
    pub(super) taken: Option<Arc<TimesTaken>>,
    /// Bodies are printed one by one, so that answers are read when they come.
    pub(super) printing: Turns,
    /// When the first request went out.
    pub(super) begun: OnceLock<Instant>,
    /// Whether one was answered, whatever the answer.
    pub(super) answered: AtomicBool,
    pub(super) tally: Mutex<Tally>,
    pub(super) refused: Mutex<Vec<Refused>>,
}

/// A batch that was dropped: nothing of it was acknowledged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refused {
    pub(super) place: usize,
    /// The first scrape of it, and the first one behind it.
    pub(super) from: u64,
    pub(super) to: u64,
}

/// Which shard of which replica of which group.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seat {
    pub(super) group: usize,
    pub(super) replica: usize,
    pub(super) shard: usize,
}

impl Run {
    /// The schedule of a replica.
    pub(super) fn schedule(&self, group: usize, replica: usize) -> &Schedule {
        &self.schedules[group * self.replicas + replica]
    }

    /// For how long none of its requests was answered; `None`: one was, or none has gone out.
    pub(super) fn silent_for(&self) -> Option<Duration> {
        self.begun.get().filter(|_| !self.answered.load(Relaxed)).map(Instant::elapsed)
    }

    /// The last thing that went wrong, for people.
    pub(super) fn trouble(&self) -> String {
        match &lock(&self.tally).trouble {
            Some(trouble) => format!("last: {trouble}"),
            None if self.answered.load(Relaxed) => "no request was refused".to_owned(),
            None => "nothing has come back".to_owned(),
        }
    }

    /// Whether who has settled everything before this time is not behind.
    pub(super) fn is_live(&self, oldest_ms: i64) -> bool {
        oldest_ms + self.interval_ms > now_ms()
    }

    /// The place of a shard in the lists of all.
    pub(super) fn place(&self, seat: Seat) -> usize {
        (seat.group * self.replicas + seat.replica) * self.deal.shards + seat.shard
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Shard {
    run: Arc<Run>,
    press: Arc<Press>,
    connection: Connection,
    headers: HeaderMap,
    horizon: watch::Receiver<Horizon>,
    seat: Seat,
    place: usize,
    /// Attempts so far, of all batches.
    attempts: u64,
    /// The first piece of a scrape that is not settled.
    next: u64,
    chunks: Vec<Chunk>,
}

/// What to do about what is due.
enum Due {
    /// The first chunks of the list, up to this scrape.
    Batch { samples: usize, to: u64 },
    /// Nothing before this time; `None`: before the horizon moves.
    Later(Option<i64>),
    /// Nothing any more.
    Never,
}

enum Outcome {
    Acknowledged,
    Dropped(String),
    Again { retry_after: Option<Duration>, why: String },
}

impl Shard {
    pub(super) fn new(run: &Arc<Run>, url: &str, press: &Arc<Press>, seat: Seat) -> anyhow::Result<Self> {
        let connection = Connection::to(url)?;
        let (kind, version) = match run.protocol {
            Protocol::One => ("application/x-protobuf", "0.1.0"),
            Protocol::Two => ("application/x-protobuf;proto=io.prometheus.write.v2.Request", "2.0.0"),
        };
        let mut headers = HeaderMap::new();
        headers.insert("content-encoding", HeaderValue::from_static("snappy"));
        headers.insert("content-type", HeaderValue::from_static(kind));
        headers.insert("user-agent", HeaderValue::from_static("Prometheus/3.14.0"));
        headers.insert("x-prometheus-remote-write-version", HeaderValue::from_static(version));
        if run.tenants > 1 {
            let tenant = format!("tenant-{}", seat.group % run.tenants);
            headers.insert("thanos-tenant", HeaderValue::try_from(tenant)?);
        }
        Ok(Self {
            run: Arc::clone(run),
            press: Arc::clone(press),
            connection,
            headers,
            horizon: run.paces[seat.group].watch(),
            seat,
            place: run.place(seat),
            attempts: 0,
            next: 0,
            chunks: Vec::new(),
        })
    }

    /// Sends until the horizon has ended and everything before it is settled.
    pub(super) async fn run(mut self) {
        self.settle(self.schedule().first());
        loop {
            match self.due() {
                Due::Batch { samples, to } => {
                    self.deliver(samples, to).await;
                    self.settle(to);
                }
                Due::Later(at_ms) => {
                    let waits = &Arc::clone(&self.run).waits[self.place];
                    waits.fetch_add(1, Relaxed);
                    self.wait(at_ms).await;
                    waits.fetch_add(1, Relaxed);
                }
                Due::Never => return,
            }
        }
    }

    fn schedule(&self) -> &Schedule {
        self.run.schedule(self.seat.group, self.seat.replica)
    }

    /// What is to be sent at a place of the schedule, and how many samples that is: of a target that has just replaced another one, also
    /// that one's end.
    fn chunks_at(&self, nth: u64) -> (Option<Chunk>, Chunk, usize) {
        let (run, chunk) = (&self.run, self.schedule().scrape(nth));
        let ends = self.schedule().goes_on(&chunk) && {
            let generation = |round| run.fleet.generation(self.seat.group, chunk.target, round);
            generation(chunk.round) != generation(chunk.round - 1)
        };
        let end = ends.then_some(Chunk { ended: true, ..chunk });
        let samples = |chunk: &Chunk| self.press.samples(&run.fleet, chunk);
        (end, chunk, end.as_ref().map_or(0, samples) + samples(&chunk))
    }

    /// Everything before `next` is settled. Scrapes of which this shard has nothing are no reason for others to wait.
    fn settle(&mut self, next: u64) {
        let (run, schedule) = (&self.run, self.schedule());
        let has_samples = |nth: &u64| self.press.samples(&run.fleet, &schedule.scrape(*nth)) > 0;
        let next = (next..next + schedule.round()).find(has_samples).unwrap_or(next);
        run.settled[self.place].store(next, Relaxed);
        let of_the_group = self.place % (run.replicas * run.deal.shards);
        run.paces[self.seat.group].settled(of_the_group, schedule.time_ms(next));
        self.next = next;
    }

    fn due(&mut self) -> Due {
        let horizon = *self.horizon.borrow_and_update();
        let run = Arc::clone(&self.run);
        let now_ms = if run.real_time { now_ms().min(horizon.until_ms) } else { horizon.until_ms };
        self.chunks.clear();
        let (mut samples, mut to, mut oldest_ms) = (0, self.next, None);
        // The scrapes of the next batch, whether they are due or not: when will it be full?
        for nth in self.next..self.next + self.schedule().round() {
            let (end, chunk, more) = self.chunks_at(nth);
            let full = samples + more > run.batch || self.chunks.len() + 2 > CHUNKS_MAX;
            if full && samples > 0 {
                return Due::Batch { samples, to };
            }
            if chunk.at_ms > now_ms {
                break;
            }
            to = nth + 1;
            if more > 0 {
                oldest_ms = oldest_ms.or(Some(chunk.at_ms));
                self.chunks.extend(end.into_iter().chain([chunk]));
                samples += more;
            }
        }
        match oldest_ms {
            Some(oldest_ms) if horizon.ended || oldest_ms + run.deadline_ms <= now_ms => {
                return Due::Batch { samples, to };
            }
            None if horizon.ended => return Due::Never,
            _ => {}
        }
        if !run.real_time {
            return Due::Later(None);
        }
        // When it is full, or when the first sample of it, here or to come, has waited long enough.
        let per_chunk = run.deal.series_of_a_piece();
        let chunks = (run.batch.saturating_sub(samples) / per_chunk) as u64;
        let schedule = self.schedule();
        let full_ms = schedule.time_ms(to + chunks.min(schedule.round() - 1).saturating_sub(1));
        let deadline_ms = oldest_ms.unwrap_or_else(|| schedule.time_ms(to)) + run.deadline_ms;
        Due::Later(Some(deadline_ms.min(full_ms)))
    }

    async fn wait(&mut self, at_ms: Option<i64>) {
        let pause = at_ms
            .map_or(Duration::MAX, |at_ms| Duration::from_millis((at_ms - now_ms()).max(1).unsigned_abs()));
        tokio::select! {
            // The sender lives as long as the run.
            changed = self.horizon.changed() => drop(changed),
            () = tokio::time::sleep(pause), if at_ms.is_some() => {}
        }
    }

    /// The chunks until they are settled.
    async fn deliver(&mut self, samples: usize, to: u64) {
        let (body, raw_len) = {
            let _turn = self.run.printing.next().await;
            self.press.print(&self.run.fleet, self.seat.group, &self.chunks)
        };
        let body = Bytes::from(body);
        let mut backoff = BACKOFF[0];
        for attempt in 0u32.. {
            let sent = Instant::now();
            let outcome = self.attempt(body.clone(), attempt).await;
            self.count(&outcome, samples, [body.len(), raw_len], sent.elapsed());
            match outcome {
                Outcome::Acknowledged => return,
                Outcome::Dropped(_) => {
                    let mut refused = lock(&self.run.refused);
                    if refused.len() < REFUSED_MAX {
                        refused.push(Refused { place: self.place, from: self.next, to });
                    }
                    return;
                }
                Outcome::Again { retry_after, .. } => {
                    let pause = retry_after.unwrap_or(backoff);
                    tokio::time::sleep(pause).await;
                    backoff = (pause * 2).min(BACKOFF[1]);
                }
            }
        }
    }

    fn count(&self, outcome: &Outcome, samples: usize, [body_bytes, raw_bytes]: [usize; 2], took: Duration) {
        let run = &self.run;
        let in_sink = run.taken.as_ref().map(|taken| taken.claim(self.request_id()));
        let oldest_ms = self.chunks.first().map_or(i64::MAX, |chunk| chunk.at_ms);
        // What a backlog takes is told apart from what those that are live see of it.
        let late = Some(self.seat.replica) == run.behind && !run.is_live(oldest_ms);
        let mut tally = lock(&run.tally);
        tally.requests += 1;
        tally.body_bytes += body_bytes as u64;
        tally.raw_bytes += raw_bytes as u64;
        match outcome {
            Outcome::Acknowledged => {
                tally.acknowledged += samples as u64;
                if oldest_ms < run.live_from_ms {
                    tally.replayed += samples as u64;
                }
                if late {
                    tally.late.note(took);
                    return;
                }
                tally.latency.note(took);
                if let Some(in_sink) = in_sink {
                    tally.traced += u64::from(in_sink.is_some());
                    tally.added.note(took.saturating_sub(in_sink.unwrap_or_default()));
                }
            }
            Outcome::Dropped(why) => {
                tally.refused += samples as u64;
                tally.trouble = Some(why.clone());
            }
            Outcome::Again { why, .. } => {
                tally.retries += 1;
                tally.trouble = Some(why.clone());
            }
        }
    }

    /// Of the attempt that is under way: a proxy passes it on, so the sink's time for it can be told.
    fn request_id(&self) -> u64 {
        (self.place as u64) << 40 | self.attempts
    }

    async fn attempt(&mut self, body: Bytes, attempt: u32) -> Outcome {
        self.attempts += 1;
        self.run.begun.get_or_init(Instant::now);
        self.headers.insert("x-request-id", self.request_id().into());
        match attempt {
            0 => drop(self.headers.remove("retry-attempt")),
            _ => drop(self.headers.insert("retry-attempt", attempt.into())),
        }
        let reply = match tokio::time::timeout(TIMEOUT, self.connection.post(&self.headers, body)).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(error)) => return Outcome::Again { retry_after: None, why: error.to_string() },
            Err(_) => {
                return Outcome::Again { retry_after: None, why: format!("no answer within {TIMEOUT:?}") };
            }
        };
        self.run.answered.store(true, Relaxed);
        let why = || format!("{}: {}", reply.status, reply.text.lines().next().unwrap_or_default());
        match reply.status {
            200..300 if self.run.protocol == Protocol::Two && !says_written(&reply) => {
                Outcome::Dropped(format!(
                    "{} without X-Prometheus-Remote-Write-Samples-Written: it takes no remote write 2.0",
                    reply.status
                ))
            }
            200..300 => Outcome::Acknowledged,
            500..600 => {
                // As in Prometheus, 0 is as good as none.
                let retry_after_s = reply.retry_after_s().filter(|seconds| *seconds > 0);
                Outcome::Again { retry_after: retry_after_s.map(Duration::from_secs), why: why() }
            }
            _ => Outcome::Dropped(why()),
        }
    }
}

fn says_written(reply: &Reply) -> bool {
    reply.headers.contains_key("x-prometheus-remote-write-samples-written")
}

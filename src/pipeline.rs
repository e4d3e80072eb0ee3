//! PIPELINE: the life of one request, from compressed body to reply.
//!
//! Owns the order of things: read, decide, send, settle, answer. Nothing is acknowledged before upstream has answered
//! for it, nothing stays reserved after the end, and nobody is waited for while something is reserved.
//! Refuses HTTP (that is `receive`'s and `forward`'s), and to retry: the sender does, with its backoff and its disk.

mod batch;
mod door;
mod judge;
mod memory;
mod metrics;
mod notes;
mod observe;
mod request;
mod route;
mod tally;
mod verdict;

pub use door::{Incoming, Reply, Settings, Written};
pub use metrics::Metrics;
pub use observe::Verbatim;

use crate::forward::{Answer, Outgoing, Upstream};
use crate::overhead::{Meter, Stage};
use crate::peers::{Peers, Secret};
use crate::placement::Placement;
use crate::series::TenantHash;
use crate::window::{Flight, Log, Metadata, Window};
pub use crate::wire::Protocol;
use crate::wire::snappy::{self, Unpack};
use crate::wire::v2::{self, Keep};
use crate::wire::v2_out;
use crate::wire::{Flaw, Malformed, splice};
use http::HeaderValue;
use judge::{Bench, Judged};
use memory::Memory;
use request::{Fate, Request};
use route::{Peering, Routes, Way};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use verdict::Outcome;

/// How often a part is decided anew because flights of others carry its series.
const ROUNDS_MAX: u32 = 64;
/// From this round on they do not all come at once.
const ROUNDS_TOGETHER_MAX: u32 = 4;
/// Buffers kept for requests to come.
const BUFFERS_MAX: usize = 64;
/// Buffers of requests with a longer body are given back to the system.
const BUFFER_BYTES_MAX: usize = 4 << 20;

/// The rooms of a request's life, and the buffers for it.
#[derive(Debug)]
pub struct Pipeline<U> {
    settings: Settings,
    window: Arc<Window>,
    upstream: U,
    metrics: Metrics,
    buffers: Mutex<Vec<Buffers>>,
    memory: Memory,
    /// Who comes later, in turn.
    late: AtomicU64,
    /// With several instances: who has which group. `None`: everything is served here.
    peering: Option<Peering>,
}

/// The memory of one request.
#[derive(Debug, Default)]
struct Buffers {
    /// A body of 2.0, in or out, what rewrites it, and what composes it.
    two: Vec<u8>,
    rewriter: v2::Rewriter,
    composer: v2_out::Composer,
    request: Request,
    judged: Judged,
    out: Vec<u8>,
    log: Log,
    meter: Meter,
    /// Compressed bytes that were sent.
    sent_bytes: u64,
    /// Bytes of the body as it was unpacked.
    raw_bytes: usize,
    routes: Routes,
    /// Other instances have a part of it: they note what they refuse.
    passed_on: bool,
}

/// How long a body is, or a part of one, compressed and unpacked.
#[derive(Debug, Clone, Copy)]
struct Size {
    compressed: usize,
    raw: usize,
}

/// What a part of the request came to.
enum Landing {
    Settled,
    /// Upstream wants it in smaller pieces.
    Split,
    /// It has to come again, as a whole.
    Failed,
}

impl<U: Upstream> Pipeline<U> {
    /// A pipeline through `window` to `upstream`.
    pub fn new(settings: Settings, window: Arc<Window>, upstream: U, metrics: Metrics) -> Self {
        let (buffers, memory, late) = (Mutex::default(), Memory::default(), AtomicU64::new(0));
        Self { settings, window, upstream, metrics, buffers, memory, late, peering: None }
    }

    /// With other instances: what is of a group of theirs goes to them.
    #[must_use]
    pub fn with_placement(self, placement: Arc<dyn Placement>, peers: Arc<dyn Peers>) -> Self {
        let peering = Peering::new(placement, peers, &self.settings.place_labels.group);
        Self { peering: Some(peering), ..self }
    }

    /// What requests of other instances have to bring; `None`: there are none.
    pub fn secret_of_peers(&self) -> Option<Secret> {
        self.peering.as_ref().map(|peering| peering.peers.secret())
    }

    /// With another bound on what all requests together take beyond their bodies, in bytes.
    #[must_use]
    pub fn with_memory_max(self, bytes: usize) -> Self {
        Self { memory: Memory::new(bytes), ..self }
    }

    /// The window.
    pub fn window(&self) -> &Arc<Window> {
        &self.window
    }

    /// Lives through one request. `now_ms`: the wall clock, in ms since the epoch.
    pub async fn serve(&self, incoming: Incoming, now_ms: i64) -> Reply {
        let begun = tokio::time::Instant::now();
        // Observed, a request is nobody's to keep waiting: first it goes, and what dedup would have done is found out then.
        let relayed = match &incoming.verbatim {
            Some(verbatim) => Some(self.relay(&incoming, verbatim).await),
            None => None,
        };
        let mut buffers =
            self.buffers.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        buffers.meter = self.metrics.cpu.meter();
        (buffers.sent_bytes, buffers.passed_on) = (0, false);
        let answer = relayed.as_ref().map(|relayed| &relayed.answer);
        let lived = self.live(&mut buffers, &incoming, answer, begun, now_ms).await;
        let (Ok(reply) | Err(reply)) = &lived;
        // Observed, its sender is told what upstream says, and not this.
        if relayed.is_none() && !buffers.passed_on && matches!(reply.status, 400 | 413 | 415) {
            self.note_refusal(reply, lived.is_ok().then_some(&buffers.request));
        }
        let shares = notes::shares(&buffers, &incoming, lived.is_ok());
        self.metrics.cpu.add(&mut buffers.meter, shares);
        let reply = match (relayed, lived) {
            (None, Ok(reply) | Err(reply)) => reply,
            (Some(relayed), lived) => {
                self.metrics.observed(lived.is_ok());
                relayed.into()
            }
        };
        buffers.routes.forget();
        let body = buffers.request.body.capacity().max(buffers.two.capacity());
        if body <= BUFFER_BYTES_MAX && !buffers.request.outgrows(BUFFER_BYTES_MAX) {
            let mut kept = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() < BUFFERS_MAX {
                kept.push(buffers);
            }
        }
        reply
    }

    /// The request from its body to its reply, which is an error if nothing in it could be read. `observed`: what upstream
    /// has already said to the request as it came.
    async fn live(
        &self,
        buffers: &mut Buffers,
        incoming: &Incoming,
        observed: Option<&Answer>,
        begun: tokio::time::Instant,
        now_ms: i64,
    ) -> Result<Reply, Reply> {
        let tenant = incoming.tenant.as_ref().map_or("".as_bytes(), HeaderValue::as_bytes);
        let bench = Bench {
            settings: &self.settings,
            window: &self.window,
            tenant: TenantHash::of_bytes(tenant),
            retry: incoming.retry_attempt > 0,
            now_ms,
            begun,
            observed,
        };
        self.unpack(buffers, incoming, &bench)?;
        match &self.peering {
            // Observed, it has been with upstream already.
            Some(peering) if incoming.verbatim.is_none() => {
                match self.find_way(peering, buffers, incoming, &bench)? {
                    Way::Here => {}
                    // Apart, so that the future of what stays here is no larger for it.
                    way => return Box::pin(self.travel(peering, way, buffers, incoming, &bench)).await,
                }
            }
            Some(_) | None => self.find(buffers, &bench)?,
        }
        let size = Size::whole(buffers, incoming);
        Ok(self.live_here(buffers, incoming, &bench, size).await)
    }

    /// The life of a request whose series have been found, and whose groups are this instance's.
    async fn live_here(
        &self,
        buffers: &mut Buffers,
        incoming: &Incoming,
        bench: &Bench<'_>,
        size: Size,
    ) -> Reply {
        buffers.request.introduce_all(bench);
        self.metrics.read(size.compressed, size.raw);
        let mut outcome = Outcome::default();
        if let Some(answer) = bench.observed {
            outcome.note(answer, false);
        }
        let all = 0..buffers.request.units.len();
        let memory = self.memory.take(buffers.request.decoded_bytes());
        // Observed, it has been with upstream already.
        let mut next = match &memory {
            Err(full) if bench.observed.is_none() => {
                self.metrics.memory_hit.inc();
                outcome.unavailable(full.to_string());
                buffers.request.replace_fate(&all, Fate::Pending, Fate::Failed);
                None
            }
            _ => Some(all),
        };
        let mut parts = Vec::new();
        while let Some(part) = next {
            match self.fly(buffers, part.clone(), incoming, bench, &mut outcome).await {
                Landing::Settled => {}
                Landing::Split => {
                    let middle = part.start + part.len() / 2;
                    parts.extend([middle..part.end, part.start..middle]);
                }
                // What is newer of the same series must not overtake it.
                Landing::Failed => {
                    for part in parts.drain(..) {
                        buffers.request.replace_fate(&part, Fate::Pending, Fate::Failed);
                    }
                }
            }
            next = parts.pop();
        }
        self.lean(buffers, bench, &mut outcome).await;
        let works = outcome.upstream_works();
        let mut reply = outcome.reply(&buffers.request);
        if (incoming.protocol == Protocol::Two || incoming.from_peer) && reply.status != 503 {
            reply.written = verdict::written(&buffers.request);
        }
        tally::add_up(&mut buffers.request, reply.status == 503);
        // An upstream that does not answer takes its time: its sender is about to come again from now on.
        self.note_fronts(&buffers.request, works, bench);
        self.metrics.count(&buffers.request, size.compressed, &self.window);
        reply
    }

    /// Unpacks the body, as one of 1.0.
    fn unpack(&self, buffers: &mut Buffers, incoming: &Incoming, bench: &Bench<'_>) -> Result<(), Reply> {
        let Buffers { two, rewriter, request, judged, meter, raw_bytes, .. } = buffers;
        let settings = bench.settings;
        judged.forget();
        if incoming.verbatim.as_ref().is_some_and(|verbatim| verbatim.unsupported) {
            return Err(Reply::new(415, "not remote write".to_owned()));
        }
        let max = settings.body_bytes_max;
        let raw = match incoming.protocol {
            Protocol::One => &mut request.body,
            Protocol::Two => two,
        };
        let unpacked = snappy::decompress(&incoming.body, max, raw);
        meter.end(Stage::Decompress);
        unpacked.map_err(|unpack| match unpack {
            Unpack::TooBig { .. } => {
                self.metrics.body_hit.inc();
                Reply::new(413, unpack.to_string())
            }
            _ => Reply::new(400, unpack.to_string()),
        })?;
        *raw_bytes = raw.len();
        if incoming.protocol == Protocol::Two {
            let keep = match settings.upstream_protocol {
                Protocol::One => Keep::Nothing,
                Protocol::Two => Keep::All,
            };
            let rewritten = rewriter.rewrite(two, keep, max, &mut request.body);
            rewritten.map_err(|malformed| self.malformed(&malformed))?;
        }
        Ok(())
    }

    /// Finds the series of a body that has been unpacked.
    fn find(&self, buffers: &mut Buffers, bench: &Bench<'_>) -> Result<(), Reply> {
        let found = buffers.request.find(bench, &mut buffers.meter);
        found.map_err(|malformed| self.malformed(&malformed))
    }

    fn malformed(&self, malformed: &Malformed) -> Reply {
        match malformed.flaw {
            Flaw::TooMany { .. } => {
                self.metrics.request_items_hit.inc();
                Reply::new(413, malformed.flaw.to_string())
            }
            _ => Reply::new(400, malformed.to_string()),
        }
    }

    /// One part of a request: decided, sent, settled.
    async fn fly(
        &self,
        buffers: &mut Buffers,
        part: Range<usize>,
        incoming: &Incoming,
        bench: &Bench<'_>,
        outcome: &mut Outcome,
    ) -> Landing {
        let Some(flight) = self.board(buffers, part.clone(), bench, outcome).await else {
            buffers.request.replace_fate(&part, Fate::Pending, Fate::Failed);
            return Landing::Failed;
        };
        let Buffers { request, judged, out, .. } = buffers;
        let samples = batch::assemble(request, part.clone(), judged, out);
        let news = if part.start == 0 { self.append_metadata(request, bench, out) } else { Vec::new() };
        if out.is_empty() {
            buffers.log = flight.commit();
            buffers.meter.end(Stage::Window);
            return Landing::Settled;
        }
        if part.start == 0 {
            request.unknown.iter().for_each(|field| splice::field(&request.body, *field, out));
        }
        let packed = match self.pack(buffers) {
            Ok(Some(packed)) => packed,
            Ok(None) => {
                buffers.log = flight.commit();
                return Landing::Settled;
            }
            Err(error) => {
                buffers.log = flight.roll_back(true);
                outcome.unavailable(format!("the outgoing body could not be packed: {error}"));
                buffers.request.replace_fate(&part, Fate::Aboard, Fate::Failed);
                return Landing::Failed;
            }
        };
        let answer = match bench.observed {
            Some(answer) => answer.clone(),
            None => {
                buffers.sent_bytes += packed.len() as u64;
                buffers.meter.pause();
                let answer = self.upstream.send(outgoing(packed, samples, incoming)).await;
                buffers.meter.resume();
                answer
            }
        };
        if matches!(answer, Answer::Taken) {
            self.window.metadata().remember(&news, bench.now_ms);
        }
        let landing = self.land(buffers, part, flight, &answer, bench, outcome);
        buffers.meter.end(Stage::Window);
        landing
    }

    /// The outgoing body as upstream takes it. `None`: there is nothing in it that 2.0 has a place for.
    fn pack(&self, buffers: &mut Buffers) -> anyhow::Result<Option<Vec<u8>>> {
        let Buffers { two, composer, out, meter, .. } = buffers;
        let raw = match self.settings.upstream_protocol {
            Protocol::One => out,
            Protocol::Two => {
                let lost = composer.compose(out, two)?;
                if lost > 0 {
                    tracing::debug!(
                        exemplars = lost,
                        "2.0 has no place for exemplars without a sample of their series"
                    );
                }
                two
            }
        };
        meter.end(Stage::Encode);
        if raw.is_empty() {
            return Ok(None);
        }
        let mut packed = Vec::new();
        snappy::compress(raw, &mut packed)?;
        meter.end(Stage::Compress);
        self.metrics.sent(raw.len(), packed.len());
        Ok(Some(packed))
    }

    /// Appends the metadata that upstream has not had lately. Returns what it is to be remembered by.
    fn append_metadata(&self, request: &Request, bench: &Bench<'_>, out: &mut Vec<u8>) -> Vec<u128> {
        let mut news = Vec::new();
        for field in &request.metadata {
            let key = Metadata::key(field.of(&request.body), bench.tenant);
            if self.window.metadata().is_news(key, bench.now_ms) {
                splice::field(&request.body, *field, out);
                news.push(key);
            }
        }
        news
    }

    /// Decides a part until no other flight is in its way. `None`: that took too long.
    async fn board(
        &self,
        buffers: &mut Buffers,
        part: Range<usize>,
        bench: &Bench<'_>,
        outcome: &mut Outcome,
    ) -> Option<Flight> {
        let deadline = tokio::time::Instant::now() + self.settings.busy_wait_max;
        let leant = buffers.judged.leans.len();
        for round in 0..ROUNDS_MAX {
            let Some(mut flight) = Flight::begin(&self.window, std::mem::take(&mut buffers.log)) else {
                self.metrics.flights_hit.inc();
                outcome.unavailable("too many requests are in flight".to_owned());
                return None;
            };
            bench.judge(&mut buffers.request, part.clone(), &mut flight, &mut buffers.judged);
            if buffers.judged.busy.is_empty() {
                flight.depart();
                buffers.meter.end(Stage::Window);
                return Some(flight);
            }
            // Nothing may be reserved while we wait, or two requests could wait for each other.
            buffers.log = flight.roll_back(true);
            buffers.request.decide_again(&part, &buffers.judged);
            // What leant on one of them may have to go first: if it failed, whatever goes beyond would leave a gap.
            for (_, _, s) in buffers.judged.leans.drain(leant..) {
                buffers.request.fates[s as usize] = Fate::Pending;
            }
            buffers.meter.end(Stage::Window);
            buffers.meter.pause();
            for on in &buffers.judged.busy {
                if tokio::time::timeout_at(deadline, self.window.ended(*on)).await.is_err() {
                    outcome.busy();
                    return None;
                }
            }
            if round >= ROUNDS_TOGETHER_MAX {
                // Two that want each other's series give way at the same moment, and again: now one comes later.
                let late_ms = self.late.fetch_add(1, Ordering::Relaxed) % 4;
                tokio::time::sleep(Duration::from_millis(late_ms)).await;
            }
            buffers.meter.resume();
            if self.settings.first_contact_hold_ms > 0 {
                buffers.request.look_again(&self.window, bench.later_ms());
            }
        }
        outcome.busy();
        None
    }

    /// Settles a flight by upstream's answer.
    fn land(
        &self,
        buffers: &mut Buffers,
        part: Range<usize>,
        flight: Flight,
        answer: &Answer,
        bench: &Bench<'_>,
        outcome: &mut Outcome,
    ) -> Landing {
        let request = &mut buffers.request;
        let repeats = bench.retry
            || matches!(answer, Answer::Conflict { .. })
                && bench.is_in_doubt(request, &part, &buffers.judged);
        let benign = verdict::benign(answer, &flight, repeats);
        let fate = match answer {
            Answer::TooBig { .. } if part.len() > 1 && bench.observed.is_none() => {
                buffers.log = flight.roll_back(true);
                request.decide_again(&part, &buffers.judged);
                return Landing::Split;
            }
            Answer::Taken => Fate::Forwarded,
            Answer::Conflict { .. } if benign.is_some() => Fate::Forwarded,
            Answer::Conflict { .. } | Answer::Refused { .. } | Answer::TooBig { .. } => Fate::Rejected,
            Answer::Unavailable { .. } | Answer::NoAnswer { .. } => Fate::Failed,
        };
        if fate == Fate::Failed {
            let answered = !matches!(answer, Answer::NoAnswer { .. });
            if !answered {
                bench.doubt(request, &part);
            }
            if self.settings.first_contact_hold_ms > 0 {
                bench.refuse(request, &part);
            }
            buffers.log = flight.roll_back(answered);
        } else {
            buffers.log = flight.commit();
            request.count_changes(&buffers.judged);
        }
        if let Some(reason) = benign {
            self.metrics.benign(request, &part, reason, &self.window);
        }
        if fate == Fate::Rejected {
            request.reject_exemplars(&buffers.judged);
        }
        outcome.note(answer, benign.is_some());
        request.replace_fate(&part, Fate::Aboard, fate);
        if fate == Fate::Failed { Landing::Failed } else { Landing::Settled }
    }

    /// Waits for the flights whose reservations duplicates lean on. If one fails, so does the duplicate.
    async fn lean(&self, buffers: &mut Buffers, bench: &Bench<'_>, outcome: &mut Outcome) {
        let leans = std::mem::take(&mut buffers.judged.leans);
        if leans.is_empty() {
            return;
        }
        buffers.meter.pause();
        let mut touched = false;
        for (on, _, s) in &leans {
            let well = self.window.ended(*on).await;
            buffers.request.fates[*s as usize] = if well { Fate::Pending } else { Fate::Failed };
            touched |= well;
            if !well {
                outcome.leaned();
            }
        }
        if !touched {
            return;
        }
        buffers.meter.resume();
        // They are duplicates of what is upstream now. Deciding them once more notes that their replica is alive.
        if let Some(mut flight) = Flight::begin(&self.window, std::mem::take(&mut buffers.log)) {
            for (_, item, s) in &leans {
                if buffers.request.fates[*s as usize] != Fate::Failed {
                    bench.note(&mut buffers.request, *item, *s, &mut flight);
                }
            }
            buffers.log = flight.roll_back(true);
        }
        buffers.meter.end(Stage::Window);
        for (_, _, s) in &leans {
            let fate = &mut buffers.request.fates[*s as usize];
            if *fate != Fate::Failed {
                *fate = Fate::Duplicate;
            }
        }
    }
}

impl Size {
    fn whole(buffers: &Buffers, incoming: &Incoming) -> Self {
        Self { compressed: incoming.body.len(), raw: buffers.raw_bytes }
    }

    /// Of `bytes` of `all` that are unpacked.
    fn part(self, bytes: usize, all: usize) -> Self {
        let of = |size: usize| (size as u128 * bytes as u128 / all.max(1) as u128) as usize;
        Self { compressed: of(self.compressed), raw: of(self.raw) }
    }
}

fn outgoing(packed: Vec<u8>, samples: u64, incoming: &Incoming) -> Outgoing {
    Outgoing {
        body: packed.into(),
        samples,
        tenant: incoming.tenant.clone(),
        request_id: incoming.request_id.clone(),
        traceparent: incoming.traceparent.clone(),
    }
}

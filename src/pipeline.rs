//! PIPELINE: the life of one request, from compressed body to reply.
//!
//! Owns the order of things: read, decide, send, settle, answer. Nothing is acknowledged before upstream has answered
//! for it, nothing stays reserved after the end, and nobody is waited for while something is reserved.
//! Refuses HTTP (that is `receive`'s and `forward`'s), and to retry: the sender does, with its backoff and its disk.

mod batch;
mod bodies;
mod conflict;
mod door;
mod flying;
mod judge;
mod memory;
mod metrics;
mod notes;
mod observe;
mod packing;
mod part;
mod pool;
mod request;
mod route;
mod tally;
mod turn;
mod two;
mod verdict;

pub use door::{Incoming, Reply, Settings, Written};
pub use metrics::Metrics;
pub use observe::Verbatim;

use crate::forward::{Answer, Upstream};
use crate::overhead::{Meter, Stage};
use crate::peers::{Peers, Secret};
use crate::placement::Placement;
use crate::series::LastTenant;
use crate::window::{Log, Window};
pub use crate::wire::Protocol;
use crate::wire::snappy::{self, Unpack};
use crate::wire::v2::Keep;
use crate::wire::{Flaw, Malformed};
use flying::Landing;
use http::HeaderValue;
use judge::{Bench, Judged};
use memory::Memory;
use part::Part;
use pool::Pool;
use request::{Fate, Request};
use route::{Peering, Routes, Way};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use turn::Turn;
use two::Two;
use verdict::Outcome;

/// The rooms of a request's life, and the buffers for it.
#[derive(Debug)]
pub struct Pipeline<U> {
    settings: Settings,
    window: Arc<Window>,
    upstream: U,
    metrics: Metrics,
    pool: Pool,
    memory: Memory,
    /// Who comes later, in turn.
    late: AtomicU64,
    /// With several instances: who has which group. `None`: everything is served here.
    peering: Option<Peering>,
}

/// The memory of one request.
#[derive(Debug, Default)]
struct Buffers {
    request: Request,
    judged: Judged,
    log: Log,
    meter: Meter,
    turn: Turn,
    tenant: LastTenant,
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

impl<U: Upstream> Pipeline<U> {
    /// A pipeline through `window` to `upstream`.
    pub fn new(settings: Settings, window: Arc<Window>, upstream: U, metrics: Metrics) -> Self {
        let (pool, memory, late) = (Pool::default(), Memory::default(), AtomicU64::new(0));
        Self { settings, window, upstream, metrics, pool, memory, late, peering: None }
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
        let mut turn =
            Turn::of(incoming.protocol, snappy::claimed(&incoming.body), self.settings.body_bytes_max);
        turn.begin().await;
        let mut buffers = self.pool.take();
        buffers.meter = self.metrics.cpu.meter();
        (buffers.turn, buffers.sent_bytes, buffers.passed_on) = (turn, 0, false);
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
        buffers.request.tallies.let_go();
        buffers.turn.give();
        self.pool.give_back(buffers);
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
            tenant: buffers.tenant.hash(tenant),
            retry: incoming.retry_attempt > 0,
            several: self.peering.is_some(),
            now_ms,
            begun,
            observed,
        };
        self.unpack(buffers, incoming, &bench)?;
        buffers.breathe(Stage::Decode).await;
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
        buffers.introduce(bench).await;
        buffers.judged.may_be_split = buffers.routes.may_be_split();
        self.metrics.read(size.compressed, size.raw);
        let mut outcome = Outcome::default();
        if let Some(answer) = bench.observed {
            outcome.note(answer, false);
        }
        let all = Part::whole(&buffers.request);
        let memory = self.memory.take(buffers.request.decoded_bytes());
        // Observed, it has been with upstream already.
        let mut next = match &memory {
            Err(full) if bench.observed.is_none() => {
                self.metrics.memory_hit.inc();
                outcome.unavailable(full.to_string());
                buffers.request.replace_fate(&all.units, Fate::Pending, Fate::Failed);
                None
            }
            _ => Some(all),
        };
        let mut parts = Vec::new();
        while let Some(part) = next {
            match self.fly(buffers, &part, incoming, bench, &mut outcome).await {
                Landing::Settled => {}
                Landing::Split(smaller) => {
                    self.note_split(&buffers.request);
                    parts.extend(smaller.into_iter().rev());
                }
                // What is newer of the same series must not overtake it.
                Landing::Failed => {
                    for part in parts.drain(..) {
                        buffers.request.replace_fate(&part.units, Fate::Pending, Fate::Failed);
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
        self.note_fronts(&mut buffers.request, works, bench);
        self.metrics.count(&buffers.request, size.compressed, &self.window);
        reply
    }

    /// Unpacks the body, as one of 1.0.
    fn unpack(&self, buffers: &mut Buffers, incoming: &Incoming, bench: &Bench<'_>) -> Result<(), Reply> {
        let Buffers { request, judged, meter, raw_bytes, .. } = buffers;
        let settings = bench.settings;
        judged.forget();
        request.label_ends.clear();
        if incoming.verbatim.as_ref().is_some_and(|verbatim| verbatim.unsupported) {
            return Err(Reply::new(415, "not remote write".to_owned()));
        }
        let max = settings.body_bytes_max;
        if incoming.protocol == Protocol::One {
            *raw_bytes = self.decompress(&incoming.body, max, &mut request.body, meter)?;
            return Ok(());
        }
        let keep = match settings.upstream_protocol {
            Protocol::One => Keep::Nothing,
            Protocol::Two => Keep::All,
        };
        two::with(|Two { raw, rewriter }| {
            *raw_bytes = self.decompress(&incoming.body, max, raw, meter)?;
            rewriter
                .rewrite(raw, keep, max, &mut request.body)
                .map_err(|malformed| self.malformed(&malformed))?;
            request.label_ends.extend_from_slice(rewriter.label_ends());
            Ok(())
        })
    }

    /// Returns how long it is, in bytes.
    fn decompress(
        &self,
        body: &[u8],
        max: usize,
        raw: &mut Vec<u8>,
        meter: &mut Meter,
    ) -> Result<usize, Reply> {
        let unpacked = snappy::decompress(body, max, raw);
        meter.end(Stage::Decompress);
        unpacked.map(|()| raw.len()).map_err(|unpack| match unpack {
            Unpack::TooBig { .. } => {
                self.metrics.body_hit.inc();
                Reply::new(413, unpack.to_string())
            }
            _ => Reply::new(400, unpack.to_string()),
        })
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
}

impl Buffers {
    /// Introduces the series that have been found to the window.
    async fn introduce(&mut self, bench: &Bench<'_>) {
        for piece in self.turn.pieces(0..self.request.items.len(), false) {
            self.breathe(Stage::Window).await;
            self.request.introduce_some(piece, bench);
        }
        self.request.introduced(bench);
    }

    /// Between two pieces of a large request others go on. The one before was of that stage.
    async fn breathe(&mut self, stage: Stage) {
        self.turn.breathe(&mut self.meter, stage).await;
    }

    /// What they keep from request to request, in bytes, but for what is little beside it.
    fn kept_bytes(&self) -> usize {
        self.request.kept_bytes() + self.log.kept_bytes()
    }

    /// From now on somebody is waited for, until [`Self::go_on`].
    fn rest(&mut self) {
        self.meter.pause();
        self.turn.give();
    }

    async fn go_on(&mut self) {
        self.turn.take().await;
        self.meter.resume();
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

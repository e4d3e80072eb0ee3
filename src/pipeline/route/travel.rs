//! A request that is not this instance's, or not all of it: asks whose its groups are, passes on what is another's, serves what
//! is its own, and answers for all of it.
//!
//! Nothing is reserved while somebody is asked. One hop at most: what has come by one goes no further. A part that was sent to the wrong
//! instance is routed once more, with what has been learned, and then has to be sent again by its sender.

use super::super::judge::Bench;
use super::super::{Buffers, Incoming, Pipeline, Reply, Size, Written};
use super::answers::Answers;
use super::parts::{Plan, Whole};
use super::{Found, NO_GROUP, Peering, Way};
use crate::forward::Upstream;
use crate::overhead::Stage;
use crate::peers::{Hop, Hopped, MISDIRECTED, Said};
use crate::placement::{Asking, Peer, Whose};
use crate::wire::{Protocol, snappy};
use bytes::Bytes;
use std::future::poll_fn;
use std::task::Poll;

/// How often the parts of a request are routed.
const ROUNDS_MAX: u32 = 2;
const MOVING: &str = "the group of the series is moving from one instance to another: send them again";
const ASTRAY: &str =
    "the instances do not agree on which of them serves the group of the series: send them again";

impl<U: Upstream> Pipeline<U> {
    /// The rest of the life of a request that does not simply stay here.
    pub(in crate::pipeline) async fn travel(
        &self,
        peering: &Peering,
        way: Way,
        buffers: &mut Buffers,
        incoming: &Incoming,
        bench: &Bench<'_>,
    ) -> Result<Reply, Reply> {
        if incoming.from_peer {
            return self.arrive(peering, buffers, incoming, bench).await;
        }
        let mut rounds = ROUNDS_MAX;
        if let Way::There(peer) = way {
            if let Some(reply) = self.pass_whole(peering, &peer, buffers, incoming).await {
                return Ok(reply);
            }
            for key in buffers.routes.numbers.keys() {
                peering.placement.misdirected(*key, &peer);
            }
            rounds -= 1;
            if let Way::Here = self.find_parts(peering, buffers, incoming, bench)? {
                return Ok(self.live_here(buffers, incoming, bench, Size::whole(buffers, incoming)).await);
            }
        }
        let mut left: Vec<u32> = (0..buffers.routes.groups.len() as u32).collect();
        loop {
            ask(peering, buffers, &left).await;
            let plan = Plan::of(&buffers.routes, &left);
            if plan.peers.is_empty() && !plan.moving {
                return self.stay(buffers, incoming, bench).await;
            }
            let alone = !plan.here && !plan.moving && !buffers.routes.of.contains(&NO_GROUP);
            let peer = match &plan.peers[..] {
                [peer] if alone => peer,
                _ => return Ok(self.part(peering, plan, rounds, buffers, incoming, bench).await),
            };
            if let Some(reply) = self.pass_whole(peering, peer, buffers, incoming).await {
                return Ok(reply);
            }
            astray(peering, &mut buffers.routes.groups, peer, &left);
            rounds -= 1;
            if rounds == 0 {
                return Ok(lost_their_way(std::slice::from_ref(peer)));
            }
            left = (0..buffers.routes.groups.len() as u32).collect();
        }
    }

    /// A request that another instance has passed on: it is served here, or by nobody.
    async fn arrive(
        &self,
        peering: &Peering,
        buffers: &mut Buffers,
        incoming: &Incoming,
        bench: &Bench<'_>,
    ) -> Result<Reply, Reply> {
        let mut left = Vec::new();
        for (number, group) in buffers.routes.groups.iter_mut().enumerate() {
            // What is known of it may be old: the other one has asked, and was told that it is here.
            if let Some(Whose::Theirs(peer)) = &group.whose {
                peering.placement.misdirected(group.key, peer);
            }
            if group.whose.take_if(|whose| !matches!(whose, Whose::Mine(_))).is_some()
                || group.whose.is_none()
            {
                left.push(number as u32);
            }
        }
        ask(peering, buffers, &left).await;
        for group in &buffers.routes.groups {
            match &group.whose {
                Some(Whose::Theirs(_)) => {
                    let name = group.id.as_ref().map_or("", |id| &id.name);
                    return Ok(Reply::new(MISDIRECTED, format!("group {name} is not this instance's")));
                }
                Some(Whose::Moving) => return Ok(Reply::new(503, MOVING.to_owned())),
                Some(Whose::Mine(_)) | None => {}
            }
        }
        self.stay(buffers, incoming, bench).await
    }

    /// All of it is served here, as has turned out.
    async fn stay(
        &self,
        buffers: &mut Buffers,
        incoming: &Incoming,
        bench: &Bench<'_>,
    ) -> Result<Reply, Reply> {
        buffers.routes.stay();
        // Somebody was asked, and the window has lived on.
        self.find(buffers, bench)?;
        Ok(self.live_here(buffers, incoming, bench, Size::whole(buffers, incoming)).await)
    }

    /// Passes a request on as it came. `None`: it was sent to the wrong instance.
    async fn pass_whole(
        &self,
        peering: &Peering,
        peer: &Peer,
        buffers: &mut Buffers,
        incoming: &Incoming,
    ) -> Option<Reply> {
        buffers.passed_on = true;
        buffers.sent_bytes += incoming.body.len() as u64;
        buffers.rest();
        let reply = pass(peering, peer, hop(incoming.body.clone(), incoming.protocol, incoming)).await;
        match &reply {
            // Nothing is left to do, so no turn is waited for.
            Some(_) => buffers.meter.resume(),
            None => buffers.go_on().await,
        }
        buffers.passed_on = reply.is_some();
        reply
    }

    /// Serves what is here and passes on the rest, at the same time.
    async fn part(
        &self,
        peering: &Peering,
        mut plan: Plan,
        mut rounds: u32,
        buffers: &mut Buffers,
        incoming: &Incoming,
        bench: &Bench<'_>,
    ) -> Reply {
        buffers.passed_on = true;
        let mut answers = Answers::default();
        let size = Size::whole(buffers, incoming);
        let _memory = match self.memory.take(buffers.request.bytes()) {
            Ok(memory) => memory,
            Err(full) => {
                self.metrics.memory_hit.inc();
                return Reply::new(503, full.to_string());
            }
        };
        let whole = Whole::take(buffers);
        let mut first = true;
        loop {
            if plan.moving {
                answers.add(Reply::new(503, MOVING.to_owned()));
            }
            let (here, there) = whole.parts(&plan, first);
            first = false;
            buffers.meter.end(Stage::Encode);
            let mut hops: Vec<Asking<'_, Option<Reply>>> = Vec::new();
            for (peer, part) in plan.peers.iter().zip(&there) {
                let mut packed = Vec::new();
                if let Err(error) = snappy::compress(part, &mut packed) {
                    answers.add(Reply::new(503, format!("a part could not be packed: {error}")));
                    hops.push(Box::pin(async { Some(Reply::new(204, String::new())) }));
                    continue;
                }
                buffers.sent_bytes += packed.len() as u64;
                // What was of 2.0 has been rewritten: an instance says what it has written of 1.0, too.
                hops.push(Box::pin(pass(peering, peer, hop(packed.into(), Protocol::One, incoming))));
            }
            buffers.meter.end(Stage::Compress);
            let own = self.live_part(here, &size, whole.body.len(), buffers, incoming, bench);
            let (own, said) = tokio::join!(own, all(hops));
            if own.is_none() {
                buffers.meter.resume();
            }
            own.into_iter().for_each(|reply| answers.add(reply));
            let mut left = Vec::new();
            for (number, said) in said.into_iter().enumerate() {
                match said {
                    Some(reply) => answers.add(reply),
                    None => {
                        let own = plan.groups_of(number);
                        astray(peering, &mut buffers.routes.groups, &plan.peers[number], &own);
                        left.extend(own);
                    }
                }
            }
            rounds -= 1;
            if left.is_empty() {
                return answers.reply();
            }
            if rounds == 0 {
                answers.add(lost_their_way(&plan.peers));
                return answers.reply();
            }
            ask(peering, buffers, &left).await;
            plan = Plan::of(&buffers.routes, &left);
        }
    }

    /// Serves the part that is here, if there is one. `whole`: of a body of so many bytes.
    async fn live_part(
        &self,
        here: Option<Vec<u8>>,
        size: &Size,
        whole: usize,
        buffers: &mut Buffers,
        incoming: &Incoming,
        bench: &Bench<'_>,
    ) -> Option<Reply> {
        let Some(here) = here else {
            buffers.request.clear();
            buffers.rest();
            return None;
        };
        let size = size.part(here.len(), whole);
        // Where labels end was known of the whole.
        buffers.request.label_ends.clear();
        buffers.request.body = here;
        buffers.routes.stay();
        let reply = match self.find(buffers, bench) {
            Ok(()) => self.live_here(buffers, incoming, bench, size).await,
            Err(reply) => reply,
        };
        // The other parts may take longer.
        buffers.turn.give();
        if matches!(reply.status, 400 | 413) {
            self.note_refusal(&reply, Some(&buffers.request));
        }
        Some(reply)
    }
}

/// Asks for the groups of which nobody knows here whose they are, all at once.
async fn ask(peering: &Peering, buffers: &mut Buffers, left: &[u32]) {
    let groups = &buffers.routes.groups;
    let unknown: Vec<u32> =
        left.iter().copied().filter(|number| groups[*number as usize].whose.is_none()).collect();
    if unknown.is_empty() {
        return;
    }
    buffers.rest();
    let groups = &mut buffers.routes.groups;
    let asking = unknown.iter().map(|number| -> Asking<'_, Whose> {
        match &groups[*number as usize].id {
            Some(id) => peering.placement.ask(id),
            // Its labels are such that it cannot be named.
            None => Box::pin(async { Whose::Moving }),
        }
    });
    let answers = all(asking.collect()).await;
    for (number, whose) in unknown.iter().zip(answers) {
        groups[*number as usize].whose = Some(whose);
    }
    buffers.go_on().await;
}

/// These groups are not where they were thought to be.
fn astray(peering: &Peering, groups: &mut [Found], peer: &Peer, numbers: &[u32]) {
    for number in numbers {
        let group = &mut groups[*number as usize];
        peering.placement.misdirected(group.key, peer);
        group.whose = None;
    }
}

fn hop(body: Bytes, protocol: Protocol, incoming: &Incoming) -> Hop {
    Hop {
        body,
        protocol,
        tenant: incoming.tenant.clone(),
        retry_attempt: incoming.retry_attempt,
        request_id: incoming.request_id.clone(),
        traceparent: incoming.traceparent.clone(),
    }
}

/// Instances each think that another one serves a group. `peers`: the last that were asked.
fn lost_their_way(peers: &[Peer]) -> Reply {
    let peers: Vec<_> = peers.iter().map(|peer| &*peer.url).collect();
    tracing::warn!(
        ?peers,
        "an instance does not serve the groups that the database says it does: is its \
        PROMDEDUP_ADVERTISE_URL its own?"
    );
    // Another instance may know better.
    Reply { elsewhere: true, ..Reply::new(503, ASTRAY.to_owned()) }
}

/// Makes one hop. `None`: it went to the wrong instance.
async fn pass(peering: &Peering, peer: &Peer, hop: Hop) -> Option<Reply> {
    let hopped = peering.peers.pass(peer, hop).await;
    peering.placement.hopped(peer, !matches!(hopped, Hopped::Unreached { .. }));
    match hopped {
        Hopped::Answered(Said { status, text, retry_after_s, written }) => {
            let [samples, histograms, exemplars] = written;
            let reply = Reply::new(status, text);
            let retry_after_s = retry_after_s.or(reply.retry_after_s);
            Some(Reply { retry_after_s, written: Written { samples, histograms, exemplars }, ..reply })
        }
        Hopped::Misdirected => None,
        Hopped::Refused { status, text } => {
            tracing::warn!(peer = %peer.url, status, text, "another instance does not take what is passed on to it: do \
                PROMDEDUP_PEER_TOKEN_FILE and PROMDEDUP_ADVERTISE_URL fit?");
            let text = format!("the instance that serves the group answered {status}");
            Some(Reply { elsewhere: true, ..Reply::new(503, text) })
        }
        Hopped::Unreached { error } => {
            tracing::debug!(peer = %peer.url, error, "another instance was not reached");
            let text = format!("the instance that serves the group did not answer: {error}");
            // Another instance may reach it.
            Some(Reply { elsewhere: true, ..Reply::new(503, text) })
        }
    }
}

/// Waits for all of them.
async fn all<T>(mut futures: Vec<Asking<'_, T>>) -> Vec<T> {
    let mut done: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    poll_fn(|context| {
        let mut all = true;
        for (future, done) in futures.iter_mut().zip(&mut done) {
            if done.is_none() {
                match future.as_mut().poll(context) {
                    Poll::Ready(value) => *done = Some(value),
                    Poll::Pending => all = false,
                }
            }
        }
        if all { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}

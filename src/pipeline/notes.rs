//! What is noted of a request at its end, beside its counters: how far its replicas are, what was refused, and by what its CPU time is
//! split. Changes nothing of its answer.

use super::judge::Bench;
use super::request::Request;
use super::{Buffers, Incoming, Pipeline, Reply};
use crate::overhead::Shares;
use crate::policy::TimestampMs;
use crate::telemetry::Refusal;
use crate::window::Seen;

impl<U> Pipeline<U> {
    /// Notes what a sender is told that need not come again. `request`: if it could be read.
    pub(super) fn note_refusal(&self, reply: &Reply, request: Option<&Request>) {
        let tally = request.and_then(|request| request.tallies.iter().next());
        let group = tally.and_then(|tally| self.window.groups().group(tally.group));
        let replica = group.as_ref().zip(tally).and_then(|(group, tally)| group.replica(tally.replica?));
        self.metrics.refusals.note(Refusal {
            group: group.map(|group| group.name().to_owned()).unwrap_or_default(),
            replica: replica.map(|replica| replica.name().to_owned()).unwrap_or_default(),
            status: reply.status,
            text: reply.text.clone(),
        });
    }

    /// Notes that upstream wants the request in pieces, which takes its time.
    pub(super) fn note_split(&self, request: &Request) {
        for tally in request.tallies.iter() {
            if let (Some(replica), Some(group)) = (tally.replica, self.window.groups().group(tally.group)) {
                group.split_request(replica, request.identity);
            }
        }
    }

    /// Notes how far each replica of the request has come: in time, and in being rid of what it has.
    pub(super) fn note_fronts(&self, request: &mut Request, works: bool, bench: &Bench<'_>) {
        let now_ms = bench.later_ms();
        for tally in request.tallies.iter() {
            let Some(replica) = tally.replica else { continue };
            let Some(group) = self.window.groups().group(tally.group) else { continue };
            group.meet(bench.now_ms);
            let Some(newest) = tally.newest_ms else {
                group.leave_request(replica, request.identity);
                continue;
            };
            let Some(known) = group.replica(replica) else { continue };
            known.see(newest, bench.now_ms);
            // What has no replica is nobody's backlog.
            if self.settings.first_contact_hold_ms > 0 && !known.name().is_empty() {
                let seen = Seen {
                    request: request.identity,
                    newest: TimestampMs(newest),
                    unsettled: tally.unsettled_ms.map(TimestampMs),
                    works,
                };
                group.end_request(replica, seen, now_ms);
            }
        }
        request.tallies.end();
    }
}

/// By what a request's CPU time is split. What cannot be read has no samples.
pub(super) fn shares(buffers: &Buffers, incoming: &Incoming, read: bool) -> Shares {
    let tallies = buffers.request.tallies.iter().filter(|_| read);
    let (samples, duplicates) = tallies
        .fold((0, 0), |(all, duplicates), tally| (all + tally.samples(), duplicates + tally.duplicate));
    let (relayed, received_bytes) = (incoming.verbatim.is_some(), incoming.body.len() as u64);
    let sent_bytes = if relayed { received_bytes } else { buffers.sent_bytes };
    Shares { samples, duplicates, received_bytes, sent_bytes, relayed }
}

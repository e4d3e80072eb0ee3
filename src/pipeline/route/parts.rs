//! A request that falls apart: which of its groups go where, and a body for each place, spliced from the received bytes.
//!
//! Refuses to send them.

use super::super::Buffers;
use super::{NO_GROUP, Routes};
use crate::placement::{Peer, Whose};
use crate::wire::v1::TimeSeries;
use crate::wire::{Span, splice};

/// Where a group's series go this time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goes {
    /// They have been answered for.
    Nowhere,
    Here,
    /// To one of the plan's peers.
    There(usize),
}

/// Where everything goes that is not answered for yet.
#[derive(Debug)]
pub(super) struct Plan {
    /// By group.
    goes: Vec<Goes>,
    pub(super) peers: Vec<Peer>,
    pub(super) here: bool,
    pub(super) moving: bool,
}

/// A request that falls apart.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) body: Vec<u8>,
    payloads: Vec<Span>,
    /// By item, as in [`Routes`].
    of: Vec<u32>,
    /// Metadata, and fields that nobody knows. They go with one of the parts, once.
    others: Vec<Span>,
}

impl Plan {
    pub(super) fn of(routes: &Routes, left: &[u32]) -> Self {
        let goes = vec![Goes::Nowhere; routes.groups.len()];
        let mut plan = Self { goes, peers: Vec::new(), here: false, moving: false };
        for number in left {
            plan.goes[*number as usize] = match &routes.groups[*number as usize].whose {
                Some(Whose::Mine(_)) => {
                    plan.here = true;
                    Goes::Here
                }
                Some(Whose::Theirs(peer)) => {
                    let known = plan.peers.iter().position(|known| known.id == peer.id);
                    Goes::There(known.unwrap_or_else(|| {
                        plan.peers.push(peer.clone());
                        plan.peers.len() - 1
                    }))
                }
                Some(Whose::Moving) | None => {
                    plan.moving = true;
                    Goes::Nowhere
                }
            };
        }
        plan
    }

    /// The groups that go to one of its peers.
    pub(super) fn groups_of(&self, peer: usize) -> Vec<u32> {
        let goes = self.goes.iter().enumerate().filter(|(_, goes)| **goes == Goes::There(peer));
        goes.map(|(number, _)| number as u32).collect()
    }
}

impl Whole {
    pub(super) fn take(buffers: &mut Buffers) -> Self {
        let Buffers { request, routes, .. } = buffers;
        let others = [&request.metadata[..], &request.unknown].concat();
        Self {
            body: std::mem::take(&mut request.body),
            payloads: request.items.iter().map(|item| item.series.payload).collect(),
            of: std::mem::take(&mut routes.of),
            others,
        }
    }

    /// What is here, if anything, and what goes to each peer of the plan: whole series, in the sender's order. `first`: with what
    /// belongs to no group.
    pub(super) fn parts(&self, plan: &Plan, first: bool) -> (Option<Vec<u8>>, Vec<Vec<u8>>) {
        let (mut here, mut there) = (Vec::new(), vec![Vec::new(); plan.peers.len()]);
        for (payload, group) in self.payloads.iter().zip(&self.of) {
            let part = match *group {
                NO_GROUP if first => &mut here,
                NO_GROUP => continue,
                group => match plan.goes[group as usize] {
                    Goes::Nowhere => continue,
                    Goes::Here => &mut here,
                    Goes::There(peer) => &mut there[peer],
                },
            };
            let series = TimeSeries { payload: *payload, ..TimeSeries::default() };
            splice::whole(&self.body, &series, splice::Labels::Received, part);
        }
        if first {
            let with = match there.first_mut() {
                Some(first) if here.is_empty() => first,
                _ => &mut here,
            };
            self.others.iter().for_each(|field| splice::field(&self.body, *field, with));
        }
        ((!here.is_empty()).then_some(here), there)
    }
}

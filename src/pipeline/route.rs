//! Whose a request is: its groups, found before anything of it is introduced to the window, and the instances that serve them.
//!
//! Owns the way from a body to its distinct groups. What the window knows has its group there; of the rest only the group labels are
//! looked at. If the first series is another instance's, the whole body is looked through for these before keys are made: mostly
//! all of it is, and then that is all that has to be known. Refuses to wait and to send: that is `travel`'s.

mod answers;
mod parts;
mod travel;

use super::judge::Bench;
use super::request::Request;
use super::{Buffers, Incoming, Pipeline, Reply};
use crate::forward::Upstream;
use crate::overhead::Stage;
use crate::peers::Peers;
use crate::placement::{GroupId, Peer, Placement, Stay, Whose};
use crate::series::{GroupKey, TenantHash};
use crate::window::{Group, UNKNOWN};
use crate::wire::Span;
use crate::wire::values::{Wanted, payloads};
use http::HeaderValue;
use std::collections::HashMap;
use std::sync::Arc;

/// The group of a series whose labels are invalid: it is refused here, whoever has the group.
const NO_GROUP: u32 = u32::MAX;

/// Who has which group, and the way there.
#[derive(Debug)]
pub(super) struct Peering {
    placement: Arc<dyn Placement>,
    pub(super) peers: Arc<dyn Peers>,
    wanted: Wanted,
}

/// Where a request is served.
#[derive(Debug)]
pub(super) enum Way {
    /// All of it here. Its groups stay until it is answered.
    Here,
    /// All of it there; nothing else is known of it.
    There(Peer),
    /// Somebody has to be asked, or it falls apart.
    Parts,
}

/// The groups of a request, and the memory for them.
#[derive(Debug, Default)]
pub(super) struct Routes {
    groups: Vec<Found>,
    numbers: HashMap<GroupKey, u32>,
    /// By item: its group among those, or [`NO_GROUP`].
    of: Vec<u32>,
    /// What is served here.
    stays: Vec<Stay>,
    values: Vec<Span>,
    last: Vec<Span>,
    delimited: Vec<u8>,
}

/// A group of a request.
#[derive(Debug)]
struct Found {
    key: GroupKey,
    samples: u64,
    /// `None`: to be asked for, or served already.
    whose: Option<Whose>,
    /// Of one that is not surely ours.
    id: Option<GroupId>,
}

impl Peering {
    pub(super) fn new(placement: Arc<dyn Placement>, peers: Arc<dyn Peers>, group_labels: &[String]) -> Self {
        Self { placement, peers, wanted: Wanted::new(group_labels.to_vec()) }
    }
}

impl<U: Upstream> Pipeline<U> {
    /// Finds series and groups of a body that has been unpacked.
    pub(super) fn find_way(
        &self,
        peering: &Peering,
        buffers: &mut Buffers,
        incoming: &Incoming,
        bench: &Bench<'_>,
    ) -> Result<Way, Reply> {
        let Buffers { request, routes, meter, .. } = buffers;
        routes.forget();
        if !incoming.from_peer
            && let Some(peer) = routes.scout(&request.body, peering, bench.tenant)
        {
            request.clear();
            meter.end(Stage::Decode);
            return Ok(Way::There(peer));
        }
        self.find_parts(peering, buffers, incoming, bench)
    }

    fn find_parts(
        &self,
        peering: &Peering,
        buffers: &mut Buffers,
        incoming: &Incoming,
        bench: &Bench<'_>,
    ) -> Result<Way, Reply> {
        self.find(buffers, bench)?;
        let Buffers { request, routes, meter, .. } = buffers;
        routes.find(request, peering, incoming.tenant.as_ref(), bench);
        let here = routes.are_all_here();
        if here {
            routes.stay();
        }
        meter.end(Stage::Window);
        Ok(if here { Way::Here } else { Way::Parts })
    }
}

impl Routes {
    /// Nothing of the request before is left; its memory is. Its groups may go.
    pub(super) fn forget(&mut self) {
        self.groups.clear();
        self.numbers.clear();
        self.of.clear();
        self.stays.clear();
        self.last.clear();
    }

    /// The instance that has all groups of a body; `None` says nothing of it.
    fn scout(&mut self, body: &[u8], peering: &Peering, tenant: TenantHash) -> Option<Peer> {
        let mut there: Option<Peer> = None;
        for payload in payloads(body) {
            peering.wanted.find(body, payload.ok()?, &mut self.values).ok()?.ok()?;
            if there.is_some() && self.is_as_last(body) {
                continue;
            }
            let key = self.key(body, tenant);
            if self.numbers.insert(key, 0).is_some() {
                continue;
            }
            match peering.placement.known(key)? {
                Whose::Theirs(peer) if there.as_ref().is_none_or(|there| there.id == peer.id) => {
                    there = Some(peer);
                }
                _ => return None,
            }
        }
        there
    }

    /// Finds the groups of a request whose series have been found.
    fn find(
        &mut self,
        request: &mut Request,
        peering: &Peering,
        tenant: Option<&HeaderValue>,
        bench: &Bench<'_>,
    ) {
        self.forget();
        let tenant = tenant.map_or(&b""[..], HeaderValue::as_bytes);
        let (mut last_known, mut last_unknown) = ((None, NO_GROUP), NO_GROUP);
        for i in 0..request.items.len() {
            let (found, payload) = (request.found[i], request.items[i].series.payload);
            let known = if found.number == UNKNOWN {
                None
            } else if last_known.0.as_ref().is_some_and(|group: &Arc<Group>| {
                group.number() == bench.window.group_of_target(found.target)
            }) {
                Some(last_known.1)
            } else {
                // One that is forgotten in this moment is asked by its labels, as if it never had been known.
                bench.window.hold_group_of(found.number, request.keys[i]).map(|known| {
                    let name = || Some(known.name().to_owned());
                    let place = self.number(known.key(), peering, tenant, name);
                    last_known = (Some(known), place);
                    place
                })
            };
            let group = known.unwrap_or_else(|| {
                match peering.wanted.find(&request.body, payload, &mut self.values) {
                    Ok(Ok(())) if last_unknown != NO_GROUP && self.is_as_last(&request.body) => {}
                    Ok(Ok(())) => {
                        let key = self.key(&request.body, bench.tenant);
                        let name = || Some(request.place(i, bench.settings, bench.tenant)?.group_name);
                        last_unknown = self.number(key, peering, tenant, name);
                    }
                    Ok(Err(_)) | Err(_) => last_unknown = NO_GROUP,
                }
                last_unknown
            });
            self.of.push(group);
            if group != NO_GROUP {
                self.groups[group as usize].samples += u64::from(request.items[i].series.samples);
            }
        }
    }

    /// The place of a group, made if need be. `name`: `None` if its labels are such that no series may have; a group that nobody
    /// knows is not asked for because of them.
    fn number(
        &mut self,
        key: GroupKey,
        peering: &Peering,
        tenant: &[u8],
        name: impl FnOnce() -> Option<String>,
    ) -> u32 {
        if let Some(number) = self.numbers.get(&key) {
            return *number;
        }
        let whose = peering.placement.known(key);
        let id = match whose {
            Some(Whose::Mine(_)) => None,
            Some(Whose::Theirs(_) | Whose::Moving) | None => name().map(|name| {
                let tenant = String::from_utf8_lossy(tenant).into_owned();
                GroupId { key, tenant, name }
            }),
        };
        if whose.is_none() && id.is_none() {
            return NO_GROUP;
        }
        let number = self.groups.len() as u32;
        self.groups.push(Found { key, samples: 0, whose, id });
        self.numbers.insert(key, number);
        number
    }

    /// Whether the values are those of the series before.
    fn is_as_last(&self, body: &[u8]) -> bool {
        self.values.iter().zip(&self.last).all(|(value, last)| value.of(body) == last.of(body))
    }

    /// The group of the values, which are the last ones from now on.
    fn key(&mut self, body: &[u8], tenant: TenantHash) -> GroupKey {
        let values = self.values.iter().map(|value| value.of(body));
        let key = GroupKey::of(values, tenant, &mut self.delimited);
        std::mem::swap(&mut self.values, &mut self.last);
        key
    }

    /// Whether another instance may be serving one of its groups, too.
    pub(super) fn may_be_split(&self) -> bool {
        self.stays.iter().any(Stay::may_be_split)
    }

    fn are_all_here(&self) -> bool {
        self.groups.iter().all(|group| matches!(group.whose, Some(Whose::Mine(_))))
    }

    /// What is here stays until the request is answered.
    fn stay(&mut self) {
        for group in &mut self.groups {
            if let Some(Whose::Mine(stay)) = group.whose.take_if(|whose| matches!(whose, Whose::Mine(_))) {
                stay.brought(group.samples);
                self.stays.push(stay);
            }
        }
    }
}

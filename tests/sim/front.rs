//! What senders connect to: the proxy, or a load balancer that knows nothing of groups before several instances of it.
//!
//! Owns the list of the instances, and a record of which of them served which group, and when. Refuses to hold anything against it.

use crate::history::{CLUSTER, prometheus_of};
use crate::peers::Seat;
use crate::proxy::Proxy;
use crate::upstream::Thanos;
use crate::world::World;
use bytes::Bytes;
use http_body_util::BodyExt;
use promdedup::placement::{Placement, Whose};
use promdedup::series::{GroupKey, TenantHash};
use promdedup::stand_in::coordination::{Snapshot, Tables};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The database's clock is that much ahead of the story's.
const DATABASE_AHEAD: Duration = Duration::from_secs(3_000);

/// Instances begin so long after each other.
const APART_MS: i64 = 137;

#[derive(Debug)]
pub(crate) struct Front {
    world: Arc<World>,
    thanos: Arc<Thanos>,
    pub(crate) instances: Vec<Arc<Proxy>>,
    tables: Option<Tables>,
    copy: Mutex<Option<Snapshot>>,
    next: AtomicUsize,
    served: Mutex<Vec<Served>>,
}

/// What a sender hears.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    pub(crate) status: u16,
    /// How long to wait.
    pub(crate) after_ms: Option<i64>,
    pub(crate) text: String,
    /// The instance that was connected to.
    pub(crate) by: usize,
}

/// Who served a group, and who was thought to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Served {
    /// Since when which instances: a set of bits.
    pub(crate) by: Vec<(i64, u32)>,
    /// Since when the instances disagree or not.
    pub(crate) disagree: Vec<(i64, bool)>,
}

impl Front {
    /// All that are there from the beginning, running.
    pub(crate) fn start(world: &Arc<World>, thanos: &Arc<Thanos>) -> Arc<Self> {
        let clock = Arc::clone(world);
        let tables = world.story.fleet.as_ref().map(|_| {
            Tables::new(move || DATABASE_AHEAD + Duration::from_millis(clock.now_ms().unsigned_abs()))
        });
        let front = Arc::new_cyclic(|front| {
            let seat = |number| {
                let (tables, front) = (tables.clone()?, front.clone());
                Some(Seat { number, tables, front })
            };
            let count = world.story.fleet.as_ref().map_or(1, |fleet| fleet.ahead_ms.len());
            let instances = (0..count).map(|number| Arc::new(Proxy::new(world, thanos, seat(number))));
            Self {
                world: Arc::clone(world),
                thanos: Arc::clone(thanos),
                instances: instances.collect(),
                tables: tables.clone(),
                copy: Mutex::default(),
                next: AtomicUsize::new(0),
                served: Mutex::new(vec![Served::default(); world.story.groups()]),
            }
        });
        let there =
            front.instances.iter().enumerate().filter(|(number, _)| !world.story.comes_later(*number));
        for (number, instance) in there {
            if number == 0 {
                instance.begin();
                continue;
            }
            let (world, instance) = (Arc::clone(world), Arc::clone(instance));
            // Not in step with each other.
            let begin = async move {
                world.until(APART_MS * number as i64).await;
                instance.begin();
            };
            drop(tokio::spawn(begin));
        }
        front
    }

    /// A request as a sender makes it, to the instance whose turn it is. `None`: the connection is refused or breaks.
    pub(crate) async fn call(&self, body: Bytes, attempt: u32) -> Option<Heard> {
        let open: Vec<usize> =
            (0..self.instances.len()).filter(|number| self.instances[*number].accepts()).collect();
        let by_chance = self.world.story.fleet.as_ref().is_some_and(|fleet| fleet.by_chance);
        let turn = match by_chance {
            true => self.world.state().dice.below(open.len()),
            false => self.next.fetch_add(1, Relaxed) % open.len().max(1),
        };
        let by = *open.get(turn)?;
        let response = self.instances[by].call(body, attempt, &[]).await?;
        let (head, body) = response.into_parts();
        let after = head.headers.get("retry-after");
        let after_ms = after.and_then(|s| Some(s.to_str().ok()?.parse::<i64>().ok()? * 1000));
        let text = body.collect().await.ok()?.to_bytes();
        let text = String::from_utf8_lossy(&text).trim_end().to_owned();
        Some(Heard { status: head.status.as_u16(), after_ms, text, by })
    }

    /// The newest sample of a series that upstream has, and whether whoever serves it now has seen little of it.
    pub(crate) fn newest_upstream_ms(&self, series: usize) -> (bool, Option<i64>) {
        let begun_ms = match self.tables {
            None => self.instances[0].begun_ms(),
            Some(_) => {
                let group = self.world.history().series[series].group;
                self.served.lock().unwrap()[group].by.last().map_or(0, |(since_ms, _)| *since_ms)
            }
        };
        (self.is_young(series, begun_ms), self.thanos.newest_ms(series))
    }

    /// Whether few samples of a series are stored that are not older than that.
    pub(crate) fn is_young(&self, series: usize, since_ms: i64) -> bool {
        self.thanos.stored_since(series, since_ms) < 4
    }

    /// Looks at who serves what at the moment.
    pub(crate) fn look(&self) {
        if self.tables.is_none() {
            return;
        }
        let now_ms = self.world.now_ms();
        let keepers: Vec<_> = self.instances.iter().map(|instance| instance.keeper()).collect();
        let mut served = self.served.lock().unwrap();
        for (group, served) in served.iter_mut().enumerate() {
            let known: Vec<_> = keepers.iter().map(|keeper| keeper.as_ref()?.known(key_of(group))).collect();
            let mine = |number: usize| matches!(known[number], Some(Whose::Mine(_)));
            let by = (0..known.len()).filter(|number| mine(*number)).fold(0, |by, number| by | 1 << number);
            let is = |owner: &str| keepers.iter().flatten().any(|keeper| *keeper.me().id == *owner);
            let astray = known.iter().any(|whose| match whose {
                Some(Whose::Theirs(peer)) => !is(&peer.id),
                _ => false,
            });
            let disagree = astray || u32::count_ones(by) > 1;
            if served.by.last().map_or(0, |(_, by)| *by) != by {
                let all: Vec<usize> = (0..known.len()).filter(|number| by >> number & 1 == 1).collect();
                self.world
                    .history()
                    .tell_group(group, now_ms, || format!("group {group} is served by {all:?}"));
                served.by.push((now_ms, by));
            }
            if served.disagree.last().is_some_and(|(_, disagree)| *disagree) != disagree {
                served.disagree.push((now_ms, disagree));
            }
        }
    }

    pub(crate) fn served(&self) -> Vec<Served> {
        self.served.lock().unwrap().clone()
    }

    /// Whether the owner that the database has of each group is an instance that lives; a group that has none is nobody's.
    pub(crate) fn orphans(&self) -> usize {
        let Some(tables) = &self.tables else { return 0 };
        let alive: Vec<_> =
            self.instances.iter().filter_map(|instance| Some(instance.keeper()?.me().id.clone())).collect();
        let orphan =
            |group: &usize| tables.owner(key_of(*group)).is_some_and(|(owner, _)| !alive.contains(&owner));
        (0..self.world.story.groups()).filter(orphan).count()
    }

    /// The database loses everything.
    pub(crate) fn forget(&self) {
        self.tables.iter().for_each(Tables::forget);
    }

    /// Another server of the database has what this one has now, and nothing from now on.
    pub(crate) fn copy(&self) {
        *self.copy.lock().unwrap() = self.tables.as_ref().map(Tables::copy);
    }

    /// The database is that other server.
    pub(crate) fn fall_back(&self) {
        if let Some((tables, copy)) = self.tables.as_ref().zip(self.copy.lock().unwrap().take()) {
            tables.fall_back(copy);
        }
    }

    /// Requests in all pipelines, and the most series in a window.
    pub(crate) fn standing(&self) -> (usize, usize) {
        let each = self.instances.iter().map(|instance| instance.standing());
        each.fold((0, 0), |(open, series), (more, here)| (open + more, series.max(here)))
    }

    /// The counters of all lives of all instances: `name{labels}`.
    pub(crate) fn counted(&self) -> BTreeMap<String, u64> {
        let mut counted = BTreeMap::new();
        for (name, count) in self.instances.iter().flat_map(|instance| instance.counted()) {
            *counted.entry(name).or_default() += count;
        }
        counted
    }
}

fn key_of(group: usize) -> GroupKey {
    let prometheus = prometheus_of(group);
    GroupKey::of([CLUSTER.as_bytes(), prometheus.as_bytes()].into_iter(), TenantHash::of(""), &mut vec![])
}

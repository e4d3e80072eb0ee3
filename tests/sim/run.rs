//! Plays a story from its beginning until all queues are empty.

use crate::front::{Front, Served};
use crate::replica::Replica;
use crate::story::{Mishap, Story, What};
use crate::upstream::Thanos;
use crate::world::{Rest, World};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tokio::runtime::Builder;

/// How long the queues have to become empty once nothing is wrong and nothing is scraped any more.
const DRAIN_MS: i64 = 20 * 60 * 1000;

/// What is left when a story is over.
pub(crate) struct Played {
    pub(crate) world: Arc<World>,
    /// By group, with several instances.
    pub(crate) served: Vec<Served>,
    /// Groups that the database has with an instance that is gone.
    pub(crate) orphans: usize,
    pub(crate) thanos: Arc<Thanos>,
    /// The proxy's counters, over all its lives.
    pub(crate) counted: BTreeMap<String, u64>,
    /// Samples that no replica got rid of.
    pub(crate) undelivered: usize,
    /// Requests that the proxy did not answer.
    pub(crate) unanswered: usize,
    /// The most series that the window had.
    pub(crate) series_seen: usize,
}

/// Plays it. `told`: the series whose story is written down.
pub(crate) fn play(story: &Story, told: Option<usize>) -> Played {
    let rest = Arc::new(Rest::default());
    let (parks, goes_on) = (Arc::clone(&rest), Arc::clone(&rest));
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .on_thread_park(move || parks.set(true))
        .on_thread_unpark(move || goes_on.set(false))
        .build()
        .unwrap();
    let played = runtime.block_on(whole(story.clone(), told, Arc::clone(&rest)));
    rest.set(true);
    runtime.shutdown_background();
    played
}

async fn whole(story: Story, told: Option<usize>, rest: Arc<Rest>) -> Played {
    let world = Arc::new(World::new(story, told, rest));
    let thanos = Arc::new(Thanos::new(Arc::clone(&world)));
    let front = Front::start(&world, &thanos);
    let replicas: Vec<Arc<Replica>> =
        (0..world.story.replicas.len()).map(|number| Replica::new(number, &world, &front)).collect();
    replicas.iter().for_each(|replica| replica.begin(false));
    let series_seen = Arc::new(AtomicUsize::new(0));
    let watch = tokio::spawn({
        let (world, front, series_seen) = (Arc::clone(&world), Arc::clone(&front), Arc::clone(&series_seen));
        async move {
            loop {
                series_seen.fetch_max(front.standing().1, Relaxed);
                front.look();
                world.pause(if world.story.fleet.is_some() { 100 } else { 1_000 }).await;
            }
        }
    });
    direct(&world, &front, &replicas).await;
    world.until(world.story.span_ms).await;
    let left = || replicas.iter().map(|replica| replica.queue.lock().unwrap().len()).sum::<usize>();
    while left() > 0 && world.now_ms() < world.story.span_ms + DRAIN_MS {
        world.pause(500).await;
    }
    world.pause(60_000).await;
    let undelivered = left();
    let unanswered = front.standing().0;
    watch.abort();
    let (counted, served, orphans) = (front.counted(), front.served(), front.orphans());
    Played {
        world,
        served,
        orphans,
        thanos,
        counted,
        undelivered,
        unanswered,
        series_seen: series_seen.load(Relaxed),
    }
}

/// Lets the faults begin and end.
async fn direct(world: &Arc<World>, front: &Arc<Front>, replicas: &[Arc<Replica>]) {
    let mut scenes = vec![];
    for fault in &world.story.faults {
        scenes.push((fault.at_ms, true, *fault));
        scenes.push((fault.at_ms + fault.for_ms, false, *fault));
    }
    scenes.sort_by_key(|(at_ms, begins, _)| (*at_ms, *begins));
    for (at_ms, begins, fault) in scenes {
        world.until(at_ms).await;
        world
            .history()
            .tell_all(at_ms, || format!("{} {:?}", if begins { "*" } else { "* no more" }, fault.what));
        world.change(&fault, begins);
        match (fault.what, begins) {
            (What::Death { replica, .. }, true) => replicas[replica].kill(),
            (What::Death { replica, moved }, false) => replicas[replica].begin(moved),
            (What::Reshard { replica, shards }, true) => {
                let replica = Arc::clone(&replicas[replica]);
                tokio::spawn(async move { replica.reshard(shards).await });
            }
            (What::ProxyCrash, begins) => process(front, Mishap::Crash { instance: 0 }, begins),
            (What::ProxyTerm, begins) => process(front, Mishap::Ends { instance: 0 }, begins),
            (What::Fleet(mishap), begins) => process(front, mishap, begins),
            _ => {}
        }
    }
}

/// What happens to instances.
fn process(front: &Arc<Front>, mishap: Mishap, begins: bool) {
    match (mishap, begins) {
        (Mishap::Crash { instance }, true) => front.instances[instance].kill(),
        (Mishap::Ends { instance }, true) => {
            let proxy = Arc::clone(&front.instances[instance]);
            tokio::spawn(async move { proxy.drain(true).await });
        }
        (Mishap::Quits { instance }, true) => {
            let proxy = Arc::clone(&front.instances[instance]);
            tokio::spawn(async move { proxy.drain(false).await });
        }
        // A process that drains for longer than it should be away is killed, as an orchestrator does it.
        (Mishap::Crash { instance } | Mishap::Ends { instance } | Mishap::Quits { instance }, false) => {
            front.instances[instance].kill();
            front.instances[instance].begin();
        }
        (Mishap::Comes { instance }, true) => front.instances[instance].begin(),
        (Mishap::DatabaseForgets, true) => front.forget(),
        (Mishap::DatabaseFallsBack, true) => front.copy(),
        (Mishap::DatabaseFallsBack, false) => front.fall_back(),
        (Mishap::NoDatabase { .. } | Mishap::DatabaseAway { .. }, _) => {
            front.instances.iter().for_each(|instance| instance.look_for_the_database());
        }
        _ => {}
    }
}

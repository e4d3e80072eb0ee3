//! What of a run comes before it is measured: until everything was settled once and every sender has caught up with the clock, and a
//! replica with a backlog with the others. Looks on; sends nothing.

use super::LoadOptions;
use super::sender::{Run, Seat};
use anyhow::bail;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::time::{Instant, Interval, MissedTickBehavior, timeout};

/// A target that has answered nothing for so long since the first request went out is not there. A proxy like this one, whose upstream
/// hangs, says so after 10 s.
const ANSWER_MAX: Duration = Duration::from_secs(12);
/// A warm-up in which nothing is settled for so much longer than two intervals has failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// For so long senders may catch up with the clock: births cost more than what comes later.
const CATCH_UP: Duration = Duration::from_secs(30);
/// How often is looked whether the warm-up is over.
const LOOK: Duration = Duration::from_millis(20);
/// So many intervals the others are live before a replica begins with a backlog.
const ROUNDS_BEFORE_BACKLOG: u64 = 3;

/// Until every series of every replica that has begun was settled once, and what has piled up meanwhile is sent: births and first
/// contacts are not what is measured. Those that are live when another one begins with a backlog have had some rounds: a receiver
/// that has not yet seen how far samples are apart may let the older ones pass first.
///
/// Says whether all senders have caught up with the clock, if there is one. A target that never gets so far is measured as it is.
pub(super) async fn warm_up(options: &LoadOptions, run: &Run) -> anyhow::Result<bool> {
    let target = &options.target;
    let places = tokio::select! {
        places = all_once(options, run) => places?,
        _ = tokio::signal::ctrl_c() => bail!(
            "{target}: interrupted before every series was taken once, so nothing was measured; {}; let it run on, or correct --target",
            run.trouble()
        ),
    };
    if !run.real_time {
        return Ok(true);
    }
    tokio::select! {
        caught_up = timeout(CATCH_UP, all_have_waited(run, places)) => Ok(caught_up.is_ok()),
        _ = tokio::signal::ctrl_c() => bail!(
            "{target}: interrupted before the senders had caught up with the clock, so nothing was measured; let it run on: a target \
             that takes less than is sent is measured after {CATCH_UP:?} as it is"
        ),
    }
}

/// Returns the places of those that have begun.
async fn all_once(options: &LoadOptions, run: &Run) -> anyhow::Result<Vec<usize>> {
    let patience = PATIENCE + if options.saturate { Duration::ZERO } else { options.interval * 2 };
    let (mut settled, mut since) = (0, Instant::now());
    let mut looks = looks();
    let begun = |replica: &usize| Some(*replica) != run.behind;
    let mut places = Vec::new();
    for (group, replica) in
        (0..options.groups).flat_map(|g| (0..options.replicas).filter(begun).map(move |r| (g, r)))
    {
        let rounds = if run.behind.is_some() { ROUNDS_BEFORE_BACKLOG } else { 1 };
        let once = run.schedule(group, replica).first() + rounds * run.schedule(group, replica).round();
        places.extend((0..run.deal.shards).map(|shard| (run.place(Seat { group, replica, shard }), once)));
    }
    let settled_of = |place: usize| run.settled[place].load(Relaxed);
    while places.iter().any(|(place, once)| settled_of(*place) < *once) {
        looks.tick().await;
        let sum = places.iter().map(|(place, _)| settled_of(*place)).sum::<u64>();
        if sum > settled {
            (settled, since) = (sum, Instant::now());
        }
        let target = &options.target;
        if run.silent_for().is_some_and(|silent| silent > ANSWER_MAX) {
            bail!(
                "{target}: no request was answered within {ANSWER_MAX:?}; {}; start the target, or correct --target",
                run.trouble()
            );
        }
        if since.elapsed() > patience {
            bail!("{target} took nothing for {patience:?}; {}", run.trouble());
        }
    }
    Ok(places.into_iter().map(|(place, _)| place).collect())
}

/// Until each of these has had nothing to send that is due.
async fn all_have_waited(run: &Run, places: Vec<usize>) {
    let waits = |place: usize| run.waits[place].load(Relaxed);
    let mut left: Vec<_> = places.into_iter().map(|place| (place, waits(place))).collect();
    let mut looks = looks();
    while !left.is_empty() {
        looks.tick().await;
        left.retain(|&(place, before)| before % 2 == 0 && waits(place) == before);
    }
}

/// Notes when those that are behind no longer are, after so many seconds. Never ends.
pub(super) async fn catch_up(run: &Run, begun: Instant, caught_up_s: &mut Option<f64>) {
    let mut looks = looks();
    let is_live = |group, replica, shard| {
        let settled = run.settled[run.place(Seat { group, replica, shard })].load(Relaxed);
        run.is_live(run.schedule(group, replica).time_ms(settled))
    };
    if let Some(replica) = run.behind {
        let all = || (0..run.fleet.groups()).flat_map(|g| (0..run.deal.shards).map(move |s| (g, s)));
        while !all().all(|(group, shard)| is_live(group, replica, shard)) {
            looks.tick().await;
        }
        *caught_up_s = Some(begun.elapsed().as_secs_f64());
    }
    std::future::pending().await
}

fn looks() -> Interval {
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    looks
}

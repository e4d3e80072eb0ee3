//! Several instances: starts what keeps this one in step with the others, and lets it leave when the process ends.

use crate::config::CoordinationConfig;
use crate::placement::{Keeper, Left, Metrics, Peer, Postgres};
use crate::receive::{Phase, PhaseControl};
use crate::reload::keep_looking;
use anyhow::Context;
use prometheus::Registry;
use ring::rand::{SecureRandom, SystemRandom};
use std::sync::Arc;
use std::time::Duration;

/// Starts it. Must be called within the runtime that outlives the data plane's.
pub(super) fn start(
    config: &CoordinationConfig,
    registry: &Registry,
    left: Left,
) -> anyhow::Result<Arc<Keeper>> {
    let mut random = [0; 16];
    SystemRandom::new().fill(&mut random).ok().context("the system has no random numbers")?;
    let id = u128::from_le_bytes(random);
    // Only the first half is told, since the second is what the dice begin with.
    let me = Peer { id: format!("{:016x}", id >> 64).into(), url: config.advertise_url.as_str().into() };
    tracing::info!(id = &*me.id, url = &*me.url, database = %config.database, "groups are shared with other instances");
    let store = Arc::new(Postgres::start(&config.database, me.clone()));
    let keeper = Keeper::new(me, store, Metrics::register(registry)?, id as u64, left);
    tokio::spawn(Arc::clone(&keeper).run());
    tokio::spawn(keep_looking(vec![config.peer_token.file()]).context("cannot listen to SIGHUP")?);
    Ok(keeper)
}

/// Takes no more groups once the process was asked to end, and leaves all when nothing new is served any more. Never an error: the
/// others find out by themselves, after a while.
pub(super) async fn leave(keeper: Arc<Keeper>, phase: PhaseControl, within: Duration) {
    let mut phase = phase.subscribe();
    for (reached, last) in [(Phase::Leaving, false), (Phase::Draining, true)] {
        if phase.wait_for(|phase| *phase >= reached).await.is_err() {
            return;
        }
        match last {
            false => keeper.drain(),
            true => keeper.leave(within).await,
        }
    }
}

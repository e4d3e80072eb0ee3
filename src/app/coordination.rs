//! Several instances: starts what keeps this one in step with the others, and lets it leave when the process ends.

use crate::config::{Config, CoordinationConfig};
use crate::health::now_ms;
use crate::peers::{PeersConfig, Secret};
use crate::placement::{Keeper, Memory, Metrics, Peer, Postgres};
use crate::receive::{Phase, PhaseControl};
use crate::reload::keep_looking;
use crate::series::GroupKey;
use crate::window::Window;
use anyhow::Context;
use prometheus::Registry;
use ring::rand::{SecureRandom, SystemRandom};
use std::sync::Arc;
use std::time::Duration;

/// How much longer a hop may take than what it waits for at most: for the flight before it, and its own attempt at the upstream.
const HOP_MORE: Duration = Duration::from_secs(2);

/// How the other instances are reached.
pub(super) fn peers(coordination: &CoordinationConfig, config: &Config) -> PeersConfig {
    PeersConfig {
        timeout: 2 * config.forward.timeout + HOP_MORE,
        tls: Some(coordination.peer_tls.clone()),
        server_name: coordination.peer_server_name.clone(),
        tenant_header: config.receive.tenant_header.clone(),
        connections_max: config.forward.connections_max,
        pools: config.forward.pools,
    }
}

/// The secret between instances, as its file says.
pub(super) fn secret(config: &CoordinationConfig) -> Secret {
    let token = config.peer_token.clone();
    Secret::new(move || Some(token.current()))
}

/// Starts it. Must be called within the runtime that outlives the data plane's.
pub(super) fn start(
    config: &CoordinationConfig,
    registry: &Registry,
    window: Arc<Window>,
) -> anyhow::Result<Arc<Keeper>> {
    let memory = Arc::new(Remembered(window));
    let mut random = [0; 16];
    SystemRandom::new().fill(&mut random).ok().context("the system has no random numbers")?;
    let id = u128::from_le_bytes(random);
    // Only the first half is told, since the second is what the dice begin with.
    let me = Peer { id: format!("{:016x}", id >> 64).into(), url: config.advertise_url.as_str().into() };
    tracing::info!(id = &*me.id, url = &*me.url, database = %config.database, "groups are shared with other instances");
    let store = Arc::new(Postgres::start(&config.database, me.clone()));
    let keeper = Keeper::new(me, store, Metrics::register(registry)?, id as u64, memory);
    let running = tokio::spawn(Arc::clone(&keeper).run());
    tokio::spawn(async move {
        if let Err(error) = running.await
            && error.is_panic()
        {
            tracing::error!(%error, "placement ended in a panic: so does this process, since others take its groups over");
            std::process::exit(1);
        }
    });
    tokio::spawn(keep_looking(vec![config.peer_token.file()]).context("cannot listen to SIGHUP")?);
    Ok(keeper)
}

/// The window, as placement knows it.
struct Remembered(Arc<Window>);

/// So many entries are looked at in one go.
const STEP: u32 = 1 << 16;

impl Memory for Remembered {
    fn is_needed(&self, group: GroupKey) -> bool {
        let (mut from, now_ms) = (0, now_ms());
        loop {
            match self.0.is_overdue(group, from, STEP, now_ms) {
                (true, _) => return true,
                (false, 0) => return false,
                (false, next) => from = next,
            }
        }
    }

    /// It may come back: nothing may be known of it then.
    fn forget(&self, group: GroupKey) {
        let mut from = self.0.forget_group(group, 0, STEP);
        while from != 0 {
            from = self.0.forget_group(group, from, STEP);
        }
    }
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

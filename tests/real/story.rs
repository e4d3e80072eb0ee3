//! The stories: what goes wrong on the stage, and what must be seen of it while it does. The verdict is the stage's.

use crate::process::{PATIENCE, eventually};
use crate::stage::{INTERVAL_MS, Stage};
use crate::targets::Off;
use promdedup::stand_in::now_ms;
use std::time::Duration;

/// Names of the replicas by number.
const NAMES: [&str; 3] = ["a", "b", "c"];
/// How long upstream is away: first gone, then there and unwell.
const AWAY: Duration = Duration::from_secs(30);

impl Stage {
    /// Nothing changes its owner but series that end.
    pub(crate) async fn be_healthy(&mut self) {
        for replica in 0..self.replicas.len() {
            self.wait_for_more(replica, 0.0).await;
        }
        let probe = self.probe("node");
        eventually("the first sample arrives", PATIENCE, async || self.upstream.newest_ms(&probe).await)
            .await;
        // What was held back, or waited for its sender to try again, has arrived by then, and targets that were split are not.
        self.unite(0).await;
        let before = self.changes().await;
        self.say(&format!("all deliver, {before} changes of owners to begin with"));
        self.settle(3).await;
        let changes = self.changes().await - before;
        self.expect(changes == 0.0, &format!("healthy, but {changes} changes of owners"));
    }

    /// The owner of a target does not reach it any more, the others do.
    pub(crate) async fn lose_a_target_in_its_owner(&mut self, off: fn(String) -> Off) {
        let owner = self.owner_of(&self.probe("switch")).await;
        let moves = self.moves().await;
        self.target("switch").switch(off(NAMES[owner].to_owned()));
        self.settle(3).await;
        self.target("switch").switch(Off::Nobody);
        self.settle(1).await;
        let moved = self.moves().await - moves;
        self.say(&format!("a target was gone for its owner {}, {moved} targets moved", NAMES[owner]));
        self.expect(moved > 0.0, "a target stays with a replica that lost it");
    }

    /// A replica that does not own a target does not reach it any more: nothing is to be seen of that, but its alert. Nobody else has
    /// the two series of that (`ALERTS`, `ALERTS_FOR_STATE`), so they become its own.
    pub(crate) async fn lose_a_target_in_a_standby(&mut self, off: fn(String) -> Off) {
        let owner = self.owner_of(&self.probe("switch")).await;
        let standby = (owner + 1) % self.replicas.len();
        let (changes, moves) = (self.changes().await, self.moves().await);
        self.target("switch").switch(off(NAMES[standby].to_owned()));
        self.settle(3).await;
        self.target("switch").switch(Off::Nobody);
        self.settle(2).await;
        let (changes, moves) = (self.changes().await - changes, self.moves().await - moves);
        self.say(&format!("a target was gone for the standby {}", NAMES[standby]));
        self.expect(changes <= 2.0, &format!("a standby lost a target, and {changes} owners changed"));
        self.expect(moves == 0.0, &format!("a standby lost a target, and {moves} targets moved"));
        let owner_after = self.owner_of(&self.probe("switch")).await;
        self.expect(owner_after == owner, "a standby lost a target, and owns it");
    }

    /// The owner of most is killed; another takes over; the killed one returns to its data.
    pub(crate) async fn lose_a_replica(&mut self) {
        let owner = self.owner().await;
        let moves = self.moves().await;
        self.kill(owner).await;
        self.wait_for_moves(moves).await;
        // Longer than two of the slow target's intervals.
        self.settle(3).await;
        self.revive(owner).await;
    }

    /// The owner of most stands still, and goes on as if nothing had been.
    pub(crate) async fn freeze_a_replica(&mut self) {
        let owner = self.owner().await;
        let moves = self.moves().await;
        self.replicas[owner].freeze();
        self.say(&format!("{} stands still", NAMES[owner]));
        self.wait_for_moves(moves).await;
        self.settle(3).await;
        let received = self.received(owner).await;
        self.replicas[owner].thaw();
        self.wait_for_more(owner, received).await;
        self.say(&format!("{} goes on", NAMES[owner]));
        self.settle(2).await;
    }

    /// Upstream is away for a minute: nobody listens, then it answers 503. The replicas keep what they have.
    pub(crate) async fn lose_upstream(&mut self) {
        let from_ms = now_ms() - 2 * INTERVAL_MS;
        self.upstream.go_down().await;
        let stored = self.upstream.samples().await;
        self.say("upstream is gone");
        // What the story is about is this time itself.
        tokio::time::sleep(AWAY).await;
        self.upstream.come_back_unwell().await;
        self.say("upstream is back and answers 503");
        tokio::time::sleep(AWAY).await;
        let more = self.upstream.samples().await - stored;
        self.expect(more == 0.0, &format!("upstream was away, and has {more} samples more"));
        self.upstream.recover();
        self.say("upstream is well");
        self.deliver().await;
        self.say("everything is delivered");
        self.unite(from_ms).await;
    }

    /// The proxy is asked to end, and starts again with an empty window.
    pub(crate) async fn restart_the_proxy(&mut self) {
        let from_ms = now_ms() - 2 * INTERVAL_MS;
        self.proxy.terminate().await;
        self.say("the proxy has ended");
        self.restart_proxy().await;
        self.say("the proxy is back");
        self.deliver().await;
        self.unite(from_ms).await;
    }

    /// The proxy is killed, and starts again with an empty window.
    pub(crate) async fn kill_the_proxy(&mut self) {
        let from_ms = now_ms() - 2 * INTERVAL_MS;
        self.proxy.kill();
        self.say("the proxy was killed");
        self.restart_proxy().await;
        self.say("the proxy is back");
        self.deliver().await;
        self.unite(from_ms).await;
    }

    async fn wait_for_moves(&self, moves: f64) {
        let took_over = async || (self.moves().await > moves).then_some(());
        eventually("another replica takes over", PATIENCE, took_over).await;
    }
}

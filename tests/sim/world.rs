//! The world around the proxy: what reaches what, and how things stand at the moment. The director changes it.

use crate::dice::Dice;
use crate::history::History;
use crate::story::{Fault, Sick, Story, What};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) story: Story,
    began: Instant,
    pub(crate) rest: Arc<Rest>,
    history: Mutex<History>,
    state: Mutex<State>,
    /// By replica: stopped in the middle of things.
    frozen: Vec<watch::Sender<bool>>,
}

/// How things stand.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) dice: Dice,
    pub(crate) links: Vec<LinkState>,
    pub(crate) sick: Option<Sick>,
    /// What is wrong.
    pub(crate) faults: Vec<Fault>,
    /// By replica: sets of targets.
    pub(crate) skipped: Vec<u64>,
    pub(crate) unreachable: Vec<u64>,
    pub(crate) removed: Vec<u64>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LinkState {
    pub(crate) cut: bool,
    pub(crate) flaky: bool,
    pub(crate) delay_ms: i64,
}

impl World {
    pub(crate) fn new(story: Story, told: Option<usize>, rest: Arc<Rest>) -> Self {
        let replicas = story.replicas.len();
        let mut history = History::of(&story);
        history.told = told;
        let state = State {
            dice: Dice::new(story.seed, 1),
            links: vec![LinkState::default(); replicas],
            sick: None,
            faults: vec![],
            skipped: vec![0; replicas],
            unreachable: vec![0; replicas],
            removed: vec![0; replicas],
        };
        Self {
            story,
            began: Instant::now(),
            rest,
            history: Mutex::new(history),
            state: Mutex::new(state),
            frozen: (0..replicas).map(|_| watch::Sender::new(false)).collect(),
        }
    }

    pub(crate) fn now_ms(&self) -> i64 {
        self.began.elapsed().as_millis() as i64
    }

    pub(crate) fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap()
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) async fn until(&self, at_ms: i64) {
        tokio::time::sleep_until(self.began + Duration::from_millis(at_ms.max(0) as u64)).await;
    }

    pub(crate) async fn pause(&self, for_ms: i64) {
        tokio::time::sleep(Duration::from_millis(for_ms.max(0) as u64)).await;
    }

    /// Ends when the replica is not stopped.
    pub(crate) async fn thawed(&self, replica: usize) {
        let mut frozen = self.frozen[replica].subscribe();
        frozen.wait_for(|frozen| !frozen).await.unwrap();
    }

    /// Begins or ends a fault of the world. Those of processes are not its business.
    pub(crate) fn change(&self, fault: &Fault, begins: bool) {
        let mut state = self.state();
        match begins {
            true => state.faults.push(*fault),
            false => state.faults.retain(|other| other.at_ms != fault.at_ms || other.what != fault.what),
        }
        let set =
            |bits: &mut u64, targets: u64| *bits = if begins { *bits | targets } else { *bits & !targets };
        match fault.what {
            What::Partition { replica } => state.links[replica].cut = begins,
            What::Flaky { replica } => state.links[replica].flaky = begins,
            What::Slow { replica, delay_ms } => {
                state.links[replica].delay_ms = if begins { delay_ms } else { 0 };
            }
            What::Skipped { replica, targets } => set(&mut state.skipped[replica], targets),
            What::Unreachable { replica, targets } => set(&mut state.unreachable[replica], targets),
            What::Removed { replica, targets } => set(&mut state.removed[replica], targets),
            What::Upstream(sick) => state.sick = begins.then_some(sick),
            What::Frozen { replica } => drop(self.frozen[replica].send_replace(begins)),
            What::Death { .. }
            | What::Reshard { .. }
            | What::ProxyTerm
            | What::ProxyCrash
            | What::Fleet(_) => {}
        }
    }
}

/// Whether the one thread of a story has nothing to do. What other threads do for it is done then, so that it happens in the same
/// order each time.
#[derive(Debug, Default)]
pub(crate) struct Rest {
    rests: Mutex<bool>,
    changed: Condvar,
}

impl Rest {
    pub(crate) fn set(&self, rests: bool) {
        *self.rests.lock().unwrap() = rests;
        self.changed.notify_all();
    }

    pub(crate) fn wait(&self) {
        let rests = self.rests.lock().unwrap();
        drop(self.changed.wait_while(rests, |rests| !*rests).unwrap());
    }
}

//! One instance among several: its placement, and the simulated way from it to the others.
//!
//! Owns what becomes of a hop on its way, and that a process that was killed does nothing any more. Answers mean what they mean to
//! the real client (`src/peers/client.rs`).

use crate::database::{Database, reach};
use crate::front::Front;
use crate::history::EPOCH_MS;
use crate::story::{Mishap, What};
use crate::upstream::{Door, TIMEOUT};
use crate::world::World;
use axum::body::Body;
use http_body_util::BodyExt;
use promdedup::config::PeerSecrets;
use promdedup::forward::WRITTEN;
use promdedup::peers::{Hop, Hopped, MISDIRECTED, PEER_HEADER, Peers, Said, Secret};
use promdedup::pipeline::Pipeline;
use promdedup::placement::store::Store;
use promdedup::placement::{Asking, Keeper, Memory, Metrics, Peer};
use promdedup::series::GroupKey;
use promdedup::stand_in::coordination::{Reach, Tables};
use promdedup::window::Window;
use prometheus::Registry;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::task::JoinHandle;

/// As the real client has it (`src/peers/client.rs`).
const UNCONFIRMED_MAX_MS: i64 = 5_000;
const SECRET: &str = "a-secret-of-instances";

/// The place of an instance among the others, whichever process has it.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) number: usize,
    pub(crate) tables: Tables,
    pub(crate) front: Weak<Front>,
}

/// A process among the others.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    number: usize,
    pub(crate) keeper: Arc<Keeper>,
    database: Arc<Database>,
    running: Arc<JoinHandle<()>>,
}

/// The way from one process to the others.
#[derive(Debug)]
struct Ways {
    from: usize,
    world: Arc<World>,
    front: Weak<Front>,
    dead: Arc<AtomicBool>,
}

impl Seat {
    /// A new process joins the others.
    pub(crate) fn join(
        &self,
        world: &Arc<World>,
        life: u64,
        pipeline: Pipeline<Door>,
        registry: &Registry,
        dead: &Arc<AtomicBool>,
    ) -> (Pipeline<Door>, Member) {
        let ahead_ms = world.story.fleet.as_ref().map_or(0, |fleet| fleet.ahead_ms[self.number]);
        let me = Peer { id: format!("i{}-{life}", self.number).into(), url: url(self.number).into() };
        let store = self.tables.store(me.clone());
        store.set_reach(reach(world, self.number));
        let database = Arc::new(Database { world: Arc::clone(world), store });
        let memory = Arc::new(Remembered {
            window: Arc::clone(pipeline.window()),
            world: Arc::clone(world),
            ahead_ms,
        });
        let seed = world.story.seed ^ (self.number as u64) << 32 ^ life;
        let store = Arc::clone(&database) as Arc<dyn Store>;
        let keeper = Keeper::new(me, store, Metrics::register(registry).unwrap(), seed, memory);
        let ways = Ways {
            from: self.number,
            world: Arc::clone(world),
            front: Weak::clone(&self.front),
            dead: Arc::clone(dead),
        };
        let running = Arc::new(tokio::spawn(Arc::clone(&keeper).run()));
        let placed = pipeline.with_placement(Arc::clone(&keeper) as _, Arc::new(ways));
        (placed, Member { number: self.number, keeper, database, running })
    }
}

impl Member {
    /// The database is reached as it is now.
    pub(crate) fn look_for_the_database(&self) {
        self.database.store.set_reach(reach(&self.database.world, self.number));
    }

    /// SIGKILL: whatever still runs of it reaches nobody.
    pub(crate) fn kill(&self) {
        self.running.abort();
        self.database.store.set_reach(Reach::Silent);
    }
}

/// The window of a process, as `app` shows it to placement.
struct Remembered {
    window: Arc<Window>,
    world: Arc<World>,
    ahead_ms: i64,
}

impl Memory for Remembered {
    fn is_needed(&self, group: GroupKey) -> bool {
        self.world.rest.wait();
        let now_ms = EPOCH_MS + self.world.now_ms() + self.ahead_ms;
        self.window.is_overdue(group, 0, u32::MAX, now_ms).0
    }

    fn forget(&self, group: GroupKey) {
        self.world.rest.wait();
        assert_eq!(self.window.forget_group(group, 0, u32::MAX), 0);
    }
}

fn url(number: usize) -> String {
    format!("http://i{number}:19291")
}

impl Ways {
    /// Whether two instances do not reach each other, and if so whether they notice at once.
    fn apart(&self, to: usize) -> Option<bool> {
        self.world.state().faults.iter().find_map(|fault| match fault.what {
            What::Fleet(Mishap::Apart { one, other, hangs })
                if [(one, other), (other, one)].contains(&(self.from, to)) =>
            {
                Some(hangs)
            }
            What::Fleet(Mishap::Unreached { instance, hangs }) if instance == to => Some(hangs),
            What::Fleet(Mishap::Lies { instance }) if instance == to => Some(false),
            _ => None,
        })
    }

    fn lies(&self) -> bool {
        self.world.state().faults.iter().any(|fault| matches!(fault.what, What::Fleet(Mishap::Lies { .. })))
    }

    /// `noticed_ms`: when the real client notices that nothing gets through any more.
    async fn way(&self, to: usize, noticed_ms: i64) -> Result<(), String> {
        let way_ms = {
            let hop_ms = self.world.story.fleet.as_ref().map_or(0, |fleet| fleet.hop_ms);
            self.world.state().dice.of(0..=hop_ms)
        };
        self.world.pause(way_ms).await;
        if self.dead.load(Relaxed) {
            std::future::pending::<()>().await;
        }
        match self.apart(to) {
            Some(true) => {
                self.world.pause(noticed_ms).await;
                Err("connection timed out".to_owned())
            }
            Some(false) => Err("connection refused".to_owned()),
            None => Ok(()),
        }
    }

    async fn attempt(&self, peer: &Peer, hop: Hop) -> Result<Hopped, String> {
        let front = self.front.upgrade().ok_or("the story is over")?;
        let to = (0..front.instances.len()).find(|number| url(*number) == *peer.url).unwrap();
        self.way(to, UNCONFIRMED_MAX_MS).await?;
        let headers = [(PEER_HEADER, SECRET)];
        let called = front.instances[to].call(hop.body, hop.retry_attempt, &headers).await;
        // Nothing is left to be confirmed, so a probe is sent first.
        self.way(to, 2 * UNCONFIRMED_MAX_MS).await?;
        Ok(judge(called.ok_or("connection refused or reset")?).await)
    }
}

async fn judge(response: http::Response<Body>) -> Hopped {
    let (head, body) = response.into_parts();
    let text = String::from_utf8_lossy(&body.collect().await.unwrap().to_bytes()).trim_end().to_owned();
    let number = |name: &str| head.headers.get(name)?.to_str().ok()?.parse::<u64>().ok();
    let written = WRITTEN.map(number);
    match (head.status.as_u16(), written) {
        (MISDIRECTED, _) => Hopped::Misdirected,
        (status @ (204 | 400 | 413), [Some(samples), Some(histograms), Some(exemplars)]) => {
            let written = [samples, histograms, exemplars];
            Hopped::Answered(Said { status, text, retry_after_s: None, written })
        }
        (503, _) => {
            let retry_after_s = number("retry-after").map(|seconds| seconds as u32);
            Hopped::Answered(Said { status: 503, text, retry_after_s, written: [0; 3] })
        }
        (status, _) => Hopped::Refused { status, text },
    }
}

impl Peers for Ways {
    fn pass<'a>(&'a self, peer: &'a Peer, hop: Hop) -> Asking<'a, Hopped> {
        Box::pin(async move {
            // As `app` has it.
            let patience = 2 * TIMEOUT + Duration::from_secs(2);
            let hopped = tokio::time::timeout(patience, self.attempt(peer, hop)).await;
            match hopped.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
                Ok(hopped) => hopped,
                Err(_) if self.lies() => Hopped::Answered(Said {
                    status: 204,
                    text: String::new(),
                    retry_after_s: None,
                    written: [0; 3],
                }),
                Err(error) => Hopped::Unreached { error },
            }
        })
    }

    fn secret(&self) -> Secret {
        let secrets = Arc::new(PeerSecrets::of(SECRET).unwrap());
        Secret::new(move || Some(Arc::clone(&secrets)))
    }
}

//! The data plane's threads: one runtime a thread, and a connection stays on the thread it was given to.

use super::connection::Connections;
use super::phase::Phase;
use super::places::{Place, Places};
use super::routes::{Room, router};
use super::tls::Tls;
use super::{ReceiveError, Serve};
use crate::config::ReceiveConfig;
use crate::overhead::{CpuTime, ThreadTime};
use crate::socket::{Counted, Traffic};
use crate::telemetry::LimitHits;
use axum::Router;
use std::io;
use std::net::TcpStream as StdTcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout_at};

/// Connections waiting to be taken over by a thread: all shards of some senders, which come at once after a restart.
const HANDOVER_MAX: usize = 1024;
/// After an `accept` that failed, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// What open connections are given to write their last answer, at least.
const CLOSING_MIN: Duration = Duration::from_millis(500);
/// How often a thread says how much CPU time it has used. It also does at the end of each request.
const CPU_EVERY: Duration = Duration::from_secs(1);

/// The threads, from the acceptor's side.
#[derive(Debug)]
pub(super) struct DataPlane {
    threads: Vec<Thread>,
    places: Places,
}

/// A connection on its way to a thread, with its place.
type Accepted = (StdTcpStream, Place);

#[derive(Debug)]
struct Thread {
    /// None: nothing more is handed over, so the thread ends with its last connection.
    connections: Option<mpsc::Sender<Accepted>>,
    open: Arc<AtomicUsize>,
    ended: oneshot::Receiver<()>,
}

impl DataPlane {
    pub(super) fn start<S: Serve>(
        config: &ReceiveConfig,
        room: &Arc<Room<S>>,
        tls: Option<&Arc<Tls>>,
        traffic: &Traffic,
        cpu: &CpuTime,
        limits: &LimitHits,
        phase: watch::Receiver<Phase>,
    ) -> Result<Self, ReceiveError> {
        let connections = Connections::new(config, tls, limits);
        let start = |number| {
            let plane = Plane {
                router: router(Arc::clone(room), phase.clone()),
                connections: connections.clone(),
                traffic: traffic.clone(),
                phase: phase.clone(),
                open: Arc::default(),
            };
            Thread::start(number, plane, cpu.clone()).map_err(|error| ReceiveError::Thread { number, error })
        };
        let threads = (0..config.workers).map(start).collect::<Result<_, _>>()?;
        Ok(Self { threads, places: Places::new(config, limits) })
    }

    /// Accepts for as long as it is polled.
    pub(super) async fn accept(&self, listener: &TcpListener) {
        loop {
            match listener.accept().await {
                // Dropped, it is closed.
                Ok((stream, from)) => match self.places.take(from.ip()) {
                    Some(place) => self.hand_over(stream, place),
                    None => tracing::debug!(%from, "a connection too many"),
                },
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// To the thread with the fewest open connections. If even that one takes no more, the connection is closed.
    fn hand_over(&self, stream: TcpStream, place: Place) {
        let Some(thread) = self.threads.iter().min_by_key(|thread| thread.open.load(Ordering::Relaxed))
        else {
            return;
        };
        // Taken out of this thread's runtime, to be watched by the other's.
        let Ok(stream) = stream.into_std() else { return };
        thread.open.fetch_add(1, Ordering::Relaxed);
        let accepted = (stream, place);
        if thread.connections.as_ref().is_none_or(|connections| connections.try_send(accepted).is_err()) {
            thread.open.fetch_sub(1, Ordering::Relaxed);
            self.places.refuse();
        }
    }

    /// Waits for the threads to close their connections.
    pub(super) async fn close(&mut self, deadline: Instant) {
        let deadline = deadline.max(Instant::now() + CLOSING_MIN);
        for thread in &mut self.threads {
            thread.connections = None;
        }
        for thread in &mut self.threads {
            if timeout_at(deadline, &mut thread.ended).await.is_err() {
                tracing::warn!("connections of a data-plane thread were cut");
            }
        }
    }
}

impl Thread {
    fn start(number: usize, plane: Plane, cpu: CpuTime) -> io::Result<Self> {
        let (connections, handed_over) = mpsc::channel(HANDOVER_MAX);
        let (end, ended) = oneshot::channel();
        let open = Arc::clone(&plane.open);
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name(format!("promdedup-data-{number}")).spawn(move || {
            let time = cpu.join();
            runtime.block_on(async {
                tokio::select! {
                    () = plane.run(handed_over) => {}
                    () = publish(&time) => {}
                }
            });
            runtime.shutdown_background(); // a name lookup that hangs must not hold the process
            let _ = end.send(());
        })?;
        Ok(Self { connections: Some(connections), open, ended })
    }
}

/// Never ends.
async fn publish(time: &ThreadTime) {
    let mut ticks = interval(CPU_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        time.publish();
    }
}

/// A thread from its own side.
struct Plane {
    router: Router,
    connections: Connections,
    traffic: Traffic,
    phase: watch::Receiver<Phase>,
    open: Arc<AtomicUsize>,
}

impl Plane {
    async fn run(mut self, mut handed_over: mpsc::Receiver<Accepted>) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = handed_over.recv() => match accepted {
                    Some(accepted) => self.open(accepted, &mut connections),
                    None => break,
                },
                Some(_) = connections.join_next() => {}
            }
        }
        tokio::select! {
            () = async { while connections.join_next().await.is_some() {} } => {}
            () = reached(&mut self.phase, Phase::Ended) => {} // time is over: what is left is dropped
        }
    }

    fn open(&self, (stream, place): Accepted, connections: &mut JoinSet<()>) {
        let slot = (OpenSlot(Arc::clone(&self.open)), place);
        let stream = match TcpStream::from_std(stream) {
            Ok(stream) => stream,
            Err(error) => return tracing::warn!(%error, "cannot take over a connection"),
        };
        if let Err(error) = stream.set_nodelay(true) {
            return tracing::debug!(%error, "a connection was gone at once");
        }
        let stream = Counted::new(stream, self.traffic.clone());
        let connection = self.connections.clone();
        let (router, phase) = (self.router.clone(), self.phase.clone());
        connections.spawn(async move {
            connection.serve(stream, router, phase).await;
            drop(slot);
        });
    }
}

/// Counts a connection as open until dropped.
struct OpenSlot(Arc<AtomicUsize>);

impl Drop for OpenSlot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Ends when the phase is that far. The guard of the phase must not live across an await point.
pub(super) async fn reached(phase: &mut watch::Receiver<Phase>, wanted: Phase) {
    drop(phase.wait_for(|phase| *phase >= wanted).await);
}
